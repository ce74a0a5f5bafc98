"""How well performances of a work are aligned: ``make bench-alignment``, or

    python -m benchmarks.alignment --half aside

Performances of ASAP, each rendered with a piano, a room and noise of its own
(`mess_core.training`), so that two of a work never sound alike. The truth are annotated beats at
which every performance has a note; beats that nobody plays, in long chords, lie where their
annotator put them. Works whose name has an odd hash are kept aside: no constant was chosen on them.
Of each work the performances count that have the same number of beats, at most five.

Compared are librosa's DTW on chroma, synctoolbox as its tutorial calls it (where it is installed)
and a straight line. Audio is kept in ``--work``.
"""

import argparse
import csv
import hashlib
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import groupby
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile
from scipy.stats import kendalltau, spearmanr

from mess_core.alignment.align import align_work
from mess_core.alignment.audio import Features, align_audio, extract
from mess_core.alignment.compare import stretch
from mess_core.alignment.curves import relative, work_curves
from mess_core.alignment.maps import Alignment, WorkAlignment
from mess_core.alignment.notes import align_notes
from mess_core.errors import AlignmentError
from mess_core.files import atomic_path
from mess_core.progress import Progress, counted
from mess_core.recordings import Recording
from mess_core.targets.create import measure
from mess_core.targets.notes import read_performance
from mess_core.training.render import draw_character, mix, read_pianos, record

Floats = npt.NDArray[np.float64]
Audio = npt.NDArray[np.float32]
Align = Callable[["Take", "Take"], Alignment]

RATE = 24_000
PLAYERS = 5
#: A beat counts where every performance has a note so near, s.
NEAR_S = 0.03
#: What is cut out to see whether anything else moves: from a third of the recording on, s.
CUT_S = 20.0
TRIES = 100


class Take:
    """A performance: its notes, beats and sound."""

    def __init__(self, row: Mapping[str, str], asap: Path, folder: Path) -> None:
        self.name, self.work = row["recording_id"], row["work_id"]
        self.midi = asap / row["midi"]
        self.performance = read_performance(self.midi, beats=asap / row["beats"])
        self.path = folder / f"{self.name}.flac"
        self._features: Features | None = None

    @property
    def beats(self) -> Floats:
        assert self.performance.annotated_beats is not None
        return self.performance.annotated_beats

    @property
    def samples(self) -> Audio:
        return np.asarray(soundfile.read(self.path, dtype="float32")[0])

    @property
    def features(self) -> Features:
        if self._features is None:
            self._features = extract(self.samples)
        return self._features

    @property
    def duration_s(self) -> float:
        return float(soundfile.info(self.path).duration)


def seed_of(name: str) -> int:
    return int(hashlib.sha256(name.encode()).hexdigest(), 16)


def read_takes(shared: Path, folder: Path, *, aside: bool) -> dict[str, list[Take]]:
    """Read half of ASAP, and render what is not rendered yet."""
    folder.mkdir(parents=True, exist_ok=True)
    asap = shared / "data" / "asap"
    with (asap / "recordings.tsv").open(encoding="utf-8") as table:
        rows = list(csv.DictReader(table, delimiter="\t"))
    rows = [row for row in rows if seed_of(row["work_id"]) % 2 == aside]
    takes = [Take(row, asap, folder) for row in rows]
    pianos = list(read_pianos(shared / "training" / "pianos").values())
    missing = [take for take in takes if not take.path.exists()]
    for take in counted(missing, Progress("recordings"), lambda take: take.name):
        rng = np.random.default_rng(seed_of(take.name) % 2**32)
        piano = pianos[rng.integers(len(pianos))]
        played = take.performance
        dry = mix(played, piano, draw_character(rng), 0.0, float(played.releases.max()) + 1.5)
        with atomic_path(take.path) as temporary:
            soundfile.write(temporary, np.clip(record(dry, rng), -1, 1), RATE, format="FLAC")
    return {name: list(found) for name, found in groupby(takes, lambda take: take.work)}


def by_audio(reference: Take, other: Take) -> Alignment:
    return align_audio(reference.features, other.features)


def by_notes(reference: Take, other: Take) -> Alignment:
    return align_notes(reference.performance, other.performance)


def straight_line(reference: Take, other: Take) -> Alignment:
    return through(np.array([0.0, reference.duration_s]), np.array([0.0, other.duration_s]))


