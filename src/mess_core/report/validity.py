"""Whether targets measure what they say, as far as a run's own data can tell.

For every target that is probed:

* ``defined``: the share of the probed rows that have it.
* ``within_works``: the share of its variance that is left when each work's mean is taken away. A
  target that stays the same whoever plays has 0, and then nothing about playing can be learned.
* For targets that are heard in the audio and have a partner in MIDI (`PARTNERS`): their Spearman
  correlation over the rows of each work, mean of the works. Both are measures; MIDI is what was
  played, audio what can be heard of it.
* Where the interpretations' parameters are known, as in the demo: the Spearman correlation of each
  target of the whole recording with each parameter over the recordings of each work, mean of the
  works. Interpretations differ in all parameters at once, and few play a work: what is correlated
  with one parameter may follow another (`parameter_rows` says how far they go together).
"""

__all__ = [
    "OWN_PARAMETER",
    "PARTNERS",
    "interval",
    "mean_within",
    "measure_validity",
    "parameter_rows",
    "read_parameters",
    "read_values",
    "spearman",
    "within",
]

import csv
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit
from scipy.stats import rankdata

from mess_core.layout import Layout
from mess_core.probing.inference import COVERAGE
from mess_core.targets.npz import TargetReader
from mess_core.targets.registry import TARGETS, Level

Floats = npt.NDArray[np.float64]

#: Fewer pairs show no order, and a group that has fewer of them counts as undefined.
MIN_PAIRS = 4
#: What differs by less than this share of the greatest value is equal: rounding has no rank.
RESOLUTION = 1e-9

#: The parameter of an interpretation that a target is meant to follow. A target without an entry
#: has none of its own: harmony and phrases, say, are the score's.
OWN_PARAMETER = {
    target: parameter
    for parameter, targets in {
        "tempo": (
            "tempo onset_density onset_rate_level local_tempo_level performed_tempo_level "
            "chord_rate note_rate"
        ),
        "rubato": (
            "local_tempo_extent rubato rubato_ioi_ratio performed_tempo_extent tempo_variability"
        ),
        "tilt": "spectral_centroid spectral_rolloff brightness_level",
        "articulation": "note_connection articulation_ratio articulation_histogram",
        "pedal": "resonance pedal_share",
        "dynamic_range": (
            "dynamic_range crescendo_strength diminuendo_strength loudness_extent velocity_std "
            "velocity_range"
        ),
        "level": "loudness_level velocity_mean",
        "chord_spread_ms": "onset_timing_std chord_spread",
        "melody_lead_ms": "melody_lead",
    }.items()
    for target in targets.split()
}

#: What is heard in the audio, and what MIDI says of the same.
PARTNERS = {
    "tempo": "chord_rate",
    "onset_density": "chord_rate",
    "local_tempo_level": "performed_tempo_level",
    "local_tempo_extent": "performed_tempo_extent",
    "local_tempo_shape": "performed_tempo_shape",
    "note_connection": "articulation_ratio",
    "resonance": "pedal_share",
    "dynamic_range": "velocity_range",
    "loudness_level": "velocity_mean",
    "loudness_extent": "velocity_std",
}


def measure_validity(
    rows: Mapping[str, Floats],
    works: Sequence[str],
    *,
    whole: Mapping[str, Floats] | None = None,
    works_of_whole: Sequence[str] = (),
    parameters: Mapping[str, Floats] | None = None,
) -> list[dict[str, Any]]:
    """Measure the validity of targets.

    Parameters
    ----------
    rows : mapping of str to ndarray [shape=(n,) or (n, q)]
        Every target's values of the rows that are probed; NaN where undefined.
    works : sequence of str
        The work of each of the n rows.
    whole, works_of_whole : optional
        The same of r whole recordings; needed with parameters.
    parameters : mapping of str to ndarray [shape=(r,)], optional
        What is known of how each recording is played; NaN where it is not.

    Returns
    -------
    list of dict
        Per target ``target``, ``category``, ``source``, ``n_rows``, ``defined``, ``within_works``;
        ``midi`` (its partner), ``midi_r``, ``midi_lo`` and ``midi_hi`` (95 % interval over works)
        and ``midi_works``; ``own`` (its parameter) and per parameter ``of_{name}``. None where it
        cannot be said.
    """
    return [
        {
            "target": name,
            "category": TARGETS[name].category,
            "source": TARGETS[name].source,
            "n_rows": len(values),
            "defined": float(_defined(values).mean()) if len(values) else None,
            "within_works": _within_share(values, works),
            **_agreement(name, rows, works),
            "own": OWN_PARAMETER.get(name),
            **{
                f"of_{parameter}": mean_within(works_of_whole, truth, (whole or {})[name])["mean"]
                for parameter, truth in (parameters or {}).items()
            },
        }
        for name, values in rows.items()
    ]


def parameter_rows(
    parameters: Mapping[str, Floats], works: Sequence[str]
) -> dict[str, dict[str, float | None]]:
    """Return how far parameters go together within works, by two names."""
    return {
        one: {name: mean_within(works, values, other)["mean"] for name, other in parameters.items()}
        for one, values in parameters.items()
    }


