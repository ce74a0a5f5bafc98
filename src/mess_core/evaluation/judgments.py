"""Judgments of people: which of two passages, b or c, is nearer to a third, the anchor.

Those of studies are in files of one `Judgment` a line (``.jsonl``); of ratings (``.csv``) `derive`
makes some. docs/judgments.md describes both.
"""

__all__ = [
    *("ATTENTIVE", "HALVES", "RELIABLE", "Gathered", "Judgment", "Passage", "alpha", "ceilings"),
    *("counted", "derive", "gather", "halve", "judge_files", "judge_people", "judge_ratings"),
    *("of_recordings", "read_judgments", "read_passages", "read_ratings", "reliability", "shares"),
    *("votes_of", "windows_of"),
]

import csv
import json
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations, product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mess_core.errors import DatasetError
from mess_core.evaluation import judges
from mess_core.evaluation.judges import Line, line
from mess_core.evaluation.spaces import Space, apart, works_of
from mess_core.extraction.storage import load_features
from mess_core.index.index import Index
from mess_core.layout import ENCODER, Layout
from mess_core.probing.folds import Bools, Features, Floats
from mess_core.recordings import Recording
from mess_core.targets.npz import column_reader
from mess_core.targets.registry import AUDIO

#: Raters with a smaller share of right catch trials are left out, but for a single mistake.
ATTENTIVE = 0.8
#: Scales that are less reliable do not count; raters are halved so many times to find out.
RELIABLE, HALVES = 0.5, 10
# Recordings of a work, at most, of whose ratings judgments are derived.
_MOST = 20


class Passage(NamedTuple):
    """A part of a recording, in seconds."""

    recording_id: str
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Judgment:
    """A rater's choice, of b and c, of the one nearer to the anchor in an aspect or ``overall``.

    ``confidence`` is from 1 to 3, or None; ``order`` says which was heard first. ``repeat_of`` is
    the ``triplet_id`` of the same question asked before, or empty. In a catch trial, which shows
    whether the rater listens, the anchor is one of b and c.
    """

    study: str
    triplet_id: str
    aspect: str
    anchor: Passage
    b: Passage
    c: Passage
    choice: str
    confidence: int | None
    rater: str
    order: str
    repeat_of: str
    catch: bool

    @property
    def near(self) -> Passage:
        """The passage that was found nearer."""
        return self.b if self.choice == "b" else self.c

    @property
    def far(self) -> Passage:
        """The other one."""
        return self.c if self.choice == "b" else self.b

    @property
    def triplet(self) -> tuple[str, str]:
        """What names the triplet, whoever judges it."""
        return self.study, self.triplet_id


class Gathered(NamedTuple):
    """Judgments, ratings as `read_ratings` has them, and the files that cannot be read, and why."""

    judgments: list[Judgment]
    ratings: list[tuple[list[str], dict[str, Floats]]]
    wrong: dict[Path, str]


def _is_passage(value: Any) -> bool:
    return isinstance(value[_KEYS[0]], str) and 0 <= value["start"] < value["end"] < np.inf


_PASSAGES, _KEYS = ("anchor", "b", "c"), ("recording_id", "start", "end")
# What each field of a line has to be.
_FIELDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    **dict.fromkeys(("study", "triplet_id", "aspect", "rater"), ("a text", lambda v: v.strip())),
    **dict.fromkeys(_PASSAGES, (f"{', '.join(_KEYS)} in s, 0 <= start < end", _is_passage)),
    "choice": ("b or c", lambda v: v in ("b", "c")),
    "confidence": ("1, 2, 3 or null", lambda v: v is None or (type(v) is int and 1 <= v <= 3)),
    "order": ("bc or cb", lambda v: v in ("bc", "cb")),
    "repeat_of": ("a triplet_id, or an empty text", lambda v: isinstance(v, str)),
    "catch": ("true or false", lambda v: isinstance(v, bool)),
}


