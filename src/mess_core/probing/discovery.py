"""From a dataset's features and targets on disk to probing results: which layer knows what.

One row is one recording with its aggregated features ``[layers, dims]``. A recording whose targets
lack a field (expression without MIDI), or have NaN there, drops out of that target alone.
"""

__all__ = ["LayerDiscoverySystem"]

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mess_core import stages
from mess_core.errors import ProbingError, StorageError, TargetError, nearest
from mess_core.files import write_json
from mess_core.layout import Layout
from mess_core.probing.probe import ProbeResult, probe_layers
from mess_core.probing.results import ENCODER_FIELDS, confidence
from mess_core.probing.ridge import ALPHAS
from mess_core.recordings import Recording, usable
from mess_core.targets import load_targets
from mess_core.targets.registry import TARGETS, scalar_targets

_SELECTED_ON = (
    "best_layer has the largest r2, so best_r2 is optimistic; "
    "r2_nested chooses the layer inside the training folds"
)


class LayerDiscoverySystem:
    """Finds the layers that predict musical targets best.

    Parameters
    ----------
    layout : Layout
        Where the dataset's features, targets and results lie.
    recordings : sequence of Recording
        The recording table; rows whose status is not ``ok`` are left out.
    n_folds : int
        Folds, at least 3; they never share a work.
    alphas : sequence of float
        Ridge penalties to choose from, all above 0.
    encoder : mapping
        ``name``, ``weights_sha256`` and ``trained`` of the encoder that made the features.

    Raises
    ------
    ProbingError
        If no recording is usable or ``encoder`` lacks a field.
    """

    def __init__(
        self,
        layout: Layout,
        recordings: Sequence[Recording],
        *,
        n_folds: int = 5,
        alphas: Sequence[float] = ALPHAS,
        encoder: Mapping[str, Any],
    ) -> None:
        lacking = [field for field in ENCODER_FIELDS if field not in encoder]
        if lacking:
            raise ProbingError(f"the encoder's description lacks {', '.join(lacking)}")
        self.layout = layout
        self.recordings = usable(recordings)
        if not self.recordings:
            raise ProbingError(f"{layout.dataset} has no usable recording; see {layout.problems}")
        self.n_folds = n_folds
        self.alphas = tuple(float(alpha) for alpha in alphas)
        self.encoder = {field: encoder[field] for field in ENCODER_FIELDS}
        self._discovered: dict[str, dict[str, Any]] = {}

    def load_features(self) -> npt.NDArray[np.float32]:
        """Load the aggregated features of all recordings.

        Returns
        -------
        ndarray of float32 [shape=(n, layers, dims)]
            In the order of ``recordings``.

        Raises
        ------
        StorageError
            If a file is missing or damaged, holds values that are not finite, or has another shape
            than the first.
        """
        paths = [self.layout.features("aggregated", r.recording_id) for r in self.recordings]
        arrays = [_load_aggregated(path) for path in paths]
        for path, array in zip(paths, arrays, strict=True):
            if array.shape != arrays[0].shape:
                raise StorageError(
                    f"{path} has the shape {array.shape}, {paths[0].name} has {arrays[0].shape}: "
                    "they are of different encoders; run the features rule again"
                )
        return np.stack(arrays)

    @cached_property
    def _features(self) -> npt.NDArray[np.float32]:
        return self.load_features()

    def load_targets(self, target: str) -> npt.NDArray[np.float64]:
        """Load one scalar target of all recordings.

        Parameters
        ----------
        target : str
            A scalar of `mess_core.targets.registry.TARGETS`.

        Returns
        -------
        ndarray of float64 [shape=(n,)]
            In the order of ``recordings``; NaN where a recording does not have it.

        Raises
        ------
        TargetError
            If the target is unknown or no scalar, or a targets file cannot be used.
        """
        _check_target(target)
        category = TARGETS[target].category
        values = np.full(len(self.recordings), np.nan)
        for row, recording in enumerate(self.recordings):
            path = self.layout.targets(recording.recording_id)
            value = load_targets(path).get(category, {}).get(target)
            if value is not None:
                values[row] = _scalar(path, target, value)
        return values

    def discover(self, targets: Iterable[str] | None = None) -> dict[str, dict[str, Any]]:
        """Probe targets, each once per object.

        Parameters
        ----------
        targets : iterable of str, optional
            Names of scalars; all of the registry when not given.

        Returns
        -------
        dict of str to dict
            Per target its result, as `mess_core.probing.results` describes it.

        Raises
        ------
        ProbingError
            If values are infinite or a setting is out of range. Too little data is no error: the
            result says so in ``reason``.
        """
        names = scalar_targets() if targets is None else tuple(targets)
        for name in names:
            if name not in self._discovered:
                self._discovered[name] = self._probe(name)
        return {name: self._discovered[name] for name in names}

    def best_layers(self, targets: Iterable[str] | None = None) -> dict[str, int]:
        """Return the best layer per target; targets that cannot be probed are left out.

        See Also
        --------
        discover
        """
        results = self.discover(targets)
        return {
            target: result["best_layer"]
            for target, result in results.items()
            if result["best_layer"] is not None
        }

    def discover_and_save(self, target: str) -> Path:
        """Probe one target, write its result to its place in the layout and return the path."""
        path = self.layout.probe(target)
        self.save(self.discover([target])[target], path)
        return path

    def save(self, result: Mapping[str, Any], path: Path) -> None:
        """Write a result of `discover` as JSON, whole or not at all."""
        write_json(path, dict(result))

    def _probe(self, target: str) -> dict[str, Any]:
        values = self.load_targets(target)
        works = [recording.work_id for recording in self.recordings]
        probed = probe_layers(
            self._features, values, works, n_folds=self.n_folds, alphas=self.alphas
        )
        return self._describe(target, probed)

    def _describe(self, target: str, probed: ProbeResult) -> dict[str, Any]:
        return {
            "target": target,
            "category": TARGETS[target].category,
            "dataset": self.layout.dataset,
            "stage": stages.PROBING,
            "encoder": self.encoder,
            "n_recordings": probed.n_rows,
            "n_works": probed.n_works,
            "n_folds": probed.n_folds,
            "alphas": list(self.alphas),
            "layers": [_listed(asdict(score)) for score in probed.layers],
            "best_layer": probed.best_layer,
            "best_r2": probed.best_r2,
            "confidence": confidence(probed.best_r2),
            "selected_on": _SELECTED_ON,
            "r2_nested": probed.r2_nested,
            "nested_layers": list(probed.nested_layers),
            "reason": probed.reason,
        }


