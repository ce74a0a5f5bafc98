"""How fast search is, against FAISS called directly and against numpy, and what codes cost.

A million made-up clips (`benchmarks.search_corpus`), one process per part, sides in turn. Run it
with nothing else on the machine; it takes about ten minutes::

    python -m benchmarks.search --write docs/search.md --json FILE

Everything runs on one thread.

* ``million``: build, save, open and ask an exact index.
* ``codes``: the same of the index that is chosen above the limit of exact ones.
* ``factories``: what FAISS's factories find of the exact hits, under all kinds of weights.
* ``start``: from a new interpreter to the first answer, with 100,000 clips.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any

from benchmarks.extraction import machine
from benchmarks.search_report import codes_text, factories_text, million_text, start_text
from mess_core.files import write_json, write_text

Facts = dict[str, Any]

BEGIN, END = "<!-- scale:begin -->", "<!-- scale:end -->"

#: Width of a stored vector of the corpus, and the next that FAISS's scalar quantizers are fast at.
_WIDTH, _PADDED = 94, 96

#: What is compared: FAISS's factory, candidates with exact scores, cells that are looked into.
FACTORIES: tuple[tuple[str, int, int], ...] = (
    ("Flat", 0, 0),
    ("SQ8", 0, 0),
    (f"Pad{_PADDED},SQ8", 0, 0),
    (f"Pad{_PADDED},SQ8,RFlat", 400, 0),
    (f"Pad{_PADDED},SQ4,RFlat", 1000, 0),
    ("PQ47x4fs,RFlat", 1000, 0),
    (f"PQ{_WIDTH}x4fs,RFlat", 1000, 0),
    ("IVF1024,SQ8", 0, 64),
    ("IVF1024,SQ8", 0, 256),
    (f"IVF1024,PQ{_WIDTH}x4fsr,RFlat", 1000, 256),
    (f"IVF1024,PQ{_WIDTH}x4fsr,RFlat", 1000, 1024),
    (f"IVF1024,PQ{_WIDTH}x4fsr,RFlat", 4000, 1024),
    (f"IVF1024,PQ{_WIDTH}x4fsr,RFlat", 10_000, 1024),
)

#: A service answers several questions at once, each on a thread of its own.
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

_START = """
import sys, time
began = float(sys.argv[2])
import mess_core
from pathlib import Path
from mess_core.index import load_artifact
from mess_core.search import Query
from mess_core.search.search import search
index = load_artifact(Path(sys.argv[1]))
opened = time.monotonic() - began
search(index, Query("recording-000007", 30.0, 35.0))
print(opened, time.monotonic() - began)
"""


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    clips: int = 1_000_000
    large: int = 4_000_000
    start_clips: int = 100_000
    questions: int = 40
    opens: int = 5


QUICK = Scale(clips=20_000, large=40_000, start_clips=5_000, questions=3, opens=2)


def _job(*arguments: object) -> Facts:
    command = [sys.executable, "-m", "benchmarks.search_jobs", *map(str, arguments)]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ | _ONE_THREAD
    )
    facts: Facts = json.loads(done.stdout.splitlines()[-1])
    return facts


def measure_million(scale: Scale) -> Facts:
    """Build, open and ask an exact index."""
    return _measure(scale, exact_up_to=scale.clips)


def measure_codes(scale: Scale) -> Facts:
    """Build, open and ask an index with codes."""
    return _measure(scale, exact_up_to=0)


def _measure(scale: Scale, exact_up_to: int) -> Facts:
    with TemporaryDirectory(dir=_scratch()) as root:
        before = os.getloadavg()
        built = _job("build", root, scale.clips, 4.0, exact_up_to)
        folder = built.pop("folder")
        opened = []
        for _ in range(scale.opens):
            # Without the note that it was found whole, all of it is checked.
            for note in Path(root).glob(".*.verified"):
                note.unlink()
            opened.append({"first": _job("open", folder), "again": _job("open", folder)})
        asked = _job("ask", folder, scale.questions)
    load = {"before": before, "after": os.getloadavg()}
    return {"clips": scale.clips, "built": built, "opened": opened, "asked": asked, "load": load}


def measure_factories(scale: Scale) -> Facts:
    """Compare factories, and those that are chosen with more clips."""
    before = os.getloadavg()
    chosen = [FACTORIES[0], *FACTORIES[-2:]]
    compared = [
        _job("compare", scale.clips, scale.questions, json.dumps(FACTORIES)),
        _job("compare", scale.large, scale.questions, json.dumps(chosen)),
    ]
    return {"compared": compared, "load": {"before": before, "after": os.getloadavg()}}


def measure_start(scale: Scale) -> Facts:
    """Time fresh interpreters that open an artifact and answer."""
    with TemporaryDirectory(dir=_scratch()) as root:
        folder = _job("build", root, scale.start_clips, 4.0, scale.start_clips)["folder"]
        before, runs = os.getloadavg(), []
        for _ in range(scale.opens):
            for note in Path(root).glob(".*.verified"):
                note.unlink()
            runs.append({"first": _start(folder), "again": _start(folder)})
    load = {"before": before, "after": os.getloadavg()}
    return {"clips": scale.start_clips, "runs": runs, "load": load}


def _start(folder: str) -> Facts:
    command = [sys.executable, "-c", _START, folder, str(monotonic())]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    opened, answered = map(float, done.stdout.split())
    return {"open_s": opened, "answer_s": answered}


def _scratch() -> Path:
    folder = Path("data/cache")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


PARTS: dict[str, tuple[Callable[[Scale], Facts], Callable[[Facts], str]]] = {
    "million": (measure_million, million_text),
    "codes": (measure_codes, codes_text),
    "factories": (measure_factories, factories_text),
    "start": (measure_start, start_text),
}


def write_section(path: Path, text: str) -> None:
    """Put text between the markers of a Markdown file.

    Raises
    ------
    ValueError
        If the file has not got each marker once.
    """
    content = path.read_text(encoding="utf-8")
    if content.count(BEGIN) != 1 or content.count(END) != 1:
        raise ValueError(f"{path} needs one line {BEGIN!r} and one line {END!r}")
    before, rest = content.split(BEGIN)
    write_text(path, f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.split(END)[1]}")


def main() -> int:
    parser = _parser()
    args = parser.parse_args()
    if unknown := set(args.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    if args.write and (args.parts or args.quick):
        parser.error("--write takes a full run: it replaces all tables")
    scale = QUICK if args.quick else Scale()
    here = machine()
    here["versions"] |= {name: version(name) for name in ("faiss-cpu", "numpy")}
    facts: Facts = {"machine": here, "scale": asdict(scale)}
    texts = [
        f"*{here['processor']}, {here['cores']} cores of which one is used, "
        f"FAISS {version('faiss-cpu')}.*"
    ]
    for part in args.parts or PARTS:
        measure, text_of = PARTS[part]
        facts[part] = measure(scale)
        texts.append(text_of(facts[part]))
        print(texts[-1], flush=True)
        if args.json:
            write_json(args.json, facts)
    if args.write:
        write_section(args.write, "\n\n".join(texts))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search")
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)} (default: all)"
    )
    parser.add_argument("--quick", action="store_true", help="little of everything, to try it out")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there too")
    parser.add_argument(
        "--write", type=Path, metavar="FILE", help="put the tables between its scale markers"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
