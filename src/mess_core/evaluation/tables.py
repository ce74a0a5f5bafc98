"""The lines of an evaluation for people: figures side by side."""

__all__ = ["side_by_side"]

from collections.abc import Iterable, Mapping

Line = Mapping[str, str]


def side_by_side(lines: Iterable[Line]) -> dict[str, list[dict[str, str]]]:
    """Return tables by their title, of the lines of an evaluation as its file has them.

    A cell has the figure, half of its interval, and in brackets of layers the best one, chance
    where that is not 0, and the ceiling where one is known.
    """
    tables: dict[str, dict[str, dict[str, str]]] = {}
    best: dict[tuple[str, str, str], float] = {}
    for line in lines:
        place = _place(line)
        if line["value"] and place and float(line["value"]) > best.get(place, -float("inf")):
            best[place] = float(line["value"])
            title, row, column = place
            tables.setdefault(title, {}).setdefault(row, {"judged": row})[column] = _cell(line)
    filled = {}
    for title, rows in tables.items():
        names = list(dict.fromkeys(name for row in rows.values() for name in row))
        filled[title] = [{name: row.get(name, "-") for name in names} for row in rows.values()]
    return filled


def _place(line: Line) -> tuple[str, str, str] | None:
    """Return the table, the row and the column of a line; None where it is only in the file."""
    judge, asked, measure, other = (line[k] for k in ("judge", "asked", "measure", "against"))
    if judge in ("counterfactual", "ratings"):
        return judge.capitalize(), other, asked
    name = f"{judge}: {measure}"
    if judge.startswith("held out"):
        return "Learned spaces", f"{name} {other}".strip(), asked
    if judge == "people":
        name = f"people, {other}"
    elif line["source"] and (judge, measure) == ("same player", "MRR"):
        return None
    elif judge.startswith("like "):
        name = f"{judge}, not {other}"
    if line["source"]:
        return "Aspects", asked, name
    if not asked.startswith("layer "):
        return "Spaces", name, asked
    return None if judge == "space" else ("Spaces", name, "best layer")


def _cell(line: Line) -> str:
    half = f"±{(float(line['high']) - float(line['low'])) / 2:.2f}" if line["low"] else ""
    notes = [line["asked"]] if line["asked"].startswith("layer ") else []
    notes += ["most"] if line["measure"] == "moves most" else []
    notes += [f"{float(line['chance']):.2f}"] if line["chance"] not in ("", "0") else []
    notes += [f"of {float(line['ceiling']):.3g}"] if line["ceiling"] else []
    return f"{float(line['value']):.2f}{half}" + (f" ({', '.join(notes)})" if notes else "")
