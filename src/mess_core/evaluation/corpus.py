"""How good answers are on a corpus of one's own: what its recordings allow to judge.

All of `mess_core.evaluation.spaces` are judged, and whole ones beside what two measured numbers,
*tempo and loudness*, reach.

* Who finds the *same passage* by another player, where recordings are aligned or have beats, and
  the *same player* in another work, where names play several.
* *like*: whether what is like an aspect, among the players of a work, follows the truth of the
  aspect, and not that of the aspect which goes with it most (`rival`). It is asked of every aspect
  that is not its own truth, and as *like tempo* of every space.
* *more*: whether what has more of such an aspect truly has, and how far all else drifts.
* *space*: how its vectors fill it.
* *people*, *ratings*, *counterfactual* and *same notes*: as `mess_core.evaluation.judgments` and
  `mess_core.evaluation.counterfactuals` say.

Everything is read from audio, as without MIDI. Aspects were fitted to the works that are judged
here. docs/evaluation.md has figures of others.
"""

__all__ = ["asking", "evaluate", "judge_aspects", "rival", "scaled", "spans_of"]

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mess_core.evaluation.counterfactuals import judge_counterfactuals, read_counterfactuals
from mess_core.evaluation.decide import advise
from mess_core.evaluation.judges import (
    Figure,
    Line,
    Rows,
    Search,
    like_not,
    line,
    more,
    occupancy,
    same_passage,
    same_player,
)
from mess_core.evaluation.judgments import judge_files
from mess_core.evaluation.spaces import drawn, features_of, search_of, spaces_of, works_of
from mess_core.files import read_json
from mess_core.index.index import Index
from mess_core.index.projection import Projection
from mess_core.layout import DESCRIPTORS, ENCODER, UNTRAINED, Layout
from mess_core.probing.aspects import ASPECT_REGISTRY
from mess_core.probing.folds import Floats
from mess_core.probing.separability import centred, strongest, unit_columns
from mess_core.recordings import Recording
from mess_core.search.query import Query
from mess_core.search.scoring import Passage, ask
from mess_core.targets.notes import read_beats
from mess_core.targets.npz import column_reader, columns_of
from mess_core.targets.registry import AUDIO

#: What a player may be known by that is neither touch nor timing, and what that is called.
_TWO, _ALONE = ("tempo", "dynamics"), "tempo and loudness"
_MISSING = {
    "same passage": "no other player is aligned, or has beats",
    "same player": "no named player has several works",
}


def evaluate(
    layout: Layout,
    index: Index,
    recordings: Sequence[Recording],
    *,
    baselines: Sequence[str] = (UNTRAINED, DESCRIPTORS),
    varied: bool = False,
    learned: bool = False,
) -> list[Line]:
    """Judge an index of clips by what its recordings have, beside baselines (`spaces_of`).

    With ``varied`` there are counterfactuals, with ``learned`` what a learned geometry was judged
    by, in works that it has not seen (*held out*), and the verdicts on it. Every verdict is a
    line of the judge *rule*, with its text as reason.

    Returns a line per figure: ``judge``, ``asked`` (a space), ``measure``, ``against``, ``source``
    (what an aspect is read from), ``value``, ``low``, ``high``, ``chance``, ``ceiling``, ``n``,
    ``works``, and ``reason`` where there is no figure.
    """
    chosen = drawn(index)
    table = index.rows.table[chosen]
    names, players = (np.array(index.rows.recordings[c]) for c in ("recording_id", "performer"))
    rows = Rows(*(column[table["recording"]] for column in (names, works_of(index), players)))
    sizes = Counter(rows.recordings.tolist())

    def measure(columns: Sequence[str]) -> Floats:
        read = column_reader(layout, columns)
        shapes = ((name, (size, len(columns))) for name, size in sizes.items())
        return np.concatenate([np.broadcast_to(read(name), shape) for name, shape in shapes])

    projection, entries = index.projection, index.aspects.get("aspects", {})
    measured, spaces = (
        measure(projection.columns.tolist()),
        spaces_of(layout, index, chosen, baselines),
    )
    features = {s: features_of(layout.of(s), sizes) for s in {space.source for space in spaces}}
    vectors = {space.name: space.read(features[space.source], measured) for space in spaces}
    searches = {s.name: search_of(vectors[s.name], s.euclidean) for s in spaces}
    two = [entries[name]["truth"]["targets"] for name in _TWO if name in entries]
    numbers = np.nan_to_num(scaled(measure(columns_of(chain.from_iterable(two)))))
    spans = spans_of(table, rows, recordings)
    alone = {_ALONE: search_of(numbers, euclidean=True)} if len(two) == len(_TWO) else {}
    whole = {name: found for name, found in searches.items() if name not in projection.aspects}
    lines = [
        *_find("same passage", whole | alone, lambda search: same_passage(search, rows, spans)),
        *_find("same player", searches | alone, lambda search: same_player(search, rows)),
    ]
    truths = {name: entries[name]["truth"] for name in projection.aspects}
    truth = {name: scaled(measure(columns_of(told["targets"]))) for name, told in truths.items()}
    lines += _follow(whole, rows, truth)
    kept = features[ENCODER][:, projection.layers]
    stored, predicted, _ = projection.project(kept, measured, [AUDIO])
    source = projection.read_from([AUDIO])
    judged = [name for name in truths if source[name] not in ("", truths[name]["source"])]
    lines += judge_aspects(projection, stored, predicted, rows, truth, judged)
    for name in whole:
        most = {"RankMe": float(min(vectors[name].shape))}
        lines += [
            line("space", name, figure, measure=what, ceiling=most.get(what))
            for what, figure in occupancy(vectors[name], rows).items()
        ]
    lines += judge_files(layout, index, spaces, layout.judgment_files, recordings)
    if varied and (made := read_counterfactuals(layout)):
        lines += judge_counterfactuals(spaces, projection, made)
    lines += _rules(lines, read_json(layout.geometry.with_suffix(".json")) if learned else {})
    return [{**each, "source": source.get(each["asked"], "")} for each in lines]


