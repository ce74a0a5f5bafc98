"""The section about the index and the run: what was made, how, and what it cost."""

__all__ = ["facts_section"]

from typing import Any

from mess_core.report.findings import Findings
from mess_core.report.markup import Html, join, table, tag
from mess_core.report.wording import Section, details, duration

#: Recordings with problems that are listed; the table has all.
_LISTED = 20


def facts_section(findings: Findings) -> Section:
    """Show what was indexed, how it was made, and what it cost."""
    parts = [_encoder_facts(findings), _index_table(findings), _settings_text(findings)]
    parts += [_problems(findings), _costs(findings), _versions(findings)]
    return Section("facts", "Index and run", join(parts))


def _encoder_facts(findings: Findings) -> Html:
    encoder = findings.encoder
    rows = [
        ["dataset", findings.dataset],
        ["licence of the audio", findings.licence],
        ["encoder", f"{encoder['name']}, {'trained' if encoder['trained'] else 'untrained'}"],
        ["weights (SHA-256)", tag("code", str(encoder.get("weights_sha256") or "-"))],
        ["revision", str(encoder.get("revision") or "-")],
        ["licence of the weights", str(encoder.get("licence") or "-")],
        ["precision", str(encoder.get("precision") or "-")],
    ]
    return table(("fact", "value"), rows, caption="What was embedded, by what.")


def _index_table(findings: Findings) -> Html:
    rows = [
        [
            str(index["kind"]),
            tag("code", str(index["version"])[:16]),
            "exact" if index["exact"] else "compressed",
            str(index["factory"]),
            f"{index['rows']:,}",
            str(index["width"]),
            f"{index['bytes'] / 1e6:.1f} MB",
        ]
        for index in findings.indices
    ]
    headings = ("index of", "version", "search", "FAISS factory", "rows", "numbers per row")
    caption = "The index artifacts. A version is the hash of its content (first 16 digits)."
    return table((*headings, "size"), rows, caption=caption, numbers=3)


def _settings_text(findings: Findings) -> Html:
    numbers = ", ".join(f"{name} {number}" for name, number in findings.stages.items())
    stage = tag("p", f"Versions of the stages: {numbers}.", class_="note")
    if not findings.changed:
        return join([tag("p", "All settings that results depend on have their defaults."), stage])
    rows = [[name, tag("code", _setting(value))] for name, value in findings.changed.items()]
    caption = "Settings that results depend on and that are not the default."
    return join([table(("setting", "value"), rows, caption=caption), stage])


def _setting(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _problems(findings: Findings) -> Html:
    problems = findings.problems
    if not problems:
        return tag("p", "No recording had a problem.")
    more = len(problems) - _LISTED
    rows = [[r.recording_id, r.status, r.reason] for r in problems[:_LISTED]]
    caption = f"{len(problems)} recordings had problems"
    caption += f"; {more} more are in the dataset's problems.tsv." if more > 0 else "."
    return table(("recording", "status", "reason"), rows, caption=caption)


def _costs(findings: Findings) -> Html:
    if not findings.costs:
        return tag("p", "There are no benchmark files: time and memory are not known.")
    rows = [
        [
            str(cost["rule"]),
            f"{cost['jobs']:,}",
            duration(cost["seconds"]),
            f"{cost['memory_mb']:,.0f} MB" if cost["memory_mb"] >= 1 else "-",
        ]
        for cost in findings.costs
    ]
    caption = "Time of all jobs together and memory of the largest, each job's last run, as "
    caption += (
        "Snakemake had measured it when this page was made. Jobs run side by side; memory is "
    )
    caption += "looked at from time to time, so that of jobs of a few seconds may be missed."
    listed = table(("rule", "jobs", "time", "memory"), rows, caption=caption, numbers=3)
    return details("Time and memory of the rules", listed)


def _versions(findings: Findings) -> Html:
    rows = [[name, number] for name, number in findings.versions.items()]
    listed = table(("package", "version"), rows, caption="Installed when this page was made.")
    return details("Versions of packages", listed)
