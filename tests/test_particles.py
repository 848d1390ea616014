"""Known symbols after unknown ones: particles and orders of their own, by enumeration."""

from __future__ import annotations

import copy

import pytest
import torch
from tiny_latents import awake, coins, fits, fixed, pixels, states
from torch import Tensor
from torch.distributions import Normal

from ancestral.core import Autoregressive, Context, Network
from ancestral.draw import Draw
from ancestral.families import Bernoulli
from ancestral.families import Normal as NormalFamily
from ancestral.latent.latent import Latent
from ancestral.sampling import Interrupted, complete, sample
from ancestral.sampling.complete import Completion
from ancestral.sampling.particles import effective_size, pick, systematic
from ancestral.spec import DataSpec, Order
from ancestral.symbols import DataError

SQUARE = DataSpec("image", (1, 3, 3), levels=2)
HOLE = torch.tensor([[0, 1, 0], [1, 0, 0], [1, 0, 1]]).bool()  # the first and the third site are unknown, the last is known
SHOWN = torch.tensor([[0, 1, 0], [0, 0, 0], [1, 0, 1]])
SURE = fixed(0.8, 0.5)  # a posterior that is wrong and too sure of it; only weights can set it right


class Table(Network):
    """A joint distribution over binary sites as the list of its `states`: the exact conditionals of any order."""

    any_order = True

    def __init__(self, sites: int = 5, sharpness: float = 1.5) -> None:
        super().__init__((sites,))
        by_site = (sharpness * torch.randn(2**sites)).softmax(0).view(*(2,) * sites)
        self.probability = by_site.permute(*reversed(range(sites)))  # the first site changes fastest in `states`

    def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
        ordered, logits, before = self.probability.permute(*self.order.sites), [], torch.zeros(len(x), dtype=torch.long)
        for place, site in enumerate(self.order.sites):
            share = ordered.reshape(2**place, 2, -1).sum(-1).log()
            logits.append((share[:, 1] - share[:, 0])[before])
            before = 2 * before + x[:, site].long()
        return torch.stack(logits, 1)[:, torch.tensor(self.order.sites).argsort(), None]

    def arrange(self, order: Order) -> Table:
        view = copy.copy(self)
        view.order = order
        return view


def table(any_order: bool = True, sharpness: float = 1.5) -> Autoregressive:
    network = Table(sharpness=sharpness)
    network.any_order = any_order
    return Autoregressive(network, Bernoulli(), DataSpec("vector", (5,), levels=2))


def gated() -> Autoregressive:
    """A model whose known symbols say much of the unknown ones before them."""
    torch.manual_seed(2)
    model: Autoregressive = awake("gated-pixelcnn", SQUARE, 0.7)
    return model


def integrated(model: Latent, x: Tensor) -> Tensor:
    """(n,) p(x), the integral over one standard normal z, by the trapezoid rule."""
    z = torch.linspace(-7, 7, 281)
    features, weight = model.features({"z": z[:, None]}), Normal(0.0, 1.0).log_prob(z).exp() * 0.05
    return torch.stack([model.likelihood.log_prob(row.expand(len(z), *row.shape), features).exp() @ weight for row in x])


def judged(model: Autoregressive | Latent, x: Tensor, known: Tensor) -> tuple[Tensor, float]:
    """Probabilities of all states given the known symbols, and log p of the known symbols, by enumeration."""
    everything = states(tuple(x.shape))
    agrees = ((everything == x) | ~known).flatten(1).all(1)
    found = torch.zeros(len(everything))
    with torch.no_grad():
        some = everything[agrees]
        found[agrees] = integrated(model, some) if isinstance(model, Latent) else model.log_prob(some).exp()
    return found / found.sum(), float(found.sum().log())


def many(model: Autoregressive | Latent, x: Tensor, known: Tensor, n: int, particles: int, seed: int = 5) -> Completion:
    return complete(model, x.expand(n, *x.shape), known, seed=seed, particles=particles, batch_size=8192)


def unbiased(log_estimates: Tensor, exact: float) -> bool:
    """Whether the mean of the estimates is within four standard errors of what they estimate."""
    ratio = (log_estimates - exact).exp()
    return abs(ratio.mean() - 1) <= 4 * ratio.std() / len(ratio) ** 0.5


# -- parts ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_systematic_resampling_copies_as_often_as_weights_say(seed: int) -> None:
    weights = 3 * torch.randn(20, 16, generator=torch.Generator().manual_seed(seed))
    weights[:, 5] = -torch.inf
    u = torch.rand(20, generator=torch.Generator().manual_seed(seed))
    u[0], u[1] = 2.0**-53, 1 - 2.0**-53
    counts = torch.stack([torch.bincount(row, minlength=16) for row in systematic(weights, u)])
    expected = 16 * weights.softmax(1)
    assert counts.sum(1).eq(16).all() and counts[:, 5].eq(0).all()
    assert ((counts >= (expected - 1e-9).floor()) & (counts <= (expected + 1e-9).ceil())).all()


