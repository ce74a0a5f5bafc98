"""What `benchmarks.search_quality` found, as Markdown."""

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.markdown import table, two

Facts = Mapping[str, Any]
Lines = Iterator[list[str]]


def report(facts: Facts) -> str:
    """Return all tables."""
    corpora = facts["corpora"]
    with_passages = {
        name: found["passages"] for name, found in corpora.items() if "passages" in found
    }
    judged = {name: found for name, found in corpora.items() if "more" in found}
    return "\n".join(
        [
            *_passages_text(with_passages),
            *_distances_text(judged),
            *_more_text(judged),
            *_hubness_text(with_passages),
        ]
    )


def _passages_text(corpora: Facts) -> list[str]:
    layers = ", ".join(f"{found['best_layer']} on {name}" for name, found in corpora.items())
    sizes = "; ".join(
        f"{name}: {found['windows']} windows of {found['recordings']} recordings of "
        f"{found['works']} works, {found['queries']} queries"
        for name, found in corpora.items()
    )
    return [
        f"**The same passage by another player.** {sizes} of 5 s "
        "each, against all other recordings, or against those of the same work. Right is what "
        "shares at least half of its beats with the query. Share of queries with a right answer "
        "first, among the first 10, and mean of 1 / its rank; mean of works with its 95 % "
        "bootstrap interval over works. The best layer is the best on these very queries "
        f"({layers}), which favours it. **The encoder is untrained.**",
        "",
        *table(
            ["corpus", "searched", "search", "recall@1", "recall@10", "MRR"],
            list(_passage_rows(corpora)),
        ),
    ]


def _passage_rows(corpora: Facts) -> Lines:
    for corpus, found in corpora.items():
        for scope, label in (("corpus", "all"), ("work", "same work")):
            for system, figures in found[scope].items():
                cells = [mean(figures[field]) for field in ("recall_1", "recall_10", "mrr")]
                yield [corpus, label, system, *cells]


def _distances_text(corpora: Facts) -> list[str]:
    return [
        "**Like in X, but not in Y.** Of each query, the Spearman correlation of the distances "
        "found to all candidates with the true distances in X, given those in Y, and the leak: "
        "with those in Y, given those in X. Chance is 0. R² is how well the aspect is predicted "
        "within works where it was fitted (cross-validated), which is on other works than those "
        "that are searched. An aspect that no layer predicts with an R² of 0.1 cannot be asked for "
        "or ignored, and has no row. Asked by X alone, there is nothing of Y to ignore.",
        "",
        *table(
            ["corpus", "X", "R² of X", "Y", "search", "X given Y", "leak: Y given X", "works"],
            list(_distance_rows(corpora)),
        ),
    ]


def _distance_rows(corpora: Facts) -> Lines:
    for corpus, found in corpora.items():
        for row in found["distances"]:
            for system, figures in row["systems"].items():
                cells = [mean(figures[field]) for field in ("wanted", "leak")]
                cells.append(str(figures["wanted"]["groups"]))
                yield [corpus, row["x"], two(row["r2"]), row["y"], system, *cells]


def _more_text(corpora: Facts) -> list[str]:
    return [
        "**More of X.** Share of the first 10 hits that truly have more of X than the query, and "
        "how far the other aspects of this table lie from the query's, in standard deviations "
        "(mean absolute difference). Chance is all candidates of the same queries: those that got "
        "an answer. `more X` asks for one standard error of the probe, the general block and all "
        "other aspects staying close by equal weights; it was one of seven weightings tried on "
        "these works, so its drift is no independent test. `like in general only` gives the other "
        "aspects no weight; `all that qualify` are the windows whose predicted X is that much "
        "higher, in any order. Queries that no candidate truly exceeds are left out.",
        "",
        *table(
            [
                *("corpus", "X", "R² of X", "search", "with more", "chance", "drift", "chance"),
                *("no answer", "works"),
            ],
            list(_more_rows(corpora)),
        ),
    ]


def _more_rows(corpora: Facts) -> Lines:
    for corpus, found in corpora.items():
        for row in found["more"]:
            for system, figures in row["systems"].items():
                yield [
                    *(corpus, row["x"], two(row["r2"]), system),
                    *(mean(figures["share"]), two(figures["share_by_chance"]["value"])),
                    *(mean(figures["drift"]), two(figures["drift_by_chance"]["value"])),
                    *(two(figures["unanswered"]["value"]), str(figures["unanswered"]["groups"])),
                ]


def _hubness_text(corpora: Facts) -> list[str]:
    return [
        "**Hubness.** In how many lists of the 10 nearest (in other recordings) each window is: "
        "skewness of that number, share of windows that are in none, and the largest.",
        "",
        *table(["corpus", "search", "skewness", "in no list", "largest"], list(_hub_rows(corpora))),
    ]


def _hub_rows(corpora: Facts) -> Lines:
    for corpus, found in corpora.items():
        for system, hubs in found["hubness"].items():
            largest = hubs["largest"]
            cells = [two(hubs["skewness"]), two(hubs["antihubs"])]
            yield [corpus, system, *cells, "" if largest is None else f"{largest:.0f}"]


def mean(figure: Facts) -> str:
    """Write a mean with its interval."""
    if figure["value"] is None:
        return "-"
    return f"{two(figure['value'])} ({two(figure['low'])} to {two(figure['high'])})"
