"""Tables: the columns that are promised, the measure that counts, empty cells for the undefined."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import friedmanchisquare, kstest

from mess_core.errors import ProbingError
from mess_core.probing.questions import kendall_w, layer_table, stability_table, write_table
from tests.probing.toy import result

pytestmark = pytest.mark.unit


def test_a_row_has_the_best_layers_figures_by_the_measure_that_counts() -> None:
    (row,) = layer_table([result("tempo", [0.0, 0.5], best_layers=[0, 1])])
    assert (row["best_layer"], row["best_layers"], row["measure"]) == (1, [0, 1], "r2_within")
    assert (row["r2"], row["r2_within"], row["r2_lo"], row["r2_hi"]) == (0.7, 0.5, 0.4, 0.6)
    assert (row["p"], row["nested"], row["mixture"]) == (0.005, 0.32, 0.42)
    assert (row["untrained"], row["layer_0"]) == (0.11, 0.12)
    assert (row["n_rows"], row["n_recordings"], row["n_works"]) == (200, 20, 7)
    assert (row["rmse"], row["alpha"], row["selectivity"]) == (12.0, 100.0, 0.65)


def test_where_no_work_has_rows_that_differ_the_pooled_r2_counts() -> None:
    made = result("tempo", [0.0, 0.5], primary="r2")
    for score in (*made["layers"], *made["baselines"].values()):
        score["r2_within"] = None
    (row,) = layer_table([made])
    assert (row["measure"], row["r2_within"]) == ("r2", None)
    assert (row["r2_lo"], row["r2_hi"]) == (0.6, 0.8)
    assert (row["p"], row["nested"], row["mixture"]) == (0.5, 0.31, 0.41)
    assert (row["untrained"], row["layer_0"]) == pytest.approx((0.31, 0.32))


def test_rows_have_the_same_columns_whatever_a_target_lacks(tmp_path: Path) -> None:
    lacking = result("rubato", [], reason="too few\trows\n")
    rows = layer_table([lacking, result("tempo", [0.0, 0.5], best_layers=[0, 1])])
    write_table(rows, tmp_path / "layers.tsv")
    with (tmp_path / "layers.tsv").open(newline="") as file:
        first, second = csv.DictReader(file, delimiter="\t")
    assert first["target"] == "rubato"
    assert first["reason"] == "too few rows"
    assert first["r2"] == first["best_layers"] == first["untrained"] == first["p"] == ""
    assert second["best_layers"] == "0,1"
    assert second["untrained"] == "0.11"
    assert second["reason"] == ""


def test_numbers_have_six_digits_and_lists_commas(tmp_path: Path) -> None:
    row = {"a": 1 / 3, "b": [0.5, None, 2], "c": True, "d": 123456789, "e": 1e-9}
    write_table([row], tmp_path / "table.tsv")
    text = (tmp_path / "table.tsv").read_text()
    assert text == "a\tb\tc\td\te\n0.333333\t0.5,,2\tTrue\t123456789\t1e-09\n"


def test_rows_that_differ_in_their_columns_are_refused_and_none_are_an_empty_file(
    tmp_path: Path,
) -> None:
    with pytest.raises(ProbingError, match=r"differ in \['b'\]"):
        write_table([{"a": 1}, {"a": 1, "b": 2}], tmp_path / "table.tsv")
    assert not list(tmp_path.iterdir())
    write_table([], tmp_path / "table.tsv")
    assert (tmp_path / "table.tsv").read_text() == ""


def test_folds_that_agree_and_folds_that_disagree() -> None:
    same = np.tile([0.1, 0.5, 0.2, 0.9, 0.3, 0.4], (5, 1)) + np.arange(5)[:, np.newaxis]
    assert kendall_w(same) == pytest.approx((1, 1 / 2000))
    assert kendall_w([[1, 2, 3, 4], [4, 3, 2, 1]]) == pytest.approx((0, 1))


def test_it_is_friedmans_statistic_over_its_largest_value() -> None:
    values = np.random.default_rng(1).normal(size=(6, 9)) + np.linspace(0, 1, 9)
    values = np.round(values, 1)
    friedman = friedmanchisquare(*values.T)
    expected = friedman.statistic / (6 * 8), friedman.pvalue
    assert kendall_w(values) == pytest.approx(expected, abs=0.03)
    assert (kendall_w(values) or (0, 0))[0] == pytest.approx(expected[0])


def test_p_is_uniform_where_the_ranking_is_random() -> None:
    rng = np.random.default_rng(2)
    results = [kendall_w(rng.normal(size=(5, 7)), n_permutations=199) for _ in range(300)]
    assert kstest([p for _, p in filter(None, results)], "uniform").pvalue > 0.01


@pytest.mark.parametrize("values", [[[1, 2, 3]], [[1], [2]], [[1, 1], [2, 2]]])
def test_nothing_to_rank_is_undefined(values: list[list[int]]) -> None:
    assert kendall_w(values) is None


def over_folds(
    within: list[list[float | None]], pooled: list[list[float | None]], **changes: Any
) -> dict[str, Any]:
    layers = [
        {"layer": i, "r2": 0.5 + i, "r2_within": 0.1 + i, "r2_folds": p, "r2_within_folds": w}
        for i, (w, p) in enumerate(zip(within, pooled, strict=True))
    ]
    common = {"target": "tempo", "category": "rhythm", "best_layer": 1, "reason": None}
    return {**common, "primary": "r2_within", "layers": layers, **changes}


def test_the_table_tells_the_spread_of_the_best_layer_and_the_concordance_of_all() -> None:
    within: list[list[float | None]] = [[0.1, 0.2, 0.3], [0.5, 0.1, 0.9], [0.0, 0.0, 0.0]]
    (row,) = stability_table([over_folds(within, [[0.0] * 3] * 3)])
    figures = row["target"], row["measure"], row["n_folds"], row["r2"]
    assert figures == ("tempo", "r2_within", 3, 1.1)
    assert row["r2_folds"] == [0.5, 0.1, 0.9]
    assert row["r2_std"] == pytest.approx(np.std([0.5, 0.1, 0.9]))
    assert (row["r2_min"], row["r2_max"]) == (0.1, 0.9)
    assert row["best_layer_folds"] == [1, 0, 1]
    assert row["agreement"] == pytest.approx(2 / 3)
    expected = kendall_w(np.array(within, float).T)
    assert row["kendall_w"] == pytest.approx((expected or (0, 0))[0])
    assert 0 < row["kendall_p"] <= 1


def test_folds_without_variation_are_left_out() -> None:
    pooled: list[list[float | None]] = [[0.1, None, 0.3], [0.5, None, 0.9]]
    (row,) = stability_table([over_folds([[None] * 3] * 2, pooled, primary="r2")])
    assert (row["measure"], row["n_folds"], row["kendall_w"]) == ("r2", 2, 1)
    (row,) = stability_table([over_folds([[None] * 3] * 2, [[None] * 3] * 2, primary="r2")])
    assert row["n_folds"] == 0
    assert row["r2_std"] is row["r2_min"] is row["kendall_w"] is row["agreement"] is None


def test_a_target_that_was_not_probed_has_a_row_without_figures() -> None:
    probed = over_folds([[0.1, 0.2], [0.5, 0.4]], [[0.0] * 2] * 2)
    lacking = {**probed, "layers": [], "best_layer": None, "primary": None, "reason": "few"}
    rows = stability_table([probed, lacking])
    assert list(rows[0]) == list(rows[1])
    assert set(rows[1].values()) == {"tempo", "rhythm", "few", None}
