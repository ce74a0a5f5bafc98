from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from mess_core.errors import ArtifactError
from mess_core.index.fitting import fit_projection
from mess_core.index.index import Index, Row, build_index, index_recordings
from mess_core.index.projection import Projection
from mess_core.recordings import Recording
from tests.planted import ASPECT_MAP, ASPECTS, DIMS, FACTS, LAYERS, Corpus, recording_rows

pytestmark = pytest.mark.unit

N = 40
Floats = npt.NDArray[np.float32]
Measured = npt.NDArray[np.float64]


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return Corpus(N)


def _build(
    corpus: Corpus,
    *,
    features: Floats | None = None,
    rows: Iterable[Row] | None = None,
    kind: str = "recordings",
    projection: Projection | None = None,
    aspects: Mapping[str, Any] = ASPECT_MAP,
    facts: Mapping[str, Any] = FACTS,
) -> Index:
    return build_index(
        corpus.features if features is None else features,
        recording_rows(N) if rows is None else rows,
        kind=kind,
        projection=projection or corpus.projection(),
        aspects=aspects,
        facts=facts,
    )


def _bare(features: Floats, layers: Sequence[int]) -> Projection:
    return fit_projection(lambda layer: features[:, layer], layers)


def test_an_index_holds_what_the_projection_makes_of_each_row(corpus: Corpus) -> None:
    index = _build(corpus)
    vectors, predicted, _ = index.projection.project(corpus.features)
    assert (index.kind, index.factory, index.version_id) == ("recordings", "Flat", "")
    assert (index.vectors.d, index.vectors.ntotal) == (index.projection.width, N)
    np.testing.assert_array_equal(index.stored(np.arange(N)), vectors)
    np.testing.assert_array_equal(index.predicted, predicted.T)
    assert index.predicted.flags.c_contiguous
    assert list(index.rows) == recording_rows(N)
    assert (index.aspects, index.facts) == (ASPECT_MAP, FACTS)


