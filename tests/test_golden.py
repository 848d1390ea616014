"""Files written long ago, kept as they were: if one of these tests fails, files that users have cannot be read any more.

The remedy is to mend the decoder, never to replace a file: a format that changes gets a new major number and golden files of
its own, beside these. The models are arithmetic, not random, so that nothing but this package decides what the files hold.
``python tests/test_golden.py`` writes those files that are not there yet.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import pytest
import torch
from torch import Tensor

import ancestral
from ancestral.coding import CODED, Reader
from ancestral.models import configure

FOLDER = Path(__file__).parent / "golden"
GREY, COLOUR = ancestral.DataSpec("image", (1, 5, 6), levels=17), ancestral.DataSpec("image", (3, 4, 4), levels=32)
CASES = {
    "grey": ("gated-pixelcnn", GREY, {}),
    "colour-mixture": ("gated-pixelcnn", COLOUR, {"family": "logistic"}),
    "vae": ("vae", GREY, {}),
    "agave": ("agave", COLOUR, {"family": "logistic", "factor": 2, "spatial": True}),
}


def made(case: str) -> ancestral.Autoregressive | ancestral.Latent:
    """The model of a file: weight i of a parameter is a multiple of 2^-11 that i and the parameter's name give."""
    name, spec, fields = CASES[case]
    model = ancestral.build(configure(name, "tiny", **fields), spec).float()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            places = torch.arange(parameter.numel()) * 7919 + zlib.crc32(key.encode())
            parameter.copy_((places % 1021 - 510).view(parameter.shape) / 2048)
    return model


def items(spec: ancestral.DataSpec, n: int = 20) -> Tensor:
    """(n, *shape) symbols, by a formula."""
    i = torch.arange(n * spec.sites)
    return (i * i * 5 // 7 + i // 3).remainder(spec.levels or 2).view(n, *spec.shape)  # type: ignore[arg-type]


@pytest.mark.parametrize("engine", ["eager", "native"])
@pytest.mark.parametrize("case", CASES)
def test_old_files_are_read(case: str, engine: str) -> None:
    model, data = made(case), (FOLDER / f"{case}.anc").read_bytes()
    assert torch.equal(ancestral.decompress(model, data, engine=engine), items(model.spec))
    assert [block.kind for block in Reader(data)] == [CODED]


if __name__ == "__main__":
    for missing in (case for case in CASES if not (FOLDER / f"{case}.anc").exists()):
        golden = made(missing)
        (FOLDER / f"{missing}.anc").write_bytes(ancestral.compress(golden, items(golden.spec)))
