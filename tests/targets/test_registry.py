"""The registry: complete, consistent with the modules, and light."""

import re
from importlib import import_module
from inspect import signature
from pathlib import Path

import numpy as np
import pytest

from mess_core.targets import measure, measure_windows, phrasing, registry, validate_window_targets
from mess_core.targets.notes import Performance
from mess_core.targets.registry import (
    CATEGORIES,
    TARGETS,
    TargetSpec,
    probed_targets,
)
from mess_core.targets.relative import Relative
from mess_core.targets.sound import analyse
from tests.targets.signals import RATE, tone

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("spec", TARGETS.values(), ids=lambda spec: spec.name)
def test_specifications_are_consistent(spec: TargetSpec) -> None:
    assert spec.category in CATEGORIES
    assert (spec.length > 0) == (spec.kind != "scalar")
    assert spec.unit
    assert spec.description


FUNCTIONS = [spec for spec in TARGETS.values() if not spec.curve]


@pytest.mark.parametrize("spec", FUNCTIONS, ids=lambda spec: spec.name)
def test_every_target_has_a_documented_function_of_known_series(spec: TargetSpec) -> None:
    module = import_module(f"mess_core.targets.{spec.category}")
    function = getattr(module, spec.name)
    assert spec.name in module.__all__
    assert function.__doc__
    assert f"`{spec.name}`" in (module.__doc__ or "") or spec.category == "expression"
    empty = np.empty(0)
    series: object = Performance(empty, empty, empty, empty)
    if spec.source == "audio":
        series = analyse(np.zeros(0, np.float32), 24_000)
    if spec.aligned:
        series = Relative(empty, empty, empty, empty)
    assert all(hasattr(series, name) for name in signature(function).parameters)


DOCS = Path(__file__).parents[2] / "docs"


def test_the_table_in_the_docs_is_that_of_the_registry() -> None:
    page, _, _ = (DOCS / "targets.md").read_text().partition("## Known limits")
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| `")]
    documented = {
        name.strip("`"): (category, kind.split()[0], unit.split(", ")[0])
        for name, category, kind, _, _, unit, *_ in rows
    }
    assert documented == {
        name: (spec.category, spec.kind, spec.unit)
        for name, spec in TARGETS.items()
        if not spec.curve
    }


def test_the_example_of_adding_a_target_works(monkeypatch: pytest.MonkeyPatch) -> None:
    """The documented function and line, put where the page says, give a target everywhere."""
    page = (DOCS / "adding-a-target.md").read_text()
    function, line = re.findall(r"```(?:python|text)\n(.*?)```", page, re.DOTALL)
    names = dict(vars(phrasing))
    exec(function, names)
    (spec,) = eval(line.strip().removesuffix(","), vars(registry))
    monkeypatch.setattr(phrasing, spec.name, names[spec.name], raising=False)
    monkeypatch.setitem(TARGETS, spec.name, spec)
    half = np.concatenate([tone(440, 5.0), np.zeros(5 * RATE, np.float32)])
    sound = analyse(half, RATE)
    assert measure(sound)["phrasing"]["pause_share"] == pytest.approx(0.5, abs=0.05)
    windows = measure_windows(sound, [0.0, 5.0], window_s=5.0)
    assert windows["phrasing"]["pause_share"].tolist() == [0.0, 1.0]
    assert validate_window_targets(windows) == 2
    assert "pause_share" in probed_targets()
