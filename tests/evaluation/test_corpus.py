"""Judging a corpus: planted aspects of which the truth is known, with works, players and beats."""

import csv
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mess_core.evaluation import spaces
from mess_core.evaluation.corpus import asking, evaluate, judge_aspects, rival, spans_of
from mess_core.evaluation.judges import Figure, Rows, line
from mess_core.evaluation.spaces import apart, search_of, spaces_of
from mess_core.evaluation.tables import side_by_side
from mess_core.files import write_json
from mess_core.index.index import ROW_TYPE, Index
from mess_core.index.projection import Projection
from mess_core.layout import DESCRIPTORS, UNTRAINED, Layout
from mess_core.probing.pictures import plot_evaluation
from mess_core.probing.questions import write_table
from mess_core.recordings import COLUMNS, Recording
from mess_core.search.query import Query, clip_id
from mess_core.search.search import search
from tests.planted import ASPECT_MAP, HOP_S, Corpus, clip_rows

pytestmark = pytest.mark.unit

RECORDINGS, WINDOWS, WORKS = 20, 12, 5
N = RECORDINGS * WINDOWS


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return Corpus(N)


@pytest.fixture(scope="module")
def index(corpus: Corpus) -> Index:
    entries = {
        name: {**entry, "truth": {"source": "midi", "targets": [TRUE[name]]}}
        for name, entry in ASPECT_MAP["aspects"].items()
        if name in TRUE
    }
    found = corpus.index(clip_rows(RECORDINGS, WINDOWS, works=WORKS))
    return replace(found, aspects={**ASPECT_MAP, "aspects": {**ASPECT_MAP["aspects"], **entries}})


#: The targets that the planted aspects' truths are written as.
TRUE = {
    "tempo": "chord_rate",
    "legato": "articulation_ratio",
    "dynamics": "velocity_mean",
    "contour": "rubato",
}


def rows() -> Rows:
    return Rows(*(np.array(c) for c in zip(*(
        (row.recording_id, row.work_id, "") for row in clip_rows(RECORDINGS, WINDOWS, works=WORKS)
    ), strict=True)))  # fmt: skip


