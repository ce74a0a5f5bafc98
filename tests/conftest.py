"""Fixtures that several test modules share."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

WriteTone = Callable[..., Path]


@pytest.fixture
def write_tone(tmp_path: Path) -> WriteTone:
    """Give a function that writes a sine tone of one pitch per call."""

    def write(
        name: str,
        *,
        seconds: float = 6.0,
        frequency: float = 440.0,
        rate: int = 24_000,
        channels: int = 1,
        level: float = 0.3,
        subtype: str | None = None,
    ) -> Path:
        times = np.arange(round(seconds * rate)) / rate
        tone = level * np.sin(2 * np.pi * frequency * times)
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.repeat(tone[:, None], channels, axis=1), rate, subtype=subtype)
        return path

    return write
