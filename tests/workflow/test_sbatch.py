"""What the Slurm profile gives to sbatch for every rule, seen without Slurm.

Stub programs stand in for Slurm's. Their cluster has done every job at once: sbatch writes its
arguments down and makes all files of the workflow (empty), and squeue calls every job completed,
but for the first attempts of a rule that is to fail.
"""

import json
import os
import re
import shutil
import sys
from argparse import ArgumentParser
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from mess_core.recordings import write_recordings
from tests.workflow.conftest import ROOT, Workspace
from tests.workflow.rules import Request, requests
from tests.workflow.test_plan import RECORDINGS

pytestmark = [pytest.mark.integration, pytest.mark.slow]

PROFILE = ROOT / "profiles" / "slurm"
QUICK = ("--slurm-init-seconds-before-status-checks", "1", "--latency-wait", "1")

_SBATCH = """\
import json, pathlib, re, sys
here = pathlib.Path(__file__).parent
with (here / "submitted").open("a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
print(len((here / "submitted").read_text().splitlines()))
job = sys.argv[sys.argv.index("--comment") + 1].removeprefix("rule_").replace("_wildcards_", "/")
benchmark = "data/benchmarks/demo/" + re.sub(r"_(\\d+)$", r"/\\1", job) + ".tsv"
for name in [*(here / "outputs").read_text().splitlines(), benchmark]:
    path = pathlib.Path(name)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
"""
_SQUEUE = """\
import json, pathlib
here = pathlib.Path(__file__).parent
calls = [json.loads(line) for line in (here / "submitted").open()]
failing = (here / "failing").read_text()
first = [n for n, c in enumerate(calls) if failing and f"rule_{failing}_" in str(c)][:1]
for number in range(len(calls)):
    print(f"{number + 1}|" + ("TIMEOUT" if number in first else "COMPLETED"))
"""
_SCONTROL = 'print("MinJobAge = 300 sec\\nMaxArraySize = 1001")'


@dataclass(frozen=True)
class Submitted:
    """One call of sbatch."""

    rule: str
    partition: str
    request: Request
    options: tuple[str, ...]


def _parsed(line: str) -> Submitted:
    parser = ArgumentParser(allow_abbrev=False)
    for short, long in (("-p", "--partition"), ("-t", "--time"), ("-A", "--account")):
        parser.add_argument(short, long)
    for name in ("comment", "mem", "cpus-per-task", "gpus", "ntasks", "job-name", "output"):
        parser.add_argument(f"--{name}")
    found, others = parser.parse_known_args(json.loads(line))
    request = Request(
        int(found.cpus_per_task),
        int(found.mem),
        int(found.time),
        int((found.gpus or "0").split(":")[-1]),
    )
    rule = found.comment.removeprefix("rule_").split("_wildcards_")[0]
    for name in ("gpus", "account"):
        others += [f"--{name}={getattr(found, name)}"] if getattr(found, name) else []
    return Submitted(rule, found.partition, request, tuple(others))


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A table of recordings that are nowhere, and a Slurm that has already done everything."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, text in {
        "sbatch": _SBATCH,
        "squeue": _SQUEUE,
        "scontrol": _SCONTROL,
        # As without accounting.
        "sacct": "raise SystemExit(1)",
        "sacctmgr": "raise SystemExit(1)",
        "sshare": "",
    }.items():
        (programs / name).write_text(f"#!{sys.executable} -ES\n{text}")
        (programs / name).chmod(0o755)
    config: dict[str, Any] = {
        "targets": ["spectral_centroid", "onset_density"],
        "tracking": {"uri": "sqlite:///data/mlflow.db"},
        "shards": 2,
        "probing": {"baselines": ["untrained", "descriptors"]},
    }
    path = f"{programs}:{os.environ['PATH']}"
    workspace = Workspace(tmp_path, config, {"PATH": path})
    write_recordings(workspace.data / "metadata" / "demo.tsv", RECORDINGS)
    (workspace.data / "metadata" / "demo.interpretations.tsv").touch()
    return workspace


def _all_outputs(workspace: Workspace) -> list[str]:
    """Return every output of the workflow."""
    summary = workspace.snakemake("--summary")
    assert summary.status == 0, summary.output[-3000:]
    rows = [line.split("\t") for line in summary.output.splitlines() if line.count("\t") > 3]
    return [row[0] for row in rows[1:]]


def submit(
    workspace: Workspace,
    *arguments: str,
    failing: str = "",
    profile: str = "slurm",
    **changes: Any,
) -> list[Submitted]:
    """Run everything, or what is asked for, on the stub cluster and return the calls of sbatch."""
    workspace = replace(workspace, config={**workspace.config, **changes})
    programs = workspace.folder / "programs"
    (programs / "outputs").write_text("\n".join(_all_outputs(workspace)))
    (programs / "failing").write_text(failing)
    outcome = workspace.snakemake(*arguments, *QUICK, "--forceall", profile=profile)
    assert outcome.status == 0, outcome.output[-3000:]
    return [_parsed(line) for line in (programs / "submitted").read_text().splitlines()]


def test_every_rule_asks_for_what_it_says_and_extraction_alone_for_a_gpu(
    workspace: Workspace,
) -> None:
    calls = submit(workspace)
    expected = requests()
    # No rule of `all` trains.
    assert expected.pop("train").gpus == 1
    assert {call.rule for call in calls} == set(expected)
    for call in calls:
        rule = call.rule
        assert call.request == expected[rule], call
        extracts = rule in ("features", "counterfactuals")
        assert call.partition == ("gpu" if extracts else "cpu"), call
        assert ("--gpus=1" in call.options) == extracts, call


def test_a_copy_of_the_profile_reaches_all_shards_and_a_killed_job_asks_for_more(
    workspace: Workspace,
) -> None:
    """With what the profile shows in comments, and a line more."""
    copy = workspace.folder / "our cluster"
    shutil.copytree(PROFILE, copy)
    text = (copy / "profile.yaml").read_text()
    text = re.sub(r"^# (?=(  )*[a-z_]+(-[a-z]+)?:( |$))", "", text, flags=re.MULTILINE)
    text = text.replace("  features:\n", "  targets:\n    slurm_partition: other\n  features:\n", 1)
    (copy / "profile.yaml").write_text(text)
    shards = [f"data/embeddings/demo-emb/shards/{shard}.json" for shard in "01"]
    calls = submit(
        workspace,
        *shards,
        "data/proxy_targets/demo/shards/0.json",
        failing="features",
        profile=str(copy),
    )
    for call in calls:
        assert {"--qos=normal", "--account=my_project"} <= set(call.options)
    extraction = [call for call in calls if call.rule == "features"]
    first = [call for call in extraction if call.request == Request(4, 16_000, 480, 1)]
    again = [call for call in extraction if call.request == Request(4, 32_000, 960, 1)]
    assert (len(first), len(again), len(extraction)) == (2, 1, 3)
    for call in extraction:
        assert (call.partition, "--gpus=a100:1" in call.options) == ("gpu-long", True)
    (targets,) = (call for call in calls if call.rule == "targets")
    assert (targets.partition, targets.request) == ("other", requests()["targets"])
    assert not any(option.startswith("--gpus") for option in targets.options)


def test_an_encoder_on_the_cpu_asks_for_no_gpu(workspace: Workspace) -> None:
    shard = "data/embeddings/demo-emb/shards/0.json"
    calls = submit(workspace, shard, device="cpu")
    (call,) = (call for call in calls if call.rule == "features")
    assert (call.partition, call.request.gpus) == ("cpu", 0)
    assert not any(option.startswith("--gpus") for option in call.options)
