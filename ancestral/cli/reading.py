"""How a command is told to read data. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

from tyro.conf import arg

from ancestral.cli.flags import Column, Switch


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How data are read, in this order; what is left out stays as it is."""

    size: int | None = None  # crop the centre square out of images and bring it down to this side
    resize: int | None = None  # bring the shorter side of images down to this
    grey: Switch = False  # make colour images grey
    levels: int | None = None  # reduce the symbols to this many levels
    binarize: Literal["threshold", "sample", "dynamic"] | None = None  # make two levels; sample draws once, dynamic at every use

    def options(self) -> dict[str, Any]:
        """The arguments of ``load_data`` that were given."""
        given = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "grey"}
        given["channels"] = 1 if self.grey else None
        return {name: value for name, value in given.items() if value is not None and value is not False and value != ()}


@dataclass(frozen=True, kw_only=True)
class Limited(Reading):
    """How data are read to train on them; what is left out stays as it is. A run keeps units and notation for other data."""

    limit: int | None = None  # at most so many examples of each of the three sets
    leave_out: Annotated[tuple[str, ...], arg(metavar="CLASS")] = ()  # classes, by name or number, whose examples no set keeps
    columns: Annotated[tuple[Column, ...], arg(metavar="LEVELS|-")] = ()  # of a table, each column's levels; - or 0 if it is real
    dequantize: Switch = False  # make whole numbers real ones with uniform noise, for models that are densities
    standardize: Switch = False  # give real values mean 0 and standard deviation 1 on the training set
    notation: str | None = None  # of text: bytes, characters, bpe or a tokenizer.json; of sound: mulaw, pcm16 or pcm8
    vocabulary: int | None = None  # tokens of a bpe that is trained; by default 1024
    length: int | None = None  # of blocks of text or sound, and of windows in training; by default 256, of sound 4096
    pieces: Literal["blocks", "lines", "files"] | None = None  # what one example is; lines and files have any length, and an end
    rate: int | None = None  # samples a second to which sound is brought
    label_from: Annotated[tuple[str, ...], arg(metavar="WHERE")] = ()  # classes: columns of labels.csv, parts of names, folder

    def options(self) -> dict[str, Any]:
        """The arguments of ``load_data`` that were given, as JSON has them."""
        given = super().options()
        columns = [None if levels in ("-", 0) else levels for levels in self.columns]
        return {**given, "columns": columns} if columns else given
