"""What each rule of the workflow does: one function per rule, called with the rule's params.

Every function may run again at any time and leaves the same files. Heavy libraries are imported
inside, so that a job starts as fast as its own work allows, and so that torch and faiss never meet
in one process.
"""

__all__ = [
    "align_shard",
    "answer_question",
    "build_index",
    "compare_performances",
    "decompose",
    "evaluate",
    "extract_shard",
    "fit_projection",
    "gather_alignments",
    "gather_features",
    "gather_targets",
    "learn_geometry",
    "make_counterfactuals",
    "make_untrained",
    "map_aspects",
    "measure_shard",
    "measure_validity",
    "probe_target",
    "publish_indices",
    "track",
    "train",
    "write_report",
]

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mess_core import stages
from mess_core.errors import EncoderError, StorageError
from mess_core.files import atomic_path, fingerprint, read_json, write_json, write_text
from mess_core.layout import ANSWERS, ENCODER, INDEX_KINDS, VIEWS, Layout
from mess_core.progress import Progress, counted
from mess_core.recordings import (
    Recording,
    by_work,
    failures,
    judge,
    read_recordings,
    read_shard,
    read_with_features,
    shard_of,
    usable,
)
from mess_core.targets.registry import FROM_ALIGNMENT
from mess_core.workflow import record

if TYPE_CHECKING:
    from mess_core.probing import LayerDiscoverySystem
    from mess_core.targets.curves import Float
    from mess_core.targets.registry import Level

#: What an index says of its encoder besides what its features are known by.
_SPECIFIED = ("kind", "source", "sample_rate", "frame_rate", "layers", "dims")

#: Of what the targets are that a row of an index is measured by.
_LEVELS: dict[str, "Level"] = {"clips": "window", "recordings": "recording"}

#: The stages whose versions an index's content depends on.
_BEHIND_INDEX = (
    *("RECORDINGS", "FEATURES", "TARGETS", "ALIGNMENTS", "DECOMPOSITION", "PROBING", "ASPECTS"),
    *("GEOMETRY", "PROJECTION", "INDEX"),
)


def make_untrained(layout: Layout, *, encoder: str, folder: str) -> None:
    """Write an untrained encoder of the same shape, whose features are a baseline of probing."""
    from mess_core import extraction

    checkpoint = extraction.find_checkpoint(encoder, models=layout.models)
    extraction.make_untrained(checkpoint, Path(folder))


def extract_shard(
    layout: Layout,
    *,
    inputs: str,
    source: str,
    shard: str,
    shards: int,
    window_s: float,
    raw_dtype: str | None,
    batch_size: int,
    threads: int,
    **extraction: Any,
) -> None:
    """Extract the features of a shard's recordings, and write its receipt."""
    from mess_core.extraction import ExtractionPipeline, FeatureExtractor

    layout = layout.of(source)
    others = _withdraw_other(layout.features_manifest, shard, inputs).get("encoder")
    extractor = FeatureExtractor(
        **extraction,
        window_s=window_s,
        batch_size=batch_size or None,
        models=layout.models,
        threads=threads,
    )
    print(extractor.encoder.describe(), flush=True)
    _check_same(layout, extractor.encoder.facts(), others)
    pipeline = ExtractionPipeline(
        extractor,
        layout,
        views=VIEWS if raw_dtype else VIEWS[1:],
        raw_dtype=raw_dtype or "float32",
        # A GPU needs several threads to be fed, a CPU has none to spare.
        decoders=1 if extractor.encoder.engine.device == "cpu" else threads,
    )
    recordings = read_shard(layout, window_s, shard, shards)
    summary = pipeline.run(recordings, progress=Progress("s of audio"))
    print("\n".join(summary.lines()))
    write_json(layout.extraction_report(shard), summary.facts())
    write_json(
        layout.receipt("features", shard),
        {
            "inputs": inputs,
            "encoder": summary.encoder,
            "engine": summary.engine,
            "recordings": dict(summary.stored),
            "failed": dict(summary.failed),
        },
    )


def _check_same(layout: Layout, facts: Mapping[str, Any], others: Mapping[str, Any] | None) -> None:
    """Refuse an encoder that is not that of the dataset's other features, if there are any."""
    different = [
        f"{key} {others.get(key)!r} there, {fact!r} here"
        for key, fact in facts.items()
        if others is not None and others.get(key) != fact
    ]
    if different:
        raise EncoderError(
            f"{layout.features_manifest}: these features were made otherwise "
            f"({', '.join(different)}); run where it is the same or set `precision`, or delete "
            "the manifest and run snakemake again to make all anew"
        )


