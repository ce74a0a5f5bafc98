"""Fixtures of the extraction tests."""

import pytest

from mess_core.extraction.checkpoint import find_checkpoint
from mess_core.extraction.encoder import Encoder
from mess_core.extraction.torch_engine import TorchEngine
from tests.extraction.checkpoints import NARROW, write_checkpoint


@pytest.fixture(scope="session")
def torch_encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    """A narrow MERT on torch, which is ready at once."""
    folder = tmp_path_factory.mktemp("narrow")
    write_checkpoint(folder, base=NARROW)
    checkpoint = find_checkpoint(str(folder))
    engine = TorchEngine(checkpoint, device="cpu", precision="float32", threads=1)
    return Encoder(checkpoint.spec, engine, checkpoint)
