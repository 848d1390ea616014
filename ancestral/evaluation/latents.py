"""What the latents carry: active units, mutual information, what a stranger's z costs, and a verdict in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ancestral.evaluation.bits import Moments, bits, example_nats
from ancestral.evaluation.examples import Chosen, Tick
from ancestral.evaluation.remedies import Remedy
from ancestral.latent.latent import Latent
from ancestral.latent.quantizers import perplexity
from ancestral.latent.topdown import Mapped, Noise

ACTIVE = 0.01  # Burda et al. 2016, section 5.2
LEAST_RATE, LEAST_COST = 0.5, 0.1  # nats: below both, z is not used
LEAST_PERPLEXITY = 1.5  # of codes: below, nearly all are the same one
NAMED = 3  # remedies in a verdict
AT_ONCE = 2**22  # densities of z computed together


def units_of(means: Mapping[str, Moments]) -> tuple[int, int]:
    """How many units are active, and of how many: those whose posterior mean varies over the data by more than 0.01."""
    variances = [moments.variance for moments in means.values()]
    return sum(int((variance > ACTIVE).sum()) for variance in variances), sum(len(variance) for variance in variances)


@dataclass(frozen=True)
class Uses:
    """What use is made of a group of codes.

    Attributes:
        name: of the group.
        used, codes: how many occur, of how many.
        perplexity: how many equally likely codes they are worth, exp of the entropy of one.
    """

    name: str
    used: int
    codes: int
    perplexity: float

    @classmethod
    def of(cls, name: str, counts: Sequence[int]) -> Uses:
        """Of codes that occur so often.

        Example:
            >>> Uses.of("codes", [4, 2, 1, 1, 0]).words
            '4 of 5 codes used, perplexity 3.36'
        """
        tensor = torch.tensor(counts)
        return cls(name, int((tensor > 0).sum()), len(counts), float(perplexity(tensor)))

    @property
    def words(self) -> str:
        """The figures in words."""
        return f"{self.used:,} of {self.codes:,} {self.noun} used, perplexity {_short(self.perplexity)}"

    @property
    def noun(self) -> str:
        """What they are called: codes, or those of a group such as the top."""
        return self.name if self.name == "codes" else f"{self.name} codes"


def derangement(n: int, labels: Tensor | None = None) -> list[int]:
    """A permutation of 0 .. n - 1 that leaves nothing in its place: everyone gets the next one's, of the same label if they have.

    Applied to examples in random order it is a random one.

    Raises:
        ValueError: somebody has nobody to change with.

    Example:
        >>> derangement(4), derangement(4, torch.tensor([0, 1, 1, 0]))
        ([1, 2, 3, 0], [3, 2, 1, 0])
    """
    alike = [list(range(n))] if labels is None else [(labels == one).nonzero().flatten().tolist() for one in set(labels.tolist())]
    if min(len(circle) for circle in alike) < 2:
        raise ValueError(f"{n} examples cannot change places; it takes at least 2{'' if labels is None else ' of every label'}")
    following = {place: circle[i - len(circle) + 1] for circle in alike for i, place in enumerate(circle)}
    return [following[place] for place in range(n)]


def shuffled_distortion(model: Latent, chosen: Chosen, seed: int, batch_size: int, tick: Tick) -> Tensor:
    """(n,) -log p(x | z) in nats with the z of another example, that of `derangement`, of the label that models are told."""
    others = chosen.take(derangement(len(chosen), chosen.labels))
    values = []
    pairs = zip(chosen.batches(model, seed, batch_size), others.batches(model, seed, batch_size), strict=True)
    for (batch, context), (other, others_context) in pairs:
        groups = model.descend(other.x, Noise(seed, other.rows or ()), others_context).groups
        features = model.features({group.name: group.z for group in groups}, context)
        values.append(example_nats(model.likelihood, batch.x, features))
        tick(len(batch.x))
    return torch.cat(values).cpu()


def information(log_q: Tensor, labels: Tensor | None = None) -> float:
    """I(x; z) in nats, estimated from log q(z_i | x_j) at (i, j), z_i being drawn for x_i.

    The mean of log q(z_i | x_i) - log q(z_i), with the mixture of all N posteriors as q(z). Because z_i's own posterior is
    among them the estimate cannot exceed log N (Hoffman & Johnson 2016, "ELBO surgery").

    Of models that are told ``labels`` (N,) it is I(x; z | label), the mixture being that of the posteriors of the same label:
    the rate exceeds it by the mean of KL(q(z | label) || p(z | label)), but need not exceed I(x; z), as p may know the label.

    Example:
        >>> round(information(torch.tensor([[0.0, -50.0], [-50.0, 0.0]])), 4)  # two examples, told apart for certain
        0.6931
    """
    alike = _alike(len(log_q), labels).to(log_q.device)
    mixed = log_q.double().masked_fill(~alike, -torch.inf).logsumexp(1) - alike.sum(1).double().log()
    return float((log_q.diagonal().double() - mixed).mean())


def most_information(n: int, labels: Tensor | None = None) -> float:
    """What `information` of n examples cannot exceed: the mean log of how many are of the same label, or log n.

    Example:
        >>> round(most_information(4), 4), round(most_information(4, torch.tensor([0, 0, 1, 2])), 4)
        (1.3863, 0.3466)
    """
    return float(_alike(n, labels).sum(1).double().log().mean())


def _alike(n: int, labels: Tensor | None) -> Tensor:
    """(n, n) which examples are of the same label; all are where models are told none."""
    return torch.ones(n, n, dtype=torch.bool) if labels is None else labels[:, None] == labels


def mutual_information(model: Latent, chosen: Chosen, seed: int, batch_size: int) -> float | None:
    """I(x; z) in nats under the data and the posterior, see `information`; None where it would take N^2 passes for N examples.

    So it is of more than one group of latents, as the posteriors of lower ones depend on the z above, and of posteriors that
    are flows, which invert each z anew for every example.
    """
    drawn = []
    for batch, context in chosen.batches(model, seed, batch_size):
        groups = model.descend(batch.x, Noise(seed, batch.rows or ()), context).groups
        if len(groups) > 1 or isinstance(groups[0].posterior, Mapped):
            return None
        drawn.append(groups[0].z)
    z = torch.cat(drawn)
    some = max(1, AT_ONCE // (batch_size * z[0].numel()))
    columns = []
    for batch, context in chosen.batches(model, seed, batch_size):
        posterior = model.descend(batch.x, Noise(seed, batch.rows or ()), context).groups[0].posterior
        if posterior is None:
            return None
        parts = [posterior.log_prob(part.unsqueeze(1)).flatten(2).sum(2, dtype=torch.float64) for part in torch.split(z, some)]
        columns.append(torch.cat(parts))
    return information(torch.cat(columns, 1), chosen.labels)


@dataclass(frozen=True)
class Carried:
    """What a verdict rests on.

    Attributes:
        nats: mean of rate and distortion together; None for densities, where a share of it means nothing.
        rate: mean rate, in nats.
        shuffle_cost: nats lost with another example's z; None where there is no other.
        active, units: how many latent units are used, of how many.
        uses: of codes, where z is made of them.
        information: I(x; z) in nats, where it was estimated.
    """

    nats: float | None
    rate: float
    shuffle_cost: float | None
    active: int
    units: int
    uses: Sequence[Uses] = ()
    information: float | None = None

    @property
    def alike(self) -> bool:
        """Whether the posteriors of all examples are nearly the same one, away from the prior, so that the rate tells nothing."""
        return self.information is not None and self.information < LEAST_COST and self.rate >= LEAST_RATE

    @property
    def hardly_chosen(self) -> bool:
        """Whether nearly all codes are the same one, in every grid."""
        return bool(self.uses) and len(self._idle) == len(self.uses)

    @property
    def spare(self) -> str:
        """What of several grids is hardly chosen while another is: it is not needed, which is no collapse; "" where all are."""
        if not self._idle or self.hardly_chosen:
            return ""
        needed = "try one grid (top_halvings=0)" if self._idle[0].name == "top" else "try one grid, as coarse as the top"
        return f"; the {self._idle[0].noun} are hardly chosen: {needed}"

    @property
    def _idle(self) -> list[Uses]:
        return [use for use in self.uses if use.perplexity < LEAST_PERPLEXITY]

    @property
    def picture(self) -> bool:
        """Whether z is an image that x determines, of which no model decides how much it carries."""
        return not self.units and not self.uses

    @property
    def little(self) -> bool:
        """Whether z carries less than 0.5 nats, or the decoder loses less than 0.1 with another example's, or one code is all."""
        unread = self.shuffle_cost is not None and self.shuffle_cost < LEAST_COST
        return unread or self.alike or self.hardly_chosen or (self.rate < LEAST_RATE and not self.picture)


