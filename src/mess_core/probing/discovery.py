"""From a dataset's features and targets on disk to probing results: which layer knows what.

One row is one window, or one recording. A row whose target is absent (expression without MIDI) or
NaN drops out of that target alone.
"""

__all__ = ["LayerDiscoverySystem", "fill"]

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from itertools import count
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from mess_core import stages
from mess_core.errors import ProbingError, TargetError, nearest
from mess_core.files import read_json, write_json
from mess_core.layout import ENCODER, Layout
from mess_core.probing.decompositions import ALPHAS, FoldDecompositions, LayerFeatures
from mess_core.probing.folds import Floats, Ints, ProbeRows, deal_folds
from mess_core.probing.probe import probe
from mess_core.probing.results import ENCODER_FIELDS, confidence, mean_of_known, score_r2
from mess_core.progress import Report
from mess_core.recordings import Recording, failures, usable
from mess_core.targets.npz import TargetReader, columns_of, stack_columns
from mess_core.targets.registry import AUDIO, MIDI, TARGETS, Level, probed_targets

# What a baseline's result says of the layer that is best for the target.
_BASELINE_FIELDS = ("layer", "r2", "r2_within", "interval", "interval_within", "distances")


class LayerDiscoverySystem:
    """Finds the layers that predict musical targets best.

    ``recordings`` whose status is not ``ok`` are left out. ``layers`` is the number of layers of
    each source; `mess_core.layout.ENCODER` is one of them, the others are baselines. A row is one
    of ``unit``, ``windows`` or ``recordings``. There are ``n_folds`` (at least 3) and penalties
    ``alphas`` (above 0). ``encoder`` has the ``name``, ``weights_sha256`` and ``trained`` of the
    encoder that made the features. Raises `ProbingError` if no recording is usable, ``encoder``
    lacks a field or is not among the layers.
    """

    def __init__(
        self,
        layout: Layout,
        recordings: Sequence[Recording],
        *,
        layers: Mapping[str, int],
        unit: str = "windows",
        n_folds: int = 5,
        alphas: Sequence[float] = ALPHAS,
        encoder: Mapping[str, Any],
    ) -> None:
        lacking = [field for field in ENCODER_FIELDS if field not in encoder]
        if lacking:
            raise ProbingError(f"the encoder's description lacks {', '.join(lacking)}")
        if ENCODER not in layers:
            raise ProbingError(f"layers are of {', '.join(layers)}, {ENCODER} must be among them")
        self.layout = layout
        self.recordings = usable(recordings)
        if not self.recordings:
            raise ProbingError(f"{layout.dataset} has no usable recording; see {layout.problems}")
        self.layers = dict(layers)
        self.unit = unit
        self.n_folds = n_folds
        self.alphas = tuple(float(alpha) for alpha in alphas)
        known = (*ENCODER_FIELDS, "layer_names")
        self.encoder = {field: encoder[field] for field in known if field in encoder}

    @cached_property
    def features(self) -> dict[str, list[LayerFeatures]]:
        """The layers' rows, by source."""
        return {
            source: [LayerFeatures(self.layout.decomposition(source, i)) for i in range(count)]
            for source, count in self.layers.items()
        }

    @cached_property
    def _counts(self) -> list[int]:
        """Rows of each recording, the same in all sources."""
        names = [r.recording_id for r in self.recordings]
        counts: dict[str, int] = {}
        for source in self.layers:
            receipt = self.layout.decomposition_receipt(source)
            found: dict[str, int] = read_json(receipt)["counts"]
            wrong = ""
            if list(found) != names:
                wrong = "rows are of other recordings than the table"
            elif counts and found != counts:
                wrong = f"{source} has other windows than the encoder"
            if wrong:
                raise ProbingError(f"{receipt}: {wrong}; delete it and run snakemake again")
            counts = found
        return list(counts.values())

    @cached_property
    def works(self) -> list[str]:
        """The work of every row."""
        return np.repeat([r.work_id for r in self.recordings], self._counts).tolist()

    @cached_property
    def names(self) -> list[str]:
        """The recording of every row."""
        return np.repeat([r.recording_id for r in self.recordings], self._counts).tolist()

    @cached_property
    def folds(self) -> Ints:
        """The fold of every row [shape=(n,)]."""
        return deal_folds(self.works, self.n_folds)

    @cached_property
    def _read(self) -> TargetReader:
        return TargetReader(self.layout)

    @property
    def _level(self) -> Level:
        return "window" if self.unit == "windows" else "recording"

    def load_targets(self, target: str, level: Level | None = None) -> Floats:
        """Load one target of all rows, [n] or of a shape [n, q]; NaN where a recording lacks it.

        With a ``level`` that is not the rows' own, every window has its recording's value, or a
        recording the mean of its windows'. Raises `TargetError` if the target is unknown or no
        scalar or shape, or a targets file cannot be used.
        """
        level = level or self._level
        known = probed_targets()
        if target not in known:
            raise TargetError(f"{target!r} is not probed for {self.unit}; {nearest(target, known)}")
        length = TARGETS[target].length
        width = (length,) if length else ()
        blocks, failed = [], failures(self.layout, target)
        for recording, size in zip(self.recordings, self._counts, strict=True):
            name = recording.recording_id
            found = None if name in failed else self._read(name, target, level)
            block = np.full((size, *width), np.nan) if found is None else found
            block = block.reshape(-1, *width)
            if level == "recording":
                block = np.repeat(block[:1], size, axis=0)
            elif self._level == "recording":
                block = nan_mean(block)[np.newaxis]
            if len(block) != size:
                raise TargetError(
                    f"{self._read.path(name, target)}: {target} has {len(block)} values, the "
                    f"recording has {size} {self.unit}; delete it and run snakemake"
                )
            blocks.append(block)
        return np.concatenate(blocks)

    def load_columns(self, columns: Sequence[str], level: Level | None = None) -> Floats:
        """Load columns of targets (`mess_core.targets.npz`) of all rows [n, columns]."""
        return stack_columns(
            columns, lambda key: self.load_targets(key.rpartition("/")[2], level=level)
        )

    def all_have(self, source: str) -> bool:
        """Return whether every recording has what targets of a source are computed from."""
        if source == MIDI:
            return all(recording.midi for recording in self.recordings)
        return source == AUDIO or {r.recording_id for r in self.recordings} <= self._read.aligned

    def varying(self, targets: Iterable[str]) -> list[str]:
        """Return the targets that have two different values in some rows."""
        columns = {name: self.load_columns(columns_of([name])) for name in targets}
        known = {name: rows[np.isfinite(rows).all(axis=1)] for name, rows in columns.items()}
        return [name for name, rows in known.items() if len(rows) and np.ptp(rows, axis=0).any()]

    def agreement(self, audio: Sequence[str], truth: Sequence[str]) -> dict[str, Any] | None:
        """Return how well targets from audio predict the true ones in works that were not learned.

        They are probed as features are. ``r2`` and ``distances`` are means over the true targets of
        the R2 within works (at least 0) and of `LayerScore.distances`; ``alphas`` are the
        penalties. None where that cannot be told.
        """
        rows, scores = fill(self.load_columns(columns_of(audio))), {}
        for name in truth:
            result = probe(
                [rows],
                self.load_targets(name),
                self.works,
                self.folds,
                name=name,
                recordings=self.names,
                alphas=self.alphas,
                n_permutations=0,
                n_resamples=1,
            )
            if not result.layers:
                return None
            scores[name] = asdict(result.layers[0])
        return {
            "r2": fmean(max(0.0, score_r2(score)) for score in scores.values()),
            "distances": mean_of_known(score["distances"] for score in scores.values()),
            "alphas": {name: score["alpha"] for name, score in scores.items()},
        }

    def discover(self, targets: Iterable[str] | None = None) -> dict[str, dict[str, Any]]:
        """Probe targets, by default all; see `mess_core.probing.results`.

        Raises `ProbingError` if values are infinite or a setting is out of range. Too little data
        is no error: the result says so in ``reason``.
        """
        names = probed_targets() if targets is None else tuple(targets)
        return {name: self._discover(name) for name in names}

    def discover_and_save(self, target: str, *, progress: Report | None = None) -> Path:
        """Probe one target, write its result to its place in the layout and return the path.

        ``progress`` is called with the layers done, the layers of all sources, and a source.
        """
        path = self.layout.probe(target)
        write_json(path, self._discover(target, progress))
        return path

    def _discover(self, target: str, progress: Report | None = None) -> dict[str, Any]:
        values, begun, total = self.load_targets(target), count(), sum(self.layers.values())
        results = {}
        for source, layers in self.features.items():

            def decompositions(layer: int, rows: ProbeRows) -> FoldDecompositions:
                if (done := next(begun)) and progress:
                    progress(done, total, source)  # noqa: B023
                return layers[layer].decompose(rows)  # noqa: B023

            result = probe(
                [layer.rows for layer in layers],
                values,
                self.works,
                self.folds,
                name=target,
                recordings=self.names,
                decompositions=decompositions,
                alphas=self.alphas,
            )
            # As JSON has it: a result in memory equals the one read back.
            results[source] = json.loads(json.dumps(asdict(result)))
        if progress:
            progress(total, total, source)
        own = results.pop(ENCODER)
        return {
            "target": target,
            "category": TARGETS[target].category,
            "dataset": self.layout.dataset,
            "stage": stages.PROBING,
            "encoder": self.encoder,
            "unit": self.unit,
            "alphas": list(self.alphas),
            **own,
            "confidence": confidence(own[f"best_{own['primary'] or 'r2'}"]),
            "baselines": {
                **{
                    name: (best := _summary(found, found["best_layer"]))
                    and {**best, "loss": found["loss"]}
                    for name, found in results.items()
                },
                "layer_0": _summary(own, 0),
            },
        }


def nan_mean(rows: Floats) -> Floats:
    """Return the mean of those of the rows [n, ...] that are defined; NaN where none is."""
    defined = np.isfinite(rows)
    counts = defined.sum(axis=0)
    sums = np.where(defined, rows, 0.0).sum(axis=0)
    return np.asarray(np.where(counts, sums / np.maximum(counts, 1), np.nan))


def fill(values: Floats) -> Floats:
    """Return columns [n, c] with their mean where they are undefined: such rows have no say."""
    return np.asarray(np.where(np.isnan(values), np.nan_to_num(nan_mean(values)), values))


def _summary(result: Mapping[str, Any], layer: int | None) -> dict[str, Any] | None:
    """Return the figures of one layer; None where nothing was probed."""
    if layer is None or not result["layers"]:
        return None
    return {field: result["layers"][layer][field] for field in _BASELINE_FIELDS}
