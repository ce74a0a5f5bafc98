"""Asking an index: from a query to hits that say why they are hits.

A passage's vector is made of the stored vectors of the windows that it covers: those that lie
inside it; of a passage that holds no whole window the one that overlaps it most (all that overlap
it equally). Their general blocks are averaged and scaled to unit length, their aspects' blocks and
predicted values averaged. (A stored vector is all that a service has. Aspects' coordinates are
linear in the features, so that their mean is that of the windows' features, but for
`projection.REACH`.)

Hits come best first; equal scores are ordered by recording and start. In an exact index the search
is exact whatever is filtered.
"""

__all__ = ["Answer", "Hit", "Searcher", "directed", "search", "search_features"]

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mess_core.errors import SearchError, nearest
from mess_core.index.factory import FLAT, flat_index, inner_products, search_parameters
from mess_core.index.index import Index, Row, Rows
from mess_core.search import passages
from mess_core.search.passages import TIME_TOLERANCE_S, Place
from mess_core.search.query import GENERAL, Query, clip_id
from mess_core.search.scoring import Condition, Passage, Question, ask
from mess_core.search.wishes import Ranking, known_part, rankings, values_of
from mess_core.targets.npz import WINDOWS, source_of, stack_columns
from mess_core.targets.registry import ALIGNED, AUDIO, MIDI, PROBED

Features = npt.NDArray[np.floating[Any]]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

#: What aspects are read from, in words.
_WORDS = {MIDI: "MIDI", ALIGNED: "alignment", AUDIO: "audio", PROBED: "features"}

#: Scores closer than this may change places when they are computed again in float64.
_SCORE_TOLERANCE = 1e-5

_NONE = np.array([], np.int64)

#: Rows that FAISS is asked for at first, and how many times more when they do not suffice: to look
#: for a thousand costs it hardly more than to look for ten, to look again as much as before.
_AT_FIRST = 1024
_TIMES_MORE = 16

#: Rows whose likeness is known beside a wish, where the index is not exact.
_MOST_ALIKE = 16384


