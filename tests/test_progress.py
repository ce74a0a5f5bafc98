"""Long work says how far it is: a bar that fits a terminal, whole lines in a log."""

import io
import os

import pytest

from mess_core import progress
from mess_core.progress import Progress, counted

pytestmark = pytest.mark.unit


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds = 100.0
        monkeypatch.setattr("mess_core.progress.time.monotonic", lambda: self.seconds)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return 7


def test_a_log_gets_whole_lines_with_rates_now_and_then(clock: Clock) -> None:
    log = io.StringIO()
    report = Progress("recordings", stream=log)
    for done in range(1, 13):
        clock.seconds += 2
        report(done, 100, f"take{done}")
    clock.seconds += 1e5
    report(100, 100)
    lines = log.getvalue().splitlines()
    assert lines[0] == "1/100 recordings, 0.5/s, 3 min 18 s left: take1"
    assert [line.split("/")[0] for line in lines] == ["1", "4", "7", "10", "100"]
    assert "left" not in lines[-1]
    assert "\r" not in log.getvalue()


@pytest.mark.parametrize(("told", "columns"), [(30, 30), (200, 200), (None, 80)])
def test_a_terminal_gets_one_line_that_fits(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, told: int | None, columns: int
) -> None:
    if told:
        monkeypatch.setattr(os, "get_terminal_size", lambda _: os.terminal_size((told, 24)))
    terminal = Terminal()
    report = Progress("s of audio", stream=terminal)
    for done in (1, 6, 12):
        clock.seconds += 1
        report(done, 12, "a recording with a long name " * 5)
    first, half, whole = terminal.getvalue().split("\r")[1:]
    assert {len(first), len(half), len(whole) - 1} == {columns - 1}
    assert half.startswith("[############............]")
    assert whole.startswith("[########################]")
    assert whole.endswith("\n")
    assert "\n" not in first + half


def test_a_terminal_is_not_written_to_more_often_than_one_sees(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "get_terminal_size", lambda _: os.terminal_size((80, 24)))
    terminal = Terminal()
    report = Progress("files", stream=terminal)
    for done in range(1000):
        clock.seconds += 0.001
        report(done, 2000)
    assert 9 <= terminal.getvalue().count("\r") <= 11


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "0.2 s"),
        (9.97, "10 s"),
        (59.4, "59 s"),
        (60, "1 min 0 s"),
        (3599, "59 min 59 s"),
        (9000, "2 h 30 min"),
    ],
)
def test_durations_have_the_units_that_matter(seconds: float, text: str) -> None:
    assert progress.duration(seconds) == text


def test_items_are_counted_when_they_are_done() -> None:
    seen: list[tuple[int, int, str]] = []
    for item in counted([5, 6], lambda *report: seen.append(report), lambda n: f"n{n}"):
        assert len(seen) == item - 5
    assert seen == [(1, 2, "n5"), (2, 2, "n6")]
    assert list(counted("ab", None)) == ["a", "b"]
