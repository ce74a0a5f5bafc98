"""The judges, on planted spaces of which the answer is known."""

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import skew

from mess_core.evaluation import judges
from mess_core.evaluation.judges import (
    Rows,
    cosine,
    like_not,
    more,
    occupancy,
    partial_correlation,
    same_passage,
    same_player,
    within_works,
)
from mess_core.evaluation.spaces import search_of, whitened

pytestmark = pytest.mark.unit

WORKS, PLAYERS, WINDOWS = 8, 4, 10
RNG = np.random.default_rng(5)
WORK, PLAYER, WINDOW = (axis.ravel() for axis in np.indices((WORKS, PLAYERS, WINDOWS)))
N = len(WORK)
ROWS = Rows(
    np.array([f"r{w}-{p}" for w, p in zip(WORK, PLAYER, strict=True)]),
    np.array([f"w{w}" for w in WORK]),
    np.array([f"p{p}" for p in PLAYER]),
)
SPANS = np.column_stack([4.0 * WINDOW, 4.0 * WINDOW + 6])
#: What passages are, how works are, and two things that differ freely in every window.
PASSAGES = RNG.normal(size=(WORKS, WINDOWS, 12))[WORK, WINDOW]
OF_WORK = RNG.normal(size=(WORKS, 12))[WORK]
X, Y = RNG.normal(size=(2, N, 1))


def test_a_space_of_passages_finds_every_passage_and_noise_finds_them_by_chance() -> None:
    perfect = same_passage(cosine(PASSAGES + 1e-3 * RNG.normal(size=(N, 12))), ROWS, SPANS)
    # Neighbours overlap by 2 of 6 beats, which is not the same passage.
    assert {name: round(figure.value, 9) for name, figure in perfect.items()} == dict.fromkeys(
        ("MRR", "recall@1", "recall@10", "recall@200", "nDCG@10"), 1.0
    )
    noise = same_passage(lambda _: RNG.normal(size=N), ROWS, SPANS)
    assert 0 < noise["recall@1"].chance == pytest.approx(3 / (N - WINDOWS))
    for figure in noise.values():
        assert figure.interval is not None
        assert figure.interval[0] < figure.chance < figure.interval[1]
        assert figure.n == WORKS * 20
        assert figure.works == WORKS


def test_the_general_block_brings_out_what_a_loud_direction_hides() -> None:
    loud = np.column_stack([5 * RNG.normal(size=(N, 3)), PASSAGES]).astype(np.float32)
    loud = loud[:, np.newaxis]
    plain = same_passage(cosine(loud), ROWS, SPANS)["MRR"].value
    white = search_of(whitened(loud, [0])(loud, None), euclidean=False)
    found = same_passage(white, ROWS, SPANS)["MRR"].value
    assert plain + 0.1 < found, (plain, found)


def test_a_passage_that_is_not_found_ranks_last() -> None:
    nothing = same_passage(lambda _: np.full(N, np.nan), ROWS, SPANS)
    # All rows share the middle rank.
    assert nothing["MRR"].value == pytest.approx(2 / (N - WINDOWS + 1))
    assert nothing["recall@10"].value == 0 == nothing["nDCG@10"].value


def test_players_of_one_name_are_no_others_and_unknown_ones_are() -> None:
    same = Rows(ROWS.recordings, ROWS.works, np.array(["p"] * N))
    assert np.isnan(same_passage(cosine(PASSAGES), same, SPANS)["MRR"].value)
    unknown = Rows(ROWS.recordings, ROWS.works, np.array([""] * N))
    assert same_passage(cosine(PASSAGES), unknown, SPANS)["MRR"].n == WORKS * 20