def _withdraw_other(
    manifest: Path, shard: str, inputs: str | None, key: str = "shards"
) -> dict[str, Any]:
    """Delete a manifest of other inputs than those whose files are about to be written.

    Returns its content if it is of the same: then files are only repaired. Jobs of other shards may
    delete it at the same time.
    """
    if not manifest.exists():
        return {}
    try:
        content: dict[str, Any] = read_json(manifest)
    except StorageError:
        if manifest.exists():
            raise
        return {}
    if content.get(key, {}).get(shard) == inputs:
        return content
    manifest.unlink(missing_ok=True)
    return {}


def gather_features(layout: Layout, *, source: str, shards: Mapping[str, str]) -> None:
    """Write the manifest of all features: which inputs they belong to, and the encoder."""
    layout = layout.of(source)
    receipts = _receipts(layout, "features", shards)
    encoder = receipts[0]["encoder"]
    if any(receipt["encoder"] != encoder for receipt in receipts):
        raise StorageError(
            f"{layout.embeddings}: its shards were made by different encoders or in different "
            f"precisions; set `precision`, delete {layout.receipt('features', '*')} and run "
            "snakemake again"
        )
    write_json(
        layout.features_manifest,
        {"shards": dict(shards), "encoder": encoder, "failed": _failed(receipts)},
    )


def measure_shard(
    layout: Layout, *, inputs: Mapping[str, str], shard: str, shards: int, **windows: Any
) -> None:
    """Measure the proxy targets of a shard's recordings, and write its receipt."""
    from mess_core.targets import create_target_dataset

    for manifest in layout.target_manifests.glob("*.json"):
        _withdraw_other(manifest, shard, inputs.get(manifest.stem))
    failed: dict[str, str] = {}
    done = create_target_dataset(
        read_shard(layout, windows["window_s"], shard, shards),
        layout=layout,
        failed=failed,
        progress=Progress("recordings"),
        **windows,
    )
    print("".join(f"failed: {name}: {cause}\n" for name, cause in failed.items()), end="")
    write_json(
        layout.receipt("targets", shard), {"inputs": inputs, "recordings": done, "failed": failed}
    )


def gather_targets(
    layout: Layout,
    *,
    targets: Mapping[str, Mapping[str, str]],
    alignments: Mapping[str, str],
) -> None:
    """Write the manifests of targets: which inputs they belong to, of alignments too.

    An alignment in which something failed is none of these, so that the next run gathers anew.
    """
    aligned = zip(alignments.items(), _receipts(layout, "alignments", alignments), strict=True)
    done = {shard: inputs for (shard, inputs), receipt in aligned if not receipt["failed"]}
    for name, shards in targets.items():
        failed = _failed(_receipts(layout, "targets", shards, name))
        of_works = {"alignments": done} if name in FROM_ALIGNMENT else {}
        content = {"shards": dict(shards), "failed": failed, **of_works}
        write_json(layout.target_manifest(name), content)


def align_shard(layout: Layout, *, inputs: str, shard: str, shards: int, **windows: Any) -> None:
    """Align the recordings of a shard's works, measure what follows, and write its receipt."""
    from mess_core.alignment.store import store_work

    _withdraw_other(layout.alignments_manifest, shard, inputs)
    for name in FROM_ALIGNMENT:
        _withdraw_other(layout.target_manifest(name), shard, inputs, "alignments")
    receipt: dict[str, dict[str, Any]] = {"works": {}, "recordings": {}, "failed": {}}
    rows = usable(judge(read_recordings(layout.table), windows["window_s"]))
    works = {w: rs for w, rs in by_work(rows).items() if shard_of(w, shards) == shard}
    for work_id in counted(works, Progress("works")):
        made = store_work(layout, work_id, works[work_id], **windows)
        if made.entry:
            receipt["works"][work_id] = made.entry
            told = made.entry["left_out"].items()
            print("".join(f"left out: {name}: {why}\n" for name, why in told), end="")
        receipt["recordings"] |= {name: path.stem for name, path in made.files.items()}
        receipt["failed"] |= made.failed
    print("".join(f"failed: {name}: {why}\n" for name, why in receipt["failed"].items()), end="")
    write_json(layout.receipt("alignments", shard), {"inputs": inputs, **receipt})


