"""How fast probing is, against scikit-learn's loops over targets and layers.

Sides take turns in one run, on made-up features of the real shape. Run it with nothing else on the
machine::

    python -m benchmarks.probing --json FILE
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from json import loads
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import r2_score
from threadpoolctl import threadpool_limits

from benchmarks.extraction import machine
from benchmarks.probing_jobs import (
    Rows,
    decompose_all,
    fixed_penalty,
    left_out_rows,
    nested_penalty,
    probe_one,
    write_windows,
)
from mess_core.files import write_json

Facts = dict[str, Any]
Loop = Callable[..., npt.NDArray[np.floating]]

PARTS = ("speed", "job")

#: At least so many times faster than the loop, and at most so many seconds for a target's job.
TIMES_FASTER = 25.0
JOB_S = 20.0

FIXED = "Ridge(1), one penalty"
#: The loops, and the threads of BLAS that each may use (None: all).
LOOPS: dict[str, tuple[Loop, int | None]] = {
    f"{FIXED}, all threads": (fixed_penalty, None),
    FIXED: (fixed_penalty, 1),
    "RidgeCV, leaves out rows": (left_out_rows, 1),
    "GridSearchCV, folds as ours": (nested_penalty, 1),
}
DECOMPOSE, PLAIN, FULL = "decompositions", "targets, R2 only", "targets, all statistics"


@dataclass(frozen=True)
class Scale:
    """How much is measured; rounds per number of rows."""

    rounds: dict[int, int]
    job_rows: int = 20_000
    targets: int = 22
    layers: int = 13
    dims: int = 768
    jobs: int = 3


FULL_SCALE = Scale(rounds={500: 3, 4000: 1})
QUICK = Scale(rounds={100: 1}, job_rows=200, targets=2, layers=2, dims=16, jobs=1)


class Turn:
    """One round's wall and processor seconds of each side."""

    def __init__(self) -> None:
        self.wall: dict[str, float] = {}
        self.cpu: dict[str, float] = {}

    def run(self, name: str, side: Callable[[], Any], times: float = 1.0) -> Any:
        """Run a side and keep its seconds, scaled."""
        wall, cpu = time.perf_counter(), time.process_time()
        result = side()
        self.wall[name] = (time.perf_counter() - wall) * times
        self.cpu[name] = (time.process_time() - cpu) * times
        return result


def measure_speed(scale: Scale) -> Facts:
    """Time all sides for each number of rows."""
    return {str(n): _measure_rows(Rows(n, scale.layers, scale.dims), scale) for n in scale.rounds}


def _measure_rows(rows: Rows, scale: Scale) -> Facts:
    layers = [rows.layer(number) for number in range(rows.layers)]
    targets = [rows.target(number) for number in range(scale.targets)]
    # What is done once per process (imports, starting threads) belongs to nobody.
    for loop, _ in LOOPS.values():
        loop(layers[0][:, :8], targets[0], rows.folds)
    before, turns, apart = os.getloadavg(), [], 0.0
    for count in range(scale.rounds[rows.n]):
        turn, found = _take_turn(rows, layers, targets, count)
        turns.append(turn)
        apart = max(apart, found)
    sides = [*LOOPS, DECOMPOSE, PLAIN, FULL]
    return {
        "rounds": len(turns),
        "load": {"before": before, "after": os.getloadavg()},
        "cells": len(layers) * len(targets),
        "wall_s": {side: [turn.wall[side] for turn in turns] for side in sides},
        "cpu_s": {side: [turn.cpu[side] for turn in turns] for side in sides},
        "r2_apart": apart,
    }


def _take_turn(
    rows: Rows,
    layers: list[npt.NDArray[np.floating]],
    targets: list[npt.NDArray[np.float64]],
    count: int,
) -> tuple[Turn, float]:
    """Run every side once; return also how far R2 is from the loop's that chooses as we do.

    Loops run for one target and one layer, another one in each round, and are scaled to all.
    """
    turn, cells = Turn(), len(layers) * len(targets)
    layer = target = count % len(layers)
    predicted = {}
    for name, (loop, threads) in LOOPS.items():
        with threadpool_limits(limits=threads, user_api="blas"):
            side = partial(loop, layers[layer], targets[target], rows.folds)
            predicted[name] = turn.run(name, side, cells)
    known = turn.run(DECOMPOSE, lambda: decompose_all(rows, layers))

    def probe_all(statistics: bool) -> list[Any]:
        return [
            probe_one(rows, layers, i, lambda at, _: known[at], statistics=statistics, y=y)
            for i, y in enumerate(targets)
        ]

    results = turn.run(PLAIN, lambda: probe_all(False))
    turn.run(FULL, lambda: probe_all(True))
    expected = r2_score(targets[target], predicted["GridSearchCV, folds as ours"])
    return turn, abs(results[target].layers[layer].r2 - expected)


