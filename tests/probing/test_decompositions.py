"""Every training union against scikit-learn on its rows; the file against damage."""

from itertools import combinations
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mess_core.errors import ProbingError, StorageError
from mess_core.probing import decompositions as module
from mess_core.probing.decompositions import (
    FoldDecompositions,
    decompose,
    decompose_folds,
    union_moment,
)
from mess_core.probing.folds import ProbeRows, deal_folds, plan_rows

pytestmark = pytest.mark.unit

Floats = npt.NDArray[np.float64]

ALPHAS = (0.1, 10.0, 1000.0)


def made(n: int, dims: int, *, n_works: int = 9, missing: int = 0) -> tuple[Floats, ProbeRows]:
    """Correlated columns of very different scales and means, in works of unequal lengths."""
    rng = np.random.default_rng(n + dims)
    X = rng.normal(size=(n, dims)) @ rng.normal(size=(dims, dims)) * rng.uniform(0.01, 100, dims)
    X += 50 * rng.normal(size=dims)
    works = [f"w{int(n_works * (row / n) ** 2)}" for row in range(n)]
    present = np.ones(n, bool)
    present[rng.choice(n, missing, replace=False)] = False
    return X, plan_rows(works, deal_folds(works, 4), present)


def cross_moments(X: Floats, Y: Floats, rows: ProbeRows, means: Floats) -> Floats:
    deviations = X[rows.present] - means[rows.works]
    folds = range(rows.n_folds)
    return np.array([deviations[rows.folds == f].T @ Y[rows.folds == f] for f in folds])


def unions(rows: ProbeRows) -> list[tuple[int, ...]]:
    folds = range(rows.n_folds)
    return [*((i,) for i in folds), *combinations(folds, 2)]


@pytest.mark.parametrize(("n", "dims"), [(60, 8), (12, 40), (20, 20), (2, 5)])
def test_the_closed_form_equals_scikit_learn_for_every_penalty(n: int, dims: int) -> None:
    (X, _), y = made(n + 7, dims), np.random.default_rng(2).normal(5, 3, n)
    training, unseen = decompose(X[:n]), X[n:]
    moment = training.standardise(X[:n]).T @ (y - y.mean())
    slopes = training.solve(moment[:, np.newaxis], ALPHAS)[:, :, 0]
    predicted = y.mean() + training.standardise(unseen) @ slopes
    for column, alpha in enumerate(ALPHAS):
        pipeline = make_pipeline(StandardScaler(), Ridge(alpha=alpha)).fit(X[:n], y)
        np.testing.assert_allclose(predicted[:, column], pipeline.predict(unseen), atol=1e-8)


def test_a_column_that_only_rounding_moves_is_constant() -> None:
    column = np.full(40, 7.0, np.float32)
    column[::2] = np.nextafter(np.float32(7), np.float32(8))
    assert decompose(column.astype(np.float64)[:, np.newaxis]).scale[0] == 1


def test_rows_that_are_all_equal_predict_the_mean() -> None:
    assert decompose(np.ones((6, 3))).basis.shape == (3, 0)


@pytest.mark.parametrize(
    ("n", "dims", "missing"), [(200, 12, 0), (200, 12, 50), (60, 45, 0), (40, 90, 0), (45, 70, 6)]
)
def test_predictions_of_all_unions_equal_scikit_learn(n: int, dims: int, missing: int) -> None:
    X, rows = made(n, dims, missing=missing)
    Y = np.random.default_rng(1).normal(5, 3, (rows.n_rows, 2))
    decompositions = decompose_folds(X, rows)
    means = decompositions.work_means
    cross = cross_moments(X, Y, rows, means)
    target_means = rows.sum_by_work(Y) / rows.work_sizes[:, np.newaxis]
    for out in unions(rows):
        training = decompositions.training(*out)
        moment, mean = union_moment(cross, target_means, rows, means, training, out)
        solved = training.solve(moment, ALPHAS)
        kept = ~np.isin(rows.folds, out)
        fitted, held_out = X[rows.present][kept], X[rows.present][~kept]
        for column, alpha in enumerate(ALPHAS):
            predicted = mean + training.standardise(held_out) @ solved[:, column]
            pipeline = make_pipeline(StandardScaler(), Ridge(alpha=alpha)).fit(fitted, Y[kept])
            np.testing.assert_allclose(predicted, pipeline.predict(held_out), atol=1e-6)


def test_both_forms_are_used_where_folds_are_unequal(monkeypatch: pytest.MonkeyPatch) -> None:
    X, rows = made(120, 60)
    counted = Mock(wraps=decompose)
    monkeypatch.setattr(module, "decompose", counted)
    decompose_folds(X, rows)
    assert 0 < counted.call_count < len(unions(rows))
    assert all(len(call.args[0]) < 60 for call in counted.call_args_list)


