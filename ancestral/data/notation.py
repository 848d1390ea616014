"""How symbols are written: text as bytes, characters or tokens, sound as samples of eight bits or two bytes.

Notations are values: a run keeps that of its data in ``config.json``, so that files it meets later are written the same way.
"""

from __future__ import annotations

from codecs import getincrementaldecoder
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ancestral.symbols import DataError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Codes = NDArray[Any]
TEXTS, SOUNDS = ("bytes", "characters", "bpe"), ("mulaw", "pcm16", "pcm8")
AT_ONCE = 2**20  # characters: a tokenizer takes a hundred bytes for each, and a text is the same however long it is
TRIAL = "Ab  c\n\t1,\u00e9\u20ac\U0001f600"  # what a tokenizer must give back: spaces, digits, characters of 1 to 4 bytes


@dataclass(frozen=True)
class Text:
    """Text as symbols.

    Attributes:
        code: ``"bytes"`` (UTF-8, 256 levels, takes any file), ``"characters"`` of an alphabet, or the tokens of a ``"bpe"``.
        alphabet: the characters, in the order of their symbols.
        tokenizer: the content of the ``tokenizer.json`` of a byte-level BPE, as Hugging Face's ``tokenizers`` writes it.

    Raises:
        DataError: there is no such code, or its alphabet or tokenizer is missing or unfit.

    Example:
        >>> Text.characters("abracadabra").encode("cab").tolist()
        [2, 0, 1]
        >>> Text().decode([104, 105])
        b'hi'
    """

    code: str = "bytes"
    alphabet: str = ""
    tokenizer: str = ""

    def __post_init__(self) -> None:
        if self.code not in TEXTS:
            raise DataError(f"the notation of a text is {self.code!r}; it must be one of {', '.join(TEXTS)}")
        if (bool(self.alphabet), bool(self.tokenizer)) != (self.code == "characters", self.code == "bpe"):
            raise DataError(
                "a notation has an alphabet where it is of characters, a tokenizer where it is a bpe, and nothing else"
            )
        if len(set(self.alphabet)) != len(self.alphabet) or (self.code == "characters" and len(self.alphabet) < 2):
            raise DataError("an alphabet has at least two characters, each of them once")
        if self.code == "bpe" and self.decode(self.encode(TRIAL)) != TRIAL:
            raise DataError(
                "the tokenizer does not give every text back as it was, so that nothing could be said of its bytes: take a"
                " byte-level BPE that adds and normalises nothing"
            )

    @classmethod
    def characters(cls, text: str) -> Text:
        """The notation whose alphabet is the sorted set of the characters of a text."""
        return cls("characters", "".join(sorted(set(text))))

    @classmethod
    def bpe(cls, texts: Iterator[str] | Sequence[str], size: int) -> Text:
        """A byte-level BPE with at most so many tokens, trained on texts (Sennrich et al. 2016; Radford et al. 2019).

        Raises:
            DataError: size is below 256, the number of bytes.
        """
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

        if size < 256:
            raise DataError(f"a BPE of {size} tokens is too small: every byte is one, and makes 256")
        made = Tokenizer(models.BPE())
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        lines = chain.from_iterable(text.splitlines(keepends=True) for text in texts)
        made.train_from_iterator(
            lines, trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False, special_tokens=[])
        )
        return cls("bpe", tokenizer=made.to_str())

    @property
    def levels(self) -> int:
        """How many symbols there are."""
        return len(self.widths)

    @property
    def parts(self) -> int:
        """One symbol is one unit of text."""
        return 1

    @cached_property
    def widths(self) -> NDArray[np.int64]:
        """(levels,) how many bytes of UTF-8 each symbol stands for."""
        if self.code == "bpe":
            return np.array([len(token) for token in self._tokens])
        return np.array([len(character.encode()) for character in self.alphabet] or [1] * 256)

    def codes(self, text: str | bytes) -> Codes:
        """The symbols of a text in the smallest type that holds them.

        Raises:
            DataError: a character is not in the alphabet, or bytes are no UTF-8.
        """
        if self.code == "bytes":
            return np.frombuffer(text.encode() if isinstance(text, str) else text, np.uint8)
        text = text if isinstance(text, str) else decoded(text)
        code = self._of_characters if self.code == "characters" else self._of_tokens
        parts = [code(text[i : i + AT_ONCE]) for i in range(0, len(text), AT_ONCE)]
        return np.concatenate(parts) if parts else np.zeros(0, smallest(self.levels))

    def encode(self, text: str | bytes) -> Tensor:
        """The (T,) symbols of a text, int64; errors as ``codes``."""
        return torch.from_numpy(self.codes(text).astype(np.int64))

    def decode(self, symbols: Tensor | ArrayLike) -> str | bytes:
        """The text of (T,) symbols up to the end of the example, if that is among them; bytes where these are the symbols.

        Tokens that make no UTF-8 together show the replacement character.

        Raises:
            DataError: they are not (T,) symbols of this notation.
        """
        codes = up_to_end(symbols, self.levels)
        if self.code == "bytes":
            return codes.astype(np.uint8).tobytes()
        if self.code == "characters":
            return "".join(self.alphabet[code] for code in codes)
        return b"".join(self._tokens[code] for code in codes).decode("utf-8", errors="replace")

    def pieces(self, symbols: Iterable[int]) -> Iterator[str]:
        """The text of symbols as they come, a piece for each, empty where a character waits for its other bytes; then the rest.

        Example:
            >>> list(Text().pieces([104, 0xC3, 0xA9]))
            ['h', '', 'é', '']
        """
        decoder = getincrementaldecoder("utf-8")("replace")
        for symbol in symbols:
            written = self.decode([symbol]) if self.code != "bpe" else b"".join(self._tokens[symbol : symbol + 1])
            yield written if isinstance(written, str) else decoder.decode(written)
        yield decoder.decode(b"", True)

    def to_dict(self) -> dict[str, Any]:
        """The attributes as JSON has them; the inverse of ``notation_from_dict``."""
        return {name: value for name, value in asdict(self).items() if value}

    def in_words(self) -> str:
        """What the symbols are, for the note of the data."""
        names = {"bytes": "bytes", "characters": f"{self.levels} characters", "bpe": f"BPE of {self.levels:,} tokens"}
        return names[self.code]

    def _of_characters(self, text: str) -> Codes:
        points = np.frombuffer(text.encode("utf-32-le", errors="surrogatepass"), np.uint32)
        known = np.array([ord(character) for character in self.alphabet], np.uint32)
        order = np.argsort(known)
        places = order[np.searchsorted(known, points, sorter=order).clip(max=len(known) - 1)]
        strange = np.flatnonzero(known[places] != points)
        if len(strange):
            character = chr(points[strange[0]])
            raise DataError(
                f"the character {character!r} (U+{ord(character):04X}) is not among the {len(known)} of this notation: replace it"
                " in the text, or train with notation='bytes', which knows every one"
            )
        codes: Codes = places.astype(smallest(self.levels))
        return codes

    def _of_tokens(self, text: str) -> Codes:
        codes: Codes = np.array(self._model.encode(text, add_special_tokens=False).ids, smallest(self.levels))
        return codes

    @cached_property
    def _model(self) -> Tokenizer:
        from tokenizers import Tokenizer

        try:
            model = Tokenizer.from_str(self.tokenizer)
        except Exception as error:  # the library raises nothing more special
            raise DataError(f"the tokenizer cannot be read ({error}): give the tokenizer.json of a byte-level BPE") from error
        model.no_truncation()
        model.no_padding()
        return model

    @cached_property
    def _tokens(self) -> list[bytes]:
        """The bytes of every token; of one with characters that stand for no byte, as added ones are, those of its own name."""
        names = self._model.get_vocab(with_added_tokens=True)
        tokens = [b""] * (max(names.values()) + 1)
        for name, token in names.items():
            plain = all(character in BYTES for character in name)
            tokens[token] = bytes(BYTES[character] for character in name) if plain else name.encode()
        return tokens


