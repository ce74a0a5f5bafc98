"""Extraction that is killed, interrupted or starved of space, or whose files change, loses nothing.

Some tests kill processes (`unbreakable_worker`) that run the bundled encoder; the others run a
stand-in for the model in this process.
"""

import errno
import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from benchmarks.recordings import describe
from mess_core.cache import find
from mess_core.errors import AudioError, StorageError
from mess_core.extraction.audio import load_audio
from mess_core.extraction.checkpoint import Checkpoint
from mess_core.extraction.encoder import MertEncoder, Output, load_encoder
from mess_core.extraction.extractor import FeatureExtractor
from mess_core.extraction.pipeline import ExtractionPipeline, ExtractionSummary
from mess_core.extraction.specs import DEMO_ENCODER, MODELS
from mess_core.files import file_sha256, write_json
from mess_core.layout import VIEWS, Layout
from mess_core.recordings import Recording, write_recordings
from tests.conftest import SmallDisk, make_read_only
from tests.extraction import unbreakable_worker
from tests.extraction.unbreakable_worker import BATCH_SIZE, WINDOW_S, Task, name_window

Floats = npt.NDArray[np.float32]

#: Longer than anything here takes, in seconds; then it hangs.
PATIENCE_S = unbreakable_worker.PATIENCE_S + 30.0
SECONDS = (1.0, 1.2, 1.4, 1.75, 2.0, 2.25, 2.5, 3.0, 3.3, 4.0, 5.0, 6.0)
RATES = (24_000, 44_100, 48_000)
DECODERS = pytest.mark.parametrize("decoders", [1, 3])


def write_recording(path: Path, *, seed: int, seconds: float, rate: int = 24_000) -> Recording:
    """Write noise, which is unlike any other seed's."""
    rng = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.1 * rng.normal(size=(round(seconds * rate), 1 + seed % 2)), rate)
    return describe(path)


def leftovers(*folders: Path) -> list[Path]:
    """Return unfinished files, and folders of them."""
    found = [path for folder in folders for path in folder.rglob(".tmp-*")]
    return sorted(found + [path for folder in folders for path in folder.rglob("tmp/*")])


def outputs(layout: Layout) -> dict[str, bytes]:
    """Return what lies in the folder of the features."""
    return {
        str(path.relative_to(layout.embeddings)): path.read_bytes()
        for path in sorted(layout.embeddings.rglob("*"))
        if path.is_file() and not path.name.startswith(".tmp-")
    }


def stored_names(layout: Layout) -> set[str]:
    """Return the names in the store, each of which holds a hash of the content; check that."""
    names = set()
    for path in (layout.cache / "features").glob("*/*.npy"):
        assert file_sha256(path).startswith(path.name.split(".")[1]), path
        names.add(path.name)
    return names


def is_stored(pipeline: ExtractionPipeline, recording: Recording) -> bool:
    return all(
        find(pipeline.layout.cache, "features", pipeline.fingerprint(recording, view), ".npy")
        for view in pipeline.views
    )


# ----------------------------------------------------------------------------------------------
# Processes that are killed
# ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Corpus:
    """Recordings, and everything that workers need besides a data folder."""

    folder: Path
    recordings: list[Recording]
    encoder: MertEncoder

    def task(self, data: Path, **changes: Any) -> Task:
        return Task(
            table=str(self.folder / "x.tsv"),
            data=str(data),
            models=str(self.folder / "models"),
            log=str(data.with_suffix(".log")),
            windows=str(self.folder / "windows.json"),
            **changes,
        )

    def pipeline(self, task: Task) -> ExtractionPipeline:
        extractor = FeatureExtractor(self.encoder, window_s=WINDOW_S, batch_size=BATCH_SIZE)
        return ExtractionPipeline(extractor, Layout(Path(task.data), "x"), views=task.views)

    def finished(self, task: Task) -> set[str]:
        """Return the recordings that are in the store, in all views."""
        pipeline = self.pipeline(task)
        return {r.recording_id for r in self.recordings if is_stored(pipeline, r)}


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("corpus")
    recordings = [
        write_recording(
            folder / "audio" / f"r{i:02}.wav", seed=i, seconds=seconds, rate=RATES[i % len(RATES)]
        )
        for i, seconds in enumerate(SECONDS)
    ]
    write_recordings(folder / "x.tsv", recordings)
    encoder = unbreakable_worker.load(folder / "models")
    extractor = FeatureExtractor(encoder, window_s=WINDOW_S)
    owners = {
        name_window(window): r.recording_id
        for r in recordings
        for _, window in extractor.windows(Path(r.audio))
    }
    assert len(owners) == sum(extractor.count_windows(seconds) for seconds in SECONDS)
    write_json(folder / "windows.json", owners)
    return Corpus(folder, recordings, encoder)


