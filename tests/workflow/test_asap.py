"""The whole chain on real performances whose beats are annotated: answers of probing and beats."""

import csv
from collections import defaultdict

import numpy as np
import pytest

from mess_core.files import read_json
from mess_core.layout import QUESTIONS, Layout
from mess_core.recordings import read_recordings
from mess_core.targets import load_target, load_targets
from mess_core.targets.expression import tempo_variability
from mess_core.targets.registry import probed_targets
from tests.workflow.conftest import SHARED_DATA, Workspace

pytestmark = [pytest.mark.integration, pytest.mark.exhaustive]

ASAP = SHARED_DATA / "asap"
WORKS = 6
PLAYERS = 3

if not ASAP.is_dir():
    pytest.skip("../shared/data/asap is not on this machine", allow_module_level=True)

Row = dict[str, str]


def chosen() -> list[Row]:
    """Return the shortest works, each with its first players."""
    works: dict[str, list[Row]] = defaultdict(list)
    with (ASAP / "recordings.tsv").open() as file:
        for row in csv.DictReader(file, delimiter="\t"):
            works[row["work_id"]].append(row)
    played = [rows[:PLAYERS] for rows in works.values() if len(rows) >= PLAYERS]
    played.sort(key=lambda rows: sum(float(row["duration_s"]) for row in rows))
    return [row for rows in played[:WORKS] for row in rows]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    config = {"dataset": "asap", "encoder": "mess-small", "shards": 2}
    workspace = Workspace(tmp_path_factory.mktemp("asap"), config)
    rows = chosen()
    columns = ("recording_id", "work_id", "performer", "composer")
    lines = ["\t".join((*columns, "audio", "midi", "beats"))]
    for row in rows:
        files = (f"audio/{row['recording_id']}.wav", ASAP / row["midi"], ASAP / row["beats"])
        lines.append("\t".join(map(str, (*(row[name] for name in columns), *files))))
    workspace.run_midi([ASAP / row["midi"] for row in rows], lines)
    return workspace


def test_every_question_is_answered_by_a_table_and_a_picture(workspace: Workspace) -> None:
    layout = Layout(workspace.data, "asap")
    for question in QUESTIONS:
        assert layout.answer(question, ".png").stat().st_size > 20_000
    with layout.answer("layers", ".tsv").open() as file:
        rows = {row["target"]: row for row in csv.DictReader(file, delimiter="\t")}
    assert set(rows) == set(probed_targets())
    for name, row in rows.items():
        assert int(row["n_works"]) == WORKS, name
        assert row["measure"] == "r2_within", name
        assert float(row["r2_lo"]) < float(row["r2_within"]) < float(row["r2_hi"]), name
        assert {row["untrained"], row["descriptors"], row["layer_0"]}.isdisjoint({""}), name
    # Descriptors hold the loudness of a window itself: a ruler for all other numbers.
    assert float(rows["loudness_level"]["descriptors"]) > 0.9


def test_tempo_is_that_of_the_annotated_beats(workspace: Workspace) -> None:
    layout = Layout(workspace.data, "asap")
    for recording in read_recordings(layout.table):
        assert recording.beats_sha256
        beats = np.loadtxt(recording.beats, usecols=0, delimiter="\t", dtype=str).astype(float)
        measured = load_targets(layout.targets(recording.recording_id))["expression"]
        assert float(measured["tempo_variability"]) == pytest.approx(
            tempo_variability(np.diff(beats))
        )


def test_rows_are_all_windows_in_which_the_target_is_defined(workspace: Workspace) -> None:
    layout = Layout(workspace.data, "asap")
    defined = []
    for recording in read_recordings(layout.table):
        loudness = load_target(layout.targets(recording.recording_id), "loudness_level")
        assert loudness is not None
        features = np.load(layout.features("segments", recording.recording_id), mmap_mode="r")
        assert len(features) == len(loudness)
        defined += np.isfinite(loudness).tolist()
    result = read_json(layout.probe("loudness_level"))
    assert (result["unit"], result["n_rows"]) == ("windows", sum(defined))
    assert result["n_recordings"] == WORKS * PLAYERS
    assert np.mean(defined) > 0.99
