"""The section of retrieval examples: questions and their hits, to hear."""

__all__ = ["examples_section"]

from typing import Any

from mess_core.layout import INDEX_KINDS
from mess_core.report.examples import Example, command
from mess_core.report.findings import Findings
from mess_core.report.markup import Html, join, tag
from mess_core.report.wording import Section, clock, duration

_GENERAL_ONLY = " No aspect is known well enough to be searched by, so all questions are general."


def examples_section(findings: Findings) -> Section:
    """Show questions with their hits, to hear."""
    if not findings.examples:
        return Section("examples", "Retrieval examples", tag("p", "No question could be asked."))
    with_aspect = any(example.query.aspects for example in findings.examples)
    intro = tag(
        "p",
        "The questions are chosen by a rule, not by how good they look: recordings at equal steps "
        "down the recording table, of each the middle window, and the aspects that are known best. "
        "A score is 1 for what is equal in all that was asked for and 0 on average for what has "
        "nothing to do with it. Excerpts are mono, their level unchanged; licence of the audio: "
        f"{findings.licence}.",
        "" if with_aspect else _GENERAL_ONLY,
    )
    return Section(
        "examples",
        "Retrieval examples",
        join([intro, *(_example(findings, example) for example in findings.examples)]),
    )


def _example(findings: Findings, example: Example) -> Html:
    answer = example.answer
    hits = answer.hits if answer else ()
    found = (
        tag("li", *_passage(findings, example, hit, rank)) for rank, hit in enumerate(hits, start=1)
    )
    return tag(
        "article",
        tag("h3", example.title),
        tag("div", *_passage(findings, example, example.row), class_="query"),
        tag("p", _respects(example), class_="note"),
        tag("ol", *found, class_="hits") if hits else "",
        *(tag("p", note) for note in (answer.notes if answer else ())),
        tag("p", tag("code", command(example, findings.dataset)), class_="note"),
    )


def _respects(example: Example) -> str:
    """Say how the hits are scored and which are left out."""
    query = example.query
    many = len(example.answer.hits) if example.answer else 0
    if query.more:
        asked = " and ".join(f"{name} by {n:g} standard error" for name, n in query.more.items())
        told = f"Of those with more {asked} of the probe, the {many} closest in everything else."
    elif query.like:
        told = f"The {many} closest in {' and '.join(query.like)}."
    else:
        told = f"The {many} closest in general."
    left = {
        "work": " Recordings of the same work are left out.",
        "recording": " The recording itself is left out.",
        "none": "",
    }
    return told + left[query.exclude]


def _passage(
    findings: Findings, example: Example, passage: Any, rank: int | None = None
) -> list[Html]:
    """Return what a query (a `Row`) or a hit is, and how it sounds."""
    head = "Query" if rank is None else f"{rank}."
    who = ", ".join(filter(None, (passage.composer, passage.title, passage.performer)))
    lines = [
        tag("p", tag("strong", f"{head} {passage.recording_id}"), *_score(passage, rank)),
        tag("p", ", ".join(filter(None, (who, _times(example.kind, passage)))), class_="note"),
    ]
    if rank is not None and len(passage.contributions) > 1:
        lines.append(tag("p", _parts(passage), class_="note"))
    return [*lines, _audio(findings, passage)]


def _score(passage: Any, rank: int | None) -> tuple[str, ...]:
    return () if rank is None else (" ", tag("span", f"{passage.score:.3f}", class_="score"))


def _parts(hit: Any) -> str:
    return "of which " + ", ".join(
        f"{name} {part:+.3f}" for name, part in hit.contributions.items()
    )


def _times(kind: str, passage: Any) -> str:
    if kind == INDEX_KINDS[0]:
        return f"whole recording, {duration(passage.end_s)}"
    return f"{clock(passage.start_s)} to {clock(passage.end_s)}"


def _audio(findings: Findings, passage: Any) -> Html:
    excerpt = findings.excerpts[passage.recording_id, passage.start_s, passage.end_s]
    if excerpt.reason:
        return tag("p", f"Not to be heard here: {excerpt.reason}.", class_="note")
    heard = f"{clock(excerpt.start_s)} to {clock(excerpt.end_s)}"
    cut = excerpt.end_s < passage.end_s
    player = tag(
        "audio",
        controls=True,
        preload="none",
        src=excerpt.uri,
        aria_label=f"{passage.recording_id}, {heard}",
    )
    return join([player, tag("p", f"To be heard: {heard}.", class_="note") if cut else ""])
