from dataclasses import replace
from pathlib import Path

import pytest

from mess_core.errors import ArtifactError
from mess_core.files import read_json, write_json
from mess_core.index.artifact import CONTENT, save_artifact
from mess_core.index.index import Index
from mess_core.publishing.publish import (
    load_latest,
    load_published,
    publish,
    publish_to_folder,
    published_datasets,
)

pytestmark = pytest.mark.unit


def _latest(folder: Path) -> str:
    load_latest(folder)
    return str(read_json(folder / "latest.json")["artifact_version_id"])


def test_a_published_artifact_is_the_latest_and_old_versions_stay(
    artifact: Path, other_artifact: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "published"
    receipt = publish_to_folder(artifact, folder)
    assert receipt["artifact_version_id"] == artifact.name == _latest(folder)
    assert receipt["pointer_moved"]
    publish_to_folder(other_artifact, folder)
    assert _latest(folder) == other_artifact.name
    names = {artifact.name, other_artifact.name, "latest.json"}
    assert {path.name for path in folder.iterdir() if path.name[0] != "."} == names
    publish_to_folder(artifact, folder)
    assert _latest(folder) == artifact.name


def test_publishing_again_changes_nothing(artifact: Path, tmp_path: Path) -> None:
    folder = tmp_path / "published"
    publish_to_folder(artifact, folder)
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.rglob("*") if p.is_file()}
    assert not publish_to_folder(artifact, folder)["pointer_moved"]
    after = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.rglob("*") if p.is_file()}
    assert after == before


def test_the_same_content_built_elsewhere_keeps_the_manifest_that_was_published(
    artifact: Path, index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_to_folder(artifact, tmp_path / "published")
    monkeypatch.setattr("faiss.__version__", "99")
    elsewhere = save_artifact(index, tmp_path / "elsewhere")
    assert not publish_to_folder(elsewhere, tmp_path / "published")["pointer_moved"]
    assert _latest(tmp_path / "published") == artifact.name


def test_a_damaged_artifact_is_not_published(
    artifact: Path, other_artifact: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "published"
    publish_to_folder(artifact, folder)
    (other_artifact / CONTENT[1]).write_text("{}")
    with pytest.raises(ArtifactError, match=CONTENT[1]):
        publish_to_folder(other_artifact, folder)
    assert _latest(folder) == artifact.name


def test_a_copy_that_is_damaged_on_its_way_keeps_the_pointer_where_it_is(
    artifact: Path, other_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "published"
    publish_to_folder(artifact, folder)

    def damage(_: Path, target: Path) -> Path:
        target.write_bytes(b"")
        return target

    with monkeypatch.context() as patched:
        patched.setattr("shutil.copyfile", damage)
        with pytest.raises(ArtifactError, match="damaged"):
            publish_to_folder(other_artifact, folder)
    assert _latest(folder) == artifact.name
    assert {path.name for path in folder.iterdir()} == {artifact.name, "latest.json", ".lock"}
    publish_to_folder(other_artifact, folder)
    assert _latest(folder) == other_artifact.name


def test_a_damaged_published_version_is_neither_kept_nor_loaded(
    artifact: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "published"
    publish_to_folder(artifact, folder)
    (folder / artifact.name / CONTENT[1]).write_text("{}")
    with pytest.raises(ArtifactError, match=r"delete this one, then publish again"):
        publish_to_folder(artifact, folder)
    with pytest.raises(ArtifactError, match=CONTENT[1]):
        load_latest(folder)


@pytest.mark.parametrize(
    "pointer",
    [
        "",
        "[]",
        "{}",
        '{"artifact_version_id": 1, "manifest_sha256": 2}',
        '{"artifact_version_id": "../../etc", "manifest_sha256": "../x"}',
    ],
)
def test_a_pointer_that_is_none_is_refused_and_replaced_by_publishing_again(
    pointer: str, tmp_path: Path, artifact: Path
) -> None:
    (tmp_path / "latest.json").write_text(pointer)
    with pytest.raises(ArtifactError, match=r"latest\.json .*publish again"):
        load_latest(tmp_path)
    publish_to_folder(artifact, tmp_path)
    assert _latest(tmp_path) == artifact.name


def test_a_pointer_to_nothing_or_to_another_manifest_is_refused(
    artifact: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "published"
    with pytest.raises(ArtifactError, match="nothing was published there"):
        load_latest(folder)
    publish_to_folder(artifact, folder)
    pointer = read_json(folder / "latest.json")
    write_json(folder / "latest.json", {**pointer, "manifest_sha256": "0" * 64})
    with pytest.raises(ArtifactError, match=r"manifest\.json: sha256"):
        load_latest(folder)
    write_json(folder / "latest.json", {**pointer, "artifact_version_id": "0" * 64})
    with pytest.raises(ArtifactError, match="is not a folder"):
        load_latest(folder)


def test_a_location_holds_datasets_and_kinds(artifact: Path, tmp_path: Path) -> None:
    location = tmp_path / "published"
    assert published_datasets(str(location)) == []
    publish(artifact, str(location))
    assert published_datasets(str(location)) == ["planted"]
    index = load_published(str(location), "planted", "recordings", cache_dir=tmp_path / "unused")
    assert index.facts["dataset"] == "planted"
    with pytest.raises(ArtifactError, match="nothing was published there"):
        load_published(str(location), "planted", "clips", cache_dir=tmp_path / "unused")
    assert not (tmp_path / "unused").exists()


@pytest.mark.parametrize("dataset", [None, "", "../up", "a/b", ".hidden", 3])
def test_a_dataset_without_a_safe_name_is_not_published(
    dataset: object, index: Index, tmp_path: Path
) -> None:
    unnamed = replace(index, facts={"dataset": dataset})
    path = save_artifact(unnamed, tmp_path / "unnamed")
    with pytest.raises(ArtifactError, match="its dataset or kind is"):
        publish(path, str(tmp_path / "published"))


@pytest.mark.parametrize("location", ["https://host/bucket", "s3:///prefix"])
def test_other_kinds_of_location_are_refused(location: str, artifact: Path) -> None:
    with pytest.raises(ArtifactError, match="neither a folder nor of the form s3://"):
        publish(artifact, location)
