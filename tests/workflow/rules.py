"""What the rule files say, read as text."""

import re
from dataclasses import dataclass

from tests.workflow.conftest import ROOT

RULE_FILES = sorted((ROOT / "workflow" / "rules").glob("*.smk"))


def rules() -> list[tuple[str, str]]:
    """Return the name and the text of every rule that makes files."""
    pattern = re.compile(r"^( *)rule (\w+):\n((?:\1 +.*\n|\s*\n)+)", re.MULTILINE)
    return [
        (match[2], match[3])
        for path in RULE_FILES
        for match in pattern.finditer(path.read_text())
        if "output:" in match[3]
    ]


def derived_rules() -> list[tuple[str, str]]:
    """Return the name of every rule that is made of another one, and what it changes."""
    pattern = re.compile(r"^use rule \w+ as (\w+) with:\n((?: +.*\n|\s*\n)+)", re.MULTILINE)
    return [found for path in RULE_FILES for found in pattern.findall(path.read_text())]


@dataclass(frozen=True)
class Request:
    """What a job asks of a cluster: processors, MiB, minutes and GPUs."""

    cpus: int
    memory_mb: int
    minutes: int
    gpus: int

    def again(self, attempt: int) -> "Request":
        """Return what the job asks for at a later attempt, the first being 1."""
        return Request(self.cpus, self.memory_mb * attempt, self.minutes * attempt, self.gpus)


def requests() -> dict[str, Request]:
    """Return what every rule's first attempt asks for, by the rule's name."""
    return {name: _request(text) for name, text in (*rules(), *derived_rules())}


def _request(text: str) -> Request:
    def number(pattern: str) -> int:
        found = re.search(pattern, text)
        assert found, (pattern, text)
        return int(found[1])

    return Request(
        number(r"threads: (\d+)"),
        number(r"mem_mb=more_memory\((\d+)\)"),
        number(r"runtime=more_time\((\d+)\)"),
        int(bool(re.search(r"gpu=(?!0)", text))),
    )
