"""How fast targets are, beside librosa's functions called one after the other.

Both sides measure the same minute of the demo corpus, in turn; run it with nothing else on the
machine. librosa's side leaves out the statistics that follow its calls, and all windows::

    python -m benchmarks.targets [--rounds 5]
"""

import argparse
import time
from collections.abc import Callable
from importlib.metadata import version
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from mess_core.datasets.demo import demo_recordings, perform, to_midi
from mess_core.datasets.render import render_midi
from mess_core.extraction.audio import segment_starts
from mess_core.targets import measure, measure_windows
from mess_core.targets.registry import TARGETS
from mess_core.targets.sound import analyse

RATE = 24_000
SECONDS = 60
Samples = npt.NDArray[np.float32]

#: What most scripts call to get our audio targets (parts of curves follow from them), each from the
#: samples and with librosa's defaults. The chroma is computed twice, as by scripts that have a
#: function per target.
CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    "tempo, tempo_octave_ambiguity": ("beat.beat_track", {"sr": RATE}),
    "local_tempo_curve": ("feature.tempo", {"sr": RATE, "aggregate": None}),
    "onset_density": ("onset.onset_detect", {"sr": RATE}),
    "onset_rate_curve": ("onset.onset_strength", {"sr": RATE}),
    "harmonic_complexity": ("feature.chroma_cqt", {"sr": RATE}),
    "chroma_mean, tension_curve": ("feature.chroma_cqt", {"sr": RATE}),
    "spectral_centroid, brightness_curve": ("feature.spectral_centroid", {"sr": RATE}),
    "spectral_rolloff": ("feature.spectral_rolloff", {"sr": RATE}),
    "note_connection, resonance": ("feature.melspectrogram", {"sr": RATE}),
    "dynamic_range, loudness_curve": ("feature.rms", {}),
    "crescendo_strength, diminuendo_strength": ("feature.rms", {}),
    "novelty_curve": ("feature.mfcc", {"sr": RATE}),
}


def librosa_targets(samples: Samples) -> None:
    import librosa

    for name, options in CALLS.values():
        module, function = name.split(".")
        getattr(getattr(librosa, module), function)(y=samples, **options)


def our_targets(samples: Samples) -> None:
    measure(analyse(samples, RATE))


def our_targets_with_windows(samples: Samples) -> None:
    sound = analyse(samples, RATE)
    measure(sound)
    starts = segment_starts(len(samples), sample_rate=RATE) / RATE
    measure_windows(sound, starts, window_s=5.0)


def minute_of_music() -> Samples:
    """Return the beginnings of demo recordings, joined."""
    parts: list[Samples] = []
    for recording in demo_recordings()[::7]:
        midi = to_midi(perform(recording.score, recording.interpretation))
        parts.append(render_midi(midi, sample_rate=RATE)[: 10 * RATE].mean(axis=1))
        if sum(map(len, parts)) >= SECONDS * RATE:
            break
    return np.concatenate(parts)[: SECONDS * RATE]


def seconds(side: Callable[[Samples], None], samples: Samples) -> float:
    began = time.perf_counter()
    side(samples)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.targets")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    rounds = parser.parse_args().rounds
    named = {name for names in CALLS for name in names.split(", ")}
    ours = {name for name, spec in TARGETS.items() if spec.source == "audio" and not spec.curve}
    if named != ours:
        parser.error(f"the sides differ: {', '.join(sorted(named ^ ours))}")
    print(", ".join(f"{name} {version(name)}" for name in ("librosa", "numpy", "scipy")))
    samples = minute_of_music()
    sides = (librosa_targets, our_targets, our_targets_with_windows)
    times: dict[str, list[float]] = {side.__name__: [] for side in sides}
    with threadpool_limits(limits=1, user_api="blas"):
        for side in sides:  # the first call compiles librosa's kernels
            side(samples)
        for _ in range(rounds):
            for side in sides:
                times[side.__name__].append(seconds(side, samples))
    loop = median(times["librosa_targets"])
    print(f"{SECONDS} s of music, median of {rounds} rounds, sides in turn:")
    for name, runs in times.items():
        print(f"  {name:<26}{median(runs):7.3f} s  {loop / median(runs):5.1f} x as fast as librosa")


if __name__ == "__main__":
    main()
