"""Proxy targets: numbers and curves that say how music sounds and is played.

`registry` lists them and imports nothing heavy. `sound` and `notes` turn audio and MIDI into plain
series; one module per musical family (`rhythm`, `harmony`, `timbre`, `articulation`, `dynamics`,
`phrasing`, `expression`) turns the series into targets; `aspects` runs all of them; `storage` and
`dataset` keep them on disk.
"""

from mess_core._lazy import attach

__all__, __getattr__, __dir__ = attach(
    __name__,
    {
        "aspects": [
            "MidiExpressionTargets",
            "MusicalAspectTargets",
            "measure",
            "measure_windows",
        ],
        "dataset": ["create_target_dataset", "targets_fingerprint"],
        "registry": ["CATEGORIES", "TARGETS", "TargetSpec", "probed_targets", "scalar_targets"],
        "storage": [
            "load_descriptors",
            "load_target",
            "load_targets",
            "load_window_targets",
            "save_targets",
            "validate_target_structure",
            "validate_window_targets",
        ],
    },
)
