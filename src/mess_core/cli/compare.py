"""Performances of one work, compared.

``mess compare``: two of them. ``mess work``: all of them. ``mess stretch``: who stretches a
passage.
"""

__all__ = ["add_parser"]

import argparse
import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mess_core.cli.printing import seconds, table
from mess_core.errors import AlignmentError, nearest
from mess_core.layout import Layout
from mess_core.progress import clock, duration
from mess_core.recordings import Recording, read_recordings

#: Segments of articulation and pedal that a terminal shows; JSON has all.
_SEGMENTS = 6

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from mess_core.alignment.compare import Comparison
    from mess_core.alignment.maps import WorkAlignment


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


def _finish(parser: argparse.ArgumentParser, run: Any) -> None:
    parser.add_argument("--dataset", default="demo", help="default: %(default)s")
    parser.add_argument("--data", type=Path, default=Path("data"), help="default: %(default)s")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--picture", type=Path, metavar="FILE.png", help="draw it, too")
    parser.set_defaults(run=run)


def _compare(args: argparse.Namespace) -> int:
    from mess_core.alignment.compare import compare
    from mess_core.alignment.pictures import draw_worm
    from mess_core.targets.notes import read_performance

    rows = [_recording(args, args.a), _recording(args, args.b)]
    if rows[0].work_id != rows[1].work_id:
        raise AlignmentError(
            f"{args.a} plays {rows[0].work_id}, {args.b} plays {rows[1].work_id}: only "
            "performances of one work can be compared"
        )
    _check_within(rows[0], args.end or args.start)
    work = _aligned(args, rows[0].work_id)
    notes = {row.recording_id: read_performance(Path(row.midi)) for row in rows if row.midi}
    compared = compare(work, args.a, args.b, args.start, args.end, performances=notes)
    if args.json:
        _print_json(_facts(compared, work))
    else:
        print("\n".join(_told(compared, work)))
    return _drawn(args, lambda: draw_worm(compared))


def _told(compared: "Comparison", work: "WorkAlignment") -> list[str]:
    """Return the lines of a comparison."""
    lines = [f"{work.work_id}, {len(work.alignments)} performances aligned"]
    took = [end - start for start, end in compared.spans]
    for label, name, span, length in zip(
        "AB", compared.recordings, compared.spans, took, strict=True
    ):
        lines.append(f"  {label}: {name}, {clock(span[0])} to {clock(span[1])}, {length:.1f} s")
    faster = 100 * (took[1] / took[0] - 1)
    lines.append(f"  A is {abs(faster):.1f} % {'faster' if faster > 0 else 'slower'} than B")
    lines += ["", "Where they differ most, each beside its own tempo and loudness in the work:"]
    lines += _places(compared.places)
    if not compared.segments:
        return lines
    differ = sorted(
        (part for part in compared.segments if all(map(math.isfinite, part.articulation))),
        key=lambda part: abs(math.log(part.articulation[0] / part.articulation[1])),
    )
    shown = [
        {
            "A at": clock(part.spans[0][0]),
            "B at": clock(part.spans[1][0]),
            "overlap of A": f"{part.articulation[0]:.2f}",
            "of B": f"{part.articulation[1]:.2f}",
            "pedal of A": f"{part.pedal[0]:.0%}",
            "B's": f"{part.pedal[1]:.0%}",
        }
        for part in sorted(differ[-_SEGMENTS:], key=lambda part: part.spans[0])
    ]
    lines += ["", "Articulation (key-overlap ratio) and share of pedal, where that differs most:"]
    return lines + (table(shown) if shown else ["  too few notes"])


def _facts(compared: "Comparison", work: "WorkAlignment") -> dict[str, Any]:
    """Return a comparison as JSON has it; curves once a second of work time."""
    from mess_core.alignment.curves import RATE

    curves, part = compared.curves, compared.part
    every = slice(part.start, part.stop, RATE)
    rows = [curves.row(name) for name in compared.recordings]
    unit = "standard deviations" if compared.in_deviations else "% and dB"
    return {
        "work": work.work_id,
        "recordings": compared.recordings,
        "spans_s": compared.spans,
        "curves": {
            "work_time_s": curves.work_times[every].tolist(),
            "time_s": curves.times[rows, every].tolist(),
            "log_tempo": curves.log_tempo[rows, every].tolist(),
            "bpm": (60 * curves.beat_rate * math.e**curves.log_tempo)[rows, every].tolist(),
            "loudness_dbfs": curves.loudness[rows, every].tolist(),
            "tempo_from_consensus": compared.tempo[:, ::RATE].tolist(),
            "loudness_from_consensus": compared.loudness[:, ::RATE].tolist(),
            "from_consensus_in": unit,
        },
        "places": [{**asdict(place), "sentence": place.sentence} for place in compared.places],
        "segments": [asdict(segment) for segment in compared.segments],
    }


