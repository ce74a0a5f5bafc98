"""Extraction against the loop that most people write, at MERT-v1-95M's full shape.

    python -m benchmarks.extraction                 # seconds per window, and ratios to the loop
    python -m benchmarks.extraction --minutes 60    # peak memory for one recording of that length

Weights are random (fixed seed): the real ones cannot be reached from the build machines.
"""

import argparse
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.recordings import demo_audio, describe, write_long

Floats = npt.NDArray[np.float32]

_BATCH = 4
_RATE = 24_000


def machine() -> str:
    """Return what the numbers hold for."""
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    names = ("torch", "transformers", "openvino")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    return f"{time.strftime('%Y-%m-%d')}: {cores} cores, load {load:.1f} before; {versions}"


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
    from mess_core.extraction.torch_engine import load_module

    model = load_module(find_checkpoint(str(folder)))
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
    from mess_core.extraction import load_encoder, stream_audio, stream_windows

    folder, music = write_model(work), demo_audio(work)
    stream = stream_windows(stream_audio(music[0]), sample_rate=_RATE)
    windows = np.stack([window for _, window in islice(stream, count)])
    sides = {f"plain loop, {a}": plain_loop(folder, attention=a) for a in ("eager", "sdpa")}
    for precision in ("float32", "auto"):
        encoder = load_encoder(str(folder), models=work, device="cpu", precision=precision)
        sides[f"{precision}: {encoder.engine.precision}"] = encoder.pooled
    expected = sides["plain loop, eager"](windows).astype(np.float64)
    times = in_turn({name: partial(side, windows) for name, side in sides.items()}, rounds)
    medians = {name: statistics.median(seconds) / len(windows) for name, seconds in times.items()}
    print(f"{'':24}s/window  x eager   x sdpa  worst cosine")
    for name, seconds in medians.items():
        found = sides[name](windows).astype(np.float64)
        norms = np.linalg.norm(found, axis=2) * np.linalg.norm(expected, axis=2)
        cosine = ((found * expected).sum(axis=2) / norms).min()
        eager, sdpa = (medians[f"plain loop, {kind}"] / seconds for kind in ("eager", "sdpa"))
        print(f"{name:24}{seconds:8.3f}{eager:9.2f}{sdpa:9.2f}{cosine:14.6f}")


def measure_memory(work: Path, *, minutes: float) -> None:
    """Print the peak memory for one recording, 44.1 kHz stereo."""
    from mess_core.extraction import ExtractionPipeline, FeatureExtractor
    from mess_core.layout import Layout

    with tempfile.TemporaryDirectory(dir=work) as name:
        recording = describe(write_long(Path(name) / "x.wav", demo_audio(work), minutes=minutes))
        layout = Layout(Path(name) / "data", "x")
        extractor = FeatureExtractor(str(write_model(work)), models=work, device="cpu")
        summary = ExtractionPipeline(extractor, layout).run([recording])
    assert not summary.failed
    print("\n".join(summary.lines()))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    print(f"{minutes:g} minutes: at most {peak:.2f} GB")


def main() -> None:
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


if __name__ == "__main__":
    main()
