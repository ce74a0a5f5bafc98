"""How every result was made: one JSON record per job.

The record of ``data/X`` is ``data/provenance/X.json``; a job with several outputs leaves the same
record for each. Features and targets, of which shards hold thousands, have theirs at the shard's
receipt. A record never decides what runs.
"""

__all__ = ["code", "find_record", "libraries", "machine", "now", "versions", "write_record"]

import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mess_core import stages
from mess_core.errors import StorageError
from mess_core.files import file_sha256, read_json, write_json
from mess_core.layout import PROVENANCE, Layout

#: Libraries that can change a result, by the module that shows that a process has used one.
LIBRARIES = {"faiss": "faiss-cpu"} | {
    name: name
    for name in (
        *("anyascii", "boto3", "matplotlib", "midirenderer", "mido", "mlflow", "numpy"),
        *("openvino", "pretty_midi", "safetensors", "scipy", "snakemake", "soundfile"),
        *("threadpoolctl", "torch", "torchaudio", "transformers"),
    )
}

_ROOT = Path(__file__).parents[3]
_PASSWORD = re.compile(r"//[^/@\s\"]+@")


def now() -> str:
    """Return the time in UTC, as ISO 8601 to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@cache
def code() -> dict[str, Any]:
    """Return what identifies this package's code.

    That is its ``version``, and of a checkout ``commit`` and ``changed``, the files below src and
    workflow that differ from it; both are None where there is no checkout or no git.
    """
    facts: dict[str, Any] = {"version": _version("mess-core"), "commit": None, "changed": None}
    if (_ROOT / "Snakefile").is_file():
        with suppress(OSError, subprocess.SubprocessError):
            facts["commit"] = _git("rev-parse", "HEAD").strip()
            status = _git("status", "--porcelain", "--", "src", "workflow", "Snakefile")
            facts["changed"] = [line[3:] for line in status.splitlines()]
    return facts


def _git(*arguments: str) -> str:
    # Git must neither wait for locks nor take any.
    done = subprocess.run(
        ["git", "-C", str(_ROOT), *arguments],
        env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        capture_output=True,
        text=True,
        check=True,
        timeout=10,
    )
    return done.stdout


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def libraries() -> dict[str, str | None]:
    """Return the versions of those of `LIBRARIES` that this process has imported."""
    return {name: _version(name) for module, name in LIBRARIES.items() if module in sys.modules}


def versions() -> dict[str, str]:
    """Return the versions of Python, this package and `LIBRARIES`, as far as they are installed."""
    found = {name: _version(name) for name in ("mess-core", *LIBRARIES.values())}
    return {"python": platform.python_version()} | {n: v for n, v in found.items() if v}


@cache
def machine() -> dict[str, str]:
    """Return Python's version and the platform; nothing that names the machine."""
    system = f"{platform.system()} {platform.release()} {platform.machine()}"
    return {"python": platform.python_version(), "platform": system}


def write_record(
    layout: Layout, *, outputs: Iterable[Path], inputs: Iterable[Path] = (), **said: Any
) -> None:
    """Write the record of a job that has succeeded; ``said`` is what else is known, of builtins.

    Raises `StorageError` if an output is missing, or a record cannot be written.
    """
    made, read = list(outputs), [*inputs, layout.table]
    missing = [path for path in made if not path.is_file()]
    if missing:
        raise StorageError(f"{missing[0]} does not exist, although its job has ended; run it again")
    manifest = layout.features_manifest
    record = {
        **said,
        "ended": now(),
        "outputs": {str(path): file_sha256(path) for path in made},
        "inputs": {str(path): file_sha256(path) for path in read if path.is_file()},
        "encoder": read_json(manifest)["encoder"] if manifest.is_file() else None,
        "stages": {name.lower(): getattr(stages, name) for name in stages.__all__},
        "code": said.get("code") or code(),
        "libraries": libraries(),
        "machine": machine(),
    }
    # No passwords of addresses such as that of MLflow's server.
    cleaned = json.loads(_PASSWORD.sub("//***@", json.dumps(record)))
    for path in made:
        write_json(_path(layout.data, path), cleaned)


def _path(data: Path, output: Path) -> Path:
    with suppress(ValueError):
        output = output.absolute().relative_to(data.absolute())
    return data / PROVENANCE / f"{str(output).lstrip('/')}.json"


def find_record(path: Path) -> dict[str, Any]:
    """Return the record of the job that made a result, which may be a single recording's.

    Raises `StorageError` if there is none.
    """
    path = Path(os.path.normpath(path.absolute()))
    data = next((p for p in path.parents if (p / PROVENANCE).is_dir()), None)
    if data is None:
        raise StorageError(
            f"{path} lies in no data folder of the workflow: no record says how it was made"
        )
    for output in (path, *_receipts_of(path)):
        record_path = _path(data, output)
        if record_path.is_file():
            record: dict[str, Any] = read_json(record_path)
            return record
    raise StorageError(
        f"no record says how {path} was made: it is no result of the workflow, or was made by an "
        "older version; delete it and let snakemake make it again"
    )


def _receipts_of(path: Path) -> Iterable[Path]:
    """Give the receipts that may tell of a file: of its shard, its index or its decompositions."""
    name = path.stem.removesuffix("_targets")
    for folder in list(path.parents)[:3]:
        for receipt in sorted((folder / "shards").glob("*.json")):
            if name in read_json(receipt).get("recordings", ()):
                yield receipt
        yield folder / "receipt.json"
