"""Warping against the plain recurrence, and chains through planted cuts and repeats."""

import numpy as np
import pytest

from mess_core.alignment.warping import ASIDE, band_around, chain, warp

pytestmark = pytest.mark.unit


def cost_of(a: np.ndarray, b: np.ndarray, path: np.ndarray) -> float:
    """Return what a path costs."""
    costs = np.square(a[path[:, 0]] - b[path[:, 1]]).sum(1)
    both = np.append(True, (np.diff(path, axis=0) == 1).all(axis=1))
    return float((costs * np.where(both, 1.0, ASIDE)).sum())


def least_cost(a: np.ndarray, b: np.ndarray) -> float:
    """Return the cost of the cheapest path, cell by cell."""
    costs = np.square(a[:, None] - b).sum(2)
    total = np.full(costs.shape, np.inf)
    for i, j in np.ndindex(costs.shape):
        if i == j == 0:
            total[i, j] = costs[i, j]
            continue
        diagonal = total[i - 1, j - 1] + costs[i, j] if i and j else np.inf
        above = total[i - 1, j] if i else np.inf
        beside = total[i, j - 1] if j else np.inf
        total[i, j] = min(diagonal, min(above, beside) + ASIDE * costs[i, j])
    return float(total[-1, -1])


@pytest.mark.parametrize("sizes", [(1, 1), (1, 7), (7, 1), (40, 60), (70, 50)])
def test_a_path_is_the_cheapest_there_is(sizes: tuple[int, int]) -> None:
    rng = np.random.default_rng(sizes[0])
    a, b = (rng.normal(size=(n, 3)).astype(np.float32) for n in sizes)
    n, m = sizes
    path = warp(a, b, np.zeros(n, np.int64), np.full(n, m))
    assert path[0].tolist() == [0, 0]
    assert path[-1].tolist() == [n - 1, m - 1]
    assert set(map(tuple, np.diff(path, axis=0).tolist())) <= {(1, 1), (1, 0), (0, 1)}
    assert cost_of(a, b, path) == pytest.approx(least_cost(a, b), rel=1e-5)


def test_a_band_is_kept_to_and_leads_from_corner_to_corner() -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=(n, 2)).astype(np.float32) for n in (80, 200))
    # A path that stands still and then leaps.
    first, stop = band_around(
        np.array([0.0, 40, 41, 79]), np.array([0.0, 10, 190, 199]), 80, 200, 3
    )
    path = warp(a, b, first, stop)
    assert path[[0, -1]].tolist() == [[0, 0], [79, 199]]
    rows, columns = path.T
    assert (columns >= first[rows]).all()
    assert (columns < stop[rows]).all()


def similar(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.asarray(a @ b.T, np.float32)


def moments(n: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(n, 60))
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def test_a_chain_leaves_out_a_repeat_and_a_cut_and_warps_neither() -> None:
    music = moments(200, 1)
    # Plays 40 to 79 twice, leaves out 120 to 159, and ends with something else.
    order = np.r_[0:80, 40:120, 160:200]
    other = np.concatenate([music[order], moments(50, 2)])
    path = chain(similar(music, other), 0.38, 4.0)
    assert (order[path[:, 1]] == path[:, 0]).all()
    assert (np.diff(path, axis=0) > 0).all()
    # Of the repeated passage one time counts.
    assert path[:, 0].tolist() == [*range(120), *range(160, 200)]


def test_a_chain_follows_a_tempo_up_to_three_times_as_fast() -> None:
    music = moments(150, 3)
    order = np.r_[0:50, 50:100:2, 100:150:3]
    path = chain(similar(music, music[order]), 0.38, 4.0)
    assert len(path) >= 0.9 * len(order)
    assert (order[path[:, 1]] == path[:, 0]).all()


def test_unrelated_moments_make_no_chain_worth_its_price() -> None:
    path = chain(similar(moments(200, 4), moments(200, 5)), 0.38, 4.0)
    assert len(path) < 5
