"""Whole files: symbols in, an ``.anc`` file out, and back.

A file knows what a decoder needs besides the weights: the shape of the items, the calibration of the exact twin, and the twin's
identity. Before anything is decoded, the twin is tried on a fixed input, the canary: a machine that computes other numbers says
so at once instead of decoding garbage.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from math import log2, prod
from typing import Any, BinaryIO, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from ancestral.coding import autoregressive, bits_back
from ancestral.coding.coder import Stack
from ancestral.coding.container import CODED, STORED, Block, Writer, digest
from ancestral.coding.errors import CodecError, CorruptHeader, DecodeMismatch, NumericsError, WrongModel
from ancestral.coding.labelled import label_bytes, packed, unpacked
from ancestral.coding.reader import Reader
from ancestral.core import Autoregressive, Context
from ancestral.data.splits import Examples
from ancestral.draw import uniforms
from ancestral.latent.latent import Latent
from ancestral.sampling.strategies import context_of
from ancestral.spec import DataSpec
from ancestral.symbols import check_symbols
from ancestral.walking.exact import whole
from ancestral.walking.exact.operations import LoweringError
from ancestral.walking.twin import LABELS, Twin, label_vector, restored, twin

T = TypeVar("T")
U = TypeVar("U")
Model = Autoregressive | Latent
Progress = Callable[[int, int], None]
BLOCK_BITS = 1 << 19  # uncoded size of a block at least: its 36 bytes of overhead then are nothing
LEAST_ITEMS, MOST_ITEMS = 16, 4096  # of a block: enough to walk together, few enough for memory
AUTOREGRESSIVE, BITS_BACK = "autoregressive", "bits-back"


def compress(
    model: Model,
    x: Tensor,
    *,
    labels: Sequence[int] | Tensor | None = None,
    engine: str = "auto",
    threads: int = 1,
    progress: Progress | None = None,
) -> bytes:
    """(n, *shape) symbols as the bytes of an ``.anc`` file, which ``decompress`` turns back into them on any machine.

    Args:
        model: of discrete symbols.
        labels: (n,) classes of the items, for a conditional model: it then knows better what to expect, and they are kept in
            the file, log2(classes) bits each. Without them the model is given the null label.
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
    write(file, model, x, labels=labels, engine=engine, threads=threads, progress=progress)
    return file.getvalue()


def decompress(
    model: Model,
    data: bytes | BinaryIO,
    *,
    errors: Literal["strict", "skip"] = "strict",
    engine: str = "auto",
    threads: int = 1,
    progress: Progress | None = None,
) -> Tensor:
    """The (n, *shape) symbols of an ``.anc`` file, int64.

    Args:
        model: the one that the file was made with.
        data: the bytes, or a file open for reading.
        errors: ``"strict"`` raises at the first fault; ``"skip"`` leaves out the blocks that are damaged.

    Raises:
        CodecError: the file is damaged, was made with another model, or this machine cannot reproduce it; see `errors`.
    """
    opened = Opened(Reader(data, errors), model, engine, threads)
    parts = [items for _, items in opened.blocks(progress)]
    return torch.cat(parts) if parts else torch.zeros(0, *opened.shape, dtype=torch.long)


