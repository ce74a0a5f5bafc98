"""A newer index swaps in while others search, and the old one goes with its last question."""

import gc
import weakref
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread

import pytest

from mess_core.errors import ArtifactError
from mess_core.index import save_artifact
from mess_core.index.index import Index
from mess_core.publishing.publish import publish
from mess_core.search.query import Query
from mess_core.search.search import Searcher, search
from tests.planted import Corpus, recording_rows

pytestmark = pytest.mark.unit


def _version(seed: int) -> Index:
    index = Corpus(40, seed=seed).index(recording_rows(40), "recordings")
    return replace(index, version_id=str(seed))


def _not_again(*_: object, **__: object) -> None:
    raise AssertionError("opened again what is the latest already")


def test_what_is_published_is_searched_and_refreshed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = str(tmp_path / "published")

    def renew(seed: int) -> str:
        receipt = publish(save_artifact(_version(seed), tmp_path / "indices"), published)
        return str(receipt["artifact_version_id"])

    first = renew(1)
    searcher = Searcher.of(published, "planted", "recordings", cache_dir=tmp_path / "cache")
    before = searcher.search(Query("r3"))
    assert searcher.index.version_id == first
    monkeypatch.setattr("mess_core.publishing.fetch.load_artifact", _not_again)
    assert not searcher.refresh()
    monkeypatch.undo()
    second = renew(2)
    assert searcher.search(Query("r3")) == before
    assert searcher.refresh()
    assert searcher.index.version_id == second != first
    assert searcher.search(Query("r3")) != before
    features = Corpus(40, seed=2).features[3]
    assert searcher.search_features(features, Query()).hits[0].recording_id == "r3"


def test_a_refresh_that_fails_leaves_the_old_index() -> None:
    versions = iter([_version(1)])

    def open_next() -> Index:
        try:
            return next(versions)
        except StopIteration:
            raise ArtifactError("the store is away") from None

    searcher = Searcher(open_next)
    expected = searcher.search(Query("r3"))
    with pytest.raises(ArtifactError, match="the store is away"):
        searcher.refresh()
    assert searcher.search(Query("r3")) == expected


def test_a_question_ends_on_the_index_that_it_began_with() -> None:
    old, new = _version(1), _version(2)
    begun, go_on = Event(), Event()

    class Waiting:
        """FAISS's index, which waits in the middle of a search."""

        def __init__(self, vectors: object) -> None:
            self._vectors = vectors

        def __getattr__(self, name: str) -> object:
            return getattr(self._vectors, name)

        def search(self, *args: object, **given: object) -> object:
            begun.set()
            assert go_on.wait(60)
            return self._vectors.search(*args, **given)  # type: ignore[attr-defined]

    expected = search(old, Query("r3"))
    versions = [new, replace(old, vectors=Waiting(old.vectors))]
    searcher = Searcher(versions.pop)
    held = weakref.ref(searcher.index)
    answers = []
    asking = Thread(target=lambda: answers.append(searcher.search(Query("r3"))))
    asking.start()
    assert begun.wait(60)
    assert searcher.refresh()
    assert searcher.search(Query("r3")) != expected
    assert held() is not None
    go_on.set()
    asking.join()
    assert answers == [expected]
    gc.collect()
    assert held() is None