class Worker:
    """A process that does a `Task`."""

    def __init__(self, task: Task, scratch: Path) -> None:
        path = scratch / f"task-{len(list(scratch.glob('task-*.json')))}.json"
        write_json(path, asdict(task))
        self._errors = path.with_suffix(".err")
        self._said = b""
        with self._errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, unbreakable_worker.__file__, str(path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
            )

    @property
    def pid(self) -> str:
        return str(self.process.pid)

    @property
    def errors(self) -> str:
        return self._errors.read_text()

    def hear(self) -> str:
        """Return the next line that the worker says, nothing at its end."""
        assert self.process.stdout
        while b"\n" not in self._said:
            ready, _, _ = select.select([self.process.stdout], [], [], PATIENCE_S)
            assert ready, "the worker hangs"
            part = os.read(self.process.stdout.fileno(), 1 << 16)
            if not part:
                return ""
            self._said += part
        line, _, self._said = self._said.partition(b"\n")
        return line.decode()

    def await_ready(self) -> "Worker":
        assert self.hear() == "ready", self.errors
        return self

    def go(self) -> "Worker":
        assert self.process.stdin
        self.process.stdin.write(b"go\n")
        self.process.stdin.flush()
        return self

    def finish(self) -> dict[str, Any]:
        """Wait for a good end; return the summary."""
        line = self.hear()
        assert self.end() == 0, self.errors
        facts: dict[str, Any] = json.loads(line)
        return facts

    def end(self) -> int:
        """Wait for the end, whatever it is; return the status."""
        try:
            return self.process.wait(PATIENCE_S)
        finally:
            self.close()

    def kill(self) -> None:
        self.process.kill()
        self.end()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream
            with suppress(BrokenPipeError):
                stream.close()


