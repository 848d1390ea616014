"""Toy networks of every layer besides those of the Gated PixelCNN, wired by a function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ancestral.causal import (
    LSTM,
    AboveAffine,
    Angles,
    Attention,
    CausalNetwork,
    ChannelMixture,
    Constant,
    Embedding,
    LeftAffine,
    Normalisation,
    Previous,
    Reach,
    Rotation,
    RunningSum,
    Scale,
    SiteAffine,
    TimeAffine,
    Transposed,
    Unembedding,
    WindowAffine,
    concat_elu,
    elu,
    gelu,
    glu,
    sigmoid,
    spread,
    tanh,
)

Wiring = Callable[[nn.ModuleDict, Any], Any]


class Wired(CausalNetwork):
    """A network whose body is ``wiring(parts, symbols)``."""

    def __init__(
        self, shape: tuple[int, ...], wiring: Wiring, layout: tuple[int, int, int] | None = None, **parts: nn.Module
    ) -> None:
        super().__init__(shape, layout=layout)
        self.parts, self.wiring = nn.ModuleDict(parts), wiring

    def body(self, x: Tensor, vector: Tensor | None, grid: Tensor | None) -> Tensor:
        return self.wiring(self.parts, x)  # type: ignore[no-any-return]


def running(sites: int = 7, hidden: int = 5) -> Wired:
    """Symbols of three levels, one below the other."""
    parts = {"scale": Scale(1, 3), "sum": RunningSum(1, hidden, sites), "out": SiteAffine(hidden, 3, sites)}
    act = {"sigmoid": sigmoid(), "tanh": tanh()}
    return Wired((sites,), lambda p, x: p["out"](p["tanh"](p["sigmoid"](p["sum"](p["scale"](x))))), (1, sites, 1), **parts, **act)


def recurrent(direction: str, colours: int) -> Wired:
    """One LSTM over symbols of three levels."""
    labels, wide = spread(3 * colours, colours), 3 * colours
    parts: dict[str, nn.Module] = {
        "scale": Scale(colours, 3),
        "left": LeftAffine(spread(colours, colours), labels, 1, strict=True),
        "above": AboveAffine(colours, wide, 3, strict=True),
        "link": LeftAffine((0,) * wide, (0,) * wide),
        "lstm": LSTM(labels, direction),
        "out": LeftAffine(labels, spread(3 * colours, colours)),
    }
    if direction == "reverse":
        parts |= {"input": AboveAffine(colours, 4 * wide, 3, strict=True), "back": WindowAffine(wide, 3 * colours, Reach())}
    else:
        parts["input"] = LeftAffine(labels, labels * 4, int(direction == "row"))

    def wiring(p: nn.ModuleDict, x: Any) -> Any:
        s = p["scale"](x)
        seen = p["left"](s) + p["link"](p["above"](s))
        if direction == "reverse":
            return p["out"](seen) + p["back"](p["lstm"](p["input"](s)))
        return p["out"](p["lstm"](p["input"](seen)))

    return Wired((colours, 4, 5), wiring, **parts)


def pyramid(height: int, width: int) -> Wired:
    """Two resolutions, both streams of a PixelCNN++, and a mixture over whole pixels."""
    beside, above, own = Reach(1, 1), Reach(1, 1, 1), Reach()
    parts: dict[str, nn.Module] = {
        "scale": Scale(3, 256),
        "u": WindowAffine(3, 4, Reach(2, 1, 1, own_row=False)),
        "over": WindowAffine(3, 4, Reach(1, 1, 1, own_row=False)),
        "left": WindowAffine(3, 4, Reach(1, 1, own_site=False)),
        "both": concat_elu(),
        "elu": elu(),
        "glu": glu(),
        "ul": WindowAffine(8, 8, beside),
        "link": WindowAffine(8, 8, own),
        "u1": WindowAffine(8, 4, above),
        "half u": WindowAffine(4, 4, above, 2),
        "half ul": WindowAffine(4, 4, beside, 2),
        "coarse": WindowAffine(4, 4, beside),
        "coarse link": WindowAffine(4, 4, own),
        "twice u": Transposed(4, 4, 1),
        "twice ul": Transposed(4, 4, 0),
        "last": WindowAffine(4, 4, own),
        "out": WindowAffine(4, 20, own),
        "mixture": ChannelMixture(256, 2),
    }

    def wiring(p: nn.ModuleDict, x: Any) -> Any:
        s = p["scale"](x)
        u, ul = p["both"](p["u"](s)), p["both"](p["over"](s) + p["left"](s))
        ul, u = p["glu"](p["ul"](ul) + p["link"](u)), p["u1"](u)
        below, beside = p["half u"](u), p["half ul"](p["elu"](ul))
        beside = p["coarse"](beside) + p["coarse link"](below)
        u, ul = p["twice u"](below) + u, p["twice ul"](beside) + ul
        return p["mixture"](p["out"](p["elu"](ul + p["last"](u))), s)

    return Wired((3, height, width), wiring, **parts)


class Beginning(Constant):
    """A vector at the first token, and zeros after it."""

    def __init__(self, features: int, tokens: int) -> None:
        super().__init__()
        self.first, self.tokens = nn.Parameter(torch.randn(features)), tokens

    def forward(self) -> Tensor:
        return functional.pad(self.first[None, :, None, None], (0, 0, 0, self.tokens - 1))


def tokens(sites: int, window: int | None = None, rotary: bool = False, key_heads: int = 2, centred: bool = True) -> Wired:
    """A layer of attention and one of two matrices, each added to what it reads."""
    heads, size = 2, 4
    c, k = heads * size, key_heads * size
    parts: dict[str, nn.Module] = {
        "embedding": Embedding(1, 3, c),
        "beginning": Beginning(c, sites),
        "previous": Previous(),
        "norm": Normalisation(c, centred),
        "query": LeftAffine((0,) * c, (0,) * c),
        "key": LeftAffine((0,) * c, (0,) * (2 * k)),
        "attention": Attention(heads, key_heads, size, window),
        "mix": LeftAffine((0,) * c, (0,) * c),
        "norm2": Normalisation(c, centred),
        "up": LeftAffine((0,) * c, (0,) * (2 * c)),
        "gelu": gelu(),
        "down": LeftAffine((0,) * (2 * c), (0,) * c),
    }
    if rotary:
        parts |= {"angles": Angles(size, sites), "turn": Rotation(c, size), "turn keys": Rotation(k, size)}
    parts["out"] = Unembedding(parts["embedding"])  # type: ignore[arg-type]

    def wiring(p: nn.ModuleDict, x: Any) -> Any:
        h = p["previous"](p["embedding"](x), p["beginning"](x))
        y = p["norm"](h)
        q, kv = p["query"](y), p["key"](y)
        if rotary:
            angles = p["angles"](x)
            q, kv = p["turn"](q, angles), p["turn keys"](kv, angles)
        h = p["mix"](p["attention"](q, kv)) + h
        h = p["down"](p["gelu"](p["up"](p["norm2"](h)))) + h
        return p["out"](h)

    return Wired((sites,), wiring, (1, sites, 1), **parts)


def token_toys() -> dict[str, Wired]:
    """Networks of tokens, whose symbols have three levels."""
    return {
        "tokens": tokens(9),
        "tokens, turned": tokens(9, rotary=True, centred=False),
        "tokens, shared keys": tokens(9, rotary=True, key_heads=1),
        "tokens, window": tokens(11, window=4),
        "tokens, shared window": tokens(11, window=3, key_heads=1),
    }


def two_sums(sites: int = 7, features: int = 4) -> Wired:
    """Two sums over the same functions, in opposite orders: one of them can have these side by side, as `joined` lays them."""
    units = (0,) * features
    parts: dict[str, nn.Module] = {"embedding": Embedding(1, 3, features), "tanh": tanh()}
    parts["window"] = TimeAffine(units, units, kernel=2, strict=True)
    parts |= {name: LeftAffine(units, units) for name in ("next", "a1", "a2")}
    parts |= {name: LeftAffine(units, (0,) * 3) for name in ("b1", "b2", "out")}

    def wiring(p: nn.ModuleDict, x: Any) -> Any:
        z1 = p["tanh"](p["window"](p["embedding"](x)))
        z2 = p["tanh"](p["next"](z1))
        first = p["tanh"](p["a1"](z1) + p["a2"](z2))
        return p["b2"](z2) + p["b1"](z1) + p["out"](first)

    return Wired((sites,), wiring, (1, sites, 1), **parts)


def toys() -> dict[str, tuple[Wired, int]]:
    """Toys by name, with the levels of their symbols."""
    lstms = {f"{way}, {c} colours": (recurrent(way, c), 3) for way in ("row", "diagonal", "reverse") for c in (1, 3)}
    with_tokens = {name: (network, 3) for name, network in token_toys().items()}
    return {
        "running": (running(), 3),
        "pyramid": (pyramid(8, 8), 256),
        "pyramid 6x4": (pyramid(6, 4), 256),
        **lstms,
        **with_tokens,
    }


def weighted(network: CausalNetwork, scale: float, seed: int = 0) -> CausalNetwork:
    """The network with normal weights."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    return network
