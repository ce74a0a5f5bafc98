"""What a study asks is drawn by its rules, and what is heard is what was drawn."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from mess_core.errors import AudioError, ConfigError, DatasetError
from mess_core.evaluation.study import STRATA, make_study, measure_loudness
from mess_core.files import file_sha256
from mess_core.index.index import Index
from mess_core.recordings import Recording
from tests.evaluation.planted_study import (
    COMPOSERS,
    RATE,
    SILENT,
    WINDOW_S,
    WORKS,
    amplitude,
    decode,
    pitch,
    plant,
    read_page,
)

pytestmark = pytest.mark.unit

Corpus = tuple[Index, list[Recording]]
SIDES = ("anchor", "b", "c")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return plant(tmp_path_factory.mktemp("planted"))


def stratum(trial: dict[str, Any]) -> str:
    return str(trial["triplet_id"].split("-")[1])


def drawn(corpus: Corpus, **asked: Any) -> dict[str, Any]:
    """Return what a study knows, with the number and the window of each passage in its trials."""
    page, facts = make_study(*corpus, study="planted", **asked)
    assert {k: v for k, v in read_page(page).items() if k not in ("id", "excerpts")} == facts
    places = [(int(p["recording_id"][1:]), round(p["start"] / WINDOW_S)) for p in facts["passages"]]
    for trial in facts["trials"]:
        trial |= {side: places[trial[side]] for side in SIDES}
    return facts


@pytest.mark.parametrize("seed", range(3))
def test_passages_go_together_as_their_stratum_says(corpus: Corpus, seed: int) -> None:
    trials = drawn(corpus, triplets=40, seed=seed)["trials"]
    plain = [t for t in trials if not t["repeat_of"] and not t["catch"]]
    assert Counter(stratum(t) for t in plain) == {"work": 14, "composer": 13, "free": 13}
    different = {(stratum(t), t["anchor"], frozenset([t["b"], t["c"]])) for t in plain}
    assert len(different) == 40
    for trial in trials:
        (a, at), *others = (trial[side] for side in SIDES)
        numbers = {number for number, _ in others}
        assert SILENT not in {a, *numbers}
        if trial["catch"]:
            assert (a, at) in others
            assert len({a, *numbers}) == 2
            continue
        assert len({a, *numbers}) == 3
        works = [WORKS[number] for number in numbers]
        if stratum(trial) == "work":
            assert set(works) == {WORKS[a]}
            # Where the work is aligned, all play the same.
            assert WORKS[a] == "w1" or all(window == at for _, window in others)
        elif stratum(trial) == "composer":
            assert WORKS[a] not in works
            assert {COMPOSERS[work] for work in works} == {COMPOSERS[WORKS[a]]}


@pytest.mark.parametrize("strata", [STRATA, STRATA[:2], STRATA[2:]])
def test_sides_repeats_and_catch_trials_are_balanced(
    corpus: Corpus, strata: tuple[str, ...]
) -> None:
    trials = drawn(corpus, triplets=40, strata=strata)["trials"]
    place = {t["triplet_id"]: number for number, t in enumerate(trials)}
    assert len(place) == len(trials) == 40 + 4 + 2
    for name in (*strata, ""):
        orders = Counter(t["order"] for t in trials if name in stratum(t) and not t["repeat_of"])
        assert abs(orders["bc"] - orders["cb"]) <= 1
    repeats = [t for t in trials if t["repeat_of"]]
    assert Counter(t["order"] for t in repeats) == {"bc": 2, "cb": 2}
    for trial in repeats:
        first = trials[place[trial["repeat_of"]]]
        assert place[trial["triplet_id"]] > place[first["triplet_id"]] + 1
        assert trial["order"] == first["order"][::-1]
        assert all(trial[side] == first[side] for side in SIDES)
    # The right answer of catch trials is on each side once.
    catches = [t for t in trials if t["catch"]]
    assert sorted(t["order"].index("b" if t["b"] == t["anchor"] else "c") for t in catches) == [
        0,
        1,
    ]
    again = make_study(*corpus, study="planted", triplets=40, strata=strata)
    assert again == make_study(*corpus, study="planted", triplets=40, strata=strata)
    assert again != make_study(*corpus, study="planted", triplets=40, strata=strata, seed=1)


def test_excerpts_are_the_passages_equally_loud_and_not_clipped(corpus: Corpus) -> None:
    page, facts = make_study(*corpus, study="planted", triplets=20)
    excerpts = read_page(page)["excerpts"]
    assert len(set(excerpts)) == len(excerpts) == len(facts["passages"])
    assert facts["lufs"] == -23
    for place, uri in zip(facts["passages"], excerpts, strict=True):
        samples = decode(uri)
        assert len(samples) == pytest.approx(WINDOW_S * RATE, abs=2)
        spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), 8 * RATE))
        number, window = int(place["recording_id"][1:]), round(place["start"] / WINDOW_S)
        assert np.argmax(spectrum) / 8 == pytest.approx(pitch(number, window), abs=2)
        assert measure_loudness(samples, RATE) == pytest.approx(-23, abs=0.5)


def test_what_peaks_high_sets_the_loudness_of_all(tmp_path: Path) -> None:
    index, recordings = plant(tmp_path)
    click = np.zeros(round(6 * WINDOW_S * RATE), np.float32)
    click[:: RATE // 10] = 1.0
    corpus = (
        index,
        [_replaced(row, click) if row.recording_id == "r0" else row for row in recordings],
    )
    page, facts = make_study(*corpus, study="planted", triplets=20)
    assert -50 < facts["lufs"] < -24
    levels = [measure_loudness(decode(uri), RATE) for uri in read_page(page)["excerpts"]]
    tones = [p["recording_id"] != "r0" for p in facts["passages"]]
    assert np.array(levels)[tones] == pytest.approx(facts["lufs"], abs=1.0)


def test_of_dynamics_levels_stay(corpus: Corpus) -> None:
    page, facts = make_study(*corpus, study="planted", triplets=20, aspect="dynamics")
    assert facts["lufs"] is None
    assert facts["about"] == "How loud it is played"
    for place, uri in zip(facts["passages"], read_page(page)["excerpts"], strict=True):
        number = int(place["recording_id"][1:])
        # One factor brings the highest peak, 0.9, to 1 dB below full scale: hardly any change.
        told = 20 * np.log10(amplitude(number)) - 3.5
        assert measure_loudness(decode(uri), RATE) == pytest.approx(told, abs=1.2)


def _replaced(row: Recording, samples: Any) -> Recording:
    soundfile.write(row.audio, samples, RATE, "FLOAT")
    return replace(row, audio_sha256=file_sha256(Path(row.audio)))


def test_the_page_asks_nobody_and_no_name_ends_its_data(corpus: Corpus) -> None:
    page, _ = make_study(*corpus, study="</script><b>", triplets=3)
    assert read_page(page)["study"] == "</script><b>"
    assert "http" not in page.replace("http-equiv", "")
    assert "{{" not in page


Change = Callable[[list[Recording]], list[Recording]]


@pytest.mark.parametrize(
    ("asked", "change", "error", "told"),
    [
        ({"aspect": "dinamics"}, None, ConfigError, "did you mean 'dynamics'"),
        ({"triplets": 2}, None, ConfigError, "2 triplets are asked for, expected 3 to 1000"),
        ({"seed": -1}, None, ConfigError, "the seed is -1"),
        ({"triplets": 1001}, None, ConfigError, "expected 3 to 1000"),
        ({"strata": []}, None, ConfigError, "expected some of work, composer, free, each once"),
        ({"strata": ["works"]}, None, ConfigError, "strata are 'works', expected some of work"),
        ({"strata": ["work"] * 2}, None, ConfigError, "each once"),
        (
            {"strata": ["work"], "triplets": 900},
            None,
            DatasetError,
            "only .* triplets that can be heard: of 9",
        ),
        ({}, lambda _: [], DatasetError, "0 have audio on disk, and 0 go together"),
        (
            {},
            lambda rows: rows[3:6],
            DatasetError,
            "of 9 recordings 3 have audio on disk, and 0 go together",
        ),
        # Three recordings of one work: their composer has no other.
        ({"strata": ["composer"]}, lambda rows: rows[4:], DatasetError, "and 0 go together"),
        (
            {},
            lambda rows: [replace(row, audio_sha256="0" * 64) for row in rows],
            AudioError,
            "not the one that was indexed; run the workflow again",
        ),
    ],
)
def test_errors_say_what_is_there(
    corpus: Corpus, asked: dict[str, Any], change: Change | None, error: Any, told: str
) -> None:
    index, recordings = corpus
    made = change(recordings) if change else recordings
    with pytest.raises(error, match=told):
        make_study(index, made, study="planted", **asked)


def test_loudness_is_that_of_the_standard() -> None:
    # BS.1770: 997 Hz at full scale in one channel is -3.01 LKFS.
    rate = 44_100
    tone = np.sin(2 * np.pi * 997 * np.arange(3 * rate) / rate).astype(np.float32)
    assert measure_loudness(tone, rate) == pytest.approx(-3.01, abs=0.05)
    assert measure_loudness(0.1 * tone, rate) == pytest.approx(-23.01, abs=0.05)
    assert measure_loudness(0 * tone, rate) < -100
    # Low sounds count for less, high ones for more.
    low, high = (
        np.sin(2 * np.pi * pitch * np.arange(3 * rate) / rate).astype(np.float32)
        for pitch in (30, 5000)
    )
    assert measure_loudness(low, rate) < -10 < 0 < measure_loudness(high, rate) < 1