def test_systematic_resampling_is_unbiased() -> None:
    weights = torch.tensor([[0.1, 0.0, 0.37, 0.03, 0.5]]).log()
    u = (torch.arange(4000) + 0.5) / 4000
    counts = torch.bincount(systematic(weights.expand(4000, 5), u).flatten(), minlength=5) / 4000
    assert torch.allclose(counts, 5 * weights.exp()[0], atol=1e-3)


def test_a_uniform_next_to_one_never_takes_a_particle_without_weight() -> None:
    weights = torch.tensor([[0.0, 0.0, -torch.inf]])
    assert systematic(weights, torch.tensor([1 - 2.0**-53])).tolist() == [[0, 1, 1]]
    assert pick(weights, torch.tensor([1 - 2.0**-53])).tolist() == [1]


def test_effective_sizes_of_even_and_of_lopsided_weights() -> None:
    weights = torch.tensor([[0.0, 0.0, 0.0, 0.0], [700.0, -700.0, -700.0, -torch.inf], [0.0, 0.0, -torch.inf, -torch.inf]])
    assert torch.allclose(effective_size(weights), torch.tensor([4.0, 1.0, 2.0]))


def test_known_symbols_that_cannot_be_are_refused() -> None:
    with pytest.raises(DataError, match="no particle gives the known symbols a probability above zero"):
        pick(torch.full((2, 3), -torch.inf), torch.tensor([0.5, 0.5]))


# -- autoregressive models -----------------------------------------------------------------------------------------------------


def test_particles_follow_the_conditional_distribution() -> None:
    model = gated()
    expected, evidence = judged(model, SHOWN[None], HOLE[None])
    done = many(model, SHOWN[None], HOLE, n=600, particles=32)
    assert (done.status, done.particles) == ("approximate", 32)
    assert (done.x.eq(SHOWN) | ~HOLE).all()
    assert fits(done.x, expected) > 1e-3
    with torch.no_grad():  # a walk that takes the known symbols and weighs nothing is found out
        careless = model.walk(600).run(Draw(5, known=(SHOWN.expand(600, 1, 3, 3), HOLE.expand(600, 1, 3, 3))))
    assert fits(careless, expected) < 1e-6
    assert float(done.log_evidence.mean()) == pytest.approx(evidence, abs=0.05)


@pytest.mark.parametrize("particles", [2, 5])
def test_the_evidence_is_unbiased_however_few_the_particles(particles: int) -> None:
    model = gated()
    _, exact = judged(model, SHOWN[None], HOLE[None])
    done = many(model, SHOWN[None], HOLE, n=3000, particles=particles)
    assert unbiased(done.log_evidence, exact)
    assert done.log_evidence.std() > 0.01 and done.log_evidence.mean() < exact  # Jensen's inequality
    assert not unbiased(done.log_evidence, exact + 0.3)


def test_particles_that_are_worth_little_are_resampled() -> None:
    torch.manual_seed(9)  # a table whose third symbol is a surprise
    model, x, known = table(any_order=False, sharpness=3.0), torch.tensor([0, 0, 1, 0, 0]), torch.tensor([0, 0, 1, 0, 1]).bool()
    expected, evidence = judged(model, x, known)
    few = many(model, x, known, n=1000, particles=16)
    size, least = few.effective_sample_size, few.least
    assert size is not None and least is not None
    assert (least <= size + 1e-9).all() and (least >= 1).all() and (size <= 16 + 1e-9).all()
    assert (least < 8).all() and (size > least + 1e-9).any()  # uneven at the first known site, less so behind it
    assert unbiased(few.log_evidence, evidence)
    assert fits(few.x, expected) < 1e-4 < 1e-3 < fits(many(model, x, known, n=600, particles=128).x, expected)


def test_a_row_is_completed_alike_in_any_company() -> None:
    """Rows with holes, prefixes and masks of their own; whatever walks beside them."""
    model = awake("gated-pixelcnn", DataSpec("image", (1, 5, 4), levels=4), 0.5)
    x = sample(model, 5, seed=1)
    known = torch.rand(5, 1, 5, 4, generator=torch.Generator().manual_seed(0)) < 0.5
    known[1] = torch.arange(5)[:, None] < 2
    known[3] = True
    whole = complete(model, x, known, seed=4, particles=6, batch_size=64)
    assert torch.equal(whole.x[known], x[known])
    assert whole.effective_sample_size is not None and whole.least is not None
    assert whole.effective_sample_size[[1, 3]].tolist() == [6, 6]
    parts = complete(model, x, known, seed=4, particles=6, batch_size=1)
    assert torch.equal(whole.x, parts.x) and torch.allclose(whole.log_evidence, parts.log_evidence)
    for row in range(5):
        alone = complete(model, x[row : row + 1], known[row], seed=4, particles=6, first_row=row)
        assert torch.equal(alone.x[0], whole.x[row])
        assert torch.allclose(alone.log_evidence[0], whole.log_evidence[row])
        assert alone.status == ("exact" if row in (1, 3) else "approximate")
        if alone.least is not None:
            assert torch.allclose(alone.least[0], whole.least[row])
    assert whole.log_evidence[3] == pytest.approx(float(model.log_prob(x[3:4]).detach()))


