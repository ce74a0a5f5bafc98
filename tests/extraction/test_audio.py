"""Decoding, resampling, validation and windows."""

import struct
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mess_core.errors import AudioError
from mess_core.extraction.audio import (
    get_resampler,
    load_audio,
    segment_audio,
    segment_starts,
    validate_audio_file,
)
from mess_core.extraction.storage import segment_times
from tests.conftest import WriteTone

pytestmark = pytest.mark.unit

RATE = 24_000


def peak_frequency(samples: np.ndarray, rate: int = RATE) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum) * rate / len(samples))


@pytest.mark.parametrize("rate", [8_000, 22_050, 24_000, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_every_rate_and_channel_count_gives_the_same_tone(
    write_tone: WriteTone, rate: int, channels: int
) -> None:
    path = write_tone("a.wav", seconds=2, frequency=1000, rate=rate, channels=channels)
    samples = load_audio(path)
    assert samples.dtype == np.float32
    assert abs(len(samples) - 2 * RATE) <= 1
    assert peak_frequency(samples) == pytest.approx(1000, abs=1)
    assert np.sqrt(np.mean(samples[1000:-1000] ** 2)) == pytest.approx(0.3 / 2**0.5, rel=0.01)


@pytest.mark.parametrize("rate", [44_101, 47_999, 11_027, 2_503])
def test_odd_rates_need_no_huge_kernel_and_keep_the_pitch(write_tone: WriteTone, rate: int) -> None:
    samples = load_audio(write_tone("a.wav", seconds=2, frequency=1000, rate=rate))
    assert get_resampler(rate, RATE).kernel.numel() < 20_000_000
    assert abs(len(samples) - 2 * RATE) <= 2
    assert peak_frequency(samples) == pytest.approx(1000, abs=1)


@pytest.mark.parametrize(
    ("name", "subtype"),
    [
        ("a.wav", "PCM_U8"),
        ("a.wav", "PCM_16"),
        ("a.wav", "PCM_24"),
        ("a.wav", "PCM_32"),
        ("a.wav", "FLOAT"),
        ("a.wav", "DOUBLE"),
        ("a.flac", "PCM_24"),
        ("a.ogg", "VORBIS"),
        ("a.mp3", "MPEG_LAYER_III"),
        ("a.aiff", "PCM_16"),
    ],
)
def test_every_sample_format_is_read(write_tone: WriteTone, name: str, subtype: str) -> None:
    path = write_tone(name, seconds=2, rate=48_000, subtype=subtype)
    info = validate_audio_file(path)
    assert info.sample_rate == 48_000
    assert info.duration_s == pytest.approx(2, abs=0.1)
    assert peak_frequency(load_audio(path)) == pytest.approx(440, abs=1)


def test_mono_is_the_mean_of_the_channels(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    left, right = np.full(RATE, 0.5), np.full(RATE, -0.25)
    soundfile.write(path, np.stack([left, right], axis=1), RATE, subtype="FLOAT")
    np.testing.assert_allclose(load_audio(path), 0.125, atol=1e-6)


def test_the_resampler_is_made_once_for_all_threads() -> None:
    found: list[object] = []
    start = threading.Barrier(8)

    def ask() -> None:
        start.wait()
        found.append(get_resampler(32_000, RATE))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len({id(resampler) for resampler in found}) == 1


def damaged(path: Path, kind: str) -> Path:
    content = path.read_bytes()
    changed = {
        "truncated": content[: len(content) // 2],
        "empty": b"",
        "unreadable": b"This is a text, no audio. " * 100,
    }
    path.write_bytes(changed[kind])
    return path


@pytest.mark.parametrize("kind", ["truncated", "empty", "unreadable"])
@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.aiff"])
def test_damaged_files_are_named_with_cause(write_tone: WriteTone, name: str, kind: str) -> None:
    path = damaged(write_tone(name, rate=44_100), kind)
    with pytest.raises(AudioError, match=f"{name}: ") as caught:
        validate_audio_file(path)
    assert caught.value.status == kind


def test_a_file_that_is_missing_silent_short_or_not_finite_is_named(
    tmp_path: Path, write_tone: WriteTone
) -> None:
    broken = tmp_path / "nan.wav"
    samples = np.full(RATE, 0.1)
    samples[500] = np.nan
    soundfile.write(broken, samples, RATE, subtype="FLOAT")
    header = tmp_path / "header.wav"
    soundfile.write(header, np.zeros(0), RATE)
    cases = {
        "missing": (tmp_path / "none.wav", "does not exist"),
        "silent": (write_tone("quiet.wav", level=0.0005), r"peak is -66 dBFS, the limit is -60"),
        "too_short": (write_tone("short.wav", seconds=0.3), r"lasts 0\.30 s.*window of 5 s"),
        "not_finite": (broken, "not finite"),
        "empty": (header, "no samples"),
    }
    for status, (path, message) in cases.items():
        with pytest.raises(AudioError, match=message) as caught:
            validate_audio_file(path, min_duration_s=5.0)
        assert caught.value.status == status


def test_a_stream_of_unknown_length_is_no_truncated_file(write_tone: WriteTone) -> None:
    path = write_tone("a.wav")
    content = bytearray(path.read_bytes())
    content[4:8] = struct.pack("<I", 0xFFFFFFFF)
    path.write_bytes(content)
    assert validate_audio_file(path).duration_s == pytest.approx(6)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (5.0, [0.0]),
        (5.1, [0.0, 0.1]),
        (7.5, [0.0, 2.5]),
        (12.0, [0.0, 2.5, 5.0, 7.0]),
    ],
)
def test_windows_cover_everything_and_the_last_ends_with_the_recording(
    seconds: float, expected: list[float]
) -> None:
    starts = segment_starts(round(seconds * RATE), sample_rate=RATE)
    np.testing.assert_allclose(starts / RATE, expected)
    times = segment_times(len(starts), duration_s=seconds, window_s=5.0, overlap=0.5)
    np.testing.assert_allclose(times, expected, atol=1e-9)


def test_windows_hold_the_samples_from_their_starts() -> None:
    samples = np.arange(12 * RATE, dtype=np.float32)
    windows = segment_audio(samples, sample_rate=RATE)
    assert windows.shape == (4, 5 * RATE)
    np.testing.assert_array_equal(windows[:, 0], [0, 2.5 * RATE, 5 * RATE, 7 * RATE])
    assert windows[-1, -1] == samples[-1]


def test_what_cannot_be_cut_is_refused() -> None:
    with pytest.raises(AudioError, match=r"4\.00 s, shorter than one window of 5 s") as caught:
        segment_starts(4 * RATE, sample_rate=RATE)
    assert caught.value.status == "too_short"
    with pytest.raises(AudioError, match=r"overlap is 1\.0"):
        segment_starts(10 * RATE, sample_rate=RATE, overlap=1.0)
    with pytest.raises(AudioError, match="expected one dimension"):
        segment_audio(np.zeros((2, 10 * RATE), np.float32), sample_rate=RATE)
