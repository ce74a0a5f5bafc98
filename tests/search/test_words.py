"""Words: the lexicon is whole, phrases mean what they say, and nothing is guessed in silence."""

import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mess_core.errors import SearchError
from mess_core.index.fitting import fit_projection
from mess_core.index.index import Index, Row, build_index
from mess_core.probing.aspects import ASPECT_REGISTRY
from mess_core.probing.coordinates import AspectCoordinates
from mess_core.search import words
from mess_core.search.query import Query
from mess_core.search.search import search
from mess_core.search.words import entries, understand

pytestmark = pytest.mark.unit

FILE = Path(words.__file__).with_name("lexicon.tsv")
LINES = FILE.read_text(encoding="utf-8").splitlines()
ROWS = [line.split("\t") for line in LINES if line and line[0] != "#"]
DIMS = 32


def _index(*names: str) -> Index:
    """Return an index with an aspect along each of some dimensions."""
    features = np.random.default_rng(0).normal(size=(40, 1, DIMS)).astype(np.float32)
    axes = np.eye(DIMS)
    coordinates = [
        AspectCoordinates(
            name, 0, axes[:, [i]], np.zeros(DIMS),
            *((np.ones(1), 0.5) if ASPECT_REGISTRY[name].more else (None, None)),
        )
        for i, name in enumerate(names)
    ]  # fmt: skip
    rows = [Row(f"r{i}", "", "", "", "", "", 0.0, 5.0) for i in range(40)]
    projection = fit_projection(lambda _: features[:, 0], [0], coordinates=coordinates)
    return build_index(features, rows, kind="clips", projection=projection, aspects={}, facts={})


INDEX = _index(*ASPECT_REGISTRY)


def test_every_line_of_the_lexicon_is_well_formed_and_its_source_cited() -> None:
    cited = {line[2:].partition(":")[0] for line in LINES if line[0] == "#"}
    assert ROWS[0] == ["term", "language", "meaning", "source"]
    for row in ROWS[1:]:
        assert len(row) == 4, row
        assert row[0]
        assert row[1] in ("en", "it", "de", "fr"), row
        assert {*row[3].split()} <= cited, row
        assert row[3], row
        weights = [float(w) for w in re.findall(r"=(\S+)", row[2])]
        assert row[3] == "grammar" or all(0 < abs(weight) <= 1 for weight in weights), row
    assert all(key in {k for row in ROWS for k in row[3].split()} for key in cited)


def test_every_word_is_there_once() -> None:
    spelt = [words.plain(term) for row in ROWS[1:] for term in row[0].split("|") if term[0] != "-"]
    assert len(spelt) == len(set(spelt))
    assert all(spelt)


def test_every_meaning_resolves_to_aspects() -> None:
    # Circles would not end.
    known = entries()
    assert len(known) >= 330
    assert sum(entry.language == "en" for entry in known.values()) >= 200
    for entry in known.values():
        assert set(entry.aspects) <= set(ASPECT_REGISTRY), entry
        assert bool(entry.aspects) == bool(entry.meaning), entry
        shapes = [name for name in entry.aspects if not ASPECT_REGISTRY[name].more]
        assert entry.noun or not shapes, entry
        assert all(-1 <= weight <= 1 for weight in entry.aspects.values()), entry


def test_tempo_and_level_are_in_the_order_of_dictionaries() -> None:
    slow_to_fast = "grave largo lento adagio andante allegretto allegro vivace presto prestissimo"
    tempo = [entries()[term].aspects["tempo"] for term in slow_to_fast.split()]
    assert tempo == sorted(tempo)
    assert len(set(tempo)) == len(tempo)
    soft_to_loud = ["ppp", "pp", "piano", "mezzo piano", "mezzo forte", "forte", "ff", "fff"]
    levels = [entries()[term].aspects["dynamics"] for term in soft_to_loud]
    assert levels == sorted(levels)


def _only(text: str) -> dict[str, float]:
    """Return a wish of one group; nothing else may be asked for."""
    query = dict(understand(text, INDEX).query)
    (group,) = query.pop("wish")
    assert not any(query.values()), query
    assert isinstance(group, dict)
    return group


def _ratio(text: str, aspect: str, other: str) -> float:
    group = _only(text)
    return group[aspect] / group[other]


