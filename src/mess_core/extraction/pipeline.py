"""Many recordings to feature files, through the content-addressed cache.

Threads decode ahead through a bounded queue, and the model runs windows in batches that cross the
recordings' borders. So the model waits for nothing, and memory does not grow with the recordings'
length or number. Whatever goes wrong with one recording fails that recording alone.
"""

__all__ = [
    "Estimate",
    "ExtractionPipeline",
    "ExtractionSummary",
    "estimate_extraction_time",
]

import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from mess_core import stages
from mess_core.cache import find, materialise, scratch, store
from mess_core.errors import DatasetError, EncoderError, MessError, StorageError
from mess_core.extraction.extractor import FeatureExtractor
from mess_core.files import ArrayWriter, check_writable, fingerprint, save_array, storage_errors
from mess_core.layout import VIEWS, Layout
from mess_core.recordings import Recording, check_unchanged

Floats = npt.NDArray[np.float32]
Progress = Callable[[int, int, str], None]
Job = TypeVar("Job")
Item = TypeVar("Item")

_KIND = "features"
# Batches of windows that are decoded ahead.
_BATCHES_AHEAD = 4
# An estimate times so many recordings at once, and of each its first windows.
_SAMPLED_RECORDINGS, _SAMPLED_WINDOWS = 8, 12


@dataclass(frozen=True)
class ExtractionSummary:
    """The outcome of one run.

    ``stored`` has for each recording that is there now, and each of its views, the name in the
    cache of what its file is a copy of. The model ran on the recordings in ``computed``; those in
    ``kept`` were in the cache, and those in ``failed`` have no features, with the causes. The run
    took ``seconds``, of which the model ran for ``inference_s``, on ``windows`` windows of
    ``audio_s`` seconds. ``batch_size`` is that at the end.
    """

    stored: Mapping[str, Mapping[str, str]]
    computed: Sequence[str]
    kept: Sequence[str]
    failed: Mapping[str, str]
    audio_s: float
    windows: int
    seconds: float
    inference_s: float
    encoder: Mapping[str, Any]
    engine: str
    device: str
    batch_size: int

    def lines(self) -> list[str]:
        """Return the outcome as lines to print."""
        rate, share = self.audio_s / self.seconds, self.inference_s / self.seconds
        lines = [
            f"{len(self.computed)} recordings computed, {len(self.kept)} kept, "
            f"{len(self.failed)} failed"
        ]
        if self.computed:
            lines.append(
                f"{self.audio_s:.0f} s of audio ({self.windows} windows) in {self.seconds:.1f} s: "
                f"{rate:.1f} s of audio per second, {share:.0%} of the time in the model"
            )
        return lines + [f"  {name}: {cause}" for name, cause in self.failed.items()]

    def facts(self) -> dict[str, Any]:
        """Return the outcome as JSON holds it."""
        return asdict(self)


class ExtractionPipeline:
    """Extract, cache and write out the features of recordings.

    ``views`` are those to write, of `mess_core.layout.VIEWS` (others are a MessError, as is ``raw``
    of an encoder without frames), and ``raw_dtype``, float32 or float16, is how ``raw`` is stored.
    So many ``decoders`` decode recordings at the same time; one is enough for a CPU.
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
        if "raw" in views:
            extractor.encoder.check_frames()
        self.extractor = extractor
        self.layout = layout
        self.views = tuple(views)
        self.dtypes = {"raw": raw_dtype}
        self.decoders = decoders

    def fingerprint(self, recording: Recording, view: str) -> str:
        """Return the fingerprint of everything that a recording's features depend on."""
        return fingerprint(
            {
                "stage": stages.FEATURES,
                "view": view,
                "dtype": self.dtypes.get(view, "float32"),
                "audio": recording.audio_sha256,
                "encoder": self.extractor.encoder.fingerprint,
                "precision": self.extractor.encoder.engine.precision,
                "window_s": self.extractor.window_s,
                "overlap": self.extractor.overlap,
            }
        )

    def run(
        self, recordings: Sequence[Recording], *, progress: Progress | None = None
    ) -> ExtractionSummary:
        """Make the feature files of all (usable) recordings.

        A recording that fails, for whatever reason, does not stop the others. What is in the cache
        already is not computed again. ``progress`` is called with the seconds of audio done, the
        seconds in all, and a recording's id.

        Files that cannot be written (disk full, folder read-only) are a StorageError, and a window
        that does not fit into the device's memory an EncoderError; what is finished is kept.
        """
        with scratch(self.layout.cache) as folder:
            return _Run(self, recordings, folder, progress).compute()


