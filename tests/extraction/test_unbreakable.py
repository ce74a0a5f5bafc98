"""Extraction that is killed, interrupted or starved of space, or whose files change, loses nothing.

A stand-in for the model runs, in this process or in one that is killed.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from benchmarks.recordings import describe
from mess_core.cache import find
from mess_core.errors import StorageError
from mess_core.extraction.audio import load_audio
from mess_core.extraction.encoder import load_encoder
from mess_core.extraction.extractor import FeatureExtractor
from mess_core.extraction.pipeline import ExtractionPipeline, ExtractionSummary
from mess_core.files import file_sha256
from mess_core.layout import VIEWS, Layout
from mess_core.recordings import Recording, write_recordings
from tests.conftest import SmallDisk, make_read_only
from tests.extraction import stand_in as worker
from tests.extraction.checkpoints import NARROW, write_checkpoint
from tests.extraction.stand_in import WINDOW_S, StandIn, make_pipeline

Floats = npt.NDArray[np.float32]
Start = Callable[[Layout], tuple[subprocess.Popen[bytes], Path]]

#: Longer than anything here takes, in seconds; then it hangs.
PATIENCE_S = 60.0
#: About what a worker takes for all recordings.
RUN_S = 1.0
DECODERS = pytest.mark.parametrize("decoders", [1, 3])


def write_recording(path: Path, *, seed: int, seconds: float) -> Recording:
    """Write noise, which is unlike any other seed's."""
    rng = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.1 * rng.normal(size=(round(seconds * 24_000), 1 + seed % 2)), 24_000)
    return describe(path)


@pytest.fixture
def recordings(tmp_path: Path) -> list[Recording]:
    return [
        write_recording(tmp_path / "audio" / f"{name}.wav", seed=i, seconds=3.0 + i)
        for i, name in enumerate("abcd")
    ]


@pytest.fixture
def stand_in() -> StandIn:
    return StandIn()


def run(
    stand_in: StandIn, layout: Layout, recordings: Sequence[Recording], **settings: Any
) -> ExtractionSummary:
    return make_pipeline(stand_in, layout, **settings).run(recordings)


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


@pytest.fixture
def expected(tmp_path: Path, recordings: list[Recording]) -> dict[str, bytes]:
    """What a run leaves that nobody disturbs."""
    layout = Layout(tmp_path / "expected", "x")
    run(StandIn(), layout, recordings)
    assert len(outputs(layout)) == len(VIEWS) * len(recordings)
    return outputs(layout)


def assert_intact(layout: Layout, expected: dict[str, bytes]) -> None:
    """Check what others may see at any time."""
    assert outputs(layout).items() <= expected.items()
    for path in (layout.cache / "features").glob("*/*.npy"):
        assert file_sha256(path).startswith(path.name.split(".")[1]), path


def stored(pipeline: ExtractionPipeline, recordings: Sequence[Recording]) -> set[str]:
    """Return the recordings that are in the cache, in all views."""
    return {
        recording.recording_id
        for recording in recordings
        if all(
            find(pipeline.layout.cache, "features", pipeline.fingerprint(recording, view), ".npy")
            for view in pipeline.views
        )
    }


def assert_finishes(
    layout: Layout, recordings: Sequence[Recording], expected: dict[str, bytes]
) -> None:
    """Run what is missing, and nothing else, without disturbance."""
    pipeline = make_pipeline(StandIn(), layout)
    missing = {r.recording_id for r in recordings} - stored(pipeline, recordings)
    summary = pipeline.run(recordings)
    assert (set(summary.computed), summary.failed) == (missing, {})
    assert outputs(layout) == expected


