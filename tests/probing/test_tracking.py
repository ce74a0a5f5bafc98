"""Logging to MLflow: with an in-memory stand-in, and with MLflow itself where it is installed."""

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from mess_core.errors import ProbingError, StorageError
from mess_core.probing.tracking import log_probing

pytestmark = pytest.mark.unit


class RefusalError(Exception):
    """Stands in for MlflowException."""


class Client:
    """The methods of MLflow's client that are used, over a dict per address."""

    stores: dict[str, dict[str, Any]]

    def __init__(self, tracking_uri: str | None = None) -> None:
        if tracking_uri is None or not tracking_uri.startswith("sqlite:///"):
            raise RefusalError(f"no store at {tracking_uri}")
        self._store = self.stores.setdefault(tracking_uri, {"experiments": {}, "runs": {}})

    def get_experiment_by_name(self, name: str) -> SimpleNamespace | None:
        found: SimpleNamespace | None = self._store["experiments"].get(name)
        return found

    def create_experiment(self, name: str, artifact_location: str | None = None) -> str:
        self._store["experiments"][name] = SimpleNamespace(
            experiment_id=name, lifecycle_stage="active", artifact_location=artifact_location
        )
        return name

    def delete_experiment(self, experiment_id: str) -> None:
        self._store["experiments"][experiment_id].lifecycle_stage = "deleted"

    def create_run(self, experiment_id: str, run_name: str | None = None) -> SimpleNamespace:
        run_id = f"run{len(self._store['runs'])}"
        self._store["runs"][run_id] = SimpleNamespace(
            info=SimpleNamespace(
                run_id=run_id, run_name=run_name, experiment_id=experiment_id, status="RUNNING"
            ),
            data=SimpleNamespace(params={}, metrics={}),
            histories={},
            artifacts=[],
        )
        return self.get_run(run_id)

    def get_run(self, run_id: str) -> SimpleNamespace:
        run: SimpleNamespace = self._store["runs"][run_id]
        return run

    def search_runs(self, experiment_ids: list[str]) -> list[SimpleNamespace]:
        runs = self._store["runs"].values()
        return [run for run in runs if run.info.experiment_id in experiment_ids]

    def log_batch(
        self,
        run_id: str,
        metrics: list[SimpleNamespace] | None = None,
        params: list[SimpleNamespace] | None = None,
    ) -> None:
        run = self.get_run(run_id)
        run.data.params |= {param.key: param.value for param in params or ()}
        for metric in metrics or ():
            run.data.metrics[metric.key] = metric.value
            run.histories.setdefault(metric.key, []).append(metric)

    def get_metric_history(self, run_id: str, key: str) -> list[SimpleNamespace]:
        history: list[SimpleNamespace] = self.get_run(run_id).histories[key]
        return history

    def log_artifact(self, run_id: str, local_path: str) -> None:
        Path(local_path).read_bytes()
        self.get_run(run_id).artifacts.append(SimpleNamespace(path=Path(local_path).name))

    def list_artifacts(self, run_id: str) -> list[SimpleNamespace]:
        artifacts: list[SimpleNamespace] = self.get_run(run_id).artifacts
        return artifacts

    def set_terminated(self, run_id: str, status: str = "FINISHED") -> None:
        self.get_run(run_id).info.status = status


def stand_in() -> dict[str, Any]:
    """The modules of MLflow that are imported, in memory."""
    mlflow, entities, exceptions = (
        ModuleType(name) for name in ("mlflow", "mlflow.entities", "mlflow.exceptions")
    )
    vars(exceptions)["MlflowException"] = RefusalError
    vars(entities)["Param"] = lambda key, value: SimpleNamespace(key=key, value=value)
    vars(entities)["Metric"] = lambda key, value, timestamp, step: SimpleNamespace(
        key=key, value=value, timestamp=timestamp, step=step
    )
    client = type("FreshClient", (Client,), {"stores": {}})
    vars(mlflow).update(entities=entities, exceptions=exceptions, MlflowClient=client)
    return {module.__name__: module for module in (mlflow, entities, exceptions)}


# What MLflow's own libraries warn about each other is not ours.
ITSELF = pytest.param("itself", marks=pytest.mark.filterwarnings("default"))


