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
        "aspects": ["MidiExpressionTargets", "MusicalAspectTargets"],
        "dataset": ["create_target_dataset", "targets_fingerprint"],
        "registry": ["CATEGORIES", "TARGETS", "TargetSpec", "scalar_targets"],
        "storage": ["load_targets", "save_targets", "validate_target_structure"],
    },
)
