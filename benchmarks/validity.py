"""Whether targets measure what they say: ``python -m benchmarks.validity beats`` (or another part).

* *dose*: the demo's scores, played with one parameter of the interpretation at five strengths and
  all others in the middle: Spearman correlation with the target's own parameter, median of scores.
* *beats*: works of ASAP. Truth is the tempo at which the performance goes through its score: the
  n-th annotated beat of the one is the n-th of the other; and for how much of its notated time a
  key is held (median of the notes found in both). Within works (at least four players)
  Spearman's correlation, and over all works the share of pairs of players in the right order; of
  whole recordings, of the 5 s around each of eleven places of the score, and of all these windows.
* *listeners*: passages of PercePiano (at least five players). Within passages, Spearman's
  correlation with the mean rating, and of two halves of the listeners with each other.

Figures are means over works or passages with 95 % intervals (bootstrap over them). The last two
parts read ``../shared/data`` and show the half that is kept aside, with ``--tuning`` that on which
constants may be chosen: works whose id has an even SHA-256, and PercePiano's Beethoven. With
``--audio`` everything is rendered as well, and targets from audio are measured. Constants chosen
before 2026-11-28 knew no halves: see docs/targets.md.
"""

import argparse
import csv
import hashlib
import io
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from mess_core.datasets.demo import SCORES, Interpretation, Score, perform, to_midi
from mess_core.datasets.render import render_midi
from mess_core.report.validity import OWN_PARAMETER, PARTNERS, within
from mess_core.targets import measure
from mess_core.targets.notes import SHAPE_SMOOTHING_S, TEMPO_RATE, Performance, read_performance
from mess_core.targets.npz import Targets
from mess_core.targets.pulse import tempo_curve
from mess_core.targets.sound import analyse

DATA, RATE = Path("../shared/data"), 24_000
PIANISTS, PLAYERS, PLACES, WINDOW_S = 4, 5, 11, 5.0
#: A note of the score is found where its pitch is struck so near its time, s.
NEAR_S = 0.2
Floats = npt.NDArray[np.float64]
Values = dict[str, float]

#: Five strengths of each parameter; the middle ones together are the neutral interpretation. The
#: renderer's touch has no colour, so the sound is tilted afterwards, in dB per octave from 1 kHz.
STRENGTHS = {
    "tempo": (0.8, 0.9, 1.0, 1.1, 1.2),
    "rubato": (0.0, 0.1, 0.2, 0.3, 0.4),
    "level": (44.0, 52.0, 60.0, 68.0, 76.0),
    "dynamic_range": (12.0, 24.0, 36.0, 48.0, 60.0),
    "articulation": (0.5, 0.65, 0.8, 0.95, 1.1),
    "pedal": (0.0, 0.25, 0.5, 0.75, 1.0),
    "melody_lead_ms": (0.0, 10.0, 20.0, 30.0, 40.0),
    "chord_spread_ms": (0.0, 10.0, 20.0, 30.0, 40.0),
    "tilt": (-2.0, -1.0, 0.0, 1.0, 2.0),
}
NEUTRAL = Interpretation(**{name: v[2] for name, v in STRENGTHS.items() if name != "tilt"})

#: What is compared with the beats.
TIMING = {
    "true_tempo": ("chord_rate", "note_rate", "performed_tempo_level", "tempo", "onset_density"),
    "true_rubato": ("rubato", "rubato_ioi_ratio", "performed_tempo_extent", "local_tempo_extent"),
    "true_variability": ("tempo_variability",),
    "true_articulation": ("articulation_ratio",),
}

#: Of what no truth is known, one half of a recording is compared with the other.
HALVES = ("first half", "second half")
CONSISTENT = ("chord_spread", "melody_lead", "hand_balance", "pedal_share", "pedal_changes")

