"""LEACE: what it erases is gone, what it leaves is untouched, and the change is the smallest."""

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.linear_model import LinearRegression, Ridge

from mess_core.errors import ProbingError
from mess_core.probing.erasure import fit_eraser

pytestmark = pytest.mark.unit

Floats = npt.NDArray[np.float64]


def mixed(n: int = 400, dims: int = 12, seed: int = 0) -> tuple[Floats, Floats]:
    """Correlated features with offsets and unequal scales, and a concept of two numbers in them."""
    rng = np.random.default_rng(seed)
    latent = rng.normal(size=(n, dims))
    X = latent @ rng.normal(size=(dims, dims)) * np.geomspace(0.1, 30, dims) + rng.normal(size=dims)
    return X, latent[:, :2] @ rng.normal(size=(2, 2)) + 0.5 * rng.normal(size=(n, 2))


def covariance(X: Floats, Z: Floats) -> Floats:
    """Correlations of every column with every column of the concept."""
    centred = X - X.mean(axis=0)
    concept = (Z - Z.mean(axis=0)).reshape(len(Z), -1)
    scale = np.outer(np.linalg.norm(centred, axis=0), np.linalg.norm(concept, axis=0))
    return np.asarray(centred.T @ concept / scale)


def leace_matrix(X: Floats, Z: Floats) -> Floats:
    """The projection of the paper's theorem 4.2, written as it stands there."""
    S = np.cov(X.T, bias=True)
    C = (X - X.mean(axis=0)).T @ (Z - Z.mean(axis=0)) / len(X)
    values, vectors = np.linalg.eigh(S)
    W = vectors @ np.diag(values**-0.5) @ vectors.T
    P = (W @ C) @ np.linalg.pinv(W @ C)
    return np.asarray(np.eye(X.shape[1]) - np.linalg.inv(W) @ P @ W)


def test_a_case_done_by_hand() -> None:
    # Columns [1, -1, 1, -1] and [1, -1, 0, 0] around their means, S = [[1, 1/2], [1/2, 1/2]]. With
    # z = the first column C = [1, 1/2], so S^-1 C = [1, 0] is read, and x0 * [1, 1/2] goes away.
    X = np.array([[4.0, 6.0], [2.0, 4.0], [4.0, 5.0], [2.0, 5.0]])
    erased = fit_eraser(X, X[:, 0]).erase(X)
    np.testing.assert_allclose(erased, [[3.0, 5.5], [3.0, 4.5], [3.0, 4.5], [3.0, 5.5]], atol=1e-12)


def test_it_is_the_projection_of_the_paper() -> None:
    X, Z = mixed()
    eraser = fit_eraser(X, Z)
    rest = np.eye(12) - eraser.write @ eraser.read.T
    np.testing.assert_allclose(rest, leace_matrix(X, Z), atol=1e-8)
    np.testing.assert_allclose(rest @ rest, rest, atol=1e-9)


@pytest.mark.parametrize("penalty", [0.0, 1.0, 1e4])
@pytest.mark.parametrize("shape", [(400, 12), (30, 80)], ids=["tall", "wide"])
def test_no_linear_probe_predicts_the_concept_on_training_rows(
    shape: tuple[int, int], penalty: float
) -> None:
    X, Z = mixed(*shape)
    erased = fit_eraser(X, Z, penalty=penalty).erase(X)
    assert np.abs(covariance(X, Z)).max() > 0.1
    assert np.abs((erased - erased.mean(axis=0)).T @ (Z - Z.mean(axis=0))).max() < 1e-8 * len(X)
    # Wide features interpolate anything without a penalty, so the probe there is ridge.
    assert abs(Ridge(1.0).fit(erased, Z).score(erased, Z)) < 1e-8


def test_least_squares_finds_nothing_even_without_a_penalty() -> None:
    X, Z = mixed()
    erased = fit_eraser(X, Z).erase(X)
    kept = np.linalg.svd(erased - erased.mean(axis=0), full_matrices=False)
    coordinates = kept.U[:, :10]
    assert LinearRegression().fit(X, Z).score(X, Z) > 0.4
    assert LinearRegression().fit(coordinates, Z).score(coordinates, Z) < 1e-8


def test_no_other_erasing_projection_changes_the_features_less() -> None:
    X, Z = mixed()
    centred, concept = X - X.mean(axis=0), Z - Z.mean(axis=0)
    C = centred.T @ concept
    least = np.square(fit_eraser(X, Z).erase(X) - X).sum()
    rng = np.random.default_rng(1)
    precision = np.linalg.inv(centred.T @ centred)
    for spread in [1e-3, 1e-2, 0.1, 1.0] * 10:
        # Any reader R with R'C = 1 erases: (I - C R') C = 0. LEACE's is S^-1 C, normalised.
        reader = precision @ C + spread * np.abs(precision @ C).max() * rng.normal(size=C.shape)
        change = centred @ reader @ np.linalg.inv(C.T @ reader) @ C.T
        assert np.abs((centred - change).T @ concept).max() < 1e-6
        assert np.square(change).sum() > least


def test_what_is_uncorrelated_with_the_concept_stays() -> None:
    X, Z = mixed()
    eraser = fit_eraser(X, Z)
    kept = X @ eraser.read @ np.linalg.pinv(eraser.read)
    outside = X - kept
    moved = fit_eraser(X, Z).erase(outside) - outside
    np.testing.assert_allclose(moved, np.broadcast_to(moved[0], moved.shape), atol=1e-9)


def test_units_offsets_and_collinear_columns_of_the_concept_do_not_matter() -> None:
    X, Z = mixed()
    expected = fit_eraser(X, Z).erase(X)
    doubled = np.column_stack([Z * [1e6, 1e-6] + 7, Z[:, 0] - Z[:, 1], np.full(len(Z), 0.1)])
    eraser = fit_eraser(X, doubled)
    assert eraser.read.shape == (12, 2)
    np.testing.assert_allclose(eraser.erase(X), expected, atol=1e-6)


def test_what_does_not_vary_or_is_already_gone_erases_nothing() -> None:
    X, Z = mixed()
    assert fit_eraser(X, np.full(len(X), 0.1)).read.shape == (12, 0)
    erased = fit_eraser(X, Z).erase(X)
    assert fit_eraser(erased, Z).read.shape[1] == 0
    np.testing.assert_array_equal(
        fit_eraser(np.ones((5, 3)), np.arange(5.0)).erase(X[:5, :3]), X[:5, :3]
    )


def test_shrinking_changes_unseen_rows_less_where_rows_are_as_few_as_columns() -> None:
    rng = np.random.default_rng(2)
    X = rng.normal(size=(1050, 45)) * np.geomspace(1, 0.03, 45)
    Z = X[:, 0] + 0.3 * rng.normal(size=1050)
    few, others = slice(0, 50), slice(50, None)

    def change(penalty: float) -> float:
        erased = fit_eraser(X[few], Z[few], penalty=penalty).erase(X[others])
        return float(np.square(erased - X[others]).sum())

    assert change(1.0) < 0.8 * change(0.0)


def test_bad_input_is_refused() -> None:
    X, Z = mixed()
    with pytest.raises(ProbingError, match="same number"):
        fit_eraser(X[:-1], Z)
    with pytest.raises(ProbingError, match="finite"):
        fit_eraser(X, np.where(Z > 1, np.nan, Z))
    with pytest.raises(ProbingError, match="0 or more"):
        fit_eraser(X, Z, penalty=-1.0)