def read_judgments(paths: Iterable[Path]) -> list[Judgment]:
    """Read files of judgments, one JSON object a line with the fields of `Judgment`.

    Passages are objects ``{recording_id, start, end}``. Raises `DatasetError` that names the lines
    with a wrong value, and those that contradict others. A line that is there twice, as where
    a rater saved answers twice, counts once.
    """
    found: dict[Judgment, str] = {}
    problems = []
    for path in paths:
        # Not all line breaks of str.splitlines() end a line of JSON.
        texts = path.read_text(encoding="utf-8-sig", errors="replace").split("\n")
        for number, text in enumerate(texts, 1):
            try:
                if text.strip():
                    found.setdefault(_parse(text), f"{path}:{number}")
            except ValueError as error:
                problems.append(f"{path}:{number}: {error}")
    if problems := [*problems, *_contradictions({place: j for j, place in found.items()})]:
        raise DatasetError("\n".join(problems))
    return list(found)


def _parse(text: str) -> Judgment:
    try:
        facts = json.loads(text)
    except ValueError:
        raise ValueError(f"{text[:40]!r} is no JSON object, expected one judgment") from None
    for name, (expected, valid) in _FIELDS.items():
        try:
            good = valid(facts[name])
        except (AttributeError, KeyError, TypeError):
            good = False
        if not good:
            told = json.dumps(facts.get(name) if isinstance(facts, dict) else facts)
            raise ValueError(f"{name} is {told}, expected {expected}")
    passages = {name: Passage(*(facts[name][key] for key in _KEYS)) for name in _PASSAGES}
    return Judgment(**{name: facts[name] for name in _FIELDS} | passages)


def _contradictions(found: dict[str, Judgment]) -> Iterator[str]:
    # Where something was first asked, and by whom it was first judged.
    asked = {its.triplet: place for place, its in reversed(found.items())}
    judged = {(*its.triplet, its.rater): place for place, its in reversed(found.items())}
    question = {p: (j.aspect, j.anchor, {j.b, j.c}, j.catch) for p, j in found.items()}
    for place, its in found.items():
        first, own = asked[its.triplet], judged[(*its.triplet, its.rater)]
        before = judged.get((its.study, its.repeat_of, its.rater), place)
        again = not its.repeat_of or (before != place and question[before] == question[place])
        caught = (its.anchor in (its.b, its.c)) == its.catch
        name, changed = f"triplet_id is {its.triplet_id!r}", question[first] != question[place]
        wrong = {
            f"b is {[*its.b]}, expected another passage than c": its.b == its.c,
            f"catch is {its.catch}, expected true where b or c is the anchor, only": not caught,
            f"{name}, expected the same question as in {first}": changed,
            f"{name}, expected once from {its.rater!r}, not also in {own}": own != place,
            f"repeat_of is {its.repeat_of!r}, expected this question to the same rater": not again,
        }
        yield from (f"{place}: {text}" for text, so in wrong.items() if so)


def read_ratings(path: Path) -> tuple[list[str], dict[str, Floats]]:
    """Read a table of ratings: columns ``rater``, ``clip`` (a recording_id), and one per scale.

    Empty cells and 0 count as not rated. Returns the scales, and every clip's ratings
    [raters, scales], each rater's mean taken away; NaN where none. Raises `DatasetError` if
    a column is missing, or a cell is no number from 0.
    """
    table = csv.DictReader(path.read_text(encoding="utf-8-sig", errors="replace").splitlines())
    names, rows = table.fieldnames or (), list(table)
    scales = [name for name in names if name not in ("rater", "clip")]
    if not rows or not scales or len(names) - len(scales) != 2:
        raise DatasetError(f"{path} has {len(rows)} rows of {names}; expected rater, clip, scales")
    values = np.full((len(rows), len(scales)), np.nan)
    for number, row in enumerate(rows):
        with suppress(ValueError):
            values[number] = [float(row[scale] or 0) for scale in scales]
        good = (values[number] >= 0) & np.isfinite(values[number])
        if not (good.all() and row["rater"] and row["clip"]):
            told = f"{path}:{number + 2}: {row}"
            raise DatasetError(f"{told}; expected rater, clip, and numbers from 0 or nothing")
    values[values == 0] = np.nan
    raters, clips = (np.array([row[name] for row in rows]) for name in ("rater", "clip"))
    for rater in np.unique(raters):
        values[raters == rater] -= _means([values[raters == rater].ravel()])
    return scales, {clip: values[clips == clip] for clip in np.unique(clips).tolist()}


def _means(ratings: Iterable[Floats]) -> Floats:
    """Return the means [n, ...] of rows [raters, ...]; NaN where there are none."""
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):
        return np.array([np.nanmean(rows, axis=0) for rows in ratings])


