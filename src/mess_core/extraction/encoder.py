"""MERT as a HuBERT, loaded without remote code, and the load proved tensor by tensor.

MERT-v1 checkpoints are HuBERT checkpoints (Li et al. 2024; the config has no constant-Q front end
and no deep norm). They are read into transformers' own `HubertModel`, and then every tensor of the
checkpoint is compared with the one in memory, because published ways of loading them leave the
positional convolution randomly initialised without saying so.

Hidden state 0 is the transformer's input (after feature projection, positional convolution and
layer norm); hidden state ``i`` is the output of transformer layer ``i``. This is what `HubertModel`
returns with ``output_hidden_states=True`` under transformers 5; for models with
``do_stable_layer_norm`` (330M) the last one is therefore *before* the final layer norm.
"""

__all__ = ["MertEncoder", "load_encoder"]

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file
from transformers import HubertConfig, HubertModel

from mess_core.errors import EncoderError
from mess_core.extraction.bundled import make_demo_encoder
from mess_core.extraction.specs import MertSpec, read_model_json, resolve_spec
from mess_core.files import file_sha256

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_REFUSED = ("feature_extractor_cqt", "deepnorm")
# Wav2Vec2FeatureExtractor's constant, by which MERT's inputs are normalised.
_VARIANCE_FLOOR = 1e-7

