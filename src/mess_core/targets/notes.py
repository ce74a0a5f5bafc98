"""MIDI as the series that the expression targets are made of.

`Performance` computes each series once, when it is first needed. Notes of all instruments but drums
count; keys are released where the MIDI says, whatever the pedal does. The sustain pedal is down
where its controller is at 64 or above on any channel, as the standard says.

Onsets that belong to one chord are merged: each within 45 ms of the one before, all within 100 ms.
Melody lead (20 to 30 ms, Goebl 2001) and spread chords are within that, trills and fast scales
(from about 60 ms a note) are not. The chord's time is its first onset: mostly that of
the melody, which leads, or of the bass of a broken chord, which is on the beat.

Beats are those of an annotation where there is one. Otherwise they are tracked, and their metrical
level is not known: it is taken to be the one at which a beat has 5 to 10 notes, so that it does not
depend on how fast a work is played.
"""

__all__ = [
    *("DEFAULT_TEMPO", "Performance", "parse_midi", "read_beats", "read_performance"),
    "until_struck_again",
]

import io
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate
from operator import itemgetter
from pathlib import Path

import mido
import numpy as np
import numpy.typing as npt

from mess_core.errors import MidiError
from mess_core.targets.curves import Float
from mess_core.targets.pulse import MIN_ONSETS, Pulse, tempo_curve, track_pulse

#: Onsets of one chord: distance to the one before, and from the first to the last, s.
CHORD_GAP_S = 0.045
CHORD_SPAN_S = 0.1

#: A chord's salience is relative to so many chords around it, and at most so much.
SALIENCE_CHORDS = 21
MOST_SALIENT = 2.0

#: What varies less than this (in log units, semitones, velocity steps) does not vary.
LEAST_SPREAD = 1e-3

#: Fewest notes of a tracked beat, mean of the performance; twice as many are the most. A beat of
#: ASAP has 7.0 (geometric mean; 4.4 to 11.2 in 28 works, those of the tuning half).
NOTES_PER_BEAT = 5.0

#: Smoothing (standard deviation) of the tempo curve that is shaped on purpose, s: it averages over
#: melody lead and inaccuracy and follows a phrase of a few bars.
SHAPE_SMOOTHING_S = 0.5

#: Values per second of tempo curves.
TEMPO_RATE = 40.0

#: A beat is expected where a parabola through so many beats either side has it, near ones (standard
#: deviation in s) counting more.
NEIGHBOURS = 6
NEIGHBOUR_SPREAD_S = 1.2

#: A chord at most this far from a beat is on it, s.
BEAT_TOLERANCE_S = 0.05

#: Fewer beats define no parabola that misses them.
MIN_BEATS = 5

#: A beat that determines its parabola by more than this would be anywhere.
MOST_LEVERAGE = 0.9

#: Notes at most this far apart in pitch are taken to be of one voice, semitones (a fifth).
VOICE_SEMITONES = 7

#: What is further away in time is a new beginning, s.
MAX_INTERVAL_S = 3.0

#: By the MIDI standard: microseconds per beat where nothing is said, and the channel of drums.
DEFAULT_TEMPO = 500_000
DRUMS = 9

#: By the MIDI standard: the controller of the sustain pedal, and its least value that is down. Any
#: from 48 to 80 agreed as well with listeners (PercePiano's Beethoven).
SUSTAIN_PEDAL = 64
PEDAL_DOWN = 64

#: Later notes are a mistake in the file, s.
LONGEST_S = 86_400