def halve(clips: Mapping[str, Floats], names: Sequence[str], rng: np.random.Generator) -> Floats:
    """Return mean ratings [2, n, scales] of clips by two halves of those who rated each."""
    dealt = [rng.permutation(clips[name]) for name in names]
    return np.array([_means(rows[half::2] for rows in dealt) for half in (0, 1)])


def reliability(
    clips: Mapping[str, Floats], of: Mapping[str, str], rng: np.random.Generator
) -> Floats:
    """Return how reliable each scale's mean is within works [scales]; ``of`` says a clip's work.

    It is the correlation of two halves of those who rated, for all of them (Spearman and Brown
    1910); NaN where nothing differs.
    """
    names, groups, found = list(of), np.array(list(of.values())), []
    for _ in range(HALVES):
        halves = halve(clips, names, rng)
        for mine in (groups == group for group in np.unique(groups)):
            halves[:, mine] -= _means(halves[:, mine])[:, np.newaxis]
        one, other = np.nan_to_num(halves)
        with np.errstate(invalid="ignore", divide="ignore"):
            r = (one * other).sum(axis=0) / np.sqrt((one**2).sum(axis=0) * (other**2).sum(axis=0))
            found.append(2 * r / (1 + r))
    return np.asarray(np.mean(found, axis=0))


def derive(
    clips: Mapping[str, Floats], recordings: Iterable[Recording], *, study: str
) -> list[Judgment]:
    """Return judgments of whole recordings that follow from ratings of them within works.

    Two raters judge: halves of those who rated each, by reliable scales in standard deviations. The
    half of a work's triplets counts that the first rater finds clearest: chosen by both, those
    would count in which they happen to agree.
    """
    known = {its.recording_id: its for its in recordings if its.recording_id in clips}
    names, of = list(known), {name: its.work_id for name, its in known.items()}
    whole = {name: Passage(name, 0.0, its.duration_s) for name, its in known.items()}
    rng, works, found = np.random.default_rng(0), np.array(list(of.values())), list[Judgment]()
    scales = reliability(clips, of, rng) >= RELIABLE if names else np.zeros(0, np.bool_)
    if not scales.any():
        return []
    views = halve(clips, names, rng)[:, :, scales]
    views /= np.nanstd(views, axis=1, keepdims=True)
    for work in np.unique(works).tolist():
        rows = np.sort(rng.permutation(np.flatnonzero(works == work))[:_MOST])
        threes = np.array([*permutations(rows, 3)], np.int64).reshape(-1, 3)
        a, b, c = threes = threes[threes[:, 1] < threes[:, 2]].T
        away = [np.linalg.norm(views[:, a] - views[:, other], axis=2) for other in (b, c)]
        nearer = away[1] - away[0]
        kept = np.flatnonzero((np.isfinite(nearer) & (nearer != 0)).all(axis=0))
        clear = np.abs(nearer[0, kept])
        for i in kept[clear >= np.median(clear)].tolist() if len(kept) else []:
            name, (anchor, one, two) = f"{work} {i}", (whole[names[row]] for row in threes[:, i])
            for half in (0, 1):
                choice, rater = "b" if nearer[half, i] > 0 else "c", f"half {half + 1}"
                judged = Judgment(
                    study, name, "overall", anchor, one, two, choice, None, rater, "bc", "", False
                )
                found.append(judged)
    return found


def gather(
    paths: Iterable[Path], recordings: Sequence[Recording], *, strict: bool = False
) -> Gathered:
    """Read files of judgments, and of ratings (``.csv``), from which more judgments follow.

    Raises `DatasetError` where a file cannot be read, if ``strict``; else such are left out.
    """
    given, derived = [*paths], list[Judgment]()
    ratings, wrong = list[tuple[list[str], dict[str, Floats]]](), dict[Path, str]()
    kept, judgments = [path for path in given if path.suffix != ".csv"], list[Judgment]()
    try:
        judgments = read_judgments(kept)
    except (DatasetError, OSError):
        kept = []  # One after the other, to find those that are wrong or contradict others.
    for path in (path for path in given if path not in kept):
        try:
            if path.suffix == ".csv":
                ratings.append(read_ratings(path))
                derived += derive(ratings[-1][1], recordings, study=path.stem)
            else:
                judgments = read_judgments([*kept, path])
                kept.append(path)
        except (DatasetError, OSError) as error:
            wrong[path] = str(error)
    if strict and wrong:
        raise DatasetError("\n".join(wrong.values()))
    return Gathered([*judgments, *derived], ratings, wrong)


