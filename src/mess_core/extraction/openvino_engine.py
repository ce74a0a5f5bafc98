"""Running the model on CPUs with OpenVINO, which is about twice as fast there as torch.

The model is converted once for a length of windows and kept below ``{models}/openvino``, named by
the checkpoint's content and the versions that matter, and checked whenever it is read. At
conversion it is compared with transformers' model in float32 on `golden.check_windows`, all frames
of all layers, and refused where they differ; how well half precision agrees is measured then too.
A job that finds the converted model needs no torch.

Windows run one at a time, each on all threads, so results do not depend on the batch or on what
else is running. Several at a time gained nothing measurable on two cores; on a machine of many
cores run several jobs, each with a few threads.
"""

__all__ = ["ConversionError", "OpenVinoEngine", "prepare"]

import errno
import json
import os
import shutil
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino

from mess_core.cache import claim, find
from mess_core.errors import EncoderError, StorageError
from mess_core.extraction.batching import Output
from mess_core.extraction.checkpoint import Checkpoint, find_checkpoint
from mess_core.extraction.golden import MAX_ERROR, MIN_COSINE, check_windows, compare
from mess_core.files import fingerprint, read_json, storage_errors

Floats = npt.NDArray[np.float32]

_HINTS = {"float32": "f32", "bfloat16": "bf16"}
_KIND = "openvino"
_SUFFIXES = (".bin", ".xml", ".json")
# Exit status of a conversion whose result could not be written.
_NOT_WRITTEN = 3


class ConversionError(EncoderError):
    """OpenVINO cannot run a model, or does not compute what transformers' model computes."""


