"""Running the model on CPUs with OpenVINO, which is about twice as fast there as torch.

The model is converted once for a length of windows and kept below ``{models}/openvino``, named by
the checkpoint's content and the versions that matter. At conversion it is compared with
transformers' model in float32 on `golden.check_windows`, all frames of all layers; how well half
precision agrees is measured then too. When it is loaded, its files' hashes are checked and it runs
a check window. A model that fails is not used: torch runs instead. A job that finds the converted
model loads none with torch.

Windows run one at a time, each on all threads, so results do not depend on the batch or on what
else is running. On a machine of many cores run several jobs, each with a few threads.
"""

__all__ = ["OpenVinoEngine", "prepare"]

import errno
import json
import os
import shutil
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from filelock import FileLock

from mess_core.cache import find, scratch, store
from mess_core.errors import EncoderError, StorageError
from mess_core.extraction.checkpoint import Checkpoint, find_checkpoint
from mess_core.extraction.encoder import ConversionError, Output
from mess_core.extraction.golden import MAX_ERROR, MIN_COSINE, check_windows, compare
from mess_core.files import fingerprint, read_json, storage_errors

# OpenVINO reports its use to its makers, over the network and in the home folder, from its import
# on, unless this package is missing. None makes its import fail.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
import openvino  # noqa: E402

Floats = npt.NDArray[np.float32]

_HINTS = {"float32": "f32", "bfloat16": "bf16"}
_KIND = "openvino"
_SUFFIXES = (".bin", ".xml", ".json")
# Exit status of a conversion whose result could not be written.
_NOT_WRITTEN = 3


class OpenVinoEngine:
    """A checkpoint's model on the CPU; see `encoder.Engine`.

    It is ready for windows of ``samples``; others are converted when they come. ``auto`` takes
    bfloat16 where the processor computes it natively and every layer agrees with float32, else
    float32. By default it uses all CPU threads.
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
        self._turn = threading.Lock()
        self._requests: dict[tuple[int, bool], Any] = {}
        self.name = f"openvino {str(openvino.__version__).partition('-')[0]}"
        self.device = "cpu"
        self.notes: tuple[str, ...] = ()
        self.precision = self._choose(precision, read_json(self._prepared(samples)[".json"]))
        self._request(samples, raw=False)

    def _choose(self, precision: str, agreements: dict[str, Any]) -> str:
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
        """Return the files of the converted model, which is converted where it is missing."""
        key = _fingerprint(self._checkpoint, samples, self._core)
        if not (files := _find(self._models, key)):
            # One conversion at a time: each takes several times the model's memory.
            with FileLock(self._models / f".{_KIND}.lock"):
                if not (files := _find(self._models, key)):
                    _prepare_in_another_process(self._checkpoint, self._models, samples)
                    files = _find(self._models, key)
        if not files:
            raise ConversionError(f"{self._models}: the converted model was not kept; run again")
        error = _largest_error(files[".json"])
        if not error <= MAX_ERROR:
            raise ConversionError(
                f"{self._checkpoint.spec.name}: the converted model differs from transformers' by "
                f"{error:.1e} of a layer's largest value, the limit is {MAX_ERROR:.0e}; delete "
                f"{self._models / _KIND} to convert it anew"
            )
        return files

    def run(self, windows: Floats, *, raw: bool = False) -> Output:
        """Run windows; see `encoder.Engine`."""
        with self._turn:
            pooled, *frames = _run(self._request(windows.shape[1], raw=raw), windows)
        return Output(pooled, frames[0] if frames else None)

    def _request(self, samples: int, *, raw: bool) -> Any:
        if (samples, raw) not in self._requests:
            files = self._prepared(samples)
            model = self._core.read_model(files[".xml"], files[".bin"])
            compiled = _compile(self._core, model, self.precision, raw=raw, threads=self._threads)
            request = compiled.create_infer_request()
            self._try_out(request, samples, read_json(files[".json"]))
            self._requests[samples, raw] = request
        return self._requests[samples, raw]

    def _try_out(self, request: Any, samples: int, report: dict[str, Any]) -> None:
        """Run a check window: at conversion another process did, and compiled anew."""
        expected = np.asarray(report["pooled"], np.float32)[np.newaxis]
        limit = min(MIN_COSINE, min(report[self.precision]["cosine"]) - 1e-3)
        windows = check_windows(samples, sample_rate=self._checkpoint.spec.sample_rate)
        agreement = compare(_run(request, windows[:1])[0], expected)
        error, cosine = max(agreement.error), min(agreement.cosine)
        exact = self.precision != "float32" or error <= MAX_ERROR
        if not (exact and cosine >= limit):
            raise ConversionError(
                f"{self.name} in {self.precision} differs from transformers' model in a check "
                f"window (error {error:.1e}, cosine {cosine:.5f}), although it did not when it was "
                f"converted; delete {self._models / _KIND} to convert it anew"
            )


def _run(request: Any, windows: Floats) -> list[Floats]:
    """Run windows one by one, and return each output of the model for all of them."""
    shapes = [tuple(output.shape)[1:] for output in request.model_outputs]
    results = [np.empty((len(windows), *shape), np.float32) for shape in shapes]
    for row, window in enumerate(windows):
        request.infer({0: window[np.newaxis]}, share_outputs=True)
        for i, result in enumerate(results):
            result[row] = request.get_output_tensor(i).data[0]
    return results


def _available_threads() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _fingerprint(checkpoint: Checkpoint, samples: int, core: Any) -> str:
    return fingerprint(
        {
            "form": 2,  # of what is kept
            "checkpoint": checkpoint.fingerprint,
            "samples": samples,
            "openvino": str(openvino.__version__),
            "capabilities": sorted(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")),
        }
    )


def _find(models: Path, key: str) -> dict[str, Path] | None:
    found = {suffix: find(models, _KIND, key, suffix) for suffix in _SUFFIXES}
    paths = {suffix: path for suffix, path in found.items() if path is not None}
    report = paths.get(".json")
    if report is None or (len(paths) < len(found) and _largest_error(report) <= MAX_ERROR):
        return None
    return paths


def _largest_error(report: Path) -> float:
    """Return how far a converted model was from transformers' in float32."""
    return max(map(float, read_json(report)["float32"]["error"]))


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
            # Each stream has a graph of its own: with one, the graph that runs a check window runs
            # every window.
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
    """Convert a model for windows of ``samples``; keep it if it agrees with transformers'."""
    core = openvino.Core()
    key = _fingerprint(checkpoint, samples, core)
    with scratch(models) as folder:
        path = folder / "model.xml"
        expected, windows = _convert(checkpoint, samples, path)
        agreements = _measure(core, path, windows, expected)
        report = agreements | {"pooled": expected.pooled[0].tolist()}
        with storage_errors(path):
            path.with_suffix(".json").write_text(json.dumps(report))
        # Of a model that fails only the report is kept, so that every job runs torch.
        exact = max(agreements["float32"]["error"]) <= MAX_ERROR
        for suffix in _SUFFIXES if exact else (".json",):
            store(models, _KIND, key, path.with_suffix(suffix), suffix)


