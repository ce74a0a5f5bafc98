"""Features of a passage of an audio file, for a search that starts from it."""

__all__ = ["extract_passage"]

from pathlib import Path

import numpy as np
import numpy.typing as npt

from mess_core.errors import AudioError
from mess_core.extraction.audio import load_audio
from mess_core.extraction.extractor import FeatureExtractor

Floats = npt.NDArray[np.float32]


def extract_passage(
    extractor: FeatureExtractor,
    path: Path,
    start_s: float | None = None,
    end_s: float | None = None,
) -> Floats:
    """Return the features of the windows of a passage.

    The passage is cut out and windowed as a recording is, from its very start. One that is shorter
    than a window is made as long as a window around its middle, with what the file has there:
    padding would change the encoder's features.

    Parameters
    ----------
    extractor : FeatureExtractor
        With the window and overlap of the index that will be searched.
    path : Path
        An audio file of any rate and channel count.
    start_s, end_s : float, optional
        The passage in seconds. Without both it is the whole file, without a start it begins with
        the file, and without an end it is as long as a window, or ends with the file.

    Returns
    -------
    ndarray of float32 [shape=(windows, layers, dims)]

    Raises
    ------
    AudioError
        If the file cannot be read or is shorter than one window, or the times are not in it.
    """
    rate = extractor.encoder.spec.sample_rate
    samples = load_audio(path, sample_rate=rate)
    duration = len(samples) / rate
    start = start_s or 0.0
    if end_s is None:
        end_s = duration if start_s is None else min(start + extractor.window_s, duration)
    end = end_s
    if not 0 <= start < end <= duration + 1 / rate:
        raise AudioError(
            f"{path}: {start:g} to {end:g} s is no passage of its {duration:.2f} s; the start must "
            "come before the end"
        )
    first, last = round(start * rate), min(round(end * rate), len(samples))
    window = round(extractor.window_s * rate)
    if last - first < window:
        first = max(0, min((first + last - window) // 2, len(samples) - window))
        last = first + window
    return extractor.extract(samples[first:last]).segments