@dataclass(frozen=True, slots=True)
class Hit:
    """One answer."""

    #: From the recording table; all but the id may be empty.
    recording_id: str
    work_id: str
    performer: str
    composer: str
    title: str
    #: The sum of the contributions: 1 for what is equal in all that was liked, and 0 on average for
    #: what has nothing to do with the query. With a wish, the smallest of the percentiles.
    score: float
    #: The passage in seconds; 0 and the duration for a recording.
    start_s: float
    end_s: float
    #: The id by which a `Query` can start from this hit, or from the clip that is most like it.
    clip: str
    #: What ``general`` and each aspect add to the score.
    contributions: Mapping[str, float] = field(default_factory=dict)
    #: The measured or predicted values of the aspects that have a direction, in standard deviations
    #: from the corpus mean.
    predicted: Mapping[str, float] = field(default_factory=dict)
    #: Whether it is the query's passage (`mess_core.search.passages`).
    same_passage: bool = False
    #: With a wish: the share of the rows that it is above in ``likeness``, ``wish 1``, ...
    percentiles: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a question found."""

    #: Best first; fewer than ``k`` where there are no more.
    hits: tuple[Hit, ...]
    #: What has to be known about them: why there are none, for example.
    notes: tuple[str, ...]
    #: The query's own predicted values, as in a hit.
    predicted: Mapping[str, float]


def search(index: Index, query: Query) -> Answer:
    """Answer a question that starts from a recording, a passage or a stored clip, or is a wish.

    Raises `SearchError` if the recording, clip or an aspect is unknown, no probe found the aspect
    well enough, it has no direction, times lie outside of the recording, or what is to be compared
    within its work has nothing to be compared with.
    """
    query, lost = known_part(index, query, directed(index))
    _check_aspects(index, query)
    if query.from_nothing and query.wish:
        answer = _from_nothing(index, query)
        return replace(answer, notes=(*lost, *answer.notes))
    place, notes = _start(index, query), lost
    if query.relative:
        _others(index, place.row)
        index = index.relative_to_work
        place = _start(index, query)
        counts = np.bincount(index.rows.table["recording"], minlength=len(index.rows.numbers))
        alone = np.count_nonzero(counts == 0)
        note = f"left out: {alone} recordings whose work has no other in the index, or is not known"
        notes += [note] if alone else []
    if query.same_passage:
        answer = _elsewhere(index, query, place)
    else:
        same = passages.same_rows(index.rows, place)
        left_out = _left_out(index, query, place.row, same)
        answer = _answer(index, query, _passage(index, place), left_out, same)
    if query.exclude == "passage" and not passages.to_work(index.rows, place):
        notes.append(f"{_not_aligned(index, place)}. Left out is only the recording's own passage")
    return replace(answer, notes=(*answer.notes, *notes))


def search_features(
    index: Index,
    features: Features,
    query: Query,
    measured: Mapping[str, npt.ArrayLike] | None = None,
) -> Answer:
    """Answer a question that starts from features made elsewhere, by the index's own encoder.

    An aspect whose own source is not there is read from one that stands in, and the answer says so.

    Raises `SearchError` as `search` does, and if the features do not fit the index or have no
    direction, or an aspect of the query cannot be read from what there is.

    Parameters
    ----------
    index : Index
        Of either kind.
    features : ndarray [shape=(layers, dims) or (windows, layers, dims)]
        Pooled features with all of the encoder's layers. Several windows are averaged: for an
        index of clips as those of a passage, for one of recordings as those of a recording.
    query : Query
        Without a recording or clip.
    measured : mapping of str to ndarray, optional
        What is measured of the audio, by the keys of targets files and of what `mess embed` writes:
        ``category/field`` of the recording, ``windows/category/field`` [windows, ...] for clips.
    """
    if query.recording_id or query.clip:
        raise SearchError("the query starts from features: it cannot name a recording or clip too")
    if query.exclude != "none":
        raise SearchError(f"features are of no recording, so no {query.exclude} can be excluded")
    if query.relative:
        raise SearchError("features are of no work, so they cannot be compared relative to one")
    query, lost = known_part(index, query, directed(index))
    _check_aspects(index, query)
    windows = _fitting(index, features)
    if index.kind == "recordings":
        windows = windows.mean(axis=0, keepdims=True, dtype=np.float64).astype(np.float32)
    rows = _measured(index, measured or {}, len(windows))
    notes, unread = _stand_ins(index, query, [] if rows is None else [AUDIO])
    vectors, predicted, usable = index.projection.project(windows, rows, [AUDIO])
    if not usable.all():
        raise SearchError(
            "the query's features are not finite or equal the corpus mean, so they have no "
            "direction to search in; check that its audio is not silent"
        )
    passage = replace(_average(index, vectors, predicted.astype(np.float64)), unread=unread)
    answer = _answer(index, query, passage)
    values = {name: value for name, value in answer.predicted.items() if name not in unread}
    return replace(answer, notes=(*lost, *answer.notes, *notes), predicted=values)


def _measured(index: Index, measured: Mapping[str, npt.ArrayLike], n: int) -> Features | None:
    """Return the columns of n windows [n, T]; None where what is to be heard was not measured."""
    columns = index.projection.columns.tolist()
    level = WINDOWS if index.kind == "clips" else ""
    heard = {level + column.partition(":")[0] for column in columns if source_of(column) == AUDIO}
    if not heard or not measured.keys() >= heard:
        return None
    rows = stack_columns(columns, lambda key: measured.get(level + key)).reshape(-1, len(columns))
    if len(rows) not in (1, n):
        raise SearchError(
            f"{len(rows)} windows are measured, but there are features of {n}; give both of the "
            "same audio"
        )
    return np.broadcast_to(rows, (n, len(columns)))


def _stand_ins(
    index: Index, query: Query, kinds: Sequence[str]
) -> tuple[list[str], frozenset[str]]:
    """Say from what a query's aspects are read if not from their own source.

    Returns with it the aspects that cannot be read; raises `SearchError` if they are asked for.
    """
    notes, projection = [], index.projection
    found = projection.read_from(kinds)
    own = dict(zip(found, (s.split()[0] for s in projection.sources.tolist()), strict=True))
    for name in query.aspects:
        lacking, source = _WORDS[own[name]], found[name]
        if not source and name not in query.ignore:
            raise SearchError(
                f"the index measures {name!r} from {lacking}, which the query does not have, "
                "and nothing else follows it well enough to stand in; leave it out, or start from "
                "a recording in the index"
            )
        if source not in (own[name], ""):
            r2 = index.aspects["aspects"][name]["agreement"][source]["r2"]
            notes.append(
                f"{name}: the query has no {lacking} to measure it from; read from "
                f"{_WORDS[source]} instead (R2 {r2:.2f})"
            )
    return notes, frozenset(name for name, source in found.items() if not source)


def _check_aspects(index: Index, query: Query) -> None:
    """Refuse a space and aspects that the index cannot be asked for."""
    if query.space not in index.projection.spaces:
        raise SearchError(
            f"space {query.space!r} is not in this index, which has "
            f"{', '.join(index.projection.spaces)}: the rule `geometry` decides which are taken; "
            "see what it found with `mess question evaluation`, or leave the space out"
        )
    for name in query.aspects:
        if name not in index.projection.aspects:
            raise SearchError(_why_not(index, name))
    for name in (*query.more, *query.less):
        if np.isnan(index.projection.standard_errors[index.projection.aspects[name].number]):
            raise SearchError(
                f"there is no more or less of {name!r}: it is a shape, or rises for several "
                "reasons; search for what is like or unlike in it, or for more or less of "
                f"{', '.join(directed(index)) or 'nothing: no aspect has a direction'}"
            )


def directed(index: Index) -> list[str]:
    """Return the aspects that `more` and `less` can be asked of."""
    errors = index.projection.standard_errors
    return [name for name, a in index.projection.aspects.items() if not np.isnan(errors[a.number])]


def _why_not(index: Index, name: str) -> str:
    known = index.aspects.get("aspects", {})
    usable = ", ".join(sorted(index.projection.aspects))
    if not known and not usable:
        return (
            f"the index has no aspect map, so it cannot be searched by {name!r}; probe the "
            "targets, resolve the aspects and build the index again"
        )
    if name not in known:
        return f"aspect {name!r} is unknown: {nearest(name, [*known, GENERAL])}"
    entry = known[name]
    best = max((found["r2"] for found in entry["agreement"].values()), default=None)
    reached = "no target of it was measured" if best is None else f"R2 {best:.2f}"
    return (
        f"aspect {name!r} is not resolved: the best that was reached is {reached}, the limit "
        f"min_r2 is {index.aspects.get('min_r2')} ({entry.get('reason') or 'no reason given'}); "
        f"search by a resolved aspect ({usable or 'there is none'}), probe more recordings, or "
        "lower min_r2 and resolve the aspects again"
    )


def _start(index: Index, query: Query) -> Place:
    """Return where a query starts from."""
    if query.clip is not None:
        return _stored_clip(index, query.clip)
    if query.recording_id is None:
        raise SearchError("the query says nothing to start from: give a recording or a clip")
    rows = _rows_of(index, query.recording_id)
    if query.start_s is None:
        return _spanning(index, rows)
    if index.kind != "clips":
        raise SearchError(f"this is an index of {index.kind}; passages need an index of clips")
    return _covering(index, rows, query.start_s, query.end_s)


def _rows_of(index: Index, recording_id: str) -> Ints:
    try:
        return index.rows.positions(recording_id)
    except KeyError:
        raise SearchError(
            f"recording {recording_id!r} is not in the index: "
            f"{nearest(recording_id, index.rows.numbers)}"
        ) from None


def _spanning(index: Index, positions: Ints) -> Place:
    table, row = index.rows.table[positions], index.rows[int(positions[0])]
    return Place(positions, row, (float(table["start_s"].min()), float(table["end_s"].max())))


def _stored_clip(index: Index, clip: str) -> Place:
    recording_id, _, start = clip.rpartition("@")
    rows = _rows_of(index, recording_id) if recording_id else np.array([], np.int64)
    try:
        wanted = float(start)
    except ValueError:
        wanted = np.nan
    found = rows[np.abs(index.rows.table["start_s"][rows] - wanted) <= TIME_TOLERANCE_S]
    if not len(found):
        raise SearchError(
            f"there is no clip {clip!r}; a clip is RECORDING@START as hits give it, for example "
            f"{clip_id(index.rows[0].recording_id, index.rows[0].start_s)}"
        )
    return _spanning(index, np.asarray(found[:1]))


def _covering(index: Index, rows: Ints, start: float, end: float | None) -> Place:
    starts, ends = index.rows.table["start_s"][rows], index.rows.table["end_s"][rows]
    first, last = float(starts.min()), float(ends.max())
    if end is None:
        end = min(start + float(ends[0] - starts[0]), last)
    if not first - TIME_TOLERANCE_S <= start < end <= last + TIME_TOLERANCE_S:
        raise SearchError(
            f"{start:g} to {end:g} s is no passage of recording "
            f"{index.rows[int(rows[0])].recording_id}: its indexed windows cover {first:g} to "
            f"{last:g} s, and the start must come before the end"
        )
    inside = (starts >= start - TIME_TOLERANCE_S) & (ends <= end + TIME_TOLERANCE_S)
    if not inside.any():
        overlaps = np.minimum(ends, end) - np.maximum(starts, start)
        inside = overlaps >= overlaps.max() - TIME_TOLERANCE_S
    kept = rows[inside]
    return Place(kept, index.rows[int(kept[0])], (start, end))


def _fitting(index: Index, features: Features) -> Features:
    dims, highest = index.projection.dims, int(index.projection.layers.max())
    if not np.issubdtype(features.dtype, np.floating):
        raise SearchError(f"features are {features.dtype}, expected floats, as `mess embed` writes")
    if features.ndim == 2:
        features = features[np.newaxis]
    if features.ndim != 3 or 0 in features.shape or features.shape[2] != dims:
        raise SearchError(f"features have shape {features.shape}, expected (..., layers, {dims})")
    if features.shape[1] <= highest:
        raise SearchError(
            f"features have {features.shape[1]} layers, but the index uses layer {highest}; "
            "give all layers of the encoder that made the index"
        )
    return features[:, index.projection.layers]


def _passage(index: Index, place: Place) -> Passage:
    return _average(index, index.stored(place.positions), index.predicted[:, place.positions].T)


def _average(index: Index, vectors: Features, predicted: Features) -> Passage:
    mean = vectors.mean(axis=0, dtype=np.float64)[np.newaxis]
    end = index.projection.components
    borders = [end, end + len(index.projection.offset)]
    components, blocks, _ = np.split(mean, borders, axis=1)
    vector = index.projection.lay_out(components, blocks)[0]
    return Passage(vector, predicted.mean(axis=0, dtype=np.float64))


def _others(index: Index, own: Row) -> list[str]:
    """Return the other recordings of a row's work; if there are none, that is an error."""
    columns = (index.rows.recordings[name] for name in ("recording_id", "work_id"))
    works = dict(zip(*columns, strict=True))
    others = [name for name, work in works.items() if work == own.work_id and work]
    if len(others) < 2:
        raise SearchError(
            f"the index has no other recording of the work of {own.recording_id} "
            f"({own.work_id or 'not known'}) to compare it with; fill work_id in the recording "
            "table, or add a recording, and build the index again"
        )
    return [name for name in others if name != own.recording_id]


