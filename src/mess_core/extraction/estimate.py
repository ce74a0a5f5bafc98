"""How long an extraction will take, from a timed sample of it."""

__all__ = ["Estimate", "estimate_extraction_time"]

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt

from mess_core.errors import DatasetError
from mess_core.extraction.extractor import FeatureExtractor
from mess_core.extraction.pipeline import ExtractionPipeline
from mess_core.extraction.summary import ExtractionSummary
from mess_core.layout import Layout
from mess_core.recordings import Recording

# A long recording's first windows stand for all.
_WINDOWS_EACH = 12


@dataclass(frozen=True, slots=True)
class Estimate:
    """An expected duration, and what it was derived from.

    Attributes
    ----------
    seconds : float
        Expected wall time on this machine, without loading the model.
    windows : int
        Windows in all.
    sampled : int
        Windows that were timed.
    """

    seconds: float
    windows: int
    sampled: int


def estimate_extraction_time(
    extractor: FeatureExtractor,
    recordings: Sequence[Recording],
    *,
    sample_s: float = 5.0,
    run: Callable[[FeatureExtractor, Sequence[Recording]], ExtractionSummary] | None = None,
) -> Estimate:
    """Estimate the time that extraction takes on this machine.

    The first windows of some recordings, drawn at random, really go the whole way:
    decoding, the model, files. The time per window, times the number of all windows, is the result.

    Parameters
    ----------
    extractor : FeatureExtractor
        The encoder and its windowing.
    recordings : sequence of Recording
        What is to be extracted.
    sample_s : float
        Seconds to time at least, where the corpus is large enough.
    run : callable, optional
        Extracts recordings and says how long it took; by default into a temporary folder.

    Returns
    -------
    Estimate

    Raises
    ------
    DatasetError
        If no recording is long enough, or could be extracted.
    """
    run = run or _run_in_temporary_folder
    windows = sum(extractor.count_windows(r.duration_s) for r in recordings)
    if not windows:
        raise DatasetError(
            f"none of {len(recordings)} recordings is as long as a window of "
            f"{extractor.window_s:g} s; nothing would be extracted"
        )
    order = np.random.default_rng(0).permutation(len(recordings))
    shuffled = [recordings[i] for i in order.tolist()]
    run(extractor, shuffled[:1])  # warms up: libraries load, the model is compiled
    seconds, sampled, first, count = 0.0, 0, 0, 4
    while seconds < sample_s and first < len(shuffled):
        summary = run(extractor, shuffled[first : first + count])
        seconds, sampled = seconds + summary.seconds, sampled + summary.windows
        first, count = first + count, count * 2
    if not sampled:
        raise DatasetError(
            f"none of {len(recordings)} recordings could be extracted to time it; run "
            "`mess recordings` again"
        )
    return Estimate(seconds / sampled * windows, windows, sampled)


class _Excerpts(FeatureExtractor):
    """An extractor that goes no further than the first windows."""

    def windows(self, path: Path) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        return islice(super().windows(path), _WINDOWS_EACH)


def _run_in_temporary_folder(
    extractor: FeatureExtractor, recordings: Sequence[Recording]
) -> ExtractionSummary:
    excerpts = _Excerpts(
        extractor.encoder,
        window_s=extractor.window_s,
        overlap=extractor.overlap,
        batch_size=extractor.batcher.size,
    )
    with TemporaryDirectory() as folder:
        pipeline = ExtractionPipeline(excerpts, Layout(Path(folder), "timed"))
        return pipeline.run([replace(r, midi="") for r in recordings])
