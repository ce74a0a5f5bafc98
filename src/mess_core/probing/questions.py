"""The research questions: each is answered by a table and a picture in the reports folder.

* ``layers``: which layer encodes a target best, and which other layers may be as good.
* ``stability``: how stable R2 and the ranking of the layers are over folds.
* ``separability``: which aspects can be told apart: what is left of A when B is erased.
* ``collapse``: whether the encoder's rows fill their space, and keep the recordings of a work
  apart, compared with the baselines.

Tables are tab-separated, a line per target, pair or layer. Undefined is an empty cell, never a 0.
Lists are separated by commas. Numbers have six digits.

*Stability.* Each fold tests on works of its own. A result is stable when R2 is about the same in
every fold, and when the folds rank the layers alike. *Kendall's W* (Kendall and Babington Smith
1939) is the concordance of m folds that each rank n layers by R2. With ``R`` the sum of each
layer's ranks and ``S`` the sum of squared deviations of R from its mean::

    W = 12 S / (m^2 (n^3 - n) - m T)

where T sums ``t^3 - t`` over all groups of t tied layers of all folds. 0: the folds have nothing in
common; 1: they agree. Its p value is the share of 1,999 random rankings (each fold's ranks shuffled
by themselves, seeded by the target's name) with a W at least as large, counting the observed one.
Folds share training rows, which makes them agree: a small p says that the ranking is not random,
not that it holds in another corpus.

*Collapse* is measured on the rows (windows or recordings) of one layer, as extracted.

* `rankme` (Garrido et al. 2023): the effective rank, ``exp(-sum p log p)`` with ``p`` the singular
  values divided by their sum, plus 1e-7. From 1 (one direction) to ``min(n, D)`` (all equally). As
  in the paper features are not centred, so an offset that all rows share counts as a direction;
  ``rankme_centred`` leaves it out. It compares encoders of the same width on the same rows;
  there is no value below which a representation is collapsed.
* ``within_work``: the part of the total variance (sum over dimensions) that lies within works, from
  0 (all rows of a work are one point) to 1. Rows without any relation to their works have
  ``(n - works) / (n - 1)`` on average (``within_work_chance``). A few dimensions with a large
  variance rule the sum; ``within_work_standardised`` is the mean over dimensions that vary, which
  is what a standardising probe meets.
* `linear_cka` (Kornblith et al. 2019): similarity to a reference, unchanged by rotation and
  uniform scaling, from 0 to 1. It uses the unbiased estimate of HSIC (Song et al. 2012) in
  numerator and denominator, as Nguyen et al. (2021) do, because with fewer rows than dimensions the
  plain estimate is near 1 for unrelated features. Unrelated features have 0 on average, so it may
  be slightly negative.
"""

__all__ = [
    "answer",
    "aspect_probes",
    "kendall_w",
    "layer_geometry",
    "layer_table",
    "linear_cka",
    "rankme",
    "stability_table",
    "write_table",
]

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import geometric_mean
from typing import Any

import numpy as np
import numpy.typing as npt

from mess_core.errors import ProbingError
from mess_core.files import read_json, write_text
from mess_core.layout import DESCRIPTORS, ENCODER, UNTRAINED
from mess_core.probing.discovery import LayerDiscoverySystem
from mess_core.probing.folds import Features, Floats
from mess_core.probing.inference import seed_of
from mess_core.probing.pictures import (
    plot_collapse,
    plot_layer_map,
    plot_separability,
    plot_stability,
)
from mess_core.probing.results import layer_name, read_results, score_interval, score_r2
from mess_core.probing.separability import AspectProbe, separate_aspects, undefined_pairs
from mess_core.progress import Report, counted

# Two values of W from the same ranks in another order may differ by this much.
_TIE = 1e-12

# Garrido et al. 2023, for float32.
_EPSILON = 1e-7

# Features are float32: a dimension that varies less than its rounding does not vary.
_FLOAT32 = float(np.finfo(np.float32).eps)