def by_librosa(reference: Take, other: Take) -> Alignment:
    """Chroma of the constant-Q transform, cosine distance, as in librosa's gallery."""
    import librosa

    hop = 1024
    chroma = [
        librosa.feature.chroma_cqt(y=take.samples, sr=RATE, hop_length=hop) + 1e-6
        for take in (reference, other)
    ]
    _, path = librosa.sequence.dtw(*chroma, metric="cosine")
    return through(*(path[::-1].T * (hop / RATE)))


def by_synctoolbox(reference: Take, other: Take) -> Alignment:
    """CENS and DLNCO, 50 a second, multi-resolution DTW: its tutorial on audio."""
    from synctoolbox.dtw.mrmsdtw import sync_via_mrmsdtw
    from synctoolbox.dtw.utils import compute_optimal_chroma_shift, make_path_strictly_monotonic
    from synctoolbox.feature.chroma import (
        pitch_to_chroma,
        quantize_chroma,
        quantized_chroma_to_CENS,
    )
    from synctoolbox.feature.dlnco import pitch_onset_features_to_DLNCO
    from synctoolbox.feature.pitch import audio_to_pitch_features
    from synctoolbox.feature.pitch_onset import audio_to_pitch_onset_features

    chromas, onsets = [], []
    for take in (reference, other):
        import librosa

        audio = librosa.resample(take.samples, orig_sr=RATE, target_sr=22050)
        pitch = audio_to_pitch_features(f_audio=audio, Fs=22050, tuning_offset=0, feature_rate=50)
        chroma = quantize_chroma(f_chroma=pitch_to_chroma(f_pitch=pitch))
        peaks = audio_to_pitch_onset_features(f_audio=audio, Fs=22050, tuning_offset=0)
        chromas.append(chroma)
        onsets.append(
            pitch_onset_features_to_DLNCO(
                f_peaks=peaks, feature_rate=50, feature_sequence_length=chroma.shape[1]
            )
        )
    smooth = [quantized_chroma_to_CENS(c, 201, 50, 50)[0] for c in chromas]
    shift = compute_optimal_chroma_shift(*smooth)
    assert shift == 0, "the same key"
    path = sync_via_mrmsdtw(
        f_chroma1=chromas[0],
        f_onset1=onsets[0],
        f_chroma2=chromas[1],
        f_onset2=onsets[1],
        input_feature_rate=50,
        step_weights=np.array([1.5, 1.5, 2.0]),
        threshold_rec=10**6,
    )
    return through(*(make_path_strictly_monotonic(path) / 50))


def through(work_times: Floats, times: Floats) -> Alignment:
    """Return the map through points, errors unknown."""
    step = 1e-7 * np.arange(len(times))
    ends = times[[0, -1]] + step[[0, -1]]
    return Alignment(
        times + step, work_times + step, np.full(len(times), np.nan), ends[None], np.ones(1)
    )


def played_beats(takes: Sequence[Take]) -> npt.NDArray[np.bool_]:
    """Return which beats are played in all performances."""
    good = np.ones(len(takes[0].beats), np.bool_)
    for take in takes:
        onsets, beats = take.performance.onsets, take.beats
        after = np.clip(np.searchsorted(onsets, beats), 1, len(onsets) - 1)
        distance = np.minimum(np.abs(onsets[after] - beats), np.abs(onsets[after - 1] - beats))
        # Beats of a repeat that is not played are written at one time.
        good &= (distance < NEAR_S) & (np.diff(beats, prepend=-1) > 0.1)
    return good


def work_of(takes: Sequence[Take], maps: Sequence[Alignment]) -> WorkAlignment:
    names = [take.name for take in takes]
    alignments = dict(zip(names, maps, strict=True))
    return WorkAlignment(takes[0].work, names[0], alignments, dict.fromkeys(names, "audio"))


def identity(take: Take) -> Alignment:
    ends = np.array([0.0, take.duration_s])
    return Alignment(ends, ends, np.zeros(2), ends[None], np.ones(1))


