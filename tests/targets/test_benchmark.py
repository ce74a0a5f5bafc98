"""The benchmark compares like with like."""

import pytest

from benchmarks.targets_jobs import CALLS
from mess_core.targets.registry import TARGETS

pytestmark = pytest.mark.unit


def test_librosas_side_has_every_target_that_ours_has() -> None:
    theirs = [name for names in CALLS for name in names.split(", ")]
    ours = [name for name, spec in TARGETS.items() if spec.source == "audio" and not spec.curve]
    assert sorted(theirs) == sorted(ours)
