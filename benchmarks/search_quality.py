"""How good answers are, on a finished run: ``python -m benchmarks.search_quality --dataset demo``.

* *passages*: the same passage by another player. Right is what shares at least half of the shorter
  one's beats; the table's beats say which do.
* *like X*: Spearman correlation of a query's distances with the true ones in X, given those in Y,
  and the leak: with those in Y, given those in X.
* *more X*: share of the first ten hits with truly more X.

Aspects were fitted on the works that are searched, so figures of aspects are no evidence for other
works. Means are over works. Commit 753d20a has what this was: held-out works, ASAP, planted doses,
hubness, and intervals.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from mess_core.cli.search import DEFAULT_LOCATION, open_index
from mess_core.extraction.storage import load_features
from mess_core.index import Index
from mess_core.layout import Layout
from mess_core.probing.aspects import ASPECT_REGISTRY
from mess_core.recordings import read_recordings
from mess_core.search.query import Query, clip_id
from mess_core.search.search import directed, search
from mess_core.targets.npz import load_target
from mess_core.targets.registry import probed_targets

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
#: Gives a score of every row for the row that is asked; NaN for what was not found.
Search = Callable[[int], Floats]

HITS, PER_WORK = 10, 20


def asking(index: Index, *, k: int | None = None, **respects: Any) -> Search:
    """Ask an index of clips, as a service does, for all rows of other recordings."""
    ids = [clip_id(row.recording_id, row.start_s) for row in index.rows]
    rows = {clip: row for row, clip in enumerate(ids)}

    def scores(row: int) -> Floats:
        query = Query(clip=ids[row], exclude="recording", k=k or len(ids), **respects)
        found = np.full(len(ids), np.nan)
        for hit in search(index, query).hits:
            found[rows[hit.clip]] = hit.score
        return found

    return scores


def cosine(vectors: npt.NDArray[np.floating[Any]]) -> Search:
    """Search by the plain cosine of vectors [n, D], as they are."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return lambda row: np.asarray(unit @ unit[row], np.float64)


def reciprocal_rank(scores: Floats, right: Bools, candidates: Bools) -> float:
    """Return 1 / the rank of the best right candidate; equal scores share their mean rank."""
    known = np.where(np.isnan(scores), -np.inf, scores)
    ranks = rankdata(-known[candidates])[right[candidates]]
    return float(1 / ranks.min()) if len(ranks) else np.nan


def partial_correlation(x: Floats, y: Floats, given: Floats) -> float:
    """Return the Spearman correlation of x and y without what a third explains of both.

    NaN where nothing of x or y is left. Entries that are undefined in one are left out.
    """
    values = np.array([x, y, given])
    ranks = rankdata(values[:, np.isfinite(values).all(axis=0)], axis=1)
    ranks -= ranks.mean(axis=1, keepdims=True)
    total = np.square(ranks).sum(axis=1)
    left = ranks[:2] - np.outer(ranks[:2] @ ranks[2] / max(total[2], 1.0), ranks[2])
    spread = np.square(left).sum(axis=1)
    if (spread <= 1e-9 * total[:2]).any():
        return np.nan
    return float(left[0] @ left[1] / np.sqrt(spread.prod()))


def same_passage(spans: Floats, works: Sequence[str], row: int) -> Bools:
    """Say which spans of beats [n, 2] share half of the shorter one with a row's, of one work."""
    starts, ends = spans.T
    shared = np.minimum(ends, ends[row]) - np.maximum(starts, starts[row])
    shorter = np.minimum(ends - starts, ends[row] - starts[row])
    of_work = np.array([work == works[row] for work in works])
    return np.asarray(of_work & (shorter > 0) & (shared >= shorter / 2))


def distances(values: Floats, row: int) -> Floats:
    """Return how far rows [n, q] lie from one of them."""
    return np.asarray(np.linalg.norm(values - values[row], axis=1))


def over_works(index: Index, judge: Callable[[int, Bools], float]) -> float:
    """Return the mean over works of what is judged of their queries, drawn at random.

    ``judge`` takes a row and which rows are of other recordings; NaN does not count.
    """
    rng, of_works = np.random.default_rng(0), []
    for work in dict.fromkeys(index.rows.recordings["work_id"]):
        rows = np.flatnonzero(index.rows.having("work_id", [work]))
        drawn = rng.choice(rows, min(PER_WORK, len(rows)), replace=False)
        numbers = index.rows.table["recording"]
        results = np.array([judge(int(row), numbers != numbers[row]) for row in drawn])
        if np.isfinite(results).any():
            of_works.append(float(np.nanmean(results)))
    return float(np.mean(of_works)) if of_works else np.nan