def tau_of_stretch(true: Floats, found: Floats, good: npt.NDArray[np.bool_]) -> float:
    """Return the mean tau over performances of how they stretch four beats, against eight around.

    ``true`` and ``found`` are when each performance [shape=(performances, beats)] gets to beats.
    """
    taus = []
    for start in range(8, true.shape[1] - 12, 4):
        if good[[start - 8, start, start + 4, start + 12]].all():
            each = []
            for times in (true, found):
                inner = times[:, start + 4] - times[:, start]
                outer = times[:, start + 12] - times[:, start - 8] - inner
                each.append(np.log(inner / outer))
            taus.append(kendalltau(*each).statistic)
    return float(np.nanmean(taus)) if taus else np.nan


def errors_off(truth: WorkAlignment, work: WorkAlignment, beats: Floats) -> Floats:
    """Return by how many of its standard errors each stretch of four beats is off."""
    off = []
    for start, stop in zip(beats[8:-12:4], beats[12:-8:4], strict=True):
        try:
            true, found = (
                {row.recording_id: row for row in stretch(w, w.reference, start, stop).rows}
                for w in (truth, work)
            )
        except AlignmentError:
            continue
        both = true.keys() & found.keys()
        off += [(true[n].stretch - found[n].stretch) / found[n].error for n in both]
    return np.array(off)


def aligned_targets(work: WorkAlignment, durations: Sequence[float]) -> dict[str, list[float]]:
    curves = work_curves(work)
    found: dict[str, list[float]] = {"timing_deviation": [], "relative_tempo": []}
    for name, duration in zip(work.alignments, durations, strict=True):
        targets = measure(relative(curves, name, duration))["expression"]
        for target, values in found.items():
            values.append(float(targets[target]))
    return found


def judge(works: Mapping[str, list[Take]], align: Align) -> dict[str, Any]:
    """Return all figures of one way of aligning."""
    errors, taus, off, seconds = [], [], [], []
    spearman: dict[str, list[float]] = {"timing_deviation": [], "relative_tempo": []}
    for everyone in works.values():
        counts = [len(take.beats) for take in everyone]
        usual = max(counts, key=counts.count)
        takes = [take for take in everyone if len(take.beats) == usual][:PLAYERS]
        good = played_beats(takes) if len(takes) > 1 else np.zeros(1, np.bool_)
        if good.sum() < 40:
            continue
        began = time.perf_counter()
        maps = [identity(takes[0]), *(align(takes[0], take) for take in takes[1:])]
        seconds.append((time.perf_counter() - began) / (len(takes) - 1))
        beats = np.array([take.beats for take in takes])
        found = np.array([each.to_recording(beats[0]) for each in maps])
        errors.append((found - beats)[1:, good].ravel())
        if len(takes) < 3:
            continue
        true = [with_errors(through(beats[0, good], each[good])) for each in beats]
        truth, work = work_of(takes, true), work_of(takes, maps)
        taus.append(tau_of_stretch(beats, found, good))
        off.append(errors_off(truth, work, beats[0, good]))
        durations = [take.duration_s for take in takes]
        a, b = aligned_targets(truth, durations), aligned_targets(work, durations)
        for name, values in spearman.items():
            values.append(float(spearmanr(a[name], b[name]).statistic))
    error = np.abs(np.concatenate(errors))
    known = error[np.isfinite(error)]
    scaled = np.abs(np.concatenate(off))
    return {
        "works": len(errors),
        "beats": len(error),
        "not aligned": 1 - len(known) / len(error),
        "median ms": 1000 * np.median(known),
        "95 % ms": 1000 * np.percentile(known, 95),
        "below 50 ms": np.mean(known < 0.05),
        "tau of stretch": np.nanmean(taus),
        "within 1 error": np.nanmean(scaled < 1) if np.isfinite(scaled).any() else np.nan,
        "within 2 errors": np.nanmean(scaled < 2) if np.isfinite(scaled).any() else np.nan,
        **{name: np.mean(values) for name, values in spearman.items()},
        "s a pair": np.median(seconds),
    }


def with_errors(alignment: Alignment) -> Alignment:
    """Return annotated beats as a map without error."""
    return Alignment(
        alignment.times,
        alignment.work_times,
        np.zeros(len(alignment.times)),
        alignment.regions,
        alignment.confidence,
    )


