"""Words as measured things: which of listeners' scales aspects tell, and what words then find.

    python -m benchmarks.words

* *Listeners*: PercePiano's clips, each scale's mean rating beside the aspects that an index would
  measure of the clip: the mean of its windows, in the windows' standard deviations, from MIDI where
  an aspect is measured from MIDI, else from rendered audio. Both are compared within passages (the
  same bars by a dozen players), so that the piece explains nothing. Ridge regressions learn on one
  work and are judged on the other. Of scales that are told in both directions, regressions on both
  works give rows for `search/lexicon.tsv`.
* *Phrases*: what is extreme of a clip within its passage, in words, is to find it among the others.
* *The demo*: words with known answers, asked of its index.

``docs/words.md`` has the figures.
"""

import argparse
import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks.evaluation import Floats, clean_ratings, passages, table
from mess_core import Query, load_published
from mess_core.datasets.render import render_midi
from mess_core.evaluation import Figure
from mess_core.evaluation.judgments import HALVES, halve, reliability
from mess_core.extraction.audio import segment_starts
from mess_core.files import atomic_path
from mess_core.probing.aspects import ASPECT_REGISTRY
from mess_core.probing.inference import resample_works, t_interval
from mess_core.search.search import search
from mess_core.search.wishes import rankings
from mess_core.search.words import understand
from mess_core.targets.create import measure_windows
from mess_core.targets.notes import read_performance
from mess_core.targets.sound import analyse

RATE, WINDOW_S, OVERLAP = 24_000, 5.0, 0.5
WORKS = ("Beethoven", "Schubert")
SCALES = [f"s{number:02}" for number in range(1, 20)]
#: Of ridge regressions, per clip. From 0.3 to 3 all do as well (docs/words.md).
PENALTY = 1.0
RESAMPLES = 1000
#: Smaller weights, the largest being 1, are left out of the lexicon.
LEAST = 0.25
#: What the ends of a scale are called, low and high.
ENDS = {
    "s01": ("stable", "unstable"),
    "s02": ("short", "long"),
    "s03": ("cushioned", "hard"),
    "s04": ("dry", "wet"),
    "s05": ("clean", "blurred"),
    "s06": ("even timbre", "colourful"),
    "s07": ("shallow", "rich"),
    "s08": ("bright timbre", "dark timbre"),
    "s09": ("soft", "loud"),
    "s10": ("mellow", "raw"),
    "s11": ("little range", "large range"),
    "s12": ("fast", "slow"),
    "s13": ("flat", "spacious"),
    "s14": ("disproportioned", "balanced"),
    "s15": ("pure", "dramatic"),
    "s16": ("optimistic", "dark mood"),
    "s17": ("low energy", "high energy"),
    "s18": ("honest", "imaginative"),
    "s19": ("doubtful", "convincing"),
}
#: The timbre that listeners heard was that of another piano than the one that is rendered here.
OTHER_PIANO = "s08"
#: What the lexicon says of its rows: docs/words.md says how weights are found.
CITATION = (
    "# percepiano-{scale}: Jisoo Park and others, Piano performance evaluation dataset with "
    "multilevel perceptual features, Scientific Reports 14 (2024) 23002, scale {scale}, {ends}: "
    "mean ratings put into aspects (docs/words.md); R is {fit.text} on a work that was not learned "
    "from."
)
#: Other words for the ends.
SYNONYMS = {
    **{"steady": "stable", "unsteady": "unstable", "saturated": "wet", "colorful": "colourful"},
    **{"sophisticated": "mellow", "crude": "raw", "energetic": "high energy"},
}
#: What the high ends (or, turned round, the low ends) meant in the lexicon before measured rows.
SAID: dict[str, dict[str, float]] = {
    "s01": {"rubato": 1},
    "s02": {"articulation": 1},
    "s03": {"dynamics": 0.6, "articulation": -0.5, "brightness": 0.4},
    "s04": {"pedal": 1},
    "s05": {"pedal": 0.9, "articulation": 0.4},
    "s07": {"harmonic_richness": 1},
    "s08": {"brightness": -1},
    "s09": {"dynamics": 1},
    "s10": {"brightness": 0.6, "dynamics": 0.5, "articulation": -0.3},
    "s11": {"dynamic_range": 1},
    "s12": {"tempo": -1},
    "s15": {"dynamic_range": 0.8, "dynamics": 0.5, "expressiveness": 0.4},
    "s16": {"tempo": -0.8, "articulation": 0.6, "dynamics": -0.4}
    | {"brightness": -0.3, "rubato": 0.3},
    "s17": {"rhythmic_energy": 0.7, "dynamics": 0.6, "tempo": 0.5},
}
#: What is asked of the demo, and which parameters of `demo.interpretations.tsv` are the answer.
QUESTIONS = {
    "slow and soft": {"tempo": -1, "level": -1},
    "dry and fast": {"pedal": -1, "tempo": 1},
    "loud but slow": {"level": 1, "tempo": -1},
    "legato and soft": {"articulation": 1, "level": -1},
    "staccato": {"articulation": -1},
    "steady": {"rubato": -1},
}
PARAMETERS = ("tempo", "level", "articulation", "pedal", "rubato")
LEAST_ANSWERS = 3
#: Aspects with a direction that need no other performance of the work.
DIRECTED = [name for name, a in ASPECT_REGISTRY.items() if a.more and not a.aligned]
_TINY = np.finfo(float).tiny


