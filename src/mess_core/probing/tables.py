"""Tables for people: tab-separated, one line per target, pair or layer.

Undefined is an empty cell, never a 0. Lists are separated by commas. Numbers have six digits.
"""

__all__ = ["layer_table", "write_table"]

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mess_core.errors import ProbingError
from mess_core.files import write_text
from mess_core.probing.results import score_interval, score_r2

Row = Mapping[str, Any]


def layer_table(results: Iterable[Row]) -> list[dict[str, Any]]:
    """Answer which layer encodes each target best.

    Parameters
    ----------
    results : iterable of dict
        Probing results (`mess_core.probing.results`).

    Returns
    -------
    list of dict
        Per target

        * ``target``, ``category``, ``n_rows``, ``n_recordings``, ``n_works``;
        * ``best_layer``, ``best_layers`` (those that are best with 95 % probability together) and
          ``measure`` (what they are best by: ``r2_within``, or ``r2`` where no work has rows that
          differ);
        * of the best layer ``r2``, ``r2_within``, ``r2_lo`` and ``r2_hi`` (the 95 % interval of the
          measure), ``r2_std`` and ``r2_min`` over folds, ``correlation``, ``rmse``, ``alpha``,
          ``p`` (of the measure, corrected over layers) and ``selectivity``;
        * ``nested``: the measure with the layer chosen inside the training folds; ``mixture``: that
          of the mixture of layers;
        * the measure of each baseline, under its name;
        * ``caution`` and ``reason``: what to know about the figures, and why there are none.
    """
    listed = list(results)
    baselines = {name: None for result in listed for name in result["baselines"]}
    return [_layer_row(result, list(baselines)) for result in listed]


def write_table(rows: Sequence[Row], path: Path) -> None:
    """Write rows as tab-separated UTF-8, whole or not at all.

    Parameters
    ----------
    rows : sequence of mapping
        All with the same keys, which are the columns. Without rows the file is empty.
    path : Path
        The ``.tsv`` file.

    Raises
    ------
    ProbingError
        If rows differ in their keys.
    StorageError
        If the file cannot be written.
    """
    columns = list(rows[0]) if rows else []
    for row in rows:
        if list(row) != columns:
            odd = sorted(set(row) ^ set(columns)) or "their order"
            raise ProbingError(f"{path}: rows of a table differ in {odd}; give all the same keys")
    lines = [columns, *([_cell(value) for value in row.values()] for row in rows)]
    write_text(path, "".join("\t".join(line) + "\n" for line in lines if line))


def _layer_row(result: Row, baselines: Sequence[str]) -> dict[str, Any]:
    best = result["best_layer"]
    score: Row = {} if best is None else result["layers"][best]
    measure = result["primary"]
    low, high = (score_interval(score) if score else None) or (None, None)
    mixture = result["mixture"] or {}
    compared = {name: result["baselines"].get(name) for name in baselines}
    return {
        **{name: result[name] for name in ("target", "category", *_SIZES)},
        "best_layer": best,
        "best_layers": result["best_layers"],
        "measure": measure,
        **{name: score.get(name) for name in ("r2", "r2_within")},
        "r2_lo": low,
        "r2_hi": high,
        **{name: score.get(name) for name in _FIGURES},
        "p": score.get("p_within" if measure == "r2_within" else "p"),
        "selectivity": score.get("selectivity"),
        "nested": result["r2_within_nested" if measure == "r2_within" else "r2_nested"],
        "mixture": mixture.get(measure),
        **{name: baseline and score_r2(baseline) for name, baseline in compared.items()},
        **{name: result[name] for name in ("caution", "reason")},
    }


_SIZES = ("n_rows", "n_recordings", "n_works")
_FIGURES = ("r2_std", "r2_min", "correlation", "rmse", "alpha")


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ",".join(map(_cell, value))
    return " ".join(str(value).split())
