"""``mess landmarks``: climaxes, boundaries, ends of phrases; and climaxes like one, for search."""

__all__ = ["add_parser", "search_climaxes"]

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mess_core.cli.printing import table
from mess_core.errors import DatasetError, SearchError, StorageError, nearest
from mess_core.layout import Layout
from mess_core.progress import Progress, clock, counted
from mess_core.recordings import Recording, read_recordings, usable

_STYLES = {"climax": ("#D55E00", "-"), "boundary": ("#0072B2", "--")}
_STYLES["phrase_end"] = ("#009E73", ":")

#: Options of a search that climaxes have no use for.
_UNUSED = (
    *("end", "aspect", "aspects", "unlike", "more", "less", "ignore", "where", "dedupe"),
    *("same_passage", "relative", "space", "explain", "words", "wish", "describe"),
)


def add_parser(subparsers: Any) -> None:
    """Add ``landmarks`` to the command line."""
    what = "list a recording's climaxes, boundaries and ends of phrases"
    more = f"{what} (docs/landmarks.md). Climaxes like one: mess search --landmark climax."
    parser = subparsers.add_parser("landmarks", help=what, description=more)
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
    found = [asdict(landmark) for landmark in find_landmarks(recording, layout.cache)]
    if args.picture:
        _draw(recording, found, args.picture)
    _print(found, as_json=args.json)
    return 0


def _rows(layout: Layout, name: str) -> dict[str, Recording]:
    """Return all usable recordings of the table, among which one has to be."""
    rows = {row.recording_id: row for row in usable(read_recordings(layout.table))}
    if name not in rows:
        raise DatasetError(f"{layout.table} has no usable {name!r}: {nearest(name, rows)}")
    return rows


def _print(landmarks: Sequence[dict[str, Any]], *, as_json: bool) -> None:
    """Print landmarks, each after its distance and recording where it has them."""
    cells = [
        {name: str(its[name]) for name in ("distance", "recording") if name in its}
        | {
            "time": f"{clock(its['time_s']):>6}",
            "kind": its["kind"],
            "strength": f"{its['strength']:>8.2f}",
            "from - to": f"{clock(its['start_s'])} - {clock(its['end_s'])}" * bool(its["build_up"]),
        }
        for its in landmarks
    ]
    lines = table(cells) if cells else ["none found"]
    print(json.dumps(landmarks, indent=2) if as_json else "\n".join(lines))


def _draw(recording: Recording, found: Sequence[dict[str, Any]], output: Path) -> None:
    """Draw the curve of climaxes over time, with the landmarks."""
    from matplotlib.figure import Figure

    from mess_core.alignment.landmarks import curves
    from mess_core.extraction.audio import load_audio
    from mess_core.probing.pictures import save_figure
    from mess_core.targets.sound import analyse

    times, series = curves(analyse(load_audio(Path(recording.audio)), 24_000))
    figure = Figure(figsize=(10, 3), layout="constrained")
    axes = figure.subplots()
    axes.plot(times, series["climax"], color="black", linewidth=1)
    for its in found:
        color, style = _STYLES[its["kind"]]
        axes.axvline(its["time_s"], color=color, linestyle=style)
        axes.axvspan(its["start_s"], its["end_s"], color=color, alpha=0.1, linewidth=0)
    for kind, (color, style) in _STYLES.items():
        axes.plot([], [], color=color, linestyle=style, label=kind.replace("_", " "))
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, frameon=False)
    axes.set_title(f"Landmarks of {recording.recording_id}", loc="left")
    axes.set_xlabel("time (s); shaded: from build-up to release")
    axes.set_ylabel("loudness, density,\nregister, dissonance (SD)")
    save_figure(figure, output)


def search_climaxes(args: argparse.Namespace) -> int:
    """Print the climaxes of a dataset that rise or fall most like the one nearest to a time."""
    from mess_core.alignment import landmarks as lm

    by = args.like or [lm.BUILD_UP]
    given = [f"--{name}" for name in _UNUSED if getattr(args, name) not in (None, [], False)]
    given += ["--exclude passage"] * (args.exclude == "passage")
    if given:
        unused = ", ".join(given).replace("_", "-").replace("--end", "--to")
        raise SearchError(f"--landmark is a search of its own: leave out {unused}")
    if not args.recording or args.start is None or not set(by) <= set(lm.CONTOURS):
        raise SearchError(
            f"--landmark needs --recording, --from, and with --like one of "
            f"{', '.join(lm.CONTOURS)} (the default: {lm.BUILD_UP}); got {', '.join(by)}"
        )
    if args.k is not None and args.k < 1:
        raise SearchError(f"k is {args.k}, expected a whole number of at least 1")
    layout = Layout(args.data, args.dataset or "demo")
    rows = _rows(layout, args.recording)
    climaxes: list[tuple[str, lm.Landmark]] = []
    failed: dict[str, str] = {}
    for name in counted([*rows], Progress("recordings"), str):
        try:
            found = lm.find_landmarks(rows[name], layout.cache)
            climaxes += [(name, landmark) for landmark in found if landmark.kind == lm.CLIMAX]
        except StorageError:
            raise
        except Exception as error:
            failed[name] = f"{type(error).__name__}: {error}"
    own = [climax for name, climax in climaxes if name == args.recording]
    if not own:
        reason = failed.get(args.recording, "nothing in it rises and falls enough")
        raise SearchError(f"{args.recording} has no climax: {reason}")
    asked = min(own, key=lambda climax: abs(climax.time_s - args.start))
    column = {"work": "work_id", "none": ""}.get(args.exclude, "recording_id")
    hits: list[dict[str, Any]] = []
    for name, climax in climaxes:
        if not column or getattr(rows[name], column) != getattr(rows[args.recording], column):
            distance = sum(lm.contour_distance(asked, climax, contour) for contour in by)
            hits.append({"distance": round(distance, 3), "recording": name} | asdict(climax))
    hits.sort(key=lambda hit: hit["distance"])
    heading = f"climaxes like that of {args.recording} at {clock(asked.time_s)}, by {', '.join(by)}"
    print(heading, file=sys.stderr if args.json else sys.stdout)
    _print(hits[: args.k or 10], as_json=args.json)
    for name, reason in failed.items():
        print(f"left out: {name}: {reason}", file=sys.stderr)
    return 0
