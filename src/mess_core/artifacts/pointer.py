"""``latest.json``: which version of a published index is the current one."""

__all__ = ["POINTER", "Pointer", "parse_pointer"]

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mess_core.artifacts.artifact import is_version_id
from mess_core.errors import ArtifactError

POINTER = "latest.json"


@dataclass(frozen=True, slots=True)
class Pointer:
    """What ``latest.json`` says.

    Attributes
    ----------
    artifact_version_id : str
        The folder, or key prefix, beside the pointer.
    manifest_sha256 : str
        Of the manifest's bytes as they were published.
    """

    artifact_version_id: str
    manifest_sha256: str

    def is_said_by(self, content: bytes) -> bool:
        """Return whether a pointer file says this; a damaged one says nothing."""
        try:
            return parse_pointer(content, POINTER) == self
        except ArtifactError:
            return False

    def to_bytes(self) -> bytes:
        """Return the pointer file's content, with the time of now."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return (json.dumps({**asdict(self), "published": now}, indent=2) + "\n").encode()


def parse_pointer(content: bytes, path: Path | str) -> Pointer:
    """Read a pointer.

    Parameters
    ----------
    content : bytes
        The content of ``latest.json``.
    path : Path or str
        Where it came from, for messages.

    Raises
    ------
    ArtifactError
        If it is not JSON, or does not name a version by 64 hexadecimal digits.
    """
    try:
        parsed: Any = json.loads(content)
        pointer = Pointer(parsed["artifact_version_id"], parsed["manifest_sha256"])
        well_formed = all(is_version_id(digits) for digits in asdict(pointer).values())
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ArtifactError(f"{path} is no pointer ({error!r}); publish again") from None
    if not well_formed:
        raise ArtifactError(f"{path} names no version by 64 hexadecimal digits; publish again")
    return pointer
