"""A toy dataset on disk: features, targets that are planted in them, and decompositions."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

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
    return Recording(
        name, work, "", "", "", "", "x.wav", "", "", "", "", "", 20.0, status, reason
    )  # fmt: skip


RECORDINGS = [recording(number) for number in range(N)]


def windows_of(number: int) -> int:
    return 2 + number % 3


def save(layout: Layout, number: int, segments: npt.NDArray[np.float32], *, midi: bool) -> None:
    """Write features and targets of one recording; targets that are not planted are NaN."""
    name, count = recording(number).recording_id, len(segments)
    for variant in ("", UNTRAINED):
        features = segments if not variant else segments[:, ::-1] * np.float32(0.1)
        place = Layout(layout.data, layout.dataset, variant)
        save_array(place.features("segments", name), np.ascontiguousarray(features))
        save_array(place.features("aggregated", name), features.mean(axis=0))
    planted = {
        "tempo": 100 + 10 * segments[:, LAYER, 0],
        "spectral_centroid": np.where(number == 7, np.nan, 1000.0 + np.arange(count) + number),
        "rubato": segments[:, LAYER, 1],
        "loudness_shape": segments[:, LAYER, 1:],
        "dynamic_range": np.full(count, 4.0),
    }
    made = [category for category in CATEGORIES if midi or category != "expression"]
    fields: dict[str, dict[str, Any]] = {category: {} for category in made}
    rows: dict[str, dict[str, Any]] = {category: {} for category in made}
    for spec in TARGETS.values():
        if spec.category not in fields:
            continue
        values = np.full((count, *spec.shape), np.nan)
        if spec.name in planted:
            values = np.asarray(planted[spec.name], np.float64)
        fields[spec.category][spec.name] = values.mean(axis=0)
        if "window" in spec.levels:
            rows[spec.category][spec.name] = values
    descriptors = segments[:, 0].repeat(2, axis=1)
    save_targets(layout.targets(name), fields, windows=rows, descriptors=descriptors)


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
    return LayerDiscoverySystem(layout, [*RECORDINGS, recording(99, "silent")], **settings)
