"""A look inside an encoder: what it is made of, and what its layers do with a window."""

__all__ = ["inspect_model", "trace_activations"]

from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

import numpy as np
import numpy.typing as npt

from mess_core.errors import EncoderError
from mess_core.extraction.checkpoint import find_checkpoint
from mess_core.extraction.encoder import MertEncoder, load_encoder

if TYPE_CHECKING:
    from torch.nn import Module

#: What can be inspected.
Model = Union[MertEncoder, str, Path, "Module"]

_MODELS = Path("data/models")


def inspect_model(encoder: Model, *, models: Path = _MODELS) -> dict[str, Any]:
    """Describe a model in plain numbers.

    Parameters
    ----------
    encoder : MertEncoder, str, Path or torch.nn.Module
        A loaded encoder, what `load_encoder` takes, or transformers' model.
    models : Path
        Where models are kept.

    Returns
    -------
    dict
        ``class``; ``layers`` (hidden states: transformer layers + 1) and ``dims``, None where the
        module has no transformers configuration; ``parameters`` (numbers in all tensors that are
        parameters); ``modules``: per module that owns parameters itself its ``name``, ``class``,
        ``parameters`` and their ``shapes`` by name, in the model's order.

    Raises
    ------
    EncoderError
        If the encoder cannot be had, or is no torch module.
    """
    module = _module(encoder, models)
    config = getattr(module, "config", None)
    depth = getattr(config, "num_hidden_layers", None)
    return {
        "class": type(module).__name__,
        "layers": None if depth is None else depth + 1,
        "dims": getattr(config, "hidden_size", None),
        "parameters": sum(parameter.numel() for parameter in module.parameters()),
        "modules": [
            _describe(name, part)
            for name, part in module.named_modules()
            if any(True for _ in part.parameters(recurse=False))
        ],
    }


def _describe(name: str, part: "Module") -> dict[str, Any]:
    own = list(part.named_parameters(recurse=False))
    return {
        "name": name,
        "class": type(part).__name__,
        "parameters": sum(parameter.numel() for _, parameter in own),
        "shapes": {key: list(parameter.shape) for key, parameter in own},
    }


def _module(encoder: Model, models: Path) -> "Module":
    if isinstance(encoder, (str, Path)):
        checkpoint = find_checkpoint(str(encoder), models=models)
    elif isinstance(encoder, MertEncoder):
        checkpoint = encoder.checkpoint
    elif hasattr(encoder, "named_modules"):
        return encoder
    else:
        raise EncoderError(f"{type(encoder).__name__} is no encoder and no torch module")
    from mess_core.extraction.torch_engine import load_hubert

    return load_hubert(checkpoint)


def trace_activations(
    encoder: Model, samples: npt.NDArray[np.floating], *, models: Path = _MODELS
) -> list[dict[str, Any]]:
    """Summarise what each layer gives for a window.

    Parameters
    ----------
    encoder : MertEncoder, str, Path or torch.nn.Module
        As in `inspect_model`. An encoder prepares samples as for features; a bare module gets them
        as they are.
    samples : ndarray [shape=(n,)]
        Mono samples at the encoder's rate.
    models : Path
        Where models are kept.

    Returns
    -------
    list of dict
        Per hidden state ``layer``, ``frames``, ``dims``, ``mean``, ``std``, ``min``, ``max`` of
        all its numbers, and ``norm``, the mean Euclidean length of its frames.

    Raises
    ------
    EncoderError
        If the encoder cannot be had, the samples are not one-dimensional, or the module gives no
        hidden states.
    """
    if samples.ndim != 1 or not len(samples):
        raise EncoderError(f"samples have the shape {samples.shape}, expected one window [n]")
    window = np.asarray(samples, np.float32)[np.newaxis]
    if isinstance(encoder, (str, Path)):
        encoder = load_encoder(str(encoder), models=models)
    if isinstance(encoder, MertEncoder):
        states = encoder.hidden_states(window)[0]
    else:
        states = _hidden_states(_module(encoder, models), window)
    return [_summary(layer, state) for layer, state in enumerate(states)]


def _hidden_states(module: "Module", window: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    import torch

    parameter = next(module.parameters())
    was_training = module.training
    try:
        with torch.inference_mode():
            output = module.eval()(
                torch.from_numpy(window).to(parameter.device, parameter.dtype),
                output_hidden_states=True,
            )
    finally:
        module.train(was_training)
    if output.hidden_states is None:
        raise EncoderError(f"{type(module).__name__} gives no hidden states")
    return np.asarray(torch.cat(output.hidden_states).float().cpu().numpy(), np.float32)


def _summary(layer: int, state: npt.NDArray[np.float32]) -> dict[str, Any]:
    wide = state.astype(np.float64)
    return {
        "layer": layer,
        "frames": wide.shape[0],
        "dims": wide.shape[1],
        "mean": float(wide.mean()),
        "std": float(wide.std()),
        "norm": float(np.linalg.norm(wide, axis=1).mean()),
        "min": float(wide.min()),
        "max": float(wide.max()),
    }
