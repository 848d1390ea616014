"""Whole files: symbols in, an ``.anc`` file out, and back.

A file knows what a decoder needs besides the weights: the shape of the items, the calibration of the exact twin, and the twin's
identity. Before anything is decoded, the twin is tried on a fixed input, the canary: a machine that computes other numbers says
so at once instead of decoding garbage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO, Literal, overload

import torch
from torch import Tensor

from ancestral.coding import beside, two_part
from ancestral.coding.blocks import (
    MOST_ITEMS,
    block_items,
    calibrating,
    counted,
    fixed_items,
    in_order,
    in_turn,
    portions,
    raw_size,
    unpacked_lengths,
    unraw,
)
from ancestral.coding.container import CODED, STORED, Block, Writer
from ancestral.coding.errors import CodecError, CorruptHeader, DecodeMismatch, NumericsError, WrongModel
from ancestral.coding.labelled import label_bytes, labelled_header, unpacked
from ancestral.coding.payloads import LatentPart, Part, canary, generator_of, longest, payload_items
from ancestral.coding.reader import Reader
from ancestral.coding.schemes import LATENTS, twin_of
from ancestral.coding.sharing import shared_out
from ancestral.coding.widths import Widths
from ancestral.core import Autoregressive, OrderError
from ancestral.latent.latent import Latent
from ancestral.latent.topdown import placed
from ancestral.sampling.sample import sample
from ancestral.sampling.strategies import arrange, context_of
from ancestral.spec import DataSpec
from ancestral.symbols import DataError, check_symbols
from ancestral.walking.exact import whole
from ancestral.walking.exact.operations import LoweringError
from ancestral.walking.twin import label_vector, restored

Model = Autoregressive | Latent
Data = bytes | bytearray | memoryview | BinaryIO | str | PathLike[str]
Progress = Callable[[int, int], None]
ENDS = "ends"  # of a header: how many items each block has, where items are coded with their ends


def compress(
    model: Model,
    x: Tensor,
    *,
    labels: Sequence[int] | Tensor | None = None,
    scheme: str = "auto",
    engine: str = "auto",
    threads: int = 1,
    progress: Progress | None = None,
) -> bytes:
    """(n, *shape) symbols as the bytes of an ``.anc`` file, which ``decompress`` turns back into them on any machine.

    Args:
        model: of discrete symbols.
        x: of sequences that vary in length, what comes after the end of each must be more ends, which then cost nothing.
        labels: (n,) classes of the items, for a conditional model: it then knows better what to expect, and they are kept in
            the file, log2(classes) bits each; ``decompress(..., with_labels=True)`` gives them back. Without them the model is
            given the null label.
        scheme: of models with latents: ``"bits-back"``, ``"two-part"``, or ``"auto"`` for the shorter one that the model can
            have; or ``"latents"``, which keeps z alone, so that decompressing draws the rest anew.
        engine, threads: what computes; the bytes do not depend on it. Blocks are shared among threads.
        progress: is told (items coded, of how many).

    Raises:
        DataError: x does not fit the model.
        ValueError: the labels do not fit, or the model takes none.
        CodecError: the model has no exact twin, without which files could not be decoded elsewhere.

    Example:
        >>> import ancestral
        >>> model = ancestral.build("gated-pixelcnn", ancestral.DataSpec("image", (1, 4, 4), levels=2), preset="tiny")
        >>> x = torch.randint(2, (20, 1, 4, 4))
        >>> torch.equal(decompress(model, compress(model, x)), x)
        True
    """
    file = BytesIO()
    write(file, model, x, labels=labels, scheme=scheme, engine=engine, threads=threads, progress=progress)
    return file.getvalue()


@overload
def decompress(
    model: Model,
    data: Data,
    *,
    with_labels: Literal[False] = ...,
    errors: Literal["strict", "skip"] = ...,
    seed: int = ...,
    engine: str = ...,
    threads: int = ...,
    progress: Progress | None = ...,
) -> Tensor: ...
@overload
def decompress(
    model: Model,
    data: Data,
    *,
    with_labels: Literal[True],
    errors: Literal["strict", "skip"] = ...,
    seed: int = ...,
    engine: str = ...,
    threads: int = ...,
    progress: Progress | None = ...,
) -> tuple[Tensor, Tensor | None]: ...
def decompress(
    model: Model,
    data: Data,
    *,
    with_labels: bool = False,
    errors: Literal["strict", "skip"] = "strict",
    seed: int = 0,
    engine: str = "auto",
    threads: int = 1,
    progress: Progress | None = None,
) -> Tensor | tuple[Tensor, Tensor | None]:
    """The (n, *shape) symbols of an ``.anc`` file, int64; of a file of z alone symbols drawn from p(x | z).

    Args:
        model: the one that the file was made with.
        data: the bytes, a file open for reading, or the path of one.
        with_labels: give back a pair, the symbols and the (n,) labels that the file keeps, which are None if it keeps none.
        errors: ``"strict"`` raises at the first fault; ``"skip"`` leaves out the blocks that are damaged.
        seed: of what is drawn.

    Raises:
        CodecError: the file is damaged, was made with another model, or this machine cannot reproduce it; see `errors`.
    """
    data = Path(data).read_bytes() if isinstance(data, str | PathLike) else data
    data = bytes(data) if isinstance(data, bytearray | memoryview) else data
    opened = Opened(Reader(data, errors), model, engine, threads, seed)
    parts = [items for _, items in opened.blocks(progress)]
    x = torch.cat(parts) if parts else torch.zeros(0, *opened.shape, dtype=torch.long)
    return (x, opened.labels) if with_labels else x


def write(
    file: BinaryIO,
    model: Model,
    x: Tensor,
    *,
    labels: Sequence[int] | Tensor | None = None,
    header: Mapping[str, Any] | None = None,
    weights: bytes | None = None,
    examples: Tensor | None = None,
    lengths: Tensor | None = None,
    ended: bool = False,
    kept: bytes = b"",
    scheme: str = "auto",
    engine: str = "auto",
    threads: int = 1,
    progress: Progress | None = None,
) -> None:
    """Write an ``.anc`` file; as ``compress``, and besides:

    Args:
        header: more to know about the items, such as their names.
        weights: the run that the model came from, to be embedded.
        examples: what calibrates the twin; x itself by default.
        lengths: (n,) of sequences, how many symbols of each count; by default all that come before the ends which fill it up.
        ended: of sequences, whether they are coded with their ends, which is what their lengths then cost; one as long as x is
            wide has none.
        kept: bytes to be kept beside the symbols.
    """
    check_symbols(x, model.spec)
    context_of(model, len(x), labels, None)
    if ended and model.spec.end is None:
        raise ValueError(f"ended: the model's examples have no end ({model.spec})")
    model, lengths = fitted(model, x), lengths_of(x, model.spec) if lengths is None else lengths
    classes = None if labels is None else torch.as_tensor(labels).cpu().long()
    some = (x if lengths is None else calibrating(x)) if examples is None else examples
    some = some.long() if len(some) else fixed_items(model.spec, 1 if lengths is not None else 4)
    known = classes if classes is None or some is x else in_turn(len(some), model.spec)
    try:
        exact = twin_of(model, x.long(), classes, some, known, scheme, engine, threads)
    except LoweringError as error:
        raise CodecError(f"this model has no exact twin, so its files could not be decoded elsewhere: {error}") from error
    own = {
        "spec": model.spec.to_dict(),
        "items": len(x),
        "scheme": LATENTS if scheme == LATENTS else exact.scheme,
        "model": exact.identity,
        "calibration": exact.calibration,
        "canary": canary(exact),
    }
    widths = Widths(model, exact, engine, threads)
    blocks = in_order(model.spec, lengths) if ended and lengths is not None else portions(model.spec, len(x), lengths)
    rows = [slice(each.start, each.stop) for each in blocks]
    own |= {ENDS: [len(each) for each in blocks]} if ended else {}  # which readers cannot tell before they have decoded them
    parts: Iterator[Part | LatentPart]
    parts = (Part(x[i].long(), *(None if each is None else each[i] for each in (classes, lengths)), ended=ended) for i in rows)
    if scheme == LATENTS:
        parts = (LatentPart.of(part, model.spec, exact) for part in parts)  # type: ignore[arg-type]
    with Writer(file, {**own, **(header or {})}, weights) as writer:
        done = 0
        for part, coded in shared_out(lambda part: part.coded(model.spec, widths), parts, threads):
            writer.add(len(part.x), part.data(model.spec), coded, CODED)
            done += len(part.x)
            if progress is not None:
                progress(done, len(x))
        for plain, compressed in beside.divided(kept):
            writer.add(0, plain, compressed, beside.BESIDE)


@dataclass
class Opened:
    """A file with the twin that decodes it.

    Attributes:
        labelled: whether the file holds labels.
        beside: the bytes of the blocks beside the symbols that were read so far, by index.

    Raises:
        WrongModel: the file was made with another model.
        NumericsError: this machine does not compute the numbers that it was made with.
        CorruptHeader: the header does not say what it should.
    """

    reader: Reader
    model: Model
    engine: str = "auto"
    threads: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        header = self.reader.header
        missing = [name for name in ("spec", "items", "scheme", "model", "calibration", "canary") if name not in header]
        if missing:
            raise CorruptHeader(f"the header does not name {', '.join(missing)}: it was not written by this program")
        self.spec = spec_of(header)
        if ENDS in header and self.spec.end is None:
            raise CorruptHeader("the header says that items are coded with their ends, and they have none: the file was changed")
        self.shape = tuple(size or 0 for size in self.spec.shape)
        self.model = matching(self.model, self.spec)
        self.labelled = labelled_header(header, self.spec)
        self.beside: dict[int, bytes] = {}
        self._labels: dict[int, Tensor] = {}
        try:
            whole.self_test()
        except whole.NumericsError as error:
            raise NumericsError(f"this machine does not compute whole numbers exactly: {error}") from error
        try:
            self.twin = restored(self.model, header["calibration"], self.engine, self.threads)
        except (LoweringError, KeyError, TypeError, ValueError) as error:
            raise WrongModel(header["model"], f"the calibration of the file does not fit: {error}") from error
        if self.twin.identity != header["model"]:
            raise WrongModel(header["model"], self.twin.identity)
        if canary(self.twin) != header["canary"]:
            raise NumericsError(
                "this machine computes other numbers than the one that made the file, so it cannot be decoded here"
            )
        self._widths = Widths(self.model, self.twin, self.engine, self.threads)

    @property
    def labels(self) -> Tensor | None:
        """(n,) the labels of the items decoded so far, block by block; None where the file holds none."""
        found = [self._labels[index] for index in sorted(self._labels)]
        return torch.cat([torch.zeros(0, dtype=torch.long), *found]) if self.labelled else None

    def blocks(self, progress: Progress | None = None) -> Iterator[tuple[Block, Tensor]]:
        """Every block with its (items, *shape) symbols."""
        done, total = 0, int(self.reader.header["items"])
        for block, items in shared_out(self.decoded, self.reader, self.threads):
            yield block, items
            done += block.items
            if progress is not None:
                progress(done, total)

    def decoded(self, block: Block) -> Tensor:
        """The symbols of one block.

        Raises:
            DecodeMismatch: they are not what was encoded.
        """
        if not block.items:
            self.beside[block.index] = beside.restored(block)
            return torch.zeros(0, *self.shape, dtype=torch.long)
        if block.items > MOST_ITEMS:
            raise DecodeMismatch(block.index)
        try:
            part = self._part(block)
        except CodecError as error:
            raise DecodeMismatch(block.index) from error
        block.check(part.data(self.spec))
        if part.labels is not None:
            self._labels[block.index] = part.labels
        return part.x if isinstance(part, Part) else self._drawn(block, part)

    def _drawn(self, block: Block, part: LatentPart) -> Tensor:
        """Items of which z alone was kept."""
        first, z = block.index * block_items(self.spec), self.z(part.x, part.labels)
        return sample(self.model, len(part.x), labels=part.labels, z=z, seed=self.seed, first_row=first, engine=self.engine)

    def z(self, codes: Tensor, labels: Tensor | None) -> dict[str, Tensor]:
        """Latents by group of (n, units) bins, in the type of the model."""
        found = generator_of(self.twin).latents(codes, label_vector(labels, self.spec))
        return {name: placed(z, self.model.anchor) for name, z in found.items()}

    def known(self, block: Block) -> tuple[Tensor | None, bytes]:
        """The labels of a block, where there are any, and the rest of its payload."""
        if not self.labelled:
            return None, block.payload
        classes = self.spec.classes or 0
        start = label_bytes(block.items, classes)
        return unpacked(block.payload[:start], block.items, classes), block.payload[start:]

    def _part(self, block: Block) -> Part | LatentPart:
        """The items of a block, which need not be those that were encoded."""
        n, lengths = block.items, None
        labels, payload = self.known(block)
        if self.reader.header["scheme"] == LATENTS:
            if block.kind == STORED:
                return LatentPart.stored(payload, n, labels, self.twin)
            codes = two_part.popped(generator_of(self.twin), payload, n, label_vector(labels, self.spec))
            return LatentPart(codes, labels)
        if block.kind != STORED and ENDS in self.reader.header:
            return Part.popped(payload, n, labels, self.spec, self._widths)
        if self.spec.sequence:
            lengths, payload = unpacked_lengths(payload, n, self.spec.sites)
        if block.kind != STORED:
            exact, width = self._widths.of(longest(lengths)), None if lengths is None else self.spec.sites
            return Part(payload_items(exact, payload, n, labels, lengths, width), labels, lengths)
        if len(payload) != raw_size(self.spec, n, lengths):
            raise DecodeMismatch(block.index)
        return Part(unraw(payload, self.spec, lengths), labels, lengths)


def spec_of(header: Mapping[str, Any]) -> DataSpec:
    """What the items of a file are.

    Raises:
        CorruptHeader: its header does not say.
    """
    try:
        return DataSpec.from_dict(header["spec"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CorruptHeader(
            f"the header does not say what the items are ({error!r}): it was not written by this program"
        ) from error


def fitted(model: Model, x: Tensor) -> Model:
    """The model for (n, T) sequences as long as these, where it takes any length.

    Raises:
        DataError: they have no symbol at all.
    """
    if None not in model.spec.shape:
        return model
    if not x.shape[1]:
        raise DataError("sequences of no symbols have no end either: fill them up with it")
    return arrange(model, shape=tuple(x.shape[1:]))


def matching(model: Model, spec: DataSpec) -> Model:
    """The model for the items of a file, of which sequences may have another length than its own.

    Raises:
        WrongModel: it takes other items.
    """
    fault = WrongModel(f"of {spec}", f"of {model.spec}")
    if spec == model.spec and None not in spec.shape:
        return model
    alike = spec.kind == model.spec.kind and spec.parts == model.spec.parts  # else it may not even have such a shape
    if not alike or not spec.sequence or None in spec.shape or replace(model.spec, shape=spec.shape) != spec:
        raise fault
    try:
        return arrange(model, shape=(spec.sites,))
    except OrderError as error:
        raise fault from error


def lengths_of(x: Tensor, spec: DataSpec) -> Tensor | None:
    """(n,) how many symbols of each sequence count; None of other items.

    Raises:
        DataError: a sequence goes on after its end.
    """
    return counted(x, spec) if spec.sequence else None


__all__: Sequence[str] = ("Opened", "compress", "decompress", "write")
