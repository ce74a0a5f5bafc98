"""Performances of a work compared: who stretches a passage, where two differ, what is each one's.

*Than the others* is against the mean, over all other performances of the work that play the place,
of log duration or of dB; of two performances the other is all the others. Standard errors are those
of the alignment, carried over to durations: they say how well a duration is known, not whether the
player would do it again.
"""

__all__ = [
    *("Comparison", "Description", "Place", "Ranked", "Ranking", "Segment"),
    *("compare", "describe", "stretch"),
]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mess_core.alignment.curves import RATE, WorkCurves, consensus, relative, smooth, work_curves
from mess_core.alignment.maps import Alignment, WorkAlignment
from mess_core.errors import AlignmentError, nearest
from mess_core.progress import clock
from mess_core.targets.curves import Float, mean_of
from mess_core.targets.expression import articulation_ratio, pedal_share, timing_deviation
from mess_core.targets.notes import Performance

#: A passage's surroundings: as long as the passage on both sides, and at least so long, s.
SURROUNDINGS_S = 10.0

#: Less of the surroundings tells nothing of a performance's tempo around a passage, s.
MIN_SURROUNDINGS_S = 4.0

#: What differs by more than so many standard errors of the difference is not tied.
CLEAR = 2.0

#: So much may be missing at the edge of a passage, s.
EDGE_S = 0.05

#: Passages that are looked through for what is characteristic, s of work time: a bar to a phrase.
LENGTHS_S = (2.0, 4.0, 8.0)

#: What is hardly heard is not told: 5 % of time, 1 dB.
LEAST = {"tempo": float(np.log(1.05)), "loudness": 1.0}

#: Fewer performances have no standard deviation worth dividing by.
MIN_FOR_DEVIATIONS = 4

#: Articulation and pedal are compared in pieces of so long, s of work time: about a bar.
SEGMENT_S = 4.0

Span = tuple[float, float]
#: By aspect and number of columns: how much performances differ from the others, and the error.
Windows = Mapping[tuple[str, int], tuple[Float, Float]]


@dataclass(frozen=True)
class Ranked:
    """How much a performance stretches a passage.

    ``stretch`` is how much longer the passage takes than with the others, the tempo around it
    aside: log, with its standard ``error``. ``rank`` is one more than the number of performances
    that clearly stretch it more; ``tied`` says that others have the same.
    """

    recording_id: str
    start_s: float
    end_s: float
    stretch: float
    error: float
    rank: int = 0
    tied: bool = False

    @property
    def percent(self) -> float:
        """How much more time it takes than the others, %."""
        return 100 * float(np.expm1(self.stretch))


@dataclass(frozen=True)
class Ranking:
    """Who stretches a passage most: the performances in order, and why others are not among them.

    ``passage`` is in work time, and ``surroundings`` where the tempo around it is taken from.
    """

    passage: Span
    surroundings: Span
    rows: tuple[Ranked, ...]
    left_out: Mapping[str, str]


@dataclass(frozen=True)
class Place:
    """Where a performance is itself, or A and B differ.

    ``aspect`` is ``tempo`` or ``loudness``; ``spans`` are from where to where it is in one
    recording, or in A and B, s; ``values`` how much more time they take than the others (log), or
    how much louder they are (dB), each beside its own mean over the work; ``sentence`` says it.
    """

    aspect: str
    spans: tuple[Span, ...]
    values: tuple[float, ...]
    sentence: str


