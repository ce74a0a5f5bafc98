"""The plain questions are queries: the same hits, the same refusals."""

import pytest

from mess_core.errors import SearchError
from mess_core.search.query import Query
from mess_core.search.search import Hit, search, search_features
from mess_core.search.shortcuts import (
    find_similar,
    search_by_aspect,
    search_by_aspects,
    search_by_clip,
    search_by_vector,
)
from tests.planted import Corpus, clip_rows, recording_rows

pytestmark = pytest.mark.unit

CORPUS = Corpus(60)
RECORDINGS = CORPUS.index(recording_rows(60), "recordings")
CLIPS = CORPUS.index(clip_rows(12, 5))


def _hits(query: Query) -> list[Hit]:
    index = CLIPS if query.start_s is not None else RECORDINGS
    return list(search(index, query).hits)


def test_find_similar_is_general_and_leaves_the_recording_out() -> None:
    found = find_similar(RECORDINGS, "r3", k=7)
    assert found == _hits(Query("r3", k=7, exclude="recording"))
    assert all(-1 <= hit.score <= 1 for hit in find_similar(RECORDINGS, "r3", k=60))
    assert "r3" not in {hit.recording_id for hit in found}
    own = find_similar(RECORDINGS, "r3", exclude="none")[0]
    assert own.recording_id == "r3"
    assert own.score == pytest.approx(1.0, abs=1e-6)


def test_one_aspect_and_several() -> None:
    one = search_by_aspect(RECORDINGS, "r3", "tempo", k=4, exclude="work")
    assert one == _hits(Query("r3", like={"tempo": 1}, k=4, exclude="work"))
    weights = {"tempo": 3.0, "contour": 1.0}
    several = search_by_aspects(RECORDINGS, "r3", weights, k=4)
    assert several == _hits(Query("r3", like=weights, k=4, exclude="recording"))
    same = search_by_aspects(RECORDINGS, "r3", {"tempo": 0.75, "contour": 0.25}, k=4)
    assert [hit.recording_id for hit in same] == [hit.recording_id for hit in several]
    assert [hit.score for hit in same] == pytest.approx([hit.score for hit in several])


def test_an_aspect_finds_what_is_truly_like_in_it() -> None:
    truth = CORPUS.values["tempo"][:, 0]
    for number in range(10):
        hits = search_by_aspect(RECORDINGS, f"r{number}", "tempo", k=5)
        found = [abs(truth[int(hit.recording_id[1:])] - truth[number]) for hit in hits]
        # Tempo is decorrelated from legato in the index, so that it is not quite the nearest.
        assert sum(found) / 5 < 0.5 * abs(truth - truth[number]).mean()


def test_a_passage_finds_itself_first_unless_it_is_left_out() -> None:
    assert search_by_clip(CLIPS, "r3", 2.5, k=3) == _hits(Query("r3", 2.5, k=3))
    aspects = {"dynamics": 1.0}
    found = search_by_clip(CLIPS, "r3", 0.0, 10.0, k=3, aspects=aspects, exclude="recording")
    assert found == _hits(Query("r3", 0.0, 10.0, k=3, like=aspects, exclude="recording"))
    assert search_by_clip(CLIPS, "r3", 2.5, k=1)[0].start_s == 2.5


def test_features_made_elsewhere() -> None:
    features = CORPUS.features[7]
    found = search_by_vector(RECORDINGS, features, k=3, aspects={"legato": 2.0})
    assert found == list(search_features(RECORDINGS, features, Query(like={"legato": 2}, k=3)).hits)
    assert search_by_vector(RECORDINGS, features, k=1)[0].recording_id == "r7"


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"tempo": -1.0}, "tempo the weight -1"),
        ({"tempo": 0.0}, "no aspect has a weight above 0"),
        ({}, "no aspect has a weight above 0"),
        ({"temp": 1.0}, "did you mean 'tempo'"),
    ],
)
def test_impossible_weights_are_refused(weights: dict[str, float], message: str) -> None:
    with pytest.raises(SearchError, match=message):
        search_by_aspects(RECORDINGS, "r3", weights)
    with pytest.raises(SearchError, match=message):
        search_by_clip(CLIPS, "r3", 0.0, aspects=weights)
    with pytest.raises(SearchError, match=message):
        search_by_vector(RECORDINGS, CORPUS.features[0], aspects=weights)
