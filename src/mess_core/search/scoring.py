"""A question as one inner product with the stored vectors.

With ``q`` and ``c`` the query's and a row's blocks (`mess_core.index.projection`), ``g`` that of
the query's space, the score is ::

    score = w_g q_g . c_g + sum_a w_a (1 - |q_a - c_a|^2)
          = w_g q_g . c_g + sum_a 2 w_a q_a . c_a - sum_a w_a |c_a|^2 + sum_a w_a (1 - |q_a|^2)

The first three terms are the inner product of the stored vector with ``[w_g q_g | 2 w_a q_a ... |
-w_a ...]``, the last one is a constant of the query. The weights sum to 1.

* *like*: a weight.
* *unlike*: a weight too, with ``q_a`` changed in sign: hits are to be the opposite, which is as far
  on the other side of the corpus mean. Where the query is near the mean, the opposite is the point
  at a squared distance of 1 beyond it, so that hits differ by as much as two random rows. (A
  negative weight would have no end: what is farthest of all would be found, whatever else it is
  like.) The general block ignores the aspect.
* *ignore*: no weight; and from ``q_g`` is taken what lies along the directions of the general block
  that tell of the aspect. In whitened components that is LEACE
  (`mess_core.probing.separability`): the orthogonal projection after which no linear
  readout of what is left predicts the aspect. That holds of learned spaces too; as they are not
  whitened, more is taken than need be.
* *more*, *less*: ``q_a`` is moved along the shortest way that changes the predicted value by the
  asked number of steps (`mess_core.search.query`), and weighs as much as the heaviest of what is
  liked. The general block ignores the aspect, for it would pull back. Where nothing is said to be
  liked, the general block and all other aspects are, by equal weights: everything else stays close.
  Rows must also fulfil the condition exactly: their predicted value is compared with the query's.

The parts of the first line are each block's *contribution*; they sum to the score.
"""

__all__ = ["Passage", "Question", "ask"]

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mess_core.index.projection import Projection
from mess_core.search.query import Query

Floats = npt.NDArray[np.float64]

#: A direction that others make up to this share is theirs.
_ROUNDING = 1e-4


@dataclass(frozen=True, eq=False)
class Passage:
    """What a question starts from."""

    #: In the layout of stored vectors [width].
    vector: npt.NDArray[np.float32]
    #: Its aspects' predicted values [A].
    predicted: Floats
    #: Aspects that cannot be read of it.
    unread: frozenset[str] = frozenset()


@dataclass(frozen=True, eq=False)
class Condition:
    """What a row's predicted value of an aspect must reach, or stay below."""

    aspect: str
    #: Its place among the aspects.
    number: int
    #: 1 where values must be at least the limit, -1 where at most.
    sign: int
    #: The number of steps.
    asked: float
    #: The query's value, and the one that rows must reach.
    start: float
    limit: float

    def met(self, predicted: npt.NDArray[np.floating]) -> npt.NDArray[np.bool_]:
        """Return which values [n] fulfil it."""
        return np.asarray(self.sign * predicted >= self.sign * self.limit)


@dataclass(frozen=True, eq=False)
class Question:
    """A query laid out for a projection."""

    projection: Projection
    #: Of the blocks; they sum to 1.
    weights: Mapping[str, float]
    #: What rows are compared with [width]: the query's blocks, moved and erased.
    passage: npt.NDArray[np.float32]
    #: Its inner product with a stored vector, plus the constant, is the score [width].
    vector: npt.NDArray[np.float32]
    constant: float
    #: What rows must fulfil.
    conditions: tuple[Condition, ...]

    def contributions(self, stored: npt.NDArray[np.floating]) -> Floats:
        """Return what each block adds to the scores of stored vectors [n, width].

        The parts ``[n, blocks]`` are in the order of ``weights``; each row sums to the score.
        """
        rows, target = stored.astype(np.float64), self.passage.astype(np.float64)
        parts = []
        for name, weight in self.weights.items():
            if name in self.projection.spaces:
                part = self.projection.spaces[name]
                # Not `@`, whose rounding depends on how many rows there are.
                similarity = (rows[:, part] * target[part]).sum(axis=1)
            else:
                part = self.projection.aspects[name].stored
                similarity = 1.0 - np.square(rows[:, part] - target[part]).sum(axis=1)
            parts.append(weight * similarity)
        return np.column_stack(parts)