def write(
    file: BinaryIO,
    model: Model,
    x: Tensor,
    *,
    labels: Sequence[int] | Tensor | None = None,
    header: Mapping[str, Any] | None = None,
    weights: bytes | None = None,
    examples: Tensor | None = None,
    engine: str = "auto",
    threads: int = 1,
    progress: Progress | None = None,
) -> None:
    """Write an ``.anc`` file; as ``compress``, and besides:

    Args:
        header: more to know about the items, such as their names.
        weights: the run that the model came from, to be embedded.
        examples: what calibrates the twin; x itself by default.
    """
    check_symbols(x, model.spec)
    context_of(model, len(x), labels, None)
    classes = None if labels is None else torch.as_tensor(labels).cpu().long()
    some = x if examples is None else examples
    some = some if len(some) else fixed_items(model.spec)
    known = classes if classes is None or some is x else in_turn(len(some), model.spec)
    try:
        exact = twin(model, some, engine, threads, label_vector(known, model.spec))
    except LoweringError as error:
        raise CodecError(f"this model has no exact twin, so its files could not be decoded elsewhere: {error}") from error
    own = {
        "spec": model.spec.to_dict(),
        "items": len(x),
        "scheme": AUTOREGRESSIVE if exact.latents is None else BITS_BACK,
        "model": exact.identity,
        "calibration": exact.calibration,
        "canary": canary(exact),
    }
    size = block_items(model.spec)
    parts = [Examples(x[i : i + size], None if classes is None else classes[i : i + size]) for i in range(0, len(x), size)]
    with Writer(file, {**own, **(header or {})}, weights) as writer:
        done = 0
        for part, payload in shared_out(lambda part: encoded(exact, part.x, part.labels), parts, threads):
            before = b"" if part.labels is None else packed(part.labels, model.spec.classes or 0)
            writer.add(len(part), before + raw(part.x, model.spec), before + payload, CODED)
            done += len(part)
            if progress is not None:
                progress(done, len(x))


@dataclass
class Opened:
    """A file with the twin that decodes it.

    Attributes:
        labelled: whether the file holds labels.

    Raises:
        WrongModel: the file was made with another model.
        NumericsError: this machine does not compute the numbers that it was made with.
        CorruptHeader: the header does not say what it should.
    """

    reader: Reader
    model: Model
    engine: str = "auto"
    threads: int = 1

    def __post_init__(self) -> None:
        header = self.reader.header
        missing = [name for name in ("spec", "items", "scheme", "model", "calibration", "canary") if name not in header]
        if missing:
            raise CorruptHeader(f"the header does not name {', '.join(missing)}: it was not written by this program")
        self.spec = spec_of(header)
        self.shape = tuple(size or 0 for size in self.spec.shape)
        if self.spec != self.model.spec:
            raise WrongModel(f"of {self.spec}", f"of {self.model.spec}")
        self.labelled = labelled_header(header, self.spec)
        self._labels: dict[int, Tensor] = {}
        try:
            whole.self_test()
        except whole.NumericsError as error:
            raise NumericsError(f"this machine does not compute whole numbers exactly: {error}") from error
        try:
            self.twin = restored(self.model, header["calibration"], self.engine, self.threads)
        except (LoweringError, KeyError, TypeError, ValueError) as error:
            raise WrongModel(header["model"], f"another one, which the calibration of the file does not fit ({error})") from error
        if self.twin.identity != header["model"]:
            raise WrongModel(header["model"], self.twin.identity)
        if canary(self.twin) != header["canary"]:
            raise NumericsError(
                "this machine computes other numbers than the one that made the file, so it cannot be decoded here"
            )

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
        if block.items > MOST_ITEMS:
            raise DecodeMismatch(block.index)
        classes = self.spec.classes or 0
        start = label_bytes(block.items, classes) if self.labelled else 0
        before, payload = block.payload[:start], block.payload[start:]
        if block.kind == STORED and len(payload) != block.items * item_bytes(self.spec):
            raise DecodeMismatch(block.index)
        try:
            labels = unpacked(before, block.items, classes) if self.labelled else None
            stored = block.kind == STORED
            items = unraw(payload, self.spec) if stored else payload_items(self.twin, payload, block.items, labels)
        except CodecError as error:
            raise DecodeMismatch(block.index) from error
        block.check(before + raw(items, self.spec))
        if labels is not None:
            self._labels[block.index] = labels
        return items


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


def labelled_header(header: Mapping[str, Any], spec: DataSpec) -> bool:
    """Whether a file holds the labels of its items, which is whether its twin is told them.

    Raises:
        CorruptHeader: it says so, and such items have none.
    """
    calibration = header.get("calibration")
    if not isinstance(calibration, Mapping) or LABELS not in calibration:
        return False
    if calibration[LABELS] is not True or spec.classes is None:
        raise CorruptHeader("the header tells of labels that its items cannot have: it was not written by this program")
    return True


