"""`mess landmarks` and `mess search --landmark climax`, on rendered swells."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mess_core.cli.main import main
from mess_core.extraction.audio import Floats
from mess_core.files import file_sha256
from mess_core.layout import Layout
from mess_core.recordings import Recording, write_recordings
from tests.alignment.swells import CHORDS, RATE, render, steady, swell

pytestmark = pytest.mark.unit


def sudden(t: float) -> float:
    """Rise within a second to the peak at 20 s, and fall over ten."""
    return float(45 + 40 * (np.exp(-((t - 20) ** 2)) if t < 20 else np.exp(-(t - 20) / 5)))


@pytest.fixture(scope="module")
def played() -> dict[str, Floats]:
    """Two slow swells, a sudden one and nothing of the kind."""
    velocities = {"asked": swell(14, 40), "like": swell(16, 30), "flat": swell(0, 0)}
    velocities["sudden"] = sudden
    return {name: render(steady(CHORDS, 0.5, 0.2, 32, v)) for name, v in velocities.items()}


@pytest.fixture
def data(tmp_path: Path, played: dict[str, Floats]) -> Path:
    rows = []
    for name, samples in played.items():
        audio = tmp_path / f"{name}.wav"
        soundfile.write(audio, samples, RATE)
        texts = (name, name, "", "", "", "", str(audio), "", "", file_sha256(audio), "", "")
        rows.append(Recording(*texts, 33.0, "ok", ""))
    write_recordings(Layout(tmp_path, "demo").table, rows)
    return tmp_path


def ask(data: Path, *arguments: str) -> int:
    return main([*arguments, "--data", str(data)])


SEARCH = ("search", "--recording", "asked", "--from", "0:10", "--landmark", "climax")


def test_landmarks_are_listed_and_drawn(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = data / "asked.png"
    assert ask(data, "landmarks", "--recording", "asked", "--picture", str(picture)) == 0
    listed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[1] for line in listed].count("climax") == 1
    assert picture.stat().st_size > 10_000
    assert ask(data, "landmarks", "--recording", "asked", "--json") == 0
    (climax,) = (
        place for place in json.loads(capsys.readouterr().out) if place["kind"] == "climax"
    )
    assert climax["time_s"] == pytest.approx(14, abs=1)
    assert climax["build_up"][0] == 0
    assert climax["build_up"][-1] == 1


def test_a_climax_with_such_a_build_up_is_found_first(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(data, *SEARCH, "--like", "build_up", "--json") == 0
    hits = json.loads(capsys.readouterr().out)
    assert [hit["recording"] for hit in hits] == ["like", "sudden"]
    assert hits[0]["time_s"] == pytest.approx(16, abs=1)


def test_what_is_known_is_not_computed_again_and_a_bad_file_stops_nothing(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "sudden.wav").write_bytes(b"changed")
    assert ask(data, *SEARCH) == 0
    captured = capsys.readouterr()
    assert "like" in captured.out
    assert "left out: sudden: DatasetError" in captured.err
    for audio in data.glob("*.wav"):
        audio.unlink()
    assert ask(data, *SEARCH) == 0
    assert capsys.readouterr().out == captured.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--like", "tempo"), "--like one of build_up, release"),
        (("-k", "0"), "k is 0, expected a whole number of at least 1"),
        (("--more", "tempo", "--same-passage"), "leave out --more, --same-passage"),
    ],
)
def test_what_climaxes_cannot_answer_is_refused(
    data: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    assert ask(data, *SEARCH, *arguments) == 1
    assert said in capsys.readouterr().err


def test_a_flat_recording_has_no_climax_to_ask_for(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(data, "search", "--recording", "flat", "--from", "3", "--landmark", "climax") == 1
    assert "flat has no climax" in capsys.readouterr().err
