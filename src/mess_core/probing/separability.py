"""Separability of two aspects: whether one can be taken out of the features while the other stays.

For aspects A and B, in the features of A's own layer, B is erased and A is probed before and after.
All is learned on training folds and judged on works that were not heard.

*Erasure* is LEACE (Belrose et al. 2023, "LEACE: Perfect linear concept erasure in closed form",
Theorem 4.2), which changes features ``x`` as little as an affine map can such that no linear probe
predicts ``z`` from them better than its mean does. With ``S = Cov(x)``, ``C = Cov(x, z)`` and the
whitening ``W = (S^1/2)^+``::

    erase(x) = x - W^+ P W (x - mean),    P = the orthogonal projection onto the columns of W C

The penalty that probing chose for B is added to ``S`` (ridge's shrinkage), because with few rows
the whitening of directions that hardly vary is noise. What is erased is then what the ridge probe
of B reads; its covariance with B still becomes zero on the training rows.

* ``r2`` and ``r2_erased``: R2 of A's ridge probe before and after erasing B, mean over A's targets;
  ``r2_within`` and ``r2_within_erased`` the same with targets and predictions centred per work.
* ``retained``: the share of A's R2 that is left. Its interval (95 %) comes from a bootstrap over
  works, before and after resampled together (`mess_core.probing.inference`). ``judged_on`` says
  which R2: that within works, or the pooled one where a target of A has one value in each work;
  then "within works" below means over all rows.
* ``shared``: the share of A's variance within works that B's targets explain linearly, whatever
  the encoder does. Where both are encoded equally well and apart, erasing B leaves ``1 - shared``
  of A's R2: what is shared goes with either.
* ``angle``: the smallest principal angle (Björck and Golub 1973) between what A's probe and B's
  read from the training rows, degrees, mean over folds: the angle between the spans of their
  coefficients in the metric of the features' covariance (the Euclidean one is ruled by directions
  that hardly vary). 90: the readings are uncorrelated; 0: a reading of A is a reading of B.
* ``correlation`` and ``rank_correlation``: Pearson's and Spearman's correlation of the targets
  within works, of that pair of targets where it is the strongest. Spearman's ranks are those among
  the rows of one work, divided by their number.

``verdict`` is one of

* ``not encoded``: the interval of A's own R2 includes 0, so there is nothing to separate;
* ``separable``: at least half of A's R2 is left, at the interval's lower end;
* ``correlated``: less is left, but no less than the targets' own relation makes one expect;
* ``entangled``: less is left than that: the encoder has A and B along the same directions;
* ``uncertain``: the interval of ``retained`` reaches to both sides of a half;
* ``undefined``: too few rows, or a target does not vary.

B is erased as it varies over all rows, within works and between them. So A may lose what it shares
with B between works too, though it is judged within.
"""

__all__ = ["AspectProbe", "principal_angles", "separate_aspects", "undefined_pairs"]

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from mess_core.probing.decompositions import FoldDecompositions, decompose_folds
from mess_core.probing.folds import Bools, Features, Floats, Ints, ProbeRows, plan_rows
from mess_core.probing.inference import WorkSums, interval, resample_works, seed_of, t_interval
from mess_core.probing.probe import MIN_ROWS, MIN_WORKS
from mess_core.progress import Report, counted

Decompositions = Callable[[int, ProbeRows], FoldDecompositions]

#: Share of A's R2 that must be left for A to count as separable from what was erased.
SEPARABLE = 0.5

_RESAMPLES = 2000

# A variance below this share of that of all rows is rounding.
_ROUNDING = 1e-12

# Below this share of the largest, a direction or a multiple correlation is rounding.
_NOTHING = 1e-9

