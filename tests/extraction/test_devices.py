"""The device that works is taken, what was passed over is said, and a GPU has one job at a time."""

import logging
import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from mess_core.errors import EncoderError
from mess_core.extraction import devices
from mess_core.extraction.devices import Choice, clear_gpu_cache, pick_device, reserve
from tests.conftest import as_nobody

pytestmark = pytest.mark.unit

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
needs_none = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")

NO_DRIVER = RuntimeError("Found no NVIDIA driver on your system.\nSee https://www.nvidia.com")
A, B = "ffc79498-8ff3-c2dc-3b0d-fafd804516ae", "41255406-c9af-f94b-4ebf-9d57ad1853da"


class FakeMachine:
    """A machine with devices of choice, and what torch was asked to try."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self._patch = monkeypatch
        self.dev = folder / "dev"
        self.dev.mkdir()
        self.faults: dict[str, Exception] = {}
        self.tried: list[str] = []
        monkeypatch.setattr(devices, "_DEV", self.dev)
        monkeypatch.setattr(sys, "platform", "linux")
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        real = torch.ones

        def ones(size: int, *, device: str) -> torch.Tensor:
            self.tried.append(device)
            if device in self.faults:
                raise self.faults[device]
            return real(size)

        monkeypatch.setattr(torch, "ones", ones)

    def become_a_mac(self, *, mps: bool) -> None:
        self._patch.setattr(sys, "platform", "darwin")
        self._patch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeMachine:
    return FakeMachine(monkeypatch, tmp_path)


def test_auto_says_what_it_did_not_try_and_why(machine: FakeMachine) -> None:
    choice = pick_device()
    assert choice.device == "cpu"
    cuda, mps = choice.notes
    assert cuda.startswith("cuda: not tried")
    assert f"{machine.dev}/nvidia*" in cuda
    assert mps.startswith("mps: not tried")
    assert "macOS" in mps
    assert machine.tried == []


def test_auto_does_not_import_torch_where_no_gpu_can_be() -> None:
    code = """if True:
        import sys
        from pathlib import Path
        from mess_core.extraction import devices
        devices._DEV, sys.platform = Path("/nowhere"), "linux"
        assert devices.pick_device("auto").device == "cpu"
        assert devices.pick_device("cpu") == ("cpu", ())
        devices.clear_gpu_cache()
        with devices.reserve("cpu") as device:
            assert device == "cpu"
        assert "torch" not in sys.modules
    """
    environment = {k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["nvidia0", "nvidiactl", "dxg", "kfd"])
def test_a_drivers_file_is_reason_to_try(machine: FakeMachine, name: str) -> None:
    (machine.dev / name).touch()
    assert pick_device() == Choice("cuda", ())
    assert machine.tried == ["cuda"]


@pytest.mark.parametrize("visible", ["0", "1,2", "GPU-41255406"])
def test_visible_devices_are_reason_to_try(
    machine: FakeMachine, monkeypatch: pytest.MonkeyPatch, visible: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert pick_device() == Choice("cuda", ())
    assert machine.tried == ["cuda"]


@pytest.mark.parametrize("visible", ["", "-1"])
def test_hidden_gpus_are_not_tried(
    machine: FakeMachine, monkeypatch: pytest.MonkeyPatch, visible: str
) -> None:
    (machine.dev / "nvidia0").touch()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    choice = pick_device()
    assert choice.device == "cpu"
    assert f"CUDA_VISIBLE_DEVICES={visible!r}" in choice.notes[0]
    assert machine.tried == []


def test_auto_falls_back_and_gives_the_drivers_words(machine: FakeMachine) -> None:
    (machine.dev / "nvidia0").touch()
    machine.faults["cuda"] = NO_DRIVER
    choice = pick_device()
    assert choice.device == "cpu"
    assert choice.notes[0] == "cuda: Found no NVIDIA driver on your system."
    assert len(choice.notes) == 2
    assert machine.tried == ["cuda"]


def test_auto_on_a_mac(machine: FakeMachine) -> None:
    machine.become_a_mac(mps=True)
    choice = pick_device()
    assert choice.device == "mps"
    assert len(choice.notes) == 1
    assert choice.notes[0].startswith("cuda: not tried")
    machine.faults["mps"] = RuntimeError("MPS is broken")
    assert pick_device() == Choice("cpu", (choice.notes[0], "mps: MPS is broken"))
    assert machine.tried == ["mps", "mps"]
    machine.become_a_mac(mps=False)
    choice = pick_device()
    assert choice.device == "cpu"
    assert "no MPS device" in choice.notes[1]
    assert machine.tried == ["mps", "mps"]


def test_auto_without_torch(machine: FakeMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    (machine.dev / "nvidia0").touch()
    monkeypatch.setitem(sys.modules, "torch", None)
    choice = pick_device()
    assert choice.device == "cpu"
    assert choice.notes[0].startswith("cuda: ")
    assert "torch" in choice.notes[0]


@pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:1", "mps"])
def test_a_device_that_works_is_taken_by_name(machine: FakeMachine, device: str) -> None:
    machine.become_a_mac(mps=True)
    assert pick_device(device) == Choice(device, ())
    assert machine.tried == [device] * (device != "cpu")


def test_a_device_that_does_not_work_is_an_error(machine: FakeMachine) -> None:
    machine.faults["cuda:7"] = RuntimeError("CUDA error: invalid device ordinal\nMore")
    with pytest.raises(EncoderError) as caught:
        pick_device("cuda:7")
    assert str(caught.value) == (
        "device 'cuda:7' cannot be used: CUDA error: invalid device ordinal; "
        "set `device: auto` or `device: cpu`"
    )


def test_a_device_that_gives_memory_but_computes_nothing_does_not_work(
    machine: FakeMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Unusable:
        def __getattr__(self, name: str) -> None:
            raise RuntimeError(f"CUDA error: no kernel image is available for {name}")

    monkeypatch.setattr(torch, "ones", lambda *_, **__: Unusable())
    with pytest.raises(EncoderError, match="'cuda' cannot be used: CUDA error: no kernel image"):
        pick_device("cuda")
    (machine.dev / "nvidia0").touch()
    assert pick_device().notes[0].startswith("cuda: CUDA error: no kernel image")


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "cuda:-1", "CPU", "cpu:0", ""])
def test_an_unknown_device_is_an_error(machine: FakeMachine, device: str) -> None:
    with pytest.raises(EncoderError, match="auto, cpu, mps, cuda"):
        pick_device(device)
    assert machine.tried == []


@needs_none
def test_cuda_by_name_on_a_machine_without_one_is_an_error() -> None:
    with pytest.raises(EncoderError, match=r"device 'cuda' cannot be used: .+ `device: cpu`"):
        pick_device("cuda")


@pytest.mark.parametrize("cuda", [False, True])
@pytest.mark.parametrize("mps", [False, True])
def test_clearing_empties_the_caches_that_there_are(
    monkeypatch: pytest.MonkeyPatch, cuda: bool, mps: bool
) -> None:
    emptied = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append("cuda"))
    monkeypatch.setattr(torch.mps, "empty_cache", lambda: emptied.append("mps"))
    clear_gpu_cache()
    assert emptied == ["cuda"] * cuda + ["mps"] * mps


@pytest.fixture
def locks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Give an empty folder for locks, and let nobody wait for ever."""
    folder = tmp_path / "locks"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))

    def wait(_: float) -> None:
        raise AssertionError("waits for a device that is free")

    on_waiting(monkeypatch, wait)
    return folder


