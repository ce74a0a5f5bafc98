"""``mess triplets``: which of two passages is nearer to a third, by people's ears.

``make`` writes a study, ``import`` takes ratings, ``score`` says how far people agree, and spaces
with them, ``export`` writes all judgments for other programs.
"""

__all__ = ["add_parser"]

import argparse
import csv
from collections import Counter
from dataclasses import astuple
from pathlib import Path
from typing import Any

from mess_core.cli.printing import table
from mess_core.errors import DatasetError, nearest
from mess_core.files import atomic_path, read_json, write_bytes, write_text
from mess_core.layout import DESCRIPTORS, Layout
from mess_core.progress import Progress
from mess_core.recordings import read_recordings, usable

_COLUMNS = "study triplet_id aspect anchor anchor_start anchor_end b b_start b_end c c_start "
_COLUMNS += "c_end choice confidence rater order repeat_of catch"


def add_parser(subparsers: Any) -> None:
    """Add ``triplets`` to the command line."""
    parser = subparsers.add_parser(
        "triplets",
        help="judgments of people: make a study, import ratings, score, export",
        description="Which of two passages is nearer to a third? Judgments of people, of a study "
        "or from ratings, in data/judgments (docs/judgments.md).",
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    making = actions.add_parser("make", help="write a study: one page to listen to and answer")
    making.add_argument("--out", type=Path, default=Path("study.html"), help="default: %(default)s")
    making.add_argument("--triplets", type=int, default=60, help="default: %(default)s")
    making.add_argument("--aspect", default="overall", help="to compare; default: %(default)s")
    making.add_argument("--strata", default="work,composer,free", help="default: %(default)s")
    making.add_argument("--study", metavar="NAME", help="default: DATASET-ASPECT-SEED")
    making.add_argument("--seed", type=int, default=0, help="another draws other triplets")
    taking = actions.add_parser("import", help="check ratings, and keep them in data/judgments")
    taking.add_argument("file", type=Path, metavar="RATINGS.csv")
    scoring = actions.add_parser("score", help="how far raters and spaces agree")
    scoring.add_argument("files", type=Path, nargs="*", metavar="FILE", help="default: all")
    writing = actions.add_parser("export", help="write all judgments for other programs")
    writing.add_argument("--csv", type=Path, metavar="FILE", required=True)
    runs = ((making, _make), (taking, _import), (scoring, _score), (writing, _export))
    for options, run in runs:
        options.add_argument("--dataset", default="demo", help="default: %(default)s")
        options.add_argument("--data", type=Path, default=Path("data"), help="default: %(default)s")
        options.set_defaults(run=run)


def _make(args: argparse.Namespace) -> int:
    from mess_core.evaluation.study import make_study
    from mess_core.index.artifact import load_artifact

    layout = Layout(args.data, args.dataset)
    version = read_json(layout.index_receipt("clips"))["artifact_version_id"]
    page, facts = make_study(
        load_artifact(layout.index("clips") / version),
        read_recordings(layout.table),
        study=args.study or f"{args.dataset}-{args.aspect}-{args.seed}",
        strata=args.strata.split(","),
        progress=Progress("excerpts"),
        **{name: getattr(args, name) for name in ("triplets", "aspect", "seed")},
    )
    write_text(args.out, page)
    counts = f"{len(facts['trials'])} trials, {len(facts['passages'])} excerpts"
    level = "their own levels" if facts["lufs"] is None else f"{facts['lufs']:.1f} LUFS"
    print(f"{args.out}: {counts} at {level}, {args.out.stat().st_size / 1e6:.1f} MB")
    return 0


def _import(args: argparse.Namespace) -> int:
    import numpy as np

    from mess_core.evaluation import judgments as people

    layout = Layout(args.data, args.dataset)
    recordings = usable(read_recordings(layout.table))
    works = {row.recording_id: row.work_id for row in recordings}
    scales, clips = people.read_ratings(args.file)
    of = {clip: works[clip] for clip in clips if clip in works}
    if not of:
        clip = next(iter(clips))
        raise DatasetError(f"{args.file}: clip {clip!r} is no recording; {nearest(clip, works)}")
    target = layout.judgments / f"{args.file.stem}.csv"
    if target.is_file() and target.read_bytes() != args.file.read_bytes():
        raise DatasetError(f"{target} has other ratings; remove it, or rename {args.file}")
    good = people.reliability(clips, of, np.random.default_rng(0))
    for scale, r in zip(scales, good, strict=True):
        print(f"{scale}: reliability {r:.2f}{', left out' * (not r >= people.RELIABLE)}")
    write_bytes(target, args.file.read_bytes())
    found = people.derive(clips, recordings, study=target.stem)
    print(f"{len(of)} of {len(clips)} clips are usable recordings of {args.dataset}, and give")
    print(f"{len(found) // 2} triplets, each judged by both halves of those who rated: {target}")
    return 0


def _score(args: argparse.Namespace) -> int:
    import numpy as np

    from mess_core.evaluation import judgments as people
    from mess_core.evaluation.spaces import spaces_of
    from mess_core.index.artifact import load_artifact

    layout = Layout(args.data, args.dataset)
    paths = args.files or layout.judgment_files
    version = read_json(layout.index_receipt("clips"))["artifact_version_id"]
    index = load_artifact(layout.index("clips") / version)
    given = people.gather(paths, usable(read_recordings(layout.table)), strict=True)
    judgments = people.of_recordings(given.judgments, index.rows.recordings["recording_id"])
    lacking = len(given.judgments) - len(judgments)
    print(f"{lacking} judgments of recordings that the index lacks left out")
    if not judgments:
        told = ", ".join(map(str, paths)) or layout.judgments
        raise DatasetError(f"{told}: no judgments of recordings of {args.dataset}")
    caught, again = (people.shares(judgments, catch=catch) for catch in (True, False))
    counted = people.counted(judgments)
    numbers = Counter(its.rater for its in counted)
    for rater in sorted({its.rater for its in judgments}):
        right, same = (said.get(rater, []) for said in (caught, again))
        print(
            f"{rater}: {numbers[rater] or 'left out, no'} judgments count, {sum(right)} of "
            f"{len(right)} catch trials right, {sum(same)} of {len(same)} repeats answered alike"
        )
    alpha = people.alpha(people.votes_of(counted).values())
    unlike = "not known: no two raters judged the same, or all answered alike"
    told = unlike if np.isnan(alpha) else f"{alpha:.3f}"
    print(f"Krippendorff's alpha: {told}\n")
    spaces = spaces_of(layout, index, baselines=[DESCRIPTORS])
    lines = people.judge_files(layout, index, spaces, given)
    shown = ("against", "asked", "value", "low", "high", "ceiling", "n", "works")
    rows = [
        {n: f"{line[n]:.3f}" if isinstance(line[n], float) else str(line[n] or "-") for n in shown}
        for line in lines
        if line["judge"] == "people"
    ]
    print("\n".join(table(rows)))
    if len(index.projection.spaces) > 1:
        print(
            "\nLearned spaces have seen these judgments; 'held out, people' (evaluation) has not."
        )
    return 0


def _export(args: argparse.Namespace) -> int:
    from mess_core.evaluation.judgments import gather

    layout = Layout(args.data, args.dataset)
    recordings = usable(read_recordings(layout.table))
    found = gather(layout.judgment_files, recordings, strict=True).judgments
    with atomic_path(args.csv) as path, path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(_COLUMNS.split())
        for row in map(astuple, found):
            rows.writerow(x for v in row for x in (v if isinstance(v, tuple) else [v]))
    print(f"{args.csv}: {len(found)} judgments")
    return 0
