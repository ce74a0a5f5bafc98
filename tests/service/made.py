"""A small published corpus with audio, targets and a recording table, all of it known."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from mess_core.files import file_sha256
from mess_core.index import save_artifact
from mess_core.index.index import Index, Row
from mess_core.layout import Layout
from mess_core.publishing.publish import publish
from mess_core.recordings import Recording, write_recordings
from mess_core.search.search import Searcher
from mess_core.targets.registry import CURVE_FRAMES
from tests.planted import DIMS, FACTS, HOP_S, LAYERS, WINDOW_S, Corpus

RECORDINGS, WINDOWS = 6, 5
DURATION_S = HOP_S * (WINDOWS - 1) + WINDOW_S
RATE = 8000
#: The work's time runs so many times as fast as r0's, r1's, ...
PACES = (1.0, 2.0, 0.5, 1.0, 1.0, 1.0)
#: The indices have a learned space, of some of the features' directions.
SPACES = {"expression": np.eye(LAYERS * DIMS, 8, dtype=np.float32)}
COMPOSERS = ("Frédéric Chopin", "Erik Satie")


def _row(number: int, start_s: float, end_s: float) -> Row:
    pace = PACES[number]
    return Row(
        f"r{number}", f"w{number % 2}", f"player{number}", COMPOSERS[number % 2], f"Étude {number}",
        "", start_s, end_s, pace * start_s, pace * end_s,
    )  # fmt: skip


def make_indices(seed: int = 0) -> dict[str, Index]:
    """Return an index of each kind."""
    windows = [(i, HOP_S * n) for i in range(RECORDINGS) for n in range(WINDOWS)]
    clips = [_row(i, start, start + WINDOW_S) for i, start in windows]
    whole = [_row(i, 0.0, DURATION_S) for i in range(RECORDINGS)]
    made = {
        "clips": Corpus(len(clips), seed=seed).index(clips, spaces=SPACES),
        "recordings": Corpus(len(whole), seed=seed + 100).index(whole, "recordings", SPACES),
    }
    return {kind: replace(i, facts={**FACTS, "dataset": "made"}) for kind, i in made.items()}


def publish_all(folder: Path, location: str, *, seed: int = 0, client: Any = None) -> None:
    """Publish both indices at a location."""
    for kind, index in make_indices(seed).items():
        publish(save_artifact(index, folder / f"{kind}{seed}"), location, client=client)


def open_all(location: Path | str, *kinds: str, client: Any = None) -> dict[str, Searcher]:
    """Open what is published, of some kinds or of both."""
    cache = Path(location if client is None else "cache") / "cache"
    return {
        kind: Searcher.of(str(location), "made", kind, cache_dir=cache, client=client)
        for kind in kinds or ("recordings", "clips")
    }


def ramp(number: int) -> Any:
    """Return the samples of a recording, int16 [frames, 2]: none like the one before."""
    frames = np.arange(round(DURATION_S * RATE), dtype=np.int64)
    return np.column_stack([frames * (number + 1), -frames]).astype(np.int16)


def make_data(data: Path) -> Layout:
    """Write audio and targets of r0, r1 and r2, and a table; r3 has lost its audio, r4 another."""
    layout = Layout(data, "made")
    rows = []
    for number in range(5):
        audio = data / f"r{number}.wav"
        audio.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(audio, ramp(number), RATE, "PCM_16")
        digest = file_sha256(audio)
        row = _row(number, 0.0, DURATION_S)
        rows.append(
            Recording(
                row.recording_id, row.work_id, row.performer, row.composer, row.title, "",
                str(audio), "", "", digest, "", "", DURATION_S, "ok", "",
            )
        )  # fmt: skip
    (data / "r3.wav").unlink()
    soundfile.write(data / "r4.wav", ramp(5), RATE, "PCM_16")
    write_recordings(layout.table, rows)
    path = layout.targets("r0")
    path.parent.mkdir(parents=True)
    np.savez(path, **{"windows/dynamics/loudness_curve": loudness()})
    return layout


def loudness() -> Any:
    """Return curves of windows that are one straight line over the recording, with a gap."""
    starts = HOP_S * np.arange(WINDOWS)[:, np.newaxis]
    times = starts + (np.arange(CURVE_FRAMES) + 0.5) * WINDOW_S / CURVE_FRAMES
    return np.where((times > 6) & (times < 7), np.nan, times)
