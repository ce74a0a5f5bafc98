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

    from mess_core.alignment.compare import Comparison, Place, Segment

#: Segments of articulation and pedal that a terminal shows; JSON has all.
_SEGMENTS = 6


def add_parser(subparsers: Any) -> None:
    """Add ``compare``, ``work`` and ``stretch`` to the command line."""
    parser = subparsers.add_parser(
        "compare",
        help="compare two performances of a work",
        description="Compare two performances of a work: tempo and loudness over time, where they "
        "differ most, and from MIDI articulation and pedal.",
    )
    parser.add_argument("a", metavar="A", help="a recording")
    parser.add_argument("b", metavar="B", help="another recording of the same work")
    parser.add_argument("--from", dest="start", type=seconds, default=0.0, help="time in A")
    parser.add_argument("--to", dest="end", type=seconds, help="time in A")
    _finish(parser, _compare)
    parser = subparsers.add_parser(
        "work",
        help="compare all performances of a work",
        description="List the performances of a work, the fastest first: tempo, timing and "
        "loudness against the others, and where each is most itself.",
    )
    parser.add_argument("work", metavar="W", help="a work, as in the recording table")
    _finish(parser, _work)
    parser = subparsers.add_parser(
        "stretch",
        help="rank the performances of a work by how much they stretch a passage",
        description="Rank all performances of a work by how much they stretch a passage against "
        "their own tempo around it. Performances that cannot be told apart share a rank.",
    )
    parser.add_argument("--recording", required=True, help="whose times the passage is given in")
    parser.add_argument("--from", dest="start", type=seconds, required=True, help="as 40 or 0:40")
    parser.add_argument("--to", dest="end", type=seconds, required=True)
    _finish(parser, _stretch)


def _finish(parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace], int]) -> None:
    parser.add_argument("--dataset", default="demo", help="default: %(default)s")
    parser.add_argument("--data", type=Path, default=Path("data"), help="default: %(default)s")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--picture", type=Path, metavar="FILE.png", help="draw it, too")
    parser.set_defaults(run=run)


def _compare(args: argparse.Namespace) -> int:
    from mess_core.alignment import read_work
    from mess_core.alignment.compare import compare
    from mess_core.alignment.pictures import draw_worm
    from mess_core.targets.notes import read_performance

    rows = [_recording(args, args.a, args.end or args.start), _recording(args, args.b)]
    if rows[0].work_id != rows[1].work_id:
        raise AlignmentError(
            f"{args.a} plays {rows[0].work_id}, {args.b} plays {rows[1].work_id}: only "
            "performances of one work can be compared"
        )
    work = read_work(Layout(args.data, args.dataset), rows[0].work_id)
    notes = {row.recording_id: read_performance(Path(row.midi)) for row in rows if row.midi}
    compared = compare(work, args.a, args.b, args.start, args.end, performances=notes)
    lines = [f"{work.work_id}, {len(work.alignments)} performances aligned"]
    a, b = (end - start for start, end in compared.spans)
    for label, name, span in zip("AB", compared.recordings, compared.spans, strict=True):
        lines.append(f"  {label}: {name}, {clock(span[0])} to {clock(span[1])}")
    faster = 100 * (b / a - 1)
    lines.append(f"  A is {abs(faster):.1f} % {'faster' if faster > 0 else 'slower'} than B there")
    lines += ["", "Where they differ most, each beside its own tempo and loudness in the work:"]
    lines += [*_places(compared.places), *_segments(compared.segments)]
    return _show(args, lines, _facts(compared), lambda: draw_worm(compared))


def _segments(segments: Iterable["Segment"]) -> list[str]:
    """Return the lines of articulation and pedal: a few segments, in the order of time."""
    known = [part for part in segments if all(map(math.isfinite, part.articulation))]
    if not known:
        return []
    known.sort(key=lambda part: abs(math.log(part.articulation[0] / part.articulation[1])))
    rows = [
        {
            "A at": clock(part.spans[0][0]),
            "B at": clock(part.spans[1][0]),
            "articulation of A": f"{part.articulation[0]:.2f}",
            "of B": f"{part.articulation[1]:.2f}",
            "pedal of A": f"{100 * part.pedal[0]:.0f} %",
            "B's": f"{100 * part.pedal[1]:.0f} %",
        }
        for part in sorted(known[-_SEGMENTS:], key=lambda part: part.spans)
    ]
    return ["", "Key-overlap ratio and share of pedal where the first differs most:", *table(rows)]


