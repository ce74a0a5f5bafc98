from dataclasses import asdict, astuple, fields

import numpy as np
import pytest

from mess_core.datasets.demo import (
    INTERPRETATIONS,
    SCORES,
    Interpretation,
    demo_recordings,
    interpret,
)

pytestmark = pytest.mark.unit

WORKS = [score.work_id for score in SCORES]


@pytest.mark.parametrize("work_id", WORKS)
@pytest.mark.parametrize(
    ("field", "most"),
    [("rubato", "rhapsodic"), ("articulation", "singing"), ("dynamic_range", "dramatic")],
)
def test_extremes_stand_out_in_every_work(work_id: str, field: str, most: str) -> None:
    values = {name: asdict(interpret(name, work_id))[field] for name in INTERPRETATIONS}
    others = [value for name, value in values.items() if name != most]
    assert values[most] > 1.1 * max(others)


def test_numbers_are_not_collinear_over_the_corpus() -> None:
    table = np.array([astuple(recording.interpretation) for recording in demo_recordings()])
    correlation = np.corrcoef(table.T) - np.eye(len(fields(Interpretation)))
    assert np.abs(correlation).max() < 0.8
    assert np.linalg.matrix_rank(table - table.mean(axis=0)) == len(fields(Interpretation))


def test_shifts_are_small_fixed_and_differ_between_works() -> None:
    for name, base in INTERPRETATIONS.items():
        for field, value in asdict(base).items():
            shifted = [asdict(interpret(name, work_id))[field] for work_id in WORKS]
            assert shifted == pytest.approx([value] * len(WORKS), rel=0.2)
            assert len(set(shifted)) == (len(WORKS) if value else 1)


def test_interpretations_are_the_same_everywhere() -> None:
    assert interpret("rhapsodic", "beethoven_woo59") == Interpretation(
        0.9712, 0.514, 57.9007, 38.6508, 1.0121, 0.5735, 13.7071, 30.6033
    )


def test_recordings_are_works_times_interpretations() -> None:
    recordings = demo_recordings()
    ids = [recording.recording_id for recording in recordings]
    assert ids == sorted(set(ids))
    assert len(ids) == len(SCORES) * len(INTERPRETATIONS) >= 40
    assert {(r.work_id, r.performer) for r in recordings} == {
        (work_id, name) for work_id in WORKS for name in INTERPRETATIONS
    }
    assert all(r.recording_id == f"{r.work_id}_{r.performer}" for r in recordings)
    assert all(r.score.composer and r.score.title for r in recordings)
