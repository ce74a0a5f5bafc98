"""What each rule of the workflow does: one function per rule, from settings to files.

Every function may run again at any time and leaves the same files. Heavy libraries are imported
inside, so that a job starts as fast as its own work allows, and so that torch and faiss never meet
in one process.
"""

__all__ = [
    "answer_question",
    "build_indices",
    "decompose",
    "extract_shard",
    "fit_projection",
    "gather_features",
    "gather_targets",
    "make_demo",
    "make_untrained_twin",
    "map_aspects",
    "measure_shard",
    "measure_validity",
    "probe_target",
    "publish_indices",
    "track",
    "write_report",
    "write_table",
]

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mess_core import stages
from mess_core.errors import StorageError
from mess_core.files import file_sha256, fingerprint, read_json, write_json, write_text
from mess_core.layout import ANSWERS, ENCODER, INDEX_KINDS, UNTRAINED
from mess_core.progress import Progress
from mess_core.workflow import software
from mess_core.workflow.config import Settings
from mess_core.workflow.plan import ANALYSIS_RATE, Plan

if TYPE_CHECKING:
    from mess_core.probing import LayerDiscoverySystem


def make_demo(settings: Settings) -> None:
    """Perform and render the demo corpus, with the table of the interpretations' parameters."""
    from mess_core.datasets.demo import make_demo_corpus

    make_demo_corpus(
        settings.layout.demo_audio,
        settings.layout.demo_truth,
        progress=Progress("recordings"),
    )


def write_table(settings: Settings) -> None:
    """Scan the dataset and write its recording table."""
    from mess_core.datasets import DatasetFactory, scan_dataset

    dataset = DatasetFactory.get_dataset(settings.dataset, data=settings.data)
    report = scan_dataset(
        dataset,
        settings.layout,
        min_duration_s=settings.window_s,
        progress=Progress("recordings"),
    )
    print(report.summary())


def make_untrained_twin(settings: Settings) -> None:
    """Write the encoder's untrained twin, whose features are a baseline of probing."""
    from mess_core.extraction.checkpoint import find_checkpoint
    from mess_core.extraction.untrained import make_untrained

    checkpoint = find_checkpoint(settings.encoder, models=settings.layout.models)
    make_untrained(checkpoint, Path(settings.untrained.encoder))


def _extraction(settings: Settings, variant: str) -> Plan:
    """Return the plan of the encoder's features, or of its twin's."""
    plan = Plan.read(settings)
    return plan.untrained if variant == UNTRAINED else plan


def extract_shard(settings: Settings, shard: str, *, variant: str = "", threads: int) -> None:
    """Extract the features of a shard's recordings, by the encoder or its untrained twin."""
    from mess_core import extraction

    plan = _extraction(settings, variant)
    settings, layout = plan.settings, plan.settings.layout
    manifest = layout.features_manifest
    others = read_json(manifest)["encoder"] if plan.has_features else None
    if others is None:
        # It is of another plan, whose files are about to be replaced one by one.
        manifest.unlink(missing_ok=True)
    summary = extraction.extract_shard(
        plan.shards[shard],
        layout,
        encoder=settings.encoder,
        window_s=settings.window_s,
        overlap=settings.overlap,
        precision=settings.precision,
        device=settings.device,
        batch_size=settings.batch_size or None,
        threads=threads,
        views=settings.views,
        raw_dtype=settings.raw_dtype,
        others=others,
        progress=Progress("s of audio"),
    )
    print("\n".join(summary.lines()))
    write_json(layout.extraction_report(shard), summary.facts())
    summary.check()
    write_json(
        layout.receipt("features", shard),
        {
            "stage": stages.FEATURES,
            "encoder": summary.encoder,
            "engine": summary.engine,
            "window_s": settings.window_s,
            "overlap": settings.overlap,
            "recordings": dict(summary.stored),
        },
    )


def gather_features(settings: Settings, *, variant: str = "") -> None:
    """Write the manifest of all features: what plan they belong to, and the encoder."""
    plan = _extraction(settings, variant)
    layout = plan.settings.layout
    _check_complete(plan.missing_features)
    receipts = [read_json(layout.receipt("features", shard)) for shard in plan.shards]
    encoder = receipts[0]["encoder"]
    if any(receipt["encoder"] != encoder for receipt in receipts):
        raise StorageError(
            f"{layout.embeddings}: its shards were made by different encoders or in different "
            f"precisions; set `precision`, delete {layout.receipt('features', '*')} and run "
            "snakemake again"
        )
    write_json(
        layout.features_manifest,
        {
            "digest": plan.features_digest,
            "recordings": len(plan.recordings),
            "encoder": encoder,
        },
    )


