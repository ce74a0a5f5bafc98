"""Planted signals, leaks and noise; equality with scikit-learn loops on the same folds."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.optimize import nnls
from scipy.spatial.distance import pdist
from scipy.stats import spearmanr
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mess_core.errors import ProbingError
from mess_core.probing.decompositions import decompose_folds
from mess_core.probing.folds import deal_folds, plan_rows
from mess_core.probing.probe import MIN_ROWS, probe, probe_layers
from mess_core.probing.scores import ProbeResult, _followed

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


def assert_same(result: ProbeResult, other: ProbeResult) -> None:
    for score, expected in zip(result.layers, other.layers, strict=True):
        assert score.r2 == pytest.approx(expected.r2, abs=1e-12)
        assert score.alpha_folds == expected.alpha_folds
    assert result.best_layer == other.best_layer


def test_a_signal_planted_in_layer_3_is_found_there() -> None:
    features, y = planted(share=0.95)
    result = probe_layers(features, y, works(200, 20))
    assert result.best_layer == 3
    assert (result.best_r2 or 0) > 0.9
    assert result.nested_layers == (3,) * 5
    assert result.r2_nested == pytest.approx(result.best_r2)
    assert all(score.r2 < 0.1 for score in result.layers if score.layer != 3)
    best = result.layers[3]
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
    assert (shuffled.best_r2 or 0) > 0.9
    assert (grouped.best_r2 or 1) < 0.2


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
    names = [f"work-{int(9 * (row / n) ** 2)}" for row in range(n)]
    y += np.unique(names, return_inverse=True)[1]
    result = probe_layers(features, y, names, alphas=ALPHAS, n_folds=4)
    for score in result.layers:
        predicted = reference(features[:, score.layer], y, deal_folds(names, 4))
        centred, missed = by_work(y, names), by_work(y - predicted, names)
        r2_within = 1 - (missed @ missed) / (centred @ centred)
        assert score.r2_within == pytest.approx(r2_within, abs=1e-8)
        assert score.r2 == pytest.approx(r2_score(y, predicted), abs=1e-8)
        assert score.correlation == pytest.approx(np.corrcoef(y, predicted)[0, 1], abs=1e-8)
        assert score.rmse == pytest.approx(np.sqrt(np.mean((y - predicted) ** 2)), abs=1e-8)
        assert score.alpha == np.quantile(score.alpha_folds, 0.5, method="lower")
        for fold, r2 in enumerate(score.r2_folds):
            rows = deal_folds(names, 4) == fold
            assert r2 == pytest.approx(r2_score(y[rows], predicted[rows]), abs=1e-8)
            r2_within = 1 - (missed[rows] @ missed[rows]) / (centred[rows] @ centred[rows])
            assert score.r2_within_folds[fold] == pytest.approx(r2_within, abs=1e-8)
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
    assert_same(result, without)


def test_where_target_or_features_do_not_vary_figures_are_undefined() -> None:
    names = works(40, 4)
    y = np.array([float(name[-1]) for name in names])
    result = probe_layers(noise(40, 1, 3), y, names)
    assert result.layers[0].r2_folds == (None,) * 4
    assert result.layers[0].r2_std is None
    result = probe_layers(np.ones((40, 1, 3)), noise(40), works(40, 4))
    assert result.layers[0].r2 <= 0
    assert np.isfinite(result.layers[0].rmse)


@pytest.mark.parametrize(
    ("n", "n_works", "target", "words"),
    [
        (MIN_ROWS - 1, 5, None, "at least 10 rows with this target, has 9"),
        (40, 2, None, "at least 3 works with this target, has 2"),
        (40, 5, np.full(40, 3.0), "3 in all 40 rows"),
        (40, 5, np.full(40, np.nan), "has 0"),
    ],
)
def test_a_hopeless_target_is_reported_not_raised(
    n: int, n_works: int, target: Floats | None, words: str
) -> None:
    y = noise(n) if target is None else target
    result = probe_layers(noise(n, 2, 3), y, works(n, n_works))
    assert words in (result.reason or "")
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


def in_blocks(n_works: int, rows_each: int) -> list[str]:
    return [f"work-{work}" for work in range(n_works) for _ in range(rows_each)]


def by_work(values: Floats, names: list[str]) -> Floats:
    """Centre values [n] per work."""
    of_work = np.unique(names, return_inverse=True)[1]
    return np.asarray(values - (np.bincount(of_work, values) / np.bincount(of_work))[of_work])


def test_a_leak_of_the_work_has_r2_but_none_within_and_says_so() -> None:
    n_works, rows_each = 40, 10
    names = in_blocks(n_works, rows_each)
    means = np.repeat(noise(n_works), rows_each)
    features = noise(400, 3, 8, seed=1)
    features[:, 1, 0] = means
    y = means + 0.5 * noise(400, seed=2)
    result = probe_layers(features, y, names)
    leaky = result.layers[1]
    assert leaky.r2 > 0.7
    assert leaky.r2_within == pytest.approx(0, abs=0.05)
    assert leaky.p == 1 / 200
    assert (leaky.p_within or 0) > 0.05
    assert (result.primary, result.best_by_r2) == ("r2_within", 1)
    assert "not its differences within works" in (result.caution or "")


def test_one_row_per_work_has_no_r2_within() -> None:
    features, y = planted(share=0.8)
    result = probe_layers(features, y, [f"work-{row}" for row in range(200)])
    assert result.primary == "r2"
    assert (result.best_layer, result.best_by_r2, result.best_by_r2_within) == (3, 3, None)
    best = result.layers[3]
    assert best.r2 > 0.7
    assert (best.r2_within, best.interval_within, best.p_within) == (None, None, None)
    assert best.r2_within_folds == (None,) * 5
    assert result.p == 1 / 200
    assert "none has two different values" in (result.caution or "")


def test_several_columns_share_the_penalty_and_average_their_r2() -> None:
    n = 90
    names = works(n, 9)
    features = noise(n, 1, 8)
    Y = features[:, 0] @ noise(8, 3, seed=1) + noise(n, 3, seed=2) * [0.5, 3, 9]
    scaled = Y * [1, 1e3, 1e-3] + 7
    three = probe_layers(features, scaled, names, alphas=(10.0,), n_folds=4)
    each = [
        probe_layers(features, column, names, alphas=(10.0,), n_folds=4).layers[0] for column in Y.T
    ]
    score = three.layers[0]
    for figure in ("r2", "r2_within", "correlation"):
        mean = np.mean([getattr(one, figure) for one in each])
        assert getattr(score, figure) == pytest.approx(mean, abs=1e-10)
    errors = [one.rmse / column.std() for one, column in zip(each, Y.T, strict=True)]
    assert score.rmse == pytest.approx(np.sqrt(np.mean(np.square(errors))), abs=1e-10)
    constant = np.column_stack([Y, np.full(n, 0.3)])
    assert_same(
        probe_layers(features, constant, names, n_folds=4),
        probe_layers(features, Y, names, n_folds=4),
    )


def test_the_mixture_stacks_what_the_training_folds_say() -> None:
    n, alpha = 120, 10.0
    names = works(n, 12)
    features = noise(n, 3, 6)
    y = features[:, 0] @ noise(6, seed=1) + features[:, 2] @ noise(6, seed=3) + noise(n, seed=2)
    folds = deal_folds(names, 4)
    result = probe_layers(features, y, names, alphas=(alpha,), n_folds=4)

    def fit(layer: int, training: npt.NDArray[np.bool_], test: npt.NDArray[np.bool_]) -> Floats:
        model = make_pipeline(StandardScaler(), Ridge(alpha=alpha))
        model.fit(features[training, layer], y[training])
        return np.asarray(model.predict(features[test, layer]) - y[training].mean())

    predicted, parts = np.empty(n), []
    for outer in range(4):
        rows, truth = [], []
        for inner in {0, 1, 2, 3} - {outer}:
            training, test = (folds != outer) & (folds != inner), folds == inner
            rows.append(np.column_stack([fit(layer, training, test) for layer in range(3)]))
            truth.append(y[test] - y[training].mean())
        weights = nnls(np.concatenate(rows), np.concatenate(truth))[0]
        parts.append(weights * np.concatenate(rows).std(axis=0) / y.std())
        training, test = folds != outer, folds == outer
        tested = np.column_stack([fit(layer, training, test) for layer in range(3)])
        predicted[test] = y[training].mean() + tested @ weights
    assert result.mixture is not None
    assert result.mixture.r2 == pytest.approx(r2_score(y, predicted), abs=1e-8)
    np.testing.assert_allclose(result.mixture.weights, np.mean(parts, axis=0), atol=1e-8)
    assert result.mixture.r2 > max(score.r2 for score in result.layers) + 0.2
    assert result.mixture.interval is not None
    assert result.mixture.interval[0] < result.mixture.r2 < result.mixture.interval[1]


def test_the_layer_is_chosen_by_what_it_knows_within_works() -> None:
    """Layer 0 knows the works' means, layer 1 a part of how they are played."""
    names = in_blocks(30, 10)
    means = np.repeat(3 * noise(30), 10)
    features = noise(300, 2, 4, seed=1)
    features[:, 0, 0] = means
    y = means + features[:, 1, 0] + 0.3 * noise(300, seed=2)
    result = probe_layers(features, y, names)
    assert (result.best_by_r2, result.best_by_r2_within, result.best_layer) == (0, 1, 1)
    assert result.nested_layers == (1,) * 5
    assert result.r2_within_nested == pytest.approx(result.best_r2_within)
    assert result.best_layers == (1,)
    assert result.mixture is not None
    assert result.mixture.r2 > result.layers[0].r2


