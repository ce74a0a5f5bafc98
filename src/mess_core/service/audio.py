"""A recording's audio, and a passage of it, as a WAV whose bytes are made when they are asked for.

The WAV has 16 bits and at most two channels; more are mixed to one. Where a byte lies follows from
its frame, so that any range of bytes is answered by seeking, in blocks.
"""

__all__ = ["Sounds", "Wav", "envelope", "open_wav", "parse_range"]

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import HTTPException

from mess_core.errors import SearchError
from mess_core.files import file_sha256
from mess_core.recordings import Recording, read_recordings

_HEADER = struct.Struct("<4sI4s4sIHHIIHH4sI")
_FULL_SCALE = 1 << 15
#: What a size of 32 bits can say of a WAV.
_LARGEST = (1 << 32) - 1
#: Frames that are decoded at a time: 1.5 s.
_BLOCK = 1 << 16
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


class Sounds:
    """The audio of the recording table, as far as it is on this disk.

    ``table`` is read here and by `reload`; where there is none, there is no audio.
    """

    def __init__(self, table: Path | None) -> None:
        self._table = table
        self._listed: dict[str, Recording] = {}
        self.reload()

    def reload(self) -> None:
        """Read the table again; raises `DatasetError` if it is malformed."""
        if self._table is not None and self._table.exists():
            self._listed = {r.recording_id: r for r in read_recordings(self._table)}

    def __contains__(self, recording_id: str) -> bool:
        return recording_id in self._listed and Path(self._listed[recording_id].audio).is_file()

    def path(self, recording_id: str) -> Path:
        """Return a recording's audio file.

        Raises `HTTPException`: 404 where there is none, 409 where it is not what the table lists.
        """
        if recording_id not in self:
            raise HTTPException(404, f"the audio of {recording_id} is not on this machine")
        listed = self._listed[recording_id]
        path = Path(listed.audio)
        state = path.stat()
        if _sha256(path, state.st_size, state.st_mtime_ns) != listed.audio_sha256:
            raise HTTPException(
                409,
                f"the audio of {recording_id} has changed since the recording table was written; "
                "run the workflow again",
            )
        return path


@lru_cache(maxsize=1 << 16)
def _sha256(path: Path, _size: int, _changed: int) -> str:
    return file_sha256(path)


@dataclass(frozen=True, slots=True)
class Wav:
    """A stretch of an audio file as a WAV."""

    path: Path
    #: Frames a second, the first frame, and how many there are.
    rate: int
    first: int
    frames: int
    channels: int

    @property
    def size(self) -> int:
        """How many bytes it has."""
        return _HEADER.size + 2 * self.channels * self.frames

    @property
    def header(self) -> bytes:
        """Its bytes before the samples."""
        data, width = self.size - _HEADER.size, 2 * self.channels
        kinds = b"RIFF", b"WAVE", b"fmt ", b"data"
        form = (16, 1, self.channels, self.rate, self.rate * width, width, 16)
        return _HEADER.pack(kinds[0], self.size - 8, *kinds[1:3], *form, kinds[3], data)

    def read(self, start: int, stop: int) -> Iterator[bytes]:
        """Give the bytes from start to before stop, in blocks."""
        if head := self.header[start:stop]:
            yield head
        start, stop = max(start - _HEADER.size, 0), stop - _HEADER.size
        if start >= stop:
            return
        import soundfile

        width = 2 * self.channels
        with soundfile.SoundFile(self.path) as file:
            frame, last = start // width, -(-stop // width)
            file.seek(self.first + frame)
            while frame < last:
                block = self._samples(file, min(_BLOCK, last - frame))
                yield block[max(start - frame * width, 0) : stop - frame * width]
                frame += _BLOCK

    def _samples(self, file: Any, frames: int) -> Any:
        # A file that ends before it said is silent from there on: so many bytes are promised.
        samples = file.read(frames, dtype="float32", always_2d=True, fill_value=0.0)
        if samples.shape[1] > 2:
            samples = samples.mean(axis=1)
        # Not by libsndfile, which does not scale where a file holds floats.
        scaled = np.rint(np.nan_to_num(samples) * _FULL_SCALE)
        return scaled.clip(-_FULL_SCALE, _FULL_SCALE - 1).astype("<i2").tobytes()


def open_wav(path: Path, start_s: float = 0.0, end_s: float | None = None) -> Wav:
    """Return a passage of an audio file, by default to its end, as a WAV.

    Raises `SearchError` if it is no passage of the file, and `HTTPException` 413 if a WAV cannot
    be so long.
    """
    import soundfile

    info = soundfile.info(path)
    last = info.frames if end_s is None else min(round(end_s * info.samplerate), info.frames)
    first = round(start_s * info.samplerate)
    if not first < last:
        to = "the end" if end_s is None else f"{end_s:g} s"
        raise SearchError(
            f"{start_s:g} s to {to} is no passage of this audio, which lasts "
            f"{info.frames / info.samplerate:.2f} s; the start must come before the end"
        )
    wav = Wav(path, info.samplerate, first, last - first, info.channels if info.channels < 3 else 1)
    if wav.size > _LARGEST:
        raise HTTPException(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too long for a WAV; ask for a passage of it"
        )
    return wav


def parse_range(header: str | None, size: int) -> tuple[int, int] | None:
    """Return the bytes that a Range header asks of so many, from the first to before the last.

    None where it asks for none, several or what is no range (RFC 9110, 14.2): all are sent then.
    Raises `HTTPException` 416 if there are no such bytes.
    """
    found = _RANGE.fullmatch((header or "").strip())
    if not found or not any(found.groups()):
        return None
    first, last = found.groups()
    if first and last and int(last) < int(first):
        return None
    start = int(first) if first else max(size - int(last), 0)
    stop = min(int(last) + 1, size) if first and last else size
    if start >= stop:
        raise HTTPException(
            416, f"there are {size} bytes", headers={"Content-Range": f"bytes */{size}"}
        )
    return start, stop


@lru_cache(maxsize=256)
def envelope(path: Path, points: int, _changed: int) -> dict[str, Any]:
    """Return the lowest and highest sample in each of at most so many equal steps of a file."""
    import soundfile

    with soundfile.SoundFile(path) as file:
        step = max(-(-file.frames // points), 1)
        low: list[float] = []
        high: list[float] = []
        for block in file.blocks(step * max(_BLOCK // step, 1), dtype="float32", always_2d=True):
            starts = np.arange(0, len(block), step)
            block = np.nan_to_num(block)
            low += np.minimum.reduceat(block.min(axis=1), starts).round(4).tolist()
            high += np.maximum.reduceat(block.max(axis=1), starts).round(4).tolist()
        return {"step_s": step / file.samplerate, "low": low, "high": high}