def wrong_works(works: Mapping[str, list[Take]], cache: Path, *, midi: bool) -> dict[str, float]:
    """Put a recording of another work, of the same composer, among up to four of a work."""
    rng = np.random.default_rng(0)
    names, found, lost, true = list(works), 0, 0, 0
    for _ in range(TRIES):
        name = names[rng.integers(len(names))]
        same = [n for n in names if n != name and n.split("_")[0] == name.split("_")[0]]
        others = same or [n for n in names if n != name]
        other = works[others[rng.integers(len(others))]]
        wrong = other[rng.integers(len(other))]
        rows = [row_of(take, name, midi=midi) for take in [*works[name][:4], wrong]]
        left_out = align_work(name, rows, cache=cache).left_out
        found += wrong.name in left_out
        lost += len(left_out) - (wrong.name in left_out)
        true += len(rows) - 1
    return {"found": found, "of": TRIES, "true ones left out": lost, "of true ones": true}


def row_of(take: Take, work_id: str, *, midi: bool) -> Recording:
    """Return a row of a recording table; names stand for the files' hashes."""
    audio, notes = str(take.path), str(take.midi) if midi else ""
    hashes = take.name, take.name if midi else "", ""
    place = (take.name, work_id, "", "", "", "", audio, notes, "")
    return Recording(*place, *hashes, take.duration_s, "ok", "")


def moved_by_a_cut(works: Mapping[str, list[Take]]) -> dict[str, float]:
    """Cut a passage out of one recording of each work: how far is the rest moved, from audio?"""
    moved, missed = [], 0
    for takes in works.values():
        reference, other = takes[0], takes[1]
        start = other.duration_s / 3
        samples = other.samples
        gone = slice(round(start * RATE), round((start + CUT_S) * RATE))
        whole = by_audio(reference, other)
        cut = align_audio(reference.features, extract(np.delete(samples, gone)))
        times = np.arange(5.0, other.duration_s - 5, 0.5)
        times = times[(times < start - 2) | (times > start + CUT_S + 2)]
        same = np.where(times > start, times - CUT_S, times)
        difference = np.abs(cut.to_work(same) - whole.to_work(times))
        missed += len(cut.regions) == len(whole.regions)
        moved.append(difference[np.isfinite(difference)])
    each = [float(np.median(part)) for part in moved]
    return {
        "median ms": 1000 * float(np.median(np.concatenate(moved))),
        "largest median of a work ms": 1000 * max(each),
        "not noticed": missed,
        "of": len(moved),
    }


def ten_minutes(paths: Sequence[Sequence[Path]]) -> dict[str, float]:
    """Align two recordings of ten minutes, files in a row: seconds, and this process's memory."""
    pair = []
    for files in paths:
        samples = np.zeros(0, np.float32)
        while len(samples) < 600 * RATE:
            samples = np.append(samples, soundfile.read(files[0], dtype="float32")[0])
            files = files[1:]
        pair.append(samples[: 600 * RATE])
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here on
    before = memory_mb("VmRSS")
    began = time.perf_counter()
    features = [extract(samples) for samples in pair]
    heard = time.perf_counter()
    align_audio(*features)
    done = time.perf_counter()
    more = memory_mb("VmHWM") - before
    return {"features s": heard - began, "alignment s": done - heard, "MB beside samples": more}


def memory_mb(field: str) -> float:
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[field].split()[0]) / 1024


METHODS: dict[str, Align] = {
    "audio": by_audio,
    "MIDI": by_notes,
    "librosa": by_librosa,
    "synctoolbox": by_synctoolbox,
    "line": straight_line,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--work", type=Path, default=Path("data/benchmarks/alignment"))
    parser.add_argument("--half", choices=("aside", "chosen"), default="aside")
    parser.add_argument("methods", nargs="*", default=list(METHODS))
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    works = read_takes(args.shared, args.work, aside=args.half == "aside")
    for name in args.methods:
        try:
            show(name, judge(works, METHODS[name]))
        except ImportError as error:
            print(f"{name}: not installed ({error})")
    for name in ("audio", "MIDI"):
        if name in args.methods:
            with TemporaryDirectory() as cache:
                found = wrong_works(works, Path(cache), midi=name == "MIDI")
            show(f"wrong works, {name}", found)
    if "audio" in args.methods:
        show("a passage cut out, audio", moved_by_a_cut(works))
        paths = [[takes[number].path for takes in works.values()] for number in (0, 1)]
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:
            show("ten minutes, audio", alone.submit(ten_minutes, paths).result())


def show(title: str, figures: Mapping[str, Any]) -> None:
    print(title)
    for name, value in figures.items():
        shown = f"{value:.3f}" if isinstance(value, float) else value
        print(f"  {name}: {shown}")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
