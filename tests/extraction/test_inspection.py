"""Small models, looked at from outside."""

from pathlib import Path

import numpy as np
import pytest

from mess_core.errors import EncoderError
from mess_core.extraction import inspect_model, load_encoder, trace_activations
from mess_core.extraction.checkpoint import find_checkpoint
from mess_core.extraction.encoder import Encoder
from mess_core.extraction.torch_engine import load_module
from tests.extraction.checkpoints import write_checkpoint

pytestmark = pytest.mark.unit


def test_a_model_is_described_in_plain_numbers(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    facts = inspect_model(tmp_path)
    model = load_module(find_checkpoint(str(tmp_path)))
    assert facts["class"] == "HubertModel"
    assert (facts["layers"], facts["dims"]) == (4, 16)
    assert facts["parameters"] == sum(p.numel() for p in model.parameters())
    assert facts["parameters"] == sum(part["parameters"] for part in facts["modules"])
    projection = next(m for m in facts["modules"] if m["name"] == "feature_projection.projection")
    assert projection == {
        "name": "feature_projection.projection",
        "class": "Linear",
        "parameters": 16 * 8 + 16,
        "shapes": {"weight": [16, 8], "bias": [16]},
    }


def test_an_encoder_is_inspected_by_its_folder_and_when_loaded(torch_encoder: Encoder) -> None:
    assert torch_encoder.checkpoint is not None
    facts = inspect_model(torch_encoder.checkpoint.folder)
    assert (facts["class"], facts["layers"], facts["dims"]) == ("HubertModel", 13, 48)
    attention = next(
        m for m in facts["modules"] if m["name"] == "encoder.layers.11.attention.q_proj"
    )
    assert attention["shapes"] == {"weight": [48, 48], "bias": [48]}
    assert inspect_model(torch_encoder) == facts
    small = inspect_model("mess-small")
    assert (small["class"], small["layers"], small["dims"]) == ("SmallEncoder", 7, 160)


def test_an_encoder_prepares_its_own_windows(torch_encoder: Encoder) -> None:
    window = np.random.default_rng(0).normal(size=24_000).astype(np.float32)
    trace = trace_activations(torch_encoder, window)
    states = torch_encoder.hidden_states(window[None])[0]
    assert [(row["frames"], row["dims"]) for row in trace] == [(74, 48)] * 13
    for row, state in zip(trace, states.astype(np.float64), strict=True):
        assert row["mean"] == pytest.approx(float(state.mean()))
        assert row["std"] == pytest.approx(float(state.std()))
        assert row["norm"] == pytest.approx(float(np.linalg.norm(state, axis=1).mean()))
        assert (row["min"], row["max"]) == (float(state.min()), float(state.max()))
    louder = trace_activations(torch_encoder, 3 * window)  # each window is normalised
    assert louder[12]["mean"] == pytest.approx(trace[12]["mean"], abs=1e-4)


def test_numbers_without_weights_have_nothing_inside() -> None:
    for encoder in (load_encoder("descriptors"), "descriptors"):
        with pytest.raises(EncoderError, match="no weights"):
            inspect_model(encoder)
    with pytest.raises(EncoderError, match="no frames"):
        trace_activations("descriptors", np.zeros(24_000))


@pytest.mark.parametrize("shape", [(1, 800), (0,)])
def test_samples_are_one_window(torch_encoder: Encoder, shape: tuple[int, ...]) -> None:
    with pytest.raises(EncoderError, match="expected one window"):
        trace_activations(torch_encoder, np.zeros(shape, np.float32))
