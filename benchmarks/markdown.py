"""Tables of benchmarks in Markdown, and their places in the documentation."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from mess_core.files import write_text


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table, and an empty one."""
    lines = [header, ["---"] * len(header), *rows]
    return [*(f"| {' | '.join(line)} |" for line in lines), ""]


def two(value: float | None) -> str:
    """Write a figure with two digits; -0.00 is 0.00, and what is undefined a dash."""
    return "-" if value is None or value != value else f"{round(value, 2) + 0.0:.2f}"


def write_section(path: Path, text: str, *, marker: str) -> None:
    """Put text between the lines ``<!-- marker -->`` and ``<!-- /marker -->`` of a file.

    Raises
    ------
    ValueError
        If the file has not got each of them once.
    """
    begin, end = f"<!-- {marker} -->", f"<!-- /{marker} -->"
    content = path.read_text(encoding="utf-8")
    if content.count(begin) != 1 or content.count(end) != 1:
        raise ValueError(f"{path} needs one line {begin!r} and one line {end!r}")
    before, rest = content.split(begin)
    write_text(path, f"{before}{begin}\n\n{text}\n{end}{rest.split(end)[1]}")
