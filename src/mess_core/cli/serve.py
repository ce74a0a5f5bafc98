"""``mess serve``: an HTTP service that searches what is published. ``mess explore``: its page."""

__all__ = ["add_parser"]

import argparse
import os
import re
import socket
import sys
import threading
import webbrowser
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mess_core.cli.embed import embed_elsewhere
from mess_core.cli.printing import seconds
from mess_core.cli.search import DEFAULT_LOCATION, only_dataset
from mess_core.errors import ArtifactError, ConfigError
from mess_core.extraction.specs import DESCRIPTORS, resolve_spec
from mess_core.layout import INDEX_KINDS, Layout

#: A name, an IPv4 or an IPv6 address.
_HOST = re.compile(r"(?ai)([a-z\d_-]{1,63}\.)*[a-z\d_-]{1,63}|[a-f\d]*:[a-f\d:.]*:[a-f\d.]*(%\w+)?")


def add_parser(subparsers: Any) -> None:
    """Add ``serve`` and ``explore`` to the command line."""
    for name, port, what in (
        ("serve", 8765, "serve searches and the page over HTTP"),
        ("explore", 0, "open the page: mark a passage, hear what is alike"),
    ):
        parser = subparsers.add_parser(name, help=what, description=what)
        add = parser.add_argument
        add("--dataset", help="needed where several are published")
        add("--artifacts", default=DEFAULT_LOCATION, metavar="LOCATION", help="what is served")
        add("--data", type=Path, default=Path("data"), help="where audio and targets are")
        add("--host", default="127.0.0.1", help="where to listen (default: %(default)s)")
        add("--port", type=int, default=port, help="0: a free one (default: %(default)s)")
        add("--allow-host", action="append", default=[], help="another name to be asked by")
        refresh = "seconds between looks for newer indices, 0: never (default: %(default)s)"
        add("--refresh", type=seconds, default=60.0, help=refresh)
        taken = "take audio, too; ENCODER: a folder, where the index's is not known by name"
        add("--upload", nargs="?", const="", metavar="ENCODER", help=taken)
        if name == "explore":
            add("--no-browser", action="store_true", help="print the address only")
        parser.set_defaults(run=_serve)


def _serve(args: argparse.Namespace) -> int:
    for name in (args.host, *args.allow_host):
        if not _HOST.fullmatch(name):
            raise ConfigError(f"{name!r} is no host name or address, as in music.example.org")
    if not 0 <= args.port < 1 << 16:
        raise ConfigError(f"--port is {args.port}; it must be 0 to 65535")
    if 0 < args.refresh < 1:
        raise ConfigError(f"--refresh is {args.refresh:g} s; it must be 0 or at least 1")
    # Each question has a thread of its own; FAISS needs no others.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import uvicorn

    from mess_core.publishing.fetch import default_cache
    from mess_core.search.search import Searcher
    from mess_core.service.app import create_app
    from mess_core.service.server import HEADERS, Impatient
    from mess_core.service.upload import Uploads

    dataset, searchers = args.dataset or only_dataset(args.artifacts), {}
    for kind in INDEX_KINDS:
        try:
            searchers[kind] = Searcher.of(args.artifacts, dataset, kind, cache_dir=default_cache())
        except ArtifactError as error:
            print(f"mess {args.command}: no {kind}: {error}", file=sys.stderr)
    if not searchers:
        raise ArtifactError(f"no index of {dataset} at {args.artifacts} can be served")
    uploads, hosts = None, [f"[{n}]" if ":" in n else n for n in (args.host, *args.allow_host)]
    if args.upload is not None:
        facts = next(iter(searchers.values())).index.facts
        kind = resolve_spec(args.upload or facts.get("encoder", {}).get("name", "")).kind
        needed = ["filelock", "threadpoolctl"] + ["torch"] * (kind != DESCRIPTORS)
        if missing := ", ".join(name for name in needed if not find_spec(name)):
            raise ConfigError(f'--upload needs {missing}: pip install ".[serve,extract,analysis]"')
        uploads = Uploads(partial(embed_elsewhere, encoder=args.upload or None, timeout_s=300))
    app = create_app(
        searchers, Layout(args.data, dataset), refresh_s=args.refresh, hosts=hosts,
        artifacts="" if args.artifacts == DEFAULT_LOCATION else args.artifacts, uploads=uploads,
    )  # fmt: skip
    config = uvicorn.Config(
        app, http=Impatient, ws="none", log_config=None, access_log=False, server_header=False,
        headers=[*HEADERS.items()], timeout_graceful_shutdown=10,  # s
    )  # fmt: skip
    family = socket.AF_INET6 if ":" in args.host else socket.AF_INET
    with socket.create_server((args.host, args.port), family=family) as listening:
        # For every connection: the second part of an answer would wait for 40 ms.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        url = f"http://{hosts[0]}:{listening.getsockname()[1]}/"
        if args.host not in ("localhost", "127.0.0.1", "::1"):
            print(f"warning: no login at {url}; other names need --allow-host", file=sys.stderr)
        print(f"{url} (API: {url}docs)", flush=True)
        if not getattr(args, "no_browser", True):
            # Some browsers run in the terminal, and end when they are left.
            threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
        uvicorn.Server(config).run(sockets=[listening])
    return 0
