"""Decoding, resampling, validation and windows."""

import errno
import itertools
import os
import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
import soundfile
import torch
from torchaudio.transforms import Resample

from mess_core.errors import AudioError
from mess_core.extraction import audio
from mess_core.extraction.audio import (
    get_resampler,
    load_audio,
    segment_audio,
    segment_starts,
    stream_audio,
    stream_windows,
    validate_audio_file,
)
from mess_core.extraction.storage import segment_times
from tests.conftest import WriteTone

pytestmark = pytest.mark.unit

RATE = 24_000


def peak_frequency(samples: np.ndarray, rate: int = RATE) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum) * rate / len(samples))


# The last four need no huge kernel, though their ratio to 24,000 does not reduce.
@pytest.mark.parametrize(
    "rate", [8_000, 22_050, 24_000, 44_100, 48_000, 96_000, 44_101, 47_999, 11_027, 2_503]
)
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_every_rate_and_channel_count_gives_the_same_tone(
    write_tone: WriteTone, rate: int, channels: int
) -> None:
    path = write_tone("a.wav", seconds=2, frequency=400, rate=rate, channels=channels)
    samples = load_audio(path)
    assert samples.dtype == np.float32
    assert rate == RATE or get_resampler(rate, RATE).kernel.size < 20_000_000
    assert abs(len(samples) - 2 * RATE) <= 2
    assert peak_frequency(samples) == pytest.approx(400, abs=1)
    assert np.sqrt(np.mean(samples[1000:-1000] ** 2)) == pytest.approx(0.3 / 2**0.5, rel=0.01)


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


# The lengths are no multiples of anything; in float32 torchaudio rounds them right.
@pytest.mark.parametrize("n_samples", [1, 1_009, 60_013])
@pytest.mark.parametrize("target", [24_000, 44_100])
@pytest.mark.parametrize("rate", [8_000, 16_000, 24_001, 44_100, 48_000, 192_000])
def test_a_stream_is_the_whole_signal_resampled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rate: int, target: int, n_samples: int
) -> None:
    rng = np.random.default_rng(rate + n_samples)
    channels = rng.uniform(-1, 1, (n_samples, 2)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", channels, rate, subtype="FLOAT")
    ratio = get_resampler(rate, target)
    reference = Resample(ratio.source, ratio.target)
    whole = reference(torch.from_numpy(channels.mean(axis=1))).numpy()
    # Also blocks that are shorter than the kernel.
    for frames in (5_003, 1_000_003) if n_samples > 2_000 else (7, 146, 147, 148):
        monkeypatch.setattr(audio, "_BLOCK_FRAMES", frames)
        blocks = list(stream_audio(tmp_path / "a.wav", sample_rate=target))
        assert all(len(block) and block.dtype == np.float32 for block in blocks)
        streamed = np.concatenate(blocks)
        assert len(streamed) == len(whole)
        np.testing.assert_allclose(streamed, whole, rtol=0, atol=1e-6)
        np.testing.assert_array_equal(streamed, load_audio(tmp_path / "a.wav", sample_rate=target))


def test_a_long_signal_keeps_the_sample_that_torchaudio_rounds_away(tmp_path: Path) -> None:
    samples = np.random.default_rng(1).uniform(-1, 1, 2_000_003).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", samples, 44_100, subtype="FLOAT")
    whole = Resample(44_100, RATE)(torch.from_numpy(samples)).numpy()
    streamed = load_audio(tmp_path / "a.wav")
    assert len(streamed) == -(-2_000_003 * 80 // 147) == len(whole) + 1
    np.testing.assert_allclose(streamed[:-1], whole, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_audio_of_any_rate_is_described_without_torch(write_tone: WriteTone) -> None:
    path = write_tone("b.wav", rate=22_050)
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from mess_core.extraction import FeatureExtractor\n"
        "extractor = FeatureExtractor('descriptors', window_s=0.5)\n"
        "print(extractor.extract_file(Path(sys.argv[1])).segments.shape[1:], end=' ')\n"
        "print(sorted({'torch', 'torchaudio', 'transformers', 'openvino'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "(8, 402) []"


@pytest.mark.parametrize(
    ("value", "status", "message"),
    [
        (-np.inf, "not_finite", r"not finite \(NaN or infinity\) at 2\.001 s"),
        (-1e30, "too_large", r"a sample of 1e\+30 at 2\.001 s, .* 1000 the limit"),
    ],
)
def test_a_stream_says_where_a_sample_cannot_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float, status: str, message: str
) -> None:
    samples = np.full((3 * RATE, 2), 0.1, np.float32)
    samples[2 * RATE + 12, 1] = value
    soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
    monkeypatch.setattr(audio, "_BLOCK_FRAMES", 10_000)
    stream = stream_audio(tmp_path / "a.wav")
    assert [len(next(stream)) for _ in range(4)] == [10_000] * 4
    with pytest.raises(AudioError, match=message) as caught:
        next(stream)
    assert caught.value.status == status


def test_a_file_that_vanished_or_shrank_since_the_scan_is_named(write_tone: WriteTone) -> None:
    path = write_tone("a.flac")
    validate_audio_file(path)
    path.write_bytes(path.read_bytes()[:-2_000])
    with pytest.raises(AudioError, match="cannot be decoded after") as caught:
        load_audio(path)
    assert caught.value.status == "truncated"
    path.unlink()
    with pytest.raises(AudioError, match=r"does not exist; put the file back, or run `mess rec"):
        load_audio(path)


@pytest.mark.parametrize(
    ("number", "message"),
    [(errno.EIO, "cannot be read .Input/output"), (errno.EACCES, "no permission to read it")],
)
def test_a_file_that_the_system_refuses_is_named(
    write_tone: WriteTone, monkeypatch: pytest.MonkeyPatch, number: int, message: str
) -> None:
    path = write_tone("a.wav")

    def stat(_: Path) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "stat", stat)
    with pytest.raises(AudioError, match=rf"a\.wav: .*{message}"):
        load_audio(path)


def write_long(path: Path, *, seconds: int, rate: int) -> Path:
    """Write an 8-bit tone second by second."""
    second = 0.3 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate)
    with soundfile.SoundFile(path, "w", rate, 1, subtype="PCM_U8") as file:
        for _ in range(seconds):
            file.write(second)
    return path


