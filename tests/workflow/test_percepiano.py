"""The whole chain on real performances: several players of the same passages."""

from pathlib import Path

import numpy as np
import pytest

from mess_core.extraction import FeatureExtractor
from mess_core.files import read_json
from mess_core.layout import QUESTIONS, Layout
from mess_core.publishing import load_latest
from mess_core.recordings import read_recordings
from mess_core.search import search_by_vector
from mess_core.targets.registry import probed_targets
from tests.workflow.conftest import SHARED_DATA, Workspace

pytestmark = [pytest.mark.integration, pytest.mark.slow]

CLIPS = SHARED_DATA / "percepiano" / "midi"
PLAYERS = 6
PASSAGES = 8

if not CLIPS.is_dir():
    pytest.skip("../shared/data/percepiano is not on this machine", allow_module_level=True)


def passages() -> dict[str, list[Path]]:
    """Return the passages with the most players, each with `PLAYERS` of their performances.

    Files are named ``{work}_{n}bars_{player}_{segment}.mid``.
    """
    found: dict[str, list[Path]] = {}
    for path in sorted(CLIPS.glob("*.mid")):
        work, player, segment = path.stem.rsplit("_", 2)
        if not player.startswith("Score"):
            found.setdefault(f"{work}_{segment}", []).append(path)
    ranked = sorted(found, key=lambda name: (-len(found[name]), name))[:PASSAGES]
    return {name: found[name][:PLAYERS] for name in ranked}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = Workspace(
        tmp_path_factory.mktemp("percepiano"),
        {"dataset": "percepiano", "encoder": "mess-demo-untrained"},
    )
    rows = ["audio\tmidi\twork_id\tperformer"]
    chosen = passages()
    for passage, paths in chosen.items():
        for path in paths:
            player = path.stem.rsplit("_", 2)[1]
            rows.append(f"audio/{path.stem}.wav\t{path}\t{passage}\t{player}")
    files = [path for paths in chosen.values() for path in paths]
    assert len(files) >= 40
    workspace.run_midi(files, rows)
    return workspace


def test_real_performances_run_through_to_a_published_artifact(workspace: Workspace) -> None:
    layout = Layout(workspace.data, "percepiano")
    recordings = read_recordings(layout.table)
    assert len(recordings) == sum(len(paths) for paths in passages().values())
    assert {r.status for r in recordings} == {"ok"}
    assert len({r.work_id for r in recordings}) == PASSAGES
    windows = 0
    for recording in recordings:
        segments = np.load(layout.features("segments", recording.recording_id))
        assert segments.shape[1:] == (13, 48)
        assert np.load(layout.features("aggregated", recording.recording_id)).shape == (13, 48)
        assert np.load(layout.targets(recording.recording_id), allow_pickle=False).files
        windows += len(segments)
    for target in probed_targets("window"):
        result = read_json(layout.probe(target))
        assert result["n_works"] <= PASSAGES
        assert len(result["layers"]) == 13
    for question in QUESTIONS:
        assert layout.answer(question, ".tsv").read_text().count("\n") > 5
        assert layout.answer(question, ".png").stat().st_size > 20_000
    counts = {"recordings": len(recordings), "clips": windows}
    for kind, count in counts.items():
        assert len(load_latest(workspace.data / "published" / "percepiano" / kind).rows) == count


def test_a_clips_own_audio_finds_it_first(workspace: Workspace) -> None:
    layout = Layout(workspace.data, "percepiano")
    index = load_latest(workspace.data / "published" / "percepiano" / "clips")
    extractor = FeatureExtractor("mess-demo-untrained", models=layout.models, device="cpu")
    recordings = read_recordings(layout.table)[::7]
    for recording in recordings:
        features = extractor.extract_file(workspace.folder / recording.audio)
        for start, window in zip(features.starts_s, features.segments, strict=True):
            first = search_by_vector(index, window, k=1)[0]
            assert first.recording_id == recording.recording_id
            assert first.start_s == pytest.approx(start, abs=0.002)
            assert first.score == pytest.approx(1, abs=1e-4)
