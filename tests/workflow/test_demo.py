"""The whole chain on the demo corpus, from nothing to a published index, and what it must know."""

import base64
import csv
import io
import json
import re
import subprocess
import sys
import zipfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from packaging.utils import canonicalize_name
from scipy.signal import stft
from scipy.stats import spearmanr

from mess_core.cli.results import _SHOWN
from mess_core.evaluation.counterfactuals import VARIANTS, read_counterfactuals
from mess_core.files import file_sha256, read_json
from mess_core.layout import ANSWERS, INDEX_KINDS, PAGES, QUESTIONS, Layout
from mess_core.probing.aspects import ASPECT_REGISTRY
from mess_core.publishing import load_latest
from mess_core.recordings import Recording, read_recordings
from mess_core.search.query import Query
from mess_core.search.search import search as ask
from mess_core.targets import load_targets
from mess_core.targets.registry import probed_targets
from mess_core.workflow.record import code, find_record
from tests.workflow.conftest import ROOT, Workspace
from tests.workflow.rules import derived_rules, rules
from tests.workflow.test_environments import environment_of, installed_by, pip_requirement

pytestmark = [pytest.mark.integration, pytest.mark.slow]

RULES = dict((*rules(), *derived_rules()))


@pytest.fixture(scope="session")
def layout(demo: Workspace) -> Layout:
    return Layout(demo.data, "demo")


@pytest.fixture(scope="session")
def recordings(layout: Layout) -> list[Recording]:
    return read_recordings(layout.table)


def test_at_least_forty_recordings_of_eight_works_are_usable(recordings: list[Recording]) -> None:
    assert len(recordings) >= 40
    assert {r.status for r in recordings} == {"ok"}
    works = defaultdict(list)
    for recording in recordings:
        works[recording.work_id].append(recording)
        assert 12 <= recording.duration_s <= 40
        assert recording.midi_sha256
    assert len(works) >= 8
    assert min(len(members) for members in works.values()) >= 5


def test_features_have_the_contracts_shapes(layout: Layout, recordings: list[Recording]) -> None:
    for recording in recordings:
        segments = np.load(layout.features("segments", recording.recording_id))
        aggregated = np.load(layout.features("aggregated", recording.recording_id))
        windows = 1 + np.ceil((recording.duration_s - 5) / 2.5 - 1e-3)
        assert segments.shape == (windows, 7, aggregated.shape[1])
        np.testing.assert_allclose(segments.mean(axis=0), aggregated, atol=1e-5)


def test_every_target_is_probed_on_every_layer(layout: Layout, recordings: list[Recording]) -> None:
    for target in probed_targets():
        result = read_json(layout.probe(target))
        assert result["target"] == target
        assert [entry["layer"] for entry in result["layers"]] == list(range(7))
        assert result["n_recordings"] <= len(recordings)
        assert result["encoder"]["trained"] is True
        assert result["confidence"] in ("high", "medium", "low")


def test_the_aspect_map_speaks_of_every_aspect(layout: Layout) -> None:
    found = read_json(layout.aspects)
    assert set(found["aspects"]) == set(ASPECT_REGISTRY)
    for name, aspect in found["aspects"].items():
        # Every demo recording has MIDI, so that the truth of every aspect is measured.
        assert aspect["sources"][0] == aspect["truth"]["source"], name
        assert aspect["resolved"]


@pytest.mark.parametrize("question", QUESTIONS)
def test_every_question_has_a_table_and_a_picture(
    demo: Workspace, layout: Layout, question: str
) -> None:
    assert layout.answer(question, ".png").read_bytes().startswith(b"\x89PNG")
    shown = demo.mess("question", question)
    assert shown.status == 0, shown.output
    asked, columns = _SHOWN[question]
    lines = shown.output.splitlines()
    # The demo is compared with no untrained encoder.
    expected = [name for name in columns.split() if not name.endswith("untrained")]
    assert (lines[0], lines[2].split()) == (asked, expected)
    table = layout.answer(question, ".tsv").read_text()
    assert demo.mess("question", question, "--all").output == table
    # Beside the rows: the question, the header and its rule, the files, and blank lines.
    assert len(lines) - 7 == len(table.splitlines()) - 1 > 5


