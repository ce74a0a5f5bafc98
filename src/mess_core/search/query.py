"""A question: where it starts from, in which respects hits are to be alike, and which may be hits.

The same names in Python, in JSON (`Query.from_dict`) and, shortened, on the command line.
"""

__all__ = ["EXCLUDES", "FILTERS", "GENERAL", "RELATIVES", "SPACES", "Query", "clip_id", "command"]

import json
import math
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from mess_core.errors import SearchError, nearest

#: The block that compares everything, beside those of the aspects.
GENERAL = "general"

#: In what general similarity can be; those after the first are learned, and not in every index.
SPACES = (GENERAL, "content", "expression")

#: Weights and numbers of steps beyond this are a mistake.
LARGEST = 1e6

#: Groups of a wish; each ranks all rows.
MOST_WISHES = 16

#: What is left out of the hits, of the query: nothing, its passage wherever it is played, its
#: recording, or all recordings of its work.
EXCLUDES = ("none", "passage", "recording", "work")

#: What recordings can be compared relative to.
RELATIVES = ("work",)

#: What hits can be filtered by: columns of the recording table, and the index's dataset.
FILTERS = ("composer", "performer", "work_id", "split", "title", "recording_id", "dataset")


def clip_id(recording_id: str, start_s: float) -> str:
    """Return the id of a stored clip: the recording and the start in seconds, ``R@12.500``."""
    return f"{recording_id}@{start_s:.3f}"


