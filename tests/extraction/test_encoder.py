"""A loaded encoder on its engines: the same features whichever runs it."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest
import torch

from mess_core.errors import EncoderError
from mess_core.extraction import (
    encoder as encoder_module,
    openvino_engine,
    torch_engine,
    trace_activations,
)
from mess_core.extraction.checkpoint import find_checkpoint
from mess_core.extraction.encoder import Choice, ConversionError, Encoder, Output, load_encoder
from mess_core.extraction.golden import check_windows, compare, golden_hash
from mess_core.extraction.openvino_engine import OpenVinoEngine, prepare
from mess_core.extraction.torch_engine import HiddenStates, TorchEngine, load_module
from mess_core.files import read_json
from tests.extraction import make_golden_features
from tests.extraction.checkpoints import MERT_95M, NARROW, STABLE, write_checkpoint

# Converting even a small model takes seconds.
pytestmark = pytest.mark.integration

SAMPLES = 24_000
NATIVE_BF16 = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with a narrow MERT, converted for windows of one and of five seconds."""
    folder = tmp_path_factory.mktemp("models")
    write_checkpoint(folder / "narrow", base=NARROW)
    for samples in (SAMPLES, 5 * SAMPLES):
        prepare(find_checkpoint(narrow(folder)), models=folder, samples=samples)
    return folder


def narrow(models: Path) -> str:
    return str(models / "narrow")


@pytest.fixture(scope="session")
def demo(models: Path) -> Encoder:
    return load_encoder(
        narrow(models), models=models, device="cpu", precision="float32", window_s=1.0
    )


@pytest.fixture
def windows() -> np.ndarray:
    rng = np.random.default_rng(7)
    return (rng.normal(size=(5, SAMPLES)) * 0.1).astype(np.float32)


def reference(checkpoint_name: str, windows: np.ndarray, models: Path) -> np.ndarray:
    checkpoint = find_checkpoint(checkpoint_name, models=models)
    module = HiddenStates(load_module(checkpoint), normalize=checkpoint.normalize, raw=True)
    with torch.inference_mode():
        return np.asarray(module(torch.from_numpy(windows))[1].numpy())


def test_a_cpu_runs_openvino_with_transformers_hidden_states(
    demo: Encoder, windows: np.ndarray, models: Path
) -> None:
    expected = reference(narrow(models), windows, models)
    assert demo.engine.name.startswith("openvino ")
    found = demo.hidden_states(windows)
    assert found.shape == expected.shape == (5, 13, 74, 48)
    assert max(compare(found, expected).error) <= 1e-4
    np.testing.assert_allclose(demo.pooled(windows), found.mean(axis=2), atol=1e-5)


def test_the_form_of_mert_330m_is_converted_exactly(tmp_path: Path, windows: np.ndarray) -> None:
    write_checkpoint(tmp_path / "mine", **STABLE)
    name = str(tmp_path / "mine")
    prepare(find_checkpoint(name), models=tmp_path, samples=SAMPLES)
    encoder = load_encoder(name, models=tmp_path, device="cpu", precision="float32", window_s=1.0)
    assert encoder.notes == ()
    expected = reference(name, windows, tmp_path)
    assert max(compare(encoder.hidden_states(windows), expected).error) <= 1e-4


@pytest.mark.slow
def test_the_full_shape_is_exact_in_float32_and_close_in_bfloat16(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "full", base=MERT_95M, scale=None)
    name = str(tmp_path / "full")
    windows = check_windows(5 * SAMPLES, sample_rate=24_000)
    expected = reference(name, windows, tmp_path)
    exact = load_encoder(name, models=tmp_path, device="cpu", precision="float32")
    assert exact.engine.name.startswith("openvino ")
    assert max(compare(exact.hidden_states(windows), expected).error) <= 1e-4
    auto = load_encoder(name, models=tmp_path, device="cpu")
    assert auto.engine.precision == ("bfloat16" if NATIVE_BF16 else "float32")
    assert min(compare(auto.pooled(windows), expected.mean(axis=2)).cosine) >= 0.999


