"""Fixtures of the extraction tests."""

import pytest

from mess_core.extraction.checkpoint import find_checkpoint
from mess_core.extraction.encoder import Encoder
from mess_core.extraction.specs import DEMO_ENCODER
from mess_core.extraction.torch_engine import TorchEngine


@pytest.fixture(scope="session")
def torch_encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    """The demo encoder on torch, which is ready at once."""
    checkpoint = find_checkpoint(DEMO_ENCODER, models=tmp_path_factory.mktemp("models"))
    engine = TorchEngine(checkpoint, device="cpu", precision="float32", threads=1)
    return Encoder(checkpoint.spec, engine, checkpoint)