Start = Callable[[Task], Worker]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Give a function that starts a worker and waits until it is ready."""
    workers: list[Worker] = []

    def begin(task: Task) -> Worker:
        workers.append(Worker(task, tmp_path))
        return workers[-1].await_ready()

    yield begin
    for worker in workers:
        worker.close()


@dataclass(frozen=True)
class Undisturbed:
    """What a run leaves that nobody disturbs, and how long it takes."""

    outputs: Mapping[str, bytes]
    stored: set[str]
    seconds: float


@pytest.fixture(scope="session")
def undisturbed(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    folder = tmp_path_factory.mktemp("undisturbed")
    task = corpus.task(folder / "data")
    worker = Worker(task, folder).await_ready()
    began = time.perf_counter()
    summary = worker.go().finish()
    seconds = time.perf_counter() - began
    layout = Layout(Path(task.data), "x")
    assert summary["computed"] == [r.recording_id for r in corpus.recordings]
    assert len(outputs(layout)) == len(stored_names(layout)) == len(VIEWS) * len(SECONDS)
    assert sorted(computed(task)) == sorted(json.loads(Path(task.windows).read_text()))
    return Undisturbed(outputs(layout), stored_names(layout), seconds)


def log_lines(task: Task) -> list[list[str]]:
    """Return process, recording and window of everything that the model began to compute."""
    with suppress(FileNotFoundError):
        return [line.split() for line in Path(task.log).read_text().splitlines()]
    return []


def computed(task: Task) -> list[str]:
    """Return the windows that the model began to compute."""
    return [window for _, _, window in log_lines(task)]


def owners(task: Task, *, pid: str) -> set[str]:
    """Return the recordings of which a process computed any window."""
    return {name for process, name, _ in log_lines(task) if process == pid}


def assert_nothing_is_damaged(task: Task, undisturbed: Undisturbed) -> None:
    """Check what others may see at any time."""
    layout = Layout(Path(task.data), "x")
    assert outputs(layout).items() <= undisturbed.outputs.items()
    assert stored_names(layout) <= undisturbed.stored


def assert_as_undisturbed(task: Task, undisturbed: Undisturbed) -> None:
    """Check what a run leaves at its end."""
    layout = Layout(Path(task.data), "x")
    assert outputs(layout) == undisturbed.outputs
    assert stored_names(layout) == undisturbed.stored


def assert_finishes(start: Start, corpus: Corpus, task: Task, undisturbed: Undisturbed) -> None:
    """Run what is missing, without disturbance."""
    there = corpus.finished(task)
    worker = start(replace(task, stop_at="")).go()
    summary = worker.finish()
    everything = {r.recording_id for r in corpus.recordings}
    assert set(summary["kept"]) >= there
    assert set(summary["computed"]) == everything - set(summary["kept"])
    assert not owners(task, pid=worker.pid) & there
    assert_as_undisturbed(task, undisturbed)


@pytest.mark.parametrize(
    "kills",
    [
        pytest.param(5, marks=pytest.mark.slow),
        pytest.param(30, marks=pytest.mark.exhaustive),
    ],
)
def test_kills_at_random_moments_lose_and_repeat_nothing(
    tmp_path: Path, start: Start, corpus: Corpus, undisturbed: Undisturbed, kills: int
) -> None:
    rng = random.Random(kills)
    task = corpus.task(tmp_path / "data")
    killed = rounds = 0
    while killed < kills:
        there = corpus.finished(task)
        worker = start(task).go()
        with suppress(subprocess.TimeoutExpired):
            worker.process.wait(rng.uniform(0, undisturbed.seconds))
        through = worker.process.poll() is not None
        if through:
            worker.finish()
        else:
            worker.kill()
            killed += 1
        assert not owners(task, pid=worker.pid) & there
        assert_nothing_is_damaged(task, undisturbed)
        if through:
            assert_as_undisturbed(task, undisturbed)
            shutil.rmtree(task.data)
            rounds += 1
    assert_finishes(start, corpus, task, undisturbed)
    assert_finishes(start, corpus, task, undisturbed)


@pytest.mark.parametrize(
    ("stop_at", "nth"),
    [
        pytest.param(stop_at, nth, marks=pytest.mark.slow if quick else pytest.mark.exhaustive)
        for stop_at, nth, quick in [
            ("decoding", 9, False),
            ("computing", 14, True),
            ("appending", 51, False),
            ("storing", 10, True),  # the writers of the fourth recording are closed
            ("storing", 11, False),
            ("storing", 12, True),  # its segments and frames are stored, its mean is not
            ("linking", 10, False),
            ("linking", 11, True),  # one of its three outputs is there
            # Of the second recording's nine: two writers' files, its mean, three into the cache,
            # three outputs.
            *(("renaming", nth, False) for nth in range(10, 19)),
        ]
    ],
)
def test_a_kill_at_a_dangerous_moment_loses_and_repeats_nothing(
    tmp_path: Path,
    start: Start,
    corpus: Corpus,
    undisturbed: Undisturbed,
    stop_at: str,
    nth: int,
) -> None:
    task = corpus.task(tmp_path / "data", stop_at=stop_at, nth=nth)
    worker = start(task).go()
    assert worker.hear() == "stopped"
    worker.kill()
    assert_nothing_is_damaged(task, undisturbed)
    assert_finishes(start, corpus, task, undisturbed)


@pytest.mark.slow
def test_processes_on_the_same_recordings_do_no_harm(
    tmp_path: Path, start: Start, corpus: Corpus, undisturbed: Undisturbed
) -> None:
    task = corpus.task(tmp_path / "data")
    workers = [start(task) for _ in range(3)]
    for worker in workers:
        worker.go()
    workers[0].kill()
    assert [worker.finish()["failed"] for worker in workers[1:]] == [{}, {}]
    assert_as_undisturbed(task, undisturbed)


@pytest.mark.slow
@DECODERS
def test_ctrl_c_ends_a_run_at_once_and_tidily(
    tmp_path: Path, start: Start, corpus: Corpus, undisturbed: Undisturbed, decoders: int
) -> None:
    task = corpus.task(tmp_path / "data", stop_at="computing", nth=14, decoders=decoders)
    worker = start(task).go()
    assert worker.hear() == "stopped"
    worker.process.send_signal(signal.SIGINT)
    assert worker.end() == -signal.SIGINT, worker.errors
    assert "KeyboardInterrupt" in worker.errors
    assert leftovers(Path(task.data)) == []
    assert_nothing_is_damaged(task, undisturbed)
    assert_finishes(start, corpus, task, undisturbed)


@pytest.mark.parametrize(
    "times",
    [pytest.param(2, marks=pytest.mark.slow), pytest.param(15, marks=pytest.mark.exhaustive)],
)
def test_ctrl_c_at_random_moments_leaves_nothing(
    tmp_path: Path, start: Start, corpus: Corpus, undisturbed: Undisturbed, times: int
) -> None:
    rng = random.Random(times)
    task = corpus.task(tmp_path / "data", decoders=2)
    for _ in range(times):
        there = corpus.finished(task)
        worker = start(task).go()
        with suppress(subprocess.TimeoutExpired):
            worker.process.wait(rng.uniform(0, 0.8 * undisturbed.seconds))
        worker.process.send_signal(signal.SIGINT)
        assert worker.end() in (0, -signal.SIGINT), worker.errors
        assert not owners(task, pid=worker.pid) & there
        assert leftovers(Path(task.data)) == []
        assert_nothing_is_damaged(task, undisturbed)
        if corpus.finished(task) == {r.recording_id for r in corpus.recordings}:
            shutil.rmtree(task.data)
    assert_finishes(start, corpus, task, undisturbed)


@pytest.mark.slow
@DECODERS
def test_an_error_of_the_engine_ends_the_process_with_its_traceback(
    tmp_path: Path, start: Start, corpus: Corpus, undisturbed: Undisturbed, decoders: int
) -> None:
    task = corpus.task(tmp_path / "data", fails=True, decoders=decoders)
    worker = start(task).go()
    assert worker.hear() == ""
    assert worker.end() == 1
    assert worker.errors.rstrip().endswith("RuntimeError: boom")
    assert leftovers(Path(task.data)) == []
    assert_nothing_is_damaged(task, undisturbed)
    assert_finishes(start, corpus, replace(task, fails=False), undisturbed)


# ----------------------------------------------------------------------------------------------
# A stand-in for the model, in this process
# ----------------------------------------------------------------------------------------------

LAYERS, FRAMES, DIMS = 3, 40, 64


class StandIn:
    """Computes frames that are a window's first samples, quickly."""

    name, device, precision = "stand-in", "cpu", "float32"

    def __init__(self) -> None:
        self.windows = 0
        self.change: Callable[[Floats], None] = lambda _: None
        self.at: dict[int, Callable[[], object]] = {}

    def run(self, windows: Floats, *, raw: bool = False) -> Output:
        for _ in windows:
            self.windows += 1
            self.at.pop(self.windows, lambda: None)()
        frames = windows[:, : LAYERS * FRAMES * DIMS].reshape(-1, LAYERS, FRAMES, DIMS).copy()
        for window in frames:
            self.change(window)
        return Output(frames.mean(axis=2), frames if raw else None)


