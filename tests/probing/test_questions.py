"""Too few works: results, aspects, tables and pictures say so, and nothing fails."""

import csv
from pathlib import Path

import pytest

from mess_core.layout import ENCODER, QUESTIONS, Layout
from mess_core.probing import LayerDiscoverySystem, resolve_aspects, save_aspects
from mess_core.probing.coordinates import fit_coordinates
from mess_core.probing.decompositions import decompose_source
from mess_core.probing.questions import answer
from tests.probing.toy import FACTS, LAYERS, PROBED, random_features, recording, save

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("n_works", [1, 2])
def test_too_few_works_are_said_everywhere(tmp_path: Path, n_works: int) -> None:
    layout = Layout(tmp_path, "takes")
    takes = [number for number in range(30) if number % 6 < n_works]
    for number in takes:
        save(layout, number, random_features()[number], midi=True)
    recordings = [recording(number) for number in takes]
    decompose_source(layout, recordings, source=ENCODER, n_layers=LAYERS)
    system = LayerDiscoverySystem(layout, recordings, layers={ENCODER: LAYERS}, encoder=FACTS)
    reason = f"needs at least 3 works with this target, has {n_works}"
    for target in PROBED:
        system.discover_and_save(target)
    result = system.discover(["tempo"])["tempo"]
    assert (result["layers"], result["best_layer"], result["reason"]) == ([], None, reason)
    aspects = resolve_aspects(0.1, layout.probing, targets=PROBED)
    save_aspects(aspects, layout.aspects)
    tempo = aspects["aspects"]["tempo"]
    assert (tempo["resolved"], tempo["layer"]) == (False, None)
    assert tempo["reason"] == f"no result for tempo ({reason}); no result for chord_rate"
    assert fit_coordinates(system) == []
    for question in QUESTIONS:
        answer(question, system, PROBED)
        assert layout.answer(question, ".png").stat().st_size > 1000
        lines = layout.answer(question, ".tsv").read_text().splitlines()
        rows = list(csv.DictReader(lines, delimiter="\t"))
        said = [row for row in rows if reason in (row.get("reason") or "")]
        assert (question == "collapse") != bool(said), question
        assert question != "collapse" or len(rows) == LAYERS
