"""RankMe, within-work variance and CKA: known spectra, and the formulas written out."""

import numpy as np
import numpy.typing as npt
import pytest

from mess_core.errors import ProbingError
from mess_core.probing.questions import layer_geometry, linear_cka, rankme

pytestmark = pytest.mark.unit

Floats = npt.NDArray[np.float64]

RNG = np.random.default_rng(0)


def with_singular_values(values: list[float], n: int = 40, dims: int = 12) -> Floats:
    left = np.linalg.qr(RNG.normal(size=(n, len(values))))[0]
    right = np.linalg.qr(RNG.normal(size=(dims, len(values))))[0]
    return np.asarray(left * values @ right.T)


@pytest.mark.parametrize("shape", [(40, 12), (12, 40)], ids=["tall", "wide"])
def test_the_effective_rank_of_known_spectra(shape: tuple[int, int]) -> None:
    assert rankme(with_singular_values([3.0] * 5, *shape)) == pytest.approx(5, abs=1e-3)
    assert rankme(with_singular_values([7.0], *shape)) == pytest.approx(1, abs=1e-3)
    # Shares 1/2, 1/4, 1/4 have the entropy 1.5 bit.
    assert rankme(with_singular_values([2.0, 1, 1], *shape)) == pytest.approx(2**1.5, abs=1e-3)


def test_the_effective_rank_is_the_formula_of_the_paper() -> None:
    X = RNG.normal(size=(50, 20)) @ RNG.normal(size=(20, 20)) + 3.0
    share = np.linalg.svd(X, compute_uv=False)
    share = share / share.sum() + 1e-7
    assert rankme(X) == pytest.approx(np.exp(-(share * np.log(share)).sum()), rel=1e-9)
    assert rankme(5 * X) == pytest.approx(rankme(X))
    assert np.isnan(rankme(np.zeros((5, 3))))


def test_variance_within_works_is_that_of_the_textbook() -> None:
    works = ["b", "a", "b", "a", "c"]
    X = np.array([[1.0, 0], [5, 2], [3, 0], [7, 2], [4, 7]])
    # Within: b 1 + 1 and a 1 + 1 in the first column, nothing in the second; total around the
    # means 4 and 2.2: 20 and 32.8.
    described = layer_geometry(X, works)
    assert described["within_work"] == pytest.approx(4 / 52.8)
    assert described["within_work_standardised"] == pytest.approx((4 / 20 + 0) / 2)
    assert described["within_work_chance"] == pytest.approx((5 - 3) / 4)


def test_variance_within_works_at_its_ends_and_at_chance() -> None:
    works = [f"{row % 50}" for row in range(500)]
    of_work = RNG.normal(size=(50, 8))[np.arange(500) % 50]
    assert layer_geometry(of_work, works)["within_work"] == pytest.approx(0, abs=1e-12)
    balanced = np.repeat([1.0, -1.0], 250)[:, np.newaxis] * np.ones((1, 8))
    assert layer_geometry(balanced, works)["within_work"] == pytest.approx(1)
    unrelated = layer_geometry(RNG.normal(size=(500, 400)), works)
    assert unrelated["within_work"] == pytest.approx(unrelated["within_work_chance"], abs=0.01)


def hsic(K: Floats, L: Floats) -> float:
    """Song et al. 2012, equation 5, as it stands there."""
    n, one = len(K), np.ones(len(K))
    K, L = K - np.diag(np.diag(K)), L - np.diag(np.diag(L))
    first = np.trace(K @ L)
    second = (one @ K @ one) * (one @ L @ one) / ((n - 1) * (n - 2))
    return float((first + second - 2 / (n - 2) * (one @ K @ L @ one)) / (n * (n - 3)))


def test_cka_is_the_published_formula() -> None:
    X, noise = RNG.normal(size=(30, 9)) + 4.0, RNG.normal(size=(30, 14))
    Y = X @ RNG.normal(size=(9, 14)) + noise - 2.0
    K, L = X @ X.T, Y @ Y.T
    expected = hsic(K, L) / np.sqrt(hsic(K, K) * hsic(L, L))
    assert linear_cka(X, Y) == pytest.approx(expected, rel=1e-9)


def test_cka_ignores_rotation_offset_and_scale_but_not_content() -> None:
    X = RNG.normal(size=(60, 10)) * np.geomspace(1, 5, 10)
    rotation = np.linalg.qr(RNG.normal(size=(10, 10)))[0]
    assert linear_cka(X, 1e-4 * X @ rotation + 1) == pytest.approx(1)
    assert (linear_cka(X, np.column_stack([X[:, 9], RNG.normal(size=(60, 9))])) or 1) < 0.9


def test_the_unbiased_estimate_does_not_find_likeness_in_few_rows() -> None:
    X, Y = RNG.normal(size=(30, 700)), RNG.normal(size=(30, 700))
    assert linear_cka(X, Y) == pytest.approx(0, abs=0.1)


def test_a_layer_is_described_whole() -> None:
    X = (RNG.normal(size=(90, 16)) + 50).astype(np.float32)
    described = layer_geometry(X, ["a", "b", "c"] * 30, {"itself": X, "constant": np.ones((90, 2))})
    assert [described[name] for name in ("n_rows", "n_works", "n_dims")] == [90, 3, 16]
    assert described["rankme"] < 3 < 14 < described["rankme_centred"]
    assert described["cka_itself"] == pytest.approx(1)
    assert described["cka_constant"] is None


def test_features_that_do_not_vary_have_collapsed() -> None:
    X = np.full((20, 6), 0.1, np.float32)
    described = layer_geometry(X, ["a", "b"] * 10, {"other": RNG.normal(size=(20, 3))})
    assert described["rankme"] == pytest.approx(1, abs=1e-3)
    undefined = "rankme_centred", "within_work", "within_work_standardised", "cka_other"
    assert [described[name] for name in undefined] == [None] * 4


def test_few_rows_are_described_and_bad_ones_refused() -> None:
    X = RNG.normal(size=(10, 3))
    few = layer_geometry(X[:3], ["a"] * 3, {"other": X[3:6]})
    assert (few["cka_other"], few["within_work"]) == (None, pytest.approx(1))
    with pytest.raises(ProbingError, match="same rows"):
        linear_cka(X, X[:-1])
    with pytest.raises(ProbingError, match="must be finite"):
        layer_geometry(np.where(X > 1, np.nan, X), ["a"] * 10)