def _work(args: argparse.Namespace) -> int:
    from mess_core.alignment.compare import describe
    from mess_core.alignment.curves import work_curves
    from mess_core.alignment.pictures import draw_tempo

    works = {row.work_id for row in read_recordings(Layout(args.data, args.dataset).table)}
    if args.work not in works:
        raise AlignmentError(
            f"{args.dataset} has no work {args.work!r}: {nearest(args.work, works)}"
        )
    work = _aligned(args, args.work)
    told = describe(work)
    if args.json:
        performances = [
            asdict(each) | {"places": [asdict(p) | {"sentence": p.sentence} for p in each.places]}
            for each in told
        ]
        _print_json({"work": work.work_id, **work.facts(), "performances": performances})
        return _drawn(args, lambda: draw_tempo(work_curves(work), work.work_id))
    print(f"{work.work_id}: {len(told)} performances on the time of {work.reference}")
    print(f"beats: {work.beats_from or 'none'}\n")
    rows = [
        {
            "performance": each.recording_id + " *" * (each.recording_id == work.reference),
            "aligned by": work.sources[each.recording_id],
            "lasts": duration(each.duration_s),
            "tempo": f"{each.tempo_percent:+.1f} %",
            "timing deviation": f"{each.timing_deviation:.3f}",
            "loudness": f"{each.loudness_difference:+.1f} dB",
            "loudest": _clock(each.loudest_s),
            "slowest": _clock(each.slowest_s),
        }
        for each in told
    ]
    print("\n".join(table(rows)))
    print(
        "(* the reference; tempo, timing and loudness against the consensus; loudest and slowest "
        "at)"
    )
    for each in told:
        for (a, b), (c, d) in each.gaps:
            print(
                f"  {each.recording_id} from {clock(a)} to {clock(b)} is not aligned: the "
                f"reference has {duration(d - c)} there, it has {duration(b - a)}"
            )
    for name, reason in work.left_out.items():
        print(f"  left out: {name}: {reason}")
    print("\nWhere each differs most from the others, beside its own tempo and loudness:")
    for each in told:
        print("\n  ".join([f"  {each.recording_id}", *_places(each.places)]))
    return _drawn(args, lambda: draw_tempo(work_curves(work), work.work_id))


def _stretch(args: argparse.Namespace) -> int:
    from mess_core.alignment.compare import stretch
    from mess_core.alignment.curves import work_curves
    from mess_core.alignment.pictures import draw_tempo

    row = _recording(args, args.recording)
    _check_within(row, args.end)
    work = _aligned(args, row.work_id)
    ranking = stretch(work, args.recording, args.start, args.end)

    def draw() -> "Figure":
        best = [each.recording_id for each in ranking.rows[:3]]
        return draw_tempo(work_curves(work), work.work_id, passage=ranking.passage, shown=best)

    if args.json:
        rows = [asdict(each) | {"percent": each.percent} for each in ranking.rows]
        _print_json(asdict(ranking) | {"rows": rows})
        return _drawn(args, draw)
    around = ranking.surroundings
    print(
        f"{work.work_id}: {clock(args.start)} to {clock(args.end)} of {args.recording}, against "
        f"{duration(around[1] - around[0] - ranking.passage[1] + ranking.passage[0])} around it\n"
    )
    shown = [
        {
            "rank": f"{each.rank}{' tied' if each.tied else ''}",
            "takes": f"{each.percent:+.1f} %",
            "error": f"{100 * each.error:.1f}",
            "performance": each.recording_id,
            "from": clock(each.start_s),
            "to": clock(each.end_s),
        }
        for each in ranking.rows
    ]
    print("\n".join(table(shown)))
    print(
        "\ntakes: time against the others, its tempo around the passage aside; error: one "
        "standard error, %"
    )
    for name, reason in ranking.left_out.items():
        print(f"left out: {name}: {reason}")
    return _drawn(args, draw)


def _recording(args: argparse.Namespace, recording_id: str) -> Recording:
    path = Layout(args.data, args.dataset).table
    rows = {row.recording_id: row for row in read_recordings(path)}
    if recording_id not in rows:
        hint = nearest(recording_id, rows)
        raise AlignmentError(f"{args.dataset} has no recording {recording_id!r}: {hint}")
    return rows[recording_id]


def _check_within(row: Recording, time_s: float) -> None:
    if time_s > row.duration_s:
        raise AlignmentError(
            f"{row.recording_id} lasts {clock(row.duration_s)}; {clock(time_s)} is beyond its end"
        )


def _aligned(args: argparse.Namespace, work_id: str) -> "WorkAlignment":
    from mess_core.alignment import read_work

    return read_work(Layout(args.data, args.dataset), work_id)


def _places(places: Any) -> list[str]:
    return [f"  {place.sentence}" for place in places] or ["  nothing that can be told apart"]


def _clock(time_s: float) -> str:
    return clock(time_s) if math.isfinite(time_s) else "-"


def _print_json(facts: Mapping[str, Any]) -> None:
    print(json.dumps(_plain(facts), indent=2, ensure_ascii=False))


def _plain(value: Any) -> Any:
    """Return what JSON can hold, with four decimals: what is not known is null."""
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, float):
        return round(value, 4) if math.isfinite(value) else None
    return value


def _drawn(args: argparse.Namespace, draw: Any) -> int:
    if args.picture:
        from mess_core.probing.pictures import save_figure

        save_figure(draw(), args.picture)
        if not args.json:
            print(f"picture: {args.picture}")
    return 0
