"""Examples of retrieval, chosen by a rule and not by how well they look.

The rule: up to five questions, each of another kind (see `choose_examples`). Question *i* of *n*
starts from the recording that is *(i - 1/2) / n* down the recording table, and where it asks for
passages, from that recording's middle window. Aspects are those that probing knows best: the first
two of the resolved ones by R2, and for "more" the first that has a direction. Hits of the query's
own work are left out of the passages where works are known.
"""

__all__ = ["HITS", "Example", "ask_examples", "choose_examples", "command"]

import shlex
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mess_core.layout import INDEX_KINDS
from mess_core.search.query import Query

if TYPE_CHECKING:
    from mess_core.index.index import Index, Row
    from mess_core.search.search import Answer

#: Hits of each example.
HITS = 4

_RECORDINGS, _CLIPS = INDEX_KINDS


@dataclass(frozen=True, slots=True)
class Example:
    """A question, before or after it was asked.

    Attributes
    ----------
    title : str
        What is asked, in a few words.
    kind : str
        The kind of index that it is asked of, one of `INDEX_KINDS`.
    query : Query
        The question.
    row : Row
        The recording or passage that it starts from.
    answer : Answer or None
        What the index says.
    """

    title: str
    kind: str
    query: Query
    row: "Row"
    answer: "Answer | None" = None


def choose_examples(recordings: "Index", clips: "Index") -> list[Example]:
    """Choose the questions by the rule of this module.

    Parameters
    ----------
    recordings, clips : Index
        The indices of one dataset.

    Returns
    -------
    list of Example
        Whole recordings in general; passages in general; passages by the best-known and by the
        second-best-known aspect; passages with more of an aspect. Those that need an aspect are
        left out where none is resolved (or has a direction).
    """
    from mess_core.search.search import directed

    best = _best_known(clips)
    kinds: list[tuple[str, str, dict[str, Any]]] = [
        ("Recordings alike in general", _RECORDINGS, {}),
        ("Passages alike in general", _CLIPS, {}),
        *((f"Passages alike in {name}", _CLIPS, {"like": {name: 1.0}}) for name in best[:2]),
        *(
            (f"Close in everything else, with more {name}", _CLIPS, {"more": {name: 1.0}})
            for name in [name for name in best if name in directed(clips)][:1]
        ),
    ]
    names = list(clips.rows.numbers)
    return [
        _example(
            title,
            recordings if kind == _RECORDINGS else clips,
            names[(2 * number + 1) * len(names) // (2 * len(kinds))],
            respects,
        )
        for number, (title, kind, respects) in enumerate(kinds)
    ]


def ask_examples(recordings: "Index", clips: "Index") -> list[Example]:
    """Choose the questions, and ask them.

    Parameters
    ----------
    recordings, clips : Index
        The indices of one dataset.

    Returns
    -------
    list of Example
        With their answers.
    """
    from mess_core.search.search import search

    indices = {_RECORDINGS: recordings, _CLIPS: clips}
    return [
        replace(example, answer=search(indices[example.kind], example.query))
        for example in choose_examples(recordings, clips)
    ]


def _best_known(index: "Index") -> list[str]:
    known = index.aspects.get("aspects", {})
    return sorted(index.projection.aspects, key=lambda name: -known[name]["r2"])


def _example(title: str, index: "Index", recording_id: str, respects: dict[str, Any]) -> Example:
    positions = index.rows.positions(recording_id)
    row = index.rows[int(positions[len(positions) // 2])]
    if index.kind == _RECORDINGS:
        query = Query(recording_id, k=HITS, exclude="recording")
    else:
        query = Query(
            recording_id,
            row.start_s,
            row.end_s,
            **respects,
            k=HITS,
            exclude="work" if row.work_id else "recording",
            # Windows overlap: of neighbours the best is enough.
            dedupe_s=row.end_s - row.start_s,
        )
    return Example(title, index.kind, query, row)


def command(example: Example, dataset: str) -> str:
    """Return the question as a command line that asks the published index the same."""
    query = example.query
    parts = ["mess", "search", "--dataset", dataset, "--recording", str(query.recording_id)]
    if query.start_s is not None:
        parts += ["--from", f"{query.start_s:g}", "--to", f"{query.end_s:g}"]
    for option in ("like", "more"):
        for name, weight in getattr(query, option).items():
            parts += [f"--{option}", name if weight == 1 else f"{name}={weight:g}"]
    parts += ["--exclude", query.exclude, "-k", str(query.k)]
    if query.dedupe_s:
        parts += ["--dedupe", f"{query.dedupe_s:g}"]
    return shlex.join(parts)
