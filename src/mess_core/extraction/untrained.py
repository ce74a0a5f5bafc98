"""An untrained twin: an encoder of the same shape whose weights are drawn from a seed.

What its layers tell about music is what convolutions, attention and pooling give for nothing. Only
what a trained encoder knows beyond its twin was learned. The weights are those of transformers' own
initialisation, from which training starts too.
"""

__all__ = ["make_untrained"]

from pathlib import Path

import torch
from safetensors.torch import save
from transformers import HubertConfig, HubertModel

from mess_core.extraction.checkpoint import Checkpoint
from mess_core.extraction.specs import read_model_json
from mess_core.files import write_bytes, write_json

_SEED = 2026


def make_untrained(checkpoint: Checkpoint, folder: Path) -> Path:
    """Write an untrained encoder of the same shape in MERT's on-disk form.

    Parameters
    ----------
    checkpoint : Checkpoint
        The encoder whose configuration and normalisation are taken over.
    folder : Path
        Gets ``config.json`` (with ``mess_trained: false``), ``preprocessor_config.json`` and
        ``model.safetensors``.

    Returns
    -------
    Path
        The folder.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        tensors = HubertModel(HubertConfig(**checkpoint.config)).state_dict()
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    write_bytes(folder / "model.safetensors", save(contiguous, metadata={"format": "pt"}))
    write_json(
        folder / "preprocessor_config.json",
        read_model_json(checkpoint.folder / "preprocessor_config.json"),
    )
    config = read_model_json(checkpoint.folder / "config.json")
    write_json(folder / "config.json", {**config, "mess_trained": False})
    return folder
