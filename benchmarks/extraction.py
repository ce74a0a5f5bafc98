"""How fast, how exact and how large extraction is, against the plain loop and the machine's limit.

Everything is measured in one run at MERT-v1-95M's full shape with random weights, the sides in
turn (A B C A B C ...), on windows of the demo corpus. Run it with nothing else on the machine::

    python -m benchmarks.extraction --json FILE
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory, mkdtemp
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from benchmarks.recordings import demo_audio, write_clips, write_long
from mess_core.files import write_json

if TYPE_CHECKING:
    from transformers import HubertModel

    from mess_core.extraction.extractor import FeatureExtractor

Floats = npt.NDArray[np.float32]
Facts = dict[str, Any]

RATE, WINDOW_S = 24_000, 5.0
PARTS = ("speed", "clips", "memory", "start", "estimate")
# Rows and columns of the matrices whose product is the machine's limit.
_MATRIX = 4096
_TARGETS = {"bfloat16": 2.5, "float32": 1.3}


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    windows: int = 16
    rounds: int = 5
    clips: int = 30
    minutes: tuple[float, float] = (2.0, 6.0)
    plain_minutes: float = 2.0
    starts: int = 3
    recordings: int = 6


QUICK = Scale(
    windows=4, rounds=2, clips=6, minutes=(0.5, 1.0), plain_minutes=0.5, starts=1, recordings=2
)
HOUR = (10.0, 60.0)


@dataclass
class Bench:
    """What the parts share."""

    scale: Scale
    checkpoint: Path
    models: Path
    music: list[Path]
    scratch: Path
    facts: Facts = field(default_factory=dict)

    @property
    def model(self) -> Facts:
        return {"encoder": str(self.checkpoint), "models": str(self.models)}

    def fresh(self) -> str:
        """Return a new folder."""
        return mkdtemp(dir=self.scratch)


def gflop_per_window(config: Facts, samples: int) -> float:
    """Count the multiplications and additions of a window, in 10^9: products of matrices only."""
    dims, forward = int(config["hidden_size"]), int(config["intermediate_size"])
    length, channels, flop = samples, 1, 0.0
    for out, kernel, stride in zip(
        config["conv_dim"], config["conv_kernel"], config["conv_stride"], strict=True
    ):
        length = (length - kernel) // stride + 1
        flop += 2 * length * out * channels * kernel
        channels = out
    flop += 2 * length * channels * dims
    group = dims // config["num_conv_pos_embedding_groups"]
    flop += 2 * length * dims * group * config["num_conv_pos_embeddings"]
    projections = 4 * dims * dims + 2 * dims * forward
    attention = 2 * length * dims
    flop += config["num_hidden_layers"] * 2 * length * (projections + attention)
    return float(flop / 1e9)


def music_windows(music: Sequence[Path], count: int) -> Floats:
    """Take one window from the middle of each of several recordings."""
    from mess_core.extraction import load_audio

    windows, samples = [], round(WINDOW_S * RATE)
    for path in music[:: max(len(music) // count, 1)][:count]:
        audio = load_audio(path)
        first = (len(audio) - samples) // 2
        windows.append(audio[first : first + samples])
    return np.stack(windows)


def matrix_products() -> dict[str, list[Callable[[], object]]]:
    """Return, per precision, ways to multiply two large matrices."""
    import openvino
    import torch
    from openvino import opset13

    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, _MATRIX, _MATRIX)).astype(np.float32)
    products: dict[str, list[Callable[[], object]]] = {}
    capabilities = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    for precision, hint in {"float32": "f32", "bfloat16": "bf16"}.items():
        if hint == "bf16" and "BF16" not in capabilities:
            continue
        dtype = getattr(torch, precision)
        left, right = torch.from_numpy(a).to(dtype), torch.from_numpy(b).to(dtype)
        given = opset13.parameter(a.shape, np.float32)
        model = openvino.Model([opset13.matmul(given, opset13.constant(b), False, False)], [given])
        compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": hint})
        request = compiled.create_infer_request()
        products[precision] = [
            partial(torch.matmul, left, right),
            partial(request.infer, [a], share_inputs=True, share_outputs=True),
        ]
    return products


def in_turn(sides: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Run all sides once, then in turn; return the seconds of every round but that first."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for count in range(rounds + 1):
        for name, side in sides.items():
            began = time.perf_counter()
            side()
            if count:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def measure_speed(bench: Bench) -> Facts:
    """Compare extraction with the plain loop and with large matrix products."""
    from benchmarks.plain import load_plain, run_plain

    windows = music_windows(bench.music, bench.scale.windows)
    plain = {kind: load_plain(bench.checkpoint, attention=kind) for kind in ("eager", "sdpa")}
    ours = _extractors(bench)
    sides: dict[str, Callable[[], object]] = {}
    for kind, model in plain.items():
        sides[f"plain loop, {kind}"] = partial(run_plain, model, windows)
    for precision, extractor in ours.items():
        sides[f"mess, {precision}"] = partial(_run_batches, extractor, windows)
    products = matrix_products()
    for precision, ways in products.items():
        sides |= {f"product {precision} {i}": way for i, way in enumerate(ways)}
    seconds = in_turn(sides, bench.scale.rounds)
    limits = {
        precision: 2 * _MATRIX**3 / 1e9 / min(min(seconds[name]) for name in seconds if key in name)
        for precision in products
        for key in [f"product {precision}"]
    }
    gflop = gflop_per_window(plain["eager"].config.to_dict(), windows.shape[1])
    agreements = _agreements(plain, ours, windows)
    rows = []
    for name in agreements:
        runs = [run / len(windows) for run in seconds[name]]
        middle = median(runs)
        limit = limits.get(name.removeprefix("mess, "), limits["float32"])
        rows.append(
            {
                "side": name,
                "s_per_window": middle,
                "spread": (max(runs) - min(runs)) / middle,
                "times_eager": median(seconds["plain loop, eager"]) / median(seconds[name]),
                "times_sdpa": median(seconds["plain loop, sdpa"]) / median(seconds[name]),
                "limit_share": gflop / middle / limit,
                **agreements[name],
            }
        )
    return {
        "gflop_per_window": gflop,
        "limit_gflop_per_s": limits,
        "windows": len(windows),
        "rounds": bench.scale.rounds,
        "rows": rows,
    }


def _extractors(bench: Bench) -> "dict[str, FeatureExtractor]":
    """Return ours by precision: float32, and what `auto` takes."""
    from mess_core.extraction.extractor import FeatureExtractor

    extractors = [
        FeatureExtractor(str(bench.checkpoint), models=bench.models, device="cpu", precision=asked)
        for asked in ("float32", "auto")
    ]
    return {extractor.encoder.engine.precision: extractor for extractor in extractors}


def _run_batches(extractor: "FeatureExtractor", windows: Floats) -> list[Floats]:
    return [pooled for _, pooled, _ in extractor.batcher.run(enumerate(windows))]


def _agreements(
    plain: "dict[str, HubertModel]", ours: "dict[str, FeatureExtractor]", windows: Floats
) -> dict[str, Facts]:
    """Compare every side with the eager loop: the frames' errors, and the pooled vectors' cosines.

    Window by window, each relative to its own largest values.
    """
    from benchmarks.plain import run_frames
    from mess_core.extraction.golden import compare

    sides = {f"plain loop, {kind}": partial(run_frames, model) for kind, model in plain.items()}
    encoders = {f"mess, {precision}": ours[precision].encoder for precision in ours}
    errors: dict[str, list[tuple[float, ...]]] = {name: [] for name in (*sides, *encoders)}
    cosines: dict[str, list[tuple[float, ...]]] = {name: [] for name in errors}
    for window in np.split(windows, len(windows)):
        expected = run_frames(plain["eager"], window)
        found = {}
        for name, side in sides.items():
            frames = side(window)
            found[name] = (frames, frames.mean(axis=2))
        for name, encoder in encoders.items():
            found[name] = (encoder.hidden_states(window), encoder.pooled(window))
        for name, (frames, means) in found.items():
            errors[name].append(compare(frames, expected).error)
            cosines[name].append(compare(means, expected.mean(axis=2)).cosine)
    return {
        name: {
            "error_per_layer": np.max(errors[name], axis=0).tolist(),
            "max_error": float(np.max(errors[name])),
            "min_cosine": float(np.min(cosines[name])),
        }
        for name in errors
    }


def show_speed(facts: Facts) -> None:
    limits = ", ".join(f"{p} {limit:.0f}" for p, limit in facts["limit_gflop_per_s"].items())
    print(
        f"{facts['gflop_per_window']:.1f} GFLOP per window of {WINDOW_S:g} s; "
        f"products of {_MATRIX} x {_MATRIX} matrices here (GFLOP/s, the best): {limits}"
    )
    print(f"median of {facts['rounds']} rounds of {facts['windows']} windows, sides in turn")
    print(
        f"{'':<18}{'s/window':>9}{'spread':>8}{'x eager':>9}{'x sdpa':>8}{'of limit':>10}"
        f"{'min cosine':>12}{'max error':>11}"
    )
    for row in facts["rows"]:
        print(
            f"{row['side']:<18}{row['s_per_window']:>9.3f}{row['spread']:>8.0%}"
            f"{row['times_eager']:>9.2f}{row['times_sdpa']:>8.2f}{row['limit_share']:>10.0%}"
            f"{row['min_cosine']:>12.6f}{row['max_error']:>11.1e}"
        )
    for row in facts["rows"]:
        precision = row["side"].removeprefix("mess, ")
        if precision == "float32":
            errors = " ".join(f"{error:.1e}" for error in row["error_per_layer"])
            print(f"errors of float32, layer by layer: {errors}")
        if precision in _TARGETS:
            print(
                f"target: {precision} at least {_TARGETS[precision]} x eager: "
                f"{'reached' if row['times_eager'] >= _TARGETS[precision] else 'MISSED'}"
            )


def measure_clips(bench: Bench) -> Facts:
    """Extract a corpus of short clips, and see how much of the time the model runs."""
    folder = bench.fresh()
    clips = write_clips(Path(folder), bench.music, count=bench.scale.clips)
    facts = _child(
        "clips",
        audio=[str(clip) for clip in clips],
        precision="auto",
        folder=bench.fresh(),
        **bench.model,
    )
    speed = bench.facts.get("speed")
    for run in facts.values():
        if speed:
            alone = speed["rows"][-1]["s_per_window"] * run["windows"]
            run["share_by_speed"] = alone / run["seconds"]
    return facts | {"clips": len(clips)}


def show_clips(facts: Facts) -> None:
    for name in ("fresh", "warm"):
        run = facts[name]
        by_speed = ""
        if "share_by_speed" in run:
            by_speed = f"; {run['share_by_speed']:.0%} by the table's seconds per window"
        print(
            f"{name} process: {facts['clips']} clips, {run['audio_s']:.0f} s of audio, "
            f"{run['windows']} windows in {run['seconds']:.1f} s, {run['share']:.0%} of it in the "
            f"model{by_speed}"
        )


def measure_memory(bench: Bench) -> Facts:
    """Compare the peak memory of processes that extract a short and a long recording."""
    rows = []
    short, long = bench.scale.minutes
    for minutes in (short, long):
        audio = write_long(bench.scratch / f"{minutes:g}min.wav", bench.music, minutes=minutes)
        for precision in ("float32", "auto"):
            facts = _child(
                "memory",
                audio=[str(audio)],
                precision=precision,
                folder=bench.fresh(),
                **bench.model,
            )
            rows.append({"side": f"mess, {precision}", "minutes": minutes, **facts})
        audio.unlink()
    minutes = bench.scale.plain_minutes
    audio = write_long(bench.scratch / "plain.wav", bench.music, minutes=minutes)
    facts = _child("plain", audio=str(audio), encoder=str(bench.checkpoint))
    audio.unlink()
    rows.append({"side": "plain loop, eager", "minutes": minutes, **facts})
    return {"rows": rows}


def show_memory(facts: Facts) -> None:
    for row in facts["rows"]:
        print(
            f"{row['side']:<18}{row['minutes']:>6g} min of 44.1 kHz stereo: peak "
            f"{row['peak_gb']:.2f} GB ({row['windows']} windows, {row['seconds']:.0f} s)"
        )


def measure_start(bench: Bench) -> Facts:
    """Time a new process until its first window is done."""
    runs = [
        _child(
            "start",
            began=time.monotonic(),
            audio=str(bench.music[0]),
            precision="auto",
            **bench.model,
        )
        for _ in range(bench.scale.starts + 1)
    ][1:]  # the first one fills the file cache
    parts = {name: median(run["parts"][name] for run in runs) for name in runs[0]["parts"]}
    imports = sum(seconds for name, seconds in parts.items() if name.startswith("imports"))
    return {
        "seconds": median(run["seconds"] for run in runs),
        "imports": imports,
        "parts": parts,
        "runs": [run["seconds"] for run in runs],
    }


def show_start(facts: Facts) -> None:
    total = facts["seconds"]
    print(
        f"{total:.2f} s from process start to the first window done, "
        f"{facts['imports'] / total:.0%} of it imports (median of {len(facts['runs'])})"
    )
    for name, seconds in facts["parts"].items():
        print(f"  {seconds:6.2f} s  {name}")


def measure_estimate(bench: Bench) -> Facts:
    """Compare `estimate_extraction_time` with the truth, for the demo's encoder and full shape."""
    from mess_core.extraction.specs import DEMO_ENCODER

    count = bench.scale.recordings
    few = bench.music[:: max(len(bench.music) // count, 1)][:count]
    cases = {
        "demo corpus, demo encoder": (bench.music, DEMO_ENCODER, "float32"),
        f"{len(few)} recordings, 95M shape": (few, str(bench.checkpoint), "auto"),
    }
    return {
        name: _child(
            "estimate",
            audio=[str(path) for path in audio],
            encoder=encoder,
            models=str(bench.models),
            precision=precision,
            folder=bench.fresh(),
        )
        for name, (audio, encoder, precision) in cases.items()
    }


def show_estimate(facts: Facts) -> None:
    for name, case in facts.items():
        print(
            f"{name}: estimated {case['estimated_s']:.1f} s, true {case['true_s']:.1f} s, ratio "
            f"{case['ratio']:.2f} ({case['sampled']} of {case['windows']} windows timed)"
        )


def measure_conversion(bench: Bench) -> Facts:
    """Time the first loading of a checkpoint, into an empty models folder."""
    return _child("convert", encoder=str(bench.checkpoint), models=bench.fresh())


def show_conversion(facts: Facts) -> None:
    print(f"{facts['seconds']:.1f} s to load a checkpoint that was not converted yet")


MEASURES: dict[str, tuple[Callable[[Bench], Facts], Callable[[Facts], None]]] = {
    "speed": (measure_speed, show_speed),
    "clips": (measure_clips, show_clips),
    "memory": (measure_memory, show_memory),
    "start": (measure_start, show_start),
    "estimate": (measure_estimate, show_estimate),
    "conversion": (measure_conversion, show_conversion),
}


def _child(job: str, **arguments: Any) -> Facts:
    command = [sys.executable, "-m", "benchmarks.extraction_jobs", job, json.dumps(arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    facts: Facts = json.loads(done.stdout.splitlines()[-1])
    return facts


def machine() -> Facts:
    """Return what the numbers hold for."""
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "date": time.strftime("%Y-%m-%d"),
        "processor": names[0] if names else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "load_before": os.getloadavg()[0],
        "versions": {name: version(name) for name in ("torch", "transformers", "openvino")},
    }


def prepare(work: Path) -> Path:
    """Return a checkpoint of MERT-v1-95M's shape with random weights, written where missing."""
    from tests.extraction.checkpoints import MERT_95M, write_checkpoint

    folder = work / "mert-95m-random"
    if not (folder / "done").exists():
        write_checkpoint(folder, base=MERT_95M, scale=None)
        (folder / "done").touch()
    return folder


def main() -> int:
    parser = _parser()
    args = parser.parse_args()
    if unknown := set(args.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    scale = QUICK if args.quick else Scale()
    if args.hour:
        scale = replace(scale, minutes=HOUR)
    args.work.mkdir(parents=True, exist_ok=True)
    checkpoint, models = prepare(args.work), args.work / "models"
    facts: Facts = {"machine": machine(), "scale": asdict(scale)}
    print(", ".join(f"{key} {value}" for key, value in facts["machine"].items()))
    with TemporaryDirectory(prefix="run-", dir=args.work) as scratch:
        music = demo_audio(args.work)
        bench = Bench(scale, checkpoint, models, music, Path(scratch), facts)
        _child("convert", encoder=str(checkpoint), models=str(models))
        for part in (*(args.parts or PARTS), *(["conversion"] if args.conversion else [])):
            measure, show = MEASURES[part]
            print(f"\n== {part}", flush=True)
            facts[part] = measure(bench)
            show(facts[part])
            if args.json:
                write_json(args.json, facts)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.extraction")
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)} (default: all)"
    )
    parser.add_argument("--quick", action="store_true", help="little of everything, to try it out")
    parser.add_argument("--hour", action="store_true", help="memory for 10 and for 60 minutes")
    parser.add_argument("--conversion", action="store_true", help="also time the conversion")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there too")
    parser.add_argument(
        "--work", type=Path, default=Path("data/benchmarks/extraction"), help="default: %(default)s"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