@dataclass(eq=False)
class _Job:
    """A recording on its way: its open files and how far it is."""

    recording: Recording
    stored: dict[str, Path] = field(default_factory=dict)
    files: ExitStack = field(default_factory=ExitStack)
    writers: dict[str, ArrayWriter] = field(default_factory=dict)
    total: npt.NDArray[np.float64] | float = 0.0
    windows: int = 0
    done_s: float = 0.0
    failed: bool = False

    def abandon(self) -> None:
        """Close its files without finishing them."""
        # A full disk may not take what is buffered, which nobody wants any more.
        with suppress(StorageError, OSError):
            self.files.__exit__(MessError, MessError("abandoned"), None)


class _Run:
    """The state of one run; all of it belongs to the main thread."""

    def __init__(
        self,
        pipeline: ExtractionPipeline,
        recordings: Sequence[Recording],
        folder: Path,
        progress: Progress | None,
    ) -> None:
        self._pipeline = pipeline
        self._extractor = pipeline.extractor
        self._layout = pipeline.layout
        self._views = pipeline.views
        self._recordings = recordings
        self._folder = folder
        self._largest = float(np.finfo(pipeline.dtypes["raw"]).max)
        self._progress = progress
        self._total_s = sum(r.duration_s for r in recordings)
        self._done_s = 0.0
        self._open: set[_Job] = set()
        self._computed: dict[str, Recording] = {}
        self._kept: list[str] = []
        self._names: dict[str, dict[str, str]] = {}
        self._failed: dict[str, str] = {}
        self._started = time.perf_counter()
        self._before = (self._extractor.seconds, self._extractor.windows_run)

    def compute(self) -> ExtractionSummary:
        """Compute all recordings that are not in the cache."""
        for view in self._views:  # before anything is computed for nothing
            check_writable(self._layout.features(view, "any"))
        ahead = _BATCHES_AHEAD * self._extractor.batch_size
        threads = self._pipeline.decoders
        decoded = in_threads(self._recordings, self._decode, threads=threads, ahead=ahead)
        try:
            with closing(decoded):
                results = self._extractor.run(self._windows(decoded), raw="raw" in self._views)
                for (job, last), pooled, frames in results:
                    self._take(job, pooled, frames, last=last)
        finally:
            for job in self._open:
                job.abandon()
        return self._summary()

    # In the decoding threads.

    def _decode(self, recording: Recording) -> Iterator[tuple[_Job, Floats | str | None, bool]]:
        """Give a recording's windows, and with each whether it is the last.

        Instead of windows a recording that is in the cache gives None, and one that fails the
        reason.
        """
        job = _Job(recording)
        try:
            for view in self._views:
                key = self._pipeline.fingerprint(recording, view)
                if path := find(self._layout.cache, _KIND, key, ".npy"):
                    job.stored[view] = path
            if len(job.stored) == len(self._views):
                yield job, None, True
                return
            window: Floats | None = None
            for _, following in self._extractor.windows(Path(recording.audio)):
                if job.failed:
                    return
                if window is not None:
                    yield job, window, False
                window = following
            check_unchanged(recording)  # last: it may have changed while it was read
            yield job, window, True
        except Exception as error:  # whatever it is, it is this recording's problem
            yield job, _cause(recording, error), True

    # In the main thread.

    def _windows(
        self, decoded: Iterable[tuple[_Job, Floats | str | None, bool]]
    ) -> Iterator[tuple[tuple[_Job, bool], Floats]]:
        for job, item, last in decoded:
            if item is None:
                self._write_out(job)
                self._kept.append(job.recording.recording_id)
            elif isinstance(item, str):
                self._fail(job, item)
            elif not job.failed:
                yield (job, last), item

    def _take(self, job: _Job, pooled: Floats, frames: Floats | None, *, last: bool) -> None:
        """Add one window's features to its recording's files."""
        if job.failed:
            return
        try:
            self._extractor.encoder.finite(pooled)
            if frames is not None and not np.abs(frames).max() <= self._largest:
                raise EncoderError(
                    f"raw features reach {np.abs(frames).max():.3g}, float16 ends at "
                    f"{self._largest:g}; set `raw_dtype: float32`"
                )
        except EncoderError as error:
            self._fail(job, str(error))
            return
        self._open.add(job)
        for view, features in (("segments", pooled), ("raw", frames)):
            if view in self._views and features is not None:
                if view not in job.writers:
                    dtype = np.dtype(self._pipeline.dtypes.get(view, "float32"))
                    writer = ArrayWriter(self._path(job, view), dtype)
                    job.writers[view] = job.files.enter_context(writer)
                # The writer's own block ends later, and not with this error.
                with storage_errors(job.writers[view].path):
                    job.writers[view].append(features[np.newaxis])
        job.total = np.add(job.total, pooled, dtype=np.float64)
        job.windows += 1
        if last:
            self._finish(job)
        else:
            hop_s = self._extractor.window_s * (1 - self._extractor.overlap)
            self._advance(job, min(job.windows * hop_s, job.recording.duration_s))

    def _path(self, job: _Job, view: str) -> Path:
        return self._folder / f"{job.recording.recording_id}.{view}.npy"

    def _finish(self, job: _Job) -> None:
        job.files.close()
        self._open.discard(job)
        if "aggregated" in self._views:
            mean = np.asarray(job.total / job.windows, np.float32)
            save_array(self._path(job, "aggregated"), mean)
        for view in self._views:
            key = self._pipeline.fingerprint(job.recording, view)
            job.stored[view] = store(self._layout.cache, _KIND, key, self._path(job, view), ".npy")
        self._write_out(job)
        self._computed[job.recording.recording_id] = job.recording

    def _write_out(self, job: _Job) -> None:
        """Make the cached views the recording's output files."""
        name = job.recording.recording_id
        for view in self._views:
            materialise(job.stored[view], self._layout.features(view, name))
        if "raw" not in self._views:
            # Frames of another run may not fit these features.
            frames = self._layout.features("raw", name)
            with storage_errors(frames):
                frames.unlink(missing_ok=True)
        self._names[name] = {view: job.stored[view].stem for view in self._views}
        self._advance(job, job.recording.duration_s)

    def _fail(self, job: _Job, reason: str) -> None:
        job.failed = True
        job.abandon()
        self._open.discard(job)
        self._failed[job.recording.recording_id] = reason
        self._advance(job, job.recording.duration_s)

    def _advance(self, job: _Job, seconds: float) -> None:
        """Report that a recording is done up to some second."""
        self._done_s += seconds - job.done_s
        job.done_s = seconds
        if self._progress:
            # Whole seconds; the millisecond is what many sums of parts may lack.
            done, total = int(self._done_s + 1e-3), max(int(self._total_s), 1)
            self._progress(done, total, job.recording.recording_id)

    def _summary(self) -> ExtractionSummary:
        encoder = self._extractor.encoder
        return ExtractionSummary(
            stored={name: self._names[name] for name in sorted(self._names)},
            computed=sorted(self._computed),
            kept=sorted(self._kept),
            failed=dict(sorted(self._failed.items())),
            audio_s=sum(r.duration_s for r in self._computed.values()),
            windows=self._extractor.windows_run - self._before[1],
            seconds=time.perf_counter() - self._started,
            inference_s=self._extractor.seconds - self._before[0],
            encoder=encoder.facts(),
            engine=encoder.engine.name,
            device=encoder.engine.device,
            batch_size=self._extractor.batch_size,
        )


