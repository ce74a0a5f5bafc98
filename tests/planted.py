"""A corpus whose aspects are known: features that hold them linearly, and probes that read them.

Every layer is a random mix of what is planted, plus an offset that all rows share, as the features
of transformers have.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mess_core.index.fitting import fit_projection
from mess_core.index.index import Index, Row, build_index
from mess_core.index.projection import Projection
from mess_core.probing.coordinates import AspectCoordinates

Floats = npt.NDArray[np.float64]

LAYERS, DIMS = 3, 24
WINDOW_S, HOP_S = 5.0, 2.5
#: The aspects, the layer that they are read from, and their number of coordinates.
ASPECTS = {"tempo": (0, 1), "legato": (2, 1), "dynamics": (2, 2), "contour": (1, 3)}
#: ``contour`` is a shape: there is no more of it.
DIRECTED = ("tempo", "legato", "dynamics")
STANDARD_ERROR = 0.5

ASPECT_MAP: dict[str, Any] = {
    "dataset": "planted",
    "stage": 1,
    "min_r2": 0.3,
    "encoder": {"name": "small"},
    "aspects": {
        **{
            name: {
                "resolved": True,
                "sources": ["probed"],
                "agreement": {"probed": {"r2": 0.7, "distances": 0.4}},
                "layer": layer,
                "r2": 0.7,
                "confidence": "medium",
                "targets": {},
                "finding": "probed in layer 0",
                "reason": None,
            }
            for name, (layer, _) in ASPECTS.items()
        },
        "rubato": {
            "resolved": False,
            "sources": [],
            "agreement": {"probed": {"r2": 0.12, "distances": 0.1}},
            "layer": 1,
            "r2": 0.12,
            "reason": "no layer predicts it",
        },
        "pedal": {
            "resolved": False,
            "sources": [],
            "agreement": {},
            "layer": None,
            "r2": None,
            "reason": "no MIDI",
        },
    },
}
FACTS: dict[str, Any] = {
    "dataset": "planted",
    "encoder": {"name": "small", "weights_sha256": "0" * 64, "trained": False},
    "licence": "CC0-1.0",
}


class Corpus:
    """Rows with known aspects.

    Attributes
    ----------
    values : dict of str to ndarray [shape=(n, d)]
        The aspects' true coordinates; those of ``legato`` are correlated with ``tempo``.
    features : ndarray of float32 [shape=(n, LAYERS, DIMS)]
    """

    def __init__(self, n: int, *, seed: int = 0, others: int = 8, noise: float = 0.05) -> None:
        rng = np.random.default_rng(seed)
        self.values = {name: rng.normal(size=(n, d)) for name, (_, d) in ASPECTS.items()}
        self.values["legato"] = 0.6 * self.values["tempo"] + 0.8 * self.values["legato"]
        planted = np.column_stack([*self.values.values(), rng.normal(size=(n, others))])
        mix = np.random.default_rng(99).normal(size=(LAYERS, planted.shape[1], DIMS))
        features = np.einsum("np,lpd->nld", planted, mix) + 20.0
        features += noise * rng.normal(size=features.shape)
        self.features = features.astype(np.float32)

    @property
    def coordinates(self) -> list[AspectCoordinates]:
        """Return what least squares reads, as ridge regression would with many rows."""
        return [self._read(name) for name in ASPECTS]

    def _read(self, name: str) -> AspectCoordinates:
        layer, dims = ASPECTS[name]
        X = self.features[:, layer].astype(np.float64)
        mean = X.mean(axis=0)
        readout = np.linalg.lstsq(X - mean, self.values[name], rcond=1e-6)[0]
        value = np.full(dims, 1 / np.sqrt(dims)) if name in DIRECTED else None
        error = STANDARD_ERROR if name in DIRECTED else None
        return AspectCoordinates(name, layer, readout, mean, value, error)

    def projection(
        self,
        layers: Sequence[int] = range(LAYERS),
        spaces: Mapping[str, npt.NDArray[np.float32]] | None = None,
    ) -> Projection:
        """Fit the projection."""
        return fit_projection(
            lambda layer: self.features[:, layer],
            layers,
            coordinates=self.coordinates,
            spaces=spaces,
        )

    def bare(self, rows: Sequence[Row], kind: str, layers: Sequence[int] = (0, 1)) -> Index:
        """Build an index without aspects."""
        projection = fit_projection(lambda layer: self.features[:, layer], layers)
        return build_index(
            self.features, rows, kind=kind, projection=projection, aspects={}, facts={}
        )

    def index(
        self,
        rows: Sequence[Row],
        kind: str = "clips",
        spaces: Mapping[str, npt.NDArray[np.float32]] | None = None,
    ) -> Index:
        """Build an index of all rows."""
        return build_index(
            self.features,
            rows,
            kind=kind,
            projection=self.projection(spaces=spaces),
            aspects=ASPECT_MAP,
            facts=FACTS,
        )


def clip_rows(recordings: int, windows: int, works: int = 3) -> list[Row]:
    """Return the windows of recordings ``r0``, ``r1``, ... of works ``w0``, ..."""
    return [
        Row(
            f"r{i}", f"w{i % works}", f"player{i % 2}", f"composer{i % works}", f"title{i}", "",
            HOP_S * n, HOP_S * n + WINDOW_S,
        )
        for i in range(recordings)
        for n in range(windows)
    ]  # fmt: skip


def recording_rows(n: int) -> list[Row]:
    """Return n recordings of two works."""
    return [Row(f"r{i}", f"w{i % 2}", "", "", "", "", 0.0, 10.0 + i) for i in range(n)]
