"""GPT-2 (Radford et al. 2019) as Hugging Face keeps it: a folder with ``config.json``, ``model.safetensors`` and a tokenizer."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from ancestral.core import Autoregressive
from ancestral.data.notation import Text
from ancestral.networks.configs import TransformerConfig
from ancestral.networks.transformer import Transformer, transformer
from ancestral.spec import DataSpec
from ancestral.symbols import DataError

CONFIG, WEIGHTS, TOKENIZER = "config.json", "model.safetensors", "tokenizer.json"
OURS = {"ln_1": "first", "attn.c_proj": "mix", "ln_2": "second", "mlp.c_fc": "up", "mlp.c_proj": "down"}  # layers of a block
SIZES = ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head")
ONLY: dict[str, tuple[Any, ...]] = {  # settings of which we have one meaning, the first being that of a file that says nothing
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
    "layer_norm_epsilon": (1e-5,),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "tie_word_embeddings": (True,),
    "add_cross_attention": (False,),
}


def from_gpt2(folder: str | os.PathLike[str]) -> Autoregressive:
    """The model of a folder in the form of Hugging Face, which gives the same logits.

    The text begins with the token that the folder says texts begin with. Where the last token ends a text, as GPT-2's does,
    lengths vary up to the context; else examples are as long as the context. Weights in half precision become float32. Of a
    vocabulary that is padded, rows beyond the tokens of ``tokenizer.json`` are left out: they stand for nothing, and the others
    share what probability they had. Without that file every row is a symbol.

    Raises:
        DataError: a file is missing or damaged, or the network is of another kind; the message says what is not as GPT-2's.
    """
    path = Path(folder)
    fields = _config(path)
    levels, context = fields["vocab_size"], fields["n_positions"]
    end = levels - 1 if _ends(fields) else None
    config = TransformerConfig(
        layers=fields["n_layer"],
        width=fields["n_embd"],
        heads=fields["n_head"],
        context=context,
        start="last" if _beginning(fields) == levels - 1 else "vector",
        dropout=fields.get("resid_pdrop", 0.1),
    )
    model = transformer(config, DataSpec("text", (context,) if end is None else (None,), levels, end=end))
    try:
        fill(model, safetensors.torch.load_file(path / WEIGHTS), _beginning(fields))
    except (FileNotFoundError, SafetensorError) as error:
        raise DataError(f"{path / WEIGHTS} is missing or damaged ({error}): copy it again, in one file") from error
    return model.eval()


def fill(model: Autoregressive, tensors: Mapping[str, Tensor], beginning: int = -1) -> None:
    """Put GPT-2's weights, by Hugging Face's names, into a model of the same sizes, or of the first of their tokens alone.

    Args:
        beginning: the token that stands before the first one, by default the last one of all.

    Raises:
        DataError: a weight is missing, or of another shape.
    """
    network = model.network
    if not isinstance(network, Transformer):
        raise TypeError(f"GPT-2's weights fit a Transformer, not a {type(network).__name__}")
    plain = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    try:
        table = plain["wte.weight"]
        plain["wte.weight"] = table = (table if table.element_size() >= 4 else table.float())[: model.spec.levels]
        ours = dict(_renamed(plain, len(network.blocks)))
        if network.places.start is not None:
            ours["places.start"] = table[beginning]
        network.to(table.dtype).load_state_dict(ours)
    except (KeyError, RuntimeError) as error:
        raise DataError(f"the weights are not those of a GPT-2 of these sizes: {error}") from error


def tokenizer(folder: str | os.PathLike[str]) -> Text | None:
    """How the symbols of a folder's model are written; None where it brings no ``tokenizer.json``.

    The token that ends a text is left out where it is the last one: it then stands for no text.

    Raises:
        DataError: the file is damaged, or not a byte-level BPE.
    """
    path = Path(folder) / TOKENIZER
    if not path.exists():
        return None
    content, fields = _json(path), _config(Path(folder))
    vocabulary = content.get("model", {}).get("vocab")
    if not isinstance(vocabulary, dict):
        raise DataError(f"{path} holds no vocabulary: it is not the tokenizer of a GPT-2")
    if _ends(fields):
        last = fields["vocab_size"] - 1
        content["model"]["vocab"] = {token: number for token, number in vocabulary.items() if number != last}
        content["added_tokens"] = [token for token in content.get("added_tokens", []) if token["id"] != last]
    content["post_processor"] = None
    return Text("bpe", tokenizer=json.dumps(content, ensure_ascii=False))


def _config(folder: Path) -> dict[str, Any]:
    """The settings of a GPT-2, its vocabulary without padding; raises ``DataError`` where some have a meaning we do not have."""
    path = folder / CONFIG
    fields = _json(path)
    if fields.get("model_type") != "gpt2":
        raise DataError(f"{path} describes a network of type {fields.get('model_type')!r}: only 'gpt2' can be read")
    if missing := [name for name in SIZES if not isinstance(fields.get(name), int)]:
        raise DataError(f"{path} does not say {', '.join(missing)}: copy it again from the folder that the weights are of")
    fields["vocab_size"] = min(fields["vocab_size"], _tokens(folder, fields) or fields["vocab_size"])
    if not 0 <= _beginning(fields) < fields["vocab_size"]:
        raise DataError(f"{path}: bos_token_id is {_beginning(fields)}, and tokens are 0 .. {fields['vocab_size'] - 1}")
    for name, allowed in ONLY.items():
        if fields.get(name, allowed[0]) not in allowed:
            raise DataError(f"{path}: {name} is {fields[name]!r}, and this transformer has {allowed[0]!r} alone")
    if fields.get("n_inner") not in (None, 4 * fields["n_embd"]):
        raise DataError(
            f"{path}: hidden layers have {fields['n_inner']} features, and those of this transformer 4 times the width"
        )
    return fields


def _tokens(folder: Path, fields: Mapping[str, Any]) -> int | None:
    """How many tokens the tokenizer and the settings know; None where there is no tokenizer that can be read."""
    content = _json(folder / TOKENIZER) if (folder / TOKENIZER).exists() else {}
    vocabulary = content.get("model", {}).get("vocab")
    if not isinstance(vocabulary, dict):
        return None
    added = [token["id"] for token in content.get("added_tokens", [])]
    told = [token for token in (fields.get("bos_token_id"), fields.get("eos_token_id")) if isinstance(token, int)]
    return 1 + max(int(token) for token in (*vocabulary.values(), *added, *told))


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"there is no {path}: give the folder of a model, as Hugging Face's save_pretrained writes it") from error
    except ValueError as error:
        raise DataError(f"{path} is damaged ({error}): copy it again") from error
    return found if isinstance(found, dict) else {}


def _beginning(fields: Mapping[str, Any]) -> int:
    token = fields.get("bos_token_id")
    return fields["vocab_size"] - 1 if token is None else int(token)


def _ends(fields: Mapping[str, Any]) -> bool:
    """Whether the last token ends a text."""
    return bool(fields.get("eos_token_id") == fields["vocab_size"] - 1)


def _renamed(tensors: Mapping[str, Tensor], layers: int) -> Iterator[tuple[str, Tensor]]:
    """Weights by our names; Hugging Face's matrices are (in, out), and queries, keys and values one matrix."""
    yield "embedding.table", tensors["wte.weight"][None]
    yield "places.targets.place", tensors["wpe.weight"]
    yield from (("norm.gain", tensors["ln_f.weight"]), ("norm.bias", tensors["ln_f.bias"]))
    for i in range(layers):
        for theirs, ours in OURS.items():
            weight, bias = (tensors[f"h.{i}.{theirs}.{part}"] for part in ("weight", "bias"))
            matrix = weight.dim() == 2
            yield f"blocks.{i}.{ours}.{'weight' if matrix else 'gain'}", weight.T[..., None, None] if matrix else weight
            yield f"blocks.{i}.{ours}.bias", bias
        weight, bias = (tensors[f"h.{i}.attn.c_attn.{part}"] for part in ("weight", "bias"))
        width = len(weight)
        for ours, some in (("query", slice(0, width)), ("keys", slice(width, None))):
            yield f"blocks.{i}.{ours}.weight", weight[:, some].T[..., None, None]
            yield f"blocks.{i}.{ours}.bias", bias[some]