@pytest.fixture
def stand_in() -> StandIn:
    return StandIn()


@pytest.fixture
def recordings(tmp_path: Path) -> list[Recording]:
    return [
        write_recording(tmp_path / "audio" / f"{name}.wav", seed=i, seconds=3.0 + i)
        for i, name in enumerate("abcd")
    ]


def make_pipeline(stand_in: StandIn, layout: Layout, **settings: Any) -> ExtractionPipeline:
    checkpoint = Checkpoint(MODELS[DEMO_ENCODER], Path(), Path(), {}, normalize=False)
    encoder = MertEncoder(checkpoint.spec, stand_in, checkpoint)
    extractor = FeatureExtractor(encoder, window_s=WINDOW_S, batch_size=BATCH_SIZE)
    return ExtractionPipeline(extractor, layout, **{"views": VIEWS, **settings})


def run(
    stand_in: StandIn, layout: Layout, recordings: Sequence[Recording], **settings: Any
) -> ExtractionSummary:
    return make_pipeline(stand_in, layout, **settings).run(recordings)


def written(layout: Layout, name: str) -> list[str]:
    return [view for view in VIEWS if layout.features(view, name).exists()]


def expected_outputs(folder: Path, recordings: Sequence[Recording]) -> dict[str, bytes]:
    layout = Layout(folder, "x")
    run(StandIn(), layout, recordings)
    return outputs(layout)


