"""Windows of many recordings to the model in batches, also when memory runs out.

A batch may hold windows of several recordings: on a corpus of short clips batches stay full. At
most two batches are started and not waited for: while the model runs one, the host prepares the
next. When the device's memory does not suffice, the batch is halved, down to one window at a time,
and the windows concerned run again; after a while larger batches are tried again.

An engine is whatever runs a batch (`Engine`): OpenVINO on a CPU, torch on CUDA and MPS.
"""

__all__ = ["BATCH_SIZES", "Batcher", "Engine", "Output"]

import logging
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Generic, NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from mess_core.errors import ConfigError, EncoderError

Floats = npt.NDArray[np.float32]
Tag = TypeVar("Tag")
Value = TypeVar("Value")

BATCH_SIZES = {"cuda": 16, "mps": 8, "cpu": 4}

# Batches that are started and not yet waited for.
_IN_FLIGHT = 2
# Full batches that must succeed before a larger size is tried.
_PATIENCE = 8
# torch raises a plain RuntimeError with these words where it has no OutOfMemoryError.
_OUT_OF_MEMORY = (
    "MPS backend out of memory",
    "CUDA error: out of memory",
    "DefaultCPUAllocator: can't allocate memory",
)
_NO_WINDOWS = np.empty((0, 0), np.float32)

_LOG = logging.getLogger(__name__)


class Output(NamedTuple):
    """What a model makes of n windows; L layers, T frames, D dims.

    Attributes
    ----------
    pooled : ndarray of float32 [shape=(n, L, D)]
        Mean over the frames of every window.
    raw : ndarray of float32 [shape=(n, L, T, D)] or None
        All frames, when they were asked for.
    """

    pooled: Floats
    raw: Floats | None


class Engine(Protocol):
    """A model on a device."""

    @property
    def name(self) -> str:
        """What runs the model, with its version, for example ``openvino 2026.4.1``."""
        ...

    @property
    def device(self) -> str:
        """Where it runs: ``cpu``, ``cuda:0``, ``mps``."""
        ...

    @property
    def precision(self) -> str:
        """Of the matrix products: ``float32``, ``bfloat16`` or ``float16``."""
        ...

    def start(self, windows: Floats, *, raw: bool = False) -> Callable[[], Output]:
        """Begin to run windows.

        Parameters
        ----------
        windows : ndarray of float32 [shape=(n, samples)]
            Windows of equal length. They stay as they are until the output was given.
        raw : bool
            Whether to give all frames too.

        Returns
        -------
        callable
            Waits and gives the output, in arrays that the engine does not use again. It is called
            once, in the order of the starts unless memory runs out, and is then forgotten.

        Raises
        ------
        torch.OutOfMemoryError, MemoryError
            If the device's memory does not suffice; the returned function may raise it too.
        """
        ...

    def release(self) -> None:
        """Give cached memory back to the device."""
        ...


@dataclass(eq=False)
class _Batch(Generic[Tag]):
    """Windows on their way: to be started, in flight (``finish``) or done (``output``)."""

    tags: list[Tag]
    windows: Floats
    alone: bool = True  # whether nothing else was in flight when it was started
    finish: Callable[[], Output] | None = None
    output: Output | None = None

    @property
    def waiting(self) -> bool:
        return self.finish is None and self.output is None

    def split(self, size: int) -> "list[_Batch[Tag]]":
        if self.output is not None:
            return [self]
        return [
            _Batch(self.tags[first : first + size], self.windows[first : first + size])
            for first in range(0, len(self.tags), size)
        ]

    def results(self) -> Iterator[tuple[Tag, Floats, Floats | None]]:
        if self.output is None:
            return
        pooled, raw = self.output
        frames = [None] * len(pooled) if raw is None else raw
        yield from zip(self.tags, pooled, frames, strict=True)