# A pair before it is judged, with all columns of its row.
_UNDEFINED: Mapping[str, Any] = {
    **dict.fromkeys(("aspect", "erased", "layer", "n_rows", "n_works")),
    **dict.fromkeys(("r2", "r2_within", "r2_erased", "r2_within_erased", "judged_on")),
    **dict.fromkeys(("interval_lo", "interval_hi", "retained", "retained_lo", "retained_hi")),
    **dict.fromkeys(("shared", "correlation", "rank_correlation", "angle")),
    "verdict": "undefined",
    "reason": None,
}


@dataclass(frozen=True, eq=False)
class AspectProbe:
    """An aspect as it is probed.

    ``layer`` knows it best; ``targets`` [n] or [n, q] are NaN where a row lacks one; ``penalties``
    are the ridge penalty of its probe in each layer, above 0.
    """

    name: str
    layer: int
    targets: Floats
    penalties: Sequence[float]

    @property
    def columns(self) -> Floats:
        """The targets as ``[n, q]``."""
        return np.asarray(self.targets, float).reshape(len(self.targets), -1)


def separate_aspects(
    layers: Callable[[int], Features],
    aspects: Sequence[AspectProbe],
    works: Sequence[str],
    folds: Ints,
    *,
    decompositions: Decompositions | None = None,
    progress: Report | None = None,
) -> list[dict[str, Any]]:
    """Judge for every ordered pair of aspects whether the one outlives the erasure of the other.

    ``layers`` gives the features ``[n, D]`` of a layer's number, ``decompositions`` those of some
    rows of it; each is called once per aspect (and set of rows). ``works`` and ``folds`` are those
    of each row. Raises `ProbingError` if a work is in two folds or numbers of rows differ.

    Returns
    -------
    list of dict
        Per ordered pair ``aspect`` (A), ``erased`` (B), ``layer`` (A's), ``n_rows``, ``n_works``,
        the figures that this module lists (``interval_lo``, ``interval_hi`` of A's R2 before and
        ``retained_lo``, ``retained_hi`` among them), ``verdict`` and ``reason`` (of an undefined
        verdict, else None). Undefined figures are None.
    """
    pairs = []
    # Threads of BLAS wait for each other longer than these matrices take.
    with threadpool_limits(limits=1, user_api="blas"):
        for aspect in counted(aspects, progress, lambda aspect: aspect.name):
            others = [other for other in aspects if other is not aspect]
            X = layers(aspect.layer)
            judged: dict[str, dict[str, Any]] = {}
            for rows, members in _by_rows(aspect, others, works, folds):
                if decompositions is None:
                    known = decompose_folds(X, rows, nested=False)
                else:
                    known = decompositions(aspect.layer, rows)
                judged |= _judge(X, aspect, members, rows, known)
            pairs += [_describe(aspect, b, works) | judged.get(b.name, {}) for b in others]
    return pairs


def principal_angles(A: Floats, B: Floats) -> Floats:
    """Return the principal angles, degrees, the smallest first, between the spans of columns.

    There are fewer than columns where these are zero or depend on others.
    """
    from scipy.linalg import subspace_angles

    return np.asarray(np.rad2deg(subspace_angles(A, B))[::-1])


def _present(aspect: AspectProbe, other: AspectProbe) -> Bools:
    finite = np.isfinite(np.column_stack([aspect.columns, other.columns]))
    return np.asarray(finite.all(axis=1))


def _by_rows(
    aspect: AspectProbe, others: Sequence[AspectProbe], works: Sequence[str], folds: Ints
) -> Iterator[tuple[ProbeRows, list[AspectProbe]]]:
    """Group the other aspects by the rows that they have in common with this one."""
    groups: dict[bytes, list[AspectProbe]] = {}
    for other in others:
        if _why_undefined(aspect, other, works) is None:
            groups.setdefault(_present(aspect, other).tobytes(), []).append(other)
    for present, members in groups.items():
        yield plan_rows(works, folds, np.frombuffer(present, np.bool_)), members


