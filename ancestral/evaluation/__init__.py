"""How good a model is, and what its latents carry: every figure with its status, on examples that are named."""

from __future__ import annotations

from ancestral.evaluation.complexity import complexity
from ancestral.evaluation.evaluate import evaluate
from ancestral.evaluation.outside import Separation, separation
from ancestral.evaluation.paired import Difference, compare
from ancestral.evaluation.quality import Quality, quality
from ancestral.evaluation.result import Evaluation
from ancestral.evaluation.score import Scores, score, surprisal
from ancestral.evaluation.study import Study, study
from ancestral.evaluation.summary import summary
from ancestral.evaluation.wording import Wording, wording

__all__ = [
    "Difference",
    "Evaluation",
    "Quality",
    "Scores",
    "Separation",
    "Study",
    "Wording",
    "compare",
    "complexity",
    "evaluate",
    "quality",
    "score",
    "separation",
    "study",
    "summary",
    "surprisal",
    "wording",
]
