"""`mess triplets`: ratings and judgments of a planted corpus."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mess_core.cli.main import main
from mess_core.evaluation.judgments import gather, judge_files
from mess_core.evaluation.spaces import spaces_of
from mess_core.files import write_json
from mess_core.index.artifact import load_artifact, save_artifact
from mess_core.layout import Layout
from mess_core.recordings import COLUMNS, Recording, read_recordings, write_recordings
from tests.planted import HOP_S, WINDOW_S, Corpus, clip_rows

pytestmark = pytest.mark.unit

RECORDINGS, WINDOWS, WORKS = 12, 4, 3


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return Corpus(RECORDINGS * WINDOWS)


@pytest.fixture
def data(tmp_path: Path, corpus: Corpus) -> Path:
    """Write the features, the table and the index of a corpus."""
    layout, recordings = Layout(tmp_path, "demo"), []
    for number in range(RECORDINGS):
        path = layout.features("segments", f"r{number}")
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, corpus.features[number * WINDOWS :][:WINDOWS])
        facts: dict[str, Any] = dict.fromkeys(COLUMNS, "") | {"duration_s": 12.5, "status": "ok"}
        facts |= {"recording_id": f"r{number}", "work_id": f"w{number % WORKS}"}
        recordings.append(Recording(**facts))
    write_recordings(layout.table, recordings)
    index = corpus.index(clip_rows(RECORDINGS, WINDOWS, works=WORKS))
    version = save_artifact(index, layout.index("clips")).name
    write_json(layout.index_receipt("clips"), {"artifact_version_id": version})
    return tmp_path


def study(corpus: Corpus) -> Iterator[dict[str, Any]]:
    """Give what raters answer who hear tempo, and nothing but chance from ``eve``."""
    rng, tempo = np.random.default_rng(0), corpus.values["tempo"][:, 0]
    times = [(n, n % WINDOWS * HOP_S) for n in range(len(tempo))]
    places = [
        {"recording_id": f"r{n // WINDOWS}", "start": start, "end": start + WINDOW_S}
        for n, start in times
    ]
    for number in range(60):
        a, b, c = rng.choice(len(tempo), 3, replace=False).tolist()
        for rater in ("ann", "ben", "eve"):
            near = abs(tempo[b] - tempo[a]) < abs(tempo[c] - tempo[a])
            catch = number % 6 == 0
            near = rng.random() < 0.5 if rater == "eve" else near or catch
            yield {
                **{"study": "s", "triplet_id": str(number), "aspect": "tempo", "rater": rater},
                **{"anchor": places[a], "b": places[a if catch else b], "c": places[c]},
                **{"choice": "b" if near else "c", "confidence": None, "order": "bc"},
                **{"repeat_of": "", "catch": catch},
            }


def ask(data: Path, *arguments: str) -> int:
    return main(["triplets", *arguments, "--data", str(data)])


def test_a_study_is_scored_and_exported(
    data: Path, corpus: Corpus, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(data, "score") == 1
    assert "no judgments of recordings of" in capsys.readouterr().err
    path = data / "judgments" / "s.jsonl"
    path.parent.mkdir()
    given = list(study(corpus))
    elsewhere = given[0] | {"triplet_id": "x", "rater": "zoe", "catch": False}
    elsewhere["b"] = given[0]["b"] | {"recording_id": "elsewhere"}
    path.write_text("".join(json.dumps(line) + "\n" for line in [*given, elsewhere]))
    assert ask(data, "score") == 0
    out = capsys.readouterr().out
    assert out.startswith("1 judgments of recordings that the index lacks left out\n")
    assert "Learned spaces" not in out  # there are none
    lines = [line.split() for line in out.splitlines()]
    raters = {line[0]: " ".join(line[1:]) for line in lines if line}
    assert raters["ann:"].startswith("50 judgments count, 10 of 10 catch trials right, 0 of 0 rep")
    assert raters["eve:"].startswith("left out, no judgments count, ")
    assert ["Krippendorff's", "alpha:", "1.000"] in lines
    told = {line[1]: line for line in lines if line[:1] == ["tempo"]}
    assert float(told["tempo"][2]) > 0.8
    assert told["tempo"][5:8] == ["1.000", "100", "3"]
    assert float(told["dynamics"][2]) < 0.75

    path = data / "out" / "all.csv"
    assert ask(data, "export", "--csv", str(path)) == 0
    assert "181 judgments" in capsys.readouterr().out
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert len(rows) == 181
    its, row = given[1], rows[1]
    assert row.pop("anchor") == its["anchor"]["recording_id"]
    assert (row["rater"], row["choice"], row["catch"]) == ("ben", its["choice"], str(its["catch"]))
    assert [float(row[f"c_{end}"]) for end in ("start", "end")] == [*its["c"].values()][1:]


def test_ratings_are_checked_kept_and_judged(
    data: Path, corpus: Corpus, capsys: pytest.CaptureFixture[str]
) -> None:
    path, rng = data / "heard.csv", np.random.default_rng(0)
    tempo, loud = (
        4 + corpus.values[name][:, 0].reshape(RECORDINGS, WINDOWS).mean(axis=1)
        for name in ("tempo", "dynamics")
    )
    lines = ["rater,clip,fast,loud,odd"]
    lines += [
        f"p{rater},r{clip},{tempo[clip] + rng.normal(0, 0.1):.2f},"
        f"{loud[clip] + rng.normal(0, 0.1):.2f},{rng.integers(1, 8)}"
        for rater in range(8)
        for clip in range(RECORDINGS)
    ]
    path.write_text("\n".join([*lines, "p1,elsewhere,3,3,3"]))
    assert ask(data, "import", str(path)) == 0
    out = capsys.readouterr().out
    assert (data / "judgments" / "heard.csv").read_bytes() == path.read_bytes()
    fast, loud, odd = (line.split() for line in out.splitlines()[:3])
    assert min(float(fast[2]), float(loud[2])) > 0.9
    assert float(odd[2].strip(",")) < 0.5
    assert (fast[3:], odd[3:]) == ([], ["left", "out"])
    assert "12 of 13 clips" in out
    # Other ratings do not take the place of these; the same do no harm.
    other = data / "new" / "heard.csv"
    other.parent.mkdir()
    other.write_text("\n".join(lines[:9]))
    assert ask(data, "import", str(other)) == 1
    assert "has other ratings; remove it, or rename" in capsys.readouterr().err
    assert (data / "judgments" / "heard.csv").read_bytes() == path.read_bytes()
    assert ask(data, "import", str(path)) == 0
    capsys.readouterr()
    # Of 4 players of each of 3 works, half of 12 triplets.
    assert "\n18 triplets" in out
    assert ask(data, "score") == 0
    assert "half 2: 18 judgments count, 0 of 0 catch trials" in capsys.readouterr().out
    layout = Layout(data, "demo")
    index = load_artifact(next(layout.index("clips").glob("*/")))
    spaces, recordings = spaces_of(layout, index), read_recordings(layout.table)
    found = judge_files(layout, index, spaces, gather(layout.judgment_files, recordings))
    by = {(line["asked"], line["against"]): line for line in found if line["judge"] == "ratings"}
    assert {scale for _, scale in by} == {"fast", "loud"}
    assert by["tempo", "fast"]["value"] > 0.7 > abs(by["tempo", "loud"]["value"])
    assert by["tempo", "fast"]["n"] == RECORDINGS
    path.write_text("rater,clip,fast\np1,R1,3\n")
    assert ask(data, "import", str(path)) == 1
    assert "clip 'R1' is no recording; known: r0, r1" in capsys.readouterr().err
