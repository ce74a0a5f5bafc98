"""One set of contract tests over every dataset, and each dataset's own reading."""

import csv
from collections.abc import Sequence
from pathlib import Path

import pytest

from mess_core.datasets.base import (
    BaseDataset,
    Source,
    distinct_ids,
    resolve_midi_path,
    safe_id,
)
from mess_core.datasets.corpora import MAESTRODataset, SMDDataset
from mess_core.datasets.lookup import DatasetFactory, FolderDataset
from mess_core.errors import DatasetError

pytestmark = pytest.mark.unit


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


@pytest.mark.parametrize("name", DatasetFactory.get_available_datasets())
def test_every_dataset_says_what_it_is_and_where_its_files_belong(
    tmp_path: Path, name: str
) -> None:
    dataset = DatasetFactory.get_dataset(name, data=tmp_path)
    assert dataset.name == name
    assert dataset.root == tmp_path / "audio" / name
    assert dataset.licence
    assert dataset.citation
    assert dataset.layout
    with pytest.raises(DatasetError, match=f"audio/{name}.*is (expected|made) as"):
        dataset.sources()


@pytest.mark.parametrize(
    ("folder", "wavs"),
    [
        (".", ["wav-44"]),
        # As the archives of Zenodo unpack.
        ("SMD-piano_v2", ["wav_44100_stereo", "wav_22050_mono", "midi_wav_22050_mono"]),
    ],
)
def test_smd_is_read_from_its_file_names(tmp_path: Path, folder: str, wavs: list[str]) -> None:
    root = tmp_path / "audio" / "smd" / folder
    for name in ("Bach_BWV849-01_001_20090916-SMD", "Chopin_Op028-01_003_20100611-SMD"):
        for wav in wavs:
            touch(root / wav / f"{name}.wav")
    midi = touch(root / "midi" / "Bach_BWV849-01_001_20090916-SMD.mid")
    bach, chopin = SMDDataset(tmp_path).sources()
    assert bach.audio.parent == root / wavs[0]
    assert bach.recording_id == "Bach_BWV849-01_001_20090916-SMD"
    assert (bach.work_id, bach.composer, bach.performer) == ("Bach_BWV849-01", "Bach", "001")
    assert (bach.title, bach.midi, chopin.midi) == ("BWV849-01", midi, None)


