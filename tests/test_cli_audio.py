"""Sound on the command line: clips drawn, continued and re-synthesised, next to what the library gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from tiny_cli import Ask, Call
from torch import Tensor

import ancestral
from ancestral.core import Autoregressive, Context
from ancestral.data.features import Mel, mel_of
from ancestral.data.notation import Sound, Text
from ancestral.data.sounds import wav
from ancestral.evaluation import evaluate
from ancestral.hub import load
from ancestral.sampling import complete, sample
from ancestral.symbols import DataError

RATE, LENGTH = 800, 64
MULAW, PCM = Sound(RATE), Sound(RATE, "pcm16")
EAGER = ("--engine", "eager")
TINY = ("--preset", "tiny", "--batch-size", "4", "--no-tensorboard", "--no-progress", "--steps", "2")


def tone(pitch: float, count: int = 200) -> Tensor:
    return torch.from_numpy((np.sin(2 * np.pi * pitch * np.arange(count) / RATE) * 12000).astype(np.int16))


def saved(folder: Path, sound: Sound, end: bool, **settings: Any) -> None:
    """A fresh WaveNet of sound in a notation, as a run keeps it."""
    levels = sound.levels + end
    shape = (None,) if end else (LENGTH * sound.parts,)
    spec = ancestral.DataSpec("audio", shape, levels, 3, end=sound.levels if end else None, parts=sound.parts)
    model = ancestral.build("wavenet", spec, preset="tiny", **settings)
    for name, weight in model.named_parameters():
        if name.endswith("grid.weight"):  # which start at zero
            torch.nn.init.normal_(weight)
    ancestral.save(model, folder, extra={"data": {"notation": sound.to_dict(), "options": {}}})


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs on 8 and 16 bits, on clips that end, and one that follows spectrograms and labels; and the clip ``tone.wav``."""
    folder = tmp_path_factory.mktemp("home")
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    saved(folder / "mulaw", MULAW, False)
    saved(folder / "pcm", PCM, False, conditional=True)
    saved(folder / "ends", MULAW, True)
    saved(folder / "mel", MULAW, False, condition="mel", local=6, hop=8, conditional=True)
    (folder / "tone.wav").write_bytes(wav(tone(50).numpy(), RATE))
    return folder


def own(run: Path) -> Autoregressive:
    model = load(run)
    assert isinstance(model, Autoregressive)
    return model


def heard(path: str | Path) -> Tensor:
    samples, rate = soundfile.read(str(path), dtype="int16")
    assert rate == RATE
    return torch.from_numpy(samples)


@pytest.mark.parametrize(("name", "sound", "labels"), [("mulaw", MULAW, None), ("pcm", PCM, [2, 2]), ("ends", MULAW, None)])
def test_clips_are_written_as_the_library_draws_them(
    name: str, sound: Sound, labels: list[int] | None, home: Path, ask: Ask, tmp_path: Path
) -> None:
    words = ("sample", home / name, "-n", 2, "--seed", 5, "--seconds", 0.05, *EAGER, *(("--labels", 2) if labels else ()))
    x = sample(own(home / name), 2, seed=5, length=round(0.05 * RATE) * sound.parts, labels=labels, engine="eager")
    told = ask(*words, "--out", tmp_path / "new" / "x.wav")
    assert [Path(path).name for path in told["out"]] == ["x-1.wav", "x-2.wav"]
    for path, row in zip(told["out"], x, strict=True):
        assert torch.equal(heard(path), sound.decode(row))
    folder = ask(*words, "--out", tmp_path / "clips")["out"]
    assert [Path(path).name for path in folder] == ["1.wav", "2.wav"] and torch.equal(heard(folder[1]), heard(told["out"][1]))
    ask(*words, "--out", tmp_path / "x.npy")
    assert np.array_equal(np.load(tmp_path / "x.npy"), x.numpy())


def test_a_clip_is_one_where_nothing_is_said(home: Path, ask: Ask) -> None:
    told = ask("sample", home / "mulaw", *EAGER)
    assert told["out"] == str(home / "mulaw" / "samples" / "sample.wav") and told["number"] == 1
    assert len(heard(told["out"])) == LENGTH


