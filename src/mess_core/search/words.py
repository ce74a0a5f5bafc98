"""Words: what "melancholic but hopeful, more legato than this" asks for.

A text is read from left to right. ``lexicon.tsv`` has words with aspects, signed weights and
sources, and a small grammar: words that multiply the next word, compare it, or say what role it
has. Without any of these a word is part of a *wish*, and "but" begins another group of it. Words
that are not known are read as the nearest known one by the cosine of their character n-grams, or
not at all; both are said. Case and accents do not matter.
"""

__all__ = ["Entry", "Term", "Understood", "entries", "plain", "understand"]

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from mess_core.errors import SearchError
from mess_core.index.index import Index
from mess_core.probing.aspects import ASPECT_REGISTRY
from mess_core.search.query import Query
from mess_core.search.search import directed

#: Longer texts are refused, so that no question takes long.
_LONGEST = 1000
#: The cosine from which an unknown word is read as a known one, and its fewest letters: at 0.5 more
#: typing errors are understood, but twice as many words that have nothing to do with music.
_ALIKE, _FEWEST = 0.55, 4
#: A comparative moves the aspects of its word that have at least this share of the largest weight.
_MAIN = 0.7


@dataclass(frozen=True, slots=True)
class Entry:
    """A word of the lexicon, which may be several; ``aspects`` is its meaning in these alone."""

    term: str
    language: str
    meaning: str
    source: str
    aspects: Mapping[str, float]

    @property
    def noun(self) -> bool:
        """Whether it names an aspect without saying how much of it: "phrasing"."""
        return bool(self.meaning) and "=" not in self.meaning


@dataclass(frozen=True, slots=True)
class Term:
    """What a word of a text asks for."""

    #: As it was typed, with what changes it; and the word of the lexicon.
    text: str
    read_as: str
    #: ``wish``, ``like``, ``unlike``, ``more``, ``less`` or ``ignore``.
    role: str
    #: Of a wish, counted from 1.
    group: int | None
    #: Of a wish signed weights, of ``more`` and ``less`` steps, else how much each counts.
    aspects: Mapping[str, float]
    source: str


@dataclass(frozen=True, slots=True)
class Understood:
    """How a text is understood."""

    text: str
    #: What of it a `Query` holds: ``wish``, ``like``, ``unlike``, ``more``, ``less``, ``ignore``.
    query: Mapping[str, Any]
    terms: tuple[Term, ...]
    not_understood: tuple[str, ...]
    #: Known words that no aspect of the index tells.
    unmeasured: tuple[str, ...]
    #: What is read otherwise than it stands there, and what gave way.
    notes: tuple[str, ...]
    #: All of it in a line.
    told: str

    def to_dict(self) -> dict[str, Any]:
        """Return it as builtins."""
        content = asdict(self)
        return {name: list(v) if isinstance(v, tuple) else v for name, v in content.items()}

    def put_into(self, query: Query) -> Query:
        """Return a question that asks for this too; what it says of an aspect itself stays."""
        given: dict[str, Any] = {"wish": (*query.wish, *self.query["wish"])}
        for role in ("like", "unlike", "more", "less"):
            new = {n: w for n, w in self.query[role].items() if n not in query.aspects}
            given[role] = {**getattr(query, role), **new}
        ignored = [name for name in self.query["ignore"] if name not in query.aspects]
        return replace(query, ignore=(*query.ignore, *ignored), **given)


class _Piece(NamedTuple):
    """Words that count as one: a ``term`` of the lexicon, of its grammar, or ``unknown``."""

    kind: str
    number: float = 1.0
    entry: Entry | None = None
    text: str = ""
    #: What it is read as, where that is a guess.
    guess: str = ""


