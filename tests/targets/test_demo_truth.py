"""The acceptance of the expression targets: the demo corpus, of which the truth is in its table."""

from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from mess_core.datasets.demo import Interpretation, demo_recordings, perform, to_midi
from mess_core.targets import MidiExpressionTargets

pytestmark = pytest.mark.unit

Work = list[tuple[Interpretation, dict[str, float]]]


@pytest.fixture(scope="module")
def works(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Work]:
    folder: Path = tmp_path_factory.mktemp("demo")
    found: dict[str, Work] = defaultdict(list)
    for recording in demo_recordings():
        path = folder / f"{recording.recording_id}.mid"
        path.write_bytes(to_midi(perform(recording.score, recording.interpretation)))
        expression = MidiExpressionTargets().compute(path)["expression"]
        measured = {name: float(value) for name, value in expression.items() if not value.ndim}
        found[recording.work_id].append((recording.interpretation, measured))
    return found


PAIRS = [
    ("rubato", "rubato"),
    ("rubato", "tempo_variability"),
    ("articulation", "articulation_ratio"),
    ("dynamic_range", "velocity_range"),
    ("level", "velocity_mean"),
]


@pytest.mark.parametrize(("parameter", "target"), PAIRS)
def test_the_extreme_interpretation_has_the_extreme_target(
    works: dict[str, Work], parameter: str, target: str
) -> None:
    for work_id, performances in works.items():
        truth = [getattr(interpretation, parameter) for interpretation, _ in performances]
        measured = [values[target] for _, values in performances]
        if parameter != "level":  # three interpretations are nearly as loud as the loudest
            assert np.argmax(measured) == np.argmax(truth), (work_id, truth, measured)
        assert np.corrcoef(truth, measured)[0, 1] > 0.8, (work_id, truth, measured)
