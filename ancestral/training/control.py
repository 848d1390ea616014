"""What a stage learns on the way: the weight of the KL under soft free bits, when the encoder has caught up, and its pace.

All are state beside the weights: they lie in checkpoints, so that a resumed run is the same run.
"""

from __future__ import annotations

from math import inf, log
from typing import Any

import torch
from torch import Tensor, nn

from ancestral.data.splits import Splits
from ancestral.evaluation.examples import chosen_examples
from ancestral.evaluation.latents import most_information, mutual_information
from ancestral.evaluation.rate_distortion import rate_distortion
from ancestral.hub import Model
from ancestral.latent.charge import softened
from ancestral.latent.latent import Latent
from ancestral.latent.topdown import Noise
from ancestral.objectives import label_context
from ancestral.sampling.strategies import inference
from ancestral.training.batches import VALIDATION
from ancestral.training.config import TrainingConfig
from ancestral.training.pace import Pace
from ancestral.training.stages import Planned

CHECKS, PATIENCE = 25, 3  # how often in a stage the information is measured, and how often it may fail to rise


class Control:
    """Decides, step by step, what the KL weighs, which weights rest, and how fast the others learn.

    Soft free bits: see `ancestral.latent.charge.softened`. Aggressive training of the encoder (He et al. 2019, "Lagging Inference
    Networks and Posterior Collapse"): ``config.aggressive`` steps train what only the posterior uses, then one all the rest,
    and so on, until I(x; z) on validation examples has not risen three times in a row; from then on everything trains together.

    Attributes:
        gamma: factor of the KL's weight.
        best, waited: the largest information so far, in nats, and how many measurements since did not exceed it.
        pace: see `ancestral.training.pace.Pace`.
    """

    def __init__(self, model: Model, planned: Planned, data: Splits, config: TrainingConfig) -> None:
        self.model, self.planned, self.data, self.config = model, planned, data, config
        self.target = planned.stage.options.get("soft_free_bits", 0.0)
        self.gamma, self.best, self.waited, self.pace = 1.0, -inf, 0, Pace()
        whole = not planned.stage.parts or "topdown" in planned.stage.parts
        possible = config.aggressive and isinstance(model, Latent) and whole and planned.stage.objective != "nll"
        self.inference = inference_weights(model) if possible and isinstance(model, Latent) else []
        self._encoding = {id(weight) for weight in self.inference}

    @property
    def aggressive(self) -> bool:
        """Whether the encoder is still trained ahead of the rest."""
        return bool(self._encoding) and self.waited < PATIENCE

    def rests(self, weight: nn.Parameter, step: int) -> bool:
        """Whether a weight stays as it is in the step that follows ``step`` others."""
        if not self.aggressive:
            return False
        encoding = step % (self.config.aggressive + 1) < self.config.aggressive
        return (id(weight) in self._encoding) is not encoding

    def charge(self, rate: float) -> None:
        """Take notice of a step's mean rate, in nats."""
        if self.target:
            self.gamma = softened(self.gamma, rate, self.target)

    def measure(self, step: int) -> bool:
        """After a step, see whether it is time to measure what z tells; whether that ends the encoder's lead."""
        if not self.aggressive or step * CHECKS // self.planned.steps == (step - 1) * CHECKS // self.planned.steps:
            return False
        value = information(self.model, self.data, self.config)
        self.waited = 0 if value > self.best else self.waited + 1
        self.best = max(self.best, value)
        return not self.aggressive

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"gamma": self.gamma, "best": self.best, "waited": self.waited, "pace": self.pace.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what ``state`` gave."""
        self.gamma, self.best, self.waited = state["gamma"], state["best"], state["waited"]
        self.pace.restore(state.get("pace", {}))  # which all have that were written since there is such a thing


def inference_weights(model: Latent) -> list[nn.Parameter]:
    """The weights that only the posterior uses: those on which neither the prior nor what is decoded from z depends."""
    weights = [weight for weight in model.topdown.parameters() if weight.requires_grad]
    labels = torch.zeros(2, dtype=torch.long, device=model.anchor.device) if model.conditional else None
    context = label_context(labels, model.spec, model.anchor)
    with torch.enable_grad():
        descent = model.topdown.descend(Noise(0, range(2)), context=context, n=2)
        parts = [part for part in vars(descent.features).values() if isinstance(part, Tensor) and part.requires_grad]
        made = [*parts, *(group.log_p for group in descent.groups)]
        total = sum((part.sum() for part in made), torch.zeros((), device=model.anchor.device))
        if not total.requires_grad:  # nothing is learned on the way from z to what the likelihood sees
            return weights
        used = torch.autograd.grad(total, weights, allow_unused=True)
    return [weight for weight, gradient in zip(weights, used, strict=True) if gradient is None]


def information(model: Model, data: Splits, config: TrainingConfig) -> float:
    """I(x; z) in nats on at most 500 validation examples; where it cannot be had, the mean rate, which is never less."""
    if not isinstance(model, Latent):
        raise ValueError("only a model with latents has information in them")
    chosen, _ = chosen_examples(model, data, "validation", min(VALIDATION, len(data.validation)), config.seed)
    with inference(model):
        value = mutual_information(model, chosen, config.seed, config.batch_size)
        if value is None or most_information(len(chosen), chosen.labels) < log(2):
            return float(rate_distortion(model, chosen, config.seed, config.batch_size, lambda _: None).rate.mean())
    return value
