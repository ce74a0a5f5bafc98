"""A geometry that is learned from triplets, step by step, and only as far as it helps.

Two *heads* learn from opposite triplets of rows: an anchor, one that is to be near, one that is to
be far. The stages *weights* and *linear* minimise the logistic loss of near minus far cosines (as
van der Maaten and Weinberger 2012, "Stochastic triplet embedding"), every work counting once, and a
penalty on the distance from where they begin. Works are judged by maps that have not seen them.
docs/geometry.md says all of it in plain words, `mess_core.evaluation.decide` what is taken.
"""

__all__ = ["HEADS", "Learned", "learn", "learn_from", "linear_loss", "triplets_of", "weights_loss"]

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.sparse import csr_array
from scipy.special import expit

from mess_core.evaluation import decide, judges
from mess_core.evaluation.corpus import scaled, spans_of
from mess_core.evaluation.counterfactuals import read_counterfactuals
from mess_core.evaluation.judges import Line, Rows, line
from mess_core.evaluation.judgments import counted, gather, of_recordings, windows_of
from mess_core.evaluation.spaces import MOST_ROWS
from mess_core.extraction.storage import load_features, segment_times
from mess_core.files import read_json
from mess_core.index.fitting import SAMPLE, eigen, fit_projection
from mess_core.index.projection import Projection, unit_rows
from mess_core.layout import Layout
from mess_core.probing.folds import Bools, Features, Floats, Ints, deal_folds
from mess_core.probing.questions import rankme
from mess_core.recordings import Recording, by_work
from mess_core.search.query import SPACES
from mess_core.targets.npz import column_reader, columns_of

HEADS = CONTENT, EXPRESSION = SPACES[1:]
#: Folds at most, and works of each at least: expression compares two.
FOLDS, PER_FOLD = 5, 2
#: Anchors that are drawn, about; of each work at least.
ANCHORS, FEWEST = 1500, 20
#: Works that are learned from, and recordings of each, at most.
MOST_WORKS, MOST_RECORDINGS = 30, 10
#: A difference of cosines that counts as clear.
TEMPERATURE = 0.1
#: From the strongest; each begins where the one before has ended.
PENALTIES = (1.0, 0.3, 0.1, 0.03)
_FITTED = {"jac": True, "method": "L-BFGS-B", "options": {"maxiter": 30}}
# Dimensions that vary by a smaller share of what others do are rounding.
_ROUNDING, _TINY = 1e-6, 1e-12
# Of windows: in the recording, in the work.
_TIMES = ("start_s", "end_s", "work_start_s", "work_end_s")

#: Gives the loss of parameters [p], and its gradient.
Loss = Callable[[Floats], tuple[float, Floats]]


class Learned(NamedTuple):
    """Bases [B * D, G] of the heads that are taken, lines as of `evaluate`, and the verdicts."""

    bases: dict[str, npt.NDArray[np.float32]]
    lines: list[Line]
    verdicts: list[decide.Verdict]


class _Stage(NamedTuple):
    """The loss of rows by parameters, where these begin, and within which bounds they are.

    ``read`` makes of them unit vectors [N, G] of all rows, and the basis [B * D, G] of these.
    """

    rows: Features
    loss: Callable[[Features, Ints, Floats, float], Loss]
    begin: Floats
    bounds: Sequence[tuple[float, None]] | None
    read: Callable[[Floats], tuple[Floats, Floats]]


class _Space(NamedTuple):
    """A basis [B * D, G], unit rows [K, N, G] by maps that have not seen fold k, and RankMe."""

    basis: Floats
    units: Floats
    rank: float


