"""The kinds of flags that commands have in common. Free of torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeVar

from tyro.conf import FlagCreatePairsOff, Positional, UseAppendAction, arg

Switch = FlagCreatePairsOff[bool]
Run = Annotated[Positional[Path], arg(metavar="RUN")]
Pictures = Annotated[Positional[tuple[Path, ...]], arg(metavar="PICTURES")]
Files = Annotated[Positional[tuple[Path, ...]], arg(metavar="FILES")]
File = Annotated[Positional[Path], arg(metavar="FILE")]
Number = Annotated[int, arg(aliases=("-n",))]
MaybeNumber = Annotated[int | None, arg(aliases=("-n",))]
Place = Annotated[Path | None, arg(metavar="PATH")]
Source = Annotated[str, arg(metavar="DATA")]
MaybeSource = Annotated[str | None, arg(metavar="DATA")]
Sources = Annotated[Positional[tuple[str, ...]], arg(metavar="DATA")]
Folders = Annotated[tuple[Path, ...], arg(metavar="FOLDER")]
Places = Annotated[tuple[Path, ...], UseAppendAction, arg(metavar="PATH")]
Runs = Annotated[tuple[Path, ...], UseAppendAction, arg(metavar="RUN")]
Classes = Annotated[tuple[str, ...], arg(metavar="CLASS")]
Others = Annotated[tuple[str, ...], UseAppendAction, arg(metavar="DATA")]
Sides = Annotated[tuple[int, int] | None, arg(metavar="HEIGHT WIDTH")]
Column = int | Literal["-"]
Engine = Literal["auto", "native", "compiled", "eager"]
Scheme = Literal["auto", "bits-back", "two-part", "latents"]
Config = TypeVar("Config")
KNOWN = (
    "of images top (the default), left, hole (all but the middle), checkerboard, or a file, white or true where pixels are known;"
    " of text and sound first:50% (the default), first:200 (characters, tokens or samples) or first:1.5s; of vectors a file"
)