def judge_like(index: Index, ask: Search, x: Floats, y: Floats) -> tuple[float, float]:
    """Return how a search's order goes with X given Y, and with Y given X."""

    def judge(row: int, others: Bools, wanted: Floats, given: Floats) -> float:
        apart, *both = (-ask(row), distances(wanted, row), distances(given, row))
        return partial_correlation(apart[others], both[0][others], both[1][others])

    return (
        over_works(index, lambda row, others: judge(row, others, x, y)),
        over_works(index, lambda row, others: judge(row, others, y, x)),
    )


def judge_more(index: Index, ask: Search | None, values: Floats) -> float:
    """Return the share of the first hits (or of all, without a search) with more than the query."""

    def judge(row: int, others: Bools) -> float:
        found = np.flatnonzero(others)
        if ask is not None:
            scores = ask(row)
            hits = np.flatnonzero(np.isfinite(scores) & others)
            found = hits[np.argsort(-scores[hits], kind="stable")[:HITS]]
        return float((values[found] > values[row]).mean()) if len(found) else np.nan

    return over_works(index, judge)


def spans_of(index: Index, beats: Mapping[str, Path]) -> Floats:
    """Return the beats [n, 2] between which every row lies, counted from the first one."""
    times = {name: np.loadtxt(path, usecols=0, ndmin=1) for name, path in beats.items()}
    return np.array(
        [
            np.interp([row.start_s, row.end_s], known := times[row.recording_id], range(len(known)))
            for row in index.rows
        ]
    )


def true_values(index: Index, layout: Layout, aspect: str) -> Floats | None:
    """Return what was measured of an aspect [n, q] in standard deviations; None if nothing was."""
    columns: list[Floats] = []
    for target in sorted(set(probed_targets("window")) & set(ASPECT_REGISTRY[aspect].measures)):
        blocks = [
            load_target(layout.targets(name), target, level="window") for name in index.rows.numbers
        ]
        known = [block.reshape(len(block), -1) for block in blocks if block is not None]
        if len(known) == len(blocks) and sum(map(len, known)) == len(index.rows):
            columns.append(np.concatenate(known))
    if not columns:
        return None
    values = np.concatenate(columns, axis=1).astype(np.float64)
    return np.asarray((values - np.nanmean(values, axis=0)) / np.nanstd(values, axis=0))


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search_quality")
    parser.add_argument("--dataset", default="demo")
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--artifacts", default=DEFAULT_LOCATION)
    args = parser.parse_args()
    layout = Layout(args.data, args.dataset)
    index = open_index(args.artifacts, args.dataset, "clips")
    features = np.concatenate(
        [load_features(layout, name, view="segments") for name in index.rows.numbers]
    )
    beats = {r.recording_id: Path(r.beats) for r in read_recordings(layout.table) if r.beats}
    if set(index.rows.numbers) <= set(beats):
        print_passages(index, features, spans_of(index, beats))
    print_aspects(index, layout)


def print_passages(index: Index, features: npt.NDArray[np.float32], spans: Floats) -> None:
    """Print who finds the same passage by another player."""
    works = [row.work_id for row in index.rows]
    searches = {f"cosine, layer {n}": cosine(features[:, n]) for n in range(features.shape[1])}
    noise = np.random.default_rng(1)
    searches |= {"chance": lambda _: noise.random(len(works)), "general": asking(index)}
    print("| the same passage by another player | MRR |\n|---|---|")
    for name, ask in searches.items():
        found = over_works(
            index,
            lambda row, others, ask=ask: reciprocal_rank(  # type: ignore[misc]
                ask(row), same_passage(spans, works, row) & others, others
            ),
        )
        print(f"| {name} | {found:.2f} |", flush=True)


def print_aspects(index: Index, layout: Layout) -> None:
    """Print, for pairs of searchable aspects without a common target, what is found of X and Y."""
    names = list(index.projection.aspects)
    values = {name: true_values(index, layout, name) for name in names}
    print("\n| like X | Y | X given Y | leak: Y given X | in general: X given Y | leak |")
    print("|---|---|---|---|---|---|")
    for x, y in permutations(names, 2):
        wanted, given = values[x], values[y]
        if set(ASPECT_REGISTRY[x].measures) & set(ASPECT_REGISTRY[y].measures):
            continue
        if wanted is not None and given is not None:
            sides = (asking(index, like={x: 1.0}), asking(index))
            found = [each for side in sides for each in judge_like(index, side, wanted, given)]
            print(f"| {x} | {y} | {' | '.join(f'{each:.2f}' for each in found)} |", flush=True)
    print("\n| more X | with more | in general | chance |\n|---|---|---|---|")
    for x in directed(index):
        measured, sign = values[x], ASPECT_REGISTRY[x].more
        if measured is not None and sign:
            true = np.asarray(sign * measured.mean(axis=1))
            asked = (asking(index, k=HITS, more={x: 1.0}), asking(index, k=HITS), None)
            shares = [judge_more(index, side, true) for side in asked]
            print(f"| {x} | {' | '.join(f'{each:.2f}' for each in shares)} |", flush=True)


if __name__ == "__main__":
    main()
