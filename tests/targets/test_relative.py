"""Targets against the other performances of a work: what is planted comes out."""

import numpy as np
import pytest

from mess_core.targets import measure, measure_windows
from mess_core.targets.curves import Float
from mess_core.targets.npz import source_of
from mess_core.targets.registry import ALIGNED, FROM_ALIGNMENT, MIDI, TARGETS
from mess_core.targets.relative import Relative

pytestmark = pytest.mark.unit

TIMES = np.arange(600) / 10 + 0.05
ALL = [name for name, spec in TARGETS.items() if spec.aligned]


def relative(ratio: Float, smooth: Float | None = None, louder: float = 0.0) -> Relative:
    return Relative(TIMES, ratio, ratio if smooth is None else smooth, np.full(len(TIMES), louder))


def test_they_are_the_targets_of_a_series_against_the_others() -> None:
    found = measure(relative(np.ones(600)))
    assert {category: list(fields) for category, fields in found.items()} == {"expression": ALL}
    assert set(ALL) < set(FROM_ALIGNMENT)
    assert source_of("expression/timing_deviation_shape:2") == ALIGNED
    assert source_of("expression/rubato") == MIDI


def test_relative_tempo_is_the_log_ratio_of_durations() -> None:
    # Half a minute twice as fast as the consensus, half at its tempo: it takes 90 s, this 60 s.
    ratio = np.repeat([2.0, 1.0], 300)
    value = measure(relative(ratio))["expression"]["relative_tempo"]
    np.testing.assert_allclose(value, np.log(90 / 60))


def test_timing_deviation_is_the_spread_of_the_log_whatever_the_tempo() -> None:
    wave = np.sin(2 * np.pi * TIMES / 20)
    for tempo in (0.5, 1.0, 1.3):
        found = measure(relative(np.full(600, tempo), tempo * np.exp(0.2 * wave)))["expression"]
        # The quantile of a sine at one standard deviation of a normal value.
        expected = 0.2 * np.sin(np.pi * (0.8413 - 0.5))
        np.testing.assert_allclose(found["timing_deviation"], expected, rtol=0.01)


def test_its_shape_says_whether_one_slows_down_against_the_others() -> None:
    slowing = np.exp(np.linspace(0.1, -0.1, 600))

    def first(ratio: Float) -> float:
        return float(measure(relative(ratio))["expression"]["timing_deviation_shape"][0])

    assert first(slowing) > 0.9
    assert first(1 / slowing) < -0.9


def test_what_is_hardly_aligned_is_undefined() -> None:
    ratio = np.full(600, 1.1)
    ratio[:290] = np.nan
    series = relative(ratio, louder=-3.0)
    found = measure(series)["expression"]
    np.testing.assert_allclose(found["relative_tempo"], np.log(1.1))
    assert found["relative_loudness"] == -3.0
    ratio[290:320] = np.nan
    found = measure(relative(ratio))["expression"]
    undefined = set(ALL) - {"relative_loudness"}
    assert all(np.isnan(found[name]).all() for name in undefined)
    windows = measure_windows(series, [0.0, 30.0, 55.0], window_s=5.0)["expression"]
    np.testing.assert_allclose(windows["relative_tempo"], [np.nan, *[np.log(1.1)] * 2])
