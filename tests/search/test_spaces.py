"""Learned spaces: orders that are known, what is ignored in them, and indices without them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mess_core.errors import ArtifactError, SearchError
from mess_core.index.artifact import load_artifact, save_artifact, write_projection
from mess_core.index.fitting import fit_projection
from mess_core.index.index import Index, Row, build_index
from mess_core.index.projection import Projection
from mess_core.search.query import Query
from mess_core.search.scoring import Passage, ask
from mess_core.search.search import search, search_features
from tests.planted import ASPECT_MAP, DIMS, FACTS, LAYERS, Corpus, clip_rows
from tests.search.reference import Blocks, Floats

pytestmark = pytest.mark.unit

LEARNED = ("content", "expression")
N = 84
CORPUS = Corpus(N, seed=3)
RNG = np.random.default_rng(5)
BASES = {name: RNG.normal(size=(LAYERS * DIMS, 9)).astype(np.float32) for name in LEARNED}
ROWS = clip_rows(12, 7)


def _index(corpus: Corpus, rows: list[Row], projection: Projection, **given: Any) -> Index:
    return build_index(
        corpus.features, rows, kind="clips", projection=projection, aspects=ASPECT_MAP,
        facts=FACTS, **given,
    )  # fmt: skip


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    """Return an index with both spaces that was saved and loaded."""
    built = _index(CORPUS, ROWS, CORPUS.projection(spaces=BASES))
    return load_artifact(save_artifact(built, tmp_path_factory.mktemp("artifact")))


@pytest.fixture(scope="module")
def plain() -> Index:
    """Return the same without learned spaces."""
    return CORPUS.index(ROWS)


def _opposed(kind: str) -> tuple[Index, Floats]:
    """Return an index with opposite orders in both spaces, and the angles of content.

    From r0, whatever is alike in content by ``cos(angle)`` is alike in expression by minus that.
    Every row but r0 has its opposite too, so that all means are 0.
    """
    angles = np.linspace(0, np.pi, 12)[:-1]
    turned = np.array([angles, np.where(angles > 0, np.pi - angles, 0.0)])
    four = np.concatenate([np.cos(turned), np.sin(turned)]).T[:, [0, 2, 1, 3]]
    mixed, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(8, 8)))
    planted = np.concatenate([four, -four])
    features = (planted @ mixed[:4] + 20).astype(np.float32)[:, np.newaxis]
    bases = dict(zip(LEARNED, np.split(mixed[:4].T.astype(np.float32), 2, axis=1), strict=True))
    projection = fit_projection(lambda layer: features[:, layer], [0], spaces=bases)
    rows = [Row(f"r{i}", "w", "", "", "", "", 0.0, 5.0) for i in range(len(features))]
    made = build_index(
        features, rows, kind=kind, projection=projection, aspects={}, facts={}
    )  # fmt: skip
    return made, np.concatenate([angles, angles + np.pi])


@pytest.mark.parametrize("kind", ["clips", "recordings"])
def test_content_and_expression_have_opposite_orders_that_are_known(kind: str) -> None:
    index, angles = _opposed(kind)
    found = {}
    for space, sign in zip(LEARNED, (1, -1), strict=True):
        answer = search(index, Query("r0", space=space, k=99))
        hits = [hit for hit in answer.hits if hit.recording_id not in ("r0", "r11")]
        place = [int(hit.recording_id[1:]) for hit in hits]
        np.testing.assert_allclose([h.score for h in hits], sign * np.cos(angles[place]), atol=1e-5)
        assert [[*hit.contributions] for hit in hits] == [[space]] * len(hits)
        found[space] = [hit.recording_id for hit in hits if int(hit.recording_id[1:]) < 11]
    assert found["content"] == [f"r{i}" for i in range(1, 11)]
    assert found["expression"] == found["content"][::-1]


@pytest.mark.parametrize("space", LEARNED)
@pytest.mark.parametrize("relative", ["", "work"])
def test_answers_equal_the_definition(index: Index, space: str, relative: str) -> None:
    blocks = Blocks(index.projection, CORPUS.features)
    if relative:
        works = np.array([row.work_id for row in ROWS])
        blocks = blocks.relative(works, np.ones(N, np.bool_))
    scores = blocks.scores([2, 3, 4], {space: 2.0, "legato": 1.0})
    like = {"general": 2.0, "legato": 1.0}
    query = Query("r0", 5.0, 15.0, like=like, space=space, relative=relative, k=20)
    answer = search(index, query)
    expected = np.argsort(-scores)[:20]
    assert [(hit.recording_id, hit.start_s) for hit in answer.hits] == [
        (ROWS[n].recording_id, ROWS[n].start_s) for n in expected
    ]
    np.testing.assert_allclose([h.score for h in answer.hits], scores[expected], atol=3e-5)
    assert [*answer.hits[0].contributions] == [space, "legato"]


def test_features_from_elsewhere_and_codes_have_spaces_too(index: Index) -> None:
    (hit,) = search_features(index, CORPUS.features[4], Query(space="content", k=1)).hits
    assert (hit.recording_id, hit.start_s) == ("r0", 10.0)
    assert hit.score == pytest.approx(1.0, abs=1e-5)
    corpus, rows = Corpus(1050), clip_rows(150, 7)
    projection = corpus.projection(spaces=BASES)
    exact, coded = (_index(corpus, rows, projection, exact_up_to=n) for n in (1050, 1000))
    assert not coded.exact
    for query in (Query("r7", 5.0, space="expression"), Query("r7", 5.0, ignore=("tempo",))):
        assert search(coded, query) == search(exact, query)


@pytest.mark.parametrize("space", LEARNED)
def test_what_is_ignored_is_erased_from_the_space_that_is_asked(space: str, index: Index) -> None:
    projection, part = index.projection, index.projection.spaces[space]
    corpus = Corpus(600, seed=4)
    fitted = corpus.projection(spaces=BASES)
    components, tempo = fitted.read(corpus.features)[0][:, part], corpus.values["tempo"][:, 0]
    directions = fitted.erase[part, fitted.aspects["tempo"].coordinates].astype(float)
    left = components - components @ directions @ directions.T
    for block, least, most in ((components, 0.4, 1.0), (left, 0.0, 0.01)):
        told = block @ np.linalg.lstsq(block, tempo - tempo.mean(), rcond=1e-6)[0]
        assert least < np.corrcoef(told, tempo)[0, 1] ** 2 < most
    stored = index.stored([5])[0]
    query = Query("r0", ignore=("tempo",), space=space)
    asked = ask(projection, query, Passage(stored, index.predicted[:, 5].astype(float)))
    own = projection.erase[part, projection.aspects["tempo"].coordinates]
    np.testing.assert_allclose(asked.vector[part] @ own, 0, atol=1e-6)
    assert np.count_nonzero(asked.vector) == np.count_nonzero(asked.vector[part])
    np.testing.assert_array_equal(np.delete(asked.passage, part), np.delete(stored, part))


def test_without_the_space_all_is_as_before(index: Index, plain: Index, tmp_path: Path) -> None:
    for query in (Query("r3", ignore=("legato",)), Query("r3", 2.5, more={"tempo": 0.5})):
        with_spaces, without = (search(each, query).hits for each in (index, plain))
        assert [h.clip for h in with_spaces] == [h.clip for h in without]
        assert [h.contributions.keys() for h in with_spaces] == [
            h.contributions.keys() for h in without
        ]
    write_projection(plain.projection, tmp_path / "p.npz")
    with np.load(tmp_path / "p.npz") as arrays:
        assert not [name for name in arrays if "learned" in name]
    assert "learned" not in plain.projection.describe()
    assert index.projection.describe()["learned"] == {"content": 9, "expression": 9}


@pytest.mark.parametrize(
    "asked", [search, lambda index, query: search_features(index, CORPUS.features[0], query)]
)
def test_an_index_without_the_space_says_who_decided(
    asked: Callable[[Index, Query], object], plain: Index
) -> None:
    query = Query("r0" if asked is search else None, space="content")
    message = "'content' is not in this index.* rule `geometry` .*`mess question evaluation`"
    with pytest.raises(SearchError, match=message):
        asked(plain, query)


def test_a_space_of_another_name_and_one_of_nothing_are_refused(index: Index) -> None:
    with pytest.raises(SearchError, match=r"'contents' is unknown: .*content"):
        Query("r0", space="contents")
    with pytest.raises(SearchError, match="nothing can be like"):
        search(index, Query(wish=({"tempo": 1.0},), space="content"))


def test_bases_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ArtifactError, match=r"'content' has shape \(24, 2\), expected \(72, comp"):
        CORPUS.projection(spaces={"content": np.ones((DIMS, 2), np.float32)})
    for names, sizes in ((["tempo", "x"], [9, 9]), (["x", "x"], [9, 9]), (["x", "y"], [18, 0])):
        projection = CORPUS.projection(spaces=BASES)
        wrong = replace(projection, learned=np.array(names), learned_sizes=np.array(sizes))
        with pytest.raises(ArtifactError, match="learned spaces"):
            wrong.check()
