"""Which device the encoder runs on, and one job at a time on a GPU.

``auto`` takes CUDA (also AMD's ROCm, which torch calls CUDA), else MPS, else the CPU. A device
that is passed over leaves a note, so that nobody takes a run on a CPU for one on a GPU. torch is
imported only where a GPU can exist.

GPUs are shared out by locks on files in the temporary folder, named by the GPU's own number (UUID),
because ``cuda:0`` is another GPU for another ``CUDA_VISIBLE_DEVICES``. A lock ends with its
process. Jobs whose temporary folders differ (``TMPDIR``, containers, users of macOS) do not see
each other's locks.
"""

__all__ = ["Choice", "clear_gpu_cache", "pick_device", "reserve", "take_device"]

import logging
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from mess_core.errors import EncoderError

_DEVICE = re.compile(r"cpu|mps|cuda(:\d+)?")
_DEV = Path("/dev")
# What the drivers of NVIDIA, of Windows' Linux (WSL) and of AMD put there.
_DRIVER_FILES = ("nvidia*", "dxg", "kfd")
# How often to look whether a GPU has become free, in seconds.
_POLL_S = 0.5

_LOG = logging.getLogger(__name__)


class Choice(NamedTuple):
    """A device that works.

    Attributes
    ----------
    device : str
        ``cpu``, ``mps``, ``cuda`` or ``cuda:1``.
    notes : tuple of str
        For every device that was passed over, its name and why.
    """

    device: str
    notes: tuple[str, ...] = ()


def pick_device(device: str = "auto") -> Choice:
    """Choose the device to run on, and make sure that it works.

    Parameters
    ----------
    device : str
        ``auto`` (the first of CUDA, MPS and CPU that works), ``cpu``, ``mps``, ``cuda`` or
        ``cuda:1``.

    Returns
    -------
    Choice
        The device, and for ``auto`` why others were passed over.

    Raises
    ------
    EncoderError
        If a device that was asked for by name does not exist or does not work.
    """
    if device != "auto":
        fault = _fault(device)
        if fault:
            raise EncoderError(
                f"device {device!r} cannot be used: {fault}; set `device: auto` or `device: cpu`"
            )
        return Choice(device)
    notes: list[str] = []
    for candidate in ("cuda", "mps"):
        fault = _absence(candidate) or _fault(candidate)
        if not fault:
            return Choice(candidate, tuple(notes))
        notes.append(f"{candidate}: {fault}")
    return Choice("cpu", tuple(notes))


@contextmanager
def take_device(device: str = "auto") -> Iterator[Choice]:
    """Choose a device as `pick_device` does, and keep it to oneself as `reserve` does.

    A GPU is tried only when it is reserved: nothing touches one that another job has.

    Parameters
    ----------
    device : str
        As in `pick_device`.

    Yields
    ------
    Choice
        The device, for CUDA with its index, and why others were passed over.

    Raises
    ------
    EncoderError
        As `pick_device` and `reserve`.
    """
    if device != "auto":
        with reserve(device) as reserved:
            yield pick_device(reserved)
        return
    notes: list[str] = []
    with ExitStack() as held:
        for candidate in ("cuda", "mps"):
            try:
                fault = _absence(candidate)
                reserved = "" if fault else held.enter_context(reserve(candidate))
                fault = fault or _fault(reserved)
            except EncoderError as error:
                fault = str(error)
            if not fault:
                break
            held.close()
            notes.append(f"{candidate}: {fault}")
        else:
            reserved = "cpu"
        yield Choice(reserved, tuple(notes))


def _absence(device: str) -> str | None:
    """Say why a GPU cannot exist, without torch; None where it may."""
    if device == "mps":
        return None if sys.platform == "darwin" else "not tried, it exists on macOS only"
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible in ("", "-1"):
        return f"not tried, CUDA_VISIBLE_DEVICES={visible!r} hides every GPU"
    if visible or os.name == "nt" or any(any(_DEV.glob(name)) for name in _DRIVER_FILES):
        return None
    looked = ", ".join(str(_DEV / name) for name in _DRIVER_FILES)
    return f"not tried, there is no sign of a GPU driver (none of {looked})"


def _fault(device: str) -> str | None:
    """Say why a device does not work; None where it does."""
    if not _DEVICE.fullmatch(device):
        return "known are auto, cpu, mps, cuda and cuda:N"
    if device == "cpu":
        return None
    try:
        import torch

        if device == "mps" and not torch.backends.mps.is_available():
            return "this torch sees no MPS device"
        # Runs a kernel and waits for it: a tensor alone may be had where nothing can be computed.
        torch.ones(1, device=device).add(1).item()
    except Exception as error:  # torch and the drivers raise many kinds
        return str(error).strip().partition("\n")[0] or type(error).__name__
    return None


def clear_gpu_cache() -> None:
    """Give back the GPU memory that torch keeps for later, where torch uses a GPU."""
    torch = sys.modules.get("torch")
    if torch is None:
        return
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


@contextmanager
def reserve(device: str) -> Iterator[str]:
    """Keep a GPU to oneself for the block; wait while other jobs have it.

    Parameters
    ----------
    device : str
        ``cpu`` (of which every job may have a share), ``mps``, ``cuda:1``, or ``cuda`` for the
        first visible GPU that is free.

    Yields
    ------
    str
        The device, for ``cuda`` with its index. It is free again when the block or the process
        ends, however it ends.

    Raises
    ------
    EncoderError
        If the device does not exist, or the temporary folder cannot hold its lock.
    """
    if device == "cpu":
        yield device
        return
    locks = {name: _lock(key) for name, key in _lock_keys(device).items()}
    name = _first_free(locks)
    try:
        yield name
    finally:
        locks[name].release()


def _lock_keys(device: str) -> dict[str, str]:
    """Name every device that is meant, and what is the same for all processes that mean it."""
    if device == "mps":
        return {device: device}
    import torch

    visible = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    meant = [name for name in visible if device in ("cuda", name)]
    if not meant:
        seen = ", ".join(visible) or "none"
        raise EncoderError(f"device {device!r} does not exist; torch sees the CUDA devices: {seen}")
    return {name: str(torch.cuda.get_device_properties(name).uuid) for name in meant}


def _lock(key: str) -> FileLock:
    """Give the machine's lock, or one of this user's where that file may not be written."""
    path = Path(tempfile.gettempdir()) / f"mess-gpu-{key}.lock"
    try:
        path.open("r+b").close()
    except FileNotFoundError:
        pass  # made when it is taken
    except OSError as error:
        own = path.with_name(f"mess-gpu-{key}-user-{os.geteuid()}.lock")
        _LOG.warning(
            "%s cannot be used (%s); taking %s instead, which does not keep other users' jobs off "
            "the GPU. Delete the first or let all users write it (chmod 666)",
            path,
            error.strerror,
            own.name,
        )
        path = own
    return FileLock(path, mode=0o666, thread_local=False)


def _first_free(locks: Mapping[str, FileLock]) -> str:
    """Take the first lock that is free and give its name."""
    said = False
    while True:
        for name, lock in locks.items():
            try:
                lock.acquire(blocking=False)
            except Timeout:
                continue
            except OSError as error:
                raise EncoderError(
                    f"{lock.lock_file} cannot be locked ({error.strerror}), which keeps two jobs "
                    f"off {name}; set TMPDIR to a folder that all users may write"
                ) from error
            return name
        if not said:
            _LOG.warning("%s: in use by other jobs, waiting", ", ".join(locks))
            said = True
        time.sleep(_POLL_S)
