"""Works whose performances follow known tempos."""

from collections.abc import Mapping

import numpy as np

from mess_core.alignment.maps import Alignment, WorkAlignment
from mess_core.targets.curves import Float

END_S = 60.0


def played(
    log_tempo: Float,
    *,
    noise_s: float = 0.0,
    seed: int = 0,
    loudness: Float | None = None,
    gap: tuple[float, float] | None = None,
    every: int = 1,
) -> Alignment:
    """Return the map of a performance whose log tempo is known at 50 places a second.

    ``noise_s`` is the error of each knot, of which ``every`` so many are kept; ``gap`` is a stretch
    of work time that is left out.
    """
    work_times = np.arange(len(log_tempo) + 1) / 50
    times = np.concatenate([[0.0], np.cumsum(np.exp(-log_tempo) / 50)])
    work_times, times = work_times[::every], times[::every]
    if gap is not None:
        before, after = work_times <= gap[0], work_times >= gap[1]
        times[after] -= times[after][0] - times[before][-1] - 0.5
        work_times, times = work_times[before | after], times[before | after]
    if noise_s:
        times = times + np.random.default_rng(seed).normal(0, noise_s, len(times))
        times = np.maximum.accumulate(times) + 1e-6 * np.arange(len(times))
    edges = [0, len(times) - 1]
    if gap is not None:
        edges[1:1] = [int(before.sum()) - 1, int(before.sum())]
    return Alignment(
        times=times,
        work_times=work_times,
        errors=np.full(len(times), noise_s),
        regions=times[edges].reshape(-1, 2),
        confidence=np.ones(len(edges) // 2),
        loudness=np.full(int(times[-1] * 10), -20.0) if loudness is None else loudness,
    )


def work_of(alignments: Mapping[str, Alignment], reference: str) -> WorkAlignment:
    """Return the work that these are the performances of."""
    return WorkAlignment("w", reference, alignments, dict.fromkeys(alignments, "midi"))


def steady(log_tempo: float = 0.0, end_s: float = END_S) -> Float:
    """Return one log tempo for all of the work."""
    return np.full(round(end_s * 50), log_tempo)


def stretched(by: float, start_s: float, end_s: float) -> Float:
    """Return a tempo that takes so many times as long in a passage."""
    tempo = steady()
    tempo[round(start_s * 50) : round(end_s * 50)] = -np.log(by)
    return tempo
