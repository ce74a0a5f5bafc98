"""Functions of the rules. Every cluster job parses them: nothing heavy is imported, no folder scanned."""

import sys
from pathlib import Path

from mess_core.workflow.config import Settings
from mess_core.errors import MessError
from mess_core.layout import (
    ANSWERS,
    ENCODER,
    INDEX_KINDS,
    PAGES,
    QUESTIONS,
    UNTRAINED,
)
from mess_core.workflow.plan import Plan
from mess_core.recordings import problem_lines, read_problems

#: How many recordings with problems are named at the end of a run.
SHOWN = 20


def read_settings():
    """Check the configuration, and return it complete and typed."""
    try:
        settings = Settings.from_config(config)
    except MessError as error:
        raise WorkflowError(str(error))
    if config.get("encoder", "auto") in (None, "auto") and workflow.is_main_process:
        print(
            f"encoder: {settings.encoder} (auto; others: mess model list)",
            file=sys.stderr,
        )
    # Jobs and their records get it complete: `config["device"]`, `config["probing.n_folds"]`.
    config.update(settings.by_key)
    return settings


def read_plan():
    """Return the plan; without a recording table, say which command makes it."""
    table, name = SETTINGS.layout.table, SETTINGS.dataset
    if not table.exists():
        known = name in ("demo", "maestro", "smd")
        command = name if known else f"--folder PATH --name {name}"
        raise WorkflowError(
            f"{table} does not exist; make it with: mess recordings {command}"
        )
    try:
        plan = Plan.read(SETTINGS)
        plan.spec
    except MessError as error:
        raise WorkflowError(str(error))
    if len(plan.recordings) < 2:
        raise WorkflowError(
            f"{table} has {len(plan.recordings)} usable recordings of at least "
            f"{SETTINGS.window_s:g} s, 2 are needed; see {SETTINGS.layout.problems}"
        )
    return plan


def log_file(*parts):
    return str(Path("logs", SETTINGS.dataset, *parts).with_suffix(".log"))


def benchmark_file(*parts):
    folder = SETTINGS.data.joinpath("benchmarks", SETTINGS.dataset)
    return str(folder.joinpath(*parts).with_suffix(".tsv"))


def strings(paths):
    return [str(path) for path in paths]


def any_of(names):
    """Return what matches any of the names; without names it matches nothing."""
    return "|".join(names) or "(?!)"


SETTINGS = read_settings()
PLAN = read_plan()


# Features: of the encoder and of the baselines, which differ by their folder.
FOLDERS = {
    SETTINGS.layout.of(source).embeddings.name: source for source in SETTINGS.sources
}
DESCRIBED = [f for f in FOLDERS if PLAN.specs[FOLDERS[f]].kind == "descriptors"]
ENCODED = [folder for folder in FOLDERS if folder not in DESCRIBED]
UNTRAINED_FILES = strings(
    Path(SETTINGS.of(UNTRAINED).encoder, name)
    for name in ("config.json", "model.safetensors")
)
UNGATHERED = [name for name in FOLDERS if not PLAN.has_features(FOLDERS[name])]


def features_params(wildcards):
    return PLAN.features_params(FOLDERS[wildcards.folder], wildcards.shard)


def gather_features_params(wildcards):
    return PLAN.gather_features_params(FOLDERS[wildcards.folder])


def untrained_model(wildcards):
    """Return the encoder that is made here, if it is the one whose features are wanted."""
    source = FOLDERS[wildcards.folder]
    if told := PLAN.missing_weights(source, wildcards.shard):
        # Anything else would be told with a traceback into this file.
        sys.exit(f"encoder: {told}")
    return UNTRAINED_FILES if source == UNTRAINED else []


def receipts(kind, source=ENCODER):
    layout = SETTINGS.layout.of(source)
    return strings(layout.receipt(kind, shard) for shard in PLAN.shards)


def feature_receipts(wildcards):
    return receipts("features", FOLDERS[wildcards.folder])


def gpu_count(wildcards):
    """Return 0 where the encoder is told to run on the CPU, so that no GPU is asked for."""
    return 0 if SETTINGS.device == "cpu" or PLAN.spec.kind == "descriptors" else 1


def features_manifests():
    return strings(SETTINGS.layout.of(s).features_manifest for s in SETTINGS.sources)


def counterfactuals():
    return strings([SETTINGS.layout.counterfactuals] if PLAN.varied else [])


def alignments_params(wildcards):
    return PLAN.alignments_params(wildcards.shard)


def alignment_receipts():
    return strings(SETTINGS.layout.receipt("alignments", s) for s in PLAN.works)


def gathered():
    """Return what the manifests of targets are gathered from."""
    files = receipts("targets")
    if PLAN.waits_for_alignments:
        files.append(str(SETTINGS.layout.alignments_manifest))
    return files


def targets_params(wildcards):
    return PLAN.targets_params(wildcards.shard)


def target_manifests():
    return strings(map(SETTINGS.layout.target_manifest, SETTINGS.targets))


def decomposition_params(wildcards):
    return PLAN.decomposition_params(wildcards.source)


def decompositions():
    return strings(map(SETTINGS.layout.decomposition_receipt, SETTINGS.sources))


def probing_params(wildcards):
    return PLAN.probing_params(wildcards.target)


def probes(targets):
    return strings(map(SETTINGS.layout.probe, targets))


def question_files(wildcards):
    """Return what a question reads, and no more: a new target asks only about itself."""
    question = wildcards.question
    files = probes(PLAN.question_targets(question))
    if question == "separability":
        files.append(str(SETTINGS.layout.aspects))
    on_rows = question in ("separability", "collapse")
    return files + (decompositions() if on_rows else [])


def question_params(wildcards):
    return PLAN.question_params(wildcards.question)


def answers():
    return strings(
        SETTINGS.layout.answer(question, suffix)
        for question in ANSWERS
        for suffix in (".tsv", ".png")
    )


def geometry():
    """Return the spaces that were learned, if they are to be."""
    return [str(SETTINGS.layout.geometry)] if SETTINGS.learn else []


def projection_params(wildcards):
    return PLAN.projection_params(wildcards.kind)


def index_params(wildcards):
    return PLAN.index_params(wildcards.kind)


def index_receipts():
    return strings(map(SETTINGS.layout.index_receipt, INDEX_KINDS))


def demo_truth():
    """Return the table of the demo's interpretations, which other datasets do not have."""
    return [str(SETTINGS.layout.demo_truth)] if SETTINGS.dataset == "demo" else []


# Resources and messages.


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


def amount():
    """Return how much work the recordings are, for messages."""
    hours = sum(recording.duration_s for recording in PLAN.recordings) / 3600
    length = f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.1f} min"
    return f"{len(PLAN.recordings):,} recordings, {length} of audio"


def report_problems():
    """Say at the end of a run which recordings could not be used, and why."""
    if not workflow.is_main_process:
        return
    layout, target = SETTINGS.layout, SETTINGS.targets[0]
    found = problem_lines(read_problems(layout, SETTINGS.window_s, target))
    if found:
        print(f"\n{len(found)} recordings have problems:", *found[:SHOWN], sep="\n")
        if len(found) > SHOWN:
            print(f"  and {len(found) - SHOWN} more")
        print(
            f"Those that failed or are not aligned are in the logs, all others in {layout.problems}."
        )