@pytest.fixture
def start(tmp_path: Path, recordings: list[Recording]) -> Iterator[Start]:
    """Give a function that starts a worker; it returns the process and the file of its notes."""
    workers: list[subprocess.Popen[bytes]] = []
    table = tmp_path / "x.tsv"
    write_recordings(table, recordings)

    def begin(layout: Layout) -> tuple[subprocess.Popen[bytes], Path]:
        log = tmp_path / f"{len(workers)}.log"
        log.touch()
        command = [sys.executable, worker.__file__, str(table), str(layout.data), str(log)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        workers.append(process)
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        assert process.stdin
        process.stdin.write(b"go\n")
        process.stdin.flush()
        return process, log

    yield begin
    for process in workers:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("sent", "times"),
    [
        pytest.param(signal.SIGKILL, 5, marks=pytest.mark.slow),
        pytest.param(signal.SIGKILL, 30, marks=pytest.mark.exhaustive),
        pytest.param(signal.SIGINT, 2, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, 15, marks=pytest.mark.exhaustive),
    ],
)
def test_kills_and_ctrl_c_at_random_moments_lose_and_repeat_nothing(
    tmp_path: Path,
    start: Start,
    recordings: list[Recording],
    expected: dict[str, bytes],
    sent: signal.Signals,
    times: int,
) -> None:
    rng = random.Random(times)
    layout = Layout(tmp_path / "data", "x")
    pipeline = make_pipeline(StandIn(), layout)
    hits = 0
    while hits < times:
        there = stored(pipeline, recordings)
        process, log = start(layout)
        try:
            process.wait(rng.uniform(0, RUN_S))
        except subprocess.TimeoutExpired:
            process.send_signal(sent)
            hits += 1
        status = process.wait(PATIENCE_S)
        assert status in (0, -sent)
        assert not there & set(log.read_text().split())
        assert_intact(layout, expected)
        if sent == signal.SIGINT:
            assert leftovers(layout.data) == []
        if status == 0:
            assert outputs(layout) == expected
            shutil.rmtree(layout.data)
    assert_finishes(layout, recordings, expected)


@pytest.mark.slow
def test_processes_on_the_same_recordings_do_no_harm(
    tmp_path: Path, start: Start, expected: dict[str, bytes]
) -> None:
    layout = Layout(tmp_path / "data", "x")
    first, *others = [start(layout)[0] for _ in range(3)]
    first.kill()
    assert [process.wait(PATIENCE_S) for process in others] == [0, 0]
    assert outputs(layout) == expected
    assert_intact(layout, expected)


@pytest.mark.unit
@DECODERS
@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("boom")])
def test_an_interruption_ends_a_run_at_once_and_tidily(
    tmp_path: Path,
    stand_in: StandIn,
    recordings: list[Recording],
    expected: dict[str, bytes],
    error: BaseException,
    decoders: int,
) -> None:
    def interrupt() -> None:
        raise error

    layout = Layout(tmp_path / "data", "x")
    threads = threading.active_count()
    stand_in.at[14] = interrupt
    with pytest.raises(type(error)):
        run(stand_in, layout, recordings, decoders=decoders)
    assert stand_in.windows == 14
    assert threading.active_count() == threads
    assert leftovers(layout.data) == []
    assert_intact(layout, expected)
    assert_finishes(layout, recordings, expected)


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
    expected: dict[str, bytes],
    full: str,
    room: int,
    decoders: int,
) -> None:
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
    assert_intact(layout, expected)
    filler.unlink()
    assert_finishes(layout, recordings, expected)
    assert leftovers(layout.data, disk) == []


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


def before_window_of_b(
    monkeypatch: pytest.MonkeyPatch, nth: int, then: Callable[[], object]
) -> None:
    """Have something done before the n-th window of recording b is read."""
    real = FeatureExtractor.windows

    def windows(self: FeatureExtractor, path: Path) -> Iterator[tuple[int, Floats]]:
        for i, window in enumerate(real(self, path)):
            if path.stem == "b" and i == nth:
                then()
            yield window

    monkeypatch.setattr(FeatureExtractor, "windows", windows)


def assert_b_failed_alone(
    summary: ExtractionSummary, layout: Layout, expected: dict[str, bytes], message: str
) -> None:
    assert summary.failed.keys() == {"b"}
    assert message in summary.failed["b"]
    assert summary.computed == ["a", "c", "d"]
    assert summary.stored.keys() == {"a", "c", "d"}
    assert outputs(layout) == {k: v for k, v in expected.items() if Path(k).stem != "b"}
    assert leftovers(layout.data) == []


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def cut(path: Path) -> None:
    os.truncate(path, 60_000)


