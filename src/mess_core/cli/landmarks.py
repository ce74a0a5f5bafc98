"""``mess landmarks``: climaxes, boundaries, ends of phrases; and climaxes like one, for search."""

__all__ = ["add_parser", "search_climaxes"]

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mess_core.cli.printing import table
from mess_core.errors import DatasetError, SearchError, StorageError, nearest
from mess_core.layout import Layout
from mess_core.progress import Progress, clock, counted
from mess_core.recordings import Recording, read_recordings, usable

if TYPE_CHECKING:
    from mess_core.alignment.landmarks import Landmark

_STYLES = {
    "climax": ("#D55E00", "-"),
    "boundary": ("#0072B2", "--"),
    "phrase_end": ("#009E73", ":"),
}

#: Options of a search that climaxes have no use for.
_UNUSED = (
    *("end", "aspect", "aspects", "unlike", "more", "less", "ignore", "where", "dedupe"),
    *("same_passage", "relative", "explain"),
)


def add_parser(subparsers: Any) -> None:
    """Add ``landmarks`` to the command line."""
    parser = subparsers.add_parser(
        "landmarks",
        help="list a recording's climaxes, boundaries and ends of phrases",
        description="List a recording's climaxes, boundaries and ends of phrases "
        "(docs/landmarks.md). Climaxes like one: mess search --landmark climax.",
    )
    parser.add_argument("--recording", required=True, metavar="ID", help="of the recording table")
    parser.add_argument("--dataset", default="demo", help="default: %(default)s")
    parser.add_argument("--data", type=Path, default=Path("data"), help="default: %(default)s")
    parser.add_argument("--json", action="store_true", help="print only a JSON list")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw them, as .png or .svg")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from mess_core.alignment.landmarks import find_landmarks

    layout = Layout(args.data, args.dataset)
    recording = _rows(layout, args.recording)[args.recording]
    found = find_landmarks(recording, layout.cache)
    if args.picture:
        _draw(recording, found, args.picture)
    _print([({}, landmark) for landmark in found], as_json=args.json)
    return 0


def _rows(layout: Layout, name: str) -> dict[str, Recording]:
    """Return all usable recordings of the table, among which one has to be."""
    rows = {row.recording_id: row for row in usable(read_recordings(layout.table))}
    if name not in rows:
        hint = nearest(name, rows)
        raise DatasetError(f"{layout.table} has no usable recording {name!r}: {hint}")
    return rows


def _print(found: Sequence[tuple[dict[str, Any], "Landmark"]], *, as_json: bool) -> None:
    """Print landmarks, each with what else is to be said of it."""
    if as_json:
        print(json.dumps([facts | asdict(landmark) for facts, landmark in found], indent=2))
        return
    cells = [
        {name: str(fact) for name, fact in facts.items()}
        | {
            "time": f"{clock(landmark.time_s):>6}",
            "kind": landmark.kind,
            "strength": f"{landmark.strength:>8.2f}",
            "from - to": f"{clock(landmark.start_s)} - {clock(landmark.end_s)}"
            if landmark.build_up
            else "",
        }
        for facts, landmark in found
    ]
    print("\n".join(table(cells) if cells else ["none found"]))


def _draw(recording: Recording, found: Sequence["Landmark"], output: Path) -> None:
    """Draw loudness and the curve of climaxes over time, with the landmarks."""
    from matplotlib.figure import Figure

    from mess_core.alignment.landmarks import curves
    from mess_core.extraction.audio import load_audio
    from mess_core.probing.pictures import save_figure
    from mess_core.targets.sound import analyse

    times, series = curves(analyse(load_audio(Path(recording.audio)), 24_000))
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    panels = figure.subplots(2, sharex=True)
    labels = {"loudness": "loudness (dBFS)", "climax": "all together (SD)"}
    for panel, (name, label) in zip(panels, labels.items(), strict=True):
        panel.plot(times, series[name], color="black", linewidth=1)
        panel.set_ylabel(label)
        for landmark in found:
            color, style = _STYLES[landmark.kind]
            panel.axvline(landmark.time_s, color=color, linestyle=style)
            panel.axvspan(landmark.start_s, landmark.end_s, color=color, alpha=0.1, linewidth=0)
    for kind, (color, style) in _STYLES.items():
        panels[0].plot([], [], color=color, linestyle=style, label=kind.replace("_", " "))
    panels[0].legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, frameon=False)
    panels[0].set_title(f"Landmarks of {recording.recording_id}", loc="left")
    panels[1].set_xlabel("time (s); shaded: from build-up to release")
    save_figure(figure, output)


def search_climaxes(args: argparse.Namespace) -> int:
    """Print the climaxes of a dataset that rise or fall most like the one nearest to a time."""
    from mess_core.alignment.landmarks import BUILD_UP, CONTOURS, contour_distance

    by = args.like or [BUILD_UP]
    unused = [name for name in _UNUSED if getattr(args, name) not in (None, [], False)]
    unused += ["exclude passage"] * (args.exclude == "passage")
    if unused:
        named = ", ".join(f"--{name.replace('_', '-')}" for name in unused)
        raise SearchError(f"--landmark is a search of its own: leave out {named}")
    if not args.recording or args.start is None or not set(by) <= set(CONTOURS):
        raise SearchError(
            f"--landmark needs --recording, --from, and as --like {' or '.join(CONTOURS)} "
            f"(the default: {BUILD_UP}), not {', '.join(by)}"
        )
    layout = Layout(args.data, args.dataset or "demo")
    rows = _rows(layout, args.recording)
    climaxes, failed = _climaxes([*rows.values()], layout.cache)
    if not (own := climaxes.get(args.recording)):
        reason = failed.get(args.recording, "nothing in it rises and falls enough")
        raise SearchError(f"{args.recording} has no climax: {reason}")
    asked = min(own, key=lambda climax: abs(climax.time_s - args.start))
    column = {"recording": "recording_id", "work": "work_id"}.get(args.exclude or "recording", "")
    excluded = getattr(rows[args.recording], column) if column else None
    hits: list[tuple[dict[str, Any], Landmark]] = []
    for recording, places in climaxes.items():
        if not column or getattr(rows[recording], column) != excluded:
            for climax in places:
                distance = sum(contour_distance(asked, climax, name) for name in by)
                hits.append(({"distance": round(distance, 3), "recording": recording}, climax))
    hits = sorted((hit for hit in hits if hit[1] is not asked), key=lambda hit: hit[0]["distance"])
    heading = f"climaxes like that of {args.recording} at {clock(asked.time_s)}, by {', '.join(by)}"
    print(heading, file=sys.stderr if args.json else sys.stdout)
    _print(hits[: args.k or 10], as_json=args.json)
    for name, reason in failed.items():
        print(f"left out: {name}: {reason}", file=sys.stderr)
    return 0


def _climaxes(
    rows: Sequence[Recording], cache: Path
) -> tuple[dict[str, list["Landmark"]], dict[str, str]]:
    """Return the climaxes of recordings, and why others have failed."""
    from mess_core.alignment.landmarks import CLIMAX, find_landmarks

    found: dict[str, list[Landmark]] = {}
    failed: dict[str, str] = {}
    for row in counted(rows, Progress("recordings"), lambda row: row.recording_id):
        try:
            landmarks = find_landmarks(row, cache)
            found[row.recording_id] = [each for each in landmarks if each.kind == CLIMAX]
        except StorageError:
            raise
        except Exception as error:
            failed[row.recording_id] = f"{type(error).__name__}: {error}"
    return found, failed