def test_the_evaluation_shows_spaces_aspects_and_rules(demo: Workspace, layout: Layout) -> None:
    assert layout.answer("evaluation", ".png").read_bytes().startswith(b"\x89PNG")
    shown = demo.mess("question", "evaluation").output.splitlines()
    assert shown[0] == _SHOWN["evaluation"][0]
    for title in ("Spaces", "Aspects", "Counterfactual", "Learned spaces"):
        assert title in shown
    for judge in ("same passage: nDCG@10", "same player: recall@1", "like tempo", "space: RankMe"):
        assert [line for line in shown if line.startswith(judge)]
    assert [line for line in shown if "two-stage reranking: " in line]
    table = layout.answer("evaluation", ".tsv").read_text()
    assert demo.mess("question", "evaluation", "--all").output == table


def test_the_report_is_one_page_that_needs_nothing_else(demo: Workspace, layout: Layout) -> None:
    pages = {name: layout.page(name).read_text() for name in PAGES}
    for name, page in pages.items():
        assert "mess-small" in page, name
        assert "untrained." not in page, name
        assert not re.findall(r'(?:src|href)="(?!data:|#)', page), name
        assert "<script" not in page
    assert len(pages["report"]) < 8e6
    assert pages["report"].count("<img") == len(ANSWERS)
    assert pages["report"].count("Not to be heard") == 0
    assert pages["report"].count("<audio") == pages["examples"].count("<audio") > 15
    for target in probed_targets():
        assert target in pages["report"]
    for aspect in ASPECT_REGISTRY:
        assert aspect in pages["aspects"]
    for kind in INDEX_KINDS:
        version = read_json(layout.index_receipt(kind))["artifact_version_id"]
        assert version[:16] in pages["facts"]
    commands = re.findall(r"<code>mess (search .+?)</code>", pages["examples"])
    outcome = demo.mess(*commands[0].split())
    assert outcome.status == 0, outcome.output
    (first,) = re.findall(r"^ +1 +([\d.]+) +(\S+)", outcome.output, re.MULTILINE)
    assert f"1. {first[1]}</strong>" in pages["examples"]
    assert f">{first[0]}</span>" in pages["examples"]


def test_an_excerpt_on_the_page_is_the_passage_that_it_names(layout: Layout) -> None:
    page = layout.page("examples").read_text()
    pattern = r'<audio [^>]*src="data:audio/mpeg;base64,(.+?)" aria-label="(\S+), (\d+):([\d.]+) to'
    found = re.findall(pattern, page)
    assert len(found) > 15
    for content, recording, minutes, seconds in found[-3:]:
        heard, rate = soundfile.read(io.BytesIO(base64.b64decode(content)))
        start = round((60 * int(minutes) + float(seconds)) * rate)
        path = layout.demo_audio / f"{recording}.wav"
        truth = soundfile.read(path, start=start, frames=len(heard))[0].mean(axis=1)
        # Times are shown to a tenth of a second: look for the shift up to that.
        spectrum = np.fft.rfft(heard, 2 * len(truth)) * np.conj(np.fft.rfft(truth, 2 * len(truth)))
        peak = np.fft.irfft(spectrum).max() / np.sqrt((heard**2).sum() * (truth**2).sum())
        assert peak > 0.95, recording


