"""The sides that `benchmarks.targets` compares: librosa's functions one after the other, and ours.

`python -m benchmarks.targets_jobs NAME JSON` runs one of them as the first thing that its process
does, and prints as JSON, on the last line, how long that took from the process's start. Nothing
heavy is imported before, since imports are part of the time.
"""

import json
import sys
import time
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Samples = npt.NDArray[np.float32]

Facts = dict[str, Any]
RATE = 24_000


def _of(function: str, **options: Any) -> Callable[["Samples"], object]:
    """Return a call of one of librosa's functions on samples."""

    def call(samples: "Samples") -> object:
        import librosa

        result: object = attrgetter(function)(librosa)(y=samples, **options)
        return result

    return call


#: What most scripts call to get our audio targets (parts of curves follow from them), each from the
#: samples and with librosa's defaults. The chroma is computed twice, as by scripts that have a
#: function per target. The statistics that follow the calls are left out, and so are windows.
CALLS: dict[str, Callable[["Samples"], object]] = {
    "tempo, tempo_octave_ambiguity": _of("beat.beat_track", sr=RATE),
    "local_tempo_curve": _of("feature.tempo", sr=RATE, aggregate=None),
    "onset_density": _of("onset.onset_detect", sr=RATE),
    "onset_rate_curve": _of("onset.onset_strength", sr=RATE),
    "harmonic_complexity": _of("feature.chroma_cqt", sr=RATE),
    "chroma_mean, tension_curve": _of("feature.chroma_cqt", sr=RATE),
    "spectral_centroid, brightness_curve": _of("feature.spectral_centroid", sr=RATE),
    "spectral_rolloff": _of("feature.spectral_rolloff", sr=RATE),
    "spectral_bandwidth": _of("feature.spectral_bandwidth", sr=RATE),
    "zero_crossing_rate": _of("feature.zero_crossing_rate"),
    "attack_slopes, attack_sharpness": _of("feature.rms", hop_length=64),
    "dynamic_range, dynamic_variance, loudness_curve": _of("feature.rms"),
    "crescendo_strength, diminuendo_strength": _of("feature.rms"),
    "num_phrases, phrase_regularity": _of("feature.rms"),
    "novelty_curve": _of("feature.mfcc", sr=RATE),
}


def librosa_targets(samples: "Samples") -> Facts:
    """Return what our audio targets of a recording are made of, as most scripts get it."""
    return {names: call(samples) for names, call in CALLS.items()}


def mess_recording(samples: "Samples") -> Facts:
    """Return all audio targets of a recording."""
    from threadpoolctl import threadpool_limits

    from mess_core.targets import MusicalAspectTargets

    with threadpool_limits(limits=1, user_api="blas"):
        return {"recording": MusicalAspectTargets().compute(samples, RATE)}


def mess_windows(samples: "Samples") -> Facts:
    """Return all audio targets of a recording and of its windows, and the descriptors."""
    from threadpoolctl import threadpool_limits

    from mess_core.extraction.audio import segment_starts
    from mess_core.targets import MusicalAspectTargets, measure, measure_windows
    from mess_core.targets.descriptors import descriptors

    with threadpool_limits(limits=1, user_api="blas"):
        sound = MusicalAspectTargets().analyse(samples, RATE)
        starts = segment_starts(len(samples), sample_rate=RATE) / RATE
        return {
            "recording": measure(sound),
            "windows": measure_windows(sound, starts, window_s=5.0),
            "descriptors": [descriptors(sound.cut(start, start + 5.0)) for start in starts],
        }


def start_librosa(*, audio: str) -> None:
    """Load one recording and run librosa's functions."""
    import librosa

    samples, _ = librosa.load(audio, sr=RATE)
    librosa_targets(samples)


def start_mess(*, audio: str, midi: str, folder: str) -> None:
    """Do what a job of the workflow does for its first recording: decode, measure, store."""
    from dataclasses import replace

    from benchmarks.recordings import describe
    from mess_core.files import file_sha256
    from mess_core.layout import Layout
    from mess_core.targets import create_target_dataset

    row = replace(describe(Path(audio)), midi=midi, midi_sha256=file_sha256(Path(midi)))
    create_target_dataset([row], layout=Layout(Path(folder), "timed"))


STARTS: dict[str, Callable[..., None]] = {"librosa": start_librosa, "mess": start_mess}


def main() -> None:
    name, given = sys.argv[1], json.loads(sys.argv[2])
    began = given.pop("began")
    STARTS[name](**given)
    # The clock is the machine's: the parent read it just before it started this process.
    print(json.dumps({"seconds": time.monotonic() - began}))


if __name__ == "__main__":
    main()
