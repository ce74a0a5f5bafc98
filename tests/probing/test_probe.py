"""Planted signals, leaks and noise; equality with a scikit-learn loop on the same folds."""

from collections import Counter
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mess_core.errors import ProbingError
from mess_core.probing.probe import MIN_ROWS, ProbeResult, deal_folds, probe_layers

pytestmark = pytest.mark.unit

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

ALPHAS = (0.1, 1.0, 10.0, 100.0, 1000.0)


def noise(*shape: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).normal(size=shape)


def works(n: int, n_works: int) -> list[str]:
    return [f"work-{row % n_works}" for row in range(n)]


def planted(n: int = 200, layer: int = 3, share: float = 1.0) -> tuple[Floats, Floats]:
    """Random features and a target of which ``share`` of the variance is linear in one layer."""
    features = noise(n, 6, 10)
    signal = features[:, layer] @ noise(10, seed=1)
    signal /= signal.std()
    return features, np.sqrt(share) * signal + np.sqrt(1 - share) * noise(n, seed=2)


def reference(X: Floats, y: Floats, folds: Ints, scale_on: Floats | None = None) -> Floats:
    """Out-of-fold predictions of the nested scheme, by scikit-learn, one fit at a time.

    With ``scale_on`` the standardisation is learned there: the mistake that a probe must not make.
    """

    def fit(alpha: float, training: npt.NDArray[np.bool_]) -> Any:
        if scale_on is None:
            return make_pipeline(StandardScaler(), Ridge(alpha=alpha)).fit(X[training], y[training])
        pipeline = make_pipeline(StandardScaler().fit(scale_on), Ridge(alpha=alpha))
        pipeline[1].fit(pipeline[0].transform(X[training]), y[training])
        return pipeline

    def inner_error(alpha: float, outer: int) -> float:
        error = 0.0
        for inner in set(folds.tolist()) - {outer}:
            model = fit(alpha, (folds != outer) & (folds != inner))
            error += ((model.predict(X[folds == inner]) - y[folds == inner]) ** 2).sum()
        return error

    predicted = np.empty_like(y)
    for outer in set(folds.tolist()):
        alpha = min(ALPHAS, key=lambda a: inner_error(a, outer))
        predicted[folds == outer] = fit(alpha, folds != outer).predict(X[folds == outer])
    return predicted


def assert_same(result: ProbeResult, other: ProbeResult, tolerance: float = 1e-8) -> None:
    for score, expected in zip(result.layers, other.layers, strict=True):
        assert score.r2 == pytest.approx(expected.r2, abs=tolerance)
        assert score.alpha_folds == expected.alpha_folds
    assert result.best_layer == other.best_layer


def test_folds_never_share_a_work_and_are_as_even_as_group_k_fold() -> None:
    rng = np.random.default_rng(3)
    names = [f"w{number}" for number in rng.integers(0, 23, 300)]
    folds = deal_folds(names, 5)
    assert len({(work, fold) for work, fold in zip(names, folds.tolist(), strict=True)}) == len(
        set(names)
    )
    splits = GroupKFold(5).split(np.zeros(300), groups=names)
    assert sorted(Counter(folds.tolist()).values()) == sorted(len(test) for _, test in splits)


def test_folds_do_not_depend_on_the_order_of_rows() -> None:
    names = works(40, 7)
    order = np.random.default_rng(0).permutation(40)
    np.testing.assert_array_equal(
        deal_folds(names, 4)[order], deal_folds([names[row] for row in order], 4)
    )


def test_with_few_works_each_is_a_fold() -> None:
    assert deal_folds(["b", "a", "b", "c"], 5).tolist() == [0, 1, 0, 2]


def test_a_signal_planted_in_layer_3_is_found_there() -> None:
    features, y = planted(share=0.95)
    result = probe_layers(features, y, works(200, 20))
    assert result.best_layer == 3
    assert result.best_r2 is not None
    assert result.best_r2 > 0.9
    assert result.nested_layers == (3,) * 5
    assert result.r2_nested == pytest.approx(result.best_r2)
    assert all(score.r2 < 0.1 for score in result.layers if score.layer != 3)
    best = result.layers[3]
    assert best.correlation is not None
    assert best.correlation**2 == pytest.approx(best.r2, abs=0.02)
    assert best.rmse == pytest.approx(y.std() * np.sqrt(1 - best.r2), rel=1e-6)
    assert all(value is not None and value > 0.8 for value in best.r2_folds)
    assert best.r2_std == pytest.approx(np.std(np.array(best.r2_folds, float)))