@pytest.mark.parametrize(
    "precision",
    [
        "float32",
        pytest.param("bfloat16", marks=pytest.mark.skipif(not NATIVE_BF16, reason="no bfloat16")),
    ],
)
def test_the_batch_and_the_threads_change_nothing(
    models: Path, windows: np.ndarray, precision: str
) -> None:
    checkpoint = find_checkpoint(narrow(models))

    def run(threads: int, batch: int) -> np.ndarray:
        engine = OpenVinoEngine(
            checkpoint, models=models, samples=SAMPLES, precision=precision, threads=threads
        )
        parts = [engine.run(windows[i : i + batch]) for i in range(0, len(windows), batch)]
        return np.concatenate([part.pooled for part in parts])

    alone = run(1, 1)
    for threads, batch in ((1, 5), (2, 1), (2, 2), (2, 5)):
        np.testing.assert_array_equal(run(threads, batch), alone)


@pytest.mark.parametrize("engine", ["openvino", "torch"])
def test_threads_may_share_an_encoder(demo: Encoder, engine: str) -> None:
    encoder = demo
    if engine == "torch":
        assert demo.checkpoint is not None
        shared = TorchEngine(demo.checkpoint, device="cpu", precision="float32")
        encoder = Encoder(demo.spec, shared, demo.checkpoint)
    rng = np.random.default_rng(3)
    batches = [rng.normal(size=(3, SAMPLES)).astype(np.float32) for _ in range(12)]
    expected = [demo.pooled(batch) for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(encoder.pooled, batches))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_torch_runs_the_same_where_openvino_is_missing(
    models: Path, windows: np.ndarray, demo: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder_module, "find_spec", lambda _: None)
    found = load_encoder(narrow(models), models=models, device="cpu", window_s=1.0)
    assert found.engine.name.startswith("torch ")
    assert found.engine.precision == "float32"
    assert found.notes == ("openvino: is not installed (pip install openvino)",)
    assert "not taken: openvino" in found.describe()
    agreement = compare(found.hidden_states(windows), demo.hidden_states(windows))
    assert max(agreement.error) <= 1e-4


def test_torch_takes_over_where_conversion_fails(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ConversionError("no such operation")

    monkeypatch.setattr(openvino_engine, "_prepare_in_another_process", fail)
    found = load_encoder(narrow(models), models=models, device="cpu", window_s=0.9)
    assert found.engine.name.startswith("torch ")
    assert found.notes == ("openvino: no such operation",)


def test_a_conversion_that_computes_something_else_is_not_used_nor_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_checkpoint(tmp_path / "mine")
    real, calls = openvino_engine._convert, []

    def wrong(*args: Any) -> Any:
        calls.append(args)
        expected, windows = real(*args)
        assert expected.raw is not None
        return expected._replace(raw=np.float32(1.001) * expected.raw), windows

    def here(checkpoint: Any, models: Path, samples: int) -> None:
        prepare(checkpoint, models=models, samples=samples)

    monkeypatch.setattr(openvino_engine, "_convert", wrong)
    monkeypatch.setattr(openvino_engine, "_prepare_in_another_process", here)
    for _ in range(2):
        encoder = load_encoder(str(tmp_path / "mine"), models=tmp_path, device="cpu", window_s=1.0)
        assert encoder.engine.name.startswith("torch ")
        assert "the converted model differs from transformers' by 1.0e-03" in encoder.describe()
    assert len(calls) == 1
    assert not [p for p in tmp_path.rglob("*") if p.suffix == ".xml"]


def test_torch_runs_where_a_check_window_comes_out_otherwise_than_at_conversion(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = read_json

    def other(path: Path) -> Any:
        report = real(path)
        return report | {"pooled": (1.001 * np.asarray(report["pooled"])).tolist()}

    monkeypatch.setattr(openvino_engine, "read_json", other)
    encoder = load_encoder(
        narrow(models), models=models, device="cpu", precision="float32", window_s=1.0
    )
    assert encoder.engine.name.startswith("torch ")
    assert "although it did not when it was converted" in encoder.describe()


#: Reports any attempt to reach a network.
OFFLINE = """
import socket, sys
def refuse(*args, **_):
    raise SystemExit(f"a connection was tried: {args}")
socket.socket.connect = socket.socket.connect_ex = socket.socket.sendto = refuse
socket.getaddrinfo = socket.gethostbyname = socket.create_connection = refuse
from pathlib import Path
import numpy as np
from mess_core.extraction import load_encoder
encoder = load_encoder(sys.argv[1], models=Path(sys.argv[2]), device="cpu", window_s=1.0)
assert encoder.engine.name.startswith("openvino"), encoder.describe()
encoder.pooled(np.ones((1, 24_000), "f4"))
"""


@pytest.mark.slow
def test_openvino_looks_up_no_host_and_writes_nothing_outside(tmp_path: Path) -> None:
    """Converting and running; a package that a conversion starts inherits the environment."""
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "sitecustomize.py").write_text(OFFLINE.partition("from pathlib")[0])
    write_checkpoint(tmp_path / "mine")
    subprocess.run(
        [sys.executable, "-c", OFFLINE, str(tmp_path / "mine"), str(tmp_path / "models")],
        env={
            "HOME": str(home),
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]),
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        check=True,
        timeout=300,
        cwd=home,
    )
    assert list(home.rglob("*")) == []


