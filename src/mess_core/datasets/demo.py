"""The demo corpus: nine scores, performed in six known ways and rendered, and that as a dataset.

An interpretation is the few numbers that turn a score into one way of playing it. There are six
named ones. In every work `rhapsodic` bends the tempo most, `singing` is the most legato and
`dramatic` has the widest dynamics; the other numbers cross over, so that no two of them rise and
fall together over the corpus. Every work shifts them a little (`interpret`), by a hash of the
names, never by chance.

Every effect is one plain rule, so that the truth about a performance is known:

* *Tempo*: the beat period follows parabolas over each phrase and, half as deep, over the whole
  piece (after Todd, "The dynamics of dynamics", 1992): slow at the ends, most at the end, fastest
  before the middle. A parabola's mean is zero, so the mean tempo is the interpretation's.
* *Dynamics*: velocity follows an arch over each phrase, what the score says about the phrase, and
  the metre; the accompaniment stays below the melody.
* *Articulation*: a key is held for a fixed ratio of the time to the next note of its voice.
* *Melody lead and chord spread*: where other notes are written under a note of the melody, it
  comes earlier than they; accompanying chords are broken from the bottom up, starting on the beat.
* *Pedal*: down just after each change of pedal, up again after a fraction of the span.
"""

__all__ = [
    "INTERPRETATIONS",
    "SCORES",
    "Beat",
    "DemoDataset",
    "DemoRecording",
    "Interpretation",
    "PedalEvent",
    "Performance",
    "PerformedNote",
    "Score",
    "beats_to_tsv",
    "demo_recordings",
    "interpret",
    "make_demo_corpus",
    "perform",
    "to_midi",
]

import hashlib
import io
import signal
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from fractions import Fraction
from functools import cache
from itertools import repeat
from math import ceil
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

from mess_core import stages
from mess_core.datasets.base import BaseDataset, Source
from mess_core.datasets.demo_scores import SCORES, Score, ScoreNote
from mess_core.errors import DatasetError, StorageError
from mess_core.files import file_sha256, read_json, write_bytes, write_json, write_text

#: Silence before the first beat, in seconds: room for the melody to lead.
LEAD_IN_S = 0.25
#: Where in a phrase the beat is shortest, from 0 to 1.
_FASTEST = 0.4
#: Rubato of the whole piece over rubato of a phrase.
_PIECE_RUBATO = 0.5
#: Where in a phrase it is loudest, from 0 to 1.
_LOUDEST = 0.6
#: What the arch, the score's own level and the metre contribute to the dynamics; their sum is 1.
_ARCH, _MARK, _METRE = 0.5, 0.3, 0.2
#: MIDI velocity of the melody minus that of the accompaniment.
_BALANCE = 10
#: Velocities stay in what a piano plays and the renderer sounds (it drops 11 and below).
_SOFTEST, _LOUDEST_VELOCITY = 16, 124
#: A key is up for this long before it is struck again, and never held for less, in seconds.
_RESTRIKE_S = 0.02
#: The pedal goes down this long after its change, so that the old harmony is gone, in seconds.
_PEDAL_DELAY_S = 0.06

_TICKS_PER_BEAT = 1000
_MICROSECONDS_PER_BEAT = 500_000  # with 1000 ticks per beat a tick is exactly 0.5 ms
_TICKS_PER_SECOND = 2000
_SUSTAIN_PEDAL = 64  # MIDI controller number


