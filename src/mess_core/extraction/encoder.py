"""A loaded encoder: a checkpoint, proved, on the engine that suits the machine."""

__all__ = ["MertEncoder", "load_encoder"]

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mess_core.errors import EncoderError
from mess_core.extraction.batching import Engine
from mess_core.extraction.checkpoint import Checkpoint, find_checkpoint
from mess_core.extraction.devices import pick_device
from mess_core.extraction.golden import MIN_COSINE, check_windows, compare
from mess_core.extraction.specs import MertSpec

#: What may be asked for; ``auto`` becomes one of the others.
PRECISIONS = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True)
class MertEncoder:
    """A loaded encoder.

    Attributes
    ----------
    spec : MertSpec
        Its facts, with the weights' SHA-256.
    engine : Engine
        What runs it, on which device and in which precision.
    checkpoint : Checkpoint
        Where it comes from.
    notes : tuple of str
        What was preferred and could not be had, with the reasons.
    """

    spec: MertSpec
    engine: Engine
    checkpoint: Checkpoint
    notes: tuple[str, ...] = ()

    def describe(self) -> str:
        """Return one line on what runs where."""
        engine = self.engine
        digest = (self.spec.weights_sha256 or "")[:12]
        line = f"{self.spec.name} ({digest}) on {engine.device}, {engine.precision}, {engine.name}"
        return "\n  not taken: ".join((line, *self.notes))

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
        frames = self.engine.start(_checked(windows), raw=True)().raw
        assert frames is not None
        return self.finite(frames)

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
        return self.finite(self.engine.start(_checked(windows))().pooled)

    def finite(self, result: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return ``result`` if all its values are finite; raise an EncoderError if not."""
        if not np.isfinite(result).all():
            raise EncoderError(
                f"{self.spec.name} gives values that are not finite in {self.engine.precision}"
                + ("" if self.engine.precision == "float32" else "; set `precision: float32`")
            )
        return result


def _checked(windows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
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
) -> MertEncoder:
    """Load an encoder and prove that it is exactly its checkpoint.

    On CPUs OpenVINO runs it, elsewhere torch. See `openvino_engine` and `hubert` for what is
    compared with what.

    Parameters
    ----------
    name : str
        A name in `specs.MODELS` or a local folder in MERT's on-disk form.
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

    Returns
    -------
    MertEncoder

    Raises
    ------
    EncoderError
        If the model is not to be had, asks for parts that HuBERT does not have, any tensor is
        missing, left over, of another shape or of another value than in the checkpoint, or the
        device or precision cannot be had.
    """
    if precision not in PRECISIONS:
        raise EncoderError(f"precision is {precision!r}, it must be one of {', '.join(PRECISIONS)}")
    if not window_s > 0:
        raise EncoderError(f"window_s is {window_s}, it must be above 0")
    models = Path(models)
    checkpoint = find_checkpoint(name, models=models)
    choice = pick_device(device)
    samples = round(window_s * checkpoint.spec.sample_rate)
    if choice.device != "cpu":
        engine, notes = _gpu_engine(checkpoint, choice.device, precision, samples)
    else:
        engine, notes = _cpu_engine(checkpoint, models, precision, samples, threads)
    return MertEncoder(checkpoint.spec, engine, checkpoint, (*choice.notes, *notes))


def _cpu_engine(
    checkpoint: Checkpoint, models: Path, precision: str, samples: int, threads: int | None
) -> tuple[Engine, tuple[str, ...]]:
    note = "openvino: is not installed (pip install openvino)"
    if find_spec("openvino") is not None:
        from mess_core.extraction.openvino_engine import ConversionError, OpenVinoEngine

        try:
            engine = OpenVinoEngine(
                checkpoint, models=models, samples=samples, precision=precision, threads=threads
            )
            return engine, engine.notes
        except ConversionError as error:
            note = f"openvino: {error}"
    from mess_core.extraction.torch_engine import TorchEngine

    chosen = "float32" if precision == "auto" else precision
    return TorchEngine(checkpoint, device="cpu", precision=chosen, threads=threads), (note,)


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
    cosine = min(compare(_pooled(engine, windows), _pooled(reference, windows)).cosine)
    if cosine >= MIN_COSINE:
        return engine, ()
    reason = f"its cosine to float32 is {cosine:.5f} in the worst layer, below {MIN_COSINE}"
    return reference, (f"{half}: {reason}",)


def _pooled(engine: Engine, windows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return np.concatenate([engine.start(window[np.newaxis])().pooled for window in windows])
