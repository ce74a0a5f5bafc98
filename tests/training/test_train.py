"""The loop on tiny data: losses fall, runs repeat and resume bit by bit, what is exported loads."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mess_core.errors import ConfigError, EncoderError, MidiError
from mess_core.extraction.checkpoint import find_checkpoint
from mess_core.extraction.golden import check_windows
from mess_core.extraction.small import SmallEncoder, SmallStates
from mess_core.extraction.torch_engine import TorchEngine
from mess_core.layout import Layout
from mess_core.training import examples, train as loop
from mess_core.training.examples import SCALARS, Batches, Labels, split
from mess_core.training.render import read_performances, read_pianos
from mess_core.training.train import State, export, train
from mess_core.workflow.jobs import train as train_job
from tests.extraction.checkpoints import write_checkpoint
from tests.training.planted import write_performances, write_piano

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_performances(folder, seed=3, count=4)
    write_piano(folder / "pianos", "bright", partials=8)
    write_piano(folder / "pianos", "dull", partials=2)
    return folder


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Batches of 2 x 2 windows, a checkpoint at every step, one thread."""
    for module in (examples, loop):
        monkeypatch.setattr(module, "GROUPS", 2)
        monkeypatch.setattr(module, "VERSIONS", 2)
    monkeypatch.setattr(loop, "_VALIDATION_BATCHES", 6)
    monkeypatch.setattr(loop, "_CHECKPOINT_S", 0.0)
    monkeypatch.setattr(loop, "_WARM_UP", 2)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def run(data: Path, out: Path, steps: int, **options: Any) -> dict[str, Any]:
    return train(data, data / "pianos", out, steps=steps, **options)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    stored: dict[str, torch.Tensor] = torch.load(folder / "checkpoint.pt", weights_only=True)[
        "model"
    ]
    return stored