@pytest.mark.parametrize("share", [0.3, 0.7])
def test_a_known_r2_is_recovered(share: float) -> None:
    features, y = planted(n=2000, share=share)
    result = probe_layers(features, y, works(2000, 50))
    assert result.best_r2 == pytest.approx(share, abs=0.03)


def test_knowing_the_work_does_not_pay() -> None:
    n, n_works = 240, 24
    of_work = np.arange(n) % n_works
    fingerprints, values = noise(n_works, 2, 30), noise(n_works, seed=1)
    features = fingerprints[of_work] + 0.1 * noise(n, 2, 30, seed=2)
    grouped = probe_layers(features, values[of_work], works(n, n_works))
    shuffled = probe_layers(features, values[of_work], [str(row) for row in range(n)])
    assert shuffled.best_r2 is not None
    assert grouped.best_r2 is not None
    assert shuffled.best_r2 > 0.9
    assert grouped.best_r2 < 0.2


def test_noise_has_no_r2() -> None:
    result = probe_layers(noise(150, 4, 30), noise(150, seed=1), works(150, 15))
    assert all(-0.3 < score.r2 < 0.05 for score in result.layers)


def test_choosing_among_many_layers_of_noise_is_not_rewarded_when_nested() -> None:
    gaps, nested = [], []
    for seed in range(8):
        result = probe_layers(
            noise(30, 20, 2, seed=seed), noise(30, seed=100 + seed), works(30, 10), alphas=(1.0,)
        )
        assert result.best_r2 is not None
        assert result.r2_nested is not None
        gaps.append(result.best_r2 - result.r2_nested)
        nested.append(result.r2_nested)
    assert min(gaps) >= 0
    assert np.mean(gaps) > 0.1
    assert np.mean(nested) < 0


@pytest.mark.parametrize(("n", "dims"), [(60, 8), (36, 50)])
def test_equals_a_scikit_learn_loop_over_the_same_folds(n: int, dims: int) -> None:
    features = noise(n, 2, dims) * 10 + 3
    y = features[:, 0] @ noise(dims, seed=1) + 20 * noise(n, seed=2)
    names = works(n, 9)
    result = probe_layers(features, y, names, alphas=ALPHAS, n_folds=4)
    for score in result.layers:
        predicted = reference(features[:, score.layer], y, deal_folds(names, 4))
        assert score.r2 == pytest.approx(r2_score(y, predicted), abs=1e-8)
        assert score.correlation == pytest.approx(np.corrcoef(y, predicted)[0, 1], abs=1e-8)
        assert score.rmse == pytest.approx(np.sqrt(np.mean((y - predicted) ** 2)), abs=1e-8)
        assert score.alpha == np.quantile(score.alpha_folds, 0.5, method="lower")
        for fold, r2 in enumerate(score.r2_folds):
            rows = deal_folds(names, 4) == fold
            assert r2 == pytest.approx(r2_score(y[rows], predicted[rows]), abs=1e-8)
    assert any(score.alpha != score.alpha_folds[0] for score in result.layers)


def test_standardisation_is_learned_on_training_rows_only() -> None:
    n = 60
    names = works(n, 6)
    features = noise(n, 1, 4)
    y = features[:, 0, 0] + 0.3 * noise(n, seed=1)
    features[np.array(names) == "work-2", 0, 1:] *= 1000
    folds = deal_folds(names, 5)
    r2 = probe_layers(features, y, names, alphas=ALPHAS).layers[0].r2
    on_training = r2_score(y, reference(features[:, 0], y, folds))
    on_all = r2_score(y, reference(features[:, 0], y, folds, scale_on=features[:, 0]))
    assert r2 == pytest.approx(on_training, abs=1e-8)
    assert abs(on_all - on_training) > 0.01


