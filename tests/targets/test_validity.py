"""The analysis of `benchmarks.validity` on planted data, of which the answer is known."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from benchmarks.markdown import write_section
from benchmarks.validity import judge_dose, main
from benchmarks.validity_analysis import OWN_SCALE, SCALES, agree, respond_to
from benchmarks.validity_jobs import (
    MEASURED,
    NEUTRAL,
    RATE,
    STRENGTHS,
    TILT,
    WITH_BEATS,
    clips,
    doses,
    pianists,
    tilted,
)
from benchmarks.validity_report import (
    PARAMETERS,
    asap_text,
    dose_text,
    draw,
    percepiano_text,
)
from mess_core.report.validity import OWN_PARAMETER
from mess_core.targets.registry import TARGETS

pytestmark = pytest.mark.unit

WORKS = ["a", "b", "c"]


def planted(target: str, own: str, correlations: Sequence[float]) -> dict[str, Any]:
    """Judge a target that has these correlations with one parameter and none with the others."""
    responses = {name: [0.0] * len(WORKS) for name in PARAMETERS} | {own: list(correlations)}
    ends = {name: [[1.0, 2.0, 9.0], [3.0, 4.0, 5.0]] for name in PARAMETERS}
    return respond_to(target, responses, ends, WORKS)


def test_the_median_work_decides() -> None:
    row = planted("velocity_mean", "level", [0.5, 0.9, 1.0])
    assert row["response"] == 0.9
    assert row["bar"] == 0.9
    assert row["reached"]
    assert row["works_below"] == ["a"]
    assert row["ends"] == [2.0, 4.0]
    assert not planted("velocity_mean", "level", [0.5, 0.89, 1.0])["reached"]


def test_audio_has_a_bar_of_its_own() -> None:
    assert planted("loudness_level", "level", [0.7, 0.7, 0.7])["reached"]
    assert not planted("loudness_level", "level", [0.6, 0.6, 1.0])["reached"]


def test_the_sign_counts() -> None:
    assert planted("attack_slopes", "articulation", [-1.0, -1.0, -1.0])["reached"]
    assert not planted("attack_slopes", "articulation", [1.0, 1.0, 1.0])["reached"]


def test_a_target_that_is_mostly_undefined_misses_its_bar() -> None:
    row = planted("rubato", "rubato", [np.nan, np.nan, 1.0])
    assert row["response"] is None
    assert not row["reached"]
    assert row["works_below"] == ["a", "b"]


def test_a_target_without_a_parameter_is_not_judged() -> None:
    row = planted("tension_level", "tempo", [1.0, 1.0, 1.0])
    assert row["own"] == ""
    assert "reached" not in row
    assert row["responses"]["tempo"] == 1.0


def test_a_remark_behind_the_name_changes_nothing() -> None:
    assert planted("rubato (beats)", "rubato", [1.0, 1.0, 1.0])["reached"]


def test_groups_without_an_order_are_left_out_of_the_mean() -> None:
    facts = agree({"a": 0.2, "b": np.nan, "c": 0.6}, bar=0.4)
    assert facts["groups"] == 2
    assert facts["mean"] == pytest.approx(0.4)
    assert agree({"a": np.nan})["mean"] is None


def test_what_targets_are_meant_to_follow_exists() -> None:
    assert set(OWN_PARAMETER) | set(OWN_SCALE) <= set(MEASURED) <= set(TARGETS)
    assert {name for name, _ in OWN_PARAMETER.values()} <= set(STRENGTHS)
    assert {name for name, _ in OWN_SCALE.values()} <= set(SCALES)
    assert list(PARAMETERS) == list(STRENGTHS)
    assert {name.split()[0] for name in WITH_BEATS} <= set(MEASURED)


def test_a_dose_changes_one_parameter_evenly() -> None:
    assert set(STRENGTHS) - {TILT} == set(asdict(NEUTRAL))
    for dose in doses(1):
        strengths = STRENGTHS[dose.parameter]
        assert dose.strength in strengths
        assert np.ptp(np.diff(strengths)) < 1e-9
        if dose.parameter != TILT:
            assert getattr(NEUTRAL, dose.parameter) == strengths[2]
            replace(NEUTRAL, **{dose.parameter: dose.strength})
    assert len(doses(2)) == 2 * 5 * len(STRENGTHS)


def test_a_dose_is_judged_by_the_works_that_respond() -> None:
    """Of three works two follow `level` and one its reverse; `pedal` moves all by nothing."""
    jobs = doses(3)
    works = list(dict.fromkeys(job.work_id for job in jobs))
    values = [
        job.strength * (-1 if job.work_id == works[1] else 1) if job.parameter == "level" else 5.0
        for job in jobs
    ]
    row = judge_dose("velocity_mean", jobs, values)
    assert row["by_work"] == {works[0]: 1.0, works[1]: -1.0, works[2]: 1.0}
    assert row["responses"] == dict.fromkeys(STRENGTHS, 0.0) | {"level": 1.0}
    assert row["works_below"] == [works[1]]
    assert row["ends"] == [STRENGTHS["level"][0], STRENGTHS["level"][-1]]


def sine(frequency: float) -> npt.NDArray[np.float32]:
    return np.sin(2 * np.pi * frequency * np.arange(RATE) / RATE).astype(np.float32)


@pytest.mark.parametrize(("frequency", "db"), [(500.0, -2.0), (1000.0, 0.0), (4000.0, 4.0)])
def test_the_tilt_is_in_db_per_octave(frequency: float, db: float) -> None:
    gain = np.std(tilted(sine(frequency), 2.0)) / np.std(sine(frequency))
    assert 20 * np.log10(gain) == pytest.approx(db, abs=0.01)


def test_the_neutral_sound_is_untouched() -> None:
    np.testing.assert_array_equal(tilted(sine(440.0), 0.0), sine(440.0))


def test_ratings_are_averaged_and_errors_dropped(tmp_path: Path) -> None:
    (tmp_path / "midi").mkdir()
    players = ["1", "2", "Score", "Score2"]
    names = [f"Work_8bars_{player}_3" for player in players] + ["Other_4bars_1_1"]
    for name in names:
        (tmp_path / "midi" / f"{name}.mid").touch()
    rows = [f"1,{name},2.0,7.0" for name in names]
    rows += ["2,Work_8bars_1_3,5.0,0.0", "3,Work_8bars_1_3,5.0,8.0", "4,Work_8bars_1_3,,"]
    (tmp_path / "ratings.csv").write_text("\n".join(["rater,clip,s01,s02", *rows]) + "\n")
    found = clips(tmp_path, at_least=2)
    assert [clip.midi.stem for clip in found] == names[:2]
    assert {clip.passage for clip in found} == {"Work_8bars_3"}
    assert found[0].ratings == {"s01": 4.0, "s02": 7.0}
    assert found[0].halves == ({"s01": 3.5, "s02": 7.0}, {"s01": 5.0})


def test_works_with_few_pianists_are_left_out(tmp_path: Path) -> None:
    rows = [f"{work}\tm/{work}{n}.mid\tb/{work}{n}.tsv" for work in "ba" for n in range(3)]
    rows.append("c\tm/c0.mid\tb/c0.tsv")
    (tmp_path / "recordings.tsv").write_text("\n".join(["work_id\tmidi\tbeats", *rows]) + "\n")
    found = pianists(tmp_path, at_least=3)
    assert [job.work_id for job in found] == ["a"] * 3 + ["b"] * 3
    assert found[0].midi == tmp_path / "m" / "a0.mid"
    assert len(pianists(tmp_path, at_least=3, works=1)) == 3


def dose_facts() -> dict[str, Any]:
    rows = [
        planted("velocity_mean", "level", [0.5, 0.9, 1.0]),
        planted("rubato", "rubato", [0.1, 0.2, 1.0]),
        planted("tension_level", "tempo", [1.0, 1.0, 1.0]),
    ]
    return {"works": WORKS, "strengths": STRENGTHS, "rows": rows}


def percepiano_facts() -> dict[str, Any]:
    cell = agree({"p": 0.25, "q": 0.35})
    rows = [
        {"target": t, "scales": dict.fromkeys(SCALES, cell)} for t in ("velocity_mean", "tempo")
    ]
    return {"passages": 2, "clips": 10, "at_least": 5, "rows": rows} | {
        "listeners": dict.fromkeys(SCALES, agree({"p": 0.5, "q": 0.6}))
    }


def cells_of(text: str, name: str) -> list[str]:
    """Return the cells of a row of a Markdown table."""
    row = next(line for line in text.splitlines() if line.startswith(f"| `{name}` |"))
    return row.strip("| ").split(" | ")


def test_the_table_marks_own_parameters_and_misses() -> None:
    text = dose_text(dose_facts())
    own = 5 + list(PARAMETERS).index("level")
    assert cells_of(text, "velocity_mean")[own] == "**0.90**"
    assert cells_of(text, "velocity_mean")[1:5] == ["level +", "2 to 4 MIDI velocity", "0.9", "yes"]
    assert cells_of(text, "rubato")[4] == "**missed** in 2 of 3"
    assert "1 of 2 rows" in text
    assert {line.count("|") for line in text.splitlines() if line.startswith("|")} == {15}


def test_listeners_have_all_scales_by_name() -> None:
    text = percepiano_text(percepiano_facts())
    assert all(f"*{short}*: {long}" in text for short, long in SCALES.values())
    cells = cells_of(text, "velocity_mean")
    assert len(cells) == 1 + len(SCALES)
    assert text.count("| 0.55 ") == len(SCALES)
    assert [i for i, cell in enumerate(cells) if "**" in cell] == [9]


def test_annotated_beats_have_their_verdict() -> None:
    rows = [
        {"estimate": name, "truth": "rubato (beats)", **agree({"a": r, "b": r}, bar=bar)}
        for name, r, bar in [("good", 0.5, 0.4), ("bad", 0.3, 0.4), ("other", 0.3, None)]
    ]
    facts = {"works": 2, "performances": 8, "at_least": 4, "heard_s": 90.0, "rows": rows}
    text = asap_text(facts)
    assert cells_of(text, "good")[2:] == ["0.50", "0.50 to 0.50", "0.50", "2", "0.4", "yes"]
    assert cells_of(text, "bad")[-1] == "**missed**"
    assert not {"yes", "**missed**"} & set(cells_of(text, "other"))


def test_only_what_lies_between_the_markers_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "targets.md"
    path.write_text("before\n\n<!-- validity -->\nold\n<!-- /validity -->\n\nafter\n")
    for text in ("new\n", "newer\n"):
        write_section(path, text, marker="validity")
        expected = f"before\n\n<!-- validity -->\n\n{text}\n<!-- /validity -->\n\nafter\n"
        assert path.read_text() == expected


def test_a_file_without_markers_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "targets.md"
    path.write_text("<!-- validity -->\n")
    with pytest.raises(ValueError, match="needs one line"):
        write_section(path, "new", marker="validity")
    assert path.read_text() == "<!-- validity -->\n"


def test_the_picture_is_drawn_of_what_there_is(tmp_path: Path) -> None:
    dose = dose_facts()
    dose["rows"].append(planted("tempo", "tempo", [1.0, np.nan, np.nan]))
    draw({"dose": dose}, tmp_path / "dose.png")
    draw({"dose": dose, "percepiano": percepiano_facts()}, tmp_path / "both.png")
    draw({"asap": {}}, tmp_path / "none.png")
    assert (tmp_path / "dose.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "both.png").stat().st_size > (tmp_path / "dose.png").stat().st_size
    assert not (tmp_path / "none.png").exists()


@pytest.mark.parametrize("arguments", [["--quick"], ["--only", "dose"]])
def test_tables_are_written_by_a_full_run_only(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["validity", "--write", "targets.md", *arguments])
    with pytest.raises(SystemExit):
        main()
    assert "full run" in capsys.readouterr().err


def test_missing_data_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "asap").mkdir()
    monkeypatch.setattr("sys.argv", ["validity", "--data", str(tmp_path)])
    with pytest.raises(SystemExit):
        main()
    assert "no percepiano" in capsys.readouterr().err