class Clips(NamedTuple):
    """Clips of passages that many play, by players: n of them."""

    names: list[str]
    #: The work and the passage of each [n].
    works: npt.NDArray[np.str_]
    passages: npt.NDArray[np.str_]
    #: Aspects [n, A], in standard deviations of the windows of all clips.
    aspects: Floats
    #: What each rater said of each clip [raters, 19].
    ratings: dict[str, Floats]

    @classmethod
    def read(cls, folder: Path, cache: Path) -> "Clips":
        """Measure and read PercePiano; scores that a computer plays are left out.

        With them, having no pedal explains whatever listeners dislike in a computer.
        """
        ratings = clean_ratings(folder, cache.with_name("ratings.csv"))
        of = {clip: p for work in WORKS for clip, p in passages(ratings, work).items()}
        values = measure_aspects([folder / "midi" / f"{name}.mid" for name in of], cache)
        played = np.array(["_Score" not in name for name in of])
        names = np.array(list(of))[played]
        works = np.array([name.split("_")[0] for name in names])
        groups = np.array(list(of.values()))[played]
        return cls(names.tolist(), works, groups, values[played], ratings)

    @property
    def means(self) -> Floats:
        """Mean ratings [n, 19]."""
        return np.array([np.nanmean(self.ratings[name], axis=0) for name in self.names])


class Fit(NamedTuple):
    """How well held-out ratings [n] are predicted within passages."""

    r: float
    interval: tuple[float, float]
    r2: float

    @property
    def text(self) -> str:
        """R and its interval."""
        return f"{self.r:.2f} ({self.interval[0]:.2f} to {self.interval[1]:.2f})"


def measure_targets(midi: Path) -> dict[str, Floats]:
    """Return every target of the windows of a clip, of its MIDI and of its rendering."""
    samples = render_midi(midi, sample_rate=RATE).mean(axis=1)
    samples = np.pad(samples, (0, max(0, round(WINDOW_S * RATE) - len(samples))))
    starts = segment_starts(len(samples), sample_rate=RATE, window_s=WINDOW_S, overlap=OVERLAP)
    found: dict[str, Floats] = {}
    for series in (analyse(samples, RATE), read_performance(midi)):
        for fields in measure_windows(series, starts / RATE, window_s=WINDOW_S).values():
            found |= {name: value for name, value in fields.items() if value.ndim == 1}
    return found


