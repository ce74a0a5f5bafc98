"""What fitting a projection and building an index take: ``python -m benchmarks.index 25000 ...``.

Clips are made up in the shape of MERT's features [13, 768] and lie on the disk. Time is compared
with adding all of them up once; memory is what the process has of its own, without mapped files.
"""

import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

LAYERS, DIMS, ASPECTS = 13, 768, 12
WINDOWS, WINDOW_S, OVERLAP = 50, 5.0, 0.5
#: Layers of general similarity, as probing finds them.
GENERAL = (4, 5, 6)


def layer_rows(folder: Path, n: int, *, make: bool = False) -> list[npt.NDArray[np.float32]]:
    """Map the features [n, DIMS] of all layers; 40 directions and noise when they are made."""
    files = [
        np.memmap(folder / f"{layer}", np.float32, "w+" if make else "r", shape=(n, DIMS))
        for layer in range(LAYERS)
    ]
    for seed, file in enumerate(files if make else []):
        rng = np.random.default_rng(seed)
        mix = rng.standard_normal((40, DIMS), np.float32)
        offset = 20 * rng.standard_normal(DIMS, np.float32)
        for start in range(0, n, 10_000):
            rows = file[start : start + 10_000]
            rows[:] = rng.standard_normal((len(rows), 40), np.float32) @ mix + offset
            rows += 0.3 * rng.standard_normal(rows.shape, np.float32)
        file.flush()
    return list(files)


@contextmanager
def peak_memory() -> Iterator[list[float]]:
    """Give a list whose only number becomes the most gigabytes of its own the process had."""
    peak, done = [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            status = Path("/proc/self/status").read_text()
            peak[0] = max(peak[0], int(status.split("RssAnon:")[1].split()[0]) / 1e6)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()


def timed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """Return what work gives, its seconds, and the peak memory in GB."""
    with peak_memory() as peak:
        start = time.perf_counter()
        found = work()
        return found, time.perf_counter() - start, peak[0]


def measure(folder: Path, n: int) -> str:
    """Return a line of the table."""
    from mess_core.index import fit_projection, index_recordings
    from mess_core.probing.coordinates import AspectCoordinates
    from mess_core.recordings import Recording

    layers, rng = layer_rows(folder, n), np.random.default_rng(0)
    coordinates = [
        AspectCoordinates(f"a{i}", i, rng.normal(size=(DIMS, 2)), np.zeros(DIMS), np.ones(2), 0.5)
        for i in range(ASPECTS)
    ]
    # The last window ends with the recording.
    duration_s = WINDOW_S + (WINDOWS - 1) * WINDOW_S * (1 - OVERLAP)
    table = [
        Recording(str(i), "w", "", "", "", "", "", "", "", "", "", "", duration_s, "ok", "")
        for i in range(n // WINDOWS)
    ]

    def read(recording: Recording) -> npt.NDArray[np.float32]:
        first = int(recording.recording_id) * WINDOWS
        return np.stack([layer[first : first + WINDOWS] for layer in layers], axis=1)

    _, plain_s, _ = timed(lambda: [float(read(recording).sum()) for recording in table])
    projection, fit_s, fit_gb = timed(
        lambda: fit_projection(
            lambda layer: layers[layer],
            range(LAYERS),
            general_layers=GENERAL,
            coordinates=coordinates,
        )
    )
    index, build_s, build_gb = timed(
        lambda: index_recordings(
            table,
            read,
            kind="clips",
            window_s=WINDOW_S,
            overlap=OVERLAP,
            projection=projection,
            aspects={},
            facts={},
        )
    )
    cells = [
        f"{n:,}",
        f"{n * LAYERS * DIMS * 4 / 1e9:.1f}",
        f"{fit_s:.0f} ({fit_s / plain_s:.1f})",
        f"{fit_gb:.2f}",
        f"{build_s:.0f} ({build_s / plain_s:.1f})",
        f"{build_gb:.2f}",
        f"{n * projection.width * 4 / 1e9:.2f}",
    ]
    assert index.vectors.ntotal == n
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Print the table, each line measured in a process of its own."""
    # As the workflow's jobs of one thread.
    os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"
    print("| clips | features, GB | fitting, s (ratio to reading) | its memory, GB | building, s "
          "(ratio to reading) | its memory, GB | the index in it, GB |")  # fmt: skip
    print("|---|---|---|---|---|---|---|", flush=True)
    for n in map(int, sys.argv[1:] or ["25000"]):
        with tempfile.TemporaryDirectory() as folder, get_context("spawn").Pool(1) as pool:
            layer_rows(Path(folder), n, make=True)
            print(pool.apply(measure, (Path(folder), n)), flush=True)


if __name__ == "__main__":
    main()
