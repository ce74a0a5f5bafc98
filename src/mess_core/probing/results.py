"""Probing results on disk: one ``{target}.json`` per target, the contract between the stages.

Fields: ``target``, ``category``, ``dataset``, ``stage``, ``encoder`` (``name``, ``weights_sha256``,
``trained``), ``unit`` (what a row is, ``windows`` or ``recordings``), ``alphas``, all fields of
`mess_core.probing.probe.ProbeResult` (``layers`` is a list of the fields of `LayerScore`),
``confidence``, and ``baselines``: per name (``untrained``, ``descriptors``, ``layer_0``) the
``layer``, ``r2``, ``r2_within``, ``interval`` and ``interval_within`` of its best layer, or null. A
target that cannot be probed has no layers, null for its figures, and a ``reason``.
"""

__all__ = [
    "ENCODER_FIELDS",
    "confidence",
    "read_result",
    "read_results",
    "score_interval",
    "score_r2",
]

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mess_core.errors import ProbingError
from mess_core.files import read_json

#: What identifies the encoder whose layers were probed.
ENCODER_FIELDS = ("name", "weights_sha256", "trained")

#: R2 above which a probe counts as ``high`` or ``medium``.
HIGH_R2, MEDIUM_R2 = 0.8, 0.5

_FIELDS = (
    *("target", "category", "dataset", "stage", "encoder", "unit"),
    *("layers", "best_layer", "best_r2", "baselines"),
)


_SCORE_FIELDS = {"r2", "r2_within", "interval", "interval_within"}


def confidence(r2: float | None) -> str:
    """Return ``high`` for an R2 above 0.8, ``medium`` above 0.5, else (also for None) ``low``."""
    if r2 is None or r2 <= MEDIUM_R2:
        return "low"
    return "high" if r2 > HIGH_R2 else "medium"


def score_r2(score: Mapping[str, Any]) -> float:
    """Return a layer's R2 within works, or the pooled one where no work has rows that differ."""
    return float(score["r2"] if score["r2_within"] is None else score["r2_within"])


def score_interval(score: Mapping[str, Any]) -> list[float] | None:
    """Return the 95 % interval of `score_r2`, None where there is none."""
    interval = score["interval" if score["r2_within"] is None else "interval_within"]
    return None if interval is None else [float(bound) for bound in interval]


def read_result(path: Path) -> dict[str, Any]:
    """Read the probing result of one target.

    Parameters
    ----------
    path : Path
        A file that `LayerDiscoverySystem.save` wrote.

    Returns
    -------
    dict
        The fields that this module lists.

    Raises
    ------
    StorageError
        If the file is missing or is not JSON.
    ProbingError
        If it lacks a field, its layers are malformed, or it is the result of another target than
        its name says.
    """
    result = read_json(path)
    missing = [name for name in _FIELDS if not isinstance(result, dict) or name not in result]
    if missing:
        raise ProbingError(
            f"{path} is no probing result: it lacks {', '.join(missing)}; delete it and probe again"
        )
    if not _numbered(result["layers"]):
        raise ProbingError(
            f"{path}: its layers are not numbered from 0 with an r2, an r2_within and their "
            "intervals each; delete it and probe again"
        )
    if result["target"] != path.stem:
        raise ProbingError(
            f"{path} holds the result of {result['target']!r}; a result's file is named like its "
            "target: delete it and probe again"
        )
    return dict(result)


def read_results(folder: Path, targets: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Read those results of a folder that exist, and check that they belong together.

    Parameters
    ----------
    folder : Path
        ``data/probing/{dataset}``.
    targets : iterable of str
        Whose results are wanted.

    Returns
    -------
    dict of str to dict
        Per target that has one its result, in the order of ``targets``; at least one.

    Raises
    ------
    StorageError
        If a result is not JSON.
    ProbingError
        If there is no result, one is malformed, or results of different datasets, encoders, stage
        versions, units or numbers of layers are mixed.
    """
    paths = [folder / f"{target}.json" for target in targets]
    results = {path.stem: read_result(path) for path in paths if path.exists()}
    if not results:
        raise ProbingError(f"{folder} holds no probing result; run the probing rule")
    first, *others = results.values()
    for other in others:
        _check_same_origin(folder, first, other)
    if len({len(result["layers"]) for result in results.values() if result["layers"]}) > 1:
        raise ProbingError(f"{folder}: results differ in their number of layers; probe again")
    return results


def _check_same_origin(folder: Path, first: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    for field in ("dataset", "encoder", "stage", "unit"):
        if other[field] != first[field]:
            raise ProbingError(
                f"{folder}: {first['target']}.json is of {field} {first[field]}, "
                f"{other['target']}.json of {other[field]}; delete the older and probe again"
            )


def _numbered(layers: Any) -> bool:
    return isinstance(layers, list) and all(
        isinstance(score, dict)
        and score.get("layer") == number
        and isinstance(score.get("r2"), int | float)
        and score.keys() >= _SCORE_FIELDS
        for number, score in enumerate(layers)
    )
