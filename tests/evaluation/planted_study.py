"""A small corpus to listen to: each recording is a tone of its own, each passage a pitch of it."""

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile

from mess_core.files import file_sha256
from mess_core.index.index import Index, Row
from mess_core.recordings import Recording
from tests.planted import Corpus

RATE, WINDOW_S, WINDOWS = 24_000, 0.6, 6
#: Work and composer of each recording: three works, two of one composer; recordings of the first
#: are aligned. The last recording is silent.
WORKS = ("w0", "w0", "w0", "w0", "w1", "w1", "w1", "w2", "w2")
COMPOSERS = {"w0": "Satie", "w1": "Satie", "w2": "Chopin"}
SILENT = len(WORKS) - 1


def pitch(number: int, window: int) -> float:
    return 300.0 + 100 * number + 10 * window


def amplitude(number: int) -> float:
    return float(0.9 * 0.5**number)


def plant(folder: Path) -> tuple[Index, list[Recording]]:
    """Write the audio and return the index of its windows, and the table."""
    rows, recordings = [], []
    for number, work in enumerate(WORKS):
        starts = np.arange(WINDOWS) * WINDOW_S
        times = np.arange(round(WINDOW_S * RATE)) / RATE
        tones = [np.sin(2 * np.pi * pitch(number, window) * times) for window in range(WINDOWS)]
        loud = 0.0 if number == SILENT else amplitude(number)
        path = folder / f"r{number}.wav"
        soundfile.write(path, loud * np.concatenate(tones), RATE, "FLOAT")
        for start in starts.round(3).tolist():
            aligned = (start, start + WINDOW_S) if work == "w0" else (None, None)
            rows.append(
                Row(f"r{number}", work, f"p{number}", COMPOSERS[work], "", "", start, start + 0.6,
                    *aligned)
            )  # fmt: skip
        recordings.append(
            Recording(f"r{number}", work, f"p{number}", COMPOSERS[work], "", "", str(path), "", "",
                      file_sha256(path), "", "", WINDOW_S * WINDOWS, "ok", "")
        )  # fmt: skip
    return Corpus(len(rows)).index(rows), recordings


def read_page(page: str) -> dict[str, Any]:
    """Return what a page holds."""
    [text] = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page)
    data: dict[str, Any] = json.loads(text)
    return data


def decode(uri: str) -> npt.NDArray[np.float32]:
    """Return the samples of an excerpt."""
    content = base64.b64decode(uri.removeprefix("data:audio/mpeg;base64,"), validate=True)
    samples, rate = soundfile.read(io.BytesIO(content), dtype="float32")
    assert rate == RATE
    return np.asarray(samples, np.float32)
