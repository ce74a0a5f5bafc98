"""What `benchmarks.validity` measures: scores played to order, pianists, and clips with listeners.

Every function that takes a job runs in a process of its own, so jobs are picklable.
"""

import csv
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from mess_core.datasets.demo import Interpretation, perform, to_midi
from mess_core.datasets.demo.performance import beats_to_tsv
from mess_core.datasets.demo.pieces import SCORES
from mess_core.datasets.render import render_midi
from mess_core.progress import Progress
from mess_core.targets import MidiExpressionTargets, MusicalAspectTargets
from mess_core.targets.expression import rubato, rubato_ioi_ratio, tempo_variability
from mess_core.targets.notes import read_performance
from mess_core.targets.registry import scalar_targets

Values = dict[str, float]
Samples = npt.NDArray[np.float32]
Job = TypeVar("Job")
Result = TypeVar("Result")

RATE = 24_000
PROCESSES = 2

#: The scalars, and how legato the histogram is as a whole.
HISTOGRAM = "articulation_histogram"
MEASURED = (*scalar_targets(), HISTOGRAM)

#: Expression targets that depend on where the beats are, measured with annotated ones, too.
BEATS = " (beats)"
WITH_BEATS = tuple(
    f"{name}{BEATS}"
    for name in (
        "rubato",
        "performed_tempo_level",
        "performed_tempo_extent",
        "tempo_variability",
        "onset_timing_std",
    )
)

#: The colour of the sound. The renderer's touch has none: a soft note is a loud one with less gain.
#: So brightness is dosed after rendering, in dB per octave around a pivot, Hz.
TILT = "tilt"
PIVOT_HZ, LOWEST_HZ = 1000.0, 50.0
DB_PER_DOUBLING = 20 * np.log10(2)

#: Five strengths of each parameter of an interpretation, over what the demo corpus has of it. The
#: middle ones together are the neutral interpretation.
STRENGTHS = {
    "tempo": (0.8, 0.9, 1.0, 1.1, 1.2),
    "rubato": (0.0, 0.1, 0.2, 0.3, 0.4),
    "level": (44.0, 52.0, 60.0, 68.0, 76.0),
    "dynamic_range": (12.0, 24.0, 36.0, 48.0, 60.0),
    "articulation": (0.5, 0.65, 0.8, 0.95, 1.1),
    "pedal": (0.0, 0.25, 0.5, 0.75, 1.0),
    "melody_lead_ms": (0.0, 10.0, 20.0, 30.0, 40.0),
    "chord_spread_ms": (0.0, 10.0, 20.0, 30.0, 40.0),
    TILT: (-2.0, -1.0, 0.0, 1.0, 2.0),
}
NEUTRAL = Interpretation(**{name: values[2] for name, values in STRENGTHS.items() if name != TILT})

#: Of a rendered performance so much is heard, s.
HEARD_S = 90.0


class Dose(NamedTuple):
    """A score to be played with one parameter at one strength."""

    work_id: str
    parameter: str
    strength: float


class Pianist(NamedTuple):
    """A recorded performance and its annotated beats."""

    work_id: str
    midi: Path
    beats: Path


@dataclass(frozen=True)
class Clip:
    """A performance of a passage and its mean ratings by scale: of all listeners, of two halves."""

    passage: str
    midi: Path
    ratings: Values
    halves: tuple[Values, Values]


def in_parallel(
    function: Callable[[Job], Result], jobs: Iterable[Job], *, what: str
) -> list[Result]:
    """Return the results in the order of the jobs."""
    jobs = list(jobs)
    show, results = Progress(what), []
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        for result in pool.map(function, jobs):
            results.append(result)
            show(len(results), len(jobs), what)
    return results


def heard(midi: Path, *, seconds: float | None = None, tilt_db: float = 0.0) -> Values:
    """Return the audio targets of a performance, rendered, from its beginning."""
    samples = render_midi(midi, sample_rate=RATE).mean(axis=1)
    if seconds is not None:
        samples = samples[: round(seconds * RATE)]
    with threadpool_limits(limits=1, user_api="blas"):
        targets = MusicalAspectTargets().compute(tilted(samples, tilt_db), RATE)
    return {
        name: float(value)
        for fields in targets.values()
        for name, value in fields.items()
        if not value.ndim
    }


def tilted(samples: Samples, db_per_octave: float) -> Samples:
    """Make what lies above the pivot louder and what lies below softer, or the reverse."""
    if not db_per_octave:
        return samples
    frequencies = np.maximum(np.fft.rfftfreq(len(samples), 1 / RATE), LOWEST_HZ)
    gain = (frequencies / PIVOT_HZ) ** (db_per_octave / DB_PER_DOUBLING)
    return np.fft.irfft(np.fft.rfft(samples) * gain, len(samples)).astype(np.float32)


