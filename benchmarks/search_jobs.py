"""What the benchmark of search runs in processes of its own, so that memory and starts are theirs.

``python -m benchmarks.search_jobs JOB ...`` prints what it measured as JSON.
"""

import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from statistics import median
from typing import Any, NamedTuple

import faiss
import numpy as np
import numpy.typing as npt

from benchmarks.search_corpus import Corpus, questions
from mess_core.index import Index, load_artifact, save_artifact
from mess_core.index.factory import Choice, choose_factory, flat_index, hold, search_parameters
from mess_core.search import Query, search as searching
from mess_core.search.query import clip_id
from mess_core.search.scoring import Question, ask
from mess_core.search.search import search

Facts = dict[str, Any]
Floats = npt.NDArray[np.float32]

#: What is asked: a name, the kind of question, and what is added to it.
CONDITIONS: tuple[tuple[str, str, Facts], ...] = (
    ("general", "general", {}),
    ("random weights", "random weights", {}),
    ("one aspect", "one aspect", {}),
    ("unlike", "unlike", {}),
    ("exclude the work", "random weights", {"exclude": "work"}),
    ("one composer of 20", "random weights", {"where": {"composer": ("composer-3",)}}),
    ("more", "more", {}),
    ("without overlaps", "random weights", {"dedupe_s": 5.0}),
)

OURS, FAISS, NUMPY = "mess", "faiss", "numpy"


def train_index(vectors: npt.NDArray[np.float32], choice: Choice) -> Any:
    """Hold vectors as chosen."""
    exact = flat_index(vectors.shape[1])
    exact.add(vectors)
    return hold(exact, choice)


def made_index(corpus: Corpus, choice: Choice) -> tuple[Index, float]:
    """Return an index of a corpus, and the seconds that FAISS took."""
    vectors, predicted = corpus.make()
    begun = time.perf_counter()
    held = train_index(vectors, choice)
    seconds = time.perf_counter() - begun
    facts = {"dataset": "made-up", "encoder": {"name": "none"}}
    rows, projection = corpus.rows, corpus.projection
    made = Index("clips", rows, projection, predicted, {}, facts, held, choice.factory)
    return made, seconds


def build(root: str, clips: str, memory_gb: str, exact_up_to: str) -> Facts:
    """Build and save an index."""
    corpus = Corpus(int(clips))
    choice = choose_factory(
        corpus.n,
        corpus.projection.width,
        float(memory_gb) * 1e9,
        exact_up_to=int(exact_up_to),
    )
    index, seconds = made_index(corpus, choice)
    begun = time.perf_counter()
    folder = save_artifact(index, Path(root))
    return {
        "folder": str(folder),
        "factory": choice.factory,
        "build_s": seconds,
        "save_s": time.perf_counter() - begun,
        "peak_gb": _peak_gb(),
        "file_mb": sum(path.stat().st_size for path in folder.iterdir()) / 1e6,
    }


def open_index(folder: str) -> Facts:
    """Open an artifact and answer a question."""
    begun = time.perf_counter()
    index = load_artifact(Path(folder))
    opened = time.perf_counter()
    search(index, questions(index.rows, "general", 1)[0])
    return {
        "open_s": opened - begun,
        "answer_s": time.perf_counter() - opened,
        "peak_gb": _peak_gb(),
    }


def time_questions(folder: str, count: str) -> Facts:
    """Time questions: ours, FAISS called directly with the same vector, and numpy."""
    index = load_artifact(Path(folder))
    opened = _memory_mb()
    for _, kind, more in CONDITIONS:
        search(index, _asked(index, kind, more, 1)[0])
    answered = _memory_mb()
    # The file's numbers lie at odd addresses, where numpy is slow: it gets a copy of its own.
    stored = index.stored(range(len(index.rows))) if index.exact else None
    found: Facts = {}
    for name, kind, more in CONDITIONS:
        asked = _asked(index, kind, more, int(count))
        turns = [_turn(index, stored, query, number) for number, query in enumerate(asked)]
        found[name] = {side: [turn.ms[side] for turn in turns] for side in turns[0].ms}
        found[name]["same"] = [turn.same for turn in turns]
    return {"conditions": found, "opened_mb": opened, "mb": answered}


def _asked(index: Index, kind: str, more: Facts, count: int) -> list[Query]:
    made = questions(index.rows, kind, count)
    return [Query(**{**query.to_dict(), **more}) for query in made]


def _laid_out(index: Index, query: Query) -> tuple[Question, npt.NDArray[np.bool_] | None]:
    """Return what `search` hands to FAISS: the vector, and which rows may be hits."""
    start = searching._start(index, query)
    question = ask(index.projection, query, searching._passage(index, start))
    allowed = searching._allowed(index, query, start)
    return question, searching._fulfilling(index, question, allowed)


class _Turn(NamedTuple):
    ms: dict[str, float]
    #: The share of FAISS's hits that ours are, too.
    same: float


