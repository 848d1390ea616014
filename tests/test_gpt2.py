"""GPT-2: its sizes, its logits from its equations, and folders in the form of Hugging Face."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import safetensors.torch
import torch
from tokenizers import AddedToken, Tokenizer
from torch import Tensor

import ancestral
from ancestral.causal.layer import Clock, Graph
from ancestral.causal.lower import lower
from ancestral.cli import main
from ancestral.data.notation import Text
from ancestral.models import build
from ancestral.networks.gpt2 import fill, from_gpt2, tokenizer
from ancestral.spec import DataSpec
from ancestral.symbols import DataError

GPT2 = {  # layers, width, heads: parameters (Radford et al. 2019; the four released sizes)
    (12, 768, 12): 124_439_808,
    (24, 1024, 16): 354_823_168,
    (36, 1280, 20): 774_030_080,
    (48, 1600, 25): 1_557_611_200,
}


@pytest.mark.parametrize("sizes", GPT2)
def test_the_paper_preset_has_gpt2s_parameters(sizes: tuple[int, int, int]) -> None:
    layers, width, heads = sizes
    with torch.device("meta"):
        spec = DataSpec("text", (None,), levels=50257, end=50256)
        model = build("transformer", spec, preset="paper", layers=layers, width=width, heads=heads)
    assert sum(parameter.numel() for parameter in model.parameters()) == GPT2[sizes]


def test_a_walk_remembers_two_vectors_a_layer_and_token() -> None:
    """18,432 numbers a token for GPT-2 small; a fourth of them where 12 heads share 3 of keys."""
    for key_heads, wanted in ((0, 18_432), (3, 18_432 // 4)):
        with torch.device("meta"):
            network = build("transformer", DataSpec("text", (1024,), levels=50257), preset="paper", key_heads=key_heads).network
            graph = Graph()
            output: Any = network.body(graph.add(Clock.SITE, strict=True), None, None)  # type: ignore[operator]
            program = lower({}, output, (1, 1024, 1))
        assert sum(buffer.features for buffer in program.buffers if buffer.rows == 1024) == wanted


Array = npt.NDArray[np.float64]


def reference(w: Mapping[str, Array], tokens: list[int], layers: int, heads: int) -> Array:
    """Logits (T, V) after each token, from the equations of GPT-2 and matrices as its authors lay them out."""

    def norm(x: Array, name: str) -> Array:
        centred = x - x.mean(-1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * w[f"{name}.weight"] + w[f"{name}.bias"]

    def linear(x: Array, name: str) -> Array:
        return x @ w[f"{name}.weight"] + w[f"{name}.bias"]

    h = w["wte.weight"][tokens] + w["wpe.weight"][: len(tokens)]
    for i in range(layers):
        q, k, v = np.split(linear(norm(h, f"h.{i}.ln_1"), f"h.{i}.attn.c_attn"), 3, -1)
        size, mixed = q.shape[1] // heads, np.zeros_like(q)
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            for t in range(len(tokens)):
                scores = k[: t + 1, part] @ q[t, part] / math.sqrt(size)
                weights = np.exp(scores - scores.max())
                mixed[t, part] = weights @ v[: t + 1, part] / weights.sum()
        h = h + linear(mixed, f"h.{i}.attn.c_proj")
        u = linear(norm(h, f"h.{i}.ln_2"), f"h.{i}.mlp.c_fc")
        bent = 0.5 * u * (1 + np.tanh(math.sqrt(2 / math.pi) * (u + 0.044715 * u**3)))
        h = h + linear(bent, f"h.{i}.mlp.c_proj")
    return norm(h, "ln_f") @ w["wte.weight"].T


def random_gpt2(levels: int = 11, context: int = 12, width: int = 8, layers: int = 2) -> dict[str, Tensor]:
    """Weights by Hugging Face's names."""
    generator = torch.Generator().manual_seed(3)
    shapes = {"wte.weight": (levels, width), "wpe.weight": (context, width), "ln_f.weight": (width,), "ln_f.bias": (width,)}
    for i in range(layers):
        maps = {"attn.c_attn": (width, 3 * width), "attn.c_proj": (width, width)}
        maps |= {"mlp.c_fc": (width, 4 * width), "mlp.c_proj": (4 * width, width)}
        for name, shape in maps.items():
            shapes |= {f"h.{i}.{name}.weight": shape, f"h.{i}.{name}.bias": shape[1:]}
        shapes |= {f"h.{i}.{name}.{part}": (width,) for name in ("ln_1", "ln_2") for part in ("weight", "bias")}
    return {name: torch.randn(shape, generator=generator) * 0.4 for name, shape in shapes.items()}


