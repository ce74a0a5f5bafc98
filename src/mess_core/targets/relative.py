"""A performance against the others of its work: the series that the aligned targets are made of."""

__all__ = ["Relative"]

from dataclasses import dataclass

import numpy as np

from mess_core.targets.curves import Float


@dataclass(frozen=True)
class Relative:
    """How a performance, or a window of one, compares with the consensus of its work.

    The consensus is the mean over the work's performances, at the same place of the music, of log
    tempo and of loudness in dB.

    Attributes
    ----------
    times : ndarray [shape=(n,)]
        Seconds of the performance, equally spaced.
    tempo_ratio : ndarray [shape=(n,)]
        Local tempo over the consensus's (1.1 is 10 % faster), NaN where the performance is not
        aligned.
    smooth_ratio : ndarray [shape=(n,)]
        The same, smooth enough to be shaped on purpose.
    loudness_difference : ndarray [shape=(n,)]
        Loudness less the consensus's, dB, NaN where not aligned or inaudible.
    """

    times: Float
    tempo_ratio: Float
    smooth_ratio: Float
    loudness_difference: Float

    def cut(self, start_s: float, stop_s: float) -> "Relative":
        """Return the part from ``start_s`` to before ``stop_s``."""
        part = slice(*np.searchsorted(self.times, (start_s, stop_s)))
        return Relative(*(series[part] for series in vars(self).values()))
