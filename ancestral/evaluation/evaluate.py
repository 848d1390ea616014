"""`evaluate`: every figure that a model is judged by, on examples that are named."""

from __future__ import annotations

from dataclasses import asdict
from math import log
from typing import Any

from torch import Tensor

from ancestral.core import Autoregressive
from ancestral.data.notation import Text
from ancestral.data.source import permutation
from ancestral.evaluation.bits import Mean, in_units, ratio_error
from ancestral.evaluation.ensemble import ensemble, mixed, order_nats
from ancestral.evaluation.examples import SUBSET, Chosen, Data, Tick, check_costs, chosen_examples, counter
from ancestral.evaluation.iwae import bounds
from ancestral.evaluation.latents import (
    Carried,
    Uses,
    most_information,
    mutual_information,
    shuffled_distortion,
    units_of,
    verdict,
)
from ancestral.evaluation.numerics import NUMERICS, numerics_cost
from ancestral.evaluation.pairs import MOST_PAIRED, paired_information
from ancestral.evaluation.rate_distortion import RateDistortion, rate_distortion
from ancestral.evaluation.remedies import remedies
from ancestral.evaluation.result import Evaluation
from ancestral.evaluation.score import exact_nats, status_of
from ancestral.latent.codes import coded
from ancestral.latent.latent import Latent
from ancestral.sampling.strategies import Model, Progress, inference
from ancestral.spec import check_whole

MOST_POSTERIORS = 1000  # that the mutual information is estimated on; its ceiling is their log


def evaluate(
    model: Model,
    data: Data,
    *,
    split: str = "test",
    importance_samples: int = 50,
    subset: int = 500,
    limit: int | None = None,
    batch_size: int = 64,
    seed: int = 0,
    numerics: str = "float",
    orders: int = 1,
    progress: Progress | None = None,
) -> Evaluation:
    """Judge a model: bits/dim with its status, and of latent-variable models all that says whether z is used.

    The evidence lower bound is taken over all examples with one sample each and a KL weight of 1; the bound of k samples,
    beside the ELBO of the same samples, on a seeded subset. Every row has noise of its own, so that the figures do not
    depend on the batch size.

    Args:
        data: `Splits`, a name or a path, of which ``split`` is judged; or `Examples`, a tensor or an array, judged whole. Of
            standardised or dequantised data only Splits know the units: the figures of the others are of numbers as they stand.
        importance_samples: k; 0 leaves the importance-weighted bound out. Exact models need none, and of models with codes, of
            which x leaves no choice, all samples are the same: there it is ignored.
        subset: examples for that bound and for the shuffle cost.
        limit: at most so many examples, a seeded choice.
        batch_size: examples, or samples of them, that are decoded together.
        numerics: ``"exact"`` also tells what the whole numbers of files cost, on the subset.
        orders: of how many orders the probabilities are averaged, for a model without latents: random ones where it takes any,
            its own where it was trained in several, else symmetries of the raster order. The status is that of the mixture.
        progress: is told (decodings done, of how many).

    Raises:
        DataError: there are no examples, they are not what the model is a model of, or a cost is not finite.
        OrderError: the model has not so many orders.
        ValueError: an argument is outside its range.

    Example:
        >>> import ancestral
        >>> data = ancestral.data("digits")
        >>> found = evaluate(ancestral.build("vae", data.spec, preset="tiny"), data, importance_samples=5, limit=20)
        >>> found.status, found.nats == found.rate + found.distortion, found.elbo_subset <= found.iwae
        ('bound', True, True)
    """
    for name, value, least in (("importance_samples", importance_samples, 0), ("subset", subset, 1), ("orders", orders, 1)):
        check_whole(**{name: value})
        if value < least:
            raise ValueError(f"{name} is {value}; it must be at least {least}")
    if numerics not in NUMERICS:
        raise ValueError(f"numerics is {numerics!r}; it must be one of {', '.join(NUMERICS)}")
    if orders > 1 and (isinstance(model, Latent) or numerics == "exact"):
        raise ValueError(f"orders is {orders}: the mean over orders is of models without latents, in floating point")
    chosen, note = chosen_examples(model, data, split, limit, seed)
    m = min(subset, len(chosen))
    order = permutation(len(chosen), seed, SUBSET).tolist()
    some = chosen.take(order[:m])
    k = 0 if coded(model) else importance_samples
    work = len(chosen) * orders + (m * k + m * (m > 1) if isinstance(model, Latent) else 0)
    work += m * (numerics == "exact")
    tick = counter(progress, work)
    with inference(model):
        if isinstance(model, Latent):
            figures = _latent(model, chosen, order, k, m, batch_size, seed, tick)
        else:
            figures = _exact(model, chosen, orders, batch_size, seed, tick)
        if numerics == "exact":
            figures |= numerics_cost(model, some, seed, batch_size, tick)
    bounded = chosen.units is not None and chosen.units.dequantized
    return Evaluation(
        status="bound" if bounded else status_of(model),
        examples=len(chosen),
        **_sizes(chosen, model),
        subset_sites=_mean_sites(some, model),
        density=model.spec.density and not bounded,
        data=note,
        seed=seed,
        **in_units(figures, chosen.units),
    )


def _sizes(chosen: Chosen, model: Model) -> dict[str, Any]:
    """How many symbols an example has, on average where lengths vary, and how many bytes of text."""
    sites = _mean_sites(chosen, model)
    total = chosen.bytes(model.spec)
    if total is None:
        return {"sites": sites}
    return {
        "sites": sites,
        "bytes": total / len(chosen),
        "tokens": isinstance(chosen.notation, Text) and chosen.notation.code == "bpe",
    }


