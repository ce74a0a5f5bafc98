"""Coordinates equal reduced-rank ridge by scikit-learn; values and errors mean what they say."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mess_core.files import read_json, write_json
from mess_core.layout import ENCODER
from mess_core.probing import ASPECT_REGISTRY, resolve_aspects, save_aspects
from mess_core.probing.aspects import Aspect
from mess_core.probing.coordinates import (
    LARGEST_RANK,
    AspectCoordinates,
    fit_coordinates,
    musical_layers,
)
from mess_core.probing.discovery import LayerDiscoverySystem
from tests.probing.toy import LAYER, make_dataset, system_of

pytestmark = pytest.mark.unit

Floats = npt.NDArray[np.float64]
TARGETS = ("tempo", "rubato", "loudness_shape", "spectral_centroid")


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> LayerDiscoverySystem:
    layout = make_dataset(tmp_path_factory.mktemp("coordinates"))
    system: LayerDiscoverySystem = system_of(layout)
    for target in TARGETS:
        system.discover_and_save(target)
    save_aspects(resolve_aspects(0.3, layout.probing, targets=TARGETS), layout.aspects)
    return system


@pytest.fixture(scope="module")
def fitted(system: LayerDiscoverySystem) -> Mapping[str, AspectCoordinates]:
    return {aspect.name: aspect for aspect in fit_coordinates(system)}


def _rows(system: LayerDiscoverySystem, layer: int) -> Floats:
    return system.features[ENCODER][layer].rows.astype(np.float64)


def _alpha(system: LayerDiscoverySystem, target: str, layer: int) -> float:
    return float(read_json(system.layout.probe(target))["layers"][layer]["alpha"])


def _ridge(system: LayerDiscoverySystem, target: str, layer: int) -> Any:
    return make_pipeline(StandardScaler(), Ridge(_alpha(system, target, layer)))


def test_the_resolved_aspects_are_fitted_in_their_layers(
    fitted: Mapping[str, AspectCoordinates],
) -> None:
    assert set(fitted) == {"tempo", "phrasing", "rubato"}
    assert {aspect.layer for aspect in fitted.values()} == {LAYER}


def test_a_single_target_has_one_coordinate_which_is_its_probes_prediction(
    system: LayerDiscoverySystem, fitted: Mapping[str, AspectCoordinates]
) -> None:
    X, y = _rows(system, LAYER), system.load_targets("tempo")
    predicted = _ridge(system, "tempo", LAYER).fit(X, y).predict(X)
    aspect = fitted["tempo"]
    found = (X - aspect.mean) @ aspect.readout
    assert found.shape == (len(X), 1)
    assert found.std() == pytest.approx(1.0)
    assert abs(np.corrcoef(found[:, 0], predicted)[0, 1]) == pytest.approx(1.0, abs=1e-9)
    assert aspect.value is not None
    value = found @ aspect.value
    np.testing.assert_allclose(value, (predicted - y.mean()) / y.std(), atol=1e-6)


def test_rows_without_a_target_are_not_learned_from_but_read(
    system: LayerDiscoverySystem, fitted: Mapping[str, AspectCoordinates]
) -> None:
    X, y = _rows(system, LAYER), system.load_targets("rubato")
    present = np.isfinite(y)
    assert 0 < present.sum() < len(y)
    ridge = _ridge(system, "rubato", LAYER).fit(X[present], y[present])
    aspect = fitted["rubato"]
    found = (X - aspect.mean) @ aspect.readout[:, 0]
    assert abs(np.corrcoef(found, ridge.predict(X))[0, 1]) == pytest.approx(1.0, abs=1e-9)


def test_a_shape_is_reduced_to_the_principal_components_of_its_predictions(
    system: LayerDiscoverySystem, fitted: Mapping[str, AspectCoordinates]
) -> None:
    X, Y = _rows(system, LAYER), system.load_targets("loudness_shape")
    standardised = (Y - Y.mean(axis=0)) / Y.std(axis=0)
    ridge = _ridge(system, "loudness_shape", LAYER).fit(X, standardised)
    predicted = ridge.predict(X) - ridge.predict(X).mean(axis=0)
    left, strengths, _ = np.linalg.svd(predicted, full_matrices=False)
    aspect = fitted["phrasing"]
    found = (X - aspect.mean) @ aspect.readout
    rank = found.shape[1]
    assert rank == min(LARGEST_RANK, Y.shape[1])
    assert strengths[0] > strengths[-1] * 1.01
    expected = left[:, :rank] * np.sqrt(len(X))
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-6)
    assert aspect.value is None
    assert aspect.standard_error is None


def test_the_standard_error_is_that_of_works_that_were_not_heard_and_recordings_means_err_less(
    system: LayerDiscoverySystem, fitted: Mapping[str, AspectCoordinates]
) -> None:
    X, y = _rows(system, LAYER), system.load_targets("tempo")
    wrong = np.empty(len(y))
    for fold in np.unique(system.folds):
        out = system.folds == fold
        wrong[out] = _ridge(system, "tempo", LAYER).fit(X[~out], y[~out]).predict(X[out]) - y[out]
    error = np.sqrt(np.square(wrong).mean()) / y.std()
    assert fitted["tempo"].standard_error == pytest.approx(error, rel=1e-6)
    names = np.array(system.names)
    means = [wrong[names == name].mean() for name in np.unique(names)]
    averaged = {a.name: a for a in fit_coordinates(system, averaged=True)}["tempo"]
    expected = np.sqrt(np.square(means).mean()) / y.std()
    assert averaged.standard_error == pytest.approx(expected, rel=1e-6)
    assert expected < error
    assert averaged.value == pytest.approx(fitted["tempo"].value)


def test_less_of_a_target_may_be_more_of_an_aspect(
    system: LayerDiscoverySystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Warmth may be measured by a centroid: the lower, the warmer."""
    warm_aspect = Aspect("warmth", "How low the sound lies", ("spectral_centroid",), more=-1)
    monkeypatch.setitem(ASPECT_REGISTRY, "warmth", warm_aspect)
    aspects = read_json(system.layout.aspects)
    entry = aspects["aspects"]["tempo"]
    warm = {**aspects, "aspects": {"warmth": entry, "tempo": entry, "phrasing": entry}}
    write_json(system.layout.aspects, warm)
    try:
        warmth, tempo, phrasing = fit_coordinates(system)
    finally:
        write_json(system.layout.aspects, aspects)
    assert warmth.value is not None
    assert tempo.value is not None
    np.testing.assert_allclose(warmth.value, -tempo.value)
    assert phrasing.value is None


def test_the_layers_that_know_most_are_chosen_by_their_mean_over_targets() -> None:
    def result(*r2: float | None) -> dict[str, Any]:
        return {"layers": [{"r2": 0.9, "r2_within": value} for value in r2]}

    first, second = result(0.5, 0.4, -3.0, 0.44), result(0.3, 0.28, 0.2, 0.3)
    # Means: 0.4, 0.34, 0.1, 0.37; the limit is 0.85 of 0.4.
    assert musical_layers([first, second, {"layers": []}]) == [0, 1, 3]
    assert musical_layers([]) == []
    assert musical_layers([result(-0.1, -0.2)]) == []
