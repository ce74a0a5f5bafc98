"""Functions of the rules. Read at every parse, by every job: nothing heavy, no folder is scanned."""

import ctypes
import io
import os
import signal
import subprocess
import sys
from contextlib import redirect_stderr
from itertools import chain, takewhile
from pathlib import Path

from snakemake.cli import parse_args

from mess_core import stages
from mess_core.workflow.config import Settings
from mess_core.datasets.lookup import DatasetFactory
from mess_core.errors import MessError, nearest
from mess_core.files import file_sha256
from mess_core.layout import (
    ANSWERS,
    DESCRIPTORS,
    ENCODER,
    INDEX_KINDS,
    PAGES,
    QUESTIONS,
    UNTRAINED,
)
from mess_core.workflow.plan import Plan
from mess_core.recordings import judge, problem_lines, read_recordings

#: Of <sys/prctl.h>.
PR_SET_PDEATHSIG = 1

#: How many recordings with problems are named at the end of a run.
SHOWN = 20

#: Questions whose answer needs the rows themselves, not only what probing found.
ON_ROWS = ("separability", "collapse")


def read_settings():
    """Check the configuration, and return it complete and typed."""
    try:
        settings = Settings.from_config(config)
    except MessError as error:
        raise WorkflowError(str(error))
    # Jobs and their records get it complete: `config["device"]`, `config["probing.n_folds"]`.
    config.update(settings.by_key)
    return settings


def read_plan():
    """Return the plan, or None as long as there is no recording table that this run can make."""
    if not SETTINGS.layout.table.exists():
        if workflow.is_main_process:
            announce_table()
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


def announce_table():
    """Say that this run makes the recording table first; refuse where it cannot."""
    table, dataset = SETTINGS.layout.table, SETTINGS.dataset
    if dataset not in DatasetFactory.get_available_datasets():
        try:
            DatasetFactory.get_dataset(dataset)
        except MessError as error:
            raise WorkflowError(f"{table} does not exist, and {error}")
    if not ASKED:
        print(
            f"{table} does not exist yet: this run makes it and then goes on.",
            file=sys.stderr,
        )


def asked_for():
    """Return the rules and files that Snakemake was called with, files as the layout spells them."""
    program = Path(sys.argv[0])
    ours = "snakemake" in (program.name, program.parent.name)
    if not (ours and workflow.is_main_process):
        return frozenset()
    with redirect_stderr(io.StringIO()):  # It tells anew which profile it reads.
        _, arguments = parse_args(sys.argv[1:])
    return frozenset(
        name if os.path.isabs(name) else os.path.relpath(name)
        for name in arguments.targets
    )


def refuse_unknown(asked):
    """Say which names are near when something was asked for that no rule makes."""
    rules = {each.name: each for each in workflow.rules}
    for name in asked:
        rule_of_name = rules.get(name)
        if rule_of_name is None and PLAN is None:
            raise WorkflowError(
                f"{name} can be asked for by name when there is a recording table; ask for "
                f"{SETTINGS.layout.table} first, or for nothing, which makes everything"
            )
        if rule_of_name and rule_of_name.has_wildcards():
            raise WorkflowError(several(rule_of_name))
        if not (rule_of_name or any(each.is_producer(name) for each in rules.values())):
            raise WorkflowError(f"no rule makes {name}; {near(name, rules)}")


def several(asked):
    """Return what to ask for instead of something that makes several files."""
    made = list(filter(asked.is_producer, results()))
    together = [
        name for name, files in collections().items() if set(made) <= set(files)
    ]
    names = [*made[:2], *together[:1]]
    return f"{asked.name} makes {len(made)} files; ask for one of them, or for all: {', '.join(names)}"


def near(name, rules):
    """Return a hint with the names that resemble one: of files in the same folder, or of all."""
    if os.path.isabs(name):
        return f"ask for it from the working folder, as {os.path.relpath(name)}"
    known, folder = [*rules, *results()], os.path.dirname(name)
    for plan, kind in (*((p, "features") for p in PLAN.extractions), (PLAN, "targets")):
        files = [path for s in plan.shards for path in shard_files(plan, kind, s)]
        known += [path for path in files if os.path.dirname(path) == folder]
    beside = [path for path in known if folder and os.path.dirname(path) == folder]
    return nearest(name, beside or known)


def table_stamp():
    """Return what shows that the recording table is another one: with --forceall each run writes it."""
    table = SETTINGS.layout.table
    # A cluster's job makes no plan anew.
    wanted = workflow.is_main_process and table.exists()
    return file_sha256(table) if wanted else None


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


def shards_here(plan, kind):
    """Return the shards whose rules this process needs, which for a cluster's job is its own."""
    if "--allowed-rules" not in sys.argv:
        return list(plan.shards)
    allowed = takewhile(
        lambda word: not word.startswith("-"),
        sys.argv[sys.argv.index("--allowed-rules") + 1 :],
    )
    names = {variant_name(kind, plan, shard): shard for shard in plan.shards}
    return [names[rule] for rule in allowed if rule in names]


