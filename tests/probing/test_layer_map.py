"""The layer map: written whole, the same twice, and it says what the results say."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.text import Text

from mess_core.errors import ProbingError
from mess_core.files import write_json
from mess_core.probing import figures, plot_layer_map
from mess_core.targets.registry import TARGETS

pytestmark = pytest.mark.unit


def write_result(folder: Path, target: str, r2: list[float], **changes: Any) -> dict[str, Any]:
    result: dict[str, Any] = {
        "target": target,
        "category": TARGETS[target].category,
        "dataset": "toy",
        "stage": 1,
        "encoder": {"name": "tiny", "weights_sha256": "ab", "trained": False},
        "layers": [{"layer": layer, "r2": value} for layer, value in enumerate(r2)],
        "best_layer": int(np.argmax(r2)) if r2 else None,
        "best_r2": max(r2) if r2 else None,
        "r2_nested": max(r2) - 0.1 if r2 else None,
        "confidence": "medium" if r2 else "low",
        "reason": None if r2 else "too few rows",
    }
    write_json(folder / f"{target}.json", {**result, **changes})
    return {**result, **changes}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_result(tmp_path, "tempo", [0.1, 0.66, -7.3])
    write_result(tmp_path, "spectral_centroid", [0.5, 0.2, -0.25])
    write_result(tmp_path, "rubato", [])
    write_json(tmp_path / "aspects.json", {})
    return tmp_path


def drawn(results: list[dict[str, Any]]) -> tuple[Figure, list[str]]:
    figure = figures._draw(results)
    figure.draw_without_rendering()
    return figure, [text.get_text() for text in figure.findobj(Text) if isinstance(text, Text)]


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_the_same_results_give_the_same_bytes(folder: Path, suffix: str) -> None:
    first, second = folder / f"a{suffix}", folder / f"b{suffix}"
    plot_layer_map(folder, first)
    plot_layer_map(folder, second)
    assert first.read_bytes() == second.read_bytes()
    assert not list(folder.glob(".tmp-*"))


def test_a_picture_is_not_blank(folder: Path) -> None:
    plot_layer_map(folder, folder / "map.png")
    pixels = imread(folder / "map.png")
    assert pixels.shape[0] > 300
    assert len(np.unique(pixels.reshape(-1, pixels.shape[-1]), axis=0)) > 20


def test_it_says_what_the_results_say(tmp_path: Path) -> None:
    results = [
        write_result(tmp_path, "tempo", [0.1, 0.66, -7.3]),
        write_result(tmp_path, "spectral_centroid", [0.5, 0.2, -0.25]),
        write_result(tmp_path, "rubato", []),
    ]
    _, texts = drawn(results)
    assert {"rhythm", "timbre", "expression", "tempo", "rubato"} <= set(texts)
    assert {".10", ".66", "<-1", "-.25"} <= set(texts)
    assert "not probed: too few rows" in texts
    assert any("tiny (untrained)" in text for text in texts)
    assert any(text.split() == ["0.66", "0.56", "medium"] for text in texts)
    assert any("below 0 coloured as 0" in text for text in texts)


def test_a_trained_encoder_is_not_called_untrained(tmp_path: Path) -> None:
    encoder = {"name": "real", "weights_sha256": "ab", "trained": True}
    _, texts = drawn([write_result(tmp_path, "tempo", [0.5], encoder=encoder)])
    assert not any("untrained" in text for text in texts)


def test_the_colours_show_r2_from_zero_to_one_and_the_best_layer_is_outlined(
    tmp_path: Path,
) -> None:
    figure, _ = drawn([write_result(tmp_path, "tempo", [0.1, 0.66, -7.3])])
    image = figure.axes[0].images[0]
    assert image.get_clim() == (0, 1)
    np.testing.assert_allclose(np.asarray(image.get_array()), [[0.1, 0.66, -7.3]])
    assert {patch.get_x() for patch in figure.axes[0].patches} == {0.5}  # type: ignore[attr-defined]


@pytest.mark.parametrize("n_layers", [1, 13, 25])
def test_numbers_fit_their_cells(tmp_path: Path, n_layers: int) -> None:
    targets = ["tempo", "onset_density", "spectral_centroid"]
    results = [write_result(tmp_path, name, [-0.25] * n_layers) for name in targets]
    figure, _ = drawn(results)
    for ax in figure.axes[:2]:
        cell = ax.bbox.width / n_layers
        assert all(text.get_window_extent().width < cell for text in ax.texts[:n_layers])


def test_other_suffixes_and_empty_folders_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ProbingError, match=r"\.png or \.svg"):
        plot_layer_map(folder, folder / "map.jpg")
    with pytest.raises(ProbingError, match="no probing result"):
        plot_layer_map(tmp_path / "nothing", tmp_path / "map.png")
