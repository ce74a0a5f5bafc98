"""Articulation, as far as the beginnings of notes tell it in the audio.

* `attack_slopes`: how steeply notes begin: dB from 10 % to 90 % of the rise of the amplitude over
  its time. Falls when a note enters into the sound of others (legato, pedal) as well as when it is
  struck slowly.
* `attack_sharpness`: how short it is: the negative log10 of its time in seconds (10 ms gives 2,
  100 ms gives 1), whatever its height. Peeters' (2011) log attack time with the sign changed.

Both are medians over the onsets, whose attacks `mess_core.targets.onsets` measures. Key-overlap is
`expression.articulation_ratio`.
"""

__all__ = ["attack_sharpness", "attack_slopes"]

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float64]


def attack_slopes(attacks: Float) -> float:
    """Return the median slope of the attacks.

    Parameters
    ----------
    attacks : ndarray [shape=(n, 2)]
        Rise in dB and time in s of each onset's attack, NaN where there is none.

    Returns
    -------
    float
        dB/s; NaN where nothing begins.
    """
    return _median(attacks[:, 0] / attacks[:, 1])


def attack_sharpness(attacks: Float) -> float:
    """Return the negative log10 of the median attack time.

    Parameters
    ----------
    attacks : ndarray [shape=(n, 2)]
        Rise in dB and time in s of each onset's attack, NaN where there is none.

    Returns
    -------
    float
        0.9 (slow) to 2.1 (as short as the envelope's window); NaN where nothing begins.
    """
    return -float(np.log10(_median(attacks[:, 1])))


def _median(values: Float) -> float:
    defined = values[np.isfinite(values)]
    return float(np.median(defined)) if len(defined) else np.nan
