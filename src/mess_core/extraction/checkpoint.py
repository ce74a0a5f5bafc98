"""A checkpoint on disk: found by name, fetched where it is missing, and read without torch.

A folder in MERT's form holds ``config.json``, ``preprocessor_config.json`` and the weights
(``model.safetensors`` or ``pytorch_model.bin``). No code from it runs. Its configuration is read
strictly: a switch that `HubertModel` would not follow is an error, since the model would then
compute something else than the one that was trained.

An untrained twin has the shape of a trained encoder and transformers' own initialisation: only what
a trained encoder knows beyond its twin was learned.
"""

__all__ = ["Checkpoint", "fetch_model", "find_checkpoint", "make_untrained"]

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from filelock import FileLock

from mess_core.errors import EncoderError
from mess_core.extraction.specs import (
    DESCRIPTORS,
    SMALL_TYPE,
    EncoderSpec,
    is_here,
    read_model_json,
    resolve_spec,
    where_to_get,
)
from mess_core.files import file_sha256, fingerprint, write_bytes, write_json

#: How long the hub may take to answer at all, s.
_REACHED_S = 5.0

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_CONFIGS = ("config.json", "preprocessor_config.json")

# What HuBERT's computation, or the set of its tensors, depends on (transformers' HubertConfig).
_HUBERT = """
    hidden_size num_hidden_layers num_attention_heads intermediate_size hidden_act layer_norm_eps
    feat_extract_norm feat_proj_layer_norm feat_extract_activation conv_dim conv_stride conv_kernel
    conv_bias num_conv_pos_embeddings num_conv_pos_embedding_groups conv_pos_batch_norm
    do_stable_layer_norm mask_time_prob mask_feature_prob
"""
# What does not change hidden states: settings of training, of other heads, of text generation
# (transformers 4 writes them into every file) and of libraries. `attention_relax` divides the
# attention's logits by a number, subtracts their maximum and multiplies them again: a softmax does
# not see it (MARBLE's MusicHubert.py, and a test here).
_INERT = """
    activation_dropout apply_spec_augment attention_dropout feat_extract_dropout feat_proj_dropout
    final_dropout hidden_dropout hidden_dropout_prob layerdrop initializer_range
    gradient_checkpointing ctc_loss_reduction ctc_zero_infinity classifier_proj_size
    use_weighted_layer_sum vocab_size bos_token_id eos_token_id pad_token_id sep_token_id
    tokenizer_class num_feat_extract_layers sample_rate feature_extractor_cqt_bins attention_relax
    auto_map architectures model_type torch_dtype dtype transformers_version license
    return_dict output_hidden_states output_attentions use_return_dict use_cache torchscript
    id2label label2id num_labels problem_type finetuning_task task_specific_params
    tie_word_embeddings tie_encoder_decoder tf_legacy_loss use_bfloat16 prefix
    max_length min_length do_sample early_stopping num_beams num_beam_groups diversity_penalty
    temperature top_k top_p typical_p repetition_penalty length_penalty no_repeat_ngram_size
    encoder_no_repeat_ngram_size bad_words_ids num_return_sequences output_scores
    return_dict_in_generate forced_bos_token_id forced_eos_token_id remove_invalid_values
    exponential_decay_length_penalty suppress_tokens begin_suppress_tokens decoder_start_token_id
"""
_FOLLOWED, _IGNORED = set(_HUBERT.split()), set(_INERT.split())
_INERT_PREFIXES = ("_", "mask_feature_", "mask_time_", "mask_channel_", "mess_")
# How a switch that HuBERT does not have says that it is off.
_OFF: tuple[Any, ...] = (None, False, 0, "", [], {})
_MODEL_TYPES = ("mert_model", "hubert")

# The bundled trained encoder, with its card.
_BUNDLED = Path(__file__).with_name("mess-small")

# What an untrained twin's weights are drawn from.
_SEED = 2026


@dataclass(frozen=True)
class Checkpoint:
    """A model folder that can be loaded exactly.

    ``spec`` has the weights' SHA-256, ``config`` what `transformers.HubertConfig` is made of. With
    ``normalize`` every window is brought to mean 0 and variance 1 first.
    """

    spec: EncoderSpec
    folder: Path
    weights: Path
    config: dict[str, Any]
    normalize: bool

    @property
    def fingerprint(self) -> str:
        """Of everything that the model's output depends on, besides its input and precision."""
        facts = {"weights": self.spec.weights_sha256, "normalize": self.normalize}
        return fingerprint({**facts, "config": self.config})


def find_checkpoint(name: str, *, models: Path = Path("data/models")) -> Checkpoint:
    """Find a model's folder and check what can be read of it; nothing is fetched.

    ``name`` is one of `specs.MODELS` or a local folder in MERT's form; ``models`` is where fetched
    models are kept. Raises `EncoderError` if the model is not to be had, its weights are not those
    that are pinned, or its configuration asks for parts that HuBERT does not have.
    """
    spec = resolve_spec(name)
    if spec.kind == DESCRIPTORS:
        raise EncoderError(f"{spec.name} has no weights, so there is no checkpoint")
    if not is_here(spec, models):
        raise EncoderError(where_to_get(spec, models))
    places = {"bundled": _BUNDLED, "folder": Path(spec.location).expanduser()}
    return read_checkpoint(places.get(spec.source, models / spec.name), spec)


