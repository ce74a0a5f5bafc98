"""The command line: what it prints, what it leaves, how it fails."""

import sys
from pathlib import Path

import pretty_midi
import pytest
import soundfile

from mess_core.cli import main as cli
from mess_core.recordings import read_recordings
from tests.conftest import WriteTone

pytestmark = pytest.mark.unit


def test_recordings_scans_a_folder_and_says_what_is_next(
    tmp_path: Path,
    write_tone: WriteTone,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write_tone("corpus/a.wav")
    write_tone("corpus/b.wav", seconds=0.3)
    assert cli.main(["recordings", "--folder", "corpus", "--name", "mine"]) == 0
    printed = capsys.readouterr()
    assert "1 of 2 recordings usable" in printed.out
    assert "  b: too_short: corpus/b.wav: lasts 0.30 s" in printed.out
    assert "snakemake --config dataset=mine" in printed.out
    assert "2/2 recordings" in printed.err
    rows = read_recordings(tmp_path / "data" / "metadata" / "mine.tsv")
    assert [r.audio for r in rows] == ["corpus/a.wav", "corpus/b.wav"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["recordings"], "say either a registered dataset (demo, maestro, smd)"),
        (["recordings", "smd", "--name", "x"], "say either a registered dataset"),
        (["recordings", "--folder", "none"], "say either a registered dataset"),
        (["recordings", "--folder", "none", "--name", "x"], "neither a folder nor a table"),
        (["recordings", "mastro"], "did you mean 'maestro'?"),
        (["render", ".", "--output", "out"], "holds no MIDI files"),
        (["tour", "--dataset", "demo"], "published.json does not exist"),
        (["search", "--recording", "x"], "nothing is published at data/published"),
    ],
)
def test_mistakes_get_one_line_and_status_1(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == 1
    printed = capsys.readouterr().err
    assert printed.startswith(f"mess {arguments[0]}: ")
    assert message in printed
    assert len(printed.splitlines()) == 1


def test_a_missing_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # What an import of a library that is not installed raises.
    monkeypatch.setitem(sys.modules, "mess_core.datasets", None)
    assert cli.main(["recordings", "demo"]) == 1
    assert "[extract,analysis]" in capsys.readouterr().err


def test_render_reports_bad_files_and_makes_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    midi, piano = pretty_midi.PrettyMIDI(), pretty_midi.Instrument(0)
    piano.notes.append(pretty_midi.Note(80, 60, 0.0, 1.0))
    midi.instruments.append(piano)
    (tmp_path / "in" / "sub").mkdir(parents=True)
    midi.write(str(tmp_path / "in" / "sub" / "good one.mid"))
    (tmp_path / "in" / "bad.mid").write_bytes(b"no MIDI")
    out = tmp_path / "out"
    assert cli.main(["render", str(tmp_path / "in"), "--output", str(out)]) == 1
    printed = capsys.readouterr()
    assert "1 of 2 files rendered" in printed.out
    assert "bad.mid" in printed.err
    assert [path.name for path in out.iterdir()] == ["sub__good_one.wav"]
    assert soundfile.info(out / "sub__good_one.wav").samplerate == 44_100
