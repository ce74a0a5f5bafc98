"""Write golden_features.json; run it when `stages.FEATURES` goes up."""

import hashlib
import json
import tempfile
from pathlib import Path

import numpy as np

from mess_core import stages
from mess_core.extraction.encoder import load_encoder
from mess_core.extraction.specs import DEMO_ENCODER


def main() -> None:
    times = np.arange(120_000) / 24_000
    window = (0.3 * np.sin(2 * np.pi * 440 * times) * np.exp(-times)).astype(np.float32)
    with tempfile.TemporaryDirectory() as models:
        encoder = load_encoder(DEMO_ENCODER, models=Path(models), device="cpu", precision="float32")
        pooled = encoder.pooled(window[None])[0]
    content = {
        "stage": stages.FEATURES,
        "window_sha256": hashlib.sha256(window.tobytes()).hexdigest(),
        "pooled": np.round(pooled[::4, ::8].astype(float), 5).tolist(),
    }
    path = Path(__file__).parent / "golden_features.json"
    path.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
