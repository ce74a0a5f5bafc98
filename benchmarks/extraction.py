"""Extraction against the loop that most people write, at MERT-v1-95M's full shape.

    python -m benchmarks.extraction                 # seconds per window, and ratios to the loop
    python -m benchmarks.extraction --minutes 60    # peak memory for one recording of that length

Weights are random (fixed seed): the real ones cannot be reached from the build machines.
"""

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from benchmarks.recordings import demo_audio, describe, write_long

if TYPE_CHECKING:
    from mess_core.extraction import FeatureExtractor

Floats = npt.NDArray[np.float32]

_BATCH = 4
_RATE = 24_000


def machine() -> dict[str, Any]:
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


def peak_gb() -> float:
    """Return the largest resident set of this process so far, in GB (10^9 bytes)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e9
    raise OSError("/proc/self/status has no VmHWM")


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


def plain_loop(folder: Path, *, attention: str) -> Callable[[Floats], Floats]:
    """Return the plain loop: float32, all hidden states stacked, copied to numpy and averaged."""
    import torch
    from transformers import Wav2Vec2FeatureExtractor

    from mess_core.extraction.checkpoint import find_checkpoint
    from mess_core.extraction.torch_engine import load_hubert

    model = load_hubert(find_checkpoint(str(folder)))
    model.set_attn_implementation(attention)
    prepare: Any = Wav2Vec2FeatureExtractor(  # type: ignore[no-untyped-call]
        sampling_rate=_RATE, do_normalize=True
    )

    def run(windows: Floats) -> Floats:
        pooled = []
        for first in range(0, len(windows), _BATCH):
            batch = list(windows[first : first + _BATCH])
            inputs = prepare(batch, sampling_rate=_RATE, return_tensors="pt")
            with torch.inference_mode():
                states = model(inputs.input_values, output_hidden_states=True).hidden_states
            pooled.append(torch.stack(states, dim=1).cpu().numpy().mean(axis=2))
        return np.concatenate(pooled)

    return run


def write_model(work: Path) -> Path:
    """Return the folder of the random checkpoint, written where it is missing."""
    from tests.extraction.checkpoints import MERT_95M, write_checkpoint

    folder = work / "mert-95m-random"
    if not (folder / "pytorch_model.bin").exists():
        write_checkpoint(folder, base=MERT_95M, scale=None)
    return folder


def measure_speed(work: Path, *, count: int, rounds: int) -> None:
    """Print seconds per window, the ratio to both plain loops, and the cosine to the first."""
    from mess_core.extraction import FeatureExtractor, stream_audio, stream_windows

    folder, music = write_model(work), demo_audio(work)
    stream = stream_windows(stream_audio(music[0]), sample_rate=_RATE)
    windows = np.stack([window for _, window in islice(stream, count)])
    sides: dict[str, Callable[[Floats], Floats]] = {
        f"plain loop, {attention}": plain_loop(folder, attention=attention)
        for attention in ("eager", "sdpa")
    }
    for precision in ("float32", "auto"):
        extractor = FeatureExtractor(folder, models=work, device="cpu", precision=precision)
        sides[f"{precision}: {extractor.encoder.engine.precision}"] = partial(_pooled, extractor)
    expected = sides["plain loop, eager"](windows).astype(np.float64)
    times = in_turn({name: partial(side, windows) for name, side in sides.items()}, rounds)
    medians = {name: statistics.median(seconds) / len(windows) for name, seconds in times.items()}
    print(f"{'':24}s/window  x eager   x sdpa  worst cosine")
    for name, seconds in medians.items():
        found = sides[name](windows).astype(np.float64)
        norms = np.linalg.norm(found, axis=2) * np.linalg.norm(expected, axis=2)
        cosine = ((found * expected).sum(axis=2) / norms).min()
        ratios = "".join(
            f"{medians[f'plain loop, {attention}'] / seconds:9.2f}"
            for attention in ("eager", "sdpa")
        )
        print(f"{name:24}{seconds:8.3f}{ratios}{cosine:14.6f}")


def _pooled(extractor: "FeatureExtractor", windows: Floats) -> Floats:
    outputs = extractor.run((None, window) for window in windows)
    return np.stack([pooled for _, pooled, _ in outputs])


def measure_memory(work: Path, *, minutes: float) -> None:
    """Print the peak memory of this process for one recording, 44.1 kHz stereo."""
    from mess_core.extraction import extract_shard
    from mess_core.layout import Layout

    with tempfile.TemporaryDirectory(dir=work) as name:
        recording = describe(write_long(Path(name) / "x.wav", demo_audio(work), minutes=minutes))
        layout = Layout(Path(name) / "data", "x")
        summary = extract_shard(
            [recording], layout, encoder=str(write_model(work)), models=work, device="cpu"
        )
    summary.check()
    print("\n".join(summary.lines()))
    print(f"{minutes:g} minutes: at most {peak_gb():.2f} GB")


def main() -> int:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--work", type=Path, default=Path("data/benchmarks/extraction"))
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--minutes", type=float)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    print(machine())
    if args.minutes:
        measure_memory(args.work, minutes=args.minutes)
    else:
        measure_speed(args.work, count=args.windows, rounds=args.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