# The unbiased estimate of HSIC divides by n - 3.
_LEAST_ROWS = 4

Row = Mapping[str, Any]


def answer(
    question: str,
    discovery: LayerDiscoverySystem,
    targets: Sequence[str],
    *,
    progress: Report | None = None,
) -> None:
    """Write the table and the picture that answer one of `mess_core.layout.QUESTIONS`.

    The probing results of ``targets`` count; for separability those of the aspects, for collapse
    none. Raises `ProbingError` or `StorageError` if results or features are missing or damaged.
    """
    layout, encoder = discovery.layout, discovery.encoder
    table, picture = (layout.answer(question, suffix) for suffix in (".tsv", ".png"))
    title = f"{layout.dataset}, {encoder['name']}{'' if encoder['trained'] else ' (untrained)'}"
    if question == "collapse":
        measured = _geometry(discovery, progress)
        rows = [
            {"source": source, "layer": layer, **figures}
            for source, layers in measured.items()
            for layer, figures in enumerate(layers)
        ]
        # The encoder is compared with one more than its untrained copy: both get all columns.
        columns = dict.fromkeys(key for row in rows for key in row)
        rows = [{key: row.get(key) for key in columns} for row in rows]
        write_table(_named(rows, encoder), table)
        plot_collapse(measured, picture, title=title, layers=encoder.get("layer_names", ()))
        return
    results = read_results(layout.probing, targets)
    if question == "layers":
        write_table(_named(layer_table(results.values()), encoder), table)
        plot_layer_map(list(results.values()), picture)
    elif question == "stability":
        rows = stability_table(results.values())
        write_table(_named(rows, encoder), table)
        plot_stability(rows, picture, title=title)
    else:
        pairs = _pairs(discovery, results, progress)
        pairs = pairs or undefined_pairs(read_json(layout.aspects)["aspects"])
        pairs = _named(pairs, encoder)
        write_table(pairs, table)
        plot_separability(pairs, picture, title=title)


#: The columns of tables that hold layers.
_LAYERS = ("layer", "best_layer", "best_layers", "best_layer_folds")