Reduce = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class MertEncoder:
    """A loaded encoder.

    Attributes
    ----------
    spec : MertSpec
        Its facts, with the weights' SHA-256.
    model : transformers.HubertModel
        In evaluation mode on ``device``.
    normalize : bool
        Whether every window is brought to mean 0 and variance 1 first (``do_normalize``).
    device : torch.device
        Where it runs.
    """

    spec: MertSpec
    model: HubertModel
    normalize: bool
    device: torch.device

    def hidden_states(self, windows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return all hidden states.

        Parameters
        ----------
        windows : ndarray [shape=(n, samples)]
            Mono windows of equal length at ``spec.sample_rate``.

        Returns
        -------
        ndarray of float32 [shape=(n, layers, time, dims)]

        Raises
        ------
        EncoderError
            If the windows are not two-dimensional or the model gives values that are not finite.
        """
        return self._run(windows, lambda state: state)

    def pooled(self, windows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the mean over time of all hidden states, never holding the time axis of all.

        Parameters
        ----------
        windows : ndarray [shape=(n, samples)]
            As in `hidden_states`.

        Returns
        -------
        ndarray of float32 [shape=(n, layers, dims)]

        Raises
        ------
        EncoderError
            As `hidden_states`.
        """
        return self._run(windows, lambda state: state.mean(dim=1))

    def _run(self, windows: npt.NDArray[np.float32], reduce: Reduce) -> npt.NDArray[np.float32]:
        if windows.ndim != 2:
            raise EncoderError(f"windows have the shape {windows.shape}, expected [n, samples]")
        states: list[torch.Tensor] = []
        layers = self.model.encoder.layers
        hooks = [
            layers[0].register_forward_pre_hook(lambda _, inputs: states.append(reduce(inputs[0])))
        ]
        hooks += [
            layer.register_forward_hook(lambda _, __, output: states.append(reduce(output)))
            for layer in layers
        ]
        try:
            with torch.inference_mode():
                self.model(self._prepare(windows))
                result = torch.stack(states, dim=1).float().cpu().numpy()
        finally:
            for hook in hooks:
                hook.remove()
        if not np.isfinite(result).all():
            raise EncoderError(
                f"{self.spec.name} gives values that are not finite for a batch of {len(windows)} "
                "windows; run it in float32"
            )
        return np.asarray(result, np.float32)

    def _prepare(self, windows: npt.NDArray[np.float32]) -> torch.Tensor:
        samples = torch.from_numpy(np.ascontiguousarray(windows)).to(self.device)
        if not self.normalize:
            return samples
        variance, mean = torch.var_mean(samples, dim=1, correction=0, keepdim=True)
        return (samples - mean) / torch.sqrt(variance + _VARIANCE_FLOOR)


def load_encoder(
    name: str, *, models: Path = Path("data/models"), device: str = "auto"
) -> MertEncoder:
    """Load an encoder and prove that it is exactly its checkpoint.

    Parameters
    ----------
    name : str
        A name in `specs.MODELS` or a local folder in MERT's on-disk form.
    models : Path
        Where the bundled encoder's folder is made.
    device : str
        ``auto`` (CUDA, else MPS, else CPU) or a torch device.

    Returns
    -------
    MertEncoder

    Raises
    ------
    EncoderError
        If the model is not to be had, asks for parts that HuBERT does not have, or any tensor is
        missing, left over, of another shape or of another value than in the checkpoint.
    """
    spec = resolve_spec(name)
    folder = _folder(spec, models)
    weights = _weights_file(folder)
    sha256 = file_sha256(weights)
    if spec.weights_sha256 not in (None, sha256):
        raise EncoderError(
            f"{weights}: its SHA-256 is {sha256}, {spec.name} has {spec.weights_sha256}; "
            "remove the folder and get it again"
        )
    config = read_model_json(folder / "config.json")
    _refuse_foreign_parts(folder, config)
    model = _load_verified(weights, _hubert_config(config))
    normalize = bool(read_model_json(folder / "preprocessor_config.json").get("do_normalize", True))
    where = torch.device(_pick_device() if device == "auto" else device)
    return MertEncoder(
        spec=replace(spec, weights_sha256=sha256),
        model=model.train(False).to(device=where),
        normalize=normalize,
        device=where,
    )


def _pick_device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _folder(spec: MertSpec, models: Path) -> Path:
    if spec.source == "bundled":
        return make_demo_encoder(models / spec.name)
    if spec.source == "folder":
        return Path(spec.location).expanduser()
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    wanted = ["config.json", "preprocessor_config.json", *_WEIGHTS]
    try:
        return Path(snapshot_download(spec.location, revision=spec.revision, allow_patterns=wanted))
    except (LocalEntryNotFoundError, OSError) as error:
        raise EncoderError(
            f"{spec.name} is neither in the hub's cache nor can it be fetched "
            f"({type(error).__name__}). With a network: "
            f"`hf download {spec.location} --revision {spec.revision}`. Without one: copy the "
            "model's folder here and set `encoder:` to its path"
        ) from None


def _weights_file(folder: Path) -> Path:
    for name in _WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    raise EncoderError(f"{folder} holds no weights; expected {' or '.join(_WEIGHTS)}")


def _refuse_foreign_parts(folder: Path, config: dict[str, Any]) -> None:
    for part in _REFUSED:
        if config.get(part):
            raise EncoderError(
                f"{folder / 'config.json'}: {part} is {config[part]!r}, which HuBERT does not "
                "have; only checkpoints without it can be loaded exactly"
            )


def _hubert_config(config: dict[str, Any]) -> HubertConfig:
    known = set(HubertConfig().to_dict())
    facts = {key: value for key, value in config.items() if key in known and key != "model_type"}
    # transformers 4.48 on reads it for every HuBERT, and MERT's configs do not have it.
    facts.setdefault("conv_pos_batch_norm", False)
    return HubertConfig(**facts)


def _load_verified(weights: Path, config: HubertConfig) -> HubertModel:
    stored = {_modern(key): tensor for key, tensor in _read_weights(weights).items()}
    model = HubertModel(config)
    expected = model.state_dict()
    missing, left_over = expected.keys() - stored.keys(), stored.keys() - expected.keys()
    if missing or left_over:
        raise EncoderError(
            f"{weights} does not fit the model: missing {_some(missing)}; left over "
            f"{_some(left_over)}. It is no checkpoint of MERT's form, or the "
            "config.json is another's"
        )
    for key, tensor in stored.items():
        if tensor.shape != expected[key].shape:
            raise EncoderError(
                f"{weights}: {key} has the shape {tuple(tensor.shape)}, the configuration asks for "
                f"{tuple(expected[key].shape)}"
            )
    model.load_state_dict(stored)
    for key, tensor in model.state_dict().items():
        if not torch.equal(tensor, stored[key].to(tensor.dtype)):
            raise EncoderError(f"{weights}: {key} differs in memory from the file after loading")
    return model


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


def _some(names: set[str]) -> str:
    shown = ", ".join(sorted(names)[:3])
    return f"{len(names)} tensors ({shown}{', ...' if len(names) > 3 else ''})" if names else "none"
