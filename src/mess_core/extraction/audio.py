"""Audio files to mono samples at one rate, and samples to windows.

Conventions: samples are float32 in [-1, 1], mono (the mean of all channels), shape ``[n]``; times
are seconds. soundfile decodes whatever libsndfile reads (WAV, FLAC, Ogg, MP3, AIFF, any rate,
channel count and sample format); torchaudio resamples (Kaiser-windowed sinc, its defaults).

Windows have equal length, because padding would change MERT's features (group norm over time):

* windows start every ``window * (1 - overlap)`` seconds from the beginning;
* samples after the last whole window are not lost: one more window is placed so that it ends with
  the recording (it overlaps its neighbour more than the others do);
* a recording shorter than one window has no features: it is refused as ``too_short``.

A file that is cut off is noticed where its format says how long it should be (WAV, AIFF, FLAC, most
MP3); an Ogg file that ends at a page's end looks like a shorter one.
"""

__all__ = [
    "SILENCE_DBFS",
    "AudioInfo",
    "get_resampler",
    "load_audio",
    "segment_audio",
    "segment_starts",
    "validate_audio_file",
]

import os
import threading
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import soundfile

from mess_core.errors import AudioError
from mess_core.recordings import too_short

if TYPE_CHECKING:
    from collections.abc import Iterator

#: A recording whose highest sample is below this level (dB re full scale) counts as silent: it lies
#: between the noise of 16-bit dither (about -90) and the softest concert recordings (about -30).
SILENCE_DBFS = -60.0

# Largest number of samples after which a resampler's phases repeat.
_MAX_PHASES = 4000
_BLOCK_FRAMES = 1 << 18
_UNKNOWN_SIZES = (0, 0xFFFFFFFF)


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """Facts about a readable audio file.

    Attributes
    ----------
    duration_s : float
        Length in seconds.
    sample_rate : int
        Samples per second and channel.
    channels : int
        Number of channels.
    peak : float
        Highest absolute sample of all channels, 1 is full scale.
    """

    duration_s: float
    sample_rate: int
    channels: int
    peak: float


def validate_audio_file(path: Path, *, min_duration_s: float = 0.0) -> AudioInfo:
    """Decode a whole file once and check that it can be used.

    Parameters
    ----------
    path : Path
        The file.
    min_duration_s : float
        Shortest usable length in seconds.

    Returns
    -------
    AudioInfo

    Raises
    ------
    AudioError
        With `AudioError.status` ``missing``, ``empty``, ``unreadable``, ``truncated``,
        ``not_finite``, ``silent`` or ``too_short``.
    """
    _check_bytes(path)
    frames, peak = 0, 0.0
    with _opened(path) as file:
        for block in _blocks(path, file):
            if not np.isfinite(block).all():
                raise AudioError(
                    f"{path}: holds samples that are not finite numbers (NaN or infinity) within "
                    f"{frames / file.samplerate:.1f} to "
                    f"{(frames + len(block)) / file.samplerate:.1f} s; export it again",
                    status="not_finite",
                )
            frames += len(block)
            peak = max(peak, float(np.abs(block).max()))
        info = AudioInfo(frames / file.samplerate, file.samplerate, file.channels, peak)
        if frames < file.frames:
            raise AudioError(
                f"{path}: ends after {info.duration_s:.2f} s of the "
                f"{file.frames / file.samplerate:.2f} s that its header promises; copy it again",
                status="truncated",
            )
    _check_content(path, info, min_duration_s)
    return info


def _check_content(path: Path, info: AudioInfo, min_duration_s: float) -> None:
    if info.duration_s == 0:
        raise AudioError(f"{path}: holds no samples; remove it or export it again", status="empty")
    if info.duration_s < min_duration_s:
        raise AudioError(too_short(path, info.duration_s, min_duration_s), status="too_short")
    if info.peak < 10 ** (SILENCE_DBFS / 20):
        level = f"{20 * np.log10(info.peak):.0f} dBFS" if info.peak else "digital zero"
        raise AudioError(
            f"{path}: is silent (its peak is {level}, the limit is {SILENCE_DBFS:.0f} dBFS); "
            "check the export",
            status="silent",
        )


def _check_bytes(path: Path) -> None:
    if not path.is_file():
        raise AudioError(f"{path}: does not exist or is not a file", status="missing")
    size = path.stat().st_size
    if size == 0:
        raise AudioError(f"{path}: is empty (0 bytes); copy it again", status="empty")
    # libsndfile silently shortens a RIFF or AIFF file whose data chunk is cut off.
    with path.open("rb") as file:
        head = file.read(8)
    order = {b"RIFF": "little", b"FORM": "big"}.get(head[:4])
    if order is None or len(head) < 8:
        return
    declared = int.from_bytes(head[4:], "little" if order == "little" else "big")
    if declared not in _UNKNOWN_SIZES and declared + 8 > size:
        raise AudioError(
            f"{path}: has {size} of the {declared + 8} bytes that its header promises; "
            "copy it again",
            status="truncated",
        )


def _opened(path: Path) -> Any:
    try:
        return soundfile.SoundFile(os.fsencode(path))
    except (soundfile.LibsndfileError, RuntimeError, TypeError) as error:
        raise AudioError(
            f"{path}: is not audio that libsndfile can read ({_cause(error)}); "
            "use WAV, FLAC, Ogg, MP3 or AIFF"
        ) from None


