"""What is heard is the right passage; what cannot be heard says why and fails nothing."""

import base64
import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from mess_core.files import file_sha256
from mess_core.report.examples import LONGEST_S, Excerpt, cut_excerpt

pytestmark = pytest.mark.unit

PREFIX = "data:audio/mpeg;base64,"


def heard(excerpt: Excerpt) -> tuple[npt.NDArray[np.float64], int]:
    assert excerpt.reason == ""
    assert excerpt.uri.startswith(PREFIX)
    content = base64.b64decode(excerpt.uri.removeprefix(PREFIX), validate=True)
    samples, rate = soundfile.read(io.BytesIO(content))
    return samples, rate


def siren(path: Path, rate: int, seconds: float = 12.0, channels: int = 2) -> Path:
    """A tone that begins each second at another pitch: 300, 400, 500, ... Hz."""
    times = np.arange(round(seconds * rate)) / rate
    pitch = 300 + 100 * np.floor(times)
    tone = 0.3 * np.sin(2 * np.pi * pitch * times)
    soundfile.write(path, np.repeat(tone[:, None], channels, axis=1), rate)
    return path


def pitch(samples: npt.NDArray[np.float64], rate: int) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum) * rate / len(samples))


@pytest.mark.parametrize("rate", [16_000, 24_000, 44_100, 48_000, 96_000, 11_025])
def test_an_excerpt_is_the_passage_mono_and_as_long(tmp_path: Path, rate: int) -> None:
    path = siren(tmp_path / "a.wav", rate)
    samples, out = heard(cut_excerpt(path, 4.0, 7.0, sha256=file_sha256(path)))
    assert out == (rate if rate in (16_000, 24_000, 44_100, 48_000) else 44_100)
    assert samples.ndim == 1
    assert len(samples) == pytest.approx(3 * out, abs=2)
    for second in range(3):
        part = samples[second * out : (second + 1) * out]
        assert pitch(part, out) == pytest.approx(700 + 100 * second, abs=3)


def test_the_level_is_kept_and_the_same_passage_gives_the_same_bytes(tmp_path: Path) -> None:
    path = siren(tmp_path / "a.wav", 44_100)
    excerpt = cut_excerpt(path, 2.0, 4.0)
    assert np.abs(heard(excerpt)[0]).max() == pytest.approx(0.3, rel=0.05)
    assert cut_excerpt(path, 2.0, 4.0) == excerpt


def test_a_long_passage_is_cut_and_says_so(tmp_path: Path) -> None:
    excerpt = cut_excerpt(siren(tmp_path / "a.wav", 16_000), 1.0, 11.0)
    assert excerpt.end_s == 1.0 + LONGEST_S
    samples, rate = heard(excerpt)
    assert len(samples) == LONGEST_S * rate
    assert len(excerpt.uri) < 100_000
    # What ends with the file is as long as what is there.
    samples, rate = heard(cut_excerpt(tmp_path / "a.wav", 11.0, 16.0))
    assert len(samples) == pytest.approx(rate, abs=2)


def test_audio_that_is_gone_changed_or_damaged_says_so(tmp_path: Path) -> None:
    path = siren(tmp_path / "a.wav", 16_000)
    sha256 = file_sha256(path)
    assert "no longer there" in cut_excerpt(tmp_path / "b.wav", 0, 1, sha256=sha256).reason
    assert "no sound at 20 s" in cut_excerpt(path, 20.0, 25.0).reason
    siren(path, 16_000, seconds=3)
    assert "not the one that was indexed" in cut_excerpt(path, 0, 1, sha256=sha256).reason
    path.write_bytes(b"no audio at all")
    assert "cannot be read" in cut_excerpt(path, 0, 1).reason
    assert cut_excerpt(path, 0, 1).uri == ""
    assert "cannot be read" in cut_excerpt(tmp_path, 0, 1).reason
