"""Whether two measures go together: rank correlations within groups."""

__all__ = ["MIN_PAIRS", "interval", "spearman", "within"]

from collections import defaultdict
from collections.abc import Hashable, Iterable

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

Floats = npt.NDArray[np.float64]

#: Fewer pairs show no order, and a group that has fewer of them counts as undefined.
MIN_PAIRS = 4

#: What differs by less than this share of the greatest value is equal: rounding has no rank.
RESOLUTION = 1e-9

#: Numbers that `interval` draws at most, 80 MB of them.
_DRAWN = 10_000_000


def spearman(truth: Iterable[float], measured: Iterable[float]) -> float:
    """Return the rank correlation of the pairs that are both defined.

    A measure that does not move while the truth does has a correlation of 0. NaN with fewer than
    `MIN_PAIRS` pairs and where the truth does not move.
    """
    pairs = np.array([list(truth), list(measured)], float)
    pairs = pairs[:, np.isfinite(pairs).all(axis=0)]
    if pairs.shape[1] < MIN_PAIRS:
        return np.nan
    steps = RESOLUTION * np.maximum(np.abs(pairs).max(axis=1, keepdims=True), RESOLUTION)
    ranks = rankdata(np.round(pairs / steps), axis=1)
    moved = np.ptp(ranks, axis=1) > 0
    if not moved.all():
        return 0.0 if moved[0] else np.nan
    return float(np.round(np.corrcoef(ranks)[0, 1], 12))


def within(
    groups: Iterable[Hashable], truth: Iterable[float], measured: Iterable[float]
) -> dict[Hashable, float]:
    """Return the rank correlation in each group, groups in their order."""
    members: dict[Hashable, list[tuple[float, float]]] = defaultdict(list)
    for group, *pair in zip(groups, truth, measured, strict=True):
        members[group].append((pair[0], pair[1]))
    return {group: spearman(*zip(*pairs, strict=True)) for group, pairs in members.items()}


def interval(values: Floats, *, rounds: int = 10_000) -> tuple[float, float]:
    """Return the 95 % interval of the mean, from resampling the values (seeded).

    Of more than a thousand values fewer rounds are taken, so that the cost is bounded.
    """
    rounds = max(1, min(rounds, _DRAWN // len(values)))
    drawn = np.random.default_rng(0).choice(values, (rounds, len(values)))
    low, high = np.percentile(drawn.mean(axis=1), (2.5, 97.5))
    return float(low), float(high)
