"""Geometry is learned where one is planted, and nothing is taken where there is none."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.linalg import sqrtm, subspace_angles

from mess_core.evaluation.geometry import (
    Learned,
    learn,
    linear_loss,
    triplets_of,
    weights_loss,
)
from mess_core.evaluation.judges import Rows
from mess_core.index.fitting import fit_projection
from mess_core.probing.folds import deal_folds

pytestmark = pytest.mark.unit

WORKS, PLAYERS, WINDOWS = 10, 4, 10
WORK, PLAYER, WINDOW = (axis.ravel() for axis in np.indices((WORKS, PLAYERS, WINDOWS)))
N = len(WORK)
ROWS = Rows(
    np.array([f"r{w}-{p}" for w, p in zip(WORK, PLAYER, strict=True)]),
    np.array([f"w{w}" for w in WORK]),
    np.array([f"p{p}" for p in PLAYER]),
)
SPANS = np.column_stack([4.0 * WINDOW, 4.0 * WINDOW + 6])
#: Dimensions of notes, of players, and of noise.
SIZES = 7, 6, 7
NOTES, OF_PLAYER = slice(0, 7), slice(7, 13)
DIMS = sum(SIZES)
JUDGED = np.empty((0, 3), np.int64)


def planted(seed: int, *, noise: float) -> npt.NDArray[np.float64]:
    """Return rows of which known dimensions carry notes and players, and the loudest nothing."""
    rng = np.random.default_rng(seed)
    notes = rng.normal(size=(WORKS, WINDOWS, SIZES[0]))[WORK, WINDOW]
    players = rng.normal(size=(PLAYERS, SIZES[1]))[PLAYER]
    own = np.column_stack([notes, players]) + 0.5 * rng.normal(size=(N, 13))
    return np.column_stack([own, noise * rng.normal(size=(N, SIZES[2]))])


def learned(flat: npt.NDArray[np.float64], **more: Any) -> Learned:
    features = (flat + 10.0).astype(np.float32)[:, np.newaxis]
    projection = fit_projection(lambda layer: features[:, layer], [0])
    given: dict[str, Any] = {"judged": JUDGED, "truth": {}, "windows": N, **more}
    return learn(features, ROWS, SPANS, projection=projection, **given)


def taken(found: Learned) -> dict[str, bool | None]:
    return {verdict.rule: verdict.fired for verdict in found.verdicts}


if __name__ == "__main__":
    import sys

    for noise in (1.0, 2.0, 3.0):
        for rot in (0, 1):
            X = planted(0, noise=noise)
            turn = np.linalg.qr(np.random.default_rng(9).normal(size=(DIMS, DIMS)))[0]
            f = learned(X @ turn if rot else X)
            print(noise, rot)
            for v in f.verdicts:
                print("   ", v.rule, v.text)
            for l in f.lines:
                if l["judge"] == "triplets":
                    print("     ", l["asked"], l["against"], round(l["value"], 3))
