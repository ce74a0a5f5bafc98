"""Schema, default file, documentation and code agree about every configuration key."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from snakemake.utils import validate

from mess_core.errors import ConfigError
from mess_core.probing.ridge import ALPHAS
from mess_core.targets.registry import probed_targets
from mess_core.workflow.config import Settings, changed_settings, check_keys

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
SCHEMA_PATH = ROOT / "workflow" / "schemas" / "config.schema.yaml"
SCHEMA: dict[str, Any] = yaml.safe_load(SCHEMA_PATH.read_text())


def keys(schema: Mapping[str, Any], where: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, part in schema["properties"].items():
        if "properties" in part:
            assert part["additionalProperties"] is False
            assert part["default"] == {}
            yield from keys(part, f"{where}{name}.")
        else:
            yield f"{where}{name}", part


def complete(config: dict[str, Any]) -> dict[str, Any]:
    check_keys(config, SCHEMA)
    validate(config, str(SCHEMA_PATH))
    return config


def test_every_key_is_described_and_has_a_default() -> None:
    assert SCHEMA["additionalProperties"] is False
    for name, part in keys(SCHEMA):
        assert part["description"].endswith("."), name
        assert "default" in part, name


def test_the_documentation_lists_every_key_with_its_default() -> None:
    text = (ROOT / "config" / "README.md").read_text()
    rows = re.findall(r"^\| `([^`]+)` \| `([^`]+)` \| (.+) \|$", text, re.MULTILINE)
    expected = [(n, str(p["default"]), " ".join(p["description"].split())) for n, p in keys(SCHEMA)]
    assert rows == expected


def test_the_shipped_configuration_is_valid_and_the_demos() -> None:
    config = complete(yaml.safe_load((ROOT / "config" / "config.yaml").read_text()))
    settings = Settings.from_config(config)
    assert (settings.dataset, settings.encoder) == ("demo", "mess-demo-untrained")
    assert settings.targets == probed_targets("window")
    assert settings.sources == ("encoder", "untrained", "descriptors")


def test_the_schemas_defaults_reach_the_settings() -> None:
    settings = Settings.from_config(complete({}))
    assert settings.alphas == ALPHAS
    assert (settings.window_s, settings.overlap) == (5.0, 0.5)
    assert settings.destination == "data/published"
    assert Settings.from_config(complete({"data": "x"})).destination == "x/published"
    assert settings.views == ("segments", "aggregated")
    assert Settings.from_config(complete({"save_raw": True})).views[0] == "raw"


def test_the_real_model_is_the_default_outside_the_demo() -> None:
    assert Settings.from_config(complete({"dataset": "smd"})).encoder == "MERT-v1-95M"
    real, demo = (Settings.from_config(complete({"dataset": name})) for name in ("smd", "demo"))
    assert (real.min_r2, real.shards) == (0.5, 16)
    assert (demo.min_r2, demo.shards) == (0.1, 2)
    chosen = complete({"dataset": "demo", "encoder": "MERT-v1-330M"})
    assert Settings.from_config(chosen).encoder == "MERT-v1-330M"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"datset": "smd"}, "unknown key 'datset'; did you mean 'dataset'"),
        ({"probing": {"fold": 3}}, r"unknown key 'probing\.fold'; did you mean 'n_folds'"),
    ],
)
def test_unknown_keys_name_the_nearest(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        complete(config)


def test_unknown_targets_name_the_nearest() -> None:
    with pytest.raises(ConfigError, match="no target 'rubatto' of windows; did you mean 'rubato'"):
        Settings.from_config(complete({"targets": ["tempo", "rubatto"]}))


def test_what_only_a_whole_recording_has_is_probed_for_recordings_only() -> None:
    with pytest.raises(ConfigError, match="no target 'num_phrases' of windows"):
        Settings.from_config(complete({"targets": ["num_phrases"]}))
    config = complete({"targets": ["num_phrases"], "probing": {"rows": "recordings"}})
    assert Settings.from_config(config).targets == ("num_phrases",)


def test_settings_that_results_depend_on_and_that_are_not_the_default_are_told() -> None:
    assert changed_settings(complete({}), SCHEMA) == {}
    config = {
        "dataset": "mine",
        "window_s": 4.0,
        "overlap": 0.5,
        "device": "cpu",
        "publish": {"destination": "s3://b/p"},
        "probing": {"n_folds": 3, "rows": "windows"},
    }
    expected = {"dataset": "mine", "window_s": 4.0, "probing.n_folds": 3}
    assert changed_settings(complete(config), SCHEMA) == expected