@dataclass(frozen=True)
class Interpretation:
    """One way of playing.

    Attributes
    ----------
    tempo : float
        Mean tempo as a ratio to the score's nominal tempo.
    rubato : float
        Rubato depth: how much longer the beat is at a phrase's end than on average; 0.3 is 30 %.
    level : float
        Mean MIDI velocity of the melody in a phrase of medium loudness.
    dynamic_range : float
        MIDI velocity from the softest to the loudest moment that the melody can have.
    articulation : float
        Key-overlap ratio: how long a key is held over the time to the voice's next note.
        Below 1 is detached, above 1 is overlapping.
    pedal : float
        Fraction of each pedal span after which the sustain pedal is up again; 0 is no pedal.
    melody_lead_ms : float
        How long the melody sounds before the notes written under it, in milliseconds.
    chord_spread_ms : float
        From the lowest to the highest note of an accompanying chord, in milliseconds.
    """

    tempo: float
    rubato: float
    level: float
    dynamic_range: float
    articulation: float
    pedal: float
    melody_lead_ms: float
    chord_spread_ms: float


#: By name, before the shifts that `interpret` makes.
INTERPRETATIONS: dict[str, Interpretation] = {
    "crisp": Interpretation(1.16, 0.08, 70, 24, 0.55, 0.0, 8, 6),
    "dramatic": Interpretation(1.06, 0.22, 66, 64, 0.84, 0.85, 40, 14),
    "intimate": Interpretation(0.92, 0.27, 46, 14, 0.95, 0.95, 24, 40),
    "measured": Interpretation(0.85, 0.03, 60, 30, 0.75, 0.4, 2, 24),
    "rhapsodic": Interpretation(0.97, 0.5, 60, 36, 0.98, 0.6, 16, 30),
    "singing": Interpretation(1.03, 0.14, 54, 20, 1.2, 0.3, 32, 10),
}

#: The largest shift of each number, as a fraction of it. Small enough that the interpretation with
#: the largest rubato, articulation or dynamic range has it in every work.
_SHIFTS = {
    "tempo": 0.04,
    "rubato": 0.15,
    "level": 0.06,
    "dynamic_range": 0.1,
    "articulation": 0.04,
    "pedal": 0.05,
    "melody_lead_ms": 0.2,
    "chord_spread_ms": 0.2,
}


def interpret(name: str, work_id: str) -> Interpretation:
    """Return how a work is played in one of `INTERPRETATIONS`; the work decides the shifts.

    Rounded to four decimals, so that a table shows the numbers that were used.
    """
    base = INTERPRETATIONS[name]
    return Interpretation(
        **{
            field: round(getattr(base, field) * (1 + most * _unit(f"{work_id}/{name}/{field}")), 4)
            for field, most in _SHIFTS.items()
        }
    )


def _unit(key: str) -> float:
    """Map ``key`` evenly onto -1 to 1, the same on every machine."""
    digits = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big")
    return digits / 0x7FFFFFFF - 1


class PerformedNote(NamedTuple):
    """A note as it is played: when its key goes down and up, and what is written in the score."""

    onset_s: float
    offset_s: float
    pitch: int
    velocity: int
    written: ScoreNote


class PedalEvent(NamedTuple):
    """The sustain pedal goes down or up."""

    time_s: float
    down: bool


class Beat(NamedTuple):
    """A beat of the score and when the performance reaches it: what tempo is measured against."""

    time_s: float
    downbeat: bool


@dataclass(frozen=True)
class Performance:
    """A score as it was played: notes by onset, pedal by time, and every beat of the score.

    Notes of the same pitch do not overlap.
    """

    notes: tuple[PerformedNote, ...]
    pedal: tuple[PedalEvent, ...]
    beats: tuple[Beat, ...]


def perform(score: Score, interpretation: Interpretation) -> Performance:
    """Play a score: the same for the same arguments."""
    clock = _clock(score, interpretation)
    notes = []
    for note, shift in _shifts(_without_unisons(score.notes), interpretation):
        onset = clock(note.onset)
        held = interpretation.articulation * (clock(note.onset + note.duration) - onset)
        velocity = _velocity(note, score, interpretation)
        notes.append(PerformedNote(onset + shift, onset + shift + held, note.pitch, velocity, note))
    # From the first whole beat on; the end of the last beat is not a beat.
    first = score.upbeat % 1
    beats = [first + beat for beat in range(ceil(score.length - first))]
    return Performance(
        notes=_released_in_time(notes),
        pedal=_pedal(score, interpretation, clock),
        beats=tuple(Beat(clock(p), (p - score.upbeat) % score.bar == 0) for p in beats),
    )