def _from_nothing(index: Index, query: Query) -> Answer:
    """Answer a question that is only a wish."""
    if query.start_s is not None:
        raise SearchError("a start or end is of a recording: name it, or leave the times out")
    if query.aspects or query.like or query.exclude != "none" or query.space != GENERAL:
        raise SearchError(
            "the question names no recording or clip to start from, so that nothing can be like or "
            "unlike it, more or less than it, ignored or excluded; give one, or only a wish"
        )
    if query.relative:
        works = [work for work in index.rows.recordings["work_id"] if work]
        if len(works) == len(set(works)):
            raise SearchError("no work has several recordings in the index to be compared with")
        index = index.relative_to_work
    return _answer(index, query, None)


def _elsewhere(index: Index, query: Query, place: Place) -> Answer:
    """Answer where other recordings play the passage, from an index of just these places."""
    others, work_s = _others(index, place.row), passages.to_work(index.rows, place)
    if not work_s:
        raise SearchError(_not_aligned(index, place))
    spans = {name: passages.to_recording(index.rows, name, work_s) for name in others}
    places = [_covering(index, index.rows.positions(n), *span) for n, span in spans.items() if span]
    missing = f"not aligned there: {', '.join(name for name in others if not spans[name])}"
    if not places:
        raise SearchError(f"no other recording of the work has all of the passage; {missing}")
    found = [_passage(index, each) for each in places]
    vectors = flat_index(index.projection.width)
    vectors.add(np.array([each.vector for each in found], np.float32))
    there = replace(
        index,
        rows=Rows.of(replace(p.row, start_s=p.span[0], end_s=p.span[1]) for p in places),
        predicted=np.array([each.predicted for each in found], np.float32).T,
        vectors=vectors,
        factory=FLAT,
    )
    answer = _answer(there, query, _passage(index, place), same=np.arange(len(places)))
    clips = {p.row.recording_id: clip_id(p.row.recording_id, p.row.start_s) for p in places}
    hits = tuple(replace(hit, clip=clips[hit.recording_id]) for hit in answer.hits)
    notes = [missing] if len(places) < len(others) else []
    notes += ["raise k to see more"] if len(places) > len(hits) == query.k else []
    return replace(answer, hits=hits, notes=(*answer.notes, *notes))


