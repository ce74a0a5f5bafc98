"""Counterfactuals: the same notes with one thing changed, so that the truth is known.

The window in the middle of a performance's MIDI is played with a parameter turned down and up
(docs/evaluation.md says how), rendered, and extracted and measured as one of a recording is.
"""

__all__ = [
    *("ASPECTS", "PARAMETERS", "VARIANTS", "Counterfactuals", "excerpt", "judge_counterfactuals"),
    *("make_counterfactuals", "read_counterfactuals", "render", "vary"),
]

import io
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pretty_midi
from scipy.signal import fftconvolve

from mess_core.datasets.render import render_midi
from mess_core.errors import StorageError, noting
from mess_core.evaluation.judges import Figure, Line, line, mean_over_works, share_over_works
from mess_core.extraction.audio import get_resampler
from mess_core.extraction.extractor import FeatureExtractor
from mess_core.files import atomic_path
from mess_core.index.projection import Projection
from mess_core.layout import DESCRIPTORS, ENCODER, Layout
from mess_core.probing.folds import Floats
from mess_core.recordings import Recording, check_unchanged
from mess_core.targets.create import measure_windows
from mess_core.targets.notes import Performance, read_performance, until_struck_again
from mess_core.targets.npz import columns_of, flatten, stack_columns
from mess_core.targets.registry import AUDIO, TARGETS, probed_targets
from mess_core.targets.sound import analyse

if TYPE_CHECKING:  # with the index comes faiss, which never meets an encoder's torch
    from mess_core.evaluation.spaces import Space

Array32 = npt.NDArray[np.float32]

#: The parameters of playing, and the aspect that each should move.
PARAMETERS = ("tempo", "rubato", "level", "range", "articulation", "pedal")
ASPECTS = ("tempo", "rubato", "dynamics", "dynamic_range", "articulation", "pedal")
#: What is made of every excerpt, by parameter and sign; first the excerpt as it is.
VARIANTS = (("", 0), *((p, s) for p in (*PARAMETERS, "instrument", "room") for s in (-1, 1)))
# Programs of General MIDI, from 0; of rooms the seconds to -60 dB, and the amplitude of what they
# add; what the renderer sounds; sound before the window, s; samples per second.
_PROGRAMS, _ROOMS = {-1: 4, 1: 6}, {-1: (0.3, 0.3), 1: (2.0, 1.0)}
_VELOCITIES, _LEAD_S, _RATE = (12, 127), 0.5, 24_000


@dataclass(frozen=True, eq=False)
class Counterfactuals:
    """A window of each of n variants: of every work all `VARIANTS`.

    Features are [n, L, D], descriptors' with other L and D. ``columns`` [T] are the names of
    targets from audio (`mess_core.targets.npz`), ``measured`` [n, T] their values.
    """

    columns: npt.NDArray[np.str_]
    work: npt.NDArray[np.str_]
    parameter: npt.NDArray[np.str_]
    sign: npt.NDArray[np.int64]
    recording: npt.NDArray[np.str_]
    encoder: Array32
    descriptors: Array32
    measured: Floats


def read_counterfactuals(layout: Layout) -> Counterfactuals | None:
    """Read a dataset's counterfactuals; None where there are none. A damaged file is an error."""
    path = layout.counterfactuals
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as stored:
            found = Counterfactuals(*(stored[entry.name] for entry in fields(Counterfactuals)))
    except Exception as error:  # whatever numpy and zipfile run into
        raise StorageError(f"{path} cannot be read ({error}); delete it and run again") from None
    return found if len(found.work) else None


