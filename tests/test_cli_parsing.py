"""From words to commands: flags made of configurations, help, and wrong usage."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import fields, is_dataclass, replace
from typing import Any, get_args, get_type_hints

import pytest

from ancestral.cli.commands import New, Sample, Train
from ancestral.cli.homes import HOMES
from ancestral.cli.parsing import ELSEWHERE, _comment, _source, parse
from ancestral.cli.reading import Limited, Reading
from ancestral.data.loading import BINARIZE
from ancestral.models import MODELS, configure
from ancestral.sampling import METHODS
from ancestral.training.config import CHOICES, TrainingConfig


@pytest.mark.parametrize("preset", ["tiny", "paper"])
@pytest.mark.parametrize("name", MODELS)
def test_every_setting_of_a_model_and_of_training_is_a_flag(name: str, preset: str) -> None:
    words = ["train", name, "--data", "digits", "--out", "x", "--preset", preset]
    defaults = {"model": configure(name, preset), "training": TrainingConfig()}
    plain = parse(words)
    assert isinstance(plain, Train) and plain.new is not None
    assert {"model": plain.new.model, "training": plain.new.training} == defaults

    special: dict[str, Any] = {"ema": 0.5, **{key: choices[-1] for key, choices in CHOICES.items()}}
    wanted = dict[str, Any]()
    for part, default in defaults.items():
        changes = dict[str, Any]()
        for key in (field.name for field in fields(default) if part == "model" or field.name not in ELSEWHERE):
            flag, value = key.rstrip("_").replace("_", "-"), getattr(default, key)
            if isinstance(value, bool):
                changes[key] = not value
                words.append(f"--no-{flag}" if value else f"--{flag}")
            else:
                changes[key] = special.get(key) or (f"{value}x" if isinstance(value, str) else (value or 0) + 1)
                words += [f"--{flag}", str(changes[key])]
        wanted[part] = replace(default, **changes)
    parsed = parse(words)
    assert isinstance(parsed, Train) and parsed.new is not None
    assert {"model": parsed.new.model, "training": parsed.new.training} == wanted


@pytest.mark.parametrize("kind", [*HOMES, Reading, Limited])
def test_every_flag_of_a_command_has_help(kind: type[Any]) -> None:
    own = [field.name for field in fields(kind) if not is_dataclass(get_type_hints(kind)[field.name])]
    elsewhere = {"new", "grid", "reading", "known"}  # whose fields are flags themselves; the last has its help beside its type
    assert not [name for name in own if name not in elsewhere and not _comment(kind, name)]


def test_of_several_presets_the_last_counts() -> None:
    command = parse(["train", "made", "--data", "digits", "--out", "x", "--preset", "tiny", "--preset=small"])
    assert isinstance(command, Train) and command.new is not None
    assert command.new.model == configure("made", "small")


def test_the_help_of_a_flag_is_the_comment_of_its_field(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    with pytest.raises(SystemExit) as stop:
        parse(["train", "agave", "--preset=paper", "--help"])
    out = capsys.readouterr().out
    assert stop.value.code == 0
    assert "--lambda FLOAT" in out and "--lambda_" not in out
    assert "weight of the KL in the joint stage (eq. 7); evaluation always takes 1 (default: 12.0)" in out
    assert "features of the 1x1 layer before the output" in out  # the field of a base class
    assert "steps over which it rises at the start of a stage" in out


def test_help_and_lists_need_no_torch() -> None:
    probe = """
import sys
from ancestral.cli import main
for words in (["--help"], ["train", "agave", "--help"], ["models"], ["data"]):
    sys.argv = ["ancestral", *words]
    try:
        code = main()
    except SystemExit as stop:
        code = stop.code
    if code or {"torch", "lightning"} & set(sys.modules):
        sys.exit(f"{words}: exit code {code}, or torch was loaded")
"""
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "interpolate" in done.stdout and "handwritten digits" in done.stdout


def test_choices_are_those_of_the_library() -> None:
    binarize = next(each for each in get_args(get_type_hints(Reading)["binarize"]) if each is not type(None))
    assert get_args(binarize) == BINARIZE
    assert get_args(get_type_hints(Sample)["method"]) == METHODS
    presets = set(get_args(get_type_hints(New)["preset"]))
    assert all(set(entry.config.presets) == presets for entry in MODELS.values())


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("trian", "did you mean 'train'?"),
        ("train agve --data digits --out x", "did you mean 'agave'?"),
        ("train agave --data digits --out x --layrs 3", "--layers INT"),
        ("train agave --data digits --out x --layers many", "many"),
        ("train agave --data digits --out x --preset huge", "huge"),
        ("train agave --data digits --out x --optimiser sgd", "sgd"),
        ("train agave --data digits --out x --minutes 0", "give more than 0"),
        ("train agave --data digits", "--out"),
        ("sample", "RUN"),
        ("sample x --temprature 2", "--temperature"),
        ("sample x --method magic", "magic"),
        ("", "train"),
    ],
)
def test_wrong_usage_is_told_with_exit_code_2(
    words: str, hint: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as stop:
        parse(words.split())
    captured = capsys.readouterr()
    assert (stop.value.code, captured.out) == (2, "")
    assert hint in " ".join(captured.err.split())


def test_the_source_of_a_configuration_is_read_once(capsys: pytest.CaptureFixture[str]) -> None:
    """After a wrong option every flag of every model is looked at, which took half a minute."""
    _source.cache_clear()
    with pytest.raises(SystemExit):
        parse(["train", "two-stage", "--data", "digits", "--out", "x", "--beta", "2"])
    assert "--beta" in capsys.readouterr().err
    kinds = {base for kind in (TrainingConfig, *(entry.config for entry in MODELS.values())) for base in kind.__mro__}
    assert _source.cache_info().misses <= len(kinds) < _source.cache_info().hits


def test_a_reader_that_has_had_enough_is_no_fault() -> None:
    """As ``head`` closes what it reads from after a few lines."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-m", "ancestral", "models"], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")
