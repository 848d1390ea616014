"""Saving and loading models: a folder with ``config.json`` (what built the model) and ``model.safetensors`` (its weights)."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from ancestral.core import Autoregressive, Family, Network
from ancestral.data.notation import Notation, notation_from_dict
from ancestral.data.splits import Splits, Units
from ancestral.files import write_whole
from ancestral.latent.latent import Latent
from ancestral.models import build, configure
from ancestral.sampling.strategies import arrange, likelihood_of
from ancestral.spec import DataSpec, Order

CONFIG, WEIGHTS = "config.json", "model.safetensors"
FORMAT = 1  # of config.json; a folder with a greater number was made by a newer version

Model = Autoregressive | Latent
Folder = str | os.PathLike[str]
Read = TypeVar("Read")


class LoadError(ValueError):
    """A folder holds no model that can be loaded: the message names the file, what is wrong with it and what to do."""


def save(model: Model, folder: Folder, *, data: Splits | None = None, extra: Mapping[str, Any] | None = None) -> None:
    """Write a model into a folder, made where it is missing; each of the two files appears whole or not at all.

    Args:
        model: with its configuration, or of your own parts, of which only the weights can be saved.
        data: what it was trained on, for the record: name, note, hash, units, notation. The last two go along without where the
            model knows them, as one that `fit` trained does.
        extra: more entries for ``config.json``, as JSON has them.

    Raises:
        FileExistsError: the folder holds a training run, whose record and checkpoints are of other weights.
        OSError: the folder cannot be written.
    """
    if _trained(folder):
        raise FileExistsError(
            f"{folder} holds a training run, whose record and checkpoints are not of these weights: save into another folder"
        )
    known = {name: part.to_dict() for name in ("units", "notation") if (part := getattr(model, name)) is not None}
    made_of = known if data is None else {"source": None, "options": {}, **data.describe()}
    write_config(model, folder, {**({"data": made_of} if made_of else {}), **(extra or {})})
    write_weights(model, folder)


def _trained(folder: Folder) -> bool:
    """Whether a folder holds a training run that can be read."""
    try:
        return "training" in describe(folder)
    except (FileNotFoundError, LoadError):
        return False


def parts_of(model: Model) -> list[str]:
    """Names of a model's parts, and of the parts of those, such as ``topdown`` and ``topdown.encoder``."""
    return [name for name, _ in model.named_modules() if name and name.count(".") < 2]


def write_config(model: Model, folder: Folder, extra: Mapping[str, Any] | None = None) -> None:
    """Write ``config.json`` alone: name, configuration and data of a model, its order if not the usual, and the versions."""
    made = {
        "format": FORMAT,
        "model": None if model.config is None else model.config.name,
        "config": None if model.config is None else asdict(model.config),
        "spec": model.spec.to_dict(),
        "versions": versions(),
    }
    network = likelihood_of(model).network
    order, member, built = network.order, getattr(network, "member", None), getattr(network, "built", None)
    if model.config is not None and built not in (None, model.spec.shape):
        made["built"] = list(built)  # arranged since: its weights are of another shape than its examples
    if member is not None:
        made["member"] = member
    if member is not None or order != Order.raster(tuple(network.shape)):  # a member has an order of its own
        made["order"] = list(order.sites)
    write_whole(Path(folder) / CONFIG, json.dumps({**made, **(extra or {})}, indent=2, ensure_ascii=False).encode())


def write_weights(model: Model, folder: Folder) -> None:
    """Write ``model.safetensors`` alone."""
    # Clones, because safetensors refuses weights that share memory, as tied ones do.
    tensors = {
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in model.state_dict().items()
    }
    write_whole(Path(folder) / WEIGHTS, safetensors.torch.save(tensors))


def versions() -> dict[str, str]:
    """The versions of what a run depends on."""
    ours = sys.modules["ancestral"].__version__  # no import: this module lies inside what it would import from
    return {"ancestral": ours, "torch": torch.__version__, "python": platform.python_version()}


def load(folder: Folder, network: Network | None = None, family: Family | None = None, *, model: Model | None = None) -> Model:
    """The model of a run folder, on the CPU, in the type its weights were saved in, ready to evaluate.

    It knows the ``units`` or the ``notation`` of the data that it was trained on.

    Args:
        folder: where ``save`` or a training run wrote.
        network, family: your own, with fresh weights, where the model was made of them.
        model: in their place a whole model with fresh weights, such as a VAE of your own, or one by name of which you replaced a
            part; it takes the weights.

    Raises:
        FileNotFoundError: there is no such folder, or it lacks a file; folders beside it that hold a model are named.
        LoadError: a file is damaged, of a newer version, or does not fit the model.
        ValueError: a whole model and parts of one were handed over.
    """
    if model is not None and (network is not None or family is not None):
        raise ValueError("model= is the whole: leave network and family out")
    model = construct(folder, network, family) if model is None else _alike(folder, model)
    path = Path(folder) / WEIGHTS
    if not path.exists():
        raise FileNotFoundError(f"{folder} has no {WEIGHTS}: saving was cut short before the weights were written")
    try:
        tensors = safetensors.torch.load_file(path)
    except SafetensorError as error:
        raise LoadError(f"{path} is damaged ({error}): it was cut short or changed; copy it again") from error
    fill(model, tensors, path)
    model.units, model.notation = units_of(folder), notation_of(folder)
    return model.eval()