def _clock(score: Score, interpretation: Interpretation) -> Callable[[Fraction], float]:
    """Make the map from a position in beats to seconds."""
    period = 60 / (score.tempo * interpretation.tempo)

    def seconds(position: Fraction) -> float:
        start, phrase_beats, _ = _phrase_at(score, position)
        within = float((position - start) / phrase_beats)
        overall = float(position / score.length)
        delay = phrase_beats * _stretch(within)
        delay += _PIECE_RUBATO * float(score.length) * _stretch(overall)
        return LEAD_IN_S + period * (float(position) + interpretation.rubato * delay)

    return cache(seconds)


def _stretch(x: float) -> float:
    """Integrate from 0 to ``x`` the parabola with mean 0 over [0, 1], value 1 at 1, least early."""
    mean = ((1 - _FASTEST) ** 3 + _FASTEST**3) / 3
    at_end = (1 - _FASTEST) ** 2 - mean
    integral = ((x - _FASTEST) ** 3 + _FASTEST**3) / 3 - mean * x
    return integral / at_end


def _phrase_at(score: Score, position: Fraction) -> tuple[int, int, float]:
    """Start, length in beats and level of the phrase that holds ``position``."""
    start = 0
    for phrase in score.phrases[:-1]:
        if position < start + phrase.beats:
            return start, phrase.beats, phrase.level
        start += phrase.beats
    return start, score.phrases[-1].beats, score.phrases[-1].level


def _without_unisons(notes: Iterable[ScoreNote]) -> list[ScoreNote]:
    """One key for two voices that meet: the melody's, else the first, held as long as either."""
    keys: dict[tuple[Fraction, int], ScoreNote] = {}
    for note in notes:
        known = keys.setdefault((note.onset, note.pitch), note)
        if note.duration > known.duration:
            keys[note.onset, note.pitch] = known._replace(duration=note.duration)
    return list(keys.values())


def _shifts(
    notes: Sequence[ScoreNote], interpretation: Interpretation
) -> list[tuple[ScoreNote, float]]:
    """Pair each note with its shift against the beat, in seconds."""
    melody = [note for note in notes if note.voice == 0]
    chords: dict[Fraction, list[ScoreNote]] = defaultdict(list)
    for note in notes:
        if note.voice:
            chords[note.onset].append(note)
    lead = interpretation.melody_lead_ms / 1000
    shifts = [(note, -lead if note.onset in chords else 0.0) for note in melody]
    for chord in chords.values():
        step = interpretation.chord_spread_ms / 1000 / max(len(chord) - 1, 1)
        shifts += [(note, rank * step) for rank, note in enumerate(chord)]
    return shifts


def _velocity(note: ScoreNote, score: Score, interpretation: Interpretation) -> int:
    start, phrase_beats, level = _phrase_at(score, note.onset)
    shape = _ARCH * _arch(float((note.onset - start) / phrase_beats))
    shape += _MARK * level + _METRE * _accent(note.onset - score.upbeat, score.bar)
    velocity = interpretation.level + interpretation.dynamic_range * shape
    velocity -= _BALANCE if note.voice else 0
    return min(max(round(velocity), _SOFTEST), _LOUDEST_VELOCITY)


def _arch(x: float) -> float:
    """Rise from -0.5 at 0 to 0.5 at the loudest place, and fall to -0.5 at 1."""
    side = _LOUDEST if x < _LOUDEST else 1 - _LOUDEST
    return 0.5 - ((x - _LOUDEST) / side) ** 2


def _accent(position: Fraction, bar: int) -> float:
    """Metrical accent: 0.5 on downbeats, 0 on other beats, -0.5 between beats."""
    if position.denominator > 1:
        return -0.5
    return 0.5 if position % bar == 0 else 0.0