def _load_aggregated(path: Path) -> npt.NDArray[np.float32]:
    try:
        array = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise StorageError(f"{path} does not exist; run the features rule") from None
    except (ValueError, EOFError, OSError) as error:
        raise StorageError(
            f"{path} is damaged ({error}); delete it and run the features rule"
        ) from None
    if array.ndim != 2 or array.dtype.kind != "f" or not np.isfinite(array).all():
        raise StorageError(
            f"{path} holds {array.dtype} of shape {array.shape}, expected finite numbers [layers, "
            "dims]; delete it and run the features rule"
        )
    return np.asarray(array, np.float32)


def _check_target(target: str) -> None:
    known = scalar_targets()
    if target not in known:
        raise TargetError(f"{target!r} is no scalar target; {nearest(target, known)}")


def _scalar(path: Path, target: str, value: npt.NDArray[Any]) -> float:
    if value.size != 1:
        raise TargetError(
            f"{path}: {target} has the shape {value.shape}, expected one number; "
            "delete it and run the targets rule"
        )
    return float(value.item())


def _listed(fields: dict[str, Any]) -> dict[str, Any]:
    """Turn tuples into lists, as JSON has them: a result in memory equals the one read back."""
    return {
        key: list(value) if isinstance(value, tuple) else value for key, value in fields.items()
    }
