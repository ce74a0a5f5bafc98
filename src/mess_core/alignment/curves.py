"""The performances of a work as curves over work time, and the consensus of all of them.

The *consensus* is the mean over performances of log tempo, and of loudness in dB, at each place
where two or more are aligned. Somebody who leaves out a passage must not move it for the others
there: each performance has a level of its own (a fast player, a loud recording), and the consensus
is the fit of levels and places to what there is. Where all play everything, that is the mean.
"""

__all__ = ["RATE", "WorkCurves", "consensus", "relative", "smooth", "work_curves"]

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d

from mess_core.alignment.maps import WorkAlignment
from mess_core.errors import AlignmentError, nearest
from mess_core.targets.curves import Float
from mess_core.targets.notes import SHAPE_SMOOTHING_S
from mess_core.targets.relative import Relative
from mess_core.targets.sound import LOUDNESS_RATE, LOUDNESS_WINDOW_S

#: Values per second of all curves.
RATE = 10

#: Smoothing (standard deviation) of log tempo, s: knots of a map may be dense and noisy. With 0.5 s
#: the consensus would depend on the reference (on the demo, another one then moves a timing
#: deviation of 0.1 by up to 0.03, else by 0.004).
FINE_S = 0.15


@dataclass(frozen=True, eq=False)
class WorkCurves:
    """The performances of a work over its time.

    ``work_times`` [shape=(m,)] has `RATE` values per second from 0 to the end of the reference.
    ``recordings`` are the performances, in the order of the rows of these [shape=(r, m)]:

    * ``times``, ``errors``: when each gets there, s, with its standard error. NaN where it is not
      aligned, and at one place or more between two regions;
    * ``log_tempo``: natural log of the local tempo, which is how many s of the reference pass in a
      second of the performance. Hardly smoothed (`FINE_S`); see `smooth`;
    * ``loudness``: momentary, dBFS, NaN where inaudible.

    ``consensus_tempo`` and ``consensus_loudness`` [shape=(m,)] are what the last two have in
    common, NaN where fewer than two are aligned. ``beat_rate`` [shape=(m,)] is beats per second of
    the reference, smoothed over 0.5 s, NaN without beats: times ``60 exp(log_tempo)`` it is BPM.
    """

    work_times: Float
    recordings: tuple[str, ...]
    times: Float
    errors: Float
    log_tempo: Float
    loudness: Float
    consensus_tempo: Float
    consensus_loudness: Float
    beat_rate: Float

    def row(self, recording_id: str) -> int:
        """Return a performance's row; raises `AlignmentError` if there is none."""
        if recording_id not in self.recordings:
            hint = nearest(recording_id, self.recordings)
            raise AlignmentError(f"{recording_id!r} is not aligned with its work: {hint}")
        return self.recordings.index(recording_id)

    @property
    def consensus_times(self) -> Float:
        """When a performance in the consensus's tempo gets there, s [shape=(m,)].

        Where there is no consensus its tempo goes on: only differences within a stretch that has
        one mean anything.
        """
        known = np.isfinite(self.consensus_tempo)
        tempo = np.interp(self.work_times, self.work_times[known], self.consensus_tempo[known])
        slowness = np.exp(-tempo)
        cells = (slowness[1:] + slowness[:-1]) / 2 / RATE
        return np.concatenate([[0.0], np.cumsum(cells)])


def work_curves(work: WorkAlignment) -> WorkCurves:
    """Bring the performances of a work to one grid, and find their consensus."""
    reference = work.alignments[work.reference]
    work_times = np.arange(int(reference.work_times[-1] * RATE + 1e-6) + 1) / RATE
    times, errors, log_tempo, loudness = np.full((4, len(work.alignments), len(work_times)), np.nan)
    for row, each in enumerate(work.alignments.values()):
        at = each.to_recording(work_times)
        region = np.searchsorted(each.regions[:, 0], at, side="right")
        at[:-1][(np.diff(region) != 0) & np.isfinite(at[1:])] = np.nan
        times[row] = at
        errors[row] = np.interp(at, each.times, each.errors)
        log_tempo[row] = -np.log(_slope(at, FINE_S))
        if len(each.loudness):
            middles = np.arange(len(each.loudness)) / LOUDNESS_RATE + LOUDNESS_WINDOW_S / 2
            loudness[row] = np.interp(at, middles, each.loudness)
    beats = np.full(len(work_times), np.nan)
    numbers = np.flatnonzero(np.isfinite(reference.beats))
    if len(numbers) > 1:
        beats = np.interp(work_times, reference.beats[numbers], numbers, left=np.nan, right=np.nan)
    return WorkCurves(
        work_times=work_times,
        recordings=tuple(work.alignments),
        times=times,
        errors=errors,
        log_tempo=log_tempo,
        loudness=loudness,
        consensus_tempo=consensus(log_tempo)[0],
        consensus_loudness=consensus(loudness)[0],
        # In logs, as tempo is smoothed, so that the two make up one smooth tempo.
        beat_rate=np.exp(smooth(np.log(_slope(beats, FINE_S)))),
    )


