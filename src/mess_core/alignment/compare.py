"""Performances of a work compared: who stretches a passage, where two differ, what is each one's.

*Than the others* is against the mean, over all other performances of the work that play the place,
of log duration or of dB; of two performances the other is all the others. Standard errors are those
of the alignment, carried over to durations. They say how well a duration is known, not whether the
player would do it again.
"""

__all__ = [
    "Comparison",
    "Description",
    "Place",
    "Ranked",
    "Ranking",
    "Segment",
    "compare",
    "describe",
    "stretch",
]

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from mess_core.alignment.curves import RATE, WorkCurves, consensus, relative, work_curves
from mess_core.alignment.maps import Alignment, WorkAlignment
from mess_core.errors import AlignmentError, nearest
from mess_core.progress import clock
from mess_core.targets.curves import Float, mean_of
from mess_core.targets.expression import CENTRAL, articulation_ratio, pedal_share
from mess_core.targets.notes import Performance

#: A passage's surroundings: as long as the passage on both sides, and at least so long, s.
SURROUNDINGS_S = 10.0

#: Less of the surroundings tells nothing of a performance's tempo around a passage, s.
MIN_SURROUNDINGS_S = 4.0

#: What differs by more than so many standard errors of the difference is not tied.
CLEAR = 2.0

#: A place may lack so much at the edge of a region, s.
EDGE_S = 0.05

#: Lengths of the passages that are looked through for what is characteristic, s of work time: from
#: about a bar to a phrase.
LENGTHS_S = (2.0, 4.0, 8.0)

#: What is not said of a place because it is hardly heard: 5 % of time, 1 dB.
LEAST = {"tempo": float(np.log(1.05)), "loudness": 1.0}

#: Fewer performances have no standard deviation worth dividing by.
MIN_FOR_DEVIATIONS = 4

#: Length of the segments that articulation and pedal are compared in, s of work time: about a bar.
SEGMENT_S = 4.0

Span = tuple[float, float]


