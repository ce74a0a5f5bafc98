"""Many recordings to feature files, through the content-addressed store."""

__all__ = ["ExtractionPipeline"]

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mess_core import stages
from mess_core.errors import AudioError, MessError
from mess_core.extraction.extractor import FeatureExtractor, aggregate, pool
from mess_core.extraction.storage import read_features
from mess_core.files import fingerprint
from mess_core.layout import VIEWS, Layout
from mess_core.recordings import Recording, check_unchanged
from mess_core.store import cached, materialise

Progress = Callable[[int, int, str], None]


class ExtractionPipeline:
    """Extract, store and write out the features of recordings.

    Parameters
    ----------
    extractor : FeatureExtractor
        The encoder and its windowing.
    layout : Layout
        The dataset's paths.
    views : sequence of str
        The views to write; ``segments`` and ``aggregated`` by default.
    """

    def __init__(
        self,
        extractor: FeatureExtractor,
        layout: Layout,
        *,
        views: Sequence[str] = ("segments", "aggregated"),
    ) -> None:
        unknown = sorted(set(views) - set(VIEWS))
        if unknown:
            raise MessError(f"unknown views {unknown}; known: {', '.join(VIEWS)}")
        self.extractor = extractor
        self.layout = layout
        self.views = tuple(views)

    def fingerprint(self, recording: Recording, view: str) -> str:
        """Return the fingerprint of everything that a recording's features depend on."""
        return fingerprint(
            {
                "stage": stages.FEATURES,
                "view": view,
                "audio": recording.audio_sha256,
                "weights": self.extractor.encoder.spec.weights_sha256,
                "normalize": self.extractor.encoder.normalize,
                "precision": "float32",
                "window_s": self.extractor.window_s,
                "overlap": self.extractor.overlap,
            }
        )

    def run(
        self, recordings: Sequence[Recording], *, progress: Progress | None = None
    ) -> dict[str, str]:
        """Make the feature files of all recordings.

        A recording that fails does not stop the others: all of them are tried, what was computed is
        kept in the store, and then the failures are raised together.

        Parameters
        ----------
        recordings : sequence of Recording
            Usable recordings.
        progress : callable, optional
            Called after each with the number done, the number in all, and the recording's id.

        Returns
        -------
        dict of str to str
            The fingerprint of every recording's segments.

        Raises
        ------
        AudioError
            After all were tried, if some could not be read; it names each with the cause.
        """
        done: dict[str, str] = {}
        failures: list[str] = []
        for count, recording in enumerate(recordings, start=1):
            try:
                done[recording.recording_id] = self._one(recording)
            except MessError as error:
                failures.append(f"{recording.recording_id}: {error}")
            if progress:
                progress(count, len(recordings), recording.recording_id)
        if failures:
            raise AudioError(
                f"{len(failures)} of {len(recordings)} recordings failed; the rest is stored:\n  "
                + "\n  ".join(failures)
            )
        return done

    def _one(self, recording: Recording) -> str:
        for view in self.views:
            stored = self._stored(recording, view)
            materialise(stored, self.layout.features(view, recording.recording_id))
        return self.fingerprint(recording, "segments")

    def _stored(self, recording: Recording, view: str) -> Path:
        def write(path: Path) -> None:
            with path.open("wb") as file:
                np.save(file, self._compute(recording, view), allow_pickle=False)

        name = self.fingerprint(recording, view)
        return cached(self.layout.cache, "features", name, ".npy", write)

    def _compute(self, recording: Recording, view: str) -> npt.NDArray[np.float32]:
        if view == "aggregated":
            segments = read_features(self._stored(recording, "segments"), view="segments")
            return aggregate(segments)
        if view == "segments" and "raw" in self.views:
            return pool(read_features(self._stored(recording, "raw"), view="raw"))
        check_unchanged(recording)
        features = self.extractor.extract_file(Path(recording.audio), raw=view == "raw")
        return features.segments if features.raw is None else features.raw
