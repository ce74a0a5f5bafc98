"""Sums over works against rows, intervals against repeated experiments, p against chance."""

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import kstest, t as student, ttest_1samp
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mess_core.probing.decompositions import decompose_folds
from mess_core.probing.folds import ProbeRows, deal_folds, plan_rows
from mess_core.probing.inference import (
    PermutedTargets,
    WorkSums,
    best_probability,
    corrected_p,
    exchange_works,
    holm,
    interval,
    likely_best,
    paired_p,
    permuted_r2,
    resample_works,
    seed_of,
)
from mess_core.probing.probe import probe

pytestmark = pytest.mark.unit

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

ALPHAS = (0.1, 10.0, 1000.0)


def unequal(n_works: int, seed: int = 0) -> ProbeRows:
    sizes = np.random.default_rng(seed).integers(2, 9, n_works)
    works = [f"w{work:03}" for work in range(n_works) for _ in range(sizes[work])]
    return plan_rows(works, np.array([int(work[1:]) % 3 for work in works]))


def predicted(rows: ProbeRows, columns: int = 2, seed: int = 1) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(seed)
    Y = rng.normal(size=(rows.n_rows, columns)) + rng.normal(size=(rows.n_works, 1))[rows.works]
    return Y, Y[:, np.newaxis] + rng.normal(size=(rows.n_rows, 3, columns)) * [[0.5], [0.9], [2]]


def centred(values: Floats, rows: ProbeRows) -> Floats:
    means = rows.sum_by_work(values) / rows.work_sizes[:, np.newaxis]
    return np.asarray(values - means[rows.works])


def test_r2_from_sums_equals_r2_of_the_rows_that_were_drawn() -> None:
    rows = unequal(8)
    Y, predictions = predicted(rows)
    counts = resample_works(8, 20, np.random.default_rng(2))
    sums = WorkSums.of(Y, predictions, rows)
    plain, within = sums.r2(counts), sums.r2_within(counts)
    for resample, count in enumerate(counts.astype(int)):
        drawn = np.repeat(np.arange(rows.n_rows), count[rows.works])
        inner = centred(Y, rows)[drawn]
        for number in range(3):
            r2 = r2_score(Y[drawn], predictions[drawn, number])
            assert plain[resample, number] == pytest.approx(r2, abs=1e-10)
            missed = inner - centred(predictions[:, number], rows)[drawn]
            r2_within = np.mean(1 - (missed**2).sum(axis=0) / (inner**2).sum(axis=0))
            assert within[resample, number] == pytest.approx(r2_within, abs=1e-10)


def test_what_does_not_vary_has_no_r2() -> None:
    rows = plan_rows(["a", "a", "b", "b", "c", "c"], np.array([0, 0, 1, 1, 2, 2]))
    Y = np.array([[1.0, 1], [1, 2], [0.1, 3], [0.1, 4], [3, 5], [3, 6]])
    sums = WorkSums.of(Y[:, :1], np.zeros((6, 1, 1)), rows)
    assert np.isnan(sums.r2_within(np.ones((1, 3)))).all()
    assert np.isnan(sums.r2(np.array([[0.0, 3, 0]]))).all()
    assert np.isfinite(sums.r2(np.array([[1.0, 2, 0]]))).all()
    both, second = (
        WorkSums.of(Y[:, columns], np.ones((6, 1, 1)), rows).r2_within(np.ones((1, 3)))
        for columns in (slice(None), slice(1, None))
    )
    np.testing.assert_array_equal(both, second)


def test_works_are_drawn_with_replacement() -> None:
    counts = resample_works(7, 4000, np.random.default_rng(0))
    assert (counts.sum(axis=1) == 7).all()
    np.testing.assert_allclose(counts.mean(axis=0), 1, atol=0.06)
    np.testing.assert_allclose(counts.var(axis=0), 6 / 7, atol=0.1)


