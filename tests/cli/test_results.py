"""`mess question`: the table on the terminal, and what to do when there is none."""

from pathlib import Path

import pytest

from mess_core.cli.main import main
from mess_core.evaluation.judges import line
from mess_core.layout import Layout
from mess_core.probing.questions import write_table

pytestmark = pytest.mark.unit


def test_a_question_without_an_answer_says_how_to_make_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["question", "layers", "--dataset", "mine", "--data", str(tmp_path)]) != 0
    path = Layout(tmp_path, "mine").answer("layers", ".tsv")
    assert f"make it with `snakemake {path} --config dataset=mine`" in capsys.readouterr().err


def test_numbers_are_short_and_gaps_are_dashes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Layout(tmp_path, "demo").answer("layers", ".tsv")
    row = {"target": "tempo", "best_layer": 7, "best_layers": [6, 7], "r2": 0.123456, "p": None}
    write_table([row | {"unseen": "x", "reason": None}], path)
    assert main(["question", "layers", "--data", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split() == list(row)
    assert lines[4].split() == ["tempo", "7", "6,7", "0.123", "-"]
    assert main(["question", "layers", "--data", str(tmp_path), "--all"]) == 0
    assert capsys.readouterr().out == path.read_text()


def test_it_is_said_why_there_are_no_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"target": "tempo", "best_layer": None, "reason": "needs at least 3 works, has 1"}
    write_table([row], Layout(tmp_path, "demo").answer("layers", ".tsv"))
    assert main(["question", "layers", "--data", str(tmp_path)]) == 0
    assert "needs at least 3 works, has 1" in capsys.readouterr().out


def test_rules_are_a_block_that_fits_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    text = "recall@200 is 0.98, nDCG@10 is 0.77 of the best order"
    lines = [
        line("same player", "general", measure="MRR", reason="no named player"),
        line("rule", "reranking", measure="fired", reason=text),
        line("rule", "people first", measure="not known", reason="not known: agreement"),
    ]
    write_table(lines, Layout(tmp_path, "demo").answer("evaluation", ".tsv"))
    assert main(["question", "evaluation", "--data", str(tmp_path)]) == 0
    shown = capsys.readouterr().out.splitlines()[2:]
    assert shown[:7] == [
        "Rules",
        "fired      reranking: recall@200 is",
        "           0.98, nDCG@10 is 0.77 of the",
        "           best order",
        "not known  people first: agreement",
        "",
        "same player, general: no named player",
    ]
