"""Separability: planted relations get the right verdict, and the closed form is the long way."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score

from mess_core.probing.decompositions import FoldDecompositions, decompose_folds
from mess_core.probing.folds import ProbeRows, deal_folds
from mess_core.probing.separability import (
    AspectProbe,
    principal_angles,
    separate_aspects,
    undefined_pairs,
    unit_columns,
    whitened_projection,
)

pytestmark = pytest.mark.unit

Floats = npt.NDArray[np.float64]

N, DIMS = 600, 20
WORKS = [f"work{row % 15:02d}" for row in range(N)]
FOLDS = deal_folds(WORKS, 5)


def latents(seed: int, n: int = N) -> Floats:
    return np.random.default_rng(seed).normal(size=(n, 6))


def features(*encoded: Floats, dims: int = DIMS, noise: float = 0.3, seed: int = 9) -> Floats:
    """Features that hold each of some numbers along a direction of its own, and noise."""
    rng = np.random.default_rng(seed)
    n = len(encoded[0])
    directions = np.linalg.qr(rng.normal(size=(dims, dims)))[0][: len(encoded)]
    return np.asarray(
        np.column_stack(encoded) @ directions + noise * rng.normal(size=(n, dims)) + 5.0
    )


def aspect(name: str, targets: Floats, *, penalty: float = 1.0, layer: int = 0) -> AspectProbe:
    return AspectProbe(name, layer, targets, [penalty] * 3)


def separate(X: Floats, A: Floats, B: Floats, **settings: Any) -> dict[str, Any]:
    first, second = separate_aspects(
        lambda _: X, [aspect("a", A), aspect("b", B)], WORKS, FOLDS, **settings
    )
    assert (first["aspect"], first["erased"]) == (second["erased"], second["aspect"]) == ("a", "b")
    return first


def test_aspects_along_directions_of_their_own_are_separable() -> None:
    a, b, *_ = latents(0).T
    pair = separate(features(a, b), a, b)
    assert (pair["verdict"], pair["judged_on"]) == ("separable", "r2_within")
    assert pair["r2_within"] > 0.8
    assert pair["retained"] > 0.97
    assert pair["shared"] < 0.02
    assert pair["angle"] > 80
    assert abs(pair["correlation"]) < 0.1
    assert (pair["n_rows"], pair["n_works"], pair["reason"]) == (N, 15, None)


def test_aspects_along_one_direction_are_entangled_and_what_no_layer_knows_is_not() -> None:
    a, b, *_ = latents(0).T
    pair = separate(features(a + b), a, b)
    assert pair["verdict"] == "entangled"
    assert 0.3 < pair["r2_within"] < 0.6
    assert pair["retained"] < 0.2
    assert pair["shared"] < 0.02
    assert pair["angle"] < 40
    unknown = separate(features(b), a, b)
    assert unknown["verdict"] == "not encoded"
    assert unknown["r2_within"] < 0.01


def test_aspects_that_go_together_in_the_music_are_correlated() -> None:
    a, other, *_ = latents(0).T
    b = 0.9 * a + np.sqrt(1 - 0.81) * other
    pair = separate(features(a, other), a, b)
    assert pair["verdict"] == "correlated"
    assert pair["retained"] == pytest.approx(1 - 0.81, abs=0.06)
    assert pair["shared"] == pytest.approx(0.81, abs=0.03)
    assert pair["correlation"] == pytest.approx(0.9, abs=0.02)
    assert pair["rank_correlation"] == pytest.approx(0.89, abs=0.03)


def test_a_relation_between_works_is_none_within_them() -> None:
    a, b, *_ = latents(0).T
    piece = 3 * np.random.default_rng(3).normal(size=15)[np.arange(N) % 15]
    pair = separate(features(a, b), a + piece, b + piece)
    assert abs(pair["correlation"]) < 0.1
    assert abs(pair["rank_correlation"]) < 0.1
    assert np.corrcoef(a + piece, b + piece)[0, 1] > 0.7


def erase(X: Floats, Z: Floats, training: Any = slice(None), *, penalty: float = 0.0) -> Floats:
    """Take a concept out of rows, as learned from some of them."""
    mean = X[training].mean(axis=0)
    _, values, basis = np.linalg.svd(X[training] - mean, full_matrices=False)
    varies = values > 1e-9 * values.max()
    values, basis = values[varies], basis[varies].T
    moments = basis.T @ ((X[training] - mean).T @ unit_columns(Z[training].reshape(-1, Z[0].size)))
    write, read = whitened_projection(values**2, moments, penalty)
    return np.asarray(X - ((X - mean) @ basis @ read) @ (basis @ write).T)


def mixed(n: int = 400, dims: int = 12) -> tuple[Floats, Floats]:
    """Correlated features with offsets and unequal scales, and a concept of two numbers in them."""
    rng = np.random.default_rng(0)
    latent = rng.normal(size=(n, dims))
    X = latent @ rng.normal(size=(dims, dims)) * np.geomspace(0.1, 30, dims) + rng.normal(size=dims)
    return X, latent[:, :2] @ rng.normal(size=(2, 2)) + 0.5 * rng.normal(size=(n, 2))


def test_erasure_is_the_projection_of_the_paper() -> None:
    X, Z = mixed()
    centred, concept = X - X.mean(axis=0), Z - Z.mean(axis=0)
    S, C = centred.T @ centred / len(X), centred.T @ concept / len(X)
    values, vectors = np.linalg.eigh(S)
    W = vectors @ np.diag(values**-0.5) @ vectors.T
    P = (W @ C) @ np.linalg.pinv(W @ C)
    expected = X - centred @ (np.linalg.inv(W) @ P @ W).T
    np.testing.assert_allclose(erase(X, Z), expected, atol=1e-7)
    # Units, offsets and collinear columns of the concept do not matter.
    doubled = np.column_stack([Z * [1e6, 1e-6] + 7, Z[:, 0] - Z[:, 1], np.full(len(Z), 0.1)])
    np.testing.assert_allclose(erase(X, doubled), expected, atol=1e-6)
    np.testing.assert_array_equal(erase(X, np.full(len(X), 0.1)), X)


@pytest.mark.parametrize("penalty", [0.0, 1.0, 1e4])
@pytest.mark.parametrize("shape", [(400, 12), (30, 80)], ids=["tall", "wide"])
def test_no_linear_probe_predicts_what_was_erased(shape: tuple[int, int], penalty: float) -> None:
    X, Z = mixed(*shape)
    erased = erase(X, Z, penalty=penalty)
    assert np.abs((erased - erased.mean(axis=0)).T @ (Z - Z.mean(axis=0))).max() < 1e-8 * len(X)
    assert Ridge(1.0).fit(X, Z).score(X, Z) > 0.4
    assert abs(Ridge(1.0).fit(erased, Z).score(erased, Z)) < 1e-8


def by_rows(X: Floats, A: Floats, B: Floats, penalties: Sequence[float]) -> tuple[Floats, Floats]:
    """Predict A before and after erasing B the long way: standardise, erase, fit, fold by fold."""
    before, after = np.empty_like(A), np.empty_like(A)
    for fold in range(5):
        out = FOLDS[: len(A)] == fold
        Z = (X - X[~out].mean(axis=0)) / X[~out].std(axis=0)
        erased = erase(Z, B, ~out, penalty=penalties[1])
        before[out] = Ridge(penalties[0]).fit(Z[~out], A[~out]).predict(Z[out])
        after[out] = Ridge(penalties[0]).fit(erased[~out], A[~out]).predict(erased[out])
    return before, after


def within(values: Floats) -> Floats:
    centred = values.copy()
    for work in set(WORKS):
        rows = np.array(WORKS[: len(values)]) == work
        centred[rows] -= centred[rows].mean(axis=0)
    return centred


@pytest.mark.parametrize(("n", "dims"), [(N, 20), (60, 80)], ids=["tall", "wide"])
def test_the_closed_form_is_the_long_way(n: int, dims: int) -> None:
    L = latents(1, n)
    X = features(*L.T, dims=dims)
    A, B = L[:, :2] + 0.2 * L[:, 2:4], L[:, 1:4] @ np.diag([1, 100, 0.01])
    aspects = [aspect("a", A, penalty=10.0), aspect("b", B, penalty=300.0)]
    pair, _ = separate_aspects(lambda _: X, aspects, WORKS[:n], FOLDS[:n])
    before, after = by_rows(X, A, B, [10.0, 300.0])
    assert pair["r2"] == pytest.approx(r2_score(A, before), abs=1e-8)
    assert pair["r2_erased"] == pytest.approx(r2_score(A, after), abs=1e-8)
    assert pair["r2_within"] == pytest.approx(r2_score(within(A), within(before)), abs=1e-8)
    assert pair["r2_within_erased"] == pytest.approx(r2_score(within(A), within(after)), abs=1e-8)
    assert pair["r2_within_erased"] < pair["r2_within"] - 0.1
    assert pair["retained_lo"] < pair["retained"] < pair["retained_hi"]
    assert pair["interval_lo"] < pair["r2_within"] < pair["interval_hi"]


def test_the_targets_relation_is_that_of_the_textbook() -> None:
    L = latents(4)
    A, B = L[:, 0] + L[:, 1], np.column_stack([L[:, 1], np.exp(L[:, 2])])
    pair = separate(features(*L.T), A, B)
    design = within(B)
    fitted = design @ np.linalg.lstsq(design, within(A), rcond=None)[0]
    assert pair["shared"] == pytest.approx(r2_score(within(A), fitted))
    assert pair["correlation"] == pytest.approx(np.corrcoef(within(A), within(B)[:, 0])[0, 1])


def test_rows_that_lack_a_target_are_left_out_of_its_pairs_alone() -> None:
    a, b, c, *_ = latents(5).T
    X = features(a, b, c)
    holed = np.where(np.arange(N) % 7 == 0, np.nan, c)
    calls: list[tuple[int, int]] = []

    def decompositions(layer: int, rows: ProbeRows) -> FoldDecompositions:
        calls.append((layer, rows.n_rows))
        return decompose_folds(X, rows, nested=False)

    aspects = [aspect("a", a), aspect("b", b), aspect("c", holed, layer=2)]
    pairs = separate_aspects(lambda _: X, aspects, WORKS, FOLDS, decompositions=decompositions)
    kept = int(np.isfinite(holed).sum())
    expected = ["ab", "ac", "ba", "bc", "ca", "cb"]
    assert [pair["aspect"] + pair["erased"] for pair in pairs] == expected
    assert [pair["n_rows"] for pair in pairs] == [N, kept, N, kept, kept, kept]
    # a with b, a with c, b with a, b with c, and c with both.
    assert calls == [(0, N), (0, kept), (0, N), (0, kept), (2, kept)]
    assert pairs == separate_aspects(lambda _: X, aspects, WORKS, FOLDS)
    assert pairs[0] == separate_aspects(lambda _: X, aspects[:2], WORKS, FOLDS)[0]


def test_a_target_that_is_the_same_throughout_each_work_is_judged_over_all_rows() -> None:
    piece = np.random.default_rng(7).normal(size=15)[np.arange(N) % 15]
    b = latents(7)[:, 0]
    pair = separate(features(piece, b), piece, b)
    assert (pair["judged_on"], pair["verdict"]) == ("r2", "separable")
    assert pair["r2_within"] is pair["r2_within_erased"] is None
    other = separate(features(piece, b), b, piece)
    assert (other["judged_on"], other["shared"]) == ("r2_within", 0)
    assert other["correlation"] is other["rank_correlation"] is None


@pytest.mark.parametrize(
    ("a", "reason"),
    [
        (np.full(N, 3.7), "a target of a does not vary"),
        (np.where(np.arange(N) < 9, np.arange(N), np.nan), "has 9 rows of 9 works"),
        (np.where(np.arange(N) % 15 < 2, np.arange(N), np.nan), "has 80 rows of 2 works"),
        (np.full(N, np.nan), "has 0 rows of 0 works"),
    ],
    ids=["constant", "rows", "works", "nothing"],
)
def test_too_little_is_undefined_and_says_why(a: Floats, reason: str) -> None:
    b = latents(8)[:, 0]
    pair = separate(features(b), a, b)
    assert pair["verdict"] == "undefined"
    assert reason in pair["reason"]
    assert pair["r2"] is pair["retained"] is None


def test_an_angle_is_of_the_folds_in_which_both_vary() -> None:
    tilted = np.array([[np.cos(0.5), 0], [np.sin(0.5), 0], [0, 2.0]])
    np.testing.assert_allclose(principal_angles(np.eye(3)[:, :1], tilted), [np.rad2deg(0.5)])
    a, b, *_ = latents(4).T
    alone = np.where(np.isin(WORKS, WORKS[:1]), b, 0.0)
    pair = separate(features(a, alone), a, alone)
    # The one fold in which all of it is held out leaves a probe that reads nothing.
    assert 0 <= pair["angle"] <= 90
    assert not principal_angles(np.zeros((4, 1)), np.ones((4, 1))).size


def test_without_pairs_every_aspect_says_why() -> None:
    aspects: dict[str, Any] = {
        "tempo": {"layer": 2, "reason": None},
        "rubato": {"layer": None, "reason": "needs works"},
    }
    rows = undefined_pairs(aspects)
    a, b, *_ = latents(0).T
    assert list(rows[0]) == list(separate(features(a, b), a, b))
    assert [row["reason"] for row in rows] == ["no other aspect has a layer", "needs works"]
