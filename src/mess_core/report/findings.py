"""Everything that the report shows, gathered from a finished run's files."""

__all__ = ["Findings", "gather_findings", "rule_costs"]

import csv
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mess_core.files import read_json
from mess_core.layout import ANSWERS, INDEX_KINDS
from mess_core.recordings import Recording
from mess_core.report.examples import Example, ask_examples
from mess_core.report.excerpts import Excerpt, cut_excerpt
from mess_core.workflow import software
from mess_core.workflow.config import Settings
from mess_core.workflow.plan import Plan
from mess_core.workflow.record import stage_numbers

if TYPE_CHECKING:
    from mess_core.index.index import Index

Place = tuple[str, float, float]


@dataclass(frozen=True)
class Findings:
    """What a run found, and how it was made.

    Attributes
    ----------
    dataset, licence, made : str
        Its name, the licence of its audio, and when the report was made.
    encoder : mapping
        ``name``, ``trained``, ``weights_sha256`` and the like.
    aspects : mapping
        The content of ``aspects.json``.
    layers, validity : sequence of mapping
        Rows of the tables, as texts.
    pictures : mapping of str to Path
        By the names of `mess_core.layout.ANSWERS`.
    examples : sequence of Example
        Questions with their answers.
    excerpts : mapping of tuple to Excerpt
        What can be heard, by recording, start and end.
    corpus : mapping of str to int or float
        ``recordings``, ``works``, ``windows``, ``hours``.
    problems : sequence of Recording
        Those with a reason.
    indices : sequence of mapping
        ``kind``, ``rows``, ``factory``, ``width``, ``bytes`` and ``version`` of each.
    changed : mapping
        Settings that results depend on and that are not the default.
    stages, versions : mapping
        Numbers of the stages, and versions of packages.
    costs : sequence of mapping
        Of `rule_costs`.
    """

    dataset: str
    licence: str
    made: str
    encoder: Mapping[str, Any]
    aspects: Mapping[str, Any]
    layers: Sequence[Mapping[str, str]]
    validity: Sequence[Mapping[str, str]]
    pictures: Mapping[str, Path]
    examples: Sequence[Example]
    excerpts: Mapping[Place, Excerpt]
    corpus: Mapping[str, float]
    problems: Sequence[Recording]
    indices: Sequence[Mapping[str, Any]]
    changed: Mapping[str, Any]
    stages: Mapping[str, int]
    versions: Mapping[str, str]
    costs: Sequence[Mapping[str, Any]]


def gather_findings(settings: Settings, changed: Mapping[str, Any]) -> Findings:
    """Read what a finished run left, ask the examples and cut their audio.

    Parameters
    ----------
    settings : Settings
        Whose results.
    changed : mapping
        Settings that are not the default, for the page.

    Raises
    ------
    StorageError, DatasetError, ArtifactError
        If a result is missing or damaged.
    """
    from mess_core.datasets.lookup import licence_of

    layout = settings.layout
    plan = Plan.read(settings)
    indices = {kind: _open(settings, kind) for kind in INDEX_KINDS}
    recordings, clips = (indices[kind] for kind in INDEX_KINDS)
    examples = ask_examples(recordings, clips)
    return Findings(
        dataset=settings.dataset,
        licence=licence_of(settings.dataset),
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        encoder=clips.facts["encoder"],
        aspects=read_json(layout.aspects),
        layers=_read_table(layout.answer("layers", ".tsv")),
        validity=_read_table(layout.answer("validity", ".tsv")),
        pictures={name: layout.answer(name, ".png") for name in ANSWERS},
        examples=examples,
        excerpts=_excerpts(examples, {r.recording_id: r for r in plan.recordings}),
        corpus={
            "recordings": len(plan.recordings),
            "works": len({r.work_id or r.recording_id for r in plan.recordings}),
            "windows": len(clips.rows),
            "hours": sum(r.duration_s for r in plan.recordings) / 3600,
        },
        problems=plan.problems,
        indices=[_index_facts(settings, index) for index in indices.values()],
        changed=changed,
        stages=stage_numbers(),
        versions={
            "python": software.machine()["python"],
            "mess-core": software.code()["version"],
            **software.installed(),
        },
        costs=rule_costs(settings.data / "benchmarks" / settings.dataset),
    )


def rule_costs(folder: Path) -> list[dict[str, Any]]:
    """Add up Snakemake's benchmark files by rule.

    Parameters
    ----------
    folder : Path
        Of one dataset: ``{rule}.tsv``, or ``{rule}/`` with a file per job.

    Returns
    -------
    list of dict
        Per rule ``rule``, ``jobs``, ``seconds`` (of all jobs together) and ``memory_mb`` (of the
        largest), the costliest first. Files without numbers are left out.
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


def _folder(settings: Settings, kind: str) -> Path:
    receipt = read_json(settings.layout.index_receipt(kind))
    return settings.layout.index(kind) / str(receipt["artifact_version_id"])


def _open(settings: Settings, kind: str) -> "Index":
    from mess_core.index import load_artifact

    index: Index = load_artifact(_folder(settings, kind))
    return index


def _index_facts(settings: Settings, index: "Index") -> dict[str, Any]:
    folder = _folder(settings, index.kind)
    return {
        "kind": index.kind,
        "rows": len(index.rows),
        "factory": index.factory,
        "exact": index.exact,
        "width": index.projection.width,
        "bytes": sum(path.stat().st_size for path in folder.iterdir()),
        "version": folder.name,
    }


def _excerpts(
    examples: Sequence[Example], recordings: Mapping[str, Recording]
) -> dict[Place, Excerpt]:
    """Cut what the examples start from and find, each passage once."""
    heard: list[Any] = [
        passage
        for example in examples
        for passage in (example.row, *(example.answer.hits if example.answer else ()))
    ]
    places = dict.fromkeys((p.recording_id, p.start_s, p.end_s) for p in heard)
    return {
        place: cut_excerpt(
            Path(recordings[place[0]].audio),
            *place[1:],
            sha256=recordings[place[0]].audio_sha256,
        )
        for place in places
    }