def measure_aspects(midi: Sequence[Path], cache: Path) -> Floats:
    """Return the aspects of clips [n, A]: means of their windows, in the windows' SD; NaN: none."""
    if cache.exists():
        return np.asarray(np.load(cache))
    clips = [measure_targets(path) for path in midi]
    counts = [len(clip["velocity_mean"]) for clip in clips]
    rows = np.repeat(np.arange(len(clips)), counts)
    columns = []
    for aspect in (ASPECT_REGISTRY[name] for name in DIRECTED):
        targets = aspect.midi or aspect.targets
        stacked = np.array([np.concatenate([clip[t] for clip in clips]) for t in targets])
        value = aspect.more * np.mean([standardised(target) for target in stacked], axis=0)
        value, known = standardised(value), np.isfinite(value)
        total = np.bincount(rows[known], value[known], minlength=len(clips))
        number = np.bincount(rows[known], minlength=len(clips))
        columns.append(np.where(number > 0, total / np.maximum(number, 1), np.nan))
    found = np.column_stack(columns)
    cache.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(cache) as temporary, temporary.open("wb") as file:
        np.save(file, found)
    return found


def standardised(values: Floats) -> Floats:
    """Return values in standard deviations from their mean; NaN stays."""
    return np.asarray((values - np.nanmean(values)) / np.nanstd(values))


def within(values: Floats, groups: npt.NDArray[np.str_]) -> Floats:
    """Take the mean of its group away from each row [n, q]; NaN, which says nothing, becomes 0."""
    centred = values.copy()
    for group in np.unique(groups):
        centred[groups == group] -= np.nanmean(centred[groups == group], axis=0)
    return np.nan_to_num(centred)


def learn(X: Floats, Y: Floats) -> Floats:
    """Return the weights [A, 19] of centred aspects for centred ratings.

    First what dictionaries say, as far as ratings follow it; then a ridge regression of what is
    left. Aspects count in their spread within passages: pieces differ in tempo five times as much
    as players of one piece do, and any word that has to do with it would mean little else.
    """
    Z, said = X / X.std(axis=0), np.array([vector(SAID.get(scale, {})) for scale in SCALES]).T
    told = Z @ said
    agreement = (told * Y).sum(axis=0) / np.maximum(np.square(told).sum(axis=0), _TINY)
    said = said * np.maximum(agreement, 0.0)
    left = Z.T @ (Y - Z @ said)
    return np.asarray(said + np.linalg.solve(Z.T @ Z + PENALTY * len(Z) * np.eye(len(said)), left))


def vector(weights: Mapping[str, float]) -> Floats:
    """Return weights by aspect as an array [A]."""
    return np.array([weights.get(name, 0.0) for name in DIRECTED])


def predict_held_out(X: Floats, Y: Floats, parts: npt.NDArray[np.str_]) -> Floats:
    """Return predictions [n, 19] of every part by what is learned from the others.

    That is what a wish with these weights is worth, scaled to ratings.
    """
    predicted = np.empty_like(Y)
    for part in np.unique(parts):
        out = parts == part
        weights = learn(X[~out], Y[~out])
        worth = X[~out] @ weights
        slope = (worth * Y[~out]).sum(axis=0) / np.maximum(np.square(worth).sum(axis=0), _TINY)
        predicted[out] = X[out] @ weights * slope
    return predicted


def judge(truth: Floats, predicted: Floats, groups: npt.NDArray[np.str_]) -> Fit:
    """Return how ratings [n] and predictions agree within passages, an interval over these."""
    products = np.column_stack([truth**2, predicted**2, truth * predicted])
    sums = np.array([products[groups == group].sum(axis=0) for group in np.unique(groups)])
    resampled = resample_works(len(sums), RESAMPLES, np.random.default_rng(0)) @ sums
    yy, pp, yp = np.vstack([sums.sum(axis=0), resampled]).T
    r = yp / np.sqrt(np.maximum(yy * pp, _TINY))
    reach = t_interval(float(r[0]), r[1:], len(sums)) or (np.nan, np.nan)
    return Fit(float(r[0]), reach, float(1 - (yy[0] - 2 * yp[0] + pp[0]) / yy[0]))