def gather_alignments(layout: Layout, *, shards: Mapping[str, str]) -> None:
    """Write the manifest of all alignments: the works, and which recordings failed."""
    receipts = _receipts(layout, "alignments", shards)
    parts = {name: _joined(receipts, name) for name in ("works", "failed")}
    write_json(layout.alignments_manifest, {"shards": dict(shards), **parts})


def _receipts(
    layout: Layout, kind: str, shards: Mapping[str, str], target: str = ""
) -> list[dict[str, Any]]:
    """Read the receipts of shards; raise if one is of other inputs, those of a target if named."""
    receipts = []
    for shard, inputs in shards.items():
        path = layout.receipt(kind, shard)
        receipts.append(read_json(path))
        found = receipts[-1]["inputs"]
        if (found.get(target) if target else found) != inputs:
            raise StorageError(
                f"{path} is of other recordings or settings than the recording table and the "
                "configuration say; run snakemake again"
            )
    return receipts


def _joined(receipts: Sequence[Mapping[str, Any]], key: str) -> dict[str, Any]:
    return {name: value for receipt in receipts for name, value in receipt[key].items()}


def _failed(receipts: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the recordings of all shards that failed; raise if every recording did."""
    failed = _joined(receipts, "failed")
    if failed and not any(receipt["recordings"] for receipt in receipts):
        name, cause = next(iter(failed.items()))
        raise StorageError(f"all {len(failed)} recordings failed, as {name}: {cause}")
    return failed


def _encoder(layout: Layout) -> dict[str, Any]:
    """Return the facts about the encoder that made the features."""
    encoder: dict[str, Any] = read_json(layout.features_manifest)["encoder"]
    return encoder


def decompose(layout: Layout, *, layers: int, window_s: float, **rows: Any) -> None:
    """Stack the rows of every layer of a source, and decompose them for all targets."""
    from mess_core.probing.decompositions import decompose_source

    recordings = read_with_features(layout, window_s)
    decompose_source(layout, recordings, n_layers=layers, progress=Progress("layers"), **rows)


def _discovery(layout: Layout, *, window_s: float, **probing: Any) -> "LayerDiscoverySystem":
    """Open the decomposed rows; ``probing`` are layers, unit, n_folds and alphas."""
    from mess_core.probing import LayerDiscoverySystem

    recordings = read_with_features(layout, window_s)
    return LayerDiscoverySystem(layout, recordings, encoder=_encoder(layout), **probing)


def probe_target(layout: Layout, *, target: str, **probing: Any) -> None:
    """Probe every layer, and the baselines, for one target."""
    _discovery(layout, **probing).discover_and_save(target, progress=Progress("layers"))


def map_aspects(
    layout: Layout, *, min_r2: float, source: str, targets: Sequence[str], **probing: Any
) -> None:
    """Decide where each aspect is read from."""
    from mess_core.probing import resolve_aspects, save_aspects

    discovery = _discovery(layout, **probing)
    aspects = resolve_aspects(
        min_r2, layout.probing, targets=targets, source=source, discovery=discovery
    )
    save_aspects(aspects, layout.aspects)


def learn_geometry(layout: Layout, *, targets: Sequence[str], window_s: float, **how: Any) -> None:
    """Learn spaces of content and expression, and write those that are taken, and why."""
    from mess_core.evaluation.geometry import learn_from
    from mess_core.probing.coordinates import musical_layers
    from mess_core.probing.results import read_results

    learned = learn_from(
        layout,
        read_with_features(layout, window_s),
        _work_times(layout),
        window_s=window_s,
        **how,
        general_layers=musical_layers(read_results(layout.probing, targets).values()) or None,
    )
    for verdict in learned.verdicts:
        print(f"{verdict.rule}: {verdict.text}")
    with atomic_path(layout.geometry) as temporary:
        np.savez(temporary, **dict[str, Any](learned.bases))
    verdicts = [asdict(verdict) for verdict in learned.verdicts]
    content = {"taken": [*learned.bases], "verdicts": verdicts, "lines": learned.lines}
    write_json(layout.geometry.with_suffix(".json"), content)


def fit_projection(
    layout: Layout, *, kind: str, targets: Sequence[str], learned: bool, **probing: Any
) -> None:
    """Fit what makes stored vectors of features, for an index of one kind."""
    from mess_core.index.artifact import write_projection
    from mess_core.index.fitting import fit_projection as fit
    from mess_core.probing.coordinates import fit_coordinates, musical_layers
    from mess_core.probing.results import read_results

    discovery = _discovery(layout, **probing)
    stored = discovery.features[ENCODER]
    with np.load(layout.geometry) if learned else nullcontext({}) as spaces:
        bases = dict(spaces)
    projection = fit(
        lambda layer: stored[layer].rows,
        range(len(stored)),
        general_layers=musical_layers(read_results(layout.probing, targets).values()) or None,
        coordinates=fit_coordinates(
            discovery, averaged=kind == "recordings", progress=Progress("aspects")
        ),
        measured=lambda columns: discovery.load_columns(columns, _LEVELS[kind]),
        recordings=discovery.names if kind == "recordings" else None,
        spaces=bases,
    )
    write_projection(projection, layout.projection(kind))


def answer_question(
    layout: Layout, *, question: str, targets: Sequence[str], **probing: Any
) -> None:
    """Write the table and the picture that answer one research question."""
    from mess_core.probing.questions import answer

    progress = Progress("aspects" if question == "separability" else "layers")
    answer(question, _discovery(layout, **probing), tuple(targets), progress=progress)


def track(layout: Layout, *, uri: str, experiment: str, targets: Sequence[str]) -> None:
    """Log the probing results, with their tables and pictures, to MLflow."""
    from mess_core.probing.results import log_probing, read_results

    results = read_results(layout.probing, targets)
    answers = [layout.answer(name, suffix) for name in ANSWERS for suffix in (".tsv", ".png")]
    run = log_probing(
        results.values(),
        [*(layout.probe(name) for name in results), layout.aspects, *answers],
        uri=uri,
        experiment=experiment,
    )
    write_json(layout.tracked, {"uri": uri, "run": run})


def train(layout: Layout, *, performances: str, pianos: str, seconds: float, threads: int) -> None:
    """Train a small encoder; a job that was killed is gone on with."""
    from mess_core.training.train import train

    folders = Path(performances), Path(pianos), layout.trained
    train(*folders, seconds=seconds, workers=threads - 1)


def build_index(
    layout: Layout,
    *,
    kind: str,
    encoder: str,
    window_s: float,
    overlap: float,
    **memory: Any,
) -> None:
    """Build and save the index artifact of one kind."""
    from mess_core.datasets.lookup import licence_of
    from mess_core.extraction.specs import resolve_spec
    from mess_core.extraction.storage import load_features
    from mess_core.index import index_recordings, save_artifact
    from mess_core.index.artifact import read_projection
    from mess_core.targets.npz import column_reader

    recordings = read_with_features(layout, window_s)
    projection = read_projection(layout.projection(kind))
    measure = column_reader(layout, projection.columns.tolist(), level=_LEVELS[kind])
    spec = resolve_spec(encoder)
    view = "segments" if kind == "clips" else "aggregated"
    index = index_recordings(
        recordings,
        lambda recording: load_features(layout, recording.recording_id, view=view),
        lambda recording: measure(recording.recording_id),
        _work_times(layout),
        kind=kind,
        window_s=window_s,
        overlap=overlap,
        projection=projection,
        aspects=read_json(layout.aspects),
        facts={
            "dataset": layout.dataset,
            "licence": licence_of(layout.dataset),
            "encoder": _encoder(layout) | {key: getattr(spec, key) for key in _SPECIFIED},
            "window_s": window_s,
            "overlap": overlap,
            "stages": {name.lower(): getattr(stages, name) for name in _BEHIND_INDEX},
        },
        progress=Progress("recordings"),
        **memory,
    )
    data = {r.recording_id: r.audio_sha256 for r in recordings}
    made = {
        "created": record.now(),
        "code": record.code(),
        "libraries": record.libraries(),
        "machine": record.machine(),
        "data": {"recordings": len(recordings), "sha256": fingerprint(data)},
    }
    folder = save_artifact(index, layout.index(kind), build=made)
    receipt = layout.index_receipt(kind)
    write_json(receipt, {"artifact_version_id": folder.name, "kind": kind, "rows": len(index.rows)})
    for path in layout.index(kind).iterdir():
        if path not in (folder, receipt) and path.is_dir():
            shutil.rmtree(path)


def _work_times(layout: Layout) -> "Callable[[Recording, Float], Float]":
    """Return what gives the work times of a recording's windows, NaN where it is not aligned."""
    from mess_core.alignment.maps import Alignment

    path = layout.alignments_manifest
    works = read_json(path)["works"].values() if path.exists() else ()
    aligned = {name for work in works for name in work["sources"]}

    def work_times(recording: Recording, windows: "Float") -> "Float":
        if recording.recording_id not in aligned:
            return np.full_like(windows, np.nan)
        return Alignment.read(layout.alignment(recording.recording_id)).windows_to_work(windows)

    return work_times


def publish_indices(layout: Layout, *, destination: str) -> None:
    """Publish the current artifacts of all kinds."""
    from mess_core.publishing.publish import publish

    receipts = []
    for kind in INDEX_KINDS:
        version = read_json(layout.index_receipt(kind))["artifact_version_id"]
        receipts.append(publish(layout.index(kind) / version, destination, progress=Progress("MB")))
    published = {"dataset": layout.dataset, "destination": destination, "published": receipts}
    write_json(layout.publish_receipt, published)


def measure_validity(layout: Layout, *, targets: Sequence[str], window_s: float, unit: str) -> None:
    """Write the table and the picture of whether the targets measure what they say."""
    from mess_core.probing.questions import write_table
    from mess_core.report import measure_validity as measure, plot_validity
    from mess_core.report.validity import parameter_rows, read_parameters, read_values

    unmeasured = {name for target in targets for name in failures(layout, target)}
    recordings = [
        r for r in read_with_features(layout, window_s) if r.recording_id not in unmeasured
    ]
    works = [r.work_id for r in recordings]
    names = [r.recording_id for r in recordings]
    level: Level = "window" if unit == "windows" else "recording"
    values, counts = read_values(layout, names, targets, level)
    whole, parameters = values, {}
    if layout.dataset == "demo":
        parameters = read_parameters(layout.demo_truth, names)
        whole = read_values(layout, names, targets, "recording")[0]
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
        title=f"{layout.dataset}, {unit}",
    )


