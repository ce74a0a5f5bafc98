"""Curves over work time recover planted tempo and loudness."""

from dataclasses import replace

import numpy as np
import pytest

from mess_core.alignment.curves import relative, work_curves
from mess_core.errors import AlignmentError
from tests.alignment.works import END_S, played, steady, stretched, work_of

pytestmark = pytest.mark.unit


def test_tempo_and_consensus_are_those_planted() -> None:
    time = np.arange(END_S * 50) / 50
    wave = 0.2 * np.sin(2 * np.pi * time / 20)
    maps = {"a": played(wave), "b": played(0.3 - wave), "r": played(steady())}
    curves = work_curves(work_of(maps, "r"))
    expected = np.interp(curves.work_times, time, wave)
    inside = slice(20, -20)
    assert np.abs(curves.log_tempo[0] - expected)[inside].max() < 0.01
    assert np.abs(curves.consensus_tempo - 0.1).max() < 0.01
    assert np.isfinite(curves.log_tempo).all()


def test_a_cut_is_a_gap_and_moves_nobody() -> None:
    maps = {name: played(steady()) for name in "rst"}
    maps["fast"] = played(steady(0.5), gap=(20, 30))
    curves = work_curves(work_of(maps, "r"))
    fast = curves.row("fast")
    outside = (curves.work_times <= 20) | (curves.work_times >= 30)
    assert np.isnan(curves.times[fast][~outside]).all()
    assert np.abs(curves.log_tempo[fast][outside] - 0.5).max() < 1e-3
    # Without the fast one the others' mean is 0; the consensus is that of all four.
    assert np.abs(curves.consensus_tempo - 0.125).max() < 1e-3


def test_what_a_recording_plays_in_addition_slows_nothing() -> None:
    longer = played(steady())
    times = np.where(longer.work_times >= 30, longer.times + 15, longer.times)
    cut = np.searchsorted(longer.work_times, 30)
    regions = np.array([[times[0], times[cut - 1]], [times[cut], times[-1]]])
    longer = replace(longer, times=times, regions=regions)
    curves = work_curves(work_of({"r": played(steady()), "longer": longer}, "r"))
    known = curves.log_tempo[1][np.isfinite(curves.log_tempo[1])]
    assert np.abs(known).max() < 1e-3
    assert len(known) >= len(curves.work_times) - 2


def test_a_consensus_takes_two() -> None:
    curves = work_curves(work_of({"r": played(steady()), "a": played(steady(), gap=(20, 30))}, "r"))
    alone = (curves.work_times > 20.2) & (curves.work_times < 29.8)
    assert np.isnan(curves.consensus_tempo[alone]).all()
    assert np.isfinite(curves.consensus_tempo[~alone]).sum() >= (~alone).sum() - 4


@pytest.mark.parametrize("noise_s", [0.0, 0.015])
def test_the_mean_ratio_is_that_of_durations(noise_s: float) -> None:
    time = np.arange(END_S * 50) / 50
    maps = {
        name: played(0.1 * number + 0.2 * np.sin(time / (3 + number)), noise_s=noise_s, seed=number)
        for number, name in enumerate("abcd")
    }
    maps["r"] = played(steady())
    curves = work_curves(work_of(maps, "r"))
    spent = curves.consensus_times[-1]
    for name in maps:
        own = np.nanmax(curves.times[curves.row(name)])
        ratio = relative(curves, name, own).tempo_ratio
        assert np.log(np.nanmean(ratio)) == pytest.approx(np.log(spent / own), abs=0.003)


def test_relative_follows_the_performance_s_own_time() -> None:
    maps = {name: played(steady()) for name in "rstu"}
    maps["a"] = played(stretched(1.25, 20, 28))
    maps["a"] = replace(maps["a"], loudness=np.full(700, -14.0))
    curves = work_curves(work_of(maps, "r"))
    compared = relative(curves, "a", 70.0)
    assert len(compared.times) == 700
    expected = 1 / 1.25 / 1.25**-0.2  # its own share in the consensus is a fifth
    place = (compared.times > 22) & (compared.times < 28)
    assert np.allclose(compared.tempo_ratio[place], expected, rtol=0.01)
    assert np.allclose(compared.smooth_ratio[place], expected, rtol=0.01)
    assert np.isnan(compared.tempo_ratio[compared.times > 62.1]).all()
    loud = compared.loudness_difference
    assert np.allclose(loud[np.isfinite(loud)], 6 * 0.8, atol=1e-6)
    assert np.isfinite(compared.cut(10.0, 20.0).tempo_ratio).all()


def test_beats_give_the_tempo_in_bpm() -> None:
    reference = played(steady())
    reference = replace(reference, beats=np.arange(0, 60, 0.5))
    curves = work_curves(work_of({"r": reference, "a": played(steady(0.2))}, "r"))
    bpm = 60 * curves.beat_rate * np.exp(curves.log_tempo[1])
    assert np.allclose(bpm[20:-20], 120 * np.exp(0.2), rtol=1e-3)


def test_unknown_recordings_are_named() -> None:
    curves = work_curves(work_of({"first": played(steady()), "b": played(steady())}, "first"))
    with pytest.raises(AlignmentError, match="did you mean 'first'"):
        relative(curves, "firts", 60.0)