def relative(curves: WorkCurves, recording_id: str, duration_s: float) -> Relative:
    """Compare a performance with the consensus of its work, along its own time.

    The series have `RATE` values per second of the recording, which lasts ``duration_s``.
    ``tempo_ratio`` is the mean over each tenth of a second, so that its mean over a passage is the
    consensus's duration of it over the performance's own. ``smooth_ratio`` is its mean over a
    Gaussian of 0.5 s, region by region.
    """
    row = curves.row(recording_id)
    times, in_consensus = curves.times[row], curves.consensus_times
    quieter = curves.loudness[row] - curves.consensus_loudness
    edges = np.arange(int(duration_s * RATE + 1e-6) + 1) / RATE
    centres = (edges[1:] + edges[:-1]) / 2
    ratio, smooth, louder = np.full((3, len(centres)), np.nan)
    for run in _runs(times + curves.consensus_tempo):
        inside = np.flatnonzero((edges >= times[run][0]) & (edges <= times[run][-1]))
        if len(inside) > 1:
            cells = inside[:-1]
            ratio[cells] = np.diff(np.interp(edges[inside], times[run], in_consensus[run])) * RATE
            smooth[cells] = _averaged(ratio[cells], SHAPE_SMOOTHING_S)
            louder[cells] = np.interp(centres[cells], times[run], quieter[run])
    return Relative(centres, ratio, smooth, louder)


def consensus(values: Float) -> tuple[Float, Float]:
    """Fit a level of each place and of each performance (sum 0) to what they have in common.

    ``values`` have a row for each performance, and NaN where it is not aligned. Returns the places'
    levels, NaN where fewer than two performances are aligned, and the performances'.
    """
    there = np.isfinite(values)
    counts = there.sum(axis=0)
    shared = (there & (counts > 1)).astype(np.float64)
    means = np.where(there, values, 0.0).sum(axis=0) / np.maximum(counts, 1)
    # Least squares with the columns' levels eliminated: what is left are the rows' levels. The
    # smallest solution has the sum 0 among rows that share columns; `rcond` is above rounding.
    above = (shared * np.where(there, values - means, 0.0)).sum(axis=1)
    overlap = np.diag(shared.sum(axis=1)) - (shared / np.maximum(counts, 1)) @ shared.T
    levels = np.linalg.lstsq(overlap, above, rcond=1e-9)[0]
    common = means - (there * levels[:, None]).sum(axis=0) / np.maximum(counts, 1)
    return np.where(counts > 1, common, np.nan), levels


def smooth(series: Float, spread_s: float = SHAPE_SMOOTHING_S) -> Float:
    """Return the mean over a Gaussian of so many s (standard deviation), in each run by itself."""
    mean = np.full(len(series), np.nan)
    for run in _runs(series):
        mean[run] = _averaged(series[run], spread_s)
    return mean


def _slope(series: Float, spread_s: float) -> Float:
    """Return the rise per second of a series at its places, smoothed in each of its runs."""
    slope = np.full(len(series), np.nan)
    for run in _runs(series):
        slope[run] = _averaged(np.gradient(series[run]) * RATE, spread_s)
    return slope


def _runs(series: Float) -> list[slice]:
    """Return the stretches of two or more neighbours that are known, in order."""
    steps = np.diff(np.isfinite(series).astype(np.int8), prepend=0, append=0)
    edges = zip(np.flatnonzero(steps == 1), np.flatnonzero(steps == -1), strict=True)
    return [slice(int(a), int(b)) for a, b in edges if b - a > 1]


def _averaged(series: Float, spread_s: float) -> Float:
    """Return the mean over a Gaussian, of what there is of it at the ends."""
    sums, weights = (
        gaussian_filter1d(each, spread_s * RATE, mode="constant")
        for each in (series, np.ones(len(series)))
    )
    return np.asarray(sums / weights)
