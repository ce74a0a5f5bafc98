"""The stage's output, guarded: a change without a new `stages.TARGETS` fails."""

import json
import runpy
from pathlib import Path

import numpy as np
import pytest

from mess_core import stages

pytestmark = pytest.mark.unit

#: Equal on every machine but for rounding; a changed definition is further away.
RELATIVE = 1e-4
#: Of the largest value of a curve.
ABSOLUTE = 1e-5


def test_the_targets_of_this_stage_are_unchanged() -> None:
    stored = json.loads(Path(__file__).with_name("golden.json").read_text())
    made = runpy.run_path(str(Path(__file__).with_name("make_golden.py")))["golden"]()
    assert stored["stage"] == stages.TARGETS, "run tests/targets/make_golden.py"
    assert set(made["targets"]) == set(stored["targets"])
    for name, expected in stored["targets"].items():
        wanted = np.array(expected, np.float64)
        scale = np.nanmax(np.abs(wanted)) if np.isfinite(wanted).any() else 1.0
        np.testing.assert_allclose(
            np.array(made["targets"][name], np.float64),
            wanted,
            rtol=RELATIVE,
            atol=ABSOLUTE * scale,
            err_msg=f"{name} changed: raise stages.TARGETS, then run make_golden.py",
        )
