"""The benchmark of search in words and tables of Markdown."""

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

from benchmarks.search_jobs import COMPARED, FAISS, NUMPY, OURS

Facts = dict[str, Any]

#: A question takes at most this many times as long as FAISS alone, opening and a start so long.
RATIO, OPEN_S, START_S = 1.3, 1.0, 1.0


def million_text(facts: Facts) -> str:
    """Say what an exact index costs."""
    return _index_text(facts, "every vector is compared")


def codes_text(facts: Facts) -> str:
    """Say what an index with codes costs."""
    return _index_text(facts, "codes find candidates")


def _index_text(facts: Facts, how: str) -> str:
    built, asked, opened = facts["built"], facts["asked"], facts["opened"]
    first, again = (median(run[when]["open_s"] for run in opened) for when in ("first", "again"))
    memory, before = asked["mb"], asked["opened_mb"]
    lines = [
        f"**{facts['clips']:,} clips, `{built['factory']}` ({how}).** Built by FAISS in "
        f"{built['build_s']:.1f} s, saved in {built['save_s']:.1f} s ({built['file_mb']:.0f} MB; "
        f"peak memory {built['peak_gb']:.2f} GB, vectors included). Opened in {first:.2f} s with "
        f"every byte verified, in {again:.3f} s again (target {OPEN_S:g} s: "
        f"{_verdict(again <= OPEN_S)}). "
        f"Memory of the process: {before['RssAnon']:.0f} MB of its own when opened, "
        f"{memory['RssAnon']:.0f} MB after all questions, and {memory['RssFile']:.0f} MB of pages "
        "of files, which processes share and the system takes back when it needs them. Load "
        f"{_load(facts)}.",
        "",
    ]
    sides = [side for side in (OURS, FAISS, NUMPY) if side in asked["conditions"]["general"]]
    names = {OURS: "`search` ms", FAISS: "FAISS ms", NUMPY: "numpy ms"}
    head = ["question", *(names[side] for side in sides), "ratio to FAISS", "more than FAISS, ms"]
    rows = []
    for name, found in asked["conditions"].items():
        ms = [median(found[side]) for side in sides]
        added = median(a - b for a, b in zip(found[OURS], found[FAISS], strict=True))
        rows.append(
            [name, *(f"{value:.1f}" for value in ms), f"{ms[0] / ms[1]:.2f}", f"{added:.1f}"]
        )
    plain = [float(row[-2]) for row in rows[:4]]
    return "\n".join(
        [
            *lines,
            *table(head, rows),
            "",
            f"Target: without conditions at most {RATIO} times FAISS's own search "
            f"({_verdict(max(plain) <= RATIO)}). `search` makes the query's vector, asks FAISS, "
            "computes contributions in float64, breaks ties, and names ten hits.",
        ]
    )


def factories_text(facts: Facts) -> str:
    """Compare factories."""
    lines = [
        "**What FAISS's factories find** of the exact ten hits (*recall*), how much lower those "
        "that are found score (*loss*, in brackets from 0.0005 on; unrelated clips score 0, equal "
        "ones 1), and ms, by what is weighted. Random weights are uniform over all that sum "
        f"to 1. Load {_load(facts)}.",
        "",
    ]
    head = ["clips", "factory", "candidates", "cells", "bytes a clip", "made in s", *COMPARED, "ms"]
    rows = [
        [
            f"{compared['clips'] / 1e6:g} M",
            f"`{found['factory']}`",
            f"{found['candidates'] or '-'}",
            f"{found['cells'] or '-'}",
            f"{found['bytes']}",
            f"{found['train_s']:.0f}",
            *(_found(found["kinds"][kind]) for kind in COMPARED),
            f"{median(found['kinds'][kind]['ms'] for kind in COMPARED):.1f}",
        ]
        for compared in facts["compared"]
        for found in compared["found"]
    ]
    return "\n".join([*lines, *table(head, rows)])


def _found(facts: Facts) -> str:
    loss = facts["loss"]
    return f"{facts['recall']:.2f}" + (f" (-{loss:.3f})" if loss >= 0.0005 else "")


def start_text(facts: Facts) -> str:
    """Say how long a start takes."""
    first, again = (
        median(run[when]["answer_s"] for run in facts["runs"]) for when in ("first", "again")
    )
    return (
        f"**A new interpreter, {facts['clips']:,} clips**: from its start over `import mess_core` "
        f"and opening to the first answer {first:.2f} s with every byte verified, {again:.2f} s "
        f"again (target {START_S:g} s: {_verdict(first <= START_S)}; median of "
        f"{len(facts['runs'])}, load {_load(facts)})."
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table of Markdown."""
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def _load(facts: Facts) -> str:
    return " to ".join(f"{facts['load'][when][0]:.1f}" for when in ("before", "after"))


def _verdict(reached: bool) -> str:
    return "reached" if reached else "MISSED"
