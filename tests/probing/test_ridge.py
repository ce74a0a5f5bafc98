"""The closed form against scikit-learn's pipeline."""

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mess_core.probing.decompositions import ALPHAS, decompose

pytestmark = pytest.mark.unit

Floats = npt.NDArray[np.float64]


def rows(n: int, dims: int, seed: int = 0) -> Floats:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, dims)) * rng.uniform(0.01, 100, dims) + rng.normal(size=dims)


def predict(X: Floats, y: Floats, unseen: Floats) -> Floats:
    training = decompose(X)
    moment = training.standardise(X).T @ (y - y.mean())
    slopes = training.solve(moment[:, np.newaxis], ALPHAS)[:, :, 0]
    return np.asarray(y.mean() + training.standardise(unseen) @ slopes)


@pytest.mark.parametrize(("n", "dims"), [(60, 8), (12, 40), (20, 20), (2, 5)])
def test_equals_scikit_learn_for_every_penalty(n: int, dims: int) -> None:
    X, unseen = rows(n, dims), rows(7, dims, seed=1)
    y = np.random.default_rng(2).normal(5, 3, n)
    predicted = predict(X, y, unseen)
    for column, alpha in enumerate(ALPHAS):
        pipeline = make_pipeline(StandardScaler(), Ridge(alpha=alpha)).fit(X, y)
        np.testing.assert_allclose(
            predicted[:, column], pipeline.predict(unseen), rtol=1e-8, atol=1e-8
        )


def test_constant_columns_say_nothing_even_where_unseen_rows_differ() -> None:
    X, unseen = rows(30, 5), rows(4, 5, seed=1)
    y = X[:, 0] * 3 + 1
    constant = np.hstack([X, np.full((30, 1), 0.1), np.zeros((30, 1))])
    wild = np.hstack([unseen, np.full((4, 2), 1e6)])
    np.testing.assert_allclose(predict(constant, y, wild), predict(X, y, unseen), rtol=1e-8)


def test_a_column_that_only_rounding_moves_is_constant() -> None:
    column = np.full(40, 7.0, np.float32)
    column[::2] = np.nextafter(np.float32(7), np.float32(8))
    assert decompose(column.astype(np.float64)[:, np.newaxis]).scale[0] == 1


def test_rows_that_are_all_equal_predict_the_mean() -> None:
    X, y = np.ones((6, 3)), np.arange(6.0)
    np.testing.assert_array_equal(predict(X, y, rows(2, 3)), np.full((2, len(ALPHAS)), 2.5))