def test_what_any_other_work_would_give_as_well_is_not_selective() -> None:
    """All works are played in the same arc, and features know the place in the work."""
    names = in_blocks(20, 10)
    arc = np.tile(np.linspace(-1, 1, 10), 20)
    features = noise(200, 1, 3)
    features[:, 0, 0] = arc
    result = probe_layers(features, arc + 0.3 * noise(200, seed=1), names)
    assert result.layers[0].r2 > 0.7
    assert result.layers[0].selectivity == pytest.approx(0, abs=0.05)
    assert (result.p or 0) > 0.01


def test_recordings_are_counted_and_without_permutations_there_is_no_p() -> None:
    features, y = planted(n=120, share=0.5)
    names = in_blocks(10, 12)
    recordings = [f"{name}-{row % 3}" for row, name in enumerate(names)]
    y[:5] = np.nan
    folds = deal_folds(names, 5)
    given: Any = {"name": "y", "recordings": recordings, "n_permutations": 0}
    result = probe(features.swapaxes(0, 1), y, names, folds, **given)
    assert (result.n_recordings, result.p) == (30, None)
    score = result.layers[0]
    assert (score.p, score.p_within, score.selectivity) == (None, None, None)
    assert probe_layers(features, y, names).n_recordings is None


def test_what_does_not_belong_together_is_refused() -> None:
    features, y = planted(n=60)
    layers, names = features.swapaxes(0, 1), works(60, 6)
    folds = deal_folds(names, 3)
    others = decompose_folds(layers[0], plan_rows(names, folds, np.arange(60) > 0))
    with pytest.raises(ProbingError, match="other rows"):
        probe(layers, y, names, folds, name="y", decompositions=lambda *_: others)
    with pytest.raises(ProbingError, match="several folds"):
        probe(layers, y, names, np.arange(60) % 5, name="y")
    with pytest.raises(ProbingError, match="at least 1"):
        probe(layers, y, names, folds, name="y", n_resamples=0)
    with pytest.raises(ProbingError, match="expected \\[60, dims\\]"):
        probe(layers[:, 1:], y, names, folds, name="y")
    assert probe(layers, y, names, folds % 2, name="y").reason is not None


