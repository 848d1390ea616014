"""Sites one below the other, (n, c, T, 1), each with weights of its own: what NADE is made of."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.autograd.function import Function, once_differentiable
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from ancestral.causal.layer import AffineLayer, Clock, Composite, Labels, Place, Reach, Signal, refuse_symbols
from ancestral.causal.lower import Lowering
from ancestral.causal.pointwise import Scale
from ancestral.causal.program import Affine, Part

CHUNK, VALUES = 8, 2**19  # at most so many sites at once, and about so many hidden values
FORWARD: dict[str, Callable[..., Tensor]] = {"relu": partial(torch.clamp_min, min=0), "sigmoid": torch.sigmoid}
BACKWARD: dict[str, Callable[[Tensor, Tensor], None]] = {  # slopes of hidden values made those of their sums, in place
    "relu": lambda slope, hidden: torch.ops.aten.threshold_backward.grad_input(slope, hidden, 0, grad_input=slope),
    "sigmoid": lambda slope, hidden: torch.ops.aten.sigmoid_backward.grad_input(slope, hidden, grad_input=slope),
}


class Unit(Scale):
    """Symbols 0 .. levels - 1 to [0, 1], so that the first level adds nothing to a sum; real values (levels None) stay.

    Args:
        channels: colour channels of the layout.
        levels: the alphabet.
        flagged: whether a second feature is 1 at every symbol, which tells a known zero from a symbol that is not known.
    """

    def __init__(self, channels: int, levels: int | None, flagged: bool = False) -> None:
        super().__init__(channels, None)
        self.flagged = flagged
        self.labels = tuple(c for c in range(channels) for _ in range(1 + flagged))
        if levels is not None:
            self.gain.fill_(1 / (levels - 1))

    def forward(self, x: Tensor) -> Tensor:
        values = super().forward(x)
        return torch.stack([values, torch.ones_like(values)], 2).flatten(1, 2) if self.flagged else values

    def absorb(self, symbol: Tensor, channel: int) -> Tensor:
        return self(symbol[:, None])  # type: ignore[no-any-return]


def pieces(total: int, values: int) -> list[slice]:
    """Sites a few at a time, of each of which so many values are held."""
    count = min(CHUNK, max(1, VALUES // max(1, values)))
    return [slice(first, min(first + count, total)) for first in range(0, total, count)]


def between(x: Tensor) -> Tensor:
    """(n, t, c) sites to (t n, t c), for each of them the ones before: their running sum is this times their matrices."""
    n, t, features = x.shape
    earlier = torch.ones(t, t, dtype=x.dtype, device=x.device).tril(-1)[:, None, :, None]
    return (x * earlier).reshape(t * n, t * features)


class RunningSum(Composite):
    """a[t] = b + sum over s < t of W_s x_s, NADE's recursion, (n, c, T, 1) to (n, h, T, 1).

    Larochelle & Murray 2011, eq. 6; every site has a matrix of its own. A walk adds one term a site.

    Args:
        before, features: of one site, and of the sum.
        sites: T.

    Attributes:
        sites: (T,) which matrix comes t-th; None where they come in turn.
    """

    reach = Reach(above=1, own_row=False)
    sites: Tensor | None = None

    def __init__(self, before: int, features: int, sites: int) -> None:
        super().__init__()
        bound = 1 / (before * sites) ** 0.5
        self.weight = nn.Parameter(torch.empty(sites, before, features).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(features))

    def arranged(self, sites: Sequence[int]) -> Self:
        """The same layer, its weights shared, over sites in another order."""
        view = copy.copy(self)
        view.sites = torch.tensor(sites)
        return view

    @property
    def matrices(self) -> Tensor:
        """(T, c, h) in the order of the walk."""
        return self.weight if self.sites is None else self.weight[self.sites]

    def infer(self, inputs: Sequence[Signal]) -> tuple[Clock, Labels | None]:
        return Clock.SITE, (0,) * self.weight.shape[2]

    def reads(self, place: Place) -> set[Place]:
        return {(row, place[1]) for row in range(place[0])}

    def forward(self, x: Tensor) -> Tensor:
        terms = torch.einsum("ncts,tch->nhts", x[:, :, :-1], self.matrices[:-1])
        return functional.pad(terms, (0, 0, 1, 0)).cumsum(2) + self.bias[:, None, None]

    def scan(self, x: Tensor, start: Tensor, then: Callable[[Tensor, slice], Tensor]) -> Tensor:
        """What a function makes of the sums, a few sites at a time, so that all of them are never held together.

        Args:
            x: (n, T, c).
            start: (n, h) what the sums start from.
            then: from the (t, n, h) sums of the sites of a slice to (t, n, k); a backward pass does it again.

        Returns:
            (T, n, k).
        """

        def some(start: Tensor, x: Tensor, matrix: Tensor, sites: slice) -> tuple[Tensor, Tensor]:
            sums = (between(x) @ matrix).view(x.shape[1], *start.shape) + start
            return then(sums, sites), torch.addmm(start, x.flatten(1), matrix)

        outputs, matrices = [], self.matrices
        for sites in pieces(x.shape[1], start.numel()):
            given = start, x[:, sites], matrices[sites].flatten(0, 1), sites
            again = torch.is_grad_enabled()
            y, start = checkpoint(some, *given, use_reentrant=False, preserve_rng_state=False) if again else some(*given)
            outputs.append(y)
        return torch.cat(outputs)

    def emit(self, lowering: Lowering, inputs: Sequence[Signal], output: Signal) -> int:
        target = lowering.claim("sum", output)
        source = lowering.window(self.reach, inputs[0], output)
        lowering.reserve(target, above=1)
        lowering.recurrent = True
        sites, _, features = self.weight.shape
        weight = self.matrices.detach().roll(1, 0).clone()  # of the site above
        weight[0] = 0
        bias = functional.pad(self.bias.detach()[None], (0, 0, 0, sites - 1))
        part, before = Part(target, 0, features), Part(target, 0, features, above=1)
        lowering.operations.append(
            Affine(Clock.SITE, 0, part, source, self.reach, before, weight[:, None], bias, False, phases=(sites, 1))
        )
        return target


class SiteAffine(AffineLayer):
    """y[t] = b_t + W_t x[t], a matrix for every site: (n, c, T, 1) to (n, c', T, 1).

    Args:
        before, features: that come in and go out.
        sites: T.
        scaled: whether every matrix has a factor of its own, which starts at 1: RNADE's rho_t (Uria et al. 2013, eq. 8), since
            W relu(rho a) = rho W relu(a).

    Attributes:
        sites: (T,) which matrix comes t-th; None where they come in turn.
    """

    sites: Tensor | None = None

    def __init__(self, before: int, features: int, sites: int, scaled: bool = False) -> None:
        super().__init__()
        self.features, self.phases = features, (sites, 1)
        bound = 1 / before**0.5
        self.weight = nn.Parameter(torch.empty(sites, before, features).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(sites, features))
        self.gain = nn.Parameter(torch.ones(sites, 1, 1)) if scaled else None

    def arranged(self, sites: Sequence[int]) -> Self:
        """The same layer, its weights shared, over sites in another order."""
        view = copy.copy(self)
        view.sites = torch.tensor(sites)
        return view

    @property
    def matrices(self) -> tuple[Tensor, Tensor]:
        """(T, c, c') and (T, c') in the order of the walk."""
        weight = self.weight if self.gain is None else self.weight * self.gain
        return (weight, self.bias) if self.sites is None else (weight[self.sites], self.bias[self.sites])

    def infer(self, inputs: Sequence[Signal]) -> tuple[Clock, Labels | None]:
        refuse_symbols(self, inputs)
        return inputs[0].clock, (0,) * self.features

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.matrices
        return torch.einsum("ncts,tck->nkts", x, weight) + bias.T[..., None]

    def weights(self, channel: int | None) -> tuple[Tensor, Tensor]:
        weight, bias = self.matrices
        return weight[:, None], bias


class Recursion(Function):
    """NADE's hidden layer and outputs: y[t] = b_t + V_t f(start + sum over s < t of W_s x_s), f relu or sigmoid.

    The layers above compute the same. This holds the hidden values of a few sites at a time, also for the slopes, which run
    back as the sums run forth: O(T h) an example in time, and memory for the parameters and one sum in CHUNK sites.

    Called with x (n, T, c), start (n, h), W (T, c, h), V (T, h, k), b (T, k) and the name of f; gives (T, k, n).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, start: Tensor, w: Tensor, v: Tensor, b: Tensor, name: str) -> Tensor:
        y, starts = x.new_empty(x.shape[1], v.shape[2], len(x)), []
        held = hidden_room(x, start)
        for sites in pieces(x.shape[1], start.numel()):
            starts.append(start)
            hidden = hidden_values(x[:, sites], start, w[sites], name, held)
            torch.baddbmm(b[sites, :, None], v[sites].mT, hidden.mT, out=y[sites])
            start = torch.addmm(start, x[:, sites].flatten(1), w[sites].flatten(0, 1))
        ctx.save_for_backward(x, w, v, *starts)
        ctx.name = name
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        with torch.autocast(dy.device.type, enabled=False):
            return Recursion.slopes(ctx, dy)

    @staticmethod
    def slopes(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        """Those with respect to the arguments of ``forward``."""
        x, w, v, *starts = ctx.saved_tensors
        dx, dw, dv = (torch.empty_like(tensor) for tensor in (x, w, v))
        after = torch.zeros_like(starts[0])  # slopes of all later sums
        held, slopes = hidden_room(x, after), hidden_room(x, after)
        for start, sites in reversed(list(zip(starts, pieces(x.shape[1], after.numel()), strict=True))):
            here, matrix = x[:, sites], w[sites].flatten(0, 1)
            hidden = hidden_values(here, start, w[sites], ctx.name, held)
            dv[sites] = torch.bmm(dy[sites], hidden).mT
            slope = slopes[: len(hidden)]
            product = torch.mul if v.shape[2] == 1 else torch.bmm
            product(dy[sites].mT, v[sites].mT, out=slope)
            BACKWARD[ctx.name](slope, hidden)
            before = between(here).T @ slope.flatten(0, 1)
            dw[sites] = before.addmm_(here.flatten(1).T, after).view_as(w[sites])
            if ctx.needs_input_grad[0]:
                mixed = (slope.flatten(0, 1) @ matrix.T).view(len(slope), *here.shape)
                own = (mixed * between(torch.ones_like(here)).view_as(mixed)).sum(0)
                dx[:, sites] = own + (after @ matrix.T).view_as(own)
            after += slope.sum(0)
        return dx if ctx.needs_input_grad[0] else None, after, dw, dv, dy.sum(2), None


def hidden_room(x: Tensor, start: Tensor) -> Tensor:
    """Memory for the hidden values of as many sites as come at once."""
    return start.new_empty(pieces(x.shape[1], start.numel())[0].stop, *start.shape)


def hidden_values(x: Tensor, start: Tensor, matrices: Tensor, name: str, room: Tensor) -> Tensor:
    """(t, n, h) hidden values of (n, t, c) sites, put into memory that is there."""
    hidden, sums = room[: x.shape[1]], start.clone()
    for values, symbols, matrix in zip(hidden, x.unbind(1), matrices, strict=True):
        FORWARD[name](sums, out=values)
        if len(matrix) == 1:
            sums.addcmul_(symbols, matrix)  # a product of a column and a row, in one pass over memory that is at hand
        else:
            sums.addmm_(symbols, matrix)
    return hidden