@dataclass(frozen=True)
class Performance:
    """The notes of a performance, or of a part of one, and what follows from them.

    Attributes
    ----------
    onsets, releases : ndarray [shape=(n,)]
        When keys go down and up, s; onsets increase.
    pitches : ndarray [shape=(n,)]
        MIDI pitch, 60 is middle C.
    velocities : ndarray [shape=(n,)]
        MIDI velocity, 1 to 127.
    annotated_beats : ndarray [shape=(m,)] or None
        When beats fall, s, strictly increasing, where somebody has said so.
    pedal : ndarray [shape=(k, 2)]
        When the sustain pedal goes down and up, s, in order; empty where it is never down.
    """

    onsets: Float
    releases: Float
    pitches: Float
    velocities: Float
    annotated_beats: Float | None = None
    pedal: Float = field(default_factory=lambda: np.empty((0, 2)))

    @cached_property
    def span(self) -> tuple[float, float]:
        """From the first onset to the last release, s; of a window its part of that."""
        return (self.onsets[0], self.releases.max()) if len(self.onsets) else (0.0, 0.0)

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
        return self.onsets[self._first_notes]

    @property
    def _first_notes(self) -> npt.NDArray[np.int64]:
        """The first note of each chord."""
        return np.flatnonzero(np.diff(self.chords, prepend=-1))

    @cached_property
    def chord_widths(self) -> Float:
        """Time from the first onset of each chord to its last, s; NaN for single notes."""
        first = self._first_notes
        if not len(first):
            return np.empty(0)
        width = np.maximum.reduceat(self.onsets, first) - self.onsets[first]
        return np.where(np.bincount(self.chords) > 1, width, np.nan)

    @cached_property
    def melody_leads(self) -> Float:
        """How much earlier each chord's highest note comes than the mean of its others, s."""
        return -self._top_over_rest(self.onsets)

    @cached_property
    def top_balance(self) -> Float:
        """How much stronger each chord's highest note is than the mean of its others, velocity."""
        return self._top_over_rest(self.velocities)

    def _top_over_rest(self, values: Float) -> Float:
        """Return each chord's value of the highest note less the others' mean; NaN for one note."""
        first = self._first_notes
        if not len(first):
            return np.empty(0)
        sizes = np.bincount(self.chords)
        top = values[np.lexsort((self.pitches, self.chords))[first + sizes - 1]]
        sums = np.add.reduceat(values, first)
        rest = np.divide(sums - top, sizes - 1, out=np.full(len(first), np.nan), where=sizes > 1)
        return np.asarray(top - rest)

    @cached_property
    def salience(self) -> Float:
        """How much each chord stands out: more notes, louder, lower, longer than those around."""
        first = self._first_notes
        held = np.maximum(self.releases - self.onsets, CHORD_GAP_S)
        features = (
            np.log(np.bincount(self.chords)),
            np.maximum.reduceat(self.velocities, first),
            -np.minimum.reduceat(self.pitches, first),
            np.log(np.maximum.reduceat(held, first)),
        )
        # The sum of four series of spread 1 has the spread 2 where they are independent.
        total = np.sum([_standardised(feature) for feature in features], axis=0) / 2
        return np.asarray(np.clip(total, -MOST_SALIENT, MOST_SALIENT))

    @cached_property
    def pulse(self) -> Pulse:
        """The beats; none without a pulse (fewer than 8 chords)."""
        if self.annotated_beats is not None:
            return Pulse(self.annotated_beats, np.arange(len(self.annotated_beats), dtype=float))
        if len(self.chord_onsets) < MIN_ONSETS:
            return Pulse(np.empty(0), np.empty(0))
        tracked = track_pulse(self.chord_onsets, self.salience)
        beats = max(tracked.positions[-1], 1.0)
        octaves = np.floor(np.log2(len(self.onsets) / beats / NOTES_PER_BEAT))
        return Pulse(tracked.times, tracked.positions * 2.0**octaves)

    @cached_property
    def beat_times(self) -> Float:
        """When beats fall, s; empty without a pulse."""
        return self.pulse.times

    @cached_property
    def beat_periods(self) -> Float:
        """Seconds per beat from each beat to the next; empty without a pulse."""
        return self.pulse.periods

    @cached_property
    def shaped_tempo(self) -> Float:
        """Log beats per second at `tempo_times`, smooth enough to be shaped on purpose."""
        if len(self.beat_times) < 2:
            return np.empty(0)
        return tempo_curve(*self.pulse, smoothing=SHAPE_SMOOTHING_S, rate=TEMPO_RATE)

    @cached_property
    def tempo_times(self) -> Float:
        """Equally spaced from the first beat to the last, s; empty without a pulse."""
        count = len(self.shaped_tempo)
        if not count:
            return np.empty(0)
        first, last = self.beat_times[[0, -1]]
        return np.asarray(first + (np.arange(count) + 0.5) * (last - first) / count)

    @cached_property
    def deviations(self) -> Float:
        """For each note on a beat how much later it comes than the flexible pulse has it, s.

        NaN for the other notes, and without a pulse.
        """
        if len(self.beat_times) < MIN_BEATS:
            return np.full(len(self.onsets), np.nan)
        middles = (self.beat_times[1:] + self.beat_times[:-1]) / 2
        nearest = np.searchsorted(middles, self.chord_onsets)
        distance = np.abs(self.chord_onsets - self.beat_times[nearest])
        expected = _expected(self.pulse)[nearest]
        expected[distance > BEAT_TOLERANCE_S] = np.nan
        return np.asarray(self.onsets - expected[self.chords])

    @cached_property
    def overlap_ratios(self) -> Float:
        """For each note the time its key is held over the time to its successor's onset.

        A note's successor is the first note of a later chord within a fifth of its pitch, at most
        3 s later. NaN where there is none. A repetition of the same pitch is none: its key has to
        be released first, whatever the articulation.
        """
        ratios = np.full(len(self.onsets), np.nan)
        later = np.searchsorted(self.chords, self.chords, side="right")
        until = np.searchsorted(self.onsets, self.onsets + MAX_INTERVAL_S, side="right")
        for i, (a, b) in enumerate(zip(later, until, strict=True)):
            distance = np.abs(self.pitches[a:b] - self.pitches[i])
            near = np.flatnonzero(distance <= VOICE_SEMITONES)
            if len(near) and distance[near[0]] > 0:
                interval = self.onsets[a + near[0]] - self.onsets[i]
                ratios[i] = (self.releases[i] - self.onsets[i]) / interval
        return ratios

    def cut(self, start_s: float, stop_s: float) -> "Performance":
        """Return the notes with an onset from ``start_s`` to before ``stop_s``.

        All series are slices of those of the whole, so that beats, tempo and successors are found
        with their context, and once. A beat's period belongs to the window that holds its middle.
        """
        notes = slice(*np.searchsorted(self.onsets, (start_s, stop_s)))
        part = Performance(
            self.onsets[notes],
            self.releases[notes],
            self.pitches[notes],
            self.velocities[notes],
            pedal=self.pedal,
        )
        start, stop = np.clip((start_s, stop_s), *self.span)
        chords = slice(*np.searchsorted(self.chord_onsets, (start_s, stop_s)))
        beats = slice(*np.searchsorted(self.beat_times, (start_s, stop_s)))
        middles = (self.beat_times[1:] + self.beat_times[:-1]) / 2
        periods = slice(*np.searchsorted(middles, (start_s, stop_s)))
        shape = slice(*np.searchsorted(self.tempo_times, (start_s, stop_s)))
        # What the part would compute for itself lacks the context; a cached property that has its
        # value is not computed.
        vars(part).update(
            span=(start, stop),
            chord_onsets=self.chord_onsets[chords],
            chord_widths=self.chord_widths[chords],
            melody_leads=self.melody_leads[chords],
            top_balance=self.top_balance[chords],
            salience=self.salience[chords],
            beat_times=self.beat_times[beats],
            beat_periods=self.beat_periods[periods],
            tempo_times=self.tempo_times[shape],
            shaped_tempo=self.shaped_tempo[shape],
            deviations=self.deviations[notes],
            overlap_ratios=self.overlap_ratios[notes],
        )
        return part