def _alike(folder: Folder, model: Model) -> Model:
    """The model that was handed over, if it is of data as a folder's is."""
    fields, path = describe(folder), Path(folder) / CONFIG
    if (recorded := DataSpec.from_dict(fields["spec"])) != model.spec:
        raise LoadError(f"{path}: the model was saved for {recorded}, and this one is for {model.spec}")
    return _ordered(model.cpu(), fields)


def _ordered(model: Model, fields: Mapping[str, Any]) -> Model:
    """The model in the order and for the shape, or as the member of an ensemble, that a configuration tells of."""
    if "member" in fields and isinstance(model, Autoregressive):
        masked: Network = model.network.masked(fields["member"])  # type: ignore[operator]
        model = Autoregressive(masked, model.family, model.spec, model.config)
    order = Order(tuple(fields["order"])) if "order" in fields else None
    shape = tuple(fields["spec"]["shape"]) if "built" in fields else None
    here = likelihood_of(model).network
    return model if order in (None, here.order) and shape in (None, tuple(here.shape)) else arrange(model, order, shape)


def construct(folder: Folder, network: Network | None = None, family: Family | None = None) -> Model:
    """The model that a folder's ``config.json`` describes, with fresh weights; arguments and errors as ``load``."""
    fields, path = describe(folder), Path(folder) / CONFIG
    if (fields["model"] is None) is (network is None or family is None):
        if fields["model"] is None:
            raise LoadError(
                f"{path}: the model was made of parts of your own; hand them over: load(folder, network=..., family=...), or with"
                " fresh weights the whole: load(folder, model=...)"
            )
        raise LoadError(f"{path}: the model is {fields['model']!r}, which brings its own network: leave network and family out")
    try:
        spec = DataSpec.from_dict(fields["spec"])
        if fields["model"] is None:
            model = build(spec=spec, network=network, family=family)
        else:
            first = replace(spec, shape=tuple(fields["built"])) if "built" in fields else spec
            model = build(configure(fields["model"], **fields["config"]), first)
        return _ordered(model, fields)
    except (ValueError, TypeError, KeyError) as error:
        raise LoadError(f"{path}: {error}") from error


def fill(model: Model, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Put weights into a model, which takes their type.

    Raises:
        LoadError: a weight is missing, unknown or of another shape; the first is named with the file it came from.
    """
    wanted = model.state_dict()
    for name in [*wanted, *tensors]:
        have = tuple(tensors[name].shape) if name in tensors else "missing"
        want = tuple(wanted[name].shape) if name in wanted else "unknown"
        if have != want:
            raise LoadError(f"{path}: weight {name} is {have} in the file and {want} in the model")
    for kind in {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()}:
        model.to(kind)
    model.load_state_dict(tensors)


def describe(folder: Folder) -> dict[str, Any]:
    """What ``config.json`` of a run folder says.

    Raises:
        FileNotFoundError: there is no such folder or file; folders beside it that hold a model are named.
        LoadError: the file is damaged or of a newer version.
    """
    path = Path(folder) / CONFIG
    if not path.exists():
        raise FileNotFoundError(_missing(Path(folder)))
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise LoadError(f"{path} is damaged ({error}); restore it from a copy") from error
    if not isinstance(fields, dict) or not {"format", "model", "config", "spec"} <= fields.keys():
        raise LoadError(f"{path} is not the configuration of a model: it must have format, model, config and spec")
    if fields["format"] > FORMAT:
        made = fields.get("versions", {}).get("ancestral", "a newer version")
        raise LoadError(f"{path} was written by ancestral {made}, in a format that this version does not know: upgrade")
    return fields


def units_of(folder: Folder) -> Units | None:
    """How the data that a run was trained on were made of their originals; None where they are as they were given.

    Raises:
        FileNotFoundError: there is no such folder or file.
        LoadError: ``config.json`` is damaged.
    """
    return _recorded(folder, "units", "are", Units.from_dict)


def notation_of(folder: Folder) -> Notation | None:
    """How the symbols of the text or sound that a run was trained on are written; None where they are neither.

    Raises:
        FileNotFoundError: there is no such folder or file.
        LoadError: ``config.json`` is damaged.
    """
    return _recorded(folder, "notation", "is", notation_from_dict)


def _recorded(folder: Folder, name: str, verb: str, read: Callable[[Any], Read]) -> Read | None:
    """What ``config.json`` has of the data under a name, or None."""
    recorded = (describe(folder).get("data") or {}).get(name)
    try:
        return None if recorded is None else read(recorded)
    except (KeyError, TypeError, ValueError) as error:
        raise LoadError(
            f"{Path(folder) / CONFIG}: the {name} of the data {verb} damaged ({error!r}); restore it from a copy"
        ) from error


def _missing(folder: Path) -> str:
    around = sorted(path.parent.name for path in folder.parent.glob(f"*/{CONFIG}"))
    near = get_close_matches(folder.name, around, n=1, cutoff=0.4) or around[:1]
    hint = f"; did you mean {folder.parent / near[0]}?" if near and near[0] != folder.name else ""
    if not folder.exists():
        return f"there is no folder {folder}{hint}"
    return f"{folder} has no {CONFIG}, so it is not the folder of a model{hint}"
