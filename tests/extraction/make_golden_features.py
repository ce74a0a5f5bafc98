"""Write golden_features.json; run it when `stages.FEATURES` goes up."""

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from mess_core import stages
from mess_core.extraction.encoder import load_encoder
from tests.extraction.checkpoints import NARROW, write_checkpoint

PATH = Path(__file__).with_name("golden_features.json")


def compute(models: Path) -> dict[str, Any]:
    """Return what a narrow MERT makes of a fading tone."""
    times = np.arange(120_000) / 24_000
    window = (0.3 * np.sin(2 * np.pi * 440 * times) * np.exp(-times)).astype(np.float32)
    write_checkpoint(models / "narrow", base=NARROW)
    name = str(models / "narrow")
    encoder = load_encoder(name, models=models, device="cpu", precision="float32")
    pooled = encoder.pooled(window[None])[0]
    return {
        "stage": stages.FEATURES,
        "window_sha256": hashlib.sha256(window.tobytes()).hexdigest(),
        "pooled": np.round(pooled[::4, ::8].astype(float), 5).tolist(),
    }


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        PATH.write_text(json.dumps(compute(Path(folder)), indent=1) + "\n")
