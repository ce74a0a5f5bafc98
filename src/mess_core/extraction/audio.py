"""Audio files to mono samples at one rate, and samples to windows, both as streams.

Conventions: samples are float32, full scale is 1, mono (the mean of all channels), shape ``[n]``;
times are seconds, positions are samples. soundfile decodes whatever libsndfile reads (WAV, FLAC,
Ogg, MP3, AIFF and others), whatever the file's name ends with.

A file whose rate differs is resampled by a sinc under a Hann window of 6 zero crossings on each
side, which cuts off at 0.99 of the lower Nyquist frequency: what torchaudio's `Resample` computes
by default. The signal counts as zero outside, and *N* samples become ``ceil(N * target / source)``.
`stream_audio` gives what the resampler makes of the whole signal, block by block in memory that
does not depend on the file's length.

Windows have equal length, because padding would change MERT's features (group norm over time). They
start every ``window * (1 - overlap)`` seconds. If samples are left after the last whole window, one
more is placed so that it ends with the recording. A recording shorter than one window is refused as
``too_short``.

A file that is cut off is noticed where its format says how long it should be (WAV, RF64, W64, AIFF,
AU, FLAC, most MP3). Files that do not say it (a WAV from a pipe or of a recorder that crashed, an
MP3 without a Xing header, a FLAC stream) are read to their end. Several Ogg or MP3 files joined in
one are refused, because libsndfile reads the first only.
"""

__all__ = [
    "SILENCE_DBFS",
    "AudioInfo",
    "encode_excerpt",
    "find_passage",
    "get_resampler",
    "load_audio",
    "read_excerpt",
    "segment_audio",
    "segment_starts",
    "stream_audio",
    "stream_windows",
    "validate_audio_file",
]

import base64
import io
import os
import re
import shlex
import shutil
import stat
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from math import ceil
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt
import soundfile
from numpy.lib.stride_tricks import sliding_window_view

from mess_core.errors import AudioError
from mess_core.files import file_sha256

Floats = npt.NDArray[np.float32]

#: A recording whose highest sample is below this level (dB re full scale) counts as silent: it lies
#: between the noise of 16-bit dither (about -90) and the softest concert recordings (about -30).
SILENCE_DBFS = -60.0

#: The largest sample that is believed, 60 dB over full scale: the squares of larger ones overflow.
_LARGEST = 1000.0
# Largest number of samples after which a resampler's phases repeat.
_MAX_PHASES = 4000
_ENCODER_RATE = 24_000
# Samples per channel that are decoded at a time, about 5 s: 1 MB a channel.
_BLOCK_FRAMES = 1 << 18
# Sample rates outside these (Hz) come from damaged headers.
_RATES = range(1_000, 1_000_001)
# So many bytes at the end of a file may be missing: padding that some programs leave out.
_PADDING = 8
# Formats that consist of chunks, and the order of bytes in their sizes.
_CHUNKED: dict[bytes, Literal["little", "big"]] = {
    b"RIFF": "little",
    b"RF64": "little",
    b"RIFX": "big",
    b"FORM": "big",
}
# Samples per channel that libsndfile gives a stream whose length it does not know.
_ENDLESS = 2**63 - 1

# Sample rates of MPEG-1 and MPEG-2 layer III; others are resampled to the last.
_MP3_RATES = (16_000, 22_050, 24_000, 32_000, 48_000, 44_100)
# Of soundfile, from 0 (best) to 1: about 48 kbit/s for mono at 44.1 kHz.
_COMPRESSION = 0.6
# A cut through a sound clicks; seconds of fading in and out.
_FADE_S = 0.01


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """Facts about a readable audio file.

    ``peak`` is half the distance from the lowest to the highest sample of the channels' mean, which
    leaves out a DC offset; 1 is full scale.
    """

    duration_s: float
    sample_rate: int
    channels: int
    peak: float


