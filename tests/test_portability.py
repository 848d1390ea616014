"""A file made in one process decodes to the same pixels in others, whatever library, instructions, threads or engine compute."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import ancestral
from ancestral.coding.codec import compress

DECODE = """
import sys, numpy, torch, ancestral, ancestral.coding.codec
from ancestral.coding import autoregressive
folder, engine, threads, lanes = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
torch.set_num_threads(threads)
autoregressive.LANES = lanes
model = ancestral.load(folder)
x = torch.from_numpy(numpy.load(folder + "/x.npy"))
data = open(folder + "/x.anc", "rb").read()
decoded = ancestral.coding.codec.decompress(model, data, engine=engine, threads=threads)
again = ancestral.coding.codec.compress(model, x, engine=engine, threads=threads)
print(torch.equal(decoded, x), again == data)
"""
# engine, threads, rows whose tables are in memory at once, settings
MACHINES = [
    ("eager", 1, 16, {}),
    ("eager", 2, 3, {"ATEN_CPU_CAPABILITY": "default"}),
    ("eager", 1, 1, {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "SSE41"}),
    ("eager", 2, 16, {"MKL_CBWR": "COMPATIBLE", "ONEDNN_MAX_CPU_ISA": "AVX2"}),
    ("native", 1, 16, {}),
    ("native", 2, 5, {}),
    ("native", 1, 16, {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx2,+fma"}),
    ("native", 1, 2, {"NUMBA_CPU_NAME": "nehalem", "NUMBA_CPU_FEATURES": "+sse4.2"}),
]


@pytest.fixture(scope="module", params=["gated-pixelcnn", "agave"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, some of its samples, and the file made of them here."""
    path = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    model = ancestral.build(request.param, ancestral.DataSpec("image", (3, 5, 6), levels=256), preset="tiny").float()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2).add_(torch.randn_like(parameter), alpha=0.05)
    x = ancestral.sample(model, 20, seed=0, engine="eager")
    ancestral.save(model, path)
    np.save(path / "x.npy", x.numpy())
    (path / "x.anc").write_bytes(compress(model, x, engine="eager"))
    return path


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "threads", "lanes", "settings"), MACHINES)
def test_a_file_decodes_elsewhere(folder: Path, engine: str, threads: int, lanes: int, settings: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", DECODE, str(folder), engine, str(threads), str(lanes)],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["True", "True"], done.stderr