@dataclass(frozen=True)
class Segment:
    """Articulation (key-overlap ratio) and share of pedal of A and B in about a bar."""

    spans: tuple[Span, ...]
    articulation: tuple[float, ...]
    pedal: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two performances of a work, A and B.

    ``curves`` are of the work, ``part`` the columns that are compared, ``spans`` from where to
    where that is in A and B, s. ``tempo`` and ``loudness`` [shape=(2, m)] are how far A and B are
    from the consensus there: in standard deviations over the performances where
    ``in_deviations`` (there are four or more), else in % and dB. ``places`` are where they differ
    most; ``segments`` are empty unless both have notes.
    """

    recordings: tuple[str, str]
    curves: WorkCurves
    part: slice
    spans: tuple[Span, ...]
    tempo: Float
    loudness: Float
    in_deviations: bool
    places: tuple[Place, ...]
    segments: tuple[Segment, ...]


@dataclass(frozen=True)
class Description:
    """A performance among those of its work.

    ``duration_s`` is of what is aligned; ``tempo_percent`` how much faster than the consensus it
    is there, ``timing_deviation`` the target of that name, ``loudness_difference`` in dB;
    ``loudest_s`` and ``slowest_s`` are when it is loudest, and slowest against the consensus, s;
    ``gaps`` what it and the reference do not share, from where to where in s of each.
    """

    recording_id: str
    duration_s: float
    tempo_percent: float
    timing_deviation: float
    loudness_difference: float
    loudest_s: float
    slowest_s: float
    gaps: tuple[tuple[Span, Span], ...]
    places: tuple[Place, ...] = ()


def stretch(work: WorkAlignment, recording_id: str, start_s: float, end_s: float) -> Ranking:
    """Rank all performances by how much they stretch a passage against the tempo around it.

    The stretch of a performance is the log of its duration of the passage over its duration of the
    surroundings, less the mean of the others'. Where it does not play all of the surroundings, the
    consensus's proportions make up for that. ``start_s`` and ``end_s`` are s of the recording.

    Raises `AlignmentError` if the recording is not aligned there, or fewer than two are.
    """
    passage = _passage(work, recording_id, start_s, end_s)
    around = max(SURROUNDINGS_S, passage[1] - passage[0])
    curves = work_curves(work)
    end = float(curves.work_times[-1])
    surroundings = (max(0.0, passage[0] - around), min(end, passage[1] + around))
    measured: list[Ranked] = []
    left_out = dict(work.left_out)
    for name, alignment in work.alignments.items():
        pieces = _pieces(alignment, *passage)
        before, after = (surroundings[0], passage[0]), (passage[1], surroundings[1])
        beside = np.concatenate([_pieces(alignment, *before), _pieces(alignment, *after)])
        if len(pieces) != 1 or np.ptp(pieces) < passage[1] - passage[0] - EDGE_S:
            left_out[name] = "does not play all of the passage"
        elif np.diff(beside).sum() < MIN_SURROUNDINGS_S:
            left_out[name] = f"plays less than {MIN_SURROUNDINGS_S:g} s around the passage"
        else:
            measured.append(_measured(name, alignment, pieces, beside, curves))
    if len(measured) < 2:
        raise AlignmentError(
            f"fewer than two performances of {work.work_id} can be compared from "
            f"{_from_to((start_s, end_s))} of {recording_id}: {left_out}"
        )
    return Ranking(passage, surroundings, _ranked(measured), left_out)


def compare(
    work: WorkAlignment,
    a: str,
    b: str,
    start_s: float = 0.0,
    end_s: float | None = None,
    *,
    performances: Mapping[str, Performance] | None = None,
    places: int = 4,
) -> Comparison:
    """Compare two performances of a work.

    Parameters
    ----------
    work : WorkAlignment
    a, b : str
        Ids of recordings.
    start_s, end_s : float
        Which part, s of ``a``; else all that both play.
    performances : mapping of str to Performance, optional
        The notes of recordings; where both have them, articulation and pedal are compared.
    places : int
        How many places at most are found in tempo, and in loudness.

    Raises `AlignmentError` if one of them is not aligned, or both have nothing in common there.
    """
    for name in (a, b):
        _alignment(work, name)
    curves, names = work_curves(work), (a, b)
    rows = [curves.row(name) for name in names]
    own, other = curves.times[rows]
    within = (own >= start_s) & (own <= (np.inf if end_s is None else end_s))
    both = np.flatnonzero(within & np.isfinite(other))
    if a == b or len(both) < 2:
        why = "they are the same" if a == b else f"{_aligned(work, a)}; {_aligned(work, b)}"
        raise AlignmentError(f"{a} and {b} have nothing to compare there: {why}")
    part = slice(int(both[0]), int(both[-1]) + 1)
    tempo = np.array([smooth(row - curves.consensus_tempo) for row in curves.log_tempo])
    loudness = curves.loudness - curves.consensus_loudness
    in_deviations = len(curves.recordings) >= MIN_FOR_DEVIATIONS
    notes = performances or {}
    return Comparison(
        recordings=names,
        curves=curves,
        part=part,
        spans=_spans(curves, names, part.start, part.stop - 1),
        tempo=(_deviations(tempo) if in_deviations else 100 * np.expm1(tempo))[rows, part],
        loudness=(_deviations(loudness) if in_deviations else loudness)[rows, part],
        in_deviations=in_deviations,
        places=_characteristic(curves, _all_windows(curves), names, part, places),
        segments=_segments(curves, names, part, notes) if {a, b} <= set(notes) else (),
    )


def describe(work: WorkAlignment, *, places: int = 2) -> tuple[Description, ...]:
    """Describe all performances of a work, the fastest first."""
    curves = work_curves(work)
    windows, whole = _all_windows(curves), slice(0, len(curves.work_times))
    told = [
        replace(
            _described(curves, name, alignment),
            places=_characteristic(curves, windows, (name,), whole, places),
        )
        for name, alignment in work.alignments.items()
    ]
    return tuple(sorted(told, key=lambda each: -np.nan_to_num(each.tempo_percent, nan=-np.inf)))


def _alignment(work: WorkAlignment, name: str) -> Alignment:
    if name in work.left_out:
        raise AlignmentError(f"{name} is left out of {work.work_id}: {work.left_out[name]}")
    if name not in work.alignments:
        hint = nearest(name, work.alignments)
        raise AlignmentError(f"{name!r} is no aligned performance of {work.work_id}: {hint}")
    return work.alignments[name]


def _passage(work: WorkAlignment, name: str, start_s: float, end_s: float) -> Span:
    """Return the work times of a passage of a recording."""
    if not start_s < end_s:
        raise AlignmentError(f"the passage from {_from_to((start_s, end_s))} has no length")
    start, end = _alignment(work, name).to_work(np.array([start_s, end_s])).tolist()
    if not np.isfinite(start + end):
        told = f"{name} is not aligned from {_from_to((start_s, end_s))}"
        raise AlignmentError(f"{told}: {_aligned(work, name)}")
    return start, end


def _aligned(work: WorkAlignment, name: str) -> str:
    regions = work.alignments[name].regions
    return f"{name} is aligned from " + ", ".join(_from_to((a, b)) for a, b in regions)


def _pieces(alignment: Alignment, start: float, end: float) -> Float:
    """Return the parts of a stretch of work time that a recording plays [shape=(n, 2)]."""
    spans = np.interp(alignment.regions, alignment.times, alignment.work_times)
    parts = np.clip(spans, start, end)
    return np.asarray(parts[parts[:, 1] > parts[:, 0]])


def _measured(
    name: str, alignment: Alignment, passage: Float, beside: Float, curves: WorkCurves
) -> Ranked:
    """Return a performance's log duration of a passage over that of what lies beside it."""
    own, around = (np.interp(u, alignment.work_times, alignment.times) for u in (passage, beside))
    duration, beside_s = np.diff(own).sum(), np.diff(around).sum()
    usual = np.diff(np.interp(beside, curves.work_times, curves.consensus_times)).sum()
    # How the log ratio moves with each of the times that it is made of; some are in it twice.
    moves = np.array([-1.0, 1.0])
    times, place = np.unique(np.concatenate([own.ravel(), around.ravel()]), return_inverse=True)
    weights = np.concatenate([moves / duration, np.tile(-moves / beside_s, len(around))])
    errors = np.interp(times, alignment.times, alignment.errors)
    error = np.sqrt((np.bincount(place, weights) ** 2 * errors**2).sum())
    ratio = np.log(duration) - np.log(beside_s / usual)
    return Ranked(name, float(own[0, 0]), float(own[0, 1]), float(ratio), float(error))


