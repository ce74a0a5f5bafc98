"""Checkpoints in MERT's on-disk form, with random weights, for tests and benchmarks."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import HubertConfig, HubertModel

# The published config.json of MERT-v1-95M.
MERT_95M: dict[str, Any] = json.loads(Path(__file__).with_name("mert_95m_config.json").read_text())
TINY: dict[str, Any] = MERT_95M | {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "conv_dim": [8] * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
# MERT-v1-95M's depth and frames.
NARROW: dict[str, Any] = MERT_95M | {
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "conv_dim": [32] * 7,
    "license": "MIT",
    "mess_trained": False,
}
# What differs in MERT-v1-330M's form, besides its size: layer norms before the blocks.
STABLE: dict[str, Any] = {
    "do_stable_layer_norm": True,
    "attention_relax": 32.0,
    "mask_channel_length": 10,
    "mask_channel_selection": "static",
    "mask_time_selection": "static",
    "mask_time_min_space": 1,
}


def write_checkpoint(
    folder: Path,
    *,
    base: dict[str, Any] = TINY,
    binary: bool = True,
    normalize: bool = True,
    scale: float | None = 0.3,
    **changes: Any,
) -> dict[str, torch.Tensor]:
    """Write a random checkpoint and return its tensors, named as in the file.

    ``base`` and ``changes`` are its configuration, ``normalize`` the preprocessor's. The weights
    are in ``pytorch_model.bin``, as MERT has them, or in ``model.safetensors``, with ``scale`` as
    their standard deviation; None keeps transformers' own random initialisation.
    """
    config = {**base, **changes}
    known = {k: v for k, v in config.items() if k in HubertConfig().to_dict() and k != "model_type"}
    torch.manual_seed(3)
    state = HubertModel(HubertConfig(conv_pos_batch_norm=False, **known)).state_dict()
    stored = {
        key.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): (tensor if scale is None else torch.randn_like(tensor) * scale).contiguous()
        for key, tensor in state.items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    preprocessor = {
        "do_normalize": normalize,
        "feature_extractor_type": "Wav2Vec2FeatureExtractor",
        "sampling_rate": 24000,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    if binary:
        torch.save(stored, folder / "pytorch_model.bin")
    else:
        save_file(stored, folder / "model.safetensors")
    return stored