def test_rows_without_the_target_drop_out() -> None:
    features, y = planted(n=120, share=0.8)
    names = works(120, 10)
    absent = np.arange(120) < 20
    without = probe_layers(features[~absent], y[~absent], names[20:])
    y[absent], features[absent] = np.nan, 1e9
    result = probe_layers(features, y, names)
    assert (result.n_rows, result.n_works) == (100, 10)
    assert_same(result, without, 0)


def test_a_target_of_few_works_still_gets_all_its_folds() -> None:
    features, y = planted(n=200, share=0.9)
    names = works(200, 20)
    first_fold = deal_folds(names, 5) == 0
    y[~first_fold] = np.nan
    result = probe_layers(features, y, names)
    assert (result.n_works, result.n_folds) == (4, 4)
    assert result.best_layer == 3


def test_scale_of_features_and_target_changes_nothing() -> None:
    features, y = planted(share=0.7)
    names = works(200, 20)
    result = probe_layers(features, y, names)
    rescaled = probe_layers(features * 1000 + 5, y * 1e-6 + 2, names)
    assert_same(rescaled, result, 1e-6)
    assert rescaled.layers[3].rmse == pytest.approx(result.layers[3].rmse * 1e-6)


def test_constant_columns_change_nothing() -> None:
    features, y = planted(share=0.7)
    padded = np.concatenate([features, np.full((200, 6, 3), 0.1)], axis=2)
    names = works(200, 20)
    assert_same(probe_layers(padded, y, names), probe_layers(features, y, names))


def test_a_fold_in_which_the_target_does_not_vary_has_no_r2_of_its_own() -> None:
    names = works(40, 4)
    features = noise(40, 1, 3)
    y = np.array([float(name[-1]) for name in names])
    result = probe_layers(features, y, names)
    assert result.layers[0].r2_folds == (None,) * 4
    assert result.layers[0].r2_std is None


def test_constant_features_have_no_correlation() -> None:
    result = probe_layers(np.ones((40, 1, 3)), noise(40), works(40, 4))
    assert result.layers[0].r2 <= 0
    assert np.isfinite(result.layers[0].rmse)


@pytest.mark.parametrize(
    ("n", "n_works", "target", "words"),
    [
        (MIN_ROWS - 1, 5, None, "9 rows"),
        (40, 2, None, "2 works"),
        (40, 5, np.full(40, 3.0), "3 in all 40 rows"),
        (40, 5, np.full(40, np.nan), "0 rows"),
    ],
)
def test_a_hopeless_target_is_reported_not_raised(
    n: int, n_works: int, target: Floats | None, words: str
) -> None:
    y = noise(n) if target is None else target
    result = probe_layers(noise(n, 2, 3), y, works(n, n_works))
    assert result.reason is not None
    assert words in result.reason
    assert result.layers == ()
    assert (result.best_layer, result.best_r2, result.r2_nested) == (None, None, None)


def broken(**changes: Any) -> dict[str, Any]:
    call = {"features": noise(20, 2, 3), "target": noise(20), "works": works(20, 4)}
    return {**call, **changes}


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (broken(features=noise(20, 3)), "layers, dims"),
        (broken(features=noise(20, 0, 3)), "layers, dims"),
        (broken(features=np.full((20, 2, 3), np.nan)), "row 0 "),
        (broken(target=noise(19)), "do not belong together"),
        (broken(works=works(21, 4)), "do not belong together"),
        (broken(target=np.full(20, np.inf)), "infinite"),
        (broken(n_folds=2), "at least 3"),
        (broken(alphas=()), "above 0"),
        (broken(alphas=(1.0, 0.0)), "above 0"),
        (broken(alphas=(float("nan"),)), "above 0"),
    ],
)
def test_malformed_input_is_refused(call: dict[str, Any], words: str) -> None:
    with pytest.raises(ProbingError, match=words):
        probe_layers(call.pop("features"), call.pop("target"), call.pop("works"), **call)


def test_input_is_left_as_it_is_and_results_repeat() -> None:
    features, y = planted(n=60)
    before = features.copy(), y.copy()
    first = probe_layers(features, y, works(60, 6))
    assert asdict(first) == asdict(probe_layers(features, y, works(60, 6)))
    np.testing.assert_array_equal(features, before[0])
    np.testing.assert_array_equal(y, before[1])