#: Scales of PercePiano (a word for the high end), and targets that ought to go with them.
SCALES: dict[str, tuple[str, tuple[str, ...]]] = {
    "s01": ("unstable", ("rubato", "tempo_variability", "onset_timing_std", "chord_spread")),
    "s02": ("long", ("articulation_ratio", "pedal_share", "note_connection")),
    "s03": ("hard", ("velocity_mean", "loudness_level")),
    "s04": ("wet", ("pedal_share", "pedal_changes", "articulation_ratio", "resonance")),
    "s05": ("blurred", ("pedal_share", "pedal_changes", "articulation_ratio", "resonance")),
    "s07": ("rich", ("pedal_share", "melody_lead", "hand_balance")),
    "s08": ("dark", ("spectral_centroid", "spectral_rolloff")),
    "s09": ("loud", ("velocity_mean", "loudness_level")),
    "s11": ("wide", ("velocity_range", "dynamic_range", "crescendo_strength")),
    "s12": ("slow", ("chord_rate", "note_rate", "performed_tempo_level", "tempo", "onset_density")),
}


def scalars(targets: Targets) -> Values:
    """Return the numbers among targets."""
    fields = (field for category in targets.values() for field in category.items())
    return {name: float(value) for name, value in fields if not value.ndim}


def heard(midi: Path, tilt_db: float = 0.0) -> npt.NDArray[np.float32]:
    """Render a performance."""
    samples = render_midi(midi, sample_rate=RATE).mean(axis=1)
    frequencies = np.maximum(np.fft.rfftfreq(len(samples), 1 / RATE), 50.0)
    gain = 10 ** (tilt_db * np.log2(frequencies / 1000) / 20)
    return np.fft.irfft(np.fft.rfft(samples) * gain, len(samples)).astype(np.float32)


def dose(job: tuple[Score, str, float], *, audio: bool) -> Values:
    """Play a score with a parameter at a strength, and measure."""
    score, parameter, strength = job
    tilt = strength if parameter == "tilt" else 0.0
    changed = {} if parameter == "tilt" else {parameter: strength}
    with TemporaryDirectory() as folder:
        midi = Path(folder, "performance.mid")
        midi.write_bytes(to_midi(perform(score, replace(NEUTRAL, **changed))))
        values = scalars(measure(read_performance(midi)))
        return values | (scalars(measure(analyse(heard(midi, tilt), RATE))) if audio else {})


def through_the_score(beats: Floats, score: Floats) -> Callable[[float, float], Values]:
    """Return what says the true tempo and its shaping between two times."""
    moving = np.concatenate([[True], (np.diff(beats) > 0) & (np.diff(score) > 0)])
    beats, score = beats[moving], score[moving]
    shaped = tempo_curve(beats, score, smoothing=SHAPE_SMOOTHING_S, rate=TEMPO_RATE)
    times = beats[0] + (np.arange(len(shaped)) + 0.5) * (beats[-1] - beats[0]) / len(shaped)
    middles, periods = (beats[1:] + beats[:-1]) / 2, np.log(np.diff(beats) / np.diff(score))

    def spread(values: Floats) -> float:
        low, high = np.percentile(values, (15.87, 84.13)) if len(values) > 3 else (np.nan, np.nan)
        return float(high - low) / 2

    def truth(start: float, stop: float) -> Values:
        first, last = np.interp((start, stop), beats, score)
        return {
            "true_tempo": float(last - first) / (stop - start),
            "true_rubato": spread(shaped[(times >= start) & (times < stop)]),
            "true_variability": spread(periods[(middles >= start) & (middles < stop)]),
        }

    return truth


def pianist(row: dict[str, str], *, audio: bool) -> dict[int, Values]:
    """Measure a performance of ASAP, by place in the score; 0 is the whole."""
    folder = DATA / "asap"
    beats, score = (_beats(folder / row[name]) for name in ("beats", "score_beats"))
    if len(beats) != len(score):
        return {}
    series: list[Any] = [read_performance(folder / row["midi"])]
    if audio:
        series.append(analyse(heard(folder / row["midi"]), RATE))
    truth = through_the_score(beats, score)

    def values(parts: Iterable[Any]) -> Values:
        return {k: v for part in parts for k, v in scalars(measure(part)).items()}

    whole = truth(beats[0], beats[-1]) | {
        "true_articulation": held(series[0], read_performance(folder / row["score"]), beats, score)
    }
    middle = sum(series[0].span) / 2
    for half, part in zip(
        HALVES, (series[0].cut(0, middle), series[0].cut(middle, np.inf)), strict=True
    ):
        halves = scalars(measure(part))
        whole |= {f"{name} ({half})": halves[name] for name in CONSISTENT}
    found = {0: whole | values(series)}
    places = np.interp(np.linspace(score[0], score[-1], PLACES + 2)[1:-1], score, beats)
    for place, start in enumerate(places - WINDOW_S / 2, start=1):
        stop = start + WINDOW_S
        if beats[0] <= start and stop <= beats[-1]:
            parts = (whole.cut(start, stop) for whole in series)
            found[place] = truth(start, stop) | values(parts)
    return found


