"""Tables: the columns that are promised, the measure that counts, empty cells for the undefined."""

import csv
from pathlib import Path
from typing import Any

import pytest

from mess_core.errors import ProbingError
from mess_core.probing.tables import layer_table, write_table

pytestmark = pytest.mark.unit


def result(**changes: Any) -> dict[str, Any]:
    layer = {
        "layer": 0,
        "r2": 0.7,
        "r2_within": 0.5,
        "interval": [0.6, 0.8],
        "interval_within": [0.4, 0.6],
        "r2_std": 0.05,
        "r2_min": 0.3,
        "correlation": 0.8,
        "rmse": 12.0,
        "alpha": 100.0,
        "p": 0.3,
        "p_within": 0.005,
        "selectivity": 0.65,
    }
    baseline = {"layer": 0, **dict.fromkeys(["interval", "interval_within"])}
    return {
        "target": "tempo",
        "category": "rhythm",
        "n_rows": 200,
        "n_recordings": 20,
        "n_works": 7,
        "layers": [{**layer, "r2": 0.1, "r2_within": 0.0}, {**layer, "layer": 1}],
        "primary": "r2_within",
        "best_layer": 1,
        "best_layers": [0, 1],
        "r2_nested": 0.68,
        "r2_within_nested": 0.48,
        "mixture": {"r2": 0.72, "r2_within": 0.52},
        "baselines": {
            "untrained": {**baseline, "r2": 0.2, "r2_within": 0.1},
            "descriptors": {**baseline, "r2": 0.4, "r2_within": 0.3},
        },
        "caution": None,
        "reason": None,
        **changes,
    }


def test_a_row_has_the_best_layers_figures_by_the_measure_that_counts() -> None:
    (row,) = layer_table([result()])
    assert row["best_layer"] == 1
    assert row["best_layers"] == [0, 1]
    assert row["measure"] == "r2_within"
    assert (row["r2"], row["r2_within"], row["r2_lo"], row["r2_hi"]) == (0.7, 0.5, 0.4, 0.6)
    assert (row["p"], row["nested"], row["mixture"]) == (0.005, 0.48, 0.52)
    assert (row["untrained"], row["descriptors"]) == (0.1, 0.3)
    assert (row["n_rows"], row["n_recordings"], row["n_works"]) == (200, 20, 7)
    assert (row["rmse"], row["alpha"], row["selectivity"]) == (12.0, 100.0, 0.65)


def test_where_no_work_has_rows_that_differ_the_pooled_r2_counts() -> None:
    made = result(primary="r2")
    for score in (*made["layers"], *made["baselines"].values()):
        score["r2_within"] = None
    (row,) = layer_table([made])
    assert (row["measure"], row["r2_within"]) == ("r2", None)
    assert (row["r2_lo"], row["r2_hi"]) == (0.6, 0.8)
    assert (row["p"], row["nested"], row["mixture"]) == (0.3, 0.68, 0.72)
    assert (row["untrained"], row["descriptors"]) == (0.2, 0.4)


def test_rows_have_the_same_columns_whatever_a_target_lacks(tmp_path: Path) -> None:
    nothing = dict.fromkeys(["primary", "best_layer", "mixture", "r2_nested", "r2_within_nested"])
    lacking = result(target="rubato", layers=[], best_layers=[], baselines={}, **nothing)
    rows = layer_table([lacking | {"reason": "too few\trows\n"}, result()])
    write_table(rows, tmp_path / "layers.tsv")
    with (tmp_path / "layers.tsv").open(newline="") as file:
        first, second = csv.DictReader(file, delimiter="\t")
    assert first["target"] == "rubato"
    assert first["reason"] == "too few rows"
    assert first["r2"] == first["best_layers"] == first["untrained"] == first["p"] == ""
    assert second["best_layers"] == "0,1"
    assert second["untrained"] == "0.1"
    assert second["reason"] == ""


def test_numbers_have_six_digits_and_lists_commas(tmp_path: Path) -> None:
    row = {"a": 1 / 3, "b": [0.5, None, 2], "c": True, "d": 123456789, "e": 1e-9}
    write_table([row], tmp_path / "table.tsv")
    text = (tmp_path / "table.tsv").read_text()
    assert text == "a\tb\tc\td\te\n0.333333\t0.5,,2\tTrue\t123456789\t1e-09\n"


def test_a_table_without_rows_is_an_empty_file(tmp_path: Path) -> None:
    write_table([], tmp_path / "table.tsv")
    assert (tmp_path / "table.tsv").read_text() == ""


def test_rows_that_differ_in_their_columns_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ProbingError, match=r"differ in \['b'\]"):
        write_table([{"a": 1}, {"a": 1, "b": 2}], tmp_path / "table.tsv")
    assert not list(tmp_path.iterdir())