@dataclass(frozen=True)
class Ranked:
    """How much a performance stretches a passage.

    ``rank`` is one more than the number of performances that clearly stretch it more; ``tied`` says
    that others have it too. ``stretch`` is how much longer it takes than the others, its tempo
    around the passage aside: log, with its standard ``error``.
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
    """All performances that play a passage, the most stretched first, and why others are not in it.

    ``surroundings`` is the work time from where to where the tempo around the passage counts.
    """

    work_id: str
    passage: Span
    surroundings: Span
    rows: tuple[Ranked, ...]
    left_out: Mapping[str, str]


@dataclass(frozen=True)
class Place:
    """Where a performance is itself, or A and B differ.

    ``aspect`` is ``tempo`` or ``loudness``; ``spans`` are from where to where it is in one
    recording, or in A and B, s; ``values`` how much more time they take than the others (log), or
    how much louder they are (dB), each beside its own mean over the work. ``alone`` says that the
    work has no more performances than two.
    """

    aspect: str
    spans: tuple[Span, ...]
    values: tuple[float, ...]
    alone: bool

    @property
    def sentence(self) -> str:
        """The place in words."""
        if len(self.spans) == 1:
            amount = _amount(self.aspect, self.values[0], "the other" + "s" * (not self.alone))
            return f"from {_from_to(self.spans[0])} it {amount}"
        told = f"from {_from_to(self.spans[0])} (B: {clock(self.spans[1][0])}), A "
        if self.alone:  # B's figure is A's with the other sign
            return told + _amount(self.aspect, self.values[0], "B")
        told += _amount(self.aspect, self.values[0], "the others")
        return f"{told}, B {_amount(self.aspect, self.values[1])}"


@dataclass(frozen=True)
class Segment:
    """Articulation (key-overlap ratio) and share of pedal of A and B in about a bar."""

    spans: tuple[Span, ...]
    articulation: tuple[float, ...]
    pedal: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two performances of a work, or of a passage of it.

    Attributes
    ----------
    recordings : tuple of str
        The two, A and B.
    curves : WorkCurves
        All performances of the work.
    part : slice
        Which columns of the curves are compared.
    spans : tuple of (float, float)
        From where to where the two are compared, s of each.
    tempo, loudness : ndarray [shape=(2, m)]
        How far they are from the consensus: in standard deviations over the performances where
        ``in_deviations``, else in % of tempo and in dB.
    in_deviations : bool
        There are four or more performances.
    places : tuple of Place
        Where the two differ most, in tempo and in loudness, in the order of time.
    segments : tuple of Segment
        Empty where one of them has no notes.
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

    ``duration_s`` is of what is aligned; ``tempo_percent`` how much faster than the consensus it is
    there, ``timing_deviation`` the target of that name, ``loudness_difference`` in dB;
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
    places: tuple[Place, ...] = field(default=())


def stretch(work: WorkAlignment, recording_id: str, start_s: float, end_s: float) -> Ranking:
    """Rank all performances by how much they stretch a passage against the tempo around it.

    The stretch of a performance is the log of its duration of the passage over its duration of the
    surroundings, less the mean of the others'. Where it does not play all of the surroundings, its
    duration of them is made up at the consensus's proportions.

    Parameters
    ----------
    work : WorkAlignment
    recording_id : str
        Whose seconds ``start_s`` and ``end_s`` are.

    Raises `AlignmentError` if the recording is not aligned there, or fewer than two are.
    """
    passage = _passage(work, recording_id, start_s, end_s)
    around = max(SURROUNDINGS_S, passage[1] - passage[0])
    end = work.alignments[work.reference].work_times[-1]
    surroundings = (max(0.0, passage[0] - around), min(end, passage[1] + around))
    curves = work_curves(work)
    measured: list[Ranked] = []
    left_out = dict(work.left_out)
    for name, alignment in work.alignments.items():
        pieces = _pieces(alignment, *passage)
        beside = _pieces(alignment, surroundings[0], passage[0])
        beside = np.concatenate([beside, _pieces(alignment, passage[1], surroundings[1])])
        if len(pieces) != 1 or np.ptp(pieces) < passage[1] - passage[0] - EDGE_S:
            left_out[name] = "does not play all of the passage"
        elif np.diff(beside).sum() < MIN_SURROUNDINGS_S:
            left_out[name] = f"plays less than {MIN_SURROUNDINGS_S:g} s around the passage"
        else:
            measured.append(_measured(name, alignment, pieces, beside, curves))
    if len(measured) < 2:
        raise AlignmentError(
            f"fewer than two performances of {work.work_id} play {_from_to((start_s, end_s))} of "
            f"{recording_id} and the music around it: {left_out}"
        )
    return Ranking(work.work_id, passage, surroundings, _ranked(measured), left_out)


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
    curves = work_curves(work)
    rows = [curves.row(a), curves.row(b)]
    end_s = np.inf if end_s is None else end_s
    within = (curves.times[rows[0]] >= start_s) & (curves.times[rows[0]] <= end_s)
    both = np.flatnonzero(within & np.isfinite(curves.times[rows[1]]))
    if a == b or len(both) < 2:
        why = "they are the same" if a == b else f"{_aligned(work, a)}; {_aligned(work, b)}"
        raise AlignmentError(f"{a} and {b} have nothing to compare there: {why}")
    part = slice(int(both[0]), int(both[-1]) + 1)
    in_deviations = len(curves.recordings) >= MIN_FOR_DEVIATIONS
    tempo = _from_consensus(curves.log_tempo, curves.consensus_tempo, in_deviations)
    loudness = _from_consensus(curves.loudness, curves.consensus_loudness, in_deviations)
    notes = performances or {}
    return Comparison(
        recordings=(a, b),
        curves=curves,
        part=part,
        spans=tuple(_span(curves, name, part.start, part.stop - 1) for name in (a, b)),
        tempo=(tempo if in_deviations else 100 * np.expm1(tempo))[rows, part],
        loudness=loudness[rows, part],
        in_deviations=in_deviations,
        places=_characteristic(curves, (a, b), part, places),
        segments=_segments(curves, (a, b), part, notes) if {a, b} <= set(notes) else (),
    )


def describe(work: WorkAlignment, *, places: int = 2) -> tuple[Description, ...]:
    """Describe all performances of a work, the fastest first."""
    curves = work_curves(work)
    told = [_described(curves, name, each, places) for name, each in work.alignments.items()]
    return tuple(sorted(told, key=lambda each: -np.nan_to_num(each.tempo_percent, nan=-np.inf)))


def _alignment(work: WorkAlignment, recording_id: str) -> Alignment:
    if recording_id in work.left_out:
        reason = work.left_out[recording_id]
        raise AlignmentError(f"{recording_id} is left out of {work.work_id}: {reason}")
    if recording_id not in work.alignments:
        raise AlignmentError(
            f"{recording_id!r} is no aligned performance of {work.work_id}: "
            f"{nearest(recording_id, work.alignments)}"
        )
    return work.alignments[recording_id]


def _passage(work: WorkAlignment, recording_id: str, start_s: float, end_s: float) -> Span:
    """Return the work times of a passage of a recording."""
    alignment = _alignment(work, recording_id)
    if not start_s < end_s:
        raise AlignmentError(
            f"the passage from {clock(start_s)} to {clock(end_s)} has no length; give --to a later "
            "time than --from"
        )
    start, end = alignment.to_work(np.array([start_s, end_s])).tolist()
    if not np.isfinite(start + end):
        raise AlignmentError(
            f"{recording_id} is not aligned from {clock(start_s)} to {clock(end_s)}: "
            f"{_aligned(work, recording_id)}"
        )
    return start, end


def _aligned(work: WorkAlignment, recording_id: str) -> str:
    regions = work.alignments[recording_id].regions
    return f"{recording_id} is aligned from " + ", ".join(_from_to((a, b)) for a, b in regions)


def _pieces(alignment: Alignment, start: float, end: float) -> Float:
    """Return the parts of a stretch of work time that a recording plays [shape=(n, 2)]."""
    spans = np.interp(alignment.regions, alignment.times, alignment.work_times)
    parts = np.clip(spans, start, end)
    return np.asarray(parts[parts[:, 1] > parts[:, 0]])


def _measured(
    name: str, alignment: Alignment, passage: Float, beside: Float, curves: WorkCurves
) -> Ranked:
    """Return a performance's log duration of a passage over that of what lies beside it."""
    own, around = (
        np.interp(work, alignment.work_times, alignment.times) for work in (passage, beside)
    )
    duration, beside_s = np.diff(own).sum(), np.diff(around).sum()
    usual = np.diff(np.interp(beside, curves.work_times, curves.consensus_times)).sum()
    # How the log ratio moves with each of the times that it is made of; some are in it twice.
    moves = np.array([-1.0, 1.0])
    times, place = np.unique(np.concatenate([own.ravel(), around.ravel()]), return_inverse=True)
    weights = np.concatenate([moves / duration, np.tile(-moves / beside_s, len(around))])
    errors = np.interp(times, alignment.times, alignment.errors)
    variance = float((np.bincount(place, weights) ** 2 * errors**2).sum())
    ratio = float(np.log(duration) - np.log(beside_s / usual))
    return Ranked(name, float(own[0, 0]), float(own[0, 1]), ratio, variance**0.5)