def _cause(recording: Recording, error: Exception) -> str:
    """Say why a recording failed; that its files have changed explains any error."""
    cause = str(error) if isinstance(error, MessError) else f"{type(error).__name__}: {error}"
    try:
        check_unchanged(recording)
    except DatasetError as changed:
        return cause if str(changed) == cause else f"{changed} ({cause})"
    return cause


def in_threads(
    jobs: Iterable[Job], work: Callable[[Job], Iterator[Item]], *, threads: int, ahead: int
) -> Generator[Item, None, None]:
    """Give what ``work`` makes of jobs in other threads, at most ``ahead`` items before its use.

    A job's items come in order, those of several jobs between each other. Closing the iterator ends
    the threads.
    """
    waiting: queue.SimpleQueue[Job] = queue.SimpleQueue()
    for job in jobs:
        waiting.put(job)
    items: queue.Queue[Item | BaseException | None] = queue.Queue(ahead)
    stop = threading.Event()

    def run() -> None:
        try:
            while not stop.is_set():
                for item in work(waiting.get_nowait()):
                    items.put(item)
                    if stop.is_set():
                        return
        except queue.Empty:
            items.put(None)
        except BaseException as error:  # whatever it is, the consumer has to know
            items.put(error)

    pool = [threading.Thread(target=run, daemon=True) for _ in range(threads)]
    for thread in pool:
        thread.start()
    try:
        running = threads
        while running:
            item = items.get()
            if item is None:
                running -= 1
            elif isinstance(item, BaseException):
                raise item
            else:
                yield item
    finally:
        stop.set()
        while any(thread.is_alive() for thread in pool):
            with suppress(queue.Empty):  # makes room for a thread that waits to put an item
                items.get(timeout=0.05)


