"""All targets of a recording, from its samples and from its MIDI."""

__all__ = ["MidiExpressionTargets", "MusicalAspectTargets"]

from collections.abc import Callable
from functools import cache
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from mess_core.errors import AudioError
from mess_core.targets.notes import Performance, read_performance
from mess_core.targets.registry import AUDIO_CATEGORIES, TARGETS, TargetSpec
from mess_core.targets.sound import Sound
from mess_core.targets.storage import Targets


class MusicalAspectTargets:
    """The targets that are heard in the audio: all categories but ``expression``."""

    categories = AUDIO_CATEGORIES

    def compute(self, samples: npt.NDArray[np.float32], sample_rate: int) -> Targets:
        """Compute every audio target of a recording.

        Parameters
        ----------
        samples : ndarray of float32 [shape=(n,)]
            Mono, in [-1, 1].
        sample_rate : int
            Samples per second. Spectral targets depend on it; the project uses 24,000.

        Returns
        -------
        dict
            ``{category: {field: array}}``: scalars 0-d, curves 1-D, float64, NaN where undefined.

        Raises
        ------
        AudioError
            If the samples are not one-dimensional or not finite, or the rate is not positive.
        """
        if samples.ndim != 1:
            raise AudioError(f"samples have the shape {samples.shape}, expected mono [n]")
        if sample_rate <= 0:
            raise AudioError(f"the sample rate is {sample_rate}, expected a positive number")
        if not np.isfinite(samples).all():
            raise AudioError("samples hold values that are not finite; decode the file again")
        return _compute("audio", Sound(np.asarray(samples, np.float32), sample_rate))


class MidiExpressionTargets:
    """The targets that are read from the performance's MIDI: ``expression``."""

    categories = ("expression",)

    def compute(self, midi: Path) -> Targets:
        """Compute every expression target of a performance.

        Parameters
        ----------
        midi : Path
            Its MIDI file.

        Returns
        -------
        dict
            ``{"expression": {field: array}}``, 0-d float64, NaN where undefined.

        Raises
        ------
        MidiError
            If the file is missing or cannot be parsed.
        """
        return _compute("midi", read_performance(midi))


def _compute(source: Literal["audio", "midi"], series: Sound | Performance) -> Targets:
    targets: Targets = {}
    for spec in TARGETS.values():
        if spec.source == source:
            function, parameters = _function(spec)
            value = function(**{name: getattr(series, name) for name in parameters})
            targets.setdefault(spec.category, {})[spec.name] = np.asarray(value, np.float64)
    return targets


@cache
def _function(spec: TargetSpec) -> tuple[Callable[..., Any], tuple[str, ...]]:
    """Return a target's function and the names of the series that it takes."""
    module = import_module(f"mess_core.targets.{spec.category}")
    function = getattr(module, spec.name)
    return function, tuple(signature(function).parameters)
