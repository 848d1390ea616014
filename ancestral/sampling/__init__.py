"""Walks that end in data: sampling, completion and moves in latent space."""

from __future__ import annotations

from ancestral.sampling.beam import Beams, beam_search
from ancestral.sampling.complete import Completion, complete
from ancestral.sampling.interpolate import interpolate, shift, traverse
from ancestral.sampling.log_probs import LogProbs, log_probs
from ancestral.sampling.parallel import Sampled, parallel_sample
from ancestral.sampling.sample import METHODS, decoded_means, sample
from ancestral.sampling.speculative import Speculated, speculative_sample
from ancestral.sampling.strategies import Interrupted, arrange
from ancestral.sampling.stream import stream

__all__ = [
    "METHODS",
    "Beams",
    "Completion",
    "Interrupted",
    "LogProbs",
    "Sampled",
    "Speculated",
    "arrange",
    "beam_search",
    "complete",
    "decoded_means",
    "interpolate",
    "log_probs",
    "parallel_sample",
    "sample",
    "shift",
    "speculative_sample",
    "stream",
    "traverse",
]
