"""From the words of a command line to a command: tyro reads the declarations, and the configurations of the models."""

from __future__ import annotations

import inspect
import re
import sys
from dataclasses import fields
from functools import cache
from typing import Annotated, Any, Literal, Union, cast, get_args, get_type_hints

import tyro
from tyro.conf import CascadeSubcommandArgs, DisallowNone, OmitArgPrefixes, OmitSubcommandPrefixes, arg, subcommand
from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructFieldSpec, StructTypeInfo

from ancestral.cli.commands import Command
from ancestral.cli.homes import HOMES
from ancestral.cli.several import Swept
from ancestral.models import MODELS, configure, nearest
from ancestral.training.config import CHOICES, TrainingConfig

ABOUT = "Autoregressive generative models, and VAEs with autoregressive decoders."
NAMES = {kind.__name__.lower(): kind for kind in HOMES}
ELSEWHERE = ("accelerator", "threads")  # settings of training that --device and --threads stand for, as in every command


def parse(words: list[str]) -> Command:
    """The command that the words make.

    Raises:
        SystemExit: 2 where they make none, after saying why; 0 after help.
    """
    _check_name(words[:1], "command", list(NAMES))
    if words[:1] in (["train"], ["sweep"]):
        _check_name(words[1:2], "model", list(MODELS))
    if words[:1] == ["sweep"]:
        words = spelled_out(words)
    commands: Any = Union[tuple(Annotated[kind, subcommand(name)] for name, kind in NAMES.items())]  # noqa: UP007 -- made here
    command = tyro.cli(
        commands,
        prog="ancestral",
        description=ABOUT,
        args=words,
        registry=_registry(_preset(words)),
        config=(CascadeSubcommandArgs, DisallowNone, OmitArgPrefixes, OmitSubcommandPrefixes),
    )
    return cast(Command, command)


def refuse(reason: str) -> SystemExit:
    """What to raise for wrong usage, after saying why."""
    print(f"ancestral: {reason}", file=sys.stderr)
    return SystemExit(2)


def spelled_out(words: list[str]) -> list[str]:
    """Words of a sweep, in which a switch is a setting like others: ``--no-x`` is ``--x False``, and ``--x`` alone ``--x True``.

    Example:
        >>> spelled_out(["--no-auxiliary", "--conditional", "--channels-last", "True", "False"])
        ['--auxiliary', 'False', '--conditional', 'True', '--channels-last', 'True', 'False']
    """
    kinds = (TrainingConfig, *(entry.config for entry in MODELS.values()))
    names = {name.rstrip("_").replace("_", "-") for kind in kinds for name, hint in get_type_hints(kind).items() if hint is bool}
    said = []
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word.removeprefix("--no-") in names and word.startswith("--no-"):
            said += ["--" + word.removeprefix("--no-"), "False"]
        elif word.removeprefix("--") in names and word.startswith("--") and following not in ("True", "False"):
            said += [word, "True"]
        else:
            said.append(word)
    return said


def _check_name(word: list[str], what: str, names: list[str]) -> None:
    if word and not word[0].startswith("-") and word[0] not in names:
        raise refuse(f"there is no {what} {word[0]!r}; {nearest(word[0], names)}")


def _preset(words: list[str]) -> str:
    """The preset asked for: it must be known beforehand, because it decides the defaults that the help shows."""
    found = "small"
    for word, following in zip(words, [*words[1:], ""], strict=False):
        name, _, value = word.partition("=")
        if name == "--preset" and (value or following) in ("tiny", "small", "paper"):
            found = value or following  # as of every option the last counts
    return found


def _registry(preset: str) -> ConstructorRegistry:
    """Reads configurations field by field: comments become help, ``lambda_`` becomes ``--lambda``."""
    defaults: dict[type, Any] = {entry.config: configure(name, preset) for name, entry in MODELS.items()}
    defaults[TrainingConfig] = TrainingConfig()
    registry = ConstructorRegistry()

    @registry.struct_rule
    def configuration(info: StructTypeInfo) -> StructConstructorSpec | None:
        if info.type in defaults:
            kind, default = info.type, defaults[info.type]
            flags = [_flag(kind, name, hint, getattr(default, name)) for name, hint in _settings(kind).items()]
            return StructConstructorSpec(kind, tuple(flags))
        several = isinstance(info.type, type) and issubclass(info.type, Swept)
        return _several(info.type, defaults[info.type.kind]) if several else None

    return registry


def _settings(kind: type) -> dict[str, Any]:
    """The types of a configuration's settings by name, as far as they are flags of its own."""
    hints = {name: Literal[CHOICES[name]] if name in CHOICES else hint for name, hint in get_type_hints(kind).items()}
    names = (field.name for field in fields(kind))
    return {name: hints[name] for name in names if not (kind is TrainingConfig and name in ELSEWHERE)}


def _flag(kind: type, name: str, hint: Any, default: Any) -> StructFieldSpec:
    flag = arg(name=name.rstrip("_").replace("_", "-"), help=_comment(kind, name))
    return StructFieldSpec(name, Annotated[hint, flag], default)  # type: ignore[arg-type]


def _several(made: type[Swept], default: Any) -> StructConstructorSpec:
    """The flags of a configuration, each with any number of values; a setting that may be None is so where none is given."""
    flags = []
    for name, hint in _settings(made.kind).items():
        value, known = getattr(default, name), [each for each in get_args(hint) if each is not type(None)]
        one: Any = known[0] if type(None) in get_args(hint) else hint
        flags.append(_flag(made.kind, name, tuple[one, ...], () if value is None else (value,)))

    def instantiate(**values: tuple[Any, ...]) -> Swept:
        optional = {name: values[name] or (None,) for name in values if getattr(default, name) is None}
        return made({name: tuple(dict.fromkeys(each)) for name, each in {**values, **optional}.items()})

    return StructConstructorSpec(instantiate, tuple(flags))


def _comment(kind: type, name: str) -> str | None:
    """The comment beside a field of a dataclass."""
    sources = (_source(base) for base in kind.__mro__[:-1])
    found = (re.search(rf"^    {name}: .*?  # (.*)$", source, re.MULTILINE) for source in sources)
    return next((match[1] for match in found if match), None)


@cache  # a wrong option makes tyro look at every flag of every model
def _source(kind: type) -> str:
    return inspect.getsource(kind)
