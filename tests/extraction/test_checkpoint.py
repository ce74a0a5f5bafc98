"""What of a model folder can be known before it is loaded, and where folders come from."""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import HubertConfig

from mess_core.errors import EncoderError
from mess_core.extraction.checkpoint import fetch_model, find_checkpoint
from mess_core.extraction.specs import MODELS, EncoderSpec, resolve_spec
from mess_core.extraction.torch_engine import load_module
from mess_core.files import file_sha256
from tests.extraction.checkpoints import MERT_95M, STABLE, TINY, write_checkpoint

pytestmark = pytest.mark.unit

#: An address at which nobody answers.
NOBODY = "http://127.0.0.1:9"


@pytest.mark.parametrize("form", [{}, STABLE])
@pytest.mark.parametrize("binary", [False, True])
def test_merts_own_configurations_are_accepted(
    tmp_path: Path, form: dict[str, Any], binary: bool
) -> None:
    write_checkpoint(tmp_path, binary=binary, normalize=False, **form)
    found = find_checkpoint(str(tmp_path))
    assert found.weights.suffix == (".bin" if binary else ".safetensors")
    assert found.spec.weights_sha256 == file_sha256(found.weights)
    assert (found.spec.layers, found.spec.dims, found.spec.sample_rate) == (4, 16, 24_000)
    assert found.config["conv_pos_batch_norm"] is False
    assert not found.normalize


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("feature_extractor_cqt", True),
        ("deepnorm", True),
        ("rotary_attention", True),
        ("relative_bias", 320),
        ("adapter", "conv"),
    ],
)
def test_switches_that_hubert_does_not_have_are_refused(
    tmp_path: Path, key: str, value: Any
) -> None:
    write_checkpoint(tmp_path, **{key: value})
    with pytest.raises(EncoderError, match=f"{key} is {value!r}, which HuBERT does not have"):
        find_checkpoint(str(tmp_path))


@pytest.mark.parametrize("form", [{}, STABLE])
def test_what_transformers_itself_writes_is_accepted(tmp_path: Path, form: dict[str, Any]) -> None:
    """All of `to_dict()`, defaults included, means the same as MERT's short config."""
    write_checkpoint(tmp_path, **form)
    short = find_checkpoint(str(tmp_path))
    known = HubertConfig().to_dict()
    del known["model_type"]
    config = HubertConfig(**{k: v for k, v in (TINY | form).items() if k in known})
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    full = find_checkpoint(str(tmp_path))
    assert full.config == short.config
    assert full.fingerprint == short.fingerprint
    load_module(full)


@pytest.mark.parametrize("value", [False, None, 0, ""])
def test_an_unknown_switch_that_is_off_does_no_harm(tmp_path: Path, value: Any) -> None:
    write_checkpoint(tmp_path, rotary_attention=value)
    find_checkpoint(str(tmp_path))


@pytest.mark.parametrize("kind", ["wavlm", "wav2vec2", None])
def test_other_kinds_of_models_are_refused(tmp_path: Path, kind: str | None) -> None:
    write_checkpoint(tmp_path, model_type=kind)
    with pytest.raises(EncoderError, match=r"model_type is .* mert_model and hubert"):
        find_checkpoint(str(tmp_path))


def test_the_fingerprint_follows_all_that_matters_and_nothing_else(tmp_path: Path) -> None:
    def of(name: str, **changes: Any) -> str:
        write_checkpoint(tmp_path / name, **changes)
        return find_checkpoint(str(tmp_path / name)).fingerprint

    same = {of("a"), of("b", layerdrop=0.5), of("c", attention_relax=32.0)}
    assert len(same) == 1
    others = {of("d", layer_norm_eps=1e-6), of("e", normalize=False), of("f", scale=0.2)}
    assert len(others | same) == 4


def test_unknown_names_and_folders_say_what_exists(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match=r"did you mean 'MERT-v1-95M'"):
        resolve_spec("MERT-v1-95")
    write_checkpoint(tmp_path / "mine", hidden_size=32)
    spec = resolve_spec(str(tmp_path / "mine"))
    assert (spec.name, spec.layers, spec.dims, spec.frame_rate) == ("mine", 4, 32, 75.0)


def test_hub_models_are_pinned_to_commits() -> None:
    hub = [spec for spec in MODELS.values() if spec.source == "hub"]
    assert len(hub) == 2
    for spec in hub:
        assert len(spec.revision) == 40
        assert int(spec.revision, 16)


@pytest.fixture
def hub_spec(tmp_path: Path) -> EncoderSpec:
    """A model of the hub that is as tiny as the checkpoint in ``tmp_path/copy``."""
    write_checkpoint(tmp_path / "copy")
    sha256 = file_sha256(tmp_path / "copy" / "pytorch_model.bin")
    return replace(
        MODELS["MERT-v1-95M"],
        name="tiny",
        layers=4,
        dims=16,
        weights_sha256=sha256,
        fingerprint=None,
    )


