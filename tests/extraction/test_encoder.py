"""The encoder in memory is exactly the checkpoint on disk, or an error."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import HubertConfig, HubertModel, Wav2Vec2FeatureExtractor

from mess_core import stages
from mess_core.errors import EncoderError
from mess_core.extraction.bundled import make_demo_encoder
from mess_core.extraction.encoder import MertEncoder, load_encoder
from mess_core.extraction.specs import DEMO_ENCODER, MODELS, resolve_spec
from mess_core.files import file_sha256

pytestmark = pytest.mark.unit

TINY: dict[str, Any] = {
    "model_type": "mert_model",
    "auto_map": {"AutoModel": "modeling_MERT.MERTModel"},
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "conv_dim": [8] * 7,
    "conv_kernel": [10, 3, 3, 3, 3, 2, 2],
    "conv_stride": [5, 2, 2, 2, 2, 2, 2],
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "feature_extractor_cqt": False,
    "deepnorm": False,
    "attention_relax": -1.0,
}
# MERT-v1-330M's form: layer norms before the blocks, and in the convolutions.
STABLE: dict[str, Any] = {"do_stable_layer_norm": True, "feat_extract_norm": "layer"}


@pytest.fixture
def windows() -> np.ndarray:
    rng = np.random.default_rng(7)
    return (rng.normal(size=(3, 24_000)) * [[0.1], [0.5], [0.01]] + 0.02).astype(np.float32)


def write_checkpoint(
    folder: Path, *, binary: bool = False, normalize: bool = True, **changes: Any
) -> dict[str, torch.Tensor]:
    """Write a random checkpoint in MERT's on-disk form and return its tensors."""
    config = {**TINY, **changes}
    known = {k: v for k, v in config.items() if k in HubertConfig().to_dict() and k != "model_type"}
    torch.manual_seed(3)
    state = HubertModel(HubertConfig(**known)).state_dict()
    stored = {
        key.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): (torch.randn_like(tensor) * 0.3).contiguous()
        for key, tensor in state.items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"sampling_rate": 24_000, "do_normalize": normalize})
    )
    if binary:
        torch.save(stored, folder / "pytorch_model.bin")
    else:
        save_file(stored, folder / "model.safetensors")
    return stored


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("stable", [False, True])
def test_every_tensor_in_memory_is_the_files(tmp_path: Path, binary: bool, stable: bool) -> None:
    changes = STABLE if stable else {}
    stored = write_checkpoint(tmp_path, binary=binary, **changes)
    model = load_encoder(str(tmp_path), device="cpu").model
    loaded = model.state_dict()
    assert len(loaded) == len(stored)
    position = loaded["encoder.pos_conv_embed.conv.parametrizations.weight.original0"]
    assert torch.equal(position, stored["encoder.pos_conv_embed.conv.weight_g"])
    for key, tensor in stored.items():
        if "weight_" not in key:
            assert torch.equal(loaded[key], tensor), key


@pytest.mark.parametrize("stable", [False, True])
def test_hidden_states_are_those_of_transformers(
    tmp_path: Path, windows: np.ndarray, stable: bool
) -> None:
    changes = STABLE if stable else {}
    write_checkpoint(tmp_path, **changes)
    encoder = load_encoder(str(tmp_path), device="cpu")
    extractor: Any = Wav2Vec2FeatureExtractor(  # type: ignore[no-untyped-call]
        sampling_rate=24_000, do_normalize=True
    )
    prepared = extractor(list(windows), sampling_rate=24_000, return_tensors="pt").input_values
    with torch.inference_mode():
        reference = encoder.model(prepared, output_hidden_states=True).hidden_states
    expected = torch.stack(reference, dim=1).numpy()
    found = encoder.hidden_states(windows)
    assert found.shape == expected.shape == (3, 4, 74, 16)
    for layer in range(4):
        scale = np.abs(expected[:, layer]).max()
        assert np.abs(found[:, layer] - expected[:, layer]).max() <= 1e-4 * scale
    np.testing.assert_allclose(encoder.pooled(windows), found.mean(axis=2), atol=1e-5)