def make_counterfactuals(
    recordings: Sequence[Recording], path: Path, extractors: Sequence[FeatureExtractor]
) -> dict[str, str]:
    """Make all variants of each recording, one of a work, and write them.

    ``extractors`` are the encoder's and the descriptors'. Returns the recordings that are left out,
    whatever went wrong, with the reasons.
    """
    columns = columns_of(n for n in probed_targets() if TARGETS[n].source == AUDIO)
    window_s, rows, failed = extractors[0].window_s, list[tuple[Any, ...]](), dict[str, str]()
    for recording in recordings:
        name, beats = recording.recording_id, Path(recording.beats) if recording.beats else None
        with noting(failed, [name]):
            check_unchanged(recording)
            notes = excerpt(read_performance(Path(recording.midi), beats=beats), window_s)
            made = list[tuple[Any, ...]]()
            for variant in VARIANTS:
                samples = render(vary(notes, *variant, window_s), *variant, window_s)
                window, features = samples[round(_LEAD_S * _RATE) :], list[Array32]()
                for extractor in extractors:
                    rate = extractor.encoder.spec.sample_rate
                    given = window if rate == _RATE else get_resampler(_RATE, rate)(window)
                    features.append(extractor.extract(given).aggregated)
                targets = measure_windows(analyse(samples, _RATE), [_LEAD_S], window_s=window_s)
                values = stack_columns(columns, flatten(targets, {}).get)[0]
                made.append((recording.work_id or name, *variant, name, *features, values))
            rows += made
    arrays = map(np.array, zip(*rows, strict=True)) if rows else [np.zeros(0)] * 7
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **vars(Counterfactuals(np.array(columns), *arrays)))
    return failed


def excerpt(performance: Performance, window_s: float) -> Performance:
    """Cut the notes and beats around the middle, which becomes 0 s: more than variants need."""
    middle, (times, places) = sum(performance.span) / 2, performance.pulse
    part = performance.cut(middle - window_s, middle + window_s)
    beats = np.zeros(0)
    if len(times):
        beats = np.interp(np.arange(places[-1] + 1), places, times) - middle
    arrays = part.onsets - middle, part.releases - middle, part.pitches, part.velocities
    return Performance(*arrays, beats[np.abs(beats) < window_s], performance.pedal - middle)


def vary(notes: Performance, parameter: str, sign: int, window_s: float) -> Performance:
    """Play an excerpt with one parameter turned down (-1) or up (1)."""
    beats, releases, velocities = notes.beat_times, notes.releases, notes.velocities
    pedal, rate = notes.pedal, 2 * np.pi / window_s

    def clock(times: Floats) -> Floats:
        if parameter == "tempo":
            return times / 1.25**sign
        if parameter == "rubato" and len(beats):  # beyond the beats time goes on as it was
            even = np.linspace(beats[0], beats[-1], len(beats))
            known, wanted = (np.concatenate([[-1e6], b, [1e6]]) for b in (beats, even))
            times = np.interp(times, known, wanted) - np.interp(0.0, known, wanted)
        bend = 0.4 / rate if parameter == "rubato" and sign > 0 else 0.0
        return np.asarray(times + bend * np.sin(rate * times))

    match parameter:
        case "level":
            velocities = velocities + 16 * sign
        case "range":
            velocities = velocities.mean() + 1.75**sign * (velocities - velocities.mean())
        case "articulation":
            releases = notes.onsets + 1.75**sign * (releases - notes.onsets)
            pedal = pedal[:0]
        case "pedal":
            pedal = np.array([[-window_s, window_s]]) if sign > 0 else pedal[:0]
    struck = np.clip(np.round(velocities), *_VELOCITIES)
    arrays = clock(notes.onsets), clock(releases), notes.pitches, struck
    return Performance(*arrays, clock(beats), clock(pedal))