@pytest.fixture(params=["in memory", *([ITSELF] if find_spec("mlflow") else [])])
def mlflow(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    if request.param == "in memory":
        for name, module in stand_in().items():
            monkeypatch.setitem(sys.modules, name, module)
    return import_module("mlflow")


def result(**changes: Any) -> dict[str, Any]:
    score = {"r2": 0.25, "r2_within": 0.5, "r2_std": None, "p": 0.005, "alpha": 100.0}
    return {
        "target": "tempo",
        "category": "rhythm",
        "dataset": "toy",
        "stage": 2,
        "unit": "windows",
        "alphas": [1.0, 10.0],
        "encoder": {"name": "tiny", "weights_sha256": "ab", "trained": False},
        "n_rows": 200,
        "best_layer": 1,
        "best_r2": 0.75,
        "r2_nested": float("nan"),
        "layers": [{"layer": 0, **score}, {"layer": 1, **score, "r2": 0.75}],
        "mixture": {"r2": 0.8, "r2_within": 0.6},
        "baselines": {"untrained": {"layer": 3, "r2": 0.1, "r2_within": None}, "layer_0": None},
        **changes,
    }


def address(folder: Path) -> str:
    return f"sqlite:///{folder / 'mlflow.db'}"


def test_a_run_has_the_parameters_the_figures_and_the_files(tmp_path: Path, mlflow: Any) -> None:
    file = tmp_path / "tempo.json"
    file.write_text("{}")
    other = result(target="rubato", layers=[], best_layer=None, mixture=None, baselines={})
    run = log_probing([result(), other], [file], uri=address(tmp_path), experiment="mess")
    client = mlflow.MlflowClient(tracking_uri=address(tmp_path))
    logged = client.get_run(run)
    assert logged.info.status == "FINISHED"
    assert logged.info.run_name == "probing toy"
    assert logged.data.params["dataset"] == "toy"
    assert logged.data.params["alphas"] == "[1.0, 10.0]"
    assert logged.data.params["encoder.name"] == "tiny"
    history = client.get_metric_history(run, "tempo/r2")
    assert [(metric.step, metric.value) for metric in history] == [(0, 0.25), (1, 0.75)]
    assert logged.data.metrics["tempo/best/r2"] == 0.75
    assert logged.data.metrics["tempo/best/layer"] == 1
    assert logged.data.metrics["tempo/mixture/r2_within"] == 0.6
    assert logged.data.metrics["tempo/untrained/layer"] == 3
    assert logged.data.metrics["rubato/best/n_rows"] == 200
    # None and NaN are not logged.
    absent = {"tempo/r2_std", "tempo/best/r2_nested", "tempo/untrained/r2_within", "rubato/r2"}
    assert not absent & set(logged.data.metrics)
    assert not any("layer_0" in name for name in logged.data.metrics)
    assert [artifact.path for artifact in client.list_artifacts(run)] == ["tempo.json"]


def test_runs_share_an_experiment_whose_artifacts_lie_beside_the_database(
    tmp_path: Path, mlflow: Any
) -> None:
    runs = {log_probing([result()], [], uri=address(tmp_path), experiment="mess") for _ in "ab"}
    client = mlflow.MlflowClient(tracking_uri=address(tmp_path))
    experiment = client.get_experiment_by_name("mess")
    assert {run.info.run_id for run in client.search_runs([experiment.experiment_id])} == runs
    assert len(runs) == 2
    assert experiment.artifact_location == (tmp_path / "artifacts").as_uri()


def test_what_mlflow_refuses_is_an_error_and_the_run_is_marked_as_failed(
    tmp_path: Path, mlflow: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise mlflow.exceptions.MlflowException("disk full")

    monkeypatch.setattr(mlflow.MlflowClient, "log_artifact", refuse)
    file = tmp_path / "tempo.json"
    file.write_text("{}")
    with pytest.raises(ProbingError, match=r"refuses: disk full; check tracking\.uri"):
        log_probing([result()], [file], uri=address(tmp_path), experiment="mess")
    client = mlflow.MlflowClient(tracking_uri=address(tmp_path))
    experiment = client.get_experiment_by_name("mess")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FAILED"


def test_a_folder_is_no_address(tmp_path: Path, mlflow: Any) -> None:
    assert mlflow
    with pytest.raises(ProbingError, match="refuses"):
        log_probing([result()], [], uri=str(tmp_path / "runs"), experiment="mess")


def test_a_deleted_experiment_is_not_used(tmp_path: Path, mlflow: Any) -> None:
    log_probing([result()], [], uri=address(tmp_path), experiment="mess")
    client = mlflow.MlflowClient(tracking_uri=address(tmp_path))
    client.delete_experiment(client.get_experiment_by_name("mess").experiment_id)
    with pytest.raises(ProbingError, match="is deleted"):
        log_probing([result()], [], uri=address(tmp_path), experiment="mess")


@pytest.mark.usefixtures("mlflow")
def test_missing_files_and_results_are_found_before_anything_is_logged(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="does not exist"):
        log_probing([result()], [tmp_path / "no"], uri=address(tmp_path), experiment="mess")
    with pytest.raises(ProbingError, match="no probing result"):
        log_probing([], [], uri=address(tmp_path), experiment="mess")
    assert not list(tmp_path.iterdir())


def test_without_mlflow_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("mlflow", "mlflow.entities", "mlflow.exceptions"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ProbingError, match=r"pip install 'mess-core\[tracking\]'"):
        log_probing([result()], [], uri=address(tmp_path), experiment="mess")
