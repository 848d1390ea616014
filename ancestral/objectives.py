"""What training minimises: pure functions of (model, batch) to named scalars, in nats an example, ``loss`` among them.

They serve a plain loop as well as the trainer::

    terms = elbo(model, Batch(x))
    terms["loss"].backward()

They know nothing of a configuration: what it says of lambda, free bits and the like is among the options of its stages::

    for stage in model.config.stages:
        terms = OBJECTIVES[stage.objective](model, Batch(x, step=step, steps=steps), **stage.options)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from math import log

import torch
from torch import Tensor
from torch.nn import functional

from ancestral.core import Autoregressive, Context, Network
from ancestral.draw import fresh_seed, uniforms
from ancestral.latent.blindfold import blindfolded
from ancestral.latent.charge import Charge
from ancestral.latent.configs import check_least
from ancestral.latent.latent import Elbo, Latent, needs_latents
from ancestral.latent.quantizers import perplexity, usage
from ancestral.latent.topdown import Descent, Group, Noise, given, mean
from ancestral.latent.vq_vae import CodedTopDown
from ancestral.spec import DataSpec

Terms = dict[str, Tensor]
KNOWN = 2**34  # stream of the uniforms that choose known sites; it never changes, nor do the numbers that come of it
ORDERS = 2**35  # stream of those that choose orders, likewise


@dataclass(frozen=True)
class Batch:
    """A batch and all that its randomness depends on.

    Attributes:
        x: (n, *shape) symbols.
        labels: (n,) integers for a conditional model.
        dropped: (n,) booleans, True where the model is to see the null label, a vector of zeros, instead of the row's.
        seed, rows: the noise of this step, by default another for every batch, and the global row of each row.
        step: steps of the stage that came before.
        grid: (n, f, places, 1) features that a model follows, such as a spectrogram; or None.
        steps: all steps of the stage, 0 where nobody knows.
        gamma: what soft free bits have made of the weight of the rate.
    """

    x: Tensor
    labels: Tensor | None = None
    seed: int = field(default_factory=fresh_seed)
    rows: Sequence[int] | None = None
    step: int = 0
    dropped: Tensor | None = None
    grid: Tensor | None = None
    steps: int = 0
    gamma: float = 1.0


def label_context(labels: Tensor | None, spec: DataSpec, like: Tensor) -> Context | None:
    """(n,) labels as the one-hot vector that conditional models take; None stays None, the null label.

    Raises:
        ValueError: the data have no classes, or a label is outside them.
    """
    if labels is None:
        return None
    if spec.classes is None:
        raise ValueError("labels were given, but the model's data have no classes")
    if labels.is_floating_point() or labels.dim() != 1:
        raise ValueError(f"labels are (n,) whole numbers, and these are {tuple(labels.shape)} of type {labels.dtype}")
    if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < spec.classes:
        raise ValueError(f"labels range over {int(labels.min())} .. {int(labels.max())}; the model knows 0 .. {spec.classes - 1}")
    return Context(vector=functional.one_hot(labels.long(), spec.classes).to(like))


def with_grid(context: Context | None, grid: Tensor | None, like: Tensor) -> Context | None:
    """A context with (n, f, places, 1) features in the place of its grid, where there are some."""
    if grid is None:
        return context
    return replace(Context() if context is None else context, grid=grid.to(like))


def nll(model: Autoregressive | Latent, batch: Batch) -> Terms:
    """-log p(x), exact; of a latent-variable model, its likelihood alone, which sees nothing of z."""
    likelihood = model.likelihood if isinstance(model, Latent) else model
    value = -likelihood.log_prob(batch.x, _context(model, batch)).mean()
    return {"loss": value, "nll": value}


def orderless(model: Autoregressive, batch: Batch) -> Terms:
    """D / (D - |m|) times the sum over unknown sites of -log p(x_i | x_m, m) (Uria, Murray & Larochelle 2014, eq. 14).

    How many sites are known is uniform in 0 .. D - 1, then which. The mean over those is that of -log p(x) over all orders: of
    networks with ``given``, which take any order.
    """
    rows, sites = range(len(batch.x)) if batch.rows is None else batch.rows, model.spec.sites
    u = uniforms(batch.seed, rows, sites + 1, KNOWN)
    count = (u[:, -1:] * sites).long()
    known = (u[:, :-1] < u[:, :-1].sort(1).values.gather(1, count)).to(batch.x.device).view(batch.x.shape)
    parameters = model.network.given(batch.x, known, _context(model, batch))  # type: ignore[operator]
    parameters = parameters.float() if parameters.element_size() < 4 else parameters
    terms = model.family.log_prob(parameters, batch.x).masked_fill(known, 0).flatten(1).sum(1)
    value = -(terms * (sites / (sites - count[:, 0])).to(terms)).mean()
    return {"loss": value, "orderless": value}


def shuffled(model: Autoregressive, batch: Batch) -> Terms:
    """-log p(x) under a random order of each example's own: unbiased for its mean over all orders.

    For networks that compute every site ``along`` such orders in one pass.
    """
    u = uniforms(batch.seed, range(len(batch.x)) if batch.rows is None else batch.rows, model.spec.sites, ORDERS)
    parameters = model.network.along(batch.x, u.argsort(1).to(batch.x.device), _context(model, batch))  # type: ignore[operator]
    parameters = parameters.float() if parameters.element_size() < 4 else parameters
    value = -model.family.log_prob(parameters, batch.x).flatten(1).sum(1).mean()
    return {"loss": value, "shuffled": value}


def ensemble_nll(model: Autoregressive, batch: Batch) -> Terms:
    """-log p(x) under one member of an ensemble of masks, each step another in turn (Germain et al. 2015, section 4.2).

    Exact for that member; the ensemble, the mean of their probabilities, does better on average. Of a model that is not in
    training mode it is the first, whatever the step, so that validations can be compared.
    """
    network = model.network
    turn = batch.step if model.training else 0
    member: Network = network.masked(turn % len(network.maskings))  # type: ignore[operator, arg-type]
    return nll(Autoregressive(member, model.family, model.spec), batch)


def elbo(model: Latent, batch: Batch, **charge: float) -> Terms:
    """Distortion + beta * rate (Kingma & Welling 2014; Higgins et al. 2017); for the options see `Charge`."""
    charged = _charge(charge)
    parts = _elbo(needs_latents(model, "elbo"), batch, charged.dropout)
    return _charged({"distortion": parts.distortion}, parts.groups, charged, batch)


def rate(model: Latent, batch: Batch) -> Terms:
    """KL(q(z | x) || p(z)) alone, for priors of a z that they do not change, such as what x determines.

    Of a model that is not in training mode its distortion is told, too.
    """
    descent = _descended(model, batch)
    value = _rate(descent).mean()
    return {"loss": value, "rate": value} | ({} if model.training else {"distortion": _distortion(model, batch, descent).mean()})


def distortion(model: Latent, batch: Batch) -> Terms:
    """-log p(x | z) alone, for likelihoods given a z that they do not change.

    Of a model that is not in training mode its rate is told, too.
    """
    descent = _descended(model, batch)
    value = _distortion(model, batch, descent).mean()
    return {"loss": value, "distortion": value} | ({} if model.training else {"rate": _rate(descent).mean()})


def auxiliary_elbo(model: Latent, batch: Batch, **charge: float) -> Terms:
    """-log p(y | z) + beta * rate: the VAE of the auxiliary y by itself, which AGAVE pretrains; options as `Charge` has them.

    The decoder of x has no part in it, so ``dropout`` does nothing.
    """
    if model.auxiliary is None:
        raise ValueError("the model has no auxiliary loss")
    descent = _descended(model, batch)
    cost = -model.auxiliary.log_prob(batch.x, descent.features)
    return _charged({"auxiliary": cost}, {group.name: group.kl for group in descent.groups}, _charge(charge), batch)


def auxiliary_guided(model: Latent, batch: Batch, lambda_: float = 2.0, **charge: float) -> Terms:
    """-log p(x | z) - log p(y | z) + lambda * rate (Lucas & Verbeek 2018, eq. 7); the other options as `Charge` has them."""
    check_least("lambda_", lambda_)
    charged = _charge({**charge, "beta": lambda_})
    parts = _elbo(model, batch, charged.dropout)
    if parts.auxiliary is None:
        raise ValueError("the model has no auxiliary loss to guide it")
    return _charged({"distortion": parts.distortion, "auxiliary": parts.auxiliary}, parts.groups, charged, batch)


def _charge(options: Mapping[str, float]) -> Charge:
    known = [field.name for field in fields(Charge)]
    for name in options:
        if name not in known:
            raise ValueError(f"there is no option {name!r} of what is charged for z; there are: {', '.join(known)}")
    return Charge(**options)  # type: ignore[arg-type]


def _charged(costs: Terms, groups: Mapping[str, Tensor], charge: Charge, batch: Batch) -> Terms:
    """Means over the batch of (n,) costs and of the rate, whose weight is told where it moves, and what is minimised."""
    means = {name: cost.mean() for name, cost in costs.items()}
    rate = torch.stack([kl.flatten(1).sum(1) for kl in groups.values()]).sum(0).mean()
    weight = charge.weight(batch.step, batch.steps, batch.gamma)
    loss = sum(means.values(), weight * (charge.rate(groups) if charge.free_bits else rate))
    told = {"weight": rate.new_tensor(weight)} if charge.warmup or charge.soft_free_bits else {}
    return {"loss": loss, **means, "rate": rate, **told}


def quantized(model: Latent, batch: Batch, commitment: float = 0.25) -> Terms:
    """-log p(x | codes) + commitment * squared distance of what the encoder gives from the vectors (van den Oord et al. 2017).

    And -log p(y | codes), where the model has an auxiliary loss. All sums over an example and its grids of codes. Of a model in
    training mode the vectors of the codes move, too. The rate is that of codes which are all equally likely, as long as there is
    no other prior; ``perplexity`` is exp(H) of the codes of the batch, ``perplexity_top`` that of a coarser grid.
    """
    topdown = _coded(model)
    descent = model.descend(batch.x, mean, _context(model, batch))
    cost = -model.likelihood.log_prob(batch.x, descent.features).mean()
    far, even, told = torch.zeros_like(cost), 0.0, Terms()
    for grid, posterior in topdown.nearest(descent.groups):
        far = far + grid.quantizer.distance(posterior.bounded, posterior.value).mean()
        even += grid.units * log(grid.quantizer.codes)
        name = "perplexity" if grid.name == "codes" else f"perplexity_{grid.name}"
        told[name] = perplexity(usage(posterior.value, grid.quantizer.codes)).to(cost)
        if model.training:
            grid.quantizer.learn(posterior.bounded, posterior.value, batch.seed)
    loss = cost + commitment * far
    if model.auxiliary is not None:
        told["auxiliary"] = -model.auxiliary.log_prob(batch.x, descent.features).mean()
        loss = loss + told["auxiliary"]
    return {"loss": loss, "distortion": cost, "commitment": far, "rate": cost.new_tensor(even), **told}


def code_prior(model: Latent, batch: Batch) -> Terms:
    """-log p(codes), exact, with encoder and codes as they are; of a model that is not in training mode its distortion, too."""
    topdown, context = _coded(model), _context(model, batch)
    with torch.no_grad():
        groups, *_ = topdown.settled(mean, batch.x, context)
    rate = -torch.stack([group.log_p.flatten(1).sum(1) for group in groups]).sum(0).mean()
    if model.training:
        return {"loss": rate, "rate": rate}
    features = model.features({group.name: group.z for group in groups}, context)
    return {"loss": rate, "rate": rate, "distortion": -model.likelihood.log_prob(batch.x, features).mean()}


def _coded(model: Latent) -> CodedTopDown:
    if not isinstance(model.topdown, CodedTopDown):
        raise ValueError(f"codes are of models such as vq-vae; {type(model.topdown).__name__} has none")
    return model.topdown


def importance_weights(model: Latent, batch: Batch, k: int, at_once: int | None = None) -> Tensor:
    """(n, k) log p(x, z_j) / q(z_j | x) for z_j from the posterior, in nats: k = 1 is the evidence lower bound.

    Sample j of global row r has the noise of row ``r k + j``. x is encoded once where there is one group of latents; where
    there are more, the lower posteriors depend on the z above.

    Args:
        at_once: at most so many of the n k samples are decoded together, though never fewer than n; all by default.
    """
    context = _context(model, batch)
    groups = model.descend(batch.x, mean, context).groups
    encoded = groups[0] if len(groups) == 1 else None
    width = k if at_once is None else max(1, at_once // max(1, len(batch.x)))
    turns = [range(j, min(j + width, k)) for j in range(0, k, width)]
    return torch.cat([_weights(model, batch, context, k, turn, encoded) for turn in turns], 1)


def _weights(model: Latent, batch: Batch, context: Context | None, k: int, turn: range, encoded: Group | None) -> Tensor:
    """(n, len(turn)) log-weights of the samples whose numbers are in ``turn``."""
    n, m = len(batch.x), len(turn)
    keys = [[row * k + j for row in (range(n) if batch.rows is None else batch.rows)] for j in turn]
    x = batch.x.repeat(m, *[1] * (batch.x.dim() - 1))
    wide = context and context.map(lambda part: part.repeat(m, *[1] * (part.dim() - 1)))
    if encoded is None or encoded.posterior is None:
        descent = model.descend(x, Noise(batch.seed, [key for some in keys for key in some]), wide)
        value = -torch.stack([group.log_q.flatten(1).sum(1) for group in descent.groups]).sum(0)
    else:
        draws = []
        for some in keys:  # each is scored before the next is drawn: an inverse flow knows the density of its last draw only
            z = Noise(batch.seed, some)(encoded.name, encoded.prior, encoded.posterior)
            draws.append((z, encoded.posterior.log_prob(z).flatten(1).sum(1)))
        z, log_q = (torch.cat(parts) for parts in zip(*draws, strict=True))
        descent = model.topdown.descend(given({encoded.name: z}), context=wide, n=n * m)
        value = -log_q
    for group in descent.groups:
        value = value + group.log_p.flatten(1).sum(1)
    return (value + model.likelihood.log_prob(x, descent.features)).view(m, n).T


def iwae(model: Latent, batch: Batch, k: int = 5) -> Terms:
    """Minus the importance-weighted bound of k samples (Burda et al. 2016, eq. 8)."""
    if k < 1:
        raise ValueError(f"k is {k}; the bound takes at least 1 sample")
    value = (log(k) - importance_weights(needs_latents(model, "iwae"), batch, int(k)).logsumexp(1)).mean()
    return {"loss": value, "iwae": value}


def _context(model: Autoregressive | Latent, batch: Batch) -> Context | None:
    context = label_context(batch.labels, model.spec, model.anchor)
    if context is not None and batch.dropped is not None:
        dropped = batch.dropped[:, None]
        context = context.map(lambda part: part.masked_fill(dropped, 0))
    return with_grid(context, batch.grid, model.anchor)


def _descended(model: Latent, batch: Batch) -> Descent:
    noise = Noise(batch.seed, range(len(batch.x)) if batch.rows is None else batch.rows)
    return model.descend(batch.x, noise, _context(model, batch))


def _distortion(model: Latent, batch: Batch, descent: Descent) -> Tensor:
    return -model.likelihood.log_prob(batch.x, descent.features)


def _rate(descent: Descent) -> Tensor:
    """(n,) nats of all groups."""
    return torch.stack([group.kl.flatten(1).sum(1) for group in descent.groups]).sum(0)


def _elbo(model: Latent, batch: Batch, dropout: float = 0.0) -> Elbo:
    if dropout and model.training:
        rows = range(len(batch.x)) if batch.rows is None else batch.rows
        likelihood = blindfolded(model.likelihood, batch.x, dropout, batch.seed, rows)
        model = Latent(model.topdown, likelihood, model.spec, model.config, model.auxiliary)
    return model.elbo(batch.x, _context(model, batch), batch.seed, batch.rows)


OBJECTIVES: dict[str, Callable[..., Terms]] = {
    "nll": nll,
    "orderless": orderless,
    "shuffled": shuffled,
    "ensemble_nll": ensemble_nll,
    "elbo": elbo,
    "rate": rate,
    "distortion": distortion,
    "auxiliary_elbo": auxiliary_elbo,
    "auxiliary_guided": auxiliary_guided,
    "iwae": iwae,
    "quantized": quantized,
    "code_prior": code_prior,
}
