"""What a page says of a model that the package knows: its facts, sizes, settings and diagram, as Markdown."""

from __future__ import annotations

import re
from dataclasses import fields
from functools import cache
from importlib import import_module
from inspect import getdoc, getsource
from itertools import islice
from typing import Any

import torch

from ancestral import DataSpec
from ancestral.causal import CausalNetwork
from ancestral.core import Autoregressive, OrderError
from ancestral.latent.latent import Latent
from ancestral.models import MODELS, build
from ancestral.networks.factorised import Factorised
from ancestral.sampling.strategies import arrange
from ancestral.training.config import TrainingConfig
from ancestral.walking.engines import refusal
from ancestral.walking.exact.operations import LoweringError
from ancestral.walking.twin import schemes, twin

BY_PAGE = {name.replace("+", "p"): name for name in MODELS}
PAGES = {name: page for page, name in BY_PAGE.items()}
DATA = {
    "binary images": DataSpec("image", (1, 8, 8), 2),
    "grey images": DataSpec("image", (1, 8, 8), 256),
    "colour images": DataSpec("image", (3, 8, 8), 256),
    "audio": DataSpec("audio", (16,), 256),
    "text": DataSpec("text", (16,), 64),
    "vectors of integers": DataSpec("vector", (6,), 8),
    "vectors of real values": DataSpec("vector", (6,), None),
}
SIZES = {
    "28x28 binary images": DataSpec("image", (1, 28, 28), 2),
    "32x32 colour images": DataSpec("image", (3, 32, 32), 256),
    "text of 64 characters": DataSpec("text", (256,), 64),
    "audio of 256 levels": DataSpec("audio", (4096,), 256),
    "30 real values": DataSpec("vector", (30,), None),
}
BLOCKS = {"pixelvae": slice(1), "hierarchical-pixelvae": slice(1, None)}  # which, where one module builds several models
MANY = 1000  # sites from which on a model is not made to count its parameters
DRAWN = {"iaf-vae": "ancestral.latent.resnet"}  # modules with the picture, where it is not in the constructor's
PRESETS = ("tiny", "small", "paper")
Model = Autoregressive | Latent