def test_targets_are_compared_with_what_the_interpretations_were_made_with(
    layout: Layout,
) -> None:
    with layout.answer("validity", ".tsv").open() as file:
        rows = {row["target"]: row for row in csv.DictReader(file, delimiter="\t")}
    assert set(rows) == set(probed_targets())
    for parameter, target in TRUTHS:
        assert float(rows[target][f"of_{parameter}"]) > 0.9
    assert float(rows["loudness_level"]["midi_r"]) > 0.7
    assert rows["loudness_level"]["midi_works"] == "9"
    assert all(0.8 < float(row["defined"]) <= 1 for row in rows.values())
    assert layout.answer("validity", ".png").read_bytes().startswith(b"\x89PNG")


def test_snakemakes_report_holds_every_result_for_people(demo: Workspace, layout: Layout) -> None:
    outcome = demo.snakemake("--report", "report.zip")
    assert outcome.status == 0, outcome.output[-3000:]
    with zipfile.ZipFile(demo.folder / "report.zip") as archive:
        held = {Path(name).name: archive.read(name) for name in archive.namelist()}
    page = held.pop("report.html").decode()
    answers = [layout.answer(name, suffix) for name in ANSWERS for suffix in (".tsv", ".png")]
    pages = [layout.page(name) for name in PAGES]
    expected = {path.name: path.read_bytes() for path in (*answers, *pages)}
    # The archive's own page has the name of ours.
    del expected["report.html"]
    assert held == expected
    for text in (
        *("Overview", "Probing", "Aspects", "Retrieval", "Targets", "Index and run"),
        *("linear CKA", "LEACE", "Kendall", "This report is about the dataset"),
    ):
        assert text in page, text
    assert "Nothing to be done" in demo.snakemake("--dry-run").output


def test_both_indices_are_published_whole(layout: Layout, recordings: list[Recording]) -> None:
    counts = {
        "recordings": len(recordings),
        "clips": sum(len(np.load(layout.features("segments", r.recording_id))) for r in recordings),
    }
    for kind in INDEX_KINDS:
        index = load_latest(layout.data / "published" / "demo" / kind)
        assert len(index.rows) == index.vectors.ntotal == counts[kind]
        assert index.facts["dataset"] == "demo"
        assert index.facts["licence"].startswith("MIT")
        assert index.facts["encoder"]["trained"] is True
        assert (index.facts["encoder"]["layers"], index.facts["encoder"]["dims"]) == (7, 160)
        assert len(index.facts["encoder"]["weights_sha256"]) == 64
        assert set(index.facts["stages"]) >= {"features", "probing", "projection", "index"}
        resolved = [name for name, a in index.aspects["aspects"].items() if a["resolved"]]
        assert list(index.projection.aspects) == resolved != []


def test_aspects_are_stored_with_equal_spread(layout: Layout) -> None:
    index = load_latest(layout.data / "published" / "demo" / "clips")
    stored = index.stored(np.arange(len(index.rows)))
    for name, aspect in index.projection.aspects.items():
        # Twice the variance is the mean squared distance; what lies far out is cut.
        assert 0.85 < 2 * stored[:, aspect.stored].var(axis=0).sum() < 1.01, name


TRUTHS = [
    ("rubato", "rubato"),
    ("articulation", "articulation_ratio"),
    ("dynamic_range", "velocity_range"),
]


@pytest.mark.parametrize(("parameter", "target"), TRUTHS)
def test_the_most_extreme_interpretation_has_the_most_extreme_target(
    layout: Layout, parameter: str, target: str
) -> None:
    with layout.demo_truth.open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    works = defaultdict(list)
    for row in rows:
        expression = load_targets(layout.targets(row["recording_id"]))["expression"]
        measured = float(expression[target])
        works[row["work_id"]].append((float(row[parameter]), measured, row["recording_id"]))
    assert len(works) >= 8
    for work, performances in works.items():
        truth = max(performances)[2]
        found = max(performances, key=lambda p: p[1])[2]
        assert found == truth, f"{work}: {sorted(performances)}"


def search(demo: Workspace, *arguments: str) -> list[dict[str, object]]:
    outcome = demo.mess("search", *arguments, "--json")
    assert outcome.status == 0, outcome.output
    hits: list[dict[str, object]] = json.loads(outcome.output[outcome.output.index("\n[") :])
    return hits


