"""The settings: every key with its type, limits, default and meaning, in this one place.

The table in ``config/README.md`` is `table`'s; a test says when it is not.
"""

__all__ = ["Settings", "table"]

import json
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from mess_core.errors import ConfigError, nearest
from mess_core.extraction.specs import (
    DESCRIPTORS as DESCRIPTORS_ENCODER,
    SMALL_ENCODER,
    auto_encoder,
    resolve_spec,
)
from mess_core.layout import DESCRIPTORS, ENCODER, UNTRAINED, Layout
from mess_core.targets.registry import probed_targets


def _setting(
    key: str, default: object, meaning: str, *, demo: object = None, **limits: object
) -> Any:
    """Declare a setting. `demo` is what the demo takes instead; pydantic checks the limits."""
    metadata = {"key": key, "usual": default, "demo": demo, "description": meaning, **limits}
    return field(default=default if demo is None else None, metadata=metadata)


_DATA = Path("data")

#: Keys that do not affect results.
_NO_EFFECT = (
    *("data", "device", "batch_size", "save_raw", "raw_dtype", "shards"),
    *("publish.destination", "tracking.uri", "tracking.experiment"),
    *("train.performances", "train.pianos", "train.seconds"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """A complete configuration; ``config/README.md`` describes every key."""

    __pydantic_config__: ClassVar[Any] = {"allow_inf_nan": False}

    dataset: str = _setting(
        "dataset",
        "demo",
        "A dataset whose recording table `mess recordings` has written.",
        pattern=r"^[A-Za-z0-9_-]+$",
    )
    data: Path = _setting("data", _DATA, "Folder of all inputs and results.")  # noqa: RUF009
    encoder: str = _setting(
        "encoder",
        "auto",
        "A model of `mess model list`, or the path of a local model folder; `auto` takes "
        "MERT-v1-95M where its weights are in the folder `models` in `data`, else mess-small.",
        demo=SMALL_ENCODER,
        min_length=1,
    )
    device: Literal["auto", "cuda", "mps", "cpu"] = _setting(
        "device",
        "auto",
        "Where the encoder runs: `cuda`, `mps` or `cpu` (asks a cluster for no GPU); `auto` takes "
        "the first that is there.",
    )
    batch_size: int = _setting(
        "batch_size",
        0,
        "Windows per run of the model, halved when memory runs out; 0 takes 16 on CUDA, 8 on MPS "
        "and 4 on a CPU.",
        ge=0,
    )
    precision: Literal["auto", "float32", "bfloat16", "float16"] = _setting(
        "precision",
        "auto",
        "Of matrix products: `float32`, `bfloat16` or `float16` (GPU only); `auto` takes the "
        "fastest for which every layer agrees with float32 (cosine of at least 0.999).",
        demo="float32",
    )
    window_s: float = _setting("window_s", 5.0, "Length of a window in seconds.", gt=0)
    overlap: float = _setting(
        "overlap", 0.5, "Share of a window that the next one repeats.", ge=0, lt=1
    )
    save_raw: bool = _setting(
        "save_raw", False, "Also keep every frame (about 15 MB per window for MERT-v1-95M)."
    )
    raw_dtype: Literal["float32", "float16"] = _setting(
        "raw_dtype", "float32", "How `save_raw` stores frames: `float32` or `float16`."
    )
    shards: int = _setting(
        "shards",
        16,
        "Jobs that extraction, targets and alignments are divided into.",
        demo=1,
        ge=1,
        le=10_000,
    )
    targets: tuple[str, ...] = _setting("targets", (), "Targets to probe; an empty list takes all.")
    rows: Literal["windows", "recordings"] = _setting(
        "probing.rows", "windows", "What one row of a probe is: `windows` or `recordings`."
    )
    n_folds: int = _setting(
        "probing.n_folds", 5, "Folds of the cross-validation; they never share a work.", ge=3
    )
    alphas: tuple[float, ...] = _setting(
        "probing.alphas",
        (0.1, 1.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6),
        "Ridge penalties, all above 0, to choose from inside the training folds.",
        min_length=1,
    )
    baselines: tuple[Literal["untrained", "descriptors"], ...] = _setting(
        "probing.baselines",
        ("untrained", "descriptors"),
        "What layers are compared with: an encoder of the same shape with random weights (costs a "
        "second extraction), and descriptors of the same windows. With `encoder: "
        "descriptors` there is neither.",
        demo=("descriptors",),
    )
    source: Literal["best", "measured", "probed"] = _setting(
        "aspects.source",
        "best",
        "What aspects are read from: `measured` targets, what is `probed` from a layer, or per "
        "aspect what agrees `best` with the truth, its targets from MIDI (else from audio).",
    )
    min_r2: float = _setting(
        "aspects.min_r2",
        0.5,
        "R2 within works that what an aspect is read from must reach, to be searched by.",
        demo=0.1,
        le=1,
    )
    learn: bool = _setting(
        "geometry.learn",
        True,
        "Learn spaces of content and expression (`mess search --space`), from players of the same "
        "works and from what people judged; only those that are shown to help are taken.",
    )
    counterfactuals: int = _setting(
        "evaluation.counterfactuals",
        5,
        "Works at most of which a performance's MIDI is played otherwise and rendered, to judge "
        "which aspect moves with what, and for learned spaces; 0 for none.",
        ge=0,
    )
    exact_up_to: int = _setting(
        "index.exact_up_to",
        1_000_000,
        "Rows up to which a search compares every vector. Above, FAISS finds candidates by codes "
        "of 4 bits per number (a seventh of the memory, half the time), and exact scores decide.",
        ge=1000,
    )
    memory_gb: float = _setting(
        "index.memory_gb",
        4.0,
        "Gigabytes for the vectors of a larger index where it is served: exact vectors stay in "
        "memory if they fit (4.6 bytes per number and row with the codes), else on disk (0.6).",
        gt=0,
    )
    destination: str = _setting(
        "publish.destination",
        "",
        "Where indices are published: a folder, or `s3://bucket/prefix` (credentials and endpoint "
        "as boto3 finds them). Empty: the folder `published` in `data`.",
    )
    tracking_uri: str = _setting(
        "tracking.uri",
        "",
        "Where MLflow keeps runs (extra `tracking`), such as `sqlite:///data/mlflow.db`. Empty: "
        "nothing is logged.",
    )
    tracking_experiment: str = _setting(
        "tracking.experiment", "mess", "The experiment's name in MLflow.", min_length=1
    )
    train_performances: str = _setting(
        "train.performances",
        "",
        "Performances to train a small encoder on: a folder of MIDI files, or with "
        "`performances.npz`. Empty: there is no rule `train`.",
    )
    train_pianos: str = _setting(
        "train.pianos", "", "The pianos to train it on: a folder with a file of notes for each."
    )
    train_seconds: float = _setting("train.seconds", 3600.0, "How long to train it, s.", gt=0)
    variant: str = ""

    def __post_init__(self) -> None:
        """Decide what depends on other settings."""
        for item in _declared():
            if getattr(self, item.name) is None:
                default = item.metadata["demo" if self.dataset == "demo" else "usual"]
                object.__setattr__(self, item.name, default)
        if self.encoder == "auto":
            object.__setattr__(self, "encoder", auto_encoder(self.layout.models))
        targets = self.targets or probed_targets()
        object.__setattr__(self, "targets", tuple(dict.fromkeys(targets)))
        object.__setattr__(self, "baselines", tuple(dict.fromkeys(self.baselines)))
        object.__setattr__(self, "destination", self.destination or str(self.data / "published"))

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Settings":
        """Check a configuration and complete it; ``null`` and ``auto`` take the default.

        Raises `ConfigError` if a key or a target does not exist, or a value is outside of its
        limits.
        """
        from pydantic import TypeAdapter, ValidationError

        known, given = {_key(item): item for item in _declared()}, _flat(config)
        for key in given:
            if key not in known:
                raise ConfigError(f"config: unknown key {key!r}; {nearest(key, known)}")
            if isinstance(given[key], bool) and known[key].type is not bool:
                raise _refused(known[key], f"cannot be {given[key]}")
        values = {known[k].name: v for k, v in given.items() if v is not None and v != "auto"}
        try:
            settings = TypeAdapter(cls).validate_python(values)
        except ValidationError as error:
            first = error.errors()[0]
            item = next(item for item in _declared() if item.name == first["loc"][0])
            raise _refused(item, f"{first['msg']}, not {first['input']!r}") from None
        for source in (UNTRAINED, DESCRIPTORS):
            if settings.dataset.endswith(f"-{source}"):
                # Its features would lie in the folder of another dataset's baseline.
                raise _refused(known["dataset"], f"must not end in -{source}")
        if min(settings.alphas) <= 0:
            raise ConfigError(f"config: probing.alphas: {min(settings.alphas)} is not above 0")
        targets = probed_targets()
        for name in settings.targets:
            if name not in targets:
                message = f"config: there is no target {name!r} of {settings.rows}"
                raise ConfigError(f"{message}; {nearest(name, targets)}")
        return settings

    @property
    def by_key(self) -> dict[str, Any]:
        """All settings by their keys, as JSON can hold them."""
        values = {_key(item): getattr(self, item.name) for item in _declared()}
        return values | {
            "data": str(self.data),
            **{key: list(value) for key, value in values.items() if isinstance(value, tuple)},
        }

    @property
    def changed(self) -> dict[str, Any]:
        """The settings that affect results and are not the dataset's default, by key."""
        # Which targets there are depends on the rows.
        usual = Settings(dataset=self.dataset, data=self.data, rows=self.rows)
        default = replace(usual, rows="windows").by_key
        return {
            key: value
            for key, value in self.by_key.items()
            if value != default[key] and key not in _NO_EFFECT
        }

    def of(self, source: str) -> "Settings":
        """Return the same for one of `sources`; a baseline has an encoder of its own."""
        if source == ENCODER:
            return self
        if source == DESCRIPTORS:
            return replace(
                self,
                variant=source,
                encoder=DESCRIPTORS_ENCODER,
                precision="float32",
                save_raw=False,
            )
        name = f"{resolve_spec(self.encoder).name}-{UNTRAINED}"
        return replace(self, variant=source, encoder=str(self.layout.models / name), save_raw=False)

    @property
    def layout(self) -> Layout:
        """The dataset's paths."""
        return Layout(self.data, self.dataset, self.variant)

    @property
    def sources(self) -> tuple[str, ...]:
        """What is probed, one of `layout.SOURCES` each: the encoder and its baselines."""
        if resolve_spec(self.encoder).kind == "descriptors":
            return (ENCODER,)
        return (ENCODER, *self.baselines)


def _declared() -> list[Field[Any]]:
    return [item for item in fields(Settings) if item.metadata]


def _key(item: Field[Any]) -> str:
    return str(item.metadata["key"])


def _refused(item: Field[Any], why: str) -> ConfigError:
    return ConfigError(f"config: {_key(item)}: {why}; {item.metadata['description']}")


def _flat(config: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """Join the names of nested keys by dots."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{where}{key}"
        flat |= _flat(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return flat


def table() -> str:
    """Return the table of all settings in Markdown."""
    rows = ["| key | default | meaning |", "|---|---|---|"]
    for item in _declared():
        default, demo = (json.dumps(item.metadata[k], default=str) for k in ("usual", "demo"))
        shown = f"`{default}`" + (f" (demo: `{demo}`)" if demo != "null" else "")
        rows.append(f"| `{_key(item)}` | {shown} | {item.metadata['description']} |")
    return "\n".join(rows).replace('`"', "`").replace('"`', "`").replace("``", '`""`')
