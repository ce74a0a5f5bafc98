import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mess_core.artifacts.artifact import save_artifact
from mess_core.artifacts.index import Row, build_index
from mess_core.artifacts.publishing import publish
from mess_core.cli_search import add_parser, run
from mess_core.errors import ArtifactError, SearchError

pytestmark = pytest.mark.unit

ASPECTS = {
    "min_r2": 0.3,
    "aspects": {
        name: {"resolved": True, "layer": layer, "r2": 0.9, "finding": "not validated: why"}
        for layer, name in enumerate(("tempo", "rubato"))
    },
}

Ask = Callable[..., int]


def _publish(root: Path, kind: str, dataset: str, *, trained: bool) -> None:
    windows = 1 if kind == "recordings" else 30
    rows = [
        Row(f"take{i}", f"w{i % 2}", "Ada", "Bach", "Prelude", "", 2.5 * n, 2.5 * n + 5)
        for i in range(4)
        for n in range(windows)
    ]
    index = build_index(
        np.random.default_rng(6).normal(size=(len(rows), 2, 8)),
        rows,
        kind=kind,
        layers=[0, 1],
        aspects=ASPECTS,
        facts={"dataset": dataset, "encoder": {"name": "small", "trained": trained}},
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
    assert lines[1].startswith("encoder: small (untrained: results show the mechanism, not")
    assert lines[2].split() == ["rank", "score", "recording", "work", "performer"]
    assert len(lines) == 6
    assert lines[4].split()[0] == "1"
    assert "Bach: Prelude" in lines[4]
    assert "take1" not in lines[4] + lines[5]
    assert lines[2].index("work") == lines[4].index("Bach") == lines[5].index("Bach")


def test_an_aspect_comes_with_how_well_it_is_known(
    ask: Ask, capsys: pytest.CaptureFixture[str]
) -> None:
    ask("--recording", "take1", "--aspects", "rubato=0.7,tempo=0.3")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "recordings like take1, by rubato=0.7, tempo=0.3"
    assert lines[1] == "rubato: layer 1, R2 0.90 within works, not validated: why"
    assert lines[2] == "tempo: layer 0, R2 0.90 within works, not validated: why"


def test_times_of_clips_are_minutes_and_seconds(
    ask: Ask, capsys: pytest.CaptureFixture[str]
) -> None:
    ask("--recording", "take1", "--from", "57.5", "--to", "62.5", "-k", "1")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("passages like take1 from 0:57.5 to 1:02.5, in general")
    assert lines[-1].split()[:3] == ["1", "1.000", "take1"]
    assert lines[-1].endswith("0:57.5 - 1:02.5")


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
    one = _json(ask, capsys, *passage, "--aspect", "rubato")
    assert _json(ask, capsys, *passage, "--aspects", " rubato = 2 ") == one
    assert _json(ask, capsys, *passage, "--aspects", "rubato=1,tempo=0") == one
    assert _json(ask, capsys, *passage, "--aspects", "rubato=1,tempo=1") != one
    assert _json(ask, capsys, *passage) == _json(
        ask, capsys, *passage, "--aspects", "rubato=1,tempo=1"
    )


def test_what_is_excluded_by_default_and_by_choice(
    ask: Ask, capsys: pytest.CaptureFixture[str]
) -> None:
    def found(*options: str) -> set[str]:
        return {hit["recording_id"] for hit in _json(ask, capsys, "-k", "999", *options)}

    everything = {"take0", "take1", "take2", "take3"}
    assert found() == found("--from", "5", "--exclude", "recording") == everything - {"take1"}
    assert found("--exclude", "none") == found("--from", "5") == everything
    assert found("--exclude", "work") == {"take0", "take2"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--to", "5"), "--to needs --from"),
        (("--aspects", "rubato"), "'rubato', expected NAME=WEIGHT"),
        (("--aspects", "rubato=much"), "expected NAME=WEIGHT"),
        (("--aspects", "rubato=1,rubato=2"), "names 'rubato' twice"),
        (("--aspects", "rubatto=1"), "did you mean 'rubato'"),
        (("--from", "100"), "no passage of recording take1"),
        (("-k", "0"), "k is 0"),
    ],
)
def test_questions_that_make_no_sense_are_refused(
    options: tuple[str, ...], message: str, ask: Ask
) -> None:
    with pytest.raises(SearchError, match=message):
        ask("--recording", "take1", *options)


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


def test_a_place_with_nothing_says_what_to_do(ask: Ask, tmp_path: Path) -> None:
    with pytest.raises(SearchError, match=r"nothing is published at .*make demo"):
        ask("--recording", "take1", "--artifacts", str(tmp_path / "empty"))


def test_no_hits_are_said(ask: Ask, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    rows = [Row(f"t{i}", "w", "", "", "", "", 0, 1) for i in range(2)]
    features = np.random.default_rng(0).normal(size=(2, 1, 4))
    index = build_index(
        features, rows, kind="recordings", layers=[0], aspects={}, facts={"dataset": "tiny"}
    )
    publish(save_artifact(index, tmp_path / "indices"), str(tmp_path / "published"))
    ask("--recording", "t0", "--dataset", "tiny", "--exclude", "work")
    assert "no hits" in capsys.readouterr().out


def test_the_command_line_is_light_until_it_searches() -> None:
    code = (
        "import argparse, sys; from mess_core.cli_search import add_parser; "
        "add_parser(argparse.ArgumentParser().add_subparsers()); "
        "print({'numpy', 'faiss', 'boto3'} & set(sys.modules))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "set()"