@pytest.mark.parametrize(
    ("text", "signs"),
    [
        ("slow and soft", {"tempo": -1, "dynamics": -1}),
        ("fast, loud", {"tempo": 1, "dynamics": 1}),
        ("Dark & LEGATO", {"brightness": -1, "articulation": 1}),
        ("not fast", {"tempo": -1}),
        ("not too fast", {"tempo": -1}),
        ("without pedal", {"pedal": -1}),
        ("with a lot of rubato", {"rubato": 1}),
        ("without pedal or rubato", {"pedal": -1, "rubato": -1}),
        ("neither fast nor loud", {"tempo": -1, "dynamics": -1}),
        ("a slow tempo", {"tempo": -1}),
        ("the tempo is slow, the dynamics soft", {"tempo": -1, "dynamics": -1}),
        ("high tension, low dynamics", {"tension": 1, "dynamics": -1}),
        ("little rubato", {"rubato": -1}),
        ("louder than others", {"relative_dynamics": 1}),
        ("presto", {"tempo": 1}),
        ("Allegro ma non troppo", {"tempo": 1}),
        ("dolcissimo", {"dynamics": -1, "tempo": -1, "articulation": 1, "brightness": -1}),
        ("lento e senza pedale", {"tempo": -1, "pedal": -1}),
        ("largamente, forte", {"tempo": -1, "dynamics": 1}),
        ("ohne Pedal, sehr langsam", {"pedal": -1, "tempo": -1}),
        ("nicht zu schnell und leise", {"tempo": -1, "dynamics": -1}),
        ("weder laut noch schnell", {"dynamics": -1, "tempo": -1}),
        ("très lent, fort, sans pédale", {"tempo": -1, "dynamics": 1}),
        ("ne pas vite", {"tempo": -1}),
    ],
)
def test_what_is_wished_for(text: str, signs: dict[str, int]) -> None:
    group = _only(text)
    main = {name: int(np.sign(weight)) for name, weight in group.items()}
    assert {**main, **signs} == main
    assert max(abs(group[name]) for name in signs) == max(map(abs, group.values()))


def test_intensity_and_negation_change_how_much_a_word_counts() -> None:
    plain = _ratio("largo, pp", "tempo", "dynamics")
    for text, factor in (
        ("very largo, pp", 1.5),
        ("extremely largo, pp", 2),
        ("a bit largo, pp", 0.5),
        ("not largo, pp", -0.5),
        ("without largo, pp", -1),
        ("not too largo, pp", -0.25),
        ("largo ma non troppo, pp", 0.5),
        ("molto largo, pp", 1.5),
        ("largo assai, pp", 1.5),
        ("ein wenig largo, pp", 0.5),
        ("un peu largo, pp", 0.5),
    ):
        assert _ratio(text, "tempo", "dynamics") / plain == pytest.approx(factor, abs=0.01), text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("more legato than this", {"more": {"articulation": 1.0}}),
        ("much more legato", {"more": {"articulation": 2.0}}),
        ("a bit less pedal", {"less": {"pedal": 0.5}}),
        ("più largo", {"less": {"tempo": 1.0}}),
        ("un poco meno legato", {"less": {"articulation": 0.5}}),
        ("mehr Rubato als hier", {"more": {"rubato": 1.0}}),
        ("beaucoup plus de rubato", {"more": {"rubato": 2.0}}),
        ("same phrasing", {"like": {"phrasing": 1.0}}),
        ("like this in dynamics and phrasing", {"like": {"dynamics": 1.0, "phrasing": 1.0}}),
        ("gleiches Tempo", {"like": {"tempo": 1.0}}),
        ("lo stesso fraseggio", {"like": {"phrasing": 1.0}}),
        ("même phrasé", {"like": {"phrasing": 1.0}}),
        ("phrasing", {"like": {"phrasing": 1.0}}),
        ("different tempo", {"unlike": {"tempo": 1.0}}),
        ("unlike this in rubato", {"unlike": {"rubato": 1.0}}),
        ("not the same phrasing", {"unlike": {"phrasing": 1.0}}),
        ("ignore the tempo", {"ignore": ["tempo"]}),
        ("any tempo", {"ignore": ["tempo"]}),
        ("tempo doesn't matter, more pedal", {"ignore": ["tempo"], "more": {"pedal": 1.0}}),
        ("never mind the tempo, same rubato", {"ignore": ["tempo"], "like": {"rubato": 1.0}}),
        ("like this, but more pedal", {"more": {"pedal": 1.0}}),
        ("same tempo, but ignore the tempo", {"ignore": ["tempo"]}),
    ],
)
def test_what_is_compared(text: str, expected: dict[str, Any]) -> None:
    asked = understand(text, INDEX).query
    assert {name: value for name, value in asked.items() if value} == expected