def _mean_sites(chosen: Chosen, model: Model) -> float:
    return model.spec.sites if model.spec.end is None else max(1.0, float(chosen.lengths(model.spec).double().mean()))


def _symbol_error(nats: Tensor, chosen: Chosen, model: Model) -> float | None:
    """The standard error of a symbol's cost, where lengths vary."""
    return None if model.spec.end is None else ratio_error(nats, chosen.lengths(model.spec))


def _exact(model: Autoregressive, chosen: Chosen, orders: int, batch_size: int, seed: int, tick: Tick) -> dict[str, Any]:
    if orders == 1:
        alone = exact_nats(model, chosen, batch_size, tick)
        check_costs(alone, chosen, model.spec)
        nats = Mean.of(alone)
        return {"nats": nats.value, "nats_error": nats.error, "symbol_error": _symbol_error(alone, chosen, model)}
    members, kind = ensemble(model.network, orders, seed)
    each = order_nats(model, members, chosen, batch_size, tick)
    check_costs(each, chosen, model.spec)
    nats = Mean.of(mixed(each))
    averaged = {"orders": len(members), "ordering": kind, "order_nats": float(each.mean())}
    return {"nats": nats.value, "nats_error": nats.error, **averaged}


def _latent(
    model: Latent, chosen: Chosen, order: list[int], k: int, m: int, batch_size: int, seed: int, tick: Tick
) -> dict[str, Any]:
    """What a model with latents gives; of ``order``, that of subsets, the first ``m`` are weighed with ``k`` samples."""
    terms = rate_distortion(model, chosen, seed, batch_size, tick)
    check_costs(terms.rate + terms.distortion, chosen, model.spec)
    figures = {
        **_terms(terms),
        "symbol_error": _symbol_error(terms.rate + terms.distortion, chosen, model),
        **_weighted(model, chosen.take(order[:m]), k, batch_size, seed, tick),
        **_shuffled(model, chosen, terms, order[:m], batch_size, seed, tick),
        **_information(model, chosen, terms, order[:MOST_POSTERIORS], batch_size, seed),
        "subset": m,
    }
    nats = None if model.spec.levels is None else figures["nats"]
    active, units = figures["active_units"] or 0, figures["units"] or 0
    uses = [Uses.of(name, counts) for name, counts in figures["code_uses"].items()]
    told = figures["mutual_information"] if figures.get("mutual_information_ceiling", 0.0) >= log(2) else None
    carried = Carried(nats, figures["rate"], figures["shuffle_cost"], active, units, uses, told)
    helping = remedies(model) if carried.little else []
    return {**figures, "verdict": verdict(carried, helping), "remedies": [asdict(remedy) for remedy in helping]}


def _terms(terms: RateDistortion) -> dict[str, Any]:
    rate, distortion, nats = Mean.of(terms.rate), Mean.of(terms.distortion), Mean.of(terms.rate + terms.distortion)
    active, units = units_of(terms.means) if terms.means else (None, None)
    return {
        "nats": rate.value + distortion.value,
        "nats_error": nats.error,
        "rate": rate.value,
        "rate_error": rate.error,
        "distortion": distortion.value,
        "distortion_error": distortion.error,
        "auxiliary": None if terms.auxiliary is None else Mean.of(terms.auxiliary).value,
        "kl_by_unit": {name: values.tolist() for name, values in terms.kl.items()},
        "code_uses": {name: counts.tolist() for name, counts in terms.uses.items()},
        "active_units": active,
        "units": units,
    }


def _weighted(model: Latent, some: Chosen, k: int, batch_size: int, seed: int, tick: Tick) -> dict[str, Any]:
    if not k:
        return {}
    found = bounds(model, some, k, seed, batch_size, tick)
    elbo, iwae = Mean.of(found.elbo), Mean.of(found.iwae)
    return {
        "importance_samples": k,
        "elbo_subset": elbo.value,
        "elbo_subset_error": elbo.error,
        "elbo_subset_symbol_error": _symbol_error(-found.elbo, some, model),
        "iwae": iwae.value,
        "iwae_error": iwae.error,
        "iwae_symbol_error": _symbol_error(-found.iwae, some, model),
        "effective_samples": Mean.of(found.effective).value,
    }


def _shuffled(
    model: Latent, chosen: Chosen, terms: RateDistortion, places: list[int], batch_size: int, seed: int, tick: Tick
) -> dict[str, Any]:
    labels = chosen.take(places).labels
    if labels is not None and len(places) > 1:  # z may be another thing under another label; who is alone with it is passed over
        several = [place for place, shared in zip(places, (labels.bincount()[labels] > 1).tolist(), strict=True) if shared]
        tick(len(places) - len(several))
        places = several
    if len(places) < 2:
        return {"shuffle_cost": None}
    strange = shuffled_distortion(model, chosen.take(places), seed, batch_size, tick)
    cost = Mean.of(strange - terms.distortion[places])
    return {"shuffle_cost": cost.value, "shuffle_cost_error": cost.error}


def _information(
    model: Latent, chosen: Chosen, terms: RateDistortion, places: list[int], batch_size: int, seed: int
) -> dict[str, Any]:
    if not terms.means:  # x determines z: as many nats as z of examples differ, nothing that its other figures do not say
        return {}
    value = mutual_information(model, chosen.take(places), seed, batch_size)
    if value is None and len(places) > 1:
        places = places[:MOST_PAIRED]
        value = paired_information(model, chosen.take(places), seed)
    if value is None:
        return {}
    return {
        "mutual_information": value,
        "mutual_information_ceiling": most_information(len(places), chosen.take(places).labels),
        "aggregate_kl": float(terms.rate[places].mean()) - value,
        "information_examples": len(places),
    }
