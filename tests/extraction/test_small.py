"""The small encoder: its form, its bundled weights, its engines, and its untrained twin."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torchaudio.transforms import MelSpectrogram
from transformers import HubertConfig
from transformers.models.hubert.modeling_hubert import HubertEncoderStableLayerNorm

from mess_core.errors import EncoderError
from mess_core.extraction.checkpoint import find_checkpoint, make_untrained
from mess_core.extraction.encoder import inspect_model, load_encoder
from mess_core.extraction.golden import check_windows, compare
from mess_core.extraction.openvino_engine import OpenVinoEngine
from mess_core.extraction.small import SmallEncoder
from mess_core.extraction.specs import MODELS, SMALL_ENCODER, resolve_spec
from mess_core.extraction.torch_engine import TorchEngine, load_module
from mess_core.files import file_sha256

pytestmark = pytest.mark.unit

SAMPLES = 24_000


@pytest.fixture(scope="module")
def model() -> SmallEncoder:
    loaded = load_module(find_checkpoint(SMALL_ENCODER))
    assert isinstance(loaded, SmallEncoder)
    return loaded


@pytest.fixture(scope="module")
def windows() -> torch.Tensor:
    return torch.from_numpy(check_windows(SAMPLES, sample_rate=24_000))


def test_the_spectrogram_is_torchaudios_centred_between_two_frames(
    model: SmallEncoder, windows: torch.Tensor
) -> None:
    mel = MelSpectrogram(
        24_000, 2048, hop_length=320, f_min=27.5, f_max=11_000, n_mels=229, power=1, norm="slaney"
    )
    expected = torch.log10(mel(windows) + 1e-4) * 0.8 + 1.6
    expected = 0.375 * expected[..., :-1] + 0.625 * expected[..., 1:]
    assert torch.allclose(model.log_mel(windows), expected, atol=1e-5)


def test_an_onset_lies_where_a_frame_of_hubert_has_it(model: SmallEncoder) -> None:
    """Frame i of HuBERT's convolutions is centred on sample 320 i + 200."""
    samples = torch.zeros(1, SAMPLES)
    samples[0, 320 * 30 + 200] = 1.0
    level = model.log_mel(samples)[0].mean(0)
    rise = level - level.min()
    centre = (rise * torch.arange(len(rise))).sum() / rise.sum()
    assert float(centre) == pytest.approx(30, abs=0.1)


def test_the_transformer_is_huberts_pre_norm_encoder(model: SmallEncoder) -> None:
    config = HubertConfig(
        hidden_size=160,
        num_hidden_layers=6,
        num_attention_heads=5,
        intermediate_size=640,
        do_stable_layer_norm=True,
        conv_pos_batch_norm=False,
    )
    config._attn_implementation = "eager"
    theirs: torch.nn.Module = HubertEncoderStableLayerNorm(config).eval()  # type: ignore[no-untyped-call]
    theirs.load_state_dict(model.encoder.state_dict())
    expected: list[torch.Tensor] = []
    for layer in theirs.get_submodule("layers").children():
        layer.register_forward_hook(lambda _, __, output: expected.append(output))
    with torch.inference_mode():
        states = torch.randn(2, 75, 160, generator=torch.Generator().manual_seed(1))
        theirs(states)
        found = model.encoder(states)
    assert len(found) == len(expected) == 6
    for ours, other in zip(found, expected, strict=True):
        assert torch.allclose(ours, other, atol=1e-4)


def test_hidden_states_keep_level_and_do_not_depend_on_the_batch(
    model: SmallEncoder, windows: torch.Tensor
) -> None:
    with torch.inference_mode():
        states = model(windows)
        alone = model(windows[1:2])
        softer = model(windows * 0.5)
    assert [tuple(state.shape) for state in states] == [(4, 75, 160)] * 7
    for together, single, soft in zip(states, alone, softer, strict=True):
        assert torch.allclose(together[1:2], single, atol=1e-4)
        assert not torch.allclose(together, soft, atol=0.05)