def log(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_batches_are_the_same_for_a_seed_and_a_number(data: Path) -> None:
    played, pianos = read_performances(data), read_pianos(data / "pianos")
    (audio, labels), (again, relabelled) = (Batches(played, pianos, 5)[3] for _ in range(2))
    other, _ = Batches(played, pianos, 6)[3]
    assert audio.shape == (4, 120_000)
    assert torch.equal(audio, again)
    assert torch.equal(labels.velocities, relabelled.velocities)
    assert not torch.equal(audio, other)
    assert 1e-3 < float(audio.std()) < 0.3


def test_versions_are_on_one_instrument_or_on_several(data: Path) -> None:
    """With few versions in one recording, level alone tells touch."""
    played, pianos = read_performances(data), read_pianos(data / "pianos")
    correlations = []
    for alike in (0.0, 1.0):
        batches = Batches(played, pianos, 5, alike=alike)
        scalars = torch.cat([batches[i][1].scalars for i in range(12)]).view(-1, 2, len(SCALARS))
        velocity, loudness = (
            scalars[:, 0, i] - scalars[:, 1, i]
            for i in (list(SCALARS).index(name) for name in ("velocity_mean", "loudness_mean"))
        )
        correlations.append(float(torch.corrcoef(torch.stack([velocity, loudness]))[0, 1]))
    assert correlations[1] > max(0.5, correlations[0])


def test_losses_fall_on_what_is_shown_again_and_again(data: Path) -> None:
    played, pianos = read_performances(data), read_pianos(data / "pianos")
    batch = Batches(played, pianos, 5)[0]
    state = loop._begin({"seed": 0, "begin": None})
    for group in state.optimizer.param_groups:
        group["lr"] = 1e-3
    first, *_, last = (loop._step(state, *batch) for _ in range(7))
    for name in ("total", "onset", "held", "velocity", "scalars"):
        assert last[name] < 0.9 * first[name], name


def test_a_run_that_was_killed_ends_as_one_that_was_not(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(data, tmp_path / "whole", 4, leave_out="dull")
    steps = iter(range(2))
    step = loop._step

    def killed(state: State, audio: torch.Tensor, labels: Labels) -> dict[str, float]:
        if next(steps, None) is None:
            raise KeyboardInterrupt
        return step(state, audio, labels)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_step", killed)
        with pytest.raises(KeyboardInterrupt):
            run(data, tmp_path / "parts", 4, leave_out="dull")
    assert not (tmp_path / "parts" / "model.safetensors").exists()
    resumed = run(data, tmp_path / "parts", 4, leave_out="dull")
    for name, tensor in weights(tmp_path / "whole").items():
        assert torch.equal(tensor, weights(tmp_path / "parts")[name]), name
    *_, line = log(tmp_path / "whole")
    assert line["step"] == whole["steps"] == resumed["steps"] == 4
    assert line["windows_per_s"] > 0
    assert np.isfinite(line["total"])
    assert whole["validation"] == resumed["validation"]
    assert "velocity_mean" in whole["validation"]
    with pytest.raises(ConfigError, match="choose another --out"):
        run(data, tmp_path / "parts", 4, seed=1)
    (tmp_path / "parts" / "checkpoint.pt").write_text("cut off")
    with pytest.raises(ConfigError, match=r"checkpoint\.pt is damaged; remove it to begin anew"):
        run(data, tmp_path / "parts", 4)
    write_checkpoint(tmp_path / "mert")
    with pytest.raises(ConfigError, match="mert is no small encoder; begin from mess-small"):
        run(data, tmp_path / "new", 4, begin=str(tmp_path / "mert"))


def test_steps_without_finite_losses_are_skipped_and_end_a_run(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = loop._begin({"seed": 0, "begin": None})
    audio, labels = Batches(read_performances(data), read_pianos(data / "pianos"), 0)[0]
    before = {name: tensor.clone() for name, tensor in state.model.state_dict().items()}
    assert loop._step(state, audio * float("nan"), labels) == {}
    assert all(torch.equal(t, before[name]) for name, t in state.model.state_dict().items())
    monkeypatch.setattr(loop, "_step", lambda *_: {})
    with pytest.raises(EncoderError, match="21 steps in a row were not finite"):
        run(data, tmp_path, 100)
    assert not (tmp_path / "checkpoint.pt").exists()


def test_what_is_exported_loads_as_what_was_trained(data: Path, tmp_path: Path) -> None:
    state = loop._begin({"seed": 0, "begin": "mess-small"})
    loop._step(state, *Batches(read_performances(data), read_pianos(data / "pianos"), 0)[0])
    export(state.model, tmp_path)
    checkpoint = find_checkpoint(str(tmp_path))
    assert checkpoint.spec.kind == "small"
    engine = TorchEngine(checkpoint, device="cpu", precision="float32")
    windows = check_windows(24_000, sample_rate=24_000)
    tensors = state.model.state_dict().items()
    rounded = SmallEncoder().eval()
    rounded.load_state_dict({name: t.half().to(t.dtype) for name, t in tensors})
    with torch.inference_mode():
        (expected,) = SmallStates(rounded)(torch.from_numpy(windows))
    np.testing.assert_allclose(engine.run(windows).pooled, expected.numpy(), atol=1e-5)


#: The command in small batches. It has a process of its own: torch's loader installs a handler of
#: SIGCHLD, and OpenVINO, which other tests of this process use, replaces the stack that handlers
#: run on by its own. Once its model is gone, the next child that ends kills the process (SIGSEGV).
COMMAND = """
import sys
from mess_core.cli.main import main
from mess_core.training import examples, train
for module in (examples, train):
    module.GROUPS = module.VERSIONS = 2
train._VALIDATION_BATCHES = 6
sys.exit(main(sys.argv[1:]))
"""


def test_the_command_trains_and_says_what_is_next(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine"
    command = [sys.executable, "-c", COMMAND, "train", "--performances", str(data), "--pianos"]
    command += [str(data / "pianos"), "--out", str(out), "--begin", "mess-small", "--workers", "1"]
    done = subprocess.run([*command, "--seconds", "0.01"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "R2 within excerpts" in done.stdout
    assert f"encoder={out}" in done.stdout
    card = json.loads((out / "card.json").read_text())
    assert card["steps"] == 1
    assert card["sources"] == {"planted": 3}


def test_what_cannot_be_asked_for_is_said(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no piano is called 'dul' .*dull"):
        run(data, tmp_path, 1, leave_out="dul")
    with pytest.raises(ConfigError, match="there cannot be -1 workers; give 0 or more"):
        run(data, tmp_path, 1, workers=-1)


def test_one_performance_in_twenty_and_at_least_one_is_kept_aside(data: Path) -> None:
    played = read_performances(data)
    studied, kept = split(played)
    assert len(kept) == 1
    assert {**studied, **kept}.keys() == played.keys()
    with pytest.raises(MidiError, match="at least two are needed"):
        split(kept)


def test_the_rules_job_trains_into_the_models_folder(data: Path, tmp_path: Path) -> None:
    layout = Layout(tmp_path, "demo")
    folders = {"performances": str(data), "pianos": str(data / "pianos")}
    train_job(layout, **folders, seconds=0.01, threads=1)
    assert find_checkpoint(str(layout.trained)).spec.trained