def test_the_command_line_searches_recordings_and_passages(
    demo: Workspace, recordings: list[Recording]
) -> None:
    own = recordings[0].recording_id
    hits = search(demo, "--recording", own, "-k", "5")
    assert len(hits) == 5
    scores = [float(str(hit["score"])) for hit in hits]
    assert scores == sorted(scores, reverse=True)
    assert own not in {hit["recording_id"] for hit in hits}
    first, *_ = search(demo, "--track", own, "--start", "5", "--to", "10", "-k", "3")
    assert (first["recording_id"], first["start_s"], first["end_s"]) == (own, 5.0, 10.0)
    assert float(str(first["score"])) == pytest.approx(1, abs=1e-5)


def test_an_audio_file_is_a_question_and_finds_its_own_passage(
    demo: Workspace, recordings: list[Recording], tmp_path: Path
) -> None:
    own = recordings[7]
    audio = str(demo.folder / own.audio)
    first, *_ = search(demo, "--audio", audio, "--from", "5", "--to", "10", "-k", "2")
    assert (first["recording_id"], first["start_s"]) == (own.recording_id, 5.0)
    assert float(str(first["score"])) == pytest.approx(1, abs=1e-3)
    one_window, *_ = search(demo, "--audio", audio, "--from", "5", "-k", "1")
    assert one_window["score"] == first["score"]
    whole, *_ = search(demo, "--audio", audio, "-k", "1")
    assert whole["recording_id"] == own.recording_id
    # Shorter than a window: it is made as long as one around its middle, here 5 to 10 s.
    short, *_ = search(demo, "--audio", audio, "--from", "6.5", "--to", "8.5", "-k", "1")
    assert (short["recording_id"], short["start_s"]) == (own.recording_id, 5.0)
    assert float(str(short["score"])) == pytest.approx(1, abs=1e-3)
    features = tmp_path / "passage.npz"
    done = demo.mess(
        *("embed", audio, "--from", "5", "--to", "10", "--encoder", "mess-small"),
        *("--output", str(features)),
    )
    assert done.status == 0, done.output
    assert np.load(features)["features"].shape == (1, 7, 160)
    as_here = demo.mess("search", "--features", str(features), "-k", "1", "--json")
    assert own.recording_id in as_here.output
    beyond = demo.mess("search", "--audio", audio, "--from", "500")
    assert beyond.status == 1
    assert "is no passage of its" in beyond.output


def test_the_python_and_json_of_the_search_page_run(demo: Workspace, tmp_path: Path) -> None:
    text = (ROOT / "docs" / "search.md").read_text()
    code = re.findall(r"```python\n(.+?)```", text, re.DOTALL)
    question = re.findall(r"```json\n(.+?)```", text, re.DOTALL)
    assert (len(code), len(question)) == (1, 1)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code[0]],
        cwd=demo.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 10
    (tmp_path / "question.json").write_text(question[0])
    assert search(demo, "--query", str(tmp_path / "question.json"))


def test_the_tour_searches_by_what_listeners_hear(demo: Workspace) -> None:
    outcome = demo.mess("tour")
    assert outcome.status == 0, outcome.output
    asked = re.findall(r"^\$ mess search .*--aspect (\w+)", outcome.output, re.MULTILINE)
    assert asked == ["brightness", "tempo", "dynamics", "articulation", "rubato"]
    assert outcome.output.count("encoder: mess-small\n") == 2 + len(asked)
    assert "untrained" not in outcome.output
    assert "mechanism" not in outcome.output
    assert "What next" in outcome.output
    assert outcome.output.rstrip().splitlines()[-1].strip() == "mess explore"
    assert str(Path("data") / "published") in outcome.output


