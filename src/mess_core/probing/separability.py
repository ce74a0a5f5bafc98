"""Separability of two aspects: whether one can be taken out of the features while the other stays.

For aspects A and B, in the features of A's own layer, B is erased by LEACE
(`mess_core.probing.erasure`) and A is probed before and after. All is learned on the training folds
and judged on works that were not heard: standardisation, eraser and probe. After erasing no linear
probe predicts B better than its mean, on the training rows.

* ``r2`` and ``r2_erased``: R2 of A's ridge probe before and after erasing B, mean over A's targets;
  ``r2_within`` and ``r2_within_erased`` the same with targets and predictions centred per work.
  The penalties are given (those that probing chose), also for the whitening of the eraser, so that
  what is erased is what the ridge probe of B reads.
* ``retained``: the share of A's R2 that is left. Its interval (95 %) comes from a bootstrap over
  works, before and after resampled together. ``judged_on`` says which R2: that within works, or
  the pooled one where a target of A has one value in each work; then "within works" below means
  over all rows.
* ``shared``: the share of A's variance within works that B's targets explain linearly, whatever
  the encoder does. Where both are encoded equally well and apart, erasing B leaves ``1 - shared``
  of A's R2: what is shared goes with either.
* ``angle``: the smallest principal angle (Björck and Golub 1973) between what A's probe and B's
  read from the training rows, degrees, mean over folds: the angle between the spans of their
  coefficients in the metric of the features' covariance. 90: the readings are uncorrelated; 0: a
  reading of A is a reading of B. (The Euclidean angle between coefficients is ruled by directions
  that hardly vary: in a planted case where features held A + B only, it was 86 degrees.)
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

__all__ = ["AspectProbe", "principal_angles", "separate_aspects", "train_folds"]

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from mess_core.probing.erasure import unit_columns, whitened_projection
from mess_core.probing.folds import ProbeRows, plan_rows
from mess_core.probing.ridge import RidgeDecomposition, decompose, decompose_scatter
from mess_core.progress import Report, counted

Floats = npt.NDArray[np.float64]
Features = npt.NDArray[np.floating]
Decompositions = Callable[[int, ProbeRows], Sequence[RidgeDecomposition]]

#: Fewer rows or works than these say nothing about generalisation.
MIN_ROWS, MIN_WORKS = 10, 3

#: Share of A's R2 that must be left for A to count as separable from what was erased.
SEPARABLE = 0.5

_RESAMPLES = 2000
_LEVEL = (2.5, 97.5)

# A variance below this share of that of all rows is rounding.
_ROUNDING = 1e-12

_FIGURES = (
    "r2",
    "r2_within",
    "r2_erased",
    "r2_within_erased",
    "judged_on",
    "interval_lo",
    "interval_hi",
    "retained",
    "retained_lo",
    "retained_hi",
    "shared",
    "correlation",
    "rank_correlation",
    "angle",
)


@dataclass(frozen=True, eq=False)
class AspectProbe:
    """An aspect as it is probed.

    Attributes
    ----------
    name : str
        Of the aspect.
    layer : int
        The layer that knows it best.
    targets : ndarray [shape=(n,) or (n, q)]
        Its targets; NaN where a row lacks one.
    penalties : sequence of float
        Ridge penalty of its probe in each layer, all above 0.
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
    folds: npt.NDArray[np.integer],
    *,
    decompositions: Decompositions | None = None,
    progress: Report | None = None,
) -> list[dict[str, Any]]:
    """Judge for every ordered pair of aspects whether the one outlives the erasure of the other.

    Parameters
    ----------
    layers : callable
        Gives the features ``[n, D]`` of a layer's number; called once per aspect.
    aspects : sequence of AspectProbe
        At least two, in the order of the result.
    works : sequence of str
        The work of each of n rows.
    folds : ndarray of int [shape=(n,)]
        Their folds, which share no work.
    decompositions : callable, optional
        Gives, for a layer's number and some rows, the decomposition of the rows outside each fold;
        `train_folds` by default. Called once per layer of an aspect and set of rows.
    progress : callable, optional
        Called with the aspects done, those in all, and the name of the last.

    Returns
    -------
    list of dict
        Per ordered pair ``aspect`` (A), ``erased`` (B), ``layer`` (A's), ``n_rows``, ``n_works``,
        the figures that this module lists (``interval_lo``, ``interval_hi`` of A's R2 before and
        ``retained_lo``, ``retained_hi`` among them), ``verdict`` and ``reason`` (of an undefined
        verdict, else None). Undefined figures are None.

    Raises
    ------
    ProbingError
        If a work is in two folds or numbers of rows differ.
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
                    trainings: Sequence[RidgeDecomposition] = train_folds(X, rows)
                else:
                    trainings = decompositions(aspect.layer, rows)
                judged |= _judge(X, aspect, members, rows, trainings)
            pairs += [_describe(aspect, b, works) | judged.get(b.name, {}) for b in others]
    return pairs


def train_folds(X: Features, rows: ProbeRows) -> list[RidgeDecomposition]:
    """Decompose, for each fold, the present rows of all other folds.

    Parameters
    ----------
    X : ndarray [shape=(n, D)]
        Finite features of all rows, present or not.
    rows : ProbeRows
        Which of them are present, and their folds.

    Returns
    -------
    list of RidgeDecomposition
        One per fold.
    """
    sizes = np.bincount(rows.folds)
    present = np.asarray(X[rows.indices], float)
    if (rows.n_rows - sizes).min() < X.shape[1]:
        return [decompose(present[rows.folds != fold]) for fold in range(rows.n_folds)]
    centre = present.mean(axis=0)
    present -= centre
    of_fold = [present[rows.folds == fold] for fold in range(rows.n_folds)]
    sums = np.array([values.sum(axis=0) for values in of_fold])
    products = np.array([values.T @ values for values in of_fold])
    return [
        _from_sums(rows.n_rows - size, centre, rest, products.sum(axis=0) - product)
        for size, rest, product in zip(sizes, sums.sum(axis=0) - sums, products, strict=True)
    ]


def _from_sums(n: int, centre: Floats, sums: Floats, products: Floats) -> RidgeDecomposition:
    """Decompose rows of which the sums and products around a common centre are known."""
    mean = sums / n
    return decompose_scatter(n, centre + mean, products - n * np.outer(mean, mean))


def principal_angles(A: Floats, B: Floats) -> Floats:
    """Return the principal angles between the spans of two sets of directions.

    Parameters
    ----------
    A, B : ndarray [shape=(D, p)], [shape=(D, q)]
        Directions as columns.

    Returns
    -------
    ndarray of float64 [shape=(min(p, q),)]
        Degrees from 0 to 90, the smallest first; fewer where columns are zero or depend on others.
    """
    from scipy.linalg import subspace_angles

    return np.asarray(np.rad2deg(subspace_angles(A, B))[::-1])


def _present(aspect: AspectProbe, other: AspectProbe) -> npt.NDArray[np.bool_]:
    finite = np.isfinite(np.column_stack([aspect.columns, other.columns]))
    return np.asarray(finite.all(axis=1))


def _by_rows(
    aspect: AspectProbe,
    others: Sequence[AspectProbe],
    works: Sequence[str],
    folds: npt.NDArray[np.integer],
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
            f"both are known for {present.sum()} rows of {n_works} works; at least {MIN_ROWS} rows "
            f"of {MIN_WORKS} works are needed"
        )
    for one in (aspect, other):
        if not unit_columns(one.columns[present]).any(axis=0).all():
            return f"a target of {one.name} does not vary"
    return None


def _describe(aspect: AspectProbe, other: AspectProbe, works: Sequence[str]) -> dict[str, Any]:
    """Return a pair without its figures."""
    present = _present(aspect, other)
    return {
        "aspect": aspect.name,
        "erased": other.name,
        "layer": aspect.layer,
        "n_rows": int(present.sum()),
        "n_works": len(set(np.asarray(works)[present])),
        **dict.fromkeys(_FIGURES),
        "verdict": "undefined",
        "reason": _why_undefined(aspect, other, works),
    }


def _judge(
    X: Features,
    aspect: AspectProbe,
    others: Sequence[AspectProbe],
    rows: ProbeRows,
    trainings: Sequence[RidgeDecomposition],
) -> dict[str, dict[str, Any]]:
    """Return the figures of an aspect with each of the others, which have the same rows."""
    Y = aspect.columns[rows.indices]
    Zs = [other.columns[rows.indices] for other in others]
    penalties = [one.penalties[aspect.layer] for one in (aspect, *others)]
    predicted, angles = _predict(
        np.asarray(X[rows.indices], float), Y, Zs, rows.folds, trainings, penalties
    )
    judge = _Judge(Y, predicted[0], rows.works, aspect.name)
    return {
        other.name: judge.compare(predicted[number], Z) | {"angle": angle}
        for number, (other, Z, angle) in enumerate(zip(others, Zs, angles, strict=True), start=1)
    }


def _predict(
    X: Floats,
    Y: Floats,
    Zs: Sequence[Floats],
    folds: npt.NDArray[np.int64],
    trainings: Sequence[RidgeDecomposition],
    penalties: Sequence[float],
) -> tuple[Floats, list[float | None]]:
    """Predict held-out rows before and after erasing each concept.

    Returns
    -------
    predicted : ndarray [shape=(1 + len(Zs), m, q)]
        First with nothing erased.
    angles : list of float or None
        The smallest principal angle with each concept's probe, degrees, mean of the folds in which
        both vary.
    """
    predicted = np.empty((1 + len(Zs), *Y.shape))
    angles = np.empty((len(trainings), len(Zs)))
    for fold, training in enumerate(trainings):
        out = folds == fold
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
    erasers = [
        (nothing, nothing),
        *(
            whitened_projection(values, concept, penalty)
            for concept, penalty in zip(concepts, penalties[1:], strict=True)
        ),
    ]
    return np.array([_erased_ridge(values, target, *each, penalties[0]) for each in erasers])


def _erased_ridge(
    values: Floats, moments: Floats, write: Floats, read: Floats, penalty: float
) -> Floats:
    """Return ridge coefficients that erase and predict in one, without touching a row.

    In coordinates ``u`` whose products are ``diag(values)``, erased rows ``u - W R'u`` have the
    products ``G = diag(values) + F K F'`` with ``F = [W, V]``, ``V = diag(values) R`` and ``K =
    [[R'V, -1], [-1, 0]]``, so that ``G + penalty`` is solved by the Woodbury identity.

    Parameters
    ----------
    values : ndarray [shape=(r,)]
        Sums of squares of the coordinates.
    moments : ndarray [shape=(r, q)]
        Sums of products with the target's columns, before erasing.
    write, read : ndarray [shape=(r, rank)]
        W and R.
    penalty : float
        Ridge's, above 0.

    Returns
    -------
    ndarray of float64 [shape=(r, q)]
        For coordinates that were not erased.
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


class _Judge:
    """Compares an aspect's R2 before and after something was erased.

    Parameters
    ----------
    Y, predicted : ndarray [shape=(m, q)]
        The aspect's targets, and their prediction with nothing erased.
    works : ndarray of int [shape=(m,)]
        The work of each row, from 0.
    name : str
        The aspect's, which seeds the bootstrap.
    """

    def __init__(
        self, Y: Floats, predicted: Floats, works: npt.NDArray[np.int64], name: str
    ) -> None:
        self._Y, self._works = Y, works
        self._varies_within = bool(_centred(Y, works).any(axis=0).all())
        self._measure = "r2_within" if self._varies_within else "r2"
        self._groups = works if self._varies_within else np.zeros_like(works)
        self._counts = _bootstrap(int(works.max()) + 1, name)
        self._before = self._r2(predicted)

    def compare(self, predicted: Floats, Z: Floats) -> dict[str, Any]:
        """Return the figures for a prediction after ``Z [m, p]`` was erased."""
        after = self._r2(predicted)
        before = self._before
        judged = before[self._measure]
        kept = after[self._measure] / np.where(judged > 0, judged, np.nan)
        lo, hi = _interval(judged)
        kept_lo, kept_hi = _interval(kept)
        related = _relation(self._Y, Z, self._groups)
        return {
            **{name: _number(r2[0]) for name, r2 in before.items()},
            **{f"{name}_erased": _number(r2[0]) for name, r2 in after.items()},
            "judged_on": self._measure,
            "interval_lo": lo,
            "interval_hi": hi,
            "retained": _number(kept[0]),
            "retained_lo": kept_lo,
            "retained_hi": kept_hi,
            **related,
            "verdict": _verdict(lo, kept_lo, kept_hi, related["shared"]),
        }

    def _r2(self, predicted: Floats) -> dict[str, Floats]:
        """Return R2, pooled and within works, of all rows and of the bootstrap's replicates."""
        within = np.full(len(self._counts), np.nan)
        if self._varies_within:
            centred = _centred(self._Y, self._works), _centred(predicted, self._works)
            within = _resampled_r2(*centred, self._works, self._counts)
        pooled = _resampled_r2(self._Y, predicted, self._works, self._counts)
        return {"r2": pooled, "r2_within": within}


def _verdict(lo: float | None, kept_lo: float | None, kept_hi: float | None, shared: float) -> str:
    if lo is None or lo <= 0 or kept_lo is None or kept_hi is None:
        return "not encoded"
    if kept_lo >= SEPARABLE:
        return "separable"
    if kept_hi >= SEPARABLE:
        return "uncertain"
    return "correlated" if kept_hi >= 1 - shared else "entangled"


def _bootstrap(n_works: int, name: str) -> Floats:
    """Return how often each work counts: once in the first row, resampled in the others."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    drawn = np.random.default_rng(seed).multinomial(
        n_works, np.full(n_works, 1 / n_works), size=_RESAMPLES
    )
    return np.vstack([np.ones(n_works), drawn])


def _resampled_r2(
    Y: Floats, predicted: Floats, works: npt.NDArray[np.int64], counts: Floats
) -> Floats:
    """Return R2, mean over columns, for each row of ``counts [b, works]``."""
    centred = Y - Y.mean(axis=0)
    errors = counts @ _per_work((Y - predicted) ** 2, works)
    sizes = (counts @ np.bincount(works))[:, np.newaxis]
    sums, squares = counts @ _per_work(centred, works), counts @ _per_work(centred**2, works)
    total = squares - sums**2 / sizes
    total = np.where(total > _ROUNDING * squares[0], total, np.nan)
    return np.asarray((1 - errors / total).mean(axis=1))


def _per_work(columns: Floats, works: npt.NDArray[np.int64]) -> Floats:
    """Sum columns ``[m, q]`` over the rows of each work ``[works, q]``."""
    return np.stack([np.bincount(works, column) for column in columns.T], axis=1)


def _centred(columns: Floats, groups: npt.NDArray[np.int64]) -> Floats:
    """Return deviations from the group's mean; all 0 where they are rounding."""
    deviations = columns - (_per_work(columns, groups) / np.bincount(groups)[:, np.newaxis])[groups]
    varies = (deviations**2).sum(axis=0) > _ROUNDING * (columns**2).sum(axis=0)
    return np.asarray(deviations * varies)


def _relation(Y: Floats, Z: Floats, groups: npt.NDArray[np.int64]) -> dict[str, Any]:
    """Return what two aspects' targets have in common within groups of rows."""
    own, other = unit_columns(_centred(Y, groups)), unit_columns(_centred(Z, groups))
    explained = other @ np.linalg.lstsq(other, own, rcond=None)[0]
    ranks = [unit_columns(_centred(_ranks(each, groups), groups)) for each in (Y, Z)]
    return {
        "shared": float((explained**2).sum(axis=0).mean()),
        "correlation": _strongest(own, other),
        "rank_correlation": _strongest(*ranks),
    }


def _strongest(own: Floats, other: Floats) -> float | None:
    """Return the correlation of unit columns that is furthest from 0; None without variation."""
    correlations = own.T @ other
    strongest = float(correlations.flat[np.abs(correlations).argmax()])
    return strongest if own.any() and other.any() else None


def _ranks(columns: Floats, groups: npt.NDArray[np.int64]) -> Floats:
    """Return each value's rank among the rows of its group, as a share of their number."""
    from scipy.stats import rankdata

    ranks = np.empty_like(columns)
    for group in range(int(groups.max()) + 1):
        mine = groups == group
        ranks[mine] = rankdata(columns[mine], axis=0) / mine.sum()
    return ranks


def _interval(replicates: Floats) -> tuple[float | None, float | None]:
    """Return the 95 % interval of all but the first, which is the estimate."""
    drawn = replicates[1:][np.isfinite(replicates[1:])]
    if not len(drawn):
        return None, None
    lo, hi = np.percentile(drawn, _LEVEL)
    return float(lo), float(hi)


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