class OpenVinoEngine:
    """A checkpoint's model on the CPU.

    Parameters
    ----------
    checkpoint : Checkpoint
        The model.
    models : Path
        Where the converted model is kept.
    samples : int
        Length of windows to be ready for; others are converted when they come.
    precision : {'auto', 'float32', 'bfloat16'}
        ``auto`` takes bfloat16 where the processor computes it natively and every layer agrees
        with float32 (`golden.MIN_COSINE`), else float32.
    threads : int, optional
        CPU threads; all when missing.

    Raises
    ------
    EncoderError
        If the processor lacks the precision.
    ConversionError
        If the model cannot be converted, or then disagrees with transformers'.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        models: Path,
        samples: int,
        precision: str = "auto",
        threads: int | None = None,
    ) -> None:
        self._checkpoint = checkpoint
        self._models = models
        self._core = openvino.Core()
        self._threads = threads or _available_threads()
        self._compiling = threading.Lock()
        self._files: dict[int, dict[str, Path]] = {}
        self._requests: dict[tuple[int, bool], _Request] = {}
        self.name = f"openvino {_version()}"
        self.device = "cpu"
        self.notes: tuple[str, ...] = ()
        self.precision = self._choose(precision, samples)

    def _choose(self, precision: str, samples: int) -> str:
        agreements = read_json(self._prepared(samples)[".json"])
        if precision == "auto":
            cosine = min(agreements.get("bfloat16", {}).get("cosine", [0.0]))
            if cosine >= MIN_COSINE:
                return "bfloat16"
            if cosine:
                self.notes = (
                    f"bfloat16: its cosine to float32 is {cosine:.5f} in the worst layer, below "
                    f"{MIN_COSINE}",
                )
            return "float32"
        if precision not in _HINTS:
            raise EncoderError(f"{precision} needs a GPU; on a CPU use bfloat16 or float32")
        if precision not in agreements:
            raise EncoderError(
                f"this processor does not compute {precision} natively; use float32 or auto"
            )
        return precision

    def _prepared(self, samples: int) -> dict[str, Path]:
        if samples not in self._files:
            self._files[samples] = self._find_or_prepare(samples)
        return self._files[samples]

    def _find_or_prepare(self, samples: int) -> dict[str, Path]:
        key = _fingerprint(self._checkpoint, samples, self._core)
        found = _find(self._models, key)
        if found is None:
            try:
                _prepare_in_another_process(self._checkpoint, self._models, samples)
            except ConversionError as error:
                # Seen once in some twenty conversions: a model that computed something else.
                print(f"{error}; trying once more", file=sys.stderr, flush=True)
                _prepare_in_another_process(self._checkpoint, self._models, samples)
            found = _find(self._models, key)
        if found is None:
            raise ConversionError(
                f"{self._models}: the converted model was not kept; is the folder writable?"
            )
        return found

    def start(self, windows: Floats, *, raw: bool = False) -> Callable[[], Output]:
        """Begin to run windows; see `batching.Engine`."""
        key = (windows.shape[1], raw)
        with self._compiling:
            if key not in self._requests:
                request = _Request(self._compiled(*key))
                self._try_out(request, key[0])
                self._requests[key] = request
        return self._requests[key].start(windows)

    def _try_out(self, request: "_Request", samples: int) -> None:
        """Let the graph run a check window and compare the outcome.

        The conversion's comparison was in another process.
        """
        receipt = read_json(self._prepared(samples)[".json"])
        expected = np.asarray(receipt["pooled"], np.float32)[np.newaxis]
        limit = min(MIN_COSINE, min(receipt[self.precision]["cosine"]) - 1e-3)
        windows = check_windows(samples, sample_rate=self._checkpoint.spec.sample_rate)
        agreement = compare(request.start(windows[:1])().pooled, expected)
        error, cosine = max(agreement.error), min(agreement.cosine)
        exact = self.precision != "float32" or error <= MAX_ERROR
        if not (exact and cosine >= limit):
            raise EncoderError(
                f"{self._checkpoint.spec.name}: {self.name} in {self.precision} differs from "
                f"transformers' model (error {error:.1e}, cosine {cosine:.5f}) although it did "
                "not when it was converted; run again, and if it stays, delete "
                f"{self._models / _KIND}"
            )

    def _compiled(self, samples: int, raw: bool) -> Any:
        files = self._prepared(samples)
        model = self._core.read_model(files[".xml"], files[".bin"])
        return _compile(self._core, model, self.precision, raw=raw, threads=self._threads)

    def release(self) -> None:
        """Do nothing: there is no cache to empty."""


class _Request:
    """A compiled model's request, which runs one window at a time; threads may share it."""

    def __init__(self, compiled: Any) -> None:
        self._request = compiled.create_infer_request()
        self._shapes = [tuple(output.shape)[1:] for output in compiled.outputs]
        self._pending: Callable[[], None] | None = None
        self._turn = threading.RLock()

    def start(self, windows: Floats) -> Callable[[], Output]:
        results = [np.empty((len(windows), *shape), np.float32) for shape in self._shapes]
        # A window may be waited for by a later batch, whose fault its error is not.
        errors: list[Exception] = []
        with self._turn:
            for row, window in enumerate(windows):
                self._start(window, results, row, errors)
            last = self._pending

        def wait() -> Output:
            with self._turn:
                if self._pending is last:
                    self._collect()
            if errors:
                raise errors[0]
            return Output(results[0], results[1] if len(results) > 1 else None)

        return wait

    def _start(
        self, window: Floats, results: list[Floats], row: int, errors: list[Exception]
    ) -> None:
        self._collect()

        def harvest() -> None:
            try:
                self._request.wait()
                for i, result in enumerate(results):
                    result[row] = self._request.get_output_tensor(i).data[0]
            except Exception as error:
                errors.append(error)

        self._request.start_async({0: window[np.newaxis]})
        self._pending = harvest

    def _collect(self) -> None:
        harvest, self._pending = self._pending, None
        if harvest is not None:
            harvest()


def _available_threads() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _version() -> str:
    return str(openvino.__version__).partition("-")[0]


