"""The rules of decision, at their borders."""

import re
from typing import Any

import numpy as np
import pytest

from mess_core.evaluation.decide import advise, aspects, gain, people, rank, take
from mess_core.evaluation.judges import Figure, line

pytestmark = pytest.mark.unit

RNG = np.random.default_rng(4)
BEFORE = RNG.uniform(0.5, 0.8, size=12)
BETTER = BEFORE + 0.1 + 0.05 * RNG.normal(size=12)


def test_a_gain_is_one_if_its_interval_lies_above_zero() -> None:
    sure = gain(BEFORE, BETTER)
    assert sure.fired
    gained, low, high = (float(x) for x in re.findall(r"[+-]\d\.\d+", sure.text))
    assert 0 < low < gained < high
    # Works are compared with themselves: they differ more among each other than by the gain.
    assert high - low < BEFORE.std()
    assert gain(BEFORE, RNG.permutation(BEFORE)).fired is False
    assert gain(BETTER, BEFORE).fired is False
    assert gain(BEFORE, BEFORE).fired is False
    assert gain(BEFORE[:1], BETTER[:1]).fired is None
    assert gain(BEFORE[:0], BETTER[:0]).fired is None
    # Below chance nothing was known: what is gained up to it is no gain.
    below = gain(BEFORE - 0.5, BETTER - 0.25)
    assert f": {(BETTER - 0.75).mean():+.3f} (" in below.text
    assert below.fired is False
    assert gain(BEFORE - 0.5, BETTER).fired


def test_no_aspect_may_fall_by_more_than_its_error() -> None:
    error = BEFORE.std(ddof=1) / np.sqrt(12)
    assert aspects({"tempo": (BEFORE, BEFORE - 0.99 * error)}).fired
    fallen = aspects({"pedal": (BEFORE, BETTER), "tempo": (BEFORE, BEFORE - 1.01 * error)})
    assert fallen.fired is False
    assert "tempo" in fallen.text
    assert "pedal" not in fallen.text
    assert aspects({}).fired is None
    assert aspects({"tempo": (np.full(3, np.nan), np.ones(3))}).fired is None


def test_more_than_half_of_the_rank_stays_and_people_agree_no_less() -> None:
    assert rank(100.0, 50.1).fired
    assert rank(100.0, 50.0).fired is False
    assert people(0.7, 0.7).fired
    assert people(0.7, 0.699).fired is False
    assert people(np.nan, np.nan).fired is None


def test_a_stage_is_taken_if_its_gain_is_known_and_nothing_is_against_it() -> None:
    sure, unknown = gain(BEFORE, BETTER), people(np.nan, np.nan)
    taken = take("content, linear", sure, rank(100.0, 60.0), unknown)
    assert taken.fired
    # What is not known is said.
    assert "not known: people's agreement" in taken.text
    assert "RankMe 100 becomes 60" in taken.text
    for against in (rank(100.0, 40.0), people(0.7, 0.6), gain(BEFORE, BEFORE)):
        verdict = take("content, linear", sure, against)
        assert verdict.fired is False
        assert verdict.text == f"not taken: {against.text} (but {sure.text})"
    assert take("content, linear", gain(BEFORE[:1], BETTER[:1])).fired is False


def lines(
    recall: float | None, order: float | None, *agreeing: bool, chance: float = 0.5
) -> list[dict[str, Any]]:
    def figure(value: float, low: float = 0.0) -> Figure:
        return Figure(value, (low, 1.0), chance, 10, 5)

    passages = {"recall@200": recall, "nDCG@10": order}
    found = [
        line("same passage", "general", None if x is None else figure(x), measure=name)
        for name, x in passages.items()
    ]
    # Those of other spaces do not count.
    found.append(line("same passage", "untrained", figure(0.1), measure="recall@200"))
    found.append(line("people", "general", figure(0.9, 0.8), measure="agreement"))
    asked = zip(("tempo", "pedal", "dynamics"), agreeing, strict=False)
    # Of "tempo" pedal is not asked.
    found.append(line("people", "pedal", figure(0.4), measure="agreement", against="tempo"))
    return found + [
        line("people", x, figure(0.7, 0.51 if so else 0.5), measure="agreement", against=against)
        for (x, so), against in zip(asked, ("tempo", "overall", "overall"), strict=False)
    ]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (lines(0.9, 0.79), [None, False, True]),
        (lines(0.9, 0.8), [None, False, False]),
        (lines(0.89, 0.5), [None, True, False]),
        (lines(0.89, None), [None, True, False]),
        (lines(0.95, None), [None, False, None]),
        (lines(None, 0.5), [None, None, None]),
        # Of so few that the first 200 are half of them.
        (lines(0.99, 0.5, chance=0.51), [None, None, None]),
        ([], [None, None, None]),
        (lines(0.95, 0.9, True, False), [False, False, False]),
        (lines(0.95, 0.9, True, False, False), [True, False, False]),
    ],
)
def test_what_comes_first(given: list[dict[str, Any]], expected: list[bool | None]) -> None:
    verdicts = advise(given)
    assert [verdict.fired for verdict in verdicts] == expected
    assert [v.rule for v in verdicts] == [
        *("targets first", "geometry before reranking", "two-stage reranking"),
    ]
    # What is not known is not also said to be so or not.
    assert aspects({}).text == "not known: agreement with aspects"
    for verdict in verdicts:
        assert verdict.text.startswith("not known") == (verdict.fired is None)
