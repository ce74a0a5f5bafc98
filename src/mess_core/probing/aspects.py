"""Musical aspects: the words that people search by, the targets behind them, where each comes from.

An aspect is a name for a few targets. Its *truth* are those from the alignment with other
performances of the work or from MIDI, where recordings have that, else those from audio. It can be
read from these *sources*:

* ``alignment``, the targets from it themselves, where every recording is aligned;
* ``midi``, the targets from MIDI themselves, where every recording has MIDI;
* ``audio``, the targets from audio; where the truth is MIDI, a linear map from them to the truth
  (`mess_core.probing.discovery`);
* ``probed``, the probes' predictions from one layer: the one whose *mean R2 over the true targets*
  is the largest.

What agrees best with the truth, by R2 in works that were not learned from, is taken; the truth
itself has 1. The R2 is that *within works*, for to know which piece it is must not count as hearing
how it is played; the pooled one where a target has none (each work has a single row or value). In
the mean an R2 below 0 counts as 0: how much worse than the mean a probe is, is noise. Targets
without a result are left out and listed as missing.

An aspect is *resolved*, which means that it can be searched, when the R2 of its source reaches
``min_r2``; where it does not, it says why. The other sources that reach it stand in, the best
first, where a query lacks what the first needs.

An aspect is *validated* when the encoder knows it better than an untrained encoder of the same
shape and better than plain descriptors. What each loses per work (`ProbeResult.loss`, with the
layer chosen in the training folds) is compared by a paired t test over works; the larger of the two
p values, corrected over aspects (Holm 1979), must be at most `ALPHA`. An encoder that says that it
is untrained validates nothing. An aspect that is not validated may be searched, and says so.

The layer is chosen by the figure that is reported: `mess_core.probing.probe` says what that means.
"""

__all__ = ["ALPHA", "ASPECT_REGISTRY", "Aspect", "aspect_r2", "resolve_aspects", "save_aspects"]

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from mess_core import stages
from mess_core.files import write_json
from mess_core.layout import DESCRIPTORS, UNTRAINED, Layout
from mess_core.probing.results import (
    confidence,
    layer_name,
    mean_of_known,
    read_results,
    score_interval,
    score_r2,
)
from mess_core.targets.registry import ALIGNED, AUDIO, MIDI, PROBED

if TYPE_CHECKING:
    from mess_core.probing.discovery import LayerDiscoverySystem

#: The largest corrected p value of an aspect that is validated.
ALPHA = 0.05

#: What an aspect must be known better than, in words.
_BASELINES = {UNTRAINED: "an untrained encoder knows it", DESCRIPTORS: "descriptors tell"}

DEFAULT_RESULTS = Layout(Path("data"), "demo").probing


@dataclass(frozen=True, slots=True)
class Aspect:
    """A musical aspect: what a search calls it, and what a listener would say that it is.

    ``targets`` of `mess_core.targets.registry.TARGETS` measure it from audio, and those of ``midi``
    from MIDI, which is the truth where a recording has MIDI. Those of ``aligned`` compare it with
    other performances of its work; an aspect that has them has no others. ``more`` is 1 or -1 where
    more of the aspect means more or less of its targets, and 0 where neither is meant, because a
    target is a shape.
    """

    name: str
    description: str
    targets: tuple[str, ...] = ()
    midi: tuple[str, ...] = ()
    more: int = 1
    aligned: tuple[str, ...] = ()

    @property
    def measures(self) -> tuple[str, ...]:
        """All that measures it: from audio, then from MIDI, then from alignment."""
        return self.targets + self.midi + self.aligned


