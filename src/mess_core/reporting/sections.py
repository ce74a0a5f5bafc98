"""The sections of the report, from what was found to HTML."""

__all__ = [
    "Section",
    "aspects_section",
    "examples_section",
    "facts_section",
    "figure_section",
    "layers_section",
    "summary_section",
    "untrained_warning",
    "validity_section",
]

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from mess_core.probing.aspects import ASPECT_REGISTRY
from mess_core.probing.results import confidence
from mess_core.reporting.examples import Example, command
from mess_core.reporting.findings import Findings
from mess_core.reporting.markup import Html, join, picture, table, tag

if TYPE_CHECKING:
    from mess_core.artifacts.index import Row
    from mess_core.search.searching import Hit

#: Recordings with problems that are listed; the table has all.
_LISTED = 20

#: The axis of R2 in the aspect table: values outside stand at its ends. Pixels.
_LOWEST, _HIGHEST, _AXIS, _HEIGHT = -0.5, 1.0, 190, 22


class Section(NamedTuple):
    """A part of the page."""

    id: str
    title: str
    body: Html


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
        "of sound": _duration(corpus["hours"] * 3600),
        "windows": f"{corpus['windows']:,.0f}",
        "targets probed": str(len(findings.layers)),
        "aspects to search by": f"{len(resolved)} of {len(known)}",
    }
    tiles = (tag("div", tag("dt", name), tag("dd", value)) for name, value in facts.items())
    limit = findings.aspects["min_r2"]
    told = (
        f"{len(resolved)} of {len(known)} aspects reach an R² of {limit:g} within works and can be "
        f"searched by{_listed(resolved)}. "
    )
    sure = (
        f"Of these {len(validated)} are validated, which means known better than by an untrained "
        f"encoder of the same shape{_listed(validated)}."
    )
    return Section(
        "summary",
        "In short",
        join([tag("dl", *tiles, class_="facts"), tag("p", told, sure if resolved else "")]),
    )


def aspects_section(findings: Findings) -> Section:
    """Show what can be searched by, and how well it is known."""
    limit = findings.aspects["min_r2"]
    known = findings.aspects["aspects"]
    order = sorted(known, key=lambda a: (not known[a]["resolved"], -(known[a]["r2"] or 0)))
    rows = [_aspect_row(name, known[name], limit) for name in order]
    caption = (
        f"Searchable: R² within works of at least {limit:g}, with the layer where it is highest. "
        "Dot: R² of ridge probes on works that they have not heard, mean of the aspect's targets "
        "(negative ones count as 0). Line: 95 % interval, bootstrap over works; negative R² count "
        "in it as they are, so it may lie below the dot. Orange tick: what an untrained encoder of "
        "the same shape reaches. Validated: the interval lies above that. Dotted: the limit. The "
        "axis goes from -0.5 to 1, and values beyond stand at its ends."
    )
    headings = ("aspect", "searchable", "layer", "R² within works", "validated")
    body = table((*headings, "best layer of each target", "finding"), rows, caption=caption)
    return Section("aspects", "Aspects", body)


def _aspect_row(name: str, aspect: Mapping[str, Any], limit: float) -> list[str]:
    registered = ASPECT_REGISTRY.get(name)
    about = registered.description if registered else ""
    targets = "; ".join(
        f"{target} {entry['r2']:.2f} (layer {entry['layer']})"
        for target, entry in aspect["targets"].items()
    )
    missing = f"; without a result: {', '.join(aspect['missing'])}" if aspect["missing"] else ""
    return [
        join([name, tag("small", about)]),
        "yes" if aspect["resolved"] else "no",
        "-" if aspect["layer"] is None else str(aspect["layer"]),
        _range(aspect, limit),
        "yes" if aspect["validated"] else "no",
        tag("small", (targets + missing).removeprefix("; ")),
        tag("small", (aspect["reason"] or aspect["finding"])),
    ]