def streaming_peak(path: Path) -> int:
    """Return the most bytes that numpy held while a file was streamed into windows."""
    tracemalloc.start()
    try:
        for _ in stream_windows(stream_audio(path), sample_rate=RATE):
            pass
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("rate", [RATE, 48_000])
@pytest.mark.slow
def test_memory_does_not_grow_with_the_length(tmp_path: Path, rate: int) -> None:
    get_resampler(48_000, RATE)
    short = write_long(tmp_path / "short.wav", seconds=40, rate=rate)
    long = write_long(tmp_path / "long.wav", seconds=400, rate=rate)
    streaming_peak(short)  # imports are over
    assert streaming_peak(long) < 1.1 * streaming_peak(short)


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
@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.aiff", "a.w64", "a.rf64"])
def test_damaged_files_are_named_with_cause(write_tone: WriteTone, name: str, kind: str) -> None:
    path = write_tone(name, rate=44_100)
    assert validate_audio_file(path).duration_s == 6
    damaged(path, kind)
    with pytest.raises(AudioError, match=f"{name}: ") as caught:
        validate_audio_file(path)
    assert caught.value.status == kind


def patched(path: Path, place: int, content: bytes) -> Path:
    """Write bytes over those that are at a place of a file."""
    with path.open("r+b") as file:
        file.seek(place)
        file.write(content)
    return path


#: Sizes in the header of a WAV file, of everything and of the samples (None: as they are).
SIZES = [
    (0x7FFFF024, 0x7FFFF000),  # sox to a pipe
    (0x80000023, 0x7FFFFFFF),
    (0xFFFFFFFF, 0xFFFFFFFF),  # ffmpeg to a pipe
    (0, 0),  # a recorder that crashed
    (36, 0),
    (288_037, None),  # a padding byte that is not there
    (0, None),
]


