"""A recording's audio, or a passage of it, as a WAV whose bytes are made when they are asked for.

It has 16 bits and at most two channels; more are mixed to one. Where a byte lies follows from its
frame, so that any range is answered by seeking.
"""

__all__ = ["Wav", "check_listed", "envelope", "parse_range"]

import re
import struct
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from fastapi import HTTPException

from mess_core.errors import SearchError
from mess_core.files import file_sha256
from mess_core.recordings import Recording

_HEADER = struct.Struct("<4sI4s4sIHHIIHH4sI")
_FULL_SCALE = 1 << 15
#: Frames that are decoded at a time: 0.4 s.
_BLOCK = 1 << 14
_sha256 = lru_cache(maxsize=1 << 16)(lambda path, _size, _changed: file_sha256(path))


def check_listed(recording: Recording) -> Path:
    """Return a recording's file; raises `HTTPException` 409 if it is not what the table lists."""
    path, name = Path(recording.audio), recording.recording_id
    if _sha256(path, path.stat().st_size, path.stat().st_mtime_ns) != recording.audio_sha256:
        raise HTTPException(409, f"the audio of {name} has changed; run the workflow again")
    return path


class Wav:
    """A passage of an audio file, by default to its end.

    Raises `SearchError` if there is no such passage, `HTTPException` 413 if a WAV cannot hold it.
    """

    def __init__(self, path: Path, start_s: float = 0.0, end_s: float | None = None) -> None:
        info = soundfile.info(path)
        span = start_s, info.duration if end_s is None else end_s
        first, last = (round(min(t, info.duration) * info.samplerate) for t in span)
        if first >= last:
            told = "{:g} to {:g} s is no passage of its {:.2f} s".format(*span, info.duration)
            raise SearchError(f"{told}; the start must come before the end")
        channels = 1 if info.channels > 2 else info.channels
        self._path, self._first, self._width = path, first, 2 * channels
        data = self._width * (last - first)
        #: How many bytes it has.
        self.size = _HEADER.size + data
        if self.size >= 1 << 32:
            raise HTTPException(413, "too long for a WAV (4 GiB); ask for a passage")
        form = (16, 1, channels, info.samplerate, info.samplerate * self._width, self._width, 16)
        self._header = _HEADER.pack(b"RIFF", self.size - 8, b"WAVE", b"fmt ", *form, b"data", data)

    def read(self, start: int, stop: int) -> Iterator[bytes]:
        """Give the bytes from start to before stop, in blocks."""
        yield self._header[start:stop]
        start, stop = (max(place - _HEADER.size, 0) for place in (start, stop))
        first, last = start // self._width, -(-stop // self._width)
        with soundfile.SoundFile(self._path) as file:
            file.seek(self._first + first)
            for frame in range(first, last, _BLOCK):
                block, offset = _decoded(file, min(_BLOCK, last - frame)), frame * self._width
                yield block[max(start - offset, 0) : stop - offset]


def _decoded(file: Any, frames: int) -> bytes:
    # A file that ends before it said is silent from there on: so many bytes are promised.
    samples = np.nan_to_num(file.read(frames, "float32", always_2d=True, fill_value=0.0))
    if samples.shape[1] > 2:
        samples = samples.mean(axis=1)
    # Not by libsndfile, which does not scale what a file holds as floats.
    scaled = np.rint(samples * _FULL_SCALE).clip(-_FULL_SCALE, _FULL_SCALE - 1)
    return bytes(scaled.astype("<i2").tobytes())


def parse_range(header: str, size: int) -> tuple[int, int] | None:
    """Return which bytes of so many a Range header asks for: the first, and the one after the last.

    None for several ranges and what is none (RFC 9110, 14.2): all is sent then. Raises
    `HTTPException` 416 if there are no such bytes.
    """
    found = re.fullmatch(r"bytes=(\d{0,18})-(\d{0,18})", header.strip())
    first, last = found.groups() if found else ("", "")
    if not first + last or (first and last and int(last) < int(first)):
        return None
    start = int(first) if first else max(size - int(last), 0)
    stop = min(int(last) + 1, size) if first and last else size
    if start >= stop:
        raise HTTPException(416, f"there are {size} bytes", {"Content-Range": f"bytes */{size}"})
    return start, stop


@lru_cache(maxsize=256)
def envelope(path: Path, points: int, _changed: int) -> dict[str, Any]:
    """Return the lowest sample or 0, and the highest, in each of so many equal steps of a file."""
    with soundfile.SoundFile(path) as file:
        step = max(-(-file.frames // points), 1)
        low, high, frame = *np.zeros((2, -(-file.frames // step))), 0
        for block in file.blocks(_BLOCK, always_2d=True):
            steps, first = np.unique((frame + np.arange(len(block))) // step, return_index=True)
            samples, frame = np.nan_to_num(block), frame + len(block)
            np.minimum.at(low, steps, np.minimum.reduceat(samples.min(axis=1), first))
            np.maximum.at(high, steps, np.maximum.reduceat(samples.max(axis=1), first))
        drawn = {"low": low.round(4).tolist(), "high": high.round(4).tolist()}
        return {"step_s": step / file.samplerate, **drawn}
