"""A stand-in for the model, in this process or in one that tests interrupt and kill.

Run with a recording table, a data folder and a file to note decoded recordings in. It says
``ready``, and begins when a line comes on its standard input.
"""

import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mess_core.extraction.checkpoint import Checkpoint
from mess_core.extraction.encoder import Encoder, Output
from mess_core.extraction.extractor import FeatureExtractor
from mess_core.extraction.pipeline import ExtractionPipeline
from mess_core.extraction.specs import MODELS
from mess_core.layout import VIEWS, Layout
from mess_core.recordings import read_recordings

Floats = npt.NDArray[np.float32]

WINDOW_S = 1.0
_SHAPE = 3, 40, 64


class StandIn:
    """Computes frames that are a window's first samples.

    ``change`` gets each window's frames, ``at`` what to do before the n-th window.
    """

    name, device, precision = "stand-in", "cpu", "float32"

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.windows = 0
        self.change: Callable[[Floats], None] = lambda _: None
        self.at: dict[int, Callable[[], object]] = {}

    def run(self, windows: Floats, *, raw: bool = False) -> Output:
        for _ in windows:
            self.windows += 1
            self.at.pop(self.windows, lambda: None)()
            time.sleep(self.seconds)
        frames = windows[:, : np.prod(_SHAPE)].reshape(-1, *_SHAPE).copy()
        for window in frames:
            self.change(window)
        return Output(frames.mean(axis=2), frames if raw else None)


def make_pipeline(stand_in: StandIn, layout: Layout, **settings: Any) -> ExtractionPipeline:
    checkpoint = Checkpoint(MODELS["MERT-v1-95M"], Path(), Path(), {}, normalize=False)
    encoder = Encoder(checkpoint.spec, stand_in, checkpoint)
    extractor = FeatureExtractor(encoder, window_s=WINDOW_S, batch_size=2)
    return ExtractionPipeline(extractor, layout, **{"views": VIEWS, **settings})


def main(table: str, data: str, log: str) -> None:
    # A shell's background job ignores Ctrl-C, and so do its children unless they say otherwise.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    pipeline = make_pipeline(StandIn(seconds=0.02), Layout(Path(data), "x"), decoders=2)
    recordings = read_recordings(Path(table))
    real = FeatureExtractor.windows

    def windows(self: FeatureExtractor, path: Path) -> Iterator[tuple[int, Floats]]:
        with Path(log).open("a") as file:
            file.write(f"{path.stem}\n")
        return real(self, path)

    FeatureExtractor.windows = windows  # type: ignore[method-assign]
    print("ready", flush=True)
    sys.stdin.readline()
    assert not pipeline.run(recordings).failed


if __name__ == "__main__":
    main(*sys.argv[1:])