def _facts(compared: "Comparison") -> dict[str, Any]:
    """Return a comparison as JSON has it; curves once a second of work time."""
    import numpy as np

    from mess_core.alignment.curves import RATE, smooth

    curves, part = compared.curves, compared.part
    every = slice(part.start, part.stop, RATE)
    rows = [curves.row(name) for name in compared.recordings]
    log_tempo = np.array([smooth(curves.log_tempo[row]) for row in rows])[:, every]
    return {
        "recordings": compared.recordings,
        "spans_s": compared.spans,
        "work_time_s": curves.work_times[every].tolist(),
        "time_s": curves.times[rows, every].tolist(),
        "log_tempo": log_tempo.tolist(),
        "bpm": (60 * curves.beat_rate[every] * np.exp(log_tempo)).tolist(),
        "loudness_dbfs": curves.loudness[rows, every].tolist(),
        "tempo_from_consensus": compared.tempo[:, ::RATE].tolist(),
        "loudness_from_consensus": compared.loudness[:, ::RATE].tolist(),
        "from_consensus_in": "deviations" if compared.in_deviations else "% and dB",
        "places": [asdict(place) for place in compared.places],
        "segments": [asdict(segment) for segment in compared.segments],
    }


def _work(args: argparse.Namespace) -> int:
    from mess_core.alignment import read_work, work_curves
    from mess_core.alignment.compare import describe
    from mess_core.alignment.pictures import draw_tempo

    layout = Layout(args.data, args.dataset)
    works = {row.work_id for row in read_recordings(layout.table)}
    if args.work not in works:
        raise AlignmentError(
            f"{args.dataset} has no work {args.work!r}: {nearest(args.work, works)}"
        )
    work = read_work(layout, args.work)
    told = describe(work)
    rows = [
        {
            "performance": each.recording_id + " *" * (each.recording_id == work.reference),
            "aligned by": work.sources[each.recording_id],
            "lasts": clock(each.duration_s),
            "tempo": f"{each.tempo_percent:+.1f} %",
            "timing deviation": f"{each.timing_deviation:.3f}",
            "loudness": f"{each.loudness_difference:+.1f} dB",
            "loudest": clock(each.loudest_s) if math.isfinite(each.loudest_s) else "-",
            "slowest": clock(each.slowest_s) if math.isfinite(each.slowest_s) else "-",
        }
        for each in told
    ]
    lines = [f"{args.work}; beats: {work.beats_from or 'none'}", "", *table(rows)]
    lines += ["* the reference; tempo, timing, loudness and slowest are against the consensus"]
    lines += [
        f"{each.recording_id} from {clock(a)} to {clock(b)} is not aligned: it has "
        f"{duration(b - a)} where the reference has {duration(d - c)}"
        for each in told
        for (a, b), (c, d) in each.gaps
    ]
    lines += _left_out(work.left_out)
    lines += ["", "Where each differs most from the others, beside its own tempo and loudness:"]
    for each in told:
        lines += [f"  {each.recording_id}", *(f"  {line}" for line in _places(each.places))]
    facts = {"work": args.work, **work.facts(), "performances": [asdict(each) for each in told]}
    return _show(args, lines, facts, lambda: draw_tempo(work_curves(work), args.work))


def _stretch(args: argparse.Namespace) -> int:
    from mess_core.alignment import read_work, stretch, work_curves
    from mess_core.alignment.pictures import draw_tempo

    row = _recording(args, args.recording, args.end)
    work = read_work(Layout(args.data, args.dataset), row.work_id)
    ranking = stretch(work, args.recording, args.start, args.end)
    rows = [
        {
            "rank": f"{each.rank}{' tied' * each.tied}",
            "takes": f"{each.percent:+.1f} %",
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
    facts = asdict(ranking) | {"work": row.work_id}
    facts["rows"] = [asdict(each) | {"percent": each.percent} for each in ranking.rows]
    shown = [each.recording_id for each in ranking.rows[:3]]
    given: Any = {"passage": ranking.passage, "shown": shown}
    return _show(args, lines, facts, lambda: draw_tempo(work_curves(work), row.work_id, **given))


def _recording(args: argparse.Namespace, name: str, until_s: float = 0.0) -> Recording:
    """Return a recording's row; raise if there is none, or it ends before a time."""
    rows = {row.recording_id: row for row in read_recordings(Layout(args.data, args.dataset).table)}
    if name not in rows:
        raise AlignmentError(f"{args.dataset} has no recording {name!r}: {nearest(name, rows)}")
    if until_s > rows[name].duration_s:
        lasts = clock(rows[name].duration_s)
        raise AlignmentError(f"{name} lasts {lasts}; {clock(until_s)} is beyond its end")
    return rows[name]


def _places(places: Iterable["Place"]) -> list[str]:
    return [f"  {place.sentence}" for place in places] or ["  nothing that can be told apart"]


def _left_out(reasons: Mapping[str, str]) -> list[str]:
    return [f"left out: {name}: {reason}" for name, reason in reasons.items()]


def _show(
    args: argparse.Namespace,
    lines: Iterable[str],
    facts: Mapping[str, Any],
    draw: Callable[[], "Figure"],
) -> int:
    """Print lines or facts, and write the picture that was asked for."""
    print(json.dumps(_plain(facts), ensure_ascii=False) if args.json else "\n".join(lines))
    if args.picture:
        from mess_core.probing.pictures import save_figure

        save_figure(draw(), args.picture)
    return 0


def _plain(value: Any) -> Any:
    """Return what JSON can hold, with four decimals: what is not known is null."""
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, float):
        return round(value, 4) if math.isfinite(value) else None
    return value
