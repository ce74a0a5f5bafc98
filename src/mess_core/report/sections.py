"""The sections about what probing found and about the targets, from tables and pictures."""

__all__ = [
    "figure_section",
    "layers_section",
    "summary_section",
    "untrained_warning",
    "validity_section",
]

from collections.abc import Mapping, Sequence
from typing import Any

from mess_core.probing.results import confidence
from mess_core.report.findings import Findings
from mess_core.report.markup import Html, join, picture, table, tag
from mess_core.report.wording import Section, details, duration, listed, two


def untrained_warning(encoder: Mapping[str, Any]) -> Html:
    """Return what must be read first where the encoder is not trained; else nothing."""
    if encoder["trained"]:
        return Html("")
    return tag(
        "div",
        tag("strong", "This encoder is untrained."),
        f" {encoder['name']} has random weights. Everything on this page shows that the chain "
        "works; it says nothing about what a trained model knows of music.",
        class_="warning",
        role="note",
    )


def summary_section(findings: Findings) -> Section:
    """Say in a few numbers what was run and found."""
    corpus, known = findings.corpus, findings.aspects["aspects"]
    resolved = [name for name, aspect in known.items() if aspect["resolved"]]
    validated = [name for name in resolved if known[name]["validated"]]
    facts = {
        "recordings": f"{corpus['recordings']:,.0f}",
        "works": f"{corpus['works']:,.0f}",
        "of sound": duration(corpus["hours"] * 3600),
        "windows": f"{corpus['windows']:,.0f}",
        "targets probed": str(len(findings.layers)),
        "aspects to search by": f"{len(resolved)} of {len(known)}",
    }
    tiles = (tag("div", tag("dt", name), tag("dd", value)) for name, value in facts.items())
    limit = findings.aspects["min_r2"]
    told = (
        f"{len(resolved)} of {len(known)} aspects reach an R² of {limit:g} within works (of what "
        "differs between passages of one work, the share that a layer predicts without having "
        f"heard the work) and can be searched by{listed(resolved)}. "
    )
    sure = (
        f"Of these {len(validated)} are validated, which means known better than by an untrained "
        f"encoder of the same shape{listed(validated)}."
    )
    if not findings.encoder["trained"]:
        sure += " (Here that is another random encoder.)"
    return Section(
        "summary",
        "In short",
        join([tag("dl", *tiles, class_="facts"), tag("p", told, sure if resolved else "")]),
    )


def layers_section(findings: Findings) -> Section:
    """Show which layer knows which target, as a picture and as a table."""
    rows = findings.layers
    probed = [row for row in rows if row["best_layer"]]
    best = sorted(probed, key=lambda row: -float(row[row["measure"]]))[:3]
    told = "; ".join(
        f"{row['target']} {float(row[row['measure']]):.2f} in layer {row['best_layer']}"
        for row in best
    )
    figure = picture(
        findings.pictures["layers"],
        alt=f"Heat map of R² within works for {len(rows)} targets (rows) by layer (columns). "
        f"The highest: {told or 'none could be probed'}. The table below has all numbers.",
        caption="R² of ridge probes within works, on works that they have not heard: 0 is no "
        "better than each work's mean, 1 is perfect. Bold: the 95 % interval lies above 0. Thick "
        "outline: the best layer; thin: the layers that are best with 95 % probability together. "
        "On the right: confidence (high above 0.8, medium above 0.5), the interval (bootstrap over "
        "works), and what the baselines reach.",
    )
    cells = [_layer_cells(row) for row in rows]
    headings = ("target", "category", "confidence", "layer", "may be as good", "R²", "95 %")
    numbers = table(
        (*headings, "untrained", "descriptors", "p"),
        cells,
        caption="Best layer of every target. R² is that within works, or pooled (marked *) where "
        "no work has rows that differ. p is corrected over layers.",
        numbers=5,
    )
    return Section(
        "layers", "Which layer knows what", join([figure, details("All numbers", numbers)])
    )


def _layer_cells(row: Mapping[str, str]) -> list[str]:
    measure = row["measure"]
    r2 = float(row[measure]) if measure else None
    pooled = " *" if measure == "r2" else ""
    interval = f"{two(row['r2_lo'])} to {two(row['r2_hi'])}" if row["r2_lo"] else "-"
    return [
        join([row["target"], tag("small", row["reason"] or row["caution"])]),
        row["category"],
        confidence(r2) if measure else "-",
        row["best_layer"] or "-",
        row["best_layers"].replace(",", ", ") or "-",
        f"{two(row[measure])}{pooled}" if measure else "-",
        interval,
        two(row.get("untrained", "")),
        two(row.get("descriptors", "")),
        f"{float(row['p']):.3f}" if row["p"] else "-",
    ]