@pytest.mark.parametrize(("whole", "samples"), SIZES)
def test_a_wav_file_with_wrong_sizes_is_read_to_its_end(
    write_tone: WriteTone, whole: int, samples: int | None
) -> None:
    path = write_tone("a.wav")
    expected = load_audio(path)
    patched(path, 4, struct.pack("<I", whole))
    if samples is not None:
        patched(path, 40, struct.pack("<I", samples))
    assert validate_audio_file(path).duration_s == 6
    np.testing.assert_array_equal(load_audio(path), expected)
    # The size of everything says nothing, that of the samples does.
    path.write_bytes(path.read_bytes()[:100_000])
    if samples is None:
        with pytest.raises(AudioError, match="100000 of the 288044 bytes"):
            validate_audio_file(path)
    else:
        assert validate_audio_file(path).duration_s == pytest.approx((100_000 - 44) / 48_000)


@pytest.mark.parametrize(
    ("name", "marker", "behind", "content"),
    [
        ("a.aiff", b"SSND", 4, struct.pack(">I", 8)),
        ("a.rf64", b"ds64", 16, bytes(8)),
        ("a.au", b".snd", 8, b"\xff" * 4),
        # The count of samples in STREAMINFO, of which 4 bits share a byte with the sample format.
        ("a.flac", b"fLaC", 22, bytes(4)),
    ],
)
def test_other_files_without_a_length_are_read_to_their_end(
    write_tone: WriteTone, name: str, marker: bytes, behind: int, content: bytes
) -> None:
    path = write_tone(name)
    expected = load_audio(path)
    patched(path, path.read_bytes().index(marker) + behind, content)
    assert validate_audio_file(path).duration_s == 6
    np.testing.assert_array_equal(load_audio(path), expected)
    # soundfile itself finds another length.
    assert soundfile.info(path).frames != 6 * RATE or name == "a.au"


def write_mp3(path: Path, mode: str) -> None:
    """Write 12 s of a tone that gets complicated, so that its bit rate does not stay."""
    times = np.arange(12 * 44_100) / 44_100
    noise = 0.02 * np.random.default_rng(0).normal(size=len(times)) * (times > 6)
    samples = 0.3 * np.sin(2 * np.pi * 440 * times) + noise
    soundfile.write(path, samples, 44_100, bitrate_mode=mode, compression_level=0.5)


@pytest.mark.parametrize("mode", ["CONSTANT", "AVERAGE", "VARIABLE"])
@pytest.mark.parametrize("tag", [b"", b"ID3\x03\0\0\0\x10\0\0" + bytes(1 << 18)])
def test_an_mp3_file_without_a_count_of_frames_is_read_to_its_end(
    tmp_path: Path, mode: str, tag: bytes
) -> None:
    path = tmp_path / "a.mp3"
    write_mp3(path, mode)
    assert validate_audio_file(path).duration_s == 12
    content = path.read_bytes()
    (counted,) = (i for i in (content.find(b"Xing"), content.find(b"Info")) if i >= 0)
    # The first frame, which holds the count and no music, ends where the next begins.
    path.write_bytes(tag + content[content.index(content[:2], counted) :])
    # The decoder's delay and the padding of the last frame, which nothing says any more.
    assert validate_audio_file(path).duration_s == pytest.approx(12.04, abs=0.01)
    assert peak_frequency(load_audio(path)) == pytest.approx(440, abs=1)


