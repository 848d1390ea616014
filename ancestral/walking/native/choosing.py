"""The usual chooser of the native engine: `Draw.choose` in compiled code, for float parameters and for whole numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ancestral.core import Family
from ancestral.draw import Draw
from ancestral.families.bernoulli import Bernoulli
from ancestral.families.categorical import Categorical
from ancestral.families.fixed import SLOTS
from ancestral.families.integer import Integer, IntegerBernoulli, IntegerBins, IntegerCategorical
from ancestral.families.logistic import LOG_SCALES, Logistic, LogisticMixture
from ancestral.walking.native.slots import BERNOULLI, BINS, CATEGORICAL, Chooser, entries, owner, pop
from ancestral.walking.native.tiles import by_kind, by_type, compiled, exponential
from ancestral.walking.native.weights import Array, LayoutError

FLOATS: dict[type, int] = {Bernoulli: BERNOULLI, Categorical: CATEGORICAL, Logistic: BINS, LogisticMixture: BINS}
INTEGERS: dict[type, int] = {IntegerBernoulli: BERNOULLI, IntegerCategorical: CATEGORICAL, IntegerBins: BINS}
BLOCK = 16  # weights that are summed on their own, so that sums of blocks do not wait for each other
TOLERANCE = 1e-12  # of ``truncated``


def without_family(kind: int) -> Chooser:
    """Symbols that are settled by the caller of a walk, or given beforehand."""
    none = np.zeros(0, np.int32)
    return Chooser(kind, 0, 0, False, 1.0, 0, 1.0, 0.0, none, none, none, none)


def chooser(family: Family, exact: bool, draw: Draw) -> Chooser:
    """The chooser that draws from a family as ``draw`` does, which gives the options alone.

    Raises:
        LayoutError: the engine cannot draw from the family.
    """
    kind = (INTEGERS if exact else FLOATS).get(type(family))
    if kind is None or family.levels is None:
        numbers = "whole numbers" if exact else "floats"
        raise LayoutError(
            f"the native engine, whose parameters are {numbers}, cannot draw from {family}: settle a walk's symbols"
        )
    tables = family.tables() if isinstance(family, Integer) else {}
    names = "exponential", getattr(family, "curve", "logistic"), "inverse_scale", "edges"
    top_k, top_p = min(draw.top_k or family.levels, family.levels), 1.0 if draw.top_p is None else float(draw.top_p)
    options = float(draw.temperature), top_k, top_p, float(draw.min_p or 0)
    curves = [np.array(tables.get(name, ()), np.int32) for name in names]  # copies: compiled code tells read-only arrays apart
    plain = options == (1.0, family.levels, 1.0, 0.0)
    return Chooser(kind, family.levels, getattr(family, "components", None) or 1, False if plain else 1, *options, *curves)


@compiled
def choose(parameters: Array, who: Chooser, u: float) -> int:
    """The symbol that ``who`` chooses at a uniform; see ``Draw.choose``."""
    return chosen(who.options, parameters, who, u)


def chosen(options: Any, parameters: Array, who: Chooser, u: float) -> int:
    """The same, by what the options are."""
    raise NotImplementedError("for compiled code")


def plain_chosen(options: Any, parameters: Array, who: Chooser, u: float) -> int:
    """Without options."""
    return quantile(parameters, who, u)


def optional_chosen(options: Any, parameters: Array, who: Chooser, u: float) -> int:
    """With some of them."""
    weights = log_weights(parameters, who)
    best = 0
    for v in range(who.levels):
        best = v if weights[v] > weights[best] else best
    if who.temperature == 0:
        return best
    largest, total = weights[best], 0.0
    for v in range(who.levels):
        weights[v] = math.exp((weights[v] - largest) / who.temperature)
        total += weights[v]
    if who.top_k < who.levels or who.top_p < 1:
        total = truncate(weights, who.top_k, who.top_p)
    if who.min_p > 0:
        total = without_rare(weights, who.min_p - TOLERANCE)  # the largest weight is 1
    return inverse_cdf(weights, u * total)


def quantile(parameters: Array, who: Chooser, u: float) -> int:
    """The symbol whose slot holds u."""
    raise NotImplementedError("for compiled code")


def popped(parameters: Array, who: Chooser, stack: Array) -> int:
    """The symbol on top of a stack; only whole numbers have it."""
    raise NotImplementedError("for compiled code")


def log_weights(parameters: Array, who: Chooser) -> Array:
    """(levels,) log-probabilities of all symbols, up to a constant, in nats."""
    raise NotImplementedError("for compiled code")


@compiled
def truncate(weights: Array, top_k: int, top_p: float) -> float:
    """Zero all but the ``top_k`` largest weights, then all but the fewest of these that hold ``top_p`` of them; the sum left.

    The lower ones of equals stay; see ``draw.truncated``.
    """
    levels = len(weights)
    order = np.arange(levels)
    for start in range(levels // 2 - 1, -1, -1):
        sift(order, weights, start, levels)
    for left in range(levels - 1, 0, -1):  # heap sort: the most probable one goes to the end
        order[0], order[left] = order[left], order[0]
        sift(order, weights, 0, left)
    total = 0.0
    for rank in range(top_k):
        total += weights[order[levels - 1 - rank]]
    most, kept = max((top_p - TOLERANCE) * total, 0.0) if top_p < 1 else total, 0.0
    for rank in range(levels):
        v = order[levels - 1 - rank]
        if rank < top_k and kept <= most:
            kept += weights[v]
        else:
            weights[v] = 0.0
    return kept


@compiled
def without_rare(weights: Array, least: float) -> float:
    """Zero all weights below ``least``; the sum left."""
    total = 0.0
    for v in range(len(weights)):
        weights[v] = weights[v] if weights[v] >= least else 0.0
        total += weights[v]
    return total


@compiled
def sift(order: Array, weights: Array, start: int, end: int) -> None:
    """Let ``order[start]`` sink in a heap that has the most probable symbol, the lowest of equals, on top."""
    parent = start
    while 2 * parent + 1 < end:
        child = 2 * parent + 1
        if child + 1 < end and comes_before(order[child + 1], order[child], weights):
            child += 1
        if not comes_before(order[child], order[parent], weights):
            return
        order[parent], order[child] = order[child], order[parent]
        parent = child


@compiled
def comes_before(a: int, b: int, weights: Array) -> bool:
    """Whether symbol a is more probable than b, or as probable and lower."""
    return weights[a] > weights[b] or (weights[a] == weights[b] and a < b)


@compiled
def inverse_cdf(weights: Array, aim: float) -> int:
    """The first symbol up to which weights sum to more than ``aim``, or else the last that has a weight."""
    total, found = 0.0, 0
    for v in range(len(weights)):
        total += weights[v]
        if weights[v] > 0:
            found = v
            if total > aim:
                break
    return found


# -- float parameters --------------------------------------------------------------------------------------------------------


@compiled
def softmax_quantile(logits: Array, u: float) -> int:
    """The symbol of a categorical distribution: first the block of symbols, then the symbol."""
    levels = len(logits)
    largest = logits[0]
    for v in range(levels):
        largest = max(largest, logits[v])
    weights = np.empty(levels, np.float32)
    for v in range(levels):
        weights[v] = exponential(logits[v] - largest)
    sums = np.empty((levels + BLOCK - 1) // BLOCK)
    for block in range(len(sums)):
        part = np.float64(0)
        for v in range(block * BLOCK, min((block + 1) * BLOCK, levels)):
            part += weights[v]
        sums[block] = part
    total = 0.0
    for block in range(len(sums)):
        total += sums[block]
    aim, block, below = u * total, 0, 0.0
    while block < len(sums) - 1 and below + sums[block] <= aim:
        below += sums[block]
        block += 1
    return block * BLOCK + inverse_cdf(weights[block * BLOCK : (block + 1) * BLOCK], aim - below)


@compiled
def sigmoid(x: float) -> float:
    """1 / (1 + exp(-x))."""
    return 1 / (1 + math.exp(-x))


@compiled
def log_sigmoid(x: float) -> float:
    """log(sigmoid(x)), also far out."""
    return min(x, 0.0) - math.log1p(math.exp(-abs(x)))


@compiled
def components(parameters: Array, who: Chooser) -> Array:
    """(4, K) logits less the largest, weights that sum to 1, means and inverse scales of a mixture, in float64."""
    count = who.components
    first = len(parameters) - 2 * count  # a single logistic has no logit
    parts = np.zeros((4, count))
    largest, total = -np.inf, 0.0
    for k in range(count):
        parts[0, k] = parameters[k] if first else 0.0
        largest = max(largest, parts[0, k])
    for k in range(count):
        parts[0, k] -= largest
        parts[1, k] = math.exp(parts[0, k])
        total += parts[1, k]
        parts[2, k] = parameters[first + k]
        parts[3, k] = math.exp(-min(max(float(parameters[first + count + k]), LOG_SCALES[0]), LOG_SCALES[1]))
    for k in range(count):
        parts[1, k] /= total
    return parts


@compiled
def edges_passed(parameters: Array, who: Chooser, u: float) -> int:
    """How many edges have a distribution function of at most u, found by halving."""
    parts = components(parameters, who)
    low, high = 0, who.levels - 1
    while low < high:
        edge = (low + high) // 2 + 1
        x, below = (2 * edge - who.levels) / (who.levels - 1), 0.0
        for k in range(who.components):
            below += parts[1, k] * sigmoid((x - parts[2, k]) * parts[3, k])
        if below <= u:
            low = edge
        else:
            high = edge - 1
    return low


@compiled
def logistic_log_weights(parameters: Array, who: Chooser) -> Array:
    """Of every symbol, log of the sum of exp(logit) (cdf(upper edge) - cdf(lower edge)); see ``logistic_log_prob``."""
    parts, levels, steps = components(parameters, who), who.levels, who.levels - 1
    terms, weights = np.empty(who.components), np.empty(levels)
    for v in range(levels):
        x, largest, total = (2 * v - levels) / steps, -np.inf, 0.0
        for k in range(who.components):
            mean, inverse = parts[2, k], parts[3, k]
            terms[k] = parts[0, k]
            if v > 0:
                terms[k] += log_sigmoid((mean - x) * inverse)
            if v < steps:
                terms[k] += log_sigmoid((x + 2 / steps - mean) * inverse)
            if 0 < v < steps:
                terms[k] += math.log(-math.expm1(-2 / steps * inverse))
            largest = max(largest, terms[k])
        for k in range(who.components):
            total += math.exp(terms[k] - largest)
        weights[v] = largest + math.log(total)
    return weights


def float_quantile(parameters: Array, who: Chooser, u: float) -> int:
    """See ``quantile``."""
    if who.kind == BERNOULLI:
        return int(u >= sigmoid(-float(parameters[0])))
    if who.kind == CATEGORICAL:
        return softmax_quantile(parameters, u)
    return edges_passed(parameters, who, u)


def float_log_weights(parameters: Array, who: Chooser) -> Array:
    """See ``log_weights``."""
    if who.kind == BERNOULLI:
        weights = np.empty(2)
        weights[0], weights[1] = log_sigmoid(-float(parameters[0])), log_sigmoid(float(parameters[0]))
        return weights
    if who.kind == CATEGORICAL:
        weights = np.empty(who.levels)
        for v in range(who.levels):
            weights[v] = parameters[v]
        return weights
    return logistic_log_weights(parameters, who)


# -- whole numbers ----------------------------------------------------------------------------------------------------------


def whole_quantile(parameters: Array, who: Chooser, u: float) -> int:
    """See ``quantile``."""
    return owner(parameters, who, int(u * SLOTS))


def whole_log_weights(parameters: Array, who: Chooser) -> Array:
    """See ``log_weights``."""
    table = entries(parameters, who)
    weights = np.empty(who.levels)
    for v in range(who.levels):
        weights[v] = math.log(float(table[v + 1] - table[v]))
    return weights


def float_popped(parameters: Array, who: Chooser, stack: Array) -> int:
    """Floats have no slots."""
    return 0


def whole_popped(parameters: Array, who: Chooser, stack: Array) -> int:
    """See ``slots.pop``."""
    return pop(parameters, who, stack)


by_type(chosen, optional_chosen, plain_chosen)
by_kind(quantile, float_quantile, whole_quantile)
by_kind(popped, float_popped, whole_popped)
by_kind(log_weights, float_log_weights, whole_log_weights)