def _ranked(measured: list[Ranked]) -> tuple[Ranked, ...]:
    """Put performances in order, with ties, and each against the others."""
    value = np.array([each.stretch for each in measured])
    variance = np.array([each.error for each in measured]) ** 2
    others = len(measured) - 1
    against = value - (value.sum() - value) / others
    error = np.sqrt(variance + (variance.sum() - variance) / others**2)
    # A partial order, whatever the errors: who is clearly above one is clearly above all that this
    # one is clearly above.
    clear = value - value[:, None] > CLEAR * np.sqrt(variance + variance[:, None])
    ranks = (1 + clear.sum(axis=1)).tolist()
    rows = [
        replace(each, stretch=float(x), error=float(e), rank=rank, tied=ranks.count(rank) > 1)
        for each, x, e, rank in zip(measured, against, error, ranks, strict=True)
    ]
    return tuple(sorted(rows, key=lambda row: (row.rank, -row.stretch)))


def _deviations(centred: Float) -> Float:
    """Return differences from the consensus over their standard deviation at each place."""
    there = np.isfinite(centred)
    counts = there.sum(axis=0)
    squares = np.where(there, centred**2, 0.0).sum(axis=0)
    spread = np.sqrt(squares / np.maximum(counts - 1, 1))
    enough = (counts >= MIN_FOR_DEVIATIONS) & (spread > 0)
    undefined = np.full(centred.shape, np.nan)
    return np.asarray(np.divide(centred, spread, out=undefined, where=enough))


