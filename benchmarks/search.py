"""How fast a search is beside FAISS alone and numpy: ``python -m benchmarks.search [CLIPS]``.

Clips are made up: those of a recording follow each other, and ten aspects are planted. The same
questions, each from a clip drawn at random, go to `search` and, as vectors, to FAISS and numpy, in
turn. Everything uses one thread.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import numpy.typing as npt

from mess_core.index import Index, Row, build_index, fit_projection, load_artifact, save_artifact
from mess_core.probing.coordinates import AspectCoordinates
from mess_core.search import Query
from mess_core.search.query import clip_id
from mess_core.search.scoring import Passage, ask
from mess_core.search.search import search

Floats = npt.NDArray[np.float32]

DIMS, ASPECTS, PER_RECORDING, K = 96, 10, 200, 10
QUESTIONS = 30
#: What the questions say besides where they start; {} is in general.
KINDS: dict[str, dict[str, Any]] = {
    "in general": {},
    "one aspect": {"like": {"a3": 1.0}},
    "general and five aspects": {"like": {"general": 1.0, **{f"a{i}": 0.5 for i in range(5)}}},
    "unlike in one": {"like": {"general": 1.0}, "unlike": {"a1": 0.5}},
    "more of one": {"like": {"general": 1.0}, "more": {"a2": 0.5}},
    "other works, one composer": {"exclude": "work", "where": {"composer": ("composer3",)}},
    "without overlaps": {"dedupe_s": 5.0},
}


def make_features(n: int) -> Floats:
    """Return features [n, 1, DIMS] in which the next clip is like the one before."""
    rng = np.random.default_rng(0)
    own = rng.standard_normal((n, DIMS), np.float32) * np.geomspace(2, 0.5, DIMS, dtype=np.float32)
    for place in range(1, PER_RECORDING):
        own[place::PER_RECORDING] += (
            0.6 * own[place - 1 :: PER_RECORDING][: len(own[place::PER_RECORDING])]
        )
    return own[:, np.newaxis]


def make_index(n: int, exact_up_to: int) -> Index:
    """Build the index of made-up clips, with an aspect along each of some dimensions."""
    features = make_features(n)
    axes = np.eye(DIMS)
    coordinates = [
        AspectCoordinates(f"a{i}", 0, axes[:, [i]], np.zeros(DIMS), np.ones(1), 0.5)
        for i in range(ASPECTS)
    ]
    rows = (
        Row(f"r{i // PER_RECORDING}", f"w{i // 1000}", "", f"composer{i // 1000 % 20}", "", "",
            2.5 * (i % PER_RECORDING), 2.5 * (i % PER_RECORDING) + 5)
        for i in range(n)
    )  # fmt: skip
    projection = fit_projection(lambda _: features[:, 0], [0], coordinates=coordinates)
    return build_index(
        features, rows, kind="clips", projection=projection, aspects={}, facts={},
        exact_up_to=exact_up_to,
    )  # fmt: skip


def measure(index: Index, respects: dict[str, Any]) -> dict[str, float]:
    """Return the median milliseconds of each side for a kind of question."""
    everything, rng = index.stored(np.arange(len(index.rows))), np.random.default_rng(1)
    took: dict[str, list[float]] = {}
    for position in rng.integers(len(index.rows), size=QUESTIONS):
        row = index.rows[int(position)]
        query = Query(clip=clip_id(row.recording_id, row.start_s), k=K, **respects)
        passage = Passage(everything[position], index.predicted[:, position].astype(float))
        vector = ask(index.projection, query, passage).vector
        sides: dict[str, Callable[[], object]] = {
            "search": partial(search, index, query),
            "FAISS": partial(index.vectors.search, vector[np.newaxis], K),
            "numpy": partial(_best_of, everything, vector),
        }
        for name, side in sides.items():
            start = time.perf_counter()
            side()
            took.setdefault(name, []).append(1e3 * (time.perf_counter() - start))
    return {name: float(np.median(times)) for name, times in took.items()}


def _best_of(vectors: Floats, vector: Floats) -> object:
    return np.argpartition(vectors @ vector, -K)[-K:]


def main() -> None:
    """Print a table for an exact index and one for an index with codes."""
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    for exact_up_to in (n, 1000):
        with tempfile.TemporaryDirectory() as folder:
            built = make_index(n, exact_up_to)
            artifact = save_artifact(built, Path(folder))
            start = time.perf_counter()
            index = load_artifact(artifact)
            opened_s = time.perf_counter() - start
            print(f"\n{n:,} clips of {index.projection.width} numbers, {index.factory}, opened in "
                  f"{opened_s:.2f} s, load {os.getloadavg()[0]:.1f}\n")  # fmt: skip
            print("| question | search, ms | ratio to FAISS | ratio to numpy |\n|---|---|---|---|")
            for kind, respects in KINDS.items():
                ms = measure(index, respects)
                ratios = [ms["search"] / ms[other] for other in ("FAISS", "numpy")]
                print(f"| {kind} | {ms['search']:.1f} | {ratios[0]:.2f} | {ratios[1]:.2f} |",
                      flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
