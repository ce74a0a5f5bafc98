"""A WAV that is not there: its bytes are those of one that is, whichever are asked for."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from fastapi import HTTPException

from mess_core.errors import SearchError
from mess_core.service import audio
from mess_core.service.audio import Wav, envelope, parse_range

pytestmark = pytest.mark.unit

RATE, FRAMES = 8000, 20_000


def _noise(channels: int) -> np.ndarray:
    return np.random.default_rng(channels).uniform(-0.9, 0.9, (FRAMES, channels))


def _bytes(wav: Wav, start: int = 0, stop: int | None = None) -> bytes:
    return b"".join(wav.read(start, wav.size if stop is None else stop))


@pytest.mark.parametrize("channels", [1, 2])
def test_the_whole_is_the_file_itself_where_that_is_such_a_wav(
    tmp_path: Path, channels: int
) -> None:
    path = tmp_path / "a.wav"
    samples = np.arange(FRAMES * channels).astype(np.int16).reshape(-1, channels)
    soundfile.write(path, samples, RATE, "PCM_16")
    assert _bytes(Wav(path)) == path.read_bytes()


@pytest.mark.parametrize(
    ("name", "subtype", "channels"),
    [
        ("a.wav", "PCM_16", 2),
        ("a.wav", "FLOAT", 1),
        ("a.wav", "PCM_24", 6),
        ("a.flac", "PCM_16", 2),
        ("a.ogg", "VORBIS", 1),
    ],
)
def test_any_range_is_that_part_of_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, subtype: str, channels: int
) -> None:
    path = tmp_path / name
    soundfile.write(path, _noise(channels), RATE, subtype)
    heard, _ = soundfile.read(path, always_2d=True)
    heard = heard if channels < 3 else heard.mean(axis=1, keepdims=True)
    wav = Wav(path, 0.5, 2.0)
    whole = _bytes(wav)
    written = tmp_path / "whole.wav"
    written.write_bytes(whole)
    samples, rate = soundfile.read(written, dtype="int16", always_2d=True)
    assert (len(whole), rate) == (wav.size, RATE)
    expected = (32768 * heard[4000:16_000]).clip(-32768, 32767)
    assert np.abs(samples - expected).max() <= 0.51

    monkeypatch.setattr(audio, "_BLOCK", 1000)
    rng = np.random.default_rng(0)
    places = [*rng.integers(0, wav.size + 1, (40, 2)).tolist(), [0, 44], [43, 45], [0, 1], [45, 46]]
    for start, stop in map(sorted, places):
        assert _bytes(wav, start, stop) == whole[start:stop]
    assert max(map(len, wav.read(0, wav.size))) <= 1000 * 2 * min(channels, 2)


def test_samples_beyond_full_scale_are_cut_and_undefined_ones_silent(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.array([0.5, 2.0, -2.0, np.nan], np.float32), RATE, "FLOAT")
    samples = np.frombuffer(_bytes(Wav(path)), "<i2", offset=44)
    assert samples.tolist() == [16384, 32767, -32768, 0]


def test_a_file_that_ends_early_gives_as_many_bytes_as_were_promised(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, _noise(1), RATE, "PCM_16")
    wav, whole = Wav(path), _bytes(Wav(path))
    path.write_bytes(path.read_bytes()[:-2000])
    assert len(_bytes(wav)) == wav.size
    assert _bytes(wav)[:-2000] == whole[:-2000]


@pytest.mark.parametrize("span", [(2.5, None), (1.0, 1.0), (2.0, 1.0), (1e300, None)])
def test_what_is_no_passage_is_refused(tmp_path: Path, span: tuple[float, float | None]) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, _noise(1), RATE, "PCM_16")
    with pytest.raises(SearchError, match=r"[0-9e+.]+ to [12]\.?5? s is no passage of its 2\.50 s"):
        Wav(path, *span)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-0", (0, 1)),
        ("bytes=10-19", (10, 20)),
        ("bytes=10-", (10, 100)),
        ("bytes=10-1000000", (10, 100)),
        ("bytes=-10", (90, 100)),
        ("bytes=-1000", (0, 100)),
        ("bytes=99-", (99, 100)),
        # None of these is one range: all of it.
        ("", None),
        ("bytes=", None),
        ("bytes=-", None),
        ("bytes=20-10", None),
        ("bytes=0-1,5-6", None),
        ("frames=0-1", None),
        ("bytes=a-b", None),
        ("bytes=--5", None),
        ("bytes=0x1-5", None),
        ("bytes=" + "9" * 5000 + "-", None),
    ],
)
def test_a_range_is_read_as_rfc_9110_says(header: str, expected: tuple[int, int] | None) -> None:
    assert parse_range(header, 100) == expected


@pytest.mark.parametrize("header", ["bytes=100-", "bytes=100-200", "bytes=-0"])
def test_a_range_without_bytes_is_told_how_many_there_are(header: str) -> None:
    with pytest.raises(HTTPException) as raised:
        parse_range(header, 100)
    assert raised.value.status_code == 416
    assert raised.value.headers == {"Content-Range": "bytes */100"}


def test_a_waveform_has_the_extremes_of_equal_steps(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    samples = np.zeros((1000, 2))
    samples[[150, 420], [0, 1]] = 0.5, -0.25
    soundfile.write(path, samples, RATE, "FLOAT")
    drawn = envelope(path, 10, 0)
    assert drawn["step_s"] == 100 / RATE
    assert drawn["high"] == [0, 0.5, *[0] * 8]
    assert drawn["low"] == [0, 0, 0, 0, -0.25, *[0] * 5]
    assert len(envelope(path, 7, 0)["low"]) == 7
    assert len(envelope(path, 5000, 0)["low"]) == 1000
