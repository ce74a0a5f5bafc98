"""Running the model with torch: on CUDA and MPS, and on CPUs where OpenVINO is not to be had."""

__all__ = ["TorchEngine", "half_precision"]

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from mess_core.errors import EncoderError
from mess_core.extraction.batching import Output
from mess_core.extraction.checkpoint import Checkpoint
from mess_core.extraction.devices import clear_gpu_cache
from mess_core.extraction.hubert import HiddenStates, load_hubert

_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


class TorchEngine:
    """A checkpoint's model on one torch device.

    In ``bfloat16`` and ``float16`` matrix products run in that type, norms, softmax and pooling in
    float32 (torch's autocast).

    Parameters
    ----------
    checkpoint : Checkpoint
        The model.
    device : str
        ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
    precision : {'float32', 'bfloat16', 'float16'}
        Of the matrix products.
    threads : int, optional
        CPU threads; torch's default when missing.
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
        module = HiddenStates(load_hubert(checkpoint), normalize=checkpoint.normalize)
        self._turn = threading.Lock()
        self._module = module.to(self._device)

    def start(self, windows: npt.NDArray[np.float32], *, raw: bool = False) -> Callable[[], Output]:
        """Begin to run windows; see `batching.Engine`."""
        cuda = self._device.type == "cuda"
        samples = torch.from_numpy(np.ascontiguousarray(windows))
        if cuda:
            samples = samples.pin_memory()
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
            results = self._module(samples.to(self._device, non_blocking=True))
            if not cuda:
                return lambda: _output(results)
            # Copies are queued now, behind this batch and before the next: to wait for them is not
            # to wait for what is started later.
            copies = tuple(_pinned_copy(result) for result in results)
            done: Any = torch.cuda.Event()  # type: ignore[no-untyped-call]
            done.record(torch.cuda.current_stream(self._device))

        def wait() -> Output:
            done.synchronize()
            return _output(copies)

        return wait

    def release(self) -> None:
        """Give cached memory back to the device."""
        clear_gpu_cache()


def half_precision(device: str) -> str | None:
    """Return the half precision that a GPU computes natively, None where that is unknown."""
    if not device.startswith("cuda"):
        return None
    with torch.cuda.device(torch.device(device)):
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"


def _pinned_copy(result: torch.Tensor) -> torch.Tensor:
    host = torch.empty(result.shape, dtype=result.dtype, pin_memory=True)
    return host.copy_(result, non_blocking=True)


def _output(results: tuple[torch.Tensor, ...]) -> Output:
    pooled, *frames = [result.cpu().numpy() for result in results]
    return Output(pooled, frames[0] if frames else None)
