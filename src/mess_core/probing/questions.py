"""The research questions: each is answered by a table and a picture in the reports folder.

* ``layers``: which layer encodes a target best, and which other layers may be as good.
* ``stability``: how stable R2 and the ranking of the layers are over folds.
* ``separability``: which aspects can be told apart: what is left of A when B is erased.
* ``collapse``: whether the encoder's rows fill their space, and keep the recordings of a work
  apart, compared with the baselines.
"""

__all__ = ["answer", "aspect_probes"]

from collections.abc import Callable, Mapping, Sequence
from statistics import geometric_mean
from typing import Any

import numpy as np

from mess_core.files import read_json
from mess_core.layout import DESCRIPTORS, ENCODER, QUESTIONS, UNTRAINED
from mess_core.probing.charts import plot_collapse, plot_separability, plot_stability
from mess_core.probing.discovery import LayerDiscoverySystem
from mess_core.probing.figures import plot_layer_map
from mess_core.probing.folds import ProbeRows
from mess_core.probing.geometry import layer_geometry
from mess_core.probing.results import read_results
from mess_core.probing.ridge import RidgeDecomposition
from mess_core.probing.separability import AspectProbe, separate_aspects, train_folds
from mess_core.probing.stability import stability_table
from mess_core.probing.tables import layer_table, write_table
from mess_core.progress import Report, counted

Results = Mapping[str, Mapping[str, Any]]


def answer(
    question: str,
    discovery: LayerDiscoverySystem,
    targets: Sequence[str],
    *,
    progress: Report | None = None,
) -> None:
    """Write the table and the picture that answer a question.

    Parameters
    ----------
    question : str
        One of `mess_core.layout.QUESTIONS`.
    discovery : LayerDiscoverySystem
        The dataset, its features and targets.
    targets : sequence of str
        Whose probing results count; for separability those of the aspects, for collapse none.
    progress : callable, optional
        Called with the aspects or layers done, those in all, and the last one; by the questions
        that need the rows.

    Raises
    ------
    ProbingError, StorageError
        If results or features are missing or damaged.
    """
    _ANSWERS[question](discovery, targets, progress)


def _layers(discovery: LayerDiscoverySystem, targets: Sequence[str], _: Report | None) -> None:
    layout = discovery.layout
    results = read_results(layout.probing, targets)
    write_table(layer_table(results.values()), layout.answer("layers", ".tsv"))
    plot_layer_map(layout.probing, layout.answer("layers", ".png"), targets=results)


def _stability(discovery: LayerDiscoverySystem, targets: Sequence[str], _: Report | None) -> None:
    layout = discovery.layout
    rows = stability_table(read_results(layout.probing, targets).values())
    write_table(rows, layout.answer("stability", ".tsv"))
    plot_stability(rows, layout.answer("stability", ".png"), title=_title(discovery))


def _separability(
    discovery: LayerDiscoverySystem, targets: Sequence[str], progress: Report | None
) -> None:
    layout = discovery.layout
    results = read_results(layout.probing, targets)
    features = discovery.features[ENCODER]

    def decompositions(layer: int, rows: ProbeRows) -> Sequence[RidgeDecomposition]:
        kept = features[layer].decompositions
        if rows.digest == kept.digest:
            return [kept.training(fold) for fold in range(rows.n_folds)]
        return train_folds(features[layer].rows, rows)

    pairs = separate_aspects(
        lambda layer: features[layer].rows,
        aspect_probes(discovery, results),
        discovery.works,
        discovery.folds,
        decompositions=decompositions,
        progress=progress,
    )
    write_table(pairs, layout.answer("separability", ".tsv"))
    plot_separability(pairs, layout.answer("separability", ".png"), title=_title(discovery))


def aspect_probes(discovery: LayerDiscoverySystem, results: Results) -> list[AspectProbe]:
    """Return the aspects of the aspect map that have a layer, as they are probed there."""
    aspects = read_json(discovery.layout.aspects)["aspects"]
    return [
        AspectProbe(
            name,
            aspect["layer"],
            np.column_stack([discovery.load_targets(target) for target in aspect["targets"]]),
            _penalties([results[target] for target in aspect["targets"]]),
        )
        for name, aspect in aspects.items()
        if aspect["layer"] is not None
    ]


def _penalties(results: Sequence[Mapping[str, Any]]) -> list[float]:
    """Return per layer the mean of the penalties that probing chose for several targets."""
    chosen = [[score["alpha"] for score in result["layers"]] for result in results]
    return [geometric_mean(layer) for layer in zip(*chosen, strict=True)]


def _collapse(discovery: LayerDiscoverySystem, _: Sequence[str], progress: Report | None) -> None:
    layout = discovery.layout
    features = {name: found for name, found in discovery.features.items() if name != DESCRIPTORS}
    every = [(source, layer) for source in features for layer in range(len(features[source]))]
    measured: dict[str, list[dict[str, Any]]] = {source: [] for source in features}
    for source, layer in counted(every, progress, lambda item: f"{item[0]} {item[1]}"):
        references = _references(discovery, source, layer)
        rows_of_layer = features[source][layer].rows
        measured[source].append(layer_geometry(rows_of_layer, discovery.works, references))
    rows = [
        {"source": source, "layer": layer, **figures}
        for source, layers in measured.items()
        for layer, figures in enumerate(layers)
    ]
    # The encoder has a reference more than its twin: both get all columns.
    columns = dict.fromkeys(key for row in rows for key in row)
    write_table(
        [{key: row.get(key) for key in columns} for row in rows], layout.answer("collapse", ".tsv")
    )
    plot_collapse(measured, layout.answer("collapse", ".png"), title=_title(discovery))


def _references(discovery: LayerDiscoverySystem, source: str, layer: int) -> dict[str, Any]:
    """Return what a layer is compared with: the twin's same layer, and the descriptors."""
    return {
        name: layers[min(layer, len(layers) - 1)].rows
        for name, layers in discovery.features.items()
        if name == DESCRIPTORS or (name == UNTRAINED and source == ENCODER)
    }


def _title(discovery: LayerDiscoverySystem) -> str:
    encoder = discovery.encoder
    untrained = "" if encoder["trained"] else " (untrained)"
    return f"{discovery.layout.dataset}, {encoder['name']}{untrained}"


_ANSWERS: dict[str, Callable[[LayerDiscoverySystem, Sequence[str], Report | None], None]] = dict(
    zip(QUESTIONS, (_layers, _stability, _separability, _collapse), strict=True)
)
