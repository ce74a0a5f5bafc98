"""A loaded encoder: a checkpoint, proved, on the engine that suits the machine; a look inside it.

``device: auto`` takes CUDA (also AMD's ROCm, which torch calls CUDA), else MPS, else the CPU, and
says why it passed others over. Which GPU a job gets is decided outside: by Snakemake's resources,
Slurm's allocation or ``CUDA_VISIBLE_DEVICES``. torch is imported only where a GPU can exist.
"""

__all__ = [
    "Choice",
    "ConversionError",
    "Encoder",
    "Engine",
    "Output",
    "clear_gpu_cache",
    "inspect_model",
    "load_encoder",
    "pick_device",
    "trace_activations",
]

import os
import re
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from mess_core.errors import EncoderError
from mess_core.extraction.checkpoint import Checkpoint, find_checkpoint
from mess_core.extraction.golden import MIN_COSINE, check_windows, compare
from mess_core.extraction.specs import EncoderSpec, resolve_spec

Floats = npt.NDArray[np.float32]

#: What may be asked for; ``auto`` becomes one of the others.
PRECISIONS = ("auto", "float32", "bfloat16", "float16")

_DEVICE = re.compile(r"mps|cuda(:\d+)?")
_DEV = Path("/dev")
# What the drivers of NVIDIA, of Windows' Linux (WSL) and of AMD put there.
_DRIVER_FILES = ("nvidia*", "dxg", "kfd")


class Output(NamedTuple):
    """What a model makes of n windows; L layers, T frames, D dims.

    ``pooled``, float32 [shape=(n, L, D)], is the mean over the frames of every window; ``raw``,
    float32 [shape=(n, L, T, D)], holds all frames, when they were asked for.
    """

    pooled: Floats
    raw: Floats | None


class Engine(Protocol):
    """A model on a device, which threads may share.

    ``name`` is what runs the model, with its version (``openvino 2026.4.1``), ``device`` is
    ``cpu``, ``cuda:0`` or ``mps``, and ``precision`` that of the matrix products.
    """

    name: str
    device: str
    precision: str

    def run(self, windows: Floats, *, raw: bool = False) -> Output:
        """Run windows [shape=(n, samples)], and give all frames too with ``raw``.

        Raises torch's OutOfMemoryError or a MemoryError where the device's memory does not suffice.
        """
        ...


@dataclass(frozen=True)
class Encoder:
    """A loaded encoder: its facts, what runs it, and the checkpoint that it comes from, if any.

    ``notes`` are what was preferred and could not be had, with the reasons.
    """

    spec: EncoderSpec
    engine: Engine
    checkpoint: Checkpoint | None
    notes: tuple[str, ...] = ()

    @property
    def fingerprint(self) -> str:
        """Of everything that the output depends on, besides its input and precision."""
        known = self.checkpoint.fingerprint if self.checkpoint else self.spec.fingerprint
        assert known is not None
        return known

    def describe(self) -> str:
        """Return one line on what runs where, and one for each of the notes."""
        engine = self.engine
        digest = (self.spec.weights_sha256 or self.fingerprint)[:12]
        line = f"{self.spec.name} ({digest}) on {engine.device}, {engine.precision}, {engine.name}"
        return "\n  not taken: ".join((line, *self.notes))

    def facts(self) -> dict[str, Any]:
        """Return what features must have in common to be compared."""
        names = self.spec.layer_names
        return {
            "name": self.spec.name,
            "revision": self.spec.revision,
            "weights_sha256": self.spec.weights_sha256,
            "fingerprint": self.fingerprint,
            "precision": self.engine.precision,
            "trained": self.spec.trained,
            "licence": self.spec.licence,
            **({"layer_names": list(names)} if names else {}),
        }

    def hidden_states(self, windows: Floats) -> Floats:
        """Return all hidden states [shape=(n, layers, time, dims)], float32.

        ``windows`` [shape=(n, samples)] are mono at ``spec.sample_rate``. Other shapes, and values
        of the model that are not finite, are an EncoderError; so is an encoder without frames.
        """
        self.check_frames()
        frames = self.engine.run(_checked(windows), raw=True).raw
        assert frames is not None
        return self.finite(frames)

    def pooled(self, windows: Floats) -> Floats:
        """Return the mean over time of all hidden states, float32 [shape=(n, layers, dims)].

        Takes and raises the same as `hidden_states`, and needs much less memory.
        """
        return self.finite(self.engine.run(_checked(windows)).pooled)

    def check_frames(self) -> None:
        """Raise an EncoderError if this encoder has no hidden states frame by frame."""
        if not self.spec.frame_rate:
            raise EncoderError(
                f"{self.spec.name} describes whole windows and has no frames; set `save_raw: false`"
            )

    def finite(self, result: Floats) -> Floats:
        """Return ``result`` if all its values are finite; raise an EncoderError if not."""
        if not np.isfinite(result).all():
            raise EncoderError(
                f"{self.spec.name} gives values that are not finite in {self.engine.precision}"
                + ("" if self.engine.precision == "float32" else "; set `precision: float32`")
            )
        return result


