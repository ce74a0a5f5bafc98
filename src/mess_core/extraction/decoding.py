"""Decoding ahead: threads that turn jobs into items, through a bounded queue."""

__all__ = ["End", "decode_ahead"]

import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from mess_core.errors import AudioError, DatasetError, MessError

J = TypeVar("J")
T = TypeVar("T")

# How often a thread whose queue is full looks whether anybody still wants its items, in seconds.
_PATIENCE_S = 0.1


@dataclass(frozen=True, slots=True)
class End:
    """What follows a job's last item.

    Attributes
    ----------
    items : int
        How many there were.
    error : MessError or None
        Why there are no more, where the job's data are to blame.
    """

    items: int
    error: MessError | None = None


def decode_ahead(
    jobs: Iterable[J], decode: Callable[[J], Iterator[T]], *, threads: int = 1, ahead: int = 16
) -> Generator[tuple[J, T | End], None, None]:
    """Decode jobs in other threads, a bounded number of items ahead.

    Parameters
    ----------
    jobs : iterable
        Drawn from one at a time, in the decoding threads.
    decode : callable
        Gives a job's items. Its AudioError or DatasetError ends this job only.
    threads : int
        Jobs that are decoded at the same time.
    ahead : int
        Items that wait at most.

    Yields
    ------
    tuple
        A job and one of its items, in the job's order; last a job and its `End`. With several
        threads jobs are interleaved. Closing the iterator stops the threads.
    """
    work = _Work(jobs, decode, ahead)
    running = [threading.Thread(target=work.run, daemon=True) for _ in range(threads)]
    for thread in running:
        thread.start()
    try:
        ended = 0
        while ended < threads:
            entry = work.entries.get()
            if entry is None:
                ended += 1
            elif isinstance(entry, BaseException):
                raise entry
            else:
                yield entry
    finally:
        work.stop.set()
        for thread in running:
            thread.join()


class _StoppedError(Exception):
    """Nobody wants more items."""


class _Work(Generic[J, T]):
    """What the threads share."""

    def __init__(self, jobs: Iterable[J], decode: Callable[[J], Iterator[T]], ahead: int) -> None:
        self.entries: queue.Queue[tuple[J, T | End] | BaseException | None] = queue.Queue(ahead)
        self.stop = threading.Event()
        self._jobs = iter(jobs)
        self._decode = decode
        self._drawing = threading.Lock()

    def run(self) -> None:
        """Decode until there are no more jobs."""
        try:
            while True:
                with self._drawing:
                    job = next(self._jobs, None)
                if job is None:
                    self._put(None)
                    return
                self._put((job, self._items(job)))
        except _StoppedError:
            return
        except BaseException as error:  # whatever it is, the consumer has to know
            try:
                self._put(error)
            except _StoppedError:
                return

    def _items(self, job: J) -> End:
        count = 0
        try:
            for item in self._decode(job):
                self._put((job, item))
                count += 1
        except (AudioError, DatasetError) as error:
            return End(count, error)
        return End(count)

    def _put(self, entry: "tuple[J, T | End] | BaseException | None") -> None:
        while not self.stop.is_set():
            try:
                self.entries.put(entry, timeout=_PATIENCE_S)
                return
            except queue.Full:
                continue
        raise _StoppedError
