"""How fast targets are, against librosa's functions one after the other.

Everything is measured in one run, the sides in turn (A B C A B C ...), on the demo corpus. Run it
with nothing else on the machine::

    python -m benchmarks.targets --json FILE
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.extraction import in_turn, machine
from benchmarks.recordings import demo_audio
from benchmarks.targets_jobs import RATE, librosa_targets, mess_recording, mess_windows
from mess_core.files import write_json

Floats = npt.NDArray[np.float32]
Facts = dict[str, Any]

PARTS = ("speed", "start")
LIBROSA = "librosa, call by call"
WITH_WINDOWS = "mess, with windows"

#: At least so many times faster than librosa, and at most so many seconds to the first recording.
TIMES_FASTER = 3.0
START_S = 4.0


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    seconds: float = 60.0
    rounds: int = 5
    starts: int = 3


QUICK = Scale(seconds=15.0, rounds=1, starts=1)


def minute_of_music(music: list[Path], seconds: float) -> Floats:
    """Return the beginnings of some recordings, joined."""
    from mess_core.extraction import load_audio

    parts: list[Floats] = []
    while sum(map(len, parts)) < seconds * RATE:
        parts.append(load_audio(music[len(parts) * 7 % len(music)])[: 10 * RATE])
    return np.concatenate(parts)[: round(seconds * RATE)]


def measure_speed(music: list[Path], scale: Scale) -> Facts:
    """Time all sides on the same samples."""
    samples = minute_of_music(music, scale.seconds)
    sides: dict[str, Callable[[], object]] = {
        LIBROSA: partial(librosa_targets, samples),
        "mess, recording only": partial(mess_recording, samples),
        WITH_WINDOWS: partial(mess_windows, samples),
    }
    runs = in_turn(sides, scale.rounds)
    per_minute = {name: [60 * s / scale.seconds for s in times] for name, times in runs.items()}
    rows = [
        {
            "side": name,
            "s_per_minute": median(times),
            "spread": (max(times) - min(times)) / median(times),
            "times_librosa": median(per_minute[LIBROSA]) / median(times),
        }
        for name, times in per_minute.items()
    ]
    return {"audio_s": scale.seconds, "rounds": scale.rounds, "rows": rows}


def show_speed(facts: Facts) -> None:
    print(f"{facts['audio_s']:g} s of music, median of {facts['rounds']} rounds, sides in turn")
    print(f"{'':<24}{'s per minute':>14}{'spread':>8}{'x librosa':>11}")
    for row in facts["rows"]:
        print(
            f"{row['side']:<24}{row['s_per_minute']:>14.3f}{row['spread']:>8.0%}"
            f"{row['times_librosa']:>11.1f}"
        )
    reached = facts["rows"][-1]["times_librosa"] >= TIMES_FASTER
    print(f"target: {TIMES_FASTER:g} x librosa: {'reached' if reached else 'MISSED'}")


def measure_start(music: list[Path], scale: Scale) -> Facts:
    """Time fresh processes from their start to their first recording done."""
    seconds: dict[str, list[float]] = {"librosa": [], "mess": []}
    audio = music[0]
    for count in range(scale.starts + 1):
        with TemporaryDirectory() as folder:
            given = {
                "librosa": {"audio": str(audio)},
                "mess": {
                    "audio": str(audio),
                    "midi": str(audio.with_suffix(".mid")),
                    "folder": folder,
                },
            }
            for name, arguments in given.items():
                took = _child(name, **arguments)
                if count:  # the first ones compile kernels and fill the file cache
                    seconds[name].append(took)
    return {"recording": audio.name, "runs": seconds}


def show_start(facts: Facts) -> None:
    runs = facts["runs"]
    print(f"process start to {facts['recording']} done, file cache warm, median of", end=" ")
    print(f"{len(runs['mess'])} (kernels compiled before)")
    for name, times in runs.items():
        print(f"  {median(times):6.2f} s  {name}  ({min(times):.2f} to {max(times):.2f})")
    reached = median(runs["mess"]) <= START_S
    print(f"target: mess within {START_S:g} s: {'reached' if reached else 'MISSED'}")


MEASURES: dict[str, tuple[Callable[[list[Path], Scale], Facts], Callable[[Facts], None]]] = {
    "speed": (measure_speed, show_speed),
    "start": (measure_start, show_start),
}


def _child(name: str, **arguments: Any) -> float:
    arguments["began"] = time.monotonic()
    command = [sys.executable, "-m", "benchmarks.targets_jobs", name, json.dumps(arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1])["seconds"])


def main() -> int:
    parser = _parser()
    args = parser.parse_args()
    if unknown := set(args.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    scale = QUICK if args.quick else Scale()
    args.work.mkdir(parents=True, exist_ok=True)
    here = machine()
    here["versions"] |= {name: version(name) for name in ("librosa", "numpy", "scipy")}
    facts: Facts = {"machine": here, "scale": asdict(scale)}
    print(", ".join(f"{key} {value}" for key, value in here.items()))
    music = demo_audio(args.work)
    for part in args.parts or PARTS:
        measure, show = MEASURES[part]
        print(f"\n== {part}", flush=True)
        facts[part] = measure(music, scale)
        show(facts[part])
        if args.json:
            write_json(args.json, facts)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.targets")
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)} (default: all)"
    )
    parser.add_argument("--quick", action="store_true", help="little of everything, to try it out")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there too")
    parser.add_argument(
        "--work", type=Path, default=Path("data/benchmarks/targets"), help="default: %(default)s"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