def _checked(windows: Floats) -> Floats:
    if windows.ndim != 2:
        raise EncoderError(f"windows have the shape {windows.shape}, expected [n, samples]")
    return np.asarray(windows, np.float32)


def load_encoder(
    name: str,
    *,
    models: Path = Path("data/models"),
    device: str = "auto",
    precision: str = "auto",
    window_s: float = 5.0,
    threads: int | None = None,
) -> Encoder:
    """Load an encoder of any kind, and prove that it is exactly its checkpoint.

    On CPUs OpenVINO runs a model, elsewhere torch: see `openvino_engine` and `torch_engine` for
    what is compared with what. Raises `EncoderError` if the model is not to be had or its load not
    exact (see `find_checkpoint` and `torch_engine.load_module`), or the device or precision cannot
    be had.

    Parameters
    ----------
    name : str
        A name in `specs.MODELS` or a local folder of a model.
    models : Path
        Where models are kept, also as OpenVINO reads them.
    device : str
        ``auto`` (CUDA, else MPS, else CPU) or a torch device.
    precision : str
        One of `PRECISIONS`. ``auto`` takes what the device computes fastest, if every layer agrees
        with float32 on a check signal (cosine at least 0.999), else float32.
    window_s : float
        Length in seconds of the windows to come; other lengths work and may be slow at first.
    threads : int, optional
        CPU threads; all when missing.
    """
    if precision not in PRECISIONS:
        raise EncoderError(f"precision is {precision!r}, it must be one of {', '.join(PRECISIONS)}")
    if not window_s > 0:
        raise EncoderError(f"window_s is {window_s}, it must be above 0")
    models, spec = Path(models), resolve_spec(name)
    if spec.kind == "descriptors":
        from mess_core.extraction.descriptors import DescriptorEngine

        return Encoder(spec, DescriptorEngine(), None)
    checkpoint = find_checkpoint(name, models=models)
    if spec.kind == "small" and precision == "auto":
        precision = "float32"  # half of what takes 0.05 s a window is little
    choice = pick_device(device)
    samples = round(window_s * checkpoint.spec.sample_rate)
    if choice.device != "cpu":
        engine, notes = _gpu_engine(checkpoint, choice.device, precision, samples)
    else:
        engine, notes = _cpu_engine(checkpoint, models, precision, samples, threads)
    return Encoder(checkpoint.spec, engine, checkpoint, (*choice.notes, *notes))


def _cpu_engine(
    checkpoint: Checkpoint, models: Path, precision: str, samples: int, threads: int | None
) -> tuple[Engine, tuple[str, ...]]:
    note = "is not installed (pip install openvino)"
    if find_spec("openvino") is not None:
        try:
            from mess_core.extraction.openvino_engine import OpenVinoEngine

            converted = OpenVinoEngine(
                checkpoint, models=models, samples=samples, precision=precision, threads=threads
            )
            return converted, converted.notes
        except (ImportError, ConversionError) as error:
            note = str(error)
    from mess_core.extraction.torch_engine import TorchEngine

    chosen = "float32" if precision == "auto" else precision
    engine = TorchEngine(checkpoint, device="cpu", precision=chosen, threads=threads)
    return engine, (f"openvino: {note}",)


def _gpu_engine(
    checkpoint: Checkpoint, device: str, precision: str, samples: int
) -> tuple[Engine, tuple[str, ...]]:
    from mess_core.extraction.torch_engine import TorchEngine, half_precision

    if precision != "auto":
        return TorchEngine(checkpoint, device=device, precision=precision), ()
    reference = TorchEngine(checkpoint, device=device, precision="float32")
    half = half_precision(device)
    if half is None:
        return reference, ()
    engine = TorchEngine(checkpoint, device=device, precision=half)
    windows = check_windows(samples, sample_rate=checkpoint.spec.sample_rate)
    found, expected = (
        np.concatenate([runs.run(window[np.newaxis]).pooled for window in windows])
        for runs in (engine, reference)
    )
    cosine = min(compare(found, expected).cosine)
    if cosine >= MIN_COSINE:
        return engine, ()
    reason = f"its cosine to float32 is {cosine:.5f} in the worst layer, below {MIN_COSINE}"
    return reference, (f"{half}: {reason}",)


class ConversionError(EncoderError):
    """OpenVINO cannot run a model, or does not compute what transformers' model computes."""


class Choice(NamedTuple):
    """A device that works, and for every device that was passed over its name and why."""

    device: str
    notes: tuple[str, ...] = ()


