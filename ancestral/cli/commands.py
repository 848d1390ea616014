"""The commands and their flags, from which the help is made. Free of torch.

Every field is a flag or a positional argument, its comment the help text. Those that work on several runs are in ``several``;
``homes`` says which function does the work of each.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, Union

from tyro.conf import OmitArgPrefixes, Positional, arg, subcommand

from ancestral.cli.flags import (
    KNOWN,
    Classes,
    Config,
    Engine,
    File,
    Files,
    MaybeNumber,
    MaybeSource,
    Number,
    Others,
    Pictures,
    Place,
    Places,
    Run,
    Runs,
    Scheme,
    Sides,
    Source,
    Sources,
    Switch,
)
from ancestral.cli.reading import Limited, Reading
from ancestral.models import MODELS
from ancestral.training.config import TrainingConfig


@dataclass(frozen=True)
class Answer:
    """What a command has to say.

    Attributes:
        values: for ``--json``.
        lines: for people.
        pieces: for people in place of lines, text that is written as it comes.
        code: the exit code; 1 where the answer is there and a part of the work failed.
    """

    values: dict[str, Any]
    lines: Sequence[str]
    pieces: Iterable[str] = ()
    code: int = 0


@dataclass(frozen=True, kw_only=True)
class Command:
    """What every command has."""

    json: Switch = False  # print one JSON object instead of lines
    debug: Switch = False  # show the traceback of a fault


@dataclass(frozen=True, kw_only=True)
class Computing(Command):
    """What every command has that runs a model."""

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"  # where to compute; auto takes cuda where there is one
    threads: int | None = None  # CPU threads; by default 1 for models below a million parameters, which one thread runs fastest


@dataclass(frozen=True, kw_only=True)
class New(Generic[Config]):
    """A run that begins."""

    data: Source  # digits, photos, measurements, text, notes, or the path of a file or of a folder of images, sounds or texts
    out: Annotated[Path, arg(metavar="RUN")]  # folder for the run
    preset: Literal["tiny", "small", "paper"] = "small"  # where the settings of the model start from, as shown below
    force: Switch = False  # replace the run that is in the folder
    from_: Annotated[Path | None, arg(name="from", metavar="RUN")] = None  # begin with the weights of a run of the same shapes
    parts: tuple[str, ...] = ()  # take these parts of that run's model alone, such as likelihood (a decoder), topdown.encoder
    dry_run: Switch = False  # train nothing: say what it would take in parameters, memory and time
    model: OmitArgPrefixes[Config]
    training: OmitArgPrefixes[TrainingConfig] = field(default_factory=TrainingConfig)
    reading: OmitArgPrefixes[Limited] = field(default_factory=Limited)


if TYPE_CHECKING:
    Beginning = New[Any] | None
else:  # a subcommand for every model, with the flags of its configuration
    Beginning = Union[
        (*(Annotated[New[entry.config], subcommand(name, description=entry.summary)] for name, entry in MODELS.items()), None)
    ]


@dataclass(frozen=True, kw_only=True)
class Train(Computing):
    """Train a model, or go on with a run that was stopped."""

    resume: Annotated[Path | None, arg(metavar="RUN")] = None  # go on with this run, whose model, data and settings are known
    new: Beginning = None


@dataclass(frozen=True, kw_only=True)
class Evaluate(Computing):
    """Measure a model: bits/dim with its status and, of latent-variable models, what z carries."""

    run: Run  # folder of the run
    data: MaybeSource = None  # other data than those the run was trained on
    split: Literal["train", "validation", "test"] = "test"  # which examples to judge
    importance_samples: int = 50  # k of the importance-weighted bound; 0 leaves it out
    subset: int = 500  # examples for that bound and for the shuffle cost
    limit: int | None = None  # at most so many examples, a seeded choice
    batch_size: int = 64  # examples, or samples of them, that are decoded together
    seed: int = 0  # of noise and choices
    numerics: Literal["float", "exact"] = "float"  # exact also says what the whole numbers of files cost, on the subset
    orders: int = 1  # average p(x) over so many orders: random ones where the model takes any, else its own, else turned images
    reading: OmitArgPrefixes[Reading] = field(default_factory=Reading)


@dataclass(frozen=True, kw_only=True)
class Latents(Computing):
    """Say what can be read off z: linear probes with all labels and with few, beside those of the data, and where classes lie."""

    run: Run  # folder of the run
    labelled: MaybeSource = None  # data with labels, where those the run was trained on have none
    few: tuple[int, ...] = (1, 10, 100)  # labels of each class for the few-label probes
    limit: int = 3000  # at most so many training and test examples, and a fifth as many validation examples
    batch_size: int = 64  # examples that are encoded together
    seed: int = 0  # of noise and choices
    reading: OmitArgPrefixes[Reading] = field(default_factory=Reading)


@dataclass(frozen=True, kw_only=True)
class Quality(Computing):
    """Judge samples: of images and sound by a classifier's features, and how near training examples are; of text by its words."""

    run: Run  # folder of the run
    labelled: MaybeSource = None  # data with labels for the classifier, where those the run was trained on have none; not of text
    classifier: Place = None  # its weights; trained and written if they are not there; by default in the run
    samples: Number = 512  # how many, at most as many as there are test examples
    batch_size: int = 64  # samples that are drawn together
    seed: int = 0  # of the samples
    reading: OmitArgPrefixes[Reading] = field(default_factory=Reading)


