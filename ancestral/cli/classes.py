"""Classes that a command names, by number or by name; and those that files tell, as the files of the data of a run did."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from ancestral.coding.clips import KEPT, Clip
from ancestral.coding.manifest import Item
from ancestral.data.recordings import labels_of
from ancestral.hub import describe

NULL = "the null label"


def class_names(folder: Path) -> tuple[str, ...]:
    """The names of the classes of a run's data, or none where these had numbers alone."""
    return tuple((describe(folder).get("data") or {}).get("class_names", ()))


def numbered(folder: Path, words: Sequence[str]) -> list[int]:
    """The numbers of classes of a run, each given by its name, or by its number where no name is a number.

    Raises:
        ValueError: there is no such class.
    """
    names, count = class_names(folder), describe(folder)["spec"].get("classes")
    numbers = not any(name.isdecimal() for name in names)
    most = len(names) or count
    unknown = [
        word for word in words if word not in names and not (numbers and word.isdecimal() and (most is None or int(word) < most))
    ]
    if unknown:
        have = ", ".join(f"{i} {name}" if numbers else name for i, name in enumerate(names)) or (
            "numbers" if most is None else f"0 .. {most - 1}"
        )
        raise ValueError(f"--labels {' '.join(unknown)}: the classes of {folder} are {have}")
    return [names.index(word) if word in names else int(word) for word in words]


def told(folder: Path, places: Sequence[tuple[Path, Sequence[Path]]]) -> list[int] | None:
    """The classes of files, read off them as those of the run's data were; None where one is of no class that the run knows.

    Args:
        places: folders, each with the files in it, or files, each with itself.
    """
    names, how = class_names(folder), (describe(folder).get("data") or {}).get("options", {}).get("label_from", ())
    pairs = [(place if place.is_dir() else place.parent, file) for place, files in places for file in files]
    groups = [(place, [file for _, file in some]) for place, some in groupby(pairs, key=itemgetter(0))]
    found = [name for place, files in groups for name in labels_of(place, files, tuple(how))]
    return [names.index(name) for name in found] if found and set(found) <= set(names) else None


def told_by(folder: Path, paths: Sequence[Path], items: Sequence[Item | Clip]) -> list[int] | None:
    """The same of the items of a compressed file, by their names; those that are kept without the model count as class 0."""
    first = paths[0]
    alone = first if len(paths) == 1 and first.is_dir() else None
    places = list[tuple[Path, list[Path]]]()
    for item in items:
        of = alone or next((path for path in paths if path.name == item.name.split("/")[0]), None)
        if of is None:  # an array, which has a name of its own
            return None
        file = of / item.name if alone else of.parent / item.name
        places += [(of, [file])] if item.kind != KEPT else []
    known = iter(told(folder, places) or ())
    classes = [next(known, None) if item.kind != KEPT else 0 for item in items]
    return None if None in classes else [each for each in classes if each is not None]


def untold(folder: Path) -> str:
    """What to say where a model knows classes and nobody tells it any."""
    trained = (describe(folder).get("training") or {}).get("label_dropout")
    beside = "" if trained else ", which it was not trained for (--label-dropout)"
    return f"note: the model knows classes and none are given (--labels), so it takes none of them ({NULL}){beside}"
