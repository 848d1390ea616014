"""Beam search: the most probable examples that a walk finds when it keeps the best beginnings at every site.

      log p(x_<=i) = log p(x_<i) + log p(x_i | x_<i)          of every beginning with every symbol; the best ``width`` go on

A beginning that takes the symbol ``end``, or the last site, is finished and competes by its score (Wu et al. 2016,
arXiv:1609.08144, eq. 14)::

      score = log p(x) / ((5 + |x|) / 6)^alpha                |x| symbols after the prompt, the ``end`` counted

Width 1 without a penalty is greedy search; a width of levels^(sites - 1) finds the most probable example of all. Between them a
wider beam need not find a more probable one, and what is most probable is often dull or degenerate, above all in images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor

from ancestral.core import Context, Walk
from ancestral.draw import check_numbers, wide_log_pmf
from ancestral.latent.latent import Latents
from ancestral.sampling.particles import stepping
from ancestral.sampling.strategies import (
    Model,
    Progress,
    Rows,
    context_of,
    inference,
    likelihood_of,
    prompted,
    sized,
    telling,
)
from ancestral.spec import check_whole
from ancestral.symbols import DataError

STEEPEST = 10  # largest exponent of a length penalty, beyond which powers of lengths overflow


@dataclass(frozen=True)
class Beams:
    """What a search found for each of n rows, the best first.

    Attributes:
        x: (n, m, *shape) symbols; m is ``n_best``, or less where no row has as many examples.
        log_prob: (n, m) nats, of what comes after the prompt; -inf where a row has fewer examples than others, whose place in x
            then holds none.
        score: (n, m) the same with the length penalty, by which they are sorted.
    """

    x: Tensor
    log_prob: Tensor
    score: Tensor


def beam_search(
    model: Model,
    width: int,
    *,
    n: int = 1,
    n_best: int = 1,
    length_penalty: float = 0.0,
    prompt: Tensor | Sequence[int] | None = None,
    length: int | None = None,
    labels: Sequence[int] | Tensor | None = None,
    context: Context | None = None,
    z: Latents | None = None,
    seed: int = 0,
    batch_size: int = 8,
    engine: str = "auto",
    progress: Progress | None = None,
) -> Beams:
    """The most probable examples of n rows that a beam of some width finds; equals are ranked by their lower symbols.

    Args:
        width: how many beginnings of each row are kept at every site.
        n: how many rows, which differ by their prompts, labels, context or z.
        n_best: how many examples of each row are wanted, at most ``width``.
        length_penalty: alpha of the score above: 0 compares probabilities, more favours longer examples. It matters only where
            examples end.
        prompt: (k,) or (n, k) symbols that the examples begin with, in the order in which symbols are settled.
        length: how many symbols of audio or text there are at most, where the network takes other lengths than its own.
        labels, context: (n,) labels of a conditional model, or whatever else it is conditioned on; not both.
        z, seed: latents by group, (n, *latent), or the seed of those drawn from the prior; the search is for x given z.
        batch_size: rows whose beams walk together.
        engine: what carries the walks out; see `sample`.
        progress: is told (symbols settled, of how many).

    Raises:
        ValueError: an argument is outside its range or does not fit the model.
        DataError: the prompt does not fit the model, or it is one of real values.

    Example:
        >>> import ancestral
        >>> model = ancestral.build("made", ancestral.DataSpec("vector", (4,), levels=3), preset="tiny")
        >>> found = beam_search(model, 27, n_best=5)
        >>> found.x.shape, torch.allclose(found.log_prob[0], model.log_prob(found.x[0]))
        (torch.Size([1, 5, 4]), True)
    """
    check_whole(width=width, n_best=n_best)
    if not abs(length_penalty) <= STEEPEST:
        raise ValueError(f"length_penalty is {length_penalty}; it is an exponent from -{STEEPEST} to {STEEPEST}")
    if not 1 <= n_best <= width:
        raise ValueError(f"n_best is {n_best} and width {width}: at least 1 is wanted, and at most as many as are kept")
    model = sized(model, None if length is None else (length,))
    likelihood = likelihood_of(model)
    if likelihood.family.levels is None:
        raise DataError(f"beam search compares the probabilities of symbols, and {likelihood.family} is a density")
    rows = Rows(model, n, context_of(model, n, labels, context), z, seed)
    known = torch.zeros(n, 0, dtype=torch.long)
    if prompt is not None:
        x, mask = (part.flatten(1)[:, list(likelihood.network.order.sites)] for part in prompted(likelihood, prompt, n))
        known = x[:, : int(mask[0].sum())]
    if known.shape[1] == likelihood.spec.sites:
        raise DataError("the prompt holds every symbol of an example, so there is nothing to search")
    parts = []
    with inference(model):
        walker = stepping(likelihood, engine, n * width)
        for some, seen in rows.batches(batch_size):
            search = _Search(walker.walk(len(some), seen), known[some.start : some.stop], likelihood.spec.end)
            parts.append(search.run(width, n_best, length_penalty, telling(progress, some, n, likelihood.spec.sites)))
    there = torch.cat([part.score for part in parts]).isfinite().any(0)  # rows may differ: by what their conditions rule out
    return Beams(*(torch.cat([getattr(part, name) for part in parts])[:, there] for name in ("x", "log_prob", "score")))


class _Search:
    """Beams of n rows on a walk of n b rows, those of a beam together: b beginnings each, with (n, b) log-probabilities."""

    def __init__(self, walk: Walk, prompt: Tensor, end: int | None) -> None:
        self.walk, self.end, self.n = walk, end, len(walk.symbols)
        if prompt.shape[1]:
            walk.extend(prompt)
        check_numbers(walk.conditional.parameters)
        self.first, self.sites = walk.site, len(walk.order.sites)
        self.live = torch.zeros(self.n, 1, dtype=torch.float64, device=walk.symbols.device)

    def run(self, width: int, n_best: int, alpha: float, tell: Callable[[int], None] | None = None) -> Beams:
        """Search until no live beginning can come among the ``n_best`` of its row."""
        none = torch.full((self.n, n_best), -inf, dtype=torch.float64, device=self.live.device)
        best = Beams(self.walk.symbols.new_zeros(self.n, n_best, *self.walk.symbols.shape[1:]), none, none)
        while True:
            levels, kept, length = self.walk.conditional.family.levels or 0, self.live.shape[1], self.walk.site - self.first + 1
            candidates = self.live.unsqueeze(2) + wide_log_pmf(self.walk.conditional).view(self.n, kept, levels)
            nats, places = candidates.flatten(1).sort(dim=1, descending=True, stable=True)
            nats, places = nats[:, : width + kept], places[:, : width + kept]  # at most ``kept`` of them end an example
            last = self.walk.site + 1 == self.sites
            finished = places % levels == (levels if self.end is None else self.end)  # levels: none of them
            finished = torch.ones_like(finished) if last else finished
            if tell is not None:
                tell(self.sites if last else self.walk.site + 1)
            if finished[:, :width].any():
                ready = nats[:, :width].masked_fill(~finished[:, :width], -inf)
                best = _better(best, self._examples(places[:, :width], levels), ready, penalty(length, alpha))
            if last:
                return best
            going = finished.long().sort(dim=1, stable=True).indices[:, : min(width, kept * (levels - (self.end is not None)))]
            self.live, places = nats.gather(1, going), places.gather(1, going)
            hopes = [self.live[:, 0] / penalty(some, alpha) for some in (length + 1, self.sites - self.first)]
            if (best.score[:, -1] >= torch.maximum(*hopes)).all():
                return best
            self.walk.select(self._parents(places // levels, kept))
            self.walk.settle((places % levels).flatten())

    def _parents(self, beginnings: Tensor, kept: int) -> Tensor:
        """Rows of the walk, of places (n, m) in the beams."""
        return (beginnings + kept * torch.arange(self.n, device=beginnings.device).unsqueeze(1)).flatten()

    def _examples(self, places: Tensor, levels: int) -> Tensor:
        """(n, m, *shape) beginnings with one more symbol, filled up with ``end``."""
        x = self.walk.symbols.index_select(0, self._parents(places // levels, self.live.shape[1]))
        flat, later = x.flatten(1), list(self.walk.order.sites[self.walk.site :])
        flat[:, later] = self.end or 0
        flat[:, later[0]] = (places % levels).flatten()
        return flat.view(*places.shape, *x.shape[1:])


def penalty(length: int, alpha: float) -> float:
    """((5 + length) / 6)^alpha."""
    return float(((5 + length) / 6) ** alpha)


def _better(best: Beams, x: Tensor, nats: Tensor, divisor: float) -> Beams:
    """The best of what was there and of (n, m, *shape) new examples with (n, m) log-probabilities; -inf is left out."""
    log_prob, score = torch.cat([best.log_prob, nats], 1), torch.cat([best.score, nats / divisor], 1)
    score, order = score.sort(dim=1, descending=True, stable=True)
    order = order[:, : best.x.shape[1]]
    examples = torch.cat([best.x, x], 1)[torch.arange(len(x), device=x.device).unsqueeze(1), order]
    return Beams(examples, log_prob.gather(1, order), score[:, : order.shape[1]])