def _range(aspect: Mapping[str, Any], limit: float) -> Html:
    """Draw R2, its interval, the baseline and the limit on an axis, beside the numbers."""
    if aspect["r2"] is None:
        return Html("-")
    low, high = aspect["interval"] or (None, None)
    told = f"{aspect['r2']:.2f}" + ("" if low is None else f" [{low:.2f}, {high:.2f}]")
    middle = _HEIGHT / 2
    shapes = [_line(0.0, 3, _HEIGHT - 3, opacity="0.25"), _line(limit, 2, _HEIGHT - 2, dashed=True)]
    if low is not None:
        shapes.append(
            tag(
                "line",
                x1=_at(low),
                x2=_at(high),
                y1=f"{middle:g}",
                y2=f"{middle:g}",
                stroke="currentColor",
                stroke_width="2",
                opacity="0.55",
            )
        )
    if aspect["baseline"] is not None:
        shapes.append(_line(aspect["baseline"], 5, _HEIGHT - 5, width=3, colour="#d55e00"))
    shapes.append(
        tag(
            "circle", cx=_at(aspect["r2"]), cy=f"{middle:g}", r="4.5", fill="#0072b2", stroke="#fff"
        )
    )
    label = f"R2 {told}, untrained {aspect['baseline']:.2f}" if aspect["baseline"] else f"R2 {told}"
    drawing = tag(
        "svg", *shapes, width=_AXIS, height=_HEIGHT, class_="range", role="img", aria_label=label
    )
    return join([drawing, tag("span", told, class_="number")])


def _at(value: float) -> str:
    share = (min(max(value, _LOWEST), _HIGHEST) - _LOWEST) / (_HIGHEST - _LOWEST)
    return f"{5 + share * (_AXIS - 10):.1f}"


