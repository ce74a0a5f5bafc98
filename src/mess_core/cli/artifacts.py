"""``mess artifacts``: list, publish, fetch, roll back, prune and verify published indexes."""

__all__ = ["add_parser"]

import argparse
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mess_core.cli.search import DEFAULT_LOCATION, datasets_at, only_dataset
from mess_core.errors import ArtifactError
from mess_core.layout import INDEX_KINDS
from mess_core.progress import Progress

if TYPE_CHECKING:
    from mess_core.publishing.publish import Version

#: Digits of a version id that are shown, and that suffice in almost any place.
_SHOWN = 12


class _Place(NamedTuple):
    location: str
    dataset: str
    kind: str

    def __str__(self) -> str:
        return f"{self.dataset}/{self.kind} at {self.location}"


def add_parser(subparsers: Any) -> None:
    """Add ``artifacts`` and its commands to the command line."""
    parser = subparsers.add_parser(
        "artifacts",
        help="list, publish, fetch, roll back, prune and verify published indexes",
        description="Work on published indexes, in a folder or in S3 (docs/publishing.md).",
    )
    commands = parser.add_subparsers(dest="artifacts_command", required=True, metavar="COMMAND")
    _add(commands, "list", _list, "list the published versions, the newest first", dry_run=False)
    publish = _add(commands, "publish", _publish, "publish artifacts and make them the latest")
    publish.add_argument("folder", nargs="+", type=Path, help="artifact folders")
    fetch = _add(commands, "fetch", _fetch, "fetch the latest versions, or another, into a cache")
    fetch.add_argument("--version", metavar="VERSION", help="instead of the latest")
    fetch.add_argument("--cache", type=Path, metavar="FOLDER", help="default: the user's cache")
    back = _add(commands, "rollback", _rollback, "make an older version the latest")
    back.add_argument("version", metavar="VERSION", help="its id, or the first digits of it")
    prune = _add(
        commands, "prune", _prune, "remove old versions, never the latest or those of today"
    )
    prune.add_argument(
        "--keep", type=int, required=True, metavar="N", help="how many of the newest stay"
    )
    verify = _add(commands, "verify", _verify, "check every file in the store", dry_run=False)
    verify.add_argument("version", nargs="?", metavar="VERSION", help="instead of the latest")


def _add(
    commands: Any,
    name: str,
    run: Callable[[argparse.Namespace], int],
    text: str,
    *,
    dry_run: bool = True,
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    parser.add_argument(
        "--artifacts",
        default=DEFAULT_LOCATION,
        metavar="LOCATION",
        help="where indexes are published: a folder or s3://bucket/prefix (default: %(default)s)",
    )
    if name != "publish":  # An artifact says itself what it is.
        parser.add_argument("--dataset", help="needed where several are published")
        parser.add_argument("--kind", choices=INDEX_KINDS, help="default: all")
    if dry_run:
        parser.add_argument("--dry-run", action="store_true", help="only say what would be done")
    parser.set_defaults(run=run)
    return parser


def _found(
    args: argparse.Namespace, *, several: bool = False
) -> "Iterator[tuple[_Place, list[Version]]]":
    """Give the kinds of the dataset, of all datasets with ``several``, and their versions."""
    from mess_core.publishing import published_versions

    if several and not args.dataset:
        datasets = datasets_at(args.artifacts)
    else:
        datasets = [args.dataset or only_dataset(args.artifacts)]
    for dataset in datasets:
        for kind in [args.kind] if args.kind else INDEX_KINDS:
            place = _Place(args.artifacts, dataset, kind)
            if versions := published_versions(*place):
                yield place, versions


def _chosen(args: argparse.Namespace) -> "list[tuple[_Place, Version]]":
    """Return the version that the first digits of its id name; the latest ones without any."""
    found = [(place, version) for place, versions in _found(args) for version in versions]
    if args.version is None:
        return [(place, version) for place, version in found if version.latest]
    named = [(place, v) for place, v in found if v.version_id.startswith(args.version)]
    if len(named) != 1:
        choices = ", ".join(f"{v.version_id[:_SHOWN]} ({p.kind})" for p, v in named or found)
        raise ArtifactError(
            f"{args.version!r} names {'several versions' if named else 'no version'}; "
            f"choose of: {choices or 'none'}"
        )
    return named


def _line(version: "Version") -> str:
    note = "latest" if version.latest else "" if version.complete else "not complete"
    written = datetime.fromtimestamp(version.modified, UTC).isoformat(timespec="seconds")
    size = f"{_megabytes(version.size):>12}"
    return f"  {version.version_id[:_SHOWN]}  {written}  {size}  {note}".rstrip()


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.2f} MB"


def _list(args: argparse.Namespace) -> int:
    for place, versions in _found(args, several=True):
        print(place, *map(_line, versions), sep="\n")
    return 0


def _publish(args: argparse.Namespace) -> int:
    from mess_core.publishing.publish import publish

    for folder in args.folder:
        progress = Progress("MB")
        _say(publish(folder, args.artifacts, progress=progress, dry_run=args.dry_run), args)
    return 0


def _say(receipt: dict[str, Any], args: argparse.Namespace) -> None:
    becomes = "would become" if args.dry_run else "is now"
    said = f"{becomes} the latest" if receipt["pointer_moved"] else "is the latest already"
    print(f"{receipt['artifact_version_id'][:_SHOWN]} {said} at {receipt['location']}")


def _fetch(args: argparse.Namespace) -> int:
    from mess_core.publishing.fetch import default_cache, fetch

    cache = args.cache or default_cache()
    for place, version in _chosen(args):
        path = cache / version.version_id
        if args.dry_run:
            said = "is there" if path.is_dir() else f"would fetch {_megabytes(version.size)}"
            print(f"{place}: {said}: {path}")
            continue
        fetch(*place, cache, version_id=version.version_id, progress=Progress("MB"))
        print(f"{place}: {path}")
    return 0


def _rollback(args: argparse.Namespace) -> int:
    from mess_core.publishing import rollback

    for place, version in _chosen(args):
        _say(rollback(*place, version.version_id, dry_run=args.dry_run), args)
    return 0


def _prune(args: argparse.Namespace) -> int:
    from mess_core.publishing import prune_versions

    for place, versions in _found(args):
        gone = prune_versions(*place, keep=args.keep, dry_run=args.dry_run)
        freed = _megabytes(sum(version.size for version in gone))
        done = "would remove" if args.dry_run else "removed"
        first = f"{place}: {done} {len(gone)} of {len(versions)} versions, {freed}"
        print(first, *map(_line, gone), sep="\n")
    return 0


def _verify(args: argparse.Namespace) -> int:
    from mess_core.publishing import verify_published

    for place, version in _chosen(args):
        size = _megabytes(verify_published(*place, version.version_id))
        print(f"{place}: {version.version_id[:_SHOWN]} is complete and undamaged, {size}")
    return 0