@pytest.mark.parametrize("tag", [b"", b"ID3\x03\0\0\0\x10\0\0" + bytes(1 << 18)])
@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
def test_joined_files_are_refused_and_tags_at_the_end_are_not(
    tmp_path: Path, mode: str, tag: bytes
) -> None:
    path = tmp_path / "a.mp3"
    write_mp3(path, mode)
    content = path.read_bytes()
    path.write_bytes(content + b"TAG" + np.random.default_rng(0).bytes(1 << 18))
    assert validate_audio_file(path).duration_s == 12
    path.write_bytes(content + b"TAG" + bytes(125) + tag + content)
    with pytest.raises(AudioError, match=r"several MP3 files in one.*`ffmpeg -i .*a\.flac`"):
        validate_audio_file(path)
    path = tmp_path / "a.ogg"
    soundfile.write(path, np.zeros(RATE), RATE)
    path.write_bytes(2 * path.read_bytes())
    with pytest.raises(AudioError, match="several OGG files in one"):
        load_audio(path)


def test_mp2_is_read(tmp_path: Path) -> None:
    """Frames of silence in MPEG-1 layer II, 192 kbit/s, 48 kHz, mono."""
    path = tmp_path / "a.mp2"
    path.write_bytes((b"\xff\xfd\xa4\xc0" + bytes(572)) * 200)
    assert len(load_audio(path, sample_rate=48_000)) == 200 * 1152


def test_a_caf_file_without_a_length_is_refused_with_the_remedy(write_tone: WriteTone) -> None:
    path = write_tone("a.caf")
    patched(path, path.read_bytes().index(b"data") + 4, b"\xff" * 8)
    with pytest.raises(AudioError, match=r"is malformed.*use WAV, .*`ffmpeg -i .*a\.flac`"):
        validate_audio_file(path)


def test_an_mp3_of_variable_bit_rate_is_the_same_in_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.mp3"
    write_mp3(path, "VARIABLE")
    whole, _ = soundfile.read(path, dtype="float32")
    monkeypatch.setattr(audio, "_BLOCK_FRAMES", 5_003)
    np.testing.assert_array_equal(load_audio(path, sample_rate=44_100), whole)


def test_a_pipe_that_cannot_be_filled_is_no_shorter_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.mp3"
    write_mp3(path, "VARIABLE")
    path.write_bytes(path.read_bytes().replace(b"Xing", b"....", 1))

    def fail(source: BinaryIO, target: BinaryIO) -> None:
        target.write(source.read(20_000))
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("shutil.copyfileobj", fail)
    with pytest.raises(AudioError, match=r"cannot be (read|decoded)"):
        load_audio(path)


def test_channels_that_cancel_and_samples_around_another_level_are_silent(tmp_path: Path) -> None:
    tone = 0.3 * np.sin(np.arange(6 * RATE) / 10)
    path = tmp_path / "a.wav"
    soundfile.write(path, np.stack([tone, -tone], axis=1), RATE, subtype="FLOAT")
    with pytest.raises(AudioError, match=r"2 channels' mean is digital zero.*do not cancel"):
        validate_audio_file(path)
    soundfile.write(path, np.full(6 * RATE, 0.25), RATE)
    with pytest.raises(AudioError, match="its peak is digital zero"):
        validate_audio_file(path)
    soundfile.write(path, tone + 0.25, RATE, subtype="FLOAT")
    assert validate_audio_file(path).peak == pytest.approx(0.3, abs=1e-3)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(5.0, [0.0]), (5.1, [0.0, 0.1]), (7.5, [0.0, 2.5]), (12.0, [0.0, 2.5, 5.0, 7.0])],
)
def test_windows_cover_everything_and_the_last_ends_with_the_recording(
    seconds: float, expected: list[float]
) -> None:
    starts = segment_starts(round(seconds * RATE), sample_rate=RATE)
    np.testing.assert_allclose(starts / RATE, expected)
    times = segment_times(len(starts), duration_s=seconds, window_s=5.0, overlap=0.5)
    np.testing.assert_allclose(times, expected, atol=1e-9)


