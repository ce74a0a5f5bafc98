"""Expression: how a score is played, read from the performance's MIDI.

Spreads of timing are robust: half the central 68 %, which is the standard deviation of normal
values. A fermata, a pause or a misread bar does not count.

* `rubato`: the extent of the shaping of tempo: spread over time of the log local tempo, smoothed
  over half a second. 0.1 means that the tempo is mostly within 10 % of its median. Beats are
  annotated or tracked (`mess_core.targets.pulse`), so that note values do not count; chord spread
  and melody lead hardly do, and neither does the tempo itself.
* `tempo_variability`: unsteadiness from beat to beat as well: spread of the log beat periods.
  Contains rubato.
* `rubato_ioi_ratio`: what is often published as rubato, kept for comparison: standard deviation of
  the ratios of consecutive inter-onset intervals, each over the one before. A quaver after a
  crotchet gives 0.5 and a spread chord gives several: it measures note values and chord spread.
* `performed_tempo_curve`: the shaped tempo over time, BPM. The metrical level of tracked beats is
  taken to be the one at which a beat has 5 to 10 notes.
* `onset_timing_std`: how far notes on the beat lie from where a smooth tempo has them: inaccuracy,
  chord spread, melody lead.
* `articulation_ratio`: *legato*: time that a key is held over the time to the next note in its
  register, median over notes. Below 1 is detached, above 1 is overlapping.
* `articulation_histogram`: how these ratios are distributed, from *staccato* to overlapping.
* `velocity_mean`, `velocity_std`, `velocity_range` (5th to 95th percentile): loudness of touch.
* `chord_rate`: chords and single notes per second, `note_rate`: notes per second. In one work they
  follow the tempo, and no metrical level has to be guessed.
* `chord_spread`: from the first to the last note of a chord, mean over chords. What is merged to a
  chord is within 0.1 s.
* `melody_lead`: how much earlier the highest note of a chord comes than the others, median (Goebl
  2001, *Melody lead in piano performance*).
* `hand_balance`: how much stronger the highest note of a chord is than the others, median.
* `pedal_share`: share of the time from first onset to last release that the sustain pedal is down;
  `pedal_changes`: how often it goes down, per second.

* `relative_tempo`: tempo against the other performances of the work: log of the time that their
  consensus takes over the time that this one takes. 0.1 is 10 % faster.
* `timing_deviation`: how unevenly it departs from the others' timing: spread over time of the log
  local tempo over the consensus's, smoothed over half a second; `timing_deviation_shape`: the
  contour of that.
* `relative_loudness`: mean of the loudness less the consensus's at the same place of the music, dB.

Of a window of a performance they are the same measures of what the window holds, undefined where
that is too little: fewer than 4 beat periods, fewer than 5 notes; of those against the others
(`mess_core.targets.relative`) where less than half is aligned.
"""

__all__ = [
    "articulation_histogram",
    "articulation_ratio",
    "chord_rate",
    "chord_spread",
    "hand_balance",
    "melody_lead",
    "note_rate",
    "onset_timing_std",
    "pedal_changes",
    "pedal_share",
    "performed_tempo_curve",
    "relative_loudness",
    "relative_tempo",
    "rubato",
    "rubato_ioi_ratio",
    "tempo_variability",
    "timing_deviation",
    "timing_deviation_shape",
    "velocity_mean",
    "velocity_range",
    "velocity_std",
]

import numpy as np

from mess_core.targets.curves import MIN_DEFINED, Float, mean_of, shape, to_curve
from mess_core.targets.registry import CURVE_FRAMES, OVERLAP_BINS

#: Fewer notes define no statistics of a performance.
MIN_NOTES = 5

#: Fewer chords define no rate of theirs.
MIN_CHORDS = 3

#: Fewer beat periods define no tempo that could vary.
MIN_PERIODS = 4

#: Quantiles of the central 68 %, which lie one standard deviation either side in a normal one.
CENTRAL = (15.87, 84.13)

#: Borders of the histogram of key-overlap ratios: half octaves from 1/8 to 8. What lies outside is
#: counted in the outer bins.
OVERLAP_EDGES = 2.0 ** np.linspace(-3, 3, OVERLAP_BINS + 1)


def rubato(shaped_tempo: Float, beat_periods: Float) -> float:
    """Return the spread of log tempo over time, about relative change, NaN below 4 periods."""
    enough = len(beat_periods) >= MIN_PERIODS and len(shaped_tempo) > 0
    return _spread(shaped_tempo) if enough else np.nan


def tempo_variability(beat_periods: Float) -> float:
    """Return the spread of the log beat periods, NaN with fewer than 4."""
    return _spread(np.log(beat_periods)) if len(beat_periods) >= MIN_PERIODS else np.nan


def rubato_ioi_ratio(onsets: Float) -> float:
    """Return the standard deviation of the ratios of consecutive inter-onset intervals.

    Exactly simultaneous onsets count once; NaN with fewer than 5 notes at different times.
    """
    intervals = np.diff(np.unique(onsets))
    if len(intervals) + 1 < MIN_NOTES:
        return np.nan
    return float((intervals[1:] / intervals[:-1]).std())


def performed_tempo_curve(shaped_tempo: Float, beat_periods: Float) -> Float:
    """Return the tempo from the first beat to the last, BPM [shape=(64,)], NaN below 4 periods."""
    if len(beat_periods) < MIN_PERIODS or not len(shaped_tempo):
        return np.full(CURVE_FRAMES, np.nan)
    return to_curve(60 * np.exp(shaped_tempo))