def triplets_of(rows: Rows, spans: Floats, folds: Ints) -> dict[str, Ints]:
    """Draw triplets [t, 3] (anchor, near, far) of every head.

    ``spans`` [n, 2] say where a row lies in its work, NaN where unknown. Rows of another work than
    the anchor's are drawn inside of its fold and outside, so that triplets lie within each.
    """
    rng, found = np.random.default_rng(0), dict[str, list[tuple[int, ...]]]()

    def pick(*allowed: Bools) -> list[int]:
        return [int(rng.choice(np.flatnonzero(mask))) for mask in allowed if mask.any()]

    works, known = np.unique(rows.works), np.isfinite(spans).all(axis=1)
    for work in works.tolist():
        members = rng.permutation(np.flatnonzero(known & (rows.works == work)))
        for anchor in members[: max(FEWEST, ANCHORS // len(works))].tolist():
            same, inside = judges.overlapping(spans, rows, anchor), folds == folds[anchor]
            player = (rows.performers == rows.performers[anchor]) & (rows.performers != "")
            player &= known & ~rows.of_work(anchor)
            elsewhere = pick(player & inside, player & ~inside)
            for other in pick(same & rows.others(anchor)):
                far = pick(known & (rows.recordings == rows.recordings[other]) & ~same)
                found.setdefault(CONTENT, []).extend((anchor, other, x) for x in far or elsewhere)
                found.setdefault(EXPRESSION, []).extend((anchor, x, other) for x in elsewhere)
    return {head: np.array(found.get(head, []), np.int64).reshape(-1, 3) for head in HEADS}


def weights_loss(rows: Features, triplets: Ints, counts: Floats, penalty: float) -> Loss:
    """Return the loss of squared weights [d] on rows [N, d]; triplets count so much [t]."""
    used, places = np.unique(triplets, return_inverse=True)
    a, b, c = places.reshape(-1, 3).T
    near, far = (rows[used[a]] * rows[used[other]] for other in (b, c))
    squares, kind = np.square(rows[used]), rows.dtype

    def loss(squared: Floats) -> tuple[float, Floats]:
        v, moved = squared.astype(kind), squared - 1
        lengths = np.sqrt(np.maximum(squares @ v, _TINY)).astype(np.float64)
        to_near, to_far = lengths[a] * lengths[b], lengths[a] * lengths[c]
        cosines = np.array([(near @ v) / to_near, -(far @ v) / to_far])
        value, slope = _logistic(cosines.sum(axis=0), counts)
        parts = zip((a, b, c), (cosines.sum(axis=0), *cosines), strict=True)
        shorter = sum(np.bincount(row, slope * x, len(used)) for row, x in parts) / lengths**2
        gradient = (slope / to_near).astype(kind) @ near - (slope / to_far).astype(kind) @ far
        gradient = gradient - (shorter / 2).astype(kind) @ squares + 2 * penalty * moved / len(v)
        return value + penalty * float(np.square(moved).mean()), np.asarray(gradient, np.float64)

    return loss


def linear_loss(rows: Features, triplets: Ints, counts: Floats, penalty: float) -> Loss:
    """Return the loss of a matrix [d * d] on rows [N, d]; triplets count so much [t]."""
    used, places = np.unique(triplets, return_inverse=True)
    t, width, mine = len(triplets), rows.shape[1], rows[used].astype(np.float64)
    anchor, near, far = (
        csr_array((np.ones(t), (place, np.arange(t))), (len(used), t))
        for place in places.reshape(-1, 3).T
    )
    apart = near - far

    def loss(flat: Floats) -> tuple[float, Floats]:
        matrix = flat.reshape(width, width)
        mapped, moved = mine @ matrix, matrix - np.eye(width)
        lengths = np.sqrt(np.maximum(np.square(mapped).sum(axis=1, keepdims=True), _TINY))
        unit = mapped / lengths
        own, across = anchor.T @ unit, apart.T @ unit
        value, slope = _logistic((own * across).sum(axis=1), counts)
        pull = anchor @ (slope[:, np.newaxis] * across) + apart @ (slope[:, np.newaxis] * own)
        pull -= (pull * unit).sum(axis=1, keepdims=True) * unit
        gradient = mine.T @ (pull / lengths) + 2 * penalty * moved / width
        return value + penalty * float(np.square(moved).sum()) / width, gradient.ravel()

    return loss


def _logistic(apart: Floats, counts: Floats) -> tuple[float, Floats]:
    clear = apart / TEMPERATURE
    return float(counts @ np.logaddexp(0, -clear)), -counts * expit(-clear) / TEMPERATURE


def _stages(
    features: npt.NDArray[np.float32], windows: int, projection: Projection, n_folds: int
) -> tuple[_Space, dict[str, _Stage]]:
    """Return stage 0, and what the others fit."""
    components, basis = projection.read(features)[0], projection.basis.astype(np.float64)
    layers = zip(features.swapaxes(0, 1), projection.means, strict=True)
    flat = np.hstack([unit_rows(np.subtract(x, m, dtype=np.float64), m)[0] for x, m in layers])
    flat -= flat[:windows].mean(axis=0)
    spread = flat[:windows].std(axis=0)
    scale = 1 / np.where(spread > _ROUNDING * spread.max(), spread, np.inf)
    scaled = (flat * scale).astype(np.float32)
    some = np.linspace(0, windows - 1, min(windows, SAMPLE)).astype(np.int64)

    def weighted(squared: Floats) -> tuple[Floats, Floats]:
        weights = np.sqrt(squared)
        matrix = weights[:, np.newaxis] * eigen((scaled[some] * weights).astype(np.float64))[1]
        return judges.unit_length(scaled @ matrix), scale[:, np.newaxis] * matrix

    def turned(matrix: Floats) -> tuple[Floats, Floats]:
        square = matrix.reshape(basis.shape[1], -1)
        return judges.unit_length(components @ square), basis @ square

    one = np.eye(basis.shape[1]).ravel()
    unit, bounds = judges.unit_length(components), [(0.0, None)] * len(scale)
    general = _Space(basis, np.array([unit] * n_folds), rankme(unit[:windows]))
    return general, {
        "weights": _Stage(scaled, weights_loss, np.ones(len(scale)), bounds, weighted),
        "linear": _Stage(components, linear_loss, one, None, turned),
    }


def _learned(
    stage: _Stage, triplets: Ints, rows: Rows, folds: Ints, windows: int, rank: float
) -> _Space:
    """Fit a stage without each fold, and to all (without a fold that there is not).

    Penalties compete that leave enough of a ``rank``, if any does.
    """
    of_rows, n_folds = folds[triplets], int(folds.max()) + 1
    works, penalties = rows.works[triplets[:, 0]], (np.inf, *PENALTIES)

    def fit(without: Sequence[int], penalty: float, begin: Floats) -> Floats:
        kept = ~np.isin(of_rows, without).any(axis=1)
        if penalty == np.inf or not kept.any():
            return begin
        _, places, sizes = np.unique(works[kept], return_inverse=True, return_counts=True)
        counts = 1 / (sizes[places] * len(sizes))
        loss = stage.loss(stage.rows, triplets[kept], counts, penalty)
        return np.asarray(minimize(loss, begin, bounds=stage.bounds, **_FITTED).x)

    scores = np.full((n_folds + 1, len(penalties)), -1.0)
    for fold in range(n_folds):
        checked, found = (fold + 1) % n_folds, stage.begin
        inside = (of_rows == checked).all(axis=1)
        for number, penalty in enumerate(penalties if inside.any() else ()):
            found = fit([fold, checked], penalty, found)
            unit = stage.read(found)[0]
            if decide.rank(rank, rankme(unit[:windows])).fired:
                scores[fold, number] = _shares(unit[triplets[inside]], works[inside]).mean()
    scores[-1] = scores[:-1].mean(axis=0)
    best = enumerate(scores.argmax(axis=1))
    made = [stage.read(fit([fold], penalties[number], stage.begin)) for fold, number in best]
    units = np.array([unit for unit, _ in made])
    return _Space(made[-1][1], units, rankme(units[-1, :windows]))


def _shares(units: Floats, works: npt.NDArray[np.str_]) -> Floats:
    """Return the share of triplets of unit rows [t, 3, G] that are right, of each work."""
    a, b, c = units.swapaxes(0, 1)
    right = (np.sign((a * (b - c)).sum(axis=1)) + 1) / 2
    places, sizes = np.unique(works, return_inverse=True, return_counts=True)[1:]
    return np.asarray(np.bincount(places, right) / sizes)


def learn(
    features: npt.NDArray[np.float32],
    rows: Rows,
    spans: Floats,
    projection: Projection,
    windows: int,
    judged: Ints,
    truth: Mapping[str, Floats],
) -> Learned:
    """Learn both heads from features [N, B, D], and judge them by works that they have not seen.

    The first ``windows`` of the N rows are a corpus's, which the ``truth`` of aspects [n, q] is of.
    ``judged`` are triplets that people judged [t, 3]. See `triplets_of` and `fit_projection`.
    """
    folds = deal_folds(rows.works.tolist(), min(FOLDS, len(np.unique(rows.works)) // PER_FOLD))
    triplets = triplets_of(rows, spans, folds)
    triplets[EXPRESSION] = np.concatenate([triplets[EXPRESSION], judged])
    held = {head: t[np.ptp(folds[t], axis=1) == 0] for head, t in triplets.items()}
    heard = judged[np.ptp(folds[judged], axis=1) == 0]
    corpus = Rows(*(x[:windows] for x in (rows.recordings, rows.works, rows.performers)))
    general, stages = _stages(features, windows, projection, int(folds.max()) + 1)

    def shares(space: _Space, threes: Ints) -> Floats:
        return _shares(space.units[folds[threes[:, :1]], threes], rows.works[threes[:, 0]])

    def agreement(values: Floats, *spaces: _Space) -> Floats:
        """Return how far distances in spaces follow the true ones within works [w, spaces]."""
        found = []
        for mine in corpus.queries:
            a, b = mine[np.array(np.triu_indices(len(mine), 1))]
            a, b = np.array([a, b])[:, corpus.recordings[a] != corpus.recordings[b]]
            units = np.array([space.units[folds[mine[0]]] for space in spaces])
            true = np.linalg.norm(values[a] - values[b], axis=1)
            apart = -(units[:, a] * units[:, b]).sum(axis=2)
            found.append(judges.partial_correlation(apart, true, np.zeros(len(true))))
        return np.array(found)

    def judge(name: str, space: _Space) -> list[Line]:
        lines = []
        asked = [("triplets", "accuracy", head, threes) for head, threes in held.items()]
        asked += [("people", "agreement", "overall", heard)] * bool(len(heard))
        for kind, measure, against, threes in asked:
            right = shares(space, threes)
            figure = judges.mean_over_works(right, decide.CHANCE, len(threes))
            lines.append(line(kind, name, figure, measure=measure, against=against))

        def search(row: int) -> Floats:
            unit = space.units[folds[row], :windows]
            return np.asarray(unit @ unit[row])

        found = (
            judges.same_passage(search, corpus, spans[:windows]),
            judges.same_player(search, corpus),
        )
        for what, figures in zip(("same passage", "same player"), found, strict=True):
            lines += [line(what, name, figures[x], measure=x) for x in ("MRR", "recall@1")]
        return lines

    learned = Learned({}, judge("general", general), [])
    for head, threes in triplets.items():
        if not len(held[head]):
            told = "there are no triplets (same passages; players of several works)"
            learned.verdicts.append(decide.said(head, None, told))
            continue
        last = general
        for name, stage in stages.items():
            space = _learned(stage, threes, rows, folds, windows, general.rank)
            learned.lines.extend(judge(f"{head}, {name}", space))
            met = [
                decide.gain(shares(last, held[head]), shares(space, held[head])),
                decide.rank(general.rank, space.rank),
            ]
            if head == EXPRESSION:  # content is to leave out how it is played
                both = {a: tuple(agreement(v, last, space).T) for a, v in truth.items()}
                said = [shares(x, heard).mean() if len(heard) else np.nan for x in (last, space)]
                met += [decide.aspects(both), decide.people(*said)]
            learned.verdicts.append(decide.take(f"{head}, {name}", *met))
            if learned.verdicts[-1].fired:
                last, learned.bases[head] = space, space.basis.astype(np.float32)
    return learned


def learn_from(
    layout: Layout,
    recordings: Sequence[Recording],
    work_times: Callable[[Recording, Floats], Floats],
    *,
    general_layers: Collection[int] | None,
    varied: bool,
    **windows: Any,
) -> Learned:
    """Learn from what a dataset has: works with several players, counterfactuals, judgments.

    Of at most `MOST_WORKS`, those that people judged first, and `MOST_RECORDINGS` of each, the
    first windows serve, `MOST_ROWS` in all. ``varied`` says whether there are counterfactuals;
    ``work_times``, and ``windows`` (``window_s``, ``overlap``) are as for `index_recordings`.
    """
    works, known = by_work(recordings), {r.recording_id: r for r in recordings}
    several = [w for w in works if len({r.performer or r.recording_id for r in works[w]}) > 1]
    if len(several) < 3 * PER_FOLD:
        told = f"{len(several)} works have several players, {3 * PER_FOLD} are needed"
        return Learned({}, [], [decide.said(head, None, told) for head in HEADS])
    gathered = gather(layout.judgment_files, recordings)
    asked = [j for j in gathered.judgments if j.aspect == "overall"]
    said = counted(own := of_recordings(asked, known))
    places = [{known[part[0]].work_id for part in (j.anchor, j.b, j.c)} for j in said]
    judgments, rng = Counter(chain.from_iterable(places)), np.random.default_rng(0)
    drawn = rng.permutation(sorted(several)).tolist()
    drawn = sorted(drawn, key=judgments.__getitem__, reverse=True)[:MOST_WORKS]
    serving = [j for j, its in zip(said, places, strict=True) if its <= set(drawn)]
    threes = [(j.anchor, j.near, j.far) for j in serving]
    told = read_json(layout.aspects)["aspects"]
    truths = {n: columns_of(x["truth"]["targets"]) for n, x in told.items() if x.get("truth")}
    columns = [*dict.fromkeys(chain.from_iterable(truths.values()))]
    read, parts = column_reader(layout, columns), []

    @lru_cache(1)
    def load(recording: Recording) -> tuple[Features, Floats, Floats]:
        """Return a recording's features, when its windows are [n, 4], and columns [n, T]."""
        features = load_features(layout, recording.recording_id, view="segments")
        starts = segment_times(len(features), duration_s=recording.duration_s, **windows)
        measured = np.broadcast_to(read(recording.recording_id), (len(features), len(columns)))
        times = np.column_stack([starts, starts + windows["window_s"]])
        return features, np.hstack([times, work_times(recording, times)]), measured

    for work in drawn:
        some = sorted(rng.permutation(len(works[work]))[:MOST_RECORDINGS])
        loaded, when, values = zip(*map(load, its := [works[work][n] for n in some]), strict=True)
        table = np.vstack(when).view([(name, np.float64) for name in _TIMES]).ravel()
        facts = np.array([[r.recording_id, r.work_id, r.performer] for r in its])
        of = [*np.repeat(facts, [*map(len, loaded)], axis=0).T]
        spans = spans_of(table, Rows(*of), its)
        first = np.sort(np.argsort(spans[:, 0], kind="stable")[: MOST_ROWS // len(drawn)])
        whole = np.concatenate(loaded), *of, spans, np.concatenate(values)
        parts.append([column[first] for column in whole])
    *corpus, measured = (np.concatenate(part) for part in zip(*parts, strict=True))
    truth = {n: scaled(measured[:, [*map(columns.index, its)]]) for n, its in truths.items()}
    parts, features = [[*corpus]], corpus[0]
    projection = fit_projection(
        lambda layer: features[:, layer], range(features.shape[1]), general_layers=general_layers
    )
    if varied and (changed := read_counterfactuals(layout)):
        played = ~np.isin(changed.parameter, ("", "instrument", "room"))
        change = np.char.add(changed.parameter, changed.sign.astype(str))
        names = np.char.add(np.char.add(changed.recording, " "), change)
        apart = np.tile([-2.0, -1.0], (len(names), 1))  # no passage of a recording
        parts.append([changed.encoder, names, changed.work, np.where(played, change, ""), apart])
    heard = {part: n for n, part in enumerate(sorted({*chain.from_iterable(threes)}))}
    before = sum(len(part[0]) for part in parts)
    judged = np.array([before + heard[p] for three in threes for p in three], np.int64)
    for name, *times_s in heard:
        given, times, _ = load(known[name])
        mean = given[windows_of(times[:, :2], *times_s)].mean(axis=0)
        parts.append([[mean], [name], [known[name].work_id], [""], [[np.nan, np.nan]]])
    every, *of, spans = (np.concatenate(part) for part in zip(*parts, strict=True))
    found = learn(every, Rows(*of), spans, projection, len(features), judged.reshape(-1, 3), truth)
    told = f"{len(serving)} of {len(asked)} serve; left out: {len(asked) - len(own)} of recordings "
    told += f"not here, {len(own) - len(said)} repeats, catch trials and of who fails these, "
    told += f"{len(said) - len(serving)} of works that have one player, or are not drawn"
    found.verdicts.extend([decide.said("judgments", bool(serving), told)] * bool(asked))
    return found
