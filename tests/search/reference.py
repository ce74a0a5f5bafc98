"""Search by its definition, in float64 and without FAISS: what the index must equal."""

from collections.abc import Mapping
from copy import copy
from typing import Any

import numpy as np
import numpy.typing as npt

from mess_core.index.projection import Projection

Floats = npt.NDArray[np.float64]


class Blocks:
    """Every row's general block and blocks of the aspects, from features and projection alone."""

    def __init__(self, projection: Projection, features: npt.NDArray[np.floating[Any]]) -> None:
        kept = features[:, projection.layers].astype(np.float64)
        centred = kept - projection.means
        unit = centred / np.linalg.norm(centred, axis=2, keepdims=True) / np.sqrt(kept.shape[1])
        self.components = unit.reshape(len(unit), -1) @ projection.basis - projection.centre
        self.spaces = {
            name: block / np.linalg.norm(block, axis=1, keepdims=True)
            for name, part in projection.spaces.items()
            for block in [self.components[:, part]]
        }
        self.general = self.spaces["general"]
        layers = projection.layers.tolist()
        parts, end = [], 0
        for layer, size in zip(projection.aspect_layers, projection.sizes, strict=True):
            mine = slice(end, end := end + int(size))
            parts.append(centred[:, layers.index(layer)] @ projection.readout[:, mine])
        self.coordinates = np.column_stack(parts) - projection.offset
        moved = self.coordinates @ projection.decorrelate
        clipped = np.clip(moved, -projection.bounds, projection.bounds)
        self.aspects = {name: clipped[:, a.coordinates] for name, a in projection.aspects.items()}
        self.predicted = self.coordinates @ projection.value

    def scores(self, query: list[int], weights: Mapping[str, float]) -> Floats:
        """Return the score of every row for the mean of some of them."""
        total = np.zeros(len(self.general))
        whole = sum(abs(w) for w in weights.values())
        for name, weight in weights.items():
            if name in self.spaces:
                asked = self.spaces[name][query].mean(axis=0)
                similarity = self.spaces[name] @ (asked / np.linalg.norm(asked))
            else:
                asked = self.aspects[name][query].mean(axis=0)
                similarity = 1 - np.square(self.aspects[name] - asked).sum(axis=1)
            total += weight / whole * similarity
        return total

    def relative(self, works: npt.NDArray[np.str_], compared: npt.NDArray[np.bool_]) -> "Blocks":
        """Return the blocks as works see them; some rows [n] tell how far they are spread."""

        def centred(values: Floats) -> Floats:
            means = np.array([values[works == work].mean(axis=0) for work in works])
            return np.asarray(values - means)

        found = copy(self)
        found.spaces = {
            name: block / np.linalg.norm(block, axis=1, keepdims=True)
            for name, block in ((name, centred(block)) for name, block in self.spaces.items())
        }
        found.aspects = {name: centred(block) for name, block in self.aspects.items()}
        for name, block in found.aspects.items():
            apart = 2 * np.square(block[compared]).sum(axis=1).mean()
            found.aspects[name] = block / np.sqrt(apart)
        found.predicted = centred(self.predicted)
        return found
