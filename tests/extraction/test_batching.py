"""Batches give what the plain loop gives, in its order, whenever and however memory runs out."""

import logging
import random
import sys
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import numpy.typing as npt
import pytest
import torch

from mess_core.errors import ConfigError, EncoderError
from mess_core.extraction import batching
from mess_core.extraction.batching import BATCH_SIZES, Batcher, Output

pytestmark = pytest.mark.unit

Floats = npt.NDArray[np.float32]
LAYERS, FRAMES, DIMS = 3, 4, 5


def expected(window: Floats) -> tuple[Floats, Floats]:
    """Give pooled and raw features: numbers that belong to this window and its length alone."""
    shape = (LAYERS, FRAMES, DIMS)
    raw = window[0] + len(window) * np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    return raw.mean(axis=1), raw


class Memory:
    """What one batch in flight holds on the device."""

    def __init__(self, count: int) -> None:
        self.count = count


class FakeEngine:
    """An engine with room for so many windows, which may change with every start.

    ``limit(start)`` gives the room; ``at_wait(start)`` says whether it is missed only when the
    output is waited for. ``shared`` counts all windows in flight against it, not one batch's.
    """

    name = "fake 1"
    precision = "float32"

    def __init__(
        self,
        limit: Callable[[int], int] = lambda _: 10**9,
        *,
        device: str = "cpu",
        at_wait: Callable[[int], bool] = lambda _: False,
        shared: bool = False,
        error: Callable[[], BaseException] = lambda: torch.OutOfMemoryError("CUDA out of memory."),
    ) -> None:
        self.device = device
        self.limit, self.at_wait, self.shared, self.error = limit, at_wait, shared, error
        self.starts: list[int] = []
        self.events: list[str] = []
        self.in_flight = self.most_in_flight = self.releases = self.computed = 0
        self.held: weakref.WeakSet[Memory] = weakref.WeakSet()

    def start(self, windows: Floats, *, raw: bool = False) -> Callable[[], Output]:
        assert windows.dtype == np.float32
        assert windows.flags.c_contiguous
        number, count = len(self.starts), len(windows)
        self.starts.append(count)
        memory = Memory(count)
        self.held.add(memory)
        used = sum(m.count for m in self.held) if self.shared else count
        fails = used > self.limit(number)
        if fails and not self.at_wait(number):
            raise self.error()
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        self.events.append(f"start {number}")

        def wait() -> Output:
            assert memory.count == count
            self.in_flight -= 1
            self.events.append(f"wait {number}")
            if fails:
                raise self.error()
            self.computed += count
            pooled, frames = zip(*map(expected, windows), strict=True)
            return Output(np.stack(pooled), np.stack(frames) if raw else None)

        return wait

    def release(self) -> None:
        self.releases += 1
        assert self.in_flight == 0
        assert not self.held, "memory of a failed batch is still referred to"


def make_windows(count: int, samples: int = 8) -> list[tuple[str, Floats]]:
    return [(f"w{i}", np.full(samples, i, np.float32)) for i in range(count)]