def on_waiting(monkeypatch: pytest.MonkeyPatch, wait: Callable[[float], None]) -> None:
    """Have a function called where a job would sleep until it looks again."""
    monkeypatch.setattr(devices, "time", SimpleNamespace(sleep=wait))


def show_gpus(monkeypatch: pytest.MonkeyPatch, *uuids: str) -> None:
    """Let torch see these GPUs, in this order."""

    def properties(device: str | int) -> SimpleNamespace:
        index = int(str(device).removeprefix("cuda:"))
        # As torch's own, the number is an object that has a text.
        return SimpleNamespace(uuid=_Uuid(uuids[index]))

    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(uuids))
    monkeypatch.setattr(torch.cuda, "get_device_properties", properties)


class _Uuid:
    def __init__(self, text: str) -> None:
        self._text = text

    def __str__(self) -> str:
        return self._text


def test_a_cpu_is_for_all(locks: Path) -> None:
    with reserve("cpu") as one, reserve("cpu") as other:
        assert one == other == "cpu"
    assert list(locks.iterdir()) == []


def test_every_job_gets_a_gpu_of_its_own(locks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    show_gpus(monkeypatch, A, B)
    with reserve("cuda") as first:
        assert first == "cuda:0"
        with reserve("cuda") as second:
            assert second == "cuda:1"
        with reserve("cuda") as second:
            assert second == "cuda:1"
    with reserve("cuda") as first:
        assert first == "cuda:0"
    assert {A in path.name or B in path.name for path in locks.iterdir()} == {True}


def test_a_gpu_is_known_by_its_number_not_by_its_place(
    locks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    show_gpus(monkeypatch, A, B)
    with reserve("cuda:1"):
        show_gpus(monkeypatch, B, A)
        with reserve("cuda") as device:
            assert device == "cuda:1"
    assert len(list(locks.iterdir())) == 2


def test_a_failed_job_gives_its_gpu_back(locks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    show_gpus(monkeypatch, A)
    # Also while somebody looks at the error, which keeps all that its frames refer to.
    errors = []
    for _ in range(2):
        with pytest.raises(ZeroDivisionError) as caught, reserve("cuda"):
            raise ZeroDivisionError
        errors.append(caught)
    assert len(list(locks.iterdir())) == 1


@pytest.mark.parametrize(("asked", "got"), [("cuda", "cuda:0"), ("cuda:1", "cuda:1")])
@pytest.mark.usefixtures("locks")
def test_waits_for_the_first_that_is_free_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, asked: str, got: str
) -> None:
    show_gpus(monkeypatch, A, B)
    holders = {name: reserve(name) for name in ("cuda:0", "cuda:1")}
    for holder in holders.values():
        holder.__enter__()
    looks = 0

    def wait(_: float) -> None:
        nonlocal looks
        looks += 1
        if looks == 3:
            holders[got].__exit__(None, None, None)

    on_waiting(monkeypatch, wait)
    with reserve(asked) as device:
        assert device == got
    assert looks == 3
    (record,) = caplog.records
    assert (record.name, record.levelno) == (devices.__name__, logging.WARNING)
    assert got in record.getMessage()
    other = next(name for name in holders if name != got)
    holders[other].__exit__(None, None, None)


@pytest.mark.parametrize(
    ("device", "uuids", "seen"),
    [("cuda", (), "none"), ("cuda:0", (), "none"), ("cuda:2", (A, B), "cuda:0, cuda:1")],
)
def test_a_gpu_that_does_not_exist_cannot_be_had(
    locks: Path,
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    uuids: tuple[str, ...],
    seen: str,
) -> None:
    show_gpus(monkeypatch, *uuids)
    with pytest.raises(EncoderError, match=f"'{device}' does not exist.*: {seen}"), reserve(device):
        pass
    assert list(locks.iterdir()) == []


def test_the_lock_of_a_killed_process_does_not_block(
    locks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = """if True:
        from mess_core.extraction.devices import reserve
        with reserve("mps"):
            print("holds it", flush=True)
            input()
    """
    job = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(locks)},
    )
    looks = 0

    def kill(_: float) -> None:
        nonlocal looks
        looks += 1
        job.send_signal(signal.SIGKILL)
        job.wait()

    on_waiting(monkeypatch, kill)
    with job:
        assert job.stdout is not None
        assert job.stdout.readline() == "holds it\n"
        with reserve("mps") as device:
            assert device == "mps"
    # It was held while the process lived.
    assert looks == 1
    assert job.returncode == -signal.SIGKILL


def test_all_users_may_write_the_lock(locks: Path) -> None:
    before = os.umask(0o077)
    try:
        with reserve("mps"):
            pass
    finally:
        os.umask(before)
    (path,) = locks.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o666


@pytest.fixture
def shared() -> Iterator[Path]:
    """Give a folder that all users may enter and write, as /tmp is."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        Path(name).chmod(0o1777)
        yield Path(name)


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be two users")


@needs_root
@pytest.mark.usefixtures("locks")
def test_users_keep_each_other_off(
    shared: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(shared))
    holder = reserve("mps")
    holder.__enter__()
    looks = 0

    def wait(_: float) -> None:
        nonlocal looks
        looks += 1
        holder.__exit__(None, None, None)

    on_waiting(monkeypatch, wait)
    other = Path(tempfile.mkdtemp())  # only for its owner to be nobody
    try:
        with as_nobody(other), reserve("mps"):
            pass
    finally:
        other.rmdir()
    assert looks == 1
    assert len(list(shared.iterdir())) == 1
    assert [record.getMessage() for record in caplog.records] == [
        "mps: in use by other jobs, waiting"
    ]


@needs_root
@pytest.mark.usefixtures("locks")
def test_a_lock_that_may_not_be_written_is_replaced_by_ones_own(
    shared: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(shared))
    with reserve("mps"):
        pass
    (foreign,) = shared.iterdir()
    foreign.chmod(0o600)
    other = Path(tempfile.mkdtemp())
    looks = 0
    try:
        with as_nobody(other):
            holder = reserve("mps")
            holder.__enter__()

            def wait(_: float) -> None:
                nonlocal looks
                looks += 1
                holder.__exit__(None, None, None)

            # One's own jobs are still kept apart.
            on_waiting(monkeypatch, wait)
            with reserve("mps"):
                pass
    finally:
        other.rmdir()
    assert looks == 1
    (own,) = set(shared.iterdir()) - {foreign}
    assert str(own.stat().st_uid) in own.name
    message = caplog.records[0].getMessage()
    for part in (str(foreign), "Permission denied", own.name, "chmod 666"):
        assert part in message


@pytest.mark.usefixtures("locks")
def test_a_folder_that_takes_no_lock_is_an_error(
    shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(shared))
    with as_nobody(shared):
        shared.chmod(0o555)
        try:
            with pytest.raises(EncoderError) as caught, reserve("mps"):
                pass
        finally:
            shared.chmod(0o755)
    for part in (str(shared), "Permission denied", "TMPDIR"):
        assert part in str(caught.value)


@pytest.mark.gpu
@needs_gpu
def test_a_real_gpu_is_picked_reserved_and_emptied(locks: Path) -> None:
    assert pick_device("auto") == Choice("cuda", ())
    with reserve("cuda") as device:
        assert pick_device(device) == Choice(device, ())
        (path,) = locks.iterdir()
        assert str(torch.cuda.get_device_properties(device).uuid) in path.name
        clear_gpu_cache()
        before = torch.cuda.memory_reserved(device)
        block = torch.empty(1 << 28, dtype=torch.uint8, device=device)
        del block
        assert torch.cuda.memory_reserved(device) > before
        clear_gpu_cache()
        assert torch.cuda.memory_reserved(device) == before
