"""Logging of probing results to MLflow, for those who keep their experiments there.

One call is one run. *Parameters*: the dataset, the encoder, what a row is, and how it was probed.
*Metrics*: per target ``{target}/{figure}`` of every layer, with the layer as the step, so that
MLflow draws them over layers; the best layer and what no layer has alone under
``{target}/best/...``, ``{target}/mixture/...`` and ``{target}/{baseline}/...``. *Artifacts*: the
files that are given.

Nothing but this module imports MLflow (extra ``tracking``), and MLflow's global state (tracking
address, active run) is left alone. A local store is a database, ``sqlite:///PATH``, whose artifacts
go to the folder ``artifacts`` beside it; MLflow 3.14 and later refuse plain folders.
"""

__all__ = ["log_probing"]

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from mess_core.errors import ProbingError, StorageError

Result = Mapping[str, Any]

_SQLITE = "sqlite:///"
_LAYER_FIGURES = (
    *("r2", "r2_within", "r2_std", "r2_min", "correlation", "rmse", "alpha"),
    *("p", "p_within", "selectivity"),
)
_BEST_FIGURES = (
    *("n_rows", "n_recordings", "n_works", "n_folds", "best_layer", "best_r2", "best_r2_within"),
    *("r2_nested", "r2_within_nested"),
)
_SCORES = ("layer", "r2", "r2_within")


def log_probing(
    results: Iterable[Result], files: Iterable[Path], *, uri: str, experiment: str
) -> str:
    """Log probing results as one run.

    Parameters
    ----------
    results : iterable of dict
        Probing results (`mess_core.probing.results`) of one dataset and encoder.
    files : iterable of Path
        What to keep with the run: results, tables, pictures.
    uri : str
        MLflow's tracking address: ``http(s)://...``, ``databricks``, or a database such as
        ``sqlite:///mlflow.db``.
    experiment : str
        Name of the experiment; made when it does not exist.

    Returns
    -------
    str
        The run's id.

    Raises
    ------
    ProbingError
        If there is no result, MLflow is not installed, or it refuses (the address, the experiment).
    StorageError
        If a file does not exist.
    """
    listed, paths = list(results), list(files)
    if not listed:
        raise ProbingError("there is no probing result to log; probe at least one target")
    for path in paths:
        if not path.is_file():
            raise StorageError(f"{path} does not exist, so it cannot be logged; make it first")
    mlflow = _mlflow()
    try:
        client = mlflow.MlflowClient(tracking_uri=uri)
        run = client.create_run(
            _experiment_id(client, uri, experiment), run_name=f"probing {listed[0]['dataset']}"
        ).info.run_id
        try:
            _log(mlflow, client, run, listed, paths)
        except BaseException:
            client.set_terminated(run, status="FAILED")
            raise
        client.set_terminated(run)
    except (mlflow.exceptions.MlflowException, ImportError) as error:
        raise ProbingError(f"MLflow at {uri} refuses: {error}; check tracking.uri") from error
    return str(run)


def _mlflow() -> ModuleType:
    try:
        for name in ("mlflow.entities", "mlflow.exceptions"):
            import_module(name)
        return import_module("mlflow")
    except ImportError as error:
        raise ProbingError(
            "logging to MLflow needs mlflow: pip install 'mess-core[tracking]', or leave "
            f"tracking.uri empty ({error})"
        ) from error


def _experiment_id(client: Any, uri: str, experiment: str) -> str:
    found = client.get_experiment_by_name(experiment)
    if found is None:
        place = None
        if uri.startswith(_SQLITE):
            # MLflow's own default is a folder in whatever is the working directory.
            folder = Path(uri.removeprefix(_SQLITE)).absolute().parent
            place = (folder / "artifacts").as_uri()
        return str(client.create_experiment(experiment, artifact_location=place))
    if found.lifecycle_stage != "active":
        raise ProbingError(
            f"the experiment {experiment!r} at {uri} is deleted; restore it, or choose another name"
        )
    return str(found.experiment_id)


def _log(
    mlflow: ModuleType, client: Any, run: str, results: list[Result], paths: list[Path]
) -> None:
    params = [mlflow.entities.Param(name, value) for name, value in _params(results[0])]
    client.log_batch(run, params=params)
    now = int(time.time() * 1000)
    for result in results:
        metrics = [
            mlflow.entities.Metric(f"{result['target']}/{name}", value, now, step)
            for name, value, step in _metrics(result)
        ]
        # One request per target: MLflow takes up to 1,000 metrics at a time.
        client.log_batch(run, metrics=metrics)
    for path in paths:
        client.log_artifact(run, str(path))


def _params(result: Result) -> Iterator[tuple[str, str]]:
    yield from ((name, str(result[name])) for name in ("dataset", "stage", "unit", "alphas"))
    yield from ((f"encoder.{name}", str(value)) for name, value in result["encoder"].items())


def _metrics(result: Result) -> Iterator[tuple[str, float, int]]:
    """Give the name, value and step of what a target's result knows; the undefined is left out."""
    for score in result["layers"]:
        for name in _LAYER_FIGURES:
            yield from _defined(name, score.get(name), score["layer"])
    for name in _BEST_FIGURES:
        yield from _defined(f"best/{name.removeprefix('best_')}", result.get(name))
    parts = {"mixture": result["mixture"], **result["baselines"]}
    for part, score in parts.items():
        for name in _SCORES:
            yield from _defined(f"{part}/{name}", (score or {}).get(name))


def _defined(name: str, value: float | None, step: int = 0) -> Iterator[tuple[str, float, int]]:
    if value is not None and math.isfinite(value):
        yield name, float(value), step
