"""The figures of `benchmarks.search_quality` by hand and on planted cases, and its corpora."""

import io
import json
import subprocess
import sys
from dataclasses import replace
from functools import partial
from itertools import permutations
from pathlib import Path

import mido
import numpy as np
import pytest
from scipy.stats import skew, spearmanr

from benchmarks import search_quality
from benchmarks.search_quality_corpora import (
    DOSES,
    PIANISTS,
    PLANTED,
    Clips,
    Span,
    asap_pieces,
    cut_midi,
    first_note,
    folds_of,
    planted_doses,
    planted_interpretation,
    planted_pieces,
    same_passage,
    settings_of,
    spans_of,
)
from benchmarks.search_quality_judges import (
    CHANCE,
    all_layers_centred,
    asking,
    best_hits,
    choose_queries,
    cosine,
    judge_distances,
    judge_hubness,
    judge_more,
    judge_passages,
    others,
    summed_up,
)
from benchmarks.search_quality_metrics import (
    Floats,
    Found,
    Mean,
    drift,
    first_right,
    found,
    found_by_chance,
    hubness,
    hubness_by_chance,
    mean_of_groups,
    partial_correlation,
    share_larger,
)
from benchmarks.search_quality_report import report
from mess_core.datasets.demo import SCORES
from mess_core.probing.aspects import ASPECT_REGISTRY
from mess_core.recordings import Recording, read_recordings, write_recordings
from tests.planted import Corpus, clip_rows

pytestmark = pytest.mark.unit

RNG = np.random.default_rng(5)


def bools(text: str) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    return np.array([character == "1" for character in text])


@pytest.mark.parametrize(
    ("right", "candidates", "rank"),
    [
        ("00100", "11111", 4.0),
        ("00101", "11111", 2.0),
        ("00100", "10110", 2.0),
        ("10000", "01111", np.inf),
        ("00000", "11111", np.inf),
    ],
)
def test_the_first_right_answer_has_its_rank_among_candidates(
    right: str, candidates: str, rank: float
) -> None:
    scores = np.array([0.9, 0.7, 0.5, 0.1, 0.8])
    assert first_right(scores, bools(right), bools(candidates)) == rank


def test_equal_scores_share_a_rank_and_what_was_not_found_is_last() -> None:
    scores = np.array([0.5, 0.5, np.nan, 0.1])
    everything = bools("1111")
    assert first_right(scores, bools("1000"), everything) == 1.5
    assert first_right(scores, bools("0010"), everything) == 4.0


def test_found_is_about_the_first_right_answer() -> None:
    result = found([1, 2, 10, 11, np.inf])
    assert result.recall_1 == pytest.approx(1 / 5)
    assert result.recall_10 == pytest.approx(3 / 5)
    assert result.mrr == pytest.approx((1 + 1 / 2 + 1 / 10 + 1 / 11) / 5)


def test_chance_is_the_mean_over_all_orders() -> None:
    right = np.array([True, True, False, False, False])
    orders = [np.array(order, float) for order in permutations(range(5))]
    everything = np.ones(5, np.bool_)
    expected = found(first_right(order, right, everything) for order in orders)
    assert found_by_chance(5, 2) == pytest.approx(expected)


def test_chance_by_hand() -> None:
    assert found_by_chance(3, 1) == pytest.approx(Found(1 / 3, 1.0, (1 + 1 / 2 + 1 / 3) / 3))
    assert found_by_chance(4, 4) == pytest.approx(Found(1.0, 1.0, 1.0))
    assert found_by_chance(1000, 1).recall_10 == pytest.approx(0.01)


def test_without_others_it_is_the_rank_correlation() -> None:
    x, y = RNG.normal(size=(2, 50))
    assert partial_correlation(x, y, []) == pytest.approx(spearmanr(x, y).statistic)


def test_with_one_other_it_is_the_textbooks_formula() -> None:
    z = RNG.normal(size=80)
    x, y = RNG.normal(size=(2, 80)) + z
    a, b, c = (spearmanr(*pair).statistic for pair in ((x, y), (x, z), (y, z)))
    expected = (a - b * c) / np.sqrt((1 - b**2) * (1 - c**2))
    assert partial_correlation(x, y, [z]) == pytest.approx(expected)


