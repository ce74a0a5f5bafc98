"""MERT as transformers' HuBERT, without remote code, and the load proved tensor by tensor.

After loading, every tensor of the file is compared with the one in memory, because published ways
of loading MERT leave the positional convolution randomly initialised without saying so. torch runs
the model on CUDA and MPS, and on CPUs where OpenVINO cannot.
"""

__all__ = [
    "HiddenStates",
    "TorchEngine",
    "half_precision",
    "load_module",
    "load_states",
    "make_module",
]

import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file
from transformers import HubertConfig, HubertModel

from mess_core.errors import EncoderError
from mess_core.extraction.checkpoint import Checkpoint
from mess_core.extraction.encoder import Output
from mess_core.extraction.small import SmallEncoder, SmallStates

_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
# Wav2Vec2FeatureExtractor's constant, by which MERT's inputs are normalised.
_VARIANCE_FLOOR = 1e-7


class TorchEngine:
    """A checkpoint's model on one torch device; see `encoder.Engine`.

    In ``bfloat16`` and ``float16`` matrix products run in that type, norms, softmax and pooling in
    float32 (torch's autocast). ``threads`` are the CPU's, by default as many as torch takes.
    """

    def __init__(
        self, checkpoint: Checkpoint, *, device: str, precision: str, threads: int | None = None
    ) -> None:
        if precision == "float16" and device == "cpu":
            raise EncoderError("float16 needs a GPU; on a CPU use bfloat16 or float32")
        if threads:
            torch.set_num_threads(threads)
        self.name = f"torch {torch.__version__.partition('+')[0]}"
        self.device = device
        self.precision = precision
        self._device = torch.device(device)
        self._turn = threading.Lock()
        self._module = load_states(checkpoint).to(self._device)

    def run(self, windows: npt.NDArray[np.float32], *, raw: bool = False) -> Output:
        """Run windows; see `encoder.Engine`."""
        half = _DTYPES.get(self.precision)
        with (
            # The module collects its states as it runs: one thread at a time.
            self._turn,
            torch.inference_mode(),
            torch.autocast(self._device.type, dtype=half, enabled=half is not None),
            # Else CUDA's convolutions round float32 to 10 bits (TensorFloat-32).
            torch.backends.cudnn.flags(enabled=True, allow_tf32=False),
        ):
            self._module.raw = raw
            samples = torch.from_numpy(np.ascontiguousarray(windows)).to(self._device)
            pooled, *frames = [result.cpu().numpy() for result in self._module(samples)]
        return Output(pooled, frames[0] if frames else None)


def half_precision(device: str) -> str | None:
    """Return the half precision that a GPU computes natively, None where that is unknown."""
    if not device.startswith("cuda"):
        return None
    with torch.cuda.device(torch.device(device)):
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"


class HiddenStates(torch.nn.Module):
    """A HuBERT whose output is all its hidden states, pooled while it runs.

    Hidden state 0 is the transformer's input, state ``i`` the output of its layer ``i``: what
    `HubertModel` gives with ``output_hidden_states=True`` under transformers 5. With
    ``do_stable_layer_norm`` (330M) the first is therefore not normalised and the last one is
    *before* the final layer norm (transformers 4 gave it after).

    ``normalize`` brings every window to mean 0 and variance 1 first, ``raw`` adds all frames.
    """

    def __init__(self, model: HubertModel, *, normalize: bool, raw: bool = False) -> None:
        super().__init__()
        self.model = model
        self.normalize = normalize
        self.raw = raw
        self._pooled: list[torch.Tensor] = []
        self._frames: list[torch.Tensor] = []
        layers = model.encoder.layers
        layers[0].register_forward_pre_hook(lambda _, inputs: self._keep(inputs[0]))
        for layer in layers:
            layer.register_forward_hook(lambda _, __, output: self._keep(output))

    def _keep(self, state: torch.Tensor) -> None:
        self._pooled.append(state.float().mean(dim=1))
        if self.raw:
            self._frames.append(state.float())

    def forward(self, windows: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the means over time [shape=(n, layers, dims)] of windows [shape=(n, samples)].

        With ``raw`` also all frames [shape=(n, layers, time, dims)], float32.
        """
        if self.normalize:
            variance, mean = torch.var_mean(windows, dim=1, correction=0, keepdim=True)
            windows = (windows - mean) / torch.sqrt(variance + _VARIANCE_FLOOR)
        try:
            self.model(windows)
            pooled = torch.stack(self._pooled, dim=1)
            return (pooled, torch.stack(self._frames, dim=1)) if self.raw else (pooled,)
        finally:
            self._pooled.clear()
            self._frames.clear()


def load_states(checkpoint: Checkpoint, *, raw: bool = False) -> HiddenStates | SmallStates:
    """Load what gives all hidden states of windows, pooled; with ``raw`` also frame by frame."""
    module = load_module(checkpoint)
    if isinstance(module, SmallEncoder):
        return SmallStates(module, raw=raw)
    return HiddenStates(module, normalize=checkpoint.normalize, raw=raw)


def make_module(checkpoint: Checkpoint) -> HubertModel | SmallEncoder:
    """Make a model of a checkpoint's form, with weights of torch's random numbers."""
    if checkpoint.spec.kind == "small":
        return SmallEncoder()
    return HubertModel(HubertConfig(**checkpoint.config))


def load_module(checkpoint: Checkpoint) -> Any:
    """Load a `HubertModel` or `SmallEncoder` (float32, CPU, evaluation mode).

    Proves that it is exactly the file: a tensor that is missing, left over, of another shape or
    value than in it is an EncoderError.
    """
    weights, small = checkpoint.weights, checkpoint.spec.kind == "small"
    stored = {_modern(key): tensor for key, tensor in _read_weights(weights).items()}
    try:
        with torch.device("cpu" if small else "meta"):
            model = make_module(checkpoint)
    except Exception as error:  # transformers raises many kinds for values that make no model
        raise EncoderError(
            f"{checkpoint.folder / 'config.json'} makes no model ({error}); get it again"
        ) from error
    if not small:
        untold = {name for name, _ in model.named_buffers()} - model.state_dict().keys()
        if untold:
            raise EncoderError(f"{weights}: {', '.join(untold)} of the model are in no checkpoint")
        model.to_empty(device="cpu")
    try:
        model.load_state_dict(stored)
    except RuntimeError as error:  # tensors that are missing, left over or of another shape
        raise EncoderError(
            f"{weights} does not fit the model ({' '.join(str(error).split())[:400]}). It is no "
            "checkpoint of this form, or the config.json is another's"
        ) from None
    for key, tensor in model.state_dict().items():
        if not torch.equal(tensor, stored[key].to(tensor.dtype)):
            raise EncoderError(f"{weights}: {key} differs in memory from the file after loading")
    return model.train(False)


def _read_weights(weights: Path) -> dict[str, torch.Tensor]:
    try:
        if weights.suffix == ".safetensors":
            return dict(load_file(weights))
        return dict(torch.load(weights, map_location="cpu", weights_only=True))
    except Exception as error:  # both readers raise many kinds for a damaged file
        raise EncoderError(f"{weights} cannot be read ({error}); copy it again") from error


def _modern(key: str) -> str:
    """Give a weight-normalised tensor's name as torch >= 2 stores it."""
    for old, new in (("weight_g", "original0"), ("weight_v", "original1")):
        if key.endswith(f".conv.{old}"):
            return key.removesuffix(old) + f"parametrizations.weight.{new}"
    return key
