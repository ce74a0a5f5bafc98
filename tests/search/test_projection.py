"""What is stored: blocks of the promised scale, decorrelated, and a general block to erase from."""

import numpy as np
import numpy.typing as npt
import pytest

from mess_core.errors import ArtifactError, SearchError
from mess_core.index.fitting import WHITENING_SHRINKAGE, _shrinkage, fit_projection
from mess_core.index.projection import REACH
from tests.planted import DIMS, DIRECTED, LAYERS, Corpus
from tests.search.reference import Blocks, Floats

pytestmark = pytest.mark.unit

N = 600


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return Corpus(N)


def test_stored_vectors_are_the_blocks_of_the_definition(corpus: Corpus) -> None:
    projection = corpus.projection()
    vectors, predicted, usable = projection.project(corpus.features)
    blocks = Blocks(projection, corpus.features)
    assert usable.all()
    assert vectors.shape == (N, projection.width)
    np.testing.assert_allclose(vectors[:, : projection.general], blocks.general, atol=2e-5)
    for name, aspect in projection.aspects.items():
        np.testing.assert_allclose(vectors[:, aspect.stored], blocks.aspects[name], atol=2e-5)
        squared = np.square(blocks.aspects[name]).sum(axis=1)
        np.testing.assert_allclose(vectors[:, aspect.norm], squared, atol=2e-4)
    for name in DIRECTED:
        number = projection.aspects[name].number
        np.testing.assert_allclose(predicted[:, number], blocks.predicted[:, number], atol=1e-4)
    assert np.isnan(predicted[:, projection.aspects["contour"].number]).all()


def test_two_random_rows_are_at_a_squared_distance_of_one(corpus: Corpus) -> None:
    projection = corpus.projection()
    vectors, _, _ = projection.project(corpus.features)
    first, second = np.triu_indices(N, 1)
    for name, aspect in projection.aspects.items():
        block = vectors[:, aspect.stored]
        distance = np.square(block[first] - block[second]).sum(axis=1).mean()
        # Coordinates beyond REACH are cut, which takes some per mille.
        assert distance == pytest.approx(1.0, abs=0.02), name


def pearson(a: Floats, b: Floats) -> float:
    return float(np.asarray(np.corrcoef(a, b))[0, 1])


def test_an_index_of_recordings_has_the_scale_of_recordings(corpus: Corpus) -> None:
    names = [f"r{row // 6}" for row in range(N)]
    means = corpus.features.reshape(-1, 6, LAYERS, DIMS).mean(axis=1)
    projection = fit_projection(
        lambda layer: corpus.features[:, layer],
        range(LAYERS),
        coordinates=corpus.coordinates,
        recordings=names,
    )
    vectors, _, _ = projection.project(means)
    windows, _, _ = corpus.projection().project(means)
    for name, aspect in projection.aspects.items():
        spread = 2 * vectors[:, aspect.stored].var(axis=0).sum()
        assert spread == pytest.approx(1.0, abs=0.1), name
        assert 2 * windows[:, aspect.stored].var(axis=0).sum() < 0.3