def weight_intervals(X: Floats, Y: Floats, groups: npt.NDArray[np.str_]) -> Floats:
    """Return the 95 % intervals [2, A, q] of `learn`, from a bootstrap over passages."""
    names, places = np.unique(groups, return_inverse=True)
    drawn = []
    for counts in resample_works(len(names), RESAMPLES, np.random.default_rng(0)):
        rows = np.repeat(np.arange(len(X)), counts[places].astype(np.int64))
        drawn.append(learn(X[rows], Y[rows]))
    return np.asarray(np.quantile(drawn, (0.025, 0.975), axis=0))


def meaning(weights: Floats, kept: npt.NDArray[np.bool_] | None = None) -> dict[str, float]:
    """Return the weights [A] that are kept, the largest being 1, without small ones."""
    scaled = weights if kept is None else np.where(kept, weights, 0.0)
    scaled = scaled / (np.abs(scaled).max() or 1.0)
    order = np.argsort(-np.abs(scaled), kind="stable")
    return {DIRECTED[i]: float(scaled[i]) for i in order if abs(scaled[i]) >= LEAST}


def scales(clips: Clips) -> tuple[dict[str, Fit], set[str]]:
    """Print how well each scale is told of the other work; return that, and what is told of both.

    *Between* is the correlation of passages' means within each work with what is expected.
    """
    X, Y = within(clips.aspects, clips.passages), within(clips.means, clips.passages)
    by_passage = predict_held_out(X, Y, clips.passages)
    by_work = predict_held_out(X, Y, clips.works)
    reliable = []
    for work in WORKS:
        names = [name for name in clips.names if name.startswith(work)]
        of = dict(zip(names, clips.passages[clips.works == work].tolist(), strict=True))
        reliable.append(reliability(clips.ratings, of, np.random.default_rng(0)))
    expected, fits, told = between(clips), {}, set()
    columns = ("scale", "reliability", "R, passages", "R2", "R, works", "R2", *WORKS, "between")
    print(f"| {' | '.join(columns)} |", "|---" * len(columns) + "|", sep="\n")
    for j, scale in enumerate(SCALES):
        passage, fits[scale] = (
            judge(Y[:, j], predicted[:, j], clips.passages) for predicted in (by_passage, by_work)
        )
        parts = [clips.works == work for work in WORKS]
        each = [judge(Y[p, j], by_work[p, j], clips.passages[p]) for p in parts]
        cells = [
            f"{scale} {' to '.join(ENDS[scale])}",
            ", ".join(f"{r[j]:.2f}" for r in reliable),
            *(f"{fit.text} | {fit.r2:.2f}" for fit in (passage, fits[scale])),
            *(fit.text for fit in each),
            ", ".join(f"{r:.2f}" for r in expected[:, j]),
        ]
        print(f"| {' | '.join(cells)} |")
        if all(fit.interval[0] > 0 for fit in each):
            told.add(scale)
    return fits, told


def between(clips: Clips) -> Floats:
    """Return the correlation of passages' mean ratings in each work [2, 19] with what is expected.

    That is their mean aspects, weighted as was learned within passages of the other work.
    """
    X, Y = within(clips.aspects, clips.passages), within(clips.means, clips.passages)
    found = []
    for work in WORKS:
        mine = clips.works == work
        weights = learn(X[~mine], Y[~mine])
        groups = [clips.passages == passage for passage in np.unique(clips.passages[mine])]
        aspects, heard = (
            np.array([values[rows].mean(axis=0) for rows in groups])
            for values in (clips.aspects, clips.means)
        )
        expected = aspects @ weights
        both = zip(expected.T, heard.T, strict=True)
        found.append([np.corrcoef(one, other)[0, 1] for one, other in both])
    return np.array(found)


