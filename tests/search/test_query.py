import json
import math
from typing import Any

import pytest

from mess_core.errors import SearchError
from mess_core.search.query import Query, clip_id

pytestmark = pytest.mark.unit

FULL = Query(
    "r1",
    30.0,
    35.5,
    like={"phrasing": 1.0, "general": 0.5},
    ignore=("tempo",),
    unlike={"harmony": 0.5},
    more={"legato": 2.0},
    less={"rubato": 1.0},
    exclude="work",
    where={"composer": ("Bach", "Satie"), "split": ("test",)},
    k=3,
    dedupe_s=5.0,
    relative="work",
    wish=({"tempo": -0.6, "dynamics": 0.5}, {"brightness": 1.0}),
)
SAME = Query("r1", 30.0, like={"rubato": 1.0}, same_passage=True)


@pytest.mark.parametrize("query", [FULL, SAME, Query("r1"), Query(clip="r1@2.500"), Query()])
def test_json_brings_a_query_back(query: Query) -> None:
    assert Query.from_json(json.dumps(query.to_dict())) == query


def test_what_has_its_default_is_not_written() -> None:
    assert Query("r1", like={"tempo": 1}).to_dict() == {"recording_id": "r1", "like": {"tempo": 1}}


def test_the_aspects_that_a_query_names() -> None:
    assert FULL.aspects == ("phrasing", "tempo", "harmony", "legato", "rubato")
    assert Query("r1", like={"legato": 1.0}, more={"legato": 1.0}).aspects == ("legato",)


def test_a_clips_id_names_recording_and_start() -> None:
    assert clip_id("a@b", 2.5) == "a@b@2.500"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"lke": {}}, "no 'lke': did you mean 'like'"),
        ({"like": ["tempo"]}, "like is .* expected a mapping"),
        ({"more": "legato"}, "more is 'legato', expected a mapping"),
        ({"where": ["composer"]}, "where is .* expected a mapping"),
        ({"like": {"tempo": 1e7}}, "weight 10000000.0, expected a number from 0, up to 1e.06"),
        ({"like": {"tempo": 10**400}}, "expected a number from 0"),
        ({"start_s": 10**400}, "expected seconds"),
        ({"exclude": None}, "exclude None is unknown"),
        ({"exclude": ["work"]}, "is unknown"),
        ({"like": {"tempo": "much"}}, "weight 'much', expected a number from 0"),
        ({"like": {"tempo": -1}}, "like gives tempo the weight -1"),
        ({"like": {"tempo": math.nan}}, "weight nan"),
        ({"like": {"tempo": True}}, "weight True"),
        ({"like": {"tempo": 0}}, "no aspect has a weight above 0"),
        ({"unlike": {"tempo": 0}}, "unlike gives tempo the weight 0, expected a number above 0"),
        ({"more": {"tempo": -1}}, "more gives tempo the weight -1"),
        ({"less": {"tempo": math.inf}}, "less gives tempo the weight inf"),
        ({"ignore": "tempo"}, "ignore is 'tempo', expected a list"),
        ({"ignore": [1]}, "expected a list of aspects"),
        ({"ignore": ["general"]}, "general is no aspect"),
        ({"unlike": {"general": 1}}, "general is no aspect"),
        ({"like": {"tempo": 1}, "ignore": ["tempo"]}, "'tempo' is asked for in two ways"),
        ({"like": {"tempo": 1}, "unlike": {"tempo": 1}}, "contradict"),
        ({"more": {"tempo": 1}, "less": {"tempo": 1}}, "contradict"),
        ({"more": {"tempo": 1}, "ignore": ["tempo"]}, "contradict"),
        ({"exclude": "works"}, "exclude 'works' is unknown: did you mean 'work'"),
        ({"where": {"compser": ["Bach"]}}, "no column 'compser' .*did you mean 'composer'"),
        ({"where": {"composer": "Bach"}}, "where composer is 'Bach', expected a list"),
        ({"where": {"composer": []}}, "expected a list of at least one text"),
        ({"where": {"composer": [1]}}, "expected a list of at least one text"),
        ({"k": 0}, "k is 0, expected a whole number of at least 1"),
        ({"k": 2.0}, r"k is 2\.0"),
        ({"k": True}, "k is True"),
        ({"dedupe_s": -1}, "dedupe_s is -1"),
        ({"relative": "works"}, "relative 'works' is unknown: did you mean 'work'"),
        ({"relative": None}, "relative None is unknown"),
        ({"start_s": 1, "same_passage": "yes"}, "same_passage is 'yes', expected true or false"),
        ({"same_passage": True}, "for the same passage give a recording and a start, or a clip"),
        (
            {"clip": "r@0", "same_passage": True, "exclude": "work"},
            "its work cannot be excluded",
        ),
        ({"wish": {"tempo": 1}}, "wish is .* expected a list of groups"),
        ({"wish": ["slow"]}, "wish has 'slow', expected a mapping"),
        ({"wish": [{"general": 1}]}, "general is no aspect"),
        ({"wish": [{"tempo": 1}] * 17}, "wish has 17 groups, at most 16"),
        ({"wish": [{}]}, "a group without a weight"),
        ({"wish": [{"tempo": 0}]}, "a group without a weight"),
        ({"wish": [{"tempo": -1e7}]}, "weight -10000000.0, expected a number from -1e.06"),
        ({"wish": [{"tempo": None}]}, "weight None"),
        ({"dedupe_s": "5"}, "dedupe_s is '5'"),
        ({"start_s": "3"}, "start_s is '3', expected seconds"),
        ({"start_s": math.nan}, "start_s is nan"),
        ({"end_s": 3.0}, "an end needs a start"),
        ({"clip": "r@0", "recording_id": "r"}, "a clip is a place of its own"),
        ({"clip": "r@0", "start_s": 1}, "a clip is a place of its own"),
        ({"recording_id": 7}, "recording_id is 7, expected a text"),
        ({"clip": 7}, "clip is 7, expected a text"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_value(given: dict[str, Any], message: str) -> None:
    with pytest.raises(SearchError, match=message):
        Query.from_dict(given)


@pytest.mark.parametrize("text", ["", "{", "[" * 200_000, b"\xff", '{"k": }'])
def test_what_is_not_json_is_refused(text: str | bytes) -> None:
    with pytest.raises(SearchError, match="the query is no JSON"):
        Query.from_json(text)


@pytest.mark.parametrize("given", [[], "r1", None, 3])
def test_a_query_is_an_object(given: Any) -> None:
    with pytest.raises(SearchError, match="a query is a JSON object"):
        Query.from_dict(given)
