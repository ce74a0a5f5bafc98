"""What is stored of a work: targets, beats that are carried over, and what is left out."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from mess_core.alignment import store
from mess_core.alignment.maps import Alignment, WorkAlignment, read_work
from mess_core.alignment.store import StoredWork, carry_beats, store_work
from mess_core.errors import AlignmentError
from mess_core.files import file_sha256, write_json
from mess_core.layout import Layout
from mess_core.recordings import Recording
from mess_core.targets.npz import load_target

pytestmark = pytest.mark.unit

RATE = 24_000
LENGTH_S = 20.0
WINDOWS: Any = {"window_s": 5.0, "overlap": 0.5}
#: How much faster each recording plays than the reference, the first.
TEMPO = {"a": 1.0, "b": 1.25, "c": 0.8}
#: Beats of the reference: a period that swings, so that there is rubato.
BEATS = np.cumsum(0.5 + 0.1 * np.sin(np.arange(30) / 4))


def mapped(name: str) -> Alignment:
    """Return the map of a recording that plays all at its own tempo."""
    work = np.linspace(0.5, LENGTH_S * 0.75, 100)
    times = work / TEMPO[name]
    return Alignment(times, work, np.zeros(100), times[[0, -1]][None], np.ones(1))


def row_of(name: str) -> Recording:
    """Return a row of the recording table, without files."""
    facts: dict[str, Any] = dict.fromkeys((field.name for field in fields(Recording)), "")
    known = {"recording_id": name, "work_id": "w", "duration_s": LENGTH_S, "status": "ok"}
    return Recording(**(facts | known))


@pytest.fixture
def recordings(tmp_path: Path) -> list[Recording]:
    """Three recordings, each softer than the one before; the first has beats; none has MIDI."""
    found = []
    for number, name in enumerate(TEMPO):
        audio, beats = tmp_path / f"{name}.wav", tmp_path / "a.beats.tsv"
        noise = np.random.default_rng(number).normal(size=int(RATE * LENGTH_S / TEMPO[name]))
        soundfile.write(audio, 10 ** (-number * 6 / 20) * 0.1 * noise, RATE)
        beats.write_text("".join(f"{beat}\n" for beat in BEATS))
        row = replace(row_of(name), audio=str(audio), audio_sha256=file_sha256(audio))
        if name == "a":
            row = replace(row, beats=str(beats), beats_sha256=file_sha256(beats))
        found.append(row)
    return found


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The recordings of every work that was aligned anew; the alignment is what is planted."""
    made: list[list[str]] = []

    def align(work_id: str, recordings: list[Recording], **_: Any) -> WorkAlignment:
        names = [r.recording_id for r in recordings]
        made.append(names)
        alignments = {name: mapped(name) for name in names}
        return WorkAlignment(work_id, names[0], alignments, dict.fromkeys(names, "audio"))

    monkeypatch.setattr(store, "align_work", align)
    return made


def stored(layout: Layout, recordings: list[Recording]) -> StoredWork:
    return store_work(layout, "w", recordings, **WINDOWS)


@pytest.mark.usefixtures("calls")
def test_targets_are_those_that_were_planted(tmp_path: Path, recordings: list[Recording]) -> None:
    layout = Layout(tmp_path / "data", "x")
    made = stored(layout, recordings)
    assert made.files.keys() == TEMPO.keys()

    def values(target: str) -> list[float]:
        found = [load_target(layout.alignment(n), target, level="recording") for n in TEMPO]
        return [float(value) for value in found if value is not None]

    consensus = np.mean(np.log(list(TEMPO.values())))
    expected = [np.log(tempo) - consensus for tempo in TEMPO.values()]
    np.testing.assert_allclose(values("relative_tempo"), expected, atol=0.002)
    np.testing.assert_allclose(values("relative_loudness"), [6, 0, -6], atol=0.3)
    assert max(values("timing_deviation")) < 0.002
    windows = load_target(layout.alignment("b"), "relative_tempo")
    assert windows is not None
    assert windows.shape == (6,), "16 s have six windows, the last one ends with them"
    np.testing.assert_allclose(windows[:3], expected[1], atol=0.002)
    assert Alignment.read(layout.alignment("c")).to_recording(np.array([8.0])) == pytest.approx(
        10.0
    )


@pytest.mark.usefixtures("calls")
def test_beats_are_carried_over_to_what_has_none(
    tmp_path: Path, recordings: list[Recording]
) -> None:
    layout = Layout(tmp_path / "data", "x")
    made = stored(layout, recordings)
    assert made.entry["beats_from"] == "a"
    beats = {"a": "annotated", "b": "aligned from a", "c": "aligned from a"}
    assert made.entry["beats"] == beats
    carried = Alignment.read(layout.alignment("b")).beats
    inside = BEATS[(BEATS >= 0.5) & (BEATS <= 15)]
    np.testing.assert_allclose(carried[np.isfinite(carried)], inside / 1.25)
    for name in "bc":
        path = layout.alignment(name)
        tempo = load_target(path, "performed_tempo_level", level="recording")
        variability = load_target(path, "tempo_variability", level="recording")
        assert tempo is not None
        assert variability is not None
        mean = 60 * TEMPO[name] * (len(inside) - 1) / np.ptp(inside)
        np.testing.assert_allclose(tempo, mean, rtol=0.02)
        spread = np.diff(np.percentile(np.log(np.diff(inside)), (15.87, 84.13)))[0] / 2
        np.testing.assert_allclose(variability, spread, rtol=1e-6)
        deviations = load_target(path, "onset_timing_std", level="recording")
        assert deviations is not None
        assert np.isnan(deviations), "which needs notes"
    with pytest.raises(Exception, match="rubato is missing"):
        load_target(layout.alignment("a"), "rubato", level="recording")


