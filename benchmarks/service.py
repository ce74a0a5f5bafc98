"""How `mess serve` holds up: ``python -m benchmarks.service [--seconds N] [--clips N]``.

A server in a process of its own answers one client, then many at once, each with its next question
as soon as it has an answer: on the demo's index, where it is published, and on made-up clips. The
same questions go to `search` and, as vectors, to FAISS alone, one after the other; FAISS has one
thread everywhere. Ends with status 1 if any answer is no answer, or the server's memory grows.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np

from benchmarks.search import make_index
from mess_core.index import Index, load_artifact, save_artifact
from mess_core.publishing import load_latest, publish_to_folder
from mess_core.search import Query
from mess_core.search.query import clip_id
from mess_core.search.scoring import Passage, ask
from mess_core.search.search import search

QUESTIONS, K = 500, 10
#: Growth of the server's own memory that is no leak, MB: of caches and of threads.
STEADY_MB = 30


def questions(index: Index) -> Iterator[Query]:
    """Give questions as the page asks them: from a clip, in general and in two aspects."""
    rng, aspects = np.random.default_rng(0), [*index.projection.aspects]
    for position in rng.integers(len(index.rows), size=QUESTIONS):
        row = index.rows[int(position)]
        chosen = rng.choice(aspects, 2, replace=False).tolist()
        like = {"general": 1.0, **dict.fromkeys(chosen, 0.5)}
        clip = clip_id(row.recording_id, row.start_s)
        yield Query(clip=clip, like=like, exclude="recording", k=K)


def alone_ms(index: Index) -> tuple[float, float]:
    """Return the median milliseconds of FAISS, and of `search`, for the questions."""
    took = []
    for query in questions(index):
        recording, _, start = (query.clip or "").rpartition("@")
        rows = index.rows.positions(recording)
        place = int(rows[np.argmin(np.abs(index.rows.table["start_s"][rows] - float(start)))])
        passage = Passage(index.stored([place])[0], index.predicted[:, place].astype(float))
        vector = ask(index.projection, query, passage).vector[np.newaxis]
        begun = time.perf_counter()
        index.vectors.search(vector, K)
        between = time.perf_counter()
        search(index, query)
        took.append((between - begun, time.perf_counter() - between))
    faiss, whole = 1e3 * np.median(took, axis=0)
    return float(faiss), float(whole)


@contextmanager
def serving(location: Path) -> Iterator[tuple[int, int]]:
    """Run `mess serve`; give its process id and port."""
    words = ["serve", "--artifacts", str(location), "--port", "0", "--data", "nowhere"]
    process = subprocess.Popen(
        [sys.executable, "-m", "mess_core.cli.main", *words], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout
        line = process.stdout.readline()
        yield process.pid, int(line.split()[0].rstrip("/").rpartition(":")[2])
    finally:
        process.terminate()
        process.wait()


def own_mb(pid: int) -> float:
    """Return a process's memory without mapped files, MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) / 1024


async def load(port: int, bodies: list[bytes], clients: int, seconds: float) -> tuple[Any, int]:
    """Return how long requests took, ms, and how many failed."""
    took: list[float] = []
    failed, until = 0, time.perf_counter() + seconds

    async def client(number: int) -> None:
        nonlocal failed
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while (begun := time.perf_counter()) < until:
            body = bodies[number % len(bodies)]
            number += clients
            writer.write(b"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s"
                         % (len(body), body))  # fmt: skip
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].split()[0])
            answer = json.loads(await reader.readexactly(length))
            took.append(1e3 * (time.perf_counter() - begun))
            failed += not (head.startswith(b"HTTP/1.1 200") and len(answer["hits"]) == K)
        writer.close()

    await asyncio.gather(*map(client, range(clients)))
    return np.array(took), failed


def measure(name: str, index: Index, location: Path, clients: int, seconds: float) -> bool:
    """Print the rows of one index; return whether all went well."""
    bodies = [json.dumps(query.to_dict()).encode() for query in questions(index)]
    (faiss, whole), fine = alone_ms(index), True
    with serving(location) as (pid, port):
        asyncio.run(load(port, bodies, clients, seconds / 5))
        before = own_mb(pid)
        for at_once in (1, clients):
            took, failed = asyncio.run(load(port, bodies, at_once, seconds))
            p50, p99 = np.percentile(took, [50, 99])
            after = own_mb(pid)
            print(f"| {name} | {at_once} | {len(took) / seconds:.0f} | {p50:.1f} | {p99:.1f} | "
                  f"{faiss:.2f} | {whole:.2f} | {failed} | {before:.0f}, {after:.0f} |",
                  flush=True)  # fmt: skip
            fine = fine and not failed and after - before < STEADY_MB
    return fine


def main() -> int:
    """Print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--clips", type=int, default=100_000)
    parser.add_argument("--demo", type=Path, default=Path("data/published"))
    args = parser.parse_args()
    columns = ("clips", "clients", "answers/s", "p50, ms", "p99, ms", "FAISS alone, ms",
               "`search` alone, ms", "errors", "server's memory before and after, MB")  # fmt: skip
    print(f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}\n")
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}", flush=True)
    fine = True
    if (args.demo / "demo").is_dir():
        index = load_latest(args.demo / "demo" / "clips")
        name = f"demo ({len(index.rows)})"
        fine = measure(name, index, args.demo, args.clients, args.seconds)
    else:
        print(f"no demo at {args.demo}: `make demo` makes it", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        made = replace(make_index(args.clips, args.clips), facts={"dataset": "made-up"})
        artifact = save_artifact(made, Path(folder) / "made")
        location = Path(folder) / "published"
        publish_to_folder(artifact, location / "made-up" / "clips")
        index = load_artifact(artifact)
        fine &= measure(f"made-up ({args.clips})", index, location, args.clients, args.seconds)
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