def until_struck_again(onsets: Float, pitches: Float, ends: Float) -> Float:
    """Return ends of notes, s [shape=(n,)], at the latest where their keys are struck again."""
    later = np.triu(pitches[:, None] == pitches, 1)
    return np.asarray(np.minimum(ends, np.where(later, onsets, np.inf).min(1, initial=np.inf)))


def _standardised(series: Float) -> Float:
    """Return how many local standard deviations a series lies above its local mean."""
    if not len(series):
        return series
    centred = series - _local_mean(series)
    spread = np.sqrt(_local_mean(centred**2))
    return np.asarray(centred / np.maximum(spread, LEAST_SPREAD))


def _local_mean(series: Float) -> Float:
    width = min(SALIENCE_CHORDS, len(series))
    window = np.ones(width)
    inside = np.convolve(np.ones(len(series)), window, mode="same")
    return np.asarray(np.convolve(series, window, mode="same") / inside)


def _expected(pulse: Pulse) -> Float:
    """Return when each beat would fall if the tempo changed smoothly, s.

    A beat pulls the parabola through its neighbourhood towards itself, the more the fewer
    neighbours it has; its distance is enlarged by so much that the spread is that of the beats.
    """
    beats = len(pulse.times)
    window = np.arange(beats)[:, None] + np.arange(-NEIGHBOURS, NEIGHBOURS + 1)
    inside = (window >= 0) & (window < beats)
    window = np.clip(window, 0, beats - 1)
    distance = pulse.positions[window] - pulse.positions[:, None]
    distance_s = pulse.times[window] - pulse.times[:, None]
    weight = np.sqrt(np.exp(-0.5 * (distance_s / NEIGHBOUR_SPREAD_S) ** 2) * inside)
    parabola = weight[..., None] * distance[..., None] ** np.arange(3)
    influence = np.linalg.pinv(parabola)[:, 0] * weight
    missed_s = pulse.times - (influence * pulse.times[window]).sum(axis=1)
    leverage = np.minimum(influence[:, NEIGHBOURS], MOST_LEVERAGE)
    return np.asarray(pulse.times - missed_s / np.sqrt(1 - leverage))


