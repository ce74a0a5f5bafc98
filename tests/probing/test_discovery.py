"""From files to results: rows and their order, damaged files, optional targets, the contract."""

import json
import shutil
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import numpy.typing as npt
import pytest

from mess_core import stages
from mess_core.errors import ProbingError, StorageError, TargetError
from mess_core.files import read_json, save_array
from mess_core.layout import DESCRIPTORS, ENCODER, UNTRAINED, Layout
from mess_core.probing import LayerDiscoverySystem, decompositions, read_result
from mess_core.probing.decompositions import decompose_source
from mess_core.targets.registry import probed_targets
from tests.probing.toy import (
    DIMS,
    FACTS,
    LAYER,
    LAYERS,
    RECORDINGS,
    SOURCES,
    N,
    decompose_all,
    make_dataset,
    random_features,
    recording,
    save,
    system_of,
    windows_of,
)

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def features() -> list[npt.NDArray[np.float32]]:
    return random_features()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    return make_dataset(tmp_path_factory.mktemp("made"))


@pytest.fixture
def layout(tmp_path: Path, made: Layout) -> Layout:
    """A copy of what was made."""
    shutil.copytree(made.data, tmp_path, dirs_exist_ok=True)
    return Layout(tmp_path, "toy")


@pytest.fixture
def system(layout: Layout) -> LayerDiscoverySystem:
    return system_of(layout)


def test_rows_are_the_windows_of_the_usable_recordings_in_their_order(
    system: LayerDiscoverySystem, features: list[npt.NDArray[np.float32]]
) -> None:
    expected = np.concatenate(features)
    for layer, found in enumerate(system.features[ENCODER]):
        np.testing.assert_array_equal(found.rows, expected[:, layer])
    np.testing.assert_array_equal(
        system.features[UNTRAINED][0].rows, expected[:, -1] * np.float32(0.1)
    )
    assert system.features[DESCRIPTORS][0].rows.shape == (len(expected), 2 * DIMS)
    assert system.names[:5] == ["r00", "r00", "r01", "r01", "r01"]
    assert system.works[:5] == ["w0", "w0", "w1", "w1", "w1"]


def test_rows_may_be_recordings(layout: Layout, features: list[npt.NDArray[np.float32]]) -> None:
    decompose_all(layout, "recordings")
    system = system_of(layout, unit="recordings")
    means = np.stack([segments.mean(axis=0) for segments in features])
    np.testing.assert_allclose(system.features[ENCODER][1].rows, means[:, 1])
    np.testing.assert_allclose(
        system.features[DESCRIPTORS][0].rows, means[:, 0].repeat(2, axis=1), rtol=1e-5, atol=1e-6
    )
    assert system.load_targets("tempo").shape == (N,)
    result = system.discover(["tempo"])["tempo"]
    assert (result["unit"], result["n_rows"]) == ("recordings", N)
    with pytest.raises(TargetError, match="not probed for windows"):
        system_of(layout).load_targets("loudness_curve")


def test_targets_are_nan_where_a_recording_has_none(system: LayerDiscoverySystem) -> None:
    number = np.array([int(name[1:]) for name in system.names])
    np.testing.assert_array_equal(np.isnan(system.load_targets("rubato")), number % 5 == 0)
    np.testing.assert_array_equal(np.isnan(system.load_targets("spectral_centroid")), number == 7)
    assert system.load_targets("loudness_shape").shape == (len(number), 4)


def test_rows_without_a_target_drop_out_of_that_target_alone(system: LayerDiscoverySystem) -> None:
    results = system.discover(["tempo", "rubato", "spectral_centroid"])
    total = sum(map(windows_of, range(N)))
    played = sum(windows_of(n) for n in range(N) if n % 5)
    counts = {name: result["n_rows"] for name, result in results.items()}
    expected = {"tempo": total, "rubato": played, "spectral_centroid": total - windows_of(7)}
    assert counts == expected
    assert results["rubato"]["n_recordings"] == 24
    assert results["tempo"]["best_layer"] == results["rubato"]["best_layer"] == LAYER


def test_baselines_are_probed_alike(system: LayerDiscoverySystem) -> None:
    baselines = system.discover(["tempo"])["tempo"]["baselines"]
    assert set(baselines) == {UNTRAINED, DESCRIPTORS, "layer_0"}
    # Reversed layers of the same signal: the twin knows as much, in the mirrored layer.
    assert baselines[UNTRAINED]["layer"] == LAYERS - 1 - LAYER
    assert baselines[UNTRAINED]["r2_within"] > 0.99
    # Layer 0 and what was copied of it know nothing.
    assert baselines[DESCRIPTORS]["r2"] < 0.3
    assert baselines["layer_0"]["layer"] == 0
    assert baselines["layer_0"]["r2"] < 0.3
    assert system_of(system.layout, layers={ENCODER: LAYERS}).discover(["tempo"])["tempo"][
        "baselines"
    ].keys() == {"layer_0"}


