"""How well audio fits a text, by a joint audio-text model (CLAP, as transformers' `ClapModel`).

The model comes from a local folder only: no code of it runs, nothing is unpickled or fetched.
"""

__all__ = ["fits"]

import math
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mess_core.errors import EncoderError, SearchError

_RATE = 48_000  # Hz, of what CLAP was trained with
#: What a folder may hold: pickled weights are programs.
_HARMLESS = (".json", ".safetensors", ".txt", ".md", ".gitattributes")


def fits(folder: Path, text: str, passages: Iterable[tuple[Path, float, float]]) -> list[float]:
    """Return the cosine of a text with each passage, which is a file, and from and to in seconds.

    Of a long passage the vectors of equal parts up to 10 s are averaged, each computed alone: in a
    batch, chance has a part. Raises `EncoderError`, `AudioError` or `SearchError`.
    """
    import torch

    from mess_core.extraction.audio import load_audio

    if not 0 < len(text.encode()) <= 500:  # the model takes 512 tokens, each of at least a byte
        raise SearchError("the text is empty or longer than 500 bytes; describe it in a few words")
    processor, model = _load(folder)
    load = lru_cache(1)(load_audio)

    def vector(compute: Any, **given: Any) -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            output = compute(**processor(**given, return_tensors="pt")).pooler_output[0]
        return np.asarray(output.numpy())

    wanted, cosines = vector(model.get_text_features, text=[text]), []
    for path, start_s, end_s in passages:
        samples = load(path, sample_rate=_RATE)[round(start_s * _RATE) : round(end_s * _RATE)]
        parts = math.ceil(len(samples) / processor.feature_extractor.nb_max_samples)
        cut = np.array_split(samples, parts)
        total = sum(vector(model.get_audio_features, audio=p, sampling_rate=_RATE) for p in cut)
        cosines.append(float(wanted @ total / np.linalg.norm(total)))
    return cosines


def _load(folder: Path) -> tuple[Any, Any]:
    from transformers import ClapModel, ClapProcessor

    try:
        names = {path.name for path in folder.iterdir() if path.is_file()}
        if harmful := [name for name in sorted(names) if not name.endswith(_HARMLESS)]:
            raise ValueError(f"{harmful[0]} may run code when it is opened: remove it")
        # Else transformers would go on with its own configuration, or an empty tokenizer.
        if "config.json" not in names or not {"tokenizer.json", "vocab.json"} & names:
            raise ValueError("it needs config.json, and tokenizer.json or vocab.json")
        loaded: Any = ClapModel.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
        needed = dict(loaded[0].named_parameters()).keys()  # positions may be missing
        if lacking := sorted(needed & loaded[1]["missing_keys"]):
            raise ValueError(f"its weights lack {len(lacking)} tensors, for example {lacking[0]}")
        reader = ClapProcessor.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        return reader, loaded[0].float()
    except Exception as error:  # each of transformers' readers has errors of its own
        raise EncoderError(f"{folder} cannot be used as a CLAP model: {str(error)[:400]}") from None
