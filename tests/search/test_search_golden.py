"""Golden results: when they change, `stages.PROJECTION` or `stages.INDEX` must go up.

After raising the number: ``python -m tests.search.test_search_golden`` writes them again.
Components have no sign of their own, so that general blocks are compared by their cosines.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mess_core import stages
from mess_core.files import write_json
from tests.planted import Corpus, clip_rows

pytestmark = pytest.mark.unit

GOLDEN = Path(__file__).parent / "golden_search.json"
ROWS, DIGITS = 8, 4


def current() -> dict[str, Any]:
    index = Corpus(90, noise=0.2).index(clip_rows(15, 6))
    stored = index.stored(np.arange(ROWS)).astype(float)
    general = stored[:, : index.projection.general]
    result = {
        "width": index.projection.width,
        "general": general @ general.T,
        "predicted": index.predicted[:3, :ROWS],
        **{name: stored[:, a.stored] for name, a in index.projection.aspects.items()},
    }
    return {
        "stages": [stages.PROJECTION, stages.INDEX],
        "result": {
            name: np.round(value, DIGITS).tolist() if isinstance(value, np.ndarray) else value
            for name, value in result.items()
        },
    }


def test_output_changes_only_with_the_stage_number() -> None:
    golden, now = json.loads(GOLDEN.read_text()), current()
    assert golden["stages"] == now["stages"], f"write {GOLDEN.name} again"
    assert golden["result"].keys() == now["result"].keys()
    for name, value in now["result"].items():
        np.testing.assert_allclose(value, golden["result"][name], atol=2 * 10**-DIGITS)


if __name__ == "__main__":
    write_json(GOLDEN, current())