class Estimate(NamedTuple):
    """An expected wall time without loading the model; all windows, and those that were timed."""

    seconds: float
    windows: int
    sampled: int


def estimate_extraction_time(
    extractor: FeatureExtractor, recordings: Sequence[Recording], *, sample_s: float = 5.0
) -> Estimate:
    """Estimate the time that extraction takes on this machine.

    The first windows of some recordings, drawn at random, really go the whole way (decoding, the
    model, files) for about ``sample_s`` seconds. Their time per window is taken for all windows.
    Raises a DatasetError if no recording is long enough, or could be extracted.
    """
    windows = sum(extractor.count_windows(r.duration_s) for r in recordings)
    if not windows:
        raise DatasetError(
            f"none of {len(recordings)} recordings is as long as a window of "
            f"{extractor.window_s:g} s; nothing would be extracted"
        )
    order = np.random.default_rng(0).permutation(len(recordings))
    shuffled = [recordings[i] for i in order.tolist()]
    _extract_beginnings(extractor, shuffled[:1])  # warms up: libraries load
    seconds, sampled = 0.0, 0
    for first in range(0, len(shuffled), _SAMPLED_RECORDINGS):
        summary = _extract_beginnings(extractor, shuffled[first : first + _SAMPLED_RECORDINGS])
        seconds, sampled = seconds + summary.seconds, sampled + summary.windows
        if seconds >= sample_s:
            break
    if not sampled:
        raise DatasetError(
            f"none of {len(recordings)} recordings could be extracted to time it; run "
            "`mess recordings` again"
        )
    return Estimate(seconds / sampled * windows, windows, sampled)


class _Beginnings(FeatureExtractor):
    """An extractor that goes no further than the first windows."""

    def windows(self, path: Path) -> Iterator[tuple[int, Floats]]:
        return islice(super().windows(path), _SAMPLED_WINDOWS)


def _extract_beginnings(
    extractor: FeatureExtractor, recordings: Sequence[Recording]
) -> ExtractionSummary:
    beginnings = _Beginnings(
        extractor.encoder,
        window_s=extractor.window_s,
        overlap=extractor.overlap,
        batch_size=extractor.batch_size,
    )
    with TemporaryDirectory() as folder:
        pipeline = ExtractionPipeline(beginnings, Layout(Path(folder), "timed"))
        return pipeline.run([replace(r, midi="") for r in recordings])
