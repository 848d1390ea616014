"""Text and sound as data: every example is found again in its source, windows are anywhere, large files stay on disk."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from ancestral.data import load_data, sounds
from ancestral.data.homemade import CLASSES, RATE, notes, prose
from ancestral.data.notation import Sound, Text, mu_law
from ancestral.data.sequences import read_sequences
from ancestral.data.splits import Splits
from ancestral.data.tapes import Pieces, Windows
from ancestral.spec import DataSpec
from ancestral.symbols import DataError, lengths, trimmed

PARTS = ("train", "validation", "test")
TEXT = "".join(f"line {i} says {i * i % 97}\n" for i in range(200)).encode()


def written(data: Splits, part: str) -> list[Any]:
    """The examples of a set, decoded."""
    assert data.notation is not None
    return [data.notation.decode(row) for row in getattr(data, part).x]


@pytest.fixture
def book(tmp_path: Path) -> Path:
    path = tmp_path / "book.txt"
    path.write_bytes(TEXT)
    return path


def test_blocks_are_the_text_in_order(book: Path) -> None:
    data = load_data(book, length=32)
    n = len(TEXT)
    cuts = [0, n * 90 // 100, n * 95 // 100, n]
    for part, start, stop in zip(PARTS, cuts, cuts[1:], strict=False):
        some = TEXT[start:stop]
        assert written(data, part) == [some[i : i + 32] for i in range(0, len(some) - 31, 32)]
    assert data.spec == DataSpec("text", (32,), levels=256) and data.train.x.dtype == torch.uint8
    assert "cut in order: 90 % train" in data.note and data.name == "book" and data.describe()["notation"] == {"code": "bytes"}
    lost = sum((stop - start) % 32 for start, stop in pairwise(cuts))
    assert f"{lost} at the ends left out" in data.note


def test_windows_begin_at_every_unit_alike_and_stay_in_the_training_set(book: Path) -> None:
    data = load_data(book, length=30)
    windows, train = data.redrawn, TEXT[: len(TEXT) * 90 // 100]
    assert isinstance(windows, Windows) and len(windows) == len(data.train)
    rows = torch.arange(len(data.train))
    count = np.zeros(len(train) - 29)
    for seed in range(300):
        for row, window in enumerate(windows.draw(rows, seed)):
            place = train.find(bytes(window.tolist()))
            count[place] += 1
            assert place >= 0 and abs(place - row * len(count) / len(rows)) <= len(count) / len(rows) + 1
    assert (count > 0).mean() > 0.99 and count.sum() == 300 * len(rows)
    expected = count.sum() / len(count)
    assert ((count - expected) ** 2).sum() / expected < len(count) + 5 * (2 * len(count)) ** 0.5
    first = windows.draw(rows, 4)
    assert torch.equal(first[3:5], windows.draw(rows[3:5], 4)) and not torch.equal(first, windows.draw(rows, 5))


@pytest.mark.parametrize("notation", ["bytes", "characters", "bpe"])
def test_lines_are_examples_of_any_length(notation: str, book: Path) -> None:
    book.write_bytes(TEXT + b"\n\nlast \xc3\xa9")  # empty lines are none, and the last one needs no newline
    data = load_data(book, notation=notation, pieces="lines", vocabulary=300 if notation == "bpe" else None)
    found = [line if isinstance(line, bytes) else line.encode() for part in PARTS for line in written(data, part)]
    assert sorted(found) == sorted(line for line in book.read_bytes().split(b"\n") if line)
    assert data.spec.shape == (None,) and data.spec.end == data.spec.levels - 1 == data.notation.levels  # type: ignore[union-attr, operator]
    some = data.train.select([5, 1, 8])
    assert (some.x == data.spec.end).any(1).all() and torch.equal(trimmed(some.x, data.spec), some.x)
    assert torch.equal(lengths(some.x, data.spec), data.train.lengths(data.spec)[[5, 1, 8]])
    assert data.redrawn is None and [len(getattr(data, part)) for part in PARTS] == [161, 20, 20]


def test_sets_by_name_and_strings(tmp_path: Path) -> None:
    for name, text in {"train": "a" * 90 + "b" * 10, "valid": "c" * 30}.items():
        (tmp_path / f"{name}.txt").write_text(text)
    data = load_data(tmp_path, length=10)
    assert written(data, "validation") == written(data, "test") == [b"c" * 10] * 3 and len(data.train) == 10
    assert "test is validation again" in data.note
    (tmp_path / "test.txt").write_text("d" * 25)
    assert written(load_data(tmp_path, length=10), "test") == [b"d" * 10] * 2
    strings = load_data([f"word {i}" for i in range(20)], notation="characters")
    assert sorted(word for part in PARTS for word in written(strings, part)) == sorted(f"word {i}" for i in range(20))


def test_characters_are_not_cut_and_other_files_need_their_alphabet(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("äöü€" * 200, encoding="utf-8")
    data = load_data(tmp_path / "a.md", notation="characters", length=8)
    assert data.notation == Text("characters", "äöü€") and len("".join(written(data, "train"))) == 720
    (tmp_path / "b.txt").write_text("äöx" * 100, encoding="utf-8")
    with pytest.raises(DataError, match="'x'"):
        load_data(tmp_path / "b.txt", notation=data.notation)
    bpe = load_data(tmp_path / "a.md", notation="bpe", vocabulary=260, length=4)
    assert bpe.hash == load_data(tmp_path / "a.md", notation="bpe", vocabulary=260, length=4).hash != data.hash
    assert isinstance(bpe.notation, Text)
    (tmp_path / "tokenizer.json").write_text(bpe.notation.tokenizer)
    assert load_data(tmp_path / "a.md", notation=str(tmp_path / "tokenizer.json"), length=4).hash == bpe.hash


def clip(seconds: float, hertz: float, rate: int = 8000) -> np.ndarray:
    return (9000 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.int16)


@pytest.fixture
def voices(tmp_path: Path) -> Path:
    """Forty clips called DIGIT_SPEAKER_TAKE, of 80 to 470 samples."""
    for i in range(40):
        name = f"{i % 2}_{('ann', 'bob')[i // 2 % 2]}_{i}.{('wav', 'flac')[i % 2]}"
        soundfile.write(tmp_path / name, clip(0.01 + i / 800, 100 + i), 8000)
    return tmp_path


def test_a_list_of_samples_is_what_a_folder_of_them_is(voices: Path) -> None:
    samples = [soundfile.read(path, dtype="int16")[0] for path in sorted(voices.iterdir())]
    folder = load_data(voices, labels=False, notation="pcm16")
    for waves in (samples, [torch.from_numpy(wave) for wave in samples]):
        data = load_data(waves, rate=8000, notation="pcm16")
        assert data.spec == folder.spec and data.notation == folder.notation
        assert [row.tolist() for row in data.train.x] == [row.tolist() for row in folder.train.x]


def test_clips_are_whole_and_windows_hold_their_ends(voices: Path) -> None:
    data = load_data(voices, label_from=["0", "1"], length=200)
    assert data.spec == DataSpec("audio", (None,), levels=257, classes=4, end=256)
    assert data.class_names == ("0_ann", "0_bob", "1_ann", "1_bob") and data.notation == Sound(8000)
    originals = {soundfile.read(path, dtype="int16")[0].tobytes(): path for path in voices.iterdir()}
    codes = {mu_law(np.frombuffer(samples, np.int16) / 2**15).tobytes(): path for samples, path in originals.items()}
    for part in PARTS:
        examples = getattr(data, part)
        for row, label in zip(examples.x, examples.labels, strict=True):
            path = codes.pop(row[row != 256].numpy().astype(np.uint8).tobytes())
            assert path.name.startswith(data.class_names[label])
    assert not codes and isinstance(data.redrawn, Windows)
    ends, starts = 0, set()
    longest = int(data.train.lengths(data.spec).argmax())
    whole = data.train.select([longest]).x[0].numpy()
    for seed in range(400):
        window = data.redrawn.draw(torch.tensor([longest]), seed)[0].numpy()
        place = next(i for i in range(len(whole) - 199) if (whole[i : i + 200] == window).all())
        ends += window[-1] == 256
        starts.add(place)
    assert ends and 0 in starts and max(starts) == len(whole) - 200
    short = data.redrawn.draw(data.train.lengths(data.spec).argmin()[None], 1)
    assert short.shape[1] < 200 and int(short[0, -1]) == 256 and (short[0, :-1] < 256).all()


def test_sixteen_bits_mixing_and_rates(tmp_path: Path) -> None:
    for i in range(4):
        soundfile.write(tmp_path / f"{i}.wav", np.stack([clip(0.1, 300), 3 * (clip(0.1, 300) // 3)], 1), 8000)
    data = load_data(tmp_path, notation="pcm16")
    mixed = np.rint((clip(0.1, 300).astype(float) + 3 * (clip(0.1, 300) // 3)) / 2)
    assert data.spec.parts == 2 and data.train.x.shape[1] == 1602 and "mixed into one" in data.note
    assert (data.notation.decode(data.train.x[0]).numpy() == mixed).all()  # type: ignore[union-attr, arg-type]
    blocks = load_data(tmp_path, notation="pcm16", pieces="blocks", length=100)
    assert blocks.spec == DataSpec("audio", (200,), levels=256, parts=2)
    doubled = load_data(tmp_path, notation="pcm16", rate=16000).train.x[0]
    heard = Sound(16000, "pcm16").decode(doubled).numpy().astype(float)
    fine = clip(0.1, 300, 16000)
    assert len(heard) == 1600 and np.abs(heard - fine)[100:-100].max() < 20
    soundfile.write(tmp_path / "4.wav", fine / 2**15, 16000, subtype="FLOAT")
    with pytest.raises(DataError, match=r"differ in rate.*rate=8000"):
        load_data(tmp_path)
    assert np.abs(sounds.read_samples(tmp_path / "4.wav").astype(int) - fine).max() <= 1
    assert load_data(tmp_path, rate=8000).notation == Sound(8000)


def test_a_rate_beside_a_notation_is_that_of_the_samples() -> None:
    samples = clip(0.1, 300, 16000)
    data = load_data(samples, notation=Sound(8000), rate=16000, length=20)
    assert "resampled from 16,000 Hz" in data.note and len(data.train) * 20 <= len(samples) // 2


def test_samples_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    samples = clip(0.1, 300) / 2**15
    samples[7] = np.nan
    soundfile.write(tmp_path / "nan.wav", samples, 8000, subtype="FLOAT")
    with pytest.raises(DataError, match=r"nan\.wav holds NaN"):
        load_data(tmp_path / "nan.wav", length=50)


def test_what_is_read_from_disk_is_what_is_held(book: Path, voices: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(voices / "long.npy", clip(2, 100))
    cases = [
        (book, {"length": 50}),
        (voices, {"length": 90}),
        (voices, {"notation": "pcm16"}),
        (voices / "long.npy", {"rate": 8000, "length": 100}),
    ]
    before = [load_data(source, **options) for source, options in cases]  # type: ignore[arg-type]
    monkeypatch.setattr(sounds, "SMALL", 0)
    monkeypatch.setattr("ancestral.data.recordings.SMALL", 0)
    for (source, options), held in zip(cases, before, strict=True):
        data = load_data(source, **options)  # type: ignore[arg-type]
        assert isinstance(data.train, Pieces) and isinstance(held.train, Pieces)
        assert type(data.train.tapes[0]) is not type(held.train.tapes[0]) and data.hash == held.hash
        assert torch.equal(data.train.x, held.train.x)
        if data.redrawn is not None and held.redrawn is not None:
            rows = torch.arange(len(data.train))
            assert torch.equal(data.redrawn.draw(rows, 9), held.redrawn.draw(rows, 9))


@pytest.mark.slow
def test_data_larger_than_memory(tmp_path: Path) -> None:
    """Two gigabytes of text and one of sound, read by a process that may use 600 MB more than it begins with."""
    with (tmp_path / "big.txt").open("wb") as file:
        file.truncate(2 * 10**9)
    np.lib.format.open_memmap(tmp_path / "big.npy", "w+", np.int16, (5 * 10**8,))
    probe = """
