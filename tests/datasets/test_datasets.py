"""One set of contract tests over every dataset, and each dataset's own reading."""

import csv
from collections.abc import Sequence
from pathlib import Path

import pytest

from mess_core.datasets.base import BaseDataset, Source, resolve_midi_path, safe_id, unique_ids
from mess_core.datasets.folder import FolderDataset
from mess_core.datasets.lookup import DatasetFactory
from mess_core.datasets.maestro import MAESTRODataset
from mess_core.datasets.smd import SMDDataset
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


def test_smd_is_read_from_its_file_names(tmp_path: Path) -> None:
    root = tmp_path / "audio" / "smd"
    for name in ("Bach_BWV849-01_001_20090916-SMD", "Chopin_Op028-01_003_20100611-SMD"):
        touch(root / "wav-44" / f"{name}.wav")
    midi = touch(root / "midi" / "Bach_BWV849-01_001_20090916-SMD.mid")
    bach, chopin = SMDDataset(tmp_path).sources()
    assert bach.recording_id == "Bach_BWV849-01_001_20090916-SMD"
    assert (bach.work_id, bach.composer, bach.performer) == ("Bach_BWV849-01", "Bach", "001")
    assert (bach.title, bach.midi, chopin.midi) == ("BWV849-01", midi, None)


def test_maestro_is_read_from_its_csv(tmp_path: Path) -> None:
    root = tmp_path / "audio" / "maestro"
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
    with pytest.raises(DatasetError, match=r"lacks the columns \['audio_filename'"):
        MAESTRODataset(tmp_path).sources()


def test_a_folder_gives_every_file_an_identity(tmp_path: Path) -> None:
    for name in ("x/same.wav", "y/same.flac", "y/other.MP3", "top.ogg", ".trash/no.wav", "a.txt"):
        touch(tmp_path / name)
    midi = touch(tmp_path / "y" / "same.midi")
    sources = FolderDataset("mine", tmp_path).sources()
    assert {s.recording_id: s.work_id for s in sources} == {
        "top": "top",
        "x__same": "x",
        "y__other": "y",
        "y__same": "y",
    }
    assert [s.midi for s in sources if s.midi] == [midi]


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


def test_tables_that_say_too_little_are_refused(tmp_path: Path) -> None:
    table = tmp_path / "list.tsv"
    table.write_text("file\nx.wav\n")
    with pytest.raises(DatasetError, match="no column 'audio'"):
        DatasetFactory.create_dataset("mine", table).sources()
    table.write_text("audio\twork_id\n\tw\n")
    with pytest.raises(DatasetError, match=r"lines \[2\] name no audio"):
        DatasetFactory.create_dataset("mine", table).sources()
    table.write_bytes(b"\xff\xfe\x00audio")
    with pytest.raises(DatasetError, match="cannot be read as UTF-8"):
        DatasetFactory.create_dataset("mine", table).sources()


def test_ids_are_safe_unique_and_do_not_depend_on_case() -> None:
    assert safe_id("  Für Elise / WoO 59 ") == "Fur_Elise_WoO_59"
    assert safe_id("日本") != safe_id("中国")
    assert safe_id("Chopin (Шопен)").startswith("Chopin-")
    assert len(safe_id("n" * 400)) < 130
    assert safe_id("n" * 400) != safe_id("n" * 401)
    names = unique_ids([Path("a.wav"), Path("A.flac"), Path("b/a.wav")])
    assert names[2] == "b__a"
    assert len({name.lower() for name in names}) == 3
    assert names == unique_ids([Path("a.wav"), Path("A.flac"), Path("b/a.wav")])


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
    with pytest.raises(DatasetError, match="cannot name a dataset"):
        DatasetFactory.create_dataset("../x", tmp_path)
    with pytest.raises(DatasetError, match="neither a folder nor a table"):
        DatasetFactory.create_dataset("mine", tmp_path / "none")
