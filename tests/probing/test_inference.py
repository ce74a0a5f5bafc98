"""Sums over works against rows, intervals against repeated experiments."""

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import t as student
from sklearn.metrics import r2_score

from mess_core.probing.folds import ProbeRows, plan_rows
from mess_core.probing.inference import (
    WorkSums,
    best_probability,
    interval,
    likely_best,
    resample_works,
    seed_of,
)

pytestmark = pytest.mark.unit

Floats = npt.NDArray[np.float64]


def unequal(n_works: int, seed: int = 0) -> ProbeRows:
    sizes = np.random.default_rng(seed).integers(2, 9, n_works)
    works = [f"w{work:03}" for work in range(n_works) for _ in range(sizes[work])]
    return plan_rows(works, np.array([int(work[1:]) % 3 for work in works]))


def predicted(rows: ProbeRows, columns: int = 2, seed: int = 1) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(seed)
    Y = rng.normal(size=(rows.n_rows, columns)) + rng.normal(size=(rows.n_works, 1))[rows.works]
    return Y, Y[:, np.newaxis] + rng.normal(size=(rows.n_rows, 3, columns)) * [[0.5], [0.9], [2]]


def centred(values: Floats, works: npt.NDArray[np.int64]) -> Floats:
    result = values.copy()
    for work in np.unique(works):
        result[works == work] -= values[works == work].mean(axis=0)
    return result


def test_r2_from_sums_equals_r2_of_the_rows_that_were_drawn() -> None:
    rows = unequal(8)
    Y, predictions = predicted(rows)
    counts = resample_works(8, 20, np.random.default_rng(2))
    sums = WorkSums.of(Y, predictions, rows)
    plain, within = sums.r2(counts), sums.r2_within(counts)
    for resample, count in enumerate(counts.astype(int)):
        drawn = np.repeat(np.arange(rows.n_rows), count[rows.works])
        inner = centred(Y, rows.works)[drawn]
        for number in range(3):
            r2 = r2_score(Y[drawn], predictions[drawn, number])
            assert plain[resample, number] == pytest.approx(r2, abs=1e-10)
            missed = inner - centred(predictions[:, number], rows.works)[drawn]
            r2_within = np.mean(1 - (missed**2).sum(axis=0) / (inner**2).sum(axis=0))
            assert within[resample, number] == pytest.approx(r2_within, abs=1e-10)


def test_knowing_the_work_gives_r2_but_none_within() -> None:
    rows = unequal(12)
    Y, _ = predicted(rows, columns=1)
    means = (rows.sum_by_work(Y) / rows.work_sizes[:, np.newaxis])[rows.works]
    sums = WorkSums.of(Y, means[:, np.newaxis], rows)
    all_works = np.ones((1, 12))
    assert sums.r2(all_works)[0, 0] > 0.3
    assert sums.r2_within(all_works)[0, 0] == pytest.approx(0, abs=1e-12)


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
