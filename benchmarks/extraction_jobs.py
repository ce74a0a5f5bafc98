"""What `benchmarks.extraction` measures in processes of their own.

`python -m benchmarks.extraction_jobs NAME JSON` prints what the job of that name returns as JSON,
on the last line. Nothing heavy is imported before a job begins, since one of them times imports.
"""

import json
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mess_core.extraction.summary import ExtractionSummary

Facts = dict[str, Any]


def peak_gb() -> float:
    """Return the largest resident set of this process so far, in GB (10^9 bytes).

    Not `resource.getrusage`: on Linux its maximum survives `exec`, so that it counts the memory of
    the process that started this one.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e9
    raise OSError("/proc/self/status has no VmHWM")


def extract(
    *, audio: list[str], encoder: str, models: str, precision: str, folder: str
) -> "ExtractionSummary":
    """Extract segments and aggregated features of some files into a new folder."""
    from benchmarks.recordings import describe
    from mess_core.extraction.extractor import FeatureExtractor
    from mess_core.extraction.pipeline import ExtractionPipeline
    from mess_core.layout import Layout

    extractor = FeatureExtractor(encoder, models=Path(models), device="cpu", precision=precision)
    return ExtractionPipeline(extractor, Layout(Path(folder), "timed")).run(
        [describe(Path(path)) for path in audio]
    )


def memory(**arguments: Any) -> Facts:
    """Extract one recording as a job of the workflow does; return its peak memory."""
    summary = extract(**arguments)
    summary.check()
    return {"peak_gb": peak_gb(), "windows": summary.windows, "seconds": summary.seconds}


def plain(*, audio: str, encoder: str) -> Facts:
    """Run the plain loop over one recording; return its peak memory."""
    from benchmarks.plain import load_plain, run_plain
    from mess_core.extraction import load_audio, segment_audio

    model = load_plain(encoder, attention="eager")
    windows = segment_audio(load_audio(Path(audio)), sample_rate=24_000)
    began = time.perf_counter()
    run_plain(model, windows)
    seconds = time.perf_counter() - began
    return {"peak_gb": peak_gb(), "windows": len(windows), "seconds": seconds}


def clips(**arguments: Any) -> Facts:
    """Extract short clips twice, in a fresh process and in a warm one."""
    runs = {}
    for name in ("fresh", "warm"):
        summary = extract(**{**arguments, "folder": f"{arguments['folder']}/{name}"})
        summary.check()
        runs[name] = {
            "seconds": summary.seconds,
            "inference_s": summary.inference_s,
            "share": summary.inference_s / summary.seconds,
            "windows": summary.windows,
            "audio_s": summary.audio_s,
        }
    return runs


def start(*, began: float, audio: str, encoder: str, models: str, precision: str) -> Facts:
    """Time what a job does until its first window is done, part by part."""
    parts = {"python": time.monotonic() - began}
    last = time.monotonic()

    def lap(name: str) -> None:
        nonlocal last
        now = time.monotonic()
        parts[name] = now - last
        last = now

    from mess_core.extraction import encoder as encoders, extractor as extractors

    import_module("mess_core.extraction.pipeline")

    lap("imports: mess_core, numpy, soundfile")
    from mess_core.extraction import openvino_engine

    lap("imports: openvino")
    import_module("torchaudio.transforms")
    lap("imports: torch, torchaudio (they resample)")
    within: dict[str, float] = {}
    for module, function, name in (
        (encoders, "find_checkpoint", "checkpoint found and hashed"),
        (openvino_engine, "_find", "converted model found and hashed"),
        (openvino_engine, "_compile", "converted model compiled"),
    ):
        setattr(module, function, _timed(getattr(module, function), within, name))
    extractor = extractors.FeatureExtractor(
        encoder, models=Path(models), device="cpu", precision=precision
    )
    lap("the rest of loading")
    _, window = next(extractor.windows(Path(audio)))
    lap("first window decoded, resampled")
    before = sum(within.values())
    extractor.encoder.pooled(window[None])
    lap("first window run")
    inside_the_run = sum(within.values()) - before
    parts["first window run"] -= inside_the_run
    parts["the rest of loading"] -= sum(within.values()) - inside_the_run
    return {"seconds": last - began, "parts": parts | within}


def _timed(
    function: Callable[..., Any], seconds: dict[str, float], name: str
) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        began = time.monotonic()
        try:
            return function(*args, **kwargs)
        finally:
            seconds[name] = seconds.get(name, 0.0) + time.monotonic() - began

    return run


def convert(*, encoder: str, models: str) -> Facts:
    """Load an encoder for the first time, which converts it."""
    from mess_core.extraction import load_encoder

    began = time.perf_counter()
    load_encoder(encoder, models=Path(models), device="cpu")
    return {"seconds": time.perf_counter() - began}


def estimate(*, audio: list[str], encoder: str, models: str, precision: str, folder: str) -> Facts:
    """Compare the estimated time of an extraction with the true one."""
    from benchmarks.recordings import describe
    from mess_core.extraction import (
        ExtractionPipeline,
        FeatureExtractor,
        estimate_extraction_time,
    )
    from mess_core.layout import Layout

    recordings = [describe(Path(path)) for path in audio]
    extractor = FeatureExtractor(encoder, models=Path(models), device="cpu", precision=precision)
    expected = estimate_extraction_time(extractor, recordings)
    summary = ExtractionPipeline(extractor, Layout(Path(folder), "timed")).run(recordings)
    summary.check()
    return {
        "estimated_s": expected.seconds,
        "true_s": summary.seconds,
        "ratio": expected.seconds / summary.seconds,
        "windows": summary.windows,
        "sampled": expected.sampled,
    }


JOBS: dict[str, Callable[..., Facts]] = {
    job.__name__: job for job in (memory, plain, clips, start, convert, estimate)
}

if __name__ == "__main__":
    print(json.dumps(JOBS[sys.argv[1]](**json.loads(sys.argv[2]))))
