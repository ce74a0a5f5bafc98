"""What a dataset is: constants (licence, citation, layout) and the identity of its recordings."""

__all__ = [
    "AUDIO_SUFFIXES",
    "MIDI_SUFFIXES",
    "UNREAD_SUFFIXES",
    "BaseDataset",
    "Source",
    "distinct_ids",
    "folder_ids",
    "read_rows",
    "resolve_beats_path",
    "resolve_midi_path",
    "safe_id",
    "unique_ids",
]

import csv
import hashlib
import io
import re
import unicodedata
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import ClassVar

from mess_core.errors import DatasetError

#: What is taken for audio in a folder: libsndfile reads these ...
AUDIO_SUFFIXES = (
    *(".wav", ".wave", ".bwf", ".rf64", ".w64", ".aif", ".aiff", ".aifc", ".au", ".snd", ".caf"),
    *(".flac", ".ogg", ".oga", ".opus", ".mp3", ".mp2", ".mpga"),
)
#: ... and not these, which are listed with that reason.
UNREAD_SUFFIXES = (
    *(".m4a", ".m4b", ".mp4", ".aac", ".webm", ".mka", ".wma", ".ape", ".wv", ".tta", ".mpc"),
    *(".alac", ".amr", ".ac3", ".dsf", ".dff", ".ra"),
)
MIDI_SUFFIXES = (".mid", ".midi")
# File names may have 255 bytes; this leaves room for what is put behind an id.
_LONGEST_ID = 120
_ACCIDENTALS = {
    "♯": "-sharp",
    "♭": "-flat",
    "♮": "-natural",
    r"(?<![^\W_])([A-Ha-h])#": r"\1-sharp",
}


@dataclass(frozen=True, slots=True)
class Source:
    """A recording's identity and files, before anyone has looked into them.

    The fields are those of `mess_core.recordings.Recording`; ``midi`` and ``beats`` are None where
    there is none.
    """

    recording_id: str
    work_id: str
    audio: Path
    midi: Path | None = None
    beats: Path | None = None
    performer: str = ""
    composer: str = ""
    title: str = ""
    split: str = ""


class BaseDataset(ABC):
    """A collection of recordings on disk: its constants and `sources`; nothing opens audio.

    Its own files lie in ``audio/{name}`` of the folder ``data``.
    """

    #: What configuration, paths and results call it.
    name: str
    #: Licence of the audio and MIDI.
    licence: ClassVar[str]
    #: What a paper that uses it should cite.
    citation: ClassVar[str]
    #: Where its files are expected below ``data/audio/{name}``.
    layout: ClassVar[str]

    def __init__(self, data: Path = Path("data")) -> None:
        self.root = data / "audio" / self.name

    @abstractmethod
    def sources(self) -> Sequence[Source]:
        """Return the recordings, in any order, with unique ids.

        Raises `DatasetError` if the files are not where ``layout`` says.
        """


def resolve_midi_path(audio: Path) -> Path | None:
    """Find the MIDI file that belongs to an audio file, which need not exist.

    It has the same stem, and lies beside the audio, in a folder ``midi`` beside it, or in a folder
    ``midi`` beside the audio's folder.
    """
    folders = (audio.parent, audio.parent / "midi", audio.parent.parent / "midi")
    suffixes = [*MIDI_SUFFIXES, *(suffix.upper() for suffix in MIDI_SUFFIXES)]
    candidates = (folder / f"{audio.stem}{suffix}" for folder in folders for suffix in suffixes)
    return _first_file(candidates)


def resolve_beats_path(audio: Path, midi: Path | None) -> Path | None:
    """Find the table of a performance's beats, ``.beats.tsv`` beside the MIDI or the audio.

    None without MIDI, whose notes the beats are for.
    """
    if midi is None:
        return None
    return _first_file(path.with_suffix(".beats.tsv") for path in (midi, audio))


def _first_file(candidates: Iterable[Path]) -> Path | None:
    """Return the first that is a file; what lies in a folder without permission counts as none."""
    for path in candidates:
        with suppress(PermissionError):
            if path.is_file():
                return path
    return None


