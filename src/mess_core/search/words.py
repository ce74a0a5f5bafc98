"""Words: what "melancholic but hopeful, more legato than this" asks for.

A text is read from left to right as words of a lexicon (``lexicon.tsv``: each with aspects, signed
weights and sources) and of a small grammar (`_GRAMMAR`): what multiplies the next word, compares
it, or says what role it has. Without any of these a word is part of a *wish*. "But" begins another
group of it. Words that the lexicon does not have are read as the nearest that it has, by the
cosine of their character n-grams, or not at all; both are said.

In English, Italian, German and French; case and accents do not matter.
"""

__all__ = ["Entry", "Term", "Understood", "entries", "understand"]

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from mess_core.errors import SearchError
from mess_core.index.index import Index
from mess_core.probing.aspects import ASPECT_REGISTRY
from mess_core.search.query import Query
from mess_core.search.search import directed

#: Longer texts are refused, so that no question takes long.
_LONGEST = 1000
#: Cosine from which an unknown word is read as a known one, and its fewest letters
#: (`tests/search/test_words.py` measures it).
_ALIKE, _FEWEST = 0.5, 4
#: A comparative moves the aspects of its word that have at least this share of the largest weight.
_MAIN = 0.7

#: Kind, number, words. ``times`` multiplies the next word, or the last where none follows; ``more``
#: compares; ``or`` negates like the last; ``after`` is "but" and ``times``, or ``times`` of the
#: last.
_GRAMMAR: list[tuple[str, float, str]] = [
    ("contrast", 0, "but|yet|however|though|although|ma|pero|aber|doch|jedoch|mais|pourtant"),
    ("join", 0, "and|e|ed|und|et|with|con|mit|avec|also|anche|auch|aussi"),
    ("or", 0, "or|nor|o|oder|ou|ne|noch|ni"),
    ("times", 2, "extremely|utterly|ausserst|hochst|extremement|estremamente|possibile"),
    ("times", 1.5, "very|really|much|far|so|molto|assai|sehr|viel|tres|beaucoup|bien|lots of"),
    ("times", 1.5, "a lot of|a lot|highly|most|deeply|di molto|recht|full of|plenty of|lot of"),
    ("times", 1, "high|wide|large|big|great|alto|hoch|hohe|grosse|gross|grande|haut|quite"),
    ("times", 0.75, "rather|fairly|pretty|abbastanza|piuttosto|ziemlich|assez|plutot|mostly"),
    ("times", 0.5, "slightly|a bit|a little|little bit|a touch|somewhat|un poco|un po|poco|etwas"),
    ("times", 0.5, "ein wenig|ein bisschen|un peu|legerement|leggermente"),
    ("times", 0.5, "not too|not overly|non troppo|non tanto|nicht zu|nicht allzu|pas trop"),
    ("times", -0.25, "not very|not so|not that|not particularly|non molto|nicht sehr|nicht so"),
    ("times", -0.25, "pas tres|pas si"),
    ("times", -0.5, "not|non|nicht|pas|isnt|arent|never|neither|weder|hardly|barely|kaum|little"),
    ("times", -0.5, "less than|a peine"),
    ("times", -1, "without|no|senza|ohne|kein|keine|keinen|sans|avoid|avoiding|low|small|narrow"),
    ("times", -1, "lacking|free of|basso|tief|niedrig|klein|bas|basse|petit|petite"),
    ("after", 0.5, "ma non troppo|ma non tanto|but not too much|but not too|mais pas trop"),
    ("after", 0.5, "aber nicht zu sehr|aber nicht zu|doch nicht zu|doch nicht zu sehr"),
    ("more", 1, "more|even more|piu|mehr|plus|noch mehr|davantage|di piu"),
    ("more", -1, "less|fewer|meno|weniger|moins|di meno"),
    ("like", 1, "like|similar|similarly|same|equal|equally|alike|as in|simile|stesso|stessa"),
    ("like", 1, "istesso|come|gleich|gleiche|gleichen|gleicher|gleiches|ahnlich|ahnliche|wie"),
    ("like", 1, "ahnlicher|ahnliches|ahnlichen|semblable|meme|pareil|pareille|comme"),
    ("unlike", 1, "unlike|different|other|another|opposite|contrasting|differing|not like"),
    ("unlike", 1, "not the same|diverso|diversa|altro|altra|anders|andere|anderer|anderes|autre"),
    ("unlike", 1, "anderen|verschieden|different from|differente|different in"),
    ("ignore", 1, "ignore|ignoring|any|whatever|never mind|regardless of|no matter|irrelevant"),
    ("ignore", 1, "disregard|disregarding|does not matter|do not care about|whichever|egal"),
    ("ignore", 1, "is not important|unimportant|qualsiasi|qualunque|ignora|ignoriere|beliebig"),
    ("ignore", 1, "beliebiges|beliebige|peu importe|n importe quel|quelconque|non importa"),
    ("stop", 0, "a|an|the|is|are|be|it|its|this|that|these|than|as|in|of|to|from|for|on|at|by"),
    ("stop", 0, "something|anything|music|musical|piece|passage|playing|played|play|plays|sound"),
    ("stop", 0, "sounds|sounding|performance|recording|recordings|version|performed|feel|feels"),
    ("stop", 0, "feeling|mood|character|i|want|me|find|show|please|would|should|give|one|here"),
    ("stop", 0, "still|but also|at the same time|more like|who|most like|in respect|manner|way|style"),
    ("stop", 0, "il|lo|la|le|gli|un|una|uno|di|del|della|questo|questa|che|qui|musica|sempre"),
    ("stop", 0, "der|die|das|ein|eine|einen|als|im|diese|dieses|dieser|dies|hier|musik|stuck"),
    ("stop", 0, "immer|von|l|les|des|du|de|d|une|que|ce|cette|ceci|ici|musique|toujours|qu|dans"),
]  # fmt: skip

