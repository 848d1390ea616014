"""Mixtures over orders: a model in every one of several orders, their probabilities averaged."""

from __future__ import annotations

from collections.abc import Callable
from math import log

import torch
from torch import Tensor

from ancestral.core import Autoregressive, Network, OrderError
from ancestral.evaluation.examples import Chosen, Tick
from ancestral.evaluation.score import exact_nats
from ancestral.spec import SYMMETRIES, Order

OWN, SHUFFLED = "orders of its own", "random orders"
TURNED = "symmetries of the raster order, worth it for a network that was trained in them"


def ensemble(network: Network, count: int, seed: int = 0) -> tuple[list[Network], str]:
    """Views of a network, each in an order of its own, and what these orders are.

    A network says itself which ones by ``members(count, seed) -> list[Network]``, of which there may be fewer; else one that
    takes any order gets random ones, and one of images some of the eight symmetries, the raster order first.

    Raises:
        OrderError: the network has one order alone, or fewer symmetries than ``count``.
    """
    own: Callable[[int, int], list[Network]] | None = getattr(network, "members", None)
    if own is not None:
        found, kind = own(count, seed), OWN
    elif network.any_order:
        shape = tuple(network.shape)
        found, kind = [network.arrange(Order.shuffled(shape, (seed << 32) + i)) for i in range(count)], SHUFFLED
    else:
        if count > len(SYMMETRIES):
            raise OrderError(f"{count} orders were asked for, and {type(network).__name__} takes {len(SYMMETRIES)}")
        found, kind = [network.arrange(name) for name in list(SYMMETRIES)[:count]], TURNED
    if len(found) < 2:
        raise OrderError(f"{type(network).__name__} was made for one order: there is nothing to average, leave orders at 1")
    return found, kind


def order_nats(model: Autoregressive, members: list[Network], chosen: Chosen, batch_size: int, tick: Tick) -> Tensor:
    """(orders, n) -log p_o(x) in nats, float64, of every example in every order."""
    models = [Autoregressive(member, model.family, model.spec, model.config) for member in members]
    return torch.stack([exact_nats(each, chosen, batch_size, tick) for each in models])


def mixed(nats: Tensor) -> Tensor:
    """(orders, n) -log p_o(x) to (n,) -log of the mean of p_o(x), never above the mean of the nats.

    Example:
        >>> mixed(-torch.tensor([[0.5], [0.25]]).log()).neg().exp()
        tensor([0.3750])
    """
    return log(len(nats)) - torch.logsumexp(-nats, 0)