@pytest.mark.parametrize("folder", [".", "maestro-v3.0.0"])
def test_maestro_is_read_from_its_csv(tmp_path: Path, folder: str) -> None:
    root = tmp_path / "audio" / "maestro" / folder
    root.mkdir(parents=True)
    rows = [
        ("Frédéric Chopin", "Ballade No. 1", "train", "2018", "2018/a.midi", "2018/a.wav", "60.5"),
        ("Frédéric Chopin", "Ballade No. 1", "test", "2017", "2017/a.midi", "2017/a.wav", "61"),
    ]
    with (root / "maestro-v3.0.0.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        names = ["canonical_composer", "canonical_title", "split", "year"]
        writer.writerow([*names, "midi_filename", "audio_filename", "duration"])
        writer.writerows(rows)
    first, second = MAESTRODataset(tmp_path).sources()
    assert (first.recording_id, second.recording_id) == ("2018__a", "2017__a")
    assert first.work_id == second.work_id == "Frederic_Chopin_Ballade_No._1"
    assert (first.composer, first.title) == ("Frédéric Chopin", "Ballade No. 1")
    assert (first.split, second.split) == ("train", "test")
    assert first.audio == root / "2018" / "a.wav"
    assert first.midi == root / "2018" / "a.midi"


def test_a_foreign_csv_is_refused(tmp_path: Path) -> None:
    touch(tmp_path / "audio" / "maestro" / "maestro-v3.0.0.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DatasetError, match="has no column audio_filename, canonical"):
        MAESTRODataset(tmp_path).sources()


def test_a_folder_gives_every_file_an_identity(tmp_path: Path) -> None:
    names = ("x/same.wav", "y/same.flac", "y/other.MP3", "top.ogg", ".trash/no.wav", "a.txt")
    # What libsndfile does not read is listed, and takes neither an id nor MIDI from what is read.
    for name in (*names, "y/same.m4a", "y/same.webm", "x__y/a.wav", "x/y/a.au", "x/y/b.AIFC"):
        touch(tmp_path / name)
    midi = touch(tmp_path / "y" / "same.midi")
    sources = FolderDataset("mine", tmp_path).sources()
    ids = {s.recording_id: s.work_id for s in sources if "x__y" not in s.recording_id}
    assert ids == {
        "top": "top",
        "y__same.m4a": "y",
        "y__same.webm": "y",
        "x__same": "x",
        "y__other": "y",
        "y__same": "y",
    }
    assert [s.midi for s in sources if s.midi] == [midi]
    # The folders x/y and x__y are two works.
    others = [(s.recording_id, s.work_id) for s in sources if s.recording_id not in ids]
    assert [len(set(column)) for column in zip(*others, strict=True)] == [3, 2]


@pytest.mark.parametrize(
    "place", ["audio/a.mid", "audio/a.midi", "audio/a.MID", "audio/midi/a.mid", "midi/a.mid"]
)
def test_midi_is_found_beside_the_audio(tmp_path: Path, place: str) -> None:
    audio = tmp_path / "audio" / "a.wav"
    assert resolve_midi_path(audio) is None
    midi = touch(tmp_path / place)
    assert resolve_midi_path(audio) == midi


def test_midi_that_several_recordings_would_claim_is_used_by_none(tmp_path: Path) -> None:
    for name in ("w1/take.wav", "w2/take.wav", "w1/own.wav", "midi/take.mid", "midi/own.mid"):
        touch(tmp_path / name)
    midis = {s.recording_id: s.midi for s in FolderDataset("mine", tmp_path).sources()}
    own = tmp_path / "midi" / "own.mid"
    assert midis == {"w1__take": None, "w2__take": None, "w1__own": own}


def test_an_empty_or_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="holds no audio"):
        FolderDataset("mine", tmp_path).sources()
    with pytest.raises(DatasetError, match="is not a folder"):
        FolderDataset("mine", tmp_path / "none").sources()


@pytest.mark.parametrize(("suffix", "separator"), [(".tsv", "\t"), (".csv", ",")])
def test_a_table_gives_identities_and_paths_beside_itself(
    tmp_path: Path, suffix: str, separator: str
) -> None:
    table = tmp_path / f"list{suffix}"
    rows = [
        ["audio", "recording_id", "work_id", "performer", "midi"],
        ["sub/a.wav", "A 1", "sonata", "Ann", "m.mid"],
        ["b.wav", "", "", "", ""],
    ]
    table.write_text("\n".join(separator.join(row) for row in rows) + "\n")
    first, second = DatasetFactory.create_dataset("mine", table).sources()
    assert first == Source(
        recording_id="A_1",
        work_id="sonata",
        audio=tmp_path / "sub" / "a.wav",
        midi=tmp_path / "m.mid",
        performer="Ann",
    )
    assert (second.recording_id, second.work_id, second.midi) == ("b", "b", None)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("file\nx.wav\n", "has no column audio, only \\['file'\\]"),
        ("", "has no column audio"),
        ("audio\twork_id\n\tw\n", "line 2: nothing under audio"),
        ('audio\ttitle\na.wav\tok\nb.wav\t"open\nc.wav\tx\n', "line 4: unexpected end of data"),
        (
            'audio\ttitle\na.wav\t"open\nb.wav\tclosed"\n',
            "line 3: a line break in a cell",
        ),
        ('audio\ttitle\na.wav\t"so" called\n', "line 2: '\\t' expected after '\"'"),
        ("audio\ttitle\n\na.wav\tx\ty\n", "line 3: 3 cells under 2 columns"),
        (f"audio\ttitle\na.wav\t{'x' * 200_000}\n", "line 2: field larger than field limit"),
        (b"\xff\xfe\x00audio", "cannot be read as UTF-8"),
    ],
)
def test_tables_that_are_not_what_they_should_be_are_refused_with_the_line(
    tmp_path: Path, content: str | bytes, message: str
) -> None:
    table = tmp_path / "list.tsv"
    table.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DatasetError, match=message):
        DatasetFactory.create_dataset("mine", table).sources()


