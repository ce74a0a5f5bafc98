"""Imports between the library's packages go one way, and there is no circle."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

SOURCE = Path(__file__).parents[1] / "src" / "mess_core"
#: From the ground up: a module imports its own package and those of the lines before.
FLOORS = (
    "errors",
    "progress stages",
    "files",
    "layout",
    "recordings cache",
    "extraction",
    "targets",
    "datasets",
    "alignment",
    "probing",
    "index",
    "publishing",
    "search",
    "evaluation",
    "training report service",
    "workflow",
    "cli",
)
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names.split()}


def imports(path: Path) -> Iterator[str]:
    """Give the packages of ours that a module imports, also inside functions and for types."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name.split(".")[1] for name in names if name.startswith("mess_core."))


def test_a_package_imports_only_those_below_it() -> None:
    modules = [path for path in SOURCE.rglob("*.py") if path.parent != SOURCE or path.stem in FLOOR]
    upward = {
        f"{path.relative_to(SOURCE)}: {name}"
        for path in modules
        for name in imports(path)
        if (own := path.relative_to(SOURCE).parts[0].removesuffix(".py")) != name
        and not FLOOR[name] < FLOOR[own]
    }
    assert len(modules) > 50
    assert not upward
