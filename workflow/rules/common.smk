"""Functions of the rules. Read at every parse, by every job: nothing heavy, no folder is scanned."""

import os
import subprocess
import sys
from pathlib import Path

import yaml

from mess_core import stages
from mess_core.config import Settings, check_keys
from mess_core.errors import MessError
from mess_core.layout import INDEX_KINDS
from mess_core.planning import Plan
from mess_core.recordings import judge, problem_lines, read_recordings
from mess_core.targets.registry import scalar_targets


def read_settings():
    """Validate the configuration, fill in defaults, and return it typed."""
    schema = Path(workflow.basedir, "workflow", "schemas", "config.schema.yaml")
    try:
        check_keys(config, yaml.safe_load(schema.read_text()))
        validate(config, str(schema))
        return Settings.from_config(config)
    except MessError as error:
        raise WorkflowError(str(error))


def read_plan():
    """Return the plan, or None as long as there is no recording table."""
    if not SETTINGS.layout.table.exists():
        if workflow.is_main_process:
            print(
                f"{SETTINGS.layout.table} does not exist yet: this run makes it and then goes on. "
                "Single results can be asked for when it is there.",
                file=sys.stderr,
            )
        return None
    try:
        plan = Plan.read(SETTINGS)
        plan.spec
    except MessError as error:
        raise WorkflowError(str(error))
    if len(plan.recordings) < 2:
        raise WorkflowError(
            f"{SETTINGS.layout.table} has {len(plan.recordings)} usable recordings of at least "
            f"{SETTINGS.window_s:g} s, 2 are needed; see {SETTINGS.layout.problems}"
        )
    return plan


def table_stamp():
    """Return what shows that the recording table was written."""
    table = SETTINGS.layout.table
    return table.stat().st_mtime_ns if table.exists() else None


def dataset_files():
    """Return what must exist before the dataset can be scanned."""
    return [str(SETTINGS.layout.demo_truth)] if SETTINGS.dataset == "demo" else []


def log_file(*parts):
    return str(Path("logs", SETTINGS.dataset, *parts).with_suffix(".log"))


def benchmark_file(*parts):
    return str(
        SETTINGS.data.joinpath("benchmarks", SETTINGS.dataset, *parts).with_suffix(
            ".tsv"
        )
    )


def strings(paths):
    return [str(path) for path in paths]


def shard_receipts(kind):
    return strings(SETTINGS.layout.receipt(kind, shard) for shard in PLAN.shards)


def all_files(kind):
    files = PLAN.feature_files if kind == "features" else PLAN.target_files
    return [str(path) for shard in PLAN.shards for path in files(shard)]


def results():
    """Return every result that users rely on, but for what the last rules make."""
    probes = [SETTINGS.layout.probe(target) for target in SETTINGS.targets]
    indices = [SETTINGS.layout.index(kind) for kind in INDEX_KINDS]
    files = [*all_files("features"), *all_files("targets")]
    return [*files, *strings([*probes, SETTINGS.layout.aspects, *indices])]


def probing_params(wildcards):
    return PLAN.probing_params(wildcards.target)


def index_params(wildcards):
    return PLAN.index_params(wildcards.kind)


def gpu_count(wildcards):
    """Return 0 where the encoder is told to run on the CPU, so that no GPU is asked for."""
    return 0 if SETTINGS.device == "cpu" else 1


def more_memory(mebibytes):
    """Return a resource function that asks for more with every attempt."""

    def mem_mb(wildcards, attempt):
        return mebibytes * attempt

    return mem_mb


def more_time(minutes):
    """Return a resource function that asks for more with every attempt."""

    def runtime(wildcards, attempt):
        return minutes * attempt

    return runtime


def report_problems():
    """Say at the end of a run which recordings could not be used, and why."""
    if not SETTINGS.layout.table.exists():
        return
    rows = judge(read_recordings(SETTINGS.layout.table), SETTINGS.window_s)
    lines = problem_lines(rows)
    if lines:
        print(f"\n{len(lines)} recordings have problems ({SETTINGS.layout.problems}):")
        print("\n".join(lines))


def continue_with_new_table():
    """Run the workflow again when this run has written the table that it plans from; say if it did."""
    if table_stamp() == STAMP:
        return False
    print(
        f"\n{SETTINGS.layout.table} is written; planning what follows from it.\n",
        flush=True,
    )
    again = [sys.executable, "-m", "snakemake", *sys.argv[1:], "--nolock"]
    # Relative paths among the arguments start where Snakemake was called, which --directory has left.
    moved = any(arg.startswith(("--directory", "-d")) for arg in sys.argv)
    started = os.environ.get("PWD") if moved else None
    status = subprocess.run(again, cwd=started).returncode
    if status:
        raise WorkflowError(f"the second part of the run failed with status {status}")
    return True