def _ranked(measured: list[Ranked]) -> tuple[Ranked, ...]:
    """Put performances in order, with ties, and each against the others."""
    value = np.array([each.stretch for each in measured])
    variance = np.array([each.error for each in measured]) ** 2
    others = len(measured) - 1
    against = value - (value.sum() - value) / others
    error = np.sqrt(variance + (variance.sum() - variance) / others**2)
    # A partial order, whatever the errors are: who is clearly above one is above all below that.
    clear = value - value[:, None] > CLEAR * np.sqrt(variance + variance[:, None])
    ranks = 1 + clear.sum(axis=1)
    rows = [
        Ranked(
            *(each.recording_id, each.start_s, each.end_s, float(against[i]), float(error[i])),
            rank=int(ranks[i]),
            tied=bool((ranks == ranks[i]).sum() > 1),
        )
        for i, each in enumerate(measured)
    ]
    return tuple(sorted(rows, key=lambda row: (row.rank, -row.stretch)))


def _from_consensus(values: Float, common: Float, in_deviations: bool) -> Float:
    """Return how far curves are from the consensus: in deviations, else log tempo or dB."""
    centred = values - common
    if not in_deviations:
        return centred
    there = np.isfinite(centred)
    counts = there.sum(axis=0)
    squares = np.where(there, centred**2, 0.0).sum(axis=0)
    spread = np.sqrt(squares / np.maximum(counts - 1, 1))
    enough = (counts >= MIN_FOR_DEVIATIONS) & (spread > 0)
    undefined = np.full(centred.shape, np.nan)
    return np.asarray(np.divide(centred, spread, out=undefined, where=enough))


def _windows(curves: WorkCurves, aspect: str, length: int) -> tuple[Float, Float]:
    """Return how much each performance differs from the others over windows, and with what error.

    Log time or dB of the window from each column to ``length`` columns later, beside the
    performance's own mean over the work. NaN where a window is not played in one go.
    """
    gaps = np.cumsum(~np.isfinite(curves.times), axis=1)
    whole = (gaps[:, length:] == gaps[:, :-length]) & np.isfinite(curves.times[:, :-length])
    if aspect == "tempo":
        spent = curves.times[:, length:] - curves.times[:, :-length]
        values = np.log(np.where(whole, spent, np.nan))
        variance = curves.errors[:, length:] ** 2 + curves.errors[:, :-length] ** 2
        errors = np.sqrt(variance) / spent
    else:
        heard = np.isfinite(curves.loudness)
        sums = np.cumsum(np.where(heard, curves.loudness, 0.0), axis=1)
        counts = np.cumsum(heard, axis=1)
        many = counts[:, length:] - counts[:, :-length]
        mean = (sums[:, length:] - sums[:, :-length]) / np.maximum(many, 1)
        values = np.where(whole & (many > length / 2), mean, np.nan)
        errors = np.zeros(values.shape)
    common, levels = consensus(values)
    counts = np.isfinite(values).sum(axis=0)
    against = (values - common - levels[:, None]) * counts / np.maximum(counts - 1, 1)
    return against, errors


