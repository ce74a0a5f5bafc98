"""The configuration as the code sees it: validated, with defaults, and typed.

``workflow/schemas/config.schema.yaml`` holds every key's description, limits and default; Snakemake
validates against it. Here unknown keys are reported with the nearest known one, which JSON schema
cannot do.
"""

__all__ = ["Defaults", "Settings", "changed_settings", "check_keys", "defaults"]

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from mess_core.errors import ConfigError, nearest
from mess_core.extraction.specs import DEMO_ENCODER, resolve_spec
from mess_core.layout import ENCODER, UNTRAINED, Layout
from mess_core.targets.registry import probed_targets


def check_keys(config: Mapping[str, Any], schema: Mapping[str, Any], *, where: str = "") -> None:
    """Refuse keys that the schema does not know.

    Parameters
    ----------
    config : mapping
        The configuration, or a part of it.
    schema : mapping
        The JSON schema of that part.
    where : str
        The part's name with a dot behind it, for the message.

    Raises
    ------
    ConfigError
        Naming the key and the nearest known one.
    """
    known: Mapping[str, Any] = schema["properties"]
    for key, value in config.items():
        if key not in known:
            raise ConfigError(f"config: unknown key {where + key!r}; {nearest(key, known)}")
        if "properties" in known[key] and isinstance(value, Mapping):
            check_keys(value, known[key], where=f"{where}{key}.")


#: Settings by which a run differs and its results do not.
_BESIDE_RESULTS = (
    *("data", "device", "batch_size", "save_raw", "raw_dtype", "shards"),
    *("publish", "tracking"),
)


def changed_settings(
    config: Mapping[str, Any], schema: Mapping[str, Any], *, where: str = ""
) -> dict[str, Any]:
    """Return the settings that results depend on and that are not the schema's default.

    Parameters
    ----------
    config : mapping
        The configuration, or a part of it; keys that are not given count as the default.
    schema : mapping
        The JSON schema of that part.
    where : str
        The part's name with a dot behind it.

    Returns
    -------
    dict of str to object
        Values by their names, as in ``probing.n_folds``.
    """
    changed: dict[str, Any] = {}
    for key, part in schema["properties"].items():
        if key not in config or key in _BESIDE_RESULTS:
            continue
        if "properties" in part:
            changed |= changed_settings(config[key], part, where=f"{where}{key}.")
        elif config[key] != part.get("default"):
            changed[where + key] = config[key]
    return changed


class Defaults(NamedTuple):
    """Defaults that depend on the dataset; attributes are named as the configuration's keys."""

    encoder: str
    precision: str
    shards: int
    min_r2: float


# The demo is small, its numbers are the same everywhere, and its encoder is untrained: no aspect
# but brightness reaches an R2 of 0.5.
_DEMO = Defaults(DEMO_ENCODER, precision="float32", shards=2, min_r2=0.1)
_REAL = Defaults("MERT-v1-95M", precision="auto", shards=16, min_r2=0.5)


def defaults(dataset: str) -> Defaults:
    """Return what the configuration leaves open for a dataset."""
    return _DEMO if dataset == "demo" else _REAL


@dataclass(frozen=True, slots=True)
class Settings:
    """A validated configuration; the schema describes every value.

    Attributes are named as the configuration's keys; what the schema leaves open (``auto``, 0,
    null, an empty list) is decided.
    """

    dataset: str
    data: Path
    encoder: str
    device: str
    batch_size: int
    precision: str
    window_s: float
    overlap: float
    save_raw: bool
    raw_dtype: str
    shards: int
    targets: tuple[str, ...]
    rows: str
    n_folds: int
    alphas: tuple[float, ...]
    baselines: tuple[str, ...]
    min_r2: float
    exact_up_to: int
    memory_gb: float
    destination: str
    tracking_uri: str
    tracking_experiment: str
    variant: str = ""

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Settings":
        """Make settings of a configuration that the schema has validated and completed.

        Raises
        ------
        ConfigError
            If a target does not exist.
        """
        known = probed_targets(config["probing"]["rows"].removesuffix("s"))
        for name in config["targets"]:
            if name not in known:
                raise ConfigError(
                    f"config: there is no target {name!r} of {config['probing']['rows']}; "
                    f"{nearest(name, known)}"
                )
        default = defaults(config["dataset"])
        min_r2 = config["aspects"]["min_r2"]
        return cls(
            dataset=config["dataset"],
            data=Path(config["data"]),
            encoder=default.encoder if config["encoder"] == "auto" else config["encoder"],
            device=config["device"],
            batch_size=config["batch_size"],
            precision=default.precision if config["precision"] == "auto" else config["precision"],
            window_s=float(config["window_s"]),
            overlap=float(config["overlap"]),
            save_raw=config["save_raw"],
            raw_dtype=config["raw_dtype"],
            shards=config["shards"] or default.shards,
            targets=tuple(config["targets"] or known),
            rows=config["probing"]["rows"],
            n_folds=config["probing"]["n_folds"],
            alphas=tuple(float(alpha) for alpha in config["probing"]["alphas"]),
            baselines=tuple(config["probing"]["baselines"]),
            min_r2=default.min_r2 if min_r2 is None else float(min_r2),
            exact_up_to=config["index"]["exact_up_to"],
            memory_gb=float(config["index"]["memory_gb"]),
            destination=config["publish"]["destination"] or str(Path(config["data"], "published")),
            tracking_uri=config["tracking"]["uri"] or "",
            tracking_experiment=config["tracking"]["experiment"],
        )

    @property
    def untrained(self) -> "Settings":
        """The same for the encoder's untrained twin, whose features are a baseline of probing."""
        name = f"{resolve_spec(self.encoder).name}-{UNTRAINED}"
        return replace(
            self, variant=UNTRAINED, encoder=str(self.layout.models / name), save_raw=False
        )

    @property
    def layout(self) -> Layout:
        """The dataset's paths."""
        return Layout(self.data, self.dataset, self.variant)

    @property
    def sources(self) -> tuple[str, ...]:
        """What is probed, one of `layout.SOURCES` each: the encoder and its baselines."""
        return (ENCODER, *self.baselines)

    @property
    def views(self) -> tuple[str, ...]:
        """The views of features to write, largest first."""
        return ("raw", "segments", "aggregated") if self.save_raw else ("segments", "aggregated")
