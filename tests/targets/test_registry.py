"""The registry: complete, consistent with the modules, and light."""

import subprocess
import sys
from importlib import import_module
from inspect import signature
from pathlib import Path

import numpy as np
import pytest

from mess_core import targets
from mess_core.targets.notes import Performance
from mess_core.targets.registry import CATEGORIES, TARGETS, TargetSpec, scalar_targets
from mess_core.targets.sound import Sound

pytestmark = pytest.mark.unit

SCALARS = {
    "spectral_centroid": "timbre",
    "spectral_rolloff": "timbre",
    "spectral_bandwidth": "timbre",
    "zero_crossing_rate": "timbre",
    "tempo": "rhythm",
    "onset_density": "rhythm",
    "dynamic_range": "dynamics",
    "dynamic_variance": "dynamics",
    "crescendo_strength": "dynamics",
    "diminuendo_strength": "dynamics",
    "harmonic_complexity": "harmony",
    "attack_slopes": "articulation",
    "attack_sharpness": "articulation",
    "phrase_regularity": "phrasing",
    "num_phrases": "phrasing",
    "rubato": "expression",
    "velocity_mean": "expression",
    "velocity_std": "expression",
    "velocity_range": "expression",
    "articulation_ratio": "expression",
    "tempo_variability": "expression",
    "onset_timing_std": "expression",
}


def test_scalars_are_those_that_are_probed() -> None:
    assert {name: TARGETS[name].category for name in scalar_targets()} == SCALARS


@pytest.mark.parametrize("spec", TARGETS.values(), ids=lambda spec: spec.name)
def test_every_target_has_a_documented_function_of_known_series(spec: TargetSpec) -> None:
    module = import_module(f"mess_core.targets.{spec.category}")
    function = getattr(module, spec.name)
    assert spec.name in module.__all__
    assert function.__doc__
    assert f"`{spec.name}`" in (module.__doc__ or "") or spec.category == "expression"
    assert spec.category in CATEGORIES
    assert (spec.length > 0) == (spec.kind == "curve")
    assert spec.optional == (spec.category == "expression")
    empty = np.empty(0)
    series: object = Performance(empty, empty, empty, empty)
    if spec.source == "audio":
        series = Sound(np.zeros(0, np.float32), 24_000)
    assert all(hasattr(series, name) for name in signature(function).parameters)


def test_every_target_is_in_the_docs() -> None:
    page = Path(__file__).parents[2] / "docs" / "targets.md"
    rows = {line.split("`")[1] for line in page.read_text().splitlines() if line.startswith("| `")}
    assert rows == set(TARGETS)


def test_exported_names_exist() -> None:
    assert all(getattr(targets, name) is not None for name in targets.__all__)
    with pytest.raises(AttributeError):
        _ = targets.no_such_name


def test_the_registry_imports_nothing_heavy() -> None:
    code = (
        "import sys; from mess_core.targets.registry import TARGETS; "
        "assert not {'numpy', 'scipy', 'librosa', 'pretty_midi'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