def table(head: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def made(name: str, spec: DataSpec, preset: str = "tiny") -> Model | None:
    """A model of these data, or None where it takes others."""
    try:
        return build(name, spec, preset=preset)
    except ValueError:
        return None


@cache
def likes(name: str) -> dict[str, Model]:
    """A tiny model of every kind of data that it takes."""
    found = {kind: made(name, spec) for kind, spec in DATA.items()}
    return {kind: model for kind, model in found.items() if model is not None}


def facts(name: str) -> str:
    """What the likelihood is, which data, orders, engines and files there are, and how it trains: found by trying."""
    kind, model = next(iter(likes(name).items()))
    config: Any = model.config
    network = model.likelihood.network if isinstance(model, Latent) else model.network
    labels = "with `conditional=True`" if any(field.name == "conditional" for field in fields(config)) else "no"
    stages = ", ".join(f"{stage.name} (`{stage.objective}`)" for stage in config.stages)
    rows = [
        ["likelihood", _status(name, model)],
        ["data", ", ".join(likes(name))],
        ["labels", labels],
        ["order of the sites", _orders(model, network)],
        ["engines of a walk", _engines(model, network)],
        ["files", _files(model, DATA[kind])],
        ["stages of training", stages],
        ["in code", f"`{MODELS[name].constructor.split(':')[0]}`, `{MODELS[name].config.__name__}`"],
    ]
    return table(["", ""], rows) + "\n" + sizes(name)


def _status(name: str, model: Model) -> str:
    if MODELS[name].status == "exact":
        return "**exact**"
    certain = isinstance(model, Latent) and model.topdown.certain
    return "**bound**: " + ("what z and x given z cost together" if certain else "ELBO, and IWAE with k samples of z")


def _orders(model: Model, network: Any) -> str:
    if isinstance(network, Factorised):
        return "given z, no site looks at another"
    symmetric = len(network.shape) == 3 and _arranges(model, order="rows-leftward")
    words = ["any" if network.any_order else "any of the eight symmetries of the grid" if symmetric else "its own"]
    words += [f"others by the setting `{name}`" for name in ("any_order", "orders") if hasattr(model.config, name)]
    if _arranges(model, shape=tuple(size + 2 if size > 3 else size for size in network.shape)):
        words.append("takes other sizes than it was trained on")
    return "; ".join(words)


def _arranges(model: Model, **options: Any) -> bool:
    try:
        arrange(model, **options)
    except (OrderError, ValueError):
        return False
    return True


def _engines(model: Model, network: Any) -> str:
    if isinstance(network, Factorised):
        return "given z, there is no walk: all sites are drawn at once"
    if not isinstance(network, CausalNetwork):
        return "eager, by recomputation"
    levels = (model.likelihood if isinstance(model, Latent) else model).family.levels
    if levels is None:
        return "eager, with a cached step"
    with torch.no_grad():
        context = None
        if isinstance(model, Latent):
            context = model.descend(torch.zeros(1, *network.shape, dtype=torch.long), lambda name, p, q: p.mean).features
        cannot = refusal(network.float().lowered(context), network.anchor)
    return "eager, compiled" + (f"; not native: {cannot}" if cannot else ", native (float32), exact (whole numbers)")


def _files(model: Model, spec: DataSpec) -> str:
    if spec.levels is None:
        return "none: real values have no probability"
    try:
        twin(model, torch.randint(spec.levels, (8, *(size or 0 for size in spec.shape))), "eager")
    except LoweringError as reason:
        return f"none: {reason}"
    return ", ".join(f"`{scheme}`" for scheme in schemes(model))


def sizes(name: str) -> str:
    """How many parameters each preset has."""
    counted = ((words, [_parameters(name, spec, preset) for preset in PRESETS]) for words, spec in SIZES.items())
    rows = ([words, *(f"{count:,}" if count else "" for count in counts)] for words, counts in counted if any(counts))
    return table(["parameters", *(f"`{preset}`" for preset in PRESETS)], list(islice(rows, 2)))


@cache
def _parameters(name: str, spec: DataSpec, preset: str) -> int | None:
    """Counted without making them; where a constructor must have numbers, they are made unless they are many."""
    try:
        with torch.device("meta"):
            model = made(name, spec, preset)
    except NotImplementedError:
        model = made(name, spec, preset) if spec.sites < MANY else None
    return None if model is None else sum(parameter.numel() for parameter in model.parameters())


def settings(name: str) -> str:
    """Every setting of the model's configuration: its value in each preset, and the comment beside it."""
    kind = MODELS[name].config
    presets = [kind(**kind.presets[preset]) for preset in PRESETS]
    rows = [
        [f"`{field.name}`", *(_value(getattr(preset, field.name)) for preset in presets), comment(kind, field.name)]
        for field in fields(kind)
    ]
    return table(["setting", *(f"`{preset}`" for preset in PRESETS), "what it is"], rows)


def training() -> str:
    """Every setting of training."""
    default = TrainingConfig()
    rows = [[f"`{f.name}`", _value(getattr(default, f.name)), comment(TrainingConfig, f.name)] for f in fields(default)]
    return table(["setting", "default", "what it is"], rows)


def _value(value: Any) -> str:
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def comment(kind: type, name: str) -> str:
    """The comment beside a field of a configuration.

    Raises:
        KeyError: it has none.
    """
    for base in kind.__mro__[:-1]:
        if match := re.search(rf"^    {name}: .*?  # (.*)$", getsource(base), re.MULTILINE):
            return match[1]
    raise KeyError(f"{kind.__name__}.{name} has no comment")


def diagram(name: str) -> str:
    """The picture in the docstring of the module that builds the model: its lines with arrows."""
    text = getdoc(import_module(DRAWN.get(name) or MODELS[name].constructor.split(":")[0])) or ""
    blocks = (block.strip("\n") for block in re.split(r"\n\s*\n|::\n", text))
    drawn = [block for block in blocks if re.search("──|a_1 = c", block)]
    return "\n".join(f"```text\n{_shifted(block)}\n```\n" for block in drawn[BLOCKS.get(name, slice(None))])


def _shifted(block: str) -> str:
    lines = block.splitlines()
    margin = min(len(line) - len(line.lstrip()) for line in lines if line.strip())
    return "\n".join(line[margin:].rstrip() for line in lines)