def of_recordings(judgments: Iterable[Judgment], names: Collection[str]) -> list[Judgment]:
    """Return the judgments whose three passages are of some recordings."""
    known = set(names)
    return [j for j in judgments if known.issuperset((j.anchor[0], j.b[0], j.c[0]))]


def shares(judgments: Iterable[Judgment], *, catch: bool) -> dict[str, list[bool]]:
    """Return whether each rater was right in catch trials, or else gave the same answer again."""
    said, found = {(*j.triplet, j.rater): j.near for j in judgments}, defaultdict(list)
    for its in judgments:
        if its.catch and catch:
            found[its.rater].append(its.near == its.anchor)
        elif its.repeat_of and not (its.catch or catch):
            found[its.rater].append(its.near == said[its.study, its.repeat_of, its.rater])
    return dict(found)


def counted(judgments: Sequence[Judgment]) -> list[Judgment]:
    """Return the judgments of attentive raters, without catch trials and repeats."""
    right = shares(judgments, catch=True)
    out = {r for r, said in right.items() if np.mean(said) < ATTENTIVE and said.count(False) > 1}
    return [j for j in judgments if not (j.catch or j.repeat_of or j.rater in out)]


def alpha(units: Iterable[Sequence[Hashable]]) -> float:
    """Return how far raters agree on units, each with the values that they gave it: 0 is chance.

    It is Krippendorff's alpha for nominal values, some of which may be missing ("Computing
    Krippendorff's alpha-reliability", 2011); NaN where nothing differs.
    """
    counts = [Counter(unit) for unit in units if len(unit) > 1]
    total = sum(counts, Counter[Hashable]())
    unlike = [c.total() ** 2 - sum(n * n for n in c.values()) for c in (*counts, total)]
    if not unlike[-1]:
        return np.nan
    observed = sum(n / (c.total() - 1) for n, c in zip(unlike, counts, strict=False))
    return float(1 - (total.total() - 1) * observed / unlike[-1])


def votes_of(judgments: Iterable[Judgment]) -> dict[tuple[str, str], list[int]]:
    """Return raters' votes on each triplet: 1 for one of its two passages, -1 for the other."""
    found = defaultdict(list)
    for its in judgments:
        found[its.triplet].append(1 if its.near < its.far else -1)
    return found


def ceilings(judgments: Sequence[Judgment]) -> Floats:
    """Return whether each agrees with most other raters of its triplet [n].

    0.5 where these are divided, NaN where there are none.
    """
    votes = votes_of(judgments)
    own = np.array([1 if its.near < its.far else -1 for its in judgments])
    others = np.array([sum(votes[its.triplet]) for its in judgments]) - own
    alone = [len(votes[its.triplet]) == 1 for its in judgments]
    return np.where(alone, np.nan, (np.sign(own * others) + 1) / 2)


def windows_of(times: Floats, start_s: float, end_s: float) -> Bools:
    """Say which windows [n, 2] a passage is: one, else what starts or ends in it, or is nearest."""
    starts, ends = times.T
    same = np.isclose(starts, start_s) & np.isclose(ends, end_s)
    inside = ((starts >= start_s) & (starts < end_s)) | ((ends > start_s) & (ends <= end_s))
    away = np.abs(starts + ends - start_s - end_s)
    return next(rows for rows in (same, inside, away == away.min()) if rows.any())


def read_passages(
    layout: Layout, index: Index, passages: Sequence[Passage], source: str = ENCODER
) -> tuple[Features, Floats]:
    """Return features [n, L, D] of passages, and what is measured of them [n, T], for `Space.read`.

    They are means over its `windows_of`.
    """
    columns = index.projection.columns.tolist()
    read, found = lru_cache(1)(column_reader(layout, columns)), {}
    load = lru_cache(1)(lambda name: load_features(layout.of(source), name, view="segments"))
    for name, start, end in sorted(passages):
        table = index.rows.table[index.rows.positions(name)]
        times = np.column_stack([table["start_s"], table["end_s"]]).astype(np.float64)
        chosen = windows_of(times, start, end)
        values = np.broadcast_to(read(name), (len(table), len(columns)))
        found[name, start, end] = load(name)[chosen].mean(axis=0), values[chosen]
    features, measured = zip(*(found[passage] for passage in passages), strict=True)
    return np.array(features), _means(measured)