def plain(text: str) -> str:
    """Return a text without case, accents and what is neither letter nor digit."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    kept = "".join(c for c in decomposed if not unicodedata.combining(c))
    return " ".join(re.findall(r"[^\W_]+", kept))


@cache
def _lexicon() -> tuple[dict[str, Entry], dict[str, _Piece]]:
    """Return the words with a meaning, and the grammar; endings begin with a hyphen."""
    lines = Path(__file__).with_name("lexicon.tsv").read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines if line[:1] not in ("", "#")][1:]
    grammar: dict[str, _Piece] = {}
    meanings = {plain(row[0]): row[2] for row in rows if row[3] != "grammar"}
    words = {}
    for term, language, meaning, source in rows:
        if source != "grammar":
            aspects = _in_aspects(meaning, meanings)
            words[plain(term)] = Entry(term, language, meaning, source, aspects)
            continue
        kind, _, number = meaning[1:].partition("=")
        for word in term.split("|"):
            grammar[word if word[0] == "-" else plain(word)] = _Piece(kind, float(number or 1))
    return words, grammar


def _in_aspects(meaning: str, meanings: Mapping[str, str]) -> dict[str, float]:
    total: dict[str, float] = {}
    for part in meaning.split():
        name, _, weight = part.partition("=")
        its = {name: 1.0}
        if name not in ASPECT_REGISTRY:
            its = _in_aspects(meanings[plain(name.replace("_", " "))], meanings)
        for aspect, share in its.items():
            total[aspect] = total.get(aspect, 0.0) + float(weight or 1) * share
    return {name: round(max(-1.0, min(1.0, w)), 3) for name, w in total.items()}


def entries() -> Mapping[str, Entry]:
    """Return the words that have a meaning, by what they are without case and accents."""
    return _lexicon()[0]


@cache
def _known() -> dict[str, _Piece]:
    words, grammar = _lexicon()
    return grammar | {key: _Piece("term", entry=entry) for key, entry in words.items()}


def _pieces(text: str) -> Iterator[_Piece]:
    """Cut a text into the longest words that are known, and single ones that are not."""
    words = re.findall(r"[^\W_]+|[,;.!?/+&]", re.sub("(\\bca|\\bwo)?n['\u2019]t\\b", " not", text))
    keys = [plain(word) or "," for word in words]
    longest = max(key.count(" ") for key in _known()) + 1
    place = 0
    while place < len(words):
        for end in range(min(place + longest, len(words)), place, -1):
            if piece := _known().get(" ".join(keys[place:end])):
                break
        else:
            piece = _Piece("join") if keys[place] == "," else _guess(keys[place])
        yield piece._replace(text=" ".join(words[place:end]))
        place = end


def _guess(word: str) -> _Piece:
    """Return what an unknown word is: another form of a known one, one spelt alike, or neither."""
    words, grammar = _lexicon()
    for rule, piece in grammar.items():
        ending, _, other = rule[1:].partition(">")
        if rule[0] == "-" and word.endswith(ending):
            entry = words.get(word[: -len(ending)] + other)
            if entry and not entry.noun:
                return piece._replace(entry=entry)
    # Hardly anybody mistypes the first letter, and half of the wrong guesses differ in it.
    first = (key for key in words if key[0] == word[0] and " " not in key)
    alike, best = max(((_cosine(word, key), key) for key in first), default=(0.0, ""))
    if len(word) < _FEWEST or alike < _ALIKE:
        return _Piece("unknown")
    return _Piece("term", entry=words[best], guess=best)


def _cosine(one: str, other: str) -> float:
    a, b = _grams(one), _grams(other)
    shared = sum(n * b[gram] for gram, n in a.items())
    return shared / math.hypot(*a.values()) / math.hypot(*b.values())


@lru_cache(4096)
def _grams(word: str) -> Counter[str]:
    edged = f"^{word}$"
    return Counter(edged[i : i + n] for n in (2, 3, 4) for i in range(len(edged) - n + 1))


@dataclass(slots=True)
class _Draft:
    """A word of the lexicon in the text, and what changes it."""

    entry: Entry
    text: str
    group: int
    factor: float = 1.0
    step: float = 0.0
    #: Empty for a wish; ``noun`` for one that nothing says anything about yet.
    role: str = ""

    @property
    def is_aspect(self) -> bool:
        return self.entry.noun or plain(self.entry.term).replace(" ", "_") in ASPECT_REGISTRY

    def change(self, pieces: list[_Piece]) -> None:
        self.role = "" if self.role == "noun" and pieces else self.role
        for piece in pieces:
            if piece.kind in ("times", "after"):
                self.factor *= piece.number
            elif piece.kind == "more":
                self.step = piece.number
            elif piece.kind != "term":
                self.role = piece.kind

    def terms(self, known: Mapping[str, float], *, start: bool) -> list[Term]:
        """Return what it asks for, of aspects that are known here."""

        def term(role: str, aspects: Mapping[str, float], group: int | None = None) -> Term:
            rounded = {name: round(weight, 3) for name, weight in aspects.items()}
            return Term(self.text, self.entry.term, role, group, rounded, self.entry.source)

        size = abs(self.factor)
        if self.role:
            flip = {"like": "unlike", "unlike": "like", "ignore": "like"}
            role = flip[self.role] if self.factor < 0 else self.role
            scale = 1.0 if role == "ignore" else size
            return [term(role, {n: abs(w) * scale for n, w in known.items()})]
        signed = {n: w * self.factor * (self.step or 1.0) for n, w in known.items()}
        if not (self.step and start):
            return [term("wish", signed, self.group)]
        steps = 0.5 if size < 1 else 2.0 if size > 1 else 1.0
        least = _MAIN * max(map(abs, signed.values()))
        more = {name: steps for name, weight in signed.items() if weight >= least}
        less = {name: steps for name, weight in signed.items() if -weight >= least}
        return [term(role, part) for role, part in (("more", more), ("less", less)) if part]


class _Reader:
    """Reads pieces one after the other."""

    def __init__(self, text: str) -> None:
        self.drafts: list[_Draft] = []
        self.unknown: list[str] = []
        self.notes: list[str] = []
        self._group = 1
        #: What waits for its word; the last word, if nothing parts it from here; its role.
        self._waiting: list[_Piece] = []
        self._last: _Draft | None = None
        self._role = ""
        pieces = [piece for piece in _pieces(text) if piece.kind != "stop"]
        for piece, following in zip(pieces, [*pieces[1:], _Piece("join")], strict=False):
            self._read(piece, ends=following.kind in ("join", "contrast", "or"))
        self._part("join")

    def _read(self, piece: _Piece, *, ends: bool) -> None:
        if piece.guess:
            self.notes.append(f"'{piece.text}' is read as '{piece.guess}'")
        if piece.entry:
            self._term(piece, piece.entry)
        elif piece.kind == "unknown":
            self.unknown.append(piece.text)
            # "not ... loud" is not loud, whatever stands between.
            self._waiting = [p for p in self._waiting if p.kind in ("times", "more")]
            self._last = None
        elif piece.kind in ("join", "contrast", "or"):
            self._part(piece.kind)
        else:
            if piece.kind == "after" and not (ends and self._last):
                # "fast but not too loud": of a word that follows it is a weak no.
                self._part("contrast")
                piece = piece._replace(kind="times", number=-piece.number / 2)
            self._waiting.append(piece)

    def _part(self, kind: str) -> None:
        """End what belongs together: what still waits is of the last word."""
        last, waiting = self._last, self._waiting
        if last:
            own = ("times", "after", "more")
            last.change([p for p in waiting if last.is_aspect or p.kind in own])
        else:
            self.unknown += [p.text for p in waiting if p.text and p.kind != "like"]
        self._waiting, self._last = [], None
        if kind == "or" and self.drafts and self.drafts[-1].factor < 0:
            self._waiting = [_Piece("times", self.drafts[-1].factor)]
        if kind == "contrast":
            self._group += 1
            self._role = ""

    def _term(self, piece: _Piece, entry: Entry) -> None:
        waiting, last = self._waiting, self._last
        text = " ".join(p.text for p in [*waiting, piece] if p.text)
        draft = _Draft(entry, text, self._group)
        draft.change([piece, *waiting])
        if draft.is_aspect and not waiting:
            draft.role = self._role or ("noun" if entry.noun else "")
        self._role = "" if draft.role == "noun" else draft.role
        self._waiting = []
        if draft.role == "noun" and last and last.role != "noun":
            return  # "fast tempo": the adjective says it
        if last and last.role == "noun" and draft.role != "noun":
            self.drafts.remove(last)  # "tempo: fast"
        self.drafts.append(draft)
        self._last = draft


def understand(text: str, index: Index, *, start: bool = True) -> Understood:
    """Return how a text is understood.

    Raises `SearchError` if it is too long, or nothing in it is understood.

    Parameters
    ----------
    text : str
        At most 1000 characters, in English, Italian, German or French.
    index : Index
        Whose aspects can be asked for.
    start : bool
        Whether the question starts from something. Where it does not, "slower" is read as "slow",
        and nothing can be like or unlike it.
    """
    if not isinstance(text, str) or len(text) > _LONGEST:
        raise SearchError(f"words have to be a text of at most {_LONGEST} characters")
    reader = _Reader(unicodedata.normalize("NFC", text))
    terms: list[Term] = []
    unmeasured: dict[str, None] = {}
    for draft in reader.drafts:
        draft.role = "like" if draft.role == "noun" else draft.role
        here = index.projection.aspects if draft.role else directed(index)
        known = {n: w for n, w in draft.entry.aspects.items() if w and n in here}
        if not known:
            unmeasured[draft.entry.term] = None
            continue
        if (draft.role or draft.step) and not start:
            reader.notes.append(f"'{draft.text}' has nothing to be compared with")
        terms += draft.terms(known, start=start) if start or not draft.role else []
    terms, query, notes = _joined(terms)
    unknown = dict.fromkeys(reader.unknown)
    notes = [*reader.notes, *notes]
    told = _tell(query, [*unknown], [*unmeasured], notes)
    if not any(query.values()):
        raise SearchError(
            f"nothing to search by: {told}; try words such as slow, soft, bright or sad"
        )
    said = tuple(unknown), tuple(unmeasured), tuple(notes)
    return Understood(text, query, tuple(terms), *said, told)


def _joined(terms: list[Term]) -> tuple[list[Term], dict[str, Any], list[str]]:
    """Return the terms with their groups counted, the query that they make, and what gave way."""
    query: dict[str, Any] = {role: {} for role in ("like", "unlike", "more", "less", "ignore")}
    groups: dict[int | None, Counter[str]] = {}
    notes = []
    for term in terms:
        if term.role == "wish":
            groups.setdefault(term.group, Counter()).update(term.aspects)
            continue
        for name, weight in term.aspects.items():
            for role, others in query.items():
                if others.pop(name, None) and role != term.role:
                    notes.append(f"'{term.text}' takes the place of {role} {name}")
            query[term.role][name] = weight
    wishes: dict[int | None, dict[str, float]] = {}
    for number, group in groups.items():
        # Only ratios count; 1 is the end of a slider.
        largest = max(1.0, *map(abs, group.values()))
        if kept := {n: w for n, s in group.items() if (w := round(s / largest, 3))}:
            wishes[number] = kept
        if cancelled := [name for name in group if name not in kept]:
            notes.append(
                f"words contradict each other, so that none counts: {', '.join(cancelled)}"
            )
    counted = {number: place for place, number in enumerate(wishes, 1)}
    query = {"wish": list(wishes.values()), **query, "ignore": list(query["ignore"])}
    return [replace(term, group=counted.get(term.group)) for term in terms], query, notes


def _tell(
    query: Mapping[str, Any], unknown: list[str], unmeasured: list[str], notes: list[str]
) -> str:
    parts = [", ".join(f"{n} {w:+g}" for n, w in group.items()) for group in query["wish"]]
    told = [" but ".join(parts)] if parts else []
    for role in ("more", "less", "like", "unlike"):
        told += [f"{role} {name} {amount:g}" for name, amount in query[role].items()]
    told += [f"ignore {name}" for name in query["ignore"]]
    told = [f"understood: {'; '.join(told)}"] if told else []
    told += [f"not understood: {', '.join(map(repr, unknown))}"] if unknown else []
    words = ", ".join(map(repr, unmeasured))
    told += [f"known, but no aspect here tells it: {words}"] if words else []
    return "; ".join([*told, *notes]) or "it has no word that says how music is"