def test_a_copied_folder_is_taken_and_used_later(tmp_path: Path, hub_spec: EncoderSpec) -> None:
    models = tmp_path / "models"
    folder = fetch_model(hub_spec, models=models, source=tmp_path / "copy")
    assert folder == models / "tiny"
    assert sorted(p.name for p in folder.iterdir()) == [
        "config.json",
        "preprocessor_config.json",
        "pytorch_model.bin",
    ]
    assert fetch_model(hub_spec, models=models) == folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights_sha256": "0" * 64}, "its SHA-256 is"),
        ({"dims": 768}, r"are \(3, 16, 24000\), tiny has \(3, 768, 24000\)"),
        ({"fingerprint": "0" * 64}, r"is not that of tiny"),
    ],
)
def test_another_model_is_not_taken(
    tmp_path: Path, hub_spec: EncoderSpec, change: dict[str, Any], message: str
) -> None:
    wanted = replace(hub_spec, **change)
    with pytest.raises(EncoderError, match=message):
        fetch_model(wanted, models=tmp_path / "models", source=tmp_path / "copy")
    assert [p.name for p in (tmp_path / "models").iterdir()] == [".tiny.lock"]


def test_an_incomplete_or_missing_copy_is_named(tmp_path: Path, hub_spec: EncoderSpec) -> None:
    with pytest.raises(EncoderError, match="nowhere does not exist"):
        fetch_model(hub_spec, models=tmp_path, source=tmp_path / "nowhere")
    (tmp_path / "copy" / "preprocessor_config.json").unlink()
    with pytest.raises(EncoderError, match=r"preprocessor_config\.json does not exist"):
        fetch_model(hub_spec, models=tmp_path / "models", source=tmp_path / "copy")


def test_an_empty_folder_is_no_model(tmp_path: Path, hub_spec: EncoderSpec) -> None:
    (tmp_path / "models" / "tiny").mkdir(parents=True)
    folder = fetch_model(hub_spec, models=tmp_path / "models", source=tmp_path / "copy")
    assert (folder / "config.json").is_file()


@pytest.mark.slow
def test_merts_published_configuration_is_the_pinned_one(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, base=MERT_95M)
    found = find_checkpoint(str(tmp_path))
    spec = MODELS["MERT-v1-95M"]
    real = replace(found, spec=replace(found.spec, weights_sha256=spec.weights_sha256))
    assert real.fingerprint == spec.fingerprint
    assert replace(real, normalize=False).fingerprint != spec.fingerprint


def test_normalisation_is_said_in_json(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, normalize="false")  # type: ignore[arg-type]
    with pytest.raises(EncoderError, match="do_normalize is 'false', it must be true or false"):
        find_checkpoint(str(tmp_path))


def test_the_hubs_cache_serves_without_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub_spec: EncoderSpec
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", NOBODY)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    repository = tmp_path / "hub" / "models--m-a-p--MERT-v1-95M"
    snapshot = repository / "snapshots" / hub_spec.revision
    snapshot.parent.mkdir(parents=True)
    (tmp_path / "copy").rename(snapshot)
    assert (fetch_model(hub_spec, models=tmp_path / "models") / "config.json").is_file()


def test_a_hub_model_without_hub_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", NOBODY)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    started = time.monotonic()
    # A job does not ask the hub; to fetch does.
    for get in (find_checkpoint, lambda name, models: fetch_model(MODELS[name], models=models)):
        with pytest.raises(EncoderError) as caught:
            get("MERT-v1-95M", models=tmp_path / "models")
        message = str(caught.value)
        assert "`mess model fetch MERT-v1-95M --from FOLDER`" in message
        assert "`encoder: mess-small`" in message
    assert time.monotonic() - started < 10, "the library alone tries for half a minute"
    assert f"hf download m-a-p/MERT-v1-95M --revision {MODELS['MERT-v1-95M'].revision}" in message


def test_a_missing_or_broken_configuration_is_named(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text("{")
    with pytest.raises(EncoderError, match=r"preprocessor_config\.json is not JSON"):
        find_checkpoint(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mert_model"}))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"sampling_rate": 24_000}))
    with pytest.raises(EncoderError, match="lacks or misstates"):
        find_checkpoint(str(tmp_path))
    (tmp_path / "pytorch_model.bin").unlink()
    (tmp_path / "config.json").write_text(json.dumps(TINY))
    with pytest.raises(EncoderError, match="holds no weights"):
        find_checkpoint(str(tmp_path))
