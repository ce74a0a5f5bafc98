"""Examples of retrieval, chosen by a rule and not by how well they look, with excerpts to hear.

The rule: up to five questions, each of another kind (see `choose_examples`). Question *i* of *n*
starts from the recording that is *(i - 1/2) / n* down the recording table, and where it asks for
passages, from that recording's middle window. Aspects are those that probing knows best: the first
two of the resolved ones by R2, and for "more" the first that has a direction. Passages of the
query's own work are left out where works are known.

Excerpts are mono MP3, which every browser plays (Ogg Vorbis is newer in some). Their level is not
changed, so that soft and loud can be compared.
"""

__all__ = [
    "HITS",
    "LONGEST_S",
    "Example",
    "Excerpt",
    "ask_examples",
    "choose_examples",
    "cut_excerpt",
    "cut_excerpts",
]

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mess_core.errors import AudioError
from mess_core.layout import INDEX_KINDS
from mess_core.probing.aspects import aspect_r2
from mess_core.recordings import Recording
from mess_core.search.query import Query

if TYPE_CHECKING:
    from mess_core.index.index import Index, Row
    from mess_core.search.search import Answer, Hit

#: Hits of each example.
HITS = 4
#: Seconds that an excerpt has at most, so that a page stays small.
LONGEST_S = 8.0

_RECORDINGS, _CLIPS = INDEX_KINDS

#: A passage: its recording, start and end in seconds.
Place = tuple[str, float, float]


@dataclass(frozen=True, slots=True)
class Example:
    """A question, before or after it was asked.

    It is asked of the index of one ``kind`` of `INDEX_KINDS`, and starts from the recording or
    passage of a ``row``.
    """

    title: str
    kind: str
    query: Query
    row: "Row"
    answer: "Answer | None" = None


@dataclass(frozen=True, slots=True)
class Excerpt:
    """A piece of audio as a ``data:audio/mpeg`` URI, or the reason why there is none."""

    start_s: float
    end_s: float
    uri: str = ""
    reason: str = ""


def choose_examples(recordings: "Index", clips: "Index") -> list[Example]:
    """Choose the questions by the rule of this module, for the indices of one dataset.

    Whole recordings in general; passages in general; passages by the best-known and by the
    second-best-known aspect; passages with more of an aspect. Those that need an aspect are left
    out where none is resolved (or has a direction).
    """
    from mess_core.search.search import directed

    known = clips.aspects.get("aspects", {})
    best = sorted(clips.projection.aspects, key=lambda name: -aspect_r2(known[name]))
    more = [name for name in best if name in directed(clips)]
    kinds: list[tuple[str, Index, dict[str, Any]]] = [
        ("Recordings alike in general", recordings, {}),
        ("Passages alike in general", clips, {}),
        *((f"Passages alike in {name}", clips, {"like": {name: 1.0}}) for name in best[:2]),
        *(
            (f"Close in everything else, with more {name}", clips, {"more": {name: 1.0}})
            for name in more[:1]
        ),
    ]
    names = list(clips.rows.numbers)
    return [
        _example(title, index, names[(2 * number + 1) * len(names) // (2 * len(kinds))], respects)
        for number, (title, index, respects) in enumerate(kinds)
    ]


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


def ask_examples(recordings: "Index", clips: "Index") -> list[Example]:
    """Choose the questions with `choose_examples`, and ask them."""
    from mess_core.search.search import search

    indices = {_RECORDINGS: recordings, _CLIPS: clips}
    return [
        replace(example, answer=search(indices[example.kind], example.query))
        for example in choose_examples(recordings, clips)
    ]


def cut_excerpts(
    examples: Iterable[Example], recordings: Sequence[Recording]
) -> dict[Place, Excerpt]:
    """Cut what the examples start from and find, each passage once."""
    files = {r.recording_id: r for r in recordings}
    excerpts: dict[Place, Excerpt] = {}
    for example in examples:
        heard: list[Row | Hit] = [example.row, *(example.answer.hits if example.answer else ())]
        for passage in heard:
            place = passage.recording_id, passage.start_s, passage.end_s
            if place not in excerpts:
                file = files[place[0]]
                sha256 = file.audio_sha256
                excerpts[place] = cut_excerpt(Path(file.audio), *place[1:], sha256=sha256)
    return excerpts


def cut_excerpt(path: Path, start_s: float, end_s: float, *, sha256: str = "") -> Excerpt:
    """Cut a passage, at most `LONGEST_S` of it, out of an audio file.

    Where `read_excerpt` raises, there is its reason instead of audio.
    """
    from mess_core.extraction.audio import encode_excerpt, read_excerpt

    end_s = min(end_s, start_s + LONGEST_S)
    try:
        samples, rate = read_excerpt(path, start_s, end_s, sha256=sha256)
    except AudioError as error:
        return Excerpt(start_s, end_s, reason=str(error))
    return Excerpt(start_s, end_s, uri=encode_excerpt(samples, rate))
