"""The laws of structure: what a conditional may see, and that every way to compute it gives the same."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn

from ancestral.causal import CausalNetwork, Input
from ancestral.causal.layer import Place
from ancestral.core import Autoregressive, Context, State, StateError
from ancestral.testing.subjects import EXACT, LawBroken, NotApplicable, Subject, random_symbols, require
from ancestral.walking.engines import Lowered, refusal

REDRAWN = 8  # copies at most, in which pixels that the network declares are looked for
FLOAT32 = 1e-5  # how far float32 arithmetic may be off, relative to the largest parameter


def causal(subject: Subject) -> str:
    """A conditional ignores its own and every later site; the receptive field is the declared one."""
    before, sites = subject.forward(subject.x), subject.network.order.sites
    probes = sorted({len(sites) * i // 24 for i in range(24)})
    for position in probes:
        changed = subject.x.clone()
        other = random_symbols(subject.likelihood, len(changed), subject.generator).flatten(1)
        later = list(sites[position:])
        changed.flatten(1)[:, later] = other[:, later]
        same = torch.equal(subject.forward(changed)[:, : position + 1], before[:, : position + 1])
        require(same, f"editing the symbols from position {position} on changes a conditional at or before it")
    if isinstance(subject.network, CausalNetwork):
        return f"{len(probes)} edits; {_receptive_field(subject, subject.network)} pixels seen, as declared"
    return f"{len(probes)} edits"


def _receptive_field(subject: Subject, network: CausalNetwork) -> int:
    """Compare the declared receptive field with the support of the Jacobian at one site; how many pixels it has.

    Pixels are places of the layout, in which the layers see the symbols. The Jacobian is with respect to what becomes of the
    symbols in the layers that read them, since a row of a table has no slope.
    """
    channels, height, width = network.layout
    row, column = height - 1, width // 2
    last = network.order.sites[
        (row * width + column + 1) * channels - 1
    ]  # the last colour channel sees all of its pixel's others
    inside = {(row + r, column + c) for r, c in network.receptive_field() if row + r >= 0 and 0 <= column + c < width}
    declared = inside if channels > 1 else inside - {(row, column)}
    measured = influence(network, subject.x, subject.context, last)
    for _ in range(REDRAWN):
        if measured >= declared:
            break
        measured |= influence(_redrawn(network, subject.generator), subject.x, subject.context, last)
    require(measured == declared, f"the Jacobian reaches {len(measured)} pixels, the network declares {len(declared)}")
    return len(measured)


def _redrawn(network: CausalNetwork, generator: torch.Generator) -> CausalNetwork:
    """A copy with other weights: in a narrow network all units on the way from a pixel may happen to be dead."""
    other = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in other.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(noise.to(parameter), alpha=0.5)
    return other


def influence(network: CausalNetwork, x: Tensor, context: Context | None, site: int) -> set[Place]:
    """The places of the layout whose symbols' features have slopes at a site of the flattened example.

    Slopes are of what the input layers give, for symbols themselves may be whole numbers that a table is asked for.
    """
    leaves: list[Tensor] = []

    def cut(layer: nn.Module, given: tuple[Tensor, ...], features: Tensor) -> Tensor:
        leaves.append(features.detach().requires_grad_())
        return leaves[-1]

    hooks = [layer.register_forward_hook(cut) for layer in network.modules() if isinstance(layer, Input)]
    try:
        y = network(x, context).flatten(1, -2)[:, site].pow(2).sum()
    finally:
        for hook in hooks:
            hook.remove()
    slopes = torch.autograd.grad(y, leaves, allow_unused=True)
    _, height, width = network.layout
    inner = (slope[:, :, :height, :width] for slope in slopes if slope is not None)  # some images are filled up
    return {(row, column) for slope in inner for row, column in slope.abs().amax((0, 1)).nonzero().tolist()}


def batch(subject: Subject) -> str:
    """Row b ignores row b'."""
    changed = random_symbols(subject.likelihood, len(subject.x), subject.generator)
    changed[0] = subject.x[0]
    difference = (subject.forward(changed)[0] - subject.forward(subject.x)[0]).abs().max().item()
    require(difference == 0, f"garbage in the other rows moves a row's parameters by {difference:.1e}")
    return "garbage in the other rows changes nothing"


