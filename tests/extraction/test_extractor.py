"""Batches give what each window alone gives, in their order, also when memory runs out."""

import logging
import sys
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from mess_core.errors import ConfigError, EncoderError
from mess_core.extraction import extractor as module
from mess_core.extraction.checkpoint import Checkpoint
from mess_core.extraction.encoder import Encoder, Output
from mess_core.extraction.extractor import FeatureExtractor
from mess_core.extraction.specs import MODELS

pytestmark = pytest.mark.unit

Floats = npt.NDArray[np.float32]
SHAPE = LAYERS, FRAMES, DIMS = 3, 4, 5


def expected(window: Floats) -> tuple[Floats, Floats]:
    """Give pooled and raw features: numbers that belong to this window alone."""
    raw = window[0] + np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)
    return raw.mean(axis=1), raw


class Memory:
    """What a batch holds on the device."""


class FakeEngine:
    """An engine with room for so many windows."""

    name, precision = "fake 1", "float32"

    def __init__(
        self,
        room: int = 10**9,
        *,
        device: str = "cpu",
        error: Callable[[], BaseException] = lambda: torch.OutOfMemoryError("CUDA out of memory."),
    ) -> None:
        self.room, self.device, self.error = room, device, error
        self.sizes: list[int] = []
        self.held: weakref.WeakSet[Memory] = weakref.WeakSet()

    def run(self, windows: Floats, *, raw: bool = False) -> Output:
        memory = Memory()
        self.held.add(memory)
        self.sizes.append(len(windows))
        if len(windows) > self.room:
            raise self.error()
        pooled, frames = zip(*map(expected, windows), strict=True)
        return Output(np.stack(pooled), np.stack(frames) if raw else None)


def extractor(engine: FakeEngine, batch_size: int | None) -> FeatureExtractor:
    checkpoint = Checkpoint(MODELS["MERT-v1-95M"], Path(), Path(), {}, normalize=False)
    encoder = Encoder(checkpoint.spec, engine, checkpoint)
    return FeatureExtractor(encoder, batch_size=batch_size)


def make_windows(count: int) -> list[tuple[str, Floats]]:
    return [(f"w{i}", np.full(8, i, np.float32)) for i in range(count)]


def check(
    results: Iterable[tuple[str, Floats, Floats | None]], count: int, *, raw: bool = False
) -> None:
    """Every window once, in order, with its own output."""
    found, windows = list(results), make_windows(count)
    assert [tag for tag, _, _ in found] == [tag for tag, _ in windows]
    for (_, pooled, frames), (_, window) in zip(found, windows, strict=True):
        np.testing.assert_array_equal(pooled, expected(window)[0])
        assert (frames is not None) == raw
        if frames is not None:
            np.testing.assert_array_equal(frames, expected(window)[1])


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 17])
def test_results_are_those_of_each_window_in_order(count: int, raw: bool) -> None:
    engine = FakeEngine()
    features = extractor(engine, 4)
    check(features.run(make_windows(count), raw=raw), count, raw=raw)
    assert engine.sizes == [4] * (count // 4) + [count % 4] * (count % 4 > 0)
    assert features.windows_run == count


def test_windows_are_drawn_one_batch_at_a_time() -> None:
    drawn: list[str] = []

    def source() -> Iterator[tuple[str, Floats]]:
        for tag, window in make_windows(20):
            drawn.append(tag)
            yield tag, window

    results = extractor(FakeEngine(), 4).run(source())
    for given, _ in enumerate(results):
        assert len(drawn) <= 4 * (given // 4 + 1)


@pytest.mark.parametrize(("device", "size"), [("cpu", 4), ("mps", 8), ("cuda", 16), ("cuda:1", 16)])
def test_the_batch_size_is_the_devices(device: str, size: int) -> None:
    assert extractor(FakeEngine(device=device), None).batch_size == size


def test_a_batch_size_below_one_is_refused() -> None:
    with pytest.raises(ConfigError, match="batch_size is 0, it must be at least 1"):
        extractor(FakeEngine(), 0)


@pytest.mark.parametrize("room", [1, 2, 3, 7, 8, 15, 16])
def test_a_batch_that_does_not_fit_is_halved_and_stays_so(
    room: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    engine = FakeEngine(room)
    cleared: list[int] = []

    def clear() -> None:
        assert not engine.held, "memory of a failed batch is still referred to"
        cleared.append(1)

    monkeypatch.setattr(module, "clear_gpu_cache", clear)
    features = extractor(engine, 16)
    with caplog.at_level(logging.WARNING):
        check(features.run(make_windows(50), raw=True), 50, raw=True)
    assert features.batch_size == max(size for size in (16, 8, 4, 2, 1) if size <= room)
    assert features.windows_run == 50
    assert len(cleared) == len(caplog.records) == sum(size > room for size in engine.sizes)
    fitting = engine.sizes[len(cleared) :]
    assert max(fitting) == features.batch_size
    if cleared:
        assert "going on with batches of" in caplog.records[-1].message


def test_a_small_last_batch_that_fails_is_halved_itself() -> None:
    engine = FakeEngine(2)
    check(extractor(engine, 16).run(make_windows(3)), 3)
    assert engine.sizes == [3, 1, 1, 1]


@pytest.mark.parametrize(
    "error",
    [
        lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        lambda: MemoryError(),
        lambda: RuntimeError("MPS backend out of memory (MPS allocated: 9 GB, max allowed: 9 GB)"),
        lambda: RuntimeError("CUDA error: out of memory"),
    ],
)
def test_all_kinds_of_out_of_memory_are_known(error: Callable[[], BaseException]) -> None:
    features = extractor(FakeEngine(2, error=error), 8)
    check(features.run(make_windows(9)), 9)
    assert features.batch_size == 2


def test_torchs_own_error_on_a_cpu_is_out_of_memory() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 50)
    text = str(caught.value)
    check(extractor(FakeEngine(1, error=lambda: RuntimeError(text)), 2).run(make_windows(3)), 3)


def test_memory_is_told_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch")
    check(extractor(FakeEngine(1, error=MemoryError), 4).run(make_windows(5)), 5)


def test_other_errors_are_raised() -> None:
    engine = FakeEngine(1, error=lambda: RuntimeError("CUDA error: device-side assert triggered"))
    with pytest.raises(RuntimeError, match="device-side assert"):
        list(extractor(engine, 2).run(make_windows(20)))
    assert engine.sizes == [2]


def test_a_window_that_does_not_fit_alone_is_an_error() -> None:
    message = (
        r"a batch of 1 windows of 8 samples does not fit into the memory of cuda:0 in float32 "
        r"\(OutOfMemoryError: CUDA out of memory\.\); choose a shorter window_s, a lower precision "
        r"or another device"
    )
    with pytest.raises(EncoderError, match=message):
        list(extractor(FakeEngine(0, device="cuda:0"), 2).run(make_windows(5)))


def test_the_time_inside_the_engine_is_counted_and_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    engine = FakeEngine()
    real = engine.run

    def slow(windows: Floats, *, raw: bool = False) -> Output:
        nonlocal now
        now += 1
        return real(windows, raw=raw)

    monkeypatch.setattr(engine, "run", slow)
    features = extractor(engine, 2)
    for _ in features.run(make_windows(6)):
        now += 1000
    assert features.seconds == 3
