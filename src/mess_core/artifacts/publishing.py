"""Publishing to a folder or to S3, and opening what was published.

A *location* is a folder or ``s3://bucket/prefix``. What is published there lies in
``{location}/{dataset}/{kind}/``: one folder per version, which never changes, and ``latest.json``,
which names the current one and is replaced last, in one step. A reader sees the old version or the
new one, complete; old versions stay.
"""

__all__ = ["load_latest", "load_published", "publish", "publish_to_folder", "published_datasets"]

import re
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mess_core.artifacts import s3
from mess_core.artifacts.artifact import (
    FILES,
    load_artifact,
    settle,
    temporary_folder,
    verify_artifact,
    verify_kept,
)
from mess_core.artifacts.index import Index
from mess_core.artifacts.pointer import POINTER, Pointer, parse_pointer
from mess_core.errors import ArtifactError
from mess_core.files import atomic_path, file_sha256, write_bytes

_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


def publish(artifact_dir: Path, destination: str, *, client: Any = None) -> dict[str, Any]:
    """Publish an artifact and make it the latest of its dataset and kind.

    Parameters
    ----------
    artifact_dir : Path
        A folder as `save_artifact` writes it; its facts must name the ``dataset``.
    destination : str
        A folder, or ``s3://bucket/prefix``.
    client : boto3 S3 client, optional
        For S3 only; else one from the environment.

    Returns
    -------
    dict
        ``location``, ``artifact_version_id``, ``manifest_sha256``, and ``pointer_moved``: False
        when this version was the latest already.

    Raises
    ------
    ArtifactError
        If the artifact is damaged or names no dataset, or as `publish_to_folder` and
        `upload_artifact_to_s3`.
    """
    manifest = verify_artifact(artifact_dir)
    dataset, kind = manifest["facts"].get("dataset"), manifest["kind"]
    if not isinstance(dataset, str) or not _SAFE_NAME.fullmatch(dataset):
        raise ArtifactError(
            f"{artifact_dir}: its facts name the dataset {dataset!r}; publishing needs a name of "
            "letters, digits, '.', '_', '+' and '-'"
        )
    place = _in_s3(destination)
    if place is None:
        return publish_to_folder(artifact_dir, Path(destination) / dataset / kind)
    bucket, prefix = place
    return s3.upload_artifact_to_s3(
        artifact_dir, bucket, f"{prefix}/{dataset}/{kind}", client=client
    )


def _in_s3(location: str) -> tuple[str, str] | None:
    if "://" not in location:
        return None
    parts = urlsplit(location)
    if parts.scheme != "s3" or not parts.netloc:
        raise ArtifactError(f"{location!r} is neither a folder nor of the form s3://bucket/prefix")
    return parts.netloc, parts.path.strip("/")


def publish_to_folder(artifact_dir: Path, folder: Path) -> dict[str, Any]:
    """Copy an artifact into a folder of versions and make it the latest.

    Parameters
    ----------
    artifact_dir : Path
        A folder as `save_artifact` writes it.
    folder : Path
        Where versions of this dataset and kind lie. Made when missing.

    Returns
    -------
    dict
        As `publish`.

    Raises
    ------
    ArtifactError
        If the artifact, its copy, or a version that is there already is damaged.
    """
    version_id = str(verify_artifact(artifact_dir)["artifact_version_id"])
    target = folder / version_id
    if target.exists():
        verify_kept(target)
    else:
        with temporary_folder(folder) as temporary:
            for name in FILES:
                with atomic_path(temporary / name) as path:
                    shutil.copyfile(artifact_dir / name, path)
            verify_artifact(temporary, version_id=version_id)
            settle(temporary, target)
    pointer = Pointer(version_id, file_sha256(target / FILES[-1]))
    path = folder / POINTER
    moved = not (path.exists() and pointer.is_said_by(path.read_bytes()))
    if moved:
        write_bytes(path, pointer.to_bytes())
    return {
        "location": str(folder),
        "artifact_version_id": version_id,
        "manifest_sha256": pointer.manifest_sha256,
        "pointer_moved": moved,
    }


def load_latest(folder: Path) -> Index:
    """Load the version that a folder's pointer names.

    Parameters
    ----------
    folder : Path
        As for `publish_to_folder`.

    Returns
    -------
    Index

    Raises
    ------
    ArtifactError
        If nothing was published there, or what was is damaged.
    """
    path = folder / POINTER
    if not path.exists():
        raise ArtifactError(f"{path} does not exist: nothing was published there")
    pointer = parse_pointer(path.read_bytes(), path)
    return load_artifact(
        folder / pointer.artifact_version_id,
        version_id=pointer.artifact_version_id,
        manifest_sha256=pointer.manifest_sha256,
    )


def load_published(
    location: str, dataset: str, kind: str, *, cache_dir: Path, client: Any = None
) -> Index:
    """Load the latest index of a dataset from a published location.

    Parameters
    ----------
    location : str
        A folder, or ``s3://bucket/prefix``.
    dataset : str
        One of `published_datasets`.
    kind : str
        ``recordings`` or ``clips``.
    cache_dir : Path
        Where versions from S3 are kept.
    client : boto3 S3 client, optional
        For S3 only; else one from the environment.

    Returns
    -------
    Index

    Raises
    ------
    ArtifactError
        If nothing was published there, or what was is damaged.
    """
    place = _in_s3(location)
    if place is None:
        return load_latest(Path(location) / dataset / kind)
    bucket, prefix = place
    return s3.load_latest_from_s3(bucket, f"{prefix}/{dataset}/{kind}", cache_dir, client=client)


def published_datasets(location: str, *, client: Any = None) -> list[str]:
    """Return the names of the datasets at a published location, sorted.

    Raises
    ------
    ArtifactError
        If the location cannot be read.
    """
    place = _in_s3(location)
    if place is not None:
        return s3.list_folders_in_s3(*place, client=client)
    folder = Path(location)
    return sorted({p.parent.parent.name for p in folder.glob(f"*/*/{POINTER}")})
