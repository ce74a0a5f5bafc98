"""MIDI as the series that the expression targets are made of.

`Performance` computes each series once, when it is first needed. Notes of all instruments but drums
count; keys are released where the MIDI says, whatever the pedal does.

Onsets that belong to one chord are merged: each within 45 ms of the one before, all within 100 ms.
Melody lead (20 to 30 ms, Goebl 2001) and spread chords are within that, trills and fast scales
(from about 60 ms a note) are not. The chord's time is its first onset: mostly that of
the melody, which leads, or of the bass of a broken chord, which is on the beat.
"""

__all__ = ["Performance", "read_performance"]

import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pretty_midi

from mess_core.errors import MidiError
from mess_core.targets import pulse

Float = npt.NDArray[np.float64]

#: Onsets of one chord: distance to the one before, and from the first to the last, s.
CHORD_GAP_S = 0.045
CHORD_SPAN_S = 0.1

#: Smoothing (standard deviation) of the tempo curve that is shaped on purpose, s: it averages over
#: melody lead and inaccuracy and follows a phrase of a few bars.
SHAPE_SMOOTHING_S = 0.5

#: Smoothing that leaves the tempo of single beats, s.
BEAT_SMOOTHING_S = 0.1

#: Values per second of tempo curves.
TEMPO_RATE = 40.0


@dataclass(frozen=True)
class Performance:
    """The notes of a performance and what follows from them.

    Attributes
    ----------
    onsets, releases : ndarray [shape=(n,)]
        When keys go down and up, s; onsets increase.
    pitches : ndarray [shape=(n,)]
        MIDI pitch, 60 is middle C.
    velocities : ndarray [shape=(n,)]
        MIDI velocity, 1 to 127.
    """

    onsets: Float
    releases: Float
    pitches: Float
    velocities: Float

    @cached_property
    def chords(self) -> npt.NDArray[np.int64]:
        """For each note the number of its chord, from 0."""
        numbers = np.zeros(len(self.onsets), np.int64)
        first = 0
        for i in range(1, len(self.onsets)):
            gap = self.onsets[i] - self.onsets[i - 1]
            new = gap > CHORD_GAP_S or self.onsets[i] - self.onsets[first] > CHORD_SPAN_S
            first = i if new else first
            numbers[i] = numbers[i - 1] + new
        return numbers

    @cached_property
    def chord_onsets(self) -> Float:
        """Times of the chords, s, strictly increasing."""
        if not len(self.onsets):
            return np.empty(0)
        return self.onsets[np.flatnonzero(np.diff(self.chords, prepend=-1))]

    @cached_property
    def beats(self) -> Float:
        """Positions of the chords in the score, in beats from the first; empty without a pulse."""
        if len(self.chord_onsets) < pulse.MIN_ONSETS:
            return np.empty(0)
        between = pulse.beats_between(np.diff(self.chord_onsets))
        return np.concatenate([[0.0], np.cumsum(between)])

    @cached_property
    def shaped_tempo(self) -> Float:
        """Log local tempo, smooth enough to be shaped on purpose; empty without a pulse."""
        return self._tempo(SHAPE_SMOOTHING_S)

    @cached_property
    def beat_tempo(self) -> Float:
        """Log local tempo from beat to beat; empty without a pulse."""
        return self._tempo(BEAT_SMOOTHING_S)

    def _tempo(self, smoothing: float) -> Float:
        if not len(self.beats):
            return np.empty(0)
        return pulse.tempo_curve(
            self.chord_onsets, self.beats, smoothing=smoothing, rate=TEMPO_RATE
        )

    @cached_property
    def deviations(self) -> Float:
        """For each note how much later it comes than the shaped tempo has it, s."""
        if not len(self.beats):
            return np.empty(0)
        speed = np.exp(self.shaped_tempo)
        edges = np.linspace(self.chord_onsets[0], self.chord_onsets[-1], len(speed) + 1)
        expected = np.concatenate([[0.0], np.cumsum(speed * np.diff(edges))])
        late = np.interp(self.chord_onsets, edges, expected) - self.beats
        seconds = late / np.interp(self.chord_onsets, (edges[1:] + edges[:-1]) / 2, speed)
        local = _detrended(self.chord_onsets, seconds)
        return local[self.chords] + self.onsets - self.chord_onsets[self.chords]


def _detrended(times: Float, values: Float) -> Float:
    """Return values minus their Gaussian-weighted local mean over time."""
    # What the tempo curve, itself a local mean, leaves over longer times is shape, not deviation.
    result = np.empty_like(values)
    width = 4 * SHAPE_SMOOTHING_S
    starts = np.searchsorted(times, times - width)
    stops = np.searchsorted(times, times + width, side="right")
    for i, (a, b) in enumerate(zip(starts, stops, strict=True)):
        weights = np.exp(-0.5 * ((times[a:b] - times[i]) / SHAPE_SMOOTHING_S) ** 2)
        result[i] = values[i] - weights @ values[a:b] / weights.sum()
    return result


def read_performance(path: Path) -> Performance:
    """Read the notes of a MIDI file.

    Parameters
    ----------
    path : Path
        A standard MIDI file.

    Returns
    -------
    Performance
        It may have no notes.

    Raises
    ------
    MidiError
        If the file is missing or cannot be parsed.
    """
    if not path.is_file():
        raise MidiError(f"{path} is no file; correct the recording table or leave 'midi' empty")
    try:
        with warnings.catch_warnings():
            # Tempo changes outside the first track are common and are read all the same.
            warnings.simplefilter("ignore")
            midi = pretty_midi.PrettyMIDI(str(path))
    # The parser raises whatever its own steps run into: OSError, EOFError, ValueError, KeyError...
    except Exception as error:
        detail = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise MidiError(
            f"{path} ({path.stat().st_size} bytes) is no readable MIDI file ({detail}); "
            "replace it or leave 'midi' empty in the recording table"
        ) from None
    notes = sorted(
        (note.start, note.pitch, note.end, note.velocity)
        for instrument in midi.instruments
        if not instrument.is_drum
        for note in instrument.notes
    )
    onsets, pitches, releases, velocities = np.array(notes, np.float64).reshape(-1, 4).T
    return Performance(onsets, releases, pitches, velocities)