def _line(
    value: float,
    top: float,
    bottom: float,
    *,
    width: int = 1,
    colour: str = "currentColor",
    opacity: str | None = None,
    dashed: bool = False,
) -> Html:
    return tag(
        "line",
        x1=_at(value),
        x2=_at(value),
        y1=f"{top:g}",
        y2=f"{bottom:g}",
        stroke=colour,
        stroke_width=width,
        opacity=opacity,
        stroke_dasharray="2 3" if dashed else None,
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
    listed = table(
        (*headings, "untrained", "descriptors", "p"),
        cells,
        caption="Best layer of every target. R² is that within works, or pooled (marked *) where "
        "no work has rows that differ. p is corrected over layers.",
        numbers=5,
    )
    return Section(
        "layers", "Which layer knows what", join([figure, _details("All numbers", listed)])
    )


def _layer_cells(row: Mapping[str, str]) -> list[str]:
    measure = row["measure"]
    r2 = float(row[measure]) if measure else None
    pooled = " *" if measure == "r2" else ""
    interval = f"{_two(row['r2_lo'])} to {_two(row['r2_hi'])}" if row["r2_lo"] else "-"
    return [
        join([row["target"], tag("small", row["reason"] or row["caution"])]),
        row["category"],
        confidence(r2) if measure else "-",
        row["best_layer"] or "-",
        row["best_layers"].replace(",", ", ") or "-",
        f"{_two(row[measure])}{pooled}" if measure else "-",
        interval,
        _two(row.get("untrained", "")),
        _two(row.get("descriptors", "")),
        f"{float(row['p']):.3f}" if row["p"] else "-",
    ]


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
        "nothing to do with it. Excerpts are mono, their level unchanged",
        "."
        if with_aspect
        else ". No aspect is known well enough to be searched by, so all "
        "questions are general ones.",
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
    by = "general"
    if query.like:
        by = " and ".join(query.like)
    if query.more:
        by = f"everything, among those that probes say have more {' and '.join(query.more)} by 1 "
        by += "standard error"
    left = {
        "work": "Recordings of the same work are left out.",
        "recording": "The recording itself is left out.",
        "none": "",
    }
    return (
        f"The {len(example.answer.hits) if example.answer else 0} closest by {by}. "
        + left[query.exclude]
    )


def _passage(
    findings: Findings, example: Example, passage: "Row | Hit", rank: int | None = None
) -> list[Html]:
    """Return what a query or a hit is, and how it sounds."""
    head = "Query" if rank is None else f"{rank}."
    who = ", ".join(filter(None, (passage.composer, passage.title, passage.performer)))
    lines = [
        tag("p", tag("strong", f"{head} {passage.recording_id}"), *_score(passage, rank)),
        tag("p", ", ".join(filter(None, (who, _times(example.kind, passage)))), class_="note"),
    ]
    if rank is not None:
        lines.append(tag("p", _parts(passage), class_="note"))
    return [*lines, _audio(findings, passage)]


def _score(passage: Any, rank: int | None) -> tuple[str, ...]:
    return () if rank is None else (" ", tag("span", f"{passage.score:.3f}", class_="score"))


def _parts(hit: Any) -> str:
    return "score = " + " ".join(f"{part:+.3f} {name}" for name, part in hit.contributions.items())


def _times(kind: str, passage: Any) -> str:
    if kind == "recordings":
        return f"whole recording, {_duration(passage.end_s)}"
    return f"{_clock(passage.start_s)} to {_clock(passage.end_s)}"


def _audio(findings: Findings, passage: Any) -> Html:
    excerpt = findings.excerpts[passage.recording_id, passage.start_s, passage.end_s]
    if excerpt.reason:
        return tag("p", f"Not to be heard here: {excerpt.reason}.", class_="note")
    heard = f"{_clock(excerpt.start_s)} to {_clock(excerpt.end_s)}"
    cut = excerpt.end_s < passage.end_s
    player = tag(
        "audio",
        controls=True,
        preload="none",
        src=excerpt.uri,
        aria_label=f"{passage.recording_id}, {heard}",
    )
    return join([player, tag("small", f"{heard} of it", class_="note") if cut else ""])


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
        alt += ", ".join(f"{row['target']} {_two(row['midi_r'])}" for row in with_midi)
    if own:
        alt += "; correlation with its own parameter: "
        alt += ", ".join(f"{r['target']} {_two(r['of_' + r['own']])} ({r['own']})" for r in own)
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
    listed = table(
        ("target", "partner in MIDI", "own parameter", "rows", "defined", "within works")
        + (("audio with MIDI", "95 %", "own") if with_midi or own else ()),
        [_validity_cells(row, parameters, full=bool(with_midi or own)) for row in rows],
        caption="The same as numbers.",
        numbers=6 if with_midi or own else 3,
    )
    body = join([figure, _details("All numbers", listed)])
    return Section("validity", "Validity of the targets", body)


def _validity_cells(row: Mapping[str, str], parameters: Sequence[str], *, full: bool) -> list[str]:
    interval = f"{_two(row['midi_lo'])} to {_two(row['midi_hi'])}" if row["midi_lo"] else "-"
    own = row["own"] if row["own"] in parameters else ""
    compared = [_two(row["midi_r"]), interval, _two(row[f"of_{own}"]) if own else "-"]
    return [
        row["target"],
        row["midi"] or "-",
        own or "-",
        row["n_rows"],
        _two(row["defined"]),
        _two(row["within_works"]),
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
        "Left: the share of an aspect's (row) R² that is left when another (column) is erased from "
        "the features; both are learned on the training folds and judged on works that were not "
        "heard. Little left and targets that do not go together in the music: the layer entangles "
        "them.",
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
    return table(("", ""), rows, caption="What was embedded, by what.")


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
            _duration(cost["seconds"]),
            f"{cost['memory_mb']:,.0f} MB" if cost["memory_mb"] >= 1 else "-",
        ]
        for cost in findings.costs
    ]
    caption = "Time of all jobs together and memory of the largest, each job's last run, as "
    caption += "Snakemake measured it when this page was made. Jobs run side by side, and on the "
    caption += "machines and beside the work that there was then."
    listed = table(("rule", "jobs", "time", "memory"), rows, caption=caption, numbers=3)
    return _details("Time and memory of the rules", listed)


def _versions(findings: Findings) -> Html:
    rows = [[name, number] for name, number in findings.versions.items()]
    listed = table(("package", "version"), rows, caption="Installed when this page was made.")
    return _details("Versions of packages", listed)


def _details(title: str, content: Html) -> Html:
    return tag("details", tag("summary", title), content)


def _listed(names: Sequence[str]) -> str:
    return f": {', '.join(names)}" if names else ""


def _two(text: str | None) -> str:
    return f"{float(text) + 0.0:.2f}" if text else "-"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds, 1), 60)
    return f"{int(minutes)}:{rest:04.1f}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
