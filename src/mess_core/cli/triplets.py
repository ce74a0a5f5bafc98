"""``mess triplets``: which of two passages is nearer to a third, by people's ears.

``make`` writes a study, ``import`` puts ratings beside its answers, ``score`` says how far people
agree, and spaces with them, ``export`` writes all answers for other programs.
"""

__all__ = ["add_parser"]

import argparse
from pathlib import Path
from typing import Any

from mess_core.files import read_json, write_text
from mess_core.layout import Layout
from mess_core.progress import Progress
from mess_core.recordings import read_recordings


def add_parser(subparsers: Any) -> None:
    """Add ``triplets`` to the command line."""
    parser = subparsers.add_parser(
        "triplets",
        help="judgments of people: make a study, import ratings, score, export",
        description="Which of two passages is nearer to a third? Judgments of people, of a study "
        "or from ratings, in data/judgments (docs/judgments.md).",
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for add in (_add_make, _add_import, _add_score, _add_export):
        options = add(actions)
        options.add_argument("--dataset", default="demo", help="default: %(default)s")
        options.add_argument("--data", type=Path, default=Path("data"), help="default: %(default)s")


def _add_make(actions: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser("make", help="write a study: one page")
    add = parser.add_argument
    add("--out", type=Path, default=Path("study.html"), help="default: %(default)s")
    add("--triplets", type=int, default=60, help="default: %(default)s")
    add("--aspect", default="overall", help="what is compared (default: %(default)s)")
    strata = "recordings of one work, of one composer, any (default: %(default)s)"
    add("--strata", default="work,composer,free", help=strata)
    add("--study", metavar="NAME", help="default: DATASET-ASPECT-SEED")
    add("--seed", type=int, default=0, help="another draws other triplets")
    parser.set_defaults(run=_make)
    return parser


def _make(args: argparse.Namespace) -> int:
    from mess_core.evaluation.study import make_study
    from mess_core.index import load_artifact

    layout = Layout(args.data, args.dataset)
    version = read_json(layout.index_receipt("clips"))["artifact_version_id"]
    index, recordings = (
        load_artifact(layout.index("clips") / version),
        read_recordings(layout.table),
    )
    options = {name: getattr(args, name) for name in ("triplets", "aspect", "seed")}
    options |= {"strata": args.strata.split(","), "progress": Progress("excerpts")}
    study = args.study or f"{args.dataset}-{args.aspect}-{args.seed}"
    page, facts = make_study(index, recordings, study=study, **options)
    write_text(args.out, page)
    counts = f"{len(facts['trials'])} trials, {len(facts['passages'])} excerpts"
    level = "their own levels" if facts["lufs"] is None else f"{facts['lufs']:.1f} LUFS"
    print(f"{args.out}: {counts} at {level}, {args.out.stat().st_size / 1e6:.1f} MB")
    return 0


def _add_import(actions: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser("import", help="take a table of ratings")
    return parser


def _add_score(actions: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser("score", help="how far people agree")
    return parser


def _add_export(actions: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser("export", help="for other programs")
    return parser
