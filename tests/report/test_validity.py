"""The validity of targets on planted data, of which the answer is known."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from scipy.stats import spearmanr

from mess_core.layout import Layout
from mess_core.report.validity import (
    OWN_PARAMETER,
    PARTNERS,
    interval,
    mean_within,
    measure_validity,
    parameter_rows,
    read_parameters,
    read_values,
    spearman,
    within,
)
from mess_core.report.validity_picture import plot_validity
from mess_core.targets import save_targets
from mess_core.targets.registry import CATEGORIES, TARGETS, probed_targets

pytestmark = pytest.mark.unit

WORKS = ["a"] * 6 + ["b"] * 6
RNG = np.random.default_rng(0)
STEPS = np.tile(np.arange(6.0), 2)


def test_what_is_defined_and_moves_within_works_is_told() -> None:
    of_work = np.repeat([0.0, 10.0], 6)
    gaps = STEPS.copy()
    gaps[:3] = np.nan
    rows = {"tempo": of_work, "onset_density": STEPS, "rubato": gaps, "dynamic_range": 0 * STEPS}
    by_name = {row["target"]: row for row in measure_validity(rows, WORKS)}
    assert by_name["tempo"]["within_works"] == pytest.approx(0)
    assert by_name["onset_density"]["within_works"] == pytest.approx(1)
    assert by_name["rubato"]["defined"] == 0.75
    assert by_name["dynamic_range"]["within_works"] is None, "what is constant has no variance"
    both = measure_validity({"tempo": STEPS + of_work}, WORKS)[0]["within_works"]
    # Variances 35 / 12 within and 25 between.
    assert both == pytest.approx((35 / 12) / (35 / 12 + 25))


def test_a_target_that_nobody_has_says_so() -> None:
    (row,) = measure_validity({"rubato": np.full(12, np.nan)}, WORKS)
    assert (row["defined"], row["within_works"]) == (0.0, None)
    (row,) = measure_validity({"rubato": np.array([])}, [])
    assert (row["defined"], row["n_rows"]) == (None, 0)


def test_a_shape_needs_all_its_numbers_and_sums_their_variance() -> None:
    shape = RNG.normal(size=(12, 4))
    shape[0, 2] = np.nan
    (row,) = measure_validity({"loudness_shape": shape}, WORKS)
    assert row["defined"] == pytest.approx(11 / 12)
    known, works = shape[1:], np.array(WORKS[1:])
    total = ((known - known.mean(axis=0)) ** 2).sum()
    left = sum(
        ((known[works == w] - known[works == w].mean(axis=0)) ** 2).sum() for w in ("a", "b")
    )
    assert row["within_works"] == pytest.approx(left / total)


def test_audio_and_midi_are_compared_within_works_only() -> None:
    # Over all rows they rise together; within each work they go against each other.
    between = np.repeat([0.0, 100.0], 6)
    rows = {"loudness_level": between + STEPS, "velocity_mean": between - STEPS}
    loudness, velocity = measure_validity(rows, WORKS)
    assert (loudness["midi"], loudness["midi_r"], loudness["midi_works"]) == (
        "velocity_mean", -1.0, 2,
    )  # fmt: skip
    assert (loudness["midi_lo"], loudness["midi_hi"]) == (-1.0, -1.0)
    assert velocity["midi"] is None


@pytest.mark.parametrize("partner", [{}, {"velocity_mean": np.full(12, np.nan)}])
def test_without_midi_nothing_is_claimed(partner: dict[str, np.ndarray]) -> None:
    row = measure_validity({"loudness_level": STEPS, **partner}, WORKS)[0]
    assert [row[key] for key in ("midi", "midi_r", "midi_lo", "midi_hi", "midi_works")] == [
        None
    ] * 5


def test_parameters_are_compared_with_whole_recordings() -> None:
    rows = {"tempo": np.zeros(4), "loudness_shape": np.zeros((4, 4))}
    whole = {"tempo": STEPS, "loudness_shape": RNG.normal(size=(12, 4))}
    parameters = {"tempo": STEPS**3, "rubato": -STEPS}
    tempo, shape = measure_validity(
        rows, ["a"] * 4, whole=whole, works_of_whole=WORKS, parameters=parameters
    )
    assert (tempo["own"], tempo["of_tempo"], tempo["of_rubato"]) == ("tempo", 1.0, -1.0)
    assert shape["of_tempo"] is None
    together = parameter_rows(parameters, WORKS)
    assert together == {
        "tempo": {"tempo": 1.0, "rubato": -1.0},
        "rubato": {"tempo": -1.0, "rubato": 1.0},
    }


def test_a_shapes_correlation_is_the_mean_over_its_numbers() -> None:
    truth = np.stack([STEPS, STEPS], axis=1)
    found = mean_within(WORKS, truth, np.stack([STEPS, -STEPS], axis=1))
    assert (found["mean"], found["works"]) == (0.0, 2)


def test_the_rank_correlation_is_scipys() -> None:
    rng = np.random.default_rng(1)
    truth, measured = rng.integers(0, 6, (2, 40)).astype(float)
    assert spearman(truth, measured) == pytest.approx(spearmanr(truth, measured).statistic)
    assert np.isnan(spearman([3, 3, 3, 3], [1, 2, 3, 4])), "what does not move orders nothing"


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        ([1, 10, 11, 1000, 1001], 1.0),
        ([5, 4, 3, 2, -1], -1.0),
        ([1, np.nan, 3, 4, 5], 1.0),
        ([7, 7, 7, 7, 7], 0.0),
        ([0, 0, 0, 0, 0], 0.0),
        ([1 + 1e-15, 1, 1 - 1e-15, 1, 1 + 1e-15], 0.0),
        ([1e-6, 2e-6, 3e-6, 4e-6, 5e-6], 1.0),
        ([1, np.nan, np.nan, 4, 5], np.nan),
    ],
)
def test_what_follows_and_what_does_not(measured: list[float], expected: float) -> None:
    assert spearman([1, 2, 3, 4, 5], measured) == pytest.approx(expected, nan_ok=True)


def test_only_differences_within_groups_count() -> None:
    """The group with the higher truth has the higher values, but within each it is the reverse."""
    groups = ["a"] * 4 + ["b"] * 4
    truth = [1.0, 2, 3, 4, 11, 12, 13, 14]
    measured = [4.0, 3, 2, 1, 104, 103, 102, 101]
    assert spearman(truth, measured) > 0.5
    assert within(groups, truth, measured) == {"a": -1.0, "b": -1.0}


def test_the_interval_of_a_mean_is_students() -> None:
    # 4.303 standard errors with two degrees of freedom.
    reach = 4.303 * 0.2 / np.sqrt(3)
    assert interval(np.array([0.2, 0.4, 0.6])) == pytest.approx(
        (0.4 - reach, 0.4 + reach), abs=1e-4
    )
    assert np.isnan(interval(np.array([0.5]))).all()


def test_a_correlation_has_no_interval_beyond_1_nor_of_a_single_work() -> None:
    mixed = STEPS.copy()
    mixed[[1, 2]] = mixed[[2, 1]]
    found = mean_within(WORKS, STEPS, mixed)
    assert found["interval"][0] < found["mean"] < found["interval"][1] == 1.0
    assert mean_within(WORKS[:6], STEPS[:6], mixed[:6])["interval"] is None


def test_partners_and_own_parameters_exist() -> None:
    assert set(PARTNERS) | set(PARTNERS.values()) <= set(probed_targets())
    for name, partner in PARTNERS.items():
        assert (TARGETS[name].source, TARGETS[partner].source) == ("audio", "midi")
        assert TARGETS[name].shape == TARGETS[partner].shape
    assert set(OWN_PARAMETER) <= set(TARGETS)


def audio(*leading: int) -> dict[str, dict[str, np.ndarray]]:
    """All targets but those of MIDI."""
    made: dict[str, dict[str, np.ndarray]] = {category: {} for category in CATEGORIES[:-1]}
    for spec in TARGETS.values():
        if spec.category in made:
            made[spec.category][spec.name] = np.ones((*leading, *spec.shape))
    return made


def test_values_are_read_with_gaps_where_there_is_no_midi(tmp_path: Path) -> None:
    layout = Layout(tmp_path, "x")
    save_targets(layout.targets("a"), audio(), windows=audio(3))
    wanted = ["tempo", "loudness_shape", "rubato", "relative_tempo"]
    values, counts = read_values(layout, ["a"], wanted, "window")
    assert counts == [3]
    assert [values[n].shape for n in values] == [(3,), (3, 4), (3,), (3,)]
    assert np.isnan(values["rubato"]).all()
    assert np.isnan(values["relative_tempo"]).all()
    values, counts = read_values(layout, ["a"], ["tempo"], "recording")
    assert (counts, values["tempo"].shape) == ([1], (1,))


def test_parameters_are_read_by_recording(tmp_path: Path) -> None:
    path = tmp_path / "t.tsv"
    path.write_text(
        "recording_id\twork_id\tinterpretation\ttempo\tduration_s\n"
        "a\tw\tx\t1.5\t20\nb\tw\ty\t2.5\t21\n"
    )
    found = read_parameters(path, ["b", "new", "a"])
    assert list(found) == ["tempo"]
    np.testing.assert_array_equal(found["tempo"], [2.5, np.nan, 1.5])


@pytest.mark.parametrize("known", [False, True])
def test_the_picture_is_the_same_twice_and_not_blank(tmp_path: Path, *, known: bool) -> None:
    names = ["tempo", "performed_tempo_level", "loudness_shape", "rubato"]
    rng = np.random.default_rng(3)
    values = {name: rng.normal(size=(12, *TARGETS[name].shape)) for name in names}
    values["rubato"][:] = np.nan
    parameters = {"tempo": STEPS, "rubato": -STEPS} if known else {}
    rows = measure_validity(
        values, WORKS, whole=values, works_of_whole=WORKS, parameters=parameters
    )
    together = parameter_rows(parameters, WORKS)
    for name in ("a.png", "b.png"):
        plot_validity(rows, tmp_path / name, parameters=together, title="toy")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    pixels = imread(tmp_path / "a.png")
    assert len(np.unique(pixels.reshape(-1, pixels.shape[-1]), axis=0)) > 20