def _not_aligned(index: Index, place: Place) -> str:
    if np.isnan(index.rows.table["work_start_s"]).all():
        return (
            "the index has no work times, so nothing tells which passages are the same; align the "
            "recordings (snakemake all_alignments), and build and publish the index again"
        )
    name = place.row.recording_id
    aligned = [
        f"{times[0]:g} to {times[-1]:g}" for times, _ in passages.stretches(index.rows, name)
    ]
    return (
        f"{place.span[0]:g} to {place.span[1]:g} s of recording {name} is not aligned with other "
        f"performances of its work; what is aligned: {', '.join(aligned) or 'nothing'} s"
    )


def _left_out(index: Index, query: Query, own: Row, same: Ints) -> Ints:
    """Return which rows are excluded."""
    if query.exclude == "none":
        return same[:0]
    if query.exclude == "recording":
        return index.rows.positions(own.recording_id)
    if query.exclude == "passage":
        if index.kind != "clips":
            raise SearchError(
                f"this is an index of {index.kind}; exclude 'recording' or 'work', not a passage"
            )
        return same
    if not own.work_id:
        raise SearchError(
            f"the work of recording {own.recording_id} is not known, so it cannot be excluded; "
            "fill work_id in the recording table, or exclude 'recording'"
        )
    return np.flatnonzero(index.rows.having("work_id", [own.work_id]))


