"""A toy dataset on disk (features, planted targets, decompositions), and results to draw."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mess_core import stages
from mess_core.files import save_array
from mess_core.layout import DESCRIPTORS, ENCODER, UNTRAINED, Layout
from mess_core.probing import LayerDiscoverySystem
from mess_core.probing.decompositions import decompose_source
from mess_core.recordings import Recording
from mess_core.targets.npz import save_targets
from mess_core.targets.registry import CATEGORIES, TARGETS

FACTS = {"name": "tiny", "weights_sha256": "ab" * 32, "trained": False}
N, LAYERS, DIMS, LAYER = 30, 4, 5, 2
SOURCES = {ENCODER: LAYERS, UNTRAINED: LAYERS, DESCRIPTORS: 1}
PROBED = ["tempo", "spectral_centroid", "rubato", "loudness_shape", "dynamic_range"]


def recording(number: int, status: str = "ok") -> Recording:
    name, work, reason = f"r{number:02d}", f"w{number % 6}", "" if status == "ok" else "because"
    midi = "x.mid" if number % 5 else ""
    return Recording(
        name, work, "", "", "", "", "x.wav", midi, "", "", "", "", 20.0, status, reason
    )  # fmt: skip


RECORDINGS = [recording(number) for number in range(N)]


def windows_of(number: int) -> int:
    return 2 + number % 3


def save(
    layout: Layout,
    number: int,
    segments: npt.NDArray[np.float32],
    *,
    midi: bool,
    more: Mapping[str, npt.NDArray[np.float64]] | None = None,
) -> None:
    """Write features and targets of one recording; targets that are not planted are NaN."""
    name, count = recording(number).recording_id, len(segments)
    made = {
        ENCODER: segments,
        UNTRAINED: segments[:, ::-1] * np.float32(0.1),
        DESCRIPTORS: segments[:, :1].repeat(2, axis=2),
    }
    for source, features in made.items():
        place = layout.of(source)
        save_array(place.features("segments", name), np.ascontiguousarray(features))
        save_array(place.features("aggregated", name), features.mean(axis=0))
    planted = {
        "tempo": 100 + 10 * segments[:, LAYER, 0],
        "spectral_centroid": np.where(number == 7, np.nan, 1000.0 + np.arange(count) + number),
        "rubato": segments[:, LAYER, 1],
        "loudness_shape": segments[:, LAYER, 1:],
        "dynamic_range": np.full(count, 4.0),
        **(more or {}),
    }
    present = [category for category in CATEGORIES if midi or category != "expression"]
    fields: dict[str, dict[str, Any]] = {category: {} for category in present}
    rows: dict[str, dict[str, Any]] = {category: {} for category in present}
    for spec in TARGETS.values():
        if spec.category not in fields or spec.aligned:
            continue
        values = np.full((count, *spec.shape), np.nan)
        if spec.name in planted:
            values = np.asarray(planted[spec.name], np.float64)
        fields[spec.category][spec.name] = values.mean(axis=0)
        rows[spec.category][spec.name] = values
    save_targets(layout.targets(name), fields, windows=rows)


def random_features() -> list[npt.NDArray[np.float32]]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=(windows_of(n), LAYERS, DIMS)).astype(np.float32) for n in range(N)]


def make_dataset(data: Path) -> Layout:
    """Tempo is linear in layer 2; every fifth recording has no MIDI."""
    layout = Layout(data, "toy")
    for number, segments in enumerate(random_features()):
        save(layout, number, segments, midi=number % 5 > 0)
    decompose_all(layout)
    return layout


def decompose_all(layout: Layout, unit: str = "windows") -> None:
    for source, count in SOURCES.items():
        decompose_source(layout, RECORDINGS, source=source, n_layers=count, unit=unit)


def system_of(layout: Layout, **changes: Any) -> LayerDiscoverySystem:
    settings: dict[str, Any] = {"layers": SOURCES, "encoder": FACTS, **changes}
    recordings = settings.pop("recordings", RECORDINGS)
    return LayerDiscoverySystem(layout, [*recordings, recording(99, "silent")], **settings)


def score(layer: int, r2: float, **changes: Any) -> dict[str, Any]:
    """A layer's figures: this R2 within works, 0.2 more of all rows, intervals 0.1 either side."""
    return {
        "layer": layer,
        **{"r2": r2 + 0.2, "interval": [r2 + 0.1, r2 + 0.3], "p": 0.5},
        **{"r2_within": r2, "interval_within": [r2 - 0.1, r2 + 0.1], "p_within": 0.005},
        **{"r2_std": 0.05, "r2_min": 0.3, "correlation": 0.8, "rmse": 12.0, "alpha": 100.0},
        **{"selectivity": 0.65, "distances": 0.4},
        **changes,
    }


def baseline(r2: float, loss: float = 0.12) -> dict[str, Any]:
    """What a baseline reaches, and loses in each work."""
    return score(0, r2) | {"loss": [loss - 0.002 * n for n in range(7)]}


def result(target: str, r2: list[float], **changes: Any) -> dict[str, Any]:
    """A probing result of layers with these R2 within works; of none, with a reason."""
    best = int(np.argmax(r2)) if r2 else None
    figures = {
        **{"primary": "r2_within", "best_r2": max(r2, default=0) + 0.2},
        **{"r2_nested": 0.31, "r2_within_nested": 0.32, "mixture": {"r2": 0.41, "r2_within": 0.42}},
    }
    return {
        **{"target": target, "category": TARGETS[target].category, "dataset": "toy"},
        **{"stage": stages.PROBING, "encoder": FACTS, "unit": "windows", "alphas": [1.0, 10.0]},
        **{"n_rows": 200, "n_recordings": 20, "n_works": 7},
        **(figures if r2 else dict.fromkeys(figures)),
        **{"works": list("abcdefg"), "loss": [0.02 + 0.001 * n for n in range(7)] if r2 else []},
        "layers": [score(layer, value) for layer, value in enumerate(r2)],
        "best_layer": best,
        "best_layers": [] if best is None else [best],
        "baselines": {"untrained": baseline(0.11), "layer_0": score(0, 0.12)} if r2 else {},
        "caution": None,
        "reason": None if r2 else "too few rows",
        **changes,
    }