def test_a_table_has_all_its_rows_whatever_its_titles_hold(tmp_path: Path) -> None:
    table = tmp_path / "list.tsv"
    titles = ["a\u2028b", "a\x0bb", "a\x85b", 'the "1st"', "last"]
    rows = [f"{i}.wav\t{title}" for i, title in enumerate(titles)]
    table.write_text("\r\n".join(["audio\ttitle", *rows]), newline="")
    assert [s.title for s in DatasetFactory.create_dataset("mine", table).sources()] == titles


@pytest.mark.parametrize(
    "names",
    [
        ["Prelude in C", "Prelude in C#", "Prelude in C♯m", "Prelude in C-sharp"],
        ["in B", "in B♭", "in B♮"],
        ["a b", "a_b", "a/b", "a?b"],
        ["Für Elise", "Fur Elise", "FUR ELISE"],
        ["夜想曲", "夜曲", "Ноктюрн", "ноктюрн"],
    ],
)
def test_distinct_works_stay_distinct(tmp_path: Path, names: list[str]) -> None:
    table = tmp_path / "list.tsv"
    rows = [f"{take}{i}.wav\t{name}" for i, name in enumerate(names) for take in "ab"]
    table.write_text("\n".join(["audio\twork_id", *rows]))
    works = [s.work_id for s in DatasetFactory.create_dataset("mine", table).sources()]
    assert works[::2] == works[1::2]
    assert len({work.lower() for work in works}) == len(names)


@pytest.mark.parametrize(
    ("name", "readable"),
    [
        ("Łódź, Prélude in C♯", "Lodz_Prelude_in_C-sharp"),
        ("Шопен: Ноктюрн", "Shopen_Noktyurn"),
        ("夜想曲", "YeXiangQu"),
    ],
)
def test_ids_of_names_in_any_script_can_be_read(name: str, readable: str) -> None:
    assert safe_id(name) == readable


def test_one_name_is_one_work_however_its_accents_are_stored() -> None:
    one, other = distinct_ids(["Pr\u00e9lude ", "Pre\u0301lude"])
    assert one == other == "Prelude"


class Registered(BaseDataset):
    name = "registered-in-a-test"
    licence = "none"
    citation = "none"
    layout = "nothing"

    def sources(self) -> Sequence[Source]:
        return []


def test_a_class_can_be_registered_and_looked_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DatasetFactory, "_registered", {})
    assert DatasetFactory.register_dataset(Registered) is Registered
    assert DatasetFactory.register_dataset(Registered) is Registered
    assert Registered.name in DatasetFactory.get_available_datasets()
    assert isinstance(DatasetFactory.get_dataset(Registered.name, data=tmp_path), Registered)

    class Taken(Registered):
        name = "smd"

    with pytest.raises(DatasetError, match="'smd' is taken"):
        DatasetFactory.register_dataset(Taken)
    with pytest.raises(DatasetError, match="no subclass of BaseDataset"):
        DatasetFactory.register_dataset(str)  # type: ignore[arg-type]


def test_unknown_names_name_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="did you mean 'maestro'"):
        DatasetFactory.get_dataset("mastro")
    with pytest.raises(DatasetError, match="registered dataset; choose another"):
        DatasetFactory.create_dataset("smd", tmp_path)
    for name in ("../x", "x-untrained"):
        with pytest.raises(DatasetError, match="cannot name a dataset"):
            DatasetFactory.create_dataset(name, tmp_path)
    with pytest.raises(DatasetError, match="neither a folder nor a table"):
        DatasetFactory.create_dataset("mine", tmp_path / "none")