def _cause(error: Exception) -> str:
    return str(getattr(error, "error_string", error)).rstrip(".")


def _blocks(path: Path, file: Any) -> "Iterator[npt.NDArray[np.float32]]":
    """Yield the file's samples as ``[frames, channels]`` blocks."""
    while True:
        try:
            block = file.read(_BLOCK_FRAMES, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise AudioError(
                f"{path}: cannot be decoded after {file.tell() / file.samplerate:.1f} s "
                f"({_cause(error)}); it may be cut off or damaged",
                status="truncated",
            ) from None
        if not len(block):
            return
        yield block


def load_audio(path: Path, *, sample_rate: int = 24_000) -> npt.NDArray[np.float32]:
    """Load a file as mono samples at ``sample_rate``.

    Parameters
    ----------
    path : Path
        Any file that libsndfile reads.
    sample_rate : int
        Samples per second of the result.

    Returns
    -------
    ndarray of float32 [shape=(n,)]
        The mean of all channels.

    Raises
    ------
    AudioError
        If the file is missing, empty, cut off, cannot be decoded, or has samples that are not
        finite.
    """
    _check_bytes(path)
    with _opened(path) as file:
        blocks = [block.mean(axis=1) for block in _blocks(path, file)]
        rate = file.samplerate
    samples = np.concatenate(blocks) if blocks else np.zeros(0, np.float32)
    if not np.isfinite(samples).all():
        raise AudioError(f"{path}: holds samples that are not finite", status="not_finite")
    return _resample(samples, rate, sample_rate)


def _resample(
    samples: npt.NDArray[np.float32], source_rate: int, target_rate: int
) -> npt.NDArray[np.float32]:
    if source_rate == target_rate or not len(samples):
        return samples
    import torch

    with torch.inference_mode():
        result = get_resampler(source_rate, target_rate)(torch.from_numpy(samples))
    return np.asarray(result.numpy(), np.float32)


_resamplers: dict[tuple[int, int], Any] = {}
_resamplers_lock = threading.Lock()


def get_resampler(source_rate: int, target_rate: int) -> Any:
    """Return the `torchaudio.transforms.Resample` for a pair of rates, made once per process.

    Safe to call from several threads: all get the same object, whose kernel is read-only in use.
    The kernel has as many phases as the reduced ratio of the rates says, so an odd rate (44101 Hz)
    is taken for the nearest ratio of numbers up to 4000: exact for all common rates, and never off
    by more than 0.02 % (a third of a cent).
    """
    low, high = sorted((source_rate, target_rate))
    ratio = Fraction(low, high).limit_denominator(_MAX_PHASES)
    key = (ratio.denominator, ratio.numerator)
    if source_rate < target_rate:
        key = key[::-1]
    with _resamplers_lock:
        if key not in _resamplers:
            from torchaudio.transforms import Resample

            _resamplers[key] = Resample(*key)
        return _resamplers[key]


def segment_starts(
    n_samples: int, *, sample_rate: int, window_s: float = 5.0, overlap: float = 0.5
) -> npt.NDArray[np.int64]:
    """Return where windows start, in samples (see the module's rules for the tail).

    Parameters
    ----------
    n_samples : int
        Length of the recording.
    sample_rate : int
        Samples per second.
    window_s : float
        Length of a window in seconds.
    overlap : float
        Share of a window that it has in common with the next, 0 <= overlap < 1.

    Returns
    -------
    ndarray of int64 [shape=(segments,)]
        Strictly increasing, at least one.

    Raises
    ------
    AudioError
        If the recording is shorter than one window (``too_short``), or a setting is out of range.
    """
    if not 0 <= overlap < 1:
        raise AudioError(f"overlap is {overlap}, it must be at least 0 and below 1")
    window = round(window_s * sample_rate)
    hop = round(window * (1 - overlap))
    if window < 1 or hop < 1:
        raise AudioError(f"a window of {window_s} s with overlap {overlap} moves by no sample")
    if n_samples < window:
        raise AudioError(
            f"the recording has {n_samples / sample_rate:.2f} s, shorter than one window of "
            f"{window_s:g} s",
            status="too_short",
        )
    starts = np.arange(0, n_samples - window + 1, hop, dtype=np.int64)
    last = n_samples - window
    return starts if starts[-1] == last else np.append(starts, last)


def segment_audio(
    samples: npt.NDArray[np.float32],
    *,
    sample_rate: int,
    window_s: float = 5.0,
    overlap: float = 0.5,
) -> npt.NDArray[np.float32]:
    """Cut samples into windows of equal length.

    Parameters
    ----------
    samples : ndarray [shape=(n,)]
        A mono recording.
    sample_rate, window_s, overlap
        As in `segment_starts`.

    Returns
    -------
    ndarray of float32 [shape=(segments, window)]

    Raises
    ------
    AudioError
        As `segment_starts`, or if ``samples`` has more than one dimension.
    """
    if samples.ndim != 1:
        raise AudioError(f"samples have the shape {samples.shape}, expected one dimension (mono)")
    starts = segment_starts(
        len(samples), sample_rate=sample_rate, window_s=window_s, overlap=overlap
    )
    windows = np.lib.stride_tricks.sliding_window_view(samples, round(window_s * sample_rate))
    return windows[starts]
