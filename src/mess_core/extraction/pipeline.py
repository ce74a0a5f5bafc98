"""Many recordings to feature files, through the content-addressed store.

Threads decode ahead; the model runs windows in batches that cross the recordings' borders; one
more thread finishes files. So the model waits for nothing, and memory does not grow with the
recordings' length or number.
"""

__all__ = ["ExtractionPipeline"]

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mess_core import stages
from mess_core.cache import Claim, claim, find, is_copy
from mess_core.errors import DatasetError, EncoderError, MessError, StorageError
from mess_core.extraction.decoding import End, decode_ahead
from mess_core.extraction.extractor import FeatureExtractor, aggregate
from mess_core.extraction.storage import read_features
from mess_core.extraction.summary import ExtractionSummary
from mess_core.files import (
    ArrayWriter,
    check_writable,
    fingerprint,
    save_array,
    storage_errors,
)
from mess_core.layout import VIEWS, Layout
from mess_core.recordings import Recording, check_unchanged

Floats = npt.NDArray[np.float32]
Progress = Callable[[int, int, str], None]

_KIND = "features"
# Batches of windows that are decoded ahead, and recordings whose files may wait to be finished.
_BATCHES_AHEAD = 4
_FINISHING = 4
# How often to look whether another process has finished a recording, in seconds.
_POLL_S = 0.2


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
    raw_dtype : {'float32', 'float16'}
        How the ``raw`` view is stored.
    decoders : int
        Recordings that are decoded at the same time; one is enough for a CPU.
    """

    def __init__(
        self,
        extractor: FeatureExtractor,
        layout: Layout,
        *,
        views: Sequence[str] = ("segments", "aggregated"),
        raw_dtype: str = "float32",
        decoders: int = 1,
    ) -> None:
        unknown = sorted(set(views) - set(VIEWS))
        if unknown:
            raise MessError(f"unknown views {unknown}; known: {', '.join(VIEWS)}")
        self.extractor = extractor
        self.layout = layout
        self.views = tuple(views)
        self.dtypes = {"raw": raw_dtype, "segments": "float32"}
        self.decoders = decoders

    def fingerprint(self, recording: Recording, view: str) -> str:
        """Return the fingerprint of everything that a recording's features depend on."""
        return fingerprint(
            {
                "stage": stages.FEATURES,
                "view": view,
                "dtype": self.dtypes.get(view, "float32"),
                "audio": recording.audio_sha256,
                "encoder": self.extractor.encoder.checkpoint.fingerprint,
                "precision": self.extractor.encoder.engine.precision,
                "window_s": self.extractor.window_s,
                "overlap": self.extractor.overlap,
            }
        )

    def run(
        self, recordings: Sequence[Recording], *, progress: Progress | None = None
    ) -> ExtractionSummary:
        """Make the feature files of all recordings.

        A recording that fails does not stop the others. What is in the store already is not
        computed again; what another process is computing is waited for at the end.

        Parameters
        ----------
        recordings : sequence of Recording
            Usable recordings.
        progress : callable, optional
            Called with the seconds of audio done, the seconds in all, and a recording's id.

        Returns
        -------
        ExtractionSummary
            What was computed, what was there, and what failed and why.

        Raises
        ------
        StorageError
            If files cannot be written (disk full, folder read-only); what is finished is kept.
        EncoderError
            If one window does not fit into the device's memory.
        """
        run = _Run(self, recordings, progress)
        try:
            deferred = run.compute(recordings)
            while deferred:
                time.sleep(_POLL_S)
                deferred = run.compute(deferred)
        finally:
            run.close()
        return run.summary()


@dataclass(eq=False)
class _Job:
    """A recording that is being computed: its claim, its open files and how far it is."""

    recording: Recording
    claim: Claim
    stored: dict[str, Path]
    share_s: float
    files: ExitStack = field(default_factory=ExitStack)
    writers: dict[str, ArrayWriter] = field(default_factory=dict)
    total: npt.NDArray[np.float64] | float = 0.0
    windows: int = 0
    expected: int | None = None
    closed: bool = False

    def abandon(self) -> None:
        """Give everything back, as if the recording had not been begun."""
        self.closed = True
        # A full disk may not take what is buffered, which nobody wants any more.
        with suppress(StorageError, OSError):
            self.files.__exit__(MessError, MessError("abandoned"), None)
        self.claim.release()


