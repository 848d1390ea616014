"""The commands that work on several runs, and their flags. Free of torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Generic, Literal, Union

from tyro.conf import OmitArgPrefixes, Positional, arg, subcommand

from ancestral.cli.commands import Computing
from ancestral.cli.flags import Config, Folders, MaybeSource, Place, Source, Switch
from ancestral.cli.reading import Limited, Reading
from ancestral.models import MODELS
from ancestral.training.config import TrainingConfig


@dataclass(frozen=True)
class Swept:
    """Values for every setting of a configuration, the subclass's ``kind``; all combinations are meant.

    Attributes:
        values: the values of each setting, by name; usually one.

    Example:
        >>> settings = SweptTraining({"batch_size": (8, 16), "seed": (0,), "steps": (1, 2)})
        >>> settings.axes, [(each["batch_size"], each["steps"]) for each in settings.combinations()]
        (['batch_size', 'steps'], [(8, 1), (8, 2), (16, 1), (16, 2)])
    """

    kind: ClassVar[type[Any]]
    values: Mapping[str, tuple[Any, ...]]

    @property
    def axes(self) -> list[str]:
        """The settings that have several values."""
        return [name for name, values in self.values.items() if len(values) > 1]

    def combinations(self) -> list[dict[str, Any]]:
        """Settings by name, the last one changing fastest."""
        return [dict(zip(self.values, values, strict=True)) for values in product(*self.values.values())]


class SweptTraining(Swept):
    """Values for every setting of training."""

    kind = TrainingConfig


@dataclass(frozen=True, kw_only=True)
class Grid(Generic[Config]):
    """A run for every combination of the values given; switches take True and False, or one of them as elsewhere."""

    data: Source  # digits, photos, measurements, text, notes, or the path of a file or of a folder of images, sounds or texts
    preset: Literal["tiny", "small", "paper"] = "small"  # where the settings of the model start from, as shown below
    from_: Annotated[Path | None, arg(name="from", metavar="RUN")] = None  # begin each run with the weights of this one
    parts: tuple[str, ...] = ()  # take these parts of its model alone, such as likelihood (a decoder), topdown, auxiliary
    model: OmitArgPrefixes[Config]
    training: OmitArgPrefixes[SweptTraining]
    reading: OmitArgPrefixes[Limited] = field(default_factory=Limited)


if TYPE_CHECKING:
    Beginning = Grid[Any] | None
else:  # a subcommand for every model, with the flags of its configuration
    SWEPT = {name: type(f"Swept{entry.config.__name__}", (Swept,), {"kind": entry.config}) for name, entry in MODELS.items()}
    Beginning = Union[
        (*(Annotated[Grid[SWEPT[name]], subcommand(name, description=entry.summary)] for name, entry in MODELS.items()), None)
    ]


@dataclass(frozen=True, kw_only=True)
class Sweep(Computing):
    """Train and measure a model at every combination of several settings: one table, one figure.

    Runs are processes beside one another, on one thread each unless told. The same command goes on where it was stopped, and
    with more values it keeps the runs that are there.
    """

    out: Place = None  # folder of the sweep; with --figure the .svg, .png or .html to write
    figure: Folders = ()  # train nothing: draw these sweeps and runs on one set of axes
    processes: int | None = None  # runs at the same time; by default one for every CPU that their threads leave, on a GPU 1
    split: Literal["train", "validation", "test"] = "test"  # which examples to judge
    importance_samples: int = 50  # k of the importance-weighted bound; 0 leaves it out
    subset: int = 500  # examples for that bound and for the shuffle cost
    force: Switch = False  # make every run anew, in place of what the folder has of it
    dry_run: Switch = False  # train nothing: say which commands would be carried out
    grid: Beginning = None


@dataclass(frozen=True, kw_only=True)
class Compare(Computing):
    """Figures of several runs, and how their costs differ from the first one's, on the same examples with the same noise."""

    runs: Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN")]  # folders of runs
    data: MaybeSource = None  # other data than those the runs were trained on
    split: Literal["train", "validation", "test"] = "test"  # which examples to judge
    importance_samples: int = 0  # k of an importance-weighted bound that is compared too, on the subset; 0 leaves it out
    subset: int = 500  # examples for that bound
    limit: int | None = None  # at most so many examples, a seeded choice
    batch_size: int = 64  # examples, or samples of them, that are decoded together
    seed: int = 0  # of noise and choices
    reading: OmitArgPrefixes[Reading] = field(default_factory=Reading)
