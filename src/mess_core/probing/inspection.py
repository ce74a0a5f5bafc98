"""A look inside an encoder: what it is made of, and what its layers do with a window.

Both functions take a torch module (such as `transformers.HubertModel`) or an object that has one
as its attribute ``model`` (such as `mess_core.extraction.MertEncoder`). torch is imported only
when a module has to be run.
"""

__all__ = ["inspect_model", "trace_activations"]

from typing import Any

import numpy as np
import numpy.typing as npt

from mess_core.errors import EncoderError


def inspect_model(encoder: Any) -> dict[str, Any]:
    """Describe a model in plain numbers.

    Parameters
    ----------
    encoder : torch.nn.Module or object with ``.model``
        The model.

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
        If there is no torch module.
    """
    module = _module(encoder)
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


def _describe(name: str, part: Any) -> dict[str, Any]:
    own = list(part.named_parameters(recurse=False))
    return {
        "name": name,
        "class": type(part).__name__,
        "parameters": sum(parameter.numel() for _, parameter in own),
        "shapes": {key: list(parameter.shape) for key, parameter in own},
    }


def trace_activations(encoder: Any, samples: npt.NDArray[np.floating]) -> list[dict[str, Any]]:
    """Summarise what each layer gives for a window.

    Parameters
    ----------
    encoder : torch.nn.Module or object with ``.model``
        The model. An object with a method ``hidden_states`` (windows ``[n, samples]`` to
        ``[n, layers, time, dims]``) is asked through it, so that samples are prepared as for
        features; a bare module gets the samples as they are.
    samples : ndarray [shape=(n,)]
        Mono samples at the encoder's rate.

    Returns
    -------
    list of dict
        Per hidden state ``layer``, ``frames``, ``dims``, ``mean``, ``std``, ``min``, ``max`` of
        all its numbers, and ``norm``, the mean Euclidean length of its frames.

    Raises
    ------
    EncoderError
        If there is no torch module, the samples are not one-dimensional, or the module gives no
        hidden states.
    """
    module = _module(encoder)
    if samples.ndim != 1 or not len(samples):
        raise EncoderError(f"samples have the shape {samples.shape}, expected one window [n]")
    window = np.asarray(samples, np.float32)[np.newaxis]
    if hasattr(encoder, "hidden_states"):
        states = encoder.hidden_states(window)[0]
    else:
        states = _hidden_states(module, window)
    return [_summary(layer, state) for layer, state in enumerate(states)]


def _module(encoder: Any) -> Any:
    for candidate in (encoder, getattr(encoder, "model", None)):
        if hasattr(candidate, "named_modules"):
            return candidate
    raise EncoderError(
        f"{type(encoder).__name__} is no torch module and has none as its attribute 'model'"
    )


def _hidden_states(module: Any, window: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
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
