"""The sides that `benchmarks.probing` compares, and its target's job in a process of its own.

`python -m benchmarks.probing_jobs FOLDER BEGAN` does the job on what `write_windows` wrote, and
prints as JSON, on the last line, its seconds since ``BEGAN`` and its peak memory.
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from mess_core.probing.folds import ProbeRows
    from mess_core.probing.moments import FoldDecompositions
    from mess_core.probing.scores import ProbeResult

Floats = npt.NDArray[np.floating]
Facts = dict[str, Any]

N_FOLDS = 5
N_WORKS = 50
_RECORDINGS_PER_WORK = 2


@dataclass(frozen=True)
class Rows:
    """Made-up rows: as many of each work, so that all folds are equally large."""

    n: int
    layers: int
    dims: int

    @cached_property
    def works(self) -> list[str]:
        """The work of each row."""
        return [f"work-{row * N_WORKS // self.n:02}" for row in range(self.n)]

    @cached_property
    def recordings(self) -> list[str]:
        """The recording of each row."""
        count = N_WORKS * _RECORDINGS_PER_WORK
        return [f"recording-{row * count // self.n:03}" for row in range(self.n)]

    @cached_property
    def folds(self) -> npt.NDArray[np.int64]:
        """The fold of each row [shape=(n,)]."""
        from mess_core.probing.folds import deal_folds

        return deal_folds(self.works, N_FOLDS)

    def layer(self, number: int) -> Floats:
        """Return features [n, dims]: correlated columns, as of hidden states, around works."""
        rng = np.random.default_rng([self.n, number])
        spread = np.geomspace(1, 0.01, self.dims)
        works = np.repeat(rng.normal(size=(N_WORKS, self.dims)), self.n // N_WORKS, axis=0)
        return np.asarray((rng.normal(size=works.shape) + works) * spread, np.float32)

    def target(self, number: int) -> npt.NDArray[np.float64]:
        """Return a target [n] of which half the variance is linear in a layer."""
        rng = np.random.default_rng([self.n, number, 1])
        X = self.layer(number % self.layers)
        signal = X @ rng.normal(size=self.dims)
        return np.asarray(signal / signal.std() + rng.normal(size=self.n), np.float64)


def fixed_penalty(X: Floats, y: Floats, folds: npt.NDArray[np.int64]) -> Floats:
    """Return out-of-fold predictions by the plain loop's step; nothing is chosen."""
    from sklearn.linear_model import Ridge

    return _cross_val_predict(Ridge(alpha=1.0), X, y, folds)


def left_out_rows(X: Floats, y: Floats, folds: npt.NDArray[np.int64]) -> Floats:
    """Return the same with the penalty chosen by leaving out single rows of the training folds."""
    from sklearn.linear_model import RidgeCV

    from mess_core.probing.ridge import ALPHAS

    return _cross_val_predict(RidgeCV(alphas=ALPHAS), X, y, folds)


def _cross_val_predict(model: Any, X: Floats, y: Floats, folds: npt.NDArray[np.int64]) -> Floats:
    from sklearn.model_selection import PredefinedSplit, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    pipeline = make_pipeline(StandardScaler(), model)
    return np.asarray(cross_val_predict(pipeline, X, y, cv=PredefinedSplit(folds)))


def nested_penalty(X: Floats, y: Floats, folds: npt.NDArray[np.int64]) -> Floats:
    """Return the same with the penalty chosen as ours is: over the other folds, whole works each.

    `cross_val_predict` cannot hand the inner search its folds, so that its loop is written out.
    """
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import GridSearchCV, PredefinedSplit
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from mess_core.probing.ridge import ALPHAS

    predicted = np.empty(len(y))
    for fold in range(N_FOLDS):
        training = folds != fold
        search = GridSearchCV(
            make_pipeline(StandardScaler(), Ridge()),
            {"ridge__alpha": ALPHAS},
            scoring="neg_mean_squared_error",
            cv=PredefinedSplit(folds[training]),
        )
        search.fit(X[training], y[training])
        predicted[~training] = search.predict(X[~training])
    return predicted


def probe_one(
    rows: Rows,
    layers: Any,
    target: int,
    decompositions: "Callable[[int, ProbeRows], FoldDecompositions]",
    *,
    statistics: bool,
    y: npt.NDArray[np.float64],
) -> "ProbeResult":
    """Probe all layers for one target, with or without permutations and bootstrap."""
    from mess_core.probing.probe import probe

    return probe(
        layers,
        y,
        rows.works,
        rows.folds,
        name=f"target-{target}",
        recordings=rows.recordings,
        decompositions=decompositions,
        n_permutations=199 if statistics else 0,
        n_resamples=2000 if statistics else 1,
    )


def decompose_all(rows: Rows, layers: Sequence[Floats]) -> "list[FoldDecompositions]":
    """Decompose all layers, as the rule `decomposition` does once for all targets."""
    from mess_core.probing.folds import plan_rows
    from mess_core.probing.moments import decompose_folds

    planned = plan_rows(rows.works, rows.folds, recordings=rows.recordings)
    return [decompose_folds(layer, planned) for layer in layers]


def write_windows(rows: Rows, folder: Path) -> float:
    """Write layers, decompositions and a target; return the seconds that decomposing took."""
    seconds = 0.0
    for number in range(rows.layers):
        layer = rows.layer(number)
        np.save(folder / f"rows-{number}.npy", layer)
        began = time.perf_counter()
        decompose_all(rows, [layer])[0].save(folder / f"folds-{number}.npz")
        seconds += time.perf_counter() - began
    np.save(folder / "target.npy", rows.target(0))
    facts = {"n": rows.n, "layers": rows.layers, "dims": rows.dims}
    (folder / "shape.json").write_text(json.dumps(facts))
    return seconds


def run_job(folder: Path) -> "ProbeResult":
    """Do a target's job: read layers and decompositions, and compute all statistics."""
    from mess_core.probing.moments import FoldDecompositions

    rows = Rows(**json.loads((folder / "shape.json").read_text()))
    layers = [np.load(folder / f"rows-{i}.npy", mmap_mode="r") for i in range(rows.layers)]
    return probe_one(
        rows,
        layers,
        0,
        lambda layer, _: FoldDecompositions.load(folder / f"folds-{layer}.npz"),
        statistics=True,
        y=np.load(folder / "target.npy"),
    )


def main() -> None:
    from benchmarks.extraction_jobs import peak_gb

    folder, began = Path(sys.argv[1]), float(sys.argv[2])
    result = run_job(folder)
    # The clock is the machine's: the parent read it just before it started this process.
    seconds = time.monotonic() - began
    facts = {"seconds": seconds, "cpu_s": time.process_time(), "peak_gb": peak_gb()}
    print(json.dumps(facts | {"best_r2": result.best_r2}))


if __name__ == "__main__":
    main()
