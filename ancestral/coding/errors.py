"""What can be wrong with a compressed file or with decoding it: one ``CodecError`` with a named subclass for each."""

from __future__ import annotations


class CodecError(Exception):
    """Something is wrong with compressed data or with coding them: the message names the cause and the remedy."""


class NotAnAncFile(CodecError):
    """The data do not begin as an ``.anc`` file does."""


class UnsupportedVersion(CodecError):
    """The file uses a version or a feature of the format that this version of ``ancestral`` does not know."""


class CorruptHeader(CodecError):
    """The header of the file, or the model embedded after it, is damaged."""


class CorruptBlock(CodecError):
    """One block of the file is damaged; the others can be read with ``errors="skip"``.

    Attributes:
        index: which block.
        cause: what is wrong with it.
    """

    def __init__(self, index: int, cause: str) -> None:
        super().__init__(index, cause)
        self.index, self.cause = index, cause

    def __str__(self) -> str:
        return f'block {self.index} is damaged: {self.cause}; copy the file again, or read the other blocks with errors="skip"'


class CorruptTrailer(CodecError):
    """The end of the file is damaged or contradicts its blocks."""


class TruncatedFile(CodecError):
    """The file stops before its end.

    Attributes:
        complete_blocks: how many blocks were read before; ``errors="skip"`` gives them.
    """

    def __init__(self, complete_blocks: int) -> None:
        super().__init__(complete_blocks)
        self.complete_blocks = complete_blocks

    @property
    def cause(self) -> str:
        """What is wrong."""
        return f"the file is cut short; complete blocks before that: {self.complete_blocks}"

    def __str__(self) -> str:
        hint = ', or read those blocks with errors="skip"' if self.complete_blocks else ""
        return f"{self.cause}; copy it again{hint}"


class WrongModel(CodecError):
    """The file was made with another model.

    Attributes:
        expected: identifier of the model that made the file.
        found: identifier of the model at hand.
    """

    def __init__(self, expected: str, found: str) -> None:
        super().__init__(expected, found)
        self.expected, self.found = expected, found

    def __str__(self) -> str:
        other = f"which is not this one ({self.found})"
        return f"the file was made with model {self.expected}, {other}: decode it with the model that made it"


class NumericsError(CodecError):
    """This machine does not compute the numbers that a file was made with."""


class DecodeMismatch(CodecError):
    """A block was decoded to other data than were encoded, although its bytes are intact.

    Attributes:
        index: which block.
    """

    def __init__(self, index: int) -> None:
        super().__init__(index)
        self.index = index

    def __str__(self) -> str:
        return (
            f"block {self.index} is intact but does not decode to the data it was made from: "
            "this model, version or machine computes other tables; decode where the file was made"
        )
