"""The contracts of core: states are used up, walks settle every site once, contexts are rows."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ancestral.core import Autoregressive, Context, Network, StateError
from ancestral.draw import Draw
from ancestral.families import Bernoulli, Normal
from ancestral.spec import DataSpec, Order
from ancestral.symbols import DataError, check_symbols
from ancestral.testing import check


class Running(Network):
    """The smallest network there is: the logit of a site is a weighted sum of the sites before it. `forward` alone."""

    def __init__(self, size: int, discrete: bool = True) -> None:
        super().__init__((size,), discrete)
        self.weight = torch.nn.Parameter(torch.randn(size, size))

    def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
        logits = x.to(self.weight.dtype) @ self.weight.tril(-1).T
        if context is not None and context.vector is not None:
            logits = logits + context.vector
        return logits.unsqueeze(-1)


def model(size: int = 6) -> Autoregressive:
    return Autoregressive(Running(size), Bernoulli(), DataSpec("vector", (size,), levels=2))


def test_a_network_of_one_method_obeys_every_law() -> None:
    report = check(model(), context=Context(vector=torch.randn(4, 6)))
    assert report.failed == ()
    assert {o.law for o in report.outcomes if o.status == "passed"} >= {"causal", "stepwise", "normalised", "sampled", "context"}


def test_chain_rule_of_the_book() -> None:
    """p = 0.6 0.7 0.4 0.8 = 0.1344, 2.895395 bits."""

    class Fixed(Network):
        def __init__(self) -> None:
            super().__init__((4,))
            self.logits = torch.nn.Parameter(torch.logit(torch.tensor([0.6, 0.7, 0.4, 0.8])))

        def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
            return self.logits.expand(len(x), 4).unsqueeze(-1)

    fixed = Autoregressive(Fixed(), Bernoulli(), DataSpec("vector", (4,), levels=2))
    nats = fixed.log_prob(torch.ones(1, 4, dtype=torch.long))
    assert torch.allclose(nats.exp(), torch.tensor([0.1344]))
    assert torch.allclose(-nats / torch.tensor(2.0).log(), torch.tensor([2.895395]), atol=1e-6)


def test_raster_order_visits_the_colours_of_a_pixel_together() -> None:
    order = Order.raster((3, 2, 2)).sites
    assert order[:6] == (0, 4, 8, 1, 5, 9)
    assert sorted(order) == list(range(12))


def test_a_state_is_used_up_by_a_step() -> None:
    network = Running(5)
    _, state = network.start(2)
    network.step(state, torch.zeros(2))
    with pytest.raises(StateError, match="consumed"):
        network.step(state, torch.zeros(2))
    with pytest.raises(StateError, match="consumed"):
        state.select(torch.tensor([0]))


def test_rollback_reaches_as_far_as_was_reserved_and_no_further() -> None:
    network = Running(6)
    _, state = network.start(1, rollback=2)
    for _ in range(4):
        _, state = network.step(state, torch.ones(1))
    state = state.rollback(1)
    state = state.rollback(1)
    with pytest.raises(StateError, match="cannot roll back 1"):
        state.rollback(1)


def test_walk_rolls_back_from_its_very_end() -> None:
    x = torch.tensor([[1, 0, 1, 1, 0, 1]])
    m = model()
    walk = m.walk(1, rollback=3)
    walk.extend(x)
    assert walk.done
    walk.rollback(2)
    assert torch.equal(walk.symbols, torch.tensor([[1, 0, 1, 1, 0, 0]]))
    assert torch.allclose(walk.conditional.parameters, m.network(x)[:, 4])
    walk.extend(x[:, 4:])
    assert torch.equal(walk.symbols, x)
    with pytest.raises(StateError, match="cannot roll back 4"):
        walk.rollback(4)


def test_a_finished_walk_takes_nothing_more() -> None:
    walk = model().walk(1)
    walk.run(Draw())
    with pytest.raises(StateError):
        walk.settle(torch.zeros(1))
    with pytest.raises(StateError):
        _ = walk.conditional


def test_extend_returns_the_conditionals_that_settled_the_symbols() -> None:
    m, x = model(), torch.randint(2, (3, 6))
    walk = m.walk(3)
    seen = torch.cat([walk.extend(x[:, :4]).parameters, walk.extend(x[:, 4:]).parameters], 1)
    assert torch.allclose(seen, m.network(x))


def test_contexts_select_and_repeat_rows_and_keep_what_is_missing() -> None:
    context = Context(vector=torch.arange(6.0).view(3, 2))
    assert torch.equal(context.select(torch.tensor([2, 0])).vector, torch.tensor([[4.0, 5.0], [0.0, 1.0]]))
    repeated = context.repeat(2)
    assert repeated.grid is None
    assert torch.equal(repeated.vector[:2], torch.tensor([[0.0, 1.0], [0.0, 1.0]]))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(2, 5, dtype=torch.long), "shape"),
        (torch.zeros(6, dtype=torch.long), "shape"),
        (torch.zeros(2, 6), "integers 0 .. 1"),
        (torch.full((2, 6), 2), "range over 2 .. 2"),
        (torch.full((2, 6), -1), "range over -1"),
    ],
)
def test_data_that_do_not_fit_are_refused(x: Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message):
        model().log_prob(x)


def test_nan_is_refused() -> None:
    x = torch.tensor([[0.0, float("nan")]])
    with pytest.raises(DataError, match="NaN"):
        check_symbols(x, DataSpec("vector", (2,)))


def test_real_values_walk_too() -> None:
    class Chain(Running):
        def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
            mean = super().forward(x, context)
            return torch.cat([mean, torch.zeros_like(mean)], -1)

    chain = Autoregressive(Chain(4, discrete=False), Normal(), DataSpec("vector", (4,)))
    drawn = chain.walk(5).run(Draw(seed=1))
    assert drawn.dtype == torch.float64
    assert check(chain).failed == ()


def test_a_leak_is_caught() -> None:
    class Leaky(Running):
        def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
            return super().forward(x) + 1e-6 * x.to(self.weight.dtype).unsqueeze(-1)

    report = check(Autoregressive(Leaky(6), Bernoulli(), DataSpec("vector", (6,), levels=2)))
    assert "causal" in {outcome.law for outcome in report.failed}
    with pytest.raises(AssertionError, match="causal"):
        report.raise_if_failed()


def test_a_row_that_sees_another_is_caught() -> None:
    class Mixed(Running):
        def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
            y = super().forward(x)
            return y - 1e-6 * y.mean(0, keepdim=True)

    report = check(Autoregressive(Mixed(6), Bernoulli(), DataSpec("vector", (6,), levels=2)))
    assert "batch" in {outcome.law for outcome in report.failed}


def test_a_wrong_step_is_caught() -> None:
    class Stale(Running):
        def step(self, state, symbol):  # type: ignore[no-untyped-def]
            parameters, after = super().step(state, symbol)
            return parameters + 1e-6, after

    report = check(Autoregressive(Stale(6), Bernoulli(), DataSpec("vector", (6,), levels=2)))
    assert "stepwise" in {outcome.law for outcome in report.failed}
