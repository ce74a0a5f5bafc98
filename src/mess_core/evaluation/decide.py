"""The rules by which a geometry is taken, and by which one knows what to do next.

Every rule is a function of figures and returns a `Verdict`. What is not known is said to be so.
"""

__all__ = ["CHANCE", "Verdict", "advise", "aspects", "gain", "people", "rank", "said", "take"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mess_core.evaluation.spaces import MOST_ROWS
from mess_core.probing.aspects import ASPECT_REGISTRY
from mess_core.probing.folds import Floats
from mess_core.probing.inference import resample_works, t_interval

#: Share of triplets that are right by chance: one reaches it by forgetting everything.
CHANCE = 0.5
#: Share of RankMe that has to be left.
KEPT_RANK = 0.5
#: Reordering the first 200 pays from this recall of them on, and below this nDCG of the first 10.
RECALLED, ORDERED = 0.9, 0.8


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a rule says; ``fired`` is None where the figures are not known that it needs."""

    rule: str
    fired: bool | None
    text: str


def said(rule: str, fired: bool | None, text: str) -> Verdict:
    """Return a verdict, in whose text it stands if figures are not known."""
    if fired is None:
        return Verdict(rule, None, f"not known: {text}")
    return Verdict(rule, bool(fired), text)


def gain(before: Floats, after: Floats) -> Verdict:
    """Say whether accuracies of works [w] gain: the 95 % interval of the mean lies above 0.

    Where the mean was below chance, what counts is what is gained above that.
    """
    n, knew = len(after), before.size and before.mean() > CHANCE
    if n < 2:
        return said("gain", None, f"a gain ({n} works)")
    gained = after - (before if knew else CHANCE)
    counts, mean = resample_works(n, 2000, np.random.default_rng(0)), float(gained.mean())
    low, high = t_interval(mean, counts @ gained / n, n) or (mean, mean)
    text = f"{after.mean():.3f} of its triplets are right, {before.mean():.3f} before: "
    text += f"{mean:+.3f} ({low:+.3f} to {high:+.3f}, {n} works)" + " from chance" * (not knew)
    return said("gain", low > 0, text)


def aspects(agreement: Mapping[str, tuple[Floats, Floats]]) -> Verdict:
    """Say whether no aspect's agreement (works [w] before, after) falls by more than its error."""
    judged, fallen = 0, []
    for name, (before, after) in agreement.items():
        known = np.isfinite(before - after)
        if known.sum() > 1:
            judged += 1
            error = before[known].std(ddof=1) / np.sqrt(known.sum())
            change = (after - before)[known].mean()
            fallen += [f"{name} by {-change:.3f}"] if change < -error else []
    if not judged:
        return said("aspects", None, "agreement with aspects")
    text = f"agreement falls with {', '.join(fallen)}" if fallen else "no aspect's agreement falls"
    return said("aspects", not fallen, text)


def rank(before: float, after: float) -> Verdict:
    """Say whether more than half of RankMe is left."""
    return said("rank", after > KEPT_RANK * before, f"RankMe {before:.0f} becomes {after:.0f}")


def people(before: float, after: float) -> Verdict:
    """Say whether people agree no less; NaN where nobody was asked."""
    if not np.isfinite(after - before):
        return said("people", None, "people's agreement")
    text = f"people's agreement {before:.3f} becomes {after:.3f}"
    return said("people", after >= before, text)


def take(stage: str, gained: Verdict, *others: Verdict) -> Verdict:
    """Take a stage whose gain is known and sure, if nothing else is known to be against it."""
    failed = [gained] * (not gained.fired) + [v for v in others if v.fired is False]
    for_ = "; ".join(v.text for v in (gained, *others) if v not in failed)
    against = "; ".join(v.text for v in failed)
    text = f"not taken: {against}{f' (but {for_})' * bool(for_)}" if failed else f"taken: {for_}"
    return said(stage, not failed, text)


def advise(lines: Sequence[Mapping[str, Any]]) -> list[Verdict]:
    """Say what comes first, by lines as of `mess_core.evaluation.evaluate`."""
    known = [line for line in lines if line["value"] is not None]
    asked = [x for x in known if x["judge"] == "people" and x["asked"] in ASPECT_REGISTRY]
    own = [x for x in asked if x["against"] in ("overall", x["asked"])]
    people = [x for x in own if x["low"] is not None]
    sure = sum(x["low"] > x["chance"] for x in people)
    told = f"people agree with {sure} of {len(people)} aspects more than by chance"
    told = told if people else "whether people agree with aspects"
    named = [x for x in known if (x["judge"], x["asked"]) == ("same passage", "general")]
    found = {x["measure"]: x["value"] for x in named if x["measure"] in ("recall@200", "nDCG@10")}
    by_chance = {x["measure"]: x["chance"] for x in named}.get("recall@200", 1.0)
    text = ", ".join(f"{measure} is {value:.2f}" for measure, value in found.items())
    among = f" (recall@200 {by_chance:.2f} by chance; at most {MOST_ROWS:,} windows are judged)"
    text = text + among if found else "recall@200 of the same passage"
    reached = found.get("recall@200", 0.0) >= RECALLED if by_chance <= CHANCE else None
    orders = found["nDCG@10"] < ORDERED if "nDCG@10" in found else None
    return [
        said("targets first", 2 * sure < len(people) if people else None, told),
        said("geometry before reranking", None if reached is None else not reached, text),
        said("two-stage reranking", reached and orders, text),
    ]
