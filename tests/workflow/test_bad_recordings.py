"""Bad files among the recordings: each is reported, and the rest of the corpus completes."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mess_core.files import read_json
from mess_core.layout import Layout
from mess_core.recordings import read_recordings, usable
from mess_core.targets.registry import CATEGORIES, TARGETS
from tests.workflow.conftest import ROOT, Workspace

pytestmark = [pytest.mark.integration, pytest.mark.slow]

BAD = {
    "cut": "truncated",
    "void": "empty",
    "hush": "silent",
    "tiny": "too_short",
    "text": "unreadable",
}
RATE = 44_100
#: One target of every category, two of that which needs MIDI.
ASKED = [
    *("onset_density", "harmonic_complexity", "spectral_centroid", "note_connection"),
    *("loudness_level", "novelty_level", "rubato", "articulation_ratio"),
]


def write_notes(path: Path, frequency: float, seconds: float = 8.0) -> None:
    """Write decaying tones, two per second, as a stand-in for a recording."""
    times = np.arange(round(seconds * RATE)) / RATE
    phase = times % 0.5
    path.parent.mkdir(parents=True, exist_ok=True)
    sound = 0.4 * np.exp(-6 * phase) * np.sin(2 * np.pi * frequency * phase)
    soundfile.write(path, sound, RATE)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    folder = tmp_path_factory.mktemp("bad")
    corpus = folder / "corpus"
    for work in range(4):
        for version in range(2):
            frequency = 200 * 1.3**work + 15 * version
            write_notes(corpus / f"work{work}" / f"take{version}.wav", frequency)
    write_notes(folder / "whole.wav", 300)
    (corpus / "cut.wav").write_bytes((folder / "whole.wav").read_bytes()[:300_000])
    (corpus / "void.wav").write_bytes(b"")
    (corpus / "text.wav").write_bytes(b"a text that calls itself audio " * 40)
    soundfile.write(corpus / "hush.wav", np.zeros(8 * RATE), RATE)
    write_notes(corpus / "tiny.wav", 300, seconds=0.3)
    config = {"dataset": "mine", "encoder": "descriptors", "targets": ASKED, "shards": 2}
    return Workspace(folder, config)


def test_a_model_that_is_not_there_is_said_before_anything_runs(workspace: Workspace) -> None:
    assert workspace.mess("recordings", "--folder", "corpus", "--name", "mine").status == 0
    without = Workspace(workspace.folder, {"dataset": "mine", "encoder": "MERT-v1-95M"})
    outcome = without.snakemake("--dry-run")
    assert outcome.status != 0
    for told in ("`mess model fetch MERT-v1-95M`", "`encoder: mess-small`"):
        assert outcome.output.count(told) == 1
    assert without.snakemake("--dry-run", "all_targets").status == 0


def test_the_corpus_completes_and_every_bad_file_is_reported_once(workspace: Workspace) -> None:
    outcome = workspace.mess("recordings", "--folder", "corpus", "--name", "mine")
    assert outcome.status == 0, outcome.output
    layout = Layout(workspace.data, "mine")
    assert {r.recording_id: r.status for r in read_recordings(layout.table) if r.reason} == BAD
    assert len(usable(read_recordings(layout.table))) == 8

    outcome = workspace.snakemake()
    assert outcome.status == 0, outcome.output
    report = outcome.output[outcome.output.index("5 recordings have problems") :]
    for name, status in BAD.items():
        assert outcome.output.count(f"  {name}: {status}: ") == 1
        assert f"corpus/{name}.wav" in report
        assert layout.problems.read_text().count(f"\n{name}\t") == 1
    for kind in ("recordings", "clips"):
        receipt = read_json(layout.index_receipt(kind))
        assert receipt["rows"] == {"recordings": 8, "clips": 8 * 3}[kind]
    assert not list(workspace.data.rglob(".tmp-*"))
    for name in BAD:
        assert not list(workspace.data.rglob(f"{name}*.np[yz]"))

    clean = workspace.snakemake("--dry-run")
    assert "Nothing to be done" in clean.output


def test_without_midi_only_expression_drops_out(workspace: Workspace) -> None:
    layout = Layout(workspace.data, "mine")
    assert {TARGETS[target].category for target in ASKED} == set(CATEGORIES)
    for target in ASKED:
        result = read_json(layout.probe(target))
        if TARGETS[target].category == "expression":
            assert (result["n_recordings"], result["layers"], result["best_r2"]) == (0, [], None)
            assert result["reason"]
        else:
            assert result["n_recordings"] > 0, target
    assert read_json(layout.probe("spectral_centroid"))["n_recordings"] == 8


def test_of_many_bad_files_the_first_are_named_and_the_rest_counted(workspace: Workspace) -> None:
    for number in range(30):
        (workspace.folder / "corpus" / f"void{number:02}.wav").touch()
    scanned = workspace.mess("recordings", "--folder", "corpus", "--name", "mine")
    names = ", ".join(f"void{number:02}" for number in range(5))
    assert f"since the last scan: 30 added ({names}, and 25 more)\n" in scanned.output
    outcome = workspace.snakemake()
    assert outcome.status == 0, outcome.output
    report = outcome.output[outcome.output.index("35 recordings have problems") :]
    assert "\n  void14: empty: " in report
    assert "void15" not in report
    assert "\n  and 15 more\n" in report


_FAULT = """
from {module} import {name} as _before
def {name}(path, *args, **kwargs):
    if {take!r} in str(path):
        raise ZeroDivisionError("of this recording alone")
    return _before(path, *args, **kwargs)