def folder_of(path: Path, weights: Mapping[str, Tensor], prefix: str = "transformer.", **fields: Any) -> Path:
    levels, width = weights["wte.weight"].shape
    sizes = {"vocab_size": levels, "n_positions": 12, "n_embd": width, "n_layer": 2, "n_head": 2, "model_type": "gpt2"}
    (path / "config.json").write_text(json.dumps(sizes | {"bos_token_id": 10, "eos_token_id": 10} | fields))
    buffers = {"h.0.attn.bias": torch.ones(1)}  # masks, which older files keep among the weights
    safetensors.torch.save_file(
        {prefix + name: value.clone() for name, value in (weights | buffers).items()}, path / "model.safetensors"
    )
    return path


@pytest.mark.parametrize(("prefix", "beginning"), [("transformer.", 10), ("", 4)])
def test_a_folder_of_hugging_face_gives_its_logits(prefix: str, beginning: int, tmp_path: Path) -> None:
    weights = random_gpt2()
    model = from_gpt2(folder_of(tmp_path, weights, prefix, bos_token_id=beginning))
    assert model.spec == DataSpec("text", (None,), levels=11, end=10)
    x = torch.randint(10, (3, 12))
    found = model.conditionals(x).parameters
    arrays = {name: value.numpy() for name, value in weights.items()}
    for row, symbols in enumerate(x.tolist()):
        wanted = reference(arrays, [beginning, *symbols[:-1]], 2, 2)
        assert np.abs(found[row].detach().numpy() - wanted).max() < 1e-10


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model_type": "llama"}, "only 'gpt2'"),
        ({"activation_function": "relu"}, "activation_function is 'relu'"),
        ({"n_inner": 7}, "4 times the width"),
        ({"n_layer": 3}, "not those of a GPT-2"),
        ({"n_positions": 16}, "not those of a GPT-2"),
        ({"n_head": None}, "does not say n_head"),
        ({"bos_token_id": 11}, r"bos_token_id is 11, and tokens are 0 \.\. 10"),
    ],
)
def test_what_is_not_gpt2_is_refused(fields: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        from_gpt2(folder_of(tmp_path, random_gpt2(), **fields))


def test_files_that_are_missing_or_damaged_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no .*config\.json"):
        from_gpt2(tmp_path)
    folder_of(tmp_path, random_gpt2())
    (tmp_path / "model.safetensors").write_bytes(b"junk")
    with pytest.raises(DataError, match="missing or damaged"):
        from_gpt2(tmp_path)
    assert tokenizer(tmp_path) is None
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(DataError, match="damaged"):
        tokenizer(tmp_path)
    with pytest.raises(TypeError, match="not a GatedPixelCNN"):
        fill(build("gated-pixelcnn", DataSpec("image", (1, 4, 4), levels=2), preset="tiny"), {})  # type: ignore[arg-type]


def test_a_tokenizer_comes_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    own = Tokenizer.from_str(Text.bpe(["the cat sat on the mat, the cat sat"] * 9, 270).tokenizer)
    own.add_special_tokens([AddedToken("<|endoftext|>", special=True)])
    levels = own.get_vocab_size()
    weights = random_gpt2(levels)
    folder_of(tmp_path, weights, vocab_size=levels, bos_token_id=levels - 1, eos_token_id=levels - 1)
    own.save(str(tmp_path / "tokenizer.json"))
    notation = tokenizer(tmp_path)
    assert notation is not None and notation.levels == levels - 1  # the end of a text stands for no text
    assert notation.decode(notation.encode("the cat <|endoftext|>")) == "the cat <|endoftext|>"
    monkeypatch.setattr("sys.argv", ["ancestral", "import", str(tmp_path), "--out", str(tmp_path / "run")])
    assert main() == 0 and "BPE" in capsys.readouterr().out
    model = ancestral.load(tmp_path / "run")
    assert json.loads((tmp_path / "run" / "config.json").read_text())["data"]["notation"] == notation.to_dict()
    x = torch.randint(levels - 1, (2, 7))
    assert torch.equal(model.log_prob(x), from_gpt2(tmp_path).log_prob(x))


def test_a_tokenizer_whose_last_token_is_text_is_kept_whole(tmp_path: Path) -> None:
    """Where texts end with another token, such as the first, as in vocabularies that list special tokens first."""
    text = Text.bpe(["the cat sat on the mat, the cat sat"] * 9, 270).tokenizer
    levels = Tokenizer.from_str(text).get_vocab_size()
    folder_of(tmp_path, random_gpt2(levels), bos_token_id=0, eos_token_id=0)
    (tmp_path / "tokenizer.json").write_text(text)
    notation, model = tokenizer(tmp_path), from_gpt2(tmp_path)
    assert notation is not None and notation.levels == levels == model.spec.levels and model.spec.end is None
    assert notation.decode(torch.tensor([levels - 1])) == Tokenizer.from_str(text).decode([levels - 1])


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32])
def test_half_precision_becomes_single(kind: torch.dtype, tmp_path: Path) -> None:
    weights = {name: value.to(kind) for name, value in random_gpt2().items()}
    model = from_gpt2(folder_of(tmp_path, weights))
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    found = model.conditionals(torch.tensor([[3, 1, 4]])).parameters[0].detach()
    wanted = reference({name: value.double().numpy() for name, value in weights.items()}, [10, 3, 1], 2, 2)
    assert np.abs(found.numpy() - wanted).max() < 1e-4


