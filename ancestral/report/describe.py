"""What a model is, in a few lines of text: size, receptive field, family, stages."""

from __future__ import annotations

import os
from pathlib import Path

from torch import nn

from ancestral.causal.network import CausalNetwork
from ancestral.core import Autoregressive
from ancestral.latent.code_grids import CodeGrid
from ancestral.latent.latent import Latent
from ancestral.latent.quantizers import VectorQuantizer
from ancestral.latent.vq_vae import CodedTopDown
from ancestral.models import MODELS
from ancestral.networks.nade import SiteNetwork
from ancestral.spec import DataSpec


def describe(model: Autoregressive | Latent | str | os.PathLike[str]) -> list[str]:
    """Lines of "name   value": kind, data, parameters per part, family, receptive field, stages, bytes.

    Args:
        model: a model or the folder of a run.

    Raises:
        DataError, OSError: what loading the folder raises.

    Example:
        >>> import ancestral
        >>> model = ancestral.build("gated-pixelcnn", ancestral.DataSpec("image", (1, 8, 8), 17), preset="tiny")
        >>> print(describe(model)[4])
        receptive field  2 rows above x 5 columns, 12 pixels
    """
    if isinstance(model, str | os.PathLike):
        from ancestral.hub import load

        weights = Path(model) / "model.safetensors"
        return [*describe(load(model)), _line("weight file", f"{weights.name}, {amount(weights.stat().st_size)}")]
    likelihood = model.likelihood if isinstance(model, Latent) else model
    lines = [("model", kind(model)), ("data", data_in_words(model.spec)), ("parameters", parameters_in_words(model))]
    lines.append(("family", repr(likelihood.family)))
    if isinstance(likelihood.network, CausalNetwork):
        lines.append(("receptive field", receptive_field(likelihood.network)))
    if isinstance(model, Latent) and isinstance(model.topdown, CodedTopDown):
        lines += [(grid.name, codes_in_words(grid)) for grid in model.topdown.grids]
    if model.config is not None:
        lines.append(("stages", stages_in_words(model)))
    return [_line(name, value) for name, value in lines]


def kind(model: Autoregressive | Latent) -> str:
    """The model's name, and whether its likelihood is exact or a bound."""
    name = getattr(model.config, "name", None) or "of your own"
    exact = MODELS[name].status == "exact" if name in MODELS else not isinstance(model, Latent)
    return f"{name}, {'exact likelihood' if exact else 'lower bound of the likelihood'}"


def data_in_words(spec: DataSpec) -> str:
    """One line on what an example is."""
    shape = " x ".join("any" if size is None else str(size) for size in spec.shape)
    values = "real values" if spec.levels is None else f"{spec.levels} levels"
    classes = f", {spec.classes} classes" if spec.classes else ""
    length = "" if None in spec.shape else f": {spec.sites:,} symbols"
    return f"{spec.kind} {shape}, {values}{classes}{length}"


def parameters_in_words(model: nn.Module) -> str:
    """How many parameters in all and in each part, their type, and their bytes."""

    def count(module: nn.Module) -> int:
        return sum(parameter.numel() for parameter in module.parameters())

    size = sum(parameter.nbytes for parameter in model.parameters())
    types = ", ".join(sorted({str(parameter.dtype).removeprefix("torch.") for parameter in model.parameters()}))
    parts = [f"{name} {count(part):,}" for name, part in model.named_children() if count(part)]
    whole = f"{count(model):,} ({types}, {amount(size)})"
    return f"{whole}: {', '.join(parts)}" if len(parts) > 1 else whole


def receptive_field(network: CausalNetwork) -> str:
    """How far back a conditional sees, in rows, columns and pixels, and whether that is the whole image."""
    if isinstance(network, SiteNetwork) and not getattr(network, "window", 0):
        return "every symbol before it in the order"
    seen = network.receptive_field() - {(0, 0)}
    if not seen:
        return "nothing: its first layers see no pixel"
    rows = -min(row for row, _ in seen)
    if len(network.shape) == 1 or isinstance(network, SiteNetwork):
        return f"{rows * network.layout[0]:,} symbols before it"
    columns = [column for _, column in seen]
    _, height, width = network.shape
    before = {(row, column) for row in range(1 - height, 1) for column in range(1 - width, width) if (row, column) < (0, 0)}
    whole = ": everything before a pixel" if before <= seen else ""
    return f"{rows} rows above x {max(columns) - min(columns) + 1} columns, {len(seen):,} pixels{whole}"


def codes_in_words(grid: CodeGrid) -> str:
    """How many codes an example has, of how many kinds, and how far their prior sees."""
    shape, quantizer, network = " x ".join(map(str, grid.shape)), grid.quantizer, grid.prior.network
    sees = f"; prior sees {receptive_field(network)}" if isinstance(network, CausalNetwork) else "; uniform prior"
    kind = "learned vectors" if isinstance(quantizer, VectorQuantizer) else "finite scalars"
    return f"{shape} of {quantizer.codes:,}, {kind} of {quantizer.features} numbers{sees}"


def stages_in_words(model: Autoregressive | Latent) -> str:
    """The stages of training with their objectives and shares."""
    stages = model.config.stages
    total = sum(stage.share for stage in stages)
    return ", ".join(f"{stage.name} ({stage.objective}) {100 * stage.share / total:.0f} %" for stage in stages)


def amount(size: int) -> str:
    """Bytes with a decimal prefix.

    Example:
        >>> amount(999), amount(12_345_678)
        ('999 B', '12.3 MB')
    """
    number, unit = float(size), "B"
    for larger in ("kB", "MB", "GB"):
        if number < 1000:
            break
        number, unit = number / 1000, larger
    return f"{number:.0f} B" if unit == "B" else f"{number:.1f} {unit}"


def _line(name: str, value: str) -> str:
    return f"{name:<17}{value}"