#: What an aspect ought to follow, and where: in other works, or among the players of one, because
#: a tempo is a share of the score's.
HEARD = [
    *(("rubato", "rubato", "others"), ("articulation", "articulation", "others")),
    *(("dynamics", "level", "others"), ("pedal", "pedal", "others"), ("tempo", "tempo", "own")),
]


@pytest.mark.parametrize(("aspect", "parameter", "among"), HEARD)
def test_answers_are_in_the_order_of_the_interpretations_numbers(
    layout: Layout, aspect: str, parameter: str, among: str
) -> None:
    with layout.demo_truth.open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    true = {row["recording_id"]: float(row[parameter]) for row in rows}
    works = {row["recording_id"]: row["work_id"] for row in rows}
    index = load_latest(layout.data / "published" / "demo" / "recordings")
    agreement = []
    for name in true:
        wanted = {"where": {"work_id": [works[name]]}} if among == "own" else {"exclude": "work"}
        query = Query(name, like={aspect: 1.0}, k=60, **wanted)
        hits = [hit.recording_id for hit in ask(index, query).hits if hit.recording_id != name]
        assert len(hits) == (5 if among == "own" else 48)
        apart = [abs(true[hit] - true[name]) for hit in hits]
        agreement.append(spearmanr(range(len(hits)), apart).statistic)
    assert np.mean(agreement) > 0.6


@pytest.mark.parametrize("passage", [("19", "21"), ("25", "27")])
def test_who_bends_the_tempo_most_stretches_the_ends_of_phrases_most(
    demo: Workspace, layout: Layout, passage: tuple[str, str]
) -> None:
    with layout.answer("performances", ".tsv").open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    works = {row["work_id"] for row in rows}
    freest = [
        max((r for r in rows if r["work_id"] == w), key=lambda r: float(r["timing_deviation"]))
        for w in works
    ]
    assert {row["performer"] for row in freest} == {"rhapsodic"}
    start, end = passage
    asked = ("--recording", "chopin_op28_7_rhapsodic", "--from", start, "--to", end)
    first, second, *_ = json.loads(demo.mess("stretch", *asked, "--json").output)["rows"]
    assert (first["recording_id"], first["rank"]) == ("chopin_op28_7_rhapsodic", 1)
    assert first["stretch"] > 0.05 > second["stretch"]
    same = search(demo, *asked, "--same-passage")
    assert {hit["work_id"] for hit in same} == {"chopin_op28_7"}
    assert len(same) == 5
    spans = {str(hit["recording_id"]): hit["start_s"] for hit in same}
    assert spans[second["recording_id"]] == pytest.approx(second["start_s"], abs=0.5)


def test_louder_notes_move_dynamics_most_and_faster_ones_tempo(layout: Layout) -> None:
    found = read_counterfactuals(layout)
    assert found is not None
    assert found.encoder.shape == (5 * len(VARIANTS), 7, 160)
    assert len(set(found.work)) == 5
    with layout.answer("evaluation", ".tsv").open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    most = {row["against"]: row for row in rows if row["measure"] == "moves most"}
    for parameter, aspect in {"level": "dynamics", "tempo": "tempo"}.items():
        assert most[parameter]["asked"] == aspect
        assert float(most[parameter]["low"]) > 0
    notes = {row["asked"]: float(row["value"]) for row in rows if row["judge"] == "same notes"}
    assert notes["general"] > 0.9


def centroid(path: Path) -> float:
    """Return the mean spectral centroid below 12 kHz of what is within 40 dB of the loudest."""
    samples, rate = soundfile.read(path)
    frequencies, _, spectrum = stft(
        samples.reshape(len(samples), -1).mean(axis=1), rate, nperseg=2048
    )
    magnitude = np.abs(spectrum[frequencies < 12_000])
    frames = magnitude.max(axis=0) > 0.01 * magnitude.max()
    each = (
        frequencies[frequencies < 12_000] @ magnitude[:, frames] / magnitude[:, frames].sum(axis=0)
    )
    return float(each.mean())