def compare_performances(layout: Layout) -> None:
    """Write the table and the picture of the performances of every work."""
    from mess_core.probing.questions import write_table
    from mess_core.report.performances import performance_rows, plot_performances

    rows = performance_rows(layout, read_recordings(layout.table))
    write_table(rows, layout.answer("performances", ".tsv"))
    plot_performances(layout, layout.answer("performances", ".png"))


def evaluate(layout: Layout, *, window_s: float, **made: Any) -> None:
    """Write the table and the picture of how good the answers of the index of clips are."""
    from mess_core import evaluation
    from mess_core.index import load_artifact
    from mess_core.probing.pictures import plot_evaluation
    from mess_core.probing.questions import write_table

    version = read_json(layout.index_receipt("clips"))["artifact_version_id"]
    index = load_artifact(layout.index("clips") / version)
    recordings = read_with_features(layout, window_s)
    lines = evaluation.evaluate(layout, index, recordings, **made)
    write_table(lines, layout.answer("evaluation", ".tsv"))
    title = f"{layout.dataset}, {index.facts['encoder']['name']}"
    plot_evaluation(lines, layout.answer("evaluation", ".png"), title=title)


def make_counterfactuals(
    layout: Layout, *, recordings: Sequence[str], batch_size: int, **extraction: Any
) -> None:
    """Play the same notes otherwise, and extract what sounds."""
    from mess_core.evaluation import counterfactuals
    from mess_core.extraction import FeatureExtractor
    from mess_core.extraction.specs import DESCRIPTORS

    encoder = FeatureExtractor(**extraction, batch_size=batch_size or None, models=layout.models)
    descriptors = FeatureExtractor(DESCRIPTORS, window_s=encoder.window_s)
    rows = [r for r in read_recordings(layout.table) if r.recording_id in recordings]
    path = layout.counterfactuals
    failed = counterfactuals.make_counterfactuals(rows, path, (encoder, descriptors))
    print("".join(f"left out: {name}: {why}\n" for name, why in failed.items()), end="")


def write_report(layout: Layout, *, window_s: float, changed: Mapping[str, Any]) -> None:
    """Write the pages for people; ``changed`` are the settings that are not the default."""
    from mess_core.report import render_pages
    from mess_core.report.findings import gather_findings

    findings = gather_findings(
        layout, window_s=window_s, changed=changed, versions=record.versions()
    )
    for name, page in render_pages(findings).items():
        write_text(layout.page(name), page)
