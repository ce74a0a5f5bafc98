"""Timing of real players, from MIDI alone, against beats that people have annotated."""

import csv
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from mess_core.targets.expression import rubato, rubato_ioi_ratio, tempo_variability
from mess_core.targets.notes import read_performance

pytestmark = [pytest.mark.integration]

ASAP = Path(__file__).parents[3] / "shared" / "data" / "asap"
WORKS = 8

if not ASAP.is_dir():
    pytest.skip("../shared/data/asap is not on this machine", allow_module_level=True)


def test_timing_from_notes_agrees_with_annotated_beats_within_works() -> None:
    """On every third work of at least four performances; all are in docs/targets.md."""
    works: dict[str, list[dict[str, str]]] = defaultdict(list)
    with (ASAP / "recordings.tsv").open() as file:
        for row in csv.DictReader(file, delimiter="\t"):
            works[row["work_id"]].append(row)
    names = sorted(name for name, rows in works.items() if len(rows) >= 4)[::3][:WORKS]
    assert len(names) >= 6
    agreement = np.array([within(works[name]) for name in names]).mean(axis=0)
    variability, shaping, ratios = agreement
    assert variability >= 0.4
    assert shaping >= 0.4
    assert ratios < min(variability, shaping)


def within(rows: list[dict[str, str]]) -> list[float]:
    """Return how tempo variability, rubato and ratios of raw intervals agree with the beats'."""
    found, truth = [], []
    for row in rows:
        notes = read_performance(ASAP / row["midi"])
        beats = read_performance(ASAP / row["midi"], beats=ASAP / row["beats"])
        found.append(
            (
                tempo_variability(notes.beat_periods),
                rubato(notes.shaped_tempo, notes.beat_periods),
                rubato_ioi_ratio(notes.onsets),
            )
        )
        variability = tempo_variability(beats.beat_periods)
        truth.append((variability, rubato(beats.shaped_tempo, beats.beat_periods), variability))
    pairs = zip(np.transpose(found), np.transpose(truth), strict=True)
    return [float(spearmanr(one, other).statistic) for one, other in pairs]
