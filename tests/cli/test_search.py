import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mess_core.cli.printing import seconds
from mess_core.cli.search import add_parser, run
from mess_core.errors import ArtifactError, SearchError
from mess_core.index.artifact import save_artifact
from mess_core.index.index import Row, build_index
from mess_core.publishing.publish import publish
from tests.planted import ASPECT_MAP, DIMS, LAYERS, Corpus

pytestmark = pytest.mark.unit

Ask = Callable[..., int]
SPACES = {"content": np.eye(LAYERS * DIMS, 8, dtype=np.float32)}
ENCODER = {"name": "small", "fingerprint": "f1", "precision": "float32"}


def _publish(root: Path, kind: str, dataset: str, *, trained: bool, performer: str = "Ada") -> None:
    windows = 1 if kind == "recordings" else 30
    # take2 and take3 play at half the tempo of take0 and take1.
    rows = [
        Row(
            *(f"take{i}", f"w{i % 2}", performer, f"Bach{i}", "Prelude", "", t, t + 5),
            *((t / (1 + i // 2), (t + 5) / (1 + i // 2)) if windows > 1 else ()),
        )
        for i in range(4)
        for t in np.arange(windows) * 2.5
    ]
    # The same projection for both kinds, as in the workflow.
    corpus = Corpus(120, seed=6)
    index = build_index(
        corpus.features[:: 30 // windows],
        rows,
        kind=kind,
        projection=corpus.projection(spaces=SPACES),
        aspects=ASPECT_MAP,
        facts={"dataset": dataset, "encoder": {**ENCODER, "trained": trained}, "window_s": 5.0},
    )
    publish(save_artifact(index, root / "indices"), str(root / "published"))


@pytest.fixture
def ask(tmp_path: Path) -> Ask:
    for kind in ("recordings", "clips"):
        _publish(tmp_path, kind, "demo", trained=False)
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())

    def call(*options: str) -> int:
        published = str(tmp_path / "published")
        return run(parser.parse_args(["search", "--artifacts", published, *options]))

    return call


def test_the_table_says_what_was_asked_and_by_which_encoder(
    ask: Ask, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask("--recording", "take1", "-k", "2") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "recordings like take1, in general"
    assert lines[1].startswith("encoder: small (untrained)")
    assert lines[2].split() == ["rank", "score", "recording", "work", "performer"]
    assert len(lines) == 6
    assert lines[4].split()[0] == "1"
    assert ": Prelude" in lines[4]
    assert "take1" not in lines[4] + lines[5]
    assert lines[2].index("work") == lines[4].index("Bach") == lines[5].index("Bach")


def test_an_aspect_comes_with_how_well_it_is_known(
    ask: Ask, capsys: pytest.CaptureFixture[str]
) -> None:
    ask("--recording", "take1", "--aspects", "legato=0.7,tempo=0.3")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "recordings like take1, by legato=0.7, tempo=0.3"
    assert lines[1] == "legato: probed in layer 0"
    assert lines[2] == "tempo: probed in layer 0"


def test_times_of_clips_are_minutes_and_seconds(
    ask: Ask, capsys: pytest.CaptureFixture[str]
) -> None:
    ask("--recording", "take1", "--from", "57.5", "--to", "1:02.5", "-k", "1")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("passages like take1 from 0:57.5 to 1:02.5, in general")
    assert lines[-1].split()[:3] == ["1", "1.000", "take1"]
    assert lines[-1].endswith("0:57.5 - 1:02.5 (same)")


@pytest.mark.parametrize(
    ("text", "time_s"),
    [("65", 65), ("1:05", 65), ("0:05.25", 5.25), ("1:02:03.5", 3723.5), ("90:00", 5400)],
)
def test_times_are_read_as_people_type_them(text: str, time_s: float) -> None:
    assert seconds(text) == time_s


@pytest.mark.parametrize("text", ["", "five", "1:60", "1:2:3:4", "-1", "nan", "inf", "1:-5", ":5"])
def test_what_is_no_time_is_refused(
    text: str, ask: Ask, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        ask("--recording", "take1", f"--from={text}")
    assert "is no time; give seconds or minutes:seconds" in capsys.readouterr().err


def test_json_is_all_that_is_printed(ask: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    ask("--track", "take1", "--start", "5", "-k", "3", "--json")
    printed = capsys.readouterr()
    hits = json.loads(printed.out)
    assert (hits[0]["recording_id"], hits[0]["start_s"], hits[0]["end_s"]) == ("take1", 5.0, 10.0)
    assert [hit["score"] for hit in hits] == sorted((hit["score"] for hit in hits), reverse=True)
    assert "untrained" in printed.err
    ask("--recording", "take1", "--json")
    hits = json.loads(capsys.readouterr().out)
    assert len(hits) == 3
    assert all("start_s" not in hit for hit in hits)


def _json(ask: Ask, capsys: pytest.CaptureFixture[str], *options: str) -> Any:
    ask("--recording", "take1", "--json", *options)
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("passage", [(), ("--from", "5")])
def test_one_aspect_is_the_same_as_its_weight_alone(
    passage: tuple[str, ...], ask: Ask, capsys: pytest.CaptureFixture[str]
) -> None:
    one = _json(ask, capsys, *passage, "--aspect", "legato")
    assert _json(ask, capsys, *passage, "--like", "legato") == one
    assert _json(ask, capsys, *passage, "--aspects", " legato = 2 ") == one
    assert _json(ask, capsys, *passage, "--aspects", "legato=1,tempo=0") == one
    several = _json(ask, capsys, *passage, "--aspects", "legato=1,tempo=0.5")
    assert several != one
    assert _json(ask, capsys, *passage, "--like", "legato", "--like", "tempo=0.5") == several
    assert _json(ask, capsys, *passage) == _json(ask, capsys, *passage, "--like", "general")


def test_the_whole_question_on_the_command_line_and_as_json(
    ask: Ask, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    options = """--from 5 --to 10 --like contour=1 --like dynamics=0.5 --ignore tempo
        --less legato=0.2 --exclude recording --where composer=Bach0 --where composer=Bach2
        --dedupe 5 -k 3"""
    hits = _json(ask, capsys, *options.split())
    assert 0 < len(hits) <= 3
    assert {hit["recording_id"] for hit in hits} <= {"take0", "take2"}
    for hit in hits:
        assert set(hit["contributions"]) == {"contour", "dynamics", "legato"}
        assert sum(hit["contributions"].values()) == pytest.approx(hit["score"])
    question = {
        "recording_id": "take1",
        "start_s": 5,
        "end_s": 10,
        "like": {"contour": 1, "dynamics": 0.5},
        "ignore": ["tempo"],
        "less": {"legato": 0.2},
        "exclude": "recording",
        "where": {"composer": ["Bach0", "Bach2"]},
        "dedupe_s": 5,
        "k": 3,
    }
    path = tmp_path / "question.json"
    path.write_text(json.dumps(question))
    ask("--query", str(path), "--json")
    assert json.loads(capsys.readouterr().out) == hits
    ask("--clip", hits[0]["clip"], "--json", "-k", "1")
    again = json.loads(capsys.readouterr().out)
    assert (again[0]["clip"], again[0]["score"]) == (hits[0]["clip"], pytest.approx(1.0, abs=1e-5))


def test_explain_shows_what_the_scores_are_made_of(
    ask: Ask, capsys: pytest.CaptureFixture[str]
) -> None:
    ask("--recording", "take1", "--from", "5", "--like", "tempo", "--unlike", "legato", "--explain")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "passages like take1 from 0:05.0, by tempo, unlike in legato"
    header = next(line for line in lines if line.startswith("rank")).split()
    assert header[-2:] == ["tempo", "legato"]
    first = next(line for line in lines if line.split()[0] == "1").split()
    assert float(first[-2]) + float(first[-1]) == pytest.approx(float(first[1]), abs=0.0015)
    assert lines[-1] == "score = the sum of the columns with a sign"


def test_a_question_that_nothing_satisfies_says_so(
    ask: Ask, capsys: pytest.CaptureFixture[str]
) -> None:
    ask("--recording", "take1", "--from", "5", "--more", "legato=99")
    out = capsys.readouterr().out
    assert "more legato (by 99 steps)" in out
    assert "no row satisfies: more legato by 99 steps" in out
    assert "rank" not in out
    ask("--recording", "take1", "--where", "composer=Nobody")
    out = capsys.readouterr().out
    assert "nothing is left to search: no row of the index has composer=Nobody" in out


def test_features_from_a_file_are_searched_if_they_are_of_the_indexs_encoder(
    ask: Ask, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "passage.npz"

    def write(fingerprint: str, *, passage: bool) -> None:
        facts = {"encoder": {**ENCODER, "fingerprint": fingerprint}, "passage": passage}
        facts["window_s"] = 5.0
        np.savez(path, features=Corpus(120, seed=6).features[32:33], facts=json.dumps(facts))

    write("f1", passage=True)
    ask("--features", str(path), "-k", "1", "--json")
    hit = json.loads(capsys.readouterr().out)[0]
    assert (hit["recording_id"], hit["start_s"]) == ("take1", 5.0)
    write("f1", passage=False)
    ask("--features", str(path), "-k", "1", "--json")
    assert "start_s" not in json.loads(capsys.readouterr().out)[0]
    write("f2", passage=True)
    with pytest.raises(SearchError, match="fingerprint f2, the index by small with f1"):
        ask("--features", str(path))
    with pytest.raises(SearchError, match="give --from and --to to mess embed"):
        ask("--features", str(path), "--from", "5")
    for wrong in (b"no array", b""):
        path.write_bytes(wrong)
        with pytest.raises(SearchError, match="holds no features as `mess embed` writes them"):
            ask("--features", str(path))
    np.save(tmp_path / "plain.npy", np.ones(3))
    with pytest.raises(SearchError, match="holds no features"):
        ask("--features", str(tmp_path / "plain.npy"))


def test_a_query_has_the_whole_question(ask: Ask, tmp_path: Path) -> None:
    path = tmp_path / "question.json"
    path.write_text('{"recording_id": "take1"}')
    for options in (
        *(("-k", "3"), ("--like", "tempo"), ("--from", "5"), ("--exclude", "work")),
        *(("--same-passage",), ("--relative", "work"), ("--space", "content")),
    ):
        with pytest.raises(SearchError, match="--query has the whole question"):
            ask("--query", str(path), *options)


def test_what_is_excluded_by_default_and_by_choice(
    ask: Ask, capsys: pytest.CaptureFixture[str]
) -> None:
    def found(*options: str) -> set[str]:
        return {hit["recording_id"] for hit in _json(ask, capsys, "-k", "999", *options)}

    everything = {"take0", "take1", "take2", "take3"}
    assert found() == found("--from", "5", "--exclude", "recording") == everything - {"take1"}
    assert found("--exclude", "none") == found("--from", "5") == everything
    assert found("--exclude", "work") == {"take0", "take2"}


def test_the_same_passage_in_the_other_recordings_of_the_work(
    ask: Ask, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    options = ["--from", "21", "--to", "24.5", "--same-passage", "--like", "tempo", "--explain"]
    ask("--recording", "take1", *options)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "the same passage as take1 from 0:21.0 to 0:24.5, by tempo"
    header, row = lines[-4].split(), lines[-2].split()
    assert header[-3:] == ["performer", "times", "tempo"]
    assert row[2] == "take3"
    assert row[-5:-1] == ["0:42.0", "-", "0:49.0", "(same)"]
    assert float(row[-1]) == float(row[1])
    (hit,) = _json(ask, capsys, *options[:-1])
    assert (hit["start_s"], hit["end_s"]) == pytest.approx((42.0, 49.0))
    assert hit["same_passage"] is True
    path = tmp_path / "question.json"
    question = {"recording_id": "take1", "start_s": 21, "end_s": 24.5, "same_passage": True}
    path.write_text(json.dumps(question | {"like": {"tempo": 1}}))
    ask("--query", str(path), "--json")
    assert json.loads(capsys.readouterr().out) == [hit]


def test_the_passage_can_be_left_out(ask: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    hits = _json(ask, capsys, "--from", "20", "-k", "999")
    kept = _json(ask, capsys, "--from", "20", "-k", "999", "--exclude", "passage")
    assert len(hits) > len(kept) == len([hit for hit in hits if not hit["same_passage"]])
    assert "same_passage" not in _json(ask, capsys)[0]


def test_a_learned_space_takes_the_place_of_general(
    ask: Ask, capsys: pytest.CaptureFixture[str]
) -> None:
    start = ("--recording", "take1", "--from", "5", "--space")
    ask(*start, "content", "--explain")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "passages like take1 from 0:05.0, in content"
    assert lines[2].split()[-1] == "content"
    ask(*start, "content", "--like", "general=2", "--like", "tempo")
    assert capsys.readouterr().out.startswith(
        "passages like take1 from 0:05.0, by content=2, tempo=1\n"
    )
    with pytest.raises(SearchError, match="'expression' is not in this index, which has general"):
        ask(*start, "expression")


def test_relative_to_the_work(ask: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    ask("--recording", "take1", "--relative", "work", "--like", "tempo", "--exclude", "none")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "recordings like take1, by tempo, relative to the work"
    # The two recordings of a work are on both sides of their mean.
    scores = {line.split()[2]: float(line.split()[1]) for line in lines if "Prelude" in line}
    assert scores["take1"] == 1.0
    assert scores["take3"] == min(scores.values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--same-passage",), "give a recording and a start, or a clip"),
        (
            ("--from", "5", "--same-passage", "--exclude", "passage"),
            "its passage cannot be",
        ),
        (("--exclude", "passage"), "an index of recordings; exclude 'recording' or 'work'"),
        (("--to", "5"), "--to needs --from"),
        (("--aspects", "legato"), "'legato', expected NAME=WEIGHT"),
        (("--aspects", "legato=much"), "expected NAME=WEIGHT"),
        (("--aspects", ""), "expected NAME=WEIGHT"),
        (("--aspects", "legato=1,legato=2"), "names 'legato' twice"),
        (("--aspects", "leggato=1"), "did you mean 'legato'"),
        (("--like", "legato=much"), "expected NAME=WEIGHT"),
        (("--like", "tempo", "--ignore", "tempo"), "contradict"),
        (("--more", "contour"), "no more or less of 'contour'"),
        (("--where", "composer"), "expected COLUMN=VALUE"),
        (("--where", "key=C"), "no column 'key'"),
        (("--from", "100"), "no passage of recording take1"),
        (("-k", "0"), "k is 0"),
    ],
)
def test_questions_that_make_no_sense_are_refused(
    options: tuple[str, ...], message: str, ask: Ask
) -> None:
    with pytest.raises(SearchError, match=message):
        ask("--recording", "take1", *options)


def test_words_are_told_before_the_hits(ask: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask("--words", "ppp but presto, as in Paris", "-k", "3", "--explain") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("understood: dynamics -1 but tempo +")
    assert lines[0].endswith("not understood: 'Paris'")
    assert lines[1].startswith("passages that are dynamics -1 but tempo +")
    assert any(line.endswith("wish 1   wish 2") for line in lines)
    assert len([line for line in lines if "take" in line]) == 3
    assert lines[-1].startswith("score = the smallest share")


def test_words_and_wishes_ask_the_same_and_json_stays_json(
    ask: Ask, capsys: pytest.CaptureFixture[str]
) -> None:
    start = ("--recording", "take1", "--from", "20", "--to", "25", "--json")
    ask(*start, "--words", "ppp, more tempo")
    told = capsys.readouterr()
    assert told.err.startswith("understood: dynamics -1; more tempo 1")
    ask(*start, "--wish", "dynamics=-1", "--more", "tempo")
    assert json.loads(told.out) == json.loads(capsys.readouterr().out)
    assert json.loads(told.out)[0]["percentiles"].keys() == {"likeness", "wish 1"}


def test_a_question_starts_from_something_or_wishes(ask: Ask) -> None:
    with pytest.raises(SearchError, match="nothing says what to search: give --recording"):
        ask("--like", "tempo")
    with pytest.raises(SearchError, match="'same tempo' has nothing to be compared with"):
        ask("--words", "same tempo")
    with pytest.raises(SearchError, match="put --words, --wish into it"):
        ask("--query", "q.json", "--words", "slow", "--wish", "tempo=1")


def test_the_dataset_must_be_named_where_there_are_several(
    ask: Ask, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _publish(tmp_path, "recordings", "other", trained=True)
    with pytest.raises(SearchError, match=r"several datasets.*\['demo', 'other'\]"):
        ask("--recording", "take1")
    ask("--recording", "take1", "--dataset", "other")
    assert "untrained" not in capsys.readouterr().out
    with pytest.raises(ArtifactError, match="nothing was published there"):
        ask("--recording", "take1", "--dataset", "third")
    with pytest.raises(SearchError, match=r"nothing is published at .*make demo"):
        ask("--recording", "take1", "--artifacts", str(tmp_path / "empty"))


@pytest.mark.parametrize("content", ["[]", "{", '{"lke": {}}'])
def test_a_query_file_that_is_none_is_refused(content: str, ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "query.json").write_text(content)
    with pytest.raises(SearchError, match="query"):
        ask("--query", str(tmp_path / "query.json"))
    with pytest.raises(SearchError, match=r"nowhere\.json is no query that can be read"):
        ask("--query", str(tmp_path / "nowhere.json"))


def test_names_with_accents_are_printed_where_the_terminal_is_ascii(tmp_path: Path) -> None:
    _publish(tmp_path, "recordings", "demo", trained=False, performer="Zoë")
    command = [sys.executable, "-m", "mess_core.cli.main", "search", "--recording", "take1"]
    command += ["--artifacts", str(tmp_path / "published")]
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert r"Zo\xeb" in done.stdout