def measure_shard(settings: Settings, shard: str) -> None:
    """Measure the proxy targets of a shard's recordings."""
    from mess_core.targets import create_target_dataset

    plan = Plan.read(settings)
    for manifest in plan.foreign_target_manifests():
        # They are of another plan, whose files are about to be replaced one by one.
        manifest.unlink(missing_ok=True)
    done = create_target_dataset(
        plan.shards[shard],
        layout=settings.layout,
        sample_rate=ANALYSIS_RATE,
        window_s=settings.window_s,
        overlap=settings.overlap,
        progress=Progress("recordings"),
    )
    write_json(
        settings.layout.receipt("targets", shard), {"stage": stages.TARGETS, "recordings": done}
    )


def gather_targets(settings: Settings) -> None:
    """Write the manifests of the targets whose last ones are not those of this plan."""
    plan = Plan.read(settings)
    _check_complete(plan.missing_targets)
    for name in plan.ungathered:
        write_json(
            settings.layout.target_manifest(name),
            {"digest": plan.target_digest(name), "recordings": len(plan.recordings)},
        )


def _check_complete(missing: Mapping[str, Sequence[str]]) -> None:
    """Refuse to vouch for files that are gone since their shard was finished."""
    gone = [path for paths in missing.values() for path in paths]
    if gone:
        raise StorageError(f"{gone[0]} and {len(gone) - 1} more are gone; run snakemake again")


def _encoder(settings: Settings) -> dict[str, Any]:
    """Return the facts about the encoder that made the features."""
    encoder: dict[str, Any] = read_json(settings.layout.features_manifest)["encoder"]
    return encoder


def decompose(settings: Settings, source: str) -> None:
    """Stack the rows of every layer of a source, and decompose them for all targets."""
    from mess_core.probing.decompositions import decompose_source

    plan = Plan.read(settings)
    decompose_source(
        settings.layout,
        plan.recordings,
        source=source,
        n_layers=len(plan.layers(source)),
        unit=settings.rows,
        n_folds=settings.n_folds,
        progress=Progress("layers"),
    )


def _discovery(plan: Plan) -> "LayerDiscoverySystem":
    from mess_core.probing import LayerDiscoverySystem

    settings = plan.settings
    return LayerDiscoverySystem(
        settings.layout,
        plan.recordings,
        layers={source: len(plan.layers(source)) for source in settings.sources},
        unit=settings.rows,
        n_folds=settings.n_folds,
        alphas=settings.alphas,
        encoder=_encoder(settings),
    )


def probe_target(settings: Settings, target: str) -> None:
    """Probe every layer, and the baselines, for one target."""
    _discovery(Plan.read(settings)).discover_and_save(target, progress=Progress("layers"))


def map_aspects(settings: Settings) -> None:
    """Resolve the aspects to layers."""
    from mess_core.probing import resolve_aspects, save_aspects

    aspects = resolve_aspects(settings.min_r2, settings.layout.probing, targets=settings.targets)
    save_aspects(aspects, settings.layout.aspects)


def fit_projection(settings: Settings, kind: str) -> None:
    """Fit what makes stored vectors of features, for an index of one kind."""
    from mess_core.index.artifact import write_projection
    from mess_core.index.fitting import fit_projection as fit
    from mess_core.probing.coordinates import fit_coordinates, musical_layers
    from mess_core.probing.results import read_results

    plan = Plan.read(settings)
    discovery = _discovery(plan)
    layers = discovery.features[ENCODER]
    results = read_results(settings.layout.probing, plan.aspect_targets)
    projection = fit(
        lambda layer: layers[layer].rows,
        range(len(layers)),
        general_layers=musical_layers(results.values()) or None,
        coordinates=fit_coordinates(
            discovery, averaged=kind == "recordings", progress=Progress("aspects")
        ),
        recordings=discovery.names if kind == "recordings" else None,
    )
    write_projection(projection, settings.layout.projection(kind))


def answer_question(settings: Settings, question: str) -> None:
    """Write the table and the picture that answer one research question."""
    from mess_core.probing.questions import answer

    plan = Plan.read(settings)
    progress = Progress("aspects" if question == "separability" else "layers")
    answer(question, _discovery(plan), plan.question_targets(question), progress=progress)


def track(settings: Settings) -> None:
    """Log the probing results, with their tables and pictures, to MLflow."""
    from mess_core.probing.results import log_probing, read_results

    layout = settings.layout
    results = read_results(layout.probing, settings.targets)
    answers = [layout.answer(name, suffix) for name in ANSWERS for suffix in (".tsv", ".png")]
    run = log_probing(
        results.values(),
        [*(layout.probe(name) for name in results), layout.aspects, *answers],
        uri=settings.tracking_uri,
        experiment=settings.tracking_experiment,
    )
    write_json(layout.tracked, {"uri": settings.tracking_uri, "run": run})