def played(midi: Path, *, beats: Path | None = None) -> Values:
    """Return the expression targets of a performance."""
    fields = MidiExpressionTargets().compute(midi, beats=beats)["expression"]
    values = {name: float(value) for name, value in fields.items() if not value.ndim}
    values[HISTOGRAM] = float(fields[HISTOGRAM] @ np.arange(len(fields[HISTOGRAM])))
    return values


def doses(works: int | None = None) -> list[Dose]:
    """Return every demo score with every parameter at every strength."""
    return [
        Dose(score.work_id, parameter, strength)
        for score in SCORES[:works]
        for parameter, strengths in STRENGTHS.items()
        for strength in strengths
    ]


def respond(dose: Dose) -> Values:
    """Play a score, and measure, beats tracked and known."""
    score = next(score for score in SCORES if score.work_id == dose.work_id)
    tilt_db = dose.strength if dose.parameter == TILT else 0.0
    changed = {} if dose.parameter == TILT else {dose.parameter: dose.strength}
    performance = perform(score, replace(NEUTRAL, **changed))
    with TemporaryDirectory() as folder:
        midi, beats = Path(folder, "performance.mid"), Path(folder, "performance.beats.tsv")
        midi.write_bytes(to_midi(performance))
        beats.write_text(beats_to_tsv(performance.beats), encoding="utf-8")
        values = heard(midi, tilt_db=tilt_db) | played(midi)
        known = played(midi, beats=beats)
    return values | {name: known[name.removesuffix(BEATS)] for name in WITH_BEATS}


def pianists(asap: Path, *, at_least: int, works: int | None = None) -> list[Pianist]:
    """Return the performances of the works of ASAP that have enough of them."""
    with (asap / "recordings.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    found: dict[str, list[Pianist]] = defaultdict(list)
    for row in rows:
        work = row["work_id"]
        found[work].append(Pianist(work, asap / row["midi"], asap / row["beats"]))
    enough = [work for work in sorted(found) if len(found[work]) >= at_least][:works]
    return [pianist for work in enough for pianist in found[work]]


def timing(pianist: Pianist) -> Values:
    """Measure a performance's timing from its notes, beats tracked and known."""
    tracked = read_performance(pianist.midi)
    annotated = read_performance(pianist.midi, beats=pianist.beats)
    values = {"rubato_ioi_ratio": rubato_ioi_ratio(tracked.onsets)}
    for performance, suffix in ((tracked, ""), (annotated, BEATS)):
        periods = performance.beat_periods
        values[f"rubato{suffix}"] = rubato(performance.shaped_tempo, periods)
        values[f"tempo_variability{suffix}"] = tempo_variability(periods)
    beats = annotated.beat_times[annotated.beat_times < HEARD_S]
    return values | {f"tempo{BEATS}": 60 * (len(beats) - 1) / float(beats[-1] - beats[0])}


def timed(pianist: Pianist) -> Values:
    """Measure a performance's timing from its notes, and its tempo from its sound."""
    return timing(pianist) | {"tempo": heard(pianist.midi, seconds=HEARD_S)["tempo"]}


def clips(percepiano: Path, *, at_least: int, passages: int | None = None) -> list[Clip]:
    """Return the clips of pianists, of the passages of PercePiano that have enough of them.

    Files are named ``{work}_{n}bars_{player}_{segment}.mid``. The deadpan renditions, of player
    ``Score`` or ``Score2``, are left out.
    """
    ratings = _Ratings(percepiano / "ratings.csv")
    found: dict[str, list[Clip]] = defaultdict(list)
    for midi in sorted((percepiano / "midi").glob("*.mid")):
        work, player, segment = midi.stem.rsplit("_", 2)
        if not player.startswith("Score"):
            passage = f"{work}_{segment}"
            halves = ratings.mean(midi.stem, half=0), ratings.mean(midi.stem, half=1)
            found[passage].append(Clip(passage, midi, ratings.mean(midi.stem), halves))
    enough = [passage for passage in sorted(found) if len(found[passage]) >= at_least]
    return [clip for passage in enough[:passages] for clip in found[passage]]


def rated(clip: Clip) -> Values:
    """Measure a clip."""
    return heard(clip.midi) | played(clip.midi)


class _Ratings:
    """What each listener rated; what is not 1 to 7 is no rating."""

    def __init__(self, path: Path) -> None:
        self._given: dict[str, list[tuple[int, str, float]]] = defaultdict(list)
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        order = {rater: i for i, rater in enumerate(sorted({row["rater"] for row in rows}))}
        for row in rows:
            for scale, text in row.items():
                if scale.startswith("s") and text and 1 <= float(text) <= 7:
                    rating = order[row["rater"]], scale, float(text)
                    self._given[row["clip"]].append(rating)

    def mean(self, clip: str, *, half: int | None = None) -> Values:
        """Return the mean by scale, over every second listener where a half is asked for."""
        kept: dict[str, list[float]] = defaultdict(list)
        for listener, scale, value in self._given[clip]:
            if half is None or listener % 2 == half:
                kept[scale].append(value)
        return {scale: mean(values) for scale, values in kept.items()}
