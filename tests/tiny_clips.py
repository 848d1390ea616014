"""Tiny models of text and sound, and files for them."""

from __future__ import annotations

import struct

import torch

import ancestral
from ancestral.core import Autoregressive

TEXT = ancestral.DataSpec("text", (None,), levels=257, end=256)
BLOCKS = ancestral.DataSpec("text", (40,), levels=256)
SOUND = ancestral.DataSpec("audio", (64,), levels=256, parts=2)


def wavenet(spec: ancestral.DataSpec, seed: int = 0, **fields: object) -> Autoregressive:
    """A model whose weights are large enough to say something."""
    torch.manual_seed(seed)
    model = ancestral.build("wavenet", spec, preset="tiny", **fields).float()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2).add_(torch.randn_like(parameter), alpha=0.05)
    return model  # type: ignore[return-value]


def wav(samples: bytes, tag: int = 1, channels: int = 1, bits: int = 16, before: bytes = b"", after: bytes = b"") -> bytes:
    """A WAV file with chunks before and after that of its samples."""
    width = channels * bits // 8
    form = struct.pack("<HHIIHH", tag, channels, 8000, 8000 * width, width, bits)
    body = b"WAVEfmt " + struct.pack("<I", len(form)) + form + before
    body += b"data" + struct.pack("<I", len(samples)) + samples + b"\0" * (len(samples) % 2) + after
    return b"RIFF" + struct.pack("<I", len(body)) + body
