"""Walks that end in data: sampling, completion and moves in latent space."""

from __future__ import annotations

from ancestral.sampling.complete import Completion, complete
from ancestral.sampling.interpolate import interpolate, traverse
from ancestral.sampling.parallel import Sampled, parallel_sample
from ancestral.sampling.sample import METHODS, decoded_means, sample
from ancestral.sampling.strategies import Interrupted, arrange

__all__ = [
    "METHODS",
    "Completion",
    "Interrupted",
    "Sampled",
    "arrange",
    "complete",
    "decoded_means",
    "interpolate",
    "parallel_sample",
    "sample",
    "traverse",
]