@dataclass(frozen=True)
class Sound:
    """Sound, one channel of it, as symbols.

    Attributes:
        rate: samples a second.
        code: ``"mulaw"`` (8 bits, mu = 255, as WaveNet has it), ``"pcm16"`` (16 bits as two symbols, the high byte first) or
            ``"pcm8"`` (8 bits, evenly spaced).

    Raises:
        DataError: there is no such code, or the rate is below 1.

    Example:
        >>> Sound(8000).encode([-1.0, 0.0, 0.5]).tolist()
        [0, 128, 239]
        >>> Sound(8000, "pcm16").decode(Sound(8000, "pcm16").encode([-1.0, 0.0, 0.5]))
        tensor([-32768,      0,  16384], dtype=torch.int16)
    """

    rate: int
    code: str = "mulaw"

    def __post_init__(self) -> None:
        if self.code not in SOUNDS:
            raise DataError(f"the notation of sound is {self.code!r}; it must be one of {', '.join(SOUNDS)}")
        if self.rate < 1:
            raise DataError(f"rate is {self.rate}; it must be at least 1 sample a second")

    @property
    def levels(self) -> int:
        """How many symbols there are."""
        return 256

    @property
    def parts(self) -> int:
        """How many symbols make up a sample."""
        return 2 if self.code == "pcm16" else 1

    def codes(self, samples: ArrayLike) -> NDArray[np.uint8]:
        """The symbols of (T,) samples, int16 or real ones in [-1, 1], which are clipped.

        Raises:
            DataError: they are neither, or not finite.
        """
        values = np.asarray(samples)
        if values.dtype.kind == "f":
            if not np.isfinite(values).all():
                raise DataError("the sound holds NaN or infinite samples: repair the file")
            if self.code == "mulaw":
                return mu_law(values)
            values = int16(values)
        if values.dtype != np.int16:
            raise DataError(f"samples of sound have type {values.dtype}: give int16, or real values in [-1, 1]")
        if self.code == "mulaw":
            return _mu_law_table()[values.view(np.uint16)]
        if self.code == "pcm8":
            return (((values.astype(np.int32) + 128) >> 8).clip(max=127) + 128).astype(np.uint8)
        return (values.view(np.uint16) ^ np.uint16(0x8000)).astype(">u2").view(np.uint8)

    def encode(self, samples: Tensor | ArrayLike) -> Tensor:
        """The (parts T,) symbols of (T,) samples, int64; errors as ``codes``."""
        values = samples.detach().cpu().numpy() if isinstance(samples, Tensor) else samples
        return torch.from_numpy(self.codes(values).astype(np.int64))

    def decode(self, symbols: Tensor | ArrayLike) -> Tensor:
        """The (T,) int16 samples of (parts T,) symbols up to the end of the example, if that is among them.

        Raises:
            DataError: they are not symbols of this notation in one row.
        """
        codes = up_to_end(symbols, self.levels).astype(np.uint8)
        if self.code == "mulaw":
            samples = int16(mu_law_inverse(np.arange(256)))[codes]
        elif self.code == "pcm8":
            samples = ((codes.astype(np.int16) - 128) << 8).astype(np.int16)
        else:
            whole = codes[: len(codes) // 2 * 2].view(">u2").astype(np.uint16)
            samples = (whole ^ np.uint16(0x8000)).view(np.int16)
        return torch.from_numpy(samples)

    def to_dict(self) -> dict[str, Any]:
        """The attributes as JSON has them; the inverse of ``notation_from_dict``."""
        return asdict(self)

    def in_words(self) -> str:
        """What the symbols are, for the note of the data."""
        names = {"mulaw": "8-bit mu-law", "pcm16": "16 bits as two symbols, high byte first,", "pcm8": "8-bit linear samples"}
        return f"{names[self.code]} at {self.rate:,} Hz"


Notation = Text | Sound


def notation_from_dict(fields: Mapping[str, Any]) -> Notation:
    """The notation that ``to_dict`` wrote.

    Raises:
        DataError, TypeError: the fields are of no notation.
    """
    return Sound(**fields) if "rate" in fields else Text(**fields)


def mu_law(x: ArrayLike) -> NDArray[np.uint8]:
    """Real values, clipped to [-1, 1], to 0 .. 255: floor((f + 1) / 2 * 255 + 1/2), f = sign(x) log(1 + 255 |x|) / log 256.

    The companding of G.711 as van den Oord et al. 2016 use it. Zero becomes 128, which stands for +8.6e-5.
    """
    x = np.clip(np.asarray(x, np.float64), -1.0, 1.0)
    companded = np.sign(x) * np.log1p(255 * np.abs(x)) / np.log(256)
    return np.asarray(np.floor((companded + 1) / 2 * 255 + 0.5), np.uint8)


def mu_law_inverse(codes: ArrayLike) -> NDArray[np.float64]:
    """Codes 0 .. 255 to the values in [-1, 1] that they stand for: ``mu_law`` gives the codes again."""
    y = 2 * np.asarray(codes, np.float64) / 255 - 1
    return np.asarray(np.sign(y) * (256 ** np.abs(y) - 1) / 255)


@cache
def _mu_law_table() -> NDArray[np.uint8]:
    """The code of every int16 sample, by its two's complement."""
    return mu_law(np.arange(2**16, dtype=np.uint16).view(np.int16) / 2**15)


def int16(x: NDArray[Any]) -> NDArray[np.int16]:
    """Real samples as whole ones: 1 is 2^15, and what is beyond the range is clipped."""
    return np.rint(x * 2.0**15).clip(-(2**15), 2**15 - 1).astype(np.int16)


def smallest(levels: int) -> type[np.generic]:
    """The smallest type that holds 0 .. levels - 1, of those that torch knows well."""
    return np.uint8 if levels <= 2**8 else np.int16 if levels <= 2**15 else np.int32


def unlike(theirs: Notation | None, ours: Notation | None) -> str:
    """What symbols stand for beside those of a model, in words; empty where that is the same, or one of them is unknown."""
    if theirs is None or ours is None or theirs == ours:
        return ""
    other, own = theirs.in_words(), ours.in_words()
    return f"stand for other things ({other}{', others' * (own == other)}) than those of the model ({own})"


def decoded(text: bytes) -> str:
    """Bytes as UTF-8.

    Raises:
        DataError: they are not; the first wrong byte is named.
    """
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"the text is no UTF-8: byte {text[error.start]:#04x} at place {error.start:,} begins no character; convert it, or"
            " read it with notation='bytes'"
        ) from error


def up_to_end(symbols: Tensor | ArrayLike, levels: int) -> NDArray[np.int64]:
    """(T,) symbols 0 .. levels - 1, up to the first that is ``levels``, which ends an example.

    Raises:
        DataError: they are not in one row, or others are among them.
    """
    values = np.asarray(symbols.detach().cpu() if isinstance(symbols, Tensor) else symbols)
    if values.ndim != 1 or (len(values) and values.dtype.kind not in "ui"):
        raise DataError(f"symbols of shape {values.shape} and type {values.dtype}; give one row of whole numbers")
    ends = np.flatnonzero(values == levels)
    values = values[: ends[0]] if len(ends) else values
    if len(values) and not 0 <= int(values.min()) <= int(values.max()) < levels:
        raise DataError(f"symbols range over {values.min()} .. {values.max()}; this notation has 0 .. {levels - 1}")
    return values.astype(np.int64)


def _bytes_of_tokens() -> dict[str, int]:
    """The printable characters by which byte-level tokenizers name bytes (Radford et al. 2019): themselves, else from 256 on."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + i): byte for i, byte in enumerate(others)}


BYTES = _bytes_of_tokens()
