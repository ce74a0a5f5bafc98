"""The rules by which a geometry is taken, and by which one knows what to do next.

Every rule is a function of figures and returns a `Verdict`. What is not known is said to be so: no
rule counts as fulfilled by it.
"""

__all__ = ["Verdict", "advise", "aspects", "gain", "people", "rank", "take"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mess_core.probing.aspects import ASPECT_REGISTRY
from mess_core.probing.folds import Floats
from mess_core.probing.inference import resample_works, t_interval

#: Accuracy of triplets by chance: one reaches it by forgetting everything.
CHANCE = 0.5
#: Share of RankMe that has to be left.
KEPT_RANK = 0.5
#: Reordering the first 200 pays from this recall of them on, and below this nDCG of the first 10,
#: as a share of that of their best order.
RECALLED, ORDERED = 0.9, 0.8


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a rule says of some figures; ``fired`` is None where they are not known."""

    rule: str
    fired: bool | None
    figures: dict[str, float]
    text: str


def gain(before: Floats, after: Floats) -> Verdict:
    """Say whether accuracies of works [w] gain: the 95 % interval of the mean lies above 0.

    Where the mean was below chance, what counts is what is gained above that.
    """
    n, knew = len(after), before.size and before.mean() > CHANCE
    if n < 2:
        return Verdict("gain", None, {}, f"a gain is not known ({n} works)")
    gained = after - (before if knew else CHANCE)
    counts, mean = resample_works(n, 2000, np.random.default_rng(0)), float(gained.mean())
    low, high = t_interval(mean, counts @ gained / n, n) or (mean, mean)
    figures = {"accuracy": float(after.mean()), "gain": mean, "low": low, "high": high}
    text = f"{after.mean():.3f} of its triplets, {mean:+.3f} ({low:+.3f} to {high:+.3f}, {n} works)"
    text += f" against {before.mean():.3f} before" if knew else " against chance"
    return Verdict("gain", low > 0, figures, text)


def aspects(agreement: Mapping[str, tuple[Floats, Floats]]) -> Verdict:
    """Say whether no aspect's agreement (works [w] before, after) falls by more than its error."""
    figures, fallen = {}, []
    for name, (before, after) in agreement.items():
        known = np.isfinite(before - after)
        if known.sum() > 1:
            error = before[known].std(ddof=1) / np.sqrt(known.sum())
            figures[name] = float((after - before)[known].mean())
            fallen += [f"{name} by {-figures[name]:.3f}"] if figures[name] < -error else []
    if not figures:
        return Verdict("aspects", None, {}, "agreement with aspects is not known")
    text = f"agreement falls with {', '.join(fallen)}" if fallen else "no aspect's agreement falls"
    return Verdict("aspects", not fallen, figures, text)


def rank(before: float, after: float) -> Verdict:
    """Say whether more than half of RankMe is left."""
    figures, text = {"before": before, "after": after}, f"RankMe {before:.0f} becomes {after:.0f}"
    return Verdict("rank", after > KEPT_RANK * before, figures, text)


def people(before: float, after: float) -> Verdict:
    """Say whether people agree no less; NaN where nobody was asked."""
    if not np.isfinite(after - before):
        return Verdict("people", None, {}, "people's agreement is not known")
    figures = {"before": before, "after": after}
    text = f"people's agreement {before:.3f} becomes {after:.3f}"
    return Verdict("people", after >= before, figures, text)


def take(stage: str, gained: Verdict, *others: Verdict) -> Verdict:
    """Take a stage whose gain is known and sure, if nothing else is known to be against it."""
    broken = [gained] * (not gained.fired) + [v for v in others if v.fired is False]
    told = [f"{v.text}{' (against it)' * (v in broken)}" for v in (gained, *others)]
    figures = {f"{v.rule}: {name}": x for v in (gained, *others) for name, x in v.figures.items()}
    text = f"{'not ' if broken else ''}taken: {'; '.join(told)}"
    return Verdict(stage, not broken, figures, text)


def advise(lines: Sequence[Mapping[str, Any]]) -> list[Verdict]:
    """Say what comes first, by lines as of `mess_core.evaluation.evaluate`."""
    known = [line for line in lines if line["value"] is not None]
    people = [x for x in known if x["judge"] == "people" and x["asked"] in ASPECT_REGISTRY]
    sure = sum(x["low"] is not None and x["low"] > x["chance"] for x in people)
    counts = {"agreeing": float(sure), "asked": float(len(people))}
    text = f"people agree with {sure} of {len(people)} aspects more than by chance"
    targets = Verdict("targets first", 2 * sure < len(people), counts, text)
    if not people:
        targets = Verdict("targets first", None, {}, "not known: people have judged no aspect")
    passages = {
        x["measure"]: x for x in known if (x["judge"], x["asked"]) == ("same passage", "general")
    }
    recall, order = passages.get("recall@200"), passages.get("nDCG@10")
    geometry, reranking = "geometry before reranking", "two-stage reranking"
    if recall is None or recall["chance"] > CHANCE:
        why = "not known: no recall@200" + " that chance does not reach" * (recall is not None)
        return [targets, *(Verdict(rule, None, {}, why) for rule in (geometry, reranking))]
    figures, text = {"recall@200": recall["value"]}, f"recall@200 is {recall['value']:.2f}"
    low = recall["value"] < RECALLED
    found = [targets, Verdict(geometry, low, figures, text)]
    if order is None:
        told = f"{'' if low else 'not known: '}{text}, and there is no nDCG@10"
        return [*found, Verdict(reranking, False if low else None, figures, told)]
    figures = figures | {"nDCG@10": order["value"]}
    pays = not low and order["value"] < ORDERED
    return [*found, Verdict(reranking, pays, figures, f"{text}, nDCG@10 {order['value']:.2f}")]