def rows(clips: Clips, fits: Mapping[str, Fit], told: set[str]) -> list[str]:
    """Return rows of the lexicon for both ends of the scales that are told, citations first.

    Where nothing else is said of those that are not told, either, rows say that nothing is known.
    """
    X, Y = within(clips.aspects, clips.passages), within(clips.means, clips.passages)
    weights, (low, high) = learn(X, Y), weight_intervals(X, Y, clips.passages)
    heads, lines = [], []
    for j, scale in enumerate(SCALES):
        if scale in SAID.keys() - told or scale == OTHER_PIANO:
            continue
        kept = ((low[:, j] > 0) | (high[:, j] < 0)) & (scale in told)
        heads.append(CITATION.format(scale=scale, ends=" to ".join(ENDS[scale]), fit=fits[scale]))
        found = meaning(weights[:, j], kept)
        for sign, end in zip((-1, 1), ENDS[scale], strict=True):
            text = " ".join(f"{name}={sign * weight:.2f}" for name, weight in found.items())
            lines.append(f"{end}\ten\t{text}\tpercepiano-{scale}")
            same = f"{end.replace(' ', '_')}=1"
            others = [other for other, of in SYNONYMS.items() if of == end]
            lines += [f"{other}\ten\t{same}\tpercepiano-{scale}" for other in others]
    return [*heads, "term\tlanguage\tmeaning\tsource", *lines]


class Phrase(NamedTuple):
    """What is extreme of a clip within its passage: scales, the most extreme first, and ends."""

    scales: tuple[str, ...]
    #: 1 is the high end, -1 the low end.
    signs: tuple[int, ...]

    @property
    def text(self) -> str:
        """The phrase in words: the last of several is set against the others."""
        words = [ENDS[scale][sign > 0] for scale, sign in zip(*self, strict=True)]
        return " but ".join([", ".join(words[:-1]), words[-1]] if words[1:] else words)


#: Gives the value of every clip [n] for an end of a scale.
Reading = Callable[[str, int], Floats]


def rank(phrase: Phrase, reading: Reading) -> npt.NDArray[np.int64]:
    """Return clips' places [n], best first, as `mess_core.search.wishes` ranks the phrase."""
    values = [reading(scale, sign) for scale, sign in zip(*phrase, strict=True)]
    groups = [np.sum(values[:-1], axis=0), values[-1]] if values[1:] else values
    first = next(rankings(groups, len(groups[0])))
    order = np.lexsort((-first.percentiles.mean(axis=0), -first.percentiles.min(axis=0)))
    return np.asarray(first.rows[order])


def relevant(phrase: Phrase, heard: Floats) -> npt.NDArray[np.bool_]:
    """Return which clips are in the extreme third of all of the phrase's scales, of [n, 19]."""
    found = []
    for scale, sign in zip(*phrase, strict=True):
        signed = sign * heard[:, SCALES.index(scale)]
        found.append(signed >= np.sort(signed)[-max(1, round(len(signed) / 3))])
    return np.asarray(np.all(found, axis=0))


def average_precision(order: npt.NDArray[np.int64], wanted: npt.NDArray[np.bool_]) -> float:
    """Return the mean of the precision at every place of something wanted."""
    hits = wanted[order]
    return float((np.cumsum(hits) / np.arange(1, len(hits) + 1))[hits].mean())


def chance_precision(n: int, wanted: int) -> float:
    """Return the average precision that a random order of n expects, of so many wanted."""
    places = np.arange(1, n + 1)
    others = (wanted - 1) * (places - 1) / max(n - 1, 1)
    return float(((1 + others) / places).mean())


def phrases(heard: Floats, told: Sequence[str], size: int) -> list[Phrase]:
    """Return what is most extreme of every clip's ratings [n, 19], or of 1 scale both ends of all.

    Ratings are centred; they are compared in their standard deviations.
    """
    if size == 1:
        return [Phrase((scale,), (sign,)) for scale in told for sign in (-1, 1)]
    columns = [SCALES.index(scale) for scale in told]
    scaled = heard[:, columns] / np.maximum(heard[:, columns].std(axis=0), _TINY)
    found = []
    for row in scaled:
        places = np.argsort(-np.abs(row), kind="stable")[:size]
        names = tuple(told[place] for place in places)
        found.append(Phrase(names, tuple(1 if row[place] > 0 else -1 for place in places)))
    return found


class Asked(NamedTuple):
    """A phrase that was asked of a passage: its average precision by each reading."""

    passage: str
    phrase: Phrase
    found: dict[str, float]