def test_what_goes_with_y_through_x_alone_does_not_leak() -> None:
    x = RNG.normal(size=4000)
    y, apart = x + RNG.normal(size=(2, 4000))
    assert spearmanr(apart, y).statistic > 0.4
    assert partial_correlation(apart, y, [x]) == pytest.approx(0, abs=0.05)
    assert partial_correlation(apart, x, [y]) > 0.4


def test_what_has_no_order_left_is_undefined() -> None:
    x, y = RNG.normal(size=(2, 20))
    assert np.isnan(partial_correlation(np.ones(20), y, [x]))
    assert np.isnan(partial_correlation(2 * x + 1, y, [x]))
    assert np.isnan(partial_correlation(x[:2], y[:2], []))


def test_undefined_entries_are_left_out() -> None:
    x, y, z = RNG.normal(size=(3, 30))
    holed = y.copy()
    holed[:5] = np.nan
    expected = partial_correlation(x[5:], y[5:], [z[5:]])
    assert partial_correlation(x, holed, [z]) == pytest.approx(expected)


def test_more_is_more_than_the_query_has() -> None:
    values = np.array([2.0, 1.0, 2.0, 3.0, 4.0, np.nan])
    assert share_larger(values, 0, np.array([1, 2, 3, 4])) == 0.5
    assert share_larger(values, 0, np.array([3, 5])) == 1.0
    assert np.isnan(share_larger(values, 0, np.array([], np.int64)))


def test_drift_is_in_standard_deviations() -> None:
    values = np.array([[0.0, 2.0, 4.0, 6.0], [1.0, 1.0, 1.0, 5.0]])
    spread = values.std(axis=1)
    expected = np.mean([4 / spread[0], 6 / spread[0], 0, 4 / spread[1]])
    assert drift(values, 0, np.array([2, 3])) == pytest.approx(expected)
    assert np.isnan(drift(values, 0, np.array([], np.int64)))


def test_a_hub_is_in_every_list() -> None:
    result = hubness([[1, 2], [0, 2], [0, 1], [0, 1]], rows=4)
    assert result.skewness == pytest.approx(skew([3, 3, 2, 0]))
    assert (result.antihubs, result.largest) == (0.25, 3.0)
    assert hubness([[1], [0]], rows=2).skewness == 0.0


def test_random_lists_are_as_chance_says() -> None:
    rows, k = 3000, 3
    result = hubness([RNG.choice(rows, k, replace=False) for _ in range(rows)], rows)
    chance = hubness_by_chance(rows, k)
    assert result.skewness == pytest.approx(chance.skewness, abs=0.15)
    assert result.antihubs == pytest.approx(chance.antihubs, abs=0.015)


def test_groups_count_equally_and_undefined_values_do_not() -> None:
    result = mean_of_groups(["a", "a", "a", "b", "c"], [0.0, 0.0, np.nan, 1.0, np.nan])
    assert (result.value, result.groups) == (0.5, 2)
    # 12.706 standard errors with one degree of freedom.
    assert (result.low, result.high) == pytest.approx((0.5 - 6.353, 0.5 + 6.353), abs=1e-3)
    assert mean_of_groups(["a"], [np.nan]).groups == 0


# The corpora.


def test_planted_doses_are_crossed_and_nothing_else_moves() -> None:
    pieces = planted_pieces(2)
    n = int(np.prod([len(steps) for steps in DOSES.values()]))
    assert len({piece.recording_id for piece in pieces}) == len(pieces) == 2 * n
    assert len({piece.midi for piece in pieces}) == len(pieces)
    doses = np.array([list(planted_doses(recording(p.performer)).values()) for p in pieces])
    np.testing.assert_allclose(np.corrcoef(doses.T), np.eye(len(DOSES)), atol=1e-12)
    assert [piece.work_id for piece in pieces[::n]] == [score.work_id for score in SCORES[:2]]


def test_a_dose_sets_its_own_parameters() -> None:
    low, high = planted_interpretation([0, 0, 0]), planted_interpretation([0, 2, 0])
    assert (low.articulation, high.articulation) == (0.5, 1.1)
    assert (low.tempo, low.level, low.pedal) == (high.tempo, high.level, 0.0)


def recording(performer: str = "", *, name: str = "r", work: str = "w") -> Recording:
    texts = dict.fromkeys(("title", "composer", "split", "audio", "midi", "beats", "reason"), "")
    hashes = dict.fromkeys(("audio_sha256", "midi_sha256", "beats_sha256"), "")
    return Recording(
        recording_id=name,
        work_id=work,
        performer=performer,
        duration_s=60.0,
        status="ok",
        **texts,
        **hashes,
    )


