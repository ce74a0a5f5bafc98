"""What is measured of an aspect, and how far it agrees with the truth in works not heard.

Targets from audio and targets from MIDI of one aspect have other units and other errors. A ridge
regression from the audio targets to the true ones, judged as a probe is
(`mess_core.probing.probe`), tells how far the former follow the latter, on the probes' own scale.
"""

__all__ = ["agree", "fill", "usable_targets"]

from collections.abc import Iterable, Sequence
from dataclasses import asdict
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
    columns = {name: discovery.load_columns(columns_of([name])) for name in targets}
    known = {name: rows[np.isfinite(rows).all(axis=1)] for name, rows in columns.items()}
    return [name for name, rows in known.items() if len(rows) and np.ptp(rows, axis=0).any()]


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
    rows = [fill(discovery.load_columns(columns_of(audio)))], discovery.works, discovery.folds
    given: dict[str, Any] = {"recordings": discovery.names, "alphas": discovery.alphas}
    given |= {"n_permutations": 0, "n_resamples": 1}
    results = [probe(rows[0], discovery.load_targets(n), *rows[1:], name=n, **given) for n in truth]
    if not all(result.layers for result in results):
        return None
    scores = [asdict(result.layers[0]) for result in results]
    return {
        "r2": fmean(max(0.0, score_r2(score)) for score in scores),
        "distances": mean_of_known(score["distances"] for score in scores),
        "alphas": {name: score["alpha"] for name, score in zip(truth, scores, strict=True)},
    }
