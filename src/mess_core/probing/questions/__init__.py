"""The research questions: each is answered by a table and a picture in the reports folder.

* ``layers``: which layer encodes a target best, and which other layers may be as good.
* ``stability``: how stable R2 and the ranking of the layers are over folds.
* ``separability``: which aspects can be told apart: what is left of A when B is erased.
* ``collapse``: whether the encoder's rows fill their space, and keep the recordings of a work
  apart, compared with the baselines.
"""

__all__ = ["answer", "aspect_probes"]

from collections.abc import Mapping, Sequence
from statistics import geometric_mean
from typing import Any

import numpy as np

from mess_core.files import read_json
from mess_core.layout import DESCRIPTORS, ENCODER, UNTRAINED
from mess_core.probing.discovery import LayerDiscoverySystem
from mess_core.probing.questions.collapse import layer_geometry
from mess_core.probing.questions.pictures import (
    plot_collapse,
    plot_layer_map,
    plot_separability,
    plot_stability,
)
from mess_core.probing.questions.separability import (
    AspectProbe,
    separate_aspects,
    undefined_pairs,
)
from mess_core.probing.questions.tables import layer_table, stability_table, write_table
from mess_core.probing.results import read_results
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
        write_table([{key: row.get(key) for key in columns} for row in rows], table)
        plot_collapse(measured, picture, title=title)
        return
    results = read_results(layout.probing, targets)
    if question == "layers":
        write_table(layer_table(results.values()), table)
        plot_layer_map(list(results.values()), picture)
    elif question == "stability":
        rows = stability_table(results.values())
        write_table(rows, table)
        plot_stability(rows, picture, title=title)
    else:
        pairs = _pairs(discovery, results, progress)
        pairs = pairs or undefined_pairs(read_json(layout.aspects)["aspects"])
        write_table(pairs, table)
        plot_separability(pairs, picture, title=title)


def _pairs(
    discovery: LayerDiscoverySystem, results: Results, progress: Report | None
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


def aspect_probes(discovery: LayerDiscoverySystem, results: Results) -> list[AspectProbe]:
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


def _penalties(results: Sequence[Mapping[str, Any]]) -> list[float]:
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
            name: layers[min(layer, len(layers) - 1)].rows
            for name, layers in discovery.features.items()
            if name == DESCRIPTORS or (name == UNTRAINED and source == ENCODER)
        }
        X = features[source][layer].rows
        measured[source].append(layer_geometry(X, discovery.works, references))
    return measured