@pytest.mark.parametrize(
    ("text", "aspect", "role"),
    [
        ("slower", "tempo", "less"),
        ("a bit louder than this", "dynamics", "more"),
        ("softer", "dynamics", "less"),
        ("brighter", "brightness", "more"),
        ("etwas langsamer", "tempo", "less"),
        ("dunkler", "brightness", "less"),
        ("moins vite", "tempo", "less"),
        ("not slower", "tempo", "more"),
    ],
)
def test_endings_compare_as_more_and_less_do(text: str, aspect: str, role: str) -> None:
    asked = understand(text, INDEX).query
    assert aspect in asked[role]
    assert not asked["wish"]
    # Without a start it is a wish, and that is said.
    alone = understand(text, INDEX, start=False)
    assert alone.query["wish"][0][aspect] * (1 if role == "more" else -1) > 0
    assert not alone.query[role]
    assert "nothing to be compared with" in alone.told


def test_a_comparative_moves_the_main_aspects_of_its_word() -> None:
    asked = understand("sadder", INDEX).query
    sad = entries()["sad"].aspects
    main = {name for name, w in sad.items() if abs(w) >= 0.7 * max(map(abs, sad.values()))}
    assert asked["less"].keys() | asked["more"].keys() == main < sad.keys()
    assert all(sad[name] < 0 for name in asked["less"])


def test_but_begins_a_group_that_must_be_met_too() -> None:
    understood = understand("melancholic but hopeful, more legato than this", INDEX)
    sad, hopeful = understood.query["wish"]
    assert sad["tempo"] < 0 < hopeful["tempo"]
    assert understood.query["more"] == {"articulation": 1.0}
    assert [(t.read_as, t.role, t.group) for t in understood.terms] == [
        ("melancholic", "wish", 1), ("hopeful", "wish", 2), ("legato", "more", None),
    ]  # fmt: skip
    assert [t.text for t in understood.terms][2] == "more legato"
    for text in ("fast but not loud", "fast but not too loud", "vite, mais pas fort"):
        first, second = understand(text, INDEX).query["wish"]
        assert first["tempo"] > 0 > second["dynamics"], text


def test_it_goes_into_a_question_and_what_that_says_itself_stays() -> None:
    understood = understand("soft, more legato, same phrasing, ignore the tempo", INDEX)
    query = understood.put_into(Query("r1", 1.0, less={"articulation": 2.0}, wish=({"pedal": 1},)))
    assert query.less == {"articulation": 2.0}
    assert (query.more, query.like, query.ignore) == ({}, {"phrasing": 1.0}, ("tempo",))
    assert query.wish[0] == {"pedal": 1}
    assert query.wish[1]["dynamics"] < 0
    assert Query.from_dict({"recording_id": "r1", **understood.to_dict()["query"]}).wish


def test_known_rows_win() -> None:
    predicted = np.zeros_like(INDEX.predicted)
    tempo, dynamics = (INDEX.projection.aspects[n].number for n in ("tempo", "dynamics"))
    predicted[[tempo, dynamics]] = np.linspace(-1, 1, 40), np.linspace(1, -1, 40)
    predicted[[tempo, dynamics], 7] = -3, -3
    predicted[[tempo, dynamics], 8] = 3, -3
    index = replace(INDEX, predicted=predicted)
    for text, best in (("adagio, pp", "r7"), ("presto, pp", "r8"), ("presto but pp", "r8")):
        query = understand(text, index, start=False).put_into(Query(k=1))
        assert search(index, query).hits[0].recording_id == best, text


