"""The pictures of stability, separability and collapse: what they show is what they were given."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from mess_core.errors import ProbingError
from mess_core.probing import charts
from mess_core.probing.charts import plot_collapse, plot_separability, plot_stability
from mess_core.probing.figures import save_figure

pytestmark = pytest.mark.unit


@pytest.fixture
def saved(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are saved, which are still written."""
    figures: list[Figure] = []

    def keep(figure: Figure, output: Path) -> None:
        figures.append(figure)
        save_figure(figure, output)

    monkeypatch.setattr(charts, "save_figure", keep)
    return figures


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if isinstance(text, Text)]


def stability(target: str, category: str, folds: list[float], **changes: Any) -> dict[str, Any]:
    return {
        "target": target,
        "category": category,
        "n_folds": len(folds),
        "r2": 0.5,
        "r2_folds": folds,
        "kendall_w": 0.8,
        "kendall_p": 0.01,
        "agreement": 0.6,
        **changes,
    }


def test_stability_shows_every_fold_and_the_concordance(
    tmp_path: Path, saved: list[Figure]
) -> None:
    rows = [
        stability("tempo", "rhythm", [0.4, 0.6, -3.0]),
        stability("rubato", "expression", [0.1, 0.2], kendall_w=0.3, kendall_p=0.4),
        stability("onset_density", "rhythm", [], kendall_w=None),
        {"target": "num_phrases", "category": "phrasing", "n_folds": None},
    ]
    plot_stability(rows, tmp_path / "stability.png", title="toy")
    (figure,) = saved
    spread, concordance, _, random = figure.axes
    shown = texts(figure)
    assert {"rhythm", "expression", "tempo", "rubato", "60%"} <= set(shown)
    assert not {"onset_density", "num_phrases", "phrasing"} & set(shown)
    dots = {line.get_marker(): np.asarray(line.get_xdata()).tolist() for line in spread.lines}
    assert (dots["o"], dots["<"], dots["|"]) == ([0.4, 0.6], [-0.5], [0.5])
    marks = [ax.lines[1].get_markerfacecolor() for ax in (concordance, random)]
    assert marks[1] == "white" != marks[0]
    assert any("toy" in text for text in shown)


def pair(a: str, b: str, **changes: Any) -> dict[str, Any]:
    figures = {"retained": 0.9, "correlation": -0.25, "angle": 80.4, "verdict": "separable"}
    return {"aspect": a, "erased": b, "layer": 3, **figures, **changes}


def test_separability_shows_what_is_left_and_why(tmp_path: Path, saved: list[Figure]) -> None:
    nothing = {"retained": None, "correlation": None, "angle": None, "verdict": "undefined"}
    pairs = [
        pair("tempo", "rubato"),
        pair("tempo", "legato", retained=0.1, verdict="entangled"),
        pair("rubato", "tempo", retained=0.2, verdict="correlated"),
        pair("rubato", "legato", retained=0.55, verdict="uncertain"),
        pair("legato", "tempo", **nothing),
        pair("legato", "rubato", retained=4.0, verdict="not encoded"),
    ]
    plot_separability(pairs, tmp_path / "separability.svg")
    left, correlation, angle = saved[0].axes[:3]
    assert [text.get_text() for text in left.texts] == [".90", ".10*", ".20°", ".55?", "-", "-"]
    values = np.asarray(left.images[0].get_array())
    expected = [[np.nan, 0.9, 0.1], [0.2, np.nan, 0.55], [np.nan] * 3]
    np.testing.assert_allclose(values, expected)
    assert correlation.images[0].get_clim() == (-1, 1)
    assert correlation.texts[0].get_text() == "-.25"
    assert angle.texts[0].get_text() == "80"
    labels = [label.get_text() for label in left.get_yticklabels()]
    assert labels == ["tempo (layer 3)", "rubato (layer 3)", "legato (layer 3)"]


def layer(rank: float, **changes: Any) -> dict[str, Any]:
    shares = {"within_work": 0.2, "within_work_standardised": 0.3, "within_work_chance": 0.9}
    return {"rankme": rank, "rankme_centred": 2 * rank, **shares, **changes}


def test_collapse_shows_a_line_per_encoder_and_figure(tmp_path: Path, saved: list[Figure]) -> None:
    encoders = {
        "encoder": [
            layer(10, cka_untrained=0.5, cka_descriptors=None),
            layer(20, cka_untrained=0.4, cka_descriptors=None),
        ],
        "untrained": [layer(5), layer(4)],
    }
    plot_collapse(encoders, tmp_path / "collapse.png", title="toy")
    rank, share, likeness = saved[0].axes
    lines = {line.get_label(): np.asarray(line.get_ydata()).tolist() for line in rank.lines}
    assert lines == {
        "encoder": [10, 20],
        "encoder, centred": [20, 40],
        "untrained": [5, 4],
        "untrained, centred": [10, 8],
    }
    assert "rows unrelated to works" in [line.get_label() for line in share.lines]
    assert [line.get_label() for line in likeness.lines] == ["encoder and untrained"]
    assert (tmp_path / "collapse.png").stat().st_size < 400_000


def test_without_rows_the_picture_says_so(tmp_path: Path, saved: list[Figure]) -> None:
    plot_stability([], tmp_path / "stability.png")
    plot_separability([], tmp_path / "separability.png")
    assert "No target has results over folds" in texts(saved[0])[0]
    assert "Fewer than two aspects" in texts(saved[1])[0]
    assert (tmp_path / "stability.png").is_file()


def test_the_same_figures_give_the_same_bytes(tmp_path: Path) -> None:
    rows = [stability("tempo", "rhythm", [0.4, 0.6])]
    for name in "ab":
        plot_stability(rows, tmp_path / f"{name}.svg")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_other_suffixes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ProbingError, match=r"\.png or \.svg"):
        plot_separability([pair("a", "b"), pair("b", "a")], tmp_path / "map.pdf")
