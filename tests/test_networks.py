"""Gated PixelCNN: what it sees, how large it is, and what a context does to it."""

from __future__ import annotations

from math import log

import pytest
import torch

from ancestral.core import Autoregressive, Context
from ancestral.families import Bernoulli, Categorical, LogisticMixture
from ancestral.models import build
from ancestral.networks.factorised import Factorised
from ancestral.networks.gated_pixelcnn import GatedPixelCNN
from ancestral.networks.images import image_family
from ancestral.spec import DataSpec
from ancestral.testing import causal, subject


def small(shape: tuple[int, int, int] = (1, 9, 9), **sizes: int) -> GatedPixelCNN:
    return GatedPixelCNN(shape, 4, 2, **{"layers": 4, "channels": 6, "first_kernel": 3, "head": 6, **sizes})  # type: ignore[arg-type]


def test_receptive_field_has_no_blind_spot() -> None:
    """Four layers of 3x3 see the four rows above, four columns to both sides, and four pixels to the left: 40 pixels."""
    field = small().receptive_field() - {(0, 0)}
    assert field == {(-r, c) for r in range(1, 5) for c in range(-4, 5)} | {(0, -c) for c in range(1, 5)}


def test_first_window_of_seven_sees_three_rows() -> None:
    field = small(layers=1, first_kernel=7).receptive_field() - {(0, 0)}
    assert field == {(-r, c) for r in range(1, 4) for c in range(-3, 4)} | {(0, -c) for c in range(1, 4)}


@pytest.mark.parametrize("shape", [(2, 3, 2), (3, 3, 3)])
def test_dead_units_do_not_break_the_law_of_what_is_seen(shape: tuple[int, int, int]) -> None:
    for seed in range(12):
        torch.manual_seed(seed)
        model = build("pixelcnn", DataSpec("image", shape, levels=2), preset="tiny")
        assert "as declared" in causal(subject(model, None, seed))


@pytest.mark.parametrize(("shape", "own"), [((1, 4, 4), False), ((3, 4, 4), True)])
def test_only_coloured_pixels_see_their_own_earlier_channels(shape: tuple[int, int, int], own: bool) -> None:
    network, x = small(shape, layers=2), torch.rand(1, *shape, requires_grad=True)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    for channel in range(shape[0]):
        (slope,) = torch.autograd.grad(network(x)[0, channel, 2, 2].sum(), x, retain_graph=True)
        at_pixel = slope[0, :, 2, 2] != 0
        assert at_pixel.tolist() == [earlier < channel for earlier in range(shape[0])]
    assert own == (shape[0] > 1)


def test_parameter_count() -> None:
    """Counted by hand: windows 21 + 3 and 6 + 2 taps, 1x1 link, out and skip, two feeds to nothing, head."""
    p, k, head = 64, 256, 128
    first = 21 * 2 * p + 2 * p + 3 * 2 * p + 2 * p
    later = 6 * p * 2 * p + 2 * p + 2 * p * 2 * p + 2 * p
    shared = (2 * p) ** 2 + 2 * p + 2 * (p * p + p)
    total = first + 6 * later + 7 * shared + p * head + head + head * k + k
    network = GatedPixelCNN((1, 28, 28), 256, 256)
    assert sum(parameter.numel() for parameter in network.parameters()) == total == 613_248


def test_a_context_is_silent_until_it_is_trained() -> None:
    network, x = small(grid=2, vector=3, stream=4), torch.randint(4, (2, 1, 9, 9))
    context = Context(vector=torch.randn(2, 3), grid=torch.randn(2, 2, 9, 9))
    assert torch.allclose(network(x, context), network(x), rtol=0, atol=1e-14)


def test_a_context_that_the_network_was_not_made_for_is_refused() -> None:
    with pytest.raises(ValueError, match="made without"):
        small()(torch.zeros(1, 1, 9, 9), Context(vector=torch.zeros(1, 3)))


def test_a_grid_may_be_smaller_than_the_image() -> None:
    network = small((1, 8, 8), grid=1, upsample=2)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    grid = torch.randn(2, 1, 4, 4)
    large = grid.repeat_interleave(2, 2).repeat_interleave(2, 3)
    same = small((1, 8, 8), grid=1)
    same.load_state_dict(network.state_dict())
    x = torch.randint(4, (2, 1, 8, 8))
    assert torch.allclose(network(x, Context(grid=grid)), same(x, Context(grid=large)))


@pytest.mark.parametrize(("name", "window", "least"), [("first_kernel", -1, 3), ("first_kernel", 1, 3), ("kernel", 2, 1)])
def test_windows_without_a_centre_are_named(name: str, window: int, least: int) -> None:
    with pytest.raises(ValueError, match=f"^{name} is {window}; a window around a pixel is odd and at least {least}$"):
        build("gated-pixelcnn", DataSpec("image", (1, 4, 4), levels=4), preset="tiny", **{name: window})


def test_families_by_name() -> None:
    assert image_family("auto", 2, 5) == Bernoulli()
    assert image_family("auto", 17, 5) == Categorical(17)
    assert image_family("auto", 256, 5) == LogisticMixture(256, 5)
    with pytest.raises(ValueError, match="256 levels"):
        image_family("bernoulli", 256, 5)


def test_a_factorised_decoder_hands_on_what_it_is_given() -> None:
    network = Factorised((2, 2, 2), size=2, learned=1, start=-3.0)
    grid = torch.randn(1, 2, 2, 2)
    parameters = network(torch.zeros(1, 2, 2, 2), Context(grid=grid))
    assert torch.equal(parameters[..., 0], grid)
    assert (parameters[..., 1] == -3).all()
    with pytest.raises(ValueError, match="takes all it knows from what z was decoded to"):
        network(torch.zeros(1, 2, 2, 2))


def test_it_learns_a_pixel_that_copies_another() -> None:
    """x = (a, a, b, b) with fair a and b costs 2 ln 2 nats; the network must find that within a few steps."""
    torch.manual_seed(0)
    model = build("gated-pixelcnn", DataSpec("image", (1, 2, 2), levels=2), preset="tiny")
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-2)
    for _ in range(150):
        bits = torch.randint(2, (64, 1, 2, 1)).expand(-1, -1, -1, 2)
        loss = -model.log_prob(bits).mean()  # type: ignore[operator]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss.item() < 1.45


IMAGE, SOUND = DataSpec("image", (3, 4, 4), levels=256), DataSpec("audio", (16,), levels=256)


@pytest.mark.parametrize(
    ("name", "spec", "options"),
    [
        ("gated-pixelcnn", IMAGE, {}),
        ("pixelcnn", IMAGE, {"family": "logistic"}),
        ("row-lstm", IMAGE, {"family": "logistic"}),
        ("vlae", IMAGE, {}),
        ("two-stage", IMAGE, {}),
        ("agave", IMAGE, {}),
        ("made", IMAGE, {}),
        ("wavenet", SOUND, {"family": "logistic"}),
        ("transformer", SOUND, {"family": "logistic"}),
    ],
)
def test_a_mixture_starts_spread_over_the_levels(name: str, spec: DataSpec, options: dict[str, object]) -> None:
    """An even choice of 256 levels costs 8 bits; components that all start at the middle, as wide as half of them, 9."""
    torch.manual_seed(0)
    model = build(name, spec, preset="small", **options)
    x = torch.randint(256, (64, *spec.shape))  # type: ignore[arg-type]
    cost = -model.log_prob(x) if isinstance(model, Autoregressive) else model.elbo(x).distortion
    assert cost.mean().item() / (spec.sites * log(2)) < 8.5
