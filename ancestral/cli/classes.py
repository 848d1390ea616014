"""Classes that a command names, by number or by name; and those that files tell, as the files of the data of a run did."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ancestral.data.recordings import labels_of
from ancestral.hub import describe

NULL = "the null label"


def class_names(folder: Path) -> tuple[str, ...]:
    """The names of the classes of a run's data, or none where these had numbers alone."""
    return tuple((describe(folder).get("data") or {}).get("class_names", ()))


def numbered(folder: Path, words: Sequence[str]) -> list[int]:
    """The numbers of classes of a run, each given by its name or its number.

    Raises:
        ValueError: there is no such class.
    """
    names = class_names(folder)
    unknown = [word for word in words if word not in names and not word.isdigit()]
    if unknown:
        have = ", ".join(f"{i} {name}" for i, name in enumerate(names)) or "numbers, and have no names"
        raise ValueError(f"--labels {' '.join(unknown)}: the classes of {folder} are {have}")
    return [names.index(word) if word in names else int(word) for word in words]


def told(folder: Path, places: Sequence[tuple[Path, Sequence[Path]]]) -> list[int] | None:
    """The classes of files, read off them as those of the run's data were; None where one is of no class that the run knows.

    Args:
        places: folders, each with the files in it, or files, each with itself.
    """
    names, how = class_names(folder), (describe(folder).get("data") or {}).get("options", {}).get("label_from", ())
    found = [name for place, files in places for name in labels_of(place, files, tuple(how))]
    return [names.index(name) for name in found] if found and set(found) <= set(names) else None


def untold(folder: Path) -> str:
    """What to say where a model knows classes and nobody tells it any."""
    trained = (describe(folder).get("training") or {}).get("label_dropout")
    beside = "" if trained else ", which it was not trained for (--label-dropout)"
    return f"note: the model knows classes and none are given (--labels), so it takes none of them ({NULL}){beside}"