def build_indices(settings: Settings, kind: str) -> None:
    """Build and save the index artifact of one kind."""
    from mess_core.datasets.lookup import licence_of
    from mess_core.extraction.storage import load_features
    from mess_core.index import index_recordings, save_artifact
    from mess_core.index.artifact import read_projection

    plan = Plan.read(settings)
    view = "segments" if kind == "clips" else "aggregated"
    index = index_recordings(
        plan.recordings,
        lambda recording: load_features(settings.layout, recording.recording_id, view=view),
        kind=kind,
        window_s=settings.window_s,
        overlap=settings.overlap,
        projection=read_projection(settings.layout.projection(kind)),
        aspects=read_json(settings.layout.aspects),
        facts={
            "dataset": settings.dataset,
            "licence": licence_of(settings.dataset),
            "encoder": _encoder(settings) | {key: getattr(plan.spec, key) for key in _SPECIFIED},
            "window_s": settings.window_s,
            "overlap": settings.overlap,
            "stages": {name.lower(): getattr(stages, name) for name in _BEHIND_INDEX},
        },
        exact_up_to=settings.exact_up_to,
        memory_gb=settings.memory_gb,
        progress=Progress("recordings"),
    )
    folder = save_artifact(index, settings.layout.index(kind), build=_build(plan))
    write_json(
        settings.layout.index_receipt(kind),
        {"artifact_version_id": folder.name, "kind": kind, "rows": len(index.rows)},
    )


def _build(plan: Plan) -> dict[str, Any]:
    """Return what made an index, besides its facts; nothing of where it was made."""
    settings = plan.settings
    return {
        "created": software.now(),
        "code": software.code(),
        "libraries": software.libraries(),
        "machine": software.machine(),
        "config": {key: getattr(settings, key) for key in _DECIDING},
        "data": {
            "recordings": len(plan.recordings),
            "sha256": fingerprint({r.recording_id: r.audio_sha256 for r in plan.recordings}),
            "table_sha256": file_sha256(settings.layout.table),
        },
    }


#: The settings that an index's content depends on, besides the encoder.
_DECIDING = (
    "precision",
    "window_s",
    "overlap",
    "targets",
    "rows",
    "n_folds",
    "alphas",
    "baselines",
    "min_r2",
    "exact_up_to",
    "memory_gb",
)

#: What an index says of its encoder besides what its features are known by.
_SPECIFIED = ("source", "sample_rate", "frame_rate", "layers", "dims")

#: The stages whose versions an index's content depends on.
_BEHIND_INDEX = (
    "RECORDINGS",
    "FEATURES",
    "TARGETS",
    "DECOMPOSITION",
    "PROBING",
    "ASPECTS",
    "PROJECTION",
    "INDEX",
)


def publish_indices(settings: Settings) -> None:
    """Publish the current artifacts of all kinds."""
    from mess_core.publishing.publish import publish

    receipts = []
    for kind in INDEX_KINDS:
        version = read_json(settings.layout.index_receipt(kind))["artifact_version_id"]
        artifact = settings.layout.index(kind) / version
        receipts.append(publish(artifact, settings.destination, progress=Progress("MB")))
    write_json(
        settings.layout.publish_receipt,
        {
            "stage": stages.PUBLISH,
            "dataset": settings.dataset,
            "destination": settings.destination,
            "published": receipts,
        },
    )


def measure_validity(settings: Settings) -> None:
    """Write the table and the picture of whether the targets measure what they say."""
    from mess_core.probing.questions.tables import write_table
    from mess_core.report import measure_validity as measure, plot_validity
    from mess_core.report.validity import parameter_rows, read_parameters, read_values

    layout = settings.layout
    recordings = Plan.read(settings).recordings
    works = [r.work_id for r in recordings]
    paths = [layout.targets(r.recording_id) for r in recordings]
    windows = settings.rows == "windows"
    values, counts = read_values(paths, settings.targets, "window" if windows else "recording")
    whole, parameters = values, {}
    if settings.dataset == "demo":
        parameters = read_parameters(layout.demo_truth, [r.recording_id for r in recordings])
        whole = read_values(paths, settings.targets, "recording")[0]
    rows = measure(
        values,
        np.repeat(works, counts).tolist(),
        whole=whole,
        works_of_whole=works,
        parameters=parameters,
    )
    write_table(rows, layout.answer("validity", ".tsv"))
    plot_validity(
        rows,
        layout.answer("validity", ".png"),
        parameters=parameter_rows(parameters, works),
        title=f"{settings.dataset}, {settings.rows}",
    )


def write_report(settings: Settings, changed: dict[str, Any]) -> None:
    """Write the pages for people; ``changed`` are the settings that are not the default."""
    from mess_core.report import render_pages
    from mess_core.report.findings import gather_findings

    versions = {
        "python": software.machine()["python"],
        "mess-core": software.code()["version"],
        **software.installed(),
    }
    findings = gather_findings(
        settings.layout, window_s=settings.window_s, changed=changed, versions=versions
    )
    for name, page in render_pages(findings).items():
        write_text(settings.layout.page(name), page)
