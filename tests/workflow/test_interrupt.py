"""A run that is stopped leaves nothing half done, and the next one goes on where it was."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from mess_core.files import read_json
from mess_core.layout import VIEWS, Layout
from tests.workflow.conftest import ROOT, Workspace, listen_to_ctrl_c

pytestmark = [pytest.mark.integration, pytest.mark.slow]

#: How long something that must happen may take, in seconds.
PATIENCE_S = 300
TARGETS = ("tempo", "onset_density", "velocity_mean", "velocity_std", "rubato", "dynamic_range")


@pytest.fixture
def workspace(demo: Workspace, tmp_path: Path) -> Workspace:
    """A copy of the finished demo run."""
    folder = tmp_path / "run"
    shutil.copytree(demo.folder, folder, symlinks=True)
    return Workspace(folder, demo.config)


@pytest.fixture
def layout(workspace: Workspace) -> Layout:
    return Layout(workspace.data, "demo")


@contextmanager
def running(workspace: Workspace, *targets: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Run the workflow in a process group of its own, as a shell does."""
    command = [
        *(sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")),
        *("--cores", "2", "--configfile", "config.yaml"),
        *("--workflow-profile", str(ROOT / "profiles" / "ci"), "--", *targets),
    ]
    with (workspace.folder / "output.txt").open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=workspace.folder,
            env={**os.environ, "PWD": str(workspace.folder)},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=listen_to_ctrl_c,
        )
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_until(true: Callable[[], bool], process: "subprocess.Popen[bytes] | None" = None) -> None:
    end = time.monotonic() + PATIENCE_S
    while not true():
        assert process is None or process.poll() is None, "it ended before it could be stopped"
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def group_is_gone(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


def states(paths: list[Path]) -> dict[str, tuple[int, int]]:
    """Return what changes when files are written again."""
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in paths}


def leftovers(workspace: Workspace) -> list[Path]:
    locks = (workspace.folder / ".snakemake" / "locks").glob("*")
    return [*locks, *(p for p in workspace.data.rglob(".tmp-*") if "locks" not in p.parts)]


def stored_features(layout: Layout) -> list[Path]:
    return sorted((layout.cache / "features").glob("*/*.npy"))


def test_ctrl_c_during_extraction_loses_the_recordings_in_flight_only(
    workspace: Workspace, layout: Layout
) -> None:
    # No features, neither as outputs nor in the cache.
    for folder in (layout.cache / "features", *map(layout.embeddings.joinpath, VIEWS[1:])):
        shutil.rmtree(folder)
    receipt = layout.receipt("features", "0")
    names = list(read_json(receipt)["recordings"])
    receipt.unlink()
    files = [str(receipt.relative_to(workspace.folder))]
    with running(workspace, *files) as process:
        wait_until(lambda: len(stored_features(layout)) >= 6, process)
        # From a terminal, Ctrl-C goes to all processes of the group.
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(PATIENCE_S) != 0
        wait_until(lambda: group_is_gone(process.pid))
    done = states(stored_features(layout))
    assert 6 <= len(done) < 2 * len(names), "it was stopped on the way"
    assert leftovers(workspace) == []
    assert "Traceback" not in (workspace.folder / "output.txt").read_text()
    for path in layout.embeddings.glob("*/*.npy"):
        np.load(path)
    outcome = workspace.snakemake("--", *files)
    assert outcome.status == 0, outcome.output[-3000:]
    assert done.items() <= states(stored_features(layout)).items()
    report = read_json(layout.extraction_report("0"))
    assert len(report["computed"]) + len(report["kept"]) == len(names)
    whole = {path.name.split(".")[0] for path in stored_features(layout)} & {
        name.split(".")[0] for name in done
    }
    # Both views of what is kept were stored before.
    assert 2 * len(report["kept"]) <= len(whole) <= 2 * len(report["kept"]) + 1


def probes(layout: Layout) -> list[Path]:
    return [path for target in TARGETS if (path := layout.probe(target)).is_file()]


def finished(workspace: Workspace) -> int:
    """Return how many jobs Snakemake has seen the end of."""
    return (workspace.folder / "output.txt").read_text().count("Finished jobid")


def has_gone_on(workspace: Workspace) -> bool:
    """Tell whether Snakemake has seen the end of a job and started the next.

    It says "Finished jobid" while it holds the lock that its handler of SIGTERM takes: a signal
    right then hangs it (Snakemake 9.27, `JobScheduler.exit_gracefully`).
    """
    return (workspace.folder / "output.txt").read_text().count("Execute ") >= 2


def without_probes(layout: Layout) -> list[str]:
    for target in TARGETS:
        layout.probe(target).unlink()
    return [f"data/probing/demo/{target}.json" for target in TARGETS]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_stopping_during_probing_keeps_what_is_finished(
    workspace: Workspace, layout: Layout, number: signal.Signals
) -> None:
    known = {target: layout.probe(target).read_bytes() for target in TARGETS}
    files = without_probes(layout)
    with running(workspace, *files) as process:
        wait_until(lambda: has_gone_on(workspace), process)
        if number == signal.SIGINT:
            os.killpg(process.pid, number)
        else:
            # Whoever ends a job by its number (a batch system, `kill`) tells Snakemake alone.
            process.send_signal(number)
        process.wait(PATIENCE_S)
        wait_until(lambda: group_is_gone(process.pid))
    assert len(probes(layout)) < len(TARGETS), "it was stopped on the way"
    assert leftovers(workspace) == []
    for path in probes(layout):
        assert path.read_bytes() == known[path.stem]
    done = states(probes(layout))
    outcome = workspace.snakemake("--", *files)
    assert outcome.status == 0, outcome.output[-3000:]
    # What Snakemake has not seen the end of is made again, whether it was whole or not.
    assert len(done.items() & states(probes(layout)).items()) >= finished(workspace)
    assert {target: layout.probe(target).read_bytes() for target in TARGETS} == known


def test_after_kill_9_it_has_to_be_unlocked_and_then_goes_on(
    workspace: Workspace, layout: Layout
) -> None:
    known = {target: layout.probe(target).read_bytes() for target in TARGETS}
    files = without_probes(layout)
    with running(workspace, *files) as process:
        wait_until(lambda: len(probes(layout)) >= 1, process)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(PATIENCE_S)
        wait_until(lambda: group_is_gone(process.pid))
    locked = workspace.snakemake("--", *files)
    assert locked.status != 0
    assert "--unlock" in locked.output
    assert workspace.snakemake("--unlock").status == 0
    outcome = workspace.snakemake("--", *files)
    assert outcome.status == 0, outcome.output[-3000:]
    assert {target: layout.probe(target).read_bytes() for target in TARGETS} == known
