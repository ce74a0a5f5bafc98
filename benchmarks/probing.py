"""Probing next to loops over scikit-learn: how many times faster, and the cost of one job.

`python -m benchmarks.probing [--rows N] [--job-rows N] [--layers L] [--dims D] [--targets T]`

* *plain*: `Ridge` with a given penalty in `cross_val_predict`; nothing is chosen.
* *nested*: `GridSearchCV` over the same penalties and the same inner folds as ours, which finds the
  same R2.

Loops run for one layer and one target and are scaled to all. The job is one target's: it reads
layers and decompositions from disk and computes intervals and permutation tests, too.
"""

import argparse
import resource
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV, PredefinedSplit, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from mess_core.files import save_array
from mess_core.probing.decompositions import ALPHAS, LayerFeatures, decompose_folds
from mess_core.probing.folds import deal_folds, plan_rows
from mess_core.probing.probe import probe

Floats = npt.NDArray[np.float64]

N_WORKS, N_FOLDS = 50, 5


def make_rows(n: int, layers: int, dims: int) -> tuple[list[npt.NDArray[np.float32]], list[str]]:
    """Return layers of correlated columns, and as many rows of each work."""
    rng = np.random.default_rng(n)
    spread, of_work = np.geomspace(1, 0.01, dims), np.arange(n) * N_WORKS // n
    return [
        ((rng.normal(size=(n, dims)) + rng.normal(size=(N_WORKS, dims))[of_work]) * spread).astype(
            np.float32
        )
        for _ in range(layers)
    ], [f"work-{work:02}" for work in of_work]


def make_target(X: npt.NDArray[np.float32], seed: int) -> Floats:
    """Return a target of which half the variance is linear in a layer."""
    rng = np.random.default_rng(seed)
    signal = X @ rng.normal(size=X.shape[1])
    return np.asarray(signal / signal.std() + rng.normal(size=len(X)), np.float64)


def plain(X: Any, y: Floats, folds: npt.NDArray[np.int64]) -> Floats:
    """Predict each fold with a given penalty."""
    model = make_pipeline(StandardScaler(), Ridge(alpha=1.0))
    return np.asarray(cross_val_predict(model, X, y, cv=PredefinedSplit(folds)))


def nested(X: Any, y: Floats, folds: npt.NDArray[np.int64]) -> Floats:
    """Predict each fold with the penalty that is best for the other folds."""
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


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds that a call takes, and its result."""
    began = time.perf_counter()
    result = call()
    return time.perf_counter() - began, result


def compare(n: int, n_layers: int, dims: int, n_targets: int) -> None:
    """Print how many times faster than each loop all layers and targets are probed."""
    layers, works = make_rows(n, n_layers, dims)
    targets = [make_target(layers[i % n_layers], i) for i in range(n_targets)]
    folds = deal_folds(works, N_FOLDS)
    rows = plan_rows(works, folds)

    def probe_all() -> list[Any]:
        known = [decompose_folds(X, rows) for X in layers]
        return [
            probe(layers, y, works, folds, name="y", decompositions=lambda layer, _: known[layer],
                  n_permutations=0, n_resamples=1)
            for y in targets
        ]  # fmt: skip

    ours, results = timed(probe_all)
    print(f"{n} rows, {n_layers} layers of {dims}, {n_targets} targets: {ours:.1f} s")
    for name, loop in (("plain", plain), ("nested", nested)):
        loop(layers[0][:, :8], targets[0], folds)  # Imports and threads belong to nobody.
        with threadpool_limits(limits=1, user_api="blas"):
            seconds, predicted = timed(partial(loop, layers[0], targets[0], folds))
        ratio = seconds * n_layers * n_targets / ours
        apart = abs(results[0].layers[0].r2 - r2_score(targets[0], predicted))
        print(f"{name} loop: {ratio:.1f} times as long; R2 differs by {apart:.0e}")


def one_job(n: int, n_layers: int, dims: int) -> None:
    """Print the time and memory of one target's job with all statistics."""
    with TemporaryDirectory() as folder:
        layers, works = make_rows(n, n_layers, dims)
        y = make_target(layers[0], 0)
        folds, rows = deal_folds(works, N_FOLDS), plan_rows(works, deal_folds(works, N_FOLDS))
        stored = [LayerFeatures(Path(folder, str(i))) for i in range(n_layers)]
        began = time.perf_counter()
        for layer in stored:
            save_array(layer.folder / "rows.npy", X := layers.pop(0))
            decompose_folds(X, rows).save(layer.folder / "folds.npz")
        seconds = time.perf_counter() - began
        print(f"{n} rows: decomposing takes {seconds:.1f} s, once for all targets;")
        opened = [layer.rows for layer in stored]
        took, _ = timed(
            lambda: probe(opened, y, works, folds, name="y",
                          decompositions=lambda layer, rows: stored[layer].decompose(rows))
        )  # fmt: skip
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(f"a target's job takes {took:.1f} s (peak of this process {peak:.2f} GB)")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.probing")
    for name, default in (("rows", 500), ("job-rows", 20_000), ("layers", 13), ("dims", 768),
                          ("targets", 22)):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=default, help="default: %(default)s")
    args = parser.parse_args()
    compare(args.rows, args.layers, args.dims, args.targets)
    one_job(args.job_rows, args.layers, args.dims)


if __name__ == "__main__":
    main()
