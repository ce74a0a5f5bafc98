"""What an artifact says of itself: ``manifest.json`` and ``checksums.json``.

The manifest has ``schema_version``, ``kind``, ``metric``, ``factory`` (FAISS's name of the index),
``n_rows``, ``n_recordings``, ``layers``, ``dims`` (of the encoder), ``width`` (of a stored vector),
``general`` (of its general block), ``blocks`` (coordinates of each aspect), ``facts`` (dataset,
licence of the data, encoder with its weights' hash, stage versions, ...), ``aspects`` (the aspect
map) and ``aspects_sha256``, ``build`` (time, code, library versions, machine, and what the
workflow adds: configuration and hashes of the data), ``artifact_version_id`` and ``sha256``, a seal
over all the rest.

``artifact_version_id`` is the SHA-256 of the checksums and of the manifest without ``build``:
saving the same index again, on any day and machine and by any code, gives the same id. Both files
have one canonical form (but for the order of keys), so that any changed byte is found. The seal is
a hash, not a signature: it tells damage, and whoever can write all files can make another. Who
published a version is what the pointer's hash of the manifest, and the store's permissions, are
for.
"""

__all__ = [
    "CONTENT",
    "FILES",
    "LARGEST_JSON",
    "METRIC",
    "SCHEMA_VERSION",
    "expect",
    "is_version_id",
    "json_object",
    "parse_checksums",
    "parse_manifest",
    "read_limited",
    "seal",
    "shortened",
    "version_id_of",
]

import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mess_core.errors import ArtifactError
from mess_core.files import fingerprint
from mess_core.layout import INDEX_KINDS
from mess_core.workflow.software import now

#: What an index is made of.
CONTENT = ("index.faiss", "rows.npy", "recordings.json", "predicted.npy", "projection.npz")
#: Every file, in the order of sending: a version with a manifest is complete.
FILES = (*CONTENT, "checksums.json", "manifest.json")

SCHEMA_VERSION = 2
METRIC = "inner_product"

#: Bytes that ``manifest.json`` and ``checksums.json`` may have; they have some thousand.
LARGEST_JSON = 16 * 2**20
#: How deeply they may be nested: less than what Python's own limit on recursion lets through.
_DEEPEST = 64
#: Characters of a value that a message shows.
_SHOWN = 200

_VERSION_ID = re.compile(r"[0-9a-f]{64}")
_OUTSIDE = ("build", "artifact_version_id", "sha256")


def is_version_id(text: str) -> bool:
    """Return whether ``text`` has the form of a version id: 64 hexadecimal digits."""
    return _VERSION_ID.fullmatch(text) is not None


def seal(
    described: Mapping[str, Any], checksums: Mapping[str, Any], build: Mapping[str, Any]
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
        "build": {"created": now(), **build},
        "artifact_version_id": version_id_of(unsealed, checksums),
    }
    return {**identified, "sha256": fingerprint(identified)}


def version_id_of(manifest: Mapping[str, Any], checksums: Mapping[str, Any]) -> str:
    """Return the hash of what an artifact is, whenever and by whatever it was built."""
    described = {key: value for key, value in manifest.items() if key not in _OUTSIDE}
    return fingerprint({"manifest": described, "checksums": checksums})


