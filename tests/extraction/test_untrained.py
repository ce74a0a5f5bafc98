"""An untrained twin has its original's shape and normalisation, and weights of its own."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mess_core.extraction.checkpoint import find_checkpoint
from mess_core.extraction.torch_engine import HiddenStates, load_hubert
from mess_core.extraction.untrained import make_untrained
from mess_core.files import read_json
from tests.extraction.checkpoints import STABLE, write_checkpoint

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("form", [{}, STABLE])
def test_a_twin_has_the_shape_and_nothing_of_the_weights(
    tmp_path: Path, form: dict[str, object]
) -> None:
    write_checkpoint(tmp_path / "mine", normalize=False, **form)  # type: ignore[arg-type]
    original = find_checkpoint(str(tmp_path / "mine"), models=tmp_path)
    folder = make_untrained(original, tmp_path / "twin")
    twin = find_checkpoint(str(folder), models=tmp_path)
    assert (twin.config, twin.normalize) == (original.config, original.normalize)
    assert not twin.spec.trained
    assert read_json(folder / "config.json")["model_type"] == "mert_model"
    mine, theirs = load_hubert(original).state_dict(), load_hubert(twin).state_dict()
    assert {k: t.shape for k, t in mine.items()} == {k: t.shape for k, t in theirs.items()}
    drawn = [k for k, t in mine.items() if t.std() > 0 and "norm" not in k and t.ndim > 1]
    assert len(drawn) > 10
    assert not any(torch.equal(mine[key], theirs[key]) for key in drawn)
    with torch.inference_mode():
        windows = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 12_000)).astype("f4"))
        (pooled,) = HiddenStates(load_hubert(twin), normalize=False)(windows)
    assert torch.isfinite(pooled).all()


def test_a_twin_is_the_same_whenever_it_is_made(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "mine")
    original = find_checkpoint(str(tmp_path / "mine"), models=tmp_path)
    torch.manual_seed(1)
    first = make_untrained(original, tmp_path / "first") / "model.safetensors"
    state = torch.random.get_rng_state()
    second = make_untrained(original, tmp_path / "second") / "model.safetensors"
    assert first.read_bytes() == second.read_bytes()
    assert torch.equal(torch.random.get_rng_state(), state), "nobody else's draws are moved"