def _released_in_time(notes: Iterable[PerformedNote]) -> tuple[PerformedNote, ...]:
    """Sort by onset, and let every key be up before it is struck again."""
    held: dict[int, int] = {}
    played: list[PerformedNote] = []
    for note in sorted(notes, key=lambda n: (n.onset_s, n.pitch)):
        if note.pitch in held:
            last = played[held[note.pitch]]
            latest = max(note.onset_s - _RESTRIKE_S, (last.onset_s + note.onset_s) / 2)
            played[held[note.pitch]] = last._replace(offset_s=min(last.offset_s, latest))
        held[note.pitch] = len(played)
        played.append(note)
    return tuple(played)


def _pedal(
    score: Score, interpretation: Interpretation, clock: Callable[[Fraction], float]
) -> tuple[PedalEvent, ...]:
    events = []
    change = score.upbeat
    while change < score.length:
        following = min(change + score.pedal_beats, score.length)
        down = clock(change) + _PEDAL_DELAY_S
        up = clock(change) + interpretation.pedal * (clock(following) - clock(change))
        if up > down:
            events += [PedalEvent(down, True), PedalEvent(up, False)]
        change = following
    return tuple(events)


def to_midi(performance: Performance) -> bytes:
    """Return a performance as a standard MIDI file of type 0, as an instrument records it.

    A tick is 0.5 ms. Equal performances give equal bytes.
    """
    import mido  # not where only the corpus's licence is asked for

    # Tick, order within the tick (releases first), message.
    events: list[tuple[int, int, int, Any]] = []
    for note in performance.notes:
        on = mido.Message("note_on", note=note.pitch, velocity=note.velocity)
        off = mido.Message("note_off", note=note.pitch, velocity=0)
        events.append((_tick(note.onset_s), 2, note.pitch, on))
        events.append((_tick(note.offset_s), 0, note.pitch, off))
    for time_s, down in performance.pedal:
        change = mido.Message("control_change", control=_SUSTAIN_PEDAL, value=127 * down)
        events.append((_tick(time_s), 1, down, change))
    track = mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=_MICROSECONDS_PER_BEAT)])
    now = 0
    for tick, *_, message in sorted(events, key=lambda event: event[:3]):
        track.append(message.copy(time=tick - now))
        now = tick
    buffer = io.BytesIO()
    midi = mido.MidiFile(type=0, ticks_per_beat=_TICKS_PER_BEAT, tracks=[track])
    midi.save(file=buffer)
    return buffer.getvalue()


def _tick(time_s: float) -> int:
    return round(time_s * _TICKS_PER_SECOND)


def beats_to_tsv(beats: Iterable[Beat]) -> str:
    """Return beats as a table of the ASAP dataset: time in s twice, then ``db`` or ``b``."""
    return "".join(
        f"{beat.time_s:.6f}\t{beat.time_s:.6f}\t{'db' if beat.downbeat else 'b'}\n"
        for beat in beats
    )


@dataclass(frozen=True)
class DemoRecording:
    """One work in one interpretation; ``performer`` is the interpretation's name."""

    score: Score
    performer: str
    interpretation: Interpretation

    @property
    def work_id(self) -> str:
        """The work's id."""
        return self.score.work_id

    @property
    def recording_id(self) -> str:
        """``{work_id}_{performer}``, safe as a file name."""
        return f"{self.work_id}_{self.performer}"


def demo_recordings() -> list[DemoRecording]:
    """Return all recordings of the demo corpus, in the order of ``recording_id``."""
    recordings = [
        DemoRecording(score, name, interpret(name, score.work_id))
        for score in SCORES
        for name in INTERPRETATIONS
    ]
    return sorted(recordings, key=lambda recording: recording.recording_id)