_ASPECTS = (
    Aspect(
        "brightness", "How much of the sound lies high", ("spectral_centroid", "spectral_rolloff")
    ),
    Aspect("tempo", "How fast it goes", ("tempo",), ("chord_rate",)),
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
        ("note_connection",),
        ("articulation_ratio",),
    ),
    Aspect("pedal", "How much rings on", ("resonance",), ("pedal_share",)),
    Aspect("phrasing", "How loudness rises and falls: its contour", ("loudness_shape",), more=0),
    Aspect(
        "timing",
        "How tempo rises and falls: its contour",
        ("local_tempo_shape",),
        ("performed_tempo_shape",),
        more=0,
    ),
    Aspect(
        "rubato",
        "How freely the beat is bent",
        ("local_tempo_extent",),
        ("rubato", "tempo_variability"),
    ),
    Aspect(
        "expressiveness",
        "How much a player departs from even touch and even time",
        midi=("velocity_std", "tempo_variability", "onset_timing_std"),
    ),
    Aspect(
        *("relative_tempo", "How fast it goes against the other players"),
        aligned=("relative_tempo",),
    ),
    Aspect(
        *("relative_rubato", "How unevenly timing departs from that of the other players"),
        aligned=("timing_deviation",),
    ),
    Aspect(
        *("relative_timing", "How tempo rises and falls against the other players: its contour"),
        aligned=("timing_deviation_shape",),
        more=0,
    ),
    Aspect(
        *("relative_dynamics", "How loud it is played against the other players"),
        aligned=("relative_loudness",),
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
    source: str = "best",
    discovery: "LayerDiscoverySystem | None" = None,
) -> dict[str, Any]:
    """Decide where each aspect is read from, by a folder's probing results and measured values.

    ``min_r2`` is the R2 within works that an aspect must reach to be resolved. With ``targets``
    only their results are read; others in the folder may be of an earlier configuration. ``source``
    is ``best``, or ``measured`` or ``probed`` to take nothing else. Without ``discovery``, which
    has the measured values, aspects are probed. Raises `ProbingError` or `StorageError` if there is
    no result, or results are malformed or do not belong together.

    Returns
    -------
    dict
        ``dataset``, ``stage``, ``min_r2``, ``encoder`` and ``aspects``: per name ``resolved``,
        ``sources`` (the first is the aspect's own, the others stand in; empty when it is not
        resolved), ``truth`` (its ``source`` and ``targets``), ``measures`` (per source the targets
        that can be used), ``agreement`` (per source ``r2`` and ``distances`` with the truth); of
        the probe ``layer``, ``r2``, ``confidence`` (None, None and ``low`` without any result),
        ``interval``, ``baselines`` (their R2), ``p`` (against each, and corrected over aspects),
        ``validated`` and the ``verdict`` in words; the ``finding``, which says where the aspect
        comes from; ``targets`` (per target its own best ``layer``, ``r2`` and ``confidence``),
        ``missing`` (names of targets without a result) and ``reason`` (None when resolved).
    """
    wanted = {name for aspect in ASPECT_REGISTRY.values() for name in aspect.measures}
    if targets is not None:
        wanted &= set(targets)
    results = read_results(results_path, sorted(wanted))
    origin = next(iter(results.values()))
    aspects = {
        name: _resolve(aspect, results, min_r2, source, discovery)
        for name, aspect in ASPECT_REGISTRY.items()
    }
    _judge(aspects, origin["encoder"])
    return {
        "dataset": origin["dataset"],
        "stage": stages.ASPECTS,
        "min_r2": min_r2,
        "encoder": origin["encoder"],
        "aspects": aspects,
    }


def save_aspects(aspects: Mapping[str, Any], path: Path) -> None:
    """Write an aspect map of `resolve_aspects` as JSON, whole or not at all."""
    write_json(path, dict(aspects))


def aspect_r2(entry: Mapping[str, Any]) -> float:
    """Return how well the source of an aspect agrees with the truth; of none -1."""
    sources = entry["sources"] or entry["agreement"]
    return max((float(entry["agreement"][name]["r2"]) for name in sources), default=-1.0)


def _resolve(
    aspect: Aspect,
    results: Results,
    min_r2: float,
    source: str,
    discovery: "LayerDiscoverySystem | None",
) -> dict[str, Any]:
    named = {ALIGNED: aspect.aligned, MIDI: aspect.midi, AUDIO: aspect.targets}
    known = {kind: [n for n in names if n in results] for kind, names in named.items()}
    measures = {kind: discovery.varying(ns) if discovery else [] for kind, ns in known.items()}
    probed = {n: results[n] for names in known.values() for n in names if results[n]["layers"]}
    here = (kind for kind in named if measures[kind] or probed.keys() & {*named[kind]})
    truth = next(here, ALIGNED if aspect.aligned else AUDIO)
    found = {name: probed[name] for name in known[truth] if name in probed}
    unknown = [name for name in aspect.measures if name not in probed]
    missing = {name: _why_missing(results.get(name)) for name in unknown}
    true = list(found) or measures[truth]
    layer, r2 = _best_layer(found)
    agreement: dict[str, dict[str, Any]] = {}
    if discovery:
        if measures[truth] and discovery.all_have(truth):
            agreement[truth] = {"r2": 1.0, "distances": 1.0}
        if truth == MIDI and measures[AUDIO]:
            told = discovery.agreement(measures[AUDIO], true)
            agreement |= {AUDIO: told} if told else {}
    if layer is not None:
        distances = [result["layers"][layer]["distances"] for result in found.values()]
        agreement[PROBED] = {"r2": r2, "distances": mean_of_known(distances)}
    sources = _choose(agreement, min_r2, source)
    entry = {
        "resolved": bool(sources),
        "sources": sources,
        "truth": {"source": truth, "targets": true},
        "measures": measures,
        "agreement": agreement,
        "layer": layer,
        "r2": r2,
        "confidence": confidence(r2),
        **_compare(found, layer),
        "targets": {name: _best_of(result) for name, result in found.items()},
        "missing": list(missing),
    }
    return entry | {"reason": None if sources else _reason(found, missing, entry, min_r2)}


