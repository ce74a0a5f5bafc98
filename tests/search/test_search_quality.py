"""The figures of `benchmarks.search_quality` by hand and on the planted corpus."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from benchmarks.search_quality import (
    asking,
    judge_like,
    judge_more,
    partial_correlation,
    reciprocal_rank,
    same_passage,
)
from tests.planted import Corpus, clip_rows

pytestmark = pytest.mark.unit

RNG = np.random.default_rng(5)


@pytest.mark.parametrize(
    ("right", "candidates", "rank"),
    [("00100", "11111", 4), ("00101", "11111", 2), ("00100", "10110", 2), ("00010", "11101", None)],
)
def test_the_first_right_answer_has_its_rank_among_candidates(
    right: str, candidates: str, rank: int | None
) -> None:
    scores = np.array([0.9, 0.7, 0.5, 0.1, 0.8])
    bools = [np.array([each == "1" for each in text]) for text in (right, candidates)]
    found = reciprocal_rank(scores, *bools)
    assert np.isnan(found) if rank is None else found == pytest.approx(1 / rank)


def test_partial_correlation_is_the_textbooks_formula() -> None:
    z = RNG.normal(size=80)
    x, y = RNG.normal(size=(2, 80)) + z
    a, b, c = (spearmanr(*pair).statistic for pair in ((x, y), (x, z), (y, z)))
    expected = (a - b * c) / np.sqrt((1 - b**2) * (1 - c**2))
    assert partial_correlation(x, y, z) == pytest.approx(expected)
    holed = np.append(y, np.nan)
    assert partial_correlation(np.append(x, 1.0), holed, np.append(z, 1.0)) == pytest.approx(
        expected
    )
    assert np.isnan(partial_correlation(2 * z + 1, y, z))


def test_passages_share_half_of_the_shorter_one() -> None:
    spans = np.array([[0, 10], [5, 15], [6, 16], [4, 6], [0, 10], [3, 3]], float)
    found = same_passage(spans, ["w", "w", "w", "w", "v", "w"], 0)
    assert found.tolist() == [True, True, False, True, False, False]


def test_answers_follow_what_was_planted_and_nothing_else() -> None:
    corpus = Corpus(200)
    index = corpus.index(clip_rows(20, 10))
    tempo, dynamics = corpus.values["tempo"], corpus.values["dynamics"]
    like, leak = judge_like(index, asking(index, like={"tempo": 1.0}), tempo, dynamics)
    assert like > 0.8
    assert abs(leak) < 0.1
    more = judge_more(index, asking(index, k=10, more={"tempo": 1.0}), tempo[:, 0])
    assert more > 0.95
    assert judge_more(index, None, tempo[:, 0]) < 0.6