def test_chance_is_exact() -> None:
    rows = Rows(np.array(["a", "b", "c", "d", "e"]), np.array(["w"] * 5), np.array([""] * 5))
    # Of four candidates two are right: ranks 1, 2, 3 with 1/2, 1/3, 1/6.
    spans = np.array([[0.0, 1], [0, 1], [0, 1], [5, 6], [7, 8]])
    found = same_passage(lambda _: np.zeros(5), rows, spans)
    assert found["MRR"].chance == pytest.approx(1 / 2 + 1 / 3 / 2 + 1 / 6 / 3)
    assert found["recall@200"].chance == 1
    # Half of the gains of all four places, of those of the first two.
    gains = 1 / np.log2([2, 3, 4, 5])
    assert found["nDCG@10"].chance == pytest.approx(gains.sum() / 2 / gains[:2].sum())


@pytest.mark.parametrize("right", [30, 260])
def test_chance_is_what_random_orders_reach(right: int) -> None:
    n = 320
    works = np.where(np.arange(n) < right, "w", "others")
    rows = Rows(np.arange(n).astype(str), works, np.array([""] * n))
    spans = np.where(works[:, np.newaxis] == "w", [0.0, 1.0], np.nan)
    rng = np.random.default_rng(0)
    found = [same_passage(lambda _: rng.normal(size=n), rows, spans) for _ in range(50)]
    for measure, figure in found[0].items():
        reached = np.mean([each[measure].value for each in found])
        assert reached == pytest.approx(figure.chance, abs=0.03), measure
    recall = 200 / (n - 1) * (right - 1) / min(right - 1, 200)
    assert found[0]["recall@200"].chance == pytest.approx(recall)


def test_more_equal_scores_than_are_put_in_order() -> None:
    alike = np.full(391, "w")
    rows = Rows(np.arange(391).astype(str), alike, np.full(391, ""))
    # All 390 are right and share the rank 195.5.
    found = same_passage(lambda _: np.zeros(391), rows, np.tile([0.0, 1.0], (391, 1)))
    assert found["recall@200"].value == found["recall@200"].chance == 1
    assert found["nDCG@10"].value == found["recall@10"].value == 0


def test_the_gain_of_a_known_order() -> None:
    works = np.where(np.arange(300) < 4, "w", "others")
    rows = Rows(np.array([f"r{n}" for n in range(300)]), works, np.array([""] * 300))
    spans = np.where(works[:, np.newaxis] == "w", [0.0, 1.0], np.nan)

    def search(row: int) -> npt.NDArray[np.float64]:
        order = [*range(4, 300)]
        for place, right in zip((1, 3, 250), {0, 1, 2, 3} - {row}, strict=True):
            order.insert(place - 1, right)
        scores = np.ones(300)
        scores[order] = -np.arange(299)
        return scores

    found = same_passage(search, rows, spans)
    assert found["recall@200"].n == 4
    assert found["recall@200"].value == pytest.approx(2 / 3)
    assert found["recall@1"].value == found["MRR"].value == 1
    # The best order of the first 200 has two right ones in front.
    best = 1 + 1 / np.log2(3)
    assert found["nDCG@10"].value == pytest.approx((1 + 1 / np.log2(4)) / best)


def test_the_same_player_is_found_where_the_space_knows_players() -> None:
    rng = np.random.default_rng(7)
    touch = rng.normal(size=(PLAYERS, 6))[PLAYER] + 1e-3 * rng.normal(size=(N, 6))
    # What a work is hides what a player is, but only in the work itself, which is no candidate.
    knows = same_player(cosine(np.column_stack([touch, 1e-2 * OF_WORK])), ROWS)
    assert [round(knows[name].value, 9) for name in ("MRR", "recall@1")] == [1, 1]
    assert knows["recall@1"].chance == pytest.approx(1 / PLAYERS)
    assert knows["recall@1"].n == WORKS * 20
    noise = same_player(lambda _: rng.normal(size=N), ROWS)["recall@1"]
    assert noise.interval is not None
    assert noise.interval[0] < noise.chance < noise.interval[1]
    only_here = Rows(ROWS.recordings, ROWS.works, np.char.add(ROWS.works, ROWS.performers))
    assert np.isnan(same_player(cosine(touch), only_here)["MRR"].value)
    one_unknown = Rows(ROWS.recordings, ROWS.works, np.where(PLAYER == 0, "", ROWS.performers))
    assert same_player(cosine(touch), one_unknown)["MRR"].n < WORKS * 20


