"""How good searches are, on music of which the right answers are known.

Four parts:

* ``passages``: the same passage by another player, on the demo corpus and on rendered ASAP.
* ``distances``: like in X but not in Y: whether what is found is ordered by true distances in X,
  and not by those in Y.
* ``more``: more of X: whether hits truly have more of it, and how far the rest drifts.
* ``hubness``: whether a few windows are among everybody's nearest.

True values are the parameters that the planted corpus was played with, and on ASAP what was
measured of the notes and the sound. Where they are asked for, all that was fitted was fitted on
other works than those that are searched. The encoder is the bundled one, which is untrained.
ASAP is read from ``../shared/data``; without it, its rows are left out. Everything is
deterministic; from nothing it takes some minutes on two cores, the second time less::

    python -m benchmarks.search_quality --json FILE
"""

import argparse
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache, cached_property, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.extraction import machine
from benchmarks.markdown import write_section
from benchmarks.search_quality_corpora import (
    ASAP,
    DEMO,
    DOSES,
    PLANTED,
    Clips,
    asap_pieces,
    extract_and_measure,
    fit_all,
    folds_of,
    load_clips,
    measured,
    planted_doses,
    planted_pieces,
    render_pieces,
    settings_of,
    spans_of,
    without,
)
from benchmarks.search_quality_judges import (
    CHANCE,
    Grown,
    K,
    Ordered,
    Search,
    all_layers_centred,
    asking,
    choose_queries,
    cosine,
    judge_distances,
    judge_hubness,
    judge_more,
    judge_passages,
    summed_up,
)
from benchmarks.search_quality_metrics import Floats, hubness_by_chance
from benchmarks.search_quality_report import report
from mess_core.files import read_json, write_json
from mess_core.index.artifact import read_projection
from mess_core.index.index import Index, Row, build_index
from mess_core.probing.aspects import ASPECT_REGISTRY
from mess_core.search.query import GENERAL
from mess_core.workflow import jobs
from mess_core.workflow.config import Settings
from mess_core.workflow.plan import Plan

Facts = dict[str, Any]

#: What is compared: two baselines, and questions to the index.
PLAIN, CENTRED = "plain cosine, best layer", "cosine, all layers centred"
GENERAL_ONLY, IGNORING, LIKE = "general", "general, ignore Y", "like X"
MORE_OF, MORE_GENERAL = "more X", "more X, like in general only"
QUALIFYING = "all that qualify"

#: How much more is asked for, in standard errors of the probe.
STRENGTH = 1.0

#: What is compared on each corpus: like in X but not in Y, and more of X. Aspects of one question
#: share no target.
PAIRS = {
    PLANTED: tuple((x, y) for x in DOSES for y in DOSES if x != y),
    ASAP: (
        ("dynamics", "rhythmic_energy"),
        ("rhythmic_energy", "dynamics"),
        ("phrasing", "rhythmic_energy"),
        ("brightness", "dynamics"),
    ),
}
MORE = {PLANTED: tuple(DOSES), ASAP: ("dynamics", "rhythmic_energy", "brightness")}


@dataclass(frozen=True)
class Scale:
    """How much is measured.

    Attributes
    ----------
    works : int or None
        Of the planted corpus and of ASAP; None is all.
    folds : dict of str to int
        Folds by corpus; one of them is searched, the others are what is fitted on.
    queries : dict of str to int
        Queries of each work by corpus.
    """

    works: int | None
    folds: dict[str, int]
    queries: dict[str, int]


FULL = Scale(works=None, folds={PLANTED: 3, ASAP: 4}, queries={DEMO: 40, ASAP: 12, PLANTED: 40})
QUICK = Scale(works=6, folds={PLANTED: 2, ASAP: 2}, queries=dict.fromkeys((DEMO, ASAP, PLANTED), 2))


