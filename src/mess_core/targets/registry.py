"""The registry of all proxy targets: what can be probed, without importing what computes it.

A target is a function named like the target in the module named like its category (for example
``mess_core.targets.timbre.spectral_centroid``) and one line here. The function's parameters are
attributes of `mess_core.targets.sound.Sound` (source ``audio``), of
`mess_core.targets.notes.Performance` (source ``midi``) or of `mess_core.targets.relative.Relative`
(source ``alignment``), so one function gives the target of a recording and of each of its windows.

A curve over time, ``NAME_curve``, brings three more targets, its parts: ``NAME_level`` (mean),
``NAME_extent`` (spread) and ``NAME_shape`` (contour, whatever level and extent).

Undefined is NaN everywhere: silence has no brightness, two notes have no tempo.
"""

__all__ = [
    *("ALIGNED", "AUDIO", "MIDI", "PROBED", "CATEGORIES", "CURVE_FRAMES"),
    *("FROM_ALIGNMENT", "FROM_BEATS", "OVERLAP_BINS"),
    *("PITCH_CLASSES", "SHAPE_COEFFICIENTS", "TARGETS", "Level", "TargetSpec", "probed_targets"),
]

from dataclasses import dataclass
from typing import Any, Literal

#: What targets are computed from; an aspect may also be probed from features.
AUDIO, MIDI, ALIGNED, PROBED = "audio", "midi", "alignment", "probed"

#: Musical families; one module each. ``expression``, the last one, is read from MIDI, or from the
#: alignment with other performances of the work.
CATEGORIES = (
    "rhythm",
    "harmony",
    "timbre",
    "articulation",
    "dynamics",
    "phrasing",
    "expression",
)

#: What a target describes: a whole recording, or one of the windows that features are made of.
Level = Literal["recording", "window"]

Kind = Literal["scalar", "curve", "shape"]

#: Frames of every curve over time: equal cells from the recording's (window's) start to its end.
CURVE_FRAMES = 64

#: Cosine coefficients of a curve's shape: its first four half waves.
SHAPE_COEFFICIENTS = 4

#: Entries of a vector over pitch classes, from C to B.
PITCH_CLASSES = 12

#: Bins of a histogram over key-overlap ratios.
OVERLAP_BINS = 12