def test_a_hub_a_flat_space_and_what_is_within_works_are_seen() -> None:
    rng = np.random.default_rng(7)
    even = occupancy(rng.normal(size=(N, 32)), ROWS)
    assert even["RankMe"].value > 28
    assert even["within works"].value == pytest.approx(even["within works"].chance, abs=0.02)
    hubs = rng.normal(size=(N, 32))
    # One row of each of three works lies in the middle of all.
    hubs[[0, 100, 200]] = hubs.mean(axis=0) + 0.5
    hubs += 0.5
    found = occupancy(hubs, ROWS)
    assert found["hubness"].value > even["hubness"].value + 3
    few = Rows(*(names[[0, 1, 10, 11]] for names in (ROWS.recordings, ROWS.works, ROWS.works)))
    # Of two recordings with two windows each, all are near to the others as often.
    assert occupancy(hubs[[0, 1, 10, 11]], few)["hubness"].value == 0
    flat = rng.normal(size=(N, 3)) @ rng.normal(size=(3, 32))
    assert occupancy(flat, ROWS)["RankMe"].value == pytest.approx(3, abs=0.2)
    of_works = occupancy(OF_WORK + 0.1 * rng.normal(size=(N, 12)), ROWS)["within works"]
    assert of_works.value < 0.05
    assert of_works.interval is not None
    assert of_works.interval[0] < of_works.value < of_works.interval[1]


def test_distances_are_held_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = np.random.default_rng(7).normal(size=(N, 8)) + 0.5
    whole = occupancy(vectors, ROWS)
    monkeypatch.setattr(judges, "_BLOCK", 7)
    assert occupancy(vectors, ROWS) == whole
    often = np.zeros(N)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for row in range(N):
        others = np.flatnonzero(ROWS.recordings != ROWS.recordings[row])
        often[others[np.argsort(-unit[others] @ unit[row])[:10]]] += 1
    assert whole["hubness"].value == pytest.approx(skew(often))


def test_of_a_wide_space_there_is_no_rank_and_of_one_recording_nothing() -> None:
    rng = np.random.default_rng(7)
    wide = occupancy(rng.normal(size=(N, 257)), ROWS)
    assert [*wide] == ["hubness", "within works"]
    for n in (1, WINDOWS):
        one = Rows(*(names[:n] for names in (ROWS.recordings, ROWS.works, ROWS.performers)))
        assert occupancy(rng.normal(size=(n, 4)), one) == {}


def test_a_layer_that_knows_the_truth_is_found() -> None:
    truth = X[:, 0]
    mixed = np.column_stack([X + 0.1 * RNG.normal(size=X.shape), RNG.normal(size=(N, 3))])
    features = np.stack([RNG.normal(size=mixed.shape), mixed], axis=1)
    figure = within_works(features, truth, ROWS)
    assert figure.value > 0.9
    assert figure.value == pytest.approx(0.99, abs=0.01)
    assert figure.interval is not None


def test_works_that_are_not_judged_only_serve_to_learn_from() -> None:
    features = X[:, np.newaxis] + 0.0
    kept = WORK < 4
    # What is true of the other works is of no use here: half of them say the opposite.
    truth = np.where(kept, X[:, 0], X[:, 0] * np.where(WORK < 6, 1, -1))
    figure = within_works(features, truth, ROWS, judged=kept)
    assert (figure.works, figure.n) == (4, 4 * PLAYERS * WINDOWS)
    assert figure.value > within_works(features, truth, ROWS).value + 0.3


