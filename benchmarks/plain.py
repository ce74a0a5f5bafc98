"""The loop that most people write to get hidden states: what extraction is measured against."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import HubertModel, Wav2Vec2FeatureExtractor

from mess_core.extraction.checkpoint import find_checkpoint
from mess_core.extraction.hubert import load_hubert

_BATCH = 4
_RATE = 24_000


def load_plain(folder: str | Path, *, attention: str) -> HubertModel:
    """Load transformers' model in float32 with ``eager`` or ``sdpa`` attention."""
    model = load_hubert(find_checkpoint(str(folder)))
    model.set_attn_implementation(attention)
    return model


def run_frames(model: HubertModel, windows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return all hidden states [n, layers, time, dims]: stacked, and copied to numpy."""
    prepare: Any = Wav2Vec2FeatureExtractor(  # type: ignore[no-untyped-call]
        sampling_rate=_RATE, do_normalize=True
    )
    frames = []
    for first in range(0, len(windows), _BATCH):
        batch = list(windows[first : first + _BATCH])
        inputs = prepare(batch, sampling_rate=_RATE, return_tensors="pt")
        with torch.inference_mode():
            states = model(inputs.input_values, output_hidden_states=True).hidden_states
        frames.append(torch.stack(states, dim=1).cpu().numpy())
    return np.concatenate(frames)


def run_plain(model: HubertModel, windows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the means over time of all hidden states [n, layers, dims]."""
    return np.asarray(run_frames(model, windows).mean(axis=2))