def write_midi(path: Path) -> Path:
    """Write two notes, at 1 to 3 s and 2 to 6 s, and the pedal down from 0.5 s, 120 BPM."""
    track = mido.MidiTrack()
    for time, kind, fields in [
        (480, "control_change", {"control": 64, "value": 127}),
        (480, "note_on", {"note": 60, "velocity": 80}),
        (960, "note_on", {"note": 64, "velocity": 70}),
        (960, "note_off", {"note": 60}),
        (2880, "note_on", {"note": 64, "velocity": 0}),
    ]:
        track.append(mido.Message(kind, time=time, **fields))
    mido.MidiFile(ticks_per_beat=480, tracks=[track]).save(path)
    return path


def events(content: bytes) -> list[tuple[float, str, int]]:
    now, found = 0.0, []
    for message in mido.MidiFile(file=io.BytesIO(content)):
        now += message.time
        if message.type.startswith("note"):
            down = message.type == "note_on" and message.velocity > 0
            found.append((round(now, 3), "on" if down else "off", message.note))
        elif message.type == "control_change":
            found.append((round(now, 3), "pedal", message.value))
    return found


def test_a_cut_keeps_what_sounds_and_lets_go_at_its_end(tmp_path: Path) -> None:
    midi = write_midi(tmp_path / "two.mid")
    assert first_note(midi) == pytest.approx(1.0)
    assert events(cut_midi(midi, 0.75, 4.0)) == [
        (0.0, "pedal", 127),
        (0.25, "on", 60),
        (1.25, "on", 64),
        (2.25, "off", 60),
        (3.25, "pedal", 0),
        (3.25, "off", 64),
    ]


def write_asap(folder: Path, players: int = PIANISTS, *, odd: str = "") -> Path:
    """Write a work of a hundred beats, each player 10 % slower; one with a beat too many."""
    columns = ["recording_id", "work_id", "composer", "performer", "midi", "beats", "score_beats"]
    lines = ["\t".join(columns)]
    write_midi(folder / "all.mid")
    for name, period in [("score", 1.0), *((str(i), 1 + i / 10) for i in range(players))]:
        beats = 101 if name == odd else 100
        times = [f"{1 + i * period:.3f}" for i in range(beats)]
        (folder / f"{name}.tsv").write_text("".join(f"{t}\t{t}\tb\n" for t in times))
        if name != "score":
            lines.append(f"{name}\twork\tBach\tP\tall.mid\t{name}.tsv\tscore.tsv")
    (folder / "recordings.tsv").write_text("\n".join(lines) + "\n")
    return folder


def test_all_pianists_are_cut_at_one_beat(tmp_path: Path) -> None:
    pieces = asap_pieces(write_asap(tmp_path))
    assert len(pieces) == PIANISTS
    assert {len(piece.beats.splitlines()) for piece in pieces} == {1 + int(59.75 / 1.4)}
    # The first beat is a quarter of a second after the beginning.
    assert all(piece.beats.startswith("0.250000\t") for piece in pieces)


def test_other_beats_than_the_scores_are_left_out(tmp_path: Path) -> None:
    assert asap_pieces(write_asap(tmp_path, odd="2")) == []
    assert len(asap_pieces(write_asap(tmp_path, PIANISTS + 1, odd="2"))) == PIANISTS


def test_windows_hold_beats_of_the_score(tmp_path: Path) -> None:
    beats = tmp_path / "beats.tsv"
    beats.write_text("".join(f"{t}\t{t}\tb\n" for t in (1.0, 3.0, 5.0, 6.0)))
    named = replace(recording(), beats=str(beats))
    clips = Clips((named, named, named), (0.0, 2.0, 20.0), np.zeros((3, 1, 1), np.float32))
    assert spans_of(clips, 4.0) == [Span("w", 0, 1.5), Span("w", 0.5, 3.0), Span("w", 3.0, 3.0)]


def test_passages_share_half_of_the_shorter() -> None:
    query = Span("w", 10, 20)
    spans = [
        Span("w", 10, 20),
        Span("w", 15, 25),
        Span("w", 15.1, 25.1),
        Span("w", 18, 22),
        Span("w", 0, 40),
        Span("other", 10, 20),
        Span("w", 15, 15),
    ]
    assert same_passage(query, spans).tolist() == [True, True, False, True, True, False, False]