@pytest.mark.parametrize(("name", "sound"), [("mulaw", MULAW), ("pcm", PCM)])
def test_prompts_and_continuations_begin_with_the_clip(name: str, sound: Sound, home: Path, ask: Ask, tmp_path: Path) -> None:
    clip, out = tone(50), tmp_path / "x.wav"
    kept = sound.decode(sound.encode(clip))  # what the notation leaves of it
    ask("sample", home / name, "--prompt", home / "tone.wav", "--length", 220, "--out", out, *EAGER)
    assert len(heard(out)) == 220 and torch.equal(heard(out)[:200], kept)

    words = ("complete", home / name, home / "tone.wav", "--known", "first:0.2s", "-n", 2, "--seed", 7, *EAGER)
    told = ask(*words, "--out", tmp_path / "y.wav")
    x, known = sound.encode(clip).expand(2, -1), torch.arange(200 * sound.parts) < 160 * sound.parts
    model = ancestral.arrange(own(home / name), shape=(200 * sound.parts,))
    done = complete(model, x, known, seed=7, engine="eager")
    for path, row in zip(told["out"], done.x, strict=True):
        assert torch.equal(heard(path), sound.decode(row)) and torch.equal(heard(path)[:160], kept[:160])
    assert told["log_evidence"] == pytest.approx(done.log_evidence[:1].tolist()) and told["status"] == "exact"
    ask(*words, "--out", tmp_path / "y.npy")
    assert np.array_equal(np.load(tmp_path / "y.npy"), done.x.numpy())
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "a.wav").write_bytes((home / "tone.wav").read_bytes())
    again = ask(words[0], words[1], tmp_path / "clips", *words[3:], "--out", tmp_path / "again")
    assert again["log_evidence"] == told["log_evidence"] and torch.equal(heard(again["out"][1]), heard(told["out"][1]))
    assert len(heard(ask(*words, "--seconds", 0.5, "--out", tmp_path / "z.wav")["out"][0])) == 400


# ---- spectrograms


def test_a_spectrogram_says_where_and_when_there_is_sound() -> None:
    mel = Mel(Sound(8000), bands=20, hop=100)
    low, high = (np.sin(2 * np.pi * pitch * np.arange(1000) / 8000) for pitch in (300, 3000))
    x = Sound(8000).encode(np.concatenate([low, np.zeros(1000), high, np.zeros(1050)]))[None]
    features = mel(x)
    assert features.shape == (1, 20, 41, 1) and features.dtype == torch.float32
    loudest = features[0, :, :, 0].argmax(0)
    assert loudest[5] == loudest[2] < 6 and loudest[25] == loudest[22] > 15
    assert features[0, :, 14, 0].max() == features[0, :, 35, 0].max() == 0  # silence
    assert 0.8 < features.max() < 1.1
    ended = torch.cat([x[:, :1000], torch.full((1, 3050), 256)], 1)  # after the end of an example there is silence
    assert torch.equal(mel(ended)[:, :, :8], features[:, :, :8]) and mel(ended)[:, :, 13:].max() == 0
    fine = Mel(Sound(8000, "pcm16"), bands=20, hop=100)
    samples = Sound(8000).decode(x[0])
    assert torch.allclose(fine(Sound(8000, "pcm16").encode(samples)[None]), features)


def test_figures_say_that_features_were_told(home: Path) -> None:
    with pytest.raises(ancestral.DataError, match="Splits of files"):
        mel_of(own(home / "mel").config, None)
    data = ancestral.data("notes", length=64, limit=4)
    model = ancestral.build("wavenet", data.spec, preset="tiny", condition="mel")
    found = evaluate(model, data)
    assert found.data["features"] == "mel" and "given features: mel" in found.lines()[0]


