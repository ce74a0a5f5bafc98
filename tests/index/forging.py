"""Artifacts as a forger would make them: every hash agrees, the content is impossible."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mess_core.errors import ArtifactError
from mess_core.files import file_sha256, fingerprint, read_json
from mess_core.index.artifact import CONTENT, verify_artifact

Change = Callable[[dict[str, Any]], None]


def nothing(_: dict[str, Any]) -> None:
    """Change nothing."""


def put_json(path: Path, content: Any) -> None:
    """Write as `mess_core.files.write_json`, but faster: not flushed to the disk."""
    path.write_text(json.dumps(content, indent=2) + "\n")


def reseal(folder: Path, change: Change = nothing) -> None:
    """Change the manifest and make every hash agree again."""
    manifest = read_json(folder / "manifest.json")
    checksums = {
        name: {"sha256": file_sha256(folder / name), "size": (folder / name).stat().st_size}
        for name in CONTENT
    }
    put_json(folder / "checksums.json", checksums)
    del manifest["sha256"]
    if isinstance(manifest["aspects"], dict):
        manifest["aspects_sha256"] = fingerprint(manifest["aspects"])
    change(manifest)
    outside = ("build", "artifact_version_id")
    described = {key: value for key, value in manifest.items() if key not in outside}
    if "artifact_version_id" in manifest:
        manifest["artifact_version_id"] = fingerprint(
            {"manifest": described, "checksums": checksums}
        )
    put_json(folder / "manifest.json", {**manifest, "sha256": fingerprint(manifest)})


def setting(**entries: object) -> Change:
    """Return a change that sets entries; those set to `...` are left out."""

    def change(manifest: dict[str, Any]) -> None:
        manifest.update(entries)
        for name in [name for name, value in entries.items() if value is ...]:
            del manifest[name]

    return change


def no_faiss(*_: object) -> None:
    """Stand in for ``faiss.read_index``, which must not be called."""
    raise AssertionError("FAISS read a file that had not been proved")


def check_refused(folder: Path, match: str) -> None:
    """Make sure that nothing is opened, for a reason."""
    with pytest.raises(ArtifactError, match=match):
        verify_artifact(folder)
