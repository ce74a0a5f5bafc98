"""Made-up clips in the layout of stored vectors, as many as are asked for, and questions to them.

Clips of one work are alike, those of one recording more, those that follow each other still more;
shares of variance, the fall of the general components' variances and the aspects' widths are those
of the demo corpus. Everything follows from a seed.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from mess_core.index.projection import REACH, Projection
from mess_core.index.rows import FIELDS, ROW_TYPE, Rows
from mess_core.search.query import GENERAL, Query, clip_id

Floats = npt.NDArray[np.float32]

#: Coordinates of each aspect.
ASPECTS = {
    "texture": 2, "warmth": 2, "dynamics": 3, "crescendo": 2, "phrasing": 4, "rubato": 2,
    "legato": 1, "tempo": 1, "harmony": 2, "articulation": 1,
}  # fmt: skip
GENERAL_DIMS = 64
CLIPS_PER_RECORDING, RECORDINGS_PER_WORK = 200, 5
WINDOW_S, HOP_S = 5.0, 2.5

#: Shares of the variance between works and between recordings of a work.
_WORK, _RECORDING = 0.15, 0.12
#: Correlation of what is left with the clip before.
_NEXT = 0.4
#: The largest and the smallest standard deviation of a general component.
_SPREADS = (1.5, 0.6)
_AT_ONCE = 65536


@dataclass(frozen=True)
class Corpus:
    """Clips of recordings of works.

    Attributes
    ----------
    n : int
        How many clips.
    seed : int
        What they follow from.
    """

    n: int
    seed: int = 0

    @cached_property
    def projection(self) -> Projection:
        """A projection of the right shape, of an encoder of one layer with one number.

        `more` moves an aspect along its first coordinate, which is its predicted value.
        """
        sizes = np.array(list(ASPECTS.values()), np.int64)
        first, total = np.cumsum(sizes) - sizes, int(sizes.sum())
        scales = np.repeat(np.sqrt(0.5 / sizes), sizes)
        value = np.zeros((total, len(sizes)))
        value[first, np.arange(len(sizes))] = 1.0
        steer = np.zeros(total)
        steer[first] = scales[first]
        arrays = {
            "means": np.zeros((1, 1)),
            "basis": np.ones((1, GENERAL_DIMS)),
            "centre": np.zeros(GENERAL_DIMS),
            "readout": np.zeros((1, total)),
            "offset": np.zeros(total),
            "decorrelate": np.diag(scales),
            "bounds": REACH * scales,
            "value": value,
            "steer": steer,
            "standard_errors": np.full(len(sizes), 0.5),
            "erase": np.eye(GENERAL_DIMS, total),
        }
        return Projection(
            layers=np.zeros(1, np.int64),
            names=np.array(list(ASPECTS)),
            aspect_layers=np.zeros(len(sizes), np.int64),
            sizes=sizes,
            **{name: array.astype(np.float32) for name, array in arrays.items()},
        )

    @cached_property
    def rows(self) -> Rows:
        """What each clip is."""
        count = -(-self.n // CLIPS_PER_RECORDING)
        columns = {name: [""] * count for name in FIELDS}
        columns["recording_id"] = [f"recording-{i:06d}" for i in range(count)]
        columns["work_id"] = [f"work-{i // RECORDINGS_PER_WORK:06d}" for i in range(count)]
        columns["composer"] = [f"composer-{i // RECORDINGS_PER_WORK % 20}" for i in range(count)]
        table = np.empty(self.n, ROW_TYPE)
        recording, place = np.divmod(np.arange(self.n), CLIPS_PER_RECORDING)
        table["recording"] = recording
        table["start_s"] = place * HOP_S
        table["end_s"] = table["start_s"] + WINDOW_S
        return Rows(columns, table)

    def blocks(self) -> Iterator[tuple[Floats, Floats]]:
        """Yield stored vectors [m, width] and predicted values [m, aspects], in order."""
        rng = np.random.default_rng(self.seed)
        width = GENERAL_DIMS + len(self.projection.offset)
        spreads = np.ones(width, np.float32)
        spreads[:GENERAL_DIMS] = np.geomspace(*_SPREADS, GENERAL_DIMS)
        first = np.cumsum(self.projection.sizes) - self.projection.sizes
        works = self.n // (CLIPS_PER_RECORDING * RECORDINGS_PER_WORK) + 1
        of_work = rng.normal(size=(works, width)).astype(np.float32)
        recordings = itertools.count()
        left = self.n
        while left:
            chosen = list(itertools.islice(recordings, _AT_ONCE // CLIPS_PER_RECORDING))
            own = rng.normal(size=(len(chosen), width)).astype(np.float32)
            common = (
                np.sqrt(_WORK)
                * of_work[np.minimum(np.array(chosen) // RECORDINGS_PER_WORK, works - 1)]
            )
            common += np.sqrt(_RECORDING) * own
            clips = _following(rng, len(chosen), width)
            clips *= np.float32(np.sqrt(1 - _WORK - _RECORDING))
            clips += common[:, np.newaxis]
            flat = (clips.reshape(-1, width) * spreads)[:left]
            left -= len(flat)
            coordinates = flat[:, GENERAL_DIMS:]
            bounds = self.projection.bounds
            laid = coordinates * np.diagonal(self.projection.decorrelate)
            vectors = self.projection.lay_out(
                flat[:, :GENERAL_DIMS], np.clip(laid, -bounds, bounds)
            )
            yield vectors, np.ascontiguousarray(coordinates[:, first])

    def make(self) -> tuple[Floats, Floats]:
        """Return all stored vectors [n, width] and predicted values [aspects, n]."""
        vectors = np.empty((self.n, self.projection.width), np.float32)
        predicted = np.empty((len(ASPECTS), self.n), np.float32)
        start = 0
        for block, values in self.blocks():
            part = slice(start, start + len(block))
            vectors[part], predicted[:, part] = block, values.T
            start += len(block)
        return vectors, predicted


def _following(rng: np.random.Generator, recordings: int, width: int) -> Floats:
    """Return clips [recordings, clips, width] of variance 1, correlated with the clip before."""
    clips = rng.standard_normal((recordings, CLIPS_PER_RECORDING, width), np.float32)
    own = np.float32(np.sqrt(1 - _NEXT**2))
    for place in range(1, CLIPS_PER_RECORDING):
        clips[:, place] = np.float32(_NEXT) * clips[:, place - 1] + own * clips[:, place]
    return clips


#: Kinds of questions: what is weighted.
KINDS = ("general", "all alike", "random weights", "two aspects", "one aspect", "unlike", "more")


def questions(rows: Rows, kind: str, count: int, *, seed: int = 1, k: int = 10) -> list[Query]:
    """Make questions of a kind, each from a clip drawn at random.

    Parameters
    ----------
    rows : Rows
        Of the index.
    kind : str
        Of `KINDS`. ``random weights`` are uniform over all weights that sum to 1 (Dirichlet) of
        general and the aspects; ``unlike`` and ``more`` are general and one aspect.
    count : int
        How many.
    """
    rng = np.random.default_rng(seed)
    names = list(ASPECTS)
    made = []
    for _ in range(count):
        row = rows[int(rng.integers(len(rows)))]
        one, two = (str(name) for name in rng.choice(names, 2, replace=False))
        shares = rng.dirichlet(np.ones(len(names) + 1)).tolist()
        like: dict[str, float] = {
            "general": {GENERAL: 1.0},
            "all alike": dict.fromkeys([GENERAL, *names], 1.0),
            "random weights": dict(zip([GENERAL, *names], shares, strict=True)),
            "two aspects": {one: shares[0], two: shares[1]},
            "one aspect": {one: 1.0},
            "unlike": {GENERAL: 1.0},
            "more": {GENERAL: 1.0},
        }[kind]
        made.append(
            Query(
                clip=clip_id(row.recording_id, row.start_s),
                like=like,
                unlike={one: 0.5} if kind == "unlike" else {},
                more={one: 1.0} if kind == "more" else {},
                k=k,
            )
        )
    return made
