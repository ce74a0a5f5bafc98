"""From files to results: shapes, missing and damaged files, optional targets, the JSON contract."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from mess_core import stages
from mess_core.errors import ProbingError, StorageError, TargetError
from mess_core.files import save_array
from mess_core.layout import Layout
from mess_core.probing import LayerDiscoverySystem, read_result
from mess_core.recordings import Recording
from mess_core.targets.registry import TARGETS

pytestmark = pytest.mark.unit

ENCODER = {"name": "tiny", "weights_sha256": "ab" * 32, "trained": False}
N, LAYERS, DIMS, LAYER = 30, 4, 5, 2


def recording(number: int, status: str = "ok") -> Recording:
    return Recording(
        recording_id=f"r{number:02d}",
        work_id=f"w{number % 6}",
        performer="",
        composer="",
        title="",
        split="",
        audio="x.wav",
        midi="",
        audio_sha256="",
        midi_sha256="",
        duration_s=20.0,
        status=status,
        reason="" if status == "ok" else "because",
    )


def save_targets(path: Path, targets: dict[str, Any]) -> None:
    """Write a whole targets file; what is not given is NaN, and expression is there or not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    played = any(key.startswith("expression/") for key in targets)
    fields: dict[str, Any] = {
        f"{spec.category}/{spec.name}": np.full(spec.length or (), np.nan)
        for spec in TARGETS.values()
        if played or not spec.optional
    }
    np.savez(path, **{**fields, **targets})


@pytest.fixture
def features() -> npt.NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=(N, LAYERS, DIMS)).astype(np.float32)


@pytest.fixture
def layout(tmp_path: Path, features: npt.NDArray[np.float32]) -> Layout:
    """Features of 30 recordings; tempo is linear in layer 2, every fifth recording has no MIDI."""
    layout = Layout(tmp_path, "toy")
    for row, array in enumerate(features):
        name = recording(row).recording_id
        save_array(layout.features("aggregated", name), array)
        targets: dict[str, Any] = {
            "rhythm/tempo": 100 + 10 * float(array[LAYER, 0]),
            "timbre/spectral_centroid": float("nan") if row == 7 else 1000.0 + row,
            "phrasing/num_phrases": 4.0,
        }
        if row % 5:
            targets["expression/rubato"] = float(array[LAYER, 1])
        save_targets(layout.targets(name), targets)
    return layout


@pytest.fixture
def system(layout: Layout) -> LayerDiscoverySystem:
    rows = [recording(number) for number in range(N)]
    return LayerDiscoverySystem(layout, [*rows, recording(99, "silent")], encoder=ENCODER)


def test_features_come_in_the_order_of_the_usable_recordings(
    system: LayerDiscoverySystem, features: npt.NDArray[np.float32]
) -> None:
    loaded = system.load_features()
    assert loaded.dtype == np.float32
    np.testing.assert_array_equal(loaded, features)


def test_targets_are_nan_where_a_recording_has_none(system: LayerDiscoverySystem) -> None:
    rubato = system.load_targets("rubato")
    np.testing.assert_array_equal(np.isnan(rubato), np.arange(N) % 5 == 0)
    assert np.flatnonzero(np.isnan(system.load_targets("spectral_centroid"))).tolist() == [7]


def test_recordings_without_midi_drop_out_of_expression_only(system: LayerDiscoverySystem) -> None:
    results = system.discover(["tempo", "rubato", "spectral_centroid"])
    counts = {name: result["n_recordings"] for name, result in results.items()}
    assert counts == {"tempo": 30, "rubato": 24, "spectral_centroid": 29}
    assert system.best_layers(["tempo", "rubato", "num_phrases"]) == {
        "tempo": LAYER,
        "rubato": LAYER,
    }


def test_discover_covers_the_registry_when_nothing_is_named(system: LayerDiscoverySystem) -> None:
    results = system.discover()
    assert len(results) == 22
    assert results["velocity_mean"]["reason"] == "0 rows have this target, at least 10 are needed"
    assert results["num_phrases"]["confidence"] == "low"
    assert results["num_phrases"]["best_layer"] is None


