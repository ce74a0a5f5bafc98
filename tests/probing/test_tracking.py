"""Logging to MLflow, with a stand-in for it: what is logged, and what is refused."""

import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mess_core.errors import ProbingError, StorageError
from mess_core.probing.results import log_probing
from tests.probing.toy import result, score

pytestmark = pytest.mark.unit


class RefusalError(Exception):
    """Stands in for MlflowException."""


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the functions of MLflow that are used were called with."""
    found: dict[str, Any] = {"params": {}, "metrics": {}, "files": []}
    run = SimpleNamespace(info=SimpleNamespace(run_id="run0"))
    mlflow = SimpleNamespace(
        exceptions=SimpleNamespace(MlflowException=RefusalError),
        set_tracking_uri=lambda uri: found.update(uri=uri),
        get_experiment_by_name=lambda _: found.get("place"),
        create_experiment=lambda _, artifact_location: found.update(place=artifact_location),
        set_experiment=lambda name: found.update(experiment=name),
        start_run=lambda run_name: nullcontext(found.update(run=run_name) or run),
        log_params=found["params"].update,
        log_metrics=lambda metrics, step: found["metrics"].setdefault(step, {}).update(metrics),
        log_artifact=lambda path: found["files"].append(Path(path).name),
    )
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    return found


def test_a_run_has_the_parameters_the_figures_and_the_files(
    tmp_path: Path, logged: dict[str, Any]
) -> None:
    file = tmp_path / "tempo.json"
    file.write_text("{}")
    twin = {"untrained": score(3, 0.1, r2_within=None), "layer_0": None}
    layers = [score(0, 0.05, r2_std=None), score(1, 0.5)]
    tempo = result("tempo", [0.05, 0.5], layers=layers, r2_nested=None, baselines=twin)
    results = [tempo, result("rubato", [])]
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    assert log_probing(results, [file], uri=uri, experiment="mess") == "run0"
    assert (logged["uri"], logged["experiment"], logged["files"]) == (uri, "mess", ["tempo.json"])
    assert logged["run"] == "probing toy"
    assert logged["place"] == (tmp_path / "artifacts").as_uri()
    assert logged["params"]["alphas"] == [1.0, 10.0]
    assert logged["params"]["encoder.name"] == "tiny"
    first, second = logged["metrics"][0], logged["metrics"][1]
    assert (first["tempo/r2"], second["tempo/r2"]) == (0.25, 0.7)
    assert (first["tempo/best/r2"], first["tempo/best/layer"]) == (0.7, 1)
    assert (first["tempo/mixture/r2_within"], first["tempo/untrained/layer"]) == (0.42, 3)
    assert first["rubato/best/n_rows"] == 200
    # What is undefined is not logged.
    absent = {"tempo/r2_std", "tempo/best/r2_nested", "tempo/untrained/r2_within", "rubato/r2"}
    assert not absent & set(first)
    assert not any("layer_0" in name for name in first)


def test_what_cannot_be_logged_is_refused(tmp_path: Path, logged: dict[str, Any]) -> None:
    def log(*files: Path, results: tuple[Any, ...] = (result("tempo", [0.5]),)) -> None:
        log_probing(results, files, uri="http://there", experiment="mess")

    with pytest.raises(StorageError, match="does not exist"):
        log(tmp_path / "no")
    with pytest.raises(ProbingError, match="no probing result"):
        log(results=())
    assert "uri" not in logged

    def refuse(_: Any) -> None:
        raise RefusalError("it is deleted")

    sys.modules["mlflow"].set_experiment = refuse  # type: ignore[attr-defined]
    with pytest.raises(ProbingError, match=r"refuses: it is deleted; check tracking\.uri"):
        log()
    sys.modules["mlflow"] = None  # type: ignore[assignment]
    with pytest.raises(ProbingError, match=r"pip install 'mess-core\[tracking\]'"):
        log()