def validate_audio_file(path: Path, *, longest_s: float = np.inf) -> AudioInfo:
    """Decode a whole file once and check that it can be used, and is not longer than that.

    Raises `AudioError` with the status ``missing``, ``empty``, ``unreadable``, ``truncated``,
    ``not_finite``, ``too_large`` or ``silent``.
    """
    frames, low, high = 0, np.inf, -np.inf
    with _opened(path) as file:
        for block in _blocks(path, file):
            mono = _mono(block)
            frames += len(mono)
            if frames > longest_s * file.samplerate:
                raise AudioError(f"{path}: is longer than {longest_s:g} s; cut a passage out")
            low, high = min(low, float(mono.min())), max(high, float(mono.max()))
        # As long as it will be at the encoders' rate: an odd rate is taken for a near one.
        source, target = _ratio(file.samplerate, _ENCODER_RATE)
        duration_s = frames * target / (source * _ENCODER_RATE)
        info = AudioInfo(duration_s, file.samplerate, file.channels, (high - low) / 2)
    if info.peak < 10 ** (SILENCE_DBFS / 20):
        level = f"{20 * np.log10(info.peak):.0f} dBFS" if info.peak else "digital zero"
        what, advice = "its peak", "check the export"
        if info.channels > 1:
            what = f"the peak of its {info.channels} channels' mean"
            advice += ", and that the channels do not cancel each other"
        raise AudioError(
            f"{path}: is silent ({what} is {level}, the limit is {SILENCE_DBFS:.0f} dBFS); "
            f"{advice}",
            status="silent",
        )
    return info


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a file that is there, whole as far as it says how long it is, and audio."""
    try:
        _check_file(path)
        with ExitStack() as stack:
            file = stack.enter_context(_open(path, os.fsencode(path)))
            if _is_joined(path, file.format):
                raise AudioError(
                    f"{path}: is several {file.format} files in one, of which only the first would "
                    f"be read; make one of them, for example by `{_conversion(path)}`"
                )
            if stream := _stream_of(path, file):
                file = stack.enter_context(_open(path, stack.enter_context(_piped(path, *stream))))
            yield file
    except OSError as error:
        raise _no_access(path, error) from None


def _open(path: Path, source: bytes | int) -> Any:
    try:
        file = soundfile.SoundFile(source, closefd=False)
    except (soundfile.LibsndfileError, RuntimeError, TypeError) as error:
        raise AudioError(
            f"{path}: is not audio that libsndfile can read ({_cause(error)}); use WAV, FLAC, Ogg, "
            f"MP3 or AIFF, for example by `{_conversion(path)}`"
        ) from None
    if file.samplerate not in _RATES:
        file.close()
        raise AudioError(
            f"{path}: has {file.samplerate} samples per second by its header, which should be "
            f"{_RATES[0]} to {_RATES[-1]}; copy it again or correct its header"
        )
    # Else soundfile seeks after each block, which in an MP3 of variable bit rate leads to another
    # place, and in a FLAC stream that does not know its length is an error.
    file.seekable = lambda: False
    return file


def _conversion(path: Path) -> str:
    return shlex.join(["ffmpeg", "-i", str(path), str(path.with_suffix(".flac"))])


def _check_file(path: Path) -> None:
    facts = path.stat()
    if not stat.S_ISREG(facts.st_mode):
        kind = "a folder" if stat.S_ISDIR(facts.st_mode) else "no regular file"
        raise AudioError(f"{path}: is {kind}, audio was expected; rename it or move it elsewhere")
    if facts.st_size == 0:
        raise AudioError(f"{path}: is empty (0 bytes); copy it again", status="empty")
    with path.open("rb") as file:
        start, size = _samples_chunk(file)
    # libsndfile silently shortens such a file when its data are cut off. What a program writes that
    # does not know the length yet is all ones, or within some bytes of 2 or 4 GiB.
    unknown = size > 2**30 and (size + 2**16) % 2**31 < 2**17
    if start + size > facts.st_size + _PADDING and not unknown:
        raise AudioError(
            f"{path}: has {facts.st_size} of the {start + size} bytes that its header promises; "
            "copy it again",
            status="truncated",
        )


def _samples_chunk(file: BinaryIO) -> tuple[int, int]:
    """Return where the samples of a WAV, RF64, AIFF or AU file begin, and their promised bytes.

    Of W64 it is the whole file; where a format does not say it, zeros.
    """
    head = file.read(40)
    kind = head[:4]
    if kind == b"riff":
        return 0, int.from_bytes(head[16:24], "little")
    if kind == b".snd":
        return int.from_bytes(head[4:8], "big"), int.from_bytes(head[8:12], "big")
    if kind in _CHUNKED:
        file.seek(12)
        while len(chunk := file.read(8)) == 8:
            size = int.from_bytes(chunk[4:], _CHUNKED[kind])
            if chunk[:4] in (b"data", b"SSND"):
                if kind == b"RF64" and size == 0xFFFFFFFF:
                    size = int.from_bytes(head[28:36], "little")
                return file.tell(), size
            file.seek(size + size % 2, os.SEEK_CUR)
    return 0, 0


def _is_joined(path: Path, form: str) -> bool:
    """Say whether another Ogg stream or MP3 follows behind the end of the first."""
    with path.open("rb") as file:
        ended = 0
        while form == "OGG" and (page := file.read(27))[:4] == b"OggS":
            if ended and page[5] & 2:  # it begins a stream
                return True
            ended |= page[5] & 4
            file.seek(sum(file.read(page[26])), os.SEEK_CUR)
        start, counted = _mp3_start(file)
        if form != "MP3" or not counted or not counted[1][0] & 2:
            return False
        file.seek(start + int.from_bytes(counted[1][5:], "big"))
        rest = file.read(1 << 20)
    # A frame has at most 1441 bytes, and begins with what other bytes, as of tags, seldom hold.
    frames = re.findall(rb"\xff[\xe2\xe3\xf2\xf3\xfa\xfb]", rest)
    return len(frames) > max(len(rest) / 4000, 5)


def _mp3_start(file: BinaryIO) -> tuple[int, re.Match[bytes] | None]:
    """Return where the first frame begins, and its flags with the counts of frames and bytes."""
    start = 0
    while (head := file.read(300))[:3] == b"ID3":
        start += 10 + sum(b << bits for b, bits in zip(head[6:10], (21, 14, 7, 0), strict=True))
        file.seek(start)
    return start, re.search(rb"(?:Xing|Info)...(.{9})", head, re.DOTALL)


def _stream_of(path: Path, file: Any) -> tuple[bytes, int] | None:
    """Return how to read all of a file whose header misleads libsndfile about its length.

    That is bytes to begin with, and where the rest begins in the file; None if it does not mislead.
    """
    with path.open("rb") as content:
        if file.format == "MP3":
            # Without a count of frames, libsndfile stops where it guesses the end.
            start, counted = _mp3_start(content)
            return None if counted and counted[1][0] & 1 else (b"", start)
        if file.frames == 0:
            # A recorder that crashed leaves a size of 0; in AIFF it counts 8 bytes more.
            start, size = _samples_chunk(content)
            left = path.stat().st_size - start
            content.seek(0)
            head = content.read(start)
            if head[:4] in _CHUNKED and size <= 8 and 0 < left < 2**32:
                kind = b"RIFF" if head[:4] == b"RF64" else head[:4]
                return kind + head[4:-4] + left.to_bytes(4, _CHUNKED[head[:4]]), start
    return None


@contextmanager
def _piped(path: Path, head: bytes, start: int) -> Iterator[int]:
    """Give a pipe out of which ``head`` comes, and then the file from ``start`` on."""
    out, into = os.pipe()

    def feed() -> None:
        with suppress(BrokenPipeError), os.fdopen(into, "wb") as pipe, path.open("rb") as file:
            pipe.write(head)
            file.seek(start)
            shutil.copyfileobj(file, pipe)

    with ThreadPoolExecutor(1) as pool:
        fed = pool.submit(feed)
        try:
            yield out
        finally:
            os.close(out)
    fed.result()


def _no_access(path: Path, error: OSError) -> AudioError:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        what = "is a link to a file that does not exist" if path.is_symlink() else "does not exist"
        return AudioError(
            f"{path}: {what}; put the file back, or run `mess recordings` again if it is gone",
            status="missing",
        )
    if isinstance(error, PermissionError):
        advice = "give it (`chmod a+r` on the file, `chmod a+x` on its folders)"
        return AudioError(f"{path}: this user has no permission to read it; {advice}")
    reason = error.strerror or error
    return AudioError(f"{path}: cannot be read ({reason}); check the path and its disk")


def _cause(error: Exception) -> str:
    return str(getattr(error, "error_string", error)).rstrip(".")


def _blocks(path: Path, file: Any) -> Iterator[Floats]:
    """Yield all samples of an open file as ``[frames, channels]`` blocks of finite numbers."""
    frames = 0
    while True:
        try:
            block = file.read(_BLOCK_FRAMES, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise AudioError(
                f"{path}: cannot be decoded after {frames / file.samplerate:.1f} s "
                f"({_cause(error)}); it may be cut off or damaged; copy it again",
                status="truncated",
            ) from None
        if not len(block):
            break
        if not (block.max() <= _LARGEST and block.min() >= -_LARGEST):  # NaN is neither
            raise _unusable(path, block, frames, file.samplerate)
        frames += len(block)
        yield block
    if frames < file.frames < _ENDLESS:
        raise AudioError(
            f"{path}: ends after {frames / file.samplerate:.2f} s of the "
            f"{file.frames / file.samplerate:.2f} s that its header promises; copy it again",
            status="truncated",
        )
    if not frames:
        raise AudioError(f"{path}: holds no samples; remove it or export it again", status="empty")


def _unusable(path: Path, block: npt.NDArray[Any], frames: int, rate: int) -> AudioError:
    """Return what is wrong with a block that is not finite, or too large, and where."""
    sizes = np.abs(block).max(axis=1)
    first = int(np.argmin(sizes <= _LARGEST))
    place = f"at {(frames + first) / rate:.3f} s"
    if not np.isfinite(sizes[first]):
        return AudioError(
            f"{path}: is not finite (NaN or infinity) {place}; export it again", status="not_finite"
        )
    return AudioError(
        f"{path}: has a sample of {sizes[first]:.6g} {place}, where 1 is full scale and "
        f"{_LARGEST:g} the limit; export it again with full scale at 1",
        status="too_large",
    )


def _mono(block: Floats) -> Floats:
    """Return the mean of all channels, a hundred times as fast as numpy's along a short axis."""
    mono = block[:, 0].copy()
    for channel in block.T[1:]:
        mono += channel
    mono /= block.shape[1]
    return mono


