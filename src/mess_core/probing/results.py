"""Probing results: one ``{target}.json`` per target, the contract between the stages.

Fields: ``target``, ``category``, ``dataset``, ``stage``, ``encoder`` (``name``, ``weights_sha256``,
``trained``, and ``layer_names`` if its layers have names), ``unit`` (what a row is, ``windows`` or
``recordings``), ``alphas``, all fields of `mess_core.probing.scores.ProbeResult` (``layers`` is a
list of the fields of `LayerScore`),
``confidence``, and ``baselines``: per name (``untrained``, ``descriptors``, ``layer_0``) the
``layer``, ``r2``, ``r2_within``, ``interval``, ``interval_within`` and ``distances`` of its best
layer and (but for ``layer_0``) the ``loss`` of its nested choice, or null. A target that cannot be
probed has no layers, null for its figures, and a ``reason``.

`log_probing` logs results to MLflow (extra ``tracking``), for those who keep experiments there.
"""

__all__ = [
    "ENCODER_FIELDS",
    "confidence",
    "layer_name",
    "log_probing",
    "mean_of_known",
    "read_result",
    "read_results",
    "score_interval",
    "score_r2",
]

from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from statistics import fmean
from typing import Any

from mess_core.errors import ProbingError, StorageError
from mess_core.files import read_json

#: What identifies the encoder whose layers were probed.
ENCODER_FIELDS = ("name", "weights_sha256", "trained")

#: R2 above which a probe counts as ``high`` or ``medium``.
HIGH_R2, MEDIUM_R2 = 0.8, 0.5

_FIELDS = (
    *("target", "category", "dataset", "stage", "encoder", "unit"),
    *("layers", "best_layer", "best_r2", "baselines", "works", "loss"),
)

_SCORE_FIELDS = {"r2", "r2_within", "interval", "interval_within", "distances"}


def layer_name(encoder: Mapping[str, Any], layer: int | None) -> str | None:
    """Return what a layer is called: its name, or its number where the encoder has no names."""
    if layer is None:
        return None
    names = encoder.get("layer_names")
    return str(names[layer]) if names else str(layer)


def confidence(r2: float | None) -> str:
    """Return ``high`` for an R2 above 0.8, ``medium`` above 0.5, else (also for None) ``low``."""
    if r2 is None or r2 <= MEDIUM_R2:
        return "low"
    return "high" if r2 > HIGH_R2 else "medium"


def score_r2(score: Mapping[str, Any]) -> float:
    """Return a layer's R2 within works, or the pooled one where no work has rows that differ."""
    return float(score["r2"] if score["r2_within"] is None else score["r2_within"])


def mean_of_known(figures: Iterable[float | None]) -> float | None:
    """Return the mean of the figures that are not None; None where all are."""
    known = [figure for figure in figures if figure is not None]
    return fmean(known) if known else None


def score_interval(score: Mapping[str, Any]) -> list[float] | None:
    """Return the 95 % interval of `score_r2`, None where there is none."""
    interval = score["interval" if score["r2_within"] is None else "interval_within"]
    return None if interval is None else [float(bound) for bound in interval]


def read_result(path: Path) -> dict[str, Any]:
    """Read the probing result of one target, with the fields that this module lists.

    Raises `StorageError` if the file is missing or is not JSON, and `ProbingError` if it lacks a
    field, its layers are malformed, or it is the result of another target than its name says.
    """
    result = read_json(path)
    missing = [name for name in _FIELDS if not isinstance(result, dict) or name not in result]
    if missing:
        raise ProbingError(
            f"{path} is no probing result: it lacks {', '.join(missing)}; delete it and probe again"
        )
    if not _numbered(result["layers"]):
        raise ProbingError(
            f"{path}: its layers are not numbered from 0 with an r2, an r2_within, their "
            "intervals and distances each; delete it and probe again"
        )
    if result["target"] != path.stem:
        raise ProbingError(
            f"{path} holds the result of {result['target']!r}; a result's file is named like its "
            "target: delete it and probe again"
        )
    return dict(result)