def test_rows_of_a_run_are_independent() -> None:
    """Two rows with the same evidence agree no more often than chance has it."""
    model = awake("gated-pixelcnn", SQUARE, 0.3)
    done = many(model, SHOWN[None], HOLE, n=400, particles=4).x.flatten(1)
    unknown = done[:, ~HOLE.flatten()].double()
    assert (torch.corrcoef(torch.stack([unknown[:-1, 0], unknown[1:, 0]]))[0, 1]).abs() < 0.2


def test_real_values_are_smoothed() -> None:
    """x1 ~ N(0, 1), x2 ~ N(x1, 1): given x2 the first has mean x2 / 2 and variance 1/2."""

    class Chain(Network):
        def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
            mean = torch.stack([torch.zeros(len(x)), x[:, 0]], 1)
            return torch.stack([mean, torch.zeros_like(mean)], -1)

    model = Autoregressive(Chain((2,), discrete=False), NormalFamily(), DataSpec("vector", (2,)))
    done = many(model, torch.tensor([torch.nan, 1.5]), torch.tensor([False, True]), n=1000, particles=32)
    assert done.x[:, 0].mean() == pytest.approx(0.75, abs=4 * (0.5 / 1000) ** 0.5 + 0.02)
    assert done.x[:, 0].var() == pytest.approx(0.5, rel=0.15)
    assert unbiased(done.log_evidence, float(Normal(0.0, 2**0.5).log_prob(torch.tensor(1.5))))


def test_options_shape_what_is_drawn_and_not_the_weights() -> None:
    model = awake("gated-pixelcnn", SQUARE, 1.0)
    done = complete(model, SHOWN[None, None], HOLE, temperature=0.0, particles=8)
    with torch.no_grad():
        walk = model.walk(1)
        for site in walk.order.sites:
            walk.settle(SHOWN.flatten()[site : site + 1] if HOLE.flatten()[site] else walk.conditional.mode)
    assert torch.equal(done.x, walk.symbols)
    assert done.effective_sample_size is not None and done.effective_sample_size[0] == pytest.approx(8)


def test_the_native_engine_carries_particles_too() -> None:
    model = awake("gated-pixelcnn", DataSpec("image", (1, 6, 5), levels=17), 0.3).float()
    x, known = torch.full((8, 1, 6, 5), 7), (torch.arange(30) % 2 == 0).view(6, 5)
    native, eager = (complete(model, x, known, particles=8, engine=engine) for engine in ("native", "eager"))
    assert (native.x[:, :, known] == 7).all()
    assert (native.x != eager.x).flatten(1).any(1).sum() <= 2  # a uniform next to a boundary may fall to either side
    same = (native.x == eager.x).flatten(1).all(1)
    assert torch.allclose(native.log_evidence[same], eager.log_evidence[same], rtol=1e-3, atol=1e-3)


def test_progress_ends_at_the_whole_and_interruptions_keep_what_is_done() -> None:
    model = awake("gated-pixelcnn", DataSpec("image", (1, 5, 4), levels=4), 0.5)
    x, told = sample(model, 5, seed=1), list[int]()
    known = (torch.arange(20) % 3 == 1).view(5, 4).expand(5, 1, 5, 4).clone()
    known[2] = torch.arange(5)[:, None] < 2  # the only row that is completed exactly

    def tell(done: int, total: int) -> None:
        assert 0 < done <= total == 100
        told.append(done)

    whole = complete(model, x, known, particles=4, batch_size=8, progress=tell)
    assert told == sorted(told) and told[-1] == 100

    def stop(done: int, total: int) -> None:
        if done > 70:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="2 of 5") as caught:  # row 2 was to come last
        complete(model, x, known, particles=4, batch_size=8, progress=stop)
    assert torch.equal(caught.value.complete, whole.x[:2])


