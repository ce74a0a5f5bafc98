"""The lines of an evaluation for people: figures side by side."""

__all__ = ["side_by_side"]

from collections.abc import Iterable, Mapping

Line = Mapping[str, str]


def side_by_side(lines: Iterable[Line]) -> dict[str, list[dict[str, str]]]:
    """Return tables by their title, of the lines of an evaluation as its file has them.

    A cell has the figure, half of its interval, and chance where that is not 0. Of layers the best
    one is shown, with its number.
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
    judge, asked, measure = line["judge"], line["asked"], line["measure"]
    if judge in ("counterfactual", "ratings"):
        return f"{judge.capitalize()}: {measure}", line["against"], asked
    if line["source"]:
        shown = judge in ("like", "more", "people") or (judge, measure) == (
            "same player",
            "recall@1",
        )
        return ("Aspects", asked, f"{judge}: {measure}") if shown else None
    row = f"{judge}, not {line['against']}" if judge.startswith("like") else f"{judge}: {measure}"
    if not asked.startswith("layer "):
        return "Spaces", row, asked
    return None if judge == "space" else ("Spaces", row, "best layer")


def _cell(line: Line) -> str:
    half = f"±{(float(line['high']) - float(line['low'])) / 2:.2f}" if line["low"] else ""
    notes = [line["asked"]] if line["asked"].startswith("layer ") else []
    notes += [f"{float(line['chance']):.2f}"] if line["chance"] not in ("", "0") else []
    return f"{float(line['value']):.2f}{half}" + (f" ({', '.join(notes)})" if notes else "")
