"""Recordings of a work come, change and go: its work is aligned anew, and nothing else.

With MIDI, on three works whose performances have known tempos; a work has a recording without MIDI,
which is aligned by its audio.
"""

from collections import Counter
from pathlib import Path
from typing import Any

import mido
import numpy as np
import pytest
import soundfile

from mess_core.files import read_json
from mess_core.layout import Layout
from mess_core.targets.npz import TargetReader
from tests.targets.signals import RATE, Event, hertz, midi_bytes
from tests.workflow.conftest import Workspace
from tests.workflow.small import ALIGNMENTS, DOWNSTREAM, TARGETS, rules_that_ran, scan, stored

pytestmark = [pytest.mark.integration, pytest.mark.slow]

CONFIG: dict[str, Any] = {
    **{"dataset": "mine", "encoder": "descriptors", "shards": 4},
    "targets": ["onset_density", "rubato", "relative_tempo"],
}
FEATURES = {"descriptors", "gather_features"}
EVERYTHING = FEATURES | TARGETS | ALIGNMENTS | DOWNSTREAM
#: Of the first run, of every work: how fast each of its performances is.
TEMPOS = (1.0, 1.2, 0.9)
#: 24 s: audio of half of that is not aligned.
NOTES = 96


def perform(path: Path, work: int, tempo: float, *, midi: bool = True, beats: bool = False) -> None:
    """Write a performance of a random melody, with a phrase that slows down, and its notes.

    A chord is two notes, a beat two chords.
    """
    pitches = np.random.default_rng(work).integers(45, 80, (NOTES, 2))
    intervals = 0.25 * (1 + 0.15 * np.sin(np.arange(NOTES) / 5)) / tempo
    onsets = 0.2 + np.concatenate([[0.0], np.cumsum(intervals[:-1])])
    samples = np.zeros(round((onsets[-1] + 1.0) * RATE))
    time = np.arange(round(0.6 * RATE)) / RATE
    for onset, chord in zip(onsets, pitches, strict=True):
        start = round(onset * RATE)
        sound = sum(
            np.sin(2 * np.pi * k * hertz(p) * time) / k**2 for p in chord for k in (1, 2, 3)
        )
        part = (0.05 * sound * np.exp(-5 * time))[: len(samples) - start]
        samples[start : start + len(part)] += part
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, RATE)
    if midi:
        path.with_suffix(".mid").write_bytes(notes(onsets, pitches))
    if beats:
        lines = "".join(f"{onset:.6f}\tb\n" for onset in onsets[::2])
        path.with_suffix(".beats.tsv").write_text(lines)


def notes(onsets: Any, pitches: Any) -> bytes:
    """Return MIDI with a tick of 1/960 s, the default tempo."""
    events: list[Event] = []
    for onset, chord in zip(onsets, pitches, strict=True):
        for pitch in sorted({int(pitch) for pitch in chord}):
            start = round(onset * 960)
            on = mido.Message("note_on", note=pitch, velocity=64)
            events += [(start, on), (start + 150, mido.Message("note_off", note=pitch))]
    return midi_bytes(sorted(events, key=lambda event: event[0]))


def run(workspace: Workspace) -> tuple[Counter[str], list[str], str]:
    """Scan and run; return the jobs by rule, the works that were aligned, and what was printed.

    Nothing is left to do afterwards.
    """
    scan(workspace)
    before = stored(workspace, ["alignments"])
    outcome = workspace.snakemake()
    assert outcome.status == 0, outcome.output[-3000:]
    assert "Nothing to be done" in workspace.snakemake("--dry-run").output
    new = {name.split()[1].partition(".")[0] for name in stored(workspace, ["alignments"]) - before}
    layout = Layout(workspace.data, "mine")
    files: dict[str, str] = {}
    for receipt in layout.receipt("alignments", "0").parent.glob("*.json"):
        files |= read_json(receipt)["recordings"]
    made = sorted(name for name, stem in files.items() if stem.partition(".")[0] in new)
    jobs = rules_that_ran(outcome.output)
    del jobs["all"]
    # Which performances are played otherwise depends on the hashes of all.
    jobs.pop("counterfactuals", None)
    return jobs, made, outcome.output


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = Workspace(tmp_path_factory.mktemp("works"), CONFIG)
    for work in range(3):
        for take, tempo in enumerate(TEMPOS):
            path = workspace.folder / f"corpus/work{work}/take{take}.wav"
            perform(path, work, tempo, midi=(work, take) != (1, 2), beats=(work, take) == (0, 0))
    run(workspace)
    return workspace