def _why_undefined(aspect: AspectProbe, other: AspectProbe, works: Sequence[str]) -> str | None:
    present = _present(aspect, other)
    n_works = len(set(np.asarray(works)[present]))
    if present.sum() < MIN_ROWS or n_works < MIN_WORKS:
        return (
            f"needs at least {MIN_ROWS} rows of {MIN_WORKS} works that have both, has "
            f"{present.sum()} rows of {n_works} works"
        )
    for one in (aspect, other):
        if not unit_columns(one.columns[present]).any(axis=0).all():
            return f"a target of {one.name} does not vary"
    return None


def _describe(aspect: AspectProbe, other: AspectProbe, works: Sequence[str]) -> dict[str, Any]:
    """Return a pair without its figures."""
    present = _present(aspect, other)
    return {
        **_UNDEFINED,
        "aspect": aspect.name,
        "erased": other.name,
        "layer": aspect.layer,
        "n_rows": int(present.sum()),
        "n_works": len(set(np.asarray(works)[present])),
        "reason": _why_undefined(aspect, other, works),
    }


def undefined_pairs(aspects: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return rows that say of each aspect of an aspect map why it is in no pair."""
    return [
        {
            **_UNDEFINED,
            "aspect": name,
            "layer": aspect["layer"],
            "reason": aspect["reason"] or "no other aspect has a layer",
        }
        for name, aspect in aspects.items()
    ]


def _judge(
    X: Features,
    aspect: AspectProbe,
    others: Sequence[AspectProbe],
    rows: ProbeRows,
    decompositions: FoldDecompositions,
) -> dict[str, dict[str, Any]]:
    """Return the figures of an aspect with each of the others, which have the same rows."""
    Y = aspect.columns[rows.indices]
    Zs = [other.columns[rows.indices] for other in others]
    penalties = [one.penalties[aspect.layer] for one in (aspect, *others)]
    predicted, angles = _predict(
        np.asarray(X[rows.indices], float), Y, Zs, rows.folds, decompositions, penalties
    )
    found = _compare(Y, predicted, rows, aspect.name)
    groups = np.zeros_like(rows.works) if found[0]["judged_on"] == "r2" else rows.works
    judged = {}
    for other, Z, angle, figures in zip(others, Zs, angles, found, strict=True):
        related = _relation(Y, Z, groups)
        verdict = _verdict(figures, related["shared"])
        judged[other.name] = figures | related | {"angle": angle, "verdict": verdict}
    return judged


def _compare(Y: Floats, predicted: Floats, rows: ProbeRows, name: str) -> list[dict[str, Any]]:
    """Compare R2 before and after each erasure, for predictions [1 + erased, m, q]."""
    mean, spread = Y.mean(axis=0), Y.std(axis=0)
    sums = WorkSums.of((Y - mean) / spread, np.moveaxis((predicted - mean) / spread, 0, 1), rows)
    rng = np.random.default_rng(seed_of(name))
    drawn = resample_works(rows.n_works, _RESAMPLES, rng)
    counts = np.vstack([np.ones(rows.n_works), drawn])
    r2 = {"r2": sums.r2(counts), "r2_within": sums.r2_within(counts)}
    if not centred(Y, rows.works).any(axis=0).all():
        r2["r2_within"][:] = np.nan
    judged_on = "r2" if np.isnan(r2["r2_within"][0, 0]) else "r2_within"
    judged = r2[judged_on]
    own = judged[:, 0]
    kept = judged[:, 1:] / np.where(own > 0, own, np.nan)[:, np.newaxis]
    before = {key: _number(values[0, 0]) for key, values in r2.items()}
    lo, hi = interval(own[0], own[1:], rows.n_works) or (None, None)
    figures = []
    for number in range(kept.shape[1]):
        share = kept[:, number]
        kept_lo, kept_hi = t_interval(share[0], share[1:], rows.n_works) or (None, None)
        figures.append(
            {
                **before,
                **{f"{key}_erased": _number(values[0, 1 + number]) for key, values in r2.items()},
                "judged_on": judged_on,
                "interval_lo": lo,
                "interval_hi": hi,
                "retained": _number(share[0]),
                "retained_lo": kept_lo,
                "retained_hi": kept_hi,
            }
        )
    return figures


def _verdict(figures: dict[str, Any], shared: float) -> str:
    lo, kept_lo, kept_hi = (figures[key] for key in ("interval_lo", "retained_lo", "retained_hi"))
    if lo is None or lo <= 0 or kept_lo is None:
        return "not encoded"
    if kept_lo >= SEPARABLE:
        return "separable"
    if kept_hi >= SEPARABLE:
        return "uncertain"
    return "correlated" if kept_hi >= 1 - shared else "entangled"


def _predict(
    X: Floats,
    Y: Floats,
    Zs: Sequence[Floats],
    folds: Ints,
    decompositions: FoldDecompositions,
    penalties: Sequence[float],
) -> tuple[Floats, list[float | None]]:
    """Predict held-out rows with nothing and with each concept erased [1 + concepts, m, q].

    Also returns the smallest principal angle with each concept's probe, degrees, mean of the folds
    in which both vary.
    """
    predicted = np.empty((1 + len(Zs), *Y.shape))
    angles = np.empty((folds.max() + 1, len(Zs)))
    for fold in range(len(angles)):
        training, out = decompositions.training(fold), folds == fold
        mean = Y[~out].mean(axis=0)
        columns = [Y[~out] - mean, *(unit_columns(Z[~out]) for Z in Zs)]
        # Rows that are left out have no weight: no copy of the others is needed.
        weights = np.zeros((len(Y), sum(each.shape[1] for each in columns)))
        weights[~out] = np.column_stack(columns)
        moments = training.basis.T @ ((X.T @ weights) / training.scale[:, np.newaxis])
        borders = np.cumsum([each.shape[1] for each in columns])[:-1]
        target, *concepts = np.split(moments, borders, axis=1)
        coefficients = _probes(training.values, target, concepts, penalties)
        seen = training.standardise(X[out]) @ training.basis
        predicted[:, out] = mean + seen @ coefficients
        angles[fold] = [
            _smallest_angle(training.values, target, concept, penalties[0], penalty)
            for concept, penalty in zip(concepts, penalties[1:], strict=True)
        ]
    known = np.isfinite(angles)
    sums = np.where(known, angles, 0).sum(axis=0)
    return predicted, [
        float(total / count) if count else None
        for total, count in zip(sums, known.sum(axis=0), strict=True)
    ]


def _probes(
    values: Floats, target: Floats, concepts: Sequence[Floats], penalties: Sequence[float]
) -> Floats:
    """Return a target's coefficients before and after erasing each concept."""
    nothing = np.empty((len(values), 0))
    erasers = [(nothing, nothing)]
    for concept, penalty in zip(concepts, penalties[1:], strict=True):
        erasers.append(whitened_projection(values, concept, penalty))
    return np.array([_erased_ridge(values, target, *each, penalties[0]) for each in erasers])


def _erased_ridge(
    values: Floats, moments: Floats, write: Floats, read: Floats, penalty: float
) -> Floats:
    """Return ridge coefficients [r, q] that erase and predict in one, without touching a row.

    In coordinates ``u`` whose products are ``diag(values)``, erased rows ``u - W R'u`` have the
    products ``G = diag(values) + F K F'`` with ``F = [W, V]``, ``V = diag(values) R`` and ``K =
    [[R'V, -1], [-1, 0]]``, so that ``G + penalty`` is solved by the Woodbury identity. ``moments``
    are the coordinates' products with the targets before erasing.
    """
    moments = moments - write @ (read.T @ moments)
    diagonal = (values + penalty)[:, np.newaxis]
    seen = values[:, np.newaxis] * read
    one = np.eye(write.shape[1])
    inverse = np.block([[np.zeros_like(one), -one], [-one, -read.T @ seen]])
    factors = np.hstack([write, seen])
    solved, bent = moments / diagonal, factors / diagonal
    solved = solved - bent @ np.linalg.solve(inverse + factors.T @ bent, factors.T @ solved)
    return np.asarray(solved - read @ (write.T @ solved))


def _smallest_angle(
    values: Floats, target: Floats, concept: Floats, penalty: float, other_penalty: float
) -> float:
    """Return the angle between what two probes read from the training rows, degrees.

    NaN where a probe reads nothing: its targets do not vary in the training rows.
    """
    spread = np.sqrt(values)[:, np.newaxis]
    own = spread * target / (values + penalty)[:, np.newaxis]
    others = spread * concept / (values + other_penalty)[:, np.newaxis]
    angles = principal_angles(own, others)
    return float(angles[0]) if len(angles) else np.nan


def unit_columns(Y: Floats) -> Floats:
    """Return columns ``[n, q]`` centred and of length 1; those that do not vary become 0."""
    deviations = Y - Y.mean(axis=0)
    length = np.linalg.norm(deviations, axis=0)
    varies = length > _NOTHING * np.linalg.norm(Y, axis=0)
    return np.asarray(np.where(varies, deviations / np.where(varies, length, 1.0), 0.0))


def whitened_projection(values: Floats, moments: Floats, penalty: float) -> tuple[Floats, Floats]:
    """Return what LEACE writes and reads in uncorrelated coordinates ``u``, each ``[r, rank]``.

    With the coordinates' sums of squares ``values`` and of products with unit columns of the
    concept, ``moments``, erased coordinates are ``u - write @ (read.T @ u)``.
    """
    root = np.sqrt(values + penalty)[:, np.newaxis]
    directions, strength, _ = np.linalg.svd(moments / root, full_matrices=False)
    directions = directions[:, strength > _NOTHING]
    return root * directions, directions / root


def centred(columns: Floats, groups: Ints) -> Floats:
    """Return deviations from the group's mean; all 0 where they are rounding."""
    sums = np.stack([np.bincount(groups, column) for column in columns.T], axis=1)
    deviations = columns - (sums / np.bincount(groups)[:, np.newaxis])[groups]
    varies = (deviations**2).sum(axis=0) > _ROUNDING * (columns**2).sum(axis=0)
    return np.asarray(deviations * varies)


def _relation(Y: Floats, Z: Floats, groups: Ints) -> dict[str, Any]:
    """Return what two aspects' targets have in common within groups of rows."""
    own, other = unit_columns(centred(Y, groups)), unit_columns(centred(Z, groups))
    explained = other @ np.linalg.lstsq(other, own, rcond=None)[0]
    ranks = [unit_columns(centred(_ranks(each, groups), groups)) for each in (Y, Z)]
    return {
        "shared": float((explained**2).sum(axis=0).mean()),
        "correlation": strongest(own, other),
        "rank_correlation": strongest(*ranks),
    }


def strongest(own: Floats, other: Floats) -> float | None:
    """Return the correlation of unit columns that is furthest from 0; None without variation."""
    correlations = own.T @ other
    furthest = float(correlations.flat[np.abs(correlations).argmax()])
    return furthest if own.any() and other.any() else None


def _ranks(columns: Floats, groups: Ints) -> Floats:
    """Return each value's rank among the rows of its group, as a share of their number."""
    from scipy.stats import rankdata

    sizes = np.bincount(groups)
    # Groups one after the other: a rank among all rows is one in the group and those before it.
    keys = groups[:, np.newaxis] * len(groups) + rankdata(columns, "dense", axis=0)
    before = (np.cumsum(sizes) - sizes)[groups, np.newaxis]
    return np.asarray((rankdata(keys, axis=0) - before) / sizes[groups, np.newaxis])


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