def test_a_padded_vocabulary_is_cut_to_the_tokens(tmp_path: Path) -> None:
    own = Tokenizer.from_str(Text.bpe(["the cat sat on the mat, the cat sat"] * 9, 270).tokenizer)
    own.add_special_tokens([AddedToken("<|endoftext|>", special=True)])
    levels = own.get_vocab_size()
    weights = random_gpt2(levels + 5)
    folder_of(tmp_path, weights, bos_token_id=levels - 1, eos_token_id=levels - 1)
    padded = from_gpt2(tmp_path)
    assert padded.spec == DataSpec("text", (12,), levels=levels + 5)  # without a tokenizer nobody knows
    own.save(str(tmp_path / "tokenizer.json"))
    model, notation = from_gpt2(tmp_path), tokenizer(tmp_path)
    assert model.spec == DataSpec("text", (None,), levels=levels, end=levels - 1)
    assert notation is not None and notation.levels == levels - 1
    x = torch.randint(levels - 1, (2, 7))
    wanted = reference({name: value.numpy() for name, value in weights.items()}, [levels - 1, *x[0, :-1].tolist()], 2, 2)
    assert np.abs(model.conditionals(x).parameters[0].detach().numpy() - wanted[:, :levels]).max() < 1e-10


def test_weights_without_a_beginning_begin_with_the_last_token() -> None:
    weights = random_gpt2()
    model: Any = build("transformer", DataSpec("text", (12,), levels=11), layers=2, width=8, heads=2, context=12)
    fill(model, weights)
    assert torch.equal(model.network.places.start, weights["wte.weight"][-1])
