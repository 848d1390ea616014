"""Networks, families, priors and loops of one's own: what is wrong with them is found, and said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_latents import awake
from torch import Tensor, nn

import ancestral
from ancestral.causal import CausalityError, CausalNetwork, LeftAffine, Scale, relu
from ancestral.core import Autoregressive, Context, Network
from ancestral.data.splits import Examples, Splits
from ancestral.families import Bernoulli, Categorical
from ancestral.objectives import Batch, elbo, label_context, nll
from ancestral.spec import DataSpec, Order
from ancestral.testing import check

ROW = DataSpec("image", (1, 3, 4), levels=2)
LABELLED = DataSpec("vector", (4,), levels=2, classes=2)


class Free(Network):
    """Logits that nothing changes, but for the label's."""

    conditional = True

    def __init__(self, shape: tuple[int, ...] = (4,), size: int = 1) -> None:
        super().__init__(shape)
        self.logits = nn.Parameter(torch.linspace(-1, 1, 2 * size).view(2, size))

    def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
        label = x.new_zeros(len(x), 2).to(self.logits) if context is None or context.vector is None else context.vector
        return (label @ self.logits).view(len(x), *[1] * len(self.shape), -1).expand(*x.shape, -1)


class Left(CausalNetwork):
    """Each pixel from five to its left; between the layers something else can be put."""

    def __init__(self, between: Any) -> None:
        super().__init__((1, 3, 4))
        self.scale, self.left, self.out = Scale(1, 2), LeftAffine((0,), (0,) * 8, 5, strict=True), LeftAffine((0,) * 8, (0,))
        self.window, self.between = nn.Conv2d(8, 8, 3, padding=1), between

    def body(self, x: Tensor, vector: Tensor | None, grid: Tensor | None) -> Tensor:
        return self.out(relu()(self.between(self, self.left(self.scale(x)))))  # type: ignore[no-any-return]


# ---- labels


def test_a_network_of_ones_own_says_that_it_takes_labels() -> None:
    model = ancestral.build(network=Free(), family=Bernoulli(), spec=LABELLED)
    x, labels = torch.zeros(6, 4, dtype=torch.long), torch.tensor([0, 1, 1, 0, 1, 1])
    told = ancestral.evaluate(model, Examples(x, labels)).nats
    assert told == pytest.approx(nll(model, Batch(x, labels))["loss"].item(), rel=1e-5)
    assert told != pytest.approx(ancestral.evaluate(model, Examples(x)).nats)
    data = Splits(Examples(x, labels), Examples(x, labels), Examples(x, labels), LABELLED, "mine", "by hand")
    before = model.network.logits.detach().clone()
    ancestral.fit(model, data, steps=2, batch_size=4, progress=False)
    assert not torch.equal(model.network.logits, before)
    assert check(model).failed == ()


def test_labels_that_a_network_does_not_say_it_takes_are_refused() -> None:
    network = Free()
    network.conditional = False
    with pytest.raises(ValueError, match="does not say that it takes them"):
        ancestral.sample(ancestral.build(network=network, family=Bernoulli(), spec=LABELLED), 2, labels=[0, 1])


@pytest.mark.parametrize("labels", [torch.tensor([0.5, 1.0]), torch.tensor([[0], [1]])])
def test_labels_are_whole_numbers(labels: Tensor) -> None:
    with pytest.raises(ValueError, match="whole numbers"):
        label_context(labels, LABELLED, torch.zeros(()))


# ---- wiring and parts that do not fit


@pytest.mark.parametrize(
    ("between", "named"),
    [
        (lambda self, h: self.window(h), "conv2d"),
        (lambda self, h: torch.relu(h), "relu"),
        (lambda self, h: h + 1, r"\+ with"),
        (lambda self, h: h.flatten(1), r"\.flatten"),
        (lambda self, h: 2 * h, "an operator"),
        (lambda self, h: h[:, :4], "an operator"),
    ],
)
def test_what_is_no_causal_layer_cannot_read_symbols(between: Any, named: str) -> None:
    model = ancestral.build(network=Left(between), family=Bernoulli(), spec=ROW)
    with pytest.raises(CausalityError, match=f"body applies {named}.*: only layers of ancestral.causal"):
        model.log_prob(torch.zeros(2, 1, 3, 4, dtype=torch.long))


