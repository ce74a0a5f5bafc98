"""Kendall's W on textbook rankings, its p value, and the table over targets."""

from typing import Any

import numpy as np
import pytest
from scipy.stats import friedmanchisquare, kstest

from mess_core.errors import ProbingError
from mess_core.probing.stability import kendall_w, stability_table

pytestmark = pytest.mark.unit


def test_folds_that_agree_and_folds_that_disagree() -> None:
    same = kendall_w(np.tile([0.1, 0.5, 0.2, 0.9, 0.3, 0.4], (5, 1)) + np.arange(5)[:, np.newaxis])
    assert same is not None
    assert same.w == pytest.approx(1)
    assert same.p == 1 / 2000
    opposed = kendall_w([[1, 2, 3, 4], [4, 3, 2, 1]])
    assert opposed is not None
    assert opposed.w == pytest.approx(0)
    assert opposed.p == 1


def test_a_case_done_by_hand_with_ties() -> None:
    # Ranks [1, 2.5, 2.5, 4], [1, 2, 3, 4], [2, 1, 3, 4] sum to [4, 5.5, 8.5, 12], whose squared
    # deviations from 7.5 sum to 37.5; the tie is 2^3 - 2 = 6. W = 12 * 37.5 / (9 * 60 - 3 * 6).
    result = kendall_w(np.array([[1, 5, 5, 7], [1, 2, 3, 4], [0.2, 0.1, 0.3, 0.4]]))
    assert result is not None
    assert result.w == pytest.approx(450 / 522)


def test_it_is_friedmans_statistic_over_its_largest_value() -> None:
    values = np.random.default_rng(1).normal(size=(6, 9)) + np.linspace(0, 1, 9)
    values = np.round(values, 1)
    result = kendall_w(values)
    assert result is not None
    friedman = friedmanchisquare(*values.T)
    assert result.w == pytest.approx(friedman.statistic / (6 * 8))
    assert result.p == pytest.approx(friedman.pvalue, abs=0.03)


def test_p_is_uniform_where_the_ranking_is_random() -> None:
    rng = np.random.default_rng(2)
    results = [kendall_w(rng.normal(size=(5, 7)), n_permutations=199) for _ in range(300)]
    assert kstest([result.p for result in results if result], "uniform").pvalue > 0.01


@pytest.mark.parametrize("values", [[[1, 2, 3]], [[1], [2]], [[1, 1], [2, 2]]])
def test_nothing_to_rank_is_undefined(values: list[list[int]]) -> None:
    assert kendall_w(values) is None


def test_values_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ProbingError, match="finite"):
        kendall_w(np.array([[1, np.nan], [2, 3]]))


def result(
    within: list[list[float | None]], pooled: list[list[float | None]], **changes: Any
) -> dict[str, Any]:
    layers = [
        {"layer": i, "r2": 0.5 + i, "r2_within": 0.1 + i, "r2_folds": p, "r2_within_folds": w}
        for i, (w, p) in enumerate(zip(within, pooled, strict=True))
    ]
    common = {"target": "tempo", "category": "rhythm", "best_layer": 1, "primary": "r2_within"}
    return {**common, "layers": layers, **changes}


def test_the_table_tells_the_spread_of_the_best_layer_and_the_concordance_of_all() -> None:
    within: list[list[float | None]] = [[0.1, 0.2, 0.3], [0.5, 0.1, 0.9], [0.0, 0.0, 0.0]]
    (row,) = stability_table([result(within, [[0.0] * 3] * 3)])
    assert row["target"] == "tempo"
    assert row["measure"] == "r2_within"
    assert row["n_folds"] == 3
    assert row["r2"] == 1.1
    assert row["r2_folds"] == [0.5, 0.1, 0.9]
    assert row["r2_std"] == pytest.approx(np.std([0.5, 0.1, 0.9]))
    assert (row["r2_min"], row["r2_max"]) == (0.1, 0.9)
    assert row["best_layer_folds"] == [1, 0, 1]
    assert row["agreement"] == pytest.approx(2 / 3)
    expected = kendall_w(np.array(within, float).T)
    assert expected is not None
    assert row["kendall_w"] == pytest.approx(expected.w)
    assert 0 < row["kendall_p"] <= 1


def test_folds_without_variation_are_left_out() -> None:
    pooled: list[list[float | None]] = [[0.1, None, 0.3], [0.5, None, 0.9]]
    (row,) = stability_table([result([[None] * 3] * 2, pooled, primary="r2")])
    assert row["measure"] == "r2"
    assert row["n_folds"] == 2
    assert row["kendall_w"] == 1
    (row,) = stability_table([result([[None] * 3] * 2, [[None] * 3] * 2, primary="r2")])
    assert row["n_folds"] == 0
    assert row["r2_std"] is row["r2_min"] is row["kendall_w"] is row["agreement"] is None


def test_a_target_that_was_not_probed_has_a_row_without_figures() -> None:
    probed = result([[0.1, 0.2], [0.5, 0.4]], [[0.0] * 2] * 2)
    lacking = {**probed, "layers": [], "best_layer": None, "primary": None}
    rows = stability_table([probed, lacking])
    assert list(rows[0]) == list(rows[1])
    assert set(rows[1].values()) == {"tempo", "rhythm", None}