def test_beats_are_counted_on_over_a_gap(tmp_path: Path) -> None:
    """Half of the work is cut out: the beats around the cut follow each other at their tempo."""
    beats = np.linspace(0, 19.5, 40)
    times = np.concatenate([np.linspace(0, 5, 20), np.linspace(5.2, 10, 20)])
    places = np.concatenate([np.linspace(0, 5, 20), np.linspace(15.2, 20, 20)])
    cut = Alignment(times, places, np.zeros(40), np.array([[0, 5], [5.2, 10]]), np.ones(2))
    whole = Alignment(places, places, np.zeros(40), np.array([[0.0, 20.0]]), np.ones(1))
    path = tmp_path / "beats.tsv"
    path.write_text("".join(f"{beat}\n" for beat in beats))
    alignments = {"whole": whole, "cut": cut}
    work = WorkAlignment("w", "whole", alignments, dict.fromkeys(alignments, "audio"))
    rows = [replace(row_of("whole"), beats=str(path)), row_of("cut")]
    carried = carry_beats(work, rows).alignments["cut"]
    assert np.isnan(carried.beats).sum() == 20
    performance = store._performance(row_of("cut"), carried)
    np.testing.assert_allclose(performance.beat_periods, 0.5)
    np.testing.assert_allclose(np.exp(performance.shaped_tempo), 2.0)


def test_without_beats_there_are_none_to_carry(recordings: list[Recording]) -> None:
    alignments = {name: mapped(name) for name in TEMPO}
    work = WorkAlignment("w", "a", alignments, dict.fromkeys(TEMPO, "audio"))
    plain = [replace(r, beats="", beats_sha256="") for r in recordings]
    assert carry_beats(work, plain).beats_from == ""
    assert store._beats_of(plain[1], alignments["b"], "") == "none"


def test_what_is_unchanged_comes_from_the_cache(
    tmp_path: Path, recordings: list[Recording], calls: list[list[str]]
) -> None:
    layout = Layout(tmp_path / "data", "x")
    first = stored(layout, recordings)
    content = layout.alignment("b").read_bytes()
    layout.alignment("b").unlink()
    assert stored(layout, recordings) == first
    assert layout.alignment("b").read_bytes() == content
    assert len(calls) == 1
    # Without one of them, the consensus is another.
    fewer = stored(layout, recordings[:2])
    assert len(calls) == 2
    assert fewer.files["b"] != first.files["b"]
    first.files["b"].unlink()
    assert stored(layout, recordings) == first, "a damaged cache is filled again"
    assert len(calls) == 3


def test_what_cannot_be_used_is_left_out_and_tried_again(
    tmp_path: Path, recordings: list[Recording], calls: list[list[str]]
) -> None:
    layout = Layout(tmp_path / "data", "x")
    audio = Path(recordings[2].audio)
    content = audio.read_bytes()
    audio.write_bytes(b"nothing")
    made = stored(layout, recordings)
    assert (set(made.files), list(made.failed)) == ({"a", "b"}, ["c"])
    assert "not the file that the recording table describes" in made.failed["c"]
    assert calls == [["a", "b"]]
    stored(layout, recordings)
    assert calls == [["a", "b"]], "the others are in the cache"
    audio.write_bytes(content)
    assert set(stored(layout, recordings).files) == set("abc")


def test_a_work_that_cannot_be_aligned_is_no_error(
    tmp_path: Path, recordings: list[Recording], monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout(tmp_path / "data", "x")

    def align(*_: Any, **__: Any) -> WorkAlignment:
        raise ValueError("odd")

    monkeypatch.setattr(store, "align_work", align)
    broken = stored(layout, recordings)
    assert broken.failed == dict.fromkeys("abc", "ValueError: odd; this is a bug, report it")
    left_out = dict.fromkeys("abc", "nothing in common")
    nothing = WorkAlignment("w", "", {}, {}, left_out)
    monkeypatch.setattr(store, "align_work", lambda *_, **__: nothing)
    made = stored(layout, recordings)
    assert made.entry["left_out"] == left_out
    assert not made.files
    assert not made.failed
    write_json(layout.alignments_manifest, {"works": {"w": made.entry}})
    with pytest.raises(AlignmentError, match=r"w are aligned: nothing in common$"):
        read_work(layout, "w")