def test_the_bundled_weights_are_those_that_are_pinned_and_have_a_card() -> None:
    checkpoint = find_checkpoint(SMALL_ENCODER)
    spec = MODELS[SMALL_ENCODER]
    assert file_sha256(checkpoint.weights) == spec.weights_sha256
    assert checkpoint.fingerprint == spec.fingerprint
    assert checkpoint.weights.stat().st_size < 16_000_000
    card = (checkpoint.folder / "README.md").read_text()
    assert all(word in card for word in ("Trained by `mess train`", "CC BY 3.0", "Judged on"))


@pytest.mark.integration
def test_openvino_and_torch_compute_the_same(tmp_path: Path, windows: torch.Tensor) -> None:
    checkpoint = find_checkpoint(SMALL_ENCODER)
    engine = TorchEngine(checkpoint, device="cpu", precision="float32")
    converted = OpenVinoEngine(checkpoint, models=tmp_path, samples=SAMPLES, precision="float32")
    expected = engine.run(windows.numpy(), raw=True)
    found = converted.run(windows.numpy(), raw=True)
    assert expected.raw is not None
    assert found.raw is not None
    assert max(compare(found.raw, expected.raw).error) < 1e-4
    np.testing.assert_allclose(found.pooled, expected.raw.mean(axis=2), atol=1e-3)
    encoder = load_encoder(SMALL_ENCODER, models=tmp_path, device="cpu", window_s=1.0)
    assert encoder.engine.precision == "float32"
    np.testing.assert_array_equal(encoder.pooled(windows.numpy()), found.pooled)


def test_a_folder_of_the_form_is_an_encoder(tmp_path: Path) -> None:
    original = find_checkpoint(SMALL_ENCODER)
    shutil.copytree(original.folder, tmp_path / "mine")
    spec = resolve_spec(str(tmp_path / "mine"))
    assert (spec.kind, spec.source, spec.layers, spec.dims) == ("small", "folder", 7, 160)
    assert (spec.name, spec.trained, spec.weights_sha256) == ("mine", True, None)
    mine = find_checkpoint(str(tmp_path / "mine"))
    assert mine.fingerprint == original.fingerprint
    facts = inspect_model(tmp_path / "mine")
    assert (facts["class"], facts["parameters"]) == ("SmallEncoder", 2_528_272)


@pytest.mark.parametrize("damage", ["missing", "left over", "shape"])
def test_weights_that_are_not_exactly_the_models_are_refused(tmp_path: Path, damage: str) -> None:
    shutil.copytree(find_checkpoint(SMALL_ENCODER).folder, tmp_path / "mine")
    path = tmp_path / "mine" / "model.safetensors"
    tensors = load_file(path)
    if damage == "missing":
        del tensors["norm.bias"]
    elif damage == "left over":
        tensors["mel.window"] = torch.ones(3)
    else:
        tensors["proj.bias"] = torch.ones(161)
    save_file(tensors, path)
    with pytest.raises(EncoderError, match="does not fit the model"):
        load_module(find_checkpoint(str(tmp_path / "mine")))


def test_the_untrained_twin_is_always_the_same_and_says_so(tmp_path: Path) -> None:
    original = find_checkpoint(SMALL_ENCODER)
    twins = [make_untrained(original, tmp_path / name) for name in ("a", "b")]
    first, second = (twin / "model.safetensors" for twin in twins)
    assert first.read_bytes() == second.read_bytes()
    assert json.loads((twins[0] / "config.json").read_text())["mess_trained"] is False
    twin = find_checkpoint(str(twins[0]))
    assert not twin.spec.trained
    assert twin.fingerprint != original.fingerprint
    theirs, ours = load_module(twin).state_dict(), load_module(original).state_dict()
    assert {k: v.shape for k, v in theirs.items()} == {k: v.shape for k, v in ours.items()}
    weight = "encoder.layers.0.attention.q_proj.weight"
    assert not torch.equal(theirs[weight], ours[weight])
