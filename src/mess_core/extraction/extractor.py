"""One recording's samples to its features."""

__all__ = ["FeatureExtractor", "Features"]

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mess_core.errors import AudioError
from mess_core.extraction.audio import load_audio, segment_audio, segment_starts
from mess_core.extraction.encoder import MertEncoder, load_encoder

_BATCH_SIZES = {"cuda": 16, "mps": 8, "cpu": 4}


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

    segments: npt.NDArray[np.float32]
    starts_s: npt.NDArray[np.float64]
    raw: npt.NDArray[np.float32] | None = None

    @property
    def aggregated(self) -> npt.NDArray[np.float32]:
        """Mean over the segments, float32 [shape=(L, D)]."""
        return aggregate(self.segments)


def aggregate(segments: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the mean over segments, [S, L, D] to [L, D]."""
    return np.asarray(segments.mean(axis=0, dtype=np.float64), np.float32)


def pool(raw: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the mean over frames, [S, L, T, D] to [S, L, D], window by window."""
    return np.stack([window.mean(axis=1, dtype=np.float64) for window in raw]).astype(np.float32)


class FeatureExtractor:
    """An encoder with its windowing and batch size.

    Parameters
    ----------
    encoder : MertEncoder or str
        A loaded encoder, or what `load_encoder` takes.
    window_s : float
        Length of a window in seconds.
    overlap : float
        Share of a window that it has in common with the next.
    batch_size : int, optional
        Windows per run of the model; by default 16 on CUDA, 8 on MPS and 4 on a CPU.
    models : Path
        Where the bundled encoder's folder is made.
    device : str
        ``auto`` or a torch device; used when ``encoder`` is a name.
    """

    def __init__(
        self,
        encoder: MertEncoder | str,
        *,
        window_s: float = 5.0,
        overlap: float = 0.5,
        batch_size: int | None = None,
        models: Path = Path("data/models"),
        device: str = "auto",
    ) -> None:
        if isinstance(encoder, str):
            encoder = load_encoder(encoder, models=models, device=device)
        self.encoder = encoder
        self.window_s = window_s
        self.overlap = overlap
        self.batch_size = batch_size or _BATCH_SIZES.get(encoder.device.type, 4)

    def extract(self, samples: npt.NDArray[np.float32], *, raw: bool = False) -> Features:
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
        if not np.isfinite(samples).all():
            raise AudioError("the samples are not all finite numbers", status="not_finite")
        rate = self.encoder.spec.sample_rate
        windows = segment_audio(
            samples, sample_rate=rate, window_s=self.window_s, overlap=self.overlap
        )
        starts = segment_starts(
            len(samples), sample_rate=rate, window_s=self.window_s, overlap=self.overlap
        )
        run = self.encoder.hidden_states if raw else self.encoder.pooled
        result = np.concatenate(
            [
                run(windows[first : first + self.batch_size])
                for first in range(0, len(windows), self.batch_size)
            ]
        )
        if raw:
            return Features(segments=pool(result), starts_s=starts / rate, raw=result)
        return Features(segments=result, starts_s=starts / rate)

    def extract_file(self, path: Path, *, raw: bool = False) -> Features:
        """Return the features of an audio file of any rate and channel count.

        Raises
        ------
        AudioError
            If the file cannot be read, or is shorter than one window.
        """
        return self.extract(load_audio(path, sample_rate=self.encoder.spec.sample_rate), raw=raw)