def _fingerprint(checkpoint: Checkpoint, samples: int, core: Any) -> str:
    capabilities = sorted(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
    return fingerprint(
        {
            "form": 2,  # of what is kept
            "checkpoint": checkpoint.fingerprint,
            "samples": samples,
            "openvino": str(openvino.__version__),
            "capabilities": capabilities,
        }
    )


def _find(models: Path, key: str) -> dict[str, Path] | None:
    found = {suffix: find(models, _KIND, key, suffix) for suffix in _SUFFIXES}
    paths = {suffix: path for suffix, path in found.items() if path is not None}
    return paths if len(paths) == len(found) else None


def _compile(core: Any, model: Any, precision: str, *, raw: bool, threads: int) -> Any:
    if not raw:
        # What only the other output needs is not computed then.
        model.remove_result(model.get_results()[1])
    return core.compile_model(
        model,
        "CPU",
        {
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            # A graph of its own for each stream, and only the one that runs a check window would
            # be tried out. With one, that is the graph that runs every window.
            "NUM_STREAMS": 1,
            # Two jobs on one machine must not be pinned to the same cores.
            "ENABLE_CPU_PINNING": False,
        },
    )


def _prepare_in_another_process(checkpoint: Checkpoint, models: Path, samples: int) -> None:
    """Convert in a process of its own, whose memory (torch, several models) ends with it."""
    print(
        f"converting {checkpoint.spec.name} for OpenVINO and comparing it with transformers' "
        "model (once)",
        file=sys.stderr,
        flush=True,
    )
    name = checkpoint.spec.location if checkpoint.spec.source == "folder" else checkpoint.spec.name
    command = [sys.executable, "-m", __name__, name, str(models), str(samples)]
    done = subprocess.run(command, capture_output=True, text=True)
    lines = done.stderr.strip().splitlines() or [f"ended with status {done.returncode}"]
    if done.returncode == _NOT_WRITTEN:
        raise StorageError(lines[-1])
    if done.returncode:
        raise ConversionError(f"{checkpoint.spec.name} could not be converted: {lines[-1]}")


def prepare(checkpoint: Checkpoint, *, models: Path, samples: int) -> None:
    """Convert a model, compare it with transformers' and keep it.

    Parameters
    ----------
    checkpoint : Checkpoint
        The model.
    models : Path
        Where the converted model is kept.
    samples : int
        Length of windows.

    Raises
    ------
    ConversionError
        If the converted model disagrees with transformers' in float32 by more than
        `golden.MAX_ERROR` in any layer.
    StorageError
        If it cannot be written.
    """
    core = openvino.Core()
    key = _fingerprint(checkpoint, samples, core)
    with claim(models, _KIND, key) as claimed:
        if _find(models, key):
            return
        path = claimed.folder / "model.xml"
        expected, windows = _convert(checkpoint, samples, path)
        agreements = _measure(core, path, windows, expected)
        error = max(agreements["float32"]["error"])
        if not error <= MAX_ERROR:
            raise ConversionError(
                f"{checkpoint.spec.name}: OpenVINO differs from transformers' model by {error:.1e} "
                f"of a layer's largest value, the limit is {MAX_ERROR:.0e}"
            )
        report = claimed.folder / "model.json"
        report.write_text(json.dumps(agreements | {"pooled": expected.pooled[0].tolist()}))
        for suffix in _SUFFIXES:
            claimed.store(key, path.with_suffix(suffix), suffix)


def _convert(checkpoint: Checkpoint, samples: int, path: Path) -> tuple[Output, Floats]:
    """Write OpenVINO's model, and return what transformers' makes of the check windows."""
    import torch
    from openvino.tools.ovc import telemetry_stub, telemetry_utils
    from transformers.utils import logging

    from mess_core.extraction.hubert import HiddenStates, load_hubert

    windows = check_windows(samples, sample_rate=checkpoint.spec.sample_rate)
    module = HiddenStates(load_hubert(checkpoint), normalize=checkpoint.normalize, raw=True)
    # OpenVINO reports conversions to its makers unless told otherwise; that is our users' business.
    telemetry_utils.tm = telemetry_stub
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pooled, frames = module(torch.from_numpy(windows))
        model = openvino.convert_model(module, example_input=torch.from_numpy(windows[:1]))
    model.reshape([1, samples])
    # Here, because the converted model shares the weights of the module.
    _save(model, path, weights=checkpoint.weights)
    return Output(pooled.numpy(), frames.numpy()), windows


def _save(model: Any, path: Path, *, weights: Path) -> None:
    with storage_errors(path):
        try:
            openvino.save_model(model, path, compress_to_fp16=False)
        except RuntimeError as error:
            # OpenVINO removes what it could not write whole, and does not say why it could not. The
            # weights and the graph take less than twice what the checkpoint takes.
            if shutil.disk_usage(path.parent).free < 2 * weights.stat().st_size:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
            raise


def _measure(core: Any, path: Path, windows: Floats, expected: Output) -> dict[str, Any]:
    """Return the agreement of every precision that the processor computes natively."""
    capabilities = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    agreements = {}
    for precision in ["float32"] + ["bfloat16"] * ("BF16" in capabilities):
        model, threads = core.read_model(path), _available_threads()
        compiled = _compile(core, model, precision, raw=True, threads=threads)
        found = _Request(compiled).start(windows)()
        agreements[precision] = {
            "error": compare(_frames(found), _frames(expected)).error,
            "cosine": compare(found.pooled, expected.pooled).cosine,
        }
    return agreements


def _frames(output: Output) -> Floats:
    assert output.raw is not None
    return output.raw


def _main(name: str, models: str, samples: str) -> None:
    checkpoint = find_checkpoint(name, models=Path(models))
    prepare(checkpoint, models=Path(models), samples=int(samples))


if __name__ == "__main__":
    try:
        _main(*sys.argv[1:])
    except EncoderError as error:
        sys.exit(str(error))
    except StorageError as error:
        print(error, file=sys.stderr)
        sys.exit(_NOT_WRITTEN)
