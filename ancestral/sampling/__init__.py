"""Walks that end in data: sampling, completion and moves in latent space."""

from __future__ import annotations

from ancestral.sampling.complete import Completion, complete
from ancestral.sampling.interpolate import interpolate, traverse
from ancestral.sampling.parallel import Sampled, parallel_sample
from ancestral.sampling.sample import METHODS, sample, sample_with_image

__all__ = [
    "METHODS",
    "Completion",
    "Sampled",
    "complete",
    "interpolate",
    "parallel_sample",
    "sample",
    "sample_with_image",
    "traverse",
]