@dataclass(frozen=True)
class Held:
    """Works that are searched, and what was fitted without them.

    Attributes
    ----------
    clips : Clips
        All windows of the works.
    fitted : Settings
        The dataset of the other works: features, targets, probes and aspects.
    values : dict of str to ndarray
        True values [n, q] of the windows by aspect.
    """

    clips: Clips
    fitted: Settings
    values: dict[str, Floats]

    @cached_property
    def aspects(self) -> dict[str, Any]:
        """The aspect map of the other works."""
        aspects: dict[str, Any] = read_json(self.fitted.layout.aspects)["aspects"]
        return aspects

    @cached_property
    def index(self) -> Index:
        """The index of the works, with the projection of the others."""
        return index_of(self.clips, self.fitted)

    @cached_property
    def general(self) -> Search:
        """The search for what is alike in general, asked once for each window."""
        return cache(asking(self.index, self.clips))

    def resolved(self, *names: str) -> bool:
        """Say whether the probes found these aspects well enough to search by."""
        return all(self.aspects[name]["resolved"] for name in names)

    def plain(self, aspect: str) -> Search:
        """Return the plain cosine in the layer that knows an aspect best."""
        return cosine(self.clips.features[:, self.aspects[aspect]["layer"]])


def index_of(clips: Clips, fitted: Settings) -> Index:
    """Return the index of clips with the projection of a dataset."""
    rows = [
        Row.of(recording, start_s=start, end_s=start + fitted.window_s)
        for recording, start in zip(clips.recordings, clips.starts_s, strict=True)
    ]
    return build_index(
        clips.features,
        rows,
        kind="clips",
        projection=read_projection(fitted.layout.projection("clips")),
        aspects=read_json(fitted.layout.aspects),
        facts={"dataset": fitted.dataset},
    )


def prepare(settings: Settings, shared: Path, scale: Scale) -> None:
    """Make a corpus with its features and targets, as far as they are not there."""
    if settings.dataset == DEMO:
        if not settings.layout.demo_truth.exists():
            jobs.make_demo(settings)
        jobs.write_table(settings)
    elif settings.dataset == ASAP:
        render_pieces(asap_pieces(shared / "asap", works=scale.works), settings)
    else:
        render_pieces(planted_pieces(scale.works), settings)
    for part in [settings, *parts(settings, scale)]:
        extract_and_measure(part)


def fit(settings: Settings, scale: Scale) -> None:
    """Fit all that is asked: the whole corpus for passages, all but one fold for true values."""
    whole = [] if settings.dataset == PLANTED else [settings]
    for part in [*whole, *parts(settings, scale)]:
        fit_all(part)


def parts(settings: Settings, scale: Scale) -> list[Settings]:
    """Return the datasets that lack one fold of works each."""
    n_folds = scale.folds.get(settings.dataset, 0)
    folds = folds_of(Plan.read(settings).recordings, n_folds) if n_folds else {}
    return [without(settings, fold, folds) for fold in range(n_folds)]


def held_out(settings: Settings, scale: Scale) -> Iterator[Held]:
    """Give what is searched at a time: a fold of works; of planted ones, each alone.

    The dose of a planted recording says how it differs from others of its work, not of another.
    """
    clips = load_clips(settings)
    values = true_values(settings, clips)
    for part in parts(settings, scale):
        known = {recording.work_id for recording in Plan.read(part).recordings}
        left = [work for work in dict.fromkeys(clips.works) if work not in known]
        for works in [[work] for work in left] if settings.dataset == PLANTED else [left]:
            rows = [row for row, work in enumerate(clips.works) if work in works]
            yield Held(clips.of(rows), part, {name: each[rows] for name, each in values.items()})