def works_of(workspace: Workspace) -> dict[str, Any]:
    works: dict[str, Any] = read_json(Layout(workspace.data, "mine").alignments_manifest)["works"]
    return works


def test_what_is_planted_is_measured(workspace: Workspace) -> None:
    layout, works = Layout(workspace.data, "mine"), works_of(workspace)
    read, expected = TargetReader(layout), np.log(TEMPOS) - np.log(TEMPOS).mean()
    for work in range(3):
        names = [f"work{work}__take{take}" for take in range(3)]
        found = [read(name, "relative_tempo", "recording") for name in names]
        np.testing.assert_allclose(np.array(found, float), expected, atol=0.02)
    assert works["work1"]["sources"] == {
        **{"work1__take0": "midi", "work1__take1": "midi"},
        "work1__take2": "audio",
    }
    first = "aligned from work0__take0"
    beats = {"work0__take0": "annotated", "work0__take1": first, "work0__take2": first}
    assert works["work0"]["beats"] == beats
    rubato = [read(name, "rubato", "recording") for name in beats]
    # Beats of one performance, on all of them: they are played alike.
    np.testing.assert_allclose(np.array(rubato, float), float(rubato[0] or 0), rtol=0.15)
    reference = works["work1"]["reference"]
    tracked = {n: "tracked" if n == reference else f"aligned from {reference} (tracked)"
               for n in works["work1"]["sources"]}  # fmt: skip
    assert works["work1"]["beats"] == tracked
    table = layout.answer("performances", ".tsv").read_text().splitlines()
    assert len(table) == 10


def test_a_recording_that_comes_changes_and_goes(workspace: Workspace) -> None:
    path = workspace.folder / "corpus/work2/take3.wav"
    mine = [f"work2__take{take}" for take in range(4)]
    perform(path, 2, 1.1)
    jobs, made, _ = run(workspace)
    assert (set(jobs), jobs["alignments"], made) == (EVERYTHING, 1, mine)

    perform(path, 2, 0.8)
    jobs, made, _ = run(workspace)
    assert (set(jobs), jobs["alignments"], made) == (EVERYTHING, 1, mine)

    # The notes of another work: the others are as they were.
    perform(path, 1, 1.0)
    jobs, made, output = run(workspace)
    assert (set(jobs), jobs["alignments"], made) == (EVERYTHING, 1, mine[:3])
    assert "work2__take3: not aligned: only" in output
    assert "Correct its work_id" in output
    assert TargetReader(Layout(workspace.data, "mine"))("work2__take3", "relative_tempo") is None

    path.unlink()
    path.with_suffix(".mid").unlink()
    jobs, made, output = run(workspace)
    assert (set(jobs), jobs["alignments"], made) == (EVERYTHING, 1, [])
    assert "not aligned" not in output


def test_beats_that_come_reach_the_work_and_no_features(workspace: Workspace) -> None:
    path = workspace.folder / "corpus/work1/take1.wav"
    perform(path, 1, TEMPOS[1], beats=True)
    jobs, made, _ = run(workspace)
    assert set(jobs) == EVERYTHING - FEATURES - {"decomposition"}
    assert made == [f"work1__take{take}" for take in range(3)]
    beats = works_of(workspace)["work1"]["beats"]
    assert set(beats.values()) == {"annotated", "aligned from work1__take1"}


def test_damaged_works_are_made_again_and_nothing_follows(workspace: Workspace) -> None:
    layout = Layout(workspace.data, "mine")
    path = layout.alignment("work0__take1")
    content = path.read_bytes()
    path.unlink()
    for receipt in layout.receipt("alignments", "0").parent.glob("*.json"):
        receipt.unlink()
    jobs, made, _ = run(workspace)
    assert (set(jobs), made) == ({"alignments"}, [])
    assert path.read_bytes() == content