def read_rows(path: Path, needed: Collection[str]) -> list[dict[str, str]]:
    """Read a table of text whose first line names the columns.

    It is UTF-8; ``.csv`` is comma-separated, everything else tab-separated. ``needed`` are the
    columns that must be there, and filled. Each line that is not empty gives a dict; cells have no
    spaces around them, and are empty where a line ends early. Raises `DatasetError` if the file
    cannot be read, a column is missing, or a line is not what it should be: too many cells, an
    empty one, one with a line break (which is what a quote leads to that is opened and not closed),
    or one of more than 131,072 characters.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path} cannot be read as UTF-8 text: {error}") from None
    delimiter = "," if path.suffix.lower() == ".csv" else "\t"
    # Only real line ends: a title may hold what `splitlines` takes for one as well.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows, line = [], 1
    try:
        columns = next(reader, [])
        lacking = sorted(set(needed) - set(columns))
        if lacking:
            raise DatasetError(f"{path} has no column {', '.join(lacking)}, only {columns}")
        for cells in reader:
            line = reader.line_num
            if len(cells) > len(columns):
                raise csv.Error(f"{len(cells)} cells under {len(columns)} columns")
            if any(set(cell) & {"\n", "\r"} for cell in cells):
                raise csv.Error("a line break in a cell, or a quote that is opened and not closed")
            if not cells:
                continue
            rows.append(dict(zip_longest(columns, map(str.strip, cells), fillvalue="")))
            if empty := [name for name in needed if not rows[-1][name]]:
                raise csv.Error(f"nothing under {', '.join(empty)}")
    except csv.Error as error:
        line = max(line, reader.line_num)
        raise DatasetError(f"{path}, line {line}: {error}; correct that line") from None
    return rows


def safe_id(text: str) -> str:
    """Return ``text`` as a file name of ASCII letters, digits, '.', '_', '+' and '-'.

    Accents go ("Prélude" gives "Prelude"), accidentals are spelt out ("C♯" gives "C-sharp"), other
    scripts are transliterated ("Шопен" gives "Shopen"). Where nothing readable is left, or the name
    is longer than 120 characters, a hash of the text stands behind it.
    """
    for pattern, word in _ACCIDENTALS.items():
        text = re.sub(pattern, word, text)
    letters = "".join(map(_readable, unicodedata.normalize("NFC", text)))
    name = re.sub(r"[^A-Za-z0-9._+-]+", "_", letters).strip("._+-")
    if not name or len(name) > _LONGEST_ID:
        return f"{name[:_LONGEST_ID] or 'x'}-{_short_hash(text)}"
    return name


def _readable(character: str) -> str:
    """Return a character without accents, transliterated where it is a letter of another script."""
    plain = "".join(
        c for c in unicodedata.normalize("NFKD", character) if not unicodedata.combining(c)
    )
    if all(c.isascii() or not c.isalnum() for c in plain):
        return plain
    from anyascii import anyascii

    return anyascii(character)


def distinct_ids(names: Iterable[str]) -> list[str]:
    """Return a safe id for each name: the same for equal names, another for any other name."""
    texts = [unicodedata.normalize("NFC", name.strip()) for name in names]
    return _keep_apart(texts, map(safe_id, texts))


def folder_ids(folders: Iterable[Path]) -> list[str]:
    """Return a safe id for each relative path of a folder: its parts, joined by ``__``."""
    paths = list(folders)
    return _keep_apart([path.as_posix() for path in paths], map(_joined, paths))


def unique_ids(files: Iterable[Path]) -> list[str]:
    """Return a safe id for each relative path of a file: as of a folder, without the suffix."""
    paths = list(files)
    return _keep_apart(
        [path.as_posix() for path in paths], (_joined(path.parent / path.stem) for path in paths)
    )


def _joined(path: Path) -> str:
    return safe_id("__".join(map(safe_id, path.parts)))


def _keep_apart(names: Sequence[str], ids: Iterable[str]) -> list[str]:
    """Put a hash of the name behind ids that several names have, upper and lower case aside."""
    pairs = list(zip(names, ids, strict=True))
    count = Counter(name.lower() for name in dict(pairs).values())
    return [f"{i}-{_short_hash(name)}" if count[i.lower()] > 1 else i for name, i in pairs]


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:8]
