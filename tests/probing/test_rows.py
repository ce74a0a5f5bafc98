"""Folds that never share a work, and what names the rows of a target."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from sklearn.model_selection import GroupKFold

from mess_core.errors import ProbingError
from mess_core.probing.folds import deal_folds, plan_rows

pytestmark = pytest.mark.unit


def cycled(n: int, n_works: int) -> list[str]:
    return [f"work-{row % n_works}" for row in range(n)]


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
    names = cycled(40, 7)
    order = np.random.default_rng(0).permutation(40)
    np.testing.assert_array_equal(
        deal_folds(names, 4)[order], deal_folds([names[row] for row in order], 4)
    )


def test_with_few_works_each_is_a_fold() -> None:
    assert deal_folds(["b", "a", "b", "c"], 5).tolist() == [0, 1, 0, 2]


def test_rows_are_numbered_and_counted() -> None:
    works = ["b", "b", "a", "c", "a", "d"]
    recordings = ["b1", "b2", "a1", "c1", "a1", "d1"]
    present = np.array([True, True, True, False, True, True])
    rows = plan_rows(works, np.array([7, 7, 3, 5, 3, 5]), present, recordings)
    assert rows.works.tolist() == [1, 1, 0, 0, 2]
    assert rows.folds.tolist() == [2, 2, 0, 0, 1]
    assert (rows.n_rows, rows.n_works, rows.n_folds, rows.n_recordings) == (5, 3, 3, 4)
    assert rows.work_folds.tolist() == [0, 2, 1]
    values = np.arange(10.0).reshape(5, 2)
    np.testing.assert_array_equal(rows.sum_by_work(values), [[10, 12], [2, 4], [8, 9]])


def test_without_recordings_each_work_is_one() -> None:
    rows = plan_rows(cycled(20, 4), deal_folds(cycled(20, 4), 3))
    assert rows.n_recordings == 4


def test_works_are_dealt_anew_only_where_a_fold_would_be_empty() -> None:
    works = cycled(60, 12)
    folds = deal_folds(works, 4)
    some = np.arange(60) >= 24
    np.testing.assert_array_equal(plan_rows(works, folds, some).folds, folds[some])
    first = plan_rows(works, folds, folds == 0)
    assert (first.n_works, first.n_folds) == (3, 3)


def test_the_digest_names_rows_works_and_folds() -> None:
    works = cycled(60, 12)
    folds = deal_folds(works, 4)
    digest = plan_rows(works, folds).digest
    assert plan_rows(list(works), folds.copy(), np.ones(60, bool)).digest == digest
    some = np.arange(60) != 7
    others = [
        plan_rows(works, folds, some),
        plan_rows(works, deal_folds(works, 5)),
        plan_rows(works[:-12], folds[:-12]),
        plan_rows([*works[1:], works[0]], np.roll(folds, -1)),
    ]
    assert len({digest, *(rows.digest for rows in others)}) == 5


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"folds": np.zeros(11, int)}, "11 folds"),
        ({"present": np.ones(13, bool)}, "13 targets"),
        ({"recordings": ["r"] * 11}, "11 recordings"),
        ({"recordings": ["r"] * 12}, "recording of row 0 is in several works"),
        ({"folds": np.arange(12) % 5}, "work of row 0 is in several folds"),
    ],
)
def test_rows_that_do_not_fit_are_refused(change: dict[str, Any], words: str) -> None:
    works = cycled(12, 4)
    given: dict[str, Any] = {"works": works, "folds": deal_folds(works, 3)}
    with pytest.raises(ProbingError, match=words):
        plan_rows(**given | change)
