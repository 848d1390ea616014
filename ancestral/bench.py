"""How fast a model is on this machine: its forward pass, every way of sampling, and coding, as ratios within one run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor

from ancestral.causal.network import CausalNetwork
from ancestral.coding.blocks import fixed_items
from ancestral.coding.payloads import encoded, payload_items
from ancestral.core import Autoregressive, Context
from ancestral.draw import Draw
from ancestral.latent.latent import Latent
from ancestral.objectives import Batch, elbo
from ancestral.sampling import sample
from ancestral.sampling.strategies import Recomputed, Rows, inference, likelihood_of, sized
from ancestral.symbols import DataError
from ancestral.walking.engines import EngineError, lowered
from ancestral.walking.exact.operations import LoweringError
from ancestral.walking.twin import twin

Model = Autoregressive | Latent
FLOOR, FORWARD = "floor: the multiply-adds of a walk", "forward, all sites at once"
BOUND = "ELBO: encoder, z and decoder"  # the measure where a decoder settles all symbols of x at once
RECOMPUTED_STEPS = 8  # a walk by recomputation is timed over so many symbols, and reckoned up


@dataclass(frozen=True)
class Timing:
    """What something took.

    Attributes:
        what: in words.
        batch: how many examples at once.
        seconds: CPU seconds of the whole batch, all threads together; the median of the repetitions.
        ratio: as a multiple of the forward pass of the same batch in the same run, or of the ELBO where there is no walk over x.
    """

    what: str
    batch: int
    seconds: float
    ratio: float


@torch.no_grad()
def bench(
    model: Model, batch_sizes: Sequence[int] = (1, 16), repeats: int = 3, progress: Callable[[str], None] | None = None
) -> list[Timing]:
    """Timings of a model of integers, batch size by batch size.

    Where the symbols of x are settled one after the other, given z if there is one, that walk is timed in every engine. A
    decoder that settles them all at once is timed with its z, whose prior may have a walk of its own.

    Args:
        repeats: the median of so many counts; recomputation is timed once.
        progress: is told what comes next.

    Raises:
        DataError: the model is of real values, or has neither a walk of causal layers nor latents.
        ValueError: a batch size or ``repeats`` is below 1, or there are no batch sizes.
    """
    if min(batch_sizes, default=0) < 1 or repeats < 1:
        sizes = ", ".join(map(str, batch_sizes)) or "empty"
        raise ValueError(f"batch_sizes are {sizes}, and repeats is {repeats}: give numbers of at least 1")
    if model.spec.levels is None:
        raise DataError("this model is of real values, and the engines and files that are timed are of integers")
    found: list[Timing] = []
    model = sized(model)  # where lengths vary, that of its network
    with inference(model):
        for batch in batch_sizes:
            seconds: dict[str, float] = {}
            for what, times, work, scale in _tasks(model, batch, repeats):
                if progress is not None:
                    progress(f"{what}, {batch} at once")
                work()  # what is done only once is not counted
                seconds[what] = scale * median(_cpu(work) for _ in range(times))
            measure = next(iter(seconds.values()))
            seconds = _floor(model, batch) | seconds
            found += [Timing(what, batch, each, each / measure) for what, each in seconds.items()]
    return found


Task = tuple[str, int, Callable[[], object], float]  # what, repetitions, work, how much of the whole it is


def _tasks(model: Model, batch: int, repeats: int) -> Iterator[Task]:
    x, likelihood = fixed_items(model.spec, batch), likelihood_of(model)
    if isinstance(likelihood.network, CausalNetwork):
        yield from _walks(model, likelihood, x, repeats)
    elif isinstance(model, Latent):
        yield BOUND, repeats, lambda: elbo(model, Batch(x)), 1.0
        yield "sampling, z and x", repeats, lambda: sample(model, batch), 1.0
        yield "reconstruction from z", repeats, lambda: model.reconstruct(x), 1.0
    else:
        raise DataError(f"{type(likelihood.network).__name__} is not made of causal layers: there is no walk to time")
    yield from _coding(model, x, repeats)


def _walks(model: Model, likelihood: Autoregressive, x: Tensor, repeats: int) -> Iterator[Task]:
    network, sites, batch = likelihood.network, likelihood.spec.sites, len(x)
    [(_, seen)] = Rows(model, batch).batches(batch)
    yield FORWARD, repeats, lambda: network(x, seen), 1.0
    for engine in ("native", "eager"):
        work = _sampling(likelihood, engine, batch, seen)
        if work is not None:
            yield f"sampling, {engine} engine", repeats, work, 1.0
    slow = Autoregressive(Recomputed(network), likelihood.family, likelihood.spec)
    yield "sampling by recomputation", 1, lambda: _some_steps(slow, batch, seen), sites / RECOMPUTED_STEPS


def _floor(model: Model, batch: int) -> dict[str, float]:
    """Seconds that one thread needs at least for the products of a walk over x, at the rate of a large product of matrices."""
    network = likelihood_of(model).network
    if not isinstance(network, CausalNetwork):
        return {}
    [(_, seen)] = Rows(model, batch).batches(batch)
    program = network.lowered(seen)
    _, height, width = program.shape
    return {FLOOR: batch * height * width * program.multiply_adds / multiply_rate()}


def _sampling(likelihood: Autoregressive, engine: str, batch: int, seen: Context | None) -> Callable[[], object] | None:
    if engine == "eager":
        return lambda: likelihood.walk(batch, seen).run(Draw(0))
    try:
        fast = lowered(likelihood, engine)
        settled = fast and fast.run(batch, seen, likelihood.family, Draw(0))
    except EngineError:
        return None
    return None if fast is None or settled is None else lambda: fast.run(batch, seen, likelihood.family, Draw(0))


def _coding(model: Model, x: Tensor, repeats: int) -> Iterator[Task]:
    try:
        exact = twin(model, x)
    except LoweringError:
        return
    payload = encoded(exact, x)
    yield "encoding, exact numerics", repeats, lambda: encoded(exact, x), 1.0
    yield "decoding, exact numerics", repeats, lambda: payload_items(exact, payload, len(x)), 1.0


def _some_steps(likelihood: Autoregressive, batch: int, seen: Context | None) -> None:
    walk, draw = likelihood.walk(batch, seen), Draw(0)
    for _ in range(min(RECOMPUTED_STEPS, likelihood.spec.sites)):
        walk.settle(draw(walk.order.sites[walk.site], walk.conditional))


def _cpu(work: Callable[[], object]) -> float:
    since = time.process_time()
    work()
    return time.process_time() - since


def multiply_rate(side: int = 512, repeats: int = 8) -> float:
    """Float32 multiply-adds a second of one thread here, by the best of some products of matrices."""
    threads, a = torch.get_num_threads(), torch.rand(side, side, dtype=torch.float32)
    torch.set_num_threads(1)
    times = []
    for _ in range(repeats):
        since = time.process_time()
        torch.mm(a, a)
        times.append(time.process_time() - since)
    torch.set_num_threads(threads)
    return side**3 / min(times)