def _named(rows: Iterable[Row], encoder: Row) -> list[dict[str, Any]]:
    """Return rows with layers as people are told of them."""

    def named(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [layer_name(encoder, layer) for layer in value]
        return layer_name(encoder, value)

    return [{k: named(v) if k in _LAYERS else v for k, v in row.items()} for row in rows]


def _pairs(
    discovery: LayerDiscoverySystem, results: Mapping[str, Row], progress: Report | None
) -> list[dict[str, Any]]:
    features = discovery.features[ENCODER]
    return separate_aspects(
        lambda layer: features[layer].rows,
        aspect_probes(discovery, results),
        discovery.works,
        discovery.folds,
        decompositions=lambda layer, rows: features[layer].decompose(rows, nested=False),
        progress=progress,
    )


def aspect_probes(discovery: LayerDiscoverySystem, results: Mapping[str, Row]) -> list[AspectProbe]:
    """Return the aspects of the aspect map that have a layer, as they are probed there."""
    aspects = read_json(discovery.layout.aspects)["aspects"]
    known = {name: aspect for name, aspect in aspects.items() if aspect["layer"] is not None}
    used = {target for aspect in known.values() for target in aspect["targets"]}
    values = {target: discovery.load_targets(target) for target in used}
    return [
        AspectProbe(
            name,
            aspect["layer"],
            np.column_stack([values[target] for target in aspect["targets"]]),
            _penalties([results[target] for target in aspect["targets"]]),
        )
        for name, aspect in known.items()
    ]


def _penalties(results: Sequence[Row]) -> list[float]:
    """Return per layer the mean of the penalties that probing chose for several targets."""
    chosen = [[score["alpha"] for score in result["layers"]] for result in results]
    return [geometric_mean(layer) for layer in zip(*chosen, strict=True)]


def _geometry(
    discovery: LayerDiscoverySystem, progress: Report | None
) -> dict[str, list[dict[str, Any]]]:
    """Describe every layer, compared with the untrained copy's same layer and the descriptors."""
    features = {name: found for name, found in discovery.features.items() if name != DESCRIPTORS}
    every = [(source, layer) for source, layers in features.items() for layer in range(len(layers))]
    measured: dict[str, list[dict[str, Any]]] = {source: [] for source in features}
    for source, layer in counted(every, progress, lambda item: f"{item[0]} {item[1]}"):
        references = {
            # Of descriptors the layer that has all of them.
            name: layers[-1 if name == DESCRIPTORS else layer].rows
            for name, layers in discovery.features.items()
            if name == DESCRIPTORS or (name == UNTRAINED and source == ENCODER)
        }
        X = features[source][layer].rows
        measured[source].append(layer_geometry(X, discovery.works, references))
    return measured


def layer_table(results: Iterable[Row]) -> list[dict[str, Any]]:
    """Answer which layer encodes each target best: a row per target.

    * ``target``, ``category``, ``n_rows``, ``n_recordings``, ``n_works``;
    * ``best_layer``, ``best_layers`` (those that are best with 95 % probability together) and
      ``measure`` (what they are best by: ``r2_within``, or ``r2`` where no work has rows that
      differ);
    * of the best layer ``r2``, ``r2_within``, ``r2_lo`` and ``r2_hi`` (the 95 % interval of the
      measure), ``r2_std`` and ``r2_min`` over folds, ``correlation``, ``rmse``, ``alpha``, ``p``
      (of the measure, corrected over layers) and ``selectivity``;
    * ``nested``: the measure with the layer chosen inside the training folds; ``mixture``: that of
      the mixture of layers; the measure of each baseline, under its name;
    * ``caution`` and ``reason``: what to know about the figures, and why there are none.
    """
    listed = list(results)
    baselines = {name: None for result in listed for name in result["baselines"]}
    return [_layer_row(result, list(baselines)) for result in listed]


def write_table(rows: Sequence[Row], path: Path) -> None:
    """Write rows with the same keys as tab-separated UTF-8; without rows the file is empty.

    Raises `ProbingError` if rows differ in their keys, and `StorageError` if the file cannot be
    written.
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
        **{name: result[name] for name in ("target", "category")},
        **{name: result[name] for name in ("n_rows", "n_recordings", "n_works")},
        "best_layer": best,
        "best_layers": result["best_layers"],
        "measure": measure,
        **{name: score.get(name) for name in ("r2", "r2_within")},
        "r2_lo": low,
        "r2_hi": high,
        **{name: score.get(name) for name in ("r2_std", "r2_min", "correlation", "rmse", "alpha")},
        "p": score.get("p_within" if measure == "r2_within" else "p"),
        "selectivity": score.get("selectivity"),
        "nested": result["r2_within_nested" if measure == "r2_within" else "r2_nested"],
        "mixture": mixture.get(measure),
        **{name: baseline and score_r2(baseline) for name, baseline in compared.items()},
        **{name: result[name] for name in ("caution", "reason")},
    }


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ",".join(map(_cell, value))
    return " ".join(str(value).split())


def kendall_w(
    values: npt.ArrayLike, *, n_permutations: int = 1999, seed: int = 0
) -> tuple[float, float] | None:
    """Measure how far folds rank layers alike: W, from 0 to 1, and p of random rankings.

    ``values`` are a finite figure of each of n layers in each of m folds [m, n]; only its order in
    a fold counts. None for fewer than two folds or layers, or where every fold ties all layers.
    """
    matrix = np.asarray(values, float)
    m, n = matrix.shape
    if m < 2 or n < 2 or not np.ptp(matrix, axis=1).any():
        return None
    one, other = matrix[:, :, np.newaxis], matrix[:, np.newaxis]
    # Layers that tie share the mean of their ranks. (`scipy.stats` takes longer to import.)
    ranks = ((one > other).sum(axis=2) + (one >= other).sum(axis=2) + 1) / 2
    # Of each fold's groups of equal values, their sizes.
    ties = np.concatenate([np.unique(fold, return_counts=True)[1] for fold in matrix])
    largest = m**2 * (n**3 - n) - m * int((ties**3 - ties).sum())
    w = 12 * _spread(ranks.sum(axis=0)) / largest
    rng = np.random.default_rng(seed)
    sums = np.zeros((n_permutations, n))
    for fold in ranks:
        sums += rng.permuted(np.tile(fold, (n_permutations, 1)), axis=1)
    reached = 12 * _spread(sums) / largest >= w - _TIE
    return float(w), float((1 + reached.sum()) / (1 + n_permutations))


def stability_table(results: Iterable[Row]) -> list[dict[str, Any]]:
    """Describe how stable the results of targets are over folds: a row per target.

    It has ``target``, ``category``, ``measure`` (which R2 all figures are of), ``n_folds``,
    ``best_layer``, its ``r2``, ``r2_folds``, ``r2_std``, ``r2_min`` and ``r2_max``, ``kendall_w``
    and ``kendall_p``, ``best_layer_folds`` (each fold's best layer), ``agreement`` (the share of
    folds whose best layer is ``best_layer``) and ``reason`` (why a target has no figures). Folds in
    which the target does not vary are left out.
    """
    return [_stability_row(result) for result in results]


def _stability_row(result: Row) -> dict[str, Any]:
    row: dict[str, Any] = {"target": result["target"], "category": result["category"]}
    best = result["best_layer"]
    if best is None:
        return row | dict.fromkeys(_STABILITY) | {"reason": result["reason"]}
    measure = result["primary"]
    folds = np.array([layer[f"{measure}_folds"] for layer in result["layers"]], float).T
    folds = folds[np.isfinite(folds).all(axis=1)]
    of_best = folds[:, best].tolist()
    winners = folds.argmax(axis=1).tolist()
    w, p = kendall_w(folds, seed=seed_of(result["target"])) or (None, None)
    figures = (
        measure,
        len(folds),
        best,
        score_r2(result["layers"][best]),
        of_best,
        float(np.std(of_best)) if len(of_best) > 1 else None,
        min(of_best, default=None),
        max(of_best, default=None),
        w,
        p,
        winners,
        winners.count(best) / len(winners) if winners else None,
    )
    return row | dict(zip(_STABILITY, figures, strict=True)) | {"reason": None}


_STABILITY = (
    *("measure", "n_folds", "best_layer", "r2", "r2_folds", "r2_std", "r2_min", "r2_max"),
    *("kendall_w", "kendall_p", "best_layer_folds", "agreement"),
)


def _spread(sums: Floats) -> Floats:
    return np.asarray(((sums - sums.mean(axis=-1, keepdims=True)) ** 2).sum(axis=-1))


def layer_geometry(
    X: Features, works: Sequence[str], references: Mapping[str, Features] | None = None
) -> dict[str, Any]:
    """Describe the geometry of one layer, of features [n, D] with at least 2 rows.

    ``references`` are features of the same rows to compare with, for example an untrained
    encoder's. Returns ``n_rows``, ``n_works``, ``n_dims``, ``rankme``, ``rankme_centred``,
    ``within_work``, ``within_work_standardised``, ``within_work_chance`` and ``cka_{name}`` per
    reference. None where features do not vary or, of CKA, rows are fewer than 4. Raises
    `ProbingError` if rows differ in number or are not finite.
    """
    values = _checked(X)
    centred = values - values.mean(axis=0)
    within, total = _within_and_total(centred, works)
    varies = total > len(X) * (_FLOAT32 * np.abs(values).max(axis=0)) ** 2
    moving = bool(varies.any())
    return {
        "n_rows": len(values),
        "n_works": len(set(works)),
        "n_dims": values.shape[1],
        "rankme": rankme(values),
        "rankme_centred": rankme(centred * varies) if moving else None,
        "within_work": float(within[varies].sum() / total[varies].sum()) if moving else None,
        "within_work_standardised": (
            float((within[varies] / total[varies]).mean()) if moving else None
        ),
        "within_work_chance": (len(values) - len(set(works))) / (len(values) - 1),
        **{f"cka_{name}": linear_cka(values, other) for name, other in (references or {}).items()},
    }


def rankme(X: Features) -> float:
    """Return the effective rank of features ``[n, D]`` as they are; NaN where all are 0."""
    values = np.asarray(X, float)
    # The smaller product: its eigenvalues are the squared singular values.
    product = values @ values.T if len(values) < values.shape[1] else values.T @ values
    singular = np.sqrt(np.maximum(np.linalg.eigvalsh(product), 0.0))
    if not singular.any():
        return float("nan")
    share = singular / singular.sum() + _EPSILON
    return float(np.exp(-(share * np.log(share)).sum()))


def linear_cka(X: Features, Y: Features) -> float | None:
    """Compare two representations of the same rows by linear centred kernel alignment.

    Features that are equal up to rotation and scale have 1; None where one does not vary, and for
    fewer than 4 rows. Raises `ProbingError` if rows differ in number or are not finite.
    """
    if len(X) != len(Y):
        raise ProbingError(f"{len(X)} rows cannot be compared with {len(Y)}: give the same rows")
    first, second = _centred(_checked(X)), _centred(_checked(Y))
    if len(first) < _LEAST_ROWS:
        return None
    own = _unbiased_hsic(first, first) * _unbiased_hsic(second, second)
    return float(_unbiased_hsic(first, second) / np.sqrt(own)) if own > 0 else None


def _unbiased_hsic(X: Floats, Y: Floats) -> float:
    """Return n(n - 3) times the estimate of Song et al. (2012, eq. 5), without any [n, n] matrix.

    With K = XX' and L = YY' without their diagonals, ``tr(KL) + (1'K1)(1'L1) / ((n - 1)(n - 2)) -
    2 / (n - 2) 1'KL1``. As columns of X and Y sum to 0, row i of K sums to minus its diagonal.
    """
    n = len(X)
    k, m = np.square(X).sum(axis=1), np.square(Y).sum(axis=1)
    trace = np.square(X.T @ Y).sum() - k @ m
    return float(trace + k.sum() * m.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * (k @ m))


def _centred(X: Floats) -> Floats:
    """Return features around their mean, scaled to a mean square norm of 1; rounding becomes 0."""
    deviations = X - X.mean(axis=0)
    size = np.sqrt(np.square(deviations).sum(axis=1).mean())
    largest = np.sqrt(np.square(X).sum(axis=1).mean())
    return np.asarray(deviations / size if size > _FLOAT32 * largest else np.zeros_like(X))


def _within_and_total(X: Features, works: Sequence[str]) -> tuple[Floats, Floats]:
    """Return each dimension's sum of squares around works' means and around 0."""
    _, of_work, sizes = np.unique(np.asarray(works), return_inverse=True, return_counts=True)
    order = np.argsort(of_work, kind="stable")
    sums = np.add.reduceat(np.asarray(X, float)[order], np.cumsum(sizes) - sizes)
    total = np.square(X).sum(axis=0)
    between = (sums**2 / sizes[:, np.newaxis]).sum(axis=0)
    return np.maximum(total - between, 0.0), total


def _checked(X: Features) -> Floats:
    values = np.asarray(X, float)
    if values.ndim != 2 or not np.isfinite(values).all():
        raise ProbingError(
            f"features of shape {values.shape} must be finite [rows, dims]; extract again"
        )
    return values
