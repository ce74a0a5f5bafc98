"""``mess search``: ask a published index, and print the hits as a table or as JSON."""

__all__ = ["DEFAULT_LOCATION", "add_parser", "open_index", "published_datasets", "run", "show"]

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mess_core.errors import SearchError

if TYPE_CHECKING:
    from mess_core.artifacts.index import Index
    from mess_core.search.queries import Hit

#: Characters of the column "work" of the table.
_WORK_WIDTH = 48
DEFAULT_LOCATION = "data/published"
_UNTRAINED = "untrained: results show the mechanism, not musical knowledge"


def add_parser(subparsers: Any) -> None:
    """Add ``search`` to the command line.

    Parameters
    ----------
    subparsers : argparse subparsers action
        From ``ArgumentParser.add_subparsers``.
    """
    parser = subparsers.add_parser(
        "search",
        help="find recordings or passages that sound like one",
        description="Find recordings like a recording, or passages like a passage (--from).",
    )
    parser.add_argument(
        "--recording", "--track", required=True, metavar="ID", help="the recording to start from"
    )
    respect = parser.add_mutually_exclusive_group()
    respect.add_argument("--aspect", metavar="A", help="alike in one aspect, such as rubato")
    respect.add_argument(
        "--aspects", metavar="A=W,B=W", help='alike in several, such as "rubato=0.7,tempo=0.3"'
    )
    parser.add_argument(
        "--from", "--start", dest="start", type=float, metavar="SECONDS", help="start of a passage"
    )
    parser.add_argument(
        "--to", "--end", dest="end", type=float, metavar="SECONDS", help="end of the passage"
    )
    parser.add_argument("-k", type=int, default=10, help="how many hits (default: 10)")
    parser.add_argument(
        "--exclude",
        choices=("none", "recording", "work"),
        help="leave out the query's recording or work (default: recording; for a passage none)",
    )
    parser.add_argument("--json", action="store_true", help="print only a JSON list of hits")
    parser.add_argument("--dataset", help="needed where several are published")
    parser.add_argument(
        "--artifacts",
        default=DEFAULT_LOCATION,
        metavar="LOCATION",
        help=f"where indexes are published: a folder or s3://... (default: {DEFAULT_LOCATION})",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Answer one question and print the hits.

    Parameters
    ----------
    args : argparse.Namespace
        What `add_parser` defines.

    Returns
    -------
    int
        0.

    Raises
    ------
    SearchError
        If the question cannot be asked of this index.
    ArtifactError
        If nothing usable is published at the location.
    """
    if args.end is not None and args.start is None:
        raise SearchError("--to needs --from: a passage has a start and an end")
    weights = {args.aspect: 1.0} if args.aspect else _parse_weights(args.aspects)
    kind = "recordings" if args.start is None else "clips"
    index = open_index(args.artifacts, args.dataset, kind)
    hits = _ask(index, args, weights)
    question = "\n".join([_question(args, weights), *_trust(index, weights or {})])
    show(index, hits, question, as_json=args.json)
    return 0


def open_index(location: str, dataset: str | None, kind: str) -> "Index":
    """Load the latest index of one of `INDEX_KINDS` from a published location.

    Parameters
    ----------
    location : str
        A folder, or ``s3://bucket/prefix``.
    dataset : str, optional
        May be left out where one is published.
    kind : str
        ``recordings`` or ``clips``.

    Raises
    ------
    SearchError
        If no dataset is given and the location does not hold exactly one.
    ArtifactError
        If nothing usable is published there.
    """
    # FAISS and boto3 are imported when a search is run, not by `mess --help`.
    from mess_core.artifacts.publishing import load_published

    name = dataset or _only_dataset(location)
    return load_published(location, name, kind, cache_dir=_cache())


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "mess" / "artifacts"


def _parse_weights(text: str | None) -> dict[str, float] | None:
    if text is None:
        return None
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = (piece.strip() for piece in part.partition("="))
        try:
            weight = float(number)
        except ValueError:
            raise SearchError(
                f'--aspects has {part!r}, expected NAME=WEIGHT as in "rubato=0.7,tempo=0.3"'
            ) from None
        if name in weights:
            raise SearchError(f"--aspects names {name!r} twice")
        weights[name] = weight
    return weights


def published_datasets(location: str) -> list[str]:
    """Return the names of the datasets that are published at a location, sorted."""
    from mess_core.artifacts import publishing

    return publishing.published_datasets(location)


def _only_dataset(location: str) -> str:
    names = published_datasets(location)
    if not names:
        raise SearchError(
            f"nothing is published at {location}; run the workflow (`make demo`), or name another "
            "place with --artifacts"
        )
    if len(names) > 1:
        raise SearchError(f"{location} holds several datasets; choose with --dataset: {names}")
    return names[0]


def _ask(index: "Index", args: argparse.Namespace, weights: dict[str, float] | None) -> "list[Hit]":
    from mess_core.search.queries import find_similar, search_by_aspects, search_by_clip

    if args.start is not None:
        return search_by_clip(
            index,
            args.recording,
            args.start,
            args.end,
            k=args.k,
            aspects=weights,
            exclude=args.exclude or "none",
        )
    exclude = args.exclude or "recording"
    if weights is None:
        return find_similar(index, args.recording, k=args.k, exclude=exclude)
    return search_by_aspects(index, args.recording, weights, k=args.k, exclude=exclude)


def _question(args: argparse.Namespace, weights: dict[str, float] | None) -> str:
    passage = ""
    if args.start is not None:
        to = "" if args.end is None else f" to {_clock(args.end)}"
        passage = f" from {_clock(args.start)}{to}"
    respect = "in general"
    if weights:
        respect = "by " + ", ".join(
            name if len(weights) == 1 else f"{name}={weight:g}" for name, weight in weights.items()
        )
    return f"{'passages' if passage else 'recordings'} like {args.recording}{passage}, {respect}"


def _trust(index: "Index", weights: Mapping[str, float]) -> list[str]:
    """Return a line per aspect on how well its layer knows it."""
    known = index.aspects.get("aspects", {})
    return [
        f"{name}: layer {known[name]['layer']}, R2 {known[name]['r2']:.2f} within works, "
        f"{known[name]['finding']}"
        for name in weights
    ]


def show(index: "Index", hits: "Sequence[Hit]", question: str, *, as_json: bool) -> None:
    """Print hits: a heading and a table, or JSON alone with the heading on standard error.

    Parameters
    ----------
    index : Index
        What was searched.
    hits : sequence of Hit
        Best first.
    question : str
        What was asked, for the heading.
    as_json : bool
        Print a list of objects with ``recording_id``, ``score``, and for clips the times.
    """
    notes = sys.stderr if as_json else sys.stdout
    encoder = index.facts.get("encoder", {})
    print(question, file=notes)
    note = f" ({_UNTRAINED})" if encoder.get("trained") is False else ""
    print(f"encoder: {encoder.get('name', 'unknown')}{note}", file=notes)
    clips = index.kind == "clips"
    if as_json:
        print(json.dumps([_record(hit, clips=clips) for hit in hits], indent=2))
    else:
        print("\n".join(_table([_cells(n, hit, clips=clips) for n, hit in enumerate(hits, 1)])))


def _record(hit: "Hit", *, clips: bool) -> dict[str, Any]:
    record = asdict(hit)
    return record if clips else {k: v for k, v in record.items() if k not in ("start_s", "end_s")}


def _cells(rank: int, hit: "Hit", *, clips: bool) -> dict[str, str]:
    surname = hit.composer.split()[-1:]
    work = ": ".join([*surname, hit.title or hit.work_id])
    if len(work) > _WORK_WIDTH:
        work = work[: _WORK_WIDTH - 3] + "..."
    cells = {
        "rank": f"{rank:>4}",
        "score": f"{hit.score:>6.3f}",
        "recording": hit.recording_id,
        "work": work,
        "performer": hit.performer,
    }
    if clips:
        cells["times"] = f"{_clock(hit.start_s)} - {_clock(hit.end_s)}"
    return cells


def _clock(seconds: float) -> str:
    tenths = round(seconds * 10)
    return f"{tenths // 600}:{tenths % 600 // 10:02d}.{tenths % 10}"


def _table(rows: Sequence[dict[str, str]]) -> list[str]:
    if not rows:
        return ["no hits: the index holds nothing else"]
    widths = {name: max(len(name), *(len(row[name]) for row in rows)) for name in rows[0]}
    lines = [{name: name for name in widths}, {name: "-" * widths[name] for name in widths}, *rows]
    return ["  ".join(line[n].ljust(widths[n]) for n in widths).rstrip() for line in lines]
