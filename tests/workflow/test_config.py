"""Settings: what a configuration becomes, what is refused, and that the documentation is true."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from mess_core.errors import ConfigError
from mess_core.probing.decompositions import ALPHAS
from mess_core.targets.registry import probed_targets
from mess_core.workflow.config import Settings, table
from tests.workflow.conftest import ROOT

pytestmark = pytest.mark.unit


def test_the_documentation_has_the_table_of_all_settings() -> None:
    # print(table()) makes it anew.
    assert table() in (ROOT / "config" / "README.md").read_text()


def test_the_shipped_configuration_is_the_demos_default() -> None:
    config = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
    settings = Settings.from_config(config)
    assert settings == Settings.from_config({}) == Settings()
    assert (settings.dataset, settings.encoder) == ("demo", "mess-small")
    assert settings.targets == probed_targets()
    assert settings.sources == ("encoder", "descriptors")
    assert settings.alphas == ALPHAS
    assert settings.changed == {}


def test_defaults_follow_from_other_settings() -> None:
    assert Settings.from_config({"data": "x"}).destination == "x/published"
    rows = Settings.from_config({"probing": {"rows": "recordings"}})
    assert rows.targets == probed_targets()
    assert rows.changed == {"probing.rows": "recordings"}


@pytest.mark.parametrize("left_open", [{}, {"encoder": "auto", "shards": None, "aspects": {}}])
def test_the_real_model_is_the_default_outside_the_demo(
    left_open: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "models/MERT-v1-95M").mkdir(parents=True)
    (tmp_path / "models/MERT-v1-95M/config.json").touch()
    real, demo = (
        Settings.from_config({"dataset": name, "data": str(tmp_path), **left_open})
        for name in ("smd", "demo")
    )
    assert real.changed == demo.changed == {}
    assert (real.encoder, real.precision, real.min_r2, real.shards) == (
        *("MERT-v1-95M", "auto"),
        *(0.5, 16),
    )
    elsewhere = Settings.from_config({"dataset": "smd", "data": str(tmp_path / "x"), **left_open})
    assert (elsewhere.encoder, elsewhere.changed) == ("mess-small", {})
    assert (demo.precision, demo.min_r2, demo.shards) == ("float32", 0.1, 1)
    chosen = Settings.from_config({"encoder": "MERT-v1-330M", "aspects": {"min_r2": 0}})
    assert (chosen.encoder, chosen.min_r2) == ("MERT-v1-330M", 0)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"datset": "smd"}, "unknown key 'datset'; did you mean 'dataset'"),
        ({"probing": {"fold": 3}}, r"unknown key 'probing\.fold'; did you mean 'probing\.n_folds'"),
        ({"n_folds": 3}, r"unknown key 'n_folds'; did you mean 'probing\.n_folds'"),
        ({"targets": ["tempo", "rubatto"]}, "no target 'rubatto' of windows; .* 'rubato'"),
        ({"overlap": 1}, "overlap: .* less than 1, not 1; Share of a window"),
        ({"window_s": float("inf")}, "window_s: .* finite number, not inf; Length of a window"),
        ({"dataset": "my takes"}, "dataset: .* pattern .*, not 'my takes'; A dataset whose"),
        ({"dataset": "smd-descriptors"}, "dataset: must not end in -descriptors; A dataset"),
        ({"dataset": "smd-untrained"}, "dataset: must not end in -untrained; A dataset whose"),
        ({"batch_size": True}, "batch_size: cannot be True; Windows per run"),
        ({"probing": {"alphas": [1, 0]}}, r"probing\.alphas: 0.0 is not above 0"),
        ({"probing": {"baselines": ["x"]}}, r"probing\.baselines: .* not 'x'; What layers are"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        Settings.from_config(config)
    assert "\n" not in str(error.value)


def test_a_target_that_is_named_twice_is_probed_once() -> None:
    assert Settings.from_config({"targets": ["tempo"] * 2}).targets == ("tempo",)


def test_settings_that_affect_results_and_are_not_the_default_are_told() -> None:
    config = {
        "dataset": "mine",
        "data": "elsewhere",
        "window_s": 4.0,
        "overlap": 0.5,
        "device": "cpu",
        "publish": {"destination": "s3://b/p"},
        "probing": {"n_folds": 3, "rows": "windows", "alphas": [1, 10]},
    }
    settings = Settings.from_config(config)
    expected = {"window_s": 4.0, "probing.n_folds": 3, "probing.alphas": [1.0, 10.0]}
    assert settings.changed == expected
    assert settings.by_key.items() >= {"data": "elsewhere", "dataset": "mine", **expected}.items()
