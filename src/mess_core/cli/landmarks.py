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
from mess_core.errors import DatasetError, MessError, SearchError, StorageError, nearest
from mess_core.layout import Layout
from mess_core.progress import Progress, clock, counted
from mess_core.recordings import Recording, read_recordings, usable

if TYPE_CHECKING:
    from mess_core.alignment.landmarks import Landmark

#: How many climaxes are listed.
_HITS = 10


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
    recording, _ = _named(layout, args.recording)
    found = find_landmarks(recording, layout.cache)
    if args.picture:
        _draw(recording, found, args.picture)
    if args.json:
        print(json.dumps([_record(landmark) for landmark in found], indent=2))
    elif found:
        print("\n".join(table([_cells(landmark) for landmark in found])))
    else:
        print(f"no landmarks in {args.recording}")
    return 0


def _named(layout: Layout, name: str) -> tuple[Recording, list[Recording]]:
    """Return a recording of the table by its id, and all that can be used."""
    rows = {row.recording_id: row for row in usable(read_recordings(layout.table))}
    if name not in rows:
        raise DatasetError(
            f"{layout.table} has no usable recording {name!r}: {nearest(name, rows)}"
        )
    return rows[name], [*rows.values()]


def _record(landmark: "Landmark") -> dict[str, Any]:
    """Return what JSON says of a landmark: only what it has."""
    return {k: v for k, v in asdict(landmark).items() if v == v and v != ()}  # NaN is not itself


def _cells(landmark: "Landmark") -> dict[str, str]:
    span = f"{clock(landmark.start_s)} - {clock(landmark.end_s)}" if landmark.build_up else ""
    return {
        "time": f"{clock(landmark.time_s):>6}",
        "kind": landmark.kind,
        "strength": f"{landmark.strength:>8.2f}",
        "build-up to release": span,
    }


def _draw(recording: Recording, found: Sequence["Landmark"], output: Path) -> None:
    """Draw loudness and the curve of climaxes over time, with the landmarks."""
    from matplotlib.figure import Figure

    from mess_core.alignment.landmarks import BOUNDARY, CLIMAX, KINDS, PHRASE_END, climax_curve
    from mess_core.extraction.audio import load_audio
    from mess_core.probing.pictures import save_figure
    from mess_core.targets.sound import LOUDNESS_RATE, LOUDNESS_WINDOW_S, analyse

    sound = analyse(load_audio(Path(recording.audio)), 24_000)
    times, curve = climax_curve(sound)
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    upper, lower = figure.subplots(2, sharex=True)
    loud = [i / LOUDNESS_RATE + LOUDNESS_WINDOW_S / 2 for i in range(len(sound.loudness))]
    upper.plot(loud, sound.loudness, color="0.4", linewidth=0.8)
    lower.plot(times, curve, color="black", linewidth=1.2)
    styles = {CLIMAX: ("#D55E00", "-"), BOUNDARY: ("#0072B2", "--"), PHRASE_END: ("#009E73", ":")}
    for kind in KINDS:
        places = [landmark for landmark in found if landmark.kind == kind]
        color, style = styles[kind]
        for i, place in enumerate(places):
            label = kind.replace("_", " ") if i == 0 else None
            for axes in (upper, lower):
                axes.axvline(place.time_s, color=color, linestyle=style, label=label)
            if place.build_up:
                lower.axvspan(place.start_s, place.end_s, color=color, alpha=0.12, linewidth=0)
    upper.set_ylabel("loudness (dBFS)")
    lower.set_ylabel("all together (SD)")
    lower.set_xlabel("time (s); shaded: from build-up to release")
    upper.set_title(f"Landmarks of {recording.recording_id}", loc="left")
    if found:
        upper.legend(loc="lower left", bbox_to_anchor=(0.6, 1.0), ncols=3, frameon=False)
    save_figure(figure, output)


def search_climaxes(args: argparse.Namespace) -> int:
    """Print the climaxes of a dataset that rise or fall most like the one nearest to a time."""
    from mess_core.alignment.landmarks import BUILD_UP, CLIMAX, CONTOURS, contour_distance

    contours = args.like or [BUILD_UP]
    if not args.recording or args.start is None or not set(contours) <= set(CONTOURS):
        raise SearchError(
            f"--landmark needs --recording, --from and as --like {' or '.join(CONTOURS)} "
            f"(the default: {BUILD_UP}), not {', '.join(contours)}"
        )
    layout = Layout(args.data, args.dataset or "demo")
    recording, rows = _named(layout, args.recording)
    climaxes, failed = _of_kind(CLIMAX, rows, layout.cache)
    if not climaxes.get(args.recording):
        reason = failed.get(args.recording, "nothing in it rises and falls enough")
        raise SearchError(f"{args.recording} has no climax: {reason}")
    asked = min(climaxes[args.recording], key=lambda climax: abs(climax.time_s - args.start))
    column = {"recording": "recording_id", "work": "work_id"}.get(args.exclude or "recording")
    hits = sorted(
        (
            (sum(contour_distance(asked, other, contour) for contour in contours), row, other)
            for row in rows
            if not column or getattr(row, column) != getattr(recording, column)
            for other in climaxes.get(row.recording_id, [])
            if other is not asked
        ),
        key=lambda hit: (hit[0], hit[1].recording_id, hit[2].time_s),
    )[: args.k or _HITS]
    out = sys.stderr if args.json else sys.stdout
    print(f"climaxes like {args.recording} at {clock(asked.time_s)}", "by", *contours, file=out)
    if args.json:
        keys = ("recording_id", "work_id", "performer")
        facts = [({"distance": d} | {k: getattr(r, k) for k in keys}, o) for d, r, o in hits]
        print(json.dumps([fact | _record(other) for fact, other in facts], indent=2))
    elif hits:
        cells = [
            {"distance": f"{distance:>8.3f}", "recording": row.recording_id} | _cells(other)
            for distance, row, other in hits
        ]
        print("\n".join(table(cells)))
    for name, reason in failed.items():
        print(f"left out: {name}: {reason}", file=sys.stderr)
    return 0


def _of_kind(
    kind: str, rows: Sequence[Recording], cache: Path
) -> tuple[dict[str, list["Landmark"]], dict[str, str]]:
    """Return the landmarks of a kind by recording, and why others have failed."""
    from mess_core.alignment.landmarks import find_landmarks

    found: dict[str, list[Landmark]] = {}
    failed: dict[str, str] = {}
    for row in counted(rows, Progress("recordings"), lambda row: row.recording_id):
        try:
            landmarks = find_landmarks(row, cache)
            found[row.recording_id] = [each for each in landmarks if each.kind == kind]
        except StorageError:
            raise
        except MessError as error:
            failed[row.recording_id] = str(error)
    return found, failed