def fill(disk: Path, leave: int) -> Path:
    """Leave so many bytes of a file system free."""
    space = os.statvfs(disk)
    filler = disk / "filler"
    filler.write_bytes(bytes(space.f_bavail * space.f_frsize - leave))
    return filler


@pytest.mark.unit
@DECODERS
@pytest.mark.parametrize("room", [0, 100_000, 400_000, 800_000])
@pytest.mark.parametrize("full", ["cache", "embeddings"])
def test_a_full_disk_stops_the_run_and_what_is_finished_is_kept(
    tmp_path: Path,
    small_disk: SmallDisk,
    stand_in: StandIn,
    recordings: list[Recording],
    full: str,
    room: int,
    decoders: int,
) -> None:
    expected = expected_outputs(tmp_path / "expected", recordings)
    disk = small_disk(8 * 1024)
    layout = Layout(tmp_path / "data", "x")
    layout.data.mkdir()
    (layout.data / full).symlink_to(disk)
    filler = fill(disk, room)
    with pytest.raises(
        StorageError, match=rf"data/{full}/.*too little space left \([\d,]+ bytes.* free\); free"
    ):
        run(stand_in, layout, recordings, decoders=decoders)
    assert leftovers(layout.data, disk) == []
    assert outputs(layout).items() <= expected.items()
    stored_names(layout)

    filler.unlink()
    pipeline = make_pipeline(stand_in, layout)
    missing = [r for r in recordings if not is_stored(pipeline, r)]
    summary = run(stand_in, layout, recordings, decoders=decoders)
    assert summary.computed == [r.recording_id for r in missing]
    assert summary.failed == {}
    assert outputs(layout) == expected
    assert leftovers(layout.data, disk) == []
    count = pipeline.extractor.count_windows
    assert summary.windows == sum(count(r.duration_s) for r in missing)


@pytest.mark.unit
@pytest.mark.parametrize("folder", ["cache", "embeddings"])
def test_a_read_only_folder_is_told_before_anything_is_computed(
    tmp_path: Path,
    small_disk: SmallDisk,
    stand_in: StandIn,
    recordings: list[Recording],
    folder: str,
) -> None:
    disk = small_disk(8 * 1024)
    layout = Layout(tmp_path / "data", "x")
    layout.data.mkdir()
    (layout.data / folder).symlink_to(disk)
    make_read_only(disk)
    with pytest.raises(StorageError, match=rf"data/{folder}/.*read-only.*make it writable"):
        run(stand_in, layout, recordings)
    assert stand_in.windows == 0
    assert leftovers(layout.data) == []


@pytest.mark.unit
@pytest.mark.parametrize("folder", ["cache", "embeddings", ""])
def test_folders_that_vanish_in_the_middle_lose_nothing_else(
    tmp_path: Path, stand_in: StandIn, recordings: list[Recording], folder: str
) -> None:
    expected = expected_outputs(tmp_path / "expected", recordings)
    layout = Layout(tmp_path / "data", "x")
    stand_in.at[9] = lambda: shutil.rmtree(layout.data / folder, ignore_errors=True)
    with suppress(StorageError):
        run(stand_in, layout, recordings)
    assert stand_in.at == {}
    assert outputs(layout).items() <= expected.items()
    summary = run(stand_in, layout, recordings)
    assert summary.failed == {}
    assert outputs(layout) == expected
    assert leftovers(layout.data) == []


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def cut(path: Path) -> None:
    os.truncate(path, 60_000)


