"""Small models, looked at from outside."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from transformers import HubertModel

from mess_core.errors import EncoderError
from mess_core.extraction import inspect_model, trace_activations
from mess_core.extraction.checkpoint import find_checkpoint
from mess_core.extraction.encoder import Encoder
from mess_core.extraction.torch_engine import load_module
from tests.extraction.checkpoints import write_checkpoint

pytestmark = pytest.mark.unit

WINDOW = 800


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> HubertModel:
    folder = tmp_path_factory.mktemp("model")
    write_checkpoint(folder)
    loaded: HubertModel = load_module(find_checkpoint(str(folder)))
    return loaded


@pytest.fixture
def samples() -> npt.NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=WINDOW).astype(np.float32)


def test_a_model_is_described_in_plain_numbers(model: HubertModel) -> None:
    facts = inspect_model(model)
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
    assert inspect_model("mess-small")["class"] == "SmallEncoder"


def test_a_module_without_configuration_is_described_too() -> None:
    facts = inspect_model(torch.nn.Linear(3, 2))
    assert (facts["layers"], facts["dims"], facts["parameters"]) == (None, None, 8)


def test_activations_are_those_of_the_hidden_states(
    model: HubertModel, samples: npt.NDArray[np.float32]
) -> None:
    trace = trace_activations(model, samples)
    with torch.inference_mode():
        states = model(torch.from_numpy(samples[None]), output_hidden_states=True).hidden_states
    assert [row["layer"] for row in trace] == [0, 1, 2, 3]
    for row, state in zip(trace, states, strict=True):
        expected = state[0].double()
        assert (row["frames"], row["dims"]) == tuple(expected.shape)
        assert row["mean"] == pytest.approx(float(expected.mean()))
        assert row["std"] == pytest.approx(float(expected.std(correction=0)))
        assert row["norm"] == pytest.approx(float(expected.norm(dim=1).mean()))
        assert (row["min"], row["max"]) == (float(expected.min()), float(expected.max()))


def test_tracing_leaves_the_model_in_its_mode_and_is_repeatable(
    model: HubertModel, samples: npt.NDArray[np.float32]
) -> None:
    expected = trace_activations(model, samples)
    model.train()
    try:
        assert trace_activations(model, samples) == expected
        assert model.training
    finally:
        model.train(False)


def test_an_encoder_prepares_its_own_windows(torch_encoder: Encoder) -> None:
    window = np.random.default_rng(0).normal(size=24_000).astype(np.float32)
    trace = trace_activations(torch_encoder, window)
    states = torch_encoder.hidden_states(window[None])[0]
    assert [(row["frames"], row["dims"]) for row in trace] == [(74, 48)] * 13
    assert [row["max"] for row in trace] == states.max(axis=(1, 2)).tolist()
    louder = trace_activations(torch_encoder, 3 * window)  # each window is normalised
    assert louder[12]["mean"] == pytest.approx(trace[12]["mean"], abs=1e-4)


def test_what_is_no_model_is_refused() -> None:
    thing: Any = object()
    with pytest.raises(EncoderError, match="object is no encoder and no torch module"):
        inspect_model(thing)


@pytest.mark.parametrize("shape", [(1, WINDOW), (0,)])
def test_samples_are_one_window(model: HubertModel, shape: tuple[int, ...]) -> None:
    with pytest.raises(EncoderError, match="expected one window"):
        trace_activations(model, np.zeros(shape, np.float32))