def onset_timing_std(deviations: Float) -> float:
    """Return the spread of notes around the pulse, s, NaN with fewer than 5 notes on beats."""
    known = deviations[np.isfinite(deviations)]
    return _spread(known) if len(known) >= MIN_NOTES else np.nan


def articulation_ratio(overlap_ratios: Float) -> float:
    """Return the median key-overlap ratio, NaN with fewer than 5 notes that have a successor."""
    known = overlap_ratios[np.isfinite(overlap_ratios)]
    return float(np.median(known)) if len(known) >= MIN_NOTES else np.nan


def articulation_histogram(overlap_ratios: Float) -> Float:
    """Return the share of notes by key-overlap ratio [shape=(12,)].

    Half octaves from 1/8 to 8 (7th bin: 1 to 1.41), sum 1; NaN as for `articulation_ratio`.
    """
    known = overlap_ratios[np.isfinite(overlap_ratios)]
    if len(known) < MIN_NOTES:
        return np.full(OVERLAP_BINS, np.nan)
    bins = np.searchsorted(OVERLAP_EDGES[1:-1], known, side="right")
    return np.bincount(bins, minlength=OVERLAP_BINS) / len(known)


def velocity_mean(velocities: Float) -> float:
    """Return the mean MIDI velocity (1 to 127), NaN with fewer than 5 notes."""
    return float(velocities.mean()) if len(velocities) >= MIN_NOTES else np.nan


def velocity_std(velocities: Float) -> float:
    """Return the standard deviation of MIDI velocity, NaN with fewer than 5 notes."""
    return float(velocities.std()) if len(velocities) >= MIN_NOTES else np.nan


def velocity_range(velocities: Float) -> float:
    """Return the 5th to 95th percentile range of MIDI velocity, NaN with fewer than 5 notes."""
    if len(velocities) < MIN_NOTES:
        return np.nan
    soft, loud = np.percentile(velocities, (5, 95))
    return float(loud - soft)


def chord_rate(chord_onsets: Float) -> float:
    """Return the chords begun per second, from first to last; NaN with fewer than 3."""
    if len(chord_onsets) < MIN_CHORDS:
        return np.nan
    return float((len(chord_onsets) - 1) / (chord_onsets[-1] - chord_onsets[0]))


def note_rate(onsets: Float, chord_onsets: Float) -> float:
    """Return the notes begun per second, from first to last chord; NaN with fewer than 3 chords."""
    if len(chord_onsets) < MIN_CHORDS:
        return np.nan
    first, last = chord_onsets[[0, -1]]
    return float(((onsets >= first) & (onsets < last)).sum() / (last - first))


def chord_spread(chord_widths: Float) -> float:
    """Return the mean time from first to last note of a chord, s; NaN without a chord."""
    return mean_of(chord_widths)


def melody_lead(melody_leads: Float) -> float:
    """Return how much the top voice leads its chord, s, median; NaN without a chord."""
    return _median(melody_leads)


def hand_balance(top_balance: Float) -> float:
    """Return how much stronger the top voice is, MIDI velocity, median; NaN without a chord."""
    return _median(top_balance)


def pedal_share(pedal: Float, span: tuple[float, float]) -> float:
    """Return the share of the time that the sustain pedal is down, NaN without any time."""
    start, stop = span
    down, up = np.clip(pedal, start, stop).T
    return float((up - down).sum() / (stop - start)) if stop > start else np.nan


def pedal_changes(pedal: Float, span: tuple[float, float]) -> float:
    """Return how often a second the sustain pedal goes down, NaN without any time."""
    start, stop = span
    pressed = ((pedal[:, 0] >= start) & (pedal[:, 0] < stop)).sum()
    return float(pressed / (stop - start)) if stop > start else np.nan


def relative_tempo(tempo_ratio: Float) -> float:
    """Return the log of the mean tempo over the consensus's, NaN where less than half is aligned.

    The mean over the performance's own time, so that it is the log ratio of the durations.
    """
    known = _aligned(tempo_ratio)
    return float(np.log(known.mean())) if len(known) else np.nan


def timing_deviation(smooth_ratio: Float) -> float:
    """Return the spread of the log tempo over the consensus's, NaN as `relative_tempo`."""
    known = _aligned(smooth_ratio)
    return _spread(np.log(known)) if len(known) else np.nan


def timing_deviation_shape(smooth_ratio: Float) -> Float:
    """Return the `shape` of the log tempo over the consensus's, NaN as `relative_tempo`."""
    return shape(to_curve(np.log(smooth_ratio)))


def relative_loudness(loudness_difference: Float) -> float:
    """Return the mean loudness less the consensus's, dB, NaN as `relative_tempo`."""
    return mean_of(_aligned(loudness_difference))


def _aligned(series: Float) -> Float:
    """Return what is defined of a series; nothing of it where that is less than half."""
    known = series[np.isfinite(series)]
    return known if len(known) >= MIN_DEFINED * len(series) else known[:0]


def _median(values: Float) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else np.nan


def _spread(values: Float) -> float:
    """Return half the width of the central 68 %."""
    low, high = np.percentile(values, CENTRAL)
    return float(high - low) / 2
