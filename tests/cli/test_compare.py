"""`mess compare`, `mess work` and `mess stretch` on a work that is made by hand."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mess_core.cli.main import main
from mess_core.files import write_json
from mess_core.layout import Layout
from mess_core.recordings import Recording, write_recordings
from tests.alignment.works import played, steady, stretched

pytestmark = pytest.mark.unit

COMMANDS = (
    ["compare", "ann", "ben"],
    ["work", "w"],
    ["stretch", "--recording", "ben", "--from", "0:20", "--to", "24"],
)


@pytest.fixture
def place(tmp_path: Path) -> list[str]:
    """Write a work of four performances and return the options that name the place."""
    layout = Layout(tmp_path, "mine")
    rows = [("ann", "w"), ("ben", "w"), ("cid", "w"), ("dan", "w"), ("eve", "w"), ("odd", "v")]
    recordings = [
        Recording(name, work, "", "", "", "", f"{name}.wav", "", "", "", "", "", 65.0, "ok", "")
        for name, work in rows
    ]
    write_recordings(layout.table, recordings)
    maps = {"ann": played(stretched(1.25, 20, 24)), "ben": played(steady())}
    maps |= {"cid": played(steady(0.1)), "dan": played(steady(), gap=(20, 30))}
    layout.alignments_manifest.parent.mkdir(parents=True)
    for name, each in maps.items():
        beats = each.to_recording(np.arange(0, 60, 0.5))
        errors = np.full(len(each.times), 0.002)
        arrays: dict[str, Any] = dict(replace(each, beats=beats, errors=errors).arrays())
        targets = {"relative_tempo": 0.1, "timing_deviation": np.nan, "relative_loudness": -1.0}
        arrays |= {f"expression/{target}": value for target, value in targets.items()}
        np.savez(layout.alignment(name), **arrays)
    facts: dict[str, Any] = {"reference": "ben", "beats_from": "ben"}
    facts |= {"sources": dict.fromkeys(maps, "midi"), "share": dict.fromkeys(maps, 1.0)}
    facts["beats"] = dict.fromkeys(maps, "annotated")
    left_out = {"eve": "plays something else"}
    write_json(layout.alignments_manifest, {"works": {"w": facts | {"left_out": left_out}}})
    return ["--data", str(tmp_path), "--dataset", "mine"]


def test_what_was_planted_is_told(place: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    for command in COMMANDS:
        assert main(command + place) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "A takes 2" in told
    assert "1 +25.0 % 0.1 ann 0:20.0 0:25.0" in told
    assert "left out: dan: does not play all of the passage" in told
    assert "left out: eve: plays something else" in told
    assert (
        "dan from 0:20.0 to 0:20.5 is not aligned: it has 0.5 s where the reference has 10 s"
        in told
    )
    assert "beats: ben" in told
    assert "cid midi 100% +10.5 % - -1.0 dB" in told


def test_what_only_one_plays_is_no_tempo(
    place: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", "ben", "dan", *place]) == 0
    assert "A is 0.0 % slower than B where both play" in capsys.readouterr().out


def test_json_has_it_all(place: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    answers: list[dict[str, Any]] = []
    for command in COMMANDS:
        assert main([*command, *place, "--json"]) == 0
        answers.append(json.loads(capsys.readouterr().out))
    compared, work, ranking = answers
    assert len(compared["work_times"]) == len(compared["bpm"][0]) == 61
    assert compared["bpm"][1][30] == pytest.approx(120)
    assert compared["bpm"][0][22] == pytest.approx(96, abs=0.1)
    assert compared["pedal"][0][22] is None
    assert {each["recording_id"] for each in work["performances"]} == {"ann", "ben", "cid", "dan"}
    assert [row["rank"] for row in ranking["rows"]] == [1, 2, 2]
    assert ranking["rows"][0]["stretch"] == pytest.approx(np.log(1.25), abs=0.001)


def test_pictures_are_drawn(place: list[str], tmp_path: Path) -> None:
    for number, command in enumerate(COMMANDS):
        picture = tmp_path / f"{number}.png"
        assert main([*command, *place, "--picture", str(picture)]) == 0
        with Image.open(picture) as image:
            assert image.width == 1500


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["compare", "ann", "odd"], "'odd' is no aligned performance of w: known: ann, ben, cid"),
        (["compare", "ann1", "ben"], "mine has no recording 'ann1': did you mean 'ann'?"),
        (["compare", "ann", "eve"], "eve is left out of w: plays something else"),
        (["compare", "ann", "ben", "--from", "70"], "nothing to compare there: ann is aligned"),
        (["work", "v"], "no aligned performances of 'v'"),
    ],
)
def test_errors_say_what_is_wrong(
    place: list[str], capsys: pytest.CaptureFixture[str], command: list[str], message: str
) -> None:
    assert main(command + place) == 1
    assert message in capsys.readouterr().err
