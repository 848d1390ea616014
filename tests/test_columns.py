"""Real-valued data: Laplace mixtures, a family for each column, and units in which bits/dim mean what they say."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor, nn

import ancestral
from ancestral.core import Autoregressive, Context, Network
from ancestral.data import load_data
from ancestral.data.splits import Dequantized, Examples, Splits
from ancestral.draw import Draw
from ancestral.evaluation import evaluate
from ancestral.families import Bernoulli, Categorical, Columns, Continuous, LaplaceMixture, Normal, NormalMixture
from ancestral.sampling.parallel import parallel_sample
from ancestral.spec import DataSpec
from ancestral.symbols import DataError
from ancestral.testing import check
from ancestral.training.batches import Stream

LEVELS = (2, None, 5, None, 2)
SPEC = DataSpec("vector", (5,), columns=LEVELS)
MIXED = Columns((Bernoulli(), NormalMixture(2), Categorical(5), LaplaceMixture(2), Bernoulli()))


class Triangular(Network):
    """Parameters of a site are an affine function of the symbols before it, squashed so that scales stay moderate."""

    def __init__(self, sites: int, size: int) -> None:
        super().__init__((sites,), discrete=False)
        self.weight = nn.Parameter(torch.randn(sites, size, sites) / 4)
        self.bias = nn.Parameter(torch.randn(sites, size))

    def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
        before = torch.ones(*self.shape, *self.shape).tril(-1).unsqueeze(1).to(x)
        return torch.tanh(torch.einsum("skt,nt->nsk", self.weight * before, x.to(self.weight)) + self.bias)


def mixed() -> Autoregressive:
    return Autoregressive(Triangular(5, MIXED.size), MIXED, SPEC)


def table(n: int) -> Tensor:
    x = torch.randn(n, 5)
    for column, count in SPEC.whole_columns.items():
        x[:, column] = torch.randint(count, (n,)).to(x)
    return x


# -- columns -------------------------------------------------------------------------------------------------------------


def test_columns_are_their_families_side_by_side() -> None:
    parameters, x, u = torch.randn(7, 3, 5, MIXED.size), table(21).view(7, 3, 5), torch.rand(7, 3, 5)
    assert MIXED.size == 6 and not MIXED.discrete
    for site, family in enumerate(MIXED.families):
        own = parameters[..., site, : family.size]
        assert torch.equal(MIXED.log_prob(parameters, x)[..., site], family.log_prob(own, x[..., site]))
        assert torch.equal(MIXED.quantile(parameters, u)[..., site], family.quantile(own, u[..., site]).to(x))
        assert torch.equal(MIXED.mode(parameters)[..., site], family.mode(own).to(x))
        assert MIXED.at(site) == family and family.at(site) == family
    assert MIXED.at((3, 0)) == Columns((LaplaceMixture(2), Bernoulli()))


def test_padding_is_never_read() -> None:
    parameters, x = torch.randn(4, 5, MIXED.size), table(4)
    spoilt = parameters.clone()
    for site, family in enumerate(MIXED.families):
        spoilt[:, site, family.size :] = math.nan
    assert torch.equal(MIXED.log_prob(spoilt, x), MIXED.log_prob(parameters, x))


def test_the_usual_families_of_levels() -> None:
    assert Columns.of(LEVELS, Normal()) == Columns((Bernoulli(), Normal(), Categorical(5), Normal(), Bernoulli()))


def test_columns_refuse_what_they_have_not() -> None:
    with pytest.raises(ValueError, match="need a family each"):
        Columns(())
    with pytest.raises(DataError, match=r"\(4, 6\) are not \(..., 5, 6\)"):
        MIXED.log_prob(torch.zeros(4, 6), torch.zeros(4))
    with pytest.raises(DataError, match=r"at\(site\)"):
        MIXED.log_pmf(torch.zeros(5, 6))
    with pytest.raises(DataError, match=r"at\(site\)"):
        MIXED.table(torch.zeros(5, 6), 12)


def test_a_walk_meets_every_column_with_its_own_family() -> None:
    model, x = mixed(), table(4)
    whole = model.log_prob(x).detach()
    walk, total = model.walk(4), torch.zeros(4)
    for site in range(5):
        assert walk.conditional.family == MIXED.families[site]
        assert walk.conditional.parameters.shape == (4, MIXED.families[site].size)
        total = total + walk.conditional.log_prob(x[:, site])
        walk.settle(x[:, site])
    assert torch.allclose(total, whole, rtol=1e-12) and torch.equal(walk.symbols, x)
    walk = model.walk(4)
    walk.settle(x[:, 0])
    ahead = walk.extend(x[:, 1:4])
    assert ahead.family == Columns(MIXED.families[1:4])
    assert torch.allclose(ahead.log_prob(x[:, 1:4]), model.conditionals(x).log_prob(x)[:, 1:4], rtol=1e-12)


def test_samples_of_columns() -> None:
    model = mixed()
    with torch.no_grad():
        drawn = ancestral.sample(model, 3000, seed=2, batch_size=3000)
        assert torch.allclose(drawn[:40], parallel_sample(model, 40, seed=2).x, atol=1e-9)
        assert torch.allclose(drawn[:40], ancestral.sample(model, 40, seed=2, method="recompute", batch_size=7), atol=1e-9)
        model.conditionals(drawn)  # whole numbers are whole, or this raises
        start, _ = model.network.start(1)
        pmf = Categorical(5).log_pmf(model.network(drawn)[:, 2, :5]).exp()
        share = Bernoulli().log_prob(start[:, :1], torch.ones(1)).exp()
    assert abs(float(drawn[:, 0].mean() - share)) < 4 * math.sqrt(0.25 / 3000)
    # the distribution function of column 2 at its symbols, spread out within each, is uniform
    place = drawn[:, 2:3].long()
    reached = ((pmf.cumsum(-1) - pmf).gather(1, place) + pmf.gather(1, place) * torch.rand(3000, 1)).flatten().sort().values
    assert float((reached - torch.arange(3000) / 3000).abs().max()) < 1.95 / math.sqrt(3000)


def test_known_columns_stay_and_modes_are_taken() -> None:
    model, x = mixed(), table(6)
    known = torch.tensor([True, True, False, False, False]).expand(6, 5)
    with torch.no_grad():
        drawn = model.walk(6).run(Draw(seed=1, known=(x, known)))
        likeliest = model.walk(6).run(Draw(temperature=0))
        assert torch.equal(model.conditionals(likeliest).mode, likeliest)
    assert torch.equal(drawn[:, :2], x[:, :2]) and not torch.equal(drawn, x)


def test_gradients_reach_every_column_that_is_read() -> None:
    model = mixed()
    model.log_prob(table(50)).sum().backward()
    slope = model.network.bias.grad
    assert isinstance(slope, Tensor)
    for site, family in enumerate(MIXED.families):
        assert slope[site].ne(0).tolist() == [i < family.size for i in range(MIXED.size)]


@pytest.mark.parametrize(("column", "value", "last"), [(0, 2.0, 1), (2, -1.0, 4), (2, 1.5, 4), (4, 0.25, 1)])
def test_whole_columns_are_checked(column: int, value: float, last: int) -> None:
    x = table(3)
    x[1, column] = value
    with pytest.raises(DataError, match=f"column {column} holds {value:g}; it takes whole numbers 0 .. {last}$"):
        mixed().log_prob(x)


def test_specs_of_columns() -> None:
    assert DataSpec.from_dict(SPEC.to_dict()) == SPEC and SPEC.density and not DataSpec("vector", (2,), columns=(2, 3)).density
    assert "columns" not in DataSpec("vector", (5,), levels=2).to_dict()
    for faulty in ({"levels": 2}, {"shape": (4,)}, {"kind": "text"}):
        with pytest.raises(ValueError, match="of a vector of 5 values"):
            DataSpec(**{"kind": "vector", "shape": (5,), "columns": LEVELS, **faulty})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="fewer than 2 levels"):
        DataSpec("vector", (2,), columns=(1, None))


def test_a_table_with_columns_is_read_standardised_and_learnt() -> None:
    x = table(200).numpy() * np.array([1, 3.0, 1, 0.01, 1]) + np.array([0, 50.0, 0, -2, 0])
    data = load_data(x, columns=LEVELS, standardize=True)
    assert data.spec == SPEC and data.units is not None
    assert data.units.mean[[0, 2, 4]].tolist() == [0, 0, 0] and data.units.scale[[0, 2, 4]].tolist() == [1, 1, 1]
    assert data.train.x[:, [1, 3]].double().std(0, correction=0) == pytest.approx([1, 1], abs=1e-5)
    assert data.units.nats == pytest.approx(math.log(3) + math.log(0.01), abs=0.3)
    rows = torch.cat([data.units.restore(getattr(data, part).x.double()) for part in ("train", "validation", "test")])
    assert np.allclose(np.sort(rows[:, 1]), np.sort(x[:, 1]), atol=1e-4) and np.allclose(np.sort(rows[:, 2]), np.sort(x[:, 2]))
    ints = load_data(np.random.default_rng(0).integers(0, [2, 3], size=(50, 2)), columns=(2, 3))
    assert ints.spec == DataSpec("vector", (2,), columns=(2, 3)) and ints.train.x.dtype == torch.float32
    with pytest.raises(DataError, match="column 1 holds 2;"):
        load_data(ints.train.x, columns=(2, 2))
    with pytest.raises(DataError, match="of so many columns"):
        load_data(ints.train.x, columns=(2, 3, None))


# -- units ---------------------------------------------------------------------------------------------------------------


def test_whole_numbers_get_noise_and_can_be_had_back() -> None:
    v = torch.randint(256, (40, 1, 5, 5), dtype=torch.uint8)
    data, plain = load_data(v, dequantize=True), load_data(v)
    assert data.spec == DataSpec("image", (1, 5, 5)) and data.units is not None and data.units.dequantized
    assert data.units.nats == pytest.approx(25 * math.log(256)) and "dequantised with uniform noise" in data.note
    for part in ("train", "validation", "test"):
        x, whole = getattr(data, part).x, getattr(plain, part).x
        assert x.dtype == torch.float32 and torch.equal(data.units.restore(x.double()).floor().long(), whole.long())
    assert isinstance(data.redrawn, Dequantized) and torch.equal(data.redrawn.x, plain.train.x)
    rows = torch.tensor([3, 1])
    first, again, other = (data.redrawn.draw(rows, seed) for seed in (5, 5, 6))
    assert torch.equal(first, again) and not torch.equal(first, other) and torch.equal(first[1:], data.redrawn.draw(rows[1:], 5))
    noise = data.units.restore(data.redrawn.draw(torch.arange(32), 1).double()) - data.redrawn.x
    assert abs(float(noise.mean()) - 0.5) < 4 * math.sqrt(1 / 12 / noise.numel()) and 0 <= noise.min() < 0.05


def test_noise_can_be_standardised_where_pixels_never_change() -> None:
    v = torch.zeros(3000, 3, dtype=torch.uint8)
    v[:, 1] = torch.randint(16, (3000,))
    data = load_data(v, levels=16, dequantize=True, standardize=True)
    assert (
        data.units is not None and data.units.mean[0] == 0.5 and data.units.scale[0] == pytest.approx(math.sqrt(1 / 12), rel=1e-5)
    )
    assert data.train.x.mean(0).abs().max() < 0.1 and (data.train.x.std(0) - 1).abs().max() < 0.05


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"standardize": True}, "holds whole numbers"),
        ({"dequantize": True, "binarize": "sample"}, "leave binarize and columns out"),
    ],
)
def test_whole_numbers_and_units_that_do_not_go_together(options: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_data(np.arange(60).reshape(30, 2), **options)  # type: ignore[arg-type]


def test_real_values_and_units_that_do_not_go_together() -> None:
    x = np.random.default_rng(0).normal(size=(30, 3))
    with pytest.raises(DataError, match="dequantize is for whole numbers"):
        load_data(x, dequantize=True)
    with pytest.raises(DataError, match="has its units already"):
        load_data("measurements", standardize=True)
    x[:, 2] = 0.1
    with pytest.raises(DataError, match="column 2 has one value"):
        load_data(x, standardize=True)


def test_standardising_keeps_digits_that_float32_would_lose() -> None:
    x = 1e6 + 1e-3 * np.random.default_rng(0).normal(size=(500, 1))
    data = load_data(x, standardize=True)
    assert len(data.train.x.unique()) > 390 and abs(float(data.train.x.std()) - 1) < 0.01


def test_the_trainer_meets_other_noise_at_every_step() -> None:
    data = load_data(torch.randint(256, (10, 4), dtype=torch.uint8), dequantize=True)
    stream = Stream(data, labelled=False, batch_size=8, seed=0, stage=0, first=0, steps=2)
    first, second = stream.batch(0).x, stream.batch(1).x
    assert data.redrawn is not None and data.units is not None and torch.equal(first, stream.batch(0).x)
    for step, x in enumerate((first, second)):
        assert torch.equal(data.units.restore(x.double()).floor(), data.redrawn.x[stream.rows(step)].double())
    assert not torch.equal(first, second)


# -- figures and laws ---------------------------------------------------------------------------------------------------


class Constant(Network):
    """The same k parameters, zeros, at every site."""

    def __init__(self, shape: tuple[int, ...], size: int) -> None:
        super().__init__(shape, discrete=False)
        self.size = size

    def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
        return self.anchor.expand(*x.shape, self.size)


class Flat(Normal):
    """The uniform density on [0, 1)."""

    def log_prob(self, parameters: Tensor, symbols: Tensor) -> Tensor:
        return torch.zeros_like(symbols)


class Ramp(Normal):
    """The density 2 y on [0, 1)."""

    def log_prob(self, parameters: Tensor, symbols: Tensor) -> Tensor:
        return (2 * symbols).log()


def constant(spec: DataSpec, family: Continuous) -> Autoregressive:
    return Autoregressive(Constant(tuple(size or 0 for size in spec.shape), family.size), family, spec)


def test_a_uniform_density_takes_eight_bits_of_bytes() -> None:
    data = load_data(torch.randint(256, (50, 1, 4, 4), dtype=torch.uint8), dequantize=True)
    found = evaluate(constant(data.spec, Flat()), data)
    assert found.bits_per_dim == pytest.approx(8, abs=1e-12)
    assert found.status == "bound" and not found.density and found.lines()[0].startswith("8.0000")
    assert "bits/dim (bound: dequantised)" in found.lines()[0]


@pytest.mark.parametrize(("v", "log_p", "bound"), [(0, -1.3862944, -1.6931472), (1, -0.2876821, -0.3068528)])
def test_noise_bounds_the_probability_of_whole_numbers(v: int, log_p: float, bound: float) -> None:
    data = load_data(np.full((5000, 1), v), dequantize=True)
    model = constant(data.spec, Ramp())
    assert data.units is not None
    u = (torch.arange(100_000) + 0.5) / 100_000
    inside = model.log_prob(data.units.convert(v + u.unsqueeze(1))) - data.units.nats
    assert float(inside.exp().mean().log()) == pytest.approx(log_p, abs=1e-6)
    assert float(inside.mean()) == pytest.approx(bound, abs=1e-4)
    found = evaluate(model, data, split="train")
    assert found.nats_error is not None and abs(found.nats + bound) < 4 * found.nats_error


def test_the_unit_of_the_data_only_adds_its_logarithm() -> None:
    x = np.random.default_rng(0).normal(size=(500, 3)) @ np.diag([1, 2, 3])
    metres, millimetres = (load_data(x * scale + 7, standardize=True) for scale in (1, 1000))
    found = [evaluate(constant(data.spec, Normal()), data) for data in (metres, millimetres)]
    assert found[1].nats == pytest.approx(found[0].nats + 3 * math.log(1000), abs=1e-3)
    assert found[1].bits_per_dim == pytest.approx(found[0].bits_per_dim + math.log2(1000), abs=1e-3)
    assert found[0].density and found[0].status == "exact"
    plain = load_data(x * 1000 + 7)
    assert plain.units is None and torch.allclose(millimetres.units.restore(millimetres.test.x), plain.test.x, rtol=1e-4)  # type: ignore[union-attr]
    train, test = plain.train.x.double().numpy(), plain.test.x.double().numpy()
    expected = scipy.stats.norm.logpdf(test, train.mean(0), train.std(0)).sum(1).mean()
    assert found[1].nats == pytest.approx(-expected, abs=1e-3)


def test_standard_normals_on_the_embedded_table_are_fitted_ones_on_the_raw_table() -> None:
    data = load_data("measurements")
    assert data.units is not None
    raw = [data.units.restore(part.x.double()).numpy() for part in (data.train, data.test)]
    expected = scipy.stats.norm.logpdf(raw[1], raw[0].mean(0), raw[0].std(0)).sum(1).mean()
    found = evaluate(constant(data.spec, Normal()), data)
    assert found.nats == pytest.approx(-expected, abs=1e-3) and found.data["units"].startswith("the original ones")


def test_tables_of_other_columns_are_not_trained_on() -> None:
    spec = DataSpec("vector", (2,), columns=(3, None))
    some = Examples(torch.zeros(8, 2))
    data = Splits(some, some, some, spec, "table", "zeros")
    with pytest.raises(DataError, match=r"columns is \(3, None\) where the model has \(\)"):
        ancestral.fit(ancestral.build("rnade", DataSpec("vector", (2,)), preset="tiny"), data, steps=1, progress=False)


def test_columns_that_differ_are_refused_and_those_that_fit_are_judged() -> None:
    x = np.random.default_rng(0).integers(0, 2, size=(60, 5)).astype(float)
    data = load_data(x, columns=LEVELS)
    found = evaluate(mixed(), data)
    assert found.density and found.data["range"] == "3 of 5 columns whole numbers"
    with pytest.raises(DataError, match=r"columns=\(2, None, 5, None, 2\)"):
        evaluate(mixed(), load_data(x))
    coins = load_data(x, columns=(2,) * 5)
    found = evaluate(Autoregressive(Constant((5,), 1), Columns((Bernoulli(),) * 5), coins.spec), coins)
    assert not found.density and found.bits_per_dim == pytest.approx(1)


@pytest.mark.parametrize("seed", range(3))
def test_laws_of_columns(seed: int) -> None:
    torch.manual_seed(seed)
    report = check(mixed(), seed=seed)
    passed = {outcome.law for outcome in report.outcomes if outcome.status == "passed"}
    assert passed == {"causal", "batch", "stepwise", "normalised", "sampled"} and not report.failed


def test_laws_of_laplace_mixtures() -> None:
    model = Autoregressive(Triangular(4, 15), LaplaceMixture(5), DataSpec("vector", (4,)))
    assert {"normalised", "sampled"} <= {outcome.law for outcome in check(model).outcomes if outcome.status == "passed"}


def test_the_law_of_sums_sees_a_faulty_column() -> None:
    class Heavier(LaplaceMixture):
        def log_prob(self, parameters: Tensor, symbols: Tensor) -> Tensor:
            return super().log_prob(parameters, symbols) + 1e-5

    faulty = replace(mixed().family, families=(*mixed().family.families[:4], Heavier(2)))  # type: ignore[type-var, attr-defined]
    spec = DataSpec("vector", (5,), columns=(2, None, 5, None, None))
    report = check(Autoregressive(Triangular(5, 6), faulty, spec))
    assert [outcome.law for outcome in report.failed] == ["normalised"]


@pytest.mark.parametrize("columns", [(2, 3), (2, 5, None)])
def test_a_vae_gives_every_column_its_family(columns: tuple[int | None, ...]) -> None:
    spec = DataSpec("vector", (len(columns),), columns=columns)
    model = ancestral.build("vae", spec, preset="tiny").eval()
    assert not check(model).failed
    assert ((samples := ancestral.sample(model, 32, seed=1))[:, :2] == samples[:, :2].floor()).all()
    with pytest.raises(ValueError, match="choose auto"):
        ancestral.build("vae", spec, preset="tiny", decoder="normal")
