"""What is known about an encoder before it is loaded. Imports nothing heavy."""

__all__ = [
    *("DESCRIPTORS", "MODELS", "SMALL_ENCODER", "SMALL_TYPE", "EncoderSpec"),
    *("auto_encoder", "is_here", "resolve_spec", "where_to_get"),
]

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mess_core import stages
from mess_core.errors import EncoderError, nearest
from mess_core.files import fingerprint

#: The bundled encoder, trained on piano music; its card is beside its weights.
SMALL_ENCODER = "mess-small"
#: ``model_type`` in the ``config.json`` of what `mess train` exports.
SMALL_TYPE = "mess_small"
#: Defined numbers; what there is where no weights are.
DESCRIPTORS = "descriptors"


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderSpec:
    """Facts about an encoder: windows of audio in, time means ``[windows, layers, dims]`` out.

    ``kind`` is ``mert`` (a HuBERT), ``small`` (log-mel and a small transformer) or ``descriptors``
    (no weights). ``source`` is ``bundled``, ``hub`` or ``folder``; ``location`` the hub's
    repository or the folder, ``revision`` the hub's. ``layers`` counts the input of a transformer's
    first; without ``layer_names`` they are numbers. Hidden states have ``frame_rate`` frames per
    second, 0 where there are none. ``window_s`` is the length of windows that it was made for. The
    hash of the weights, and the ``fingerprint`` of all that the output depends on, are None where
    they are only known after loading. ``licence`` is that of the weights.
    """

    name: str
    kind: str = "mert"
    source: str
    location: str = ""
    revision: str = ""
    sample_rate: int = 24_000
    frame_rate: float = 75.0
    layers: int
    layer_names: tuple[str, ...] = ()
    dims: int
    window_s: float = 5.0
    weights_sha256: str | None = None
    licence: str
    trained: bool = True
    fingerprint: str | None = None


# MERT-v1: Li et al., "MERT: Acoustic Music Understanding Model with Large-Scale Self-supervised
# Training", ICLR 2024; rates, layers and dims from the models' cards. Several public projects pin
# these revisions and this hash of the 95M weights; for the 330M no published hash was found. The
# 95M fingerprint is that of the published configuration.
MODELS: dict[str, EncoderSpec] = {
    spec.name: spec
    for spec in (
        EncoderSpec(
            name=SMALL_ENCODER,
            kind="small",
            source="bundled",
            layers=7,
            dims=160,
            weights_sha256="4def88b89130867dd2fa831bd37e4dd49cba1b310d7391222e6082b863b301a5",
            licence="MIT",
            fingerprint="1a5a1474fd2e1838b5fb8ed0c563c60d6d902f77b55839949f3e1ac5ba610dbc",
        ),
        EncoderSpec(
            name="MERT-v1-95M",
            source="hub",
            location="m-a-p/MERT-v1-95M",
            revision="12af15fef9d0ac838c3f475bfbbf26d2060dd4f5",
            layers=13,
            dims=768,
            weights_sha256="a2b8b747f72c06e0595aeae41ae5473f4364938c6b39b2c58be38c48e6bd3fcd",
            licence="CC-BY-NC-4.0",
            fingerprint="83a9f3de25a3b06ba8c17e081fcc6eae54f29ead451ca32a50074b46cdd0d1b0",
        ),
        EncoderSpec(
            name="MERT-v1-330M",
            source="hub",
            location="m-a-p/MERT-v1-330M",
            revision="5240c2708a5acaee1007f43fb9735c7dcd0b78c9",
            layers=25,
            dims=1024,
            licence="CC-BY-NC-4.0",
        ),
        EncoderSpec(
            name=DESCRIPTORS,
            kind="descriptors",
            source="bundled",
            frame_rate=0.0,
            layers=8,
            layer_names=(
                *("timbre", "harmony", "rhythm", "dynamics"),
                *("articulation", "space", "keys", "all"),
            ),
            dims=402,
            licence="MIT",
            fingerprint=fingerprint({"kind": "descriptors", "stage": stages.DESCRIPTORS}),
        ),
    )
}


def auto_encoder(models: Path) -> str:
    """Return the name of the encoder to take where none is asked for; see `is_here`."""
    mert = MODELS["MERT-v1-95M"]
    return mert.name if is_here(mert, models) else SMALL_ENCODER


def is_here(spec: EncoderSpec, models: Path) -> bool:
    """Say whether an encoder can be loaded without fetching it into the models folder."""
    folder = models / spec.name
    return spec.source != "hub" or (folder.is_dir() and any(folder.iterdir()))


def where_to_get(spec: EncoderSpec, models: Path) -> str:
    """Say that the weights of a model of the hub are missing, how to get them, and what works."""
    return (
        f"the weights of {spec.name} are not in {models}. With a network: `mess model fetch "
        f"{spec.name}`. Without one: `hf download {spec.location} --revision {spec.revision}` on a "
        f"machine that has one, copy the folder, and `mess model fetch {spec.name} --from FOLDER`. "
        f"What works now: `encoder: {SMALL_ENCODER}` (trained, piano only) or `encoder: "
        f"{DESCRIPTORS}` (defined numbers)"
    )


def resolve_spec(name: str) -> EncoderSpec:
    """Return the facts about an encoder: a key in `MODELS`, or the path of a local folder.

    For a folder ``weights_sha256`` is None and ``trained`` is what its ``config.json`` says in
    ``mess_trained`` (true when it says nothing). A name that is neither, and a folder whose
    configuration cannot be read, are an EncoderError.
    """
    if name in MODELS:
        return MODELS[name]
    folder = Path(name).expanduser()
    if not (folder / "config.json").is_file():
        raise EncoderError(
            f"encoder {name!r} is neither a known model ({nearest(name, MODELS)}) "
            "nor a folder with a config.json"
        )
    config = read_model_json(folder / "config.json")
    spec = replace(
        MODELS[SMALL_ENCODER],
        name=folder.resolve().name,
        source="folder",
        location=str(folder),
        weights_sha256=None,
        licence=str(config.get("license", "unknown")),
        trained=bool(config.get("mess_trained", True)),
        fingerprint=None,
    )
    if config.get("model_type") == SMALL_TYPE:
        return spec
    preprocessor = read_model_json(folder / "preprocessor_config.json")
    try:
        sample_rate = int(preprocessor["sampling_rate"])
        stride = math.prod(map(int, config["conv_stride"]))
        return replace(
            spec,
            kind="mert",
            sample_rate=sample_rate,
            frame_rate=sample_rate / stride,
            layers=int(config["num_hidden_layers"]) + 1,
            dims=int(config["hidden_size"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise EncoderError(f"{folder}: its configuration lacks or misstates {error}") from None


def read_model_json(path: Path) -> dict[str, Any]:
    """Read one of a model folder's JSON files."""
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        raise EncoderError(f"{path} does not exist; a model folder needs it") from None
    except ValueError as error:
        raise EncoderError(f"{path} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise EncoderError(f"{path} holds a {type(content).__name__}, expected an object")
    return content