@pytest.mark.parametrize("n_works", [4, 40])
def test_intervals_cover_the_truth(n_works: int) -> None:
    all_works = np.ones((1, n_works))
    overall, intervals = [], []
    for seed in range(200):
        rows = unequal(n_works, seed)
        Y, predictions = predicted(rows, columns=1, seed=seed)
        sums = WorkSums.of(Y, predictions, rows)
        counts = resample_works(n_works, 500, np.random.default_rng(seed))
        overall.append(sums.r2_within(all_works)[0, 1])
        intervals.append(interval(overall[-1], sums.r2_within(counts)[:, 1], n_works))
    bounds = np.array([found for found in intervals if found is not None])
    truth = np.median(overall)
    covered = ((bounds[:, 0] <= truth) & (truth <= bounds[:, 1])).mean()
    assert 0.9 <= covered <= 0.99
    spread = np.quantile(overall, 0.975) - np.quantile(overall, 0.025)
    assert 0.8 < np.median(bounds[:, 1] - bounds[:, 0]) / spread < 2
    assert (bounds < 1).all()


def test_an_interval_is_that_of_a_t_distribution_around_the_logarithm() -> None:
    logs = np.array([-2.0, -1, 0, 1, 2]) / 10
    low, high = interval(0.5, 1 - np.exp(logs), 5) or (0, 0)
    reach = student.ppf(0.975, 4) * logs.std(ddof=1)
    assert (low, high) == pytest.approx((1 - 0.5 * np.exp(reach), 1 - 0.5 * np.exp(-reach)))


def test_an_interval_leaves_out_what_is_undefined() -> None:
    values = np.linspace(0, 0.9, 50)
    assert interval(0.5, np.append(values, np.nan), 9) == interval(0.5, values, 9)
    assert interval(0.5, np.full(5, np.nan), 9) is None
    assert interval(np.nan, values, 9) is None
    assert interval(1.0, np.ones(9), 9) == pytest.approx((1, 1))


def test_layers_that_are_best_with_probability() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal([0.50, 0.49, 0.30, 0.50], 0.05, size=(4000, 4))
    values[:7, 2] = np.nan
    probability = best_probability(values)
    assert sum(probability) == pytest.approx(1)
    assert probability[0] == pytest.approx(probability[3], abs=0.03)
    assert probability[1] > 0.2 > probability[2]
    assert likely_best(probability) == (0, 1, 3)
    assert best_probability(np.zeros((10, 3))) == (1, 0, 0)


@pytest.mark.parametrize(
    ("probability", "layers"),
    [((1.0, 0.0), (0,)), ((0.04, 0.96), (1,)), ((0.05, 0.95), (1,)), ((0.06, 0.94), (0, 1))],
)
def test_the_set_of_best_layers_is_the_smallest(
    probability: tuple[float, ...], layers: tuple[int, ...]
) -> None:
    assert likely_best(probability) == layers


def test_seeds_depend_on_the_name_alone() -> None:
    assert seed_of("rubato") == 0xD531A09715045B39
    assert seed_of("rubato") != seed_of("tempo")


def planned(recordings: list[str], n_folds: int = 3) -> ProbeRows:
    """Rows of recordings that are named by their work and a number, like ``b-2``."""
    works = [name.split("-")[0] for name in recordings]
    return plan_rows(works, deal_folds(works, n_folds), recordings=recordings)


def exchanged(rows: ProbeRows, count: int = 50, seed: int = 0) -> Ints:
    return exchange_works(rows, count, np.random.default_rng(seed))


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


def test_p_counts_what_is_at_least_as_large_in_any_layer() -> None:
    permuted = np.linspace(0, 0.98, 99)
    statistics = np.array([[0.5, *permuted], [0.99, *permuted[::-1] - 0.5], [-3.0, *permuted]])
    np.testing.assert_allclose(corrected_p(statistics), [0.5, 0.01, 1.0], atol=0.011)
    other_layer = np.array([[0.5, *np.zeros(9)], [0.1, *np.full(9, 0.6)]])
    assert corrected_p(other_layer).tolist() == [1, 1]


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


def test_gains_are_tested_as_scipy_does_and_corrected_as_holm_did() -> None:
    gains = np.random.default_rng(0).normal(0.4, 1, size=12)
    expected = ttest_1samp(gains, 0, alternative="greater").pvalue
    assert paired_p(gains.tolist()) == pytest.approx(expected)
    assert paired_p([0.3]) == paired_p([0.3, 0.3]) == paired_p([]) == 1.0
    # Holm (1979): the smallest times 4, the next times 3, ..., never falling, at most 1.
    assert holm([0.01, 0.04, 0.03, 0.6]) == pytest.approx([0.04, 0.09, 0.09, 0.6])
    assert holm([0.5, 0.4]) == pytest.approx([0.8, 0.8])
    assert holm([]) == []