def held(played: Performance, notated: Performance, beats: Floats, score: Floats) -> float:
    """Return the median share of its notated time, at the beats' tempo, that a key is held."""
    starts, stops = (np.interp(times, score, beats) for times in (notated.onsets, notated.releases))
    shares = []
    for start, stop, pitch in zip(starts, stops, notated.pitches, strict=True):
        near = np.flatnonzero((played.pitches == pitch) & (np.abs(played.onsets - start) < NEAR_S))
        if len(near) and stop > start:
            note = near[np.abs(played.onsets[near] - start).argmin()]
            shares.append((played.releases[note] - played.onsets[note]) / (stop - start))
    return float(np.median(shares))


def _beats(path: Path) -> Floats:
    text = path.read_text(encoding="utf-8")
    return np.loadtxt(io.StringIO(text), usecols=0, delimiter="\t", dtype=str).astype(float)


def clip(midi: Path, *, audio: bool) -> Values:
    """Measure a clip of PercePiano."""
    values = scalars(measure(read_performance(midi)))
    return values | (scalars(measure(analyse(heard(midi), RATE))) if audio else {})


def figure(of_groups: Iterable[float]) -> str:
    """Return the mean over groups and its 95 % interval."""
    found = np.array([value for value in of_groups if np.isfinite(value)])
    if len(found) < 2:
        return "-"
    drawn = np.random.default_rng(0).choice(found, (2000, len(found))).mean(axis=1)
    low, high = np.percentile(drawn, (2.5, 97.5))
    return f"{found.mean():.2f} ({low:.2f} to {high:.2f}, {len(found)})"


def in_order(groups: Sequence[Hashable], truth: Floats, measured: Floats) -> Iterator[float]:
    """Give for each group the share of its pairs whose order is the true one."""
    for group in dict.fromkeys(groups):
        here = np.array([g == group for g in groups])
        true, found = (np.sign(v[here][:, None] - v[here]) for v in (truth, measured))
        counted = (true > 0) & np.isfinite(found)
        if counted.any():
            yield float((found[counted] > 0).mean())


def show_dose(rows: list[tuple[tuple[Score, str, float], Values]]) -> None:
    print("| target | parameter | weakest to strongest | dose |\n|---|---|---|---|")
    for target, parameter in OWN_PARAMETER.items():
        of = [(job, values) for job, values in rows if job[1] == parameter and target in values]
        if of:
            works = [job[0].work_id for job, _ in of]
            measured = [values[target] for _, values in of]
            found = within(works, [job[2] for job, _ in of], measured)
            ends = (STRENGTHS[parameter][0], STRENGTHS[parameter][-1])
            weak, strong = (
                np.nanmedian([v[target] for job, v in of if job[2] == end]) for end in ends
            )
            response = np.nanmedian(list(found.values()))
            print(f"| `{target}` | {parameter} | {weak:.3g} to {strong:.3g} | {response:.2f} |")


def show_beats(rows: list[tuple[str, dict[int, Values]]]) -> None:
    print("| target | truth | recordings | pairs in order | windows | all windows |")
    print("|---|---|---|---|---|---|")
    compared = [(name, truth) for truth, names in TIMING.items() for name in names]
    compared += [(f"{name} ({HALVES[1]})", f"{name} ({HALVES[0]})") for name in CONSISTENT]
    for target, truth in [*compared, *PARTNERS.items()]:
        found = [
            ((work, place), values[truth], values[target])
            for work, places in rows
            for place, values in places.items()
            if target in values and truth in values
        ]
        if found:
            whole = [row for row in found if row[0][1] == 0]
            groups, true, measured = zip(*whole, strict=True)
            pairs = in_order(groups, np.array(true), np.array(measured))
            windows = defaultdict(list)
            for (work, place), value in _within(found).items():
                if place and np.isfinite(value):
                    windows[work].append(value)
            told = [figure(_within(whole).values()), figure(pairs)]
            told.append(figure(map(fmean, windows.values())))
            any_place = [((work, 1), a, b) for (work, place), a, b in found if place]
            told.append(figure(_within(any_place).values()))
            print(f"| `{target}` | {truth} | {' | '.join(told)} |")


