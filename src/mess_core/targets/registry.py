"""The registry of all proxy targets: what can be probed, without importing what computes it.

A target is a function named like the target in the module named like its category (for example
``mess_core.targets.timbre.spectral_centroid``) and one line here. The function's parameters are
attributes of `mess_core.targets.sound.Sound` (source ``audio``) or of
`mess_core.targets.notes.Performance` (source ``midi``).

Undefined is NaN everywhere: silence has no brightness, two notes have no tempo.
"""

__all__ = [
    "AUDIO_CATEGORIES",
    "CATEGORIES",
    "CURVE_FRAMES",
    "PITCH_CLASSES",
    "TARGETS",
    "TargetSpec",
    "scalar_targets",
]

from dataclasses import dataclass
from typing import Literal

#: Musical families; one module each.
CATEGORIES = (
    "rhythm",
    "harmony",
    "timbre",
    "articulation",
    "dynamics",
    "phrasing",
    "expression",
)

#: The families that are heard in the audio; ``expression`` is read from MIDI.
AUDIO_CATEGORIES = CATEGORIES[:-1]

#: Frames of every curve over time: equal cells from the recording's start to its end.
CURVE_FRAMES = 64

#: Entries of a vector over pitch classes, from C to B.
PITCH_CLASSES = 12


@dataclass(frozen=True, slots=True)
class TargetSpec:
    """What a target is.

    Attributes
    ----------
    name : str
        Unique over all categories; also the name of the function that computes it.
    category : str
        One of `CATEGORIES`; also the module of the function.
    kind : {"scalar", "curve"}
        A number, or a vector of ``length`` entries.
    source : {"audio", "midi"}
        What it is computed from.
    unit : str
        Of its values.
    description : str
        What a musician means by it, in a line.
    length : int
        Entries of a curve; 0 for a scalar.
    """

    name: str
    category: str
    kind: Literal["scalar", "curve"]
    source: Literal["audio", "midi"]
    unit: str
    description: str
    length: int = 0

    @property
    def optional(self) -> bool:
        """Whether a recording may lack it: what needs MIDI is optional."""
        return self.source == "midi"


def _scalar(name: str, category: str, unit: str, description: str) -> TargetSpec:
    source: Literal["audio", "midi"] = "midi" if category == "expression" else "audio"
    return TargetSpec(name, category, "scalar", source, unit, description)


def _curve(name: str, category: str, length: int, unit: str, description: str) -> TargetSpec:
    return TargetSpec(name, category, "curve", "audio", unit, description, length)


_SPECS = (
    _scalar("tempo", "rhythm", "BPM", "rate of the pulse"),
    _scalar("onset_density", "rhythm", "1/s", "notes or chords begun per second"),
    _curve("onset_rate_curve", "rhythm", CURVE_FRAMES, "1/s", "how busy it is over time"),
    _scalar("harmonic_complexity", "harmony", "bit", "how many pitch classes sound together"),
    _curve("chroma_mean", "harmony", PITCH_CLASSES, "1", "share of each pitch class"),
    _scalar("spectral_centroid", "timbre", "Hz", "brightness"),
    _scalar("spectral_rolloff", "timbre", "Hz", "how high the sound reaches"),
    _scalar(
        "spectral_bandwidth", "timbre", "Hz", "how widely the sound is spread around its centre"
    ),
    _scalar("zero_crossing_rate", "timbre", "1", "noisiness or height of the strongest partials"),
    _curve("brightness_curve", "timbre", CURVE_FRAMES, "Hz", "brightness over time"),
    _scalar("attack_slopes", "articulation", "dB/s", "how steeply notes begin"),
    _scalar(
        "attack_sharpness", "articulation", "log10(1/s)", "how short the beginnings of notes are"
    ),
    _scalar("dynamic_range", "dynamics", "dB", "from the soft to the loud passages"),
    _scalar("dynamic_variance", "dynamics", "dB^2", "how much the loudness moves"),
    _scalar("crescendo_strength", "dynamics", "dB/s", "how fast it swells where it swells"),
    _scalar("diminuendo_strength", "dynamics", "dB/s", "how fast it fades where it fades"),
    _curve("loudness_curve", "dynamics", CURVE_FRAMES, "dBFS", "the dynamic arc"),
    _scalar("phrase_regularity", "phrasing", "1", "how equal the phrases are in length"),
    _scalar("num_phrases", "phrasing", "1", "arches of loudness"),
    _scalar("rubato", "expression", "1", "extent of the shaping of tempo"),
    _scalar("velocity_mean", "expression", "MIDI velocity", "how strongly keys are struck"),
    _scalar("velocity_std", "expression", "MIDI velocity", "how unequally keys are struck"),
    _scalar(
        "velocity_range", "expression", "MIDI velocity", "from the softest to the loudest keys"
    ),
    _scalar("articulation_ratio", "expression", "1", "legato: key held over time to the next note"),
    _scalar(
        "tempo_variability", "expression", "1", "unsteadiness of the tempo at every time scale"
    ),
    _scalar("onset_timing_std", "expression", "s", "deviation of notes from the flexible pulse"),
)

#: Every target by name.
TARGETS: dict[str, TargetSpec] = {spec.name: spec for spec in _SPECS}


def scalar_targets() -> tuple[str, ...]:
    """Return the names of the scalar targets, which are what is probed, in registry order."""
    return tuple(name for name, spec in TARGETS.items() if spec.kind == "scalar")