def judge_people(
    spaces: Sequence[tuple[Space, Floats]],
    passages: Sequence[Passage],
    judgments: Sequence[Judgment],
    works: Mapping[str, str],
) -> list[Line]:
    """Return how often spaces, with vectors [n, d] of passages, agree with attentive raters.

    ``works`` has the work of every recording; that of the anchor counts.
    """
    kept, rows = counted(judgments), {passage: row for row, passage in enumerate(passages)}
    if not kept:
        return [line("people", "general", reason="no judgments of its recordings")]
    threes = np.array([[rows[p] for p in (j.anchor, j.near, j.far)] for j in kept])
    aspects = np.array([its.aspect for its in kept])
    groups = np.array([works[its.anchor.recording_id] for its in kept])
    ceiling, lines = ceilings(kept), []
    for aspect in sorted({*aspects.tolist()}, key=lambda name: (name != "overall", name)):
        mine = aspects == aspect
        anchor, near, far = threes[mine].T
        limit = judges.share_over_works(ceiling[mine], groups[mine]).value
        for space, vectors in spaces:
            told = [apart(vectors, space.euclidean, anchor, other) for other in (near, far)]
            figure = judges.share_over_works((np.sign(told[1] - told[0]) + 1) / 2, groups[mine])
            found = line("people", space.name, figure, measure="agreement", against=aspect)
            lines.append(found | {"ceiling": None if np.isnan(limit) else limit})
    return lines


def judge_ratings(
    predicted: Mapping[str, Floats], heard: Mapping[str, Floats], works: npt.NDArray[np.str_]
) -> list[Line]:
    """Return Spearman's correlation within works of aspects' values [n] with scales' means [n]."""
    lines, of_works = [], np.array([works == work for work in np.unique(works)])
    for (aspect, values), (scale, means) in product(predicted.items(), heard.items()):
        each = [
            judges.partial_correlation(values[m], means[m], np.zeros(m.sum())) for m in of_works
        ]
        known = np.isfinite(each)
        n = int(of_works[known].sum())
        figure = judges.mean_over_works(np.array(each)[known], 0.0, n, bounds=(-1.0, 1.0))
        lines.append(line("ratings", aspect, figure, measure="correlation", against=scale))
    return lines


def judge_files(
    layout: Layout, index: Index, spaces: Sequence[Space], given: Gathered
) -> list[Line]:
    """Return the lines of both, of what an index of clips holds, and of what cannot be read."""
    names, projection = index.rows.recordings["recording_id"], index.projection
    works = dict(zip(names, works_of(index).tolist(), strict=True))
    kept = counted(of_recordings(given.judgments, works))
    passages = list({part: None for j in kept for part in (j.anchor, j.b, j.c)})
    sources = {space.source for space in spaces if kept}
    read = {source: read_passages(layout, index, passages, source) for source in sources}
    vectors = [(space, space.read(*read[space.source])) for space in spaces if kept]
    told = ((path.name, why.partition("\n")[0]) for path, why in given.wrong.items())
    lines = [line("people", name, reason=why) for name, why in told]
    lines += judge_people(vectors, passages, kept, works)
    source = projection.read_from([AUDIO])
    for scales, clips in given.ratings:
        of = {name: works[name] for name in clips if name in works}
        if of:
            good = np.flatnonzero(reliability(clips, of, np.random.default_rng(0)) >= RELIABLE)
            means = _means(clips[name] for name in of)
            heard = {scales[j]: means[:, j] for j in good}
            whole = [Passage(name, 0.0, np.inf) for name in of]
            features, measured = read_passages(layout, index, whole)
            predicted = projection.project(features[:, projection.layers], measured, [AUDIO])[1]
            values = dict(zip(projection.names.tolist(), predicted.T, strict=True))
            values = {n: v for n, v in values.items() if source[n] and np.isfinite(v).all()}
            lines += judge_ratings(values, heard, np.array(list(of.values())))
    return lines
