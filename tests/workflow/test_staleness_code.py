"""Only what is stale runs again when code has changed: a stage's number, a script, a registry."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from mess_core.files import read_json
from mess_core.layout import Layout
from tests.workflow.conftest import ROOT, Workspace
from tests.workflow.small import (
    ANSWERS,
    CONFIG,
    DOWNSTREAM,
    FEATURES,
    INDEXED,
    TARGETS,
    finished,
    planned,
    rules_that_ran,
    run,
)

pytestmark = [pytest.mark.integration, pytest.mark.slow]

#: What runs when a stage's number goes up.
STAGES = {
    "FEATURES": FEATURES | DOWNSTREAM,
    "TARGETS": TARGETS | DOWNSTREAM,
    "DECOMPOSITION": DOWNSTREAM,
    "PROBING": DOWNSTREAM - {"decomposition"},
    "ASPECTS": ANSWERS,
    "QUESTIONS": {"question", "report"},
    "PROJECTION": {"projection"} | INDEXED,
    "INDEX": INDEXED,
    "PUBLISH": {"publish"},
    "VALIDITY": {"validity", "report"},
    "REPORT": {"report"},
}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return finished(tmp_path_factory.mktemp("code"))  # which each test leaves finished again


def with_line(workspace: Workspace, folder: Path, module: str, line: str) -> Workspace:
    """Return the workspace with a line more at the end of a module, in a copy of the package."""
    if not (folder / "mess_core").exists():
        shutil.copytree(ROOT / "src" / "mess_core", folder / "mess_core")
    with (folder / "mess_core" / module).open("a") as file:
        file.write(f"\n{line}\n")
    return replace(workspace, environment={"PYTHONPATH": str(folder)})


def test_a_stages_number_reaches_what_follows_from_it(workspace: Workspace, tmp_path: Path) -> None:
    for stage, expected in STAGES.items():
        line = f"{stage} += 1000"
        changed = with_line(workspace, tmp_path / stage, "stages.py", line)
        assert planned(changed) == expected, stage
        together = with_line(workspace, tmp_path / "all", "stages.py", line)
    everything = set().union(*STAGES.values())
    ran, computed = run(together)
    assert (ran, len(computed)) == (everything, 5 * 12)
    assert run(workspace) == (everything, [])


def test_a_script_that_changes_runs_its_own_rule_and_what_follows(
    workspace: Workspace, tmp_path: Path
) -> None:
    for name in ("workflow", "profiles", "config", "envs"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "Snakefile", tmp_path)
    copied = replace(workspace, root=tmp_path)
    run(copied)
    assert planned(copied) == set()
    script = tmp_path / "workflow" / "scripts" / "index.py"
    script.write_text(script.read_text() + "\n# another word\n")
    assert planned(copied) == INDEXED
    run(workspace)


def test_a_new_target_runs_its_own_jobs_only(workspace: Workspace, tmp_path: Path) -> None:
    """With a registry line and a function more, in a copy of the package."""
    spec = '"loudest", "timbre", "scalar", "audio", "dBFS", "the loudest moment"'
    line = f'TARGETS["loudest"] = TargetSpec({spec})'
    function = "def loudest(loudness):\n    return float(np.nanmax(loudness))"
    changed = with_line(workspace, tmp_path, "targets/registry.py", line)
    changed = with_line(changed, tmp_path, "targets/timbre.py", f"\n{function}")
    changed = replace(changed, config={**CONFIG, "targets": [*CONFIG["targets"], "loudest"]})
    outcome = changed.snakemake()
    assert outcome.status == 0, outcome.output[-3000:]
    ran = rules_that_ran(outcome.output)
    told = {"question", "validity", "report"}
    assert set(ran) == TARGETS | told | {"probing", "all"}
    # Which layer, and how stable: nothing that was known of aspects and rows has changed.
    assert (ran["probing"], ran["question"]) == (1, 2)
    assert Layout(workspace.data, "mine").probe("loudest").exists()
    assert planned(changed, **changed.config) == set()
    ran_again, computed = run(workspace)
    assert (ran_again, computed) == ({"targets"} | told, [])


def test_a_new_aspect_measures_and_probes_nothing(workspace: Workspace, tmp_path: Path) -> None:
    line = (
        'ASPECT_REGISTRY["glitter"] = '
        'Aspect("glitter", "How much of the sound lies very high", ("spectral_centroid",))'
    )
    newer = with_line(workspace, tmp_path, "probing/aspects.py", line)
    assert run(newer) == (ANSWERS, [])
    assert "glitter" in read_json(Layout(workspace.data, "mine").aspects)["aspects"]
    assert run(workspace) == (ANSWERS, [])