def test_no_work_is_in_two_folds() -> None:
    rows = [recording(name=f"r{i}", work=f"w{i % 7}") for i in range(21)]
    folds = folds_of(rows, 3)
    assert set(folds) == {f"w{i}" for i in range(7)}
    assert set(folds.values()) == {0, 1, 2}


# The judges, on planted vectors.

WORKS, PLAYERS, PASSAGES = 4, 3, 12


def planted_clips() -> tuple[Clips, list[Span]]:
    """Let every player play every passage of every work; features are noise."""
    rows, starts, spans = [], [], []
    for work in range(WORKS):
        for player in range(PLAYERS):
            for passage in range(PASSAGES):
                rows.append(recording(name=f"w{work}p{player}", work=f"w{work}"))
                starts.append(2.5 * passage)
                spans.append(Span(f"w{work}", 10.0 * passage, 10.0 * passage + 10))
    features = np.random.default_rng(1).normal(size=(len(rows), 2, 40)).astype(np.float32)
    return Clips(tuple(rows), tuple(starts), features), spans


def one_hot(keys: list[tuple[str, float]]) -> Floats:
    names = sorted(set(keys))
    return np.eye(len(names))[[names.index(key) for key in keys]]


def test_who_knows_the_passage_finds_it_and_noise_is_chance() -> None:
    clips, spans = planted_clips()
    knows = cosine(one_hot([(span.work_id, span.start) for span in spans]))
    searches = {"knows": knows, "noise": cosine(clips.features[:, 0])}
    queries = range(len(spans))
    for of_work in (False, True):
        figures = judge_passages(searches, clips, spans, queries, of_work=of_work)
        assert figures["knows"]["recall_1"].value == 0.0  # two right answers share rank 1.5
        assert figures["knows"]["mrr"].value == pytest.approx(1 / 1.5)
        n = PASSAGES * (PLAYERS - 1 if of_work else WORKS * PLAYERS - 1)
        assert figures[CHANCE]["mrr"].value == pytest.approx(found_by_chance(n, 2).mrr)
        assert figures["noise"]["mrr"].value == pytest.approx(figures[CHANCE]["mrr"].value, abs=0.1)


def test_the_querys_own_recording_is_no_candidate() -> None:
    clips, spans = planted_clips()
    names = cosine(one_hot([(name, 0.0) for name in clips.names]))
    assert not others(clips, 0)[:PASSAGES].any()
    assert others(clips, 0, of_work=True).sum() == PASSAGES * (PLAYERS - 1)
    assert not set(best_hits(names(0), others(clips, 0))) & set(range(PASSAGES))
    figures = judge_passages({"names": names}, clips, spans, [0, 40, 80])
    assert figures["names"]["recall_1"].value == 0.0


def test_a_query_that_nobody_else_plays_is_left_out() -> None:
    clips, spans = planted_clips()
    spans[0] = Span("w0", 900, 910)
    figures = judge_passages({"noise": cosine(clips.features[:, 0])}, clips, spans, [0, 1])
    assert figures["noise"]["mrr"].groups == 1


def test_ordering_by_x_and_leaking_y() -> None:
    clips, _ = planted_clips()
    n = len(clips.recordings)
    x, y = np.random.default_rng(2).normal(size=(2, n, 1))

    def by(*values: Floats) -> dict[str, Mean]:
        def search(row: int) -> Floats:
            apart = [np.abs(each - each[row])[:, 0] for each in values]
            return np.asarray(-np.sum(apart, axis=0))

        return summed_up(judge_distances(search, clips, x, y, range(0, n, 7)))

    assert by(x)["wanted"].value == pytest.approx(1.0)
    assert np.isnan(by(x)["leak"].value)  # the distances in X say all
    assert by(x, y)["wanted"].value > 0.5
    assert by(x, y)["leak"].value > 0.5
    nothing = by(np.random.default_rng(3).normal(size=(n, 1)))
    assert nothing["wanted"].value == pytest.approx(0, abs=0.1)
    assert nothing["leak"].value == pytest.approx(0, abs=0.1)