def true_values(settings: Settings, clips: Clips) -> dict[str, Floats]:
    """Return what is true of all windows, in standard deviations, by aspect [n, q]."""
    if settings.dataset == PLANTED:
        doses = [planted_doses(recording) for recording in clips.recordings]
        found = {name: np.array([[dose[name]] for dose in doses], float) for name in DOSES}
        return {name: (each - each.mean()) / each.std() for name, each in found.items()}
    wanted = {name for pair in PAIRS[settings.dataset] for name in pair}
    return {
        name: measured(
            settings, clips.names, set(settings.targets) & set(ASPECT_REGISTRY[name].targets)
        )
        for name in sorted(wanted)
    }


def one_value(name: str, values: Floats) -> Floats:
    """Return how much of an aspect windows have [n]: the mean of all that is measured of it."""
    sign = ASPECT_REGISTRY[name].more
    assert sign, f"{name} has no direction"
    return np.asarray(sign * values.mean(axis=1))


def measure_passages(settings: Settings, scale: Scale) -> Facts:
    """Judge who finds the same passage by another player, and how hubby the index is."""
    clips = load_clips(settings)
    spans = spans_of(clips, settings.window_s)
    queries = choose_queries(clips.works, scale.queries[settings.dataset])
    judge = partial(judge_passages, clips=clips, spans=spans, queries=queries)
    layers = {
        str(layer): cosine(clips.features[:, layer]) for layer in range(clips.features.shape[1])
    }
    by_layer = judge(layers)
    best = max(layers, key=lambda layer: by_layer[layer]["mrr"].value)
    index = index_of(clips, settings)
    searches: dict[str, Search] = {
        PLAIN: layers[best],
        CENTRED: cosine(all_layers_centred(clips.features)),
        GENERAL_ONLY: cache(asking(index, clips)),
    }
    n = len(clips.recordings)
    near: dict[str, Search] = searches | {GENERAL_ONLY: asking(index, clips, k=K)}
    hubs = {name: judge_hubness(search, clips) for name, search in near.items()}
    return {
        "recordings": len(set(clips.names)),
        "works": len(set(clips.works)),
        "windows": n,
        "queries": len(queries),
        "best_layer": int(best),
        "corpus": jsonable(judge(searches)),
        "work": jsonable(judge(searches, of_work=True)),
        "hubness": jsonable({CHANCE: hubness_by_chance(n, K), **hubs}),
    }


def measure_distances(held: list[Held], dataset: str, scale: Scale) -> list[Facts]:
    """Judge, for each pair of aspects, who orders by the one and not by the other."""
    queries = scale.queries[dataset]
    return [
        {"x": x, "y": y, **_compare(partial(_distances, x=x, y=y, queries=queries), held, x)}
        for x, y in PAIRS[dataset]
    ]


def _distances(held: Held, *, x: str, y: str, queries: int) -> dict[str, list[Ordered]]:
    chosen = choose_queries(held.clips.works, queries)
    ask = partial(asking, held.index, held.clips)
    searches = {PLAIN: held.plain(x), GENERAL_ONLY: held.general}
    if held.resolved(y):
        searches[IGNORING] = ask(ignore=(y,))
    if held.resolved(x):
        searches[LIKE] = ask(like={x: 1.0})
    return {
        name: judge_distances(search, held.clips, held.values[x], held.values[y], chosen)
        for name, search in searches.items()
    }


def measure_more(held: list[Held], dataset: str, scale: Scale) -> list[Facts]:
    """Judge, for each aspect, whose hits have more of it, and how far the others drift."""
    return [
        {"x": x, **_compare(partial(_more, x=x, dataset=dataset, scale=scale), held, x)}
        for x in MORE[dataset]
    ]


