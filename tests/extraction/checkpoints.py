"""Checkpoints in MERT's on-disk form, with random weights, for tests and benchmarks."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import HubertConfig, HubertModel

# The published config.json of MERT-v1-95M, key for key, but for what `TINY` makes small.
MERT_95M: dict[str, Any] = {
    "_name_or_path": "m-a-p/MERT-v1-95M",
    "activation_dropout": 0.0,
    "apply_spec_augment": True,
    "architectures": ["MERTModel"],
    "attention_dropout": 0.1,
    "attention_relax": -1.0,
    "auto_map": {
        "AutoConfig": "configuration_MERT.MERTConfig",
        "AutoModel": "modeling_MERT.MERTModel",
    },
    "bos_token_id": 1,
    "classifier_proj_size": 256,
    "conv_bias": False,
    "conv_dim": [512] * 7,
    "conv_kernel": [10, 3, 3, 3, 3, 2, 2],
    "conv_stride": [5, 2, 2, 2, 2, 2, 2],
    "ctc_loss_reduction": "sum",
    "ctc_zero_infinity": False,
    "deepnorm": False,
    "do_stable_layer_norm": False,
    "eos_token_id": 2,
    "feat_extract_activation": "gelu",
    "feat_extract_dropout": 0.0,
    "feat_extract_norm": "group",
    "feat_proj_dropout": 0.1,
    "feat_proj_layer_norm": True,
    "feature_extractor_cqt": False,
    "feature_extractor_cqt_bins": 336,
    "final_dropout": 0.1,
    "gradient_checkpointing": False,
    "hidden_act": "gelu",
    "hidden_dropout": 0.1,
    "hidden_dropout_prob": 0.1,
    "hidden_size": 768,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-05,
    "layerdrop": 0.05,
    "mask_feature_length": 10,
    "mask_feature_min_masks": 0,
    "mask_feature_prob": 0.0,
    "mask_time_length": 10,
    "mask_time_min_masks": 2,
    "mask_time_prob": 0.05,
    "model_type": "mert_model",
    "num_attention_heads": 12,
    "num_conv_pos_embedding_groups": 16,
    "num_conv_pos_embeddings": 128,
    "num_feat_extract_layers": 7,
    "num_hidden_layers": 12,
    "pad_token_id": 0,
    "sample_rate": 24000,
    "tokenizer_class": "Wav2Vec2CTCTokenizer",
    "torch_dtype": "float32",
    "transformers_version": "4.24.0",
    "use_weighted_layer_sum": False,
    "vocab_size": 32,
}
TINY: dict[str, Any] = MERT_95M | {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "conv_dim": [8] * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
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

    Parameters
    ----------
    folder : Path
        Gets the model's files.
    base, changes
        Its configuration.
    binary : bool
        ``pytorch_model.bin``, as MERT has it, or ``model.safetensors``.
    normalize : bool
        The preprocessor's ``do_normalize``.
    scale : float or None
        Standard deviation of all weights; None keeps transformers' own random initialisation.
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
    (folder / "preprocessor_config.json").write_text(
        json.dumps(
            {
                "do_normalize": normalize,
                "feature_extractor_type": "Wav2Vec2FeatureExtractor",
                "feature_size": 1,
                "padding_side": "right",
                "padding_value": 0,
                "return_attention_mask": True,
                "sampling_rate": 24000,
            }
        )
    )
    if binary:
        torch.save(stored, folder / "pytorch_model.bin")
    else:
        save_file(stored, folder / "model.safetensors")
    return stored
