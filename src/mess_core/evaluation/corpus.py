"""How good answers are on a corpus of one's own: what its recordings allow to judge.

* Where recordings have beats: who finds the same passage by another player, by the index's general
  block, and by the plain cosine of the encoder's features.
* Of every aspect that is not its own truth: whether what is *like* it, among the players of a work,
  follows the truth of the aspect, and not that of the aspect which goes with it most (`rival`); and
  whether what has *more* of it truly has more. Everything is read from audio, as without MIDI.

Aspects were fitted to the works that are judged here. docs/evaluation.md has figures of others.
"""

__all__ = ["asking", "evaluate", "judge_aspects", "rival"]

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mess_core.evaluation.judges import (
    Line,
    Rows,
    Search,
    cosine,
    like_not,
    line,
    more,
    same_passage,
)
from mess_core.evaluation.spaces import drawn, features_of
from mess_core.index.index import Index
from mess_core.index.projection import Projection
from mess_core.layout import Layout
from mess_core.probing.aspects import ASPECT_REGISTRY
from mess_core.probing.folds import Floats
from mess_core.probing.separability import centred, strongest, unit_columns
from mess_core.recordings import Recording
from mess_core.search.query import Query
from mess_core.search.scoring import Passage, ask
from mess_core.targets.notes import read_beats
from mess_core.targets.npz import column_reader, columns_of
from mess_core.targets.registry import AUDIO


def evaluate(layout: Layout, index: Index, recordings: Sequence[Recording]) -> list[Line]:
    """Judge an index of clips by what its recordings have.

    Returns a line per figure: ``judge``, ``asked``, ``measure``, ``against``, ``source`` (what is
    asked is read from), ``value``, ``low``, ``high``, ``chance``, ``n``, ``works``, and ``reason``
    where there is no figure.
    """
    chosen = drawn(index)
    table = index.rows.table[chosen]
    columns = (np.array(index.rows.recordings[c]) for c in ("recording_id", "work_id", "performer"))
    rows = Rows(*(column[table["recording"]] for column in columns))
    sizes = Counter(rows.recordings.tolist())
    features = features_of(layout, sizes)
    lines = [line("same passage", "general", reason="not all recordings have beats")]
    beats = {r.recording_id: Path(r.beats) for r in recordings if r.beats}
    if sizes.keys() <= beats.keys():
        times = {name: read_beats(beats[name]) for name in sizes}
        spans = np.array(
            [
                np.interp(row[["start_s", "end_s"]].tolist(), times[name], range(len(times[name])))
                for row, name in zip(table, rows.recordings.tolist(), strict=True)
            ]
        )
        general = index.stored(chosen)[:, : index.projection.general]
        lines = [
            line("same passage", name, figure, measure=measure)
            for name, vectors in {"general": general, "plain cosine": features}.items()
            for measure, figure in same_passage(cosine(vectors), rows, spans).items()
        ]

    def measure(columns: Sequence[str]) -> Floats:
        read = column_reader(layout, columns)
        shapes = ((name, (size, len(columns))) for name, size in sizes.items())
        return np.concatenate([np.broadcast_to(read(name), shape) for name, shape in shapes])

    projection, entries = index.projection, index.aspects.get("aspects", {})
    source = projection.read_from([AUDIO])
    truths = {name: entries[name]["truth"] for name in projection.aspects}
    truth = {name: measure(columns_of(told["targets"])) for name, told in truths.items()}
    measured, kept = measure(projection.columns.tolist()), features[:, projection.layers]
    vectors, predicted, _ = projection.project(kept, measured, [AUDIO])
    judged = [name for name in truths if source[name] not in ("", truths[name]["source"])]
    return lines + [
        {**its, "source": source[its["asked"]]}
        for its in judge_aspects(projection, vectors, predicted, rows, truth, judged)
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

    ``truth`` has the true values [n, q] of these and other aspects.
    """
    lines = []
    scaled = {name: (v - np.nanmean(v, axis=0)) / _spread(v) for name, v in truth.items()}
    for name in judged:
        values = scaled[name]
        if given := rival(name, scaled, rows):
            search = asking(projection, vectors, predicted, like={name: 1.0})
            found = like_not(search, rows, values, scaled[given])
            lines += [
                line("like", name, figure, measure=measure, against=given)
                for measure, figure in zip(("correlation", "leak"), found, strict=True)
            ]
        sign = ASPECT_REGISTRY[name].more
        if sign and np.isfinite(projection.standard_errors[projection.aspects[name].number]):
            search = asking(projection, vectors, predicted, more={name: 1.0})
            figure = more(search, rows, sign * values.mean(axis=1))
            lines.append(line("more", name, figure, measure="share"))
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
    for other, values in truth.items():
        if set(ASPECT_REGISTRY[name].measures) & set(ASPECT_REGISTRY[other].measures):
            continue
        known = np.isfinite(np.column_stack([truth[name], values])).all(axis=1)
        if known.any():
            works = np.unique(rows.works[known], return_inverse=True)[1]
            own, its = (unit_columns(centred(v[known], works)) for v in (truth[name], values))
            best[other] = abs(strongest(own, its) or 0.0)
    return max(best, key=best.__getitem__, default=None)


def _spread(values: Floats) -> Floats:
    spread = np.nanstd(values, axis=0)
    return np.where(spread > 0, spread, 1.0)
