"""The performances of every work in a table and a picture."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from mess_core.files import write_json
from mess_core.layout import Layout
from mess_core.report.performances import performance_rows, plot_performances
from tests.alignment.works import END_S, played, steady
from tests.probing.toy import recording

pytestmark = pytest.mark.unit

EMPTY = np.empty(0)


def finished(layout: Layout, works: int) -> None:
    """Store works of two performances, the second 10 % faster."""
    entries = {}
    for work in range(works):
        names = [f"w{work}_{who}" for who in ("ann", "bob")]
        for name, log_tempo in zip(names, (0.0, 0.1), strict=True):
            beats = np.arange(0, END_S * np.exp(-log_tempo), 0.5) if work else EMPTY
            arrays: dict[str, Any] = replace(played(steady(log_tempo)), beats=beats).arrays()
            arrays["expression/relative_tempo"] = np.array(log_tempo - 0.05)
            arrays["expression/timing_deviation"] = np.array(np.nan)
            arrays["expression/relative_loudness"] = np.array(0.0)
            layout.alignment(name).parent.mkdir(parents=True, exist_ok=True)
            np.savez(layout.alignment(name), **arrays)
        entries[f"w{work}"] = {
            **{"reference": names[0], "beats_from": "", "left_out": {}},
            "sources": dict.fromkeys(names, "audio"),
            "beats": dict.fromkeys(names, "none"),
            "share": dict.fromkeys(names, 1.0),
        }
    write_json(layout.alignments_manifest, {"works": entries})


def test_there_is_a_row_for_every_recording_of_a_work(tmp_path: Path) -> None:
    layout = Layout(tmp_path, "x")
    finished(layout, 2)
    known = [
        replace(recording(0, "ok"), work_id=work, recording_id=name, performer="Bob")
        for work, name in (("w1", "w1_ann"), ("w0", "w0_bob"), ("w0", "w0_ann"), ("w0", "other"))
    ]
    rows = performance_rows(layout, known)
    assert [row["recording_id"] for row in rows] == ["w0_ann", "w0_bob", "w1_ann"]
    assert rows[1] == {
        **{"work_id": "w0", "recording_id": "w0_bob", "performer": "Bob", "reference": "w0_ann"},
        **{"source": "audio", "share": 1.0, "relative_tempo": 0.05, "timing_deviation": None},
        **{"relative_loudness": 0.0, "beats": "none"},
    }


@pytest.mark.parametrize("works", [0, 2, 8])
def test_the_first_works_are_drawn(tmp_path: Path, works: int) -> None:
    layout, output = Layout(tmp_path, "x"), tmp_path / "p.png"
    finished(layout, works)
    plot_performances(layout, output)
    height = imread(output).shape[0]
    panels = {0: 4.2, 2: 2 * 2.6, 8: 6 * 2.6}
    assert height == pytest.approx(panels[works] * 150, abs=2)