def test_a_batch_of_one_equals_a_batch_of_many(demo: MertEncoder, windows: np.ndarray) -> None:
    together = demo.pooled(windows)
    alone = np.concatenate([demo.pooled(window[None]) for window in windows])
    np.testing.assert_allclose(alone, together, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("normalize", [False, True])
def test_windows_are_normalised_when_the_checkpoint_says_so(
    tmp_path: Path, windows: np.ndarray, normalize: bool
) -> None:
    write_checkpoint(tmp_path, normalize=normalize, feat_extract_norm="layer")
    encoder = load_encoder(str(tmp_path), device="cpu")
    change = np.abs(encoder.pooled(windows) - encoder.pooled(windows + np.float32(0.2))).max()
    assert (change < 1e-3) == normalize


@pytest.mark.parametrize("part", ["feature_extractor_cqt", "deepnorm"])
def test_parts_that_hubert_lacks_are_refused(tmp_path: Path, part: str) -> None:
    write_checkpoint(tmp_path, **{part: True})
    with pytest.raises(EncoderError, match=f"{part} is True"):
        load_encoder(str(tmp_path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("missing", r"missing 1 tensors \(encoder\.layers\.0\.layer_norm\.bias\)"),
        ("left over", r"left over 1 tensors \(extra\)"),
        ("shape", r"encoder\.layers\.0\.layer_norm\.bias has the shape \(5,\)"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(
    tmp_path: Path, change: str, message: str
) -> None:
    stored = write_checkpoint(tmp_path)
    name = "encoder.layers.0.layer_norm.bias"
    if change == "missing":
        del stored[name]
    elif change == "left over":
        stored["extra"] = torch.zeros(1)
    else:
        stored[name] = torch.zeros(5)
    save_file(stored, tmp_path / "model.safetensors")
    with pytest.raises(EncoderError, match=message):
        load_encoder(str(tmp_path))


def test_a_damaged_or_missing_weights_file_is_named(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(EncoderError, match=r"model\.safetensors cannot be read"):
        load_encoder(str(tmp_path))
    weights.unlink()
    with pytest.raises(EncoderError, match="holds no weights"):
        load_encoder(str(tmp_path))


def test_pickled_weights_run_no_code(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, binary=True)

    class Harm:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "harmed",))

    torch.save({"a": Harm()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(EncoderError, match=r"pytorch_model\.bin cannot be read"):
        load_encoder(str(tmp_path))
    assert not (tmp_path / "harmed").exists()


def test_values_that_are_not_finite_are_an_error(demo: MertEncoder) -> None:
    with pytest.raises(EncoderError, match="not finite"):
        demo.pooled(np.full((1, 24_000), np.nan, np.float32))
    with pytest.raises(EncoderError, match="expected"):
        demo.pooled(np.zeros(24_000, np.float32))


def test_unknown_names_and_folders_say_what_exists(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match=r"did you mean 'MERT-v1-95M'"):
        resolve_spec("MERT-v1-95")
    write_checkpoint(tmp_path / "mine", hidden_size=32)
    spec = resolve_spec(str(tmp_path / "mine"))
    assert (spec.name, spec.layers, spec.dims, spec.frame_rate) == ("mine", 4, 32, 75.0)


def test_a_hub_model_without_hub_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(EncoderError, match="hf download m-a-p/MERT-v1-95M"):
        load_encoder("MERT-v1-95M")


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> MertEncoder:
    return load_encoder(DEMO_ENCODER, models=tmp_path_factory.mktemp("models"), device="cpu")


def test_the_bundled_encoder_has_merts_form_and_pinned_bytes(
    tmp_path: Path, demo: MertEncoder
) -> None:
    folder = make_demo_encoder(tmp_path / "demo")
    assert file_sha256(folder / "model.safetensors") == MODELS[DEMO_ENCODER].weights_sha256
    assert json.loads((folder / "config.json").read_text())["model_type"] == "mert_model"
    assert "encoder.pos_conv_embed.conv.weight_g" in load_file(folder / "model.safetensors")
    assert not demo.spec.trained
    states = demo.hidden_states(np.random.default_rng(0).normal(size=(1, 120_000)).astype("f4"))
    assert states.shape == (1, 13, 374, demo.spec.dims)
    steps = np.abs(np.diff(states, axis=1)).mean(axis=(0, 2, 3))
    assert steps.min() > 0.01, "every layer changes something"


def test_a_changed_bundled_file_is_noticed(tmp_path: Path) -> None:
    weights = make_demo_encoder(tmp_path / DEMO_ENCODER) / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(EncoderError, match="SHA-256"):
        load_encoder(DEMO_ENCODER, models=tmp_path)


def test_golden_features_of_the_stage(demo: MertEncoder) -> None:
    """Fails when features change: then raise `stages.FEATURES` and store the new values here."""
    times = np.arange(120_000) / 24_000
    window = (0.3 * np.sin(2 * np.pi * 440 * times) * np.exp(-times)).astype(np.float32)
    pooled = demo.pooled(window[None])[0]
    golden = json.loads((Path(__file__).parent / "golden_features.json").read_text())
    assert golden["stage"] == stages.FEATURES
    np.testing.assert_allclose(pooled[::4, ::8], golden["pooled"], rtol=1e-3, atol=1e-4)
    assert hashlib.sha256(window.tobytes()).hexdigest() == golden["window_sha256"]
