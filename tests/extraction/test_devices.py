"""Choosing a device says what it passed over; a GPU is one job's at a time, and free after it."""

import logging
import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from mess_core.errors import EncoderError
from mess_core.extraction import devices
from mess_core.extraction.devices import (
    Choice,
    clear_gpu_cache,
    pick_device,
    reserve,
    take_device,
)
from tests.conftest import as_nobody

pytestmark = pytest.mark.unit

UUIDS = ("aaaa-0000", "bbbb-1111", "cccc-2222")


@pytest.fixture
def no_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make the machine look as if it had no GPU; give the folder of its devices."""
    monkeypatch.setattr(devices, "_DEV", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    return tmp_path


@pytest.fixture
def locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the locks in a folder of the test."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def see(monkeypatch: pytest.MonkeyPatch, *uuids: str) -> None:
    """Let torch see these GPUs, in this order."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(uuids))
    monkeypatch.setattr(
        torch.cuda,
        "get_device_properties",
        lambda name: SimpleNamespace(uuid=uuids[int(name.removeprefix("cuda:"))]),
    )


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


# Choosing


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
        "from mess_core.extraction.devices import *\n"
        "device = pick_device().device\n"
        "clear_gpu_cache()\n"
        "with reserve(device) as reserved: print(reserved, 'torch' in sys.modules)"
    )
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "-1"}
    done = subprocess.run(
        [sys.executable, "-c", check], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["cpu", "False"]


# The cache


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


def test_clearing_without_torch_imports_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch")
    clear_gpu_cache()
    assert "torch" not in sys.modules


# Reserving


def test_the_cpu_is_everybodys(locks: Path) -> None:
    with reserve("cpu") as first, reserve("cpu") as second:
        assert first == second == "cpu"
    assert list(locks.iterdir()) == []


def test_jobs_get_different_gpus_and_give_them_back(
    locks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    see(monkeypatch, *UUIDS[:2])
    with reserve("cuda") as first:
        assert first == "cuda:0"
        with reserve("cuda") as second:
            assert second == "cuda:1"
    with reserve("cuda:1") as named, reserve("cuda") as other:
        assert (named, other) == ("cuda:1", "cuda:0")
    assert {path.name for path in locks.iterdir()} == {
        "mess-gpu-aaaa-0000.lock",
        "mess-gpu-bbbb-1111.lock",
    }


def test_a_gpu_is_given_back_when_the_job_fails(
    locks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    see(monkeypatch, UUIDS[0])
    with pytest.raises(ZeroDivisionError), reserve("cuda"):
        _ = 1 / 0
    with reserve("cuda") as device:
        assert device == "cuda:0"
    assert len(list(locks.iterdir())) == 1


@pytest.mark.usefixtures("locks")
def test_a_gpu_is_known_whatever_its_index(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slurm and CUDA_VISIBLE_DEVICES give the same GPU another index in every job."""
    see(monkeypatch, "aaaa", "bbbb")
    with reserve("cuda:1"):
        see(monkeypatch, "bbbb", "cccc")
        with reserve("cuda") as device:
            assert device == "cuda:1"


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """Let waiting do, in turn, what a test puts into the list: no clock passes."""
    actions: list[object] = []

    def act(_: float) -> None:
        action = actions.pop(0)
        if callable(action):
            action()

    monkeypatch.setattr(devices, "time", SimpleNamespace(sleep=act))
    yield actions
    assert actions == []


@pytest.mark.usefixtures("locks")
@pytest.mark.parametrize(("device", "meant"), [("cuda", "cuda:1"), ("mps", "mps")])
def test_a_job_waits_for_the_first_gpu_that_becomes_free_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    waits: list[object],
    device: str,
    meant: str,
) -> None:
    see(monkeypatch, *UUIDS[:2])
    holders = [reserve(name) for name in (["cuda:0", "cuda:1"] if device == "cuda" else ["mps"])]
    for holder in holders:
        holder.__enter__()
    waits += [None, None, lambda: holders[-1].__exit__(None, None, None)]
    with reserve(device) as got:
        assert got == meant
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [
        ("WARNING", ", ".join(n for n in ("cuda:0", "cuda:1", "mps") if n.startswith(device))
         + ": in use by other jobs, waiting")
    ]  # fmt: skip
    for holder in holders[:-1]:
        holder.__exit__(None, None, None)


HOLD = """
from mess_core.extraction.devices import reserve
with reserve("mps"):
    print("held", flush=True)
    input()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_dead_process_holds_nothing(
    locks: Path, waits: list[object], number: signal.Signals
) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD],
        env=os.environ | {"TMPDIR": str(locks)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"

        def kill() -> None:
            holder.send_signal(number)
            holder.wait()

        # It is really held, also by another process, until that dies.
        waits += [None, kill]
        with reserve("mps") as device:
            assert device == "mps"
    assert holder.returncode == -number


@pytest.mark.usefixtures("locks")
@pytest.mark.parametrize(("count", "device"), [(0, "cuda"), (0, "cuda:0"), (2, "cuda:2")])
def test_a_gpu_that_torch_does_not_see_is_an_error(
    monkeypatch: pytest.MonkeyPatch, count: int, device: str
) -> None:
    see(monkeypatch, *UUIDS[:count])
    seen = "cuda:0, cuda:1" if count else "none"
    with (
        pytest.raises(EncoderError, match=f"'{device}' does not exist; .*: {seen}"),
        reserve(device),
    ):
        pass


# Other users


def test_all_users_may_lock_what_one_has_locked(locks: Path) -> None:
    mask = os.umask(0o077)
    try:
        with reserve("mps"):
            pass
    finally:
        os.umask(mask)
    assert stat.S_IMODE((locks / "mess-gpu-mps.lock").stat().st_mode) == 0o666


@pytest.fixture
def nobodys() -> Iterator[Path]:
    """Give a folder that users without rights can reach, which those below ``tmp_path`` are not."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o1777)
        yield Path(folder)


def test_a_lock_file_of_another_user_serves_when_it_may_be_written(
    nobodys: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(nobodys))
    with reserve("mps"):
        pass
    with as_nobody(nobodys), reserve("mps"):
        pass
    assert [path.name for path in nobodys.iterdir()] == ["mess-gpu-mps.lock"]
    assert caplog.records == []


def test_a_lock_file_that_may_not_be_written_is_replaced_by_ones_own_with_a_warning(
    nobodys: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(nobodys))
    foreign = nobodys / "mess-gpu-mps.lock"
    foreign.touch(0o444)
    with as_nobody(nobodys):
        own = f"mess-gpu-mps-user-{os.geteuid()}.lock"
        with reserve("mps") as device:
            assert device == "mps"
            assert (nobodys / own).exists()
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith(f"{foreign} cannot be used (Permission denied); taking ")
    assert own in record.getMessage()


def test_a_folder_that_cannot_hold_locks_is_an_error(
    nobodys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(nobodys))
    with as_nobody(nobodys):
        nobodys.chmod(0o555)
        message = r"mess-gpu-mps.lock cannot be locked \(Permission denied\).* set TMPDIR"
        with pytest.raises(EncoderError, match=message), reserve("mps"):
            pass
        nobodys.chmod(0o700)


# With a device


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
@pytest.mark.usefixtures("locks")
def test_a_cuda_device_is_chosen_reserved_and_its_cache_emptied() -> None:
    assert pick_device() == Choice("cuda", ())
    with reserve("cuda") as device:
        assert device == "cuda:0"
        block = torch.zeros(1 << 24, device=device)
        del block
        assert torch.cuda.memory_reserved(device) > torch.cuda.memory_allocated(device)
        clear_gpu_cache()
        assert torch.cuda.memory_reserved(device) < 1 << 24
    with pytest.raises(EncoderError, match="cannot be used"):
        pick_device(f"cuda:{torch.cuda.device_count()}")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.backends.mps.is_available(), reason="torch sees no MPS device")
@pytest.mark.usefixtures("locks")
def test_an_mps_device_is_chosen_reserved_and_its_cache_emptied() -> None:
    assert pick_device("mps") == Choice("mps", ())
    with reserve("mps") as device:
        block = torch.zeros(1 << 24, device=device)
        del block
        clear_gpu_cache()
        assert torch.mps.driver_allocated_memory() < torch.mps.recommended_max_memory()


# Both


def test_a_gpu_that_another_job_has_is_not_touched(
    no_driver: Path, locks: Path, works: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (no_driver / "nvidia0").touch()
    see(monkeypatch, *UUIDS[:2])
    # In CUDA's exclusive mode a process that tries a taken GPU fails, and would go to the CPU.
    works.add("cuda:1")
    with reserve("cuda:0"), take_device() as choice:
        assert choice == Choice("cuda:1")
    with take_device("cuda:1") as choice:
        assert choice == Choice("cuda:1")
    with (
        pytest.raises(EncoderError, match="device 'cuda:0' cannot be used: no kernel image"),
        take_device("cuda:0"),
    ):
        pass
    assert locks.is_dir()


def test_a_gpu_that_does_not_work_is_passed_over_and_given_back(
    no_driver: Path, locks: Path, works: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (no_driver / "nvidia0").touch()
    see(monkeypatch, *UUIDS[:1])
    with take_device() as choice:
        assert choice.device == "cpu"
        assert choice.notes[0] == "cuda: no kernel image for cuda:0"
        with reserve("cuda") as free:
            assert free == "cuda:0"
    see(monkeypatch)
    with take_device() as choice:
        assert choice.device == "cpu"
        assert "torch sees the CUDA devices: none" in choice.notes[0]
    assert works == {"cpu"}
    assert locks.is_dir()
