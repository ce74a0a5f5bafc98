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
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks.evaluation import SCALES, Floats, halve, passages, read_ratings, reliability
from mess_core.datasets.render import render_midi
from mess_core.extraction.audio import segment_starts
from mess_core.files import atomic_path
from mess_core.probing.aspects import ASPECT_REGISTRY
from mess_core.probing.inference import resample_works, t_interval
from mess_core.targets.create import measure_windows
from mess_core.targets.notes import read_performance
from mess_core.targets.sound import analyse

RATE, WINDOW_S, OVERLAP = 24_000, 5.0, 0.5
WORKS = ("Beethoven", "Schubert")
#: Of ridge regressions, per clip. From 0.1 to 1 all do as well (docs/words.md).
PENALTY = 0.3
RESAMPLES = 1000
#: Smaller weights, the largest being 1, are left out of the lexicon.
LEAST = 0.15
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
#: What the lexicon says of its rows.
PAPER = (
    "# percepiano: Park and others 2024, Piano performance evaluation dataset with multilevel "
    "perceptual features, Scientific Reports 14: 23002; ridge regressions of the mean ratings of "
    "{n} clips within {passages} passages on aspects, by benchmarks/words.py (docs/words.md)"
)
CITATION = (
    "# percepiano-{scale}: percepiano, scale {scale}, {low} to {high}; R {r:.2f} "
    "({bounds[0]:.2f} to {bounds[1]:.2f}) on the work that was not learned from"
)
#: Other words for the ends.
SYNONYMS = {
    **{"steady": "stable", "unsteady": "unstable", "saturated": "wet", "colorful": "colourful"},
    **{"sophisticated": "mellow", "crude": "raw", "energetic": "high energy"},
}
#: Aspects with a direction that need no other performance of the work.
DIRECTED = [name for name, a in ASPECT_REGISTRY.items() if a.more and not a.aligned]


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
        ratings = read_ratings(folder / "ratings.csv")
        of = {clip: p for work in WORKS for clip, p in passages(ratings, work).items()}
        values = measure_aspects([folder / "midi" / f"{name}.mid" for name in of], cache)
        played = np.array(["_Score" not in name for name in of])
        names = np.array(list(of))[played]
        works = np.array([name.split("_")[0] for name in names])
        return cls(
            names.tolist(), works, np.array(list(of.values()))[played], values[played], ratings
        )

    @property
    def means(self) -> Floats:
        """Mean ratings [n, 19]."""
        return np.array([np.nanmean(self.ratings[name], axis=0) for name in self.names])


class Fit(NamedTuple):
    """How well held-out ratings [n] are predicted within passages."""

    r: float
    interval: tuple[float, float]
    r2: float


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
    """Return the weights [A, q] of a ridge regression of centred ratings on centred aspects.

    Aspects count in their spread within passages: pieces differ in tempo five times as much as
    players of one piece do, and any word that has to do with it would mean little else.
    """
    Z = X / X.std(axis=0)
    return np.asarray(np.linalg.solve(Z.T @ Z + PENALTY * len(Z) * np.eye(Z.shape[1]), Z.T @ Y))


def predict_held_out(X: Floats, Y: Floats, parts: npt.NDArray[np.str_]) -> Floats:
    """Return predictions [n, q] of every part by what is learned from the others."""
    predicted = np.empty_like(Y)
    for part in np.unique(parts):
        out = parts == part
        predicted[out] = X[out] / X[~out].std(axis=0) @ learn(X[~out], Y[~out])
    return predicted


def judge(truth: Floats, predicted: Floats, groups: npt.NDArray[np.str_]) -> Fit:
    """Return how ratings [n] and predictions agree within passages, an interval over these."""
    products = np.column_stack([truth**2, predicted**2, truth * predicted])
    sums = np.array([products[groups == group].sum(axis=0) for group in np.unique(groups)])
    resampled = resample_works(len(sums), RESAMPLES, np.random.default_rng(0)) @ sums
    yy, pp, yp = np.vstack([sums.sum(axis=0), resampled]).T
    r = yp / np.sqrt(np.maximum(yy * pp, np.finfo(float).tiny))
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


