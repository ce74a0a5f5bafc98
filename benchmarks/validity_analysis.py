"""Whether targets follow what they are meant to follow: rank correlations within groups.

What a target is meant to follow is written down here. A target without an entry has no parameter of
the interpretation or scale of its own: harmony and phrases, say, are the score's.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mess_core.report.validity import OWN_PARAMETER, interval
from mess_core.targets.registry import TARGETS

Floats = npt.NDArray[np.float64]
Facts = dict[str, Any]

#: Bars of the issue: a target's response to its own parameter on the median work, by source; and of
#: tempo and of timing variability with the annotated beats on the mean work.
RESPONSE = {"midi": 0.9, "audio": 0.7}
TEMPO, TIMING = 0.6, 0.4

#: PercePiano's scales: a word for the high end, the low end and the high one.
SCALES = {
    "s01": ("unstable", "timing stable to unstable"),
    "s02": ("long", "articulation short to long"),
    "s03": ("hard", "articulation soft, cushioned to hard, solid"),
    "s04": ("wet", "pedal sparse, dry to saturated, wet"),
    "s05": ("blurred", "pedal clean to blurred"),
    "s06": ("colourful", "timbre even to colourful"),
    "s07": ("rich", "timbre shallow to rich"),
    "s08": ("dark", "timbre bright to dark"),
    "s09": ("loud", "timbre soft to loud"),
    "s10": ("raw", "dynamics sophisticated, mellow to raw, crude"),
    "s11": ("wide", "dynamics of little to of large range"),
    "s12": ("slow", "music making fast to slow paced"),
    "s13": ("spacious", "flat to spacious"),
    "s14": ("balanced", "disproportioned to balanced"),
    "s15": ("dramatic", "pure to dramatic, expressive"),
    "s16": ("gloomy", "mood optimistic, pleasant to dark"),
    "s17": ("energetic", "low to high energy"),
    "s18": ("imaginative", "honest to imaginative"),
    "s19": ("convincing", "interpretation unsatisfactory, doubtful to convincing"),
}

#: The listeners' scale that a target ought to go with, and the sign.
OWN_SCALE = {
    **dict.fromkeys(
        (
            "local_tempo_extent",
            "rubato",
            "rubato_ioi_ratio",
            "performed_tempo_extent",
            "tempo_variability",
            "onset_timing_std",
        ),
        ("s01", 1),
    ),
    **dict.fromkeys(("articulation_ratio", "articulation_histogram"), ("s02", 1)),
    **dict.fromkeys(("attack_slopes", "attack_sharpness"), ("s03", 1)),
    **dict.fromkeys(
        (
            "spectral_centroid",
            "spectral_rolloff",
            "spectral_bandwidth",
            "zero_crossing_rate",
            "brightness_level",
        ),
        ("s08", -1),
    ),
    "brightness_extent": ("s06", 1),
    **dict.fromkeys(("loudness_level", "velocity_mean"), ("s09", 1)),
    **dict.fromkeys(
        (
            "dynamic_range",
            "dynamic_variance",
            "crescendo_strength",
            "diminuendo_strength",
            "loudness_extent",
            "velocity_std",
            "velocity_range",
        ),
        ("s11", 1),
    ),
    **dict.fromkeys(
        (
            "tempo",
            "onset_density",
            "onset_rate_level",
            "local_tempo_level",
            "performed_tempo_level",
        ),
        ("s12", -1),
    ),
}


def respond_to(
    target: str,
    responses: Mapping[str, Sequence[float]],
    ends: Mapping[str, Sequence[Sequence[float]]],
    works: Sequence[str],
) -> Facts:
    """Judge how a target responds to each parameter.

    Parameters
    ----------
    target : str
        Its name, perhaps with a remark after a space.
    responses : mapping of str to sequence of float
        By parameter: correlation with its strengths, one per work.
    ends : mapping of str to two sequences of float
        By parameter: the target's values at the weakest and at the strongest, one per work.
    works : sequence of str
        Their names.
    """
    name = target.split()[0]
    source = TARGETS[name].source
    facts: Facts = {
        "target": target,
        "source": source,
        "responses": {parameter: middle(values) for parameter, values in responses.items()},
    }
    if name not in OWN_PARAMETER:
        return facts | {"own": ""}
    parameter, sign = OWN_PARAMETER[name]
    own = sign * np.array(responses[parameter])
    response, bar = middle(own), RESPONSE[source]
    return facts | {
        "own": parameter,
        "sign": sign,
        "bar": bar,
        "response": response,
        "reached": response is not None and response >= bar,
        "works_below": [work for work, r in zip(works, own, strict=True) if not r >= bar],
        "by_work": dict(zip(works, map(number, own), strict=True)),
        "ends": [middle(values) for values in ends[parameter]],
    }


def agree(correlations: Mapping[Hashable, float], *, bar: float | None = None) -> Facts:
    """Judge the mean of the defined correlations of groups."""
    known = np.array([value for value in correlations.values() if np.isfinite(value)])
    if not len(known):
        return {"groups": 0, "mean": None, "interval": None, "median": None, "bar": bar}
    average = float(known.mean())
    return {
        "groups": len(known),
        "mean": average,
        "interval": interval(known),
        "median": float(np.median(known)),
        "bar": bar,
    }


def middle(values: Sequence[float] | Floats) -> float | None:
    """Return the median of the defined values, None where less than half are defined."""
    known = [float(value) for value in values if np.isfinite(value)]
    return float(np.median(known)) if 2 * len(known) >= len(values) else None


def number(value: float) -> float | None:
    """Return a number for JSON, which has no NaN."""
    return float(value) if np.isfinite(value) else None
