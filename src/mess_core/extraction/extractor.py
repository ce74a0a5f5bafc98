"""One recording's samples to its features."""

__all__ = ["FeatureExtractor", "Features", "aggregate"]

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mess_core.errors import AudioError
from mess_core.extraction.audio import (
    segment_audio,
    segment_starts,
    stream_audio,
    stream_windows,
)
from mess_core.extraction.batching import Batcher
from mess_core.extraction.encoder import MertEncoder, load_encoder

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Features:
    """Features of one recording; S segments, L layers, T frames, D dims.

    Attributes
    ----------
    segments : ndarray of float32 [shape=(S, L, D)]
        Mean over the frames of every window.
    starts_s : ndarray of float64 [shape=(S,)]
        Where the windows start, in seconds.
    raw : ndarray of float32 [shape=(S, L, T, D)] or None
        All frames, where they were asked for (about 15 MB a window for MERT-v1-95M).
    """

    segments: Floats
    starts_s: npt.NDArray[np.float64]
    raw: Floats | None = None

    @property
    def aggregated(self) -> Floats:
        """Mean over the segments, float32 [shape=(L, D)]."""
        return aggregate(self.segments)


def aggregate(segments: Floats) -> Floats:
    """Return the mean over segments, [S, L, D] to [L, D]."""
    return np.asarray(segments.mean(axis=0, dtype=np.float64), np.float32)


class FeatureExtractor:
    """An encoder with its windowing and batch size.

    Parameters
    ----------
    encoder : MertEncoder or str or Path
        A loaded encoder, or what `load_encoder` takes.
    window_s : float
        Length of a window in seconds.
    overlap : float
        Share of a window that it has in common with the next.
    batch_size : int, optional
        Windows per run of the model; by default 16 on CUDA, 8 on MPS and 4 on a CPU. It is halved
        where memory runs out.
    models, device, precision, threads
        As in `load_encoder`; used when ``encoder`` is a name.
    """

    def __init__(
        self,
        encoder: MertEncoder | str | Path,
        *,
        window_s: float = 5.0,
        overlap: float = 0.5,
        batch_size: int | None = None,
        models: Path = Path("data/models"),
        device: str = "auto",
        precision: str = "auto",
        threads: int | None = None,
    ) -> None:
        if not isinstance(encoder, MertEncoder):
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
        self.batcher = Batcher(encoder.engine, batch_size)

    def windows(self, path: Path) -> Iterator[tuple[int, Floats]]:
        """Decode an audio file of any rate and channel count as a stream of windows.

        Yields
        ------
        int
            Where the window starts, in samples at the encoder's rate.
        ndarray of float32 [shape=(samples,)]
            The window, mono.

        Raises
        ------
        AudioError
            If the file cannot be read, or is shorter than one window.
        """
        rate = self.encoder.spec.sample_rate
        return stream_windows(
            stream_audio(Path(path), sample_rate=rate),
            sample_rate=rate,
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

    def extract(self, samples: Floats, *, raw: bool = False) -> Features:
        """Return the features of mono samples at the encoder's rate.

        Parameters
        ----------
        samples : ndarray of float32 [shape=(n,)]
            At least one window long.
        raw : bool
            Whether to keep all frames too.

        Raises
        ------
        AudioError
            If the samples are fewer than one window, or not all finite.
        EncoderError
            If the model's output is not finite.
        """
        samples = np.asarray(samples, np.float32)
        if not np.isfinite(samples).all():
            raise AudioError("the samples are not all finite numbers", status="not_finite")
        rate = self.encoder.spec.sample_rate
        windows = segment_audio(
            samples, sample_rate=rate, window_s=self.window_s, overlap=self.overlap
        )
        starts = segment_starts(
            len(samples), sample_rate=rate, window_s=self.window_s, overlap=self.overlap
        )
        return self._features(zip(starts.tolist(), windows, strict=True), raw=raw)

    def extract_file(self, path: Path, *, raw: bool = False) -> Features:
        """Return the features of an audio file of any rate and channel count.

        Raises
        ------
        AudioError
            If the file cannot be read, or is shorter than one window.
        EncoderError
            If the model's output is not finite.
        """
        return self._features(self.windows(path), raw=raw)

    def _features(self, windows: Iterator[tuple[int, Floats]], *, raw: bool) -> Features:
        starts, pooled, frames = zip(*self.batcher.run(windows, raw=raw), strict=True)
        return Features(
            segments=self.encoder.finite(np.stack(pooled)),
            starts_s=np.array(starts) / self.encoder.spec.sample_rate,
            raw=self.encoder.finite(np.stack(frames)) if raw else None,
        )