def read_values(
    layout: Layout, recordings: Iterable[str], targets: Sequence[str], level: Level
) -> tuple[dict[str, Floats], list[int]]:
    """Read the values of targets of one level from the files of all recordings.

    Returns each target's values [n] or [n, q], NaN where a recording has no MIDI or no alignment,
    and how many rows each recording has. Raises `TargetError` if a file is missing, damaged or
    malformed.
    """
    read = TargetReader(layout)
    blocks: dict[str, list[Floats]] = {name: [] for name in targets}
    counts = []
    for recording in recordings:
        counts.append(np.asarray(read(recording, "tempo", level)).size)
        for name in targets:
            shape = (counts[-1], *TARGETS[name].shape)
            found = read(recording, name, level)
            blocks[name].append(np.full(shape, np.nan) if found is None else found.reshape(shape))
    return {name: np.concatenate(block) for name, block in blocks.items()}, counts


def read_parameters(path: Path, recordings: Sequence[str]) -> dict[str, Floats]:
    """Read the parameters of recordings' interpretations from the demo corpus's table.

    They are arrays [shape=(len(recordings),)], NaN for recordings that the table does not have.
    """
    with path.open(encoding="utf-8", newline="") as file:
        rows = {row["recording_id"]: row for row in csv.DictReader(file, delimiter="\t")}
    # The others say which recording it is, or follow from the rest.
    others = ("recording_id", "work_id", "interpretation", "duration_s")
    names = [name for name in next(iter(rows.values())) if name not in others]
    unknown = dict.fromkeys(names, "nan")
    return {
        name: np.array([float(rows.get(recording, unknown)[name]) for recording in recordings])
        for name in names
    }


def mean_within(works: Sequence[str], truth: Floats, measured: Floats) -> dict[str, Any]:
    """Return the mean over works of the rank correlation within them [shape=(n,) or (n, q)].

    Of a shape's q numbers each is correlated by itself, and a work's correlation is their mean.
    The dict has the ``mean``, its ``interval`` (None of a single work) and how many ``works`` have
    enough defined rows; None, None and 0 without any, or where only one of the two is a shape.
    """
    of_works = np.array([])
    if truth.shape == measured.shape:
        columns = zip(_matrix(truth).T, _matrix(measured).T, strict=True)
        found = np.array([list(within(works, *pair).values()) for pair in columns])
        of_works = found[:, np.isfinite(found).all(axis=0)].mean(axis=0)
    n = len(of_works)
    return {
        "mean": float(of_works.mean()) if n else None,
        # No correlation lies beyond.
        "interval": tuple(np.clip(interval(of_works), -1, 1).tolist()) if n > 1 else None,
        "works": n,
    }


def within(
    groups: Iterable[Hashable], truth: Iterable[float], measured: Iterable[float]
) -> dict[Hashable, float]:
    """Return the rank correlation in each group, groups in their order."""
    members: dict[Hashable, list[tuple[float, float]]] = defaultdict(list)
    for group, *pair in zip(groups, truth, measured, strict=True):
        members[group].append((pair[0], pair[1]))
    return {group: spearman(*zip(*pairs, strict=True)) for group, pairs in members.items()}


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


def interval(values: Floats) -> tuple[float, float]:
    """Return the 95 % interval of the mean of independent values (Student's t); NaN for one."""
    n = len(values)
    if n < 2:
        return np.nan, np.nan
    mean = float(values.mean())
    reach = float(stdtrit(n - 1, (1 + COVERAGE) / 2) * values.std(ddof=1) / np.sqrt(n))
    return mean - reach, mean + reach


def _matrix(values: Floats) -> Floats:
    return values[:, np.newaxis] if values.ndim == 1 else values


def _defined(values: Floats) -> npt.NDArray[np.bool_]:
    return np.asarray(np.isfinite(_matrix(values)).all(axis=1))


def _within_share(values: Floats, works: Sequence[str]) -> float | None:
    """Return the share of the variance within works; of a shape, of the sum over its numbers."""
    present = _defined(values)
    known = _matrix(values)[present]
    if not len(known):
        return None
    total = float(((known - known.mean(axis=0)) ** 2).sum())
    names = np.asarray(works)[present]
    _, of_row, sizes = np.unique(names, return_inverse=True, return_counts=True)
    sums = np.zeros((len(sizes), known.shape[1]))
    np.add.at(sums, of_row, known)
    left = float(((known - (sums / sizes[:, np.newaxis])[of_row]) ** 2).sum())
    # What rounding alone makes of a constant is no variance.
    scale = float((known**2).sum())
    return left / total if total > 1e-18 * scale and total > 0 else None


def _agreement(name: str, rows: Mapping[str, Floats], works: Sequence[str]) -> dict[str, Any]:
    partner = PARTNERS.get(name)
    facts = dict.fromkeys(("midi", "midi_r", "midi_lo", "midi_hi", "midi_works"))
    if partner is None or partner not in rows:
        return facts
    found = mean_within(works, rows[partner], rows[name])
    if not found["works"]:
        return facts
    low, high = found["interval"] or (None, None)
    return dict(zip(facts, (partner, found["mean"], low, high, found["works"]), strict=True))
