"""Exact Programs: the same integers in a walk, all at once and in NumPy's int32; proven bounds; close to floating point."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import ancestral
from ancestral.causal import AboveAffine, CausalNetwork, LeftAffine, Once, Scale, gate, relu, spread
from ancestral.causal.arithmetic import Floating
from ancestral.causal.program import Add, Affine, Part, Point, Program
from ancestral.causal.stepping import Stepper, once_values
from ancestral.core import Context
from ancestral.families.integer import Integer, IntegerBernoulli, IntegerBins, IntegerCategorical
from ancestral.networks.gated_pixelcnn import GatedPixelCNN
from ancestral.walking.exact.calibration import Calibration, calibrate, formats
from ancestral.walking.exact.context import ExactContext
from ancestral.walking.exact.operations import Fixed, LoweringError
from ancestral.walking.exact.program import checksum, coarse, exact
from ancestral.walking.exact.whole import GATE_SIGMOID, GATE_TANH, Whole
from ancestral.walking.parallel import computed, parameters

SHAPES = [(1, 5, 4), (3, 4, 3)]
MIXTURE = IntegerBins("logistic", levels=256, components=2)


def gated(shape: tuple[int, int, int], family: Integer = MIXTURE, context: bool = True) -> GatedPixelCNN:
    sizes = {"layers": 3, "channels": 7, "first_kernel": 5, "head": 9}
    parts = {"vector": 3, "grid": 2, "stream": 4} if context else {}
    network = GatedPixelCNN(shape, family.levels, family.size, **sizes, **parts)
    for weight in network.parameters():  # those of the context start at zero
        nn.init.normal_(weight, std=weight[0].numel() ** -0.5)
    return network


def symbols(network: CausalNetwork, family: Integer = MIXTURE, n: int = 16) -> Tensor:
    return torch.randint(family.levels, (n, *network.shape))


def context_of(network: CausalNetwork, n: int = 16) -> tuple[Context, dict[str, Fixed]]:
    vector, grid = torch.eye(3)[torch.arange(n) % 3], torch.randn(n, 2, *network.shape[1:])
    parts = {"vector": Fixed.of(vector, 0), "grid": Fixed.of(grid, 12)}
    return Context(vector=vector, grid=grid), parts


def all_at_once(program: Program, x: Tensor, once: dict[int, Tensor]) -> Tensor:
    return parameters(program, computed(program, Whole(), x, once))


def walked(program: Program, x: Tensor, once: dict[int, Tensor], rollback: int = 0) -> Tensor:
    """(n, C, H, W, k) parameters, site by site."""
    n, channels, height, width = x.shape
    stepper = Stepper(program, Whole(), rollback)
    seen, kept = stepper.start(n, once, like=torch.zeros((), dtype=torch.float64))
    steps = [seen]
    for i, symbol in enumerate(list(x.permute(2, 3, 1, 0).flatten(0, 2))[:-1]):
        stepper.absorb(kept, i, symbol)
        steps.append(stepper.advance(kept, i + 1))
    return torch.stack(steps, 1).view(n, height, width, channels, -1).permute(0, 3, 1, 2, 4)


# Floating point, all at once


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("given", [True, False])
def test_all_at_once_in_floating_point_is_forward(shape: tuple[int, int, int], given: bool) -> None:
    network = gated(shape)
    x, context = symbols(network, n=3), context_of(network, 3)[0] if given else None
    program = network.lowered(context)
    found = parameters(program, computed(program, Floating(), x, once_values(program, context)))
    assert torch.allclose(found, network(x, context), rtol=0, atol=1e-12)


# The same integers


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("gain", [1, 3])
def test_a_walk_gives_the_bits_of_all_at_once_in_any_batch(shape: tuple[int, int, int], gain: int) -> None:
    network = gated(shape)
    x, (context, parts) = symbols(network), context_of(network)
    calibration = calibrate(network, MIXTURE, x, context)
    for weight in network.parameters():  # after calibration: values are clamped
        weight.data.mul_(gain)
    program = network.lowered(context)
    made, once = exact(program, MIXTURE, calibration), ExactContext(program, MIXTURE, calibration)(parts)
    values = computed(made, Whole(), x, once)
    found = parameters(made, values)
    assert torch.equal(found, found.round())
    clamped = [i for i, form in enumerate(formats(program, 256)) if (values[i].abs() == form.limit).any()]
    assert len(clamped) >= 5 if gain > 1 else not {made.output} & {*clamped}
    for n in (1, 5, 16):
        some = {target: value[:n] for target, value in once.items()}
        assert torch.equal(walked(made, x[:n], some, rollback=n % 2), found[:n])
        assert torch.equal(all_at_once(made, x[:n], some), found[:n])


class Odd(CausalNetwork):
    """Sums and relus that stand alone, and a second sum of context signals, one of which is a raw grid."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        super().__init__(shape)
        colours = shape[0]
        labels, outputs = spread(2 * colours, colours), spread(colours, colours)
        self.scale = Scale(colours, 2)
        self.above, self.more = AboveAffine(colours, 2 * colours, 3, strict=True), AboveAffine(2 * colours, 2 * colours, 3)
        self.left, self.pairs = LeftAffine(outputs, labels, 2, strict=True), LeftAffine(labels, (*labels, *labels), 1)
        self.out = LeftAffine(labels, outputs)
        self.grid, self.again = (Once(nn.Conv2d(2 * colours, 2 * colours, side, padding=side // 2)) for side in (3, 1))

    def body(self, x: Tensor, vector: Tensor | None, grid: Tensor) -> Tensor:
        symbols = self.scale(x)
        features = relu()(self.grid(grid) + self.again(grid))
        rows = relu()(self.above(symbols) + grid + features)
        here = self.left(symbols) + self.more(rows)
        bent = relu()(here) + gate()(self.pairs(here))
        return self.out(bent + rows)


@pytest.mark.parametrize("colours", [1, 3])
def test_sums_and_relus_that_stand_alone(colours: int) -> None:
    network, family = Odd((colours, 4, 5)), IntegerBernoulli()
    x, grid = symbols(network, family, 6), torch.randn(6, 2 * colours, 4, 5)
    context = Context(grid=grid)
    program = network.lowered(context)
    assert {Add, "gate", "relu"} <= {op.function if isinstance(op, Point) else type(op) for op in program.operations}
    calibration = calibrate(network, family, x, context)
    made = exact(program, family, calibration)
    once = ExactContext(program, family, calibration)({"grid": Fixed.of(grid, 12)})
    found = all_at_once(made, x, once)
    assert torch.equal(walked(made, x, once), found)
    assert torch.allclose(found * 2.0**-10, network(x, context), atol=0.02)
    assert np.array_equal(found.numpy(), int32_emulated(made, x, once))


def int32_emulated(program: Program, x: Tensor, once: dict[int, Tensor]) -> np.ndarray:
    """(n, C, H, W, k): the operations in int32, where sums would wrap, with windows site by site."""
    n, channels, height, width = x.shape
    values = {
        i: np.zeros((n, height, width, buffer.features), np.int32)
        + (once[i].permute(0, 2, 3, 1).int().numpy() if i in once else 0)
        for i, buffer in enumerate(program.buffers)
    }
    for put in program.puts:
        assert put.table is not None
        values[put.target][:] = np.concatenate([put.table[c].numpy()[x[:, c].numpy()] for c in range(channels)], -1)

    def of(part: Part) -> np.ndarray:
        return values[part.buffer][..., part.first : part.first + part.count]

    for op in program.operations:
        if isinstance(op, Affine):
            of(op.target)[:] = affine_int32(op, values[op.source], None if op.init is None else of(op.init))
        elif isinstance(op, Add):
            of(op.target)[:] = np.clip(of(op.a) + of(op.b), 0 if op.relu else -(2**15), 2**15 - 1)
        elif op.function == "relu":
            of(op.target)[:] = np.maximum(of(op.source), 0)
        else:
            a, b = (np.clip(of(part), -8192, 8191) + 8192 for part in (op.source, op.other))
            of(op.target)[:] = np.minimum((GATE_TANH[a].astype(np.int32) * GATE_SIGMOID[b] + 65536) >> 17, 2047)
    return values[program.output].reshape(n, height, width, channels, -1).transpose(0, 3, 1, 2, 4)


def affine_int32(op: Affine, source: np.ndarray, init: np.ndarray | None) -> np.ndarray:
    n, height, width, _ = source.shape
    _, rows, length, columns = op.weight.shape
    assert op.scaling is not None
    weight, bias = op.weight[0].numpy(), op.bias[0].numpy()
    left, right = op.scaling.init[0].numpy().astype(np.int32), op.scaling.out[0].numpy().astype(np.int32)
    assert (weight.dtype, bias.dtype) == (np.int16, np.int32)
    total = np.zeros((n, height, width, columns), np.int32) + bias
    if init is not None:
        total = total + (init << left)
    for r, w, row in product(range(height), range(width), range(rows)):
        cells = []
        for column in range(w - op.reach.left, w + op.reach.right + 1):
            inside = r - op.reach.above + row >= 0 and 0 <= column < width
            cells.append(source[:, r - op.reach.above + row, column] if inside else np.zeros_like(source[:, 0, 0]))
        total[:, r, w] += np.concatenate(cells, -1)[:, :length] @ weight[row].astype(np.int32)
    half = np.where(right > 0, 1 << np.maximum(right - 1, 0), 0).astype(np.int32)
    return np.clip((total + half) >> right, op.scaling.low, op.scaling.high)


@pytest.mark.parametrize("shape", SHAPES)
def test_int32_gives_the_same_bits(shape: tuple[int, int, int]) -> None:
    network = gated(shape)
    x, (context, parts) = symbols(network, n=3), context_of(network, 3)
    calibration = calibrate(network, MIXTURE, x, context)
    program = network.lowered(context)
    made, once = exact(program, MIXTURE, calibration), ExactContext(program, MIXTURE, calibration)(parts)
    assert np.array_equal(all_at_once(made, x, once).numpy(), int32_emulated(made, x, once))


# From weights to integers


def test_float32_and_float64_copies_of_weights_give_one_program() -> None:
    torch.set_default_dtype(torch.float32)
    network = gated((3, 4, 3))
    torch.set_default_dtype(torch.float64)
    twin = gated((3, 4, 3))
    twin.load_state_dict(network.state_dict())
    x, context = symbols(network), context_of(network)[0]
    calibration = calibrate(network, MIXTURE, x, context)
    again = Calibration.from_dict(json.loads(json.dumps(calibration.to_dict())))
    assert again == calibration == calibrate(twin, MIXTURE, x, context)
    programs = [each.lowered(context) for each in (network, twin, copy.deepcopy(network).double())]
    made = [exact(program, MIXTURE, again) for program in programs]
    assert len({checksum(each) for each in made}) == 1
    assert len({ExactContext(program, MIXTURE, again).checksum() for program in programs}) == 1


def test_checksums_tell_programs_apart() -> None:
    network = gated((1, 5, 4), context=False)
    x = symbols(network)
    calibration, program = calibrate(network, MIXTURE, x), network.lowered()
    made = exact(program, MIXTURE, calibration)
    first = made.operations[0]
    assert isinstance(first, Affine)
    free = [form.group for form in formats(program, MIXTURE.levels) if form.fraction is None]
    coarser = tuple(bits - (i == free[0]) for i, bits in enumerate(calibration.buffers))
    bias = first.bias.clone()
    bias[0, 3] += 1
    others = [
        replace(made, operations=(replace(first, bias=bias), *made.operations[1:])),
        replace(made, operations=(replace(first, relu=True), *made.operations[1:])),
        replace(made, puts=(replace(made.puts[0], table=tuple(-table for table in made.puts[0].table)),)),  # type: ignore[operator]
        exact(program, MIXTURE, replace(calibration, buffers=coarser)),
    ]
    assert len({checksum(each) for each in (made, *others)}) == 5
    assert len(checksum(made)) == 16


@pytest.mark.parametrize("shape", SHAPES)
def test_weights_are_12_bits_and_no_sum_can_leave_32(shape: tuple[int, int, int]) -> None:
    network = gated(shape)
    x, context = symbols(network), context_of(network)[0]
    calibration, program = calibrate(network, MIXTURE, x, context), network.lowered(context)
    made = exact(program, MIXTURE, calibration)
    assert coarse(made) == 0
    for before, op in zip(program.operations, made.operations, strict=True):
        if isinstance(op, Affine):
            assert isinstance(before, Affine)
            assert op.scaling is not None
            largest = op.weight[0].flatten(0, 1).abs().amax(0)
            assert ((largest >= 2**10) & (largest < 2**11)).all()
            fractions = torch.tensor(MIXTURE.fractions).repeat(shape[0])[op.target.first :][: op.target.count]
            end = fractions if op.target.buffer == made.output else made.buffers[op.target.buffer].fraction
            bits = op.scaling.out[0] + end - made.buffers[op.source].fraction
            assert ((op.weight * 2.0**-bits - before.weight).abs() <= 0.5 * 2.0**-bits).all()
            assert worst(op, 8191, 2**15 - 1) < 2**31


def worst(op: Affine, activation: int, init: int) -> int:
    """The largest magnitude of a sum, rounding included, in Python's integers."""
    assert op.scaling is not None
    shifts = zip(op.scaling.init[0].tolist(), op.scaling.out[0].tolist(), strict=True)
    totals = [
        sum(abs(w) for w in weights) * activation + abs(bias) + (init << left if op.init else 0) + (1 << out >> 1)
        for weights, bias, (left, out) in zip(op.weight[0].flatten(0, 1).T.tolist(), op.bias[0].tolist(), shifts, strict=True)
    ]
    return max(totals)


class Wide(CausalNetwork):
    """A map of many features, whose weights are all as large as the largest."""

    def __init__(self, features: int, weight: float) -> None:
        super().__init__((1, 2, 3))
        self.scale, self.first = Scale(1, 2), LeftAffine((0,), (0,) * features, 1, strict=True)
        self.out = LeftAffine((0,) * features, (0, 0))
        nn.init.constant_(self.out.weight[0], weight)  # the second output keeps its small random weights

    def body(self, x: Tensor, vector: Tensor | None, grid: Tensor | None) -> Tensor:
        return self.out(relu()(self.first(self.scale(x))))


def test_weights_drop_bits_until_no_sum_can_overflow() -> None:
    network, family = Wide(400, 0.9), IntegerCategorical(2)
    x = symbols(network, family)
    made = exact(network.lowered(), family, calibrate(network, family, x))
    op = made.operations[-1]
    assert isinstance(op, Affine)
    assert coarse(replace(made, operations=(op,))) == 1
    assert op.weight[0, 0, :, 0].abs().max() < 2**10 <= op.weight[0, 0, :, 1].abs().max()
    assert 2**30 <= worst(op, 4095, 0) < 2**31  # not a bit more than needed
    assert np.array_equal(all_at_once(made, x, {}).numpy(), int32_emulated(made, x, {}))


# What is refused


def test_what_has_no_exact_form_is_refused() -> None:
    family = IntegerCategorical(2)
    network = Wide(2000, 3e6)
    with pytest.raises(LoweringError, match="could leave 32 bits"):
        exact(network.lowered(), family, calibrate(network, family, symbols(network, family)))
    network = Wide(3, math.inf)
    with pytest.raises(LoweringError, match="not finite"):
        calibrate(network, family, symbols(network, family))
    network = Wide(3, 1.0)
    calibration = calibrate(network, family, symbols(network, family))
    with pytest.raises(ValueError, match="needs examples"):
        calibrate(network, family, symbols(network, family, 0))
    with pytest.raises(LoweringError, match="another network"):
        exact(gated((1, 5, 4), context=False).lowered(), MIXTURE, calibration)
    with pytest.raises(LoweringError, match="reads 1 parameters"):
        exact(network.lowered(), IntegerBernoulli(), calibration)
    with pytest.raises(LoweringError, match="only 4096"):
        formats(network.lowered(), 5000)
    with pytest.raises(ValueError, match="exact Program"):
        computed(network.lowered(), Whole(), symbols(network, family), {})
    nn.init.constant_(network.out.bias, math.nan)
    with pytest.raises(LoweringError, match="weights that are not finite"):
        exact(network.lowered(), family, calibration)


class Bent(CausalNetwork):
    """Wired by a test: ``wiring`` says how features become parameters."""

    def __init__(self, wiring) -> None:  # type: ignore[no-untyped-def]
        super().__init__((1, 3, 3))
        self.scale, self.left, self.out = Scale(1, 2), LeftAffine((0,), (0, 0), 1, strict=True), LeftAffine((0, 0), (0, 0))
        self.narrow, self.wide = LeftAffine((0, 0), (0,)), LeftAffine((0,), (0, 0))
        self.four, self.wiring = LeftAffine((0, 0), (0, 0, 0, 0)), wiring

    def body(self, x: Tensor, vector: Tensor | None, grid: Tensor | None) -> Tensor:
        return self.wiring(self, self.left(self.scale(x)))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("wiring", "fault"),
    [
        (lambda network, h: relu()(h) + h, "end the network"),
        (lambda network, h: network.narrow(h) + gate()(h), None),
        (lambda network, h: network.out(relu()(h) + h) + network.out(relu()(h)), None),
        (lambda network, h: gate()(h), "end the network"),
        (lambda network, h: network.narrow(network.out(h) + relu()(h)) + gate()(network.out(h)), None),
        (lambda network, h: network.wide(gate()(gate()(network.four(h)) + h)), None),
    ],
)
def test_formats_of_networks_with_odd_wiring(wiring, fault: str | None) -> None:  # type: ignore[no-untyped-def]
    program = Bent(wiring).lowered()
    if fault is None:
        assert len(formats(program, 2)) == len(program.buffers)
    else:
        with pytest.raises(LoweringError, match=fault):
            formats(program, 2)


# The context


@pytest.mark.parametrize("shape", SHAPES)
def test_the_context_in_whole_numbers_is_near_the_context(shape: tuple[int, int, int]) -> None:
    network = gated(shape)
    x, (context, parts) = symbols(network), context_of(network)
    calibration, program = calibrate(network, MIXTURE, x, context), network.lowered(context)
    net = ExactContext(program, MIXTURE, calibration)
    found, floating = net(parts), once_values(program, context)
    for fill in program.fills:
        wanted = sum(floating[signal.index] for signal in fill.signals)
        wanted = wanted if fill.order is None else wanted[:, fill.order]
        bits = calibration.buffers[fill.target]
        assert torch.allclose(found[fill.target] * 2.0**-bits, wanted, atol=2e-3)  # type: ignore[arg-type]
    alone = net({name: Fixed(part.integers[3:4], part.fraction) for name, part in parts.items()})
    assert all(torch.equal(alone[target], value[3:4]) for target, value in found.items())
    with pytest.raises(ValueError, match="reads"):
        net({"grid": parts["grid"]})


# Close to floating point


@pytest.mark.slow
@pytest.mark.parametrize("family", ["categorical", "logistic"])
def test_bits_are_those_of_floating_point(family: str) -> None:
    data = ancestral.data("digits")
    model = ancestral.build("gated-pixelcnn", data.spec, preset="tiny", channels=16, layers=3, head=24, family=family).float()
    optimiser, train = torch.optim.Adam(model.parameters(), 5e-3), data.train.x.long()
    for _ in range(200):
        loss = -model.log_prob(train[torch.randint(len(train), (48,))]).mean()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    x, twin, network = data.test.x.long(), model.family.integer(), model.network
    program = exact(network.lowered(), twin, calibrate(network, twin, train[:64]))
    with torch.no_grad():
        floating = model.double().log_prob(x).sum()
    whole_numbers = twin.log_prob(all_at_once(program, x, {}).long(), x).sum()
    assert abs(float(whole_numbers / floating) - 1) < 0.001