def test_what_cannot_be_cut_is_refused() -> None:
    with pytest.raises(AudioError, match=r"4\.00 s, shorter than one window of 5 s") as caught:
        segment_starts(4 * RATE, sample_rate=RATE)
    assert caught.value.status == "too_short"
    with pytest.raises(AudioError, match=r"overlap is 1\.0"):
        segment_starts(10 * RATE, sample_rate=RATE, overlap=1.0)
    with pytest.raises(AudioError, match="moves by no sample"):
        list(stream_windows([], sample_rate=RATE, window_s=0.0))
    with pytest.raises(AudioError, match="expected one dimension"):
        segment_audio(np.zeros((2, 10 * RATE), np.float32), sample_rate=RATE)


def in_blocks(samples: np.ndarray, sizes: list[int]) -> Iterator[np.ndarray]:
    """Yield samples in blocks whose sizes repeat."""
    first = 0
    for size in itertools.cycle(sizes):
        if first >= len(samples):
            return
        yield samples[first : first + size]
        first += size


# In samples: a window of 40 with hops of 40, 20, 10 and 13.
@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.75, 0.67])
@pytest.mark.parametrize("n_samples", [40, 41, 60, 79, 81, 120, 997])
@pytest.mark.parametrize("sizes", [[1], [3, 7], [39, 1], [41], [5_000]])
def test_a_stream_has_the_windows_of_the_whole(
    n_samples: int, overlap: float, sizes: list[int]
) -> None:
    samples = np.arange(n_samples, dtype=np.float32)
    cut = {"sample_rate": 100, "window_s": 0.4, "overlap": overlap}
    found = list(stream_windows(in_blocks(samples, sizes), **cut))  # type: ignore[arg-type]
    starts = segment_starts(n_samples, **cut)  # type: ignore[arg-type]
    assert [start for start, _ in found] == starts.tolist()
    expected = np.stack([samples[start : start + 40] for start in starts])
    whole = segment_audio(samples, **cut)  # type: ignore[arg-type]
    for windows in (np.stack([window for _, window in found]), whole):
        np.testing.assert_array_equal(windows, expected)
        assert windows.dtype == np.float32


def test_windows_are_the_callers_to_keep() -> None:
    block = np.arange(100, dtype=np.float32)
    found = [window for _, window in stream_windows([block], sample_rate=10, window_s=3.0)]
    for window in found:
        window[:] = -1  # neither the block nor another window may change
    np.testing.assert_array_equal(block, np.arange(100))
    for one, other in itertools.combinations(found, 2):
        assert not np.shares_memory(one, other)


@pytest.mark.parametrize("n_samples", [0, 1, 4 * RATE, 5 * RATE - 1])
def test_a_stream_shorter_than_a_window_is_refused_like_the_whole(n_samples: int) -> None:
    with pytest.raises(AudioError) as whole:
        segment_starts(n_samples, sample_rate=RATE)
    blocks = in_blocks(np.zeros(n_samples, np.float32), [1_000])
    with pytest.raises(AudioError) as streamed:
        list(stream_windows(blocks, sample_rate=RATE))
    assert (str(streamed.value), streamed.value.status) == (str(whole.value), "too_short")


@pytest.mark.parametrize("rate", [15_999, 31_999, 44_100, 44_101, 47_999, 48_001])
@pytest.mark.parametrize("excess", [-1, 0, 1, 2])
def test_the_scan_and_extraction_agree_on_what_is_too_short(
    tmp_path: Path, rate: int, excess: int
) -> None:
    """Odd rates are taken for near ones, which changes a length by up to 0.02 %."""
    path = tmp_path / "a.wav"
    times = np.arange(rate + excess) / rate
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * 440 * times), rate)

    def accepts(call: Callable[[], object]) -> bool:
        try:
            call()
        except AudioError:
            return False
        return True

    windows = stream_windows(
        stream_audio(path, sample_rate=24_000), sample_rate=24_000, window_s=1.0
    )
    scanned = validate_audio_file(path).duration_s >= 1.0
    extracted = accepts(lambda: list(windows))
    # Resampling rounds a length up, by less than one sample.
    assert extracted or not scanned
    assert scanned or excess < 0 or rate in (15_999, 31_999, 44_101, 47_999, 48_001)