def ask(clips: Clips, size: int, split: int | None = None) -> list[Asked]:
    """Ask phrases of so many scales of every passage.

    Scales are those that are told within the passages of the other work, and measured weights are
    learned there. With a ``split`` of the listeners, one half says what is extreme and relevant,
    and the other half is a reading, too.
    """
    X, Y = within(clips.aspects, clips.passages), within(clips.means, clips.passages)
    asked = []
    halves: list[Floats] = []
    if split is not None:
        both = halve(clips.ratings, clips.names, np.random.default_rng(split))
        halves = [within(half, clips.passages) for half in both]
    said = {scale: vector(SAID.get(scale, {})) for scale in SCALES}
    itself = dict(zip(SCALES, np.eye(len(SCALES)), strict=True))
    for work in WORKS:
        other = clips.works != work
        told, weights = told_within(X[other], Y[other], clips.passages[other])
        for passage in np.unique(clips.passages[clips.works == work]).tolist():
            mine = clips.passages == passage
            readings = {
                "dictionaries": reading_of(clips.aspects[mine], said),
                "measured": reading_of(clips.aspects[mine], weights),
            }
            heard = halves[0][mine] if halves else Y[mine]
            if halves:
                readings["listeners"] = reading_of(halves[1][mine], itself)
            for phrase in phrases(heard, told, size):
                wanted = relevant(phrase, heard)
                if not wanted.any():
                    continue
                found = {
                    name: average_precision(rank(phrase, reading), wanted)
                    for name, reading in readings.items()
                }
                found["chance"] = chance_precision(len(wanted), int(wanted.sum()))
                if not SAID.keys() & {*phrase.scales}:
                    found["dictionaries"] = found["chance"]
                found["gain"] = found["measured"] - found["dictionaries"]
                asked.append(Asked(passage, phrase, found))
    return asked


def told_within(
    X: Floats, Y: Floats, groups: npt.NDArray[np.str_]
) -> tuple[list[str], dict[str, Floats]]:
    """Return the scales that are told in held-out passages, and all scales' weights [A]."""
    predicted = predict_held_out(X, Y, groups)
    fits = [judge(Y[:, j], predicted[:, j], groups) for j in range(len(SCALES))]
    told = [s for s, fit in zip(SCALES, fits, strict=True) if fit.interval[0] > 0]
    weights = zip(SCALES, learn(X, Y).T, strict=True)
    return (
        [scale for scale in told if scale != OTHER_PIANO],
        {scale: vector(meaning(column)) for scale, column in weights},
    )


def reading_of(values: Floats, weights: Mapping[str, Floats]) -> Reading:
    """Return what reads the ends of scales from values [n, q] by weights of the high ends [q]."""
    return lambda scale, sign: np.asarray(sign * (values @ weights[scale]))


def mean_of_passages(asked: Sequence[Asked], name: str) -> Figure:
    """Return the mean average precision, an interval over passages."""
    passages = np.array([a.passage for a in asked])
    values = np.array([a.found[name] for a in asked])
    means = np.array([values[passages == passage].mean() for passage in np.unique(passages)])
    counts = resample_works(len(means), RESAMPLES, np.random.default_rng(0))
    reach = t_interval(float(means.mean()), counts @ means / len(means), len(means))
    return Figure(float(means.mean()), reach, 0.0, len(values), len(means))


def retrieval(clips: Clips) -> None:
    """Print what phrases find within passages: by all listeners, by halves, by single scales."""
    names = ("chance", "dictionaries", "measured", "gain", "listeners")
    whole: dict[str, list[Asked]] = {}
    halves, singles = dict(whole), dict(whole)
    for size in (1, 2, 3):
        whole[f"{size} words"] = ask(clips, size)
        halves[f"{size} words"] = [a for split in range(HALVES) for a in ask(clips, size, split)]
    for scale in SCALES:
        of = [a for a in whole["1 words"] if a.phrase.scales == (scale,)]
        singles |= {" to ".join(ENDS[scale]): of} if of else {}
    for asked, columns in ((whole, names[:4]), (halves, names), (singles, names[:4])):
        print({size: len(each) for size, each in asked.items()})
        figures = {
            name: {size: mean_of_passages(each, name) for size, each in asked.items()}
            for name in columns
        }
        print(table(figures))


