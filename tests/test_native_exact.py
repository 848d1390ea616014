"""The native engine with whole numbers: bit for bit what NumPy's 64-bit integers give, in every order and on every processor."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_natives import CASES, CPU, FAMILIES, OPTIONS, Branched, by_site, context_of, given, network, symbols, walked
from torch import Tensor

from ancestral.causal.program import Add, Affine, Operation, Point, Program, Rounding, Scaling
from ancestral.core import Conditional, Family
from ancestral.draw import Draw
from ancestral.families import Binned, Normal
from ancestral.walking.native.engine import Native
from ancestral.walking.native.weights import LayoutError


def integer_program(program: Program, levels: int) -> Program:
    """The same structure with random whole numbers, some of which reach the clamps."""
    operations = []
    for op in program.operations:
        if isinstance(op, Affine):
            columns = op.weight.shape[-1]
            shifts = torch.randint(4, (1, columns)), torch.randint(4, 10, (1, columns)) * (torch.rand(1, columns) > 0.1)
            most = 4095 if torch.rand(()) > 0.2 else 32767
            op = replace(
                op,
                weight=torch.randint(-90, 91, op.weight.shape).double(),
                bias=torch.randint(-(2**17), 2**17, (1, columns)).double(),
                scaling=Scaling(*shifts, 0 if op.relu else -most, most),
            )
        elif isinstance(op, Point):
            op = replace(op, scaling=Rounding(10, 10, 11, 2047))
        operations.append(op)
    tables = [tuple(torch.randint(-500, 500, (program.shape[0], levels, 1))) for _ in program.puts]
    puts = tuple(replace(put, table=table) for put, table in zip(program.puts, tables, strict=True))
    return replace(program, puts=puts, operations=tuple(operations), exact=True)


def carried_out(program: Program, x: Tensor, once: dict[int, Tensor]) -> Tensor:
    """What an exact Program says, in 64-bit integers of NumPy, whole images at a time."""
    n, channels, height, width = x.shape
    values = {i: np.zeros((n, height, width, buffer.features), np.int64) for i, buffer in enumerate(program.buffers)}
    for fill in program.fills:
        total = sum(once[signal.index] for signal in fill.signals)
        values[fill.target][:] = (total if fill.order is None else total[:, fill.order]).permute(0, 2, 3, 1).numpy()
    for put in program.puts:
        values[put.target][:] = torch.stack([put.table[c][x[:, c], 0] for c in range(channels)], -1).numpy()
    for op in program.operations:
        target = values[op.target.buffer][..., op.target.first : op.target.first + op.target.count]
        if isinstance(op, Affine):
            target[:] = affine(op, values)
            continue
        parts = [op.a, op.b] if isinstance(op, Add) else [op.source, op.other or op.source]
        read = [values[part.buffer][..., part.first : part.first + part.count] for part in parts]
        if isinstance(op, Add):
            target[:] = np.clip(read[0] + read[1], 0 if op.relu else -(2**15), 2**15 - 1)
        elif op.function == "relu":
            target[:] = np.maximum(read[0], 0)
        else:
            a, b = (half.clip(-8192, 8191) / 1024 for half in read)
            tanh, sigmoid = np.rint(2**14 * np.tanh(a)).astype(int), np.rint(2**14 / (1 + np.exp(-b))).astype(int)
            target[:] = np.minimum((tanh * sigmoid + 65536) >> 17, 2047)
    flat = torch.from_numpy(values[program.output])
    return flat.unflatten(-1, (channels, -1)).permute(0, 3, 1, 2, 4)


def affine(op: Affine, values: dict[int, np.ndarray]) -> np.ndarray:
    source, reach, total = values[op.source], op.reach, np.int64(0)
    height, width = source.shape[1:3]
    padded = np.pad(source, ((0, 0), (reach.above, 0), (reach.left, reach.right), (0, 0)))
    for row, weight in enumerate(op.weight[0].long().numpy()):
        windows = [padded[:, row : row + height, j : j + width] for j in range(reach.left + 1 + reach.right)]
        total = total + np.concatenate(windows, -1)[..., : len(weight)] @ weight
    total = total + op.bias[0].long().numpy()
    if op.init is not None:
        part = values[op.init.buffer][..., op.init.first : op.init.first + op.init.count]
        total = total + (part << op.scaling.init[0].numpy())
    assert abs(total).max() < 2**31 - 2**10, "the test's own numbers must fit into 32 bits"
    out = op.scaling.out[0].long().numpy()
    return np.clip((total + ((1 << out) >> 1)) >> out, op.scaling.low, op.scaling.high)


@pytest.mark.parametrize(("shape", "levels", "sizes", "kind"), CASES)
def test_whole_numbers_are_exact_in_every_order(
    shape: tuple[int, int, int], levels: int, sizes: dict[str, int], kind: str | None
) -> None:
    net, n = network(shape, levels, size=5, **sizes), 19
    context = context_of(kind, shape, n)
    program = integer_program(net.lowered(context), levels)
    once = {key: (value.detach() * 300).round() for key, value in given(net, context).items()}
    x = symbols(net, levels, n)
    want = carried_out(program, x, once)
    native = Native(program, levels)
    assert native.parallel(x, once).dtype == torch.int16
    assert torch.equal(native.parallel(x, once).long(), want)
    assert torch.equal(walked(native, x, once).long(), by_site(want))
    few = {key: value[:1] for key, value in once.items()}
    assert torch.equal(walked(native, x[:1], few).long(), by_site(want[:1]))
    assert len(want.unique()) > 20 or sizes["channels"] < 6


@pytest.mark.parametrize(("channels", "features"), [(1, 1), (1, 33), (3, 20)])
def test_relus_and_sums_are_exact(channels: int, features: int) -> None:
    net = Branched(channels, features).float()
    x, program = symbols(net, 4, 17), integer_program(net.lowered(), 4)
    want, native = carried_out(program, x, {}), Native(program, 4)
    assert torch.equal(native.parallel(x, {}).long(), want)
    assert torch.equal(walked(native, x, {}).long(), by_site(want))


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("family", [*FAMILIES, Binned(Normal(), 33)], ids=str)
def test_whole_numbers_choose_as_integer_families_do(family: Family, options: dict[str, float]) -> None:
    integer, levels = family.integer(), family.levels or 0  # type: ignore[attr-defined]
    net = network((2, 3, 4), levels, integer.size, channels=12, head=9)
    program = integer_program(net.lowered(), levels)
    program = replace(program, operations=tuple(spread_out(op, program) for op in program.operations))
    u, draw, native = torch.rand(18, 24), Draw(**options), Native(program, levels)  # type: ignore[arg-type]
    drawn = native.run(18, {}, CPU, integer, u, draw)
    parameters = by_site(native.parallel(drawn, {}))
    want = draw.choose(Conditional(integer, parameters), u)
    got = drawn.permute(0, 2, 3, 1).flatten(1)
    if options in ({}, {"temperature": 0.0}):
        assert torch.equal(got, want)
    else:  # temperatures and truncation are floats
        assert float((got != want).double().mean()) < 0.01


def spread_out(op: Operation, program: Program) -> Operation:
    """The last operations made so that parameters lie where families tell symbols apart."""
    if not isinstance(op, Affine) or op.target.buffer != program.output:
        return op
    columns = op.weight.shape[-1]
    scaling = Scaling(torch.zeros(1, columns, dtype=torch.long), torch.full((1, columns), 9), -6000, 6000)
    return replace(op, bias=torch.randint(-(2**19), 2**19, (1, columns)).double(), scaling=scaling)


def test_rolled_back_whole_numbers_are_exact_too() -> None:
    net = network((2, 3, 4), 4, size=3, channels=7, head=6)
    program, x = integer_program(net.lowered(), 4), symbols(net, 4, 2)
    want, flat, native = by_site(carried_out(program, x, {})), x.permute(0, 2, 3, 1).flatten(1), Native(program, 4, rollback=3)
    _, kept = native.start(2, {}, CPU)
    for i in range(flat.shape[1] - 3):
        for j, wrong in ((i, 1), (i + 1, 1), (i + 2, 1), (i, 0)):
            native.absorb(kept, j, (flat[:, j] + wrong) % 4)
            parameters = native.advance(kept, j + 1)
        assert torch.equal(parameters.long(), want[:, i + 1])


def test_whole_numbers_must_fit() -> None:
    program = integer_program(network((1, 3, 3), 4, size=2).lowered(), 4)
    op = next(op for op in program.operations if isinstance(op, Affine))
    scaling = op.scaling
    for changed in [
        replace(op, weight=op.weight + 0.5),
        replace(op, weight=op.weight + 2**15),
        replace(op, bias=op.bias + 2**31),
        replace(op, scaling=None),
        replace(op, scaling=Scaling(scaling.init, scaling.out + 32, scaling.low, scaling.high)),
    ]:
        operations = tuple(changed if each is op else each for each in program.operations)
        with pytest.raises(LayoutError):
            Native(replace(program, operations=operations), 4)


CHILD = """
import hashlib, torch
torch.set_default_dtype(torch.float64)
from test_native_exact import integer_program
from tiny_natives import CPU, network, symbols, walked, wide_parameters
from ancestral.draw import Draw
from ancestral.families import Categorical
from ancestral.walking.native import tiles
from ancestral.walking.native.engine import Native
torch.manual_seed(3)
net = network((3, 5, 6), 6, size=6, channels=23, head=70, kernel=5)
x, program, family = symbols(net, 6, 9), net.lowered(), Categorical(6)
floats = Native(program, 6).parallel(x, {})
error = float((floats - wide_parameters(net, x)).abs().max())
whole = Native(integer_program(program, 6), 6)
drawn = whole.run(9, {}, CPU, family.integer(), torch.rand(9, 90), Draw())
bits = torch.cat([whole.parallel(x, {}).flatten(), walked(whole, x, {}).flatten().flip(0), drawn.flatten().short()])
print(tiles.LANES, error < 2e-5, hashlib.sha256(bits.numpy().tobytes()).hexdigest())
"""


@pytest.mark.slow
def test_whole_numbers_are_the_same_on_older_processors(tmp_path: Path) -> None:
    """Code for a 2008 processor (SSE), for one of 2013 (AVX2) and for this one."""
    names = [None, "nehalem", "haswell"] if platform.machine() in ("x86_64", "AMD64") else [None]
    lines = []
    for name in names:
        target = {} if name is None else {"NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": "+sse2"}
        environment = os.environ | target | {"NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run([sys.executable, "-c", CHILD], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        lines.append(done.stdout.split())
    assert [line[1] for line in lines] == ["True"] * len(names)
    assert len({line[2] for line in lines}) == 1
    assert len({line[0] for line in lines}) >= len(names) - 1  # they really were different code