@dataclass(frozen=True, slots=True)
class Query:
    """A question to an index.

    Where it starts from is a recording, a passage of it (``start_s``, ``end_s``), a stored clip, or
    nothing of these when features from elsewhere are given with it (`search_features`). Raises
    `SearchError` if a value is not allowed, or two of them contradict each other.

    Attributes
    ----------
    recording_id : str, optional
        A recording in the index.
    start_s, end_s : float, optional
        A passage of it in seconds, on any times. Without ``end_s`` it is as long as a window, or
        ends with the recording.
    clip : str, optional
        A stored clip (`clip_id`) in the place of all three.
    like : mapping of str to float
        Aspects, or ``general``, in which hits are to be alike, and how much each counts. Only
        ratios matter. Nothing given means ``{"general": 1}``; with ``more`` or ``less`` it means
        ``general`` and all other aspects, equally.
    ignore : sequence of str
        Aspects that must not matter: what tells of them is taken out of the general block.
    unlike : mapping of str to float
        Aspects in which hits are to be the opposite, and how much that counts.
    more, less : mapping of str to float
        Aspects of which hits must have more or less, by how many steps (a standard error of the
        probe; half a standard deviation of what is measured); everything else stays close.
    exclude : {'none', 'passage', 'recording', 'work'}
        What to leave out of the hits.
    where : mapping of str to sequence of str
        Hits must have one of these values in these columns (`FILTERS`).
    k : int
        How many hits at most.
    dedupe_s : float
        Leave out a hit that starts less than this many seconds from a better one of the same
        recording; 0 keeps all.
    same_passage : bool
        Find the passage itself in all other recordings of its work, at its own start and end there.
    relative : {'', 'work'}
        Compare by what each differs in from the mean of its work (`mess_core.index.relative`).
    wish : sequence of mapping of str to float
        What hits are to be in themselves: groups of signed weights of aspects that have a
        direction. Hits must be high in every group (`mess_core.search.wishes`). A question with a
        wish need not start from anything.
    space : {'general', 'content', 'expression'}
        What ``general`` means in all of this: a learned space where the index has it.
    """

    recording_id: str | None = None
    start_s: float | None = None
    end_s: float | None = None
    clip: str | None = None
    like: Mapping[str, float] = field(default_factory=dict)
    ignore: tuple[str, ...] = ()
    unlike: Mapping[str, float] = field(default_factory=dict)
    more: Mapping[str, float] = field(default_factory=dict)
    less: Mapping[str, float] = field(default_factory=dict)
    exclude: str = "none"
    where: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    k: int = 10
    dedupe_s: float = 0.0
    same_passage: bool = False
    relative: str = ""
    wish: tuple[Mapping[str, float], ...] = ()
    space: str = GENERAL

    def __post_init__(self) -> None:
        self._check_place()
        _check_weights("like", self.like)
        for name in ("unlike", "more", "less"):
            _check_weights(name, getattr(self, name), positive=True)
        self._check_respects()
        self._check_wish()
        if self.exclude not in EXCLUDES:
            raise SearchError(
                f"exclude {self.exclude!r} is unknown: {nearest(str(self.exclude), EXCLUDES)}"
            )
        if not isinstance(self.where, Mapping):
            raise SearchError(f"where is {self.where!r}, expected a mapping of columns to lists")
        for column, values in self.where.items():
            if column not in FILTERS:
                raise SearchError(
                    f"hits have no column {column!r} to filter by: {nearest(column, FILTERS)}"
                )
            if not _is_texts(values) or not values:
                raise SearchError(
                    f"where {column} is {values!r}, expected a list of at least one text"
                )
        if type(self.k) is not int or self.k < 1:
            raise SearchError(f"k is {self.k!r}, expected a whole number of at least 1")
        if not (_is_number(self.dedupe_s) and self.dedupe_s >= 0):
            raise SearchError(f"dedupe_s is {self.dedupe_s!r}, expected seconds from 0")
        if self.relative not in ("", *RELATIVES):
            raise SearchError(
                f"relative {self.relative!r} is unknown: {nearest(str(self.relative), RELATIVES)}"
            )
        if self.space not in SPACES:
            raise SearchError(
                f"space {self.space!r} is unknown: {nearest(str(self.space), SPACES)}"
            )
        if type(self.same_passage) is not bool:
            raise SearchError(f"same_passage is {self.same_passage!r}, expected true or false")
        if self.same_passage and self.clip is None and None in (self.recording_id, self.start_s):
            raise SearchError("for the same passage give a recording and a start, or a clip")
        if self.same_passage and self.exclude in ("passage", "work"):
            raise SearchError(f"with the same passage, its {self.exclude} cannot be excluded")

    def _check_place(self) -> None:
        if self.clip is not None and (self.recording_id, self.start_s, self.end_s) != (None,) * 3:
            raise SearchError(
                "a clip is a place of its own: give no recording and no times with it"
            )
        for name in ("recording_id", "clip"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise SearchError(f"{name} is {value!r}, expected a text")
        for name in ("start_s", "end_s"):
            value = getattr(self, name)
            if value is not None and not _is_number(value):
                raise SearchError(f"{name} is {value!r}, expected seconds")
        if self.end_s is not None and self.start_s is None:
            raise SearchError("an end needs a start: a passage has both")

    def _check_respects(self) -> None:
        if self.like and not any(self.like.values()):
            raise SearchError("no aspect has a weight above 0; give at least one, as in rubato=1")
        if not _is_texts(self.ignore):
            raise SearchError(f"ignore is {self.ignore!r}, expected a list of aspects")
        steered = [*self.unlike, *self.more, *self.less, *self.ignore]
        for name in steered:
            if name == GENERAL:
                raise SearchError("general is no aspect: it can only be given a weight with `like`")
            if steered.count(name) > 1 or (
                name in self.like and name not in {*self.more, *self.less}
            ):
                raise SearchError(
                    f"{name!r} is asked for in two ways that contradict each other; name it once "
                    "under ignore, unlike, more or less (with the last two it may be liked too)"
                )

    def _check_wish(self) -> None:
        if not isinstance(self.wish, tuple | list):
            raise SearchError(f"wish is {self.wish!r}, expected a list of groups of weights")
        if len(self.wish) > MOST_WISHES:
            raise SearchError(f"wish has {len(self.wish)} groups, at most {MOST_WISHES} are taken")
        for group in self.wish:
            if not isinstance(group, Mapping):
                raise SearchError(f"wish has {group!r}, expected a mapping of aspects to numbers")
            if GENERAL in group:
                raise SearchError(
                    "general is no aspect, so it cannot be wished for; wish for others"
                )
            _check_weights("wish", group, signed=True)
            if not any(group.values()):
                raise SearchError("wish has a group without a weight other than 0; leave it out")

    @property
    def from_nothing(self) -> bool:
        """Whether it names nothing in the index to start from."""
        return self.recording_id is None and self.clip is None

    @property
    def liked(self) -> dict[str, float]:
        """What it says to be liked, with the name of its space for ``general``."""
        return {self.space if n == GENERAL else n: weight for n, weight in self.like.items()}

    @property
    def wished(self) -> tuple[str, ...]:
        """The aspects of the wish, each once."""
        return tuple(dict.fromkeys(n for group in self.wish for n, w in group.items() if w))

    @property
    def aspects(self) -> tuple[str, ...]:
        """All aspects in which hits are compared with what it starts from, each once."""
        named = [*self.like, *self.ignore, *self.unlike, *self.more, *self.less]
        return tuple(dict.fromkeys(name for name in named if name != GENERAL))

    def to_dict(self) -> dict[str, Any]:
        """Return the question as builtins, without what has its default value."""
        default = Query()
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
            if value != getattr(default, name)
        }

    @classmethod
    def from_json(cls, text: str | bytes) -> "Query":
        """Read a question from JSON; raises `SearchError` as `from_dict`, or if it is no JSON."""
        try:
            content = json.loads(text)
            # Half a character, as "\\ud800" is, could not be sent back.
            json.dumps(content, ensure_ascii=False).encode()
        except (ValueError, RecursionError) as error:
            raise SearchError(f"the query is no JSON: {error}") from None
        return cls.from_dict(content)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Query":
        """Read a question from parsed JSON; raises `SearchError` if a key or value is wrong."""
        if not isinstance(content, Mapping):
            raise SearchError(f"a query is a JSON object, got {type(content).__name__}")
        known = [entry.name for entry in fields(cls)]
        for key in content:
            if key not in known:
                raise SearchError(f"a query has no {key!r}: {nearest(key, known)}")
        given = dict(content)
        for name in ("ignore", "wish"):
            if isinstance(given.get(name), list):
                given[name] = tuple(given[name])
        if isinstance(given.get("where"), Mapping):
            given["where"] = {
                column: tuple(values) if isinstance(values, list) else values
                for column, values in given["where"].items()
            }
        return cls(**given)


