"""All targets of a recording and of its windows, from its samples and from its MIDI."""

__all__ = ["MidiExpressionTargets", "MusicalAspectTargets", "measure", "measure_windows"]

from collections.abc import Callable, Iterable
from functools import cache
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mess_core.errors import AudioError
from mess_core.targets.curves import PARTS
from mess_core.targets.notes import Performance, read_performance
from mess_core.targets.npz import Targets
from mess_core.targets.registry import AUDIO_CATEGORIES, TARGETS, Level, TargetSpec
from mess_core.targets.sound import Sound, analyse


class MusicalAspectTargets:
    """The targets that are heard in the audio: all categories but ``expression``."""

    categories = AUDIO_CATEGORIES

    def analyse(self, samples: npt.NDArray[np.float32], sample_rate: int) -> Sound:
        """Compute the series that all targets are made of.

        Parameters
        ----------
        samples : ndarray of float32 [shape=(n,)]
            Mono, in [-1, 1].
        sample_rate : int
            Samples per second. Spectral targets depend on it; the project uses 24,000.

        Returns
        -------
        Sound
            For `measure` and `measure_windows`.

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
        return analyse(np.asarray(samples, np.float32), sample_rate)

    def compute(self, samples: npt.NDArray[np.float32], sample_rate: int) -> Targets:
        """Compute every audio target of a recording.

        Parameters
        ----------
        samples, sample_rate
            As for `analyse`, with its errors.

        Returns
        -------
        dict
            ``{category: {field: array}}``: scalars 0-d, curves and shapes 1-D, float64, NaN where
            undefined.
        """
        return measure(self.analyse(samples, sample_rate))


class MidiExpressionTargets:
    """The targets that are read from the performance's MIDI: ``expression``."""

    categories = ("expression",)

    def compute(self, midi: Path, *, beats: Path | None = None) -> Targets:
        """Compute every expression target of a performance.

        Parameters
        ----------
        midi : Path
            Its MIDI file.
        beats : Path, optional
            Its beats, as for `mess_core.targets.notes.read_performance`.

        Returns
        -------
        dict
            ``{"expression": {field: array}}``, float64, NaN where undefined.

        Raises
        ------
        MidiError
            If a file is missing or cannot be parsed.
        """
        return measure(read_performance(midi, beats=beats))


def measure(series: Sound | Performance, *, level: Level = "recording") -> Targets:
    """Compute every target of a recording or of a window.

    Parameters
    ----------
    series : Sound or Performance
        What the targets of its source are made of.
    level : {"recording", "window"}
        What the series are of: targets that do not exist at this level are left out.

    Returns
    -------
    dict
        ``{category: {field: array}}``, float64, NaN where undefined.
    """
    targets: Targets = {}
    source = "audio" if isinstance(series, Sound) else "midi"
    for spec in TARGETS.values():
        if spec.source == source and level in spec.levels:
            fields = targets.setdefault(spec.category, {})
            function, parameters = _function(spec)
            if spec.curve:
                value = function(fields[spec.curve])
            else:
                value = function(**{name: getattr(series, name) for name in parameters})
            fields[spec.name] = np.asarray(value, np.float64)
    return targets


def measure_windows(
    series: Sound | Performance, starts: Iterable[float], *, window_s: float
) -> Targets:
    """Compute every target of every window of a recording.

    Parameters
    ----------
    series : Sound or Performance
        Of the recording.
    starts : iterable of float
        When the windows begin, s; at least one.
    window_s : float
        Length of the windows, s.

    Returns
    -------
    dict
        ``{category: {field: array}}``: [windows] for scalars, [windows, length] for curves and
        shapes; float64, NaN where undefined.
    """
    windows = [measure(series.cut(t, t + window_s), level="window") for t in starts]
    return {
        category: {name: np.stack([w[category][name] for w in windows]) for name in fields}
        for category, fields in windows[0].items()
    }


@cache
def _function(spec: TargetSpec) -> tuple[Callable[..., Any], tuple[str, ...]]:
    """Return a target's function and the names of the series that it takes."""
    if spec.curve:
        return PARTS[spec.name.rpartition("_")[2]], ()
    module = import_module(f"mess_core.targets.{spec.category}")
    function = getattr(module, spec.name)
    return function, tuple(signature(function).parameters)