def test_aspects_are_decorrelated_and_stay_what_they_were(corpus: Corpus) -> None:
    projection = corpus.projection()
    coordinates = projection.read(corpus.features)[1]
    np.testing.assert_allclose(coordinates.mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(coordinates.std(axis=0), 1, atol=1e-3)
    tempo, legato = (projection.aspects[name].coordinates.start for name in ("tempo", "legato"))
    before = np.asarray(np.corrcoef(coordinates.T))[tempo, legato]
    moved = coordinates @ projection.decorrelate
    after = np.asarray(np.corrcoef(moved.T))
    assert abs(before) > 0.5
    # The shrinkage of a tenth leaves a little of it.
    assert abs(after[tempo, legato]) < 0.15
    own = [pearson(coordinates[:, i], moved[:, i]) for i in range(len(after))]
    assert min(own) > 0.9


def test_what_is_far_out_is_taken_for_three_standard_deviations() -> None:
    corpus = Corpus(N)
    projection = corpus.projection()
    wild = corpus.features[:1] + 50 * (corpus.features[:1] - corpus.features[1:2])
    vectors, predicted, _ = projection.project(wild)
    for aspect in projection.aspects.values():
        bound = projection.bounds[aspect.coordinates]
        assert (np.abs(vectors[0, aspect.stored]) <= bound).all()
    assert (np.abs(vectors[0, projection.general :]) > 0).all()
    assert REACH == 3.0
    # Predicted values are not cut: conditions are about what the probe says.
    assert np.nanmax(np.abs(predicted)) > 5


def test_the_general_block_without_an_aspect_does_not_tell_of_it(corpus: Corpus) -> None:
    projection = corpus.projection()
    components = projection.read(corpus.features)[0]
    values = corpus.values["tempo"][:, 0]

    def told(features: Floats) -> float:
        centred = features - features.mean(axis=0)
        fitted = centred @ np.linalg.lstsq(centred, values - values.mean(), rcond=1e-6)[0]
        return pearson(fitted, values) ** 2

    directions = projection.erase[:, projection.aspects["tempo"].coordinates].astype(float)
    np.testing.assert_allclose(directions.T @ directions, np.eye(1), atol=1e-5)
    left = components - components @ directions @ directions.T
    assert told(components) > 0.9
    # Whitening is shrunk, so that a little may be left.
    assert told(left) < 0.1


def test_steering_raises_the_predicted_value_by_as_much_as_asked(corpus: Corpus) -> None:
    projection = corpus.projection()
    back = np.linalg.inv(projection.decorrelate.astype(float))
    for name in DIRECTED:
        aspect = projection.aspects[name]
        move = np.zeros(len(projection.offset))
        move[aspect.coordinates] = 0.7 * projection.steer[aspect.coordinates]
        change = move @ back @ projection.value.astype(float)
        assert change[aspect.number] == pytest.approx(0.7, abs=1e-4)
    assert not projection.steer[projection.aspects["contour"].coordinates].any()


def test_general_components_are_those_of_all_layers_side_by_side() -> None:
    corpus = Corpus(300, noise=0.3)
    projection = fit_projection(lambda layer: corpus.features[:, layer], [0, 2])
    assert (projection.width, len(projection.names)) == (projection.general, 0)
    kept = corpus.features[:, [0, 2]].astype(float)
    centred = kept - kept.mean(axis=0)
    unit = (centred / np.linalg.norm(centred, axis=2, keepdims=True)).reshape(300, -1)
    unit -= unit.mean(axis=0)
    _, _, directions = np.linalg.svd(unit, full_matrices=False)
    span = directions[: projection.general]
    basis = projection.basis / np.linalg.norm(projection.basis, axis=0)
    np.testing.assert_allclose(np.abs(np.diagonal(span @ basis)), 1.0, atol=1e-3)
    # Whitened, but shrunk: the spread of variances is far smaller than it was.
    before, after = (unit @ span.T).std(axis=0), (unit @ projection.basis).std(axis=0)
    assert after.max() / after.min() < 0.5 * before.max() / before.min()


def test_layers_that_know_little_are_left_out_of_general_but_serve_their_aspects() -> None:
    corpus = Corpus(300, noise=0.3)
    some = fit_projection(
        lambda layer: corpus.features[:, layer],
        range(LAYERS),
        general_layers=[0, 2],
        coordinates=corpus.coordinates,
    )
    assert some.general_layers == some.describe()["general_layers"] == [0, 2]
    assert corpus.projection().general_layers == [0, 1, 2]
    alone = fit_projection(lambda layer: corpus.features[:, layer], [0, 2])
    vectors, predicted, _ = some.project(corpus.features)
    expected, _, _ = alone.project(corpus.features[:, [0, 2]])
    general = vectors[:, : some.general]
    np.testing.assert_allclose(general @ general.T, expected @ expected.T, atol=1e-4)
    _, same, _ = corpus.projection().project(corpus.features)
    np.testing.assert_allclose(predicted, same, atol=1e-4)


@pytest.mark.parametrize(("n", "p"), [(4, 6), (30, 10), (200, 10), (40, 300)])
def test_whitening_is_shrunk_as_ledoit_and_wolf_do(n: int, p: int) -> None:
    from sklearn.covariance import ledoit_wolf_shrinkage

    rows = np.random.default_rng(n).normal(size=(n, p)) * np.geomspace(1, 10, p)
    rows -= rows.mean(axis=0)
    variances = np.linalg.svd(rows, compute_uv=False) ** 2 / n
    expected = ledoit_wolf_shrinkage(rows, assume_centered=True)
    assert _shrinkage(rows, variances) == pytest.approx(expected, abs=1e-9)
    assert (expected > WHITENING_SHRINKAGE) == (n < 200)


def test_a_large_corpus_is_fitted_by_a_sample_of_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mess_core.index.fitting.SAMPLE", 100)
    corpus = Corpus(N)
    vectors, _, _ = corpus.projection().project(corpus.features)
    assert np.isfinite(vectors).all()
    aspect = corpus.projection().aspects["dynamics"]
    assert 2 * vectors[:, aspect.stored].var(axis=0).sum() == pytest.approx(1.0, abs=0.02)


def test_fitting_refuses_what_has_no_answer() -> None:
    corpus = Corpus(30)
    features = corpus.features

    def fit(layers: list[int], values: npt.NDArray[np.float32] = features, **given: object) -> None:
        fit_projection(lambda layer: values[:, layer], layers, **given)  # type: ignore[arg-type]

    with pytest.raises(ArtifactError, match="at least one layer, each once"):
        fit([])
    with pytest.raises(ArtifactError, match="each once"):
        fit([1, 1])
    for wrong in ([], [3]):
        with pytest.raises(ArtifactError, match="expected at least one of"):
            fit(list(range(LAYERS)), general_layers=wrong)
    with pytest.raises(ArtifactError, match="needs layer 2, but only"):
        fit([0, 1], coordinates=corpus.coordinates)
    with pytest.raises(SearchError, match="at least two"):
        fit([0], features[:1])
    with pytest.raises(SearchError, match="all rows have the same features"):
        fit([0], np.full((5, 1, DIMS), 7.3, np.float32))
    broken = features.copy()
    broken[3, 1, 2] = np.nan
    with pytest.raises(ArtifactError, match="layer 1 are not finite"):
        fit(list(range(LAYERS)), broken)