def command(query: Query, dataset: str) -> str:
    """Return the command line that asks the published index of a dataset the same."""
    options: list[tuple[str, str]] = [("dataset", dataset)]
    for option, place in (("recording", query.recording_id), ("clip", query.clip)):
        options += [(option, place)] if place is not None else []
    for option, time in (("from", query.start_s), ("to", query.end_s)):
        options += [(option, _short(time))] if time is not None else []
    for option in ("like", "unlike", "more", "less"):
        weights = getattr(query, option).items()
        options += [(option, name if w == 1 else f"{name}={_short(w)}") for name, w in weights]
    options += [("ignore", name) for name in query.ignore]
    wishes = (",".join(f"{n}={_short(w)}" for n, w in group.items()) for group in query.wish)
    options += [("wish", group) for group in wishes]
    options += [("where", f"{name}={v}") for name, values in query.where.items() for v in values]
    options += [] if query.from_nothing else [("exclude", query.exclude)]
    options += [("relative", query.relative)] if query.relative else []
    options += [("space", query.space)] if query.space != GENERAL else []
    options += [("dedupe", _short(query.dedupe_s))] if query.dedupe_s else []
    parts = ["mess", "search"]
    for option, value in options:
        # What looks like an option must be joined to its own.
        parts += [f"--{option}={value}"] if value.startswith("-") else [f"--{option}", value]
    parts += ["--same-passage"] if query.same_passage else []
    return shlex.join([*parts, "-k", str(query.k)])


def _short(number: float) -> str:
    return short if float(short := f"{number:g}") == number else repr(number)


def _is_texts(value: object) -> bool:
    # A text is a sequence of texts too, and not what is meant.
    return isinstance(value, tuple | list) and all(isinstance(entry, str) for entry in value)


def _is_number(value: object) -> bool:
    try:
        return (
            isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        )
    except OverflowError:  # a whole number with hundreds of digits
        return False


def _check_weights(
    name: str, weights: Mapping[str, float], *, positive: bool = False, signed: bool = False
) -> None:
    if not isinstance(weights, Mapping):
        raise SearchError(f"{name} is {weights!r}, expected a mapping of names to numbers")
    for aspect, weight in weights.items():
        least = -LARGEST if signed else 0
        if not _is_number(weight) or not least <= weight <= LARGEST or (positive and weight == 0):
            limit = f"a number {'above' if positive else 'from'} {least:g}, up to {LARGEST:g}"
            raise SearchError(f"{name} gives {aspect} the weight {weight!r}, expected {limit}")