# -- models of any order -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mask", [[0, 1, 0, 0, 1], [0, 0, 0, 1, 0], [1, 0, 1, 0, 1], [0, 0, 0, 0, 0]])
def test_any_order_is_exact(mask: list[int]) -> None:
    model, known, x = table(), torch.tensor(mask).bool(), torch.tensor([1, 0, 1, 1, 0])
    expected, evidence = judged(model, x, known)
    done = many(model, x, known, n=2000, particles=2)
    assert (done.status, done.particles, done.least) == ("exact", None, None)
    assert fits(done.x, expected) > 1e-3
    assert torch.allclose(done.log_evidence, torch.tensor(evidence).expand(2000))


def test_masks_of_their_own_in_any_order() -> None:
    model, n = table(), 12
    x = sample(model, n, seed=1)
    known = torch.rand(n, 5, generator=torch.Generator().manual_seed(3)) < 0.5
    known[4:] = known[torch.tensor([0, 1, 2, 3, 0, 1, 2, 3])]
    whole = complete(model, x, known, seed=2)
    assert whole.status == "exact" and torch.equal(whole.x[known], x[known])
    for row in range(n):
        alone = complete(model, x[row : row + 1], known[row], seed=2, first_row=row)
        assert torch.equal(alone.x[0], whole.x[row])
        assert float(alone.log_evidence) == pytest.approx(judged(model, x[row], known[row])[1])


def test_particles_and_orders_agree() -> None:
    """The same table, once of any order and once of one: what is exact there is approximated here."""
    x, known = torch.tensor([1, 0, 1, 1, 0]), torch.tensor([0, 1, 0, 0, 1]).bool()
    model = table(any_order=False)
    expected, evidence = judged(model, x, known)
    done = many(model, x, known, n=1000, particles=32)
    assert done.status == "approximate"
    assert fits(done.x, expected) > 1e-3 and unbiased(done.log_evidence, evidence)


# -- latents -------------------------------------------------------------------------------------------------------------------


def test_latents_and_symbols_are_particles_together() -> None:
    model = pixels(SURE)
    x, known = torch.tensor([[[1, 0], [0, 1]]]), torch.tensor([[[False, True], [False, True]]])
    expected, evidence = judged(model, x, known)
    done = many(model, x, known, n=600, particles=32)
    assert done.status == "approximate" and done.particles == 32
    assert fits(done.x, expected) > 1e-3
    few = many(model, x, known, n=1200, particles=4, seed=6)
    assert unbiased(few.log_evidence, evidence) and not unbiased(few.log_evidence, evidence + 0.3)


def test_agave_completes_around_a_hole() -> None:
    model = awake("agave", SQUARE, 0.7, latent=1)
    expected, evidence = judged(model, SHOWN[None], HOLE[None])
    done = many(model, SHOWN[None], HOLE, n=300, particles=20)
    assert done.status == "approximate" and fits(done.x, expected) > 1e-3
    assert unbiased(done.log_evidence, evidence)


def test_evidence_through_latents_is_unbiased_too() -> None:
    model, x, known = coins(SURE, slopes=(3.0, -2.0, 1.5)), torch.tensor([1, 0, 1]), torch.tensor([True, False, True])
    _, evidence = judged(model, x, known)
    assert unbiased(many(model, x, known, n=3000, particles=4).log_evidence, evidence)


def test_latent_rows_in_any_company() -> None:
    model = awake("agave", DataSpec("image", (1, 5, 4), levels=4, classes=3), 0.5)
    x = sample(model, 4, seed=1)
    known = torch.rand(4, 1, 5, 4, generator=torch.Generator().manual_seed(0)) < 0.5
    known[1] = torch.arange(5)[:, None] < 2
    whole = complete(model, x, known, seed=4, particles=5, batch_size=20)
    assert torch.equal(whole.x[known], x[known])
    for row in range(4):
        alone = complete(model, x[row : row + 1], known[row], seed=4, particles=5, first_row=row)
        assert torch.equal(alone.x[0], whole.x[row]) and alone.status == "approximate"
        assert torch.allclose(alone.log_evidence[0], whole.log_evidence[row])


def test_latent_rows_of_which_the_same_pixels_are_known_in_any_company() -> None:
    """Known from the first pixel on, so that particles of z are told apart before any is drawn."""
    model = awake("pixelvae", DataSpec("image", (1, 5, 4), levels=4), 0.5)
    x, known = sample(model, 3, seed=1), torch.ones(1, 5, 4, dtype=torch.bool)
    known[0, 1:3, 1:3] = False
    whole = complete(model, x, known, seed=4, particles=5)
    assert torch.equal(whole.x[:, known], x[:, known]) and (whole.effective_sample_size != 5).all()
    for row in range(3):
        alone = complete(model, x[row : row + 1], known, seed=4, particles=5, first_row=row)
        assert torch.equal(alone.x[0], whole.x[row]) and torch.allclose(alone.log_evidence[0], whole.log_evidence[row])
