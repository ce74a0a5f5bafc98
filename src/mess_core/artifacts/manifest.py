"""What an artifact says of itself: ``manifest.json`` and ``checksums.json``.

The manifest has ``schema_version``, ``kind``, ``metric``, ``factory`` (FAISS's name of the index),
``n_rows``, ``n_recordings``, ``layers``, ``dims`` (of the encoder), ``width`` (of a stored vector),
``general`` (of its general block), ``blocks`` (coordinates of each aspect), ``facts`` (dataset,
licence of the data, encoder with its weights' hash, stage versions, ...), ``aspects`` (the aspect
map) and ``aspects_sha256``, ``build`` (time and library versions), ``artifact_version_id`` and
``sha256``, a seal over all the rest.

``artifact_version_id`` is the SHA-256 of the checksums and of the manifest without ``build``:
saving the same index again, on any day and machine, gives the same id. Both files have one
canonical form, so that any changed byte is found.
"""

__all__ = [
    "CONTENT",
    "FILES",
    "METRIC",
    "SCHEMA_VERSION",
    "expect",
    "is_version_id",
    "json_object",
    "parse_checksums",
    "parse_manifest",
    "seal",
    "version_id_of",
]

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mess_core.errors import ArtifactError
from mess_core.files import fingerprint

#: What an index is made of.
CONTENT = ("index.faiss", "rows.npy", "recordings.json", "predicted.npy", "projection.npz")
#: Every file, in the order of sending: a version with a manifest is complete.
FILES = (*CONTENT, "checksums.json", "manifest.json")

SCHEMA_VERSION = 2
METRIC = "inner_product"

_VERSION_ID = re.compile(r"[0-9a-f]{64}")
_OUTSIDE = ("build", "artifact_version_id", "sha256")


def is_version_id(text: str) -> bool:
    """Return whether ``text`` has the form of a version id: 64 hexadecimal digits."""
    return _VERSION_ID.fullmatch(text) is not None


def seal(
    described: Mapping[str, Any], checksums: Mapping[str, Any], libraries: Mapping[str, str]
) -> dict[str, Any]:
    """Add to a description what makes it a manifest."""
    unsealed = {
        **described,
        "schema_version": SCHEMA_VERSION,
        "metric": METRIC,
        "aspects_sha256": fingerprint(dict(described["aspects"])),
    }
    identified = {
        **unsealed,
        "build": {
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "libraries": dict(libraries),
        },
        "artifact_version_id": version_id_of(unsealed, checksums),
    }
    return {**identified, "sha256": fingerprint(identified)}


def version_id_of(manifest: Mapping[str, Any], checksums: Mapping[str, Any]) -> str:
    """Return the hash of what an artifact is, whenever and by whatever it was built."""
    described = {key: value for key, value in manifest.items() if key not in _OUTSIDE}
    return fingerprint({"manifest": described, "checksums": checksums})


def expect(path: Path | str, what: str, *, expected: object, found: object) -> None:
    """Refuse what is not as it should be.

    Raises
    ------
    ArtifactError
        If ``found`` does not equal ``expected``.
    """
    if expected != found:
        raise ArtifactError(
            f"{path}: {what} is {found}, expected {expected}; the artifact is damaged or was "
            "altered: fetch or build it again"
        )


def json_object(content: bytes, path: Path | str) -> dict[str, Any]:
    """Parse a JSON object.

    Raises
    ------
    ArtifactError
        If it is none.
    """
    try:
        parsed = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} is damaged: it is not JSON ({error})") from None
    if not isinstance(parsed, dict):
        raise ArtifactError(f"{path} holds a {type(parsed).__name__}, expected an object")
    return parsed


def _canonical(content: bytes, path: Path | str) -> dict[str, Any]:
    parsed = json_object(content, path)
    # As `files.write_json` writes it.
    if (json.dumps(parsed, indent=2) + "\n").encode() != content:
        raise ArtifactError(f"{path} is damaged: it is not in the form that save_artifact writes")
    return parsed


def parse_manifest(content: bytes, path: Path | str) -> dict[str, Any]:
    """Read a manifest and check its seal and the form of its entries.

    Parameters
    ----------
    content : bytes
        The content of ``manifest.json``.
    path : Path or str
        Where it came from, for messages.

    Raises
    ------
    ArtifactError
        If it is damaged, of another schema version, or describes an impossible index.
    """
    manifest = _canonical(content, path)
    schema = manifest.get("schema_version")
    if schema != SCHEMA_VERSION:
        raise ArtifactError(
            f"{path} has schema version {schema!r}, this package reads {SCHEMA_VERSION}; "
            "use the version of mess-core that wrote it, or a newer one, or build the index again"
        )
    unsealed = {key: value for key, value in manifest.items() if key != "sha256"}
    expect(path, "sha256", expected=fingerprint(unsealed), found=manifest.get("sha256"))
    problem = _problem(manifest)
    if problem:
        raise ArtifactError(f"{path}: {problem}")
    aspects = fingerprint(manifest["aspects"])
    expect(path, "aspects_sha256", expected=aspects, found=manifest.get("aspects_sha256"))
    return manifest


def _problem(manifest: Mapping[str, Any]) -> str | None:
    if manifest.get("metric") != METRIC:
        return f"metric is {manifest.get('metric')!r}, expected {METRIC!r}"
    for key in ("n_rows", "n_recordings", "dims", "width", "general"):
        if type(manifest.get(key)) is not int or manifest[key] < 1:
            return f"{key} is {manifest.get(key)!r}, expected a positive integer"
    for key in ("facts", "aspects", "build", "blocks"):
        if not isinstance(manifest.get(key), dict):
            return f"{key} is {manifest.get(key)!r}, expected a mapping"
    for key in ("kind", "factory"):
        if not isinstance(manifest.get(key), str):
            return f"{key} is {manifest.get(key)!r}, expected a text"
    if not isinstance(manifest.get("layers"), list):
        return f"layers is {manifest.get('layers')!r}, expected a list"
    if not is_version_id(str(manifest.get("artifact_version_id"))):
        return f"artifact_version_id is {manifest.get('artifact_version_id')!r}, expected 64 digits"
    return None


def parse_checksums(content: bytes, path: Path | str) -> dict[str, dict[str, Any]]:
    """Read ``checksums.json``: SHA-256 and size in bytes of each file of `CONTENT`.

    Parameters
    ----------
    content : bytes
        The content of ``checksums.json``.
    path : Path or str
        Where it came from, for messages.

    Raises
    ------
    ArtifactError
        If it is damaged or names other files than `CONTENT`.
    """
    checksums = _canonical(content, path)
    if set(checksums) != set(CONTENT):
        raise ArtifactError(f"{path} lists {sorted(checksums)}, expected {sorted(CONTENT)}")
    for name, entry in checksums.items():
        if (
            not isinstance(entry, dict)
            or set(entry) != {"sha256", "size"}
            or not isinstance(entry["sha256"], str)
            or type(entry["size"]) is not int
        ):
            raise ArtifactError(f"{path}: the entry of {name} is {entry!r}, expected sha256, size")
    return checksums
