"""Exchanges against what they must keep, statistics against scikit-learn, p against chance."""

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import kstest
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mess_core.probing.decompositions import decompose_folds
from mess_core.probing.folds import ProbeRows, deal_folds, plan_rows
from mess_core.probing.inference import (
    PermutedTargets,
    corrected_p,
    exchange_works,
    permuted_r2,
)
from mess_core.probing.probe import probe

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

ALPHAS = (0.1, 10.0, 1000.0)


def planned(recordings: list[str], n_folds: int = 3) -> ProbeRows:
    """Rows of recordings that are named by their work and a number, like ``b-2``."""
    works = [name.split("-")[0] for name in recordings]
    return plan_rows(works, deal_folds(works, n_folds), recordings=recordings)


def exchanged(rows: ProbeRows, count: int = 50, seed: int = 0) -> Ints:
    return exchange_works(rows, count, np.random.default_rng(seed))


@pytest.mark.unit
def test_works_of_equal_length_exchange_all_their_rows_in_order() -> None:
    works = [f"w{row % 6}" for row in range(24)]
    rows = plan_rows(works, deal_folds(works, 3))
    seen = set()
    for permuted in exchanged(rows, 300):
        assert sorted(permuted.tolist()) == list(range(24))
        for work in range(6):
            source = permuted[rows.works == work]
            assert (np.diff(source) == 6).all()
        seen.add(tuple(permuted[:6].tolist()))
    assert len(seen) > 200


@pytest.mark.unit
def test_recordings_are_exchanged_whole_and_stretched_in_time() -> None:
    names = [*["a-1"] * 4, *["a-2"] * 2, *["b-1"] * 8, *["c-1"] * 2, *["c-2"] * 4, *["c-3"] * 3]
    rows = planned(names)
    found = set()
    for permuted in exchanged(rows, 100):
        sources = [names[row] for row in permuted]
        for name in set(names):
            mine = [row for row in range(len(names)) if names[row] == name]
            assert len({sources[row] for row in mine}) == 1
            assert (np.diff(permuted[mine]) >= 0).all()
        if sources[6] == "a-1":
            found.add("longer")
            assert permuted[6:14].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
        if sources[0] == "b-1":
            found.add("shorter")
            assert permuted[:6].tolist() == [6, 8, 10, 12, 6, 10]
    assert found == {"longer", "shorter"}


@pytest.mark.unit
def test_works_exchange_with_those_of_like_length() -> None:
    lengths = [4] * 7 + [1] * 2 + [2] * 4 + [9, 8, 7, 6]
    names = [f"{work:02}-{r}" for work, length in enumerate(lengths) for r in range(length)]
    rows = planned(names)
    partners: dict[int, set[int]] = {work: set() for work in range(len(lengths))}
    for permuted in exchanged(rows, 400):
        for work, source in zip(rows.works, rows.works[permuted], strict=True):
            partners[int(work)].add(int(source))
    for work, length in enumerate(lengths):
        expected = set(range(7, 13)) if length < 4 else {*range(7), *range(13, 17)}
        assert partners[work] == expected


def centred(values: Floats, rows: ProbeRows) -> Floats:
    means = rows.sum_by_work(values) / rows.work_sizes[:, np.newaxis]
    return np.asarray(values - means[rows.works])


def brute_force(X: Floats, Y: Floats, rows: ProbeRows) -> tuple[float, float]:
    """The largest R2 over penalties, and the largest within works, by fitting."""
    plain, within = [], []
    for alpha in ALPHAS:
        predicted = np.empty_like(Y)
        for fold in range(rows.n_folds):
            test = rows.folds == fold
            model = make_pipeline(StandardScaler(), Ridge(alpha=alpha)).fit(X[~test], Y[~test])
            predicted[test] = model.predict(X[test]).reshape(-1, Y.shape[1])
        inner, missed = (centred(values, rows) for values in (Y, Y - predicted))
        plain.append(r2_score(Y, predicted))
        within.append(np.mean(1 - (missed**2).sum(axis=0) / (inner**2).sum(axis=0)))
    return max(plain), max(within)


