"""Fixtures that several test modules share."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
import pytest
import soundfile

#: Artifacts and stores, for tests of the index, of publishing and of commands.
pytest_plugins = ["tests.publishing.fixtures"]

WriteTone = Callable[..., Path]

#: Whole runs of the workflow, of minutes each.
_LONGEST = ("slurm", "workflow")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest, so that no process is left alone with it in the end."""
    items.sort(key=lambda item: item.path.parent.name not in _LONGEST)


@pytest.fixture
def write_tone(tmp_path: Path) -> WriteTone:
    """Give a function that writes a sine tone of one pitch per call."""

    def write(
        name: str,
        *,
        seconds: float = 6.0,
        frequency: float = 440.0,
        rate: int = 24_000,
        channels: int = 1,
        level: float = 0.3,
        subtype: str | None = None,
    ) -> Path:
        times = np.arange(round(seconds * rate)) / rate
        tone = level * np.sin(2 * np.pi * frequency * times)
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.repeat(tone[:, None], channels, axis=1), rate, subtype=subtype)
        return path

    return write


class SmallDisk(Protocol):
    """Makes a file system of a size; see `small_disk`."""

    def __call__(self, kib: int, *, files: int | None = None) -> Path: ...


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """Give a function that mounts a new file system in memory, of so many KiB and files."""
    mounted: list[Path] = []

    def mount(kib: int, *, files: int | None = None) -> Path:
        folder = tmp_path / f"disk-{len(mounted)}"
        folder.mkdir()
        # Every file system counts its own root among its files.
        options = f"size={kib}k" + (f",nr_inodes={files + 1}" if files else "")
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            cause = getattr(error, "stderr", "") or error
            pytest.skip(f"needs the right to mount a file system ({str(cause).strip()})")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        # Lazily: a failed test may still have files open.
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def make_read_only(disk: Path) -> None:
    """Let nobody write to a file system that `small_disk` made."""
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)


@contextmanager
def as_nobody(folder: Path) -> Iterator[None]:
    """Run the block without root's rights, as the owner of a folder (not below ``tmp_path``)."""
    user, nobody = os.geteuid(), 65534
    if user == 0:
        os.chown(folder, nobody, -1)
        os.seteuid(nobody)
    try:
        yield
    finally:
        os.seteuid(user)
