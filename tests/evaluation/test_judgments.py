"""Judgments of people: published figures, planted raters and spaces, and PercePiano's ratings."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mess_core.errors import DatasetError
from mess_core.evaluation.judgments import (
    RELIABLE,
    Judgment,
    Passage,
    alpha,
    ceilings,
    counted,
    derive,
    gather,
    judge_people,
    judge_ratings,
    read_judgments,
    read_passages,
    read_ratings,
    reliability,
    shares,
)
from mess_core.evaluation.spaces import Space
from mess_core.layout import Layout
from mess_core.recordings import COLUMNS, Recording
from tests.planted import Corpus, clip_rows

pytestmark = pytest.mark.unit

RATINGS = Path(__file__).parents[3] / "shared" / "data" / "percepiano" / "ratings.csv"
N = None
#: Krippendorff (2011): four observers of twelve units, two of ten, two of twelve.
PUBLISHED: tuple[tuple[float, list[list[Any]]], ...] = (
    (
        0.743,
        [
            [1, 2, 3, 3, 2, 1, 4, 1, 2, N, N, N],
            [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, N, 3],
            [N, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, N],
            [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, N],
        ],
    ),
    (0.095, [[0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]]),
    (0.692, [[*"aabbdcccedda"], [*"babbbccceddd"]]),
)


@pytest.mark.parametrize(("expected", "observers"), PUBLISHED)
def test_alpha_is_what_krippendorff_published(expected: float, observers: list[list[Any]]) -> None:
    units = [[value for value in unit if value is not N] for unit in zip(*observers, strict=True)]
    assert round(alpha(units), 3) == expected


def test_alpha_is_not_defined_where_nothing_differs() -> None:
    assert np.isnan(alpha([["b", "b"], ["b"]]))
    assert np.isnan(alpha([["b"], ["c"]]))
    assert alpha([["b", "b"], ["c", "c"]]) == 1


def passage(name: str) -> Passage:
    return Passage(name, 0.0, 5.0)


def judgment(number: int = 0, rater: str = "ann", **facts: Any) -> Judgment:
    a, b, c = (passage(f"r{number + place}") for place in range(3))
    first = Judgment("s", f"t{number}", "overall", a, b, c, "b", 2, rater, "bc", "", catch=False)
    return replace(first, **facts)


def as_line(its: Judgment) -> dict[str, Any]:
    parts = {name: dict(zip(("recording_id", "start", "end"), getattr(its, name), strict=True))
             for name in ("anchor", "b", "c")}  # fmt: skip
    return {name: getattr(its, name) for name in Judgment.__slots__} | parts


def write(path: Path, lines: Sequence[Judgment | dict[str, Any] | str]) -> Path:
    told = (as_line(x) if isinstance(x, Judgment) else x for x in lines)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(x if isinstance(x, str) else json.dumps(x) for x in told))
    return path


def test_judgments_are_read_as_they_were_written(tmp_path: Path) -> None:
    again = judgment(0, triplet_id="again", repeat_of="t0", b=passage("r2"), c=passage("r1"))
    caught = judgment(5, rater="ben\u2028", c=passage("r5"), catch=True, confidence=None)
    given = [judgment(0), judgment(0, rater="ben\u2028", choice="c"), again, caught]
    paths = [write(tmp_path / "a.jsonl", [again, judgment(0)]), tmp_path / "b.jsonl"]
    # Raw, as a browser writes it.
    lines = [json.dumps(as_line(its), ensure_ascii=False) for its in given[1::2]]
    write(paths[1], [lines[0] + "\r", "", lines[1].replace('"study"', '"further": 1, "study"')])
    assert Counter(read_judgments(paths)) == Counter(given)
    assert (given[1].near, given[1].far) == (passage("r2"), passage("r1"))


WRONG: dict[str, tuple[dict[str, Any] | str, str]] = {
    "json": ("{", "'{' is no JSON object, expected one judgment"),
    "list": ("[1]", "study is [1], expected a text"),
    "missing": (json.dumps({"study": "s"}), "triplet_id is null, expected a text"),
    "empty": ({"rater": " "}, 'rater is " ", expected a text'),
    "choice": ({"choice": "a"}, 'choice is "a", expected b or c'),
    "number": ({"study": 3}, "study is 3, expected a text"),
    "sure": ({"confidence": 4}, "confidence is 4, expected 1, 2, 3 or null"),
    "true": ({"confidence": True}, "confidence is true, expected 1, 2, 3 or null"),
    "catch": ({"catch": 1}, "catch is 1, expected true or false"),
    "passage": ({"b": {"recording_id": "r1", "start": 5, "end": 5}}, "0 <= start < end"),
    "times": ({"b": {"recording_id": "r1", "start": "0", "end": 5}}, 'b is {"recording_id": "r1"'),
    "endless": ({"c": {"recording_id": "r1", "start": 0, "end": float("inf")}}, "c is"),
    "same": ({"c": as_line(judgment())["b"]}, "b is ['r1', 0.0, 5.0], expected another passage"),
    "caught": ({"catch": True}, "catch is True, expected true where b or c is the anchor, only"),
    "uncaught": ({"b": as_line(judgment())["anchor"]}, "catch is False, expected true where b or"),
    "twice": ({"triplet_id": "t9", "choice": "c"}, "'t9', expected once from 'ann', not also in"),
    "other": ({"triplet_id": "t9", "rater": "ben", "aspect": "x"}, "expected the same question as"),
    "repeat": ({"repeat_of": "t8"}, "repeat_of is 't8', expected this question to the same rater"),
    "itself": ({"repeat_of": "t0"}, "repeat_of is 't0', expected this question to the same rater"),
    "not again": ({"repeat_of": "t9", "aspect": "x"}, "repeat_of is 't9', expected this question"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_line_is_named(name: str, tmp_path: Path) -> None:
    wrong, expected = WRONG[name]
    line = wrong if isinstance(wrong, str) else as_line(judgment()) | wrong
    path = write(tmp_path / "a.jsonl", [judgment(triplet_id="t9"), line])
    with pytest.raises(DatasetError) as raised:
        read_judgments([path])
    (told,) = str(raised.value).split("\n")
    assert told.startswith(f"{path}:2: ")
    assert expected in told


def test_files_that_cannot_be_read_are_left_out_and_named(tmp_path: Path) -> None:
    good = [write(tmp_path / f"{name}.jsonl", [judgment(0)]) for name in "ab"]
    other = write(tmp_path / "c.jsonl", [judgment(0, choice="c")])
    broken, empty = write(tmp_path / "d.jsonl", ["{bad"]), write(tmp_path / "e.csv", ["a,b", "1,2"])
    kept, _, wrong = gather([*good, other, broken, empty, tmp_path / "gone.jsonl"], [])
    assert kept == [judgment(0)]  # The same answers, saved twice, count once.
    assert list(wrong) == [other, broken, empty, tmp_path / "gone.jsonl"]
    assert wrong[broken].startswith(f"{broken}:1: ")


def test_all_wrong_lines_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", ["{}"] * 12 + [judgment(), judgment(choice="c")])
    with pytest.raises(DatasetError) as raised:
        read_judgments([path])
    places = [line.split(": ")[0] for line in str(raised.value).split("\n")]
    assert places == [f"{path}:{number}" for number in [*range(1, 13), 14]]


def answers(rater: str, right: Sequence[bool], *, catch: bool) -> list[Judgment]:
    """Return catch trials, or repeats of a first answer, that a rater gets right or not."""
    found = [] if catch else [judgment(0, rater)]
    for number, good in enumerate(right, 1):
        choice = "b" if good else "c"
        facts: dict[str, Any] = {"triplet_id": f"{catch}{number}", "choice": choice}
        facts |= {"b": passage("r0"), "catch": True} if catch else {"repeat_of": "t0"}
        found.append(judgment(0, rater, **facts))
    return found


def test_a_rater_who_does_not_listen_is_left_out() -> None:
    listens, guesses = [True] * 8 + [False] * 2, [True, True, False, False]
    slipped = [True, True, False]
    found = answers("ann", listens, catch=True) + answers("ben", guesses, catch=True)
    found += answers("ann", guesses, catch=False) + answers("ben", listens, catch=False)
    # A single mistake happens.
    found += [judgment(0, "eve"), *answers("eve", slipped, catch=True)]
    assert shares(found, catch=True) == {"ann": listens, "ben": guesses, "eve": slipped}
    assert shares(found, catch=False) == {"ann": guesses, "ben": listens}
    assert counted(found) == [judgment(0, "ann"), judgment(0, "eve")]


def noisy(raters: int, right: float, n: int = 4000) -> list[Judgment]:
    """Return judgments of raters who choose the same passage with a probability."""
    rng, found = np.random.default_rng(0), []
    for number in range(n):
        for rater in range(raters):
            choice = "b" if rng.random() < right else "c"
            found.append(judgment(number, str(rater), choice=choice))
    return found


def test_the_ceiling_is_agreement_with_the_majority_of_the_others() -> None:
    for raters, right in ((2, 0.8), (3, 0.8), (3, 1.0), (3, 0.5)):
        p, q = right, 1 - right
        both, split = (p * p + q * q, 2 * p * q) if raters == 3 else (0.0, 0.0)
        # Two others agree, and are right or wrong, or are divided.
        expected = p**3 + q**3 + split / 2 if both else p * p + q * q
        assert np.mean(ceilings(noisy(raters, right))) == pytest.approx(expected, abs=0.02)
    alone = ceilings([judgment(0), judgment(1), judgment(1, "ben")])
    assert alone.tolist() == pytest.approx([np.nan, 1, 1], nan_ok=True)
    # Which side a passage is on does not matter.
    swapped = judgment(1, "ben", b=passage("r3"), c=passage("r2"), choice="c")
    assert ceilings([judgment(1), swapped]).tolist() == [1, 1]


def space(name: str, *, euclidean: bool = True) -> Space:
    return Space(name, "encoder", euclidean, lambda _, values: np.asarray(values))


def test_a_space_that_hears_like_people_reaches_1() -> None:
    rng = np.random.default_rng(0)
    place = rng.normal(size=(60, 2))
    works = {f"r{n}": f"w{n % 4}" for n in range(60)}
    found = []
    for number in range(300):
        three = rng.choice(60, 3, replace=False)
        a, b, c = (passage(f"r{n}") for n in three)
        for aspect, axes in (("overall", [0, 1]), ("tempo", [0])):
            far = np.linalg.norm(place[three][:, axes] - place[three[0], axes], axis=1)
            name, choice = f"{aspect}{number}", "b" if far[1] < far[2] else "c"
            facts = {"aspect": aspect, "triplet_id": name, "choice": choice}
            found += [judgment(number, r, anchor=a, b=b, c=c, **facts) for r in ("ann", "ben")]
    # Whoever turns everything round is left out.
    liar = [replace(j, rater="eve", choice="c" if j.choice == "b" else "b") for j in found[::4]]
    found += liar + answers("eve", [False] * 2, catch=True)
    passages = [passage(f"r{n}") for n in range(60)]
    near = np.column_stack([np.ones(60) * 9, place * 0.01])
    given = [(space("same"), place), (space("cosine", euclidean=False), near)]
    given += [(space("one axis"), place[:, :1]), (space("nothing"), np.zeros((60, 1)))]
    lines = {(x["asked"], x["against"]): x for x in judge_people(given, passages, found, works)}
    assert len(lines) == 8
    same = lines["same", "overall"]
    assert (same["value"], same["ceiling"], same["chance"]) == (1, 1, 0.5)
    assert (same["n"], same["works"], same["measure"]) == (600, 4, "agreement")
    assert lines["one axis", "tempo"]["value"] == 1 > lines["one axis", "overall"]["value"] > 0.6
    assert lines["cosine", "overall"]["value"] > 0.99
    assert lines["nothing", "tempo"]["value"] == 0.5
    (none,) = judge_people(given, passages, [], works)
    assert none["value"] is None
    assert none["reason"] == "no judgments of its recordings"


def rated(path: Path, *, raters: int = 12, noise: float = 0.5) -> list[Recording]:
    """Write ratings of 6 works of 7 players: two scales of what is heard, and one of nothing."""
    rng, lines, recordings = np.random.default_rng(1), ["rater,clip,fast,loud,odd"], []
    for work in range(6):
        for player in range(7):
            name = f"w{work}_{player}"
            facts: dict[str, Any] = dict.fromkeys(COLUMNS, "") | {"duration_s": 9.0, "status": "ok"}
            facts |= {"recording_id": name, "work_id": f"w{work}"}
            recordings.append(Recording(**facts))
            # Works differ more than players, and the other way round.
            heard = np.array([player - 3, (player * 3) % 7 - 3, 0])
            for rater in range(raters):
                said = 80 + rater + heard - 5 * work + [noise, noise, 9] * rng.normal(size=3)
                lines.append(",".join([f"p{rater}", name, *(f"{value:.3f}" for value in said)]))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*lines, "p0,w0_0,,0,", "p1,elsewhere,3,3,3"]))
    return recordings


def test_ratings_give_the_judgments_that_were_planted(tmp_path: Path) -> None:
    recordings = rated(tmp_path / "r.csv")
    scales, clips = read_ratings(tmp_path / "r.csv")
    assert scales == ["fast", "loud", "odd"]
    assert (clips["w0_0"].shape, np.isnan(clips["w0_0"]).sum()) == ((13, 3), 3)
    of = {row.recording_id: row.work_id for row in recordings}
    good = reliability(clips, of, np.random.default_rng(0))
    assert good[:2].min() > 0.95 > RELIABLE > good[2]
    found = derive(clips, recordings, study="r")
    # Of 7 players, of each work half of 105 triplets; both halves judge each.
    assert Counter(j.rater for j in found) == {"half 1": 6 * 53, "half 2": 6 * 53}
    assert {(j.study, j.aspect, j.anchor[1:], j.catch) for j in found} == {
        ("r", "overall", (0.0, 9.0), False)
    }
    heard = np.array([[n, (n * 3) % 7] for n in range(7)])

    def away(one: Passage, other: Passage) -> float:
        (work, a), (its, b) = (p.recording_id.split("_") for p in (one, other))
        assert work == its
        return float(np.linalg.norm(heard[int(a)] - heard[int(b)]))

    right = [away(j.anchor, j.near) < away(j.anchor, j.far) for j in found]
    assert np.mean(right) > 0.98
    assert np.mean(ceilings(found)) > 0.96
    assert derive(clips, [], study="r") == []
    assert derive({name: rows[:, 2:] for name, rows in clips.items()}, recordings, study="r") == []


def test_a_rating_that_is_no_number_is_named(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text("rater,clip,fast\na,b,3\na,c,quick\n")
    with pytest.raises(DatasetError, match=r"r.csv:3: .*'quick'.* numbers from 0"):
        read_ratings(path)
    path.write_text("rater,clip,fast\na,b,8\na,c,5\nb,c,-1\n")
    with pytest.raises(DatasetError, match=r"r.csv:4: .*'-1'"):
        read_ratings(path)
    path.write_text("fast,rater,clip\n3,a,b\n3,a\n")
    with pytest.raises(DatasetError, match=r"r.csv:3: .*expected rater, clip, and numbers"):
        read_ratings(path)
    path.write_text("rater,name,fast\na,b,3\n")
    with pytest.raises(
        DatasetError, match=r"1 rows of .*'rater', 'name', 'fast'\]; expected rater"
    ):
        read_ratings(path)


def test_aspects_go_with_scales_within_works() -> None:
    rng = np.random.default_rng(0)
    works = np.repeat(["v", "w", "x"], 10)
    within = rng.normal(size=30)
    between = np.repeat([0.0, 9.0, 18.0], 10)
    predicted = {"tempo": within + between, "pedal": rng.normal(size=30)}
    (tempo, pedal) = judge_ratings(predicted, {"fast": within**3 - between}, works)
    assert (tempo["value"], tempo["n"], tempo["works"]) == (pytest.approx(1), 30, 3)
    assert (tempo["asked"], tempo["against"], tempo["chance"]) == ("tempo", "fast", 0)
    assert abs(pedal["value"]) < 0.4


@pytest.mark.skipif(not RATINGS.exists(), reason="needs ../shared/data/percepiano")
def test_percepiano_gives_the_triplets_that_docs_evaluation_counts(tmp_path: Path) -> None:
    # More than 7 is an error.
    path = tmp_path / "ratings.csv"
    path.write_text(re.sub(r",(?:[89]|\d\d+)\.\d+", ",", RATINGS.read_text()))
    _, clips = read_ratings(path)
    of = {c: "_".join(c.rsplit("_", 2)[::2]) for c in clips if c.startswith("Schubert")}
    sizes, recordings = Counter(of.values()), []
    for clip, work in of.items():
        if sizes[work] >= 10:
            facts: dict[str, Any] = dict.fromkeys(COLUMNS, "") | {"duration_s": 20.0}
            recordings.append(Recording(**facts | {"recording_id": clip, "work_id": work}))
    found = derive(clips, recordings, study="percepiano")
    assert len(found) == 2 * 9009
    # Of halves of those who rated, on scales that were chosen on another piece: 0.70.
    assert np.mean(ceilings(found)) == pytest.approx(0.70, abs=0.05)


def test_a_passage_is_of_the_windows_that_start_or_end_in_it(tmp_path: Path) -> None:
    corpus, layout = Corpus(24), Layout(tmp_path, "planted")
    index = corpus.index(clip_rows(2, 12))
    for number in range(2):
        path = layout.features("segments", f"r{number}")
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, corpus.features[12 * number :][:12])
    # Windows of 5 s, one every 2.5 s.
    asked = {
        (6.0, 11.0): [1, 2, 3, 4],
        (8.1, 8.3): [2],
        (90.0, 99.0): [11],
        (7.5, 10.0): [2, 3],
        (7.5, 12.5): [3],
    }
    features, measured = read_passages(layout, index, [Passage("r1", *times) for times in asked])
    for row, windows in zip(features, asked.values(), strict=True):
        np.testing.assert_allclose(row, corpus.features[12:][windows].mean(axis=0), rtol=1e-5)
    assert measured.shape == (5, 0)