def verdict(carried: Carried, remedies: Sequence[Remedy] = ()) -> str:
    """One sentence on whether z is used; where it is not, the first of the remedies.

    Collapsed is a rate below 0.5 nats with a shuffle cost below 0.1 nats (nearly collapsed: that cost is more), a mutual
    information below 0.1 nats, or a perplexity of codes below 1.5 in every grid; where one of two grids is so, it is named.

    Example:
        >>> verdict(Carried(nats=97.04, rate=12.68, shuffle_cost=20.0, active=12, units=64))
        'z carries 18.3 of 140 bits; 12 of 64 units active'
    """
    whole = "" if carried.nats is None else f"of {_short(bits(carried.nats))} "
    share, cost = f"{_short(bits(carried.rate))} {whole}bits", carried.shuffle_cost
    active = (", ".join(use.words for use in carried.uses) or _active(carried)) + carried.spare
    shuffled = "there is no other whose z could be taken" if cost is None else f"another example's z costs {cost:z.2f} nats"
    if not carried.little:
        return f"z carries {share}; {active}"
    named = ", ".join(f"{remedy.name} ({remedy.setting})" for remedy in remedies[:NAMED])
    helps = f"; remedies: {named}" if named else ""
    if carried.hardly_chosen:
        return f"collapsed: the encoder hardly chooses among the codes; z carries {share}; {active}{helps}"
    if carried.alike:
        told = f"hardly depends on x, as I(x; z) is {carried.information:z.2f} nats"
        return f"collapsed: z takes {share} and {told}; {active}{helps}"
    if carried.rate >= LEAST_RATE or carried.picture:
        return f"z carries {share} that the decoder hardly reads: {shuffled}; {active}{helps}"
    if cost is None or cost < LEAST_COST:
        return f"collapsed: z carries {share}, and {shuffled}; {active}{helps}"
    return f"nearly collapsed: z carries only {share}, but they count, as {shuffled}; {active}{helps}"


def _active(carried: Carried) -> str:
    return "z is a picture that x determines" if carried.picture else f"{carried.active} of {carried.units} units active"


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