"""


def test_whatever_one_recording_raises_the_others_go_on(
    workspace: Workspace, tmp_path: Path
) -> None:
    """One that cannot be measured, and one that cannot be extracted, by faults of ours."""
    shutil.copytree(ROOT / "src" / "mess_core", tmp_path / "mess_core")
    audio = "mess_core.extraction.audio"
    for module, name, take in (
        ("targets/create.py", "load_audio", "work0/take0"),
        ("extraction/extractor.py", "stream_audio", "work1/take1"),
    ):
        with (tmp_path / "mess_core" / module).open("a") as file:
            file.write(_FAULT.format(module=audio, name=name, take=take))
    config = {**workspace.config, "targets": ["spectral_centroid", "onset_density"]}
    faulty = replace(
        workspace,
        folder=tmp_path,
        config=config,
        environment={"PYTHONPATH": str(tmp_path)},
    )
    shutil.copytree(workspace.folder / "corpus", tmp_path / "corpus")
    scanned = faulty.mess("recordings", "--folder", "corpus", "--name", "mine")
    assert scanned.status == 0, scanned.output
    outcome = faulty.snakemake()
    assert outcome.status == 0, outcome.output[-3000:]
    for name in ("work0__take0", "work1__take1"):
        assert f"{name}: failed: ZeroDivisionError: of this recording alone" in outcome.output
    layout = Layout(faulty.data, "mine")
    assert read_json(layout.index_receipt("recordings"))["rows"] == 7
    assert read_json(layout.probe("spectral_centroid"))["n_recordings"] == 6
    # Once the fault is mended, a scan lets what failed be made, and it alone.
    mended = replace(faulty, environment={})
    assert mended.mess("recordings", "--folder", "corpus", "--name", "mine").status == 0
    outcome = mended.snakemake()
    assert outcome.status == 0, outcome.output[-3000:]
    assert read_json(layout.index_receipt("recordings"))["rows"] == 8
    assert read_json(layout.probe("spectral_centroid"))["n_recordings"] == 8


def test_a_dataset_without_table_says_how_to_make_one(workspace: Workspace) -> None:
    outcome = Workspace(workspace.folder, {"dataset": "nothing"}).snakemake()
    assert outcome.status != 0
    assert "mess recordings --folder PATH --name" in outcome.output