def shard_receipts(plan, kind):
    return strings(plan.settings.layout.receipt(kind, shard) for shard in plan.shards)


def shard_files(plan, kind, shard):
    return plan.feature_files(shard) if kind == "features" else plan.target_files(shard)


def missing_files(plan, kind):
    """Return the files, by shard, that are gone although their shard was finished.

    A cluster's job does not ask: what it has to make, the process that submitted it knows.
    """
    if not workflow.is_main_process:
        return {}
    return plan.missing_features if kind == "features" else plan.missing_targets


def to_make(plan, kind, shard):
    """Return the files of a shard that are missing, or that were asked for by name.

    Snakemake plans with receipts: the files of 100,000 recordings would take it minutes and
    gigabytes. It is told of a file only when something is to be done about it.
    """
    asked = ASKED.intersection(shard_files(plan, kind, shard)) if ASKED else ()
    return sorted({*missing_files(plan, kind).get(shard, ()), *asked})


def repairs(plans, kind):
    missing = chain(*(missing_files(plan, kind).values() for plan in plans))
    return list(chain(*missing))


def decompositions(*sources):
    """Return the receipts of the decompositions of some sources, by default of all."""
    return strings(
        SETTINGS.layout.decomposition_receipt(source)
        for source in sources or SETTINGS.sources
    )


def probes(targets):
    return strings(SETTINGS.layout.probe(target) for target in targets)


def target_manifests():
    return strings(
        SETTINGS.layout.target_manifest(target) for target in SETTINGS.targets
    )


def all_answers():
    return strings(
        SETTINGS.layout.answer(question, suffix)
        for question in ANSWERS
        for suffix in (".tsv", ".png")
    )


def collections():
    """Return the results that users rely on, by the name of the rule that asks for all of them."""
    layout = SETTINGS.layout
    features = [shard_receipts(plan, "features") for plan in PLAN.extractions]
    return {
        "features": [*chain(*features), *repairs(PLAN.extractions, "features")],
        "targets": [
            *shard_receipts(PLAN, "targets"),
            *repairs([PLAN], "targets"),
        ],
        "probes": [*probes(SETTINGS.targets), str(layout.aspects)],
        "answers": all_answers()
        + strings([layout.tracked] if SETTINGS.tracking_uri else []),
        "projections": strings(layout.projection(kind) for kind in INDEX_KINDS),
        "indices": strings(layout.index(kind) for kind in INDEX_KINDS),
        "pages": strings(layout.page(name) for name in PAGES),
    }


def results():
    """Return every result that users rely on, but for what the last rule makes."""
    return list(chain(*collections().values()))


def decomposition_manifest(wildcards):
    """Return what shows that the rows of a layer are there."""
    if wildcards.source == DESCRIPTORS:
        return str(SETTINGS.layout.target_manifest(DESCRIPTORS))
    plan = PLAN if wildcards.source == ENCODER else PLAN.untrained
    return str(plan.settings.layout.features_manifest)


def decomposition_params(wildcards):
    return PLAN.decomposition_params(wildcards.source)


def probing_params(wildcards):
    return PLAN.probing_params(wildcards.target)


def question_files(wildcards):
    """Return what a question reads, and no more: a new target asks only about itself."""
    question = wildcards.question
    files = probes(PLAN.question_targets(question))
    if question == "separability":
        files.append(str(SETTINGS.layout.aspects))
    return files + (decompositions() if question in ON_ROWS else [])


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


def share_overrides(name, rule_names):
    """Let ``--set-resources`` and ``--set-threads`` of ``name`` reach the rules of all shards."""
    settings = workflow.resource_settings
    for rule_name in rule_names:
        resources = workflow.get_rule(rule_name).resources
        # What is set for one shard by its own name comes last.
        for known in (name, rule_name):
            resources.update(settings.overwrite_resources.get(known, {}))
            if known in settings.overwrite_threads:
                resources["_cores"] = settings.overwrite_threads[known]


def report_problems():
    """Say at the end of a run, not of each of its jobs, which recordings could not be used, and why."""
    if not (workflow.is_main_process and SETTINGS.layout.table.exists()):
        return
    rows = judge(read_recordings(SETTINGS.layout.table), SETTINGS.window_s)
    lines = problem_lines(rows)
    if lines:
        print(f"\n{len(lines)} recordings have problems ({SETTINGS.layout.problems}):")
        print("\n".join(lines[:SHOWN]))
    if len(lines) > SHOWN:
        print(f"  and {len(lines) - SHOWN} more")


def end_with_parent():
    """Have the kernel of Linux stop this process, as SIGTERM does, when its parent is killed."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def run_to_its_end(command, folder):
    """Run a command and return its status; what is meant to stop this process stops it too."""
    child = subprocess.Popen(command, cwd=folder, preexec_fn=end_with_parent)
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