def _choose(agreement: Mapping[str, Any], min_r2: float, source: str) -> list[str]:
    """Return the sources that an aspect is read from: the first that a row has the inputs of."""
    good = [name for name in agreement if agreement[name]["r2"] >= min_r2]
    best = sorted(good, key=lambda name: -agreement[name]["r2"])
    if source == PROBED:
        return [PROBED] if PROBED in best else []
    if source == "measured":
        best.sort(key=lambda name: name == PROBED)
        best = [] if best[:1] == [PROBED] else best
    # Features are always there, so that nothing has to stand in for them.
    return best[: best.index(PROBED) + 1] if PROBED in best else best


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


def _compare(found: Results, layer: int | None) -> dict[str, Any]:
    """Return an aspect's interval at its layer, what its baselines reach, and p against each."""
    if layer is None:
        return {"interval": None, "baselines": {}, "p": {}}
    intervals = [score_interval(result["layers"][layer]) for result in found.values()]
    interval = None
    if all(intervals):
        # Negative ones count as 0, as in the R2 itself, which could lie outside otherwise.
        interval = [fmean(max(0.0, b) for b in bounds) for bounds in zip(*intervals, strict=True)]
    baselines, p = {}, {}
    for name in _BASELINES:
        others = [result.get("baselines", {}).get(name) for result in found.values()]
        if all(others):
            baselines[name] = fmean(max(0.0, score_r2(other)) for other in others)
            p[name] = _p(list(found.values()), others)
    return {"interval": interval, "baselines": baselines, "p": p}


def _p(results: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]]) -> float:
    """Return the p value of results losing no less than a baseline, work by work."""
    from mess_core.probing.inference import paired_p

    gains: dict[str, float] = {}
    for result, other in zip(results, others, strict=True):
        for work, own, its in zip(result["works"], result["loss"], other["loss"], strict=True):
            gains[work] = gains.get(work, 0.0) + its - own
    return paired_p(list(gains.values()))


def _judge(aspects: Mapping[str, dict[str, Any]], encoder: Mapping[str, Any]) -> None:
    """Decide which aspects are validated, all together, and say of each where it comes from."""
    from mess_core.probing.inference import holm

    compared = [entry for entry in aspects.values() if entry["p"].keys() == _BASELINES.keys()]
    corrected = holm([max(entry["p"].values()) for entry in compared])
    for entry, p in zip(compared, corrected, strict=True):
        entry["p"] = {**entry["p"], "corrected": p}
    trained = encoder.get("trained")
    for entry in aspects.values():
        entry["validated"] = trained is not False and entry["p"].get("corrected", 1.0) <= ALPHA
        entry["verdict"] = _verdict(entry, trained)
        entry["finding"] = _finding(entry, layer_name(encoder, entry["layer"]))


def _verdict(entry: Mapping[str, Any], trained: bool | None) -> str:
    if entry["layer"] is None:
        return "not probed"
    if trained is False:
        return "the encoder is untrained"
    if entry["validated"]:
        return f"known better than {_BASELINES[DESCRIPTORS]}"
    if missing := [name for name in _BASELINES if name not in entry["p"]]:
        return f"not compared with {' and '.join(missing)}"
    worst = max(_BASELINES, key=lambda name: entry["p"][name])
    return f"not known better than {_BASELINES[worst]}"


def _finding(entry: Mapping[str, Any], layer: str | None) -> str:
    """Say in a sentence where an aspect comes from, and how far its distances follow the truth."""
    if not entry["sources"]:
        return str(entry["reason"])
    source, truth = entry["sources"][0], entry["truth"]["source"]
    told = f"probed in layer {layer}" if source == PROBED else f"measured from {source}"
    if source != truth:
        agreement = entry["agreement"][source]
        follow, far = "it follows", f"R2 {agreement['r2']:.2f} within works"
        if agreement["distances"] is not None:
            follow = "its distances follow"
            far = f"{agreement['distances']:.2f} within works (R2 {agreement['r2']:.2f})"
        told += f"; {follow} the truth (measured from {truth}) with {far}"
    told = told.replace("from midi", "from MIDI")
    return f"{told}; {entry['verdict']}" if source == PROBED else told


def _reason(
    found: Results, missing: Mapping[str, str], entry: Mapping[str, Any], min_r2: float
) -> str:
    parts = [
        f"no result for {', '.join(name for name in missing if missing[name] == why)}{why}"
        for why in dict.fromkeys(missing.values())
    ]
    if AUDIO in entry["agreement"]:
        r2 = entry["agreement"][AUDIO]["r2"]
        parts.insert(0, f"what audio measures follows the truth with R2 {r2:.3f}")
    if (layer := entry["layer"]) is not None:
        each = [f"{name} {score_r2(r['layers'][layer]):.2f}" for name, r in found.items()]
        called = layer_name(next(iter(found.values()))["encoder"], layer)
        parts.insert(
            0,
            f"the best layer, {called}, has a mean R2 within works of {entry['r2']:.3f} "
            f"({', '.join(each)}), {'below' if entry['r2'] < min_r2 else 'at least'} min_r2 "
            f"{min_r2:g}",
        )
    return "; ".join(parts) or "nothing of it is measured"


def _why_missing(result: Mapping[str, Any] | None) -> str:
    return f" ({result['reason']})" if result and result.get("reason") else ""