@dataclass(frozen=True, kw_only=True)
class Drawing(Computing):
    """What every command has that draws examples."""

    run: Run  # folder of the run
    out: Place = None  # a .png, .wav or .txt, numbered if there are several, or .npy for symbols; by default text is shown
    seed: int = 0  # of everything drawn
    temperature: float = 1.0  # of each symbol; 0 takes the most probable, and of real values that or 1 is all there is
    scale: int | None = None  # every pixel becomes a square of this side


@dataclass(frozen=True, kw_only=True)
class Lasting(Drawing):
    """What every command has that draws text and sound too."""

    length: int | None = None  # characters, tokens or samples of each text or clip, what it begins with among them
    seconds: float | None = None  # the same of sound, in seconds


@dataclass(frozen=True, kw_only=True)
class Sample(Lasting):
    """Draw new examples."""

    number: MaybeNumber = None  # how many; by default 16, of text and sound 1, with --beam one of each class
    prompt: str | None = None  # what a text begins with, or the sound file that a clip begins with
    prompt_file: Place = None  # the file of a text to begin with
    like: Place = None  # a sound file whose features to follow, for models that were trained with --condition
    labels: Classes = ()  # classes to draw, over and over; by default every class of a conditional model in turn
    guidance: float = 0.0  # how much more than the model's own to lead towards the labels; needs training with --label-dropout
    z_temperature: float = 1.0  # spread of z; 0 takes the median of its prior
    top_k: int | None = None  # keep the k most probable symbols
    top_p: float | None = None  # keep the fewest symbols that hold probability p
    min_p: float | None = None  # keep the symbols that are at least so many times as probable as the most probable one
    method: Literal["cached", "recompute", "parallel", "wavefront"] = "cached"  # all give the same samples, at other speeds
    beam: int | None = None  # search for the most probable examples in place of drawing; so many beginnings are kept at a site
    length_penalty: float = 0.0  # of that search, where examples end: more than 0 favours longer ones
    draft: Place = None  # folder of the run of a smaller model: it proposes symbols that this one judges, several in a pass
    gamma: int = 4  # how many proposals are read in a pass
    log_prob: Switch = False  # tell the log-probability of each example (given z), under the model and as it was drawn
    with_image: Switch = False  # above each sample, the image that z alone describes: of agave the mean of p(y | z)
    size: Sides = None  # height and width of the images, where the network takes others than it was trained on
    columns: int | None = None  # images in a row; 8 where nothing is said
    batch_size: int | None = None  # rows that walk together: 64 where nothing is said, 8 with --beam and 16 with --draft
    engine: Engine = "auto"  # what carries cached walks out: native (CPU, float32), compiled (by torch.compile), or eager PyTorch