def render(notes: Performance, parameter: str, sign: int, window_s: float) -> Array32:
    """Render a variant's window and 0.5 s before it, mono at 24 kHz."""
    first, last = -window_s / 2 - _LEAD_S, window_s / 2
    part = notes.cut(first, last)
    ends = until_struck_again(part.onsets, part.pitches, part.releases)
    track = pretty_midi.Instrument(_PROGRAMS[sign] if parameter == "instrument" else 0)
    for start, end, *note in np.column_stack([part.onsets, ends, part.velocities, part.pitches]):
        track.notes.append(pretty_midi.Note(*map(int, note), start - first, end - first))
    spans = np.clip(notes.pedal, first, last) - first
    for times in spans[np.ptp(spans, axis=1) > 0]:
        for value, time in zip((127, 0), times, strict=True):
            track.control_changes.append(pretty_midi.ControlChange(64, value, time))
    midi, file = pretty_midi.PrettyMIDI(resolution=1000), io.BytesIO()
    midi.instruments.append(track)
    midi.write(file)
    size = int(np.ceil((last - first) * _RATE))
    dry = render_midi(file.getvalue(), sample_rate=_RATE).mean(axis=1)
    dry = np.pad(dry, (0, size))[:size]
    if parameter != "room":
        return dry
    seconds, amount = _ROOMS[sign]
    times = np.arange(seconds * _RATE) / _RATE
    decay = np.random.default_rng(0).normal(size=len(times)) * 10 ** (-3 * times / seconds)
    wet = dry + fftconvolve(dry, amount / np.linalg.norm(decay) * decay)[:size]
    return np.asarray(wet * np.linalg.norm(dry) / np.linalg.norm(wet), np.float32)


def judge_counterfactuals(
    spaces: Sequence["Space"], projection: Projection, file: Counterfactuals
) -> list[Line]:
    """Judge which aspects move with a parameter, and whether spaces hear notes or playing.

    *counterfactual*: how much more of an aspect (``asked``), read from audio alone, there is when a
    parameter (``against``) is turned up than down, in standard deviations of the true value; what
    moves most has the measure "moves most". *same notes*: the share of triplets in which the same
    notes, changed the other way, are nearer than other notes that are changed the same way.
    """
    known = dict(zip(file.columns, file.measured.T, strict=True))
    unknown = np.full(len(file.work), np.nan)
    measured = np.array([unknown, *(known.get(name, unknown) for name in projection.columns)])[1:].T
    predicted = projection.project(file.encoder[:, projection.layers], measured, [AUDIO])[1]
    source, lines = projection.read_from([AUDIO]), list[Line]()
    aspects = {name: projection.aspects[name].number for name in ASPECTS if source.get(name)}
    directed = np.isfinite(projection.standard_errors)  # others have no values
    for parameter in dict.fromkeys(p for p, sign in VARIANTS if sign):
        up, down = (predicted[(file.parameter == parameter) & (file.sign == s)] for s in (1, -1))
        by = (up - down).astype(np.float64).T
        moved = {name: by[number] for name, number in aspects.items() if directed[number]}
        most = max((abs(values.mean()) for values in moved.values()), default=0.0)
        for name, values in moved.items():
            figure = mean_over_works(values, 0.0, len(values), bounds=(-np.inf, np.inf))
            sure = figure.interval and figure.interval[0] * figure.interval[1] > 0
            measure = "moves most" if sure and abs(figure.value) == most else "moves"
            told = line("counterfactual", name, figure, measure=measure, against=parameter)
            lines.append(told | {"source": source[name]})
    features = {ENCODER: file.encoder, DESCRIPTORS: file.descriptors}
    for space in (space for space in spaces if space.source in features):
        figure = _same_notes(space, space.read(features[space.source], measured), file)
        lines.append(line("same notes", space.name, figure, measure="share", reason="one work"))
    return lines


def _same_notes(space: "Space", vectors: Floats, file: Counterfactuals) -> Figure:
    from mess_core.evaluation.spaces import apart

    own, same, alike = (
        each[:, np.newaxis] == each for each in (file.work, file.sign, file.parameter)
    )
    alike &= np.isin(file.parameter, PARAMETERS)
    asked, playing = np.nonzero(alike & ~own & same)
    notes = (alike & own & ~same).argmax(axis=1)[asked]
    far, near = (apart(vectors, space.euclidean, asked, other) for other in (playing, notes))
    return share_over_works((np.sign(far - near) + 1) / 2, file.work[asked])
