"""From the words of a command line to a command: tyro reads the declarations, and the configurations of the models."""

from __future__ import annotations

import inspect
import re
import sys
from dataclasses import fields
from typing import Annotated, Any, Literal, Union, cast, get_type_hints

import tyro
from tyro.conf import CascadeSubcommandArgs, DisallowNone, OmitArgPrefixes, OmitSubcommandPrefixes, arg, subcommand
from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructFieldSpec, StructTypeInfo

from ancestral.cli.commands import HOMES, Command
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
    if words[:1] == ["train"]:
        _check_name(words[1:2], "model", list(MODELS))
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


def _check_name(word: list[str], what: str, names: list[str]) -> None:
    if word and not word[0].startswith("-") and word[0] not in names:
        raise refuse(f"there is no {what} {word[0]!r}; {nearest(word[0], names)}")


def _preset(words: list[str]) -> str:
    """The preset asked for: it must be known beforehand, because it decides the defaults that the help shows."""
    for word, following in zip(words, [*words[1:], ""], strict=False):
        name, _, value = word.partition("=")
        if name == "--preset" and (value or following) in ("tiny", "small", "paper"):
            return value or following
    return "small"


def _registry(preset: str) -> ConstructorRegistry:
    """Reads configurations field by field: comments become help, ``lambda_`` becomes ``--lambda``."""
    defaults: dict[type, Any] = {entry.config: configure(name, preset) for name, entry in MODELS.items()}
    defaults[TrainingConfig] = TrainingConfig()
    registry = ConstructorRegistry()

    @registry.struct_rule
    def configuration(info: StructTypeInfo) -> StructConstructorSpec | None:
        if info.type not in defaults:
            return None
        kind, default = info.type, defaults[info.type]
        hints = {name: Literal[CHOICES[name]] if name in CHOICES else hint for name, hint in get_type_hints(kind).items()}
        flags = []
        for name in (field.name for field in fields(kind) if not (kind is TrainingConfig and field.name in ELSEWHERE)):
            flag = arg(name=name.rstrip("_").replace("_", "-"), help=_comment(kind, name))
            flags.append(StructFieldSpec(name, Annotated[hints[name], flag], getattr(default, name)))  # type: ignore[arg-type]
        return StructConstructorSpec(kind, tuple(flags))

    return registry


def _comment(kind: type, name: str) -> str | None:
    """The comment beside a field of a dataclass."""
    sources = (inspect.getsource(base) for base in kind.__mro__[:-1])
    found = (re.search(rf"^    {name}: .*?  # (.*)$", source, re.MULTILINE) for source in sources)
    return next((match[1] for match in found if match), None)
