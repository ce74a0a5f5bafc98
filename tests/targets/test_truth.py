"""Expression targets against the truth: of the demo corpus, and beats that people annotated."""

import csv
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from benchmarks.validity import NEUTRAL, held, in_order, through_the_score
from mess_core.datasets.demo import Interpretation, demo_recordings, perform, to_midi
from mess_core.datasets.render import render_midi
from mess_core.targets import MidiExpressionTargets, measure
from mess_core.targets.expression import rubato, rubato_ioi_ratio, tempo_variability
from mess_core.targets.notes import Performance, read_performance
from mess_core.targets.sound import analyse
from tests.targets.signals import RATE, noise

ASAP = Path(__file__).parents[3] / "shared" / "data" / "asap"

Work = list[tuple[Interpretation, dict[str, float]]]


@pytest.fixture(scope="module")
def works(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Work]:
    folder: Path = tmp_path_factory.mktemp("demo")
    found: dict[str, Work] = defaultdict(list)
    for recording in demo_recordings():
        path = folder / f"{recording.recording_id}.mid"
        path.write_bytes(to_midi(perform(recording.score, recording.interpretation)))
        expression = MidiExpressionTargets().compute(path)["expression"]
        measured = {name: float(value) for name, value in expression.items() if not value.ndim}
        found[recording.work_id].append((recording.interpretation, measured))
    return found


PAIRS = [
    ("rubato", "rubato"),
    ("rubato", "tempo_variability"),
    ("articulation", "articulation_ratio"),
    ("dynamic_range", "velocity_range"),
    ("level", "velocity_mean"),
    ("pedal", "pedal_share"),
    ("tempo", "chord_rate"),
    ("tempo", "note_rate"),
]


@pytest.mark.unit
@pytest.mark.parametrize(("parameter", "target"), PAIRS)
def test_the_extreme_interpretation_has_the_extreme_target(
    works: dict[str, Work], parameter: str, target: str
) -> None:
    for work_id, performances in works.items():
        truth = [getattr(interpretation, parameter) for interpretation, _ in performances]
        measured = [values[target] for _, values in performances]
        if parameter != "level":  # three interpretations are nearly as loud as the loudest
            assert np.argmax(measured) == np.argmax(truth), (work_id, truth, measured)
        assert np.corrcoef(truth, measured)[0, 1] > 0.8, (work_id, truth, measured)


@pytest.mark.unit
def test_the_true_tempo_is_that_through_the_score() -> None:
    """A score in crotchets at 120 BPM, played at half that tempo, then a fifth faster."""
    score = np.arange(0.0, 60.0, 0.5)
    periods = np.where(score[1:] <= 30, 1.0, 1 / 1.2)
    beats = np.cumsum([3.0, *periods])
    truth = through_the_score(beats, score)
    whole = truth(beats[0], beats[-1])
    assert whole["true_tempo"] == pytest.approx(59.5 / (beats[-1] - beats[0]))
    assert whole["true_rubato"] == pytest.approx(np.log(1.2) / 2, rel=0.01)
    assert whole["true_variability"] == pytest.approx(np.log(1.2) / 2)
    assert truth(10.0, 15.0)["true_tempo"] == pytest.approx(0.5)
    assert truth(10.0, 15.0)["true_rubato"] == pytest.approx(0, abs=1e-9)


@pytest.mark.unit
def test_the_true_articulation_is_the_share_of_the_notated_time_that_keys_are_held() -> None:
    onsets, pitches, velocities = np.arange(20.0), 60 + np.arange(20.0) % 5, np.full(20, 64.0)
    notated = Performance(onsets, onsets + 1, pitches, velocities)
    played = Performance(2 * onsets + 0.05, 2 * onsets + 0.05 + 1.4, pitches, velocities)
    assert held(played, notated, 2 * onsets, onsets) == pytest.approx(0.7)


@pytest.mark.unit
def test_pairs_in_order_are_those_of_a_work() -> None:
    found = in_order("aaabb", np.array([1, 2, 3, 1, 2.0]), np.array([1, 3, 2, 2, 1.0]))
    assert list(found) == pytest.approx([2 / 3, 0])


#: A parameter, its strengths, and the audio target that grows with it.
DOSES = [
    ("articulation", (0.5, 0.8, 1.1), "articulation", "note_connection"),
    ("pedal", (0.0, 0.5, 1.0), "articulation", "resonance"),
    ("dynamic_range", (12.0, 36.0, 60.0), "dynamics", "dynamic_range"),
]


@pytest.mark.integration
@pytest.mark.parametrize(("parameter", "strengths", "category", "target"), DOSES)
def test_what_is_played_is_heard(
    parameter: str, strengths: tuple[float, ...], category: str, target: str
) -> None:
    """A score, played with one parameter at three strengths, over noise of -60 dBFS."""
    recording = next(r for r in demo_recordings() if r.work_id == "burgmueller_op100_2")
    heard = []
    for strength in strengths:
        played = replace(NEUTRAL, **{parameter: strength})
        midi = to_midi(perform(recording.score, played))
        samples = render_midi(midi, sample_rate=RATE).mean(axis=1)
        sound = analyse(samples + noise(len(samples) / RATE, 1e-3), RATE)
        heard.append(float(measure(sound)[category][target]))
    assert heard == sorted(heard)
    assert heard[0] < heard[-1]


@pytest.mark.integration
@pytest.mark.skipif(not ASAP.is_dir(), reason="../shared/data/asap is not on this machine")
def test_timing_from_notes_agrees_with_annotated_beats_within_works() -> None:
    """On every third work of at least four performances; all are in docs/targets.md."""
    works: dict[str, list[dict[str, str]]] = defaultdict(list)
    with (ASAP / "recordings.tsv").open() as file:
        for row in csv.DictReader(file, delimiter="\t"):
            works[row["work_id"]].append(row)
    names = sorted(name for name, rows in works.items() if len(rows) >= 4)[::3][:8]
    assert len(names) >= 6
    agreement = np.array([within(works[name]) for name in names]).mean(axis=0)
    variability, shaping, ratios = agreement
    assert variability >= 0.4
    assert shaping >= 0.4
    assert ratios < min(variability, shaping)


def within(rows: list[dict[str, str]]) -> list[float]:
    """Return how tempo variability, rubato and ratios of raw intervals agree with the beats'."""
    found, truth = [], []
    for row in rows:
        notes = read_performance(ASAP / row["midi"])
        beats = read_performance(ASAP / row["midi"], beats=ASAP / row["beats"])
        found.append(
            (
                tempo_variability(notes.beat_periods),
                rubato(notes.shaped_tempo, notes.beat_periods),
                rubato_ioi_ratio(notes.onsets),
            )
        )
        variability = tempo_variability(beats.beat_periods)
        truth.append((variability, rubato(beats.shaped_tempo, beats.beat_periods), variability))
    pairs = zip(np.transpose(found), np.transpose(truth), strict=True)
    return [float(spearmanr(one, other).statistic) for one, other in pairs]
