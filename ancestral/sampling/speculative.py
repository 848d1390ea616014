"""Speculative sampling: a small model proposes symbols, and the model itself judges several of them in one pass.

At a site the draft's law is q and the model's p, and a proposal x ~ q becomes a sample of p (Leviathan, Kalman & Matias 2023,
arXiv:2211.17192; Chen et al. 2023, arXiv:2302.01318)::

      keep x              with probability min(1, p(x) / q(x)), in all sum min(p, q) of the time
      else replace it     by a draw from max(0, p - q), scaled to sum to 1; what was proposed after it is void

In a round the draft proposes ``gamma`` + 1 symbols and the model judges all of them, having read all but the last: what others
draw there as a bonus is one proposal more, with the same law and the same expected number of symbols. Thus every symbol is a
function of p, q and three uniforms of its own row and site alone, and the same whatever ``gamma`` and the batch are.

Rows of a batch walk together, as far as the row with the fewest settled symbols; what the others have settled beyond it is
proposed again and not judged a second time::

      row 0   a b c d e | f g         settled up to the bar, and behind it void
      row 1   a b c | x y z q         row 0 holds d and e while row 1 gets there
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ancestral.core import Conditional, Context, OrderError, Walk
from ancestral.data.notation import unlike
from ancestral.draw import Draw, inverse_cdf, uniforms
from ancestral.sampling.particles import stepping
from ancestral.sampling.strategies import (
    Model,
    Progress,
    Rows,
    context_of,
    inference,
    likelihood_of,
    part_of,
    prompted,
    sized,
    telling,
)
from ancestral.spec import check_whole
from ancestral.symbols import DataError, ended

ACCEPT, REPLACE = 2**35, 2**36  # streams of the uniforms that judge proposals, and that replace the rejected ones


@dataclass(frozen=True)
class Speculated:
    """Samples, and what they took.

    Attributes:
        x: (n, *shape) symbols.
        calls: passes of the model, each as many times as rows took part.
        judged, accepted: proposals that the model judged, and those that it kept.
    """

    x: Tensor
    calls: int
    judged: int
    accepted: int

    @property
    def acceptance(self) -> float:
        """The share of the judged proposals that were kept; its expectation is 1 less the total variation of p and q."""
        return self.accepted / max(1, self.judged)

    @property
    def symbols_per_call(self) -> float:
        """Symbols that a row gained by a pass of the model; rows that wait for others gain none."""
        return self.judged / max(1, self.calls)


def speculative_sample(
    model: Model,
    draft: Model,
    n: int,
    *,
    gamma: int = 4,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    seed: int = 0,
    labels: Sequence[int] | Tensor | None = None,
    context: Context | None = None,
    prompt: Tensor | Sequence[int] | None = None,
    length: int | None = None,
    first_row: int = 0,
    batch_size: int = 16,
    engine: str = "auto",
    progress: Progress | None = None,
) -> Speculated:
    """n samples of a model, drawn with the help of a draft; their law is that of `sample` with the same options.

    Row i is a pure function of both models, the seed and ``first_row + i``. With the model as its own draft it is what `sample`
    gives.

    Args:
        draft: a cheaper model of the same symbols in the same order, of the same shape or of one that can take it. It is told
            the labels and the features that it was built to take.
        gamma: how many symbols the model reads in a pass besides the one before them; it judges one more.
        temperature, top_k, top_p, min_p: how symbols are drawn, from both models; see `Draw`.
        labels, context, prompt, length, engine: as in `sample`.
        batch_size: rows that walk together; few, for they wait for each other.
        progress: is told (symbols settled, of how many).

    Raises:
        ValueError: an argument is outside its range, or the draft does not fit the model.
        DataError: the prompt does not fit the model, or it is one of real values.

    Example:
        >>> import ancestral
        >>> spec = ancestral.DataSpec("image", (1, 4, 4), levels=2)
        >>> model, draft = (ancestral.build(name, spec, preset="tiny") for name in ("gated-pixelcnn", "nade"))
        >>> drawn = speculative_sample(model, draft, 3, seed=1)
        >>> drawn.x.shape, drawn.symbols_per_call > 1
        (torch.Size([3, 1, 4, 4]), True)
    """
    check_whole(gamma=gamma, batch_size=batch_size)
    if gamma < 1:
        raise ValueError(f"gamma is {gamma}; it must be at least 1")
    model = sized(model, None if length is None else (length,))
    target = likelihood_of(model)
    context = context_of(model, n, labels, context)
    draft, told = _alike(model, draft), _told(draft, context)
    if told is not None and told.vector is not None and draft.spec.classes != model.spec.classes:
        raise ValueError(
            f"the draft knows {draft.spec.classes} classes and the model {model.spec.classes}: take a draft of the same"
            " classes, or one without, which is not told the label"
        )
    other = likelihood_of(draft)
    rows = Rows(model, n, context, seed=seed, first_row=first_row)
    drafts = Rows(draft, n, context_of(draft, n, None, told), seed=seed, first_row=first_row)
    known = None if prompt is None else prompted(target, prompt, n)
    draw = Draw(seed, temperature, top_k, top_p, min_p, known, first_row)
    parts = []
    with inference(model), inference(draft):
        walkers = [stepping(each, engine, min(n, batch_size)) for each in (target, other)]
        for (some, seen), (_, draft_seen) in zip(rows.batches(batch_size), drafts.batches(batch_size), strict=True):
            walks = walkers[0].walk(len(some), seen, gamma), walkers[1].walk(len(some), draft_seen, gamma)
            tell = telling(progress, some, n, target.spec.sites)
            parts.append(_Rounds(*walks, part_of(draw, some), target.spec.end).run(gamma, tell))
    x = ended(torch.cat([part.x for part in parts]), target.spec)
    return Speculated(x, *(sum(getattr(part, name) for part in parts) for name in ("calls", "judged", "accepted")))


def _alike(model: Model, draft: Model) -> Model:
    """The draft, for examples of the model's shape.

    Raises:
        ValueError: it is a model of other symbols, or cannot take that shape or order.
        DataError: the model is one of real values.
    """
    target = likelihood_of(model)
    if target.family.levels is None:
        raise DataError(f"speculative sampling compares the probabilities of symbols, and {target.family} is a density")
    for name in ("levels", "end", "parts"):
        ours, theirs = getattr(model.spec, name), getattr(draft.spec, name)
        if ours != theirs:
            raise ValueError(f"the draft is of {name} {theirs} and the model of {ours}: a draft is a model of the same symbols")
    if fault := unlike(draft.notation, model.notation):
        raise ValueError(f"the draft's symbols {fault}: train a draft on the same data in the same notation")
    try:
        draft = sized(draft, target.network.shape)
    except OrderError as error:
        ours, theirs = tuple(target.network.shape), tuple(likelihood_of(draft).network.shape)
        raise ValueError(
            f"the draft is of shape {theirs} and the model of {ours}, which the draft cannot take ({error}): take another"
            " draft, or ask for samples of a length that both take (length=)"
        ) from error
    if target.network.order != likelihood_of(draft).network.order:
        raise ValueError("the draft settles symbols in another order than the model: arrange one of them in the other's order")
    return draft


def _told(draft: Model, context: Context | None) -> Context | None:
    """Of a context, the labels if the draft was built with them, and the features if it follows some."""
    if context is None or draft.config is None:
        return context
    features, _ = getattr(draft.config, "grid", (0, 1))
    takes = Context(context.vector if draft.conditional else None, context.grid if features else None)
    return takes.map(lambda part: part.to(draft.anchor))


class _Rounds:
    """Speculative samples of n rows, by two walks that can go back ``gamma`` symbols.

    Attributes:
        x: (n, D) symbols in the order of the walk; ``settled`` (n,) tells how many of each row stay.
    """

    def __init__(self, target: Walk, draft: Walk, draw: Draw, end: int | None) -> None:
        self.target, self.draft, self.draw, self.end = target, draft, draw, end
        self.order, n, device = list(target.order.sites), len(target.symbols), target.symbols.device
        self.x = torch.zeros(n, len(self.order), dtype=torch.long, device=device)
        self.settled = torch.zeros(n, dtype=torch.long, device=device)
        if draw.known is not None:
            x, mask = (part.flatten(1)[:, self.order] for part in draw.known)
            self.x, self.settled = x.where(mask, 0).long(), mask.sum(1)
        keys = range(draw.first_row, draw.first_row + n)
        self.u = [uniforms(draw.seed, keys, len(self.order), which).to(device)[:, self.order] for which in (ACCEPT, REPLACE)]

    def run(self, gamma: int, tell: Callable[[int], None] | None = None) -> Speculated:
        """Rounds until every row is settled."""
        calls = judged = accepted = 0
        while (first := int(self.settled.min())) < len(self.order):
            here = slice(first, min(first + gamma + 1, len(self.order)))
            q = self._proposed(here)
            new, kept = self._judged(here, q, self._laws(here))
            calls, judged, accepted = calls + len(self.x), judged + new, accepted + kept
            reached = int(self.settled.min())
            if reached < len(self.order):
                for walk in (self.target, self.draft):
                    walk.rollback(walk.site + 1 - reached)  # the last settled symbol may be another than the one proposed
            if tell is not None:
                tell(reached)
        x = torch.empty_like(self.x)
        x[:, self.order] = self.x
        return Speculated(x.view_as(self.target.symbols), calls, judged, accepted)

    def _proposed(self, here: slice) -> Tensor:
        """Let the draft propose symbols where none are settled; (n, m, levels) what it drew them from."""
        if self.draft.site < here.start:
            self.draft.extend(self.x[:, self.draft.site : here.start])
        laws = []
        for place in range(here.start, here.stop):
            conditional = self.draft.conditional
            drawn = self.draw(self.order[place], conditional)
            self.x[:, place] = self.x[:, place].where(self.settled > place, drawn)
            laws.append(self.draw.probability(conditional))
            if place + 1 < here.stop:
                self.draft.settle(self.x[:, place])
        return torch.stack(laws, 1)

    def _laws(self, here: slice) -> Tensor:
        """(n, m, levels) the model's own laws of these sites, by one pass."""
        begun, laws = self.target.site, []
        if begun < here.stop - 1:
            seen = self.target.extend(self.x[:, begun : here.stop - 1])
            laws.append(self.draw.probability(Conditional(seen.family, seen.parameters[:, here.start - begun :])))
        laws.append(self.draw.probability(self.target.conditional).unsqueeze(1))
        return torch.cat(laws, 1)

    def _judged(self, here: slice, q: Tensor, p: Tensor) -> tuple[int, int]:
        """Settle symbols up to the first of each row that is replaced or ends it; how many were judged, and kept."""
        places = torch.arange(here.start, here.stop, device=self.x.device)
        open_ = places >= self.settled.unsqueeze(1)
        symbols, kept = judge(p, q, self.x[:, here], *(u[:, here] for u in self.u))
        stops = open_ & (~kept if self.end is None else ~kept | (symbols == self.end))
        reached = (here.start + 1 + (~stops).long().cumprod(1).sum(1)).clamp_max(here.stop)
        new = open_ & (places < reached.unsqueeze(1))
        self.x[:, here] = symbols.where(new, self.x[:, here])
        self.settled = torch.maximum(self.settled, reached)
        if self.end is not None:
            self.settled[(new & (symbols == self.end)).any(1)] = len(self.order)
        return int(new.sum()), int((new & kept).sum())


def judge(p: Tensor, q: Tensor, proposed: Tensor, u: Tensor, again: Tensor) -> tuple[Tensor, Tensor]:
    """(...) symbols that follow p, and whether they are those proposed.

    Args:
        p, q: (..., levels) probabilities by the model, and by the draft.
        proposed: (...) symbols drawn from q.
        u, again: (...) uniforms, which judge the proposals and draw what replaces them.

    Example:
        >>> p, q = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.5, 0.3])
        >>> judge(p, q, torch.tensor(1), torch.tensor(0.7), torch.tensor(0.5))  # kept 0.3 / 0.5 of the time, and not now
        (tensor(0), tensor(False))
    """
    mass, proposals = (each.gather(-1, proposed.unsqueeze(-1)).squeeze(-1) for each in (p, q))
    kept = u * proposals < mass
    rest = (p - q).clamp_min(0)
    rest = rest.where(rest.sum(-1, keepdim=True) > 0, p)  # p = q but for rounding
    return proposed.where(kept, inverse_cdf(rest, again)), kept