def test_what_is_not_understood_is_said() -> None:
    understood = understand("slow as in Paris, minor, and hopful", INDEX)
    assert understood.not_understood == ("Paris",)
    assert understood.unmeasured == ("minor",)
    assert understood.terms[-1].read_as == "hopeful"
    for part in (
        "not understood: 'Paris'",
        "no aspect here tells it: 'minor'",
        "'hopful' is read as 'hopeful'",
    ):
        assert part in understood.told
    against = understand("slow, fast, loud", INDEX)
    assert against.query["wish"] == [{"dynamics": 1}]
    assert against.notes == ("words contradict each other, so that none counts: tempo",)
    few = understand("slow, and with pedal", _index("tempo", "dynamics"))
    assert few.unmeasured == ("pedal",)
    # What an unknown word might have changed stands for itself.
    assert understand("not Paris, fast", INDEX).query["wish"] == [_only("fast")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Paris", "nothing to search by: not understood: 'Paris'; try words such as slow"),
        ("in minor", "no aspect here tells it: 'minor'"),
        ("", "no word that says how music is"),
        ("like this", "no word that says how music is"),
        ("something very", "not understood: 'very'"),
        ("ppp and fff", "contradict"),
        ("more phrasing", "no aspect here tells it: 'phrasing'"),
        ("x" * 1001, "at most 1000 characters"),
    ],
)
def test_a_text_without_a_word_to_search_by_is_refused(text: str, message: str) -> None:
    with pytest.raises(SearchError, match=message):
        understand(text, INDEX)


def test_without_a_start_nothing_can_be_alike() -> None:
    with pytest.raises(SearchError, match="'same tempo' has nothing to be compared with"):
        understand("same tempo", INDEX, start=False)


@pytest.mark.parametrize("seed", range(40))
def test_no_text_raises_anything_else(seed: int) -> None:
    rng = random.Random(seed)
    known = [*words._known(), ",", "xyzzy", "é", "½", "'", "n't", "\0", "ﬀ"]
    for _ in range(25):
        text = " ".join(rng.choices(known, k=rng.randrange(1, 12)))
        for start in (True, False):
            try:
                understood = understand(text, INDEX, start=start)
            except SearchError:
                continue
            query = understood.put_into(Query("r1" if start else None))
            assert search(INDEX, query).hits or query.more or query.less


#: Ordinary words, written down before any was tried.
UNRELATED = (
    "Paris London Berlin Vienna Horowitz Monday window table garden bicycle kitchen orange purple "
    "doctor teacher village station morning evening summer winter pencil computer telephone "
    "elephant tiger rabbit chocolate sugar coffee bottle glass mountain river ocean island forest "
    "building street market money business government president election newspaper question answer "
    "number letter paper science history chemistry blood finger shoulder stomach father mother "
    "brother sister husband cousin neighbour friend engine wheel petrol aeroplane ticket passport "
    "holiday weather thunder umbrella jacket trousers button leather cotton silver copper diamond"
)


def test_typing_errors_are_read_and_other_words_are_not() -> None:
    rng = random.Random(1)
    terms = [key for key in entries() if " " not in key and len(key) >= 6]
    right = wrong = 0
    for _ in range(400):
        term = rng.choice(terms)
        at = rng.randrange(1, len(term) - 1)
        typo = rng.choice(
            [
                term[:at] + term[at + 1] + term[at] + term[at + 2 :],
                term[:at] + term[at + 1 :],
                term[:at] + term[at] + term[at:],
                term[:at] + rng.choice("aeiorstn") + term[at + 1 :],
            ]
        )
        piece = words._known().get(typo) or words._guess(typo)
        right += piece.entry is not None and piece.entry.aspects == entries()[term].aspects
        wrong += piece.entry is not None and piece.entry.aspects != entries()[term].aspects
    assert right >= 0.7 * 400
    assert wrong <= 0.06 * 400
    # What changes other words is never guessed: "bass" is no "basse", "note" no "not".
    music = "bass theme song note pianist orchestra violin cello opera organ rhyme thou"
    for word in (*UNRELATED.split(), *music.split()):
        piece = words._known().get(word) or words._guess(word.casefold())
        assert piece.kind in ("unknown", "stop") or piece.entry, word
    assert understand("slow, played by a pianist, loud bass", INDEX).query["wish"] == [
        {"tempo": -1, "dynamics": 1}
    ]
    read = [w for w in UNRELATED.split() if words._guess(w.casefold()).kind != "unknown"]
    assert len(read) <= 0.1 * len(UNRELATED.split()), read
