"""Curves of any length, and their level, extent and shape."""

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
import scipy.fft

from mess_core.targets.curves import extent, level, mean_of, shape, to_curve
from mess_core.targets.registry import CURVE_FRAMES, SHAPE_COEFFICIENTS, TARGETS, TargetSpec

pytestmark = pytest.mark.unit

Float = npt.NDArray[np.float64]

RNG = np.random.default_rng(3)
BOW = 5 * np.sin(np.linspace(0, np.pi, CURVE_FRAMES)) - 20


@pytest.mark.parametrize("n", [1, 10, 63, 64, 65, 128, 1000])
def test_cells_are_the_means_of_what_is_defined(n: int) -> None:
    series = RNG.normal(size=n)
    series[RNG.random(n) < 0.3] = np.nan
    edges = np.floor(np.linspace(0, n, CURVE_FRAMES + 1) + 1e-9).astype(int)
    cells = [series[a : max(b, a + 1)] for a, b in pairwise(edges)]
    np.testing.assert_allclose(to_curve(series), [mean_of(cell) for cell in cells])
    assert np.isnan(to_curve(np.empty(0))).all()


def test_the_parts_take_a_curve_apart() -> None:
    assert level(BOW) == pytest.approx(BOW.mean())
    assert extent(BOW) == pytest.approx(BOW.std())
    expected = scipy.fft.dct((BOW - BOW.mean()) / BOW.std(), norm="ortho")[1:5] / 8
    np.testing.assert_allclose(shape(BOW), expected, atol=1e-12)
    assert np.square(shape(BOW)).sum() == pytest.approx(1, abs=0.02)


def test_more_restrained_has_the_same_shape_and_level() -> None:
    restrained = BOW.mean() + 0.3 * (BOW - BOW.mean())
    assert extent(restrained) == pytest.approx(0.3 * extent(BOW))
    assert level(restrained) == pytest.approx(level(BOW))
    np.testing.assert_allclose(shape(restrained), shape(BOW), atol=1e-12)
    np.testing.assert_allclose(shape(BOW + 7), shape(BOW), atol=1e-12)
    np.testing.assert_allclose(shape(-BOW), -shape(BOW), atol=1e-12)


def test_each_half_wave_has_its_coefficient() -> None:
    cells = (np.arange(CURVE_FRAMES) + 0.5) / CURVE_FRAMES
    for order in range(1, SHAPE_COEFFICIENTS + 1):
        expected = np.eye(SHAPE_COEFFICIENTS)[order - 1]
        np.testing.assert_allclose(shape(np.cos(np.pi * order * cells)), expected, atol=1e-12)
    assert shape(np.linspace(1, 0, CURVE_FRAMES))[0] > 0.9


@pytest.mark.parametrize("value", [0.0, 0.1, -32.7, 1e6])
def test_what_does_not_move_has_no_shape(value: float) -> None:
    flat = np.full(CURVE_FRAMES, value)
    assert level(flat) == pytest.approx(value)
    assert extent(flat) == pytest.approx(0, abs=1e-9 * max(abs(value), 1))
    assert np.isnan(shape(flat)).all()


def test_gaps_are_bridged_up_to_half_of_the_curve() -> None:
    some, most = BOW.copy(), BOW.copy()
    some[10:40:2] = np.nan
    most[10:50] = np.nan
    np.testing.assert_allclose(shape(some), shape(BOW), atol=0.02)
    assert extent(some) == pytest.approx(np.nanstd(some))
    assert np.isnan(shape(most)).all()
    assert np.isnan(extent(most))
    assert level(most) == pytest.approx(np.nanmean(most))


CURVES = [s for s in TARGETS.values() if s.kind == "curve" and s.length == CURVE_FRAMES]


@pytest.mark.parametrize("spec", CURVES, ids=lambda spec: spec.name)
def test_every_curve_over_time_has_its_parts(spec: TargetSpec) -> None:
    stem = spec.name.removesuffix("_curve")
    parts = [TARGETS[f"{stem}_{part}"] for part in ("level", "extent", "shape")]
    assert [part.kind for part in parts] == ["scalar", "scalar", "shape"]
    assert [part.unit for part in parts] == [spec.unit, spec.unit.replace("dBFS", "dB"), "1"]
    assert [part.length for part in parts] == [0, 0, SHAPE_COEFFICIENTS]
    for part in parts:
        assert part.curve == spec.name
        assert part.category == spec.category