def _within(rows: list[tuple[tuple[str, int], float, float]]) -> dict[Any, float]:
    return within(*zip(*rows, strict=True)) if rows else {}


def show_listeners(rows: list[tuple[str, dict[str, list[Values]], Values]]) -> None:
    passages = [passage for passage, _, _ in rows]
    print("| scale | target | within passages |\n|---|---|---|")
    for scale, (word, targets) in SCALES.items():
        means = [[_mean(ratings[half], scale) for half in ratings] for _, ratings, _ in rows]
        every, one, other = np.transpose(means)
        print(
            f"| {word} | half of the listeners | {figure(within(passages, one, other).values())} |"
        )
        for target in targets:
            if target in rows[0][2]:
                measured = [values[target] for _, _, values in rows]
                found = figure(within(passages, every, measured).values())
                print(f"| {word} | `{target}` | {found} |")


def _mean(listeners: list[Values], scale: str) -> float:
    given = [ratings[scale] for ratings in listeners if scale in ratings]
    return fmean(given) if given else np.nan


def listened() -> dict[str, dict[str, list[Values]]]:
    """Return each clip's ratings, a listener a row: of every one, and of two halves of them."""
    with (DATA / "percepiano/ratings.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    order = {rater: i for i, rater in enumerate(sorted({row["rater"] for row in rows}))}
    found: dict[str, dict[str, list[Values]]] = {}
    for row in rows:
        given = {s: float(row[s]) for s in SCALES if row[s] and 1 <= float(row[s]) <= 7}
        halves = found.setdefault(row["clip"], {"every": [], "even": [], "odd": []})
        halves["every"].append(given)
        halves[("even", "odd")[order[row["rater"]] % 2]].append(given)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.validity")
    parser.add_argument("part", choices=("dose", "beats", "listeners"))
    parser.add_argument("--tuning", action="store_true", help="the half for choosing constants")
    parser.add_argument("--audio", action="store_true", help="render, and measure audio targets")
    parser.add_argument("--processes", type=int, default=2, help="default: %(default)s")
    args = parser.parse_args()
    with ProcessPoolExecutor(args.processes) as pool, threadpool_limits(limits=1):
        if args.part == "dose":
            jobs = [(s, p, value) for s in SCORES for p, v in STRENGTHS.items() for value in v]
            found = pool.map(partial(dose, audio=args.audio), jobs, chunksize=5)
            show_dose(list(zip(jobs, found, strict=True)))
        elif args.part == "beats":
            with (DATA / "asap/recordings.tsv").open(encoding="utf-8", newline="") as file:
                table = [
                    row
                    for row in csv.DictReader(file, delimiter="\t")
                    if _even(row["work_id"]) == args.tuning
                ]
            places = pool.map(partial(pianist, audio=args.audio), table)
            show_beats(list(zip([row["work_id"] for row in table], places, strict=True)))
        else:
            passages = defaultdict(list)
            composer = "Beethoven" if args.tuning else "Schubert"
            for midi in sorted((DATA / "percepiano/midi").glob(f"{composer}*.mid")):
                work, player, segment = midi.stem.rsplit("_", 2)
                if not player.startswith("Score"):
                    passages[f"{work}_{segment}"].append(midi)
            clips = [
                (name, midi)
                for name, midis in passages.items()
                if len(midis) >= PLAYERS
                for midi in midis
            ]
            ratings = listened()
            measured = pool.map(partial(clip, audio=args.audio), [midi for _, midi in clips])
            show_listeners(
                [(n, ratings[m.stem], v) for (n, m), v in zip(clips, measured, strict=True)]
            )


def _even(work_id: str) -> bool:
    return int(hashlib.sha256(work_id.encode()).hexdigest(), 16) % 2 == 0


if __name__ == "__main__":
    main()
