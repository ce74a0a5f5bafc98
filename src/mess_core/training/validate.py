"""What the time means of each layer know of a window: ridge regressions, judged within groups."""

__all__ = ["best_layers", "score"]

import numpy as np
import numpy.typing as npt

from mess_core.training.losses import SCALARS

Floats = npt.NDArray[np.float32]
Array = npt.NDArray[np.float64]

_FEWEST_GROUPS = 8
_FOLDS = 4
_PENALTIES = 10.0 ** np.arange(0, 6)


def score(pooled: Floats, scalars: Floats, *, versions: int) -> dict[str, list[float]]:
    """Return for each scalar the R2 of each layer for differences within groups.

    ``pooled`` [shape=(n, layers, dims)] and ``scalars`` [shape=(n, len(SCALARS))], NaN where
    undefined, are of groups of so many ``versions``, one after the other. Groups are predicted
    from others. Scalars that are known in too few groups are left out.
    """
    group = np.arange(len(pooled)) // versions
    known = np.isfinite(scalars)
    return {
        name: [
            _r2(layer[known[:, i]], scalars[known[:, i], i], group[known[:, i]])
            for layer in pooled.transpose(1, 0, 2)
        ]
        for i, name in enumerate(SCALARS)
        if len(np.unique(group[known[:, i]])) >= _FEWEST_GROUPS
    }


def _r2(features: Floats, truth: Floats, group: npt.NDArray[np.int64]) -> float:
    members = group[:, np.newaxis] == np.unique(group)
    means = members / members.sum(0)
    X, y = (v - members @ (means.T @ v) for v in (features.astype(float), truth))
    predicted = np.empty_like(y)
    for fold in range(_FOLDS):
        test = group % _FOLDS == fold
        free = (~test).sum() - len(np.unique(group[~test]))
        predicted[test] = X[test] @ _ridge(X[~test], y[~test], free)
    spread = float(np.square(y).sum())
    return round(1 - float(np.square(y - predicted).sum()) / spread, 3) if spread else 0.0


def _ridge(X: Array, y: Array, free: int) -> Array:
    """Return slopes for the penalty of the least generalised cross-validation error (Golub 1979).

    X and y have so many ``free`` rows: the others follow from zero means.
    """
    spread = X.std(0) + 1e-9
    U, s, Vt = np.linalg.svd(X / spread, full_matrices=False)
    along = U.T @ y
    shrunk = [s**2 / (s**2 + penalty) for penalty in _PENALTIES]
    errors = [np.square(y - U @ (k * along)).sum() / (free - k.sum()) ** 2 for k in shrunk]
    kept = shrunk[int(np.argmin(errors))]
    return np.asarray(Vt.T @ (kept / (s + 1e-12) * along) / spread)


def best_layers(table: dict[str, list[float]]) -> str:
    """Return the table as text: each scalar's layers, and the best."""
    lines = [f"{'R2 within versions, by layer':<30}" + "  best"]
    for name, values in table.items():
        row = " ".join(f"{value:6.2f}" for value in values)
        lines.append(f"{name:<18}{row}   {max(values):.2f} ({int(np.argmax(values))})")
    return "\n".join(lines)