def context(subject: Subject) -> str:
    """The output depends on its own row of the context and on no other."""
    if subject.context is None:
        raise NotApplicable("the model takes no context")
    turned = subject.context.select(torch.arange(len(subject.x)).roll(1))
    mixed = subject.context.map(lambda part: part.clone())
    for part in (mixed.vector, mixed.grid):
        if part is not None:
            part[1:] = part[1:].roll(1, 0)
    before = subject.forward(subject.x)
    require(torch.equal(subject.forward(subject.x, mixed)[0], before[0]), "another row's context changes a row")
    require(not torch.equal(subject.forward(subject.x, turned), before), "the context changes nothing")
    return "own row only"


def stepwise(subject: Subject) -> str:
    """start, step, step, ... give forward; so do select, rollback and extend; a state keeps its structure."""
    full, flat = subject.forward(subject.x), subject.flat
    scale = max(1.0, full.abs().max().item())
    worst = (steps(subject, flat) - full).abs().max().item() / scale
    require(worst <= EXACT, f"steps and forward differ by {worst:.1e} of the largest parameter")
    walk, sites = subject.likelihood.walk(len(flat), subject.context, rollback=3), flat.shape[1]
    parents = torch.tensor([1, 1, 0, 2])
    half = max(1, sites // 2)
    walk.extend(flat[:, :half])
    walk.select(parents)
    other = full[parents] if subject.context is None else subject.forward(subject.x[parents], subject.context.select(parents))
    seen = []
    while not walk.done:
        back = min(3, walk.site, sites - walk.site)
        ahead = flat[parents][:, walk.site : walk.site + back]
        walk.extend(ahead)
        walk.rollback(back)
        found = walk.conditional
        seen.append((found.parameters - other[:, walk.site, : found.family.size]).abs().max().item() / scale)
        walk.settle(flat[parents][:, walk.site])
    require(not seen or max(seen) <= EXACT, "select, extend and rollback lead to other parameters")
    require(torch.equal(walk.symbols.flatten(1), subject.x[parents].flatten(1)), "a walk does not hold the symbols it was given")
    return f"largest difference {worst:.0e} of the largest parameter"


def steps(subject: Subject, flat: Tensor) -> Tensor:
    """(n, D, k) parameters from start and step, checking the states on the way."""
    parameters, state = subject.network.start(len(flat), subject.context)
    found, structure = [parameters], _structure(state)
    for symbol in flat[:, :-1].unbind(1):
        spent, (parameters, state) = state, subject.network.step(state, symbol)
        found.append(parameters)
        require(_structure(state) == structure, "the structure of the state changes from step to step")
        try:
            spent.consume()
        except StateError:
            continue
        raise LawBroken("a state that a step consumed can be used again")
    return torch.stack(found, 1)


def _structure(state: State) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (buffer.shape, buffer.dtype) for name, buffer in state.buffers.items()}


def lowered(subject: Subject) -> str:
    """The Program of a causal network gives forward's parameters in every engine, all sites at once and step by step."""
    network, levels, given = subject.network, subject.likelihood.family.levels, subject.context
    if not isinstance(network, CausalNetwork) or levels is None:
        raise NotApplicable(f"Programs are of causal networks of discrete symbols, and this is a {type(network).__name__}")
    wanted = subject.forward(subject.x)
    eager = _deviation(subject, Lowered(network, levels, "eager"), wanted)
    require(eager <= EXACT, f"eager: the Program and forward differ by {eager:.1e} of the largest parameter")
    narrow, narrowed = copy.deepcopy(network).float(), None if given is None else given.map(Tensor.float)
    if reason := refusal(narrow.lowered(narrowed), narrow.anchor):
        return f"eager within {eager:.0e} of the largest parameter; native cannot: {reason}"
    native = _deviation(replace(subject, context=narrowed), Lowered(narrow, levels, "native"), wanted)
    require(native <= FLOAT32, f"native: the Program and forward differ by {native:.1e} of the largest parameter")
    return f"eager within {eager:.0e}, native within {native:.0e} of the largest parameter"


def _deviation(subject: Subject, network: Lowered, wanted: Tensor) -> float:
    """How far a network, at once and in steps, is from the (n, D, k) wanted, relative to the largest parameter."""
    under = replace(subject, likelihood=Autoregressive(network, subject.likelihood.family, subject.likelihood.spec))
    both = torch.stack([under.forward(under.x), steps(under, under.flat)])
    return (both - wanted).abs().max().item() / max(1.0, wanted.abs().max().item())
