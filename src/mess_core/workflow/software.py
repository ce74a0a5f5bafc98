"""Which code runs here, with which libraries, on which machine. Imports nothing heavy."""

__all__ = ["LIBRARIES", "checkout", "code", "installed", "libraries", "machine", "now"]

import os
import platform
import subprocess
import sys
import tomllib
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mess_core.files import file_sha256, fingerprint

#: Libraries that can change a result, by the module that shows that a process has used one.
LIBRARIES = {
    "boto3": "boto3",
    "PIL": "pillow",
    "faiss": "faiss-cpu",
    "jinja2": "jinja2",
    "matplotlib": "matplotlib",
    "midirenderer": "midirenderer",
    "mido": "mido",
    "mlflow": "mlflow",
    "numpy": "numpy",
    "openvino": "openvino",
    "pretty_midi": "pretty_midi",
    "safetensors": "safetensors",
    "scipy": "scipy",
    "soundfile": "soundfile",
    "snakemake": "snakemake",
    "threadpoolctl": "threadpoolctl",
    "torch": "torch",
    "torchaudio": "torchaudio",
    "transformers": "transformers",
}

_PACKAGE = Path(__file__).parent
#: What decides results in a checkout; edited documents and tests do not make it another code.
_DECISIVE = ("src", "workflow", "Snakefile")
_GIT_TIMEOUT_S = 10
_OID = "# branch.oid "


def now() -> str:
    """Return the time in UTC, as ISO 8601 to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@cache
def code() -> dict[str, Any]:
    """Return what identifies the code of this package, as it was when first asked in the process.

    Returns
    -------
    dict
        ``version`` of the package; ``sha256`` over its source files and, in a checkout, those of
        the workflow; ``commit`` of git and ``changed`` (files below src and workflow that differ
        from it or are unknown to it), both None where there is no checkout or no git.
    """
    root = checkout()
    commit, changed = _git(root) if root else (None, None)
    return {
        "version": _version(root),
        "commit": commit,
        "changed": changed,
        "sha256": _sources(root),
    }


def checkout() -> Path | None:
    """Return the root of the checkout that this package runs from, None where it is installed."""
    root = _PACKAGE.parents[1]
    return root if (root / "Snakefile").is_file() and _PACKAGE.parent.name == "src" else None


def _version(root: Path | None) -> str:
    # An editable install's metadata are as old as the install.
    if root and (root / "pyproject.toml").is_file():
        return str(tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"])
    return _installed("mess-core") or "unknown"


def _sources(root: Path | None) -> str:
    files = sorted(_PACKAGE.rglob("*.py"))
    if root:
        inside = [
            path for path in (root / "workflow").rglob("*") if "__pycache__" not in path.parts
        ]
        files += sorted(path for path in (root / "Snakefile", *inside) if path.is_file())
    base = root or _PACKAGE.parent
    return fingerprint({path.relative_to(base).as_posix(): file_sha256(path) for path in files})


def _git(root: Path) -> tuple[str | None, list[str] | None]:
    """Return the commit and the changed files; git must neither wait for locks nor take any."""
    if not (root / ".git").exists():
        return None, None
    command = ["git", "-C", str(root), "status", "--porcelain=v2", "--branch", "-z", "--no-renames"]
    try:
        done = subprocess.run(
            [*command, "--", *_DECISIVE],
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
            capture_output=True,
            text=True,
            check=True,
            timeout=_GIT_TIMEOUT_S,
        )
    except (OSError, subprocess.SubprocessError):
        return None, None
    entries = done.stdout.split("\0")
    commits = [entry[len(_OID) :] for entry in entries if entry.startswith(_OID)]
    # Words before the path: changed `1 XY sub mH mI mW hH hI`, unmerged `u` (10), unknown `?` (1).
    words = {"1": 8, "u": 10, "?": 1}
    changed = [e.split(" ", words[e[0]])[-1] for e in entries if e[:1] in words]
    return commits[0] if commits else None, sorted(changed)


def libraries() -> dict[str, str]:
    """Return the versions of those of `LIBRARIES` that this process has imported."""
    imported = (name for module, name in LIBRARIES.items() if module in sys.modules)
    return {name: _installed(name) or "unknown" for name in imported}


def installed() -> dict[str, str]:
    """Return the versions of those of `LIBRARIES` that are installed, whether used or not."""
    return {name: found for name in LIBRARIES.values() if (found := _installed(name))}


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


@cache
def machine() -> dict[str, str]:
    """Return Python's version, the platform and the processor; nothing that names the machine."""
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": _processor(),
    }


def _processor() -> str:
    # platform.processor() says nothing on most Linux machines.
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