def judged(index: Index, corpus: Corpus, *names: str) -> dict[tuple[str, str], Any]:
    vectors = index.stored(range(N))
    found = judge_aspects(
        index.projection, vectors, index.predicted.T, rows(), corpus.values, names
    )
    return {(line["judge"] + line["measure"], line["asked"]): line for line in found}


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the planted aspects be registered: ``legato`` and ``contour`` are no musical ones."""
    from mess_core.evaluation import corpus as module
    from mess_core.probing.aspects import Aspect

    known = {name: Aspect(name, name, midi=(target,)) for name, target in TRUE.items()}
    known["contour"] = replace(known["contour"], more=0)
    monkeypatch.setattr(module, "ASPECT_REGISTRY", known)


def test_asking_is_what_a_search_answers(index: Index) -> None:
    vectors = index.stored(range(N))
    asked: tuple[dict[str, Any], ...] = (
        {"like": {"tempo": 1.0, "general": 0.5}},
        {"more": {"dynamics": 0.5}},
    )
    for respects in asked:
        scores = asking(index.projection, vectors, index.predicted.T, **respects)(7)
        first = index.rows[7]
        clip = clip_id(first.recording_id, first.start_s)
        answer = search(index, Query(clip=clip, k=N, **respects))
        found = {hit.clip: hit.score for hit in answer.hits}
        mine = {
            clip_id(index.rows[n].recording_id, index.rows[n].start_s): float(score)
            for n, score in enumerate(scores)
            if np.isfinite(score)
        }
        assert found == pytest.approx(mine, abs=1e-5)


def test_planted_aspects_are_followed_and_told_apart(index: Index, corpus: Corpus) -> None:
    found = judged(index, corpus, "tempo", "contour")
    like, leak = found["likecorrelation", "tempo"], found["likeleak", "tempo"]
    # Legato goes with tempo, and the index has decorrelated the two.
    assert like["against"] == leak["against"] == "legato"
    assert like["value"] > 0.8
    assert abs(leak["value"]) < like["value"] / 2
    assert found["moreshare", "tempo"]["value"] > 0.9 > 0.6 > found["moreshare", "tempo"]["chance"]
    assert ("moreshare", "contour") not in found
    assert found["likecorrelation", "contour"]["works"] == WORKS


def test_the_rival_is_what_goes_with_an_aspect_within_works(corpus: Corpus) -> None:
    assert rival("tempo", corpus.values, rows()) == "legato"
    assert rival("tempo", {"tempo": corpus.values["tempo"]}, rows()) is None
    of_work = rows().works == "w1"
    between = {**corpus.values, "dynamics": corpus.values["tempo"].mean() + of_work[:, None] * 9.0}
    assert rival("tempo", between, rows()) == "legato"


def finished(folder: Path, corpus: Corpus, *, beats: bool) -> tuple[Layout, list[Recording]]:
    """Write features, targets and beats of the planted corpus."""
    layout, recordings = Layout(folder, "planted"), []
    midi = {"chord_rate": "tempo", "articulation_ratio": "legato", "velocity_mean": "dynamics"}
    for number in range(RECORDINGS):
        name, mine = f"r{number}", slice(number * WINDOWS, (number + 1) * WINDOWS)
        layout.features("segments", name).parent.mkdir(parents=True, exist_ok=True)
        np.save(layout.features("segments", name), corpus.features[mine])
        values = {"rubato": corpus.values["contour"][mine, 0]}
        values |= {target: corpus.values[aspect][mine, 0] for target, aspect in midi.items()}
        layout.targets(name).parent.mkdir(parents=True, exist_ok=True)
        keyed = {f"windows/expression/{key}": value for key, value in values.items()}
        np.savez(layout.targets(name), **keyed)  # type: ignore[arg-type]
        path = folder / f"{name}.beats"
        path.write_text("".join(f"{t}\n" for t in np.arange(0, 40, 0.5 + 0.01 * number)))
        facts: dict[str, Any] = {**dict.fromkeys(COLUMNS, ""), "duration_s": 5 + HOP_S * WINDOWS}
        facts |= {"recording_id": name, "beats": str(path) if beats else ""}
        recordings.append(Recording(**facts))
    return layout, recordings


def test_a_corpus_is_judged_by_what_it_has(tmp_path: Path, index: Index, corpus: Corpus) -> None:
    layout, recordings = finished(tmp_path, corpus, beats=True)
    lines = evaluate(layout, index, recordings)
    by = {(line["judge"], line["asked"], line["measure"]): line for line in lines}
    # Windows of the planted corpus are no passages: found as often as by chance.
    found = by["same passage", "general", "MRR"]
    assert found["low"] < found["chance"] < found["high"]
    assert by["same passage", "plain cosine", "recall@1"]["n"] > WORKS * 18
    # Who plays is asked of aspects, where a passage is not.
    assert ("same passage", "tempo", "MRR") not in by
    assert by["like", "tempo", "correlation"]["value"] > 0.8
    assert by["more", "dynamics", "share"]["source"] == "probed"
    plot_evaluation(lines, tmp_path / "a.png", title="planted")
    assert (tmp_path / "a.png").stat().st_size > 5000


@pytest.mark.parametrize(
    ("works", "sizes", "expected"),
    [
        # What does not fit is left out, wherever it stands in the order.
        (["a", "a", "b", "b", "c"], [20, 20, 50, 15, 10], [0, 1, 4]),
        (["a", "b", "c"], [61, 40, 61], [1]),
        # One work, of which some recordings fit; recordings without a work that do not.
        (["a", "a", "a"], [50, 20, 10], [0, 2]),
        (["a", "a"], [70, 61], [0]),
        ([""], [80], [0]),
    ],
)
def test_whole_works_are_drawn_that_fit(
    works: list[str], sizes: list[int], expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spaces, "MOST_ROWS", 60)
    table = np.zeros(sum(sizes), ROW_TYPE)
    table["recording"] = np.repeat(np.arange(len(sizes)), sizes)
    names = [f"r{n}" for n in range(len(sizes))]
    rows = SimpleNamespace(table=table, recordings={"work_id": works, "recording_id": names})
    found = spaces.drawn(SimpleNamespace(rows=rows))  # type: ignore[arg-type]
    assert found.tolist() == np.flatnonzero(np.isin(table["recording"], expected)).tolist()


def test_features_are_projected_once(index: Index, corpus: Corpus, tmp_path: Path) -> None:
    layout, _ = finished(tmp_path, corpus, beats=True)
    read = [each.read for each in spaces_of(layout, index) if not each.name.startswith("layer")]
    asked = list[int]()
    project = Projection.project

    def counted(self: Projection, features: Any, *others: Any) -> Any:
        asked.append(len(features))
        return project(self, features, *others)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Projection, "project", counted)
        first = [each(corpus.features, None) for each in read]
        half = [each(corpus.features[:9], None) for each in read[:1]]
    assert asked == [N, 9]
    assert first[0][:9] == pytest.approx(half[0], abs=1e-5)


def test_spaces_are_compared_as_they_say(tmp_path: Path, index: Index, corpus: Corpus) -> None:
    layout, recordings = finished(tmp_path, corpus, beats=True)
    for source, windows in ((UNTRAINED, WINDOWS), (DESCRIPTORS, WINDOWS + 1)):
        for recording in recordings:
            path = layout.of(source).features("segments", recording.recording_id)
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, np.random.default_rng(0).normal(size=(windows, 3, 8)).astype(np.float32))
    known = {space.name: space for space in spaces_of(layout, index)}
    # Descriptors of other windows are of another run.
    aspects = ["tempo", "legato", "dynamics", "contour"]
    layers = [f"layer {n}" for n in range(corpus.features.shape[1])]
    assert [*known] == ["general", "plain cosine", "untrained", *aspects, *layers]
    # What is no baseline any more may be of an older encoder.
    assert "untrained" not in [its.name for its in spaces_of(layout, index, baselines=[])]
    general = known["general"].read(corpus.features, None)
    assert general == pytest.approx(index.stored(range(N))[:, : index.projection.general])
    basis = np.random.default_rng(2).normal(size=(index.projection.means.size, 5))
    learned = corpus.index(
        clip_rows(RECORDINGS, WINDOWS, works=WORKS), spaces={"expression": basis.astype(np.float32)}
    )
    block = learned.stored(range(N))[:, learned.projection.spaces["expression"]]
    found = {space.name: space for space in spaces_of(layout, learned)}["expression"]
    assert not found.euclidean
    assert found.read(corpus.features, None) == pytest.approx(block)
    rows = np.arange(1, N)
    for name, space in known.items():
        given = corpus.features if name != "untrained" else np.ones((N, 3, 8), np.float32)
        vectors = space.read(given + np.random.default_rng(1).normal(size=given.shape), None)
        away = apart(vectors, space.euclidean, 0 * rows, rows)
        scores = search_of(vectors, space.euclidean)(0)[1:]
        assert away == pytest.approx((0 if space.euclidean else 1) - scores, abs=1e-6), name


def test_what_was_learned_and_the_rules_are_lines(
    tmp_path: Path, index: Index, corpus: Corpus
) -> None:
    layout, recordings = finished(tmp_path, corpus, beats=True)
    held = line(
        "same player", "content, linear", Figure(0.5, (0.4, 0.6), 0.25, 9, 3), measure="MRR"
    )
    taken = {"rule": "content, linear", "fired": True, "figures": {}, "text": "taken: a gain"}
    content = {"lines": [held], "verdicts": [taken]}
    write_json(layout.geometry.with_suffix(".json"), content)
    lines = evaluate(layout, index, recordings, learned=True)
    found = {(each["judge"], each["asked"]): each for each in lines}
    assert found["held out, same player", "content, linear"]["value"] == 0.5
    verdict = found["rule", "content, linear"]
    assert (verdict["measure"], verdict["reason"]) == ("fired", "taken: a gain")
    assert ("rule", "two-stage reranking") in found
    write_table(lines, tmp_path / "lines.tsv")
    cells = [*csv.DictReader((tmp_path / "lines.tsv").read_text().splitlines(), delimiter="\t")]
    tables = side_by_side(cells)
    assert tables["Learned spaces"] == [
        {"judged": "held out, same player: MRR", "content, linear": "0.50±0.10 (0.25)"}
    ]
    rows = {row["judged"]: row for row in tables["Spaces"]}
    best = max(
        (each for each in cells if each["judge"] == "same player" and each["measure"] == "MRR"
         and each["asked"].startswith("layer")),
        key=lambda each: float(each["value"]),
    )  # fmt: skip
    shown = rows["same player: MRR"]["best layer"]
    assert shown.startswith(f"{float(best['value']):.2f}±")
    assert f"({best['asked']}, " in shown
    assert rows["space: RankMe"]["general"].endswith(f"(of {index.projection.general})")
    assert [row["judged"] for row in tables["Aspects"]] == [
        "tempo",
        "legato",
        "dynamics",
        "contour",
    ]


def test_windows_are_placed_by_alignment_before_beats(tmp_path: Path, corpus: Corpus) -> None:
    _, recordings = finished(tmp_path, corpus, beats=True)
    recordings = [replace(each, work_id=f"w{n % 2}") for n, each in enumerate(recordings[:2])]
    table = np.zeros(4, ROW_TYPE)
    table["recording"], table["start_s"], table["end_s"] = [0, 0, 1, 1], [0, 1, 0, 1], [1, 2, 1, 2]
    table["work_start_s"] = table["work_end_s"] = np.nan
    table["work_start_s"][2], table["work_end_s"][2] = 3, 4
    names = np.array(["r0", "r0", "r1", "r1"])
    rows = Rows(names, np.array(["w0", "w0", "w1", "w1"]), names)
    spans = spans_of(table, rows, recordings)
    # Half a second a beat; of an aligned work what is not aligned is nowhere.
    assert spans == pytest.approx(np.array([[0, 2], [2, 4], [3, 4], [np.nan, np.nan]]), nan_ok=True)


def test_without_beats_and_players_the_reason_is_said(
    tmp_path: Path, index: Index, corpus: Corpus
) -> None:
    layout, recordings = finished(tmp_path, corpus, beats=False)
    lines = evaluate(layout, index, recordings)
    assert lines[0]["reason"] == "no other player is aligned, or has beats"
    assert lines[0]["value"] is None
    # What was not measured of a recording is not defined: the others are judged.
    layout.targets("r3").unlink()
    for target in TRUE.values():
        write_json(layout.target_manifest(target), {"shards": {}, "failed": {"r3": "why"}})
    # Neither is what is read from MIDI, of a recording without.
    without = {"windows/timbre/spectral_centroid": np.zeros(WINDOWS)}
    np.savez(layout.targets("r4"), **without)  # type: ignore[arg-type]
    fewer = {(line["judge"], line["asked"]): line for line in evaluate(layout, index, recordings)}
    assert 0 < fewer["more", "tempo"]["n"] < WORKS * 20
    single = corpus.index(clip_rows(RECORDINGS, WINDOWS, works=RECORDINGS))
    single = replace(single, aspects=index.aspects)
    for each in evaluate(layout, single, recordings):
        assert (each["value"] is None) == bool(each["reason"])
        assert each["reason"] or each["judge"] in ("space", "same player")
    plot_evaluation(lines[:1], tmp_path / "b.svg", title="nothing")