@pytest.mark.unit
@pytest.mark.parametrize(("dims", "columns"), [(6, 1), (6, 3), (80, 1)])
def test_statistics_equal_those_of_fitted_probes(dims: int, columns: int) -> None:
    rng = np.random.default_rng(dims)
    names = [f"{w:02}-{r}" for w in range(9) for r in range(1 + w % 3) for _ in range(3 + w % 2)]
    rows = planned(names)
    X = rng.normal(size=(rows.n_rows, dims)) * rng.uniform(0.1, 10, dims) + 3
    Y = X[:, :2] @ rng.normal(size=(2, columns)) + rng.normal(size=(rows.n_rows, columns)) * 9
    Y = (Y - Y.mean(axis=0)) / Y.std(axis=0)
    index = exchanged(rows, 4)
    targets = PermutedTargets.of(Y, rows, index)
    decompositions = decompose_folds(X, rows)
    deviations = (X - decompositions.work_means[rows.works]).astype(np.float32)
    cross = np.array(
        [deviations[rows.folds == f].T @ targets.values[rows.folds == f] for f in range(3)]
    )
    found = permuted_r2(targets, cross, rows, decompositions, ALPHAS)
    assert found.shape == (2, 5)
    for number, order in enumerate([np.arange(rows.n_rows), *index]):
        expected = brute_force(X, Y[order], rows)
        np.testing.assert_allclose(found[:, number], expected, atol=2e-5)


@pytest.mark.unit
def test_p_counts_what_is_at_least_as_large_in_any_layer() -> None:
    permuted = np.linspace(0, 0.98, 99)
    statistics = np.array([[0.5, *permuted], [0.99, *permuted[::-1] - 0.5], [-3.0, *permuted]])
    np.testing.assert_allclose(corrected_p(statistics), [0.5, 0.01, 1.0], atol=0.011)
    other_layer = np.array([[0.5, *np.zeros(9)], [0.1, *np.full(9, 0.6)]])
    assert corrected_p(other_layer).tolist() == [1, 1]


@pytest.mark.unit
def test_ties_and_what_is_undefined_count_as_large() -> None:
    assert corrected_p(np.array([[0.5, 0.5 - 1e-8, 0.1, np.nan]])).tolist() == [0.75]


def null_p(seed: int, equal: bool) -> Floats:
    """Both p values of a probe of random effects of works, recordings and rows."""
    rng = np.random.default_rng(seed)
    n_recordings = np.full(12, 2) if equal else rng.integers(1, 5, 12)
    names = [
        f"{work:02}-{recording}"
        for work in range(12)
        for recording in range(n_recordings[work])
        for _ in range(4 if equal else rng.integers(3, 9))
    ]
    rows = planned(names)

    def effects(columns: int) -> Floats:
        return np.asarray(
            rng.normal(size=(12, columns))[rows.works]
            + rng.normal(size=(rows.n_recordings, columns))[rows.recordings]
            + rng.normal(size=(rows.n_rows, columns))
        )

    works = [name[:2] for name in names]
    result = probe(
        [effects(4), effects(3)],
        effects(1),
        works,
        deal_folds(works, 3),
        name=f"null {seed}",
        recordings=names,
        n_resamples=1,
    )
    p = np.array([(score.p, score.p_within) for score in result.layers], float)
    return np.asarray(p.min(axis=0))


@pytest.mark.slow
@pytest.mark.parametrize("equal", [True, False])
def test_p_is_uniform_where_targets_have_nothing_to_do_with_features(equal: bool) -> None:
    p, p_within = np.array([null_p(seed, equal) for seed in range(250)]).T
    # p is one of 1/200, 2/200, ..., 1: spread it over what lies between to compare with uniform.
    spread = np.random.default_rng(0).uniform(0, 1 / 200, (2, 250))
    for values, shift in zip((p, p_within), spread, strict=True):
        assert kstest(values - shift, "uniform").pvalue > 0.01


@pytest.mark.unit
def test_a_planted_signal_has_the_smallest_p() -> None:
    rng = np.random.default_rng(0)
    works = [f"w{row // 8}" for row in range(96)]
    features = rng.normal(size=(3, 96, 5))
    y = features[1] @ np.ones(5) + rng.normal(size=96)
    result = probe(features, y, works, deal_folds(works, 4), name="planted")
    assert result.layers[1].p == result.layers[1].p_within == result.p == 1 / 200
    assert all(score.p is not None and score.p > 0.05 for score in result.layers[::2])