def pick_device(device: str = "auto") -> Choice:
    """Return a device that works; ``auto`` is the first of CUDA, MPS and CPU that does.

    One that was asked for by name and does not work is an EncoderError.
    """
    if device != "auto":
        if fault := _fault(device):
            raise EncoderError(
                f"device {device!r} cannot be used: {fault}; set `device: auto` or `device: cpu`"
            )
        return Choice(device)
    notes: list[str] = []
    for candidate in ("cuda", "mps"):
        fault = _absence(candidate) or _fault(candidate)
        if not fault:
            return Choice(candidate, tuple(notes))
        notes.append(f"{candidate}: {fault}")
    return Choice("cpu", tuple(notes))


def _absence(device: str) -> str | None:
    """Say why a GPU cannot exist, without torch; None where it may."""
    if device == "mps":
        return None if sys.platform == "darwin" else "not tried, it exists on macOS only"
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible in ("", "-1"):
        return f"not tried, CUDA_VISIBLE_DEVICES={visible!r} hides every GPU"
    if visible or os.name == "nt" or any(any(_DEV.glob(name)) for name in _DRIVER_FILES):
        return None
    looked = ", ".join(str(_DEV / name) for name in _DRIVER_FILES)
    return f"not tried, there is no sign of a GPU driver (none of {looked})"


def _fault(device: str) -> str | None:
    """Say why a device does not work; None where it does."""
    if device == "cpu":
        return None
    if not _DEVICE.fullmatch(device):
        return "known are auto, cpu, mps, cuda and cuda:N"
    try:
        import torch

        if device == "mps" and not torch.backends.mps.is_available():
            return "this torch sees no MPS device"
        # Runs a kernel and waits for it: a tensor alone may be had where nothing can be computed.
        torch.ones(1, device=device).add(1).item()
    except Exception as error:  # torch and the drivers raise many kinds
        return str(error).strip().partition("\n")[0] or type(error).__name__
    return None


def clear_gpu_cache() -> None:
    """Give back the GPU memory that torch keeps for later, where torch uses a GPU."""
    torch = sys.modules.get("torch")
    if torch is None:
        return
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


def inspect_model(
    encoder: Encoder | str | Path, *, models: Path = Path("data/models")
) -> dict[str, Any]:
    """Describe an encoder's model in plain numbers.

    ``encoder`` is a loaded one, or what `load_encoder` takes; ``models`` is where models are kept.
    One without weights is an EncoderError. Returns ``class``; ``layers`` and ``dims``;
    ``parameters`` (numbers in all tensors that are parameters); ``modules``: per module that owns
    parameters itself its ``name``, ``class``, ``parameters`` and their ``shapes`` by name, in the
    model's order.
    """
    from mess_core.extraction.torch_engine import load_module

    checkpoint = encoder.checkpoint if isinstance(encoder, Encoder) else None
    name = encoder.spec.name if isinstance(encoder, Encoder) else str(encoder)
    checkpoint = checkpoint or find_checkpoint(name, models=models)
    module = load_module(checkpoint)
    own = {
        name: dict(part.named_parameters(recurse=False)) for name, part in module.named_modules()
    }
    return {
        "class": type(module).__name__,
        "layers": checkpoint.spec.layers,
        "dims": checkpoint.spec.dims,
        "parameters": sum(parameter.numel() for parameter in module.parameters()),
        "modules": [
            {
                "name": name,
                "class": type(module.get_submodule(name)).__name__,
                "parameters": sum(parameter.numel() for parameter in parameters.values()),
                "shapes": {key: list(parameter.shape) for key, parameter in parameters.items()},
            }
            for name, parameters in own.items()
            if parameters
        ],
    }


def trace_activations(
    encoder: Encoder | str | Path,
    samples: npt.NDArray[np.floating],
    *,
    models: Path = Path("data/models"),
) -> list[dict[str, Any]]:
    """Summarise what each layer gives for a window of mono samples at the encoder's rate.

    ``encoder`` and ``models`` are as in `inspect_model`. An encoder that cannot be had or has no
    frames, and samples of another shape than [n], are an EncoderError. Returns per hidden state
    ``layer``, ``frames``, ``dims``, ``mean``, ``std``, ``min``, ``max`` of all its numbers, and
    ``norm``, the mean Euclidean length of its frames.
    """
    if samples.ndim != 1 or not len(samples):
        raise EncoderError(f"samples have the shape {samples.shape}, expected one window [n]")
    if not isinstance(encoder, Encoder):
        encoder = load_encoder(str(encoder), models=models)
    states = encoder.hidden_states(np.asarray(samples, np.float32)[np.newaxis])[0]
    return [
        {
            "layer": layer,
            "frames": state.shape[0],
            "dims": state.shape[1],
            "mean": float(state.mean()),
            "std": float(state.std()),
            "norm": float(np.linalg.norm(state, axis=1).mean()),
            "min": float(state.min()),
            "max": float(state.max()),
        }
        for layer, state in enumerate(states.astype(np.float64))
    ]