def test_models_follow_the_features_of_a_clip(home: Path, ask: Ask, tmp_path: Path) -> None:
    model = own(home / "mel")
    mel = mel_of(model.config, MULAW)
    assert mel is not None and (mel.bands, mel.hop) == (6, 8)
    x = MULAW.encode(tone(50))[None]
    words = ("sample", home / "mel", "--like", home / "tone.wav", "--labels", 1, "--seed", 3, "--out", tmp_path / "x.wav")
    told = ask(*words, *EAGER)
    context = Context(torch.eye(3)[[1]], mel(x).double())
    drawn = sample(ancestral.arrange(model, shape=(200,)), 1, seed=3, context=context, engine="eager")
    assert torch.equal(heard(told["out"]), MULAW.decode(drawn[0]))
    deaf = sample(ancestral.arrange(model, shape=(200,)), 1, seed=3, labels=[1], engine="eager")
    assert not torch.equal(deaf, drawn)

    words = ("complete", home / "mel", home / "tone.wav", "--labels", 2, "-n", 1, "--length", 230, "--out", tmp_path / "y.wav")
    told = ask(*words, *EAGER)
    followed = Context(torch.eye(3)[[2]], mel(x, 230).double())
    whole = torch.cat([x, x[:, :30]], 1)
    done = complete(ancestral.arrange(model, shape=(230,)), whole, torch.arange(230) < 100, context=followed, engine="eager")
    assert torch.equal(heard(told["out"]), MULAW.decode(done.x[0]))


def test_training_and_figures_use_the_features_of_each_clip(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    for i in range(12):
        (tmp_path / "clips" / f"{i}.wav").write_bytes(wav(tone(40 + 10 * i, 90 + i).numpy(), RATE))
    words = ("--data", tmp_path / "clips", "--out", tmp_path / "run", "--condition", "mel", "--local", 5, "--hop", 8)
    ask("train", "wavenet", *words, *TINY)
    model, told = own(tmp_path / "run"), ask("evaluate", tmp_path / "run")
    data = ancestral.data(tmp_path / "clips")
    assert told["nats"] == pytest.approx(evaluate(model, data).nats)
    mel, x = mel_of(model.config, data.notation), data.test.x.long()
    assert mel is not None
    with torch.no_grad():
        nats = [-model.log_prob(row[None], Context(grid=mel(row[None]).double())).item() for row in x]
    assert told["nats"] == pytest.approx(np.mean(nats), rel=1e-5)
    weights = dict(model.named_parameters())
    assert any("grid" in name and weight.abs().sum() > 0 for name, weight in weights.items())


def test_files_of_a_model_that_follows_features_are_refused(home: Path, call: Call, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((2, 40), np.uint8))
    code, out, err = call("compress", home / "mel", tmp_path / "a.npy", "--out", tmp_path / "a.anc", "--engine", "eager")
    assert (code, out) == (1, "") and "follows features of each example (mel)" in err and not (tmp_path / "a.anc").exists()


def test_features_need_sound_whose_notation_is_known() -> None:
    spec = ancestral.DataSpec("text", (16,), 256)
    model = ancestral.build("wavenet", spec, preset="tiny", condition="mel")
    with pytest.raises(DataError, match="is for sound"):
        mel_of(model.config, Text())
    assert mel_of(ancestral.build("wavenet", spec, preset="tiny").config, Text()) is None
    with pytest.raises(ValueError, match="condition is 'ceps'"):
        ancestral.build("wavenet", spec, preset="tiny", condition="ceps")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("sample", "mulaw", "--prompt", "TONE"), "ask for more"),
        (("sample", "mulaw", "--prompt", "nothing.wav"), "no sound file nothing.wav"),
        (("sample", "mulaw", "--like", "TONE"), "--condition mel"),
        (("sample", "mulaw", "--length", "3", "--seconds", "3"), "one of them"),
        (("sample", "mulaw", "--out", "x.png"), "name a .wav"),
        (("complete", "mulaw", "TONE", "--known", "hole"), "first:1.5s"),
        (("complete", "mulaw", "TONE", "--known", "first:100%"), "of at most 200, and 200 are to be known"),
        (("complete", "pcm", "TONE", "--labels", "1", "2"), "2 labels for 1 clip:"),
        (("interpolate", "mulaw"), "has none"),
    ],
)
def test_what_has_no_meaning_is_refused(words: tuple[str, ...], reason: str, home: Path, call: Call) -> None:
    command, run, *others = words
    code, out, err = call(command, home / run, *(home / "tone.wav" if word == "TONE" else word for word in others))
    assert (code, out) == (1, "") and reason in err
