"""The pictures: they show what they are given, and the same results give the same bytes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from mess_core.errors import ProbingError
from mess_core.probing import pictures
from mess_core.probing.pictures import (
    plot_collapse,
    plot_layer_map,
    plot_separability,
    plot_stability,
    save_figure,
)
from mess_core.targets.registry import TARGETS
from tests.probing.toy import result, score

pytestmark = pytest.mark.unit

Drawn = Callable[[list[dict[str, Any]]], Figure]


@pytest.fixture
def saved(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are saved, which are still written."""
    figures: list[Figure] = []

    def keep(figure: Figure, output: Path) -> None:
        figures.append(figure)
        save_figure(figure, output)

    monkeypatch.setattr(pictures, "save_figure", keep)
    return figures


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if isinstance(text, Text)]


def stability(target: str, category: str, folds: list[float], **changes: Any) -> dict[str, Any]:
    over_folds = {"n_folds": len(folds), "r2": 0.5, "r2_folds": folds, "agreement": 0.6}
    ranks = {"kendall_w": 0.8, "kendall_p": 0.01}
    return {"target": target, "category": category, **over_folds, **ranks, **changes}


def test_stability_shows_every_fold_and_the_concordance(
    tmp_path: Path, saved: list[Figure]
) -> None:
    rows = [
        stability("tempo", "rhythm", [0.4, 0.6, -3.0]),
        stability("rubato", "expression", [0.1, 0.2], kendall_w=0.3, kendall_p=0.4),
        stability("onset_density", "rhythm", [], kendall_w=None),
        {"target": "novelty_level", "category": "phrasing", "n_folds": None},
    ]
    plot_stability(rows, tmp_path / "stability.png", title="toy")
    (figure,) = saved
    spread, concordance, _, random = figure.axes
    shown = texts(figure)
    assert {"rhythm", "expression", "tempo", "rubato", "60%"} <= set(shown)
    assert not {"onset_density", "novelty_level", "phrasing"} & set(shown)
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


def test_other_suffixes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ProbingError, match=r"\.png or \.svg"):
        plot_separability([pair("a", "b"), pair("b", "a")], tmp_path / "map.pdf")


def pooled(target: str, r2: list[float]) -> dict[str, Any]:
    """A target that has one value in each work."""
    layers = [score(layer, value, r2_within=None) for layer, value in enumerate(r2)]
    return result(target, r2, layers=layers, primary="r2")


@pytest.fixture
def drawn(saved: list[Figure], tmp_path: Path) -> Drawn:
    def draw(results: list[dict[str, Any]]) -> Figure:
        plot_layer_map(results, tmp_path / "map.png")
        return saved[-1]

    return draw


def outlines(figure: Figure) -> dict[tuple[float, float], float]:
    """Left and right border of each black outline of the first category, and its width."""
    patches = [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle)]
    return {
        (patch.get_x() + 0.5, patch.get_x() + patch.get_width() - 0.5): patch.get_linewidth()
        for patch in patches
        if patch.get_edgecolor() == (0, 0, 0, 1)
    }


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_the_same_results_give_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    first, second = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    for path in (first, second):
        plot_layer_map([result("tempo", [0.1, 0.66, -7.3]), result("rubato", [])], path)
    assert first.read_bytes() == second.read_bytes()
    assert [path.name for path in sorted(tmp_path.iterdir())] == [first.name, second.name]


def test_it_says_what_the_results_say(drawn: Drawn) -> None:
    results = [
        result("tempo", [0.1, 0.66, -7.3]),
        result("spectral_centroid", [0.5, 0.2, -0.25]),
        result("rubato", []),
    ]
    shown = texts(drawn(results))
    assert {"rhythm", "timbre", "expression", "tempo", "rubato"} <= set(shown)
    assert {".10", ".66", "<-1", "-.25"} <= set(shown)
    assert "not probed: too few rows" in shown
    assert any("tiny (untrained)" in text for text in shown)
    assert any("below 0 coloured as 0" in text for text in shown)
    (headings,) = {text for text in shown if "nested" in text and "best" in text}
    assert headings.split("  ")[-1].strip() == "p"
    expected = ["0.66", "[0.56,", "0.76]", "medium", "0.32", "0.42", "0.11", "0.12", "0.005"]
    assert any(text.split() == expected for text in shown)


def test_numbers_whose_interval_lies_above_0_are_bold_and_no_others(drawn: Drawn) -> None:
    # Intervals are 0.1 either side.
    figure = drawn([result("tempo", [0.05, 0.66, -0.3, 0.101])])
    numbers = {text.get_text(): text.get_fontweight() for text in figure.axes[0].texts}
    assert numbers[".66"] == numbers[".10"] == "bold"
    assert numbers[".05"] == numbers["-.30"] == "normal"


def test_a_target_without_r2_within_works_shows_the_pooled_one_and_a_star(drawn: Drawn) -> None:
    figure = drawn([pooled("tempo", [0.1, 0.3])])
    assert "tempo *" in texts(figure)
    np.testing.assert_allclose(np.asarray(figure.axes[0].images[0].get_array()), [[0.3, 0.5]])
    expected = ["0.50", "[0.40,", "0.60]", "low", "0.31", "0.41", "0.11", "0.12", "0.500"]
    assert any(text.split() == expected for text in texts(figure))


def test_a_baseline_that_a_target_lacks_is_a_dash(drawn: Drawn) -> None:
    lacking = result("tempo", [0.5], baselines={"untrained": None})
    shown = texts(drawn([lacking, result("onset_density", [0.4], caution="what is played")]))
    assert "onset_density !" in shown
    assert any(text.split()[-3:] == ["-", "-", "0.005"] for text in shown)


def test_the_best_layer_and_those_that_may_be_best_are_outlined(drawn: Drawn) -> None:
    r2 = [0.2, 0.1, 0.6, 0.7, 0.5, 0.1]
    lines = outlines(drawn([result("tempo", r2, best_layers=[3, 2, 0, 4])]))
    assert set(lines) == {(3, 3), (0, 0), (2, 4)}
    assert lines[3, 3] > lines[0, 0] == lines[2, 4]


@pytest.mark.parametrize("n_layers", [1, 13, 25])
def test_numbers_fit_their_cells(drawn: Drawn, n_layers: int) -> None:
    targets = ["tempo", "onset_density", "spectral_centroid"]
    figure = drawn([result(name, [-0.25] * n_layers) for name in targets])
    for ax in figure.axes[:2]:
        cell = ax.bbox.width / n_layers
        assert all(text.get_window_extent().width < cell for text in ax.texts[:n_layers])


@pytest.mark.slow
def test_nothing_is_drawn_outside_the_picture(drawn: Drawn) -> None:
    figure = drawn([result(name, [0.5] * 13) for name in TARGETS])
    box = figure.get_tightbbox()
    assert box.x0 >= 0
    assert box.y0 >= 0
    assert box.x1 <= figure.get_figwidth() + 0.02
    assert box.y1 <= figure.get_figheight()
