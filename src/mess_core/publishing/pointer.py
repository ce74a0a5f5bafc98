"""``latest.json``: which version of a published index is the current one."""

__all__ = ["POINTER", "Pointer", "parse_pointer"]

import json
import uuid
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mess_core.errors import ArtifactError
from mess_core.index.artifact import is_version_id

POINTER = "latest.json"


@dataclass(frozen=True, slots=True)
class Pointer:
    """What ``latest.json`` says. Two are equal when they name the same version.

    Attributes
    ----------
    artifact_version_id : str
        The folder, or key prefix, beside the pointer.
    manifest_sha256 : str
        Of the manifest's bytes as they were published.
    removing : tuple of str
        Versions that are being pruned: nobody may make one of them the latest meanwhile.
    published : str
        When this version became the latest (ISO 8601).
    """

    artifact_version_id: str
    manifest_sha256: str
    removing: tuple[str, ...] = field(default=(), compare=False)
    published: str = field(default="", compare=False)

    def to_bytes(self) -> bytes:
        """Return the pointer file's content, which no other call returns.

        Otherwise who compared and swapped could take a pointer that moved away and back for one
        that never moved.
        """
        now = datetime.now(UTC).isoformat(timespec="seconds")
        said = {**asdict(self), "published": self.published or now, "move": uuid.uuid4().hex}
        return (json.dumps(said, indent=2) + "\n").encode()


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
        ids = (parsed["artifact_version_id"], parsed["manifest_sha256"])
        removing = tuple(parsed.get("removing", ()))
        well_formed = all(is_version_id(digits) for digits in ids + removing)
        published = str(parsed.get("published", ""))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ArtifactError(f"{path} is no pointer ({error!r}); publish again") from None
    if not well_formed:
        raise ArtifactError(f"{path} names no version by 64 hexadecimal digits; publish again")
    return Pointer(*ids, removing, published)