@dataclass(frozen=True, kw_only=True)
class Reconstruct(Drawing):
    """Encode examples and decode them again: what z keeps."""

    pictures: Pictures = ()  # image files, folders of them, or .npy; by default test examples
    number: Number = 8  # how many test examples
    from_latents: Switch = False  # keep of z what a file keeps, and say what that takes and how near the pictures come
    beside: Runs = ()  # with that, another run whose figures to put beside, once for each
    labels: Classes = ()  # the class of each file, for a conditional model; by default as files were labelled in training
    size: int | None = None  # crop the centre square out of each picture and bring it down to this side


@dataclass(frozen=True, kw_only=True)
class Complete(Lasting):
    """Draw the unknown part of pictures given the known part, or how texts and clips go on."""

    pictures: Pictures = ()  # files of images, text or sound, folders of them, or .npy; by default four test examples
    known: Annotated[str | None, arg(metavar="WHAT", help=KNOWN)] = None
    number: Number = 4  # completions of each
    labels: Classes = ()  # the class of each file, for a conditional model; by default as files were labelled in training
    particles: int = 64  # to choose from, where the model cannot complete exactly
    batch_size: int = 256  # rows, or particles of rows, that walk together
    engine: Engine = "auto"  # what carries the walk out: native (CPU, float32), compiled (by torch.compile), or eager PyTorch
    top_k: int | None = None  # keep the k most probable symbols
    top_p: float | None = None  # keep the fewest symbols that hold probability p
    min_p: float | None = None  # keep the symbols that are at least so many times as probable as the most probable one
    size: int | None = None  # crop the centre square out of each picture and bring it down to this side


@dataclass(frozen=True, kw_only=True)
class Interpolate(Drawing):
    """Decode on the way between the latents of pairs of examples."""

    pictures: Pictures = ()  # image files, folders of them, or .npy, pair after pair; by default test examples
    number: Number = 4  # pairs of test examples
    labels: Classes = ()  # the class of each file, for a conditional model; by default as files were labelled in training
    steps: int = 8  # images on the way, both ends included
    size: int | None = None  # crop the centre square out of each picture and bring it down to this side


@dataclass(frozen=True, kw_only=True)
class Score(Computing):
    """What single examples cost, as tables and as a page; and whether that tells which of them are outside the data."""

    run: Run  # folder of the run
    data: Sources = ()  # images, folders of them, arrays, all of each; or one data set; by default what it was trained on
    split: Literal["train", "validation", "test", "all"] | None = None  # of data with labels; by default test, of loose files all
    out: Places = ()  # a .csv, .json or .html to write, once for each; by default scores.csv in the run
    against: Others = ()  # outside data to tell apart, once for each: noise, flat, or what DATA can be
    outside: tuple[str, ...] = ()  # classes of the data, by name or number, that count as outside, such as those held out
    per_symbol: Switch = False  # put the bits of every symbol into the .json
    shown: int = 12  # examples of each set on the page, a third each the least surprising, in the middle, the most
    limit: int | None = None  # at most so many examples of each set, a seeded choice
    labels: Classes = ()  # the class of each file or row; by default as files were labelled in training
    importance_samples: int = 1  # k of the bound, for a latent-variable model
    batch_size: int = 64  # examples, or samples of them, that are decoded together
    seed: int = 0  # of noise and choices
    reading: OmitArgPrefixes[Reading] = field(default_factory=Reading)


@dataclass(frozen=True, kw_only=True)
class Import(Command):
    """Make a run of a GPT-2 that Hugging Face's save_pretrained wrote, with its tokenizer."""

    folder: Annotated[Positional[Path], arg(metavar="FOLDER")]  # with config.json, model.safetensors and tokenizer.json
    out: Annotated[Path, arg(metavar="RUN")]  # folder of the run
    force: Switch = False  # replace the run that is there


