"""Musical aspects: the words that people search by, the targets behind them, the layer for each.

An aspect is a name for a few targets. Its layer is the one whose *mean R2 over the aspect's
targets* is the largest, and that mean is the aspect's R2. The R2 is that *within works*: to know
which piece it is must not count as hearing how it is played. Only where a target has none (each
work has a single row or value) it is the pooled one. In the mean an R2 below 0 counts as 0 (a probe
that is worse than the mean has found nothing, and how much worse is noise), and targets without a
result (not probed, or too little data) are left out and listed as missing.

An aspect is *resolved*, which means that it can be searched, when its R2 reaches ``min_r2``; where
it does not, it says why.

An aspect is *validated* when its interval lies above its baseline. The interval is the mean of its
targets' 95 % intervals (bootstrap over works), as wide as if the targets' errors all went together;
bounds below 0 count as 0, as R2 does. The baseline is the mean of what an untrained encoder of the
same shape reaches, at its best layer per target and at least 0; where none was probed it is 0. An
aspect that is not validated may be searched, and says so.

The layer is chosen by the figure that is reported, over few layers and targets: see
`mess_core.probing.probe` on what that means.
"""

__all__ = ["ASPECT_REGISTRY", "Aspect", "resolve_aspects", "save_aspects"]

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from mess_core import stages
from mess_core.files import write_json
from mess_core.layout import UNTRAINED, Layout
from mess_core.probing.results import confidence, read_results, score_interval, score_r2

DEFAULT_RESULTS = Layout(Path("data"), "demo").probing


@dataclass(frozen=True, slots=True)
class Aspect:
    """A musical aspect: what a search calls it, and what a listener would say that it is.

    ``targets`` of `mess_core.targets.registry.TARGETS` measure it from audio, and those of ``midi``
    from MIDI, which is the truth where a recording has MIDI. ``more`` is 1 or -1 where more of the
    aspect means more or less of its targets, and 0 where neither is meant, because a target is a
    shape.
    """

    name: str
    description: str
    targets: tuple[str, ...] = ()
    midi: tuple[str, ...] = ()
    more: int = 1

    @property
    def measures(self) -> tuple[str, ...]:
        """All that measures it: from audio, then from MIDI."""
        return self.targets + self.midi


_ASPECTS = (
    Aspect(
        "brightness", "How much of the sound lies high", ("spectral_centroid", "spectral_rolloff")
    ),
    Aspect("tempo", "How fast it goes", ("tempo",)),
    Aspect("rhythmic_energy", "How much happens per second", ("onset_density",)),
    Aspect("dynamics", "How loud it is played", ("loudness_level",), ("velocity_mean",)),
    Aspect(
        "dynamic_range", "How far apart soft and loud are", ("dynamic_range",), ("velocity_range",)
    ),
    Aspect(
        "crescendo", "How much it swells and fades", ("crescendo_strength", "diminuendo_strength")
    ),
    Aspect("harmonic_richness", "How many pitch classes sound together", ("harmonic_complexity",)),
    Aspect("tension", "How dissonant what sounds together is", ("tension_level",)),
    Aspect(
        "articulation",
        "How connected notes are: more is legato, less is staccato",
        midi=("articulation_ratio",),
    ),
    Aspect(
        "phrasing",
        "The contour of loudness and tempo",
        ("loudness_shape",),
        ("performed_tempo_shape",),
        more=0,
    ),
    Aspect("rubato", "How freely the beat is bent", midi=("rubato", "tempo_variability")),
    Aspect(
        "expressiveness",
        "How much a player departs from even touch and even time",
        midi=("velocity_std", "tempo_variability", "onset_timing_std"),
    ),
)

#: Every aspect by name.
ASPECT_REGISTRY: dict[str, Aspect] = {aspect.name: aspect for aspect in _ASPECTS}

Results = Mapping[str, Mapping[str, Any]]


