"""Audio to features: windows of samples to the model in batches."""

__all__ = ["FeatureExtractor", "Features", "extract_passage"]

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from mess_core.errors import AudioError, ConfigError, EncoderError
from mess_core.extraction.audio import (
    find_passage,
    load_audio,
    segment_starts,
    stream_audio,
    stream_windows,
)
from mess_core.extraction.encoder import Encoder, Output, clear_gpu_cache, load_encoder

Floats = npt.NDArray[np.float32]
Tag = TypeVar("Tag")

BATCH_SIZES = {"cuda": 16, "mps": 8, "cpu": 4}

# torch raises a plain RuntimeError with these words where it has no OutOfMemoryError.
_OUT_OF_MEMORY = (
    "MPS backend out of memory",
    "CUDA error: out of memory",
    "DefaultCPUAllocator: can't allocate memory",
)

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Features:
    """Features of one recording; S segments, L layers, T frames, D dims.

    ``segments``, float32 [shape=(S, L, D)], are the means over the frames of every window,
    ``starts_s`` where the windows start in seconds, and ``raw``, float32 [shape=(S, L, T, D)], all
    frames where they were asked for (about 15 MB a window for MERT-v1-95M).
    """

    segments: Floats
    starts_s: npt.NDArray[np.float64]
    raw: Floats | None = None

    @property
    def aggregated(self) -> Floats:
        """Mean over the segments, float32 [shape=(L, D)]."""
        return np.asarray(self.segments.mean(axis=0, dtype=np.float64), np.float32)