def shared_out(work: Callable[[T], U], items: Iterable[T], threads: int) -> Iterator[tuple[T, U]]:
    """Every item with what is made of it, in order; threads work ahead by as many items as there are of them."""
    if threads == 1:
        yield from ((item, work(item)) for item in items)
        return
    with ThreadPoolExecutor(threads) as pool:
        ahead: deque[tuple[T, Future[U]]] = deque()
        for item in items:
            ahead.append((item, pool.submit(work, item)))
            if len(ahead) > threads:
                item, made = ahead.popleft()
                yield item, made.result()
        yield from ((item, made.result()) for item, made in ahead)


def payload_items(exact: Twin, payload: bytes, n: int, labels: Tensor | None = None) -> Tensor:
    """The (n, *shape) symbols of a payload, the inverse of ``encoded`` with the same labels.

    Raises:
        CodecError: the payload holds something else.
    """
    vector = label_vector(labels, exact.likelihood.spec)
    if exact.latents is not None:
        return bits_back.decode(exact, exact.latents, payload, n, vector)
    stack = Stack.from_bytes(payload)
    items = autoregressive.pop(stack, exact.likelihood, n, None if vector is None else Context(vector=vector))
    if not stack.empty:
        raise CodecError("bits are left over: the data are damaged, or they were made with another model")
    return items


def encoded(exact: Twin, x: Tensor, labels: Tensor | None = None) -> bytes:
    """The payload of a block of (n, *shape) symbols, with their (n,) labels where the twin is told them."""
    vector = label_vector(labels, exact.likelihood.spec)
    if exact.latents is not None:
        return bits_back.encode(exact, exact.latents, x, vector)
    stack = Stack()
    autoregressive.push(stack, exact.likelihood, x, None if vector is None else Context(vector=vector))
    return stack.to_bytes()


def fixed_items(spec: DataSpec, items: int = 4) -> Tensor:
    """(items, *shape) symbols drawn evenly, always the same."""
    shape, levels = tuple(size or 0 for size in spec.shape), spec.levels or 2
    return (uniforms(0, range(items), prod(shape)) * levels).long().view(items, *shape)


def in_turn(n: int, spec: DataSpec) -> Tensor:
    """(n,) labels, every class in turn."""
    return torch.arange(n) % (spec.classes or 1)


def canary(exact: Twin) -> str:
    """16 hexadecimal digits of what a twin makes of some fixed items, with every class in turn where it is told labels."""
    x = fixed_items(exact.likelihood.spec)
    labels = in_turn(len(x), exact.likelihood.spec) if exact.labelled else None
    return digest(encoded(exact, x, labels)).hex()


def block_items(spec: DataSpec) -> int:
    """How many items of this kind go into a block."""
    return int(min(MOST_ITEMS, max(LEAST_ITEMS, BLOCK_BITS // (spec.sites * log2(spec.levels or 2)))))


def item_bytes(spec: DataSpec) -> int:
    """The size of an item as ``raw`` writes it."""
    return spec.sites * np.dtype(_kind(spec)).itemsize


def raw(x: Tensor, spec: DataSpec) -> bytes:
    """(n, *shape) symbols as bytes, one or two little-endian ones a symbol."""
    return x.numpy().astype(_kind(spec)).tobytes()


def unraw(data: bytes, spec: DataSpec) -> Tensor:
    """The symbols that ``raw`` wrote.

    Raises:
        CodecError: a symbol is not in the alphabet.
    """
    symbols = torch.from_numpy(np.frombuffer(data, _kind(spec)).astype(np.int64)).view(-1, *(size or 0 for size in spec.shape))
    if symbols.numel() and int(symbols.max()) >= (spec.levels or 2):
        raise CodecError("a stored block holds symbols that are not in the alphabet: the file is damaged")
    return symbols


def _kind(spec: DataSpec) -> str:
    return "<u1" if (spec.levels or 2) <= 256 else "<u2"


__all__: Sequence[str] = ("Opened", "compress", "decompress", "write")