def resolve_aspects(
    min_r2: float = 0.5,
    results_path: Path = DEFAULT_RESULTS,
    *,
    targets: Collection[str] | None = None,
) -> dict[str, Any]:
    """Find each aspect's layer from the probing results of a folder.

    ``min_r2`` is the R2 within works that an aspect must reach to be resolved. With ``targets``
    only their results are read; others in the folder may be of an earlier configuration.

    Returns
    -------
    dict
        ``dataset``, ``stage``, ``min_r2``, ``encoder`` and ``aspects``: per name ``resolved``,
        ``layer``, ``r2``, ``confidence`` (all three also below ``min_r2``, None, None and ``low``
        without any result), ``interval``, ``baseline``, ``validated`` with its ``finding`` in
        words, ``targets`` (per target its own best ``layer``, ``r2`` and ``confidence``),
        ``missing`` (names of targets without a result) and ``reason`` (None when resolved).

    Raises
    ------
    ProbingError, StorageError
        If there is no result, or results are malformed or do not belong together.
    """
    wanted = {name for aspect in ASPECT_REGISTRY.values() for name in aspect.measures}
    if targets is not None:
        wanted &= set(targets)
    results = read_results(results_path, sorted(wanted))
    origin = next(iter(results.values()))
    return {
        "dataset": origin["dataset"],
        "stage": stages.ASPECTS,
        "min_r2": min_r2,
        "encoder": origin["encoder"],
        "aspects": {
            name: _resolve(aspect, results, min_r2) for name, aspect in ASPECT_REGISTRY.items()
        },
    }


def save_aspects(aspects: Mapping[str, Any], path: Path) -> None:
    """Write an aspect map of `resolve_aspects` as JSON, whole or not at all."""
    write_json(path, dict(aspects))


def _resolve(aspect: Aspect, results: Results, min_r2: float) -> dict[str, Any]:
    known = {name: results[name] for name in aspect.measures if name in results}
    found = {name: result for name, result in known.items() if result["layers"]}
    missing = {n: _why_missing(known.get(n)) for n in aspect.measures if n not in found}
    layer, r2 = _best_layer(found)
    resolved = r2 is not None and r2 >= min_r2
    return {
        "resolved": resolved,
        "layer": layer,
        "r2": r2,
        "confidence": confidence(r2),
        **_validate(found, layer),
        "targets": {name: _best_of(result) for name, result in found.items()},
        "missing": list(missing),
        "reason": None if resolved else _reason(found, missing, layer, r2, min_r2),
    }


def _best_of(result: Mapping[str, Any]) -> dict[str, Any]:
    layer = result["best_layer"]
    r2 = score_r2(result["layers"][layer])
    return {"layer": layer, "r2": r2, "confidence": confidence(r2)}


def _best_layer(found: Results) -> tuple[int | None, float | None]:
    """Return the layer with the largest mean R2 over targets (the lower of equals) and that R2."""
    if not found:
        return None, None
    by_target = [[max(0.0, score_r2(s)) for s in r["layers"]] for r in found.values()]
    means = [fmean(column) for column in zip(*by_target, strict=True)]
    r2 = max(means)
    return means.index(r2), r2


def _validate(found: Results, layer: int | None) -> dict[str, Any]:
    """Compare an aspect's interval at its layer with its baseline."""
    if layer is None:
        finding = "not validated: no target has a result"
        return {"interval": None, "baseline": None, "validated": False, "finding": finding}
    intervals = [score_interval(result["layers"][layer]) for result in found.values()]
    twins = [result.get("baselines", {}).get(UNTRAINED) for result in found.values()]
    baseline = fmean(max(0.0, score_r2(twin)) if twin else 0.0 for twin in twins)
    against = "an untrained encoder of the same shape" if any(twins) else "0"
    interval = None
    if all(intervals):
        # Negative ones count as 0, as in the R2 itself, which could lie outside otherwise.
        interval = [fmean(max(0.0, b) for b in bounds) for bounds in zip(*intervals, strict=True)]
    validated = interval is not None and interval[0] > baseline
    told = f"the interval {interval[0]:.2f} to {interval[1]:.2f}" if interval else "no interval"
    relation = "lies above" if validated else "is not above"
    return {
        "interval": interval,
        "baseline": baseline,
        "validated": validated,
        "finding": f"{'' if validated else 'not '}validated: {told} {relation} "
        f"{against}{f' ({baseline:.2f})' if any(twins) else ''}",
    }


def _reason(
    found: Results, missing: Mapping[str, str], layer: int | None, r2: float | None, min_r2: float
) -> str:
    lacking = "; ".join(
        f"no result for {', '.join(name for name in missing if missing[name] == why)}{why}"
        for why in dict.fromkeys(missing.values())
    )
    if layer is None or r2 is None:
        return lacking
    parts = [f"{name} {score_r2(r['layers'][layer]):.2f}" for name, r in found.items()]
    below = (
        f"the best layer, {layer}, has a mean R2 within works of {r2:.3f} ({', '.join(parts)}), "
        f"below min_r2 {min_r2:g}"
    )
    return f"{below}; {lacking}" if lacking else below


def _why_missing(result: Mapping[str, Any] | None) -> str:
    return f" ({result['reason']})" if result and result.get("reason") else ""