def test_knowing_the_work_is_worth_nothing() -> None:
    truth = 0.3 * X[:, 0] + 2 * OF_WORK[:, 0]
    figure = within_works(OF_WORK[:, np.newaxis], truth, ROWS)
    assert figure.value < 1e-9
    nothing = within_works(OF_WORK[:, np.newaxis], np.full(N, np.nan), ROWS)
    assert np.isnan(nothing.value)
    assert (nothing.interval, nothing.n) == (None, 0)


def test_a_space_that_knows_x_and_not_y() -> None:
    knows_x = lambda row: -np.abs(X[:, 0] - X[row, 0])  # noqa: E731
    # X and Y go together: distances in X tell of Y, but not beyond X.
    bound = Y + X
    wanted, leak = like_not(knows_x, ROWS, X, bound)
    assert wanted.value > 0.95
    assert abs(leak.value) < 0.1
    assert wanted.chance == 0
    # Several orders at once.
    together = like_not(
        lambda row: np.array([[-1], [1]]) * np.abs(X[:, 0] - X[row, 0]), ROWS, X, bound
    )
    assert [f.value for f in together] == pytest.approx(
        [wanted.value, -wanted.value, leak.value, -leak.value]
    )
    wanted, leak = like_not(knows_x, ROWS, Y, X)
    assert abs(wanted.value) < 0.1
    assert leak.value > 0.95


def test_undefined_truth_is_left_out() -> None:
    half = np.where(RNG.random((N, 1)) < 0.5, np.nan, X)
    knows_x = lambda row: -np.abs(X[:, 0] - X[row, 0])  # noqa: E731
    wanted, _ = like_not(knows_x, ROWS, half, Y)
    assert wanted.value > 0.95
    assert wanted.n < WORKS * 20
    assert np.isnan(like_not(knows_x, ROWS, np.full((N, 1), np.nan), Y)[0].value)


def test_more_is_right_where_the_order_rises_with_the_truth() -> None:
    rng = np.random.default_rng(7)
    others = np.where(rng.random((N, 1)) < 0.1, np.nan, np.column_stack([Y, np.full(N, np.nan)]))
    rising, drift = more(lambda _: X[:, 0], ROWS, X[:, 0], others)
    assert rising.value > 0.75
    assert rising.chance == pytest.approx(0.5, abs=0.05)
    # Two independent normal numbers are 2 / sqrt(pi) apart.
    assert drift.value == pytest.approx(drift.chance, abs=0.1)
    assert drift.chance == pytest.approx(1.13, abs=0.1)
    near = more(lambda row: -np.abs(Y[:, 0] - Y[row, 0]), ROWS, X[:, 0], others)[1]
    assert near.value < drift.chance / 2
    noise = more(lambda _: RNG.normal(size=N), ROWS, X[:, 0], others)[0]
    assert noise.interval is not None
    assert noise.interval[0] < noise.chance < noise.interval[1]
    assert np.isnan(more(lambda _: np.full(N, np.nan), ROWS, X[:, 0], others)[0].value)


def test_partial_correlation_is_that_of_ranks_without_the_third() -> None:
    x, y, z = RNG.normal(size=(3, 500))
    assert partial_correlation(x + z, y + z, z) == pytest.approx(0, abs=0.12)
    assert partial_correlation(x + z, x - z, z) > 0.9
    assert partial_correlation(z, x, z) == 0
    assert np.isnan(partial_correlation(x, z, z))
    assert np.isnan(partial_correlation(x[:3], y[:3], z[:3]))


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    rng, hits = np.random.default_rng(0), 0
    for _ in range(100):
        of_work = rng.normal(size=WORKS)[WORK]
        # The share of the others that have more, shifted by the work.
        shifted = rng.normal(size=N) + 0.5 * of_work
        figure = more(lambda _, s=shifted: s, ROWS, rng.normal(size=N), Y)[0]  # type: ignore[misc]
        assert figure.interval is not None
        hits += figure.interval[0] <= figure.chance <= figure.interval[1]
    assert hits > 85
