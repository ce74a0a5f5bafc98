"""Every error that this package raises on purpose.

::

    MessError
    ├── ConfigError      a configuration key or value
    ├── DatasetError     a dataset, its files or its recording table
    ├── AudioError       an audio file or an array of samples
    ├── MidiError        a MIDI file or its notes
    ├── EncoderError     a model folder, its weights or its configuration
    ├── StorageError     an array on disk: missing, damaged, of another shape
    ├── TargetError      a proxy target or a targets file
    ├── AlignmentError   performances of a work, or the files that align them
    ├── ProbingError     too little data to probe, or a probing result
    ├── ArtifactError    an index artifact, its checksums or its publication
    └── SearchError      a query: unknown recording, aspect or time

A message says what is wrong, the value, the limit and what to do about it.
"""

__all__ = [
    "AlignmentError",
    "ArtifactError",
    "AudioError",
    "ConfigError",
    "DatasetError",
    "EncoderError",
    "MessError",
    "MidiError",
    "ProbingError",
    "SearchError",
    "StorageError",
    "TargetError",
    "nearest",
    "noting",
]

import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches


class MessError(Exception):
    """Base of all errors of this package."""


class ConfigError(MessError):
    """A configuration key is unknown or its value cannot be used."""


class DatasetError(MessError):
    """A dataset is unknown, or its files or table are not as documented."""


class AudioError(MessError):
    """An audio file or signal cannot be used.

    ``status`` is the recording table's word for the cause, of `mess_core.recordings.STATUSES`.
    """

    def __init__(self, message: str, *, status: str = "unreadable") -> None:
        super().__init__(message)
        self.status = status


class MidiError(MessError):
    """A MIDI file cannot be read or holds nothing to measure."""


class EncoderError(MessError):
    """A model cannot be loaded exactly as its checkpoint says."""


class StorageError(MessError):
    """A stored array is missing, damaged or of another shape than expected."""


class TargetError(MessError):
    """A proxy target is unknown or its file is malformed."""


class AlignmentError(MessError):
    """Recordings are not aligned, or an alignment on disk is missing or damaged."""


class ProbingError(MessError):
    """There is too little data to probe, or a result is malformed."""


class ArtifactError(MessError):
    """An artifact is damaged, unsafe, or could not be published."""


class SearchError(MessError):
    """A query names something that the index does not hold."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint with the known names closest to ``name``.

    ``"did you mean 'a' or 'b'?"``, or the list of what exists where nothing is close.
    """
    choices = sorted(filter(None, known))
    close = get_close_matches(name, choices, n=3, cutoff=0.6)
    if close:
        return "did you mean " + " or ".join(repr(c) for c in close) + "?"
    shown = ", ".join(choices[:20]) + (", ..." if len(choices) > 20 else "")
    return f"known: {shown}" if choices else "none exist"


@contextmanager
def noting(failed: dict[str, str], names: Iterable[str]) -> Iterator[None]:
    """Note what goes wrong in the block as the reason why some recordings failed.

    What cannot be stored is raised: the others would fail, too.
    """
    try:
        yield
    except StorageError:
        raise
    except Exception as error:
        reason = str(error)
        if not isinstance(error, MessError):
            traceback.print_exc()
            reason = f"{type(error).__name__}: {error}; this is a bug, report it"
        failed |= dict.fromkeys(names, reason)
