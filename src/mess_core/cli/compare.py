"""Performances of one work, compared.

``mess compare``: two of them. ``mess work``: all of them. ``mess stretch``: who stretches a
passage.
"""

__all__ = ["add_parser"]

import argparse
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mess_core.cli.printing import seconds, table
from mess_core.errors import AlignmentError, nearest
from mess_core.layout import Layout
from mess_core.progress import clock, duration
from mess_core.recordings import Recording, read_recordings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from mess_core.alignment.compare import Place


#: What is not aligned is told from this length on, s; shorter are silence and applause.
_LEAST_GAP_S = 5.0


def add_parser(subparsers: Any) -> None:
    """Add ``compare``, ``work`` and ``stretch`` to the command line."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--dataset", default="demo", help="default: %(default)s")
    common.add_argument("--data", type=Path, default=Path("data"), help="default: %(default)s")
    common.add_argument("--json", action="store_true", help="print JSON")
    common.add_argument("--picture", type=Path, metavar="FILE.png", help="draw it, too")
    parser = subparsers.add_parser(
        "compare",
        help="compare two performances of a work",
        description="Compare two performances of a work: tempo and loudness over time, where they "
        "differ most, and from MIDI articulation and pedal.",
        parents=[common],
    )
    parser.add_argument("a", metavar="A", help="a recording")
    parser.add_argument("b", metavar="B", help="another recording of the same work")
    parser.add_argument("--from", dest="start", type=seconds, default=0.0, help="time in A")
    parser.add_argument("--to", dest="end", type=seconds, default=math.inf, help="time in A")
    parser.set_defaults(run=_compare)
    parser = subparsers.add_parser(
        "work",
        help="compare all performances of a work",
        description="List the performances of a work, the fastest first: tempo, timing and "
        "loudness against the others, and where each is most itself.",
        parents=[common],
    )
    parser.add_argument("work", metavar="W", help="a work, as in the recording table")
    parser.set_defaults(run=_work)
    parser = subparsers.add_parser(
        "stretch",
        help="rank the performances of a work by how much they stretch a passage",
        description="Rank all performances of a work by how much they stretch a passage against "
        "their own tempo around it. Performances that cannot be told apart share a rank.",
        parents=[common],
    )
    parser.add_argument("--recording", required=True, help="whose times the passage is given in")
    parser.add_argument("--from", dest="start", type=seconds, required=True, help="as 40 or 0:40")
    parser.add_argument("--to", dest="end", type=seconds, required=True)
    parser.set_defaults(run=_stretch)


def _compare(args: argparse.Namespace) -> int:
    import numpy as np

    from mess_core.alignment import read_work
    from mess_core.alignment.compare import compare
    from mess_core.alignment.curves import RATE
    from mess_core.alignment.pictures import draw_worm
    from mess_core.targets.curves import mean_of
    from mess_core.targets.notes import read_performance

    rows = [_recording(args, name) for name in (args.a, args.b)]
    work = read_work(Layout(args.data, args.dataset), rows[0].work_id)
    notes = {row.recording_id: read_performance(Path(row.midi)) for row in rows if row.midi}
    compared = compare(work, args.a, args.b, args.start, args.end, performances=notes)
    (a, b), (c, d) = compared.spans
    steps = np.diff(compared.times)
    lasts = np.where(np.isfinite(steps).all(axis=0), steps, 0.0).sum(axis=1)
    faster = 100 * (lasts[1] / lasts[0] - 1)
    lines = [
        f"{work.work_id}, {len(work.alignments)} performances aligned",
        f"  A: {args.a}, {clock(a)} to {clock(b)}",
        f"  B: {args.b}, {clock(c)} to {clock(d)}",
        f"  A is {abs(faster):.1f} % {'faster' if faster > 0 else 'slower'} than B where both play",
        *("", "Where they differ most, each beside its own tempo and loudness in the work:"),
        *_places(compared.places),
    ]
    for name, curve in (
        ("key-overlap ratio", compared.articulation),
        ("share of pedal", compared.pedal),
    ):
        a, b = map(mean_of, curve)
        if math.isfinite(a + b):
            lines.append(f"mean {name} over the segments of 4 s: A {a:.2f}, B {b:.2f}")
    facts = {
        key: value[..., ::RATE].tolist() if isinstance(value, np.ndarray) else value
        for key, value in asdict(compared).items()
    }
    return _show(args, lines, facts, lambda: draw_worm(compared))


def _work(args: argparse.Namespace) -> int:
    import numpy as np

    from mess_core.alignment import describe, read_work, work_curves
    from mess_core.alignment.pictures import draw_tempo
    from mess_core.report.performances import AGAINST, performance_rows

    layout = Layout(args.data, args.dataset)
    work, recordings = read_work(layout, args.work), read_recordings(layout.table)
    told = performance_rows(layout, [row for row in recordings if row.work_id == args.work])
    lasts = {row.recording_id: row.duration_s for row in recordings}
    told.sort(key=lambda row: -(row["relative_tempo"] or 0.0))
    places = describe(work)
    cells, gaps, where = [], [], []
    for row in told:
        name = row["recording_id"]
        tempo, timing, loudness = (row[target] for target in AGAINST)
        cells.append(
            {
                "performance": name + " *" * (name == work.reference),
                "aligned by": row["source"],
                "share": f"{row['share']:.0%}",
                "tempo": _number("{:+.1f} %", tempo and 100 * math.expm1(tempo)),
                "timing deviation": _number("{:.3f}", timing),
                "loudness": _number("{:+.1f} dB", loudness),
            }
        )
        alignment = work.alignments[name]
        edges = alignment.regions.ravel()
        in_work = np.interp(edges, alignment.times, alignment.work_times)
        own = np.array([0.0, *edges, lasts[name]]).reshape(-1, 2)
        there = np.array([0.0, *in_work, lasts[work.reference]]).reshape(-1, 2)
        missing = np.maximum(np.ptp(own, axis=1), np.ptp(there, axis=1)) > _LEAST_GAP_S
        own, there = own[missing], there[missing]
        gaps += [
            f"{name} from {clock(a)} to {clock(b)} is not aligned: it has {duration(b - a)} "
            f"where the reference has {duration(d - c)}"
            for (a, b), (c, d) in zip(own, there, strict=True)
        ]
        where += [f"  {name}", *_places(places[name])]
        row |= {"places": [asdict(place) for place in places[name]], "gaps_s": own.tolist()}
    lines = [
        *(f"{args.work}; beats: {work.beats_from or 'none'}", "", *table(cells)),
        "*: the reference; share: how much of it is aligned; all else is against the consensus",
        *(*gaps, *_left_out(work.left_out), ""),
        "Where each differs most from the others, beside its own tempo and loudness:",
        *where,
    ]
    facts = {"work": args.work, **work.facts(), "performances": told}
    return _show(args, lines, facts, lambda: draw_tempo({args.work: work_curves(work)}))


def _stretch(args: argparse.Namespace) -> int:
    from mess_core.alignment import read_work, stretch, work_curves
    from mess_core.alignment.pictures import draw_tempo

    row = _recording(args, args.recording)
    work = read_work(Layout(args.data, args.dataset), row.work_id)
    ranking = stretch(work, args.recording, args.start, args.end)
    rows = [
        {
            "rank": f"{each.rank}{' tied' * each.tied}",
            "takes": f"{100 * math.expm1(each.stretch):+.1f} %",
            "error": f"{100 * each.error:.1f}",
            "performance": each.recording_id,
            "from": clock(each.start_s),
            "to": clock(each.end_s),
        }
        for each in ranking.rows
    ]
    (start, end), (first, last) = ranking.passage, ranking.surroundings
    lines = [
        f"{row.work_id}, {clock(args.start)} to {clock(args.end)} of {args.recording}",
        *("", *table(rows), ""),
        "takes: how much more time than the others, the tempo of the "
        f"{duration(start - first + last - end)} around it aside; error: a standard error, %",
        *_left_out(ranking.left_out),
    ]
    facts = {"work": row.work_id, **asdict(ranking)}
    return _show(args, lines, facts, lambda: draw_tempo({row.work_id: work_curves(work)}, ranking))


def _recording(args: argparse.Namespace, name: str) -> Recording:
    rows = {row.recording_id: row for row in read_recordings(Layout(args.data, args.dataset).table)}
    if name not in rows:
        raise AlignmentError(f"{args.dataset} has no recording {name!r}: {nearest(name, rows)}")
    return rows[name]


def _number(form: str, value: float | None) -> str:
    return "-" if value is None else form.format(value)


def _places(places: Iterable["Place"]) -> list[str]:
    return [f"    {place.sentence}" for place in places] or ["    nothing that can be told apart"]


def _left_out(reasons: Mapping[str, str]) -> list[str]:
    return [f"left out: {name}: {reason}" for name, reason in reasons.items()]


def _show(
    args: argparse.Namespace,
    lines: Iterable[str],
    facts: Mapping[str, Any],
    draw: Callable[[], "Figure"],
) -> int:
    """Print lines or facts, and write the picture that was asked for."""
    if args.json:
        # With four decimals; what is not known is null.
        known = json.loads(
            json.dumps(facts),
            parse_float=lambda text: round(float(text), 4),
            parse_constant=lambda _: None,
        )
        print(json.dumps(known, ensure_ascii=False))
    else:
        print("\n".join(lines))
    if args.picture:
        from mess_core.probing.pictures import save_figure

        save_figure(draw(), args.picture)
    return 0