@pytest.mark.parametrize(
    ("network", "family", "spec", "message"),
    [
        (nn.Linear(1, 1), Bernoulli(), LABELLED, "takes a Network .* a Linear"),
        (Free(), Bernoulli, LABELLED, "takes a Family .* the class Bernoulli: make one"),
        (Free(), Categorical(3), LABELLED, "levels=3, and the data have levels=2"),
        (Free((1, 2, 2)), Bernoulli(), LABELLED, r"examples \(1, 2, 2\)"),
        (Free((5,)), Bernoulli(), LABELLED, r"examples \(5,\), and the data have \(4,\)"),
        (Free(), ancestral.families.Normal(), DataSpec("vector", (4,)), "takes integers"),
    ],
)
def test_parts_that_do_not_fit_are_refused(network: Any, family: Any, spec: DataSpec, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        ancestral.build(network=network, family=family, spec=spec)


def test_a_configuration_brings_its_own_sizes() -> None:
    config = ancestral.build("made", LABELLED, preset="tiny").config
    with pytest.raises(ValueError, match="a preset goes with a model's name"):
        ancestral.build(config, LABELLED, preset="tiny")
    with pytest.raises(ValueError, match="no setting 'layrs'; did you mean 'layers'"):
        ancestral.build(config, LABELLED, layrs=2)


def test_labels_are_of_data_with_classes() -> None:
    with pytest.raises(ValueError, match="made: conditional=True, and the data have no classes"):
        ancestral.build("made", ROW, preset="tiny", conditional=True)


# ---- laws


class Draws(Categorical):
    """A family that draws what it does not say."""

    def quantile(self, parameters: Tensor, u: Tensor) -> Tensor:
        return torch.zeros_like(u, dtype=torch.long)


class Says(Categorical):
    """A family whose single symbols cost other than all of them together."""

    def log_prob(self, parameters: Tensor, symbols: Tensor) -> Tensor:
        return super().log_prob(parameters, symbols) - 0.1


@pytest.mark.parametrize(("family", "complaint"), [(Draws(3), "quantile draws other symbols"), (Says(3), "is not its log_pmf")])
def test_a_family_agrees_with_itself(family: Categorical, complaint: str) -> None:
    network = Free((1, 4, 4), 3)
    report = check(ancestral.build(network=network, family=family, spec=DataSpec("image", (1, 4, 4), levels=3, classes=2)))
    assert complaint in {outcome.law: outcome.detail for outcome in report.failed}["normalised"]


class Ahead(Network):
    """It sees the symbol that it is to tell, and fails where it is asked to."""

    def __init__(self, shape: tuple[int, ...], levels: int, fails: bool = False) -> None:
        super().__init__(shape)
        self.levels, self.fails = levels, fails

    def forward(self, x: Tensor, context: Context | None = None) -> Tensor:
        if self.fails:
            raise KeyError("mine")
        return 9 * nn.functional.one_hot(x.long(), self.levels).to(self.anchor)


def test_a_prior_of_codes_keeps_the_laws_too() -> None:
    model = ancestral.build("vq-vae", DataSpec("image", (1, 4, 4), levels=2), preset="tiny", prior="gated-pixelcnn")
    assert check(model).failed == ()
    own = model.topdown.prior
    model.topdown.prior = Autoregressive(Ahead(tuple(own.network.shape), own.family.levels), own.family, own.spec)
    failed = {outcome.law: outcome.detail for outcome in check(model).failed}
    assert "the prior of codes" in failed["causal"]


def test_a_law_that_cannot_be_tried_is_broken() -> None:
    model = ancestral.build(network=Ahead((3,), 2, fails=True), family=Categorical(2), spec=DataSpec("vector", (3,), levels=2))
    assert {outcome.law: outcome.detail for outcome in check(model).failed}["causal"] == "raised KeyError: 'mine'"


def test_contexts_have_four_rows_of_any_type() -> None:
    model = ancestral.build(network=Free(), family=Bernoulli(), spec=LABELLED)
    assert check(model, Context(vector=torch.eye(2).repeat(2, 1))).failed == ()
    with pytest.raises(ValueError, match="the context has 3 rows: the laws are tried on 4"):
        check(model, Context(vector=torch.zeros(3, 2)))


# ---- loops of one's own


def test_every_batch_has_noise_of_its_own() -> None:
    model, x = awake("vae", ROW, 0.3), torch.zeros(3, 1, 3, 4, dtype=torch.long)
    torch.manual_seed(0)
    first, second, again = (elbo(model, batch)["loss"].item() for batch in (Batch(x), Batch(x), Batch(x, seed=5)))
    assert first != second and again == elbo(model, Batch(x, seed=5))["loss"].item()
    torch.manual_seed(0)
    assert elbo(model, Batch(x))["loss"].item() == first


def test_a_wrapped_model_has_other_noise_each_time_and_can_be_compiled() -> None:
    model, x = awake("vae", ROW, 0.3), torch.zeros(3, 1, 3, 4, dtype=torch.long)
    assert not torch.equal(model(x), model(x)) and torch.equal(model(x, seed=3), model(x, seed=3))
    whole = torch.compile(model, backend="eager")
    assert elbo(whole, Batch(x, seed=5))["loss"].item() == elbo(model, Batch(x, seed=5))["loss"].item()  # type: ignore[arg-type]


def test_hooks_see_numbers_and_the_wiring_is_looked_at_without_them() -> None:
    model, seen = awake("gated-pixelcnn", ROW, 0.3), list[float]()
    hooks = [
        part.register_forward_hook(lambda *all_of: seen.append(float(all_of[-1].detach().abs().mean())))
        for part in model.network.modules()
        if isinstance(part, LeftAffine)
    ]
    x = torch.zeros(2, 1, 3, 4, dtype=torch.long)
    model.log_prob(x)
    assert hooks and len(seen) == len(hooks) and not model.network._traced
    for hook in hooks:
        hook.remove()
    model.log_prob(x)
    assert model.network._traced


def test_hidden_symbols_leave_type_and_device_alone() -> None:
    spec = DataSpec("image", (1, 8, 8), levels=4, classes=3)
    model = ancestral.build("pixelvae", spec, preset="tiny", conditional=True).double().train()
    batch = Batch(torch.zeros(2, 1, 8, 8, dtype=torch.long), labels=torch.tensor([0, 2]), seed=1)
    assert elbo(model, batch, dropout=0.3)["loss"].dtype == torch.float64


# ---- keeping


class Backwards(Free):
    """From the last to the first."""

    def __init__(self) -> None:
        super().__init__()
        self.order = Order(tuple(reversed(range(4))))


def test_models_with_parts_of_ones_own_are_kept(tmp_path: Path) -> None:
    x = torch.zeros(2, 4, dtype=torch.long)
    model = ancestral.build(network=Backwards(), family=Bernoulli(), spec=LABELLED)
    ancestral.save(model, tmp_path / "order")
    assert torch.equal(ancestral.load(tmp_path / "order", Backwards(), Bernoulli()).log_prob(x), model.log_prob(x))

    def own() -> Any:
        vae = ancestral.build("vae", DataSpec("image", (1, 8, 8), levels=17), preset="tiny")
        vae.topdown.scale = nn.Parameter(torch.rand(2))
        return vae

    kept = own()
    ancestral.save(kept, tmp_path / "vae")
    with pytest.raises(ValueError, match=r"topdown\.scale is \(2,\) in the file and unknown"):
        ancestral.load(tmp_path / "vae")
    assert torch.equal(ancestral.load(tmp_path / "vae", model=own()).topdown.scale, kept.topdown.scale)
    with pytest.raises(ValueError, match="was saved for"):
        ancestral.load(tmp_path / "vae", model=model)
    with pytest.raises(ValueError, match="is the whole"):
        ancestral.load(tmp_path / "vae", Free(), Bernoulli(), model=own())
    turned = ancestral.arrange(awake("gated-pixelcnn", ROW, 0.3), "columns")
    ancestral.save(turned, tmp_path / "turned")
    fresh = ancestral.build("gated-pixelcnn", ROW, preset="tiny")
    pixels = torch.randint(2, (3, 1, 3, 4))
    assert torch.equal(ancestral.load(tmp_path / "turned", model=fresh).log_prob(pixels), turned.log_prob(pixels))


def test_saving_never_takes_a_runs_record(tmp_path: Path) -> None:
    data = ancestral.data("measurements", limit=60)
    model = ancestral.build("rnade", data.spec, preset="tiny")
    ancestral.fit(model, data, steps=1, batch_size=4, progress=False, out=tmp_path / "run")
    with pytest.raises(FileExistsError, match="holds a training run"):
        ancestral.save(model, tmp_path / "run")
    ancestral.save(model, tmp_path / "other", data=data)
    ours, theirs = (ancestral.hub.units_of(tmp_path / name) for name in ("other", "run"))
    assert ours is not None and theirs is not None and ours.to_dict() == theirs.to_dict()