@pytest.mark.parametrize("kind", ["recordings", "clips"])
@pytest.mark.parametrize("at_once", [1, 3, 1000])
def test_an_index_read_recording_by_recording_is_the_same(
    kind: str, at_once: int, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = kind == "clips"
    per = 4 if clips else 1
    table = [
        Recording(f"r{i}", "w", "", "", "", "", "", "", "", "", "", "", 12.0, "ok", "")
        for i in range(N // per)
    ]

    def read(recording: Recording) -> Floats:
        place = table.index(recording)
        windows: Floats = corpus.features[place * per : (place + 1) * per]
        return windows if clips else np.asarray(windows[0])

    projection = corpus.projection()
    starts = [0.0, 2.5, 5.0, 7.0] if clips else [0.0]
    rows = [Row.of(r, start_s=s, end_s=s + 5.0 if clips else None) for r in table for s in starts]
    if clips:  # r1 takes half the time of its work, its third window is not aligned.
        rows[4:8] = [
            replace(r, work_start_s=2 * r.start_s, work_end_s=2 * r.end_s) for r in rows[4:8]
        ]
        rows[6] = replace(rows[6], work_start_s=None, work_end_s=None)

    def work_times(recording: Recording, windows: Measured) -> Measured:
        found = 2 * windows if recording is table[1] else np.full_like(windows, np.nan)
        found[2] = np.nan
        return found

    expected = _build(corpus, rows=rows, kind=kind, projection=projection)
    monkeypatch.setattr("mess_core.index.index._AT_ONCE", at_once)
    done: list[tuple[int, int, str]] = []
    index = index_recordings(
        table,
        read,
        work_times=work_times,
        kind=kind,
        window_s=5.0,
        overlap=0.5,
        projection=projection,
        aspects=ASPECT_MAP,
        facts=FACTS,
        progress=lambda *args: done.append(args),
    )
    assert list(index.rows) == list(expected.rows)
    np.testing.assert_allclose(index.stored(range(N)), expected.stored(range(N)), atol=1e-6)
    np.testing.assert_allclose(index.predicted, expected.predicted, atol=1e-6)
    assert done[-1] == (len(table), len(table), table[-1].recording_id)


def test_some_rows_are_given_in_the_order_asked_for(corpus: Corpus) -> None:
    index = _build(corpus)
    everything = index.stored(range(N))
    np.testing.assert_array_equal(index.stored([7, 2, 7]), everything[[7, 2, 7]])
    np.testing.assert_array_equal(index.stored(np.int64(5)), everything[[5]])
    assert index.stored([]).shape == (0, index.projection.width)


def test_the_callers_features_are_untouched(corpus: Corpus) -> None:
    features = corpus.features.copy()
    features.flags.writeable = False
    _build(corpus, features=features)
    np.testing.assert_array_equal(features, corpus.features)


def test_layers_that_are_not_used_may_hold_anything(corpus: Corpus) -> None:
    features = corpus.features.copy()
    features[:, 1] = np.nan
    index = _build(corpus, features=features, projection=_bare(features, [0, 2]), aspects={})
    assert np.isfinite(index.stored(range(N))).all()


def test_values_whose_squares_overflow_float32_are_no_trouble(corpus: Corpus) -> None:
    features = corpus.features * np.float32(1e30)
    index = _build(corpus, features=features, projection=_bare(features, [0]), aspects={})
    length = np.linalg.norm(index.stored(range(N))[:, : index.projection.general], axis=1)
    np.testing.assert_allclose(length, 1.0, atol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_features_that_are_not_finite_are_refused_by_name(value: float, corpus: Corpus) -> None:
    features = corpus.features.copy()
    features[5, 2, 1] = value
    with pytest.raises(ArtifactError, match=r"recording r5 \(0.0 to 15.0 s\).*layer 2.*not finite"):
        _build(corpus, features=features)


def test_a_row_that_equals_the_mean_is_refused_by_name(corpus: Corpus) -> None:
    projection, features = corpus.projection(), corpus.features.copy()
    features[6, 1] = projection.means[1]
    with pytest.raises(ArtifactError, match=r"recording r6 .*layer 1.*equal the corpus mean"):
        _build(corpus, features=features, projection=projection)


def test_features_must_fit_the_rows_and_the_projection(corpus: Corpus) -> None:
    found = rf"shape \({N}, {LAYERS}, {DIMS}\)"
    with pytest.raises(ArtifactError, match=rf"{found}, expected \({N - 1}, layers, {DIMS}\): one"):
        _build(corpus, rows=recording_rows(N - 1))
    for wrong in (corpus.features[:, :, :-1], corpus.features[:, 0]):
        with pytest.raises(ArtifactError, match=rf"expected \({N}, layers, {DIMS}\)"):
            _build(corpus, features=wrong)
    with pytest.raises(ArtifactError, match="layer 2 does not exist; the features have 0-1"):
        _build(corpus, features=corpus.features[:, :2])


def _resolved(layers: Mapping[str, Any]) -> dict[str, Any]:
    entries = {
        name: {"resolved": True, "sources": ["probed"], "layer": n, "r2": 0.5}
        for name, n in layers.items()
    }
    return {"min_r2": 0.3, "aspects": entries}


LAYER_OF = {name: layer for name, (layer, _) in ASPECTS.items()}


@pytest.mark.parametrize(
    "aspects",
    [
        _resolved({**LAYER_OF, "tempo": 2}),
        _resolved({**LAYER_OF, "rubato": 1}),
        _resolved({name: layer for name, layer in LAYER_OF.items() if name != "tempo"}),
        {"min_r2": 0.3},
    ],
    ids=["other layer", "one more", "one less", "none"],
)
def test_an_aspect_map_of_other_aspects_than_the_projection_is_refused(
    aspects: dict[str, Any], corpus: Corpus
) -> None:
    with pytest.raises(ArtifactError, match=r"the aspect map has resolved .*projection has"):
        _build(corpus, aspects=aspects)
    _build(corpus, aspects=_resolved(LAYER_OF))


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        {"tempo": []},
        {"tempo": {}},
        {"tempo": {"resolved": True, "layer": 0}},
        {"tempo": {"resolved": 1, "layer": 0, "r2": 0.5}},
        {"tempo": {"resolved": True, "layer": "0", "r2": 0.5}},
        {"tempo": {"resolved": True, "layer": 0, "r2": True}},
    ],
)
def test_a_malformed_aspect_map_is_refused(wrong: Any, corpus: Corpus) -> None:
    with pytest.raises(ArtifactError, match="the aspect map is malformed"):
        _build(corpus, aspects={"aspects": wrong})


@pytest.mark.parametrize("wrong", [np.float32(1), float("nan"), object()])
def test_facts_and_aspects_must_be_builtins(wrong: object, corpus: Corpus) -> None:
    with pytest.raises(ArtifactError, match="facts must be finite builtins"):
        _build(corpus, facts={"x": wrong})
    with pytest.raises(ArtifactError, match="aspects must be finite builtins"):
        _build(corpus, aspects={**ASPECT_MAP, "x": wrong})


def test_facts_are_a_copy(corpus: Corpus) -> None:
    facts: dict[str, Any] = {"encoder": {"name": "small"}}
    index = _build(corpus, facts=facts)
    facts["encoder"]["name"] = "other"
    assert index.facts == {"encoder": {"name": "small"}}
