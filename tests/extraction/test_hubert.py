"""The model in memory is exactly the checkpoint on disk, and computes what transformers' does."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import HubertConfig, HubertModel, Wav2Vec2FeatureExtractor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from mess_core.errors import EncoderError
from mess_core.extraction.checkpoint import find_checkpoint, make_untrained
from mess_core.extraction.torch_engine import HiddenStates, load_module
from mess_core.files import read_json
from tests.extraction.checkpoints import MERT_95M, STABLE, write_checkpoint

pytestmark = pytest.mark.unit


def load(folder: Path) -> HubertModel:
    loaded: HubertModel = load_module(find_checkpoint(str(folder)))
    return loaded


@pytest.fixture
def windows() -> np.ndarray:
    rng = np.random.default_rng(7)
    return (rng.normal(size=(3, 24_000)) * [[0.1], [0.5], [0.01]] + 0.02).astype(np.float32)


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("form", [{}, STABLE])
def test_every_tensor_in_memory_is_the_files(
    tmp_path: Path, binary: bool, form: dict[str, Any]
) -> None:
    stored = write_checkpoint(tmp_path, binary=binary, **form)
    model = load(tmp_path)
    loaded = model.state_dict()
    assert len(loaded) == len(stored)
    position = "encoder.pos_conv_embed.conv"
    names = {
        f"{position}.weight_g": f"{position}.parametrizations.weight.original0",
        f"{position}.weight_v": f"{position}.parametrizations.weight.original1",
    }
    for key, tensor in stored.items():
        assert torch.equal(loaded[names.get(key, key)], tensor), key
    assert not model.training
    assert all(p.device.type == "cpu" for p in model.parameters())


@pytest.mark.integration
@pytest.mark.slow
def test_every_tensor_of_the_full_shape_is_the_files(tmp_path: Path) -> None:
    stored = write_checkpoint(tmp_path, base=MERT_95M)
    # The published pytorch_model.bin has 211 tensors and 94,371,712 values.
    assert len(stored) == 211
    assert sum(tensor.numel() for tensor in stored.values()) == 94_371_712
    loaded = load(tmp_path).state_dict()
    values = {tensor.double().sum().item() for tensor in loaded.values()}
    assert values == {tensor.double().sum().item() for tensor in stored.values()}


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("form", [{}, STABLE])
def test_hidden_states_are_those_of_transformers(
    tmp_path: Path, windows: np.ndarray, form: dict[str, Any], normalize: bool
) -> None:
    write_checkpoint(tmp_path, normalize=normalize, **form)
    model = load(tmp_path)
    extractor: Any = Wav2Vec2FeatureExtractor(  # type: ignore[no-untyped-call]
        sampling_rate=24_000, do_normalize=normalize
    )
    prepared = extractor(list(windows), sampling_rate=24_000, return_tensors="pt").input_values
    with torch.inference_mode():
        reference = model(prepared, output_hidden_states=True).hidden_states
        expected = torch.stack(reference, dim=1).numpy()
        module = HiddenStates(model, normalize=normalize, raw=True)
        pooled, found = (x.numpy() for x in module(torch.from_numpy(windows)))
    assert found.shape == expected.shape == (3, 4, 74, 16)
    for layer in range(4):
        scale = np.abs(expected[:, layer]).max()
        assert np.abs(found[:, layer] - expected[:, layer]).max() <= 1e-4 * scale
    np.testing.assert_allclose(pooled, found.mean(axis=2), atol=1e-5)


def test_the_last_state_of_the_stable_form_comes_before_the_final_norm(
    tmp_path: Path, windows: np.ndarray
) -> None:
    write_checkpoint(tmp_path, **STABLE)
    model = load(tmp_path)
    with torch.inference_mode():
        output = model(torch.from_numpy(windows), output_hidden_states=True)
        _, states = HiddenStates(model, normalize=False, raw=True)(torch.from_numpy(windows))
        after_norm = model.encoder.layer_norm(states[:, -1])
    assert torch.allclose(after_norm, output.last_hidden_state, atol=1e-5)
    assert not torch.allclose(states[:, -1], output.last_hidden_state, atol=0.1)


def test_relaxed_attention_is_attention(
    tmp_path: Path, windows: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MERT's `attention_relax` (32 for 330M) shifts logits by their maximum, for float16's sake."""
    calls = []

    def relaxed(
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        *_: Any,
        **__: Any,
    ) -> tuple[torch.Tensor, None]:
        calls.append(module)
        logits = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5 / 32.0
        logits = (logits - logits.amax(dim=-1, keepdim=True)) * 32.0
        return (logits.softmax(dim=-1) @ value).transpose(1, 2).contiguous(), None

    write_checkpoint(tmp_path, **STABLE)
    model = load(tmp_path)
    module = HiddenStates(model, normalize=True)
    with torch.inference_mode():
        (plain,) = module(torch.from_numpy(windows))
        monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, "relaxed", relaxed)
        model.config._attn_implementation = "relaxed"
        (shifted,) = module(torch.from_numpy(windows))
    assert len(calls) == 3
    scale = plain.abs().amax()
    assert (plain - shifted).abs().amax() <= 1e-5 * scale


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("missing", r"Missing key.*encoder\.layers\.0\.layer_norm\.bias"),
        ("left over", r"Unexpected key.*extra"),
        ("shape", r"size mismatch for encoder\.layers\.0\.layer_norm\.bias"),
        ("positional", r"Missing key.*encoder\.pos_conv_embed.*original0"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(
    tmp_path: Path, change: str, message: str
) -> None:
    stored = write_checkpoint(tmp_path, binary=False)
    name = "encoder.layers.0.layer_norm.bias"
    if change == "missing":
        del stored[name]
    elif change == "left over":
        stored["extra"] = torch.zeros(1)
    elif change == "positional":
        del stored["encoder.pos_conv_embed.conv.weight_g"]
    else:
        stored[name] = torch.zeros(5)
    save_file(stored, tmp_path / "model.safetensors")
    with pytest.raises(EncoderError, match=message):
        load(tmp_path)


def test_a_value_that_changes_on_the_way_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As published loaders do with the positional convolution."""
    write_checkpoint(tmp_path)
    real = HubertModel.load_state_dict

    def careless(self: HubertModel, state: dict[str, torch.Tensor]) -> None:
        real(self, state)
        weight = self.state_dict()["encoder.pos_conv_embed.conv.parametrizations.weight.original0"]
        torch.nn.init.normal_(weight)

    monkeypatch.setattr(HubertModel, "load_state_dict", careless)
    with pytest.raises(EncoderError, match=r"original0 differs in memory from the file"):
        load(tmp_path)


@pytest.mark.parametrize(
    "change",
    [{"num_attention_heads": 5}, {"hidden_act": "nonsense"}, {"conv_dim": [8] * 3}],
    ids=str,
)
def test_a_configuration_that_makes_no_model_is_named(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    write_checkpoint(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(EncoderError, match=r"config\.json"):
        load(tmp_path)


def test_a_damaged_weights_file_is_named(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, binary=False)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(EncoderError, match=r"model\.safetensors cannot be read"):
        load(tmp_path)


def test_pickled_weights_run_no_code(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)

    class Harm:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "harmed",))

    torch.save({"a": Harm()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(EncoderError, match=r"pytorch_model\.bin cannot be read"):
        load(tmp_path)
    assert not (tmp_path / "harmed").exists()


def test_half_precision_files_are_widened_exactly(tmp_path: Path) -> None:
    stored = write_checkpoint(tmp_path, binary=False)
    half = {key: tensor.half() for key, tensor in stored.items()}
    save_file(half, tmp_path / "model.safetensors")
    loaded = load(tmp_path).state_dict()
    bias = "encoder.layer_norm.bias"
    assert loaded[bias].dtype == torch.float32
    assert torch.equal(loaded[bias], half[bias].float())
    assert isinstance(load(tmp_path).config, HubertConfig)


@pytest.mark.parametrize("form", [{}, STABLE])
def test_a_twin_has_the_shape_and_nothing_of_the_weights(
    tmp_path: Path, form: dict[str, Any]
) -> None:
    write_checkpoint(tmp_path / "mine", normalize=False, **form)
    original = find_checkpoint(str(tmp_path / "mine"), models=tmp_path)
    folder = make_untrained(original, tmp_path / "twin")
    twin = find_checkpoint(str(folder), models=tmp_path)
    assert (twin.config, twin.normalize) == (original.config, original.normalize)
    assert not twin.spec.trained
    assert read_json(folder / "config.json")["model_type"] == "mert_model"
    mine, theirs = load_module(original).state_dict(), load_module(twin).state_dict()
    assert {k: t.shape for k, t in mine.items()} == {k: t.shape for k, t in theirs.items()}
    drawn = [k for k, t in mine.items() if t.std() > 0 and "norm" not in k and t.ndim > 1]
    assert len(drawn) > 10
    assert not any(torch.equal(mine[key], theirs[key]) for key in drawn)
    with torch.inference_mode():
        windows = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 12_000)).astype("f4"))
        (pooled,) = HiddenStates(load_module(twin), normalize=False)(windows)
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