def test_what_sounds_bright_finds_what_is_bright(layout: Layout) -> None:
    index = load_latest(layout.data / "published" / "demo" / "recordings")
    true = {name: centroid(layout.demo_audio / f"{name}.wav") for name in index.rows.numbers}
    agreement = []
    for name in true:
        query = Query(name, like={"brightness": 1.0}, exclude="recording", k=60)
        apart = [abs(true[hit.recording_id] - true[name]) for hit in ask(index, query).hits]
        agreement.append(spearmanr(range(len(apart)), apart).statistic)
    assert np.mean(agreement) > 0.6


def test_one_target_is_rebuilt_by_name_and_only_what_it_needs(
    demo: Workspace, layout: Layout
) -> None:
    before = layout.probe("rubato").read_bytes()
    others = {t: layout.probe(t).stat().st_mtime_ns for t in probed_targets() if t != "rubato"}
    layout.probe("rubato").unlink()
    outcome = demo.snakemake("data/probing/demo/rubato.json")
    assert outcome.status == 0, outcome.output
    assert layout.probe("rubato").read_bytes() == before
    assert others == {t: layout.probe(t).stat().st_mtime_ns for t in others}


def records_of_outputs(demo: Workspace, layout: Layout) -> list[tuple[Path, dict[str, Any]]]:
    """Return every output of a rule with its record."""
    summary = demo.snakemake("--summary", "--quiet")
    listed = [line.split("\t")[0] for line in summary.output.splitlines() if "\t" in line]
    outputs = [
        *(demo.folder / name for name in listed if name.startswith("data")),
        # These have no rule while they are up to date.
        *layout.target_manifests.glob("*.json"),
        *layout.embeddings.parent.glob("*/manifest.json"),
        layout.alignments_manifest,
    ]
    return [(path, find_record(path)) for path in outputs]


def assert_environment_has(record: Mapping[str, Any]) -> None:
    """Check that the rule's conda environment brings the libraries that the job has imported."""
    environment = environment_of(RULES[record["rule"]])
    given = installed_by(frozenset(pip_requirement(ROOT / f"envs/{environment}.yaml").extras))
    used = {canonicalize_name(library) for library in record["libraries"]}
    # Snakemake's own object is in every script; transformers takes scipy where it is there.
    optional = {"snakemake"} | ({"scipy"} if "transformers" in used else set())
    assert used - optional <= given, record["rule"]


def test_every_output_has_a_record_that_knows_its_content(demo: Workspace, layout: Layout) -> None:
    records = records_of_outputs(demo, layout)
    assert {record["rule"] for _, record in records} == set(RULES) - {"track", "train", "untrained"}
    for path, record in records:
        assert_environment_has(record)
        name = str(path.relative_to(demo.folder))
        assert record["outputs"][name] == file_sha256(path)
        assert record["config"]["dataset"] == "demo"
        if record["rule"] in ("probing", "index", "report"):
            assert len(record["encoder"]["weights_sha256"]) == 64


def test_the_record_of_a_result_is_printed(demo: Workspace, layout: Layout) -> None:
    for path in (layout.probe("rubato"), next((layout.embeddings / "segments").glob("*.npy"))):
        shown = demo.mess("provenance", str(path.relative_to(demo.folder)))
        assert shown.status == 0, shown.output
        said = json.loads(shown.output)
        assert (said["code"], said["config"]["window_s"]) == (code(), 5.0)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("datset=smd", "config: unknown key 'datset'; did you mean"),
        ("window_s=-1", "config: window_s: Input should be greater than 0, not -1; Length of a"),
    ],
)
def test_wrong_settings_are_refused_in_one_line(
    demo: Workspace, setting: str, message: str
) -> None:
    outcome = demo.snakemake("--dry-run", "--config", setting)
    assert outcome.status != 0
    assert message in outcome.output
    assert "Traceback" not in outcome.output