def exchange(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(path.read_bytes()[:-4] + b"\x01\x02\x03\x04")
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
    expected: dict[str, bytes],
    change: Callable[[Path], None],
    while_it_is_read: bool,
    decoders: int,
) -> None:
    victim = Path(recordings[1].audio)
    if while_it_is_read:
        before_window_of_b(monkeypatch, 2, lambda: change(victim))
    else:
        change(victim)
    layout = Layout(tmp_path / "data", "x")
    summary = run(stand_in, layout, recordings, decoders=decoders)
    assert_b_failed_alone(summary, layout, expected, "mess recordings")
    assert "1 failed" in summary.lines()[0]
    assert summary.lines()[-1].startswith("  b: ")


@pytest.mark.unit
@DECODERS
@pytest.mark.parametrize(
    "error",
    [
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
    expected: dict[str, bytes],
    error: Exception,
    nth: int,
    decoders: int,
) -> None:
    def fail() -> None:
        raise error

    before_window_of_b(monkeypatch, nth, fail)
    layout = Layout(tmp_path / "data", "x")
    summary = run(stand_in, layout, recordings, decoders=decoders)
    assert_b_failed_alone(summary, layout, expected, str(error))


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
    expected: dict[str, bytes],
    value: float,
    views: tuple[str, ...],
) -> None:
    layout = Layout(tmp_path / "data", "x")
    spoil(stand_in, recordings[1], value)
    summary = run(stand_in, layout, recordings, views=views)
    of_views = {k: v for k, v in expected.items() if k.split("/")[0] in views}
    assert_b_failed_alone(summary, layout, of_views, "not finite")


@pytest.mark.unit
def test_a_recording_too_loud_for_float16_fails_alone(
    tmp_path: Path, stand_in: StandIn, recordings: list[Recording]
) -> None:
    expected = Layout(tmp_path / "expected", "x")
    run(stand_in, expected, recordings, raw_dtype="float16")
    assert np.load(expected.features("raw", "a")).dtype == np.float16
    layout = Layout(tmp_path / "data", "x")
    spoil(stand_in, recordings[1], 70_000.0)
    summary = run(stand_in, layout, recordings, raw_dtype="float16")
    assert_b_failed_alone(summary, layout, outputs(expected), "raw_dtype: float32")
    assert run(stand_in, layout, recordings, raw_dtype="float32").failed == {}
    assert np.load(layout.features("raw", "b")).max() == 70_000.0


@pytest.mark.unit
@pytest.mark.parametrize("views", [("aggregated",), ("raw",), ("raw", "aggregated")])
def test_any_choice_of_views_is_resumed_from_what_is_stored(
    tmp_path: Path,
    stand_in: StandIn,
    recordings: list[Recording],
    expected: dict[str, bytes],
    views: tuple[str, ...],
) -> None:
    layout = Layout(tmp_path / "data", "x")
    run(stand_in, layout, recordings, views=views)
    assert outputs(layout) == {k: v for k, v in expected.items() if k.split("/")[0] in views}
    # As after a kill between two of a recording's files.
    pipeline = make_pipeline(stand_in, layout)
    for view, recording in zip(VIEWS, recordings, strict=False):
        name = pipeline.fingerprint(recording, view)
        if there := find(layout.cache, "features", name, ".npy"):
            there.unlink()
    shutil.rmtree(layout.embeddings)
    assert_finishes(layout, recordings, expected)


@pytest.mark.parametrize(
    "room",
    [
        pytest.param(500_000, marks=pytest.mark.slow),  # half of the converted weights
        pytest.param(1_080_000, marks=pytest.mark.exhaustive),  # all of them, not the graph
    ],
)
def test_a_models_folder_without_space_is_told(
    tmp_path: Path, small_disk: SmallDisk, room: int
) -> None:
    write_checkpoint(tmp_path / "narrow", base=NARROW)
    name, disk = str(tmp_path / "narrow"), small_disk(16 * 1024)
    filler = fill(disk, room)
    with pytest.raises(
        StorageError, match=rf"{disk}/.*too little space left \([\d,]+ bytes.* free\); free"
    ):
        load_encoder(name, models=disk, device="cpu", window_s=WINDOW_S)
    assert leftovers(disk) == []
    filler.unlink()
    encoder = load_encoder(name, models=disk, device="cpu", window_s=WINDOW_S)
    assert encoder.engine.name.startswith("openvino")
