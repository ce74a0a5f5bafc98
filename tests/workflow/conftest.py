"""Running the real workflow in a folder of its own."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

ROOT = Path(__file__).parents[2]
SHARED_DATA = ROOT.parent / "shared" / "data"


@dataclass(frozen=True)
class Outcome:
    """How a command ended, with all that it printed."""

    status: int
    output: str


@dataclass(frozen=True)
class Workspace:
    """A folder in which a checkout's workflow is run with one configuration and environment."""

    folder: Path
    config: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    root: Path = ROOT

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def snakemake(self, *arguments: str, profile: str = "ci") -> Outcome:
        """Run Snakemake on this project's Snakefile, with one of its profiles."""
        return finish(self.start(*arguments, profile=profile))

    def start(self, *arguments: str, profile: str = "ci") -> "subprocess.Popen[str]":
        """Start what `snakemake` runs, and do not wait for its end."""
        (self.folder / "config.yaml").write_text(json.dumps(dict(self.config)))
        command = [
            *("-m", "snakemake", "--snakefile", str(self.root / "Snakefile")),
            *("--configfile", "config.yaml"),
            *("--workflow-profile", str(self.root / "profiles" / profile)),
        ]
        return self._start([*command, *arguments])

    def mess(self, *arguments: str) -> Outcome:
        """Run the command line."""
        return finish(self._start(["-m", "mess_core.cli.main", *arguments]))

    def run_midi(self, files: Sequence[Path], table: Sequence[str]) -> None:
        """Render MIDI to ``audio/``, scan a table of it as the configured dataset, run it all."""
        (self.folder / "table.tsv").write_text("".join(f"{line}\n" for line in table))
        for outcome in (
            self.mess("render", *map(str, files), "--output", "audio"),
            self.mess("recordings", "--table", "table.tsv", "--name", self.config["dataset"]),
            self.snakemake(),
        ):
            assert outcome.status == 0, outcome.output[-5000:]

    def _start(self, arguments: Sequence[str]) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, *arguments],
            cwd=self.folder,
            env={**os.environ, "PWD": str(self.folder), **self.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=listen_to_ctrl_c,
        )


def listen_to_ctrl_c() -> None:
    """Undo that a job in a shell's background ignores Ctrl-C, and so do all that it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def finish(process: "subprocess.Popen[str]") -> Outcome:
    """Wait for the end of what was started."""
    output, _ = process.communicate()
    return Outcome(process.returncode, output)


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The demo corpus with the workflow run to its end: once for all processes, a copy for each."""
    base = tmp_path_factory.getbasetemp()
    first = Workspace((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "first demo")
    with FileLock(f"{first.folder}.lock"):
        if not (first.folder / "done").exists():
            first.folder.mkdir(exist_ok=True)
            for outcome in (first.mess("recordings", "demo"), first.snakemake()):
                assert outcome.status == 0, outcome.output[-5000:]
            (first.folder / "done").touch()
    workspace = Workspace(tmp_path_factory.mktemp("demo") / "run")
    shutil.copytree(first.folder, workspace.folder, symlinks=True)
    return workspace
