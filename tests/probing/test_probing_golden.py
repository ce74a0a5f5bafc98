"""Golden results: when they change, `stages.PROBING` or `stages.ASPECTS` must go up.

After raising the number: ``python tests/probing/test_probing_golden.py`` writes them again.
"""

import json
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from mess_core import stages
from mess_core.files import write_json
from mess_core.probing.aspects import resolve_aspects
from mess_core.probing.probe import probe_layers

pytestmark = pytest.mark.unit

GOLDEN = Path(__file__).parent / "golden_probing.json"
N, LAYERS, DIMS, DIGITS = 40, 3, 6, 6


def wave(*shape: int, rate: float) -> npt.NDArray[np.float64]:
    """Return numbers that look random and are the same in every version of numpy."""
    return np.sin(rate * np.arange(np.prod(shape), dtype=np.float64) ** 2).reshape(shape)


def probing() -> dict[str, Any]:
    """Probe a scalar that a row lacks, and a shape on fewer rows than columns."""
    works = [f"w{row % 7}" for row in range(N)]
    features = wave(N, LAYERS, DIMS, rate=0.618)
    target = features[:, 1] @ np.arange(1.0, DIMS + 1) + 4 * wave(N, rate=0.271)
    target[5] = np.nan
    wide = wave(N, 2, 2 * N, rate=0.414)
    shape = wide[:, 0, :20] @ wave(20, 2, rate=0.732) + wave(N, 2, rate=0.271)
    return {
        "scalar": asdict(probe_layers(features, target, works)),
        "shape": asdict(probe_layers(wide, shape, works, n_folds=4)),
    }


def scored(layer: int, r2_within: float) -> dict[str, Any]:
    return {
        "layer": layer,
        "r2": r2_within + 0.05,
        "r2_within": r2_within,
        "interval": [r2_within - 0.05, r2_within + 0.1],
        "interval_within": [r2_within - 0.1, r2_within + 0.1],
        "distances": r2_within / 2,
    }


def aspects() -> dict[str, Any]:
    scores = {"tempo": [0.2, 0.9], "spectral_centroid": [0.4, -2.0], "spectral_rolloff": [0.3, 0.5]}
    with TemporaryDirectory() as folder:
        for target, r2 in scores.items():
            result = {
                "target": target,
                "category": "",
                "dataset": "toy",
                "stage": 0,
                "encoder": {},
                "unit": "windows",
                "layers": [scored(layer, value) for layer, value in enumerate(r2)],
                "best_layer": r2.index(max(r2)),
                "best_r2": max(r2) + 0.05,
                "works": ["a", "b", "c"],
                "loss": [0.1, 0.2, 0.3],
                "baselines": {
                    name: scored(0, r2) | {"loss": [0.2, 0.35, 0.5]}
                    for name, r2 in (("untrained", 0.25), ("descriptors", 0.3))
                },
            }
            write_json(Path(folder) / f"{target}.json", result)
        resolved = resolve_aspects(0.5, Path(folder))
    return {name: value for name, value in resolved.items() if name != "stage"}


def rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    return round(value, DIGITS) if isinstance(value, float) else value


def current() -> dict[str, Any]:
    return {
        "PROBING": {"stage": stages.PROBING, "result": rounded(probing())},
        "ASPECTS": {"stage": stages.ASPECTS, "result": rounded(aspects())},
    }


def close(value: Any, other: Any) -> bool:
    """Compare with one unit of the last digit to spare, as rounding may fall either way."""
    if isinstance(value, dict):
        return value.keys() == set(other) and all(close(value[k], other[k]) for k in value)
    if isinstance(value, list):
        return len(value) == len(other) and all(map(close, value, other))
    if isinstance(value, float):
        return bool(abs(value - other) < 1.5 * 10**-DIGITS)
    return bool(value == other)


@pytest.mark.parametrize("stage", ["PROBING", "ASPECTS"])
def test_output_changes_only_with_the_stage_number(stage: str) -> None:
    golden, now = json.loads(GOLDEN.read_text())[stage], current()[stage]
    assert golden["stage"] == now["stage"], f"write {GOLDEN.name} again: python {__file__}"
    assert close(now["result"], golden["result"]), f"the output changed: raise stages.{stage}"


if __name__ == "__main__":
    write_json(GOLDEN, current())