class Batcher:
    """Runs windows on an engine in batches whose size follows the device's memory.

    Parameters
    ----------
    engine : Engine
        What runs a batch.
    batch_size : int, optional
        Windows per batch; by default `BATCH_SIZES` of the engine's device.

    Attributes
    ----------
    size : int
        Windows per batch now.
    smallest : int
        The smallest size that memory has forced so far.
    seconds : float
        Time spent in the engine: starting batches and waiting for them.
    windows : int
        Windows whose output was given by the engine.

    Raises
    ------
    ConfigError
        If ``batch_size`` is less than 1.
    """

    def __init__(self, engine: Engine, batch_size: int | None = None) -> None:
        kind = engine.device.partition(":")[0]
        full = BATCH_SIZES.get(kind, BATCH_SIZES["cpu"]) if batch_size is None else batch_size
        if full < 1:
            raise ConfigError(f"batch_size is {full}, it must be at least 1")
        self.engine = engine
        self.size = full
        self.smallest = full
        self.seconds = 0.0
        self.windows = 0
        self._full = full
        self._in_flight = _IN_FLIGHT
        self._patience = _PATIENCE
        self._good = 0
        self._grown = False
        self._cause = ""

    def run(
        self, windows: Iterable[tuple[Tag, Floats]], *, raw: bool = False
    ) -> Iterator[tuple[Tag, Floats, Floats | None]]:
        """Run windows, and give what the model makes of each, in their order.

        Parameters
        ----------
        windows : iterable of (tag, ndarray of float32 [shape=(samples,)])
            Pulled as they are needed: at most two batches of windows are held. Lengths may differ;
            a change of length begins a new batch. Tags come back with the results.
        raw : bool
            Whether to give all frames too.

        Yields
        ------
        tag
            The window's.
        pooled : ndarray of float32 [shape=(L, D)]
            A part of the batch's array: copy what is to be kept of it for long.
        frames : ndarray of float32 [shape=(L, T, D)] or None
            Likewise.

        Raises
        ------
        EncoderError
            If the device's memory does not suffice for one window.

        Notes
        -----
        What is in flight when the caller stops, or when the iterable or the engine raises, is
        waited for and dropped.
        """
        batches = self._cut(windows)
        queue: deque[_Batch[Tag]] = deque()
        try:
            while True:
                self._grow()
                failed = self._start(queue, batches, raw=raw)
                if not queue:
                    return
                if failed is None and not self._collect(queue[0]):
                    failed = queue[0]
                if failed is not None:
                    self._make_room(queue, failed)
                while queue and queue[0].output is not None:
                    yield from queue.popleft().results()
        finally:
            for batch in queue:
                if batch.finish is not None:
                    with suppress(Exception):
                        batch.finish()

    def _cut(self, windows: Iterable[tuple[Tag, Floats]]) -> Iterator[_Batch[Tag]]:
        tags: list[Tag] = []
        parts: list[Floats] = []
        for tag, window in windows:
            if parts and len(window) != len(parts[0]):
                yield _take(tags, parts)
            tags.append(tag)
            parts.append(window)
            if len(parts) >= self.size:
                yield _take(tags, parts)
        if parts:
            yield _take(tags, parts)

    def _start(
        self, queue: deque[_Batch[Tag]], batches: Iterator[_Batch[Tag]], *, raw: bool
    ) -> _Batch[Tag] | None:
        """Start what may be in flight; return the batch that ran out of memory, if one did."""
        while _count_in_flight(queue) < self._in_flight:
            batch = next((batch for batch in queue if batch.waiting), None)
            if batch is None:
                batch = next(batches, None)
                if batch is None:
                    return None
                queue.append(batch)
            batch.alone = _count_in_flight(queue) == 0
            batch.finish = self._attempt(partial(self.engine.start, batch.windows, raw=raw))
            if batch.finish is None:
                return batch
        return None

    def _collect(self, batch: _Batch[Tag]) -> bool:
        """Wait for a batch in flight; say whether memory sufficed."""
        finish, batch.finish = batch.finish, None
        if finish is not None:
            batch.output = self._attempt(finish)
        if batch.output is None:
            return False
        batch.windows = _NO_WINDOWS
        self.windows += len(batch.tags)
        self._good += len(batch.tags) == self.size
        return True

    def _attempt(self, call: Callable[[], Value]) -> Value | None:
        """Return what a call of the engine gives, None when memory ran out.

        Nothing keeps the error: its traceback would keep the batch's tensors.
        """
        began = time.perf_counter()
        try:
            return call()
        except Exception as error:
            if not _is_out_of_memory(error):
                raise
            self._cause = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
            return None
        finally:
            self.seconds += time.perf_counter() - began

    def _make_room(self, queue: deque[_Batch[Tag]], failed: _Batch[Tag]) -> None:
        """Wait for all that holds memory, go to smaller batches and cut what failed into them."""
        alone = failed.alone and _count_in_flight(queue) == 0
        count, samples = failed.windows.shape
        if alone and count == 1:
            raise EncoderError(
                f"one window of {samples} samples does not fit into the memory of "
                f"{self.engine.device} in {self.engine.precision} ({self._cause}); choose a "
                "shorter window_s, a lower precision or another device"
            )
        for batch in queue:
            if batch.finish is not None:
                self._collect(batch)
        self.engine.release()
        self._shrink(min(self.size, count) if alone else self.size, samples)
        pieces = [piece for batch in queue for piece in batch.split(self.size)]
        queue.clear()
        queue.extend(pieces)

    def _shrink(self, size: int, samples: int) -> None:
        if size > 1:
            self.size = size // 2
        else:
            self._in_flight = 1
        self.smallest = min(self.smallest, self.size)
        if self._grown:
            self._patience *= 2
        self._grown, self._good = False, 0
        _LOG.warning(
            "%s ran out of memory with batches of %d windows of %d samples in %s (%s); "
            "going on with %s",
            self.engine.device,
            size,
            samples,
            self.engine.precision,
            self._cause,
            self._describe(),
        )

    def _grow(self) -> None:
        """Go to larger batches after enough good ones."""
        if self._good < self._patience:
            return
        good, self._good = self._good, 0
        if self._grown:
            self._patience = _PATIENCE
        self._grown = self.size < self._full or self._in_flight < _IN_FLIGHT
        if not self._grown:
            return
        if self._in_flight < _IN_FLIGHT:
            self._in_flight = _IN_FLIGHT
        else:
            self.size = min(2 * self.size, self._full)
        _LOG.info(
            "%s: trying %s again after %d good batches", self.engine.device, self._describe(), good
        )

    def _describe(self) -> str:
        alone = " one at a time" if self._in_flight == 1 else ""
        return f"batches of {self.size}{alone}"


def _take(tags: list[Tag], parts: list[Floats]) -> _Batch[Tag]:
    """Make a batch of what was collected, and forget it."""
    batch = _Batch(tags.copy(), np.stack(parts))
    tags.clear()
    parts.clear()
    return batch


def _count_in_flight(queue: Iterable[_Batch[Tag]]) -> int:
    return sum(batch.finish is not None for batch in queue)


def _is_out_of_memory(error: Exception) -> bool:
    # The error can be torch's only where torch is loaded.
    torch_error = getattr(sys.modules.get("torch"), "OutOfMemoryError", ())
    return isinstance(error, (MemoryError, torch_error)) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)
    )