#: Endings, what may stand in their place in the lexicon, and what they mean.
_ENDINGS: list[tuple[str, str, str, float]] = [
    *((f"issim{last}", "o|e|a|", "times", 1.5) for last in "oaie"),
    ("ier", "y", "more", 1),
    ("iest", "y", "times", 1.5),
    ("ler", "el", "more", 1),
    ("er", "|e", "more", 1),
    ("est", "|e", "times", 1.5),
    ("ily", "y", "times", 1),
    ("ly", "|le", "times", 1),
    ("iness", "y", "times", 1),
    ("ness", "", "times", 1),
    ("mente", "o|e|a|", "times", 1),
]


@dataclass(frozen=True, slots=True)
class Entry:
    """A word of the lexicon; several words count as one."""

    term: str
    language: str
    #: As the file has it; a name without a weight makes the word a noun: "phrasing".
    meaning: Mapping[str, float]
    source: str
    noun: bool
    #: The meaning in aspects alone; empty where none measures it.
    aspects: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Term:
    """A word of a text, and what it asks for."""

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


def _plain(text: str) -> str:
    """Return a text without case, accents and what is neither letter nor digit."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    kept = "".join(c for c in decomposed if not unicodedata.combining(c))
    return " ".join(re.findall(r"[^\W_]+", kept))


@cache
def entries() -> Mapping[str, Entry]:
    """Return the lexicon by its terms without case and accents."""
    lines = Path(__file__).with_name("lexicon.tsv").read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines if line and line[0] != "#"][1:]
    found = {}
    for term, language, meaning, source in rows:
        pairs = [part.partition("=") for part in meaning.split()]
        weights = {name.replace("_", " "): float(w or 1) for name, _, w in pairs}
        noun = bool(pairs) and not pairs[0][1]
        found[_plain(term)] = Entry(term, language, weights, source, noun)
    return {key: replace(entry, aspects=_resolve(entry, found)) for key, entry in found.items()}


def _resolve(entry: Entry, known: Mapping[str, Entry]) -> dict[str, float]:
    total: dict[str, float] = {}
    for name, weight in entry.meaning.items():
        aspect = name.replace(" ", "_")
        parts = {aspect: 1.0}
        if aspect not in ASPECT_REGISTRY:
            parts = _resolve(known[_plain(name)], known)
        for part, its in parts.items():
            total[part] = total.get(part, 0.0) + weight * its
    return {name: round(max(-1.0, min(1.0, weight)), 3) for name, weight in total.items()}


@dataclass(frozen=True, slots=True)
class _Piece:
    """Words that count as one: of the grammar, of the lexicon, or unknown."""

    kind: str
    number: float = 0.0
    entry: Entry | None = None
    text: str = ""
    #: What it stands for, where that was found by its spelling.
    read_as: str = ""


@cache
def _vocabulary() -> Mapping[str, _Piece]:
    grammar = {w: _Piece(kind, n) for kind, n, words in _GRAMMAR for w in words.split("|")}
    return grammar | {key: _Piece("term", 1.0, entry) for key, entry in entries().items()}


def _pieces(text: str) -> Iterator[_Piece]:
    words = re.findall(r"[^\W_]+|[,;.!?/+&]", re.sub("n['\u2019]t\\b", " not", text))
    plain = [_plain(word) or "," for word in words]
    longest = max(key.count(" ") for key in _vocabulary()) + 1
    place = 0
    while place < len(words):
        for end in range(min(place + longest, len(words)), place, -1):
            if piece := _vocabulary().get(" ".join(plain[place:end])):
                break
        else:
            piece = _Piece("join") if plain[place] == "," else _guess(plain[place])
        yield replace(piece, text=" ".join(words[place:end]))
        place = end


def _guess(word: str) -> _Piece:
    """Return what an unknown word is read as: another form of a word, or one spelt alike."""
    for ending, others, kind, number in _ENDINGS:
        stem = word.removesuffix(ending)
        stems = [stem + other for other in others.split("|")] if stem != word else []
        stems += [stem[:-1]] if stem[-1:] == stem[-2:-1] else []
        for key in stems:
            if len(key) > 2 and (entry := entries().get(key)) and not entry.noun:
                return _Piece(kind, number, entry, read_as=entry.term)
    key, cosine = _closest(word)
    if cosine < _ALIKE or len(word) < _FEWEST:
        return _Piece("unknown")
    return replace(_vocabulary()[key], read_as=key)


def _grams(word: str) -> Counter[str]:
    edged = f"^{word}$"
    return Counter(edged[i : i + n] for n in (2, 3, 4) for i in range(len(edged) - n + 1))


@cache
def _shares() -> Mapping[str, list[tuple[str, float]]]:
    """Return, by n-gram, the words that have it, and their coordinate of unit length."""
    found: dict[str, list[tuple[str, float]]] = {}
    for word in _vocabulary():
        grams = _grams(word)
        length = sum(n * n for n in grams.values()) ** 0.5
        for gram, n in grams.items():
            found.setdefault(gram, []).append((word, n / length))
    return found


def _closest(word: str) -> tuple[str, float]:
    """Return the known word that is spelt most alike, and the cosine."""
    grams, total = _grams(word), Counter[str]()
    for gram, n in grams.items():
        for known, share in _shares().get(gram, ()):
            total[known] += n * share  # type: ignore[assignment]
    best = max(total, key=lambda known: (total[known], known), default="")
    return best, total[best] / sum(n * n for n in grams.values()) ** 0.5


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
        return self.entry.noun or _plain(self.entry.term).replace(" ", "_") in ASPECT_REGISTRY

    def change(self, pieces: list[_Piece]) -> None:
        for piece in pieces:
            if piece.kind in ("times", "after"):
                self.factor *= piece.number
            elif piece.kind == "more":
                self.step = piece.number
            else:
                self.role = piece.kind
        if self.role == "noun" and pieces:
            self.role = ""


class _Reader:
    """Reads pieces one after the other."""

    def __init__(self) -> None:
        self.drafts: list[_Draft] = []
        self.unknown: list[str] = []
        self.notes: list[str] = []
        self._group = 1
        #: What waits for its word; the last word, if nothing parts it from here; its role.
        self._waiting: list[_Piece] = []
        self._last: _Draft | None = None
        self._role = ""

    def read(self, text: str) -> None:
        pieces = [piece for piece in _pieces(text) if piece.kind != "stop"]
        for piece, following in zip(pieces, [*pieces[1:], _Piece("join")], strict=True):
            if piece.read_as and _plain(piece.read_as) != _plain(piece.text):
                self.notes.append(f"'{piece.text}' is read as '{piece.read_as}'")
            if piece.entry:
                self._term(piece)
            elif piece.kind == "unknown":
                self.unknown.append(piece.text)
                self._waiting, self._last = [], None
            elif piece.kind in ("join", "contrast", "or"):
                self._part(piece.kind)
            else:
                alone = following.kind in ("join", "contrast", "or")
                if piece.kind == "after" and not (alone and self._last):
                    self._part("contrast")
                self._waiting.append(piece)
        self._part("join")

    def _part(self, kind: str) -> None:
        """End what belongs together: what still waits is of the last word."""
        last, waiting = self._last, self._waiting
        roles = [p for p in waiting if p.kind in ("like", "unlike", "ignore")]
        if last:
            last.change([p for p in waiting if last.is_aspect or p not in roles])
        else:
            self.unknown += [p.text for p in waiting if p.kind != "like"]
        self._waiting, self._last = [], None
        if kind == "or" and self.drafts and self.drafts[-1].factor < 0:
            self._waiting = [_Piece("times", self.drafts[-1].factor)]
        if kind == "contrast":
            self._group += 1
            self._role = ""

    def _term(self, piece: _Piece) -> None:
        assert piece.entry
        waiting, last = self._waiting, self._last
        text = " ".join(filter(None, [*(p.text for p in waiting), piece.text]))
        draft = _Draft(piece.entry, text, self._group)
        if piece.kind != "term":
            draft.change([piece])
        draft.change(waiting)
        if draft.is_aspect and not waiting:
            draft.role = self._role or ("noun" if draft.entry.noun else "")
        self._role = draft.role if draft.role != "noun" else ""
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
        At most 1000 characters.
    index : Index
        Whose aspects can be asked for.
    start : bool
        Whether the question starts from something. Where it does not, comparatives are read as
        they are without one ("slower": "slow"), and nothing can be like it.
    """
    if not isinstance(text, str) or len(text) > _LONGEST:
        raise SearchError(f"words are a text of at most {_LONGEST} characters")
    reader = _Reader()
    reader.read(unicodedata.normalize("NFC", text))
    terms: list[Term] = []
    unmeasured: list[str] = []
    for draft in reader.drafts:
        role = "like" if draft.role == "noun" else draft.role
        known = index.projection.aspects if role else directed(index)
        aspects = {n: w for n, w in draft.entry.aspects.items() if w and n in known}
        if not aspects:
            unmeasured.append(draft.entry.term)
        elif role and not start:
            reader.notes.append(f"'{draft.text}' needs something to start from")
        elif role or (draft.step and start):
            terms += _compared(draft, role, aspects)
        else:
            factor = draft.factor * (draft.step or 1.0)
            wish = {name: round(weight * factor, 3) for name, weight in aspects.items()}
            terms.append(_term(draft, "wish", draft.group, wish))
            if draft.step:
                reader.notes.append(f"'{draft.text}' has nothing to be compared with")
    terms, query, notes = _joined(terms)
    told = _tell(query, reader.unknown, unmeasured, [*reader.notes, *notes])
    if not any(query.values()):
        raise SearchError(f"nothing to search by: {told}; try words as slow, soft, bright or sad")
    unknown, unmeasured = list(dict.fromkeys(reader.unknown)), list(dict.fromkeys(unmeasured))
    return Understood(text, query, tuple(terms), tuple(unknown), tuple(unmeasured), told)