def _turn(index: Index, stored: Floats | None, query: Query, number: int) -> _Turn:
    question, allowed = _laid_out(index, query)
    vector = question.vector[np.newaxis]
    parameters = search_parameters(index.vectors, query.k, allowed)
    sides: dict[str, Callable[[], Any]] = {
        OURS: partial(search, index, query),
        FAISS: lambda: index.vectors.search(vector, query.k, params=parameters),
    }
    if stored is not None:
        sides[NUMPY] = lambda: _by_numpy(stored, question.vector, allowed, query.k)
    found, ms = {}, {}
    # Each side is first in turn: the first finds caches as the turn before left them.
    names = list(sides)
    for side in names[number % len(names) :] + names[: number % len(names)]:
        found[side], ms[side] = _timed(sides[side])
    hits = {hit.clip for hit in found[OURS].hits}
    direct = [index.rows[int(row)] for row in found[FAISS][1][0] if row >= 0]
    same = [clip_id(row.recording_id, row.start_s) in hits for row in direct]
    return _Turn(ms, float(np.mean(same)))


def _by_numpy(
    stored: Floats, vector: Floats, allowed: npt.NDArray[np.bool_] | None, k: int
) -> npt.NDArray[np.int64]:
    scores = stored @ vector
    if allowed is not None:
        scores[~allowed] = -np.inf
    best = np.argpartition(scores, -k)[-k:]
    return np.asarray(best[np.argsort(-scores[best])])


def compare(clips: str, count: str, candidates: str) -> Facts:
    """Measure what a FAISS factory finds of the exact hits; ``candidates`` is JSON.

    A list of ``[factory, candidates, cells]``, zeros where there are none of them.
    """
    corpus = Corpus(int(clips))
    vectors, predicted = corpus.make()
    exact = train_index(vectors, choose_factory(corpus.n, vectors.shape[1], exact_up_to=corpus.n))
    index = Index("clips", corpus.rows, corpus.projection, predicted, {}, {}, exact)
    asked = {}
    for kind in COMPARED:
        queries = questions(corpus.rows, kind, int(count))
        made = np.stack([_laid_out(index, query)[0].vector for query in queries])
        scores, rows = exact.search(made, 10)
        asked[kind] = (made, scores.mean(axis=1), rows)
    found = []
    trained: dict[str, tuple[Any, float]] = {}
    for factory, depth, cells in json.loads(candidates):
        if factory not in trained:
            trained.clear()
            trained[factory] = _trained(vectors, factory)
        held, seconds = trained[factory]
        _set(held, depth, cells)
        facts = {kind: _compared(held, vectors, *known) for kind, known in asked.items()}
        said = {"factory": factory, "candidates": depth, "cells": cells}
        found.append({**said, "train_s": seconds, "bytes": _bytes(held), "kinds": facts})
    return {"clips": corpus.n, "found": found, "peak_gb": _peak_gb()}


#: The kinds of questions that factories are compared by.
COMPARED = ("general", "all alike", "random weights", "two aspects", "one aspect", "unlike")


def _trained(vectors: Floats, factory: str) -> tuple[Any, float]:
    begun = time.perf_counter()
    held = faiss.index_factory(vectors.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
    held.train(vectors[:: max(len(vectors) // 200_000, 1)])
    held.add(vectors)
    return held, time.perf_counter() - begun


def _bytes(held: Any) -> int:
    """Return how many bytes a clip takes."""
    if isinstance(held, faiss.IndexRefine):
        return _bytes(faiss.downcast_index(held.base_index)) + 4 * held.d
    ids = 8 if isinstance(held, faiss.IndexIVF) else 0
    return int(held.sa_code_size()) + ids


def _set(held: Any, candidates: int, cells: int) -> None:
    if candidates:
        held.k_factor = candidates / 10
    if cells:
        faiss.extract_index_ivf(held).nprobe = cells


def _compared(
    held: Any, vectors: Floats, asked: Floats, best: Floats, rows: npt.NDArray[np.int64]
) -> Facts:
    ms, recall, loss = [], [], []
    for number, vector in enumerate(asked):
        (_, found), took = _timed(partial(held.search, vector[np.newaxis], 10))
        here = found[0][found[0] >= 0]
        ms.append(took)
        recall.append(float(np.isin(rows[number], here).mean()))
        loss.append(float(best[number] - (vectors[here] @ vector).mean()))
    return {"ms": median(ms), "recall": float(np.mean(recall)), "loss": float(np.mean(loss))}


def _timed(side: Callable[[], Any]) -> tuple[Any, float]:
    begun = time.perf_counter()
    result = side()
    return result, (time.perf_counter() - begun) * 1e3


def _peak_gb() -> float:
    return getrusage(RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def _memory_mb() -> dict[str, float]:
    """Return this process's memory: of its own, and pages of files that it shares."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    kilobytes = {line.split(":")[0]: line.split()[1] for line in lines if line.startswith("Rss")}
    return {name: int(kilobytes[name]) * 1024 / 1e6 for name in ("RssAnon", "RssFile")}


JOBS: dict[str, Callable[..., Facts]] = {
    "build": build,
    "open": open_index,
    "ask": time_questions,
    "compare": compare,
}

if __name__ == "__main__":
    print(json.dumps(JOBS[sys.argv[1]](*sys.argv[2:])))