def read_checkpoint(folder: Path, spec: EncoderSpec) -> Checkpoint:
    """Check a folder against its spec and read its configuration; see `find_checkpoint`."""
    weights = _weights_file(folder)
    sha256 = file_sha256(weights)
    if spec.weights_sha256 not in (None, sha256):
        raise EncoderError(
            f"{weights}: its SHA-256 is {sha256}, {spec.name} has {spec.weights_sha256}; "
            "remove the folder and get it again"
        )
    spec = replace(spec, weights_sha256=sha256)
    if spec.kind == "small":  # the code has its form
        return Checkpoint(spec, folder, weights, {"model_type": SMALL_TYPE}, normalize=False)
    path = folder / "config.json"
    config = read_model_json(path)
    if config.get("model_type") not in _MODEL_TYPES:
        raise EncoderError(
            f"{path}: model_type is {config.get('model_type')!r}; only "
            f"{' and '.join(_MODEL_TYPES)} can be loaded exactly"
        )
    for key, value in config.items():
        known = key in _FOLLOWED | _IGNORED or key.startswith(_INERT_PREFIXES)
        if not known and value not in _OFF:
            raise EncoderError(
                f"{path}: {key} is {value!r}, which HuBERT does not have; only checkpoints "
                "without it can be loaded exactly"
            )
    preprocessor = read_model_json(folder / "preprocessor_config.json")
    keys = ("num_hidden_layers", "hidden_size")
    found = (*map(config.get, keys), preprocessor.get("sampling_rate"))
    expected = (spec.layers - 1, spec.dims, spec.sample_rate)
    if found != expected:
        raise EncoderError(
            f"{folder}: its configuration says (transformer layers, dims, samples per second) are "
            f"{found}, {spec.name} has {expected}; it is another model's folder, or damaged"
        )
    facts = {key: value for key, value in config.items() if key in _FOLLOWED}
    # transformers 4.48 on reads it for every HuBERT, and MERT's configs do not have it.
    facts.setdefault("conv_pos_batch_norm", False)
    normalize = preprocessor.get("do_normalize", True)
    if not isinstance(normalize, bool):
        raise EncoderError(
            f"{folder / 'preprocessor_config.json'}: do_normalize is {normalize!r}, it must be "
            "true or false"
        )
    checkpoint = Checkpoint(spec, folder, weights, facts, normalize)
    if spec.fingerprint not in (None, checkpoint.fingerprint):
        raise EncoderError(
            f"{folder}: its config.json or preprocessor_config.json is not that of {spec.name}; "
            "remove the folder and get it again, or give a changed model's folder as `encoder`"
        )
    return checkpoint


def _weights_file(folder: Path) -> Path:
    for name in _WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    raise EncoderError(f"{folder} holds no weights; expected {' or '.join(_WEIGHTS)}")


def fetch_model(
    spec: EncoderSpec, *, models: Path = Path("data/models"), source: Path | None = None
) -> Path:
    """Bring a model of the hub into the models folder: from ``source``, the hub's cache or the hub.

    Returns the folder ``{models}/{name}``, which is left as it is where it is there already.
    ``source`` is a copy of the model's folder to take instead of asking the hub.

    If the model is not to be had, or not the pinned one, it is an EncoderError and nothing is kept.
    """
    folder = models / spec.name
    if is_here(spec, models):
        return folder
    if source is not None and not source.is_dir():
        raise EncoderError(f"{source} does not exist or is no folder; give the model's folder")
    models.mkdir(parents=True, exist_ok=True)
    with FileLock(models / f".{spec.name}.lock"):
        if not is_here(spec, models):
            found = source or _from_hub(spec, models)
            read_checkpoint(found, spec)
            with TemporaryDirectory(prefix=".tmp-", dir=models) as temporary:
                fresh = Path(temporary) / spec.name
                fresh.mkdir()
                for path in (*(found / name for name in _CONFIGS), _weights_file(found)):
                    shutil.copyfile(path, fresh / path.name)
                read_checkpoint(fresh, spec)
                fresh.replace(folder)
    return folder


def _from_hub(spec: EncoderSpec, models: Path) -> Path:
    """Return the folder in the hub's cache, which is filled where the hub can be reached."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(
                spec.location,
                revision=spec.revision,
                allow_patterns=[*_CONFIGS, *_WEIGHTS],
                # The library tries an unreachable hub again for half a minute.
                local_files_only=not _is_reachable(constants.ENDPOINT),
            )
        )
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise EncoderError(
            f"{spec.name} is not in the hub's cache, and could not be fetched "
            f"({type(error).__name__}); {where_to_get(spec, models)}"
        ) from None


def _is_reachable(address: str) -> bool:
    try:
        urlopen(Request(address, method="HEAD"), timeout=_REACHED_S).close()
    except HTTPError:
        return True
    except OSError:
        return False
    return True


def make_untrained(checkpoint: Checkpoint, folder: Path) -> Path:
    """Write an encoder of a checkpoint's shape and normalisation with untrained weights.

    Returns ``folder``, the same bytes every time; its ``config.json`` says ``mess_trained: false``.
    """
    import torch
    from safetensors.torch import save

    from mess_core.extraction.torch_engine import make_module

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        tensors = make_module(checkpoint).state_dict()
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    write_bytes(folder / "model.safetensors", save(contiguous, metadata={"format": "pt"}))
    if checkpoint.spec.kind == "mert":
        write_json(
            folder / "preprocessor_config.json",
            read_model_json(checkpoint.folder / "preprocessor_config.json"),
        )
    config = read_model_json(checkpoint.folder / "config.json")
    write_json(folder / "config.json", {**config, "mess_trained": False})
    return folder