def check(
    results: Iterable[tuple[str, Floats, Floats | None]],
    windows: list[tuple[str, Floats]],
    *,
    raw: bool,
) -> None:
    """Every window once, in order, with its own output."""
    found = list(results)
    assert [tag for tag, _, _ in found] == [tag for tag, _ in windows]
    for (_, pooled, frames), (_, window) in zip(found, windows, strict=True):
        want_pooled, want_raw = expected(window)
        np.testing.assert_array_equal(pooled, want_pooled)
        if raw:
            assert frames is not None
            np.testing.assert_array_equal(frames, want_raw)
        else:
            assert frames is None


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 8, 17])
def test_results_are_those_of_each_window_in_order(count: int, raw: bool) -> None:
    engine, windows = FakeEngine(), make_windows(count)
    batcher = Batcher(engine, 4)
    check(batcher.run(windows, raw=raw), windows, raw=raw)
    assert engine.starts == [4] * (count // 4) + [count % 4] * (count % 4 > 0)
    assert batcher.windows == engine.computed == count
    assert (batcher.size, batcher.smallest, engine.releases) == (4, 4, 0)


def test_the_next_batch_is_started_before_the_last_is_waited_for_and_no_third() -> None:
    engine = FakeEngine()
    list(Batcher(engine, 2).run(make_windows(7)))
    assert engine.events == [
        "start 0", "start 1", "wait 0", "start 2", "wait 1", "start 3", "wait 2", "wait 3",
    ]  # fmt: skip
    assert engine.most_in_flight == 2


@pytest.mark.parametrize("limit", [100, 3, 1])
def test_windows_are_pulled_as_needed_and_at_most_two_batches_are_held(limit: int) -> None:
    pulled = 0

    def pull() -> Iterator[tuple[str, Floats]]:
        nonlocal pulled
        for item in make_windows(40):
            pulled += 1
            yield item

    results = Batcher(FakeEngine(lambda _: limit, shared=True), 4).run(pull())
    assert pulled == 0
    for given, _ in enumerate(results):
        assert pulled - given <= 8
    assert pulled == 40


def test_a_change_of_length_begins_a_new_batch() -> None:
    engine = FakeEngine()
    lengths = [8, 8, 8, 5, 5, 8, 9, 9, 9, 9, 9]
    windows = [(f"w{i}", np.full(n, i, np.float32)) for i, n in enumerate(lengths)]
    check(Batcher(engine, 4).run(windows, raw=True), windows, raw=True)
    assert engine.starts == [3, 2, 1, 4, 1]


@pytest.mark.parametrize(
    ("device", "size"), [("cuda:1", 16), ("cuda", 16), ("mps", 8), ("cpu", 4), ("xpu", 4)]
)
def test_the_batch_size_is_the_devices(device: str, size: int) -> None:
    assert Batcher(FakeEngine(device=device)).size == size
    assert BATCH_SIZES == {"cuda": 16, "mps": 8, "cpu": 4}
    assert Batcher(FakeEngine(device=device), 3).size == 3


def test_a_batch_size_below_one_is_refused() -> None:
    with pytest.raises(ConfigError, match="batch_size is 0, it must be at least 1"):
        Batcher(FakeEngine(), 0)


@pytest.mark.parametrize("at_wait", [False, True])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("limit", range(1, 17))
def test_out_of_memory_makes_batches_smaller_and_changes_no_result(
    limit: int, shared: bool, at_wait: bool
) -> None:
    engine = FakeEngine(lambda _: limit, at_wait=lambda _: at_wait, shared=shared)
    windows = make_windows(50)
    batcher = Batcher(engine, 16)
    check(batcher.run(windows, raw=True), windows, raw=True)
    assert batcher.windows == engine.computed == 50
    assert batcher.smallest <= limit
    assert (engine.releases > 0) == (limit < (32 if shared else 16))
    if not shared:
        # No smaller than halving needs.
        assert batcher.smallest == max(size for size in (16, 8, 4, 2, 1) if size <= limit)


def test_random_memory_changes_no_result() -> None:
    """Rooms that change with every start, failures at start and at wait, changing lengths."""
    shrunk = grown = 0
    for seed in range(100):
        rng = random.Random(seed)
        steady = rng.choice([1, 2, 3, 5, 20, 100])
        spikes = rng.choice([0.0, 0.1, 0.5])
        engine = FakeEngine(
            lambda _, r=rng, s=steady, p=spikes: (  # type: ignore[misc]
                max(1, r.randrange(s + 1)) if r.random() < p else s
            ),
            at_wait=lambda _, r=rng: r.random() < 0.4,  # type: ignore[misc]
            shared=rng.random() < 0.5,
        )
        windows = [
            (tag, window[: 8 - (i // rng.choice([7, 1000])) % 3])
            for i, (tag, window) in enumerate(make_windows(rng.randrange(150)))
        ]
        full = rng.choice([1, 2, 3, 6, 8, 16])
        batcher = Batcher(engine, full)
        check(batcher.run(windows, raw=True), windows, raw=True)
        assert batcher.windows == engine.computed == len(windows)
        assert 1 <= batcher.smallest <= batcher.size <= full
        assert max(engine.starts, default=0) <= full
        assert engine.most_in_flight <= 2
        shrunk += batcher.smallest < full
        grown += batcher.size > batcher.smallest
    assert shrunk > 30
    assert grown > 10


@pytest.mark.parametrize(
    "error",
    [
        lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        lambda: torch.cuda.OutOfMemoryError("the older name"),
        lambda: MemoryError(),
        lambda: RuntimeError("MPS backend out of memory (MPS allocated: 9 GB, max allowed: 9 GB)"),
        lambda: RuntimeError("CUDA error: out of memory"),
    ],
)
def test_all_kinds_of_out_of_memory_are_known(error: Callable[[], BaseException]) -> None:
    engine, windows = FakeEngine(lambda _: 2, error=error), make_windows(9)
    batcher = Batcher(engine, 8)
    check(batcher.run(windows), windows, raw=False)
    assert batcher.smallest == 2


def test_torchs_own_error_on_a_cpu_is_out_of_memory() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 50)
    text = str(caught.value)
    engine, windows = FakeEngine(lambda _: 1, error=lambda: RuntimeError(text)), make_windows(3)
    check(Batcher(engine, 2).run(windows), windows, raw=False)


@pytest.mark.parametrize("at_wait", [False, True])
def test_other_errors_are_raised_and_what_is_in_flight_is_waited_for(at_wait: bool) -> None:
    engine = FakeEngine(
        lambda start: 100 if start < 3 else 0,
        at_wait=lambda _: at_wait,
        error=lambda: RuntimeError("CUDA error: device-side assert triggered"),
    )
    results = Batcher(engine, 2).run(make_windows(20))
    with pytest.raises(RuntimeError, match="device-side assert"):
        list(results)
    assert engine.in_flight == engine.releases == 0
    assert len(engine.starts) == 4 + at_wait


def test_stopping_early_leaves_nothing_in_flight() -> None:
    engine = FakeEngine()
    results = Batcher(engine, 2).run(make_windows(20))
    next(results)
    assert engine.in_flight == 1
    results.close()  # type: ignore[attr-defined]
    assert engine.in_flight == 0
    assert len(engine.starts) == 2


def test_an_error_of_the_source_is_raised_and_leaves_nothing_in_flight() -> None:
    def broken() -> Iterator[tuple[str, Floats]]:
        yield from make_windows(3)
        raise KeyError("source")

    engine = FakeEngine()
    with pytest.raises(KeyError, match="source"):
        list(Batcher(engine, 2).run(broken()))
    assert engine.starts == [2]
    assert engine.in_flight == 0


@pytest.mark.parametrize("at_wait", [False, True])
def test_a_window_that_does_not_fit_alone_is_an_error_after_all_before_it(
    at_wait: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows of 8 samples fit, the one of 9 does not: what came before it is given."""
    engine = FakeEngine(device="cuda:0")
    windows = [*make_windows(5), ("long", np.zeros(9, np.float32))]
    start = engine.start

    def start_short(batch: Floats, *, raw: bool = False) -> Callable[[], Output]:
        engine.limit = lambda _: 100 if batch.shape[1] == 8 else 0
        return start(batch, raw=raw)

    monkeypatch.setattr(engine, "start", start_short)
    engine.at_wait = lambda _: at_wait
    found: deque[tuple[str, Floats, Floats | None]] = deque()
    message = (
        r"one window of 9 samples does not fit into the memory of cuda:0 in float32 "
        r"\(OutOfMemoryError: CUDA out of memory\.\); choose a shorter window_s, a lower precision "
        r"or another device"
    )
    with pytest.raises(EncoderError, match=message):
        found.extend(Batcher(engine, 2).run(windows))
    check(found, windows[:5], raw=False)
    assert engine.in_flight == 0


def test_two_windows_that_fit_only_one_after_the_other_are_run_so() -> None:
    engine, windows = FakeEngine(lambda _: 1, shared=True), make_windows(6)
    batcher = Batcher(engine, 1)
    check(batcher.run(windows), windows, raw=False)
    # The second start fails beside the first; from there on they go alone.
    assert engine.most_in_flight == 1
    assert engine.starts == [1] * 7
    assert engine.releases == 1


def test_a_window_that_failed_beside_another_is_tried_alone() -> None:
    """The second is started beside the first, and fails when the first has gone."""
    engine = FakeEngine(lambda _: 1, shared=True, at_wait=lambda _: True)
    windows = make_windows(2)
    check(Batcher(engine, 1).run(windows), windows, raw=False)
    assert engine.starts == [1, 1, 1]


def test_a_small_batch_that_failed_is_halved_itself() -> None:
    engine, windows = FakeEngine(lambda _: 2), make_windows(3)
    check(Batcher(engine, 16).run(windows), windows, raw=False)
    assert engine.starts == [3, 1, 1, 1]


def test_results_that_came_before_memory_ran_out_are_not_computed_again() -> None:
    """The first batch fails when waited for, the second beside it succeeds: it is kept."""
    engine = FakeEngine(lambda start: 0 if start == 0 else 100, at_wait=lambda _: True)
    windows = make_windows(8)
    check(Batcher(engine, 4).run(windows, raw=True), windows, raw=True)
    assert engine.starts == [4, 4, 2, 2]
    assert engine.computed == 8


def test_sizes_grow_back_by_doubling_and_patience_doubles_while_growing_fails(
    caplog: pytest.LogCaptureFixture,
) -> None:
    patience = batching._PATIENCE
    caplog.set_level(logging.INFO, batching.__name__)
    room = 100
    engine = FakeEngine(lambda _: room)
    batcher = Batcher(engine, 8)

    def run_one() -> None:
        check(batcher.run(make_windows(batcher.size)), make_windows(batcher.size), raw=False)

    def batches_until(size: int) -> int:
        """Run full batches until one of this size is started; count those before it."""
        first = len(engine.starts)
        for before in range(1000):
            run_one()
            if size in engine.starts[first:]:
                return before
        raise AssertionError(f"never grown to {size}")

    room = 4
    run_one()
    assert (batcher.size, batcher.smallest) == (4, 4)
    # Two pieces of 4 have succeeded already; then every failure doubles the wait, less the two.
    for wait in (patience, 2 * patience, 4 * patience, 8 * patience):
        assert batches_until(8) == wait - 2
        assert batcher.size == 4
    room = 2
    run_one()
    assert (batcher.size, batcher.smallest) == (2, 2)
    room = 100
    assert batches_until(4) == 16 * patience - 2
    # The batch that was counted last is the first of the new size.
    assert batches_until(8) == 16 * patience - 1
    assert (batcher.size, batcher.smallest) == (8, 2)
    # Growth to 8 had not held yet: the wait doubles, from the first one again because 4 had held.
    room = 4
    run_one()
    assert batches_until(8) == 2 * patience - 2
    room = 100
    for _ in range(8 * patience):
        run_one()
    assert batcher.size == 8
    room = 4
    run_one()
    assert batches_until(8) == patience - 2
    levels = [(r.levelname, r.getMessage()) for r in caplog.records]
    assert levels[0] == (
        "WARNING",
        "cpu ran out of memory with batches of 8 windows of 8 samples in float32 "
        "(OutOfMemoryError: CUDA out of memory.); going on with batches of 4",
    )
    assert levels[1] == ("INFO", f"cpu: trying batches of 8 again after {patience} good batches")


def test_going_one_at_a_time_ends_first_when_memory_is_back() -> None:
    room = 1
    engine = FakeEngine(lambda _: room, shared=True)
    batcher = Batcher(engine, 2)
    list(batcher.run(make_windows(4)))
    assert engine.most_in_flight == 1
    room = 100
    windows = make_windows(40)
    check(batcher.run(windows), windows, raw=False)
    assert engine.most_in_flight == 2
    assert (batcher.size, batcher.smallest) == (2, 1)


def test_the_time_inside_the_engine_is_counted_and_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    engine = FakeEngine(lambda start: 1 if start == 1 else 100)
    start = engine.start

    def slow_start(windows: Floats, *, raw: bool = False) -> Callable[[], Output]:
        nonlocal now
        now += 1
        wait = start(windows, raw=raw)

        def slow_wait() -> Output:
            nonlocal now
            now += 10
            return wait()

        return slow_wait

    def slow_source() -> Iterator[tuple[str, Floats]]:
        nonlocal now
        for item in make_windows(6):
            now += 1000
            yield item

    monkeypatch.setattr(engine, "start", slow_start)
    batcher = Batcher(engine, 2)
    for _ in batcher.run(slow_source()):
        now += 1000
    # 2, then 2 which fail and run again as 1 and 1, then 1 and 1.
    assert engine.starts == [2, 2, 1, 1, 1, 1]
    assert batcher.seconds == 6 * 1 + 5 * 10
    assert batcher.windows == 6


def test_torch_is_not_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch")
    engine, windows = FakeEngine(lambda _: 1, error=MemoryError), make_windows(5)
    check(Batcher(engine, 4).run(windows), windows, raw=False)