def ask(projection: Projection, query: Query, passage: Passage) -> Question:
    """Lay out a query.

    Its space and aspects must exist in the projection, and those of ``more`` and ``less`` have a
    direction.
    """
    weights = _weights(projection, query, passage)
    conditions = tuple(_conditions(projection, query, passage))
    target = passage.vector.astype(np.float64)
    for condition in conditions:
        block = projection.aspects[condition.aspect]
        move = projection.steer[block.coordinates].astype(np.float64)
        target[block.stored] += move * (condition.limit - condition.start)
    for name in query.unlike:
        stored = projection.aspects[name].stored
        target[stored] = _opposite(target[stored])
    space = projection.spaces[query.space]
    erased = [*query.ignore, *query.unlike, *query.more, *query.less]
    # What is like in general must not pull back what is wished for.
    erased += [name for name in query.wished if name not in {*erased, *query.like}]
    target[space] = _without(projection, space, target, erased)
    kept = target.astype(np.float32)
    vector = np.zeros(projection.width)
    constant = 0.0
    for name, weight in weights.items():
        if name == query.space:
            vector[space] = weight * kept[space]
            continue
        block = projection.aspects[name]
        wanted = kept[block.stored].astype(np.float64)
        vector[block.stored] = 2 * weight * wanted
        vector[block.norm] = -weight
        constant += weight * (1.0 - float(wanted @ wanted))
    return Question(projection, weights, kept, vector.astype(np.float32), constant, conditions)


def _weights(projection: Projection, query: Query, passage: Passage) -> dict[str, float]:
    """Return the blocks' weights, summing to 1, without zeros."""
    weights = {name: weight for name, weight in query.liked.items() if weight}
    steered = (*query.more, *query.less)
    if not weights:
        weights = {query.space: 1.0}
        # Everything else is to stay close: all that there are names for.
        left_out = {*steered, *query.ignore, *query.wished, *passage.unread}
        named = projection.aspects if steered else ()
        weights |= {name: 1.0 for name in named if name not in left_out}
    heaviest = max(weights.values())
    for name in steered:
        weights.setdefault(name, heaviest)
    weights |= query.unlike
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


def _opposite(block: Floats) -> Floats:
    """Return the block's mirror image at the corpus mean, at a squared distance of at least 1."""
    length = float(np.linalg.norm(block))
    away = block / length if length else np.eye(len(block))[0]
    return np.asarray(-away * max(length, 1.0 - length))


def _conditions(projection: Projection, query: Query, passage: Passage) -> list[Condition]:
    found = []
    for sign, asked in ((1, query.more), (-1, query.less)):
        for name, strength in asked.items():
            number = projection.aspects[name].number
            start = float(passage.predicted[number])
            limit = start + sign * strength * float(projection.standard_errors[number])
            found.append(Condition(name, number, sign, strength, start, limit))
    return found


def _without(projection: Projection, space: slice, target: Floats, aspects: list[str]) -> Floats:
    """Take out of a target's block of a space what tells of some aspects."""
    block = target[space]
    if not aspects:
        return block
    directions = np.column_stack(
        [projection.erase[space, projection.aspects[name].coordinates] for name in aspects]
    ).astype(np.float64)
    # Aspects share directions, and those that are missing are 0: take a basis of their span.
    basis, strengths, _ = np.linalg.svd(directions, full_matrices=False)
    basis = basis[:, strengths > _ROUNDING]
    return np.asarray(block - basis @ (basis.T @ block))
