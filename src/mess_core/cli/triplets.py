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
    parser: argparse.ArgumentParser = actions.add_parser(
        "make", help="write a study: one page that people listen to and answer without a network"
    )
    parser.add_argument("--out", type=Path, default=Path("study.html"), help="default: %(default)s")
    parser.add_argument("--triplets", type=int, default=60, help="default: %(default)s")
    parser.add_argument("--aspect", default="overall", help="what is compared (default: overall)")
    strata = "passages of one work, of one composer, of any (default: %(default)s)"
    parser.add_argument("--strata", default="work,composer,free", help=strata)
    parser.add_argument("--study", help="its name (default: DATASET-ASPECT)")
    parser.add_argument("--seed", type=int, default=0, help="another gives other triplets")
    parser.set_defaults(run=_make)
    return parser


def _make(args: argparse.Namespace) -> int:
    from mess_core.evaluation.study import make_study
    from mess_core.index import load_artifact

    layout = Layout(args.data, args.dataset)
    version = read_json(layout.index_receipt("clips"))["artifact_version_id"]
    page, facts = make_study(
        load_artifact(layout.index("clips") / version),
        read_recordings(layout.table),
        study=args.study or f"{args.dataset}-{args.aspect}",
        triplets=args.triplets,
        aspect=args.aspect,
        strata=args.strata.split(","),
        seed=args.seed,
        progress=Progress("excerpts"),
    )
    write_text(args.out, page)
    trials, lufs = facts["trials"], facts["lufs"]
    again, catch = (sum(bool(t[key]) for t in trials) for key in ("repeat_of", "catch"))
    level = "with their own levels" if lufs is None else f"at {lufs:.1f} LUFS"
    print(
        f"{args.out}: {len(trials)} trials ({args.triplets} triplets, {again} of them again, "
        f"{catch} catch trials), {len(facts['passages'])} excerpts {level}, "
        f"{args.out.stat().st_size / 1e6:.1f} MB"
    )
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
