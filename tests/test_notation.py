"""Notations: the codes of SPEC's mu-law, bytes of samples, characters and tokens; what is written is read back."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from ancestral.data.notation import Sound, Text, mu_law, mu_law_inverse, notation_from_dict
from ancestral.symbols import DataError

EVERY = np.arange(-(2**15), 2**15, dtype=np.int32).astype(np.int16)
STRANGE = "naïve Straße 東京 🎻 e\u0301 \t\r\n\x00 end"


def test_mu_law_codes_and_values() -> None:
    x = [-1, -0.5, -0.1, -0.01, 0, 0.01, 0.1, 0.5, 1]
    assert mu_law(x).tolist() == [0, 16, 52, 98, 128, 157, 203, 239, 255]
    assert mu_law_inverse([127, 200]) == pytest.approx([-8.62116e-5, 0.08788022], rel=1e-6)
    assert (mu_law(mu_law_inverse(np.arange(256))) == np.arange(256)).all()
    assert mu_law([-7.0, 1.5]).tolist() == [0, 255]  # clipped


def test_mu_law_is_its_formula_and_monotone() -> None:
    generator = random.Random(1)
    for x in (generator.uniform(-1, 1) for _ in range(500)):
        companded = math.copysign(math.log(1 + 255 * abs(x)) / math.log(256), x)
        assert mu_law(x) == math.floor((companded + 1) / 2 * 255 + 0.5)
    assert (np.diff(mu_law(np.linspace(-1, 1, 10001)).astype(int)) >= 0).all()


@pytest.mark.parametrize("code", ["mulaw", "pcm8", "pcm16"])
def test_what_sound_stands_for_is_written_as_it_was(code: str) -> None:
    sound = Sound(8000, code)
    symbols = sound.encode(EVERY)
    assert symbols.shape == (sound.parts * len(EVERY),) and symbols.dtype == torch.int64
    samples = sound.decode(symbols)
    assert samples.dtype == torch.int16 and torch.equal(sound.encode(samples), symbols)
    assert torch.equal(sound.decode(torch.cat([symbols, torch.tensor([256, 3])])), samples)  # an end ends
    real = sound.encode(EVERY / 2.0**15)
    assert torch.equal(real, symbols)


def test_sixteen_bits_are_two_bytes_the_high_one_first() -> None:
    sound = Sound(8000, "pcm16")
    for sample, pair in {0: [128, 0], -32768: [0, 0], 32767: [255, 255], 258: [129, 2], -1: [127, 255]}.items():
        assert sound.encode(np.array([sample], np.int16)).tolist() == pair
    assert (sound.decode(sound.encode(EVERY)).numpy() == EVERY).all()
    assert sound.encode(torch.tensor([2.0])).tolist() == [255, 255]  # clipped


def test_eight_even_bits_are_the_nearest() -> None:
    sound = Sound(8000, "pcm8")
    away = np.abs(sound.decode(sound.encode(EVERY)).numpy().astype(int) - EVERY)
    assert away[EVERY < 127 * 256].max() == 128 and sound.encode(np.zeros(1, np.int16)).tolist() == [128]


def test_bytes_and_characters() -> None:
    blob = bytes(range(256)) * 2
    assert Text().decode(Text().encode(blob)) == blob and Text().encode("é").tolist() == [0xC3, 0xA9]
    text = Text.characters(STRANGE)
    assert text.alphabet == "".join(sorted(set(STRANGE))) and text.levels == len(set(STRANGE))
    symbols = text.encode(STRANGE)
    assert [text.alphabet[symbol] for symbol in symbols] == list(STRANGE) and text.decode(symbols) == STRANGE
    assert torch.equal(text.encode(STRANGE.encode()), symbols)
    assert text.decode([*symbols.tolist(), text.levels, 0]) == STRANGE
    assert int(text.widths[symbols].sum()) == len(STRANGE.encode())
    with pytest.raises(DataError, match=r"'x' \(U\+0078\) is not among"):
        text.encode("ex")
    with pytest.raises(DataError, match="place 2 begins no character"):
        text.encode(b"en\xff")


def test_characters_of_any_order_and_many_of_them() -> None:
    alphabet = "zebra 🎻"
    generator = random.Random(3)
    text = "".join(generator.choice(alphabet) for _ in range(3000))
    assert Text("characters", alphabet).encode(text).tolist() == [alphabet.index(character) for character in text]
    many = "".join(map(chr, range(0x4E00, 0x4E00 + 400)))
    assert Text.characters(many).codes(many).dtype == np.int16  # past the levels of a byte


def test_a_bpe_gives_every_text_back_and_knows_its_bytes() -> None:
    text = Text.bpe(["the cat sat on the mat, the cat sat\n" * 30], 280)
    assert 256 < text.levels <= 280
    assert len(text.encode("the cat")) < len("the cat")  # frequent pairs became tokens
    generator = random.Random(5)
    for _ in range(50):
        some = "".join(generator.choice(STRANGE + "the cat sat") for _ in range(generator.randrange(40)))
        symbols = text.encode(some)
        assert text.decode(symbols) == some and int(text.widths[symbols].sum()) == len(some.encode())
    assert text.widths[text.encode("the the")].tolist()[-1] == 4  # a space and three letters


def test_tokenizers_of_others(tmp_path: Any) -> None:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|endoftext|>"],
        show_progress=False,
    )
    made.train_from_iterator(["a rose is a rose is a rose"] * 20, trainer)
    text = Text("bpe", tokenizer=made.to_str())
    assert text.encode("a rose").tolist() == made.encode("a rose").ids and text.decode([0]) == "<|endoftext|>"
    made.normalizer = normalizers.Lowercase()
    with pytest.raises(DataError, match="give every text back"):
        Text("bpe", tokenizer=made.to_str())
    made.normalizer, made.pre_tokenizer = None, pre_tokenizers.ByteLevel(add_prefix_space=True)
    with pytest.raises(DataError, match="give every text back"):
        Text("bpe", tokenizer=made.to_str())
    with pytest.raises(DataError, match="cannot be read"):
        Text("bpe", tokenizer="{}")


NOTATIONS = [Text(), Text.characters("abc ü"), Text.bpe(["abab"], 257), Sound(16000), Sound(8000, "pcm16")]


@pytest.mark.parametrize("notation", NOTATIONS, ids=lambda notation: notation.code)
def test_notations_survive_json(notation: Text | Sound) -> None:
    assert notation_from_dict(json.loads(json.dumps(notation.to_dict()))) == notation
    assert notation.in_words()


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Text("words"), "bytes, characters, bpe"),
        (lambda: Text("characters"), "an alphabet where"),
        (lambda: Text("bytes", alphabet="ab"), "an alphabet where"),
        (lambda: Text("characters", "aba"), "each of them once"),
        (lambda: Text.bpe(["a"], 100), "256"),
        (lambda: Sound(0), "at least 1 sample"),
        (lambda: Sound(8000, "mp3"), "mulaw, pcm16, pcm8"),
        (lambda: Sound(8000).encode([float("nan")]), "NaN"),
        (lambda: Sound(8000).encode([1, 2]), "int16"),
        (lambda: Sound(8000).decode([300]), "0 .. 255"),
        (lambda: Text().decode([[1]]), "one row"),
        (lambda: Text.characters("ab").decode([-1]), "0 .. 1"),
    ],
)
def test_faults_are_named(make: Any, match: str) -> None:
    with pytest.raises(DataError, match=match):
        make()


def test_pieces_of_an_example_with_its_end() -> None:
    for notation in (Text(), Text.characters("hi!"), Text.bpe(["hi hi hi"], 260)):
        assert "".join(notation.pieces([*notation.encode("hi").tolist(), notation.levels])) == "hi"