def exchange(path: Path) -> None:
    other = path.with_name("other")
    content = bytearray(path.read_bytes())
    content[-4:] = b"\x01\x02\x03\x04"
    other.write_bytes(content)
    other.replace(path)


@pytest.mark.unit
@DECODERS
@pytest.mark.parametrize("while_it_is_read", [False, True])
@pytest.mark.parametrize("change", [Path.unlink, grow, cut, exchange])
def test_a_recording_whose_file_changes_fails_alone(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stand_in: StandIn,
    recordings: list[Recording],
    change: Callable[[Path], None],
    while_it_is_read: bool,
    decoders: int,
) -> None:
    expected = expected_outputs(tmp_path / "expected", recordings)
    victim = Path(recordings[1].audio)
    if while_it_is_read:
        real = FeatureExtractor.windows

        def windows(self: FeatureExtractor, path: Path) -> Iterator[tuple[int, Floats]]:
            for i, window in enumerate(real(self, path)):
                if path == victim and i == 2:
                    change(victim)
                yield window

        monkeypatch.setattr(FeatureExtractor, "windows", windows)
    else:
        change(victim)
    layout = Layout(tmp_path / "data", "x")
    summary = run(stand_in, layout, recordings, decoders=decoders)
    assert summary.failed.keys() == {"b"}
    assert "b.wav" in summary.failed["b"]
    assert "mess recordings" in summary.failed["b"]
    assert summary.computed == ["a", "c", "d"]
    assert summary.stored.keys() == {"a", "c", "d"}
    assert outputs(layout) == {k: v for k, v in expected.items() if Path(k).stem != "b"}
    assert leftovers(layout.data) == []
    with pytest.raises(AudioError, match=r"1 of 4 recordings failed.*\n  b: .*b\.wav"):
        summary.check()


@pytest.mark.unit
@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.EACCES, "no permission"), (errno.EIO, "Input/output"), (errno.ESTALE, "Stale")],
)
def test_a_recording_whose_disk_fails_fails_alone(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stand_in: StandIn,
    recordings: list[Recording],
    number: int,
    words: str,
) -> None:
    real = Path.stat

    def stat(self: Path, **settings: Any) -> os.stat_result:
        if self.name == "b.wav":
            raise OSError(number, os.strerror(number), str(self))
        return real(self, **settings)

    monkeypatch.setattr(Path, "stat", stat)
    summary = run(stand_in, Layout(tmp_path / "data", "x"), recordings)
    assert words in summary.failed["b"]
    assert summary.computed == ["a", "c", "d"]