def scales(clips: Clips) -> dict[str, Fit]:
    """Print how well each scale is told, and return those that are told in both directions."""
    X, Y = within(clips.aspects, clips.passages), within(clips.means, clips.passages)
    by_passage = predict_held_out(X, Y, clips.passages)
    by_work = predict_held_out(X, Y, clips.works)
    rng = np.random.default_rng(0)
    reliable = {}
    for work in WORKS:
        of = zip(clips.names, clips.passages.tolist(), clips.works.tolist(), strict=True)
        reliable[work] = reliability(clips.ratings, {n: p for n, p, w in of if w == work}, rng)
    told = {}
    columns = ("scale", "reliability", "R, passages", "R2", "R, works", "R2", *WORKS, "between")
    print(f"| {' | '.join(columns)} |", "|---" * len(columns) + "|", sep="\n")
    for j, scale in enumerate(SCALES):
        passage, work, *each = (
            judge(Y[rows, j], predicted[rows, j], clips.passages[rows])
            for predicted, rows in [
                (by_passage, np.ones(len(Y), np.bool_)),
                (by_work, np.ones(len(Y), np.bool_)),
                *((by_work, clips.works == name) for name in WORKS),
            ]
        )
        cells = [
            f"{scale} {' to '.join(ENDS[scale])}",
            ", ".join(f"{reliable[name][j]:.2f}" for name in WORKS),
            *(cell for fit in (passage, work) for cell in (told_as(fit), f"{fit.r2:.2f}")),
            *map(told_as, each),
            ", ".join(f"{r:.2f}" for r in between(clips)[:, j]),
        ]
        print(f"| {' | '.join(cells)} |")
        if all(fit.interval[0] > 0 for fit in each):
            told[scale] = work
    return told


def told_as(fit: Fit) -> str:
    """Return R and its interval as text."""
    return f"{fit.r:.2f} ({fit.interval[0]:.2f} to {fit.interval[1]:.2f})"


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


def rows(clips: Clips, told: Mapping[str, Fit]) -> list[str]:
    """Return rows of the lexicon for both ends of the scales that are told, citations first."""
    X, Y = within(clips.aspects, clips.passages), within(clips.means, clips.passages)
    weights, (low, high) = learn(X, Y), weight_intervals(X, Y, clips.passages)
    heads = [PAPER.format(n=len(clips.names), passages=len(np.unique(clips.passages)))]
    lines = []
    for scale in (scale for scale in told if scale != OTHER_PIANO):
        j, (fit, ends) = SCALES.index(scale), (told[scale], ENDS[scale])
        given = {"scale": scale, "low": ends[0], "high": ends[1], "r": fit.r}
        heads.append(CITATION.format(bounds=fit.interval, **given))
        found = meaning(weights[:, j], (low[:, j] > 0) | (high[:, j] < 0))
        for sign, end in zip((-1, 1), ends, strict=True):
            text = " ".join(f"{name}={sign * weight:.2f}" for name, weight in found.items())
            lines.append(f"{end}\ten\t{text}\tpercepiano-{scale}")
            others = [other for other, of in SYNONYMS.items() if of == end]
            lines += [f"{other}\ten\t{end}=1\tpercepiano-{scale}" for other in others]
    return [*heads, "term\tlanguage\tmeaning\tsource", *lines]


def main() -> None:
    """Print the tables, and write the lexicon's rows."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.words")
    parser.add_argument("--shared", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path, default=Path("data/words"))
    args = parser.parse_args()
    clips = Clips.read(args.shared / "percepiano", args.work / "aspects.npy")
    told = scales(clips)
    print("\n".join(rows(clips, told)))


if __name__ == "__main__":
    main()