def read_results(folder: Path, targets: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Read those results of a folder that exist, and check that they belong together.

    They are returned per target, in the order of ``targets``; there is at least one. Raises
    `StorageError` if a result is not JSON, and `ProbingError` if there is no result, one is
    malformed, or results of different datasets, encoders, stage versions, units or numbers of
    layers are mixed.
    """
    paths = [folder / f"{target}.json" for target in targets]
    results = {path.stem: read_result(path) for path in paths if path.exists()}
    if not results:
        raise ProbingError(f"{folder} holds no probing result; run the probing rule")
    first, *others = results.values()
    for other in others:
        for field in ("dataset", "encoder", "stage", "unit"):
            if other[field] != first[field]:
                raise ProbingError(
                    f"{folder}: {first['target']}.json is of {field} {first[field]}, "
                    f"{other['target']}.json of {other[field]}; delete the older and probe again"
                )
    if len({len(result["layers"]) for result in results.values() if result["layers"]}) > 1:
        raise ProbingError(f"{folder}: results differ in their number of layers; probe again")
    return results


def _numbered(layers: Any) -> bool:
    return isinstance(layers, list) and all(
        isinstance(score, dict)
        and score.get("layer") == number
        and isinstance(score.get("r2"), int | float)
        and score.keys() >= _SCORE_FIELDS
        for number, score in enumerate(layers)
    )


def log_probing(
    results: Iterable[Mapping[str, Any]], files: Iterable[Path], *, uri: str, experiment: str
) -> str:
    """Log probing results to MLflow as one run, and return its id.

    Metrics are ``{target}/{figure}`` of every layer, with the layer as the step, and
    ``{target}/best/...``, ``{target}/mixture/...`` and ``{target}/{baseline}/...``. ``results`` are
    of one dataset and encoder, ``files`` are kept with the run, ``uri`` is MLflow's tracking
    address (such as ``sqlite:///mlflow.db``); the experiment is made when it does not exist. Raises
    `ProbingError` if there is no result, MLflow is not installed, or it refuses, and `StorageError`
    if a file does not exist.
    """
    listed, paths = list(results), list(files)
    if not listed:
        raise ProbingError("there is no probing result to log; probe at least one target")
    for path in paths:
        if not path.is_file():
            raise StorageError(f"{path} does not exist, so it cannot be logged; make it first")
    try:
        mlflow: Any = import_module("mlflow")
    except ImportError as error:
        raise ProbingError(
            "logging to MLflow needs mlflow: pip install 'mess-core[tracking]', or leave "
            f"tracking.uri empty ({error})"
        ) from error
    first = listed[0]
    params = {name: first[name] for name in ("dataset", "stage", "unit", "alphas")}
    params |= {f"encoder.{name}": value for name, value in first["encoder"].items()}
    try:
        mlflow.set_tracking_uri(uri)
        if uri.startswith(_SQLITE) and not mlflow.get_experiment_by_name(experiment):
            # MLflow's own default is a folder in whatever is the working directory.
            folder = Path(uri.removeprefix(_SQLITE)).absolute().parent / "artifacts"
            mlflow.create_experiment(experiment, artifact_location=folder.as_uri())
        mlflow.set_experiment(experiment)
        with mlflow.start_run(run_name=f"probing {first['dataset']}") as run:
            mlflow.log_params(params)
            for result in listed:
                for step, metrics in _metrics(result).items():
                    mlflow.log_metrics(metrics, step=step)
            for path in paths:
                mlflow.log_artifact(str(path))
    except (mlflow.exceptions.MlflowException, ImportError) as error:
        raise ProbingError(f"MLflow at {uri} refuses: {error}; check tracking.uri") from error
    return str(run.info.run_id)


_SQLITE = "sqlite:///"
_LAYER_FIGURES = (
    *("r2", "r2_within", "r2_std", "r2_min", "correlation", "rmse", "alpha"),
    *("p", "p_within", "selectivity"),
)
_BEST_FIGURES = (
    *("n_rows", "n_recordings", "n_works", "n_folds", "best_layer", "best_r2", "best_r2_within"),
    *("r2_nested", "r2_within_nested"),
)
_PART_FIGURES = ("layer", "r2", "r2_within")


def _metrics(result: Mapping[str, Any]) -> dict[int, dict[str, float]]:
    """Return metrics by step; what is undefined is left out."""
    parts = {"mixture": result["mixture"], **result["baselines"]}
    alone = {f"best/{name.removeprefix('best_')}": result.get(name) for name in _BEST_FIGURES}
    for part, score in parts.items():
        alone |= {f"{part}/{name}": (score or {}).get(name) for name in _PART_FIGURES}
    steps = {s["layer"]: {name: s.get(name) for name in _LAYER_FIGURES} for s in result["layers"]}
    steps[0] = steps.get(0, {}) | alone
    return {
        step: {f"{result['target']}/{k}": float(v) for k, v in found.items() if v is not None}
        for step, found in steps.items()
    }