@dataclass(frozen=True, kw_only=True)
class Inspect(Command):
    """Say what a run holds: model, size, receptive field, data, settings, figures."""

    run: Run  # folder of the run
    program: Switch = False  # list what a walk does at every step, with what it multiplies, reads and remembers


@dataclass(frozen=True, kw_only=True)
class Report(Computing):
    """Write one page with figures, curves, samples and the verdict."""

    run: Run  # folder of the run
    data: MaybeSource = None  # other data than those the run was trained on
    out: Place = None  # the page to write; by default report.html in the run
    samples: int = 256  # drawn to judge them, where the command quality has not done so; 0 leaves that out
    seed: int = 0  # of everything drawn
    reading: OmitArgPrefixes[Reading] = field(default_factory=Reading)


@dataclass(frozen=True, kw_only=True)
class Coding(Computing):
    """What every command has that codes with a model."""

    engine: Engine = "auto"  # what computes; files do not depend on it


@dataclass(frozen=True, kw_only=True)
class Compress(Coding):
    """Write pictures, text or sound into one file, from which they come back pixel for pixel, or byte for byte."""

    run: Run  # folder of the run
    files: Files = ()  # images, texts, .wav, folders of what the run is of, .npy or .npz; by default the test examples
    out: Place = None  # the file to write; by default an .anc in the run
    limit: int | None = None  # at most so many files, or test examples
    block: int | None = None  # longest run of symbols of text or sound without a cut; by default the cheapest of a few
    labels: Classes = ()  # the class of each, for a conditional model; by default as test examples or files were labelled
    scheme: Scheme = "auto"  # of models with latents: two-part puts z first; latents keeps z alone, not of text or sound
    embed_model: Switch = False  # put the model into the file, which then needs nothing else
    force: Switch = False  # replace the file that is there


@dataclass(frozen=True, kw_only=True)
class Decompress(Coding):
    """Get back what was compressed: pictures as PNG files, text and sound as the files they were, arrays as .npy."""

    file: File  # the .anc
    out: Place = None  # folder for the files; by default that of the .anc, and its name without the ending
    model: Annotated[Path | None, arg(metavar="RUN")] = None  # the run it was made with, where it is not found
    preview: Place = None  # of pictures in two parts: first write what z alone gives into this folder
    seed: int = 0  # of what is drawn, where the file holds z alone
    errors: Literal["strict", "skip"] = "strict"  # strict stops at the first fault; skip saves what lies in whole blocks
    force: Switch = False  # replace files that are there


@dataclass(frozen=True, kw_only=True)
class Verify(Coding):
    """Decode a whole file and say whether it is what was compressed."""

    file: File  # the .anc
    files: Files = ()  # what was compressed, to compare with, named as it was then
    labels: Classes = ()  # the class of each, to compare with those in the file, by name where --model is given
    model: Annotated[Path | None, arg(metavar="RUN")] = None  # the run it was made with, where it is not found


@dataclass(frozen=True, kw_only=True)
class Info(Command):
    """Say what a compressed file holds, and whether it is whole; needs no model."""

    file: File  # the .anc


@dataclass(frozen=True, kw_only=True)
class Bench(Computing):
    """Time a model on this machine: forward pass, every way of sampling, coding."""

    run: Run  # folder of the run
    batch_sizes: tuple[int, ...] = (1, 16)  # how many examples at once
    repeats: int = 3  # the median of so many counts


@dataclass(frozen=True, kw_only=True)
class Warmup(Command):
    """Compile the native engine now instead of at its first use; later processes find it compiled."""


@dataclass(frozen=True, kw_only=True)
class Models(Command):
    """List the models."""


@dataclass(frozen=True, kw_only=True)
class Data(Command):
    """List the data that need no file, or describe a source."""

    source: Annotated[Positional[str | None], arg(metavar="DATA")] = None  # a name, or the path of a file or folder
    reading: OmitArgPrefixes[Limited] = field(default_factory=Limited)
