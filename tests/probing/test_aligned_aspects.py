"""Aspects against the other players: measured from alignments where all recordings have them."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mess_core.files import write_json
from mess_core.index.fitting import fit_projection
from mess_core.layout import ENCODER
from mess_core.probing import LayerDiscoverySystem, resolve_aspects, save_aspects
from mess_core.probing.coordinates import fit_coordinates
from mess_core.targets.curves import Float
from mess_core.targets.registry import ALIGNED, AUDIO, MIDI, PROBED
from tests.probing import toy
from tests.probing.test_measured import WINDOWS, Planted
from tests.probing.toy import N, system_of

pytestmark = pytest.mark.unit

TARGETS = ("relative_loudness", "relative_tempo")


@dataclass
class Aligned:
    """A corpus of which some recordings are aligned; the encoder hears one of two targets."""

    planted: Planted
    values: dict[str, Float]

    @classmethod
    def make(cls, data: Path) -> "Aligned":
        planted = Planted(data)
        loud = planted.values["velocity_mean"] / 10
        tempo = np.random.default_rng(7).normal(size=(N, WINDOWS))
        values = {"relative_loudness": loud, "relative_tempo": tempo}
        for number, recording in enumerate(planted.recordings):
            path = planted.layout.alignment(recording.recording_id)
            path.parent.mkdir(parents=True, exist_ok=True)
            keys: dict[str, Any] = {f"expression/{n}": v[number].mean() for n, v in values.items()}
            keys |= {f"windows/expression/{name}": v[number] for name, v in values.items()}
            np.savez(path, **keys)
        return cls(planted, values)

    def resolve(self, left_out: Collection[str] = ()) -> dict[str, Any]:
        layout = self.planted.layout
        names = [r.recording_id for r in self.planted.recordings]
        beats = {name: "annotated" for name in names if name not in left_out}
        write_json(layout.alignments_manifest, {"works": {"w": {"beats": beats}}})
        self.system: LayerDiscoverySystem = system_of(
            layout, recordings=self.planted.recordings, layers={ENCODER: toy.LAYERS}
        )
        for target in TARGETS:
            self.system.discover_and_save(target)
        found = resolve_aspects(0.3, layout.probing, targets=TARGETS, discovery=self.system)
        save_aspects(found, layout.aspects)
        aspects: dict[str, Any] = found["aspects"]
        return aspects


@pytest.fixture(scope="module")
def aligned(tmp_path_factory: pytest.TempPathFactory) -> Aligned:
    return Aligned.make(tmp_path_factory.mktemp("aligned"))


def test_the_alignment_is_the_truth_where_every_recording_has_it(aligned: Aligned) -> None:
    aspects = aligned.resolve()
    assert aspects["relative_dynamics"]["sources"] == [ALIGNED, PROBED]
    assert aspects["relative_tempo"]["sources"] == [ALIGNED]
    for name in ("relative_dynamics", "relative_tempo"):
        assert aspects[name]["truth"]["source"] == ALIGNED
        assert aspects[name]["finding"] == "measured from alignment"


def test_where_one_is_left_out_it_is_probed_or_not_known(aligned: Aligned) -> None:
    aspects = aligned.resolve(left_out=["r03"])
    heard = aspects["relative_dynamics"]
    assert heard["sources"] == [PROBED]
    assert "its distances follow the truth (measured from alignment)" in heard["finding"]
    assert not aspects["relative_tempo"]["resolved"]
    assert "below min_r2 0.3" in aspects["relative_tempo"]["reason"]
    values = aligned.system.load_targets("relative_tempo").reshape(N, WINDOWS)
    assert np.isnan(values[3]).all()
    np.testing.assert_array_equal(values[4], aligned.values["relative_tempo"][4])


def test_it_cannot_be_read_from_audio_or_midi_alone(aligned: Aligned) -> None:
    aligned.resolve()
    rows = aligned.system.features[ENCODER]
    projection = fit_projection(
        lambda layer: rows[layer].rows,
        range(len(rows)),
        coordinates=fit_coordinates(aligned.system),
        measured=aligned.system.load_columns,
        recordings=None,
    )
    projection.check()
    assert projection.columns.tolist() == [f"expression/{name}" for name in reversed(TARGETS)]
    for kinds, expected in (
        ([AUDIO], {"relative_tempo": "", "relative_dynamics": PROBED}),
        ([AUDIO, MIDI], {"relative_tempo": "", "relative_dynamics": PROBED}),
        ([ALIGNED], dict.fromkeys(("relative_tempo", "relative_dynamics"), ALIGNED)),
    ):
        assert projection.read_from(kinds) == expected
    features = np.stack([rows[layer].rows for layer in projection.layers], axis=1)
    measured = aligned.system.load_columns(projection.columns.tolist())
    value = projection.project(features, measured)[1][:, 0]
    truth = aligned.values["relative_tempo"].ravel()
    assert np.corrcoef(value, truth)[0, 1] == pytest.approx(1)
    value = projection.project(features, measured, [AUDIO])[1][:, 0]
    assert np.ptp(value) == pytest.approx(0, abs=1e-5)