def read_performance(midi: Path, *, beats: Path | None = None) -> Performance:
    """Read the notes of a MIDI file, and its beats where they are annotated.

    Raises `MidiError` if a file is missing, cannot be parsed or holds no notes, or if the beats are
    fewer than two, do not increase or do not overlap the notes.

    Parameters
    ----------
    midi : Path
        A standard MIDI file of type 0 or 1.
    beats : Path, optional
        A tab-separated file without a header, the first column of which is the time of each beat in
        seconds, increasing (the form of ASAP and of the demo corpus). With it tempo is exact;
        without it beats are tracked.
    """
    performance = _read_midi(midi)
    if beats is None:
        return performance
    times = read_beats(beats)
    onsets = performance.onsets
    if times[-1] <= onsets[0] or times[0] >= onsets[-1]:
        raise MidiError(
            f"{beats} has beats from {times[0]:.2f} to {times[-1]:.2f} s and {midi} notes from "
            f"{onsets[0]:.2f} to {onsets[-1]:.2f} s; are they of the same performance?"
        )
    return replace(performance, annotated_beats=times)


def read_beats(path: Path) -> Float:
    """Return when each beat falls, s; a `MidiError` says why a table of beats cannot be used."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        times = np.array([float(line.split("\t")[0]) for line in lines if line.strip()])
    except (OSError, ValueError) as error:
        raise MidiError(
            f"{path} is no readable file of beats ({error}); its lines begin with a time in "
            "seconds and have no header"
        ) from None
    if len(times) < 2 or not np.isfinite(times).all() or (np.diff(times) <= 0).any():
        raise MidiError(
            f"{path} has {len(times)} beats at times that have to be at least two, finite and "
            "increasing; correct it or leave 'beats' empty in the recording table"
        )
    return times


def _read_midi(path: Path) -> Performance:
    if not path.is_file():
        raise MidiError(f"{path} is no file; correct the recording table or leave 'midi' empty")
    midi = parse_midi(path)
    seconds = _clock(midi)
    end = max(sum(message.time for message in track) for track in midi.tracks)
    found = [note for track in midi.tracks for note in _track_notes(track, end)]
    if not found:
        raise MidiError(f"{path} holds no notes but drums (channel 10), so nothing can be measured")
    onsets, releases, pitches, velocities = np.array(found, np.float64).T
    if seconds(releases.max()) > LONGEST_S:
        raise MidiError(
            f"{path} has notes until {seconds(releases.max()) / 3600:.0f} hours after its start; "
            "a wrong time in it? Performances may last a day"
        )
    notes = np.stack([seconds(onsets), seconds(releases), pitches, velocities])
    onsets, releases, pitches, velocities = notes[
        :, np.lexsort((velocities, notes[1], pitches, notes[0]))
    ]
    pedal = seconds(_pedal(midi, end))
    return Performance(onsets, releases, pitches, velocities, pedal=pedal)


def parse_midi(midi: Path | bytes) -> mido.MidiFile:
    """Return a MIDI file, or the content of one, parsed; a `MidiError` says why it cannot be used.

    It is of type 0 or 1, counts ticks per beat, and has a track and no tempo of 0.
    """
    name = str(midi) if isinstance(midi, Path) else "MIDI data"
    try:
        content = midi.read_bytes() if isinstance(midi, Path) else midi
    except OSError as error:
        raise MidiError(f"{name} cannot be read ({error.strerror}); check the path") from None
    try:
        parsed = mido.MidiFile(file=io.BytesIO(content))
    # mido raises whatever its own steps run into: EOFError, ValueError, KeyError...
    except Exception as error:
        detail = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise MidiError(f"{name} is no readable MIDI file ({detail}); export it again") from None
    if parsed.type == 2:
        raise MidiError(f"{name} is of MIDI type 2, a collection of pieces; export it as type 1")
    if parsed.ticks_per_beat <= 0:
        raise MidiError(f"{name} counts SMPTE frames; export it with ticks per beat")
    if not parsed.tracks:
        raise MidiError(f"{name} has no tracks; export it again")
    if any(m.type == "set_tempo" and not m.tempo for track in parsed.tracks for m in track):
        raise MidiError(f"{name} has a tempo of 0 microseconds per beat; export it again")
    return parsed


def _clock(midi: mido.MidiFile) -> Callable[[npt.ArrayLike], Float]:
    """Return what turns ticks into seconds: tempos of all tracks count, by tick."""
    timed = (each for track in midi.tracks for each in _timed(track))
    changes = [(tick, message.tempo) for tick, message in timed if message.type == "set_tempo"]
    # Of several at one tick the last one counts.
    ticks, tempos = np.array(sorted([(0, DEFAULT_TEMPO), *changes], key=itemgetter(0))).T
    rates = tempos * 1e-6 / midi.ticks_per_beat
    times = np.concatenate([[0.0], np.cumsum(np.diff(ticks) * rates[:-1])])

    def seconds(tick: npt.ArrayLike) -> Float:
        i = np.searchsorted(ticks, tick, side="right") - 1
        return np.asarray(times[i] + (tick - ticks[i]) * rates[i])

    return seconds


def _timed(track: mido.MidiTrack) -> Iterator[tuple[int, mido.Message]]:
    """Give the messages of a track with their ticks."""
    return zip(accumulate(message.time for message in track), track, strict=True)


def _track_notes(track: mido.MidiTrack, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Give onset and release in ticks, pitch and velocity of each note."""
    strokes: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    releases: dict[tuple[int, int], list[int]] = defaultdict(list)
    for tick, message in _timed(track):
        if message.type in ("note_on", "note_off") and message.channel != DRUMS:
            key = (message.channel, message.note)
            if message.type == "note_on" and message.velocity > 0:
                strokes[key].append((tick, message.velocity))
            else:
                releases[key].append(tick)
    for key, struck in strokes.items():
        ends = _ends([onset for onset, _ in struck], releases[key], end)
        for (onset, velocity), release in zip(struck, ends, strict=True):
            yield onset, release, key[1], velocity


