"""Where a target of a recording is read from: its own file, or that of its alignment."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mess_core.errors import TargetError
from mess_core.files import write_json
from mess_core.layout import Layout
from mess_core.targets.npz import TargetReader, column_reader

pytestmark = pytest.mark.unit

WINDOWS = 3
#: What is measured by tracked beats, and what by those of another recording.
TRACKED, CARRIED = 0.3, 0.1


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """Three recordings: one with beats of its own, one with another's, and one that is left out.

    All have files of alignments, the last one an old one.
    """
    layout = Layout(tmp_path, "x")

    def save(path: Path, **values: float) -> None:
        whole: dict[str, Any] = {f"expression/{n}": np.array(v) for n, v in values.items()}
        windows: dict[str, Any] = {
            f"windows/{key}": np.full(WINDOWS, value) for key, value in whole.items()
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, **whole, **windows)

    for name in "abc":
        save(layout.targets(name), rubato=TRACKED, velocity_mean=60.0)
        save(layout.alignment(name), rubato=CARRIED, relative_tempo=-0.2)
    beats = {"a": "annotated", "b": "aligned from a"}
    write_json(layout.alignments_manifest, {"works": {"w": {"beats": beats}}})
    return layout


def test_a_target_comes_from_where_the_manifest_says(layout: Layout) -> None:
    read = TargetReader(layout)
    assert read.aligned == {"a", "b"}

    def all_of(target: str) -> list[float | None]:
        found = [read(name, target, "recording") for name in "abc"]
        return [None if value is None else float(value) for value in found]

    assert all_of("relative_tempo") == [-0.2, -0.2, None]
    assert all_of("rubato") == [TRACKED, CARRIED, TRACKED]
    assert all_of("velocity_mean") == [60.0] * 3


def test_columns_are_read_by_the_same_rule(layout: Layout) -> None:
    read = column_reader(layout, ["expression/rubato", "expression/relative_tempo"])
    np.testing.assert_array_equal(read("b"), [[CARRIED, -0.2]] * WINDOWS)
    np.testing.assert_array_equal(read("c"), [[TRACKED, np.nan]] * WINDOWS)


def test_without_alignments_there_are_no_targets_of_them(layout: Layout) -> None:
    layout.alignments_manifest.unlink()
    read = TargetReader(layout)
    assert read("a", "relative_tempo") is None
    found = read("b", "rubato", "recording")
    assert found == TRACKED


def test_a_lost_file_of_an_alignment_is_named(layout: Layout) -> None:
    layout.alignment("a").unlink()
    with pytest.raises(TargetError, match=r"alignments/x/a\.npz does not exist; run the rule"):
        TargetReader(layout)("a", "relative_tempo")