def stream_audio(path: Path, *, sample_rate: int = 24_000) -> Iterator[Floats]:
    """Decode any file that libsndfile reads to mono samples, block by block in constant memory.

    Yields the mean of all channels at ``sample_rate`` in arrays of different lengths, at least 1.
    While iterating it raises as `validate_audio_file`, but for ``silent``. Blocks before a bad
    place were already given.
    """
    with _opened(path) as file:
        mono = map(_mono, _blocks(path, file))
        if _ratio(file.samplerate, sample_rate) == (1, 1):
            yield from mono
        else:
            yield from _resampled(mono, get_resampler(file.samplerate, sample_rate))


def load_audio(path: Path, *, sample_rate: int = 24_000) -> Floats:
    """Load a file as one array of mono samples [shape=(n,)]; see `stream_audio`."""
    return np.concatenate(list(stream_audio(path, sample_rate=sample_rate)))


def _resampled(blocks: Iterable[Floats], resampler: "Resampler") -> Iterator[Floats]:
    """Yield what the resampler would make of all blocks joined.

    Every ``source`` samples become ``target`` samples by the same kernel. So blocks that begin at a
    multiple of ``source`` give the whole signal's result, except near their edges, over which the
    kernel reaches ``width`` samples: that is cut away.
    """
    source, target, width = resampler.source, resampler.target, resampler.width
    context = -(-width // source)  # in periods of `source` samples
    held = np.zeros(context * source, np.float32)
    n_in = n_out = 0
    for block in blocks:
        n_in += len(block)
        held = np.concatenate([held, block])
        periods = (len(held) - width) // source - context
        if periods > 0:
            yield resampler(held)[context * target : (context + periods) * target]
            held = held[periods * source :]
            n_out += periods * target
    last = -(-n_in * target // source) - n_out
    yield resampler(held)[context * target : context * target + last]


#: Zero crossings of the sinc on each side, and where it cuts off, by the lower Nyquist frequency.
_CROSSINGS, _CUTOFF = 6, 0.99


class Resampler:
    """Makes ``target`` samples of every ``source`` samples, by a kernel of so many phases.

    The kernel reaches ``width`` samples beyond them on either side. Threads may share it.
    """

    def __init__(self, source: int, target: int) -> None:
        cutoff = min(source, target) * _CUTOFF
        self.source, self.target = source, target
        self.width = ceil(_CROSSINGS * source / cutoff)
        places = np.arange(-self.width, self.width + source) / source
        # In float32, as torchaudio has it: features are what they were.
        times = np.arange(target, dtype=np.float32) / np.float32(target)
        crossings = np.clip((places - times[:, np.newaxis]) * cutoff, -_CROSSINGS, _CROSSINGS)
        window = np.cos(crossings * np.pi / _CROSSINGS / 2) ** 2
        kernel = np.sinc(crossings) * window * cutoff / source
        self.kernel = kernel.T.astype(np.float32)

    def __call__(self, samples: Floats) -> Floats:
        """Return samples [shape=(n,)] at the other rate [shape=(ceil(n * target / source),)]."""
        padded = np.pad(samples, (self.width, self.width + self.source))
        spans = sliding_window_view(padded, len(self.kernel))[:: self.source]
        length = -(-len(samples) * self.target // self.source)
        return np.asarray((spans @ self.kernel).reshape(-1)[:length])


def get_resampler(source_rate: int, target_rate: int) -> Resampler:
    """Return the resampler for a pair of rates.

    The kernel has as many phases as the reduced ratio of the rates says, so an odd rate (44101 Hz)
    is taken for the nearest ratio of numbers up to 4000: exact for all common rates, and never off
    by more than 0.02 % (a third of a cent).
    """
    return _resampler(*_ratio(source_rate, target_rate))


_resampler = cache(Resampler)


def _ratio(source_rate: int, target_rate: int) -> tuple[int, int]:
    low, high = sorted((source_rate, target_rate))
    ratio = Fraction(low, high).limit_denominator(_MAX_PHASES)
    small, large = ratio.numerator, ratio.denominator
    return (small, large) if source_rate < target_rate else (large, small)


def segment_starts(
    n_samples: int, *, sample_rate: int, window_s: float = 5.0, overlap: float = 0.5
) -> npt.NDArray[np.int64]:
    """Return where the windows of ``n_samples`` start, in samples [shape=(segments,)].

    ``overlap`` is the share of a window that it has in common with the next, 0 <= overlap < 1. A
    recording that is shorter than one window, and a setting out of range, are an AudioError.
    """
    window, hop = _window_and_hop(sample_rate, window_s, overlap)
    if n_samples < window:
        raise AudioError(
            f"the recording has {n_samples / sample_rate:.2f} s, shorter than one window of "
            f"{window_s:g} s; use a longer excerpt or a shorter window",
            status="too_short",
        )
    starts = np.arange(0, n_samples - window + 1, hop, dtype=np.int64)
    last = n_samples - window
    return starts if starts[-1] == last else np.append(starts, last)


def find_passage(
    n_samples: int,
    start_s: float | None,
    end_s: float | None,
    *,
    sample_rate: int,
    window_s: float,
) -> tuple[int, int]:
    """Return the first sample of a passage and the one after its last, at least a window later.

    `mess_core.extraction.extractor.extract_passage` says what start and end mean. Times outside of
    the recording are an AudioError.
    """
    duration = n_samples / sample_rate
    start, end = start_s or 0.0, end_s
    if end is None:
        end = duration if start_s is None else min(start + window_s, duration)
    if not 0 <= start < end <= duration + 1 / sample_rate:
        raise AudioError(
            f"{start:g} to {end:g} s is no passage of its {duration:.2f} s; the start must come "
            "before the end"
        )
    first, last = round(start * sample_rate), min(round(end * sample_rate), n_samples)
    window = round(window_s * sample_rate)
    if last - first < window:
        first = max(0, min((first + last - window) // 2, n_samples - window))
        last = first + window
    return first, last


def _window_and_hop(sample_rate: int, window_s: float, overlap: float) -> tuple[int, int]:
    if not 0 <= overlap < 1:
        raise AudioError(f"overlap is {overlap}, it must be at least 0 and below 1")
    window = round(window_s * sample_rate)
    hop = round(window * (1 - overlap))
    if window < 1 or hop < 1:
        raise AudioError(f"a window of {window_s} s with overlap {overlap} moves by no sample")
    return window, hop


def segment_audio(
    samples: Floats, *, sample_rate: int, window_s: float = 5.0, overlap: float = 0.5
) -> Floats:
    """Cut mono samples [shape=(n,)] into windows [shape=(segments, window)] by `stream_windows`."""
    windows = stream_windows([samples], sample_rate=sample_rate, window_s=window_s, overlap=overlap)
    return np.stack([window for _, window in windows])


def stream_windows(
    blocks: Iterable[Floats], *, sample_rate: int, window_s: float = 5.0, overlap: float = 0.5
) -> Iterator[tuple[int, Floats]]:
    """Cut a stream of mono samples, in blocks of any length, into the windows of `segment_audio`.

    Holds about one window and one block, however long the stream is. Yields where each window
    starts, in samples, and a copy of its samples [shape=(window,)]. Raises an AudioError while
    iterating: as `segment_starts`, or if a block has more than one dimension. That the stream is
    shorter than one window is known only at its end.
    """
    window, hop = _window_and_hop(sample_rate, window_s, overlap)
    held = np.zeros(0, np.float32)
    first = 0  # where `held` starts
    start = 0  # where the next window of the grid starts
    for block in blocks:
        if block.ndim != 1:
            raise AudioError(f"samples have the shape {block.shape}, expected one dimension (mono)")
        held = np.concatenate([held, block])
        end = first + len(held)
        while start + window <= end:
            yield start, held[start - first : start - first + window].copy()
            start += hop
        # The last `window` samples may be the tail's window; the grid's next starts among them.
        first = max(first, end - window)
        held = held[-window:].copy()
    starts = segment_starts(
        first + len(held), sample_rate=sample_rate, window_s=window_s, overlap=overlap
    )
    if starts[-1] != start - hop:
        yield first, held


def read_excerpt(
    path: Path, start_s: float, end_s: float, *, sha256: str = ""
) -> tuple[Floats, int]:
    """Read a passage as mono samples [shape=(n,)] at the rate of its file, which comes second.

    Raises `AudioError` where the file is gone, cannot be read, or is not that of ``sha256`` (it may
    sound otherwise).
    """
    try:
        if sha256 and file_sha256(path) != sha256:
            raise AudioError("the audio file is not the one that was indexed")
        with soundfile.SoundFile(path) as file:
            first = round(start_s * file.samplerate)
            if not 0 <= first < file.frames:
                raise ValueError(f"it has no sound at {start_s:g} s")
            file.seek(first)
            count = round(end_s * file.samplerate) - first
            return _mono(file.read(count, dtype="float32", always_2d=True)), int(file.samplerate)
    except FileNotFoundError:
        raise AudioError("the audio file is no longer there") from None
    # soundfile's errors are RuntimeErrors.
    except (OSError, RuntimeError, ValueError) as error:
        raise AudioError(f"the audio file cannot be read: {error}") from None


def encode_excerpt(samples: Floats, rate: int) -> str:
    """Return mono samples [shape=(n,)], faded in and out, as an MP3 in a ``data:`` URI.

    Every browser plays MP3 (Ogg Vorbis is newer in some).
    """
    if rate not in _MP3_RATES:
        samples, rate = get_resampler(rate, _MP3_RATES[-1])(samples), _MP3_RATES[-1]
    fade = np.minimum(1.0, np.arange(1, len(samples) + 1) / (_FADE_S * rate))
    faded = np.clip(samples * fade * fade[::-1], -1, 1).astype(np.float32)
    buffer = io.BytesIO()
    mp3 = {"format": "MP3", "bitrate_mode": "VARIABLE", "compression_level": _COMPRESSION}
    soundfile.write(buffer, faded, rate, **mp3)
    return "data:audio/mpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
