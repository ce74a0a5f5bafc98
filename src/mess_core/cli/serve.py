"""``mess serve``: an HTTP service that searches what is published. ``mess explore``: its page."""

__all__ = ["add_parser"]

import argparse
import ipaddress
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mess_core.cli.search import DEFAULT_LOCATION, only_dataset
from mess_core.layout import INDEX_KINDS, Layout

if TYPE_CHECKING:
    from mess_core.search.search import Searcher


def add_parser(subparsers: Any) -> None:
    """Add ``serve`` and ``explore`` to the command line."""
    for name, port, what in (
        ("serve", 8765, "serve searches and the page over HTTP"),
        ("explore", 0, "open the page: mark a passage, and hear what is alike"),
    ):
        parser = subparsers.add_parser(name, help=what, description=what)
        parser.add_argument("--dataset", help="needed where several are published")
        parser.add_argument("--artifacts", default=DEFAULT_LOCATION, metavar="LOCATION")
        parser.add_argument(
            "--data", type=Path, default=Path("data"), help="where its audio is listed"
        )
        parser.add_argument("--host", default="127.0.0.1", help="where to listen")
        free = "a free one" if not port else str(port)
        parser.add_argument("--port", type=int, default=port, help=f"(default: {free})")
        parser.add_argument(
            "--allow-host", action="append", default=[], metavar="NAME",
            help="a name by which clients may ask, of a proxy for example",
        )  # fmt: skip
        parser.add_argument(
            "--refresh", type=float, default=60.0, metavar="SECONDS",
            help="how often to look for newer indices; 0 never (default: %(default)g)",
        )  # fmt: skip
        if name == "explore":
            parser.add_argument("--no-browser", action="store_true", help="print the address only")
        parser.set_defaults(run=_serve)


def _serve(args: argparse.Namespace) -> int:
    # Each question has a thread of its own, and FAISS needs no others for it.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from mess_core.service.app import create_app
    from mess_core.service.server import make_server

    dataset = args.dataset or only_dataset(args.artifacts)
    command = ["mess", "search"]
    command += ["--dataset", dataset] if args.dataset else []
    command += ["--artifacts", args.artifacts] if args.artifacts != DEFAULT_LOCATION else []
    app = create_app(
        _searchers(args.artifacts, dataset),
        Layout(args.data, dataset),
        refresh_s=args.refresh,
        hosts=[args.host, *args.allow_host],
        command=shlex.join(command),
    )

    def announce(port: int) -> None:
        local = _is_loopback(args.host)
        if not local:
            print(
                f"warning: whoever reaches {args.host} can ask: there is no login", file=sys.stderr
            )
        host = f"[{args.host}]" if ":" in args.host else args.host
        url = f"http://{host if local else 'localhost'}:{port}/"
        print(f"{url}  (documentation: {url}docs)", flush=True)
        if not getattr(args, "no_browser", True):
            import webbrowser

            webbrowser.open(url)

    make_server(app, args.host, args.port, announce).run()
    return 0


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _searchers(location: str, dataset: str) -> "dict[str, Searcher]":
    """Open the indices that are published, one kind at least."""
    from mess_core.errors import ArtifactError
    from mess_core.publishing.fetch import default_cache
    from mess_core.search.search import Searcher

    found, problems = {}, []
    for kind in INDEX_KINDS:
        try:
            found[kind] = Searcher.of(location, dataset, kind, cache_dir=default_cache())
        except ArtifactError as error:
            problems.append(f"{kind}: {error}")
    for problem in problems:
        print(f"mess serve: {problem}", file=sys.stderr)
    if not found:
        raise ArtifactError(f"no index of {dataset} can be served from {location}")
    return found