import resource, sys, torch
from ancestral.data import load_data
used = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = used()
for path, options in ((sys.argv[1], {}), (sys.argv[2], {"rate": 16000, "length": 2**14})):
    data = load_data(path, **options)
    rows = torch.arange(0, len(data.train), len(data.train) // 500)
    assert data.redrawn.draw(rows, 1).shape[1] == data.test.select([len(data.test) - 1]).x.shape[1]
print((used() - before) // 1024)
"""
    command = [sys.executable, "-c", probe, str(tmp_path / "big.txt"), str(tmp_path / "big.npy")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 600


def test_the_embedded_text_and_notes() -> None:
    text = load_data("text")
    assert prose().startswith(b"THE TOWN") and b"".join(written(text, "train")) == prose()[: 256 * len(text.train)]
    data = load_data("notes")
    assert data.spec == DataSpec("audio", (1024,), levels=256, classes=12) and data.class_names[9] == "09 A"
    assert [len(getattr(data, part)) for part in PARTS] == [768, 96, 96] and data.redrawn is None
    samples, pitches, sets = notes()
    assert sorted(i for some in sets.values() for i in some) == list(range(960)) and len(CLASSES) == 12
    right = 0
    for wave, pitch in zip(samples, pitches, strict=True):
        spectrum = np.abs(np.fft.rfft(wave * np.hanning(1024), 2**16))
        hertz = spectrum.argmax() * RATE / 2**16
        right += round(12 * np.log2(hertz / 440) + 9) % 12 == pitch
    assert right > 950


@pytest.mark.parametrize(
    ("source", "options", "match"),
    [
        ("book", {"binarize": "threshold"}, "takes no binarize"),
        ("book", {"length": 10**6}, "no block of 1,000,000"),
        ("book", {"length": 0}, "at least 1"),
        ("book", {"notation": "mulaw"}, "bytes, characters, bpe"),
        ("book", {"notation": Sound(8000)}, "the notation of a text"),
        ("book", {"pieces": "words"}, "blocks, lines, files"),
        ("book", {"vocabulary": 300}, "notation='bpe'"),
        ("book", {"notation": "missing/tokenizer.json"}, "tokenizer.json"),
        ("clip", {"notation": "characters"}, "mulaw, pcm16, pcm8"),
        ("clip", {"notation": Text("characters", "ab")}, r"one of text \(2 characters\)"),
        ("clip", {"pieces": "lines"}, "lines are of text"),
        ("digits", {"notation": "bytes"}, "neither text nor sound"),
        ("broken", {}, "broken.wav cannot be read as sound"),
    ],
)
def test_faults_are_named(source: str, options: dict[str, Any], match: str, book: Path) -> None:
    soundfile.write(book.parent / "clip.wav", clip(3, 200), 8000)
    (book.parent / "broken.wav").write_bytes(b"RIFF and nothing else")
    places = {"book": book, "clip": book.parent / "clip.wav", "broken": book.parent / "broken.wav"}
    with pytest.raises(DataError, match=match):
        load_data(places.get(source, source), **options)


def test_the_hash_tells_windows_and_notations_apart(book: Path) -> None:
    lines = load_data(book, pieces="lines", notation="characters")
    assert isinstance(lines.notation, Text)
    cases = [
        lines,
        replace(lines, notation=Text("characters", lines.notation.alphabet[::-1])),
        *(load_data(book, pieces="lines", notation="characters", length=length) for length in (9, 10)),
    ]
    assert len({each.hash for each in cases}) == 4 and {each.content for each in cases} == {lines.content}
    for each in cases:  # earlier runs recorded the content alone
        assert each.recorded_as(each.hash) and each.recorded_as(lines.content)
        assert [each.recorded_as(other.hash) for other in cases].count(True) == 1
    digits = load_data("digits")
    assert digits.hash == digits.content


def test_classes_are_numbered_as_those_of_a_run(voices: Path) -> None:
    data = load_data(voices, label_from=["1"])
    assert data.class_names == ("ann", "bob") and data.with_classes(()) is data is data.with_classes(("ann", "bob"))
    moved = data.with_classes(("zoe", "bob", "max"))
    assert moved.class_names == ("zoe", "bob", "max", "ann") and moved.spec.classes == 4
    for part in PARTS:
        before, after = getattr(data, part), getattr(moved, part)
        assert [moved.class_names[i] for i in after.labels] == [data.class_names[i] for i in before.labels]
        assert torch.equal(before.x, after.x)


@pytest.mark.parametrize("source", ["clip", "book", "notes", "strings", "samples"])
def test_classes_of_files_are_those_of_folders(source: str, book: Path) -> None:
    soundfile.write(book.parent / "clip.wav", clip(3, 200), 8000)
    sources = {"clip": book.parent / "clip.wav", "book": book, "strings": ["a", "b"], "samples": np.zeros(9, np.int16)}
    rate = {"rate": 8000} if source == "samples" else {}
    with pytest.raises(DataError, match="label_from says what classes the files of a folder have"):
        load_data(sources.get(source, source), label_from=["0"], **rate)


def test_files_for_a_model_at_hand(book: Path, voices: Path) -> None:
    notation = Text.characters(TEXT.decode())
    read = read_sequences([book], DataSpec("text", (64,), levels=notation.levels), notation)
    x = read.examples.x
    assert "".join(str(notation.decode(row)) for row in x) == TEXT.decode()[: 64 * len(x)] and read.names[1] == f"{book} 1"
    assert read.left == len(TEXT.decode()) - x.numel() > 0
    lined = DataSpec("text", (None,), levels=257, end=256)
    read = read_sequences([book], lined, Text(), lines=True)
    assert [Text().decode(row) for row in read.examples.x] == TEXT.splitlines() and len(read.names) == 200 and not read.left
    assert read.examples.select([3, 7]).x.shape[1] == max(len(TEXT.splitlines()[i]) for i in (3, 7)) + 1
    assert read.examples.x.dtype == torch.int16 and x.dtype == torch.uint8  # the smallest types
    files = sorted(voices.glob("*.wav"))
    sound = Sound(4000)
    read = read_sequences([voices / files[0].name, files[1]], DataSpec("audio", (None,), levels=257, end=256), sound)
    frames = soundfile.info(files[0]).frames // 2
    assert read.names == [str(path) for path in files[:2]] and len(sound.decode(read.examples.x[0])) == frames
    pairs = read_sequences([files[0]], DataSpec("audio", (20,), levels=256, parts=2), Sound(4000, "pcm16"))
    assert pairs.examples.x.shape == (frames // 10, 20) and pairs.left == 2 * (frames % 10)
    with pytest.raises(DataError, match="is no audio"):
        read_sequences([book], DataSpec("audio", (None,), levels=257, end=256), sound)


@pytest.mark.parametrize("notation", ["bytes", "characters"])
@pytest.mark.parametrize("chunk", [1, 4, 2**22])
def test_lines_end_in_either_way(notation: str, chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ancestral.data.sequences.CHUNK", chunk)
    lines = [f"line {i}" for i in range(40)]
    for ending, kept in (("\n", "a\rb"), ("\r\n", "a\rb\r")):  # of two carriage returns one is the text's own
        (tmp_path / "a.txt").write_bytes("".join(line + ending for line in ["", *lines, "", "a\rb\r"]).encode())
        data = load_data(tmp_path / "a.txt", pieces="lines", notation=notation)
        found = [each if isinstance(each, str) else each.decode() for part in PARTS for each in written(data, part)]
        assert sorted(found) == sorted([*lines, kept])
