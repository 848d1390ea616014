"""How fast a stage learns: as planned, until its gradients blow up."""

from __future__ import annotations

from math import log
from typing import Any

USUAL, NOW = 0.99, 0.7  # how much of themselves the means over some hundred steps, and over some three, keep a step
BLOWN = log(30.0)  # how far the second is above the first; one gradient alone would have to be 80,000 times the usual
FIRST = 100  # steps after which it is known what is usual
MOST = 8  # times that a stage slows down


class Pace:
    """Notices that gradients blow up, as they do where a step went too far and each one after it goes further.

    A learning rate that serves a model for thousands of steps can be too high for one of them; within ten more every gradient
    is a million times what it was, and the model lost. Clipping hardly helps, as Adam does not know how long a gradient is, and
    to skip such steps (Child 2021, "Very Deep VAEs") only where the weights are still good. So the stage goes back to the average
    of its weights, which ten steps cannot spoil, and on at half the rate.

    Attributes:
        factor: of the learning rate.
        usual, now: means of log |gradient| over many steps and over few.
        steps: how many these are of.
    """

    def __init__(self) -> None:
        self.factor, self.usual, self.now, self.steps = 1.0, 0.0, 0.0, 0

    @property
    def spent(self) -> bool:
        """Whether it has slowed down so often that something else must be wrong."""
        return self.factor < 0.5**MOST

    def blown(self, norm: float) -> bool:
        """Take notice of a step's gradient; whether this and those before it are far above the usual."""
        size = log(max(norm, 1e-30))
        if self.steps == 0:
            self.usual = self.now = size
        self.usual = USUAL * self.usual + (1 - USUAL) * size
        self.now = NOW * self.now + (1 - NOW) * size
        self.steps += 1
        return self.steps > FIRST and self.now - self.usual > BLOWN

    def slow(self) -> None:
        """From now on at half the rate."""
        self.factor, self.now = self.factor / 2, self.usual

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return vars(self).copy()

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what ``state`` gave."""
        vars(self).update(state)
