"""Decoding ahead: in order, bounded, no error lost, no thread left."""

import queue
import threading
from collections.abc import Callable, Iterator

import pytest

from mess_core.errors import AudioError, DatasetError, EncoderError, MessError, StorageError
from mess_core.extraction import decoding
from mess_core.extraction.decoding import End, decode_ahead

pytestmark = pytest.mark.unit

#: A thread that has not done its part after so many seconds never will.
PATIENCE_S = 60.0
THREADS = pytest.mark.parametrize("threads", [1, 3])


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def numbers(job: int) -> Iterator[int]:
    """Decode job n to n items, by which job and place can be told."""
    return (100 * job + place for place in range(job))


def collect(entries: Iterator[tuple[int, int | End]]) -> dict[int, list[int | End]]:
    found: dict[int, list[int | End]] = {}
    for job, item in entries:
        found.setdefault(job, []).append(item)
    return found


def close(entries: Iterator[tuple[int, int | End]]) -> None:
    entries.close()  # type: ignore[attr-defined]


@THREADS
@pytest.mark.parametrize("ahead", [1, 4, 1000])
def test_every_jobs_items_come_in_order_and_then_its_end(threads: int, ahead: int) -> None:
    jobs = [7, 0, 30, 1, 12, 2, 25, 3]
    found = collect(decode_ahead(jobs, numbers, threads=threads, ahead=ahead))
    assert found == {job: [*numbers(job), End(job)] for job in jobs}


def test_one_thread_gives_one_job_after_the_other() -> None:
    given = [job for job, _ in decode_ahead([3, 1, 2], numbers, threads=1, ahead=2)]
    assert given == [3, 3, 3, 3, 1, 1, 2, 2, 2]


@THREADS
def test_no_jobs_give_nothing(threads: int) -> None:
    assert list(decode_ahead([], numbers, threads=threads)) == []


def test_several_jobs_are_decoded_at_the_same_time() -> None:
    together = threading.Barrier(3)

    def decode(job: int) -> Iterator[int]:
        together.wait(PATIENCE_S)  # breaks unless three jobs are being decoded
        yield job

    assert collect(decode_ahead(range(3), decode, threads=3, ahead=1)).keys() == {0, 1, 2}


def test_jobs_are_drawn_by_one_thread_at_a_time() -> None:
    drawing = threading.Lock()

    class Jobs:
        count = 0

        def __iter__(self) -> Iterator[int]:
            return self

        def __next__(self) -> int:
            assert drawing.acquire(blocking=False), "two threads draw at the same time"
            try:
                threading.Event().wait(0.001)  # gives others the chance to do it wrong
                self.count += 1
                if self.count > 30:
                    raise StopIteration
                return self.count
            finally:
                drawing.release()

    assert sorted(collect(decode_ahead(Jobs(), lambda _: iter([0]), threads=5, ahead=1))) == list(
        range(1, 31)
    )


