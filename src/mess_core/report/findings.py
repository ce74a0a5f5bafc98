"""Everything that the report shows, gathered from a finished run's files."""

__all__ = ["Findings", "gather_findings", "rule_costs"]

import csv
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mess_core import stages
from mess_core.files import read_json
from mess_core.layout import ANSWERS, INDEX_KINDS, Layout
from mess_core.recordings import Recording, read_problems, read_with_features
from mess_core.report.examples import Example, Excerpt, Place, ask_examples, cut_excerpts

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Findings:
    """What a run found, and how it was made.

    ``licence`` is that of the audio; ``layers``, ``validity``, ``evaluation`` and ``performances``
    are rows of the tables, as texts; ``pictures`` are by the names of
    `mess_core.layout.ANSWERS`; ``corpus`` has
    ``recordings``, ``works``, ``windows`` and ``hours``; ``changed`` are settings that results
    depend on and that are not the default.
    """

    dataset: str
    licence: str
    made: str
    encoder: Row
    aspects: Row
    layers: Sequence[Row]
    validity: Sequence[Row]
    evaluation: Sequence[Row]
    performances: Sequence[Row]
    pictures: Mapping[str, Path]
    examples: Sequence[Example]
    excerpts: Mapping[Place, Excerpt]
    corpus: Mapping[str, float]
    problems: Sequence[Recording]
    indices: Sequence[Row]
    changed: Row
    stages: Mapping[str, int]
    versions: Mapping[str, str]
    costs: Sequence[Row]


def gather_findings(
    layout: Layout, *, window_s: float, changed: Row, versions: Mapping[str, str]
) -> Findings:
    """Read what a finished run left, ask the examples and cut their audio.

    Raises `StorageError`, `DatasetError` or `ArtifactError` if a result is missing or damaged.
    """
    from mess_core.datasets.lookup import licence_of
    from mess_core.index import load_artifact

    recordings = read_with_features(layout, window_s)
    folders = {
        kind: layout.index(kind) / read_json(layout.index_receipt(kind))["artifact_version_id"]
        for kind in INDEX_KINDS
    }
    indices = {kind: load_artifact(folder) for kind, folder in folders.items()}
    clips, layers = indices["clips"], _read_table(layout.answer("layers", ".tsv"))
    examples = ask_examples(indices["recordings"], clips)
    return Findings(
        dataset=layout.dataset,
        licence=licence_of(layout.dataset),
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        encoder=clips.facts["encoder"],
        aspects=read_json(layout.aspects),
        layers=layers,
        validity=_read_table(layout.answer("validity", ".tsv")),
        evaluation=_read_table(layout.answer("evaluation", ".tsv")),
        performances=_read_table(layout.answer("performances", ".tsv")),
        pictures={name: layout.answer(name, ".png") for name in ANSWERS},
        examples=examples,
        excerpts=cut_excerpts(examples, recordings),
        corpus={
            "recordings": len(recordings),
            "works": len({r.work_id or r.recording_id for r in recordings}),
            "windows": len(clips.rows),
            "hours": sum(r.duration_s for r in recordings) / 3600,
        },
        problems=read_problems(layout, window_s, layers[0]["target"]),
        indices=[
            {
                "kind": kind,
                "rows": len(index.rows),
                "factory": index.factory,
                "exact": index.exact,
                "width": index.projection.width,
                "bytes": sum(path.stat().st_size for path in folders[kind].iterdir()),
                "version": folders[kind].name,
            }
            for kind, index in indices.items()
        ],
        changed=changed,
        stages={name.lower(): getattr(stages, name) for name in stages.__all__},
        versions=versions,
        costs=rule_costs(layout.data / "benchmarks" / layout.dataset),
    )


def rule_costs(folder: Path) -> list[dict[str, Any]]:
    """Add up a dataset's benchmark files by rule: ``{rule}.tsv``, or ``{rule}/`` with one per job.

    Gives ``rule``, ``jobs``, ``seconds`` (of all jobs together) and ``memory_mb`` (of the largest),
    the costliest first. Files without numbers are left out.
    """
    jobs: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for path in sorted(folder.rglob("*.tsv")):
        rule = path.relative_to(folder).with_suffix("").parts[0]
        for row in _read_table(path):
            try:
                measured = float(row["s"]), float(row["max_rss"])
            except (KeyError, TypeError, ValueError):
                continue
            jobs[rule].append(measured)
    rows = [
        {
            "rule": rule,
            "jobs": len(costs),
            "seconds": sum(seconds for seconds, _ in costs),
            "memory_mb": max(memory for _, memory in costs),
        }
        for rule, costs in jobs.items()
    ]
    return sorted(rows, key=lambda row: (-float(row["seconds"]), row["rule"]))


def _read_table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