def _more(held: Held, *, x: str, dataset: str, scale: Scale) -> dict[str, list[Grown]]:
    queries = choose_queries(held.clips.works, scale.queries[dataset])
    every = {
        name: values[:, 0] if dataset == PLANTED else one_value(name, values)
        for name, values in held.values.items()
        if name in MORE[dataset]
    }
    rest = np.array([values for name, values in every.items() if name != x])
    judge = partial(judge_more, clips=held.clips, value=every[x], rest=rest, queries=queries)
    found = {PLAIN: judge(held.plain(x))}
    if held.resolved(x):
        ask = partial(asking, held.index, held.clips, more={x: STRENGTH})
        found |= {
            MORE_OF: judge(ask(k=K)),
            MORE_GENERAL: judge(ask(k=K, like={GENERAL: 1.0})),
            QUALIFYING: judge(ask(), k=len(held.clips.starts_s)),
        }
    return found


def _compare(judge: Any, held: list[Held], x: str) -> Facts:
    """Judge all that is searched, and sum up by search; with the R2 of X where it was fitted."""
    found: dict[str, list[Any]] = {}
    for one in held:
        for name, results in judge(one).items():
            found.setdefault(name, []).extend(results)
    resolved = [one for one in held if one.resolved(x)]
    return {
        "r2": float(np.mean([one.aspects[x]["r2"] or 0.0 for one in held])),
        "resolved": len(resolved) / len(held),
        "systems": jsonable({name: summed_up(results) for name, results in found.items()}),
    }


def jsonable(figures: Any) -> Any:
    """Return named tuples as dicts, and what is undefined as None."""
    if isinstance(figures, dict):
        return {name: jsonable(each) for name, each in figures.items()}
    if isinstance(figures, tuple) and hasattr(figures, "_asdict"):
        return jsonable(figures._asdict())
    return None if figures != figures else figures


def measure(args: argparse.Namespace, scale: Scale) -> Facts:
    """Prepare and judge all corpora that there are."""
    facts: Facts = {}
    for dataset in corpora(args.data):
        settings = settings_of(dataset, args.work)
        began = time.monotonic()
        # In a process of its own: torch and FAISS never meet in one.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            pool.submit(prepare, settings, args.data, scale).result()
        fit(settings, scale)
        prepared = time.monotonic()
        found: Facts = {}
        if dataset != PLANTED:
            found["passages"] = measure_passages(settings, scale)
        if dataset in PAIRS:
            held = list(held_out(settings, scale))
            found["distances"] = measure_distances(held, dataset, scale)
            found["more"] = measure_more(held, dataset, scale)
        seconds = {"prepare": prepared - began, "judge": time.monotonic() - prepared}
        facts[dataset] = found | {"seconds": seconds}
    return facts


def corpora(shared: Path) -> list[str]:
    """Return the corpora that can be made."""
    if (shared / "asap").is_dir():
        return [DEMO, ASAP, PLANTED]
    print(f"{shared} has no asap: its rows are left out; give --data FOLDER", file=sys.stderr)
    return [DEMO, PLANTED]


def main() -> int:
    args = _arguments()
    scale = QUICK if args.quick else FULL
    facts = {"machine": machine(), "scale": asdict(scale), "corpora": measure(args, scale)}
    text = report(facts)
    print(f"\n{text}")
    if args.json:
        write_json(args.json, facts)
    if args.write:
        write_section(args.write, text, marker="search-quality")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search_quality")
    parser.add_argument("--quick", action="store_true", help="little of everything, to try it out")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there too")
    parser.add_argument(
        "--write", type=Path, metavar="FILE", help="put the tables between its markers"
    )
    parser.add_argument(
        "--work",
        type=Path,
        default=Path("data/benchmarks/search_quality"),
        metavar="FOLDER",
        help="for corpora and what is fitted on them, 1.7 GB (default: %(default)s)",
    )
    parser.add_argument(
        "--data",
        type=Path,
        default=Path("../shared/data"),
        metavar="FOLDER",
        help="with asap (default: %(default)s)",
    )
    args = parser.parse_args()
    if args.write and (args.quick or not (args.data / "asap").is_dir()):
        parser.error("--write takes a full run with asap: it replaces all tables")
    return args


if __name__ == "__main__":
    sys.exit(main())