@pytest.mark.unit
@DECODERS
@pytest.mark.parametrize(
    "error",
    [
        ZeroDivisionError("division by zero"),
        MemoryError(),
        AssertionError(),
        KeyError("x"),
        RuntimeError("from a library"),
        StorageError("nowhere"),
        StopIteration(),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("nth", [0, 2])
def test_whatever_a_recording_raises_is_its_own_problem(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stand_in: StandIn,
    recordings: list[Recording],
    error: Exception,
    nth: int,
    decoders: int,
) -> None:
    real = FeatureExtractor.windows

    def windows(self: FeatureExtractor, path: Path) -> Any:
        def failing() -> Floats:
            raise error

        found = real(self, path)
        if path.stem != "b":
            return found
        return ((0, failing()) if i == nth else window for i, window in enumerate(found))

    monkeypatch.setattr(FeatureExtractor, "windows", windows)
    layout = Layout(tmp_path / "data", "x")
    summary = run(stand_in, layout, recordings, decoders=decoders)
    assert summary.failed.keys() == {"b"}
    assert str(error) in summary.failed["b"]
    assert summary.computed == ["a", "c", "d"]
    assert [bool(written(layout, name)) for name in "abcd"] == [True, False, True, True]
    assert leftovers(layout.data) == []


def spoil(stand_in: StandIn, recording: Recording, value: float) -> None:
    """Put a value into the frames of a recording's third window."""
    third = load_audio(Path(recording.audio))[24_000:24_010]

    def change(frames: Floats) -> None:
        if np.array_equal(frames.ravel()[:10], third):
            frames[1, 2, 3] = value

    stand_in.change = change


@pytest.mark.unit
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("views", [VIEWS, ("segments", "aggregated")])
def test_a_recording_whose_features_are_not_finite_fails_alone(
    tmp_path: Path,
    stand_in: StandIn,
    recordings: list[Recording],
    value: float,
    views: tuple[str, ...],
) -> None:
    layout = Layout(tmp_path / "data", "x")
    spoil(stand_in, recordings[1], value)
    summary = run(stand_in, layout, recordings, views=views)
    assert summary.failed.keys() == {"b"}
    assert "not finite" in summary.failed["b"]
    assert [written(layout, r.recording_id) for r in recordings] == [
        [view for view in views if name != "b"] for name in "abcd"
    ]
    assert leftovers(layout.data) == []
    with pytest.raises(AudioError, match=r"b: .*not finite"):
        summary.check()


@pytest.mark.unit
def test_a_recording_too_loud_for_float16_fails_alone(
    tmp_path: Path, stand_in: StandIn, recordings: list[Recording]
) -> None:
    layout = Layout(tmp_path / "data", "x")
    spoil(stand_in, recordings[1], 70_000.0)
    summary = run(stand_in, layout, recordings, raw_dtype="float16")
    assert summary.failed.keys() == {"b"}
    assert "raw_dtype: float32" in summary.failed["b"]
    assert [bool(written(layout, name)) for name in "abcd"] == [True, False, True, True]
    assert np.load(layout.features("raw", "a")).dtype == np.float16
    assert leftovers(layout.data) == []
    assert run(stand_in, layout, recordings, raw_dtype="float32").failed == {}
    assert np.load(layout.features("raw", "b")).max() == 70_000.0


@pytest.mark.unit
@pytest.mark.parametrize("views", [("aggregated",), ("raw",), ("raw", "aggregated")])
def test_any_choice_of_views_is_resumed_from_what_is_stored(
    tmp_path: Path, stand_in: StandIn, recordings: list[Recording], views: tuple[str, ...]
) -> None:
    expected = expected_outputs(tmp_path / "expected", recordings)
    layout = Layout(tmp_path / "data", "x")
    run(stand_in, layout, recordings, views=views)
    assert outputs(layout) == {k: v for k, v in expected.items() if k.split("/")[0] in views}
    # As after a kill between two of a recording's files.
    pipeline = make_pipeline(stand_in, layout)
    for view, recording in zip(VIEWS, recordings, strict=False):
        stored = find(layout.cache, "features", pipeline.fingerprint(recording, view), ".npy")
        if stored:
            stored.unlink()
    shutil.rmtree(layout.embeddings)
    run(stand_in, layout, recordings)
    assert outputs(layout) == expected


@pytest.mark.parametrize(
    "room",
    [
        pytest.param(0, marks=pytest.mark.exhaustive),  # not even for the bundled weights
        pytest.param(1_500_000, marks=pytest.mark.slow),  # half of the converted ones
        pytest.param(2_200_000, marks=pytest.mark.exhaustive),  # all of them, not the graph
    ],
)
def test_a_models_folder_without_space_is_told(small_disk: SmallDisk, room: int) -> None:
    disk = small_disk(16 * 1024)
    filler = fill(disk, room)
    with pytest.raises(
        StorageError, match=rf"{disk}/.*too little space left \([\d,]+ bytes.* free\); free"
    ):
        load_encoder(DEMO_ENCODER, models=disk, device="cpu", window_s=WINDOW_S)
    assert leftovers(disk) == []
    filler.unlink()
    encoder = load_encoder(DEMO_ENCODER, models=disk, device="cpu", window_s=WINDOW_S)
    assert encoder.engine.name.startswith("openvino")