def _answer(
    index: Index,
    query: Query,
    passage: Passage | None,
    left_out: Ints = _NONE,
    same: Ints = _NONE,
) -> Answer:
    """Answer a question; some rows are left out, and some are the same passage."""
    question = ask(index.projection, query, passage) if passage else None
    conditions = question.conditions if question else ()
    allowed = _allowed(index, query, left_out)
    kept = _fulfilling(index, conditions, allowed)
    notes: list[str] = []
    if query.wish:
        hits, notes = _wished(index, question, kept, query, same)
    elif question:
        hits = _best(index, question, kept, query, same)
    notes += [] if hits else [_why_nothing(index, query, conditions, allowed)]
    return Answer(tuple(hits), tuple(notes), _values(index, passage.predicted) if passage else {})


def _allowed(index: Index, query: Query, left_out: Ints) -> Bools | None:
    """Return which rows may be hits, None where all may."""
    allowed: Bools | None = None
    for column, values in query.where.items():
        if column == "dataset":
            own = index.facts.get("dataset")
            mine = np.full(len(index.rows), own in values)
        else:
            mine = index.rows.having(column, values)
        allowed = mine if allowed is None else allowed & mine
    if len(left_out):
        allowed = np.ones(len(index.rows), np.bool_) if allowed is None else allowed
        allowed[left_out] = False
    return allowed