def test_the_file_is_the_result_and_keeps_the_contract(
    system: LayerDiscoverySystem, layout: Layout
) -> None:
    path = system.discover_and_save("tempo")
    assert path == layout.probe("tempo")
    result = read_result(path)
    assert result == system.discover(["tempo"])["tempo"]
    assert result["dataset"] == "toy"
    assert result["category"] == "rhythm"
    assert result["stage"] == stages.PROBING
    assert result["encoder"] == ENCODER
    assert (result["n_recordings"], result["n_works"], result["n_folds"]) == (N, 6, 5)
    assert [score["layer"] for score in result["layers"]] == list(range(LAYERS))
    assert set(result["layers"][0]) == {
        "layer",
        "r2",
        "r2_std",
        "r2_folds",
        "correlation",
        "rmse",
        "alpha",
        "alpha_folds",
    }
    assert result["alphas"] == list(system.alphas)
    assert result["confidence"] == "high"
    assert result["reason"] is None
    assert [p.name for p in path.parent.iterdir()] == ["tempo.json"]


def test_a_hopeless_target_is_saved_with_its_reason(system: LayerDiscoverySystem) -> None:
    result = json.loads(system.discover_and_save("num_phrases").read_text())
    assert result["layers"] == []
    assert result["best_r2"] is None
    assert "nothing to predict" in result["reason"]


def damage(path: Path, array: npt.NDArray[Any] | None) -> None:
    if array is None:
        path.write_bytes(path.read_bytes()[:90])
    else:
        np.save(path, array)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((LAYERS, DIMS + 1), np.float32), "different encoders"),
        (np.zeros(DIMS, np.float32), "expected finite numbers"),
        (np.full((LAYERS, DIMS), np.nan, np.float32), "expected finite numbers"),
        (np.zeros((LAYERS, DIMS), np.int64), "expected finite numbers"),
        (np.array([[{}]], object), "damaged"),
        (None, "damaged"),
    ],
)
def test_a_bad_feature_file_is_named(
    system: LayerDiscoverySystem, layout: Layout, array: npt.NDArray[Any] | None, words: str
) -> None:
    damage(layout.features("aggregated", "r03"), array)
    with pytest.raises(StorageError, match=rf"r03\.npy.*{words}.*features rule"):
        system.load_features()


def test_a_missing_feature_file_is_named(system: LayerDiscoverySystem, layout: Layout) -> None:
    layout.features("aggregated", "r04").unlink()
    with pytest.raises(StorageError, match=r"r04\.npy does not exist; run the features rule"):
        system.load_features()


def test_a_missing_targets_file_is_an_error(system: LayerDiscoverySystem, layout: Layout) -> None:
    layout.targets("r05").unlink()
    with pytest.raises(TargetError, match="r05_targets"):
        system.load_targets("tempo")


@pytest.mark.parametrize("name", ["tempi", "loudness_curve"])
def test_what_is_no_scalar_target_is_refused(system: LayerDiscoverySystem, name: str) -> None:
    with pytest.raises(TargetError, match=f"'{name}' is no scalar target"):
        system.discover([name])


def test_a_curve_where_a_number_should_be_is_refused(
    system: LayerDiscoverySystem, layout: Layout
) -> None:
    save_targets(layout.targets("r06"), {"rhythm/tempo": np.zeros(3)})
    with pytest.raises(TargetError, match=r"r06_targets.*tempo"):
        system.load_targets("tempo")


def test_the_encoder_must_be_described(layout: Layout) -> None:
    with pytest.raises(ProbingError, match="weights_sha256, trained"):
        LayerDiscoverySystem(layout, [recording(0)], encoder={"name": "tiny"})


def test_without_usable_recordings_it_says_where_to_look(layout: Layout) -> None:
    with pytest.raises(ProbingError, match=r"toy\.problems\.tsv"):
        LayerDiscoverySystem(layout, [recording(0, "silent")], encoder=ENCODER)