@dataclass(frozen=True, slots=True)
class TargetSpec:
    """What a target is.

    ``name`` is unique over all categories, and that of the function that computes it; ``category``,
    one of `CATEGORIES`, is the function's module. A ``scalar`` is a number, a ``curve`` a vector
    over time, pitch classes or bins, a ``shape`` the cosine coefficients of a curve, with so many
    entries (``length``). ``description`` is what a musician means by it, in a line, and ``curve``
    the curve that it is a part of; empty for a target with a function of its own. ``version`` goes
    up when its definition changes, so that what depends on it alone is made anew. ``aligned`` is
    what compares a performance with the others of its work.
    """

    name: str
    category: str
    kind: Kind
    unit: str
    description: str
    length: int = 0
    curve: str = ""
    version: int = 1
    aligned: bool = False

    @property
    def source(self) -> str:
        """What it is computed from, `AUDIO`, `MIDI` or `ALIGNED`; a recording may lack the last."""
        if self.category != "expression":
            return AUDIO
        return ALIGNED if self.aligned else MIDI

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one value: ``()`` or ``(length,)``."""
        return (self.length,) if self.length else ()


def _scalar(name: str, category: str, unit: str, what: str, **given: Any) -> list[TargetSpec]:
    return [TargetSpec(name, category, "scalar", unit, what, **given)]


def _vector(
    name: str, category: str, length: int, unit: str, what: str, **given: Any
) -> list[TargetSpec]:
    return [TargetSpec(name, category, "curve", unit, what, length, **given)]


def _curve(name: str, category: str, unit: str, what: str, **given: Any) -> list[TargetSpec]:
    """Return a curve over time and its parts."""
    stem, of = name.removesuffix("_curve"), {"curve": name, **given}
    contour = f"contour of {what}, whatever its level and extent"
    # A difference of levels has no reference.
    difference = unit.removesuffix("FS")
    return [
        TargetSpec(name, category, "curve", unit, f"{what} over time", CURVE_FRAMES, **given),
        TargetSpec(f"{stem}_level", category, "scalar", unit, f"mean of {what}", **of),
        TargetSpec(f"{stem}_extent", category, "scalar", difference, f"how far {what} moves", **of),
        TargetSpec(f"{stem}_shape", category, "shape", "1", contour, SHAPE_COEFFICIENTS, **of),
    ]


def _against(name: str, unit: str, what: str, length: int = 0) -> list[TargetSpec]:
    """Return what compares a performance with the others of its work."""
    kind: Literal["shape", "scalar"] = "shape" if length else "scalar"
    return [TargetSpec(name, "expression", kind, unit, what, length, aligned=True)]


_SPECS = (
    _scalar("tempo", "rhythm", "BPM", "rate of the pulse"),
    _scalar(
        "tempo_octave_ambiguity", "rhythm", "1", "how well another metrical level would do as pulse"
    ),
    _scalar("onset_density", "rhythm", "1/s", "notes or chords begun per second"),
    _curve("onset_rate_curve", "rhythm", "1/s", "how busy it is"),
    _curve("local_tempo_curve", "rhythm", "BPM", "the rate of the pulse"),
    _scalar("harmonic_complexity", "harmony", "bit", "how many pitch classes sound together"),
    _vector("chroma_mean", "harmony", PITCH_CLASSES, "1", "share of each pitch class"),
    _curve("tension_curve", "harmony", "1", "dissonance of what sounds together"),
    _scalar("spectral_centroid", "timbre", "Hz", "brightness"),
    _scalar("spectral_rolloff", "timbre", "Hz", "how high the sound reaches"),
    _curve("brightness_curve", "timbre", "Hz", "brightness"),
    _scalar("note_connection", "articulation", "dB/s", "legato: notes hold until the next"),
    _scalar("resonance", "articulation", "1", "pedal: share of what sounds that rings on"),
    _scalar("dynamic_range", "dynamics", "dB", "from the soft to the loud notes and chords"),
    _scalar("crescendo_strength", "dynamics", "dB/s", "how fast it swells where it swells"),
    _scalar("diminuendo_strength", "dynamics", "dB/s", "how fast it fades where it fades"),
    _curve("loudness_curve", "dynamics", "dBFS", "loudness"),
    _curve("novelty_curve", "phrasing", "1", "how much timbre and harmony change"),
    _scalar("rubato", "expression", "1", "extent of the shaping of tempo"),
    _scalar("rubato_ioi_ratio", "expression", "1", "legacy: spread of inter-onset-interval ratios"),
    _curve("performed_tempo_curve", "expression", "BPM", "the tempo as it is played"),
    _scalar("velocity_mean", "expression", "MIDI velocity", "how strongly keys are struck"),
    _scalar("velocity_std", "expression", "MIDI velocity", "how unequally keys are struck"),
    _scalar(
        "velocity_range", "expression", "MIDI velocity", "from the softest to the loudest keys"
    ),
    _scalar("articulation_ratio", "expression", "1", "legato: key held over time to the next note"),
    _vector(
        "articulation_histogram",
        "expression",
        OVERLAP_BINS,
        "1",
        "from staccato to overlapping: share of notes by key-overlap ratio",
    ),
    _scalar(
        "tempo_variability", "expression", "1", "unsteadiness of the tempo at every time scale"
    ),
    _scalar("onset_timing_std", "expression", "s", "deviation of notes from the flexible pulse"),
    _scalar("chord_rate", "expression", "1/s", "tempo as chords and single notes begun per second"),
    _scalar("note_rate", "expression", "1/s", "tempo as notes begun per second"),
    _scalar("chord_spread", "expression", "s", "how far apart the notes of a chord begin"),
    _scalar("melody_lead", "expression", "s", "how much the top voice leads its chord"),
    _scalar("hand_balance", "expression", "MIDI velocity", "how much the top voice stands out"),
    _scalar("pedal_share", "expression", "1", "share of the time that the sustain pedal is down"),
    _scalar("pedal_changes", "expression", "1/s", "how often the sustain pedal goes down"),
    _against("relative_tempo", "1", "tempo against the other players"),
    _against("timing_deviation", "1", "how unevenly it departs from the others' timing"),
    _against(
        "timing_deviation_shape", "1", "contour of its tempo over the others'", SHAPE_COEFFICIENTS
    ),
    _against("relative_loudness", "dB", "loudness against the other players"),
)

#: Targets that are measured from the beats of a performance: annotated ones, else those of another
#: performance of the work that an alignment carries over, else tracked ones.
FROM_BEATS = (
    *("rubato", "tempo_variability", "onset_timing_std", "performed_tempo_curve"),
    *("performed_tempo_level", "performed_tempo_extent", "performed_tempo_shape"),
)

#: Every target by name.
TARGETS: dict[str, TargetSpec] = {spec.name: spec for specs in _SPECS for spec in specs}

#: Targets that depend on the alignment of a work: those against its other performances, and those
#: for which it may carry beats over.
FROM_ALIGNMENT = tuple(n for n, spec in TARGETS.items() if spec.aligned or n in FROM_BEATS)


def probed_targets() -> tuple[str, ...]:
    """Return the names of what is probed: scalars and shapes, in registry order."""
    return tuple(name for name, spec in TARGETS.items() if spec.kind != "curve")
