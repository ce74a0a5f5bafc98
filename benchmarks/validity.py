"""Whether targets measure what they say: against known interpretations, beats and listeners.

Three parts:

* ``dose``: the demo scores, played and rendered with one parameter of the interpretation at five
  strengths and all others in the middle. Each target's rank correlation with each parameter.
* ``asap``: works that several pianists play. Within works, rank correlation of the tempo of the
  rendered audio and of the timing of MIDI without beats with what the annotated beats say.
* ``percepiano``: passages that several pianists play and listeners rate. Within passages, rank
  correlation of each target with each scale.

The last two read ``../shared/data``. Everything is deterministic; it takes about ten minutes on two
cores that do other work, too::

    python -m benchmarks.validity --json FILE
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.extraction import machine
from benchmarks.markdown import write_section
from benchmarks.validity_analysis import SCALES, TEMPO, TIMING, agree, respond_to
from benchmarks.validity_jobs import (
    HEARD_S,
    MEASURED,
    STRENGTHS,
    WITH_BEATS,
    Dose,
    Values,
    clips,
    doses,
    in_parallel,
    pianists,
    rated,
    respond,
    timed,
)
from benchmarks.validity_report import (
    asap_text,
    copy_small,
    dose_text,
    draw,
    percepiano_text,
)
from mess_core.files import write_json
from mess_core.report.validity import within

Facts = dict[str, Any]

PICTURE = Path("data/reports/validity.png")

#: Pianists of a work and players of a passage, at least.
PIANISTS, PLAYERS = 4, 5

#: What is compared within works of ASAP: an estimate, the truth, the bar.
COMPARISONS = (
    ("tempo", "tempo (beats)", TEMPO),
    ("tempo_variability", "tempo_variability (beats)", TIMING),
    ("rubato", "rubato (beats)", TIMING),
    ("rubato_ioi_ratio", "tempo_variability (beats)", TIMING),
    ("tempo_variability", "rubato (beats)", None),
    ("rubato", "tempo_variability (beats)", None),
    ("rubato_ioi_ratio", "rubato (beats)", None),
)


@dataclass(frozen=True)
class Scale:
    """How much is measured: works and passages, all by default."""

    scores: int | None = None
    works: int | None = None
    passages: int | None = None


QUICK = Scale(scores=1, works=1, passages=2)


def measure_dose(_: Path, scale: Scale) -> Facts:
    """Play the demo scores at all strengths, and judge how targets respond."""
    jobs = doses(scale.scores)
    values = in_parallel(respond, jobs, what="performances")
    return {
        "works": list(dict.fromkeys(job.work_id for job in jobs)),
        "strengths": STRENGTHS,
        "rows": [
            judge_dose(target, jobs, _column(values, target)) for target in (*MEASURED, *WITH_BEATS)
        ],
    }


def judge_dose(target: str, jobs: Sequence[Dose], values: Sequence[float]) -> Facts:
    """Judge how a target, one value for each job, responds to each parameter."""
    works = list(dict.fromkeys(job.work_id for job in jobs))
    measured = dict(zip(jobs, values, strict=True))
    responses, ends = {}, {}
    for parameter, strengths in STRENGTHS.items():
        of = [job for job in jobs if job.parameter == parameter]
        found = within(
            [job.work_id for job in of],
            [job.strength for job in of],
            [measured[job] for job in of],
        )
        responses[parameter] = [found[work] for work in works]
        ends[parameter] = [
            [measured[Dose(work, parameter, strength)] for work in works]
            for strength in (strengths[0], strengths[-1])
        ]
    return respond_to(target, responses, ends, works)


def measure_asap(data: Path, scale: Scale) -> Facts:
    """Compare the timing of pianists with their annotated beats, within works."""
    jobs = pianists(data / "asap", at_least=PIANISTS, works=scale.works)
    values = in_parallel(timed, jobs, what="performances")
    works = [job.work_id for job in jobs]
    rows = []
    for estimate, truth, bar in COMPARISONS:
        found = within(works, _column(values, truth), _column(values, estimate))
        rows.append({"estimate": estimate, "truth": truth, **agree(found, bar=bar)})
    return {
        "works": len(set(works)),
        "performances": len(jobs),
        "at_least": PIANISTS,
        "heard_s": HEARD_S,
        "rows": rows,
    }


def measure_percepiano(data: Path, scale: Scale) -> Facts:
    """Compare targets with what listeners rated, within passages."""
    jobs = clips(data / "percepiano", at_least=PLAYERS, passages=scale.passages)
    values = in_parallel(rated, jobs, what="clips")
    passages = [job.passage for job in jobs]
    ratings = {scale: _ratings([job.ratings for job in jobs], scale) for scale in SCALES}
    halves = [
        {scale: _ratings([job.halves[half] for job in jobs], scale) for scale in SCALES}
        for half in (0, 1)
    ]
    rows = [
        {
            "target": target,
            "scales": {
                name: agree(within(passages, heard, _column(values, target)))
                for name, heard in ratings.items()
            },
        }
        for target in MEASURED
    ]
    return {
        "passages": len(set(passages)),
        "clips": len(jobs),
        "at_least": PLAYERS,
        "listeners": {
            scale: agree(within(passages, halves[0][scale], halves[1][scale])) for scale in SCALES
        },
        "rows": rows,
    }


def _ratings(means: list[Values], scale: str) -> list[float]:
    return [values.get(scale, np.nan) for values in means]


def _column(values: list[Values], name: str) -> list[float]:
    return [row[name] for row in values]


MEASURES: dict[str, tuple[Callable[[Path, Scale], Facts], Callable[[Facts], str]]] = {
    "dose": (measure_dose, dose_text),
    "asap": (measure_asap, asap_text),
    "percepiano": (measure_percepiano, percepiano_text),
}


def main() -> int:
    args = _arguments()
    scale = QUICK if args.quick else Scale()
    here = machine()
    here["versions"] |= {name: version(name) for name in ("midirenderer", "numpy", "scipy")}
    facts: Facts = {"machine": here, "scale": asdict(scale)}
    texts = []
    for part in [args.only] if args.only else MEASURES:
        measure, text = MEASURES[part]
        began = time.monotonic()
        facts[part] = measure(args.data, scale)
        facts[part]["seconds"] = time.monotonic() - began
        texts.append(text(facts[part]))
        print(f"\n{texts[-1]}", flush=True)
        if args.json:
            write_json(args.json, facts)
    draw(facts, args.picture)
    if args.write:
        copy = args.write.with_name(args.picture.name)
        copy_small(args.picture, copy)
        link = f"![Response of targets to parameters and to listeners]({copy.name})\n"
        write_section(args.write, "\n".join([*texts, link]), marker="validity")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.validity")
    parser.add_argument("--only", choices=MEASURES, help="one part (default: all)")
    parser.add_argument("--quick", action="store_true", help="little of everything, to try it out")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there too")
    parser.add_argument(
        "--write", type=Path, metavar="FILE", help="put the tables between its validity markers"
    )
    parser.add_argument(
        "--picture", type=Path, default=PICTURE, metavar="FILE", help="default: %(default)s"
    )
    parser.add_argument(
        "--data",
        type=Path,
        default=Path("../shared/data"),
        metavar="FOLDER",
        help="with asap and percepiano (default: %(default)s)",
    )
    args = parser.parse_args()
    if args.write and (args.only or args.quick):
        parser.error("--write takes a full run: it replaces all tables")
    needed = {"asap", "percepiano"} & ({args.only} if args.only else set(MEASURES))
    if missing := [name for name in sorted(needed) if not (args.data / name).is_dir()]:
        parser.error(f"{args.data} has no {' and no '.join(missing)}; --only dose needs neither")
    return args


if __name__ == "__main__":
    sys.exit(main())