def _fulfilling(
    index: Index, conditions: Sequence[Condition], allowed: Bools | None
) -> Bools | None:
    for condition in conditions:
        met = condition.met(index.predicted[condition.number])
        allowed = met if allowed is None else allowed & met
    return allowed


def _best(
    index: Index, question: Question, allowed: Bools | None, query: Query, same: Ints
) -> list[Hit]:
    """Return the best k hits, none of which overlaps a better one by more than was asked for."""
    left = len(index.rows) if allowed is None else int(allowed.sum())
    wanted = min(max(_AT_FIRST, 4 * query.k), left)
    while wanted:
        scores, rows = _nearest(index, question, wanted, allowed)
        ranked = _ranked(index, question, _worth(scores, rows, query))
        kept = _distinct(index, ranked.positions, query)
        if (
            wanted == left
            or len(rows) < wanted
            or (
                len(kept) == query.k
                and _is_settled(index, question, scores, ranked.scores[kept[-1]])
            )
        ):
            return _hits(
                index, question, ranked.positions[kept], ranked.scores[kept].tolist(), same
            )
        wanted = min(_TIMES_MORE * wanted, left)
    return []


def _wished(
    index: Index, question: Question | None, allowed: Bools | None, query: Query, same: Ints
) -> tuple[list[Hit], list[str]]:
    """Return the best k hits of a question with a wish, and what has to be known about them."""
    rows = np.arange(len(index.rows)) if allowed is None else np.flatnonzero(allowed)
    if not len(rows):
        return [], []
    known = len(rows) if index.exact else min(_MOST_ALIKE, len(rows))
    criteria = {f"wish {n}": values_of(index, group)[rows] for n, group in enumerate(query.wish, 1)}
    # The same passage is alike already: what is not said to matter does not.
    said = query.like or query.unlike or query.more or query.less
    if question and (said or not query.same_passage):
        criteria = {"likeness": _likeness(index, question, known, allowed)[rows], **criteria}
    for ranking in rankings([*criteria.values()], query.k):
        order, scores = _in_order(index, rows, ranking)
        found = rows[ranking.rows[order]]
        kept = _distinct(index, found, query)
        if len(kept) == query.k and scores[kept[-1]] >= ranking.floor:
            break
    percentiles = ranking.percentiles[:, order[kept]].T.tolist()
    told = [dict(zip(criteria, each, strict=True)) for each in percentiles]
    hits = _hits(index, question, found[kept], scores[kept].tolist(), same, told)
    unsure = "likeness" in criteria and hits[-1].score < 1 - known / len(rows)
    note = f"likeness was compared for the {known} rows most alike; others might be better"
    return hits, [note] if unsure else []


def _likeness(index: Index, question: Question, known: int, allowed: Bools | None) -> Features:
    """Return every row's score [n] without its constant, -inf where it is not among the best known.

    Rounded to what float32 leaves, so that equal rows stay equal.
    """
    if index.exact:
        scores = inner_products(index.vectors, question.vector)
    else:
        scores = np.full(len(index.rows), -np.inf, np.float32)
        found, rows = _nearest(index, question, known, allowed)
        scores[rows] = found
    return np.asarray(np.round(scores / _SCORE_TOLERANCE))


def _in_order(index: Index, rows: Ints, ranking: Ranking) -> tuple[Ints, Features]:
    """Return the order of a ranking, the best first, and the scores in it."""
    table = index.rows.table[rows[ranking.rows]]
    used, own = np.unique(table["recording"], return_inverse=True)
    ids = index.rows.recordings["recording_id"]
    places = np.argsort(np.argsort([ids[number] for number in used.tolist()]))
    scores, means = ranking.percentiles.min(axis=0), ranking.percentiles.mean(axis=0)
    keys = (table["start_s"], places[own], -means.round(12), -scores)
    order = np.lexsort(keys)
    return order, scores[order]


