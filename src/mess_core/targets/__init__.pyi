from .create import (
    MidiExpressionTargets as MidiExpressionTargets,
    MusicalAspectTargets as MusicalAspectTargets,
    create_target_dataset as create_target_dataset,
    measure as measure,
    measure_passage as measure_passage,
    measure_windows as measure_windows,
    targets_fingerprint as targets_fingerprint,
)
from .npz import (
    load_target as load_target,
    load_targets as load_targets,
    save_targets as save_targets,
    validate_target_structure as validate_target_structure,
    validate_window_targets as validate_window_targets,
)
from .registry import (
    CATEGORIES as CATEGORIES,
    TARGETS as TARGETS,
    TargetSpec as TargetSpec,
    probed_targets as probed_targets,
)