def _all_windows(curves: WorkCurves) -> Windows:
    lengths = [round(seconds * RATE) for seconds in LENGTHS_S]
    fitting = [length for length in lengths if length < len(curves.work_times)]
    return {(aspect, n): _windows(curves, aspect, n) for aspect in LEAST for n in fitting}


def _characteristic(
    curves: WorkCurves, windows: Windows, names: tuple[str, ...], part: slice, count: int
) -> tuple[Place, ...]:
    """Return where a performance differs most from the others, or two from one another."""
    rows = [curves.row(name) for name in names]
    alone = len(curves.recordings) == 2
    places: list[tuple[int, Place]] = []
    for aspect in LEAST:
        candidates: list[tuple[float, int, int]] = []
        for length in (n for of, n in windows if of == aspect):
            starts = slice(part.start, max(part.start, part.stop - length))
            against, errors = (each[rows, starts] for each in windows[aspect, length])
            differs = np.abs(against[0] if alone or len(rows) == 1 else against[0] - against[1])
            error = np.sqrt((errors**2).sum(axis=0))
            clear = np.flatnonzero(differs > np.maximum(LEAST[aspect], CLEAR * error))
            # Differences of single notes average out: of a longer passage, less says as much.
            score = differs[clear] * length**0.5
            candidates += [
                (value, part.start + at, length)
                for value, at in zip(score.tolist(), clear.tolist(), strict=True)
            ]
        taken: list[tuple[int, int]] = []
        for _, start, length in sorted(candidates, reverse=True):
            end = start + length
            if len(taken) < count and all(end <= a or b <= start for a, b in taken):
                taken.append((start, end))
                values = tuple(windows[aspect, length][0][rows, start].tolist())
                spans = _spans(curves, names, start, end)
                said = _sentence(aspect, spans, values, alone)
                places.append((start, Place(aspect, spans, values, said)))
    return tuple(place for _, place in sorted(places, key=lambda each: each[0]))


def _windows(curves: WorkCurves, aspect: str, length: int) -> tuple[Float, Float]:
    """Return how much each performance differs from the others over windows, and with what error.

    Log time or dB of the window from each column to ``length`` columns later, beside the
    performance's own mean over the work. NaN where a window is not played in one go, or is silent.
    """
    there = np.isfinite(curves.times if aspect == "tempo" else curves.loudness)
    gaps = np.cumsum(~there, axis=1)
    whole = (gaps[:, length:] == gaps[:, :-length]) & there[:, :-length]
    sums = curves.times if aspect == "tempo" else np.cumsum(np.nan_to_num(curves.loudness), axis=1)
    values = np.where(whole, sums[:, length:] - sums[:, :-length], np.nan)
    errors = np.zeros(values.shape)
    if aspect == "tempo":
        errors = np.hypot(curves.errors[:, length:], curves.errors[:, :-length]) / values
    values = np.log(values) if aspect == "tempo" else values / length
    common, levels = consensus(values)
    counts = np.isfinite(values).sum(axis=0)
    against = (values - common - levels[:, None]) * counts / np.maximum(counts - 1, 1)
    return against, errors