class FeatureExtractor:
    """An encoder with its windowing and batch size.

    Parameters
    ----------
    encoder : Encoder or str or Path
        A loaded encoder, or what `load_encoder` takes, with ``models``, ``device``, ``precision``
        and ``threads``.
    window_s : float
        Length of a window in seconds.
    overlap : float
        Share of a window that it has in common with the next.
    batch_size : int, optional
        Windows per run of the model; by default 16 on CUDA, 8 on MPS and 4 on a CPU. It is halved
        when memory runs out, and stays so. Less than 1 is a ConfigError.

    Attributes
    ----------
    windows_run, seconds
        Windows that the model has run on so far, and the time that it took.
    """

    def __init__(
        self,
        encoder: Encoder | str | Path,
        *,
        window_s: float = 5.0,
        overlap: float = 0.5,
        batch_size: int | None = None,
        models: Path = Path("data/models"),
        device: str = "auto",
        precision: str = "auto",
        threads: int | None = None,
    ) -> None:
        if not isinstance(encoder, Encoder):
            encoder = load_encoder(
                str(encoder),
                models=models,
                device=device,
                precision=precision,
                window_s=window_s,
                threads=threads,
            )
        self.encoder = encoder
        self.window_s = window_s
        self.overlap = overlap
        if batch_size is None:
            batch_size = BATCH_SIZES[encoder.engine.device.partition(":")[0]]
        if batch_size < 1:
            raise ConfigError(f"batch_size is {batch_size}, it must be at least 1")
        self.batch_size = batch_size
        self.windows_run = 0
        self.seconds = 0.0

    def windows(self, path: Path) -> Iterator[tuple[int, Floats]]:
        """Decode an audio file of any rate and channel count to mono windows.

        Yields and raises what `stream_windows` of `stream_audio` does.
        """
        return self._cut(stream_audio(Path(path), sample_rate=self.encoder.spec.sample_rate))

    def _cut(self, blocks: Iterable[Floats]) -> Iterator[tuple[int, Floats]]:
        return stream_windows(
            blocks,
            sample_rate=self.encoder.spec.sample_rate,
            window_s=self.window_s,
            overlap=self.overlap,
        )

    def count_windows(self, duration_s: float) -> int:
        """Return how many windows a recording of some length has, 0 if it is too short."""
        rate = self.encoder.spec.sample_rate
        samples = round(duration_s * rate)
        if samples < round(self.window_s * rate):
            return 0
        starts = segment_starts(
            samples, sample_rate=rate, window_s=self.window_s, overlap=self.overlap
        )
        return len(starts)

    def run(
        self, windows: Iterable[tuple[Tag, Floats]], *, raw: bool = False
    ) -> Iterator[tuple[Tag, Floats, Floats | None]]:
        """Run the model on windows in batches, and give what it makes of each, in their order.

        ``windows`` are tags with samples [shape=(samples,)] of equal length, and are drawn one
        batch at a time. Yields each tag with the means [shape=(L, D)] and, where ``raw`` asks for
        them, the frames [shape=(L, T, D)]. These are parts of the batch's arrays: copy what is to
        be kept for long. Raises `EncoderError` if the device's memory does not suffice for one
        window.
        """
        source = iter(windows)
        while batch := list(islice(source, self.batch_size)):
            outputs = self._outputs([window for _, window in batch], raw)
            for (tag, _), (pooled, frames) in zip(batch, outputs, strict=True):
                yield tag, pooled, frames

    def _outputs(self, windows: list[Floats], raw: bool) -> Iterator[tuple[Floats, Floats | None]]:
        first = 0
        while first < len(windows):
            batch = np.stack(windows[first : first + self.batch_size])
            output = self._attempt(batch, raw)
            if isinstance(output, str):
                # After the attempt, because a traceback would keep the batch's tensors.
                self._halve(batch, output)
                continue
            first += len(batch)
            self.windows_run += len(batch)
            pooled, frames = output
            yield from zip(pooled, [None] * len(batch) if frames is None else frames, strict=True)

    def _attempt(self, batch: Floats, raw: bool) -> Output | str:
        """Run a batch; return the error's message when memory runs out."""
        began = time.perf_counter()
        try:
            return self.encoder.engine.run(batch, raw=raw)
        except Exception as error:
            if not _is_out_of_memory(error):
                raise
            return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        finally:
            self.seconds += time.perf_counter() - began

    def _halve(self, batch: Floats, cause: str) -> None:
        engine, (count, samples) = self.encoder.engine, batch.shape
        what = (
            f"a batch of {count} windows of {samples} samples does not fit into the memory of "
            f"{engine.device} in {engine.precision} ({cause})"
        )
        if count == 1:
            advice = "choose a shorter window_s, a lower precision or another device"
            raise EncoderError(f"{what}; {advice}")
        self.batch_size = count // 2
        clear_gpu_cache()
        _LOG.warning("%s; going on with batches of %d", what, self.batch_size)

    def extract(self, samples: Floats, *, raw: bool = False) -> Features:
        """Return the features of mono samples [shape=(n,)] at the encoder's rate.

        ``raw`` keeps all frames too. Raises `AudioError` if the samples are fewer than one window,
        or not all finite, and `EncoderError` if the model's output is not finite.
        """
        samples = np.asarray(samples, np.float32)
        if not np.isfinite(samples).all():
            raise AudioError("the samples are not all finite numbers", status="not_finite")
        return self._features(self._cut([samples]), raw=raw)

    def extract_file(self, path: Path, *, raw: bool = False) -> Features:
        """Return the features of an audio file; raises what `windows` and `extract` do."""
        return self._features(self.windows(path), raw=raw)

    def _features(self, windows: Iterator[tuple[int, Floats]], *, raw: bool) -> Features:
        starts, pooled, frames = zip(*self.run(windows, raw=raw), strict=True)
        return Features(
            segments=self.encoder.finite(np.stack(pooled)),
            starts_s=np.array(starts) / self.encoder.spec.sample_rate,
            raw=self.encoder.finite(np.stack(frames)) if raw else None,
        )


def _is_out_of_memory(error: Exception) -> bool:
    # The error can be torch's only where torch is loaded.
    torch_error = getattr(sys.modules.get("torch"), "OutOfMemoryError", ())
    return isinstance(error, (MemoryError, torch_error)) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)
    )


def extract_passage(
    extractor: FeatureExtractor,
    path: Path,
    start_s: float | None = None,
    end_s: float | None = None,
) -> Floats:
    """Return the features of a passage's windows, float32 [shape=(windows, layers, dims)].

    The passage is cut out and windowed as a recording is, from its very start. One that is shorter
    than a window is made as long as a window around its middle, with what the file has there:
    padding would change the encoder's features. Without start and end it is the whole file, without
    a start it begins with the file, and without an end it is as long as a window, or ends with the
    file. The extractor needs the window and overlap of the index that will be searched. Raises
    `AudioError` if the file cannot be read or is shorter than one window, or the times are not in
    it.
    """
    rate = extractor.encoder.spec.sample_rate
    samples = load_audio(path, sample_rate=rate)
    first, last = find_passage(
        len(samples), start_s, end_s, sample_rate=rate, window_s=extractor.window_s
    )
    return extractor.extract(samples[first:last]).segments
