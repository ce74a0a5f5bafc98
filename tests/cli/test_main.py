"""The command line: what it prints, what it leaves, how it fails."""

import sys
from importlib.metadata import version
from pathlib import Path

import mido
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
    window = ("--window", "0:05.5")
    assert cli.main(["recordings", "--folder", "corpus", "--name", "mine", *window]) == 0
    printed = capsys.readouterr()
    assert "1 of 2 recordings usable" in printed.out
    assert "b: too_short: corpus/b.wav: lasts 0.30 s, shorter than one window of 5.5" in printed.out
    assert "snakemake --config dataset=mine" in printed.out
    assert "note: only 1 work (a): aspects need at least 3, with fewer" in printed.out
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
        (["recordings", "."], "say `mess recordings --folder . --name NAME`"),
        (["recordings", "mastro"], "did you mean 'maestro'?"),
        (["render", ".", "--output", "out"], "holds no MIDI files"),
        (["tour", "--dataset", "demo"], "demo has no finished run here"),
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


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"mess {version('mess-core')}\n"


@pytest.mark.parametrize("window", ["0", "-1", "nan", "inf", "5s"])
def test_windows_without_a_length_are_refused(
    window: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        cli.main(["recordings", "demo", "--window", window])
    assert "argument --window: " in capsys.readouterr().err


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
    for name, tempo, late in (("still", 0, 0), ("late", 500_000, 78 * 3600 * 2)):
        track = mido.MidiTrack(
            [
                mido.MetaMessage("set_tempo", tempo=tempo),
                mido.Message("note_on", note=60),
                mido.Message("note_off", note=60, time=480),
                mido.Message("control_change", control=64, time=late * 480),
            ]
        )
        mido.MidiFile(ticks_per_beat=480, tracks=[track]).save(tmp_path / "in" / f"{name}.mid")
    out = tmp_path / "out"
    assert cli.main(["render", str(tmp_path / "in"), "--output", str(out)]) == 1
    printed = capsys.readouterr()
    assert "1 of 4 files rendered" in printed.out
    assert "bad.mid" in printed.err
    assert "still.mid has a tempo of 0 microseconds per beat" in printed.err
    assert "late.mid lasts 78.0 hours, at most 3 can be rendered" in printed.err
    assert [path.name for path in out.iterdir()] == ["sub"]  # a work's folder stays one
    assert soundfile.info(out / "sub" / "good one.wav").samplerate == 44_100
    sub = str(tmp_path / "in" / "sub")
    assert cli.main(["render", sub, f"{sub}/good one.mid", "--output", str(out)]) == 1
    assert "would both become" in capsys.readouterr().err