def _characteristic(
    curves: WorkCurves, names: tuple[str, ...], part: slice, count: int
) -> tuple[Place, ...]:
    """Return where a performance differs most from the others, or two from one another."""
    rows = [curves.row(name) for name in names]
    alone = len(curves.recordings) == 2
    places: list[tuple[int, Place]] = []
    for aspect in LEAST:
        candidates = _candidates(curves, rows, part, aspect)
        taken: list[tuple[int, int]] = []
        for _, start, length, values in sorted(candidates, key=lambda each: -each[0]):
            if len(taken) < count and all(start + length <= x or y <= start for x, y in taken):
                taken.append((start, start + length))
                spans = tuple(_span(curves, name, start, start + length) for name in names)
                places.append((start, Place(aspect, spans, tuple(values.tolist()), alone)))
    return tuple(place for _, place in sorted(places, key=lambda each: each[0]))


def _candidates(
    curves: WorkCurves, rows: list[int], part: slice, aspect: str
) -> list[tuple[float, int, int, Float]]:
    """Return what can be told apart, with its first column and length: score and values."""
    found = []
    for length in (round(seconds * RATE) for seconds in LENGTHS_S):
        if part.stop - part.start <= length:
            continue
        against, errors = (
            each[rows, part.start : part.stop - length] for each in _windows(curves, aspect, length)
        )
        differs = np.abs(against[0] - (against[1] if len(rows) > 1 else 0.0))
        error = np.sqrt((errors**2).sum(axis=0))
        # Differences of single notes average out: of a longer passage, less says as much.
        found += [
            (float(differs[k]) * length**0.5, part.start + int(k), length, against[:, k])
            for k in np.flatnonzero(differs > np.maximum(LEAST[aspect], CLEAR * error))
        ]
    return found


def _segments(
    curves: WorkCurves, names: tuple[str, str], part: slice, notes: Mapping[str, Performance]
) -> tuple[Segment, ...]:
    """Return articulation and pedal of two performances in the segments that both play."""
    step = round(SEGMENT_S * RATE)
    segments = []
    for start in range(part.start, part.stop - step, step):
        spans = tuple(_span(curves, name, start, start + step) for name in names)
        if not np.isfinite(spans).all():
            continue
        cuts = [notes[name].cut(*span) for name, span in zip(names, spans, strict=True)]
        articulation = tuple(articulation_ratio(cut.overlap_ratios) for cut in cuts)
        pedal = tuple(pedal_share(cut.pedal, cut.span) for cut in cuts)
        segments.append(Segment(spans, articulation, pedal))
    return tuple(segments)


def _described(curves: WorkCurves, name: str, alignment: Alignment, places: int) -> Description:
    compared, row = relative(curves, name), curves.row(name)
    shaped = np.log(compared.smooth_ratio[np.isfinite(compared.smooth_ratio)])
    low, high = np.percentile(shaped, CENTRAL) if len(shaped) else (np.nan, np.nan)
    times = alignment.regions
    work = np.interp(times, alignment.times, alignment.work_times)
    borders = zip(times[:-1, 1], times[1:, 0], work[:-1, 1], work[1:, 0], strict=True)
    return Description(
        recording_id=name,
        duration_s=float(np.diff(times).sum()),
        tempo_percent=100 * (mean_of(compared.tempo_ratio) - 1),
        timing_deviation=float(high - low) / 2,
        loudness_difference=mean_of(compared.loudness_difference),
        loudest_s=_at_most(curves.times[row], curves.loudness[row]),
        slowest_s=_at_most(compared.times, -compared.smooth_ratio),
        gaps=tuple(((float(a), float(b)), (float(c), float(d))) for a, b, c, d in borders),
        places=_characteristic(curves, (name,), slice(0, len(curves.work_times)), places),
    )


def _at_most(times: Float, series: Float) -> float:
    """Return when a series is highest, NaN where it is nowhere known."""
    known = np.isfinite(series)
    return float(times[known][series[known].argmax()]) if known.any() else np.nan


def _span(curves: WorkCurves, name: str, first: int, last: int) -> Span:
    start, end = curves.times[curves.row(name), [first, last]].tolist()
    return start, end


def _from_to(span: Span) -> str:
    return f"{clock(span[0])} to {clock(span[1])}"


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
