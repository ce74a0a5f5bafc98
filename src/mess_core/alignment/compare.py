"""Performances of a work compared: who stretches a passage, where two differ, what is each one's.

*Than the others* is against the mean, over all other performances of the work that play the place,
of log duration or of dB; of two performances the other is all the others. Standard errors are those
of the alignment, carried over to durations: they say how well a duration is known, not whether the
player would do it again.
"""

__all__ = ["Comparison", "Place", "Ranked", "Ranking", "compare", "describe", "stretch"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from mess_core.alignment.curves import RATE, WorkCurves, consensus, smooth, work_curves
from mess_core.alignment.maps import Alignment, WorkAlignment
from mess_core.errors import AlignmentError, nearest
from mess_core.progress import clock
from mess_core.targets.curves import Float
from mess_core.targets.expression import articulation_ratio, pedal_share
from mess_core.targets.notes import Performance

#: A passage's surroundings: as long as the passage on both sides, and at least so long, s.
SURROUNDINGS_S = 10.0
#: Less of the surroundings tells nothing of a performance's tempo around a passage, s.
MIN_SURROUNDINGS_S = 4.0
#: The outer ends of surroundings, which may lie within a note, are the mean of these, s inwards.
FADE_S = np.linspace(0.0, 2.0, 21)[:, None, None]
#: A passage that some performances lack no more of at its edges is cut to what all of them play, s:
#: first and last notes are not at the same place in all.
EDGE_S = 0.5
#: What differs by more than so many standard errors of the difference is not tied.
CLEAR = 2.0
#: Passages that are looked through for what is characteristic, in columns of `WorkCurves`: 2, 4
#: and 8 s, a bar to a phrase.
LENGTHS = np.array([2, 4, 8])[:, None] * RATE
#: What is hardly heard is not told: 5 % of time, 1 dB.
LEAST = {"tempo": float(np.log(1.05)), "loudness": 1.0}
#: So many places at most are told of tempo, and of loudness: of two performances, of one.
PLACES_OF_TWO, PLACES_OF_ONE = 4, 2
#: Fewer performances have no standard deviation worth dividing by.
MIN_FOR_DEVIATIONS = 4
#: Articulation and pedal are compared in segments of so long, s of work time: about a bar.
SEGMENT_S = 4.0

Span = Sequence[float]


@dataclass(frozen=True)
class Ranked:
    """How much a performance stretches a passage.

    ``stretch`` is the log of its duration over that of the surroundings, less the mean of the
    others', with its standard ``error``. ``rank`` is one more than the number of performances that
    clearly stretch it more; ``tied`` says that others have the same.
    """

    recording_id: str
    start_s: float
    end_s: float
    stretch: float
    error: float
    rank: int
    tied: bool


@dataclass(frozen=True)
class Ranking:
    """Who stretches a passage most: the performances in order, and why others are not among them.

    ``passage`` is in work time, and ``surroundings`` where the tempo around it is taken from.
    """

    passage: Span
    surroundings: Span
    rows: Sequence[Ranked]
    left_out: Mapping[str, str]


@dataclass(frozen=True)
class Place:
    """Where a performance is itself, or A and B differ.

    ``aspect`` is ``tempo`` or ``loudness``; ``spans`` are from where to where it is in one
    recording, or in A and B, s; ``values`` how much more time they take than the others (log), or
    how much louder they are (dB), each beside its own mean over the work; ``sentence`` says it.
    """

    aspect: str
    spans: Sequence[Span]
    values: Sequence[float]
    sentence: str


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two performances of a work, A and B, in the part that both play.

    ``spans`` are from where to where that is in each, s; ``places`` where they differ most. The
    curves have `RATE` values per second of work time, m in all:

    * ``times`` [shape=(2, m)]: of A and B, s;
    * ``log_tempo``, ``bpm``, ``loudness`` [shape=(3, m)]: of A, B and the consensus, log of local
      tempo smoothed over 0.5 s, the same in BPM (NaN without beats), and dBFS;
    * ``tempo_deviation``, ``loudness_deviation`` [shape=(2, m)]: how far A and B are from the
      consensus, in standard deviations over the performances; NaN where fewer than four play;
    * ``articulation``, ``pedal`` [shape=(2, m)]: key-overlap ratio and share of pedal in segments
      of 4 s; NaN without notes.
    """

    recordings: tuple[str, str]
    spans: Sequence[Span]
    work_times: Float
    times: Float
    log_tempo: Float
    bpm: Float
    loudness: Float
    tempo_deviation: Float
    loudness_deviation: Float
    articulation: Float
    pedal: Float
    places: Sequence[Place]


def stretch(work: WorkAlignment, recording_id: str, start_s: float, end_s: float) -> Ranking:
    """Rank all performances by how much they stretch a passage against the tempo around it.

    ``start_s`` and ``end_s`` are s of the recording. Of surroundings that a performance plays in
    part, the consensus's proportions make up for the rest.

    Raises `AlignmentError` if the recording is not aligned there, or fewer than two are.
    """
    asked = f"from {_from_to((start_s, end_s))}"
    if not start_s < end_s:
        raise AlignmentError(f"{asked} is not a passage: the start must come before the end")
    own = _alignment(work, recording_id)
    times = np.array([start_s, end_s])
    inside = np.clip(times, own.regions[0, 0], own.regions[-1, 1])
    start, end = own.to_work(np.where(np.abs(inside - times) < EDGE_S, inside, times)).tolist()
    if not start < end:
        known = _aligned(work, recording_id)
        raise AlignmentError(f"{recording_id} has no aligned passage {asked}: {known}")
    spans = {
        name: np.interp(each.regions, each.times, each.work_times)
        for name, each in work.alignments.items()
    }
    parts = [np.clip(played, start, end) for played in spans.values()]
    nearly = [part[np.ptp(part, axis=1) > end - start - EDGE_S] for part in parts]
    common = np.concatenate(nearly)
    start, end = float(common[:, 0].max()), float(common[:, 1].min())
    curves = work_curves(work)
    around = max(SURROUNDINGS_S, end - start)
    first, last = max(0.0, start - around), min(float(curves.work_times[-1]), end + around)
    measured: dict[str, tuple[float, ...]] = {}
    left_out = dict(work.left_out)
    for name, alignment in work.alignments.items():
        played = spans[name]
        passage = np.clip(played, start, end)
        passage = passage[np.ptp(passage, axis=1) > 0]
        before = np.clip(played, np.minimum(first + FADE_S, start), start)
        after = np.clip(played, end, np.maximum(last - FADE_S, end))
        beside = np.concatenate([before, after], axis=1)
        if len(passage) != 1 or np.ptp(passage) < end - start - 1e-6:
            left_out[name] = "does not play all of the passage"
        elif np.ptp(beside[0], axis=1).sum() < MIN_SURROUNDINGS_S:
            left_out[name] = f"plays less than {MIN_SURROUNDINGS_S:g} s around the passage"
        else:
            measured[name] = _measured(alignment, passage, beside, curves)
    if len(measured) < 2:
        raise AlignmentError(
            f"fewer than two performances of {work.work_id} can be compared {asked} of "
            f"{recording_id}: {'; '.join(f'{name} {why}' for name, why in left_out.items())}"
        )
    return Ranking((start, end), (first, last), _ranked(measured), left_out)


def compare(
    work: WorkAlignment,
    a: str,
    b: str,
    start_s: float = 0.0,
    end_s: float = np.inf,
    performances: Mapping[str, Performance] | None = None,
) -> Comparison:
    """Compare two performances of a work, all that both play or a part of it.

    ``start_s`` and ``end_s`` are s of ``a``. ``performances`` are the notes of recordings, for
    articulation and pedal.

    Raises `AlignmentError` if one of them is not aligned, or both have nothing in common there.
    """
    for name in (a, b):
        _alignment(work, name)
    if not start_s < end_s:
        asked = _from_to((start_s, end_s))
        raise AlignmentError(f"{asked} is not a passage: the start must come before the end")
    curves = work_curves(work)
    rows = [curves.row(name) for name in (a, b)]
    own, other = curves.times[rows]
    both = np.flatnonzero((own >= start_s) & (own <= end_s) & np.isfinite(other))
    if a == b or len(both) < 2:
        why = "they are the same" if a == b else f"{_aligned(work, a)}; {_aligned(work, b)}"
        raise AlignmentError(f"{a} and {b} have nothing to compare there: {why}")
    part = slice(int(both[0]), int(both[-1]) + 1)
    tempo = np.array([smooth(row) for row in (*curves.log_tempo, curves.consensus_tempo)])
    loudness = np.vstack([curves.loudness, curves.consensus_loudness])
    shown, times = [*rows, -1], curves.times[rows, part]
    articulation, pedal = np.full((2, *times.shape), np.nan)
    step = round(SEGMENT_S * RATE)
    notes = performances or {}
    known = [(row, notes[name]) for row, name in enumerate((a, b)) if name in notes]
    for (row, played), first in product(known, range(0, times.shape[1] - step, step)):
        edges, cells = times[row, [first, first + step]], (row, slice(first, first + step))
        if np.isfinite(edges).all():
            cut = played.cut(*edges)
            articulation[cells] = articulation_ratio(cut.overlap_ratios)
            pedal[cells] = pedal_share(cut.pedal, cut.span)
    return Comparison(
        recordings=(a, b),
        spans=times[:, [0, -1]].tolist(),
        work_times=curves.work_times[part],
        times=times,
        log_tempo=tempo[shown, part],
        bpm=60 * curves.beat_rate[part] * np.exp(tempo[shown, part]),
        loudness=loudness[shown, part],
        tempo_deviation=_deviations(tempo)[rows, part],
        loudness_deviation=_deviations(loudness)[rows, part],
        articulation=articulation,
        pedal=pedal,
        places=_characteristic(curves, _windows(curves), rows, part, PLACES_OF_TWO),
    )


def describe(work: WorkAlignment) -> dict[str, list[Place]]:
    """Return where each performance of a work differs most from the others."""
    curves = work_curves(work)
    windows, whole = _windows(curves), slice(0, len(curves.work_times))
    return {
        name: _characteristic(curves, windows, [row], whole, PLACES_OF_ONE)
        for row, name in enumerate(curves.recordings)
    }


def _alignment(work: WorkAlignment, name: str) -> Alignment:
    if name in work.left_out:
        raise AlignmentError(f"{name} is left out of {work.work_id}: {work.left_out[name]}")
    if name not in work.alignments:
        hint = nearest(name, work.alignments)
        raise AlignmentError(f"{name!r} is no aligned performance of {work.work_id}: {hint}")
    return work.alignments[name]


def _aligned(work: WorkAlignment, name: str) -> str:
    regions = work.alignments[name].regions
    return f"{name} is aligned from " + ", ".join(_from_to((a, b)) for a, b in regions)


def _measured(
    alignment: Alignment, passage: Float, beside: Float, curves: WorkCurves
) -> tuple[float, ...]:
    """Return start and end of a passage, and its log duration over that of what lies beside it.

    Both are spans of work time [shape=(n, 2)], of what lies beside one set for each of `FADE_S`.
    The fourth is the standard error of the third.
    """
    spans = (passage, beside)
    own, faded = (np.interp(each, alignment.work_times, alignment.times) for each in spans)
    own = np.vstack([own, faded.mean(axis=0)])
    common = np.interp(beside, curves.work_times, curves.consensus_times).mean(axis=0)
    duration, beside_s, usual = (
        np.ptp(own[0]),
        np.ptp(own[1:], axis=1).sum(),
        np.ptp(common, axis=1),
    )
    # How the log ratio moves with each of the times that it is made of; some are in it twice.
    weights = np.outer(np.append(1 / duration, np.full(len(own) - 1, -1 / beside_s)), [-1, 1])
    times, place = np.unique(own.ravel().round(6), return_inverse=True)
    errors = np.interp(times, alignment.times, alignment.errors)
    error = np.sqrt(((np.bincount(place, weights.ravel()) * errors) ** 2).sum())
    return *own[0], np.log(duration * usual.sum() / beside_s), error


def _ranked(measured: Mapping[str, tuple[float, ...]]) -> list[Ranked]:
    """Put performances in order, with ties, and each against the others."""
    starts, ends, value, error = np.array(list(measured.values())).T
    variance, others = error**2, len(measured) - 1
    against = value - (value.sum() - value) / others
    error = np.sqrt(variance + (variance.sum() - variance) / others**2)
    # A partial order, whatever the errors: who is clearly above one is clearly above all that this
    # one is clearly above.
    clear = value - value[:, None] > CLEAR * np.sqrt(variance + variance[:, None])
    ranks = 1 + clear.sum(axis=1)
    tied = (ranks == ranks[:, None]).sum(axis=1) > 1
    columns = (each.tolist() for each in (starts, ends, against, error, ranks, tied))
    rows = [Ranked(*row) for row in zip(measured, *columns, strict=True)]
    return sorted(rows, key=lambda row: (row.rank, -row.stretch))


def _deviations(values: Float) -> Float:
    """Return differences from the last row over their standard deviation at each place."""
    centred = values[:-1] - values[-1]
    counts = np.isfinite(centred).sum(axis=0)
    spread = np.sqrt(np.nansum(centred**2, axis=0) / np.maximum(counts - 1, 1))
    return np.asarray(
        centred / np.where((counts >= MIN_FOR_DEVIATIONS) & (spread > 0), spread, np.nan)
    )


def _windows(curves: WorkCurves) -> dict[str, tuple[Float, Float]]:
    """Return how much each performance differs from the others over windows, and with what error.

    By aspect, both [shape=(3, r, m)]: log time or dB of windows of `LENGTHS` from each column,
    beside the performance's own mean over the work. NaN where it isn't played in one go, or silent.
    """
    against, errors = np.full((2, len(LEAST), len(LENGTHS), *curves.times.shape), np.nan)
    for number, length in enumerate(LENGTHS[:, 0]):
        if length < len(curves.work_times):
            times, loudness = (
                np.lib.stride_tricks.sliding_window_view(series, length + 1, axis=1)
                for series in (curves.times, curves.loudness)
            )
            spent = np.ptp(times, axis=2)
            moved = np.hypot(curves.errors[:, length:], curves.errors[:, :-length])
            errors[:, number, :, :-length] = moved / spent, np.zeros(spent.shape)
            against[:, number, :, :-length] = np.log(spent), loudness.mean(axis=2)
    for values in against.reshape(-1, *curves.times.shape):
        common, levels = consensus(values)
        counts = np.isfinite(values).sum(axis=0)
        values -= common + levels[:, None]
        values *= counts / np.maximum(counts - 1, 1)
    return dict(zip(LEAST, zip(against, errors, strict=True), strict=True))


def _characteristic(
    curves: WorkCurves,
    windows: Mapping[str, tuple[Float, Float]],
    rows: list[int],
    part: slice,
    count: int,
) -> list[Place]:
    """Return where a performance differs most from the others, or two from one another."""
    alone = len(curves.recordings) == 2
    starts = np.arange(len(curves.work_times))
    ends = starts + LENGTHS
    places: list[Place] = []
    for aspect, (against, errors) in windows.items():
        differs = against[:, rows[0]] - (0 if alone else against[:, rows[1:]].sum(axis=1))
        error = np.sqrt((errors[:, rows] ** 2).sum(axis=1))
        clear = np.abs(differs) > np.maximum(LEAST[aspect], CLEAR * error)
        inside = (starts >= part.start) & (ends < part.stop)
        # Differences of single notes average out: of a longer passage, less says as much.
        score = np.where(clear & inside, np.abs(differs) * LENGTHS**0.5, 0.0)
        for _ in range(count):
            length, start = np.unravel_index(score.argmax(), score.shape)
            end = ends[length, start]
            if score[length, start] > 0:
                values = against[length, rows, start].tolist()
                spans = curves.times[rows][:, [start, end]].tolist()
                said = _sentence(aspect, spans, values, alone)
                places.append(Place(aspect, spans, values, said))
            score[(starts < end) & (ends > start)] = 0.0
    return sorted(places, key=lambda place: place.spans[0][0])


def _from_to(span: Span) -> str:
    return f"{clock(span[0])} to {clock(span[1])}"


def _sentence(aspect: str, spans: Sequence[Span], values: Sequence[float], alone: bool) -> str:
    """Say how one performance, or A and B, differ from the others, or from the other alone."""
    if aspect == "tempo":
        told = [
            f"{100 * abs(np.expm1(x)):.0f} % {'more' if x > 0 else 'less'} time" for x in values
        ]
    else:
        told = [f"{abs(x):.1f} dB {'louder' if x > 0 else 'softer'}" for x in values]
    does = f"{'takes' if aspect == 'tempo' else 'is'} {told[0]} than"
    if len(spans) == 1:
        return f"from {_from_to(spans[0])} it {does} the other{'' if alone else 's'}"
    # Without others B's figure is A's with the other sign.
    than = "B" if alone else f"the others, B {told[1]}"
    return f"from {_from_to(spans[0])} (B: {clock(spans[1][0])}), A {does} {than}"
