"""Targets of many recordings: computed once, stored by content, one failure at a time."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pretty_midi
import pytest
import soundfile

from mess_core import stages
from mess_core.errors import TargetError
from mess_core.files import file_sha256
from mess_core.layout import Layout
from mess_core.recordings import Recording
from mess_core.targets import create_target_dataset, dataset, load_targets

pytestmark = pytest.mark.unit


def recording(folder: Path, name: str, *, frequency: float = 440.0) -> Recording:
    """Write four seconds of audio and a table row for it."""
    path = folder / f"{name}.wav"
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(4 * 24_000) / 24_000
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * frequency * time), 24_000)
    return Recording(name, "w", "", "", "", "", str(path), "", file_sha256(path), "", 4.0, "ok", "")


def with_midi(row: Recording) -> Recording:
    path = Path(row.audio).with_suffix(".mid")
    instrument = pretty_midi.Instrument(0)
    instrument.notes = [pretty_midi.Note(64, 60 + i, i / 2, i / 2 + 0.4) for i in range(12)]
    midi = pretty_midi.PrettyMIDI()
    midi.instruments.append(instrument)
    midi.write(str(path))
    return replace(row, midi=str(path), midi_sha256=file_sha256(path))


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "data", "ds")


def test_targets_of_all_recordings(tmp_path: Path, layout: Layout) -> None:
    rows = [recording(tmp_path, "a", frequency=500), with_midi(recording(tmp_path, "b"))]
    seen: list[tuple[int, int, str]] = []
    done = create_target_dataset(
        rows, layout=layout, progress=lambda i, n, name: seen.append((i, n, name))
    )
    assert seen == [(1, 2, "a"), (2, 2, "b")]
    assert list(done) == ["a", "b"]
    a, b = load_targets(layout.targets("a")), load_targets(layout.targets("b"))
    assert a["timbre"]["spectral_centroid"] == pytest.approx(500, rel=0.01)
    assert "expression" not in a
    assert b["expression"]["velocity_mean"] == 64


def test_the_second_time_computes_and_writes_nothing(
    tmp_path: Path, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [recording(tmp_path, "a")]
    done = create_target_dataset(rows, layout=layout)
    before = layout.targets("a").stat()
    monkeypatch.setattr(dataset, "load_audio", None)
    assert create_target_dataset(rows, layout=layout) == done
    assert layout.targets("a").stat() == before


def test_damaged_and_deleted_outputs_cost_a_copy(
    tmp_path: Path, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [recording(tmp_path, "a"), recording(tmp_path, "b", frequency=300)]
    create_target_dataset(rows, layout=layout)
    content = layout.targets("a").read_bytes()
    layout.targets("a").write_bytes(content[:-1] + b"?")
    layout.targets("b").unlink()
    monkeypatch.setattr(dataset, "load_audio", None)
    create_target_dataset(rows, layout=layout)
    assert layout.targets("a").read_bytes() == content
    load_targets(layout.targets("b"))


def test_what_the_targets_depend_on_changes_the_fingerprint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = with_midi(recording(tmp_path, "a"))
    key = dataset.targets_fingerprint
    original = key(row, sample_rate=24_000)
    assert key(replace(row, title="new", work_id="x"), sample_rate=24_000) == original
    others = [
        key(replace(row, audio_sha256="1"), sample_rate=24_000),
        key(replace(row, midi_sha256="1"), sample_rate=24_000),
        key(row, sample_rate=22_050),
    ]
    monkeypatch.setattr(stages, "TARGETS", stages.TARGETS + 1)
    others.append(key(row, sample_rate=24_000))
    assert len({original, *others}) == 5


def test_midi_brings_expression(tmp_path: Path, layout: Layout) -> None:
    bare = recording(tmp_path, "a")
    without = create_target_dataset([bare], layout=layout)
    assert "expression" not in load_targets(layout.targets("a"))
    found = create_target_dataset([with_midi(bare)], layout=layout)
    assert found != without
    assert "expression" in load_targets(layout.targets("a"))


def test_bad_recordings_do_not_stop_the_others(tmp_path: Path, layout: Layout) -> None:
    good, gone, bad = (recording(tmp_path, name) for name in ("good", "gone", "bad"))
    Path(gone.audio).unlink()
    bad = with_midi(bad)
    Path(bad.midi).write_bytes(b"no MIDI")
    with pytest.raises(TargetError) as caught:
        create_target_dataset([bad, gone, good], layout=layout)
    message = str(caught.value)
    assert "2 of 3 recordings" in message
    assert "gone: " in message
    assert "bad.mid" in message
    load_targets(layout.targets("good"))
    assert not layout.targets("bad").exists()
    assert not list(layout.data.rglob(".tmp-*"))
