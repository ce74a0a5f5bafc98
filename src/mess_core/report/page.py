"""The report as pages that need nothing but themselves: no network, no script, no other file."""

__all__ = ["render_pages"]

from collections.abc import Sequence
from pathlib import Path

from mess_core.layout import PAGES
from mess_core.report.aspect_table import aspects_section
from mess_core.report.findings import Findings
from mess_core.report.listening import examples_section
from mess_core.report.markup import Html, join, tag
from mess_core.report.run_facts import facts_section
from mess_core.report.sections import (
    figure_section,
    layers_section,
    summary_section,
    untrained_warning,
    validity_section,
)
from mess_core.report.wording import Section

# The browser is told to load nothing from anywhere and to run nothing.
_POLICY = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'"


def render_pages(findings: Findings) -> dict[str, str]:
    """Write the report.

    Parameters
    ----------
    findings : Findings
        From `mess_core.report.findings.gather_findings`.

    Returns
    -------
    dict of str to str
        HTML of `mess_core.layout.PAGES`: ``report`` has all sections, the others one each.
    """
    aspects, examples = aspects_section(findings), examples_section(findings)
    facts = facts_section(findings)
    everything = [
        summary_section(findings),
        aspects,
        layers_section(findings),
        examples,
        validity_section(findings),
        *(figure_section(findings, name) for name in ("stability", "separability", "collapse")),
        facts,
    ]
    contents: Sequence[Sequence[Section]] = (everything, [aspects], [examples], [facts])
    return {name: _page(findings, sections) for name, sections in zip(PAGES, contents, strict=True)}


def _page(findings: Findings, sections: Sequence[Section]) -> str:
    title = f"{findings.dataset}: {sections[0].title}"
    if len(sections) > 1:
        title = f"Music similarity in {findings.dataset}"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("title", title),
        tag("style", Html(Path(__file__).with_name("page.css").read_text(encoding="utf-8"))),
    )
    body = tag(
        "body",
        tag("header", tag("h1", title), tag("p", _made(findings), class_="made")),
        untrained_warning(findings.encoder),
        _contents(sections) if len(sections) > 1 else "",
        tag("main", *(_section(section) for section in sections)),
        tag("footer", tag("p", "Made by MESS. This page needs no network and no other file.")),
    )
    return "<!doctype html>\n" + tag("html", head, body, lang="en") + "\n"


def _made(findings: Findings) -> str:
    state = "" if findings.encoder["trained"] else " (untrained)"
    encoder = f"{findings.encoder['name']}{state}"
    return f"Dataset {findings.dataset}, encoder {encoder}. Made {findings.made}."


def _contents(sections: Sequence[Section]) -> Html:
    entries = (tag("li", tag("a", s.title, href=f"#{s.id}")) for s in sections)
    return tag("nav", tag("ol", *entries), aria_label="Contents")


def _section(section: Section) -> Html:
    heading = tag("h2", section.title, id=f"{section.id}-title")
    return tag(
        "section",
        join([heading, section.body]),
        id=section.id,
        aria_labelledby=f"{section.id}-title",
    )
