"""``mess model`` and ``mess estimate``: what they check, print and leave, and how they fail."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.recordings import describe
from mess_core.cli import main as cli
from mess_core.extraction import encoder as encoders
from mess_core.extraction.checkpoint import find_checkpoint
from mess_core.extraction.encoder import Encoder, Engine, Output, load_encoder
from mess_core.extraction.golden import check_windows, golden_hash
from mess_core.extraction.specs import MODELS, SMALL_ENCODER, EncoderSpec, resolve_spec
from mess_core.extraction.torch_engine import HiddenStates, load_module
from mess_core.files import file_sha256
from mess_core.layout import Layout
from mess_core.recordings import write_recordings
from tests.conftest import WriteTone
from tests.extraction.checkpoints import STABLE, write_checkpoint


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


def verify(name: Path | str, models: Path, *options: str) -> int:
    return cli.main(
        ["model", "verify", str(name), "--models", str(models), "--device", "cpu", *options]
    )


@pytest.mark.integration
@pytest.mark.parametrize("form", [{}, STABLE])
def test_verify_prints_what_it_checked(
    tmp_path: Path, models: Path, capsys: pytest.CaptureFixture[str], form: dict[str, Any]
) -> None:
    stored = write_checkpoint(tmp_path / "mine", **form)
    assert verify(tmp_path / "mine", models) == 0
    printed = capsys.readouterr().out
    text = " ".join(printed.split())
    assert printed.endswith("verified\n")
    digest = hashlib.sha256((tmp_path / "mine" / "pytorch_model.bin").read_bytes()).hexdigest()
    assert f"sha256 {digest} (not pinned" in text
    values = sum(tensor.numel() for tensor in stored.values())
    assert f"{len(stored)} tensors with {values:,} values" in text
    checkpoint = find_checkpoint(str(tmp_path / "mine"))
    windows = check_windows(120_000, sample_rate=24_000)
    with torch.inference_mode():
        (pooled,) = HiddenStates(load_module(checkpoint), normalize=True)(torch.from_numpy(windows))
    for line in (
        "hidden_size=16",
        f"attention_relax={form.get('attention_relax', -1.0)}",
        "licence unknown",
        "trained taken for trained",
        "layers 4 ",
        "dims 16 ",
        "sample rate 24000 ",
        "frame rate 75 ",
        "5 s: 120000 samples, 374 frames",
        "do_normalize: True",
        f"golden hash {golden_hash(pooled.numpy())} ",
        "engine openvino",
        "away from transformers' HubertModel",
    ):
        assert line in text


@pytest.mark.integration
def test_verify_says_that_the_bundled_encoder_is_pinned(
    models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify(SMALL_ENCODER, models, "--precision", "float32") == 0
    text = " ".join(capsys.readouterr().out.split())
    assert f"{MODELS[SMALL_ENCODER].weights_sha256} (as pinned)" in text
    assert "trained yes" in text
    assert "licence MIT" in text
    assert "on cpu, float32" in text
    assert text.count("hidden states in the worst layer") == 1


@pytest.mark.unit
def test_verify_prints_what_held_before_the_first_failure(
    tmp_path: Path, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = write_checkpoint(tmp_path)
    del stored["encoder.pos_conv_embed.conv.weight_g"]
    torch.save(stored, tmp_path / "pytorch_model.bin")
    assert verify(tmp_path, models) == 1
    printed = capsys.readouterr()
    assert "sha256" in printed.out
    assert "tensors" not in printed.out
    assert printed.err.startswith("mess model: ")
    assert 'Missing key(s) in state_dict: "encoder.pos_conv_embed' in printed.err


class Distorted:
    """An engine with an error in one layer."""

    device = "cpu"
    name = "distorted"

    def __init__(self, engine: Engine, precision: str, factor: float) -> None:
        self._engine = engine
        self._factor = factor
        self.precision = precision

    def run(self, windows: np.ndarray, *, raw: bool = False) -> Output:
        pooled, frames = self._engine.run(windows, raw=raw)
        noise = np.random.default_rng(0).normal(size=(1, pooled.shape[-1]))
        pooled[:, 2] += self._factor * noise
        if frames is not None:
            frames[:, 2] += self._factor * noise
        return Output(pooled, frames)


@pytest.mark.integration
@pytest.mark.parametrize(
    ("precision", "factor", "message"),
    [
        ("float32", 0.01, "float32 differs from transformers' model by"),
        ("bfloat16", 1.0, "bfloat16 has a cosine of"),
        ("bfloat16", 1e-6, None),
    ],
)
def test_verify_fails_where_the_engine_computes_something_else(
    models: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    precision: str,
    factor: float,
    message: str | None,
) -> None:
    write_checkpoint(models / "mine", mess_trained=False)
    name = str(models / "mine")
    exact = load_encoder(name, models=models, device="cpu", precision="float32")

    def load(_: str, **options: Any) -> Encoder:
        if options["precision"] == "float32" and precision != "float32":
            return exact
        return replace(exact, engine=Distorted(exact.engine, precision, factor))

    monkeypatch.setattr(encoders, "load_encoder", load)
    assert verify(name, models) == (1 if message else 0)
    printed = capsys.readouterr()
    assert "trained        no: results show the mechanism only" in printed.out
    assert (message or "") in printed.err
    assert ("verified" in printed.out) == (message is None)


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EncoderSpec:
    """A tiny model of the hub, whose copy lies in ``tmp_path / "copy"``; the hub is not reached."""
    write_checkpoint(tmp_path / "copy")
    spec = replace(
        resolve_spec(str(tmp_path / "copy")),
        name="tiny",
        source="hub",
        location="somebody/tiny",
        revision="0123456789abcdef",
        weights_sha256=file_sha256(tmp_path / "copy" / "pytorch_model.bin"),
    )
    monkeypatch.setitem(MODELS, "tiny", spec)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return spec


@pytest.mark.unit
def test_fetch_takes_a_folder_and_says_what_is_next(
    tmp_path: Path, published: EncoderSpec, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["model", "fetch", "tiny", "--from", "copy"]) == 0
    printed = capsys.readouterr().out
    assert "tiny is now at data/models/tiny" in printed
    assert f"{published.weights_sha256} (as pinned)" in printed
    assert "next: mess model verify tiny\n" in printed
    copied = tmp_path / "data" / "models" / "tiny"
    assert sorted(path.name for path in copied.iterdir()) == [
        "config.json",
        "preprocessor_config.json",
        "pytorch_model.bin",
    ]
    assert cli.main(["model", "fetch", "tiny"]) == 0
    assert "tiny was already at" in capsys.readouterr().out
    assert cli.main(["model", "fetch", "tiny", "--from", "copy"]) == 1
    assert "remove it first to take copy" in capsys.readouterr().err


@pytest.mark.unit
@pytest.mark.usefixtures("published")
def test_fetch_asks_the_hub_for_the_pinned_revision(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[str, str]] = []

    def snapshot_download(location: str, *, revision: str, **_: object) -> str:
        asked.append((location, revision))
        return "copy"

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    assert cli.main(["model", "fetch", "tiny", "--models", "my models"]) == 0
    assert asked == [("somebody/tiny", "0123456789abcdef")]
    printed = capsys.readouterr().out
    assert "next: mess model verify tiny --models 'my models'" in printed


@pytest.mark.unit
@pytest.mark.usefixtures("published")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tiny"], "hf download somebody/tiny --revision 0123456789abcdef"),
        (["tiny", "--from", "nowhere"], "nowhere"),
        (["tiny", "--from", "other"], "SHA-256"),
        (["tinny"], "did you mean 'tiny'"),
        (["copy"], "needs no fetching"),
        ([SMALL_ENCODER, "--from", "copy"], "leave out --from"),
    ],
)
def test_fetch_that_fails_says_why_and_keeps_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    write_checkpoint(tmp_path / "other", scale=0.2)
    assert cli.main(["model", "fetch", *arguments]) == 1
    assert message in capsys.readouterr().err
    models = tmp_path / "data" / "models"
    assert not models.exists() or [p.name for p in models.iterdir() if p.is_dir()] == []


@pytest.mark.unit
def test_list_says_what_is_known_pinned_and_here(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "MERT-v1-95M").mkdir()
    (tmp_path / "MERT-v1-95M" / "config.json").touch()
    assert cli.main(["model", "list", "--models", str(tmp_path)]) == 0
    title, _, *lines = capsys.readouterr().out.splitlines()
    assert title.split() == ["model", "layers", "dims", "revision", "weights", "licence", "here"]
    rows = {line.split()[0]: line.split()[1:] for line in lines}
    assert rows.keys() == MODELS.keys()
    assert rows["MERT-v1-95M"] == ["13", "768", "12af15fef9d0", "pinned", "CC-BY-NC-4.0", "yes"]
    assert rows["MERT-v1-330M"][3:] == ["not", "pinned", "CC-BY-NC-4.0", "no"]
    assert rows[SMALL_ENCODER][2] == "bundled"


@pytest.mark.unit
def test_descriptors_are_here_and_have_nothing_to_fetch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["model", "list", "--models", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split()[4:] == ["none", "MIT", "yes"]
    assert verify("descriptors", tmp_path) == 0
    assert "timbre, harmony, rhythm" in capsys.readouterr().out
    assert cli.main(["model", "fetch", "descriptors", "--models", str(tmp_path)]) == 1
    assert "has no weights: `encoder: descriptors` works as it is" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


@pytest.mark.integration
def test_estimate_counts_what_the_table_says_can_be_used(
    tmp_path: Path, write_tone: WriteTone, capsys: pytest.CaptureFixture[str]
) -> None:
    write_checkpoint(tmp_path / "tiny")
    seconds = {"a": 2.25, "b": 1.0, "c": 0.5}
    rows = [describe(write_tone(f"{name}.wav", seconds=length)) for name, length in seconds.items()]
    write_recordings(Layout(tmp_path / "data", "mine").table, rows)
    command = ["estimate", "--dataset", "mine", "--data", str(tmp_path / "data")]
    options = ["--encoder", str(tmp_path / "tiny"), "--window", "1", "--device", "cpu"]
    assert cli.main([*command, *options]) == 0
    printed = capsys.readouterr().out
    # 2.25 s: windows at 0, 0.5, 1 and 1.25 s; 1 s: one; 0.5 s: too short.
    assert "2 recordings, 0.00 hours of audio, 5 windows" in printed
    assert "about " in printed
    assert not (tmp_path / "data" / "embeddings").exists()