class Stuck:
    """Tells when every thread has found the queue full."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
        self.threads = threads
        self.found_it_full: set[int] = set()
        self.changed = threading.Condition()
        told = self

        class Queue(queue.Queue[object]):
            def put(self, item: object, block: bool = True, timeout: float | None = None) -> None:
                try:
                    super().put(item, block, timeout)
                except queue.Full:
                    with told.changed:
                        told.found_it_full.add(threading.get_ident())
                        told.changed.notify_all()
                    raise

        monkeypatch.setattr(decoding, "_PATIENCE_S", 0.005)
        monkeypatch.setattr("mess_core.extraction.decoding.queue.Queue", Queue)

    def wait(self) -> None:
        """Wait until all threads have, from now on."""
        for _ in range(2):  # the first time may tell of what was before
            with self.changed:
                self.found_it_full.clear()
                full = self.changed.wait_for(
                    lambda: len(self.found_it_full) == self.threads, PATIENCE_S
                )
            assert full, f"{self.found_it_full} of {self.threads} threads find the queue full"


@pytest.mark.parametrize(("threads", "ahead"), [(1, 1), (1, 5), (3, 1), (3, 8)])
def test_never_more_items_are_decoded_than_wait_and_one_a_thread(
    monkeypatch: pytest.MonkeyPatch, threads: int, ahead: int
) -> None:
    stuck = Stuck(monkeypatch, threads)
    decoded: list[int] = []

    def decode(_: int) -> Iterator[int]:
        for item in range(100):
            decoded.append(item)
            yield item

    entries = decode_ahead(range(threads), decode, threads=threads, ahead=ahead)
    for consumed in range(1, 6):
        next(entries)
        stuck.wait()
        assert len(decoded) == consumed + ahead + threads
    close(entries)


@pytest.mark.parametrize(("threads", "ahead"), [(1, 2), (3, 4)])
def test_no_more_jobs_are_begun_than_wait_and_one_a_thread(
    monkeypatch: pytest.MonkeyPatch, threads: int, ahead: int
) -> None:
    stuck = Stuck(monkeypatch, threads)
    drawn: list[int] = []

    def jobs() -> Iterator[int]:
        for job in range(100):
            drawn.append(job)
            yield job

    # Jobs without items: only their ends fill the queue.
    entries = decode_ahead(jobs(), lambda _: iter([]), threads=threads, ahead=ahead)
    next(entries)
    stuck.wait()
    assert len(drawn) == 1 + ahead + threads
    close(entries)


@THREADS
@pytest.mark.parametrize("error", [AudioError("cut off"), DatasetError("another file")])
def test_a_job_whose_data_are_bad_ends_alone(threads: int, error: MessError) -> None:
    def decode(job: int) -> Iterator[int]:
        yield from numbers(job)
        if job == 5:
            raise error

    found = collect(decode_ahead([4, 5, 6], decode, threads=threads, ahead=2))
    assert found[5] == [*numbers(5), End(5, error)]
    assert found[4][-1] == End(4)
    assert found[6][-1] == End(6)


@THREADS
@pytest.mark.parametrize(
    "error",
    [RuntimeError("boom"), StorageError("disk full"), EncoderError("NaN"), KeyboardInterrupt()],
)
def test_any_other_error_reaches_the_consumer(threads: int, error: BaseException) -> None:
    def decode(job: int) -> Iterator[int]:
        yield from numbers(job)
        if job == 9:
            raise error

    jobs = [9 if n == 20 else 2 for n in range(1000)]
    with pytest.raises(type(error)) as caught:
        collect(decode_ahead(jobs, decode, threads=threads, ahead=2))
    assert caught.value is error


@THREADS
def test_an_error_of_the_jobs_reaches_the_consumer(threads: int) -> None:
    def jobs() -> Iterator[int]:
        yield 3
        raise StorageError("the store is read-only")

    with pytest.raises(StorageError, match="the store is read-only"):
        list(decode_ahead(jobs(), numbers, threads=threads, ahead=1))


@THREADS
def test_an_error_while_the_queue_is_full_is_not_lost(
    monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    stuck = Stuck(monkeypatch, threads)

    def decode(_: int) -> Iterator[int]:
        yield from range(3)
        raise RuntimeError("boom")

    entries = decode_ahead(range(threads), decode, threads=threads, ahead=1)
    next(entries)
    stuck.wait()
    with pytest.raises(RuntimeError, match="boom"):
        list(entries)


def _fail(entries: Iterator[tuple[int, int | End]]) -> None:
    with pytest.raises(RuntimeError, match="of the consumer"):
        entries.throw(RuntimeError("of the consumer"))  # type: ignore[attr-defined]


@THREADS
@pytest.mark.parametrize("end", [close, _fail])
def test_leaving_early_stops_threads_that_wait_for_room(
    monkeypatch: pytest.MonkeyPatch,
    threads: int,
    end: Callable[[Iterator[tuple[int, int | End]]], None],
) -> None:
    stuck = Stuck(monkeypatch, threads)
    before = set(threading.enumerate())
    entries = decode_ahead(range(100), lambda _: iter(range(100)), threads=threads, ahead=2)
    next(entries)
    stuck.wait()
    assert len(set(threading.enumerate()) - before) == threads
    end(entries)
    assert set(threading.enumerate()) <= before
    assert list(entries) == []


@THREADS
def test_leaving_early_waits_for_what_is_being_decoded(threads: int) -> None:
    begun, go_on = threading.Semaphore(0), threading.Event()
    finished: list[int] = []

    def decode(job: int) -> Iterator[int]:
        if job == 0:
            yield 0  # which lets the consumer in
        begun.release()
        assert go_on.wait(PATIENCE_S)
        finished.append(job)
        yield job

    entries = decode_ahead(range(100), decode, threads=threads, ahead=1)
    next(entries)
    for _ in range(threads):
        assert begun.acquire(timeout=PATIENCE_S)
    closing = threading.Thread(target=close, args=(entries,))
    closing.start()
    go_on.set()
    closing.join(PATIENCE_S)
    assert not closing.is_alive()
    # Each thread ends what it was at, and begins nothing else once nobody wants it.
    assert len(finished) >= threads
    assert len(finished) < 100


def test_nothing_runs_before_the_first_item_is_asked_for() -> None:
    drawn = iter([1])
    close(decode_ahead(drawn, numbers))
    assert list(drawn) == [1]