def test_what_is_lost_in_each_work_sums_to_what_the_nested_choice_lacks() -> None:
    rng = np.random.default_rng(8)
    works = [f"w{row % 7}" for row in range(140)]
    X = rng.normal(size=(140, 2, 6))
    Y = X[:, 1, :2] + rng.normal(size=(140, 2))
    result = probe_layers(X, Y, works, name="t")
    assert result.works == tuple(sorted(set(works)))
    assert result.r2_within_nested is not None
    assert sum(result.loss) == pytest.approx(1 - result.r2_within_nested)
    # Where no work has two values, of the pooled R2.
    single = probe_layers(X[:20], Y[:20, 0], [f"w{row}" for row in range(20)], name="t")
    assert single.r2_nested is not None
    assert sum(single.loss) == pytest.approx(1 - single.r2_nested)


def test_distances_follow_the_true_ones_as_spearman_says() -> None:
    rng = np.random.default_rng(9)
    numbers = np.arange(60) % 4
    Y = rng.normal(size=(60, 2))
    predicted = Y + rng.normal(size=(60, 2))
    rows = plan_rows([f"w{n}" for n in numbers], numbers % 3)
    expected = []
    for work in range(4):
        its = numbers == work
        expected.append(spearmanr(pdist(Y[its]), pdist(predicted[its])).statistic)
    found = _followed(Y, np.stack([predicted, np.zeros_like(Y), 3 * Y]), rows)
    assert found == pytest.approx([np.mean(expected), 0, 1])
    alone = plan_rows([f"w{n}" for n in range(60)], numbers)
    assert _followed(Y, predicted[np.newaxis], alone) == [None]