def show_speed(facts: Facts) -> None:
    for n, found in facts.items():
        loads = " to ".join(f"{found['load'][when][0]:.1f}" for when in ("before", "after"))
        print(f"{n} rows, median of {found['rounds']} rounds, sides in turn, load {loads}")
        print(f"{'':<36}{'wall s':>10}{'cpu s':>10}")
        seconds = {side: median(runs) for side, runs in found["wall_s"].items()}
        for side, wall in seconds.items():
            print(f"{side:<36}{wall:>10.1f}{median(found['cpu_s'][side]):>10.1f}")
        print(f"R2 is at most {found['r2_apart']:.1e} from that of GridSearchCV")
        ours = {
            "decompositions included, R2 only": seconds[DECOMPOSE] + seconds[PLAIN],
            "decompositions included, all": seconds[DECOMPOSE] + seconds[FULL],
            "decompositions ready, R2 only": seconds[PLAIN],
        }
        print(f"times faster; target {TIMES_FASTER:g} with decompositions, R2 only, as loops have")
        print(f"{'':<36}" + "".join(f"{name:>36}" for name in ours))
        for side, (_, threads) in LOOPS.items():
            ratios = [seconds[side] / mine for mine in ours.values()]
            verdict = "reached" if ratios[0] >= TIMES_FASTER else "MISSED"
            if threads is None:
                verdict = "(threads in each other's way: no verdict)"
            print(f"{side:<36}" + "".join(f"{ratio:>36.1f}" for ratio in ratios) + f"  {verdict}")


def measure_job(scale: Scale) -> Facts:
    """Time fresh processes that do one target's job on windows."""
    rows = Rows(scale.job_rows, scale.layers, scale.dims)
    command = [sys.executable, "-m", "benchmarks.probing_jobs"]
    with TemporaryDirectory() as folder:
        decomposing = write_windows(rows, Path(folder))
        before, runs = os.getloadavg(), []
        for _ in range(scale.jobs):
            arguments = [folder, str(time.monotonic())]
            done = subprocess.run(
                [*command, *arguments], stdout=subprocess.PIPE, text=True, check=True
            )
            runs.append(loads(done.stdout.splitlines()[-1]))
    return {
        "rows": rows.n,
        "decompositions_s": decomposing,
        "load": {"before": before, "after": os.getloadavg()},
        "runs": runs,
    }


def show_job(facts: Facts) -> None:
    seconds = [run["seconds"] for run in facts["runs"]]
    print(f"decomposing and storing all layers, once: {facts['decompositions_s']:.1f} s")
    loads = " to ".join(f"{facts['load'][when][0]:.1f}" for when in ("before", "after"))
    print(f"a target's job on {facts['rows']} windows, all statistics, process start to result,")
    print(f"median of {len(seconds)}, file cache warm, load {loads}:")
    print(
        f"  {median(seconds):.1f} s ({min(seconds):.1f} to {max(seconds):.1f}), "
        f"{median(run['cpu_s'] for run in facts['runs']):.1f} s of processor, "
        f"peak memory {max(run['peak_gb'] for run in facts['runs']):.2f} GB"
    )
    reached = median(seconds) <= JOB_S
    print(f"target: within {JOB_S:g} s: {'reached' if reached else 'MISSED'}")


MEASURES: dict[str, tuple[Callable[[Scale], Facts], Callable[[Facts], None]]] = {
    "speed": (measure_speed, show_speed),
    "job": (measure_job, show_job),
}


def main() -> int:
    parser = _parser()
    args = parser.parse_args()
    if unknown := set(args.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    scale = QUICK if args.quick else FULL_SCALE
    here = machine()
    here["versions"] |= {name: version(name) for name in ("scikit-learn", "numpy", "scipy")}
    facts: Facts = {"machine": here, "scale": asdict(scale)}
    print(", ".join(f"{key} {value}" for key, value in here.items()))
    for part in args.parts or PARTS:
        measure, show = MEASURES[part]
        print(f"\n== {part}", flush=True)
        facts[part] = measure(scale)
        show(facts[part])
        if args.json:
            write_json(args.json, facts)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.probing")
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)} (default: all)"
    )
    parser.add_argument("--quick", action="store_true", help="little of everything, to try it out")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