def _segments(
    curves: WorkCurves, names: tuple[str, str], part: slice, notes: Mapping[str, Performance]
) -> tuple[Segment, ...]:
    """Return articulation and pedal of two performances in the segments that both play."""
    step = round(SEGMENT_S * RATE)
    segments = []
    for start in range(part.start, part.stop - step, step):
        spans = _spans(curves, names, start, start + step)
        if np.isfinite(spans).all():
            cuts = [notes[name].cut(*span) for name, span in zip(names, spans, strict=True)]
            articulation = tuple(articulation_ratio(cut.overlap_ratios) for cut in cuts)
            pedal = tuple(pedal_share(cut.pedal, cut.span) for cut in cuts)
            segments.append(Segment(spans, articulation, pedal))
    return tuple(segments)


def _described(curves: WorkCurves, name: str, alignment: Alignment) -> Description:
    compared, row = relative(curves, name), curves.row(name)
    times = alignment.regions
    work = np.interp(times, alignment.times, alignment.work_times)
    borders = zip(times[:-1, 1], times[1:, 0], work[:-1, 1], work[1:, 0], strict=True)
    return Description(
        recording_id=name,
        duration_s=float(np.diff(times).sum()),
        tempo_percent=100 * (mean_of(compared.tempo_ratio) - 1),
        timing_deviation=timing_deviation(compared.smooth_ratio),
        loudness_difference=mean_of(compared.loudness_difference),
        loudest_s=_at_most(curves.times[row], curves.loudness[row]),
        slowest_s=_at_most(compared.times, -compared.smooth_ratio),
        gaps=tuple(((float(a), float(b)), (float(c), float(d))) for a, b, c, d in borders),
    )


def _at_most(times: Float, series: Float) -> float:
    """Return when a series is highest, NaN where it is nowhere known."""
    known = np.isfinite(series)
    return float(times[known][series[known].argmax()]) if known.any() else np.nan


def _spans(curves: WorkCurves, names: Sequence[str], first: int, last: int) -> tuple[Span, ...]:
    """Return from when to when some columns are in recordings, s."""
    rows = [curves.times[curves.row(name)] for name in names]
    return tuple((float(row[first]), float(row[last])) for row in rows)


def _from_to(span: Span) -> str:
    return f"{clock(span[0])} to {clock(span[1])}"


def _sentence(aspect: str, spans: tuple[Span, ...], values: tuple[float, ...], alone: bool) -> str:
    """Say how one performance, or A and B, differ from the others, or from the other alone."""
    if len(spans) == 1:
        amount = _amount(aspect, values[0], "the other" if alone else "the others")
        return f"from {_from_to(spans[0])} it {amount}"
    told = f"from {_from_to(spans[0])} (B: {clock(spans[1][0])}), A "
    if alone:  # B's figure is A's with the other sign
        return told + _amount(aspect, values[0], "B")
    return f"{told}{_amount(aspect, values[0], 'the others')}, B {_amount(aspect, values[1])}"


def _amount(aspect: str, value: float, than: str = "") -> str:
    """Put into words how a performance differs: with what it differs from, or in short."""
    if aspect == "tempo":
        by = round(100 * float(np.expm1(value)))
        told, verb, noun = f"{abs(by)} % {'more' if by > 0 else 'less'}", "takes ", " time"
        told = told if by else "as much"
    else:
        by_db = round(value, 1)
        told, verb, noun = f"{abs(by_db):.1f} dB {'louder' if by_db > 0 else 'softer'}", "is ", ""
        told = told if by_db else "as loud"
    return f"{verb}{told}{noun} {'as' if told[:2] == 'as' else 'than'} {than}" if than else told