def test_blocks_and_float32_change_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    X, rows = made(200, 12, missing=30)
    X = X.astype(np.float32).astype(np.float64)
    expected = decompose_folds(X, rows)
    np.save(tmp_path / "X.npy", X.astype(np.float32))
    monkeypatch.setattr(module, "_BLOCK", 7)
    found = decompose_folds(np.load(tmp_path / "X.npy", mmap_mode="r"), rows)
    for out in unions(rows):
        np.testing.assert_allclose(found.training(*out).values, expected.training(*out).values)
        np.testing.assert_allclose(found.training(*out).mean, expected.training(*out).mean)


@pytest.mark.parametrize("dims", [5, 300])
def test_a_fold_is_seen_in_the_basis_of_the_others(dims: int) -> None:
    X, rows = made(200, dims)
    decompositions = decompose_folds(X, rows)
    deviations = X - decompositions.work_means[rows.works]
    for fold in range(rows.n_folds):
        training = decompositions.training(fold)
        seen = (deviations[rows.folds == fold] / training.scale) @ training.basis
        scatter = decompositions.within_scatter(fold)
        np.testing.assert_allclose(scatter, seen.T @ seen, rtol=1e-4, atol=1e-4 * scatter.max())


@pytest.mark.parametrize("n", [200, 30])
def test_a_column_that_is_constant_in_training_says_nothing_about_the_test_fold(n: int) -> None:
    X, rows = made(n, 20)
    wild = np.where(rows.folds == 1, 1e6, 0.0)
    decompositions = decompose_folds(np.column_stack([X, wild, np.full(n, 0.1)]), rows)
    training = decompositions.training(1)
    assert training.scale[20:].tolist() == [1, 1]
    assert not training.basis[20:].any()
    assert decompositions.training(0).scale[20] > 1e5
    np.testing.assert_allclose(training.values, decompose_folds(X, rows).training(1).values)


def test_a_mean_that_dwarfs_the_spread_costs_no_digits() -> None:
    X, rows = made(200, 6)
    X = X / X.std(axis=0)
    shifted = (X + 1e6) - 1e6
    far, near = decompose_folds(shifted + 1e6, rows), decompose_folds(shifted, rows)
    for out in unions(rows):
        np.testing.assert_allclose(far.training(*out).values, near.training(*out).values, rtol=1e-8)


def test_a_file_gives_back_what_was_saved(tmp_path: Path) -> None:
    X, rows = made(200, 12)
    decompositions = decompose_folds(X, rows)
    path = tmp_path / "deep" / "layer-03.npz"
    decompositions.save(path)
    loaded = FoldDecompositions.load(path)
    assert loaded.digest == rows.digest
    np.testing.assert_array_equal(loaded.work_means, decompositions.work_means)
    for out in unions(rows):
        for part in ("mean", "scale", "basis", "values"):
            expected = getattr(decompositions.training(*out), part)
            np.testing.assert_array_equal(getattr(loaded.training(*out), part), expected)
    for fold in range(rows.n_folds):
        np.testing.assert_array_equal(
            loaded.within_scatter(fold), decompositions.within_scatter(fold)
        )
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    path = tmp_path / "layer.npz"
    with pytest.raises(StorageError, match=r"layer\.npz cannot be read"):
        FoldDecompositions.load(path)
    X, rows = made(200, 12)
    decompose_folds(X, rows).save(path)
    whole = path.read_bytes()
    other = tmp_path / "other.npz"
    np.savez(other, something=np.ones(3))
    array = tmp_path / "array.npy"
    np.save(array, np.ones(3))
    for content in (whole[:-100], b"", b"not an archive", other.read_bytes(), array.read_bytes()):
        path.write_bytes(content)
        with pytest.raises(StorageError, match=r"layer\.npz cannot be read"):
            FoldDecompositions.load(path)


def test_damage_inside_is_noticed_when_it_is_read(tmp_path: Path) -> None:
    X, rows = made(200, 12)
    decompositions = decompose_folds(X, rows)
    path = tmp_path / "layer.npz"
    decompositions.save(path)
    content = bytearray(path.read_bytes())
    position = content.index(decompositions.training(1, 2).basis.tobytes(order="A"))
    content[position + 50] ^= 1
    path.write_bytes(content)
    loaded = FoldDecompositions.load(path)
    loaded.training(1, 3)
    with pytest.raises(StorageError, match=r"layer\.npz cannot be read"):
        loaded.training(1, 2)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda X: X[:-1], "expected \\[60, dims\\]"),
        (lambda X: X[:, 0], "expected \\[60, dims\\]"),
        (lambda X: X[:, :0], "expected \\[60, dims\\]"),
        (lambda X: np.where(np.arange(60)[:, np.newaxis] == 41, np.nan, X), "row 41 "),
    ],
)
def test_features_that_cannot_be_used_are_refused(spoil: Any, words: str) -> None:
    X, rows = made(60, 4)
    with pytest.raises(ProbingError, match=words):
        decompose_folds(spoil(X), rows)


def test_absent_rows_may_hold_anything() -> None:
    X, rows = made(60, 4, missing=10)
    X[~rows.present] = np.nan
    assert np.isfinite(decompose_folds(X, rows).work_means).all()
