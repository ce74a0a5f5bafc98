import numpy as np
import pytest

from mess_core.artifacts.index import Floats, Index, Row, build_index
from mess_core.errors import ArtifactError

pytestmark = pytest.mark.unit


def _rows(n: int) -> list[Row]:
    return [Row(f"r{i}", "w", "", "", "", "", 0.0, 10.0) for i in range(n)]


def _features(n: int = 8, layers: int = 4, dims: int = 6) -> Floats:
    # A large common offset, as raw transformer features have.
    noise = np.random.default_rng(3).normal(size=(n, layers, dims))
    return (noise + 50.0).astype(np.float32)


def _build(features: Floats, rows: list[Row], layers: list[int], kind: str = "recordings") -> Index:
    return build_index(features, rows, kind=kind, layers=layers, aspects={}, facts={})


def test_inner_product_is_the_weighted_mean_of_the_layers_cosines() -> None:
    features = _features()
    index = _build(features, _rows(8), [3, 1, 0])
    weights = {3: 0.2, 1: 0.5, 0: 0.3}
    query = index.query(index.blocks([2])[0], weights)
    scores, rows = index.flat.search(query, 8)
    centred = features.astype(np.float64) - features.mean(axis=0, dtype=np.float64)
    unit = centred / np.linalg.norm(centred, axis=2, keepdims=True)
    expected = sum(w * unit[:, layer] @ unit[2, layer] for layer, w in weights.items())
    np.testing.assert_allclose(scores[0][np.argsort(rows[0])], expected, atol=1e-5)


def test_centring_removes_what_all_recordings_share() -> None:
    features = _features()
    plain = features[:, 0] / np.linalg.norm(features[:, 0], axis=1, keepdims=True)
    assert (plain @ plain.T).min() > 0.99
    index = _build(features, _rows(8), [0])
    scores, _ = index.flat.search(index.query(index.blocks([0])[0], {0: 1.0}), 8)
    assert scores.min() < 0


def test_stored_vectors_have_length_one_and_the_callers_array_is_untouched() -> None:
    features = _features()
    features.flags.writeable = False
    index = _build(features, _rows(8), [0, 2])
    stored = index.flat.reconstruct_n(0, 8)
    assert stored.shape == (8, 12)
    np.testing.assert_allclose(np.linalg.norm(stored, axis=1), 1.0, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(index.blocks(range(8)), axis=2), 1.0, atol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_features_that_are_not_finite_are_refused_by_name(value: float) -> None:
    features = _features()
    features[5, 2, 1] = value
    with pytest.raises(ArtifactError, match=r"recording r5 .*not finite"):
        _build(features, _rows(8), [0])


def test_a_row_that_equals_the_mean_is_refused_by_name() -> None:
    features = _features()
    features[6, 1] = features[[0, 1, 2, 3, 4, 5, 7], 1].mean(axis=0, dtype=np.float64)
    with pytest.raises(ArtifactError, match=r"recording r6 .*layer 1"):
        _build(features, _rows(8), [0, 1])
    assert _build(features, _rows(8), [0, 2]).layers == (0, 2)


@pytest.mark.parametrize("n", [1, 5])
def test_features_that_do_not_vary_are_refused(n: int) -> None:
    with pytest.raises(ArtifactError, match=r"r0 .*at least two different rows"):
        _build(np.full((n, 2, 3), 7.3, dtype=np.float32), _rows(n), [0, 1])


def test_values_whose_squares_overflow_float32_are_no_trouble() -> None:
    index = _build(_features() * np.float32(1e30), _rows(8), [0])
    np.testing.assert_allclose(np.linalg.norm(index.blocks(range(8)), axis=2), 1.0, atol=1e-6)


@pytest.mark.parametrize(
    ("layers", "message"),
    [([], "at least one layer"), ([1, 1], "each once"), ([4], "layer 4 .*0-3"), ([-1], "layer -1")],
)
def test_impossible_layers_are_refused(layers: list[int], message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        _build(_features(), _rows(8), layers)


def test_features_and_rows_must_agree() -> None:
    with pytest.raises(ArtifactError, match=r"\(8, 4, 6\), expected \(7, layers, dims\)"):
        _build(_features(), _rows(7), [0])
    with pytest.raises(ArtifactError, match="at least one row"):
        _build(_features(), [], [0])


def test_impossible_rows_are_refused() -> None:
    rows = _rows(8)
    with pytest.raises(ArtifactError, match="r0 occurs twice"):
        _build(_features(), [rows[0], *rows[:7]], [0])
    with pytest.raises(ArtifactError, match="'songs' is none of recordings, clips"):
        _build(_features(), rows, [0], kind="songs")
    for start, end in [(3.0, 2.0), (-1.0, 2.0), (0.0, np.nan), (0.0, np.inf)]:
        wrong = Row("odd", "w", "", "", "", "", start, end)
        with pytest.raises(ArtifactError, match="recording odd"):
            _build(_features(), [*rows[:7], wrong], [0])
    with pytest.raises(ArtifactError, match="empty recording_id"):
        _build(_features(), [*rows[:7], Row("", "w", "", "", "", "", 0.0, 1.0)], [0])


def test_an_aspect_whose_layer_is_left_out_is_refused() -> None:
    aspects = {"aspects": {"tempo": {"resolved": True, "layer": 3}}}
    with pytest.raises(ArtifactError, match="'tempo' needs layer 3"):
        build_index(_features(), _rows(8), kind="clips", layers=[0, 1], aspects=aspects, facts={})


def test_facts_must_be_builtins() -> None:
    for wrong in (np.float32(1), float("nan"), object()):
        with pytest.raises(ArtifactError, match="facts must be finite builtins"):
            build_index(
                _features(), _rows(8), kind="clips", layers=[0], aspects={}, facts={"x": wrong}
            )
