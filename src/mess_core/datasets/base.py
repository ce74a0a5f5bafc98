"""What a dataset is: constants (licence, citation, layout) and the identity of its recordings."""

__all__ = [
    "AUDIO_SUFFIXES",
    "MIDI_SUFFIXES",
    "BaseDataset",
    "Source",
    "resolve_beats_path",
    "resolve_midi_path",
    "safe_id",
    "unique_ids",
]

import hashlib
import re
import unicodedata
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

#: What is taken for audio in a folder; libsndfile reads all of them.
AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".w64", ".caf")
MIDI_SUFFIXES = (".mid", ".midi")
# File names may have 255 bytes; this leaves room for what is put behind an id.
_LONGEST_ID = 120


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
    """A collection of recordings on disk.

    A dataset is its constants and `sources`; nothing in it opens audio.

    Parameters
    ----------
    data : Path
        The data folder; the dataset's own files lie in ``data/audio/{name}``.
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

        Raises
        ------
        DatasetError
            If the files are not where ``layout`` says.
        """


def resolve_midi_path(audio: Path) -> Path | None:
    """Find the MIDI file that belongs to an audio file.

    Parameters
    ----------
    audio : Path
        The audio file, which need not exist.

    Returns
    -------
    Path or None
        The file of the same stem with a MIDI suffix beside the audio, in a folder ``midi`` beside
        it, or in a folder ``midi`` beside the audio's folder. None where there is none, which is no
        error.
    """
    folders = (audio.parent, audio.parent / "midi", audio.parent.parent / "midi")
    suffixes = [*MIDI_SUFFIXES, *(suffix.upper() for suffix in MIDI_SUFFIXES)]
    candidates = (folder / f"{audio.stem}{suffix}" for folder in folders for suffix in suffixes)
    return _first_file(candidates)


def resolve_beats_path(audio: Path, midi: Path | None) -> Path | None:
    """Find the table of a performance's beats.

    Parameters
    ----------
    audio : Path
        The audio file, which need not exist.
    midi : Path or None
        Its MIDI file.

    Returns
    -------
    Path or None
        The file of the same stem with the suffix ``.beats.tsv`` beside the MIDI or the audio. None
        without MIDI, whose notes the beats are for, and where there is no such file.
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


def safe_id(text: str) -> str:
    """Return ``text`` as a file name of ASCII letters, digits, '.', '_', '+' and '-'.

    Accents go ("Prélude" gives "Prelude"). Where letters are lost (other scripts) or the name is
    longer than 120 characters, a hash of the text stands behind it, so that names stay apart.
    """
    letters = "".join(
        c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c)
    )
    name = re.sub(r"[^A-Za-z0-9._+-]+", "_", letters).strip("._+-")
    lossy = any(c.isalnum() and not c.isascii() for c in letters)
    if lossy or not name or len(name) > _LONGEST_ID:
        return f"{name[:_LONGEST_ID] or 'x'}-{_short_hash(text)}"
    return name


def unique_ids(paths: Iterable[Path]) -> list[str]:
    """Return one safe and unique id per relative path.

    The id is the path without its suffix, folders joined by ``__``, so files with the same stem in
    different folders are different recordings. Where two paths still give the same id (``a.wav``
    and ``a.flac``), both get a hash of their path behind it.
    """
    names = list(paths)
    ids = [safe_id("__".join(map(safe_id, (path.parent / path.stem).parts))) for path in names]
    count = Counter(name.lower() for name in ids)
    return [
        f"{name}-{_short_hash(path.as_posix())}" if count[name.lower()] > 1 else name
        for name, path in zip(ids, names, strict=True)
    ]


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:8]