def validity_section(findings: Findings) -> Section:
    """Show whether targets measure what they say."""
    rows = findings.validity
    parameters = [
        name.removeprefix("of_") for name in (rows[0] if rows else ()) if name.startswith("of_")
    ]
    with_midi = [row for row in rows if row["midi_r"]]
    own = [row for row in rows if row["own"] in parameters and row[f"of_{row['own']}"]]
    alt = f"Validity of {len(rows)} targets: share of rows that have each, and share of its "
    alt += "variance within works"
    if with_midi:
        alt += "; agreement with MIDI: "
        alt += ", ".join(f"{row['target']} {two(row['midi_r'])}" for row in with_midi)
    if own:
        alt += "; correlation with its own parameter: "
        alt += ", ".join(f"{r['target']} {two(r['of_' + r['own']])} ({r['own']})" for r in own)
    caption = (
        "Measured from this run's data. Left: the share of the probed rows that have the target, "
        "and the share of its variance that is left when each work's mean is taken away (none left "
        "means that it cannot tell players apart). "
    )
    caption += (
        "Middle: Spearman correlation of what is heard in the audio with the MIDI target of the "
        "same meaning, over the rows of each work, mean of the works. "
        if with_midi
        else "No recording has the MIDI to compare with. "
    )
    if parameters:
        caption += (
            "Right: Spearman correlation of the recordings' targets with the parameters that the "
            "demo's interpretations were made with, within works. All parameters change from one "
            "interpretation to the next, so one may stand for another: the block on top shows how "
            "far they go together. docs/targets.md has the tests in which one changes at a time."
        )
    figure = picture(findings.pictures["validity"], alt=alt + ".", caption=caption)
    numbers = table(
        ("target", "partner in MIDI", "own parameter", "rows", "defined", "within works")
        + (("audio with MIDI", "95 %", "own") if with_midi or own else ()),
        [_validity_cells(row, parameters, full=bool(with_midi or own)) for row in rows],
        caption="The same as numbers.",
        numbers=6 if with_midi or own else 3,
    )
    body = join([figure, details("All numbers", numbers)])
    return Section("validity", "Validity of the targets", body)


def _validity_cells(row: Mapping[str, str], parameters: Sequence[str], *, full: bool) -> list[str]:
    interval = f"{two(row['midi_lo'])} to {two(row['midi_hi'])}" if row["midi_lo"] else "-"
    own = row["own"] if row["own"] in parameters else ""
    compared = [two(row["midi_r"]), interval, two(row[f"of_{own}"]) if own else "-"]
    return [
        row["target"],
        row["midi"] or "-",
        own or "-",
        row["n_rows"],
        two(row["defined"]),
        two(row["within_works"]),
        *(compared if full else ()),
    ]


#: Per picture of probing its title, what it shows, and how it is read.
_FIGURES = {
    "stability": (
        "How stable it is over folds",
        "Dots: the R² of each target's best layer in every fold, its overall R² as a bar; on the "
        "right Kendall's W of the layers' ranking over folds.",
        "Every fold is judged on works of its own. W is 1 where every fold ranks the layers alike "
        "and 0 where they have nothing in common.",
    ),
    "separability": (
        "Which aspects can be told apart",
        "Three matrices of aspects by aspects: the share of R² that is left when another aspect is "
        "erased, the correlation of their targets, and the angle between what probes read.",
        "On top: the share of an aspect's (row) R² that is left when another (column) is erased "
        "from the features; both are learned on the training folds and judged on works that were "
        "not heard. Little left, and targets that do not go together in the music: the layer "
        "entangles them.",
    ),
    "collapse": (
        "Whether the features have collapsed",
        "Three line plots over layers: effective rank, share of variance within works, and "
        "likeness (linear CKA) to an untrained encoder and to plain descriptors.",
        "A low rank means that rows fill few directions; little variance within works that the "
        "recordings of a work are hard to tell apart.",
    ),
}


def figure_section(findings: Findings, name: str) -> Section:
    """Show the picture that answers one question of probing."""
    title, alt, caption = _FIGURES[name]
    return Section(name, title, picture(findings.pictures[name], alt=alt, caption=caption))