class _Run:
    """The state of one run."""

    def __init__(
        self,
        pipeline: ExtractionPipeline,
        recordings: Sequence[Recording],
        progress: Progress | None,
    ) -> None:
        self._pipeline = pipeline
        self._extractor = pipeline.extractor
        self._batcher = pipeline.extractor.batcher
        self._largest = float(np.finfo(pipeline.dtypes["raw"]).max)
        self._progress = progress
        self._total_s = sum(r.duration_s for r in recordings)
        self._done_s = 0.0
        self._counting = threading.Lock()
        self._computed: dict[str, Recording] = {}
        self._kept: dict[str, Recording] = {}
        self._names: dict[str, dict[str, str]] = {}
        self._failed: dict[str, str] = {}
        self._open: set[_Job] = set()
        self._finisher = ThreadPoolExecutor(1)
        self._finishing: deque[Future[None]] = deque()
        self._started = time.perf_counter()
        self._before = (self._batcher.seconds, self._batcher.windows)

    def compute(self, recordings: Iterable[Recording]) -> list[Recording]:
        """Compute recordings; return those that another process is computing."""
        deferred: list[Recording] = []
        decoded = decode_ahead(
            self._jobs(recordings, deferred),
            self._decode,
            threads=self._pipeline.decoders,
            ahead=_BATCHES_AHEAD * self._batcher.size,
        )
        raw = "raw" in self._pipeline.views
        try:
            for job, pooled, frames in self._batcher.run(self._windows(decoded), raw=raw):
                self._take(job, pooled, frames)
        finally:
            decoded.close()
        while self._finishing:
            self._finishing.popleft().result()
        return deferred

    def close(self) -> None:
        """Give back what an interrupted run holds."""
        self._finisher.shutdown(cancel_futures=True)
        for job in tuple(self._open):
            job.abandon()

    # In the decoding threads: what is to be computed, and its windows.

    def _jobs(self, recordings: Iterable[Recording], deferred: list[Recording]) -> Iterator[_Job]:
        for recording in recordings:
            stored = self._stored(recording)
            if self._is_written_out(recording, stored):
                self._keep(recording, stored)
                continue
            key = self._pipeline.fingerprint(recording, "segments")
            claimed = claim(self._pipeline.layout.cache, _KIND, key, wait=False)
            if claimed is None:
                deferred.append(recording)
                continue
            count = self._extractor.count_windows(recording.duration_s)
            share_s = recording.duration_s / max(count, 1)
            # Only now: another process may just have finished it.
            job = _Job(recording, claimed, self._stored(recording), share_s)
            self._open.add(job)
            # Before anything is computed for nothing.
            for view in self._pipeline.views:
                check_writable(self._output(recording, view))
            if job.stored.keys() >= set(self._pipeline.views):
                self._write_out(job)
                self._keep(recording, job.stored)
            else:
                yield job

    def _stored(self, recording: Recording) -> dict[str, Path]:
        """Return the views that are in the store."""
        cache = self._pipeline.layout.cache
        found = {
            view: find(cache, _KIND, self._pipeline.fingerprint(recording, view), ".npy")
            for view in {"segments", *self._pipeline.views}
        }
        return {view: path for view, path in found.items() if path is not None}

    def _is_written_out(self, recording: Recording, stored: Mapping[str, Path]) -> bool:
        return all(
            view in stored and is_copy(stored[view], self._output(recording, view))
            for view in self._pipeline.views
        )

    def _keep(self, recording: Recording, stored: Mapping[str, Path]) -> None:
        self._kept[recording.recording_id] = recording
        self._note_names(recording, stored)
        self._advance(recording.duration_s, recording)

    def _note_names(self, recording: Recording, stored: Mapping[str, Path]) -> None:
        views = self._pipeline.views
        self._names[recording.recording_id] = {view: stored[view].stem for view in views}

    def _decode(self, job: _Job) -> Iterator[Floats]:
        if job.stored.keys() | {"aggregated"} >= {"segments", *self._pipeline.views}:
            return  # only the mean is missing
        path = Path(job.recording.audio)
        try:
            stamp = _stamp(path)
            check_unchanged(job.recording)
            for _, window in self._extractor.windows(path):
                if job.closed:
                    return
                yield window
            changed = _stamp(path) != stamp
        except OSError as error:
            raise DatasetError(f"{path}: {error}; run `mess recordings` again") from error
        if changed:
            raise DatasetError(f"{path} changed while it was read; run `mess recordings` again")

    # In the main thread: windows in, features out.

    def _windows(
        self, decoded: Iterator[tuple[_Job, Floats | End]]
    ) -> Iterator[tuple[_Job, Floats]]:
        for job, item in decoded:
            if not isinstance(item, End):
                if not job.closed:
                    yield job, item
            elif item.error is not None:
                self._fail(job, item.error)
            else:
                job.expected = item.items
                self._finish_if_complete(job)

    def _take(self, job: _Job, pooled: Floats, frames: Floats | None) -> None:
        """Add one window's features to its recording's files."""
        if job.closed:
            return
        try:
            self._extractor.encoder.finite(pooled)
            if frames is not None and not np.abs(frames).max() <= self._largest:
                raise EncoderError(
                    f"raw features reach {np.abs(frames).max():.3g}, float16 ends at "
                    f"{self._largest:g}; set `raw_dtype: float32`"
                )
        except EncoderError as error:
            self._fail(job, error)
            return
        self._append(job, "segments", pooled)
        if frames is not None:
            self._append(job, "raw", frames)
        job.total = np.add(job.total, pooled, dtype=np.float64)
        job.windows += 1
        self._advance(job.share_s, job.recording)
        self._finish_if_complete(job)

    def _append(self, job: _Job, view: str, features: Floats) -> None:
        if view in job.stored:
            return
        if view not in job.writers:
            path, dtype = job.claim.folder / f"{view}.npy", self._pipeline.dtypes[view]
            job.writers[view] = job.files.enter_context(ArrayWriter(path, np.dtype(dtype)))
        # The writer's own block ends later, and not with this error.
        with storage_errors(job.writers[view].path):
            job.writers[view].append(features[np.newaxis])

    def _fail(self, job: _Job, error: MessError) -> None:
        if job.closed:
            return
        self._open.discard(job)
        job.abandon()
        self._failed[job.recording.recording_id] = str(error)
        self._advance(job.recording.duration_s - job.windows * job.share_s, job.recording)

    def _finish_if_complete(self, job: _Job) -> None:
        if job.closed or job.windows != job.expected:
            return
        job.closed = True
        self._finishing.append(self._finisher.submit(self._finish, job))
        while self._finishing and (len(self._finishing) > _FINISHING or self._finishing[0].done()):
            self._finishing.popleft().result()

    # In the finishing thread: whole files into the store, and out of it.

    def _finish(self, job: _Job) -> None:
        job.files.close()
        for view in job.writers:
            self._store(job, view)
        if "aggregated" not in job.stored:
            save_array(job.claim.folder / "aggregated.npy", self._mean(job))
            self._store(job, "aggregated")
        self._write_out(job)
        self._computed[job.recording.recording_id] = job.recording
        self._note_names(job.recording, job.stored)
        self._advance(job.recording.duration_s - job.windows * job.share_s, job.recording)

    def _mean(self, job: _Job) -> Floats:
        if "segments" in job.writers:
            return np.asarray(job.total / job.windows, np.float32)
        return aggregate(read_features(job.stored["segments"], view="segments"))

    def _store(self, job: _Job, view: str) -> None:
        key = self._pipeline.fingerprint(job.recording, view)
        job.stored[view] = job.claim.store(key, job.claim.folder / f"{view}.npy", ".npy")

    def _write_out(self, job: _Job) -> None:
        """Make the stored views the recording's output files, and be done with it."""
        for view in self._pipeline.views:
            job.claim.materialise(job.stored[view], self._output(job.recording, view))
        self._withdraw_old_raw(job.recording)
        job.claim.release()
        self._open.discard(job)

    def _withdraw_old_raw(self, recording: Recording) -> None:
        """Remove frames that a run with other settings left beside features they do not fit."""
        output = self._output(recording, "raw")
        if "raw" in self._pipeline.views or not output.exists():
            return
        key = self._pipeline.fingerprint(recording, "raw")
        current = find(self._pipeline.layout.cache, _KIND, key, ".npy")
        if current is None or not is_copy(current, output):
            output.unlink(missing_ok=True)

    def _output(self, recording: Recording, view: str) -> Path:
        return self._pipeline.layout.features(view, recording.recording_id)

    # In all threads.

    def _advance(self, seconds: float, recording: Recording) -> None:
        with self._counting:
            self._done_s += seconds
            if self._progress:
                # Down to whole seconds, so that the end is reached at the end; the millisecond is
                # what many sums of parts may lack.
                done, total = int(self._done_s + 1e-3), max(int(self._total_s), 1)
                self._progress(done, total, recording.recording_id)

    def summary(self) -> ExtractionSummary:
        """Return what happened."""
        return ExtractionSummary(
            stored={name: self._names[name] for name in sorted(self._names)},
            computed=sorted(self._computed),
            kept=sorted(self._kept),
            failed=dict(sorted(self._failed.items())),
            audio_s=sum(r.duration_s for r in self._computed.values()),
            windows=self._batcher.windows - self._before[1],
            seconds=time.perf_counter() - self._started,
            inference_s=self._batcher.seconds - self._before[0],
            encoder=self._extractor.encoder.describe(),
            batch_size=self._batcher.smallest,
        )


def _stamp(path: Path) -> tuple[int, int, int]:
    facts = path.stat()
    return facts.st_ino, facts.st_size, facts.st_mtime_ns
