"""A Slurm cluster for a module's tests."""

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.slurm.cluster import Cluster, cluster, missing


@pytest.fixture(scope="module")
def slurm() -> Iterator[Cluster]:
    """Bring a cluster up; only where it was asked for, for it starts daemons."""
    if "MESS_TEST_SLURM" not in os.environ:
        pytest.skip("starts daemons; `make test-slurm` runs it")
    if missing():
        pytest.fail(f"no Slurm here: {missing()}")
    # A socket's path may have 107 characters, which pytest's folders exceed.
    with TemporaryDirectory(prefix="slurm") as folder, cluster(Path(folder)) as running:
        yield running
