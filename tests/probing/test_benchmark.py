"""The benchmark compares like with like, and runs."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import r2_score

from benchmarks.probing import DECOMPOSE, FULL, LOOPS, PLAIN
from benchmarks.probing_jobs import (
    Rows,
    decompose_all,
    nested_penalty,
    probe_one,
    run_job,
    write_windows,
)

ROWS = Rows(200, 2, 12)


@pytest.mark.unit
def test_the_loop_that_chooses_as_we_do_finds_what_we_find() -> None:
    layers, y = [ROWS.layer(0), ROWS.layer(1)], ROWS.target(1)
    known = decompose_all(ROWS, layers)
    result = probe_one(ROWS, layers, 1, lambda layer, _: known[layer], statistics=False, y=y)
    assert result.best_layer == 1
    for layer, score in zip(layers, result.layers, strict=True):
        expected = r2_score(y, nested_penalty(layer, y, ROWS.folds))
        assert score.r2 == pytest.approx(expected, abs=1e-5)


@pytest.mark.unit
def test_folds_are_equally_large() -> None:
    # GridSearchCV takes the mean over folds, we the sum over rows.
    assert set(np.bincount(ROWS.folds)) == {40}


@pytest.mark.unit
def test_a_stored_job_computes_all_statistics(tmp_path: Path) -> None:
    write_windows(ROWS, tmp_path)
    result = run_job(tmp_path)
    assert result.p is not None
    assert result.n_rows == 200


@pytest.mark.slow
def test_every_side_is_timed(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.probing", "--quick", "--json"]
    subprocess.run([*command, str(tmp_path / "facts.json")], check=True)
    facts = json.loads((tmp_path / "facts.json").read_text())
    assert list(facts["speed"]["100"]["wall_s"]) == [*LOOPS, DECOMPOSE, PLAIN, FULL]
    assert facts["job"]["runs"][0]["peak_gb"] > 0