def read_limited(path: Path, limit: int) -> bytes:
    """Read a whole file, unless it is larger than anything of its name can be.

    Raises
    ------
    ArtifactError
        If it has more than ``limit`` bytes; then none of them is read.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise ArtifactError(
                f"{path} has {size:,} bytes, at most {limit:,} are read into memory; fetch or "
                "build the artifact again"
            )
        return file.read(size)


def shortened(value: object) -> str:
    """Return a value as text for a message, which what is damaged must not fill."""
    text = str(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}... ({len(text):,} characters)"


def expect(path: Path | str, what: str, *, expected: object, found: object) -> None:
    """Refuse what is not as it should be.

    Raises
    ------
    ArtifactError
        If ``found`` does not equal ``expected``.
    """
    if expected != found:
        raise ArtifactError(
            f"{path}: {what} is {shortened(found)}, expected {shortened(expected)}; the artifact "
            "is damaged or was altered: fetch or build it again"
        )


def json_object(content: bytes, path: Path | str) -> dict[str, Any]:
    """Parse a strict JSON object: UTF-8, finite numbers, no key twice.

    Raises
    ------
    ArtifactError
        If it is none.
    """
    try:
        parsed = json.loads(
            content.decode(), object_pairs_hook=_distinct, parse_constant=_no_constant
        )
    except (ValueError, RecursionError) as error:
        raise ArtifactError(
            f"{path} is damaged: it is not strict JSON ({shortened(error)}); fetch or build the "
            "artifact again"
        ) from None
    if not isinstance(parsed, dict):
        raise ArtifactError(f"{path} holds a {type(parsed).__name__}, expected an object")
    return parsed


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) < len(pairs):
        raise ValueError("a key occurs twice")
    return entries


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _check_canonical(parsed: Mapping[str, Any], content: bytes, path: Path | str) -> None:
    """Refuse what `files.write_json` would have written otherwise."""
    # In that form what is nested is indented, by two spaces a level.
    too_deep = b"\n" + b"  " * _DEEPEST in content
    try:
        canonical = not too_deep and (json.dumps(parsed, indent=2) + "\n").encode() == content
        # JSON can hold halves of characters, which nobody could print.
        json.dumps(parsed, ensure_ascii=False).encode()
    except (RecursionError, UnicodeEncodeError):
        canonical = False
    if not canonical:
        raise ArtifactError(
            f"{path} is damaged: it is not in the form that save_artifact writes (nested less than "
            f"{_DEEPEST} deep, of whole characters); fetch or build the artifact again"
        )


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
    manifest = json_object(content, path)
    schema = manifest.get("schema_version")
    if type(schema) is not int or schema != SCHEMA_VERSION:
        raise ArtifactError(
            f"{path} has schema version {shortened(repr(schema))}, this package reads "
            f"{SCHEMA_VERSION}; use the version of mess-core that wrote it, or build the index "
            "again with this one"
        )
    _check_canonical(manifest, content, path)
    unsealed = {key: value for key, value in manifest.items() if key != "sha256"}
    expect(path, "sha256", expected=fingerprint(unsealed), found=manifest.get("sha256"))
    expect(path, "the list of entries", expected=sorted(_FORMS), found=sorted(manifest))
    for key, (fits, form) in _FORMS.items():
        if not fits(manifest[key]):
            raise ArtifactError(
                f"{path}: {key} is {shortened(repr(manifest[key]))}, expected {form}"
            )
    aspects = fingerprint(manifest["aspects"])
    expect(path, "aspects_sha256", expected=aspects, found=manifest["aspects_sha256"])
    return manifest


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and is_version_id(value)


def _is_count(value: object, least: int = 1) -> bool:
    return type(value) is int and least <= value < 2**48


def _is_mapping(value: object) -> bool:
    return isinstance(value, dict)


def _are_layers(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) > 0
        and all(_is_count(layer, 0) for layer in value)
        and len(set(value)) == len(value)
    )


def _are_blocks(value: object) -> bool:
    return isinstance(value, dict) and all(_is_count(size) for size in value.values())


_DIGEST = (_is_digest, "64 hexadecimal digits")
_COUNT = (_is_count, "a positive integer below 2^48")
_MAPPING = (_is_mapping, "a mapping")

#: Every entry of a manifest: what it must fulfil, and that in words.
_FORMS: Mapping[str, tuple[Callable[[object], bool], str]] = {
    "schema_version": _COUNT,
    "kind": (lambda value: value in INDEX_KINDS, " or ".join(INDEX_KINDS)),
    "metric": (lambda value: value == METRIC, METRIC),
    "factory": (lambda value: isinstance(value, str) and 0 < len(value) < 100, "FAISS's name"),
    "n_rows": _COUNT,
    "n_recordings": _COUNT,
    "layers": (_are_layers, "distinct numbers from 0, at least one"),
    "general_layers": (_are_layers, "distinct numbers from 0, at least one"),
    "dims": _COUNT,
    "width": _COUNT,
    "general": _COUNT,
    "blocks": (_are_blocks, "a positive integer for each aspect"),
    "facts": _MAPPING,
    "aspects": _MAPPING,
    "aspects_sha256": _DIGEST,
    "build": _MAPPING,
    "artifact_version_id": _DIGEST,
    "sha256": _DIGEST,
}


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
    checksums = json_object(content, path)
    _check_canonical(checksums, content, path)
    if set(checksums) != set(CONTENT):
        raise ArtifactError(f"{path} lists {shortened(list(checksums))}, expected {list(CONTENT)}")
    for name, entry in checksums.items():
        if not _is_checksum(entry):
            raise ArtifactError(
                f"{path}: the entry of {name} is {shortened(entry)}, expected sha256 and size"
            )
    return checksums


def _is_checksum(entry: object) -> bool:
    return (
        isinstance(entry, dict)
        and set(entry) == {"sha256", "size"}
        and _is_digest(entry["sha256"])
        and _is_count(entry["size"])
    )