def test_more_is_judged_by_hits_against_all_candidates() -> None:
    clips, _ = planted_clips()
    n = len(clips.recordings)
    value, rest = np.random.default_rng(4).normal(size=(2, n))
    judge = partial(judge_more, clips=clips, value=value, rest=rest[np.newaxis], queries=range(n))
    blind = summed_up(judge(lambda _: np.zeros(n), k=n))
    assert blind["share"].value == blind["share_by_chance"].value == pytest.approx(0.5, abs=0.05)
    assert blind["drift"].value == blind["drift_by_chance"].value == pytest.approx(1.13, abs=0.1)

    def wise(row: int) -> Floats:
        return np.where(value > value[row], -np.abs(rest - rest[row]), np.nan)

    grown = judge(wise)
    assert len(grown) < n  # the largest of all has nothing above it
    figures = summed_up(grown)
    assert figures["share"].value == 1.0
    assert figures["drift"].value < figures["drift_by_chance"].value / 3
    assert figures["unanswered"].value == 0.0


def test_chance_is_of_the_queries_that_got_an_answer() -> None:
    """Who answers only what lies low must not be praised for what all lie above."""
    clips, _ = planted_clips()
    n = len(clips.recordings)
    value = np.arange(n, dtype=float)[np.random.default_rng(8).permutation(n)]

    def timid(row: int) -> Floats:
        return np.full(n, 0.0 if value[row] < n / 10 else np.nan)

    figures = summed_up(judge_more(timid, clips, value, value[np.newaxis], range(n), k=n))
    assert figures["share"].value == figures["share_by_chance"].value > 0.9
    assert figures["unanswered"].value == pytest.approx(0.9, abs=0.02)


def test_hubs_are_counted_over_all_windows() -> None:
    clips, _ = planted_clips()
    n = len(clips.recordings)
    popular = judge_hubness(lambda _: np.arange(n, dtype=float), clips, k=1)
    assert popular.largest == n - PASSAGES
    assert popular.antihubs == pytest.approx(1 - 2 / n)


def corpus_and_clips() -> tuple[Corpus, Clips]:
    """Give features that hold their aspects, as windows of recordings."""
    rows = clip_rows(20, 10)
    corpus = Corpus(len(rows))
    recordings = tuple(recording(name=row.recording_id, work=row.work_id) for row in rows)
    return corpus, Clips(recordings, tuple(row.start_s for row in rows), corpus.features)


def test_an_index_is_asked_as_a_service_asks_it() -> None:
    corpus, clips = corpus_and_clips()
    index = corpus.index(clip_rows(20, 10))
    scores = asking(index, clips, like={"tempo": 1.0})(37)
    assert np.isnan(scores[~others(clips, 37)]).all()
    candidates = others(clips, 37)
    expected = -np.abs(corpus.values["tempo"] - corpus.values["tempo"][37])[:, 0]
    assert spearmanr(scores[candidates], expected[candidates]).statistic > 0.8
    assert np.isfinite(asking(index, clips, k=7)(37)).sum() == 7

    queries = range(0, 200, 9)
    tempo, dynamics = corpus.values["tempo"], corpus.values["dynamics"]
    found = summed_up(
        judge_distances(asking(index, clips, like={"tempo": 1.0}), clips, tempo, dynamics, queries)
    )
    assert found["wanted"].value > 0.8
    assert abs(found["leak"].value) < 0.1
    more = asking(index, clips, k=10, more={"tempo": 1.0})
    rest = corpus.values["dynamics"].T
    grown = summed_up(judge_more(more, clips, tempo[:, 0], rest, queries))
    assert grown["share"].value > 0.95
    assert grown["share_by_chance"].value < 0.8


def test_what_is_fitted_has_none_of_the_works_that_are_searched(tmp_path: Path) -> None:
    settings = settings_of("planted", tmp_path)
    rows = [recording(name=f"r{i}", work=f"w{i % 6}") for i in range(18)]
    write_recordings(settings.layout.table, rows)
    folds = {PLANTED: 3}
    parts = search_quality.parts(settings, replace(search_quality.FULL, folds=folds))
    left = [
        {f"w{i}" for i in range(6)} - {r.work_id for r in read_recordings(part.layout.table)}
        for part in parts
    ]
    assert [len(works) for works in left] == [2, 2, 2]
    assert set.union(*left) == {f"w{i}" for i in range(6)}
    assert len({part.layout.probing for part in (settings, *parts)}) == 4


def test_aspects_of_one_question_share_no_target() -> None:
    for pairs in search_quality.PAIRS.values():
        for x, y in pairs:
            assert not set(ASPECT_REGISTRY[x].targets) & set(ASPECT_REGISTRY[y].targets)
    for names in search_quality.MORE.values():
        assert all(ASPECT_REGISTRY[name].more for name in names)