@pytest.mark.slow
def test_a_damaged_converted_model_is_made_again(
    tmp_path: Path, windows: np.ndarray, capfd: pytest.CaptureFixture[str]
) -> None:
    """In a process of its own, as the first job of a corpus does it."""
    write_checkpoint(tmp_path / "mine")
    name = str(tmp_path / "mine")
    prepare(find_checkpoint(name), models=tmp_path, samples=SAMPLES)
    (binary,) = (tmp_path / "openvino").rglob("*.bin")
    content = bytearray(binary.read_bytes())
    content[100] ^= 255
    binary.chmod(0o644)
    binary.write_bytes(content)
    encoder = load_encoder(name, models=tmp_path, device="cpu", precision="float32", window_s=1.0)
    assert "converting mine" in capfd.readouterr().err
    expected = reference(name, windows, tmp_path)
    assert max(compare(encoder.hidden_states(windows), expected).error) <= 1e-4


def test_bfloat16_is_taken_only_where_it_agrees(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load() -> Encoder:
        return load_encoder(narrow(models), models=models, device="cpu", window_s=1.0)

    def receipt(cosine: float | None) -> None:
        agreements: dict[str, Any] = {"float32": {"error": [0.0], "cosine": [1.0]}, "pooled": []}
        if cosine is not None:
            agreements["bfloat16"] = {"cosine": [1.0, cosine]}
        monkeypatch.setattr(openvino_engine, "read_json", lambda _: agreements)

    monkeypatch.setattr(OpenVinoEngine, "_try_out", lambda *_: None)
    receipt(0.9991)
    assert load().engine.precision == "bfloat16"
    receipt(0.9989)
    encoder = load()
    assert encoder.engine.precision == "float32"
    assert "bfloat16: its cosine to float32 is 0.99890" in encoder.describe()
    receipt(None)
    assert load().engine.precision == "float32"
    with pytest.raises(EncoderError, match="does not compute bfloat16 natively"):
        load_encoder(
            narrow(models), models=models, device="cpu", precision="bfloat16", window_s=1.0
        )


def test_float16_needs_a_gpu(models: Path) -> None:
    checkpoint = find_checkpoint(narrow(models))
    with pytest.raises(EncoderError, match="float16 needs a GPU"):
        OpenVinoEngine(checkpoint, models=models, samples=SAMPLES, precision="float16")
    with pytest.raises(EncoderError, match="float16 needs a GPU"):
        TorchEngine(checkpoint, device="cpu", precision="float16")
    with pytest.raises(EncoderError, match="precision is 'half', it must be one of auto"):
        load_encoder(narrow(models), models=models, precision="half")


def test_torch_on_a_cpu_computes_bfloat16_when_it_is_asked_to(
    models: Path, windows: np.ndarray
) -> None:
    checkpoint = find_checkpoint(narrow(models))
    exact, half = (
        TorchEngine(checkpoint, device="cpu", precision=p).run(windows, raw=True)
        for p in ("float32", "bfloat16")
    )
    assert half.pooled.dtype == np.float32
    assert not np.array_equal(exact.pooled, half.pooled)
    assert min(compare(half.pooled, exact.pooled).cosine) >= 0.999


@pytest.mark.parametrize(("noise", "taken"), [(1e-3, "float16"), (0.1, "float32")])
def test_a_gpus_half_precision_is_taken_only_where_it_agrees(
    models: Path, monkeypatch: pytest.MonkeyPatch, noise: float, taken: str
) -> None:
    """With a pretend GPU: what its half precision computes is off by some noise."""

    class PretendEngine:
        name = "pretend"

        def __init__(self, _: object, *, device: str, precision: str) -> None:
            self.device, self.precision = device, precision

        def run(self, windows: np.ndarray, *, raw: bool = False) -> Output:
            del raw
            vectors = np.random.default_rng(1).normal(size=(len(windows), 13, 48))
            if self.precision != "float32":
                vectors += noise * np.random.default_rng(2).normal(size=vectors.shape)
            return Output(vectors.astype(np.float32), None)

    monkeypatch.setattr(encoder_module, "pick_device", Choice)
    monkeypatch.setattr(torch_engine, "TorchEngine", PretendEngine)
    monkeypatch.setattr(torch_engine, "half_precision", lambda _: "float16")
    encoder = load_encoder(narrow(models), models=models, device="cuda")
    assert (encoder.engine.device, encoder.engine.precision) == ("cuda", taken)
    assert any("float16: its cosine" in note for note in encoder.notes) == (taken == "float32")
    asked = load_encoder(narrow(models), models=models, device="cuda", precision="bfloat16")
    assert asked.engine.precision == "bfloat16"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_cuda_computes_what_the_cpu_computes(
    models: Path, windows: np.ndarray, precision: str
) -> None:
    checkpoint = find_checkpoint(narrow(models))
    engine = TorchEngine(checkpoint, device="cuda", precision=precision)
    found = np.concatenate([engine.run(windows[i : i + 2], raw=True).pooled for i in (0, 2, 4)])
    expected = reference(narrow(models), windows, models).mean(axis=2)
    agreement = compare(found, expected)
    assert min(agreement.cosine) >= 0.999
    if precision == "float32":
        # TensorFloat-32 is off in torch's matrix products unless somebody asks for it.
        assert max(agreement.error) <= 1e-3


def test_a_converted_model_needs_no_torch(models: Path) -> None:
    code = (
        "import sys, numpy as np\n"
        "from pathlib import Path\n"
        "from mess_core.extraction.encoder import load_encoder\n"
        f"e = load_encoder({narrow(models)!r}, models=Path({str(models)!r}), device='cpu')\n"
        "e.pooled(np.ones((1, 120000), 'f4'))\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_activations_are_traced_by_an_encoders_name(models: Path, demo: Encoder) -> None:
    window = np.random.default_rng(0).normal(size=SAMPLES).astype(np.float32)
    trace = trace_activations(narrow(models), window, models=models)
    states = demo.hidden_states(window[None])[0]
    for row, state in zip(trace, states, strict=True):
        assert row["mean"] == pytest.approx(float(state.mean()), abs=0.02)


def test_values_that_are_not_finite_are_an_error(demo: Encoder) -> None:
    with pytest.raises(EncoderError, match="not finite"):
        demo.pooled(np.full((1, SAMPLES), np.nan, np.float32))
    with pytest.raises(EncoderError, match="expected"):
        demo.pooled(np.zeros(SAMPLES, np.float32))


def test_the_golden_hash_names_the_model_and_not_the_engine(models: Path) -> None:
    windows = check_windows(5 * SAMPLES, sample_rate=24_000)
    encoder = load_encoder(narrow(models), models=models, device="cpu", precision="float32")
    expected = golden_hash(reference(narrow(models), windows, models).mean(axis=2))
    assert golden_hash(encoder.pooled(windows)) == expected
    # One tensor in the middle of the model, changed a little.
    checkpoint = find_checkpoint(narrow(models))
    model = load_module(checkpoint)
    with torch.inference_mode():
        model.get_parameter("encoder.layers.6.feed_forward.output_dense.weight").mul_(1.1)
        (changed,) = HiddenStates(model, normalize=True)(torch.from_numpy(windows))
    assert golden_hash(changed.numpy()) != expected


def test_golden_features_of_the_stage(models: Path) -> None:
    """Fails when features change: then raise `stages.FEATURES` and run make_golden_features.py."""
    golden = json.loads(make_golden_features.PATH.read_text())
    found = make_golden_features.compute(models)
    np.testing.assert_allclose(found.pop("pooled"), golden.pop("pooled"), rtol=1e-3, atol=1e-4)
    assert found == golden