def test_a_target_without_gaps_decomposes_nothing_again(
    system: LayerDiscoverySystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Mock(wraps=decompositions.decompose_folds)
    monkeypatch.setattr(decompositions, "decompose_folds", counted)
    system.discover(["tempo", "loudness_shape"])
    counted.assert_not_called()
    system.discover(["rubato"])
    assert counted.call_count == sum(SOURCES.values()), "its own rows, layer by layer"


def test_discover_covers_the_registry_when_nothing_is_named(layout: Layout) -> None:
    decompose_source(layout, RECORDINGS, source=ENCODER, n_layers=1)
    results = system_of(layout, layers={ENCODER: 1}).discover()
    assert tuple(results) == probed_targets()
    assert results["velocity_mean"]["reason"] == "needs at least 10 rows with this target, has 0"
    assert results["dynamic_range"]["confidence"] == "low"
    assert results["dynamic_range"]["best_layer"] is None


def test_the_file_is_the_result_and_keeps_the_contract(
    system: LayerDiscoverySystem, layout: Layout
) -> None:
    path = system.discover_and_save("tempo")
    assert path == layout.probe("tempo")
    result = read_result(path)
    assert result == system.discover(["tempo"])["tempo"]
    assert (result["dataset"], result["category"], result["unit"]) == ("toy", "rhythm", "windows")
    assert (result["stage"], result["encoder"]) == (stages.PROBING, FACTS)
    assert (result["n_recordings"], result["n_works"], result["n_folds"]) == (N, 6, 5)
    assert [score["layer"] for score in result["layers"]] == list(range(LAYERS))
    assert result["layers"][LAYER]["r2_within"] > 0.99
    assert result["best_layers"] == [LAYER]
    assert result["alphas"] == list(system.alphas)
    assert (result["confidence"], result["reason"]) == ("high", None)


def test_progress_counts_the_layers_of_all_sources(system: LayerDiscoverySystem) -> None:
    seen: list[tuple[int, int, str]] = []
    system.discover_and_save("tempo", progress=lambda *report: seen.append(report))
    total = sum(system.layers.values())
    # Each number once or, where a source ends and the next begins, twice.
    assert list(dict.fromkeys(done for done, _, _ in seen)) == list(range(1, total + 1))
    assert {of for _, of, _ in seen} == {total}
    assert {name for _, _, name in seen} == set(system.layers)
    # A target that cannot be probed is done at once.
    seen.clear()
    system.discover_and_save("dynamic_range", progress=lambda *report: seen.append(report))
    assert seen[-1][:2] == (total, total)


def test_features_of_other_recordings_or_windows_are_refused(
    system: LayerDiscoverySystem, layout: Layout
) -> None:
    fewer = LayerDiscoverySystem(layout, RECORDINGS[1:], layers=SOURCES, encoder=FACTS)
    with pytest.raises(ProbingError, match="rows are of other recordings"):
        fewer.discover(["tempo"])
    path = layout.decomposition_receipt(UNTRAINED)
    facts = read_json(path)
    facts["counts"]["r03"] += 1
    path.write_text(json.dumps(facts))
    with pytest.raises(ProbingError, match="untrained has other windows than the encoder"):
        system.discover(["tempo"])


def test_targets_of_other_windows_are_refused(
    system: LayerDiscoverySystem, layout: Layout, features: list[npt.NDArray[np.float32]]
) -> None:
    save(layout, 3, features[3][:1], midi=True)
    with pytest.raises(TargetError, match=r"r03_targets\.npz: tempo has 1 values.*2 windows"):
        system.load_targets("tempo")


@pytest.mark.parametrize("name", ["1/rows.npy", "1/folds.npz", "receipt.json"])
def test_a_missing_or_damaged_file_is_named(layout: Layout, name: str) -> None:
    path = layout.decomposition(ENCODER, 1).parent / name
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(StorageError, match=name.replace(".", r"\.")):
        system_of(layout).discover(["tempo"])
    path.unlink()
    with pytest.raises(StorageError, match=name.replace(".", r"\.")):
        system_of(layout).discover(["tempo"])


def test_features_of_different_widths_are_refused(layout: Layout) -> None:
    save_array(layout.features("segments", "r03"), np.zeros((2, LAYERS, 9), np.float32))
    with pytest.raises(ProbingError, match="encoder features of different widths"):
        decompose_source(layout, RECORDINGS, source=ENCODER, n_layers=1)


def test_a_missing_file_is_named(system: LayerDiscoverySystem, layout: Layout) -> None:
    layout.targets("r05").unlink()
    with pytest.raises(TargetError, match="r05_targets"):
        system.load_targets("tempo")
    layout.features("segments", "r04").unlink()
    with pytest.raises(StorageError, match=r"r04\.npy does not exist"):
        decompose_source(layout, RECORDINGS, source=ENCODER, n_layers=1)


@pytest.mark.parametrize("name", ["tempi", "loudness_curve"])
def test_what_is_not_probed_is_refused(system: LayerDiscoverySystem, name: str) -> None:
    with pytest.raises(TargetError, match=f"'{name}' is not probed for windows"):
        system.discover([name])


def test_it_needs_a_described_encoder_among_the_layers_and_usable_recordings(
    layout: Layout,
) -> None:
    with pytest.raises(ProbingError, match="weights_sha256, trained"):
        system_of(layout, encoder={"name": "tiny"})
    with pytest.raises(ProbingError, match="encoder must be among them"):
        system_of(layout, layers={DESCRIPTORS: 1})
    with pytest.raises(ProbingError, match=r"toy\.problems\.tsv"):
        LayerDiscoverySystem(layout, [recording(0, "silent")], layers=SOURCES, encoder=FACTS)