def _is_settled(index: Index, question: Question, scores: Features, last: float) -> bool:
    """Return whether no row that FAISS has not returned belongs before the last hit.

    They score no more than the last that it has; it breaks ties by position. An index that
    compresses returns the best that it can find, so there are no ties to be looked for.
    """
    return not index.exact or last > float(scores[-1]) + question.constant + _SCORE_TOLERANCE


def _nearest(
    index: Index, question: Question, wanted: int, allowed: Bools | None
) -> tuple[Features, Ints]:
    parameters = search_parameters(index.vectors, wanted, allowed)
    scores, rows = index.vectors.search(question.vector[np.newaxis], wanted, params=parameters)
    found = rows[0] >= 0
    return scores[0][found], rows[0][found]


def _worth(scores: Features, rows: Ints, query: Query) -> Ints:
    """Return the rows that can be among the hits by what FAISS says, the best first."""
    if query.dedupe_s or len(rows) <= query.k:
        return rows
    return np.asarray(rows[scores >= scores[query.k - 1] - 2 * _SCORE_TOLERANCE])


class _Ranked(NamedTuple):
    """Rows, best first; equal scores are ordered by recording and start."""

    positions: Ints
    scores: npt.NDArray[np.float64]


def _ranked(index: Index, question: Question, positions: Ints) -> _Ranked:
    scores = question.contributions(index.stored(positions)).sum(axis=1)
    ids = index.rows.recordings["recording_id"]
    rows = index.rows.table[positions].tolist()
    keys = [(-s, ids[row[0]], row[1]) for s, row in zip(scores.tolist(), rows, strict=True)]
    order = np.array(sorted(range(len(keys)), key=keys.__getitem__), np.int64)
    return _Ranked(positions[order], scores[order])


def _distinct(index: Index, positions: Ints, query: Query) -> list[int]:
    """Return the first k places of rows, best first, that overlap none before too much."""
    if not query.dedupe_s:
        return list(range(len(positions)))[: query.k]
    apart_s = query.dedupe_s - TIME_TOLERANCE_S
    kept: list[int] = []
    taken: dict[int, list[float]] = {}
    rows = index.rows.table[positions].tolist()
    for place, (recording, start_s, *_) in enumerate(rows):
        starts = taken.setdefault(recording, [])
        if all(abs(start_s - start) >= apart_s for start in starts):
            starts.append(start_s)
            kept.append(place)
            if len(kept) == query.k:
                break
    return kept


def _hits(
    index: Index,
    question: Question | None,
    positions: Ints,
    scores: Sequence[float],
    same: Ints,
    percentiles: Sequence[Mapping[str, float]] = (),
) -> list[Hit]:
    """Make hits of rows, the best first."""
    parts: list[dict[str, float]] = [{} for _ in scores]
    if question:
        each = question.contributions(index.stored(positions)).tolist()
        parts = [dict(zip(question.weights, row, strict=True)) for row in each]
    told = percentiles or [{} for _ in scores]
    entries = zip(positions.tolist(), scores, parts, told, strict=True)
    return [_hit(index, *entry, same_passage=entry[0] in same) for entry in entries]


def _hit(
    index: Index,
    position: int,
    score: float,
    contributions: Mapping[str, float],
    percentiles: Mapping[str, float],
    *,
    same_passage: bool,
) -> Hit:
    row = index.rows[position]
    return Hit(
        recording_id=row.recording_id,
        work_id=row.work_id,
        performer=row.performer,
        composer=row.composer,
        title=row.title,
        score=score,
        start_s=row.start_s,
        end_s=row.end_s,
        clip=clip_id(row.recording_id, row.start_s),
        contributions=contributions,
        predicted=_values(index, index.predicted[:, position]),
        same_passage=same_passage,
        percentiles=percentiles,
    )


def _values(index: Index, predicted: Features) -> dict[str, float]:
    values = zip(index.projection.names.tolist(), predicted.tolist(), strict=True)
    return {name: value for name, value in values if not math.isnan(value)}


