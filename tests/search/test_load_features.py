from pathlib import Path

import numpy as np
import pytest

from mess_core.errors import DatasetError, SearchError
from mess_core.index.artifact import save_artifact
from mess_core.index.fitting import fit_projection
from mess_core.recordings import Recording, write_recordings
from mess_core.search.features import load_features
from mess_core.search.shortcuts import find_similar

pytestmark = pytest.mark.unit


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "aggregated"
    path.mkdir()
    rng = np.random.default_rng(4)
    for name in "abcd":
        np.save(path / f"{name}.npy", rng.normal(size=(3, 6)).astype(np.float32))
    return path


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "table.tsv"
    write_recordings(
        path,
        [
            Recording(n, f"w{i % 2}", "P", "C", "T", "", "", "", "", "", "", "", 12.5, "ok", "")
            for i, n in enumerate("abcde")
        ],
    )
    return path


def test_a_folder_of_features_is_searched_without_a_table(folder: Path) -> None:
    index = load_features(folder)
    assert (index.kind, index.projection.layers.tolist()) == ("recordings", [0, 1, 2])
    hits = find_similar(index, "b", k=9)
    assert {hit.recording_id for hit in hits} == {"a", "c", "d"}


def test_layers_are_chosen(folder: Path) -> None:
    one = load_features(folder, layers=[2])
    assert one.projection.layers.tolist() == [2]
    features = np.stack([np.load(folder / f"{name}.npy") for name in "abcd"])
    alone = fit_projection(lambda layer: features[:, layer], [2])
    expected, _, _ = alone.project(features[:, [2]])
    np.testing.assert_array_equal(one.stored(range(4)), expected)
    with pytest.raises(SearchError, match="layer 3 does not exist; the features have 0-2"):
        load_features(folder, layers=[3])


def test_the_table_gives_works_and_durations(folder: Path, table: Path) -> None:
    index = load_features(folder, table=table)
    assert {hit.recording_id for hit in find_similar(index, "a", exclude="work")} == {"b", "d"}
    assert (index.rows[0].title, index.rows[0].end_s) == ("T", 12.5)


def test_an_artifact_is_loaded_as_it_is(folder: Path, tmp_path: Path) -> None:
    index = load_features(folder)
    path = save_artifact(index, tmp_path / "indices")
    assert find_similar(load_features(path), "a") == find_similar(index, "a")
    with pytest.raises(SearchError, match="is an artifact"):
        load_features(path, layers=[0])


def test_what_cannot_be_indexed_is_named(folder: Path, table: Path, tmp_path: Path) -> None:
    with pytest.raises(SearchError, match="neither an artifact nor"):
        load_features(tmp_path / "nowhere")
    with pytest.raises(DatasetError, match="does not exist"):
        load_features(folder, table=tmp_path / "no.tsv")
    np.save(folder / "new.npy", np.ones((3, 6)))
    with pytest.raises(SearchError, match="recording 'new' is not in"):
        load_features(folder, table=table)
    for wrong, message in [
        (np.ones((2, 6)), r"new\.npy has shape \(2, 6\), but a\.npy has \(3, 6\)"),
        (np.ones((4, 3, 6)), r"new\.npy holds float64 of shape .*folder of aggregated"),
        (np.ones((3, 6), dtype=int), r"new\.npy holds int64"),
        (np.array([None]), r"new\.npy is no array file"),
    ]:
        np.save(folder / "new.npy", wrong)
        with pytest.raises(SearchError, match=message):
            load_features(folder)
    (folder / "new.npy").write_bytes(b"")
    with pytest.raises(SearchError, match=r"new\.npy is no array file"):
        load_features(folder)
