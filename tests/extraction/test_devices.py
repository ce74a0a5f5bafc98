"""Choosing a device says what it passed over."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mess_core.errors import EncoderError
from mess_core.extraction import encoder
from mess_core.extraction.encoder import Choice, clear_gpu_cache, pick_device

pytestmark = pytest.mark.unit


@pytest.fixture
def no_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make the machine look as if it had no GPU; give the folder of its devices."""
    monkeypatch.setattr(encoder, "_DEV", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    return tmp_path


@pytest.fixture
def works(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Give the set of devices on which torch can compute; others fail as late as they can."""
    working = {"cpu"}

    class Tensor:
        def __init__(self, _: int, *, device: str) -> None:
            self.device = device

        def add(self, _: int) -> "Tensor":
            return self

        def item(self) -> float:
            if self.device not in working:
                raise RuntimeError(f"\nno kernel image for {self.device}\nCompile with ...")
            return 2.0

    monkeypatch.setattr(torch, "ones", Tensor)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: "mps" in working)
    return working


def test_without_a_driver_auto_is_the_cpu_and_says_why_not_another(no_driver: Path) -> None:
    assert pick_device() == Choice(
        "cpu",
        (
            "cuda: not tried, there is no sign of a GPU driver "
            f"(none of {no_driver}/nvidia*, {no_driver}/dxg, {no_driver}/kfd)",
            "mps: not tried, it exists on macOS only",
        ),
    )


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_hidden_gpus_are_not_tried(
    no_driver: Path, monkeypatch: pytest.MonkeyPatch, works: set[str], hidden: str
) -> None:
    (no_driver / "nvidia0").touch()
    works.add("cuda")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    device, notes = pick_device()
    assert device == "cpu"
    assert notes[0] == f"cuda: not tried, CUDA_VISIBLE_DEVICES={hidden!r} hides every GPU"


@pytest.mark.parametrize("sign", ["nvidia0", "nvidiactl", "dxg", "kfd", "CUDA_VISIBLE_DEVICES"])
def test_any_sign_of_a_driver_lets_cuda_be_tried(
    no_driver: Path, monkeypatch: pytest.MonkeyPatch, works: set[str], sign: str
) -> None:
    if sign.isupper():
        monkeypatch.setenv(sign, "0")
    else:
        (no_driver / sign).touch()
    device, notes = pick_device()
    assert device == "cpu"
    assert notes[0] == "cuda: no kernel image for cuda"
    works.add("cuda")
    assert pick_device() == Choice("cuda", ())


@pytest.mark.usefixtures("no_driver")
def test_on_macos_mps_comes_after_cuda_and_before_the_cpu(
    monkeypatch: pytest.MonkeyPatch, works: set[str]
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    device, notes = pick_device()
    assert device == "cpu"
    assert notes[1] == "mps: this torch sees no MPS device"
    works.add("mps")
    device, notes = pick_device()
    assert device == "mps"
    assert [note.partition(":")[0] for note in notes] == ["cuda"]


@pytest.mark.usefixtures("no_driver")
@pytest.mark.parametrize("device", ["cpu", "mps", "cuda", "cuda:1"])
def test_a_device_asked_for_by_name_is_that_or_an_error(works: set[str], device: str) -> None:
    if device != "cpu":
        with pytest.raises(EncoderError, match=rf"device '{device}' cannot be used: .+; set `dev"):
            pick_device(device)
    works.add(device)
    assert pick_device(device) == Choice(device, ())


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "CUDA", "cpu:0", ""])
def test_an_unknown_device_is_refused(device: str) -> None:
    with pytest.raises(EncoderError, match="known are auto, cpu, mps, cuda and cuda:N"):
        pick_device(device)


def test_a_missing_torch_is_a_reason(monkeypatch: pytest.MonkeyPatch, no_driver: Path) -> None:
    (no_driver / "nvidia0").touch()
    monkeypatch.setitem(sys.modules, "torch", None)
    device, notes = pick_device()
    assert device == "cpu"
    assert "torch" in notes[0]
    with pytest.raises(EncoderError, match="torch"):
        pick_device("cuda")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_torchs_true_reason_is_given() -> None:
    with pytest.raises(EncoderError, match=r"(?i)no NVIDIA driver|no CUDA GPUs|not compiled"):
        pick_device("cuda")


@pytest.mark.skipif(sys.platform == "darwin", reason="MPS is looked for with torch")
def test_where_no_gpu_can_be_torch_is_not_imported() -> None:
    check = (
        "import sys\n"
        "from mess_core.extraction.encoder import clear_gpu_cache, pick_device\n"
        "clear_gpu_cache()\n"
        "print(pick_device().device, 'torch' in sys.modules)"
    )
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "-1"}
    done = subprocess.run(
        [sys.executable, "-c", check], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["cpu", "False"]


def test_the_cache_of_the_gpus_in_use_is_cleared(monkeypatch: pytest.MonkeyPatch) -> None:
    cleared: list[str] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: cleared.append("cuda"))
    monkeypatch.setattr(torch.mps, "empty_cache", lambda: cleared.append("mps"))
    for cuda, mps, expected in [
        (False, False, []),
        (True, False, ["cuda"]),
        (False, True, ["mps"]),
    ]:
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda used=cuda: used)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda there=mps: there)
        cleared.clear()
        clear_gpu_cache()
        assert cleared == expected
