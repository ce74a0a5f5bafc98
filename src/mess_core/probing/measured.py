"""What is measured of an aspect, and how far it agrees with the truth in works not heard.

Targets from audio and targets from MIDI of one aspect have other units and other errors. A ridge
regression from the audio targets to the true ones, judged as a probe is
(`mess_core.probing.probe`), tells how far the former follow the latter, on the probes' own scale.
"""

__all__ = ["agree", "fill", "usable_targets"]

from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Any

import numpy as np

from mess_core.probing.discovery import LayerDiscoverySystem, nan_mean
from mess_core.probing.folds import Floats
from mess_core.probing.probe import probe
from mess_core.probing.results import mean_of_known, score_r2
from mess_core.targets.columns import columns_of


def usable_targets(discovery: LayerDiscoverySystem, targets: Iterable[str]) -> list[str]:
    """Return the targets that have two different values in some rows."""
    return [name for name in targets if _varies(discovery.load_targets(name))]


def _varies(values: Floats) -> bool:
    rows = values[np.isfinite(values.reshape(len(values), -1)).all(axis=1)]
    return len(rows) > 1 and bool(np.ptp(rows, axis=0).any())


def fill(values: Floats) -> Floats:
    """Return columns [n, c] with their mean where they are undefined: such rows have no say."""
    return np.asarray(np.where(np.isnan(values), np.nan_to_num(nan_mean(values)), values))


def agree(
    discovery: LayerDiscoverySystem, audio: Sequence[str], truth: Sequence[str]
) -> dict[str, Any] | None:
    """Return how well targets from audio predict the true ones in folds that were not learned.

    ``r2`` and ``distances`` are means over the true targets of the R2 within works (at least 0) and
    of `LayerScore.distances`; ``alphas`` are the penalties. None where that cannot be told.
    """
    X = fill(discovery.load_columns(columns_of(audio)))
    results = {
        name: probe(
            [X],
            discovery.load_targets(name),
            discovery.works,
            discovery.folds,
            name=name,
            recordings=discovery.names,
            alphas=discovery.alphas,
            n_permutations=0,
            n_resamples=1,
        )
        for name in truth
    }
    scores = {name: result.layers[0] for name, result in results.items() if result.layers}
    if len(scores) < len(results):
        return None
    return {
        "r2": fmean(
            max(0.0, score_r2({"r2": s.r2, "r2_within": s.r2_within})) for s in scores.values()
        ),
        "distances": mean_of_known(s.distances for s in scores.values()),
        "alphas": {name: score.alpha for name, score in scores.items()},
    }
