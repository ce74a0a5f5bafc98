"""Functions of the rules. Read at every parse, by every job: nothing heavy, no folder is scanned."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import yaml

from mess_core import stages
from mess_core.config import Settings, check_keys
from mess_core.errors import MessError
from mess_core.layout import (
    DESCRIPTORS,
    ENCODER,
    INDEX_KINDS,
    QUESTIONS,
    UNTRAINED,
)
from mess_core.planning import Plan
from mess_core.recordings import judge, problem_lines, read_recordings

#: Next to this file, whichever Snakefile includes it.
SCHEMA = Path(workflow.current_basedir.get_path_or_uri(secret_free=True)).joinpath(
    "..", "schemas", "config.schema.yaml"
)

#: Questions whose answer needs the rows themselves, not only what probing found.
ON_ROWS = ("separability", "collapse")


def read_settings():
    """Validate the configuration, fill in defaults, and return it typed."""
    try:
        check_keys(config, yaml.safe_load(SCHEMA.read_text()))
        validate(config, str(SCHEMA))
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


def variant_name(rule, plan, *shard):
    """Return a rule's name for the encoder's features or for those of its untrained twin."""
    return "_".join(filter(None, (rule, plan.settings.variant, *shard)))


def models_made_here(plan):
    return [plan.settings.encoder] if plan.original else []


def shard_receipts(plan, kind):
    return strings(plan.settings.layout.receipt(kind, shard) for shard in plan.shards)


def all_features(plan):
    return [str(path) for shard in plan.shards for path in plan.feature_files(shard)]


def all_targets():
    return [str(path) for shard in PLAN.shards for path in PLAN.target_files(shard)]


def all_decompositions(*sources):
    """Return the decompositions of all layers of some sources, by default of all."""
    return strings(
        SETTINGS.layout.decomposition(source, layer)
        for source in sources or SETTINGS.sources
        for layer in PLAN.layers(source)
    )


def probes(targets):
    return strings(SETTINGS.layout.probe(target) for target in targets)


def all_answers():
    return strings(
        SETTINGS.layout.answer(question, suffix)
        for question in QUESTIONS
        for suffix in (".tsv", ".png")
    )


def results():
    """Return every result that users rely on, but for what the last rules make."""
    indices = strings(SETTINGS.layout.index(kind) for kind in INDEX_KINDS)
    tracked = strings([SETTINGS.layout.tracked] if SETTINGS.tracking_uri else [])
    files = [
        *all_features(PLAN),
        *all_targets(),
        *probes(SETTINGS.targets),
        *all_answers(),
    ]
    projections = strings(SETTINGS.layout.projection(kind) for kind in INDEX_KINDS)
    aspects = str(SETTINGS.layout.aspects)
    return [*files, aspects, *projections, *indices, *tracked]


def decomposition_manifest(wildcards):
    """Return what shows that the rows of a layer are there."""
    if wildcards.source == DESCRIPTORS:
        return str(SETTINGS.layout.target_manifest(DESCRIPTORS))
    plan = PLAN if wildcards.source == ENCODER else PLAN.untrained
    return str(plan.settings.layout.features_manifest)


def decomposition_params(wildcards):
    return PLAN.decomposition_params(wildcards.source, int(wildcards.layer))


def probing_params(wildcards):
    return PLAN.probing_params(wildcards.target)


def question_files(wildcards):
    """Return what a question reads, and no more: a new target asks only about itself."""
    question = wildcards.question
    files = probes(PLAN.question_targets(question))
    if question == "separability":
        files.append(str(SETTINGS.layout.aspects))
    return files + (all_decompositions() if question in ON_ROWS else [])


def question_params(wildcards):
    return PLAN.question_params(wildcards.question)


def projection_params(wildcards):
    return PLAN.projection_params(wildcards.kind)


def index_params(wildcards):
    return PLAN.index_params(wildcards.kind)


def gpu_count(wildcards):
    """Return 0 where the encoder is told to run on the CPU, so that no GPU is asked for."""
    return 0 if SETTINGS.device == "cpu" else 1


def amount(recordings):
    """Return how much work recordings are, for messages."""
    hours = sum(recording.duration_s for recording in recordings) / 3600
    length = f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.1f} min"
    return f"{len(recordings):,} recordings, {length} of audio"


def features_message(plan, shard):
    encoder = "the untrained twin" if plan.original else "the encoder"
    return f"Features of {encoder}, shard {shard}: {amount(plan.shards[shard])}"


def amount_of_rows():
    """Return how many rows probing has, for messages."""
    return f"{PLAN.n_rows:,} {SETTINGS.rows}"


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


def run_to_its_end(command, folder):
    """Run a command and return its status; what is meant to stop this process stops it too."""
    child = subprocess.Popen(command, cwd=folder)
    before = signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    try:
        while True:
            try:
                return child.wait()
            except KeyboardInterrupt:
                # Ctrl-C has reached it as well. Killing it now would keep it from cleaning up.
                continue
    finally:
        signal.signal(signal.SIGTERM, before)


def continue_with_new_table():
    """Run the workflow again when this run has written the table that it plans from; say if it did."""
    if table_stamp() == STAMP:
        return False
    print(
        f"\n{SETTINGS.layout.table} is written; planning what follows from it.\n",
        flush=True,
    )
    # Options first: among the arguments may be a -- with files behind it.
    again = [sys.executable, "-m", "snakemake", "--nolock", *sys.argv[1:]]
    # Relative paths among the arguments start where Snakemake was called, which --directory has left.
    moved = any(arg.startswith(("--directory", "-d")) for arg in sys.argv)
    started = os.environ.get("PWD") if moved else None
    status = run_to_its_end(again, started)
    if status:
        raise WorkflowError(f"the second part of the run failed with status {status}")
    return True
