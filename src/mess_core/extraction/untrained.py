"""Encoders with weights from a seed: the bundled small one, and a twin of any other.

The bundled one lets the demo and the tests run everything without a model hub. It has
MERT-v1-95M's seven convolutions (strides 5, 2, 2, 2, 2, 2, 2: 374 frames in 5 s at 24 kHz) and
twelve transformer layers, with 32 channels instead of 512 and 48 dimensions instead of 768. What it
finds similar is what random filters find similar: results show that the chain works, not what MERT
knows.

A twin has the shape of a trained encoder and weights of transformers' own initialisation, from
which training starts too. Only what a trained encoder knows beyond its twin was learned.
"""

__all__ = ["make_demo_encoder", "make_untrained"]

import hashlib
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save

from mess_core.extraction.specs import DEMO_ENCODER, MODELS, read_model_json
from mess_core.files import write_bytes, write_json

if TYPE_CHECKING:
    from mess_core.extraction.checkpoint import Checkpoint

_SEED = 2026
_DIMS = MODELS[DEMO_ENCODER].dims
_CHANNELS = 32
_FEED_FORWARD = 96
_LAYERS = MODELS[DEMO_ENCODER].layers - 1
_KERNELS = (10, 3, 3, 3, 3, 2, 2)
_STRIDES = (5, 2, 2, 2, 2, 2, 2)
_POSITION_KERNEL = 128
_POSITION_GROUPS = 16

_CONFIG: dict[str, Any] = {
    "architectures": ["MERTModel"],
    "auto_map": {
        "AutoConfig": "configuration_MERT.MERTConfig",
        "AutoModel": "modeling_MERT.MERTModel",
    },
    "model_type": "mert_model",
    "hidden_size": _DIMS,
    "intermediate_size": _FEED_FORWARD,
    "num_hidden_layers": _LAYERS,
    "num_attention_heads": 4,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-05,
    "feat_extract_norm": "group",
    "feat_extract_activation": "gelu",
    "feat_proj_layer_norm": True,
    "conv_bias": False,
    "conv_dim": [_CHANNELS] * len(_KERNELS),
    "conv_kernel": list(_KERNELS),
    "conv_stride": list(_STRIDES),
    "num_conv_pos_embeddings": _POSITION_KERNEL,
    "num_conv_pos_embedding_groups": _POSITION_GROUPS,
    "do_stable_layer_norm": False,
    "feature_extractor_cqt": False,
    "deepnorm": False,
    "attention_relax": -1.0,
    "mask_time_prob": 0.0,
    "license": "MIT",
    "mess_trained": False,
}

_PREPROCESSOR: dict[str, Any] = {
    "do_normalize": True,
    "feature_extractor_type": "Wav2Vec2FeatureExtractor",
    "feature_size": 1,
    "padding_side": "right",
    "padding_value": 0,
    "return_attention_mask": True,
    "sampling_rate": MODELS[DEMO_ENCODER].sample_rate,
}


def make_demo_encoder(folder: Path) -> Path:
    """Write the bundled encoder in MERT's on-disk form, and return its folder.

    It gets ``config.json``, ``preprocessor_config.json`` and ``model.safetensors``, the same bytes
    on every machine. A folder that has them already is left as it is.
    """
    weights = folder / "model.safetensors"
    if not weights.exists():
        write_json(folder / "config.json", _CONFIG)
        write_json(folder / "preprocessor_config.json", _PREPROCESSOR)
        write_bytes(weights, save(_tensors(), metadata={"format": "pt"}))
    return folder


def _tensors() -> dict[str, npt.NDArray[np.float32]]:
    tensors: dict[str, npt.NDArray[np.float32]] = {}

    def weight(name: str, *shape: int) -> None:
        tensors[f"{name}.weight"] = _uniform(name, shape)

    def linear(name: str, outputs: int, inputs: int) -> None:
        weight(name, outputs, inputs)
        tensors[f"{name}.bias"] = np.zeros(outputs, np.float32)

    def norm(name: str, size: int) -> None:
        tensors[f"{name}.weight"] = np.ones(size, np.float32)
        tensors[f"{name}.bias"] = np.zeros(size, np.float32)

    for i, kernel in enumerate(_KERNELS):
        weight(f"feature_extractor.conv_layers.{i}.conv", _CHANNELS, _CHANNELS if i else 1, kernel)
    norm("feature_extractor.conv_layers.0.layer_norm", _CHANNELS)
    norm("feature_projection.layer_norm", _CHANNELS)
    linear("feature_projection.projection", _DIMS, _CHANNELS)
    _position(tensors)
    norm("encoder.layer_norm", _DIMS)
    for i in range(_LAYERS):
        layer = f"encoder.layers.{i}"
        for part in ("k_proj", "v_proj", "q_proj", "out_proj"):
            linear(f"{layer}.attention.{part}", _DIMS, _DIMS)
        norm(f"{layer}.layer_norm", _DIMS)
        linear(f"{layer}.feed_forward.intermediate_dense", _FEED_FORWARD, _DIMS)
        linear(f"{layer}.feed_forward.output_dense", _DIMS, _FEED_FORWARD)
        norm(f"{layer}.final_layer_norm", _DIMS)
    return dict(sorted(tensors.items()))


def _position(tensors: dict[str, npt.NDArray[np.float32]]) -> None:
    """Add the weight-normalised positional convolution, stored as direction v and length g."""
    name = "encoder.pos_conv_embed.conv"
    inputs = _DIMS // _POSITION_GROUPS
    tensors[f"{name}.weight_v"] = _uniform(name, (_DIMS, inputs, _POSITION_KERNEL))
    # The norm of a [dims, inputs] slice of weights with variance 1 / (inputs * kernel).
    length = math.sqrt(_DIMS / _POSITION_KERNEL)
    tensors[f"{name}.weight_g"] = np.full((1, 1, _POSITION_KERNEL), length, np.float32)
    tensors[f"{name}.bias"] = np.zeros(_DIMS, np.float32)


def _uniform(name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Draw uniform weights of variance 2 / fan-in from a seed of the tensor's own.

    Integers scaled by a power of two and one product: the same bits on every machine.
    """
    seed = hashlib.sha256(json.dumps([_SEED, name]).encode()).digest()
    rng = np.random.default_rng(int.from_bytes(seed[:8], "little"))
    unit = rng.integers(-(2**23), 2**23, size=shape, dtype=np.int64).astype(np.float32) / 2**23
    bound = math.sqrt(6 / math.prod(shape[1:]))
    return np.asarray(unit * np.float32(bound), np.float32)


def make_untrained(checkpoint: "Checkpoint", folder: Path) -> Path:
    """Write an encoder of a checkpoint's shape and normalisation with untrained weights.

    ``folder``, which is returned, gets ``config.json`` (with ``mess_trained: false``),
    ``preprocessor_config.json`` and ``model.safetensors``.
    """
    import torch
    from safetensors.torch import save as save_tensors
    from transformers import HubertConfig, HubertModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        tensors = HubertModel(HubertConfig(**checkpoint.config)).state_dict()
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    write_bytes(folder / "model.safetensors", save_tensors(contiguous, metadata={"format": "pt"}))
    write_json(
        folder / "preprocessor_config.json",
        read_model_json(checkpoint.folder / "preprocessor_config.json"),
    )
    config = read_model_json(checkpoint.folder / "config.json")
    write_json(folder / "config.json", {**config, "mess_trained": False})
    return folder