def spans_of(table: npt.NDArray[np.void], rows: Rows, recordings: Sequence[Recording]) -> Floats:
    """Return where windows lie in their work [n, 2]: by alignment, else by beats, else NaN."""
    spans = np.column_stack([table["work_start_s"], table["work_end_s"]])
    aligned = set(rows.works[np.isfinite(spans[:, 0])].tolist())
    for recording in recordings:
        mine = rows.recordings == recording.recording_id
        if recording.beats and mine.any() and recording.work_id not in aligned:
            beats = read_beats(Path(recording.beats))
            times = np.column_stack([table["start_s"], table["end_s"]])[mine]
            spans[mine] = np.interp(times, beats, range(len(beats)))
    return spans


def _find(
    judge: str, searches: Mapping[str, Search], find: Callable[[Search], dict[str, Figure]]
) -> list[Line]:
    """Judge whether passages or players are found; say once what is missing."""
    return [
        line(judge, space, figure, measure=measure, reason=_MISSING[judge])
        for space, search in searches.items()
        for measure, figure in find(search).items()
        if not np.isnan(figure.value) or (space, measure) == ("general", "MRR")
    ]


def _follow(searches: Mapping[str, Search], rows: Rows, truth: Mapping[str, Floats]) -> list[Line]:
    """Judge whether what is like in whole spaces follows aspects, beyond the rivals of these."""
    together = cache(lambda row: np.array([s(row) for s in searches.values()], np.float32))
    rivals = {name: rival(name, truth, rows) for name in truth}
    return [
        line(f"like {name}", space, figure, measure="correlation", against=given)
        for name, given in rivals.items()
        if given
        for space, figure in zip(
            searches, like_not(together, rows, truth[name], truth[given]), strict=False
        )
    ]


def _rules(lines: Sequence[Line], geometry: Mapping[str, Any]) -> list[Line]:
    """Return what a learned geometry was judged by, and what the rules say of that and of lines."""
    verdicts = [*geometry.get("verdicts", []), *map(asdict, advise(lines))]
    fired = {True: "fired", False: "not fired", None: "not known"}
    held = [{**each, "judge": f"held out, {each['judge']}"} for each in geometry.get("lines", [])]
    return held + [
        line("rule", v["rule"], measure=fired[v["fired"]], reason=v["text"]) for v in verdicts
    ]


def judge_aspects(
    projection: Projection,
    vectors: npt.NDArray[np.float32],
    predicted: npt.NDArray[np.float32],
    rows: Rows,
    truth: Mapping[str, Floats],
    judged: Sequence[str],
) -> list[Line]:
    """Return lines on what is like and more in aspects, by stored vectors and predicted values.

    ``truth`` has the true values [n, q] of these and other aspects, in standard deviations.
    """
    lines = []
    for name in judged:
        values = truth[name]
        if given := rival(name, truth, rows):
            search = asking(projection, vectors, predicted, like={name: 1.0})
            found = like_not(search, rows, values, truth[given])
            lines += [
                line("like", name, figure, measure=measure, against=given)
                for measure, figure in zip(("correlation", "leak"), found, strict=True)
            ]
        sign = ASPECT_REGISTRY[name].more
        if sign and np.isfinite(projection.standard_errors[projection.aspects[name].number]):
            search = asking(projection, vectors, predicted, more={name: 1.0})
            others = np.hstack([values[:, :0], *(truth[other] for other in _unlike(name, truth))])
            found = more(search, rows, sign * values.mean(axis=1), others)
            lines += [
                line("more", name, figure, measure=measure)
                for measure, figure in zip(("share", "drift"), found, strict=True)
            ]
    return lines


def asking(
    projection: Projection,
    vectors: npt.NDArray[np.float32],
    predicted: npt.NDArray[np.float32],
    **respects: Any,
) -> Search:
    """Ask for rows by one of them, as `mess_core.search.search` does an index that holds them."""

    def scores(row: int) -> Floats:
        passage = Passage(vectors[row], predicted[row].astype(np.float64))
        question = ask(projection, Query(**respects), passage)
        found = np.asarray(vectors @ question.vector + question.constant, np.float64)
        for condition in question.conditions:
            found[~condition.met(predicted[:, condition.number])] = np.nan
        return found

    return scores


def rival(name: str, truth: Mapping[str, Floats], rows: Rows) -> str | None:
    """Return the aspect whose truth goes most with a name's within works, of no common target."""
    best: dict[str, float] = {}
    for other in _unlike(name, truth):
        values = truth[other]
        known = np.isfinite(np.column_stack([truth[name], values])).all(axis=1)
        if known.any():
            works = np.unique(rows.works[known], return_inverse=True)[1]
            own, its = (unit_columns(centred(v[known], works)) for v in (truth[name], values))
            best[other] = abs(strongest(own, its) or 0.0)
    return max(best, key=best.__getitem__, default=None)


def _unlike(name: str, aspects: Iterable[str]) -> list[str]:
    """Return the aspects that have no target in common with one."""
    of = {aspect: set(ASPECT_REGISTRY[aspect].measures) for aspect in (name, *aspects)}
    return [other for other in of if not of[name] & of[other]]


def scaled(values: Floats) -> Floats:
    """Return columns [n, q] centred and in standard deviations."""
    deviations = values - np.nanmean(values, axis=0)
    spread = np.nanstd(values, axis=0)
    return np.asarray(deviations / np.where(spread > 0, spread, 1.0))
