"""Targets of many recordings: computed once, stored by content, one failure at a time."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from threadpoolctl import threadpool_limits

from mess_core import stages
from mess_core.errors import TargetError
from mess_core.extraction.audio import load_audio
from mess_core.extraction.storage import segment_times
from mess_core.files import file_sha256, write_bytes
from mess_core.layout import Layout
from mess_core.recordings import Recording
from mess_core.targets import (
    create,
    create_target_dataset,
    load_targets,
    measure_windows,
)
from mess_core.targets.registry import TARGETS
from mess_core.targets.sound import analyse
from tests.targets.test_expression import midi_of

pytestmark = pytest.mark.unit


#: Windows begin at 0 and 2.5 s, and one ends with the recording.
DURATION = 8.2
STARTS = [0.0, 2.5, 3.2]


def recording(folder: Path, name: str, *, frequency: float = 440.0) -> Recording:
    """Write 8.2 s of audio and a table row for it."""
    path = folder / f"{name}.wav"
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(round(DURATION * 24_000)) / 24_000
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * frequency * time), 24_000)
    return Recording(
        name, "w", "", "", "", "", str(path), "", "", file_sha256(path), "", "", DURATION, "ok", ""
    )


def with_midi(row: Recording) -> Recording:
    notes = [(i / 2, i / 2 + 0.4, 60 + i, 60 + i) for i in range(12)]
    path = midi_of(Path(row.audio).with_suffix(".mid"), notes)
    return replace(row, midi=str(path), midi_sha256=file_sha256(path))


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "data", "ds")


def test_targets_of_all_recordings(tmp_path: Path, layout: Layout) -> None:
    rows = [recording(tmp_path, "a", frequency=500), recording(tmp_path, "b")]
    seen: list[tuple[int, int, str]] = []
    done = create_target_dataset(
        rows, layout=layout, progress=lambda i, n, name: seen.append((i, n, name))
    )
    assert seen == [(1, 2, "a"), (2, 2, "b")]
    assert list(done) == ["a", "b"]
    for name, frequency in (("a", 500), ("b", 440)):
        timbre = load_targets(layout.targets(name))["timbre"]
        assert timbre["spectral_centroid"] == pytest.approx(frequency, rel=0.01)


def test_the_second_time_writes_nothing_and_computes_nothing_even_for_damaged_outputs(
    tmp_path: Path, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [recording(tmp_path, "a"), recording(tmp_path, "b", frequency=300)]
    done = create_target_dataset(rows, layout=layout)
    before = layout.targets("a").stat()
    monkeypatch.setattr(create, "load_audio", None)
    assert create_target_dataset(rows, layout=layout) == done
    after = layout.targets("a").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    content = layout.targets("a").read_bytes()
    write_bytes(layout.targets("a"), content[:-1] + b"?")
    layout.targets("b").unlink()
    create_target_dataset(rows, layout=layout)
    assert layout.targets("a").read_bytes() == content
    load_targets(layout.targets("b"))


def test_what_the_targets_depend_on_changes_the_fingerprint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = with_midi(recording(tmp_path, "a"))
    settings: dict[str, Any] = {"sample_rate": 24_000, "window_s": 5.0, "overlap": 0.5}

    def key(row: Recording, **changed: Any) -> str:
        return create.targets_fingerprint(row, **(settings | changed))

    original = key(row)
    assert key(replace(row, title="new", work_id="x")) == original
    others = [
        key(replace(row, audio_sha256="1")),
        key(replace(row, midi_sha256="1")),
        key(replace(row, beats_sha256="1")),
        key(row, sample_rate=22_050),
        key(row, window_s=4.0),
        key(row, overlap=0.25),
    ]
    monkeypatch.setitem(TARGETS, "tempo", replace(TARGETS["tempo"], version=99))
    others.append(key(row))
    monkeypatch.delitem(TARGETS, "tempo")
    others.append(key(row))
    monkeypatch.setattr(stages, "TARGETS", stages.TARGETS + 1)
    others.append(key(row))
    assert len({original, *others}) == 10


def test_windows_are_those_of_the_features(tmp_path: Path, layout: Layout) -> None:
    row = recording(tmp_path, "a")
    create_target_dataset([row], layout=layout)
    path = layout.targets("a")
    found = load_targets(path, level="window")
    starts = segment_times(3, duration_s=DURATION, window_s=5.0, overlap=0.5)
    np.testing.assert_allclose(starts, STARTS)
    samples = load_audio(Path(row.audio))
    # Jobs give BLAS one thread: on some processors it sums in another order with two.
    with threadpool_limits(limits=1, user_api="blas"):
        sound = analyse(samples, 24_000)
        expected = measure_windows(sound, STARTS, window_s=5.0)
    assert set(found) == set(expected)
    for category, fields in expected.items():
        for name, array in fields.items():
            np.testing.assert_allclose(found[category][name], array, rtol=1e-9, err_msg=name)


def test_midi_brings_expression(tmp_path: Path, layout: Layout) -> None:
    bare = recording(tmp_path, "a")
    without = create_target_dataset([bare], layout=layout)
    assert "expression" not in load_targets(layout.targets("a"))
    assert "expression" not in load_targets(layout.targets("a"), level="window")
    found = create_target_dataset([with_midi(bare)], layout=layout)
    assert found != without
    assert load_targets(layout.targets("a"))["expression"]["velocity_mean"] == 65.5
    windows = load_targets(layout.targets("a"), level="window")["expression"]
    assert windows["velocity_mean"].tolist() == [64.5, 68.0, 69.0]


def test_beats_bring_exact_tempo(tmp_path: Path, layout: Layout) -> None:
    """The notes may be crotchets or quavers; the table says that they are quavers."""
    row = with_midi(recording(tmp_path, "a"))
    path = tmp_path / "a.beats.tsv"
    path.write_text("".join(f"{time}\t{time}\tb\n" for time in np.arange(0, 6, 1.0)))
    row = replace(row, beats=str(path), beats_sha256=file_sha256(path))
    create_target_dataset([row], layout=layout)
    expression = load_targets(layout.targets("a"))["expression"]
    assert expression["performed_tempo_level"] == pytest.approx(60, rel=0.01)


def test_whatever_a_recording_raises_does_not_stop_the_others(
    tmp_path: Path, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd, good, gone, bad = (recording(tmp_path, name) for name in ("odd", "good", "gone", "bad"))

    def load(path: Path, **given: Any) -> Any:
        if path.stem == "odd":
            raise ZeroDivisionError("what nobody thought of")
        return load_audio(path, **given)

    monkeypatch.setattr(create, "load_audio", load)
    Path(gone.audio).unlink()
    bad = with_midi(bad)
    Path(bad.midi).write_bytes(b"no MIDI")
    with pytest.raises(TargetError) as caught:
        create_target_dataset([odd, bad, gone, good], layout=layout)
    message = str(caught.value)
    assert "3 of 4 recordings" in message
    assert "odd: ZeroDivisionError: what nobody thought of" in message
    assert "gone: " in message
    assert "bad.mid" in message
    load_targets(layout.targets("good"))
    assert not layout.targets("bad").exists()
    assert not list(layout.data.rglob(".tmp-*"))