def make_demo_corpus(
    audio_dir: Path,
    truth_table: Path,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> list[DemoRecording]:
    """Perform and render every work in every interpretation, unless it was done before.

    Beside the audio, ``made.json`` holds the stage (`stages.DEMO`) and the hash of every file. The
    corpus is made again when the stage is another one, or a file is missing or damaged. Returns
    `demo_recordings`.

    Parameters
    ----------
    audio_dir : Path
        Gets, per recording, ``{recording_id}.wav`` (44.1 kHz, stereo, 16 bit), ``.mid`` and
        ``.beats.tsv`` (the beat times, in the form of the ASAP dataset).
    truth_table : Path
        Tab-separated: ``recording_id``, ``work_id``, ``interpretation``, the numbers of the
        `Interpretation` and ``duration_s`` of the audio.
    progress : callable, optional
        Called with the number of recordings done and of all, after each.
    """
    recordings, made = demo_recordings(), audio_dir / "made.json"
    suffixes = (".wav", ".mid", ".beats.tsv")
    files = [audio_dir / f"{r.recording_id}{suffix}" for r in recordings for suffix in suffixes]
    with suppress(StorageError):
        if read_json(made) == _facts([*files, truth_table]):
            return recordings
    numbers = (field.name for field in fields(Interpretation))
    rows = ["\t".join(("recording_id", "work_id", "interpretation", *numbers, "duration_s"))]
    # In processes, for the renderer holds Python's lock; on Ctrl-C they finish what they are at.
    ignore = (signal.SIGINT, signal.SIG_IGN)
    with ProcessPoolExecutor(None, get_context("spawn"), signal.signal, ignore) as pool:
        for done, row in enumerate(pool.map(_make, recordings, repeat(audio_dir)), start=1):
            rows.append(row)
            if progress:
                progress(done, len(recordings))
    write_text(truth_table, "\n".join(rows) + "\n")
    write_json(made, _facts([*files, truth_table]))
    return recordings


def _facts(files: Iterable[Path]) -> dict[str, Any]:
    """Return what changes when a file of the corpus is missing, damaged or of another stage."""
    hashes = {path.name: file_sha256(path) if path.is_file() else "" for path in files}
    return {"stage": stages.DEMO, "sha256": hashes}


def _make(recording: DemoRecording, audio_dir: Path) -> str:
    """Write a recording's files and return its row of the truth table."""
    import soundfile

    from mess_core.datasets.render import render_midi_file

    performance = perform(recording.score, recording.interpretation)
    midi = audio_dir / f"{recording.recording_id}.mid"
    wav = midi.with_suffix(".wav")
    write_bytes(midi, to_midi(performance))
    write_text(midi.with_suffix(".beats.tsv"), beats_to_tsv(performance.beats))
    render_midi_file(midi, wav)
    names = (recording.recording_id, recording.work_id, recording.performer)
    numbers = (f"{value:g}" for value in asdict(recording.interpretation).values())
    return "\t".join((*names, *numbers, f"{soundfile.info(wav).duration:.3f}"))


class DemoDataset(BaseDataset):
    """Public-domain keyboard music, performed from scores by rules and rendered."""

    name = "demo"
    licence = (
        "MIT (scores and performances written for this project; the music is in the public domain)"
    )
    citation = "The demo corpus of MESS"
    layout = "{recording_id}.wav, .mid and .beats.tsv, made by `mess recordings demo`"

    def sources(self) -> Sequence[Source]:
        """Return one source per work and interpretation."""
        if not self.root.is_dir():
            raise DatasetError(f"{self.root} does not exist; it is made as {self.layout}")
        return [
            Source(
                recording_id=recording.recording_id,
                work_id=recording.work_id,
                audio=self.root / f"{recording.recording_id}.wav",
                midi=self.root / f"{recording.recording_id}.mid",
                beats=self.root / f"{recording.recording_id}.beats.tsv",
                performer=recording.performer,
                composer=recording.score.composer,
                title=recording.score.title,
            )
            for recording in demo_recordings()
        ]