def test_queries_are_drawn_from_every_work() -> None:
    works = ["a"] * 100 + ["b"] * 2
    chosen = choose_queries(works, 30)
    assert len(set(chosen)) == 32
    assert chosen == sorted(chosen) == choose_queries(works, 30)
    # No period of the rows is favoured.
    assert {row % 5 for row in chosen[:30]} == set(range(5))


def test_centring_shows_what_a_common_direction_hides() -> None:
    features = np.random.default_rng(6).normal(size=(50, 3, 8)) + 100
    assert cosine(features[:, 0])(0).min() > 0.99
    centred = cosine(all_layers_centred(features))(0)
    apart = features - features.mean(axis=0)
    by_layer = np.einsum("ld,nld->nl", apart[0], apart)
    by_layer /= np.linalg.norm(apart[0], axis=1) * np.linalg.norm(apart, axis=2)
    np.testing.assert_allclose(centred / centred[0], by_layer.mean(axis=1))
    assert centred.min() < -0.2


# The report and the command.


def figures(*names: str) -> dict[str, object]:
    mean = {"value": 0.25, "low": 0.125, "high": 0.5, "groups": 3}
    return dict.fromkeys(names, mean)


def facts() -> dict[str, object]:
    found = {name: figures("recall_1", "recall_10", "mrr") for name in (CHANCE, "plain")}
    hubs = {
        CHANCE: {"skewness": 0.3, "antihubs": 0.0, "largest": None},
        "plain": {"skewness": 1.5, "antihubs": 0.1, "largest": 55.0},
    }
    sizes = {"recordings": 6, "works": 3, "windows": 60, "queries": 30, "best_layer": 2}
    passages = {**sizes, "corpus": found, "work": found, "hubness": hubs}
    nothing = {"value": None, "low": None, "high": None, "groups": 0}
    more = figures("share_by_chance", "drift", "drift_by_chance", "unanswered")
    row = {"x": "legato", "r2": 0.31, "resolved": 1.0}
    planted = {
        "distances": [row | {"y": "tempo", "systems": {"plain": figures("wanted", "leak")}}],
        "more": [row | {"systems": {"more X": more | {"share": nothing}}}],
    }
    return {
        "corpora": {"demo": {"passages": passages}, "planted": planted},
    }


def test_the_report_has_every_row() -> None:
    text = report(facts())
    assert "| demo | same work | plain | 0.25 (0.12 to 0.50) |" in text
    mean = "0.25 (0.12 to 0.50)"
    assert f"| planted | legato | 0.31 | tempo | plain | {mean} | {mean} | 3 |" in text
    assert f"| planted | legato | 0.31 | more X | - | 0.25 | {mean} | 0.25 | 0.25 | 3 |" in text
    assert "| demo | chance | 0.30 | 0.00 |  |" in text
    assert "| demo | plain | 1.50 | 0.10 | 55 |" in text
    assert "untrained" in text


def test_without_asap_its_rows_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert search_quality.corpora(tmp_path) == ["demo", "planted"]
    assert "has no asap" in capsys.readouterr().err
    (tmp_path / "asap").mkdir()
    assert search_quality.corpora(tmp_path) == ["demo", "asap", "planted"]


@pytest.mark.parametrize("arguments", [["--quick"], ["--data", "nowhere"]])
def test_tables_are_written_by_a_full_run_only(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["search_quality", "--write", "search.md", *arguments])
    with pytest.raises(SystemExit):
        search_quality.main()
    assert "full run" in capsys.readouterr().err


def test_undefined_figures_are_null_in_json() -> None:
    found = search_quality.jsonable({"a": Mean(np.nan, 0.0, 1.0, 2)})
    assert found == {"a": {"value": None, "low": 0.0, "high": 1.0, "groups": 2}}


@pytest.mark.exhaustive
def test_the_command_makes_and_judges_all_that_it_can(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.search_quality", "--quick", "--data", "nowhere"]
    command += ["--work", str(tmp_path), "--json", str(tmp_path / "facts.json")]
    for _ in range(2):  # the second time with what the first has left
        subprocess.run(command, check=True)
    corpora = json.loads((tmp_path / "facts.json").read_text())["corpora"]
    assert list(corpora) == ["demo", "planted"]
    for scope in ("corpus", "work"):
        found = corpora["demo"]["passages"][scope]
        assert found["general"]["mrr"]["value"] > found[CHANCE]["mrr"]["value"]
    assert {row["x"] for row in corpora["planted"]["more"]} == set(DOSES)