def _term(draft: _Draft, role: str, group: int | None, aspects: Mapping[str, float]) -> Term:
    return Term(draft.text, draft.entry.term, role, group, aspects, draft.entry.source)


def _compared(draft: _Draft, role: str, aspects: Mapping[str, float]) -> list[Term]:
    """Return what a word asks for that compares with where the question starts from."""
    if role:
        role = {"like": "unlike"}.get(role, "like") if draft.factor < 0 else role
        size = 1.0 if role == "ignore" else abs(draft.factor)
        weights = {name: round(abs(weight) * size, 3) for name, weight in aspects.items()}
        return [_term(draft, role, None, weights)]
    size = abs(draft.factor)
    steps = 0.5 if size < 1 else 2.0 if size > 1 else 1.0
    least = _MAIN * max(map(abs, aspects.values()))
    main = {n: w * draft.step * draft.factor for n, w in aspects.items() if abs(w) >= least}
    more = {name: steps for name, weight in main.items() if weight > 0}
    less = {name: steps for name, weight in main.items() if weight < 0}
    parts = {"more": more, "less": less}
    return [_term(draft, which, None, part) for which, part in parts.items() if part]


def _joined(terms: list[Term]) -> tuple[list[Term], dict[str, Any], list[str]]:
    """Return the terms with their groups counted, the query that they make, and what gave way."""
    query: dict[str, Any] = {role: {} for role in ("like", "unlike", "more", "less", "ignore")}
    groups: dict[int, dict[str, float]] = {}
    notes = []
    for term in terms:
        if term.group is not None:
            group = groups.setdefault(term.group, {})
            for name, weight in term.aspects.items():
                group[name] = group.get(name, 0.0) + weight
            continue
        for name, weight in term.aspects.items():
            for role, others in query.items():
                if others.pop(name, None) and role != term.role:
                    notes.append(f"'{term.text}' takes the place of {role} {name}")
            query[term.role][name] = weight
    wishes: dict[int, dict[str, float]] = {}
    for number, group in groups.items():
        # Only ratios count; 1 is the end of a slider.
        largest = max(1.0, *map(abs, group.values()))
        kept = {n: w for n, s in group.items() if (w := round(s / largest, 3))}
        wishes |= {number: kept} if kept else {}
        notes += [] if kept else ["what contradicts itself is left out"]
    counted = {number: place for place, number in enumerate(wishes, 1)}
    query = {"wish": list(wishes.values()), **query, "ignore": list(query["ignore"])}
    return [replace(t, group=counted.get(t.group or 0)) for t in terms], query, notes


def _tell(
    query: Mapping[str, Any], unknown: list[str], unmeasured: list[str], notes: list[str]
) -> str:
    parts = [", ".join(f"{n} {w:+g}" for n, w in group.items()) for group in query["wish"]]
    told = [f"understood: {' but '.join(parts)}"] if parts else []
    for role in ("more", "less"):
        told += [f"{role} {name} by {n:g}" for name, n in query[role].items()]
    for role in ("like", "unlike"):
        told += [f"{role} in {name} ({n:g})" for name, n in query[role].items()]
    told += [f"ignoring {', '.join(query['ignore'])}"] if query["ignore"] else []
    told += [f"not understood: {', '.join(map(repr, dict.fromkeys(unknown)))}"] if unknown else []
    if unmeasured:
        words = ", ".join(map(repr, dict.fromkeys(unmeasured)))
        told.append(f"known, but nothing here measures it: {words}")
    return "; ".join([*told, *notes]) or "it has no word that says how music is"