def _pedal(midi: mido.MidiFile, end: int) -> npt.NDArray[np.int64]:
    """Return when the sustain pedal goes down and up on any channel, ticks [shape=(k, 2)]."""
    events = []
    for track in midi.tracks:
        for tick, message in _timed(track):
            if message.is_cc(SUSTAIN_PEDAL) and message.channel != DRUMS:
                events.append((tick, message.channel, message.value >= PEDAL_DOWN))
    down: set[int] = set()
    changes: list[int] = []
    for tick, channel, pressed in sorted(events, key=itemgetter(0)):
        (down.add if pressed else down.discard)(channel)
        if bool(down) != len(changes) % 2:
            changes.append(tick)
    changes += [end] * (len(changes) % 2)
    return np.array(changes, np.int64).reshape(-1, 2)


def _ends(onsets: list[int], releases: list[int], end: int) -> Iterable[int]:
    """Return when the strokes of one key end: each in turn with a release.

    Where strokes and releases do not match, each ends with the next release or stroke, or with the
    file.
    """
    if len(onsets) == len(releases) and all(a <= b for a, b in zip(onsets, releases, strict=True)):
        return releases
    following = np.array([*releases, end])[np.searchsorted(releases, onsets, side="right")]
    return map(int, np.minimum(following, [*onsets[1:], end]))