def demo(data: Path) -> None:
    """Print what phrases with known answers find among the demo's recordings and clips.

    A recording is an answer when its parameters are in the asked third of all (the asked half,
    where thirds have fewer than `LEAST_ANSWERS`). Tempo is a share of the piece's own, *as played*,
    or beats per minute, *as heard*.
    """
    with (data / "metadata" / "demo.interpretations.tsv").open(encoding="utf-8") as file:
        played = {row["recording_id"]: row for row in csv.DictReader(file, delimiter="\t")}
    values = {n: np.array([float(r[n]) for r in played.values()]) for n in PARAMETERS}
    beats = [np.loadtxt(data / "audio/demo" / f"{n}.beats.tsv", usecols=0) for n in played]
    heard = {**values, "tempo": np.array([1 / np.median(np.diff(times)) for times in beats])}
    print("| of | phrase | truth | answers | search | AP (chance) | P@10 (chance) | within works |")
    print("|---" * 8 + "|")
    for kind in ("recordings", "clips"):
        index = load_published(str(data / "published"), "demo", kind, cache_dir=data / "cache")
        for text, asked in QUESTIONS.items():
            wish = understand(text, index, start=False).query["wish"]
            for relative, name, truth in (
                ("", "as heard", heard),
                ("", "as played", values),
                ("work", "as played", values),
            ):
                if truth is heard and "tempo" not in asked:
                    continue
                right = dict(zip(played, answers(asked, truth), strict=True))
                hits = search(index, Query(wish=wish, relative=relative, k=len(index.rows))).hits
                wanted = np.array([right[hit.recording_id] for hit in hits])
                works = np.array([played[hit.recording_id]["work_id"] for hit in hits])
                print(f"| {kind} | {text} | {name} | {judged(wanted, works, relative)} |")


def answers(asked: Mapping[str, int], truth: Mapping[str, Floats]) -> npt.NDArray[np.bool_]:
    """Return which recordings are in the asked third, or half, of all that is asked."""
    for parts in (3, 2):
        found = [
            sign * truth[name] >= np.sort(sign * truth[name])[-round(len(truth[name]) / parts)]
            for name, sign in asked.items()
        ]
        if np.all(found, axis=0).sum() >= LEAST_ANSWERS:
            break
    return np.asarray(np.all(found, axis=0))


def judged(wanted: npt.NDArray[np.bool_], works: npt.NDArray[np.str_], relative: str) -> str:
    """Return as text how good an order of hits [n] is, of all and of each work's own."""
    n, right = len(wanted), int(wanted.sum())
    each = [wanted[works == work] for work in np.unique(works)]
    each = [w for w in each if w.any() and not w.all()]
    gains = np.array([average_precision(np.arange(len(w)), w) for w in each])
    chance = np.mean([chance_precision(len(w), int(w.sum())) for w in each])
    counts = resample_works(len(gains), RESAMPLES, np.random.default_rng(0))
    reach = t_interval(float(gains.mean()), counts @ gains / len(gains), len(gains)) or (0, 1)
    low, high = np.clip(reach, 0, 1)
    own = f"{gains.mean():.2f} ({low:.2f} to {high:.2f}; {chance:.2f}; {len(gains)} works)"
    found = average_precision(np.arange(n), wanted)
    cells = (
        f"{found:.2f} ({chance_precision(n, right):.2f})",
        f"{wanted[:10].mean():.2f} ({right / n:.2f})",
    )
    return f"{right} of {n} | {relative or 'all'} | {' | '.join(cells)} | {own}"


def main() -> None:
    """Print the tables, and write the lexicon's rows."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.words")
    parser.add_argument("--shared", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path, default=Path("data/words"))
    parser.add_argument("--demo", type=Path, default=Path("data"))
    args = parser.parse_args()
    clips = Clips.read(args.shared / "percepiano", args.work / "aspects.npy")
    print("\n".join(rows(clips, *scales(clips))))
    retrieval(clips)
    demo(args.demo)


if __name__ == "__main__":
    main()
