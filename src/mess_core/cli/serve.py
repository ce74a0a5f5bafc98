"""``mess serve``: an HTTP service that searches what is published. ``mess explore``: its page."""

__all__ = ["add_parser"]

import argparse
from pathlib import Path
from typing import Any

from mess_core.cli.search import DEFAULT_LOCATION, only_dataset
from mess_core.layout import INDEX_KINDS, Layout


def add_parser(subparsers: Any) -> None:
    """Add ``serve`` to the command line."""
    parser = subparsers.add_parser("serve", help="serve searches and the page over HTTP")
    parser.add_argument("--dataset", help="needed where several are published")
    parser.add_argument("--artifacts", default=DEFAULT_LOCATION, metavar="LOCATION")
    parser.add_argument("--data", type=Path, default=Path("data"), help="where its audio is listed")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8765)
    parser.set_defaults(run=_serve)


def _serve(args: argparse.Namespace) -> int:
    import uvicorn

    from mess_core.publishing.fetch import default_cache
    from mess_core.search.search import Searcher
    from mess_core.service import create_app

    dataset = args.dataset or only_dataset(args.artifacts)
    searchers = {
        kind: Searcher.of(args.artifacts, dataset, kind, cache_dir=default_cache())
        for kind in INDEX_KINDS
    }
    uvicorn.run(
        create_app(searchers, Layout(args.data, dataset).table), host=args.host, port=args.port
    )
    return 0