def _why_nothing(
    index: Index, query: Query, conditions: Sequence[Condition], allowed: Bools | None
) -> str:
    if allowed is not None and not allowed.any():
        asked = [f"{column}={'|'.join(values)}" for column, values in query.where.items()]
        asked += [f"another {query.exclude} than the query"] if query.exclude != "none" else []
        asked += ["the same passage"] if query.same_passage else []
        unknown = [_unknown_value(index, *entry) for entry in query.where.items()]
        hints = "; ".join(["", *filter(None, unknown)])
        return f"nothing is left to search: no row of the index has {' and '.join(asked)}{hints}"
    left = np.ones(len(index.rows), np.bool_) if allowed is None else allowed
    told = [_unmet(c, index.predicted[c.number][left]) for c in conditions]
    together = " (at once)" if len(told) > 1 else ""
    return (
        f"no row satisfies{together}: {'; '.join(told)}. Ask for less, or exclude and filter less"
    )


def _unknown_value(index: Index, column: str, values: tuple[str, ...]) -> str | None:
    """Return what there is instead of values that a column has not."""
    own = [str(index.facts.get("dataset"))]
    known = own if column == "dataset" else sorted(set(index.rows.recordings[column]))
    missing = [value for value in values if value not in known]
    return f"no {column} is {missing[0]!r}: {nearest(missing[0], known)}" if missing else None


def _unmet(condition: Condition, values: Features) -> str:
    word, extreme = ("more", values.max()) if condition.sign > 0 else ("less", values.min())
    furthest = "highest" if condition.sign > 0 else "lowest"
    steps = f"{condition.asked:g} step{'' if condition.asked == 1 else 's'}"
    return (
        f"{word} {condition.aspect} by {steps} means a value "
        f"of {condition.limit:+.2f} (the query has {condition.start:+.2f}), and the {furthest} of "
        f"{len(values)} rows is {extreme:+.2f}"
    )


class Searcher:
    """For services: answers from the latest index that it opened; threads may share it.

    Parameters
    ----------
    open_index : callable
        Opens the latest index; called once here, and by `refresh`.
    latest_version : callable, optional
        Tells the latest version's id, or None where that cannot be told, so that `refresh` need not
        open what it has.

    Examples
    --------
    >>> searcher = Searcher.of("s3://bucket/prefix", "demo", "clips", cache_dir=Path("cache"))
    >>> answer = searcher.search(Query("chopin_op28_7_singing", 5.0, 10.0, exclude="work"))
    """

    def __init__(
        self,
        open_index: Callable[[], Index],
        latest_version: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._open = open_index
        self._latest_version = latest_version
        self._refreshing = Lock()
        self._index = open_index()

    @classmethod
    def of(
        cls, location: str, dataset: str, kind: str, *, cache_dir: Path, client: Any = None
    ) -> "Searcher":
        """Open what is published; the parameters are those of `load_published`."""
        from mess_core.publishing import load_published, published_version

        return cls(
            lambda: load_published(location, dataset, kind, cache_dir=cache_dir, client=client),
            lambda: published_version(location, dataset, kind, client=client),
        )

    @property
    def index(self) -> Index:
        """The index that the next question is asked of. A later `refresh` does not change it."""
        return self._index

    def search(self, query: Query) -> Answer:
        """Answer a question; see `mess_core.search.search`."""
        return search(self._index, query)

    def search_features(
        self,
        features: Features,
        query: Query,
        measured: Mapping[str, npt.ArrayLike] | None = None,
    ) -> Answer:
        """Answer a question about features; see `mess_core.search.search_features`."""
        return search_features(self._index, features, query, measured)

    def refresh(self) -> bool:
        """Take the latest index, without a pause for those who search; say whether it is another.

        Questions that have begun end on the index that they began with. Where opening fails the old
        index stays, and the error of `load_published` is raised.
        """
        with self._refreshing:
            if self._latest_version() == self._index.version_id:
                return False
            latest = self._open()
            changed = latest.version_id != self._index.version_id
            if changed:
                self._index = latest
            return changed
