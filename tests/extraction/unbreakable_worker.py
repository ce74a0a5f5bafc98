"""Extracts recordings in a process of its own, which tests stop, interrupt and kill.

Run with a file that holds a `Task`. It says ``ready`` on its standard output, begins when ``go``
comes on its standard input, says ``stopped`` and waits where the task tells it to, and at the end
says what it did. `Task.log` gets a line for every window that the model begins to compute.
"""

import faulthandler
import hashlib
import json
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mess_core.extraction import pipeline
from mess_core.extraction.encoder import Engine, MertEncoder, Output, load_encoder
from mess_core.extraction.extractor import FeatureExtractor
from mess_core.extraction.pipeline import ExtractionPipeline
from mess_core.extraction.specs import DEMO_ENCODER
from mess_core.files import ArrayWriter
from mess_core.layout import Layout
from mess_core.recordings import read_recordings

Floats = npt.NDArray[np.float32]

WINDOW_S = 1.0
BATCH_SIZE = 2
#: A worker that is not through by then hangs: it prints where, and ends.
PATIENCE_S = 120.0


@dataclass(frozen=True)
class Task:
    """What to do.

    Attributes
    ----------
    table, data, models, log, windows : str
        The recording table, the data folder, the models folder, the file to note windows in, and
        the file that says whose windows are whose (`name_window` to recording_id).
    stop_at, nth : str, int
        One of `POINTS`, and at which time to stop there; empty for nowhere.
    fails : bool
        Whether the engine raises a RuntimeError after a few batches.
    views, decoders
        As `ExtractionPipeline` has them.
    """

    table: str
    data: str
    models: str
    log: str
    windows: str
    stop_at: str = ""
    nth: int = 1
    fails: bool = False
    views: tuple[str, ...] = ("raw", "segments", "aggregated")
    decoders: int = 1


def name_window(window: Floats) -> str:
    return hashlib.sha256(np.ascontiguousarray(window).tobytes()).hexdigest()[:16]


def load(models: Path) -> MertEncoder:
    """Load the bundled encoder; one thread, because tests run several workers at a time."""
    return load_encoder(DEMO_ENCODER, models=models, device="cpu", window_s=WINDOW_S, threads=1)


class NotingEngine:
    """Notes whose window the model begins to compute, then computes it."""

    def __init__(self, engine: Engine, log: Path, owners: Mapping[str, str]) -> None:
        self._engine = engine
        self._log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._owners = owners
        self.name, self.device, self.precision = engine.name, engine.device, engine.precision

    def run(self, windows: Floats, *, raw: bool = False) -> Output:
        for name in map(name_window, windows):
            os.write(self._log, f"{os.getpid()} {self._owners[name]} {name}\n".encode())
        return self._engine.run(windows, raw=raw)


def say(words: str) -> None:
    os.write(1, f"{words}\n".encode())


def stop() -> None:
    """Say that we are there, and wait for a signal."""
    say("stopped")
    # A signal that comes just before a blocking call would be handled after it only.
    while not select.select([0], [], [], 0.1)[0]:
        pass
    os.read(0, 1)


def at(nth: int, then: Callable[..., object]) -> Callable[..., None]:
    """Return a function that calls ``then`` when it is called for the n-th time."""
    lock, calls = threading.Lock(), count(1)

    def tick(*args: object) -> None:
        with lock:
            there = next(calls) == nth
        if there:
            then(*args)

    return tick


def before(owner: Any, name: str, nth: int, then: Callable[..., object]) -> None:
    """Have ``owner.name`` call ``then`` first when it is called for the n-th time."""
    real, tick = getattr(owner, name), at(nth, then)

    def call(*args: Any, **settings: Any) -> Any:
        tick(*args)
        return real(*args, **settings)

    setattr(owner, name, call)


def while_decoding(nth: int, then: Callable[[], object]) -> None:
    """Have ``then`` called before the n-th window is given."""
    real, tick = FeatureExtractor.windows, at(nth, then)

    def windows(self: FeatureExtractor, path: Path) -> Iterator[tuple[int, Floats]]:
        for start, window in real(self, path):
            tick()
            yield start, window

    FeatureExtractor.windows = windows  # type: ignore[method-assign]


#: Where a worker can be told to stop: just before the n-th time of something.
POINTS: dict[str, Callable[[int], None]] = {
    "decoding": lambda nth: while_decoding(nth, stop),
    "computing": lambda nth: before(NotingEngine, "run", nth, lambda *_: stop()),
    "appending": lambda nth: before(ArrayWriter, "append", nth, lambda *_: stop()),
    # The first of three of a recording follows its writers' closing; the others lie between views.
    "storing": lambda nth: before(pipeline, "store", nth, lambda *_: stop()),
    # Everything is stored, no output is there yet; then some are.
    "linking": lambda nth: before(os, "link", nth, lambda *_: stop()),
    # Of a writer's file, into the cache, or to an output.
    "renaming": lambda nth: before(Path, "replace", nth, lambda *_: stop()),
}


def _boom(*_: object) -> None:
    raise RuntimeError("boom")


def main(task: Task) -> None:
    faulthandler.dump_traceback_later(PATIENCE_S, exit=True)
    # A shell's background job ignores Ctrl-C, and so do its children unless they say otherwise.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    encoder = load(Path(task.models))
    # The first window compiles the model, which is nothing to be disturbed here.
    samples = round(WINDOW_S * encoder.spec.sample_rate)
    encoder.engine.run(np.zeros((1, samples), np.float32), raw="raw" in task.views)
    owners = json.loads(Path(task.windows).read_text())
    engine = NotingEngine(encoder.engine, Path(task.log), owners)
    run = ExtractionPipeline(
        FeatureExtractor(replace(encoder, engine=engine), window_s=WINDOW_S, batch_size=BATCH_SIZE),
        Layout(Path(task.data), "x"),
        views=task.views,
        decoders=task.decoders,
    ).run
    recordings = read_recordings(Path(task.table))
    if task.stop_at:
        POINTS[task.stop_at](task.nth)
    if task.fails:
        before(NotingEngine, "run", 10, _boom)
    say("ready")
    os.read(0, len("go\n"))
    say(json.dumps(run(recordings).facts()))


if __name__ == "__main__":
    facts = json.loads(Path(sys.argv[1]).read_text())
    main(Task(**{**facts, "views": tuple(facts["views"])}))
