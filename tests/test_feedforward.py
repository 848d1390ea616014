"""Integer twins of feed-forward networks: close to the floats, and the same bits whoever computes them."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from ancestral.latent.encoders import ImageDecoder, ImageEncoder, Residual, VectorNet, sides
from ancestral.walking.exact.feedforward import IntegerNet
from ancestral.walking.exact.operations import Fixed, LoweringError, Window, nearest, table

LARGEST = 2**15 - 1
CLOSE = 2e-3  # of the largest output: what a twin may differ from the floats; 7e-4 is the most that was seen
FRACTION = 12


def encoder(shape: tuple[int, int, int], spatial: bool, vector: int) -> tuple[nn.Module, tuple[int, ...]]:
    return ImageEncoder(shape, 6, 8, 2, 2, spatial, vector), shape


def decoder(shape: tuple[int, int, int], spatial: bool, vector: int) -> tuple[nn.Module, tuple[int, ...]]:
    return ImageDecoder(shape, 4, 8, 2, 2, spatial, vector), (4, *(sides(*shape[1:], 2)[-1] if spatial else ()))


def case(name: str) -> tuple[nn.Module, list[Tensor | None]]:
    """A module, and 40 rows of inputs: images and codes within -1 .. 1, labels from a normal distribution."""
    make, size, grid, labels = name.split("-")
    vector = 0 if labels == "plain" else 5
    if make == "vector":
        module, shape = VectorNet(7, 9, 24, int(size), vector), (7,)
    elif make == "residual":
        module, shape = Residual(6), (6, 5, 3)
    else:
        sizes = {"even": (1, 8, 8), "odd": (3, 13, 7), "dot": (2, 1, 1)}[size]
        module, shape = {"encoder": encoder, "decoder": decoder}[make](sizes, grid == "grid", vector)
    with torch.no_grad():  # trained weights are neither so small nor so alike
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape) * torch.rand(len(parameter), *(1 for _ in parameter.shape[1:])))
    x = torch.rand(40, *shape) * 2 - 1
    if make == "residual":
        return module, [x]
    return module, [x, torch.randn(40, vector) if labels == "labelled" else None]


CASES = [
    *(
        f"{make}-{size}-{grid}-plain"
        for make in ("encoder", "decoder")
        for size in ("even", "odd", "dot")
        for grid in ("flat", "grid")
    ),
    *(
        f"{make}-odd-{grid}-{labels}"
        for make in ("encoder", "decoder")
        for grid in ("flat", "grid")
        for labels in ("labelled", "null")
    ),
    *(f"vector-{blocks}-flat-{labels}" for blocks in (0, 3) for labels in ("plain", "labelled", "null")),
    "residual-odd-grid-plain",
]  # null: made for labels, and given none


@pytest.fixture(params=CASES)
def twin(request: pytest.FixtureRequest) -> tuple[nn.Module, IntegerNet, list[Fixed | None]]:
    module, examples = case(request.param)
    inputs = [None if each is None else Fixed.of(each, FRACTION) for each in examples]
    return module, IntegerNet.calibrate(module, *examples), inputs


def first(inputs: list[Fixed | None], rows: slice) -> list[Fixed | None]:
    return [None if each is None else Fixed(each.integers[rows], each.fraction) for each in inputs]


def test_close_to_the_floats(twin: tuple[nn.Module, IntegerNet, list[Fixed | None]]) -> None:
    module, net, inputs = twin
    expected = module(*(None if each is None else each.values() for each in inputs))
    found = net(*inputs)
    assert found.integers.shape == expected.shape
    assert torch.equal(found.integers, found.integers.round())
    assert found.integers.abs().max() > LARGEST / 8  # the bits are used
    assert (found.values() - expected).abs().max() < CLOSE * expected.abs().max()


def test_same_bits_for_any_batch_and_algorithm(
    twin: tuple[nn.Module, IntegerNet, list[Fixed | None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, net, inputs = twin
    whole = net(*inputs).integers
    for rows in (slice(7), slice(1), slice(39, 40)):
        assert torch.equal(net(*first(inputs, rows)).integers, whole[rows])
    convolve = Window.convolve
    monkeypatch.setattr(Window, "convolve", lambda window, x, weight, unfold: convolve(window, x, weight, not unfold))
    assert torch.equal(net(*inputs).integers, whole)


@pytest.mark.parametrize("name", ["encoder-odd-flat-labelled", "vector-3-flat-plain"])
def test_same_bits_for_any_number_of_threads(name: str, threads: Callable[[int], None]) -> None:
    module, examples = case(name)
    net = IntegerNet.calibrate(module, *examples)
    inputs = [None if each is None else Fixed.of(each.repeat(9, *(1 for _ in each.shape[1:])), FRACTION) for each in examples]
    alone = net(*inputs).integers
    threads(2)
    assert torch.equal(net(*inputs).integers, alone)


def test_fractions_and_weights_give_the_same_net_in_any_type(twin: tuple[nn.Module, IntegerNet, list[Fixed | None]]) -> None:
    module, net, inputs = twin
    given = [each is not None for each in inputs]
    shuffled = dict(sorted(net.fractions.items()))  # as a file may keep them
    again = IntegerNet.from_fractions(module, shuffled, given)
    assert again.fractions == net.fractions and again.checksum() == net.checksum()
    assert torch.equal(again(*inputs).integers, net(*inputs).integers)
    single = module.float()
    sums = [IntegerNet.from_fractions(each, net.fractions, given).checksum() for each in (single, single.double())]
    assert sums[0] == sums[1]


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    yield torch.set_num_threads
    torch.set_num_threads(1)


# -- numbers known otherwise ---------------------------------------------------------------------------------------------


def test_by_hand() -> None:
    layer = nn.Linear(2, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.5, -0.25]]))  # 2^-1 <= 0.5 < 2^0: 15 bits, 16384 and -8192
        layer.bias.fill_(0.125)  # 16384 at 15 + 2 bits
    net = IntegerNet.from_fractions(layer, {"input_1": 2, "_0": 1}, [True])
    x = torch.tensor([[4.0, 2.0], [5, 2], [6, 2], [-6, 2], [32767, -32767]])
    # sums 65536, 81920, 98304, -98304 and 16384 * 32767 + 8192 * 32767 + 16384, of which 2^16 make one unit of the result
    assert net(Fixed(x, 2)).integers.flatten().tolist() == [1, 1, 2, -1, 12288]
    assert net(Fixed(x, 2)).fraction == 1
    assert net(Fixed(x[:4] * 8, 5)).integers.flatten().tolist() == [1, 1, 2, -1]  # inputs come at any fraction


def test_fixed_rounds_half_up_and_clamps() -> None:
    values = torch.tensor([0.5, -0.5, 1.5, -1.5, 1e9, -math.inf], dtype=torch.float32)
    assert Fixed.of(values, 0).integers.tolist() == [1, 0, 2, -1, LARGEST, -LARGEST]
    assert Fixed.of(values, 1, bits=3).integers.tolist() == [1, -1, 3, -3, 3, -3]
    assert Fixed.of(values, 1).at(0).integers.tolist() == [1, 0, 2, -1, 16384, -16383]
    assert Fixed(torch.tensor([3.0]), 2).values().tolist() == [0.75]
    with pytest.raises(ValueError, match="NaN"):
        Fixed.of(torch.tensor([math.nan]), 3)


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("channels", [3, 32])
def test_convolutions_of_the_largest_integers_are_exact(kernel: int, stride: int, channels: int) -> None:
    weight = (torch.randint(0, 2, (16, channels, kernel, kernel)) * 2 - 1) * LARGEST
    x = (torch.randint(0, 2, (2, channels, 17, 12)) * 2 - 1) * LARGEST
    x[0], weight[0] = LARGEST, LARGEST  # the largest sum that there is
    weight[1:, 0] -= 1  # odd sums, which a rounding anywhere would show
    padding = kernel // 2
    patches = functional.pad(x, (padding,) * 4).unfold(2, kernel, stride).unfold(3, kernel, stride)  # n, C, H, W, k, k
    truth = (patches[:, None] * weight[None, :, :, None, None]).sum((2, 5, 6))
    window = Window((stride, stride), (padding, padding), (1, 1))
    for unfold in (False, True):
        assert torch.equal(window.convolve(x.double(), weight.double(), unfold).long(), truth)


@pytest.mark.parametrize(("source", "target"), [(12, 12), (10, 14), (14, 10), (24, 24)])
def test_elu_table(source: int, target: int) -> None:
    entries = table(functional.elu, True, source, target).entries.tolist()
    for i in (*range(-(2**15), 2**15, 97), -1, 0, 1, 2**15 - 1):
        if i < 0:
            expected = math.floor(math.expm1(math.ldexp(i, -source)) * 2**target + 0.5)
        else:
            expected = (i * 2 ** (target + 1) + 2**source) // 2 ** (source + 1)
        assert entries[i + 2**15] == max(-LARGEST, min(LARGEST, expected))


def test_a_table_that_another_library_could_round_otherwise_is_refused() -> None:
    with pytest.raises(LoweringError, match="where rounding turns"):
        table(lambda x: x / 2, False, 5, 5)


@pytest.mark.parametrize("after", [lambda side: 2 * side, lambda side: 2 * side - 1])
def test_nearest_is_that_of_torch(after: Callable[[int], int]) -> None:
    for side in range(1, 40):
        x = torch.arange(3.0 * side).view(1, 1, 3, side)
        size = [after(3), after(side)]
        assert torch.equal(nearest(x, size, None), functional.interpolate(x, size=size, mode="nearest"))


def test_pinned() -> None:
    """Files hold what these numbers gave: they must not change from version to version."""
    module = ImageEncoder((1, 5, 4), 3, 4, 1, 1, True, 2)
    module.label = nn.Linear(2, 4)  # with a bias: a layer like any other
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(((torch.arange(parameter.numel()) * 37 % 101 - 50) / 256).view(parameter.shape))
    x, vector = torch.arange(40).view(2, 1, 5, 4) / 20 - 1, torch.tensor([[1.0, 0], [0, 1]])
    net = IntegerNet.calibrate(module, x, vector)
    assert net.checksum().hex() == "71fa34c875062e9d"
    assert net(Fixed.of(x, 12), Fixed.of(vector, 12)).integers[:, 0].flatten().tolist() == [
        -9835,
        -8727,
        -6441,
        -7299,
        -2980,
        -3075,
        -6331,
        -7674,
        -2735,
        -4883,
        -3083,
        -2503,
    ]


PROBE = """
import sys, hashlib, torch
sys.path.insert(0, "tests")
from test_feedforward import FRACTION, case
from ancestral.walking.exact.feedforward import IntegerNet
from ancestral.walking.exact.operations import Fixed
torch.set_default_dtype(torch.float64)
torch.manual_seed(0)
module, examples = case("encoder-odd-flat-labelled")
net = IntegerNet.calibrate(module, *examples)
x, vector = (((torch.arange(each.numel()) * 7919 % 8191) - 4095.0).view(each.shape) for each in examples)
result = net(Fixed(x, FRACTION), Fixed(vector, FRACTION))
print(net.checksum().hex(), hashlib.sha256(result.integers.numpy().tobytes()).hexdigest())
"""


@pytest.mark.slow
def test_same_bits_with_other_instructions_and_libraries() -> None:
    plain = {name: value for name, value in os.environ.items() if name not in ("ATEN_CPU_CAPABILITY", "MKL_CBWR")}
    others = [{}, {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE", "OMP_NUM_THREADS": "2"}]
    command = [sys.executable, "-W", "error", "-c", PROBE]
    found = {subprocess.run(command, env=plain | other, capture_output=True, text=True, check=True).stdout for other in others}
    assert len(found) == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("name", ["encoder-odd-flat-labelled", "decoder-odd-grid-labelled", "vector-3-flat-null"])
def test_same_bits_on_cuda(name: str) -> None:
    module, examples = case(name)
    net = IntegerNet.calibrate(module, *examples)
    here = [None if each is None else Fixed.of(each, FRACTION) for each in examples]
    there = [None if each is None else Fixed(each.integers.cuda(), each.fraction) for each in here]
    assert torch.equal(net(*there).integers.cpu(), net(*here).integers)


# -- what else may stand in a module -------------------------------------------------------------------------------------


class Call(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.offset = nn.Buffer(torch.tensor([[[0.5]], [[-0.25]], [[0.0]], [[1.0]]]))

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Shifted(Call):
    """A constant of the module, added."""

    def forward(self, x: Tensor) -> Tensor:
        return x + self.offset


def halves(x: Tensor) -> Tensor:
    a, b = x.chunk(2, 1)
    return torch.cat([b + a, a.flatten(1).view(len(a), 2, 3, 4), x[:, 1:2].reshape(x.shape[0], 1, 3, 4)], dim=1)


SUPPORTED = {
    "linear": nn.Linear(4, 5),
    "conv": nn.Conv2d(4, 3, 3, stride=2, padding=1, bias=False),
    "dilated": nn.Conv2d(4, 3, 2, padding=(2, 1), dilation=2),
    "upsample": nn.Upsample(scale_factor=2.0),
    "upsample to": nn.Upsample(size=(5, 9)),
    "nested": nn.Sequential(nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU()), nn.Flatten(), nn.Linear(48, 2)),
    "constant": Shifted(torch.relu),
    "halves": Call(halves),
    **{f.__name__: Call(f) for f in (torch.tanh, torch.sigmoid, torch.relu, functional.gelu, functional.silu)},
    "methods": Call(lambda x: x.tanh() + x.sigmoid()),
    "alpha": Call(lambda x: functional.elu(x, 0.5)),
    **{type(m).__name__: m for m in (nn.ELU(), nn.ReLU(), nn.Tanh(), nn.Sigmoid(), nn.GELU("tanh"), nn.SiLU())},
}


@pytest.mark.parametrize("name", SUPPORTED)
@pytest.mark.parametrize("gain", [1e-3, 1.0, 6.0])
def test_supported(name: str, gain: float) -> None:
    x = torch.randn(50, 4, 3, 4) * gain
    net = IntegerNet.calibrate(SUPPORTED[name], x)
    q = Fixed.of(x, net.fractions[next(iter(net.fractions))])
    expected = SUPPORTED[name](q.values())
    assert (net(q).values() - expected).abs().max() < CLOSE * expected.abs().max()


REFUSED = {
    "layer_norm": Call(lambda x: functional.layer_norm(x, (4,))),
    "Softmax": nn.Softmax(1),
    r"Call\.sin \(sin\) has no integer twin: it is not among": Call(torch.sin),
    "padding by zeros": Call(lambda x: functional.pad(x, (1, 1), value=2.0)),
    "leave inplace out": nn.Sequential(nn.Linear(4, 4), nn.ELU(inplace=True)),
    "one group": nn.Conv2d(4, 4, 3, groups=2),
    "number of zeros": nn.Conv2d(4, 4, 3, padding="same"),
    "only mode='nearest'": nn.Upsample(scale_factor=2, mode="bilinear"),
    "whole scale_factor": Call(lambda x: functional.interpolate(x, scale_factor=1.5)),
    "depends on numbers": Call(lambda x: x if x.sum() > 0 else -x),
    "BatchNorm2d": nn.BatchNorm2d(4),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_refused(reason: str) -> None:
    with pytest.raises(LoweringError, match=reason):
        IntegerNet.calibrate(REFUSED[reason], torch.randn(2, 4, 3, 4))


def test_sums_that_could_overflow_are_refused() -> None:
    layer = nn.Linear(1, 1)
    with torch.no_grad():
        layer.weight.fill_(1e-9)
        layer.bias.fill_(1e6)
    with pytest.raises(LoweringError, match=r"reach .* 2\^52"):
        IntegerNet.calibrate(layer, torch.ones(1, 1))
    net = IntegerNet.calibrate(Residual(2), torch.randn(2, 2, 3, 3))
    with pytest.raises(LoweringError, match="fraction bits"):
        IntegerNet.from_fractions(Residual(2), {**net.fractions, "x": -30}, [True])


def test_numbers_that_are_not_finite_are_refused() -> None:
    layer = nn.Linear(1, 1)
    with pytest.raises(LoweringError, match="not finite"):
        IntegerNet.calibrate(layer, torch.full((1, 1), math.inf))
    nn.init.constant_(layer.weight, math.inf)
    with pytest.raises(LoweringError, match="not finite"):
        IntegerNet.from_fractions(layer, {"input_1": 2, "_0": 1}, [True])


def test_dead_channels_and_zeros_are_no_trouble() -> None:
    layer = nn.Linear(3, 4)
    with torch.no_grad():
        layer.weight[:2] = torch.tensor([[0.0], [1e-300]])
    x = torch.randn(9, 3)
    for examples in (x, x * 0):
        net = IntegerNet.calibrate(layer, examples)
        assert (net(Fixed.of(x, 12)).values() - layer(x)).abs().max() < (1e-3 if examples is x else math.inf)


def test_inputs_must_be_those_it_was_made_for() -> None:
    module, x = VectorNet(3, 2, 4, 1, 2), torch.randn(5, 3)
    net = IntegerNet.calibrate(module, x, None)
    q = Fixed.of(x, 12)
    for inputs in ((q,), (q, q), (None, None), (q, None, None)):
        with pytest.raises(ValueError, match=r"\[True, False\]"):
            net(*inputs)
    for examples in ((x,), (None, None), (x, None, None)):
        with pytest.raises(ValueError, match="VectorNet has 2 inputs"):
            IntegerNet.calibrate(module, *examples)
    with pytest.raises(LoweringError, match="another module: vector"):
        IntegerNet.from_fractions(module, net.fractions, [True, True])


def test_the_checksum_sees_every_number() -> None:
    module, x = VectorNet(3, 2, 4, 1, 0), torch.randn(5, 3)
    net = IntegerNet.calibrate(module, x, None)
    seen = {net.checksum()}
    for name in net.fractions:
        other = {**net.fractions, name: net.fractions[name] - 1}
        seen.add(IntegerNet.from_fractions(module, other, [True, False]).checksum())
    for parameter in module.parameters():
        with torch.no_grad():
            parameter.view(-1)[0] += 0.01
        seen.add(IntegerNet.from_fractions(module, net.fractions, [True, False]).checksum())
    assert len(seen) == 1 + len(net.fractions) + len(list(module.parameters()))


def test_the_module_is_left_as_it_is() -> None:
    module = ImageEncoder((1, 4, 4), 2, 4, 1, 1, False, 0).float().train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    IntegerNet.calibrate(module, torch.rand(3, 1, 4, 4), None)
    assert module.training
    after = module.state_dict()
    assert all(torch.equal(after[name], value) and after[name].dtype == torch.float32 for name, value in before.items())