def _convert(checkpoint: Checkpoint, samples: int, path: Path) -> tuple[Output, Floats]:
    """Write OpenVINO's model, and return what transformers' makes of the check windows."""
    import torch
    from transformers.utils import logging

    from mess_core.extraction.torch_engine import load_states

    windows = check_windows(samples, sample_rate=checkpoint.spec.sample_rate)
    module = load_states(checkpoint, raw=True)
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pooled, frames = module(torch.from_numpy(windows))
        model = openvino.convert_model(module, example_input=torch.from_numpy(windows[:1]))
    model.reshape([1, samples])
    # Here, because the converted model shares the weights of the module.
    with storage_errors(path):
        try:
            openvino.save_model(model, path, compress_to_fp16=False)
        except RuntimeError as error:
            # OpenVINO removes what it could not write whole, and does not say why it could not. The
            # weights and the graph take less than twice what the checkpoint takes.
            if shutil.disk_usage(path.parent).free < 2 * checkpoint.weights.stat().st_size:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
            raise
    return Output(pooled.numpy(), frames.numpy()), windows


def _measure(core: Any, path: Path, windows: Floats, expected: Output) -> dict[str, Any]:
    """Return the agreement of every precision that the processor computes natively."""
    capabilities = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    agreements = {}
    for precision in ["float32"] + ["bfloat16"] * ("BF16" in capabilities):
        model, threads = core.read_model(path), _available_threads()
        compiled = _compile(core, model, precision, raw=True, threads=threads)
        pooled, frames = _run(compiled.create_infer_request(), windows)
        assert expected.raw is not None
        agreements[precision] = {
            "error": compare(frames, expected.raw).error,
            "cosine": compare(pooled, expected.pooled).cosine,
        }
    return agreements


if __name__ == "__main__":
    try:
        _name, _models, _samples = sys.argv[1:]
        _checkpoint = find_checkpoint(_name, models=Path(_models))
        prepare(_checkpoint, models=Path(_models), samples=int(_samples))
    except EncoderError as error:
        sys.exit(str(error))
    except StorageError as error:
        print(error, file=sys.stderr)
        sys.exit(_NOT_WRITTEN)
