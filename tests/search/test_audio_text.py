"""A tiny random CLAP model, written here, and what is asked of it."""

import json
import shutil
import string
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mess_core.cli.main import main
from mess_core.errors import EncoderError, SearchError
from mess_core.extraction.audio import load_audio
from mess_core.index.artifact import save_artifact
from mess_core.publishing.publish import publish
from mess_core.recordings import COLUMNS, Recording, write_recordings
from mess_core.search.audio_text import fits
from tests.conftest import WriteTone
from tests.planted import FACTS, Corpus, clip_rows

torch = pytest.importorskip("torch")
load_file = pytest.importorskip("safetensors.torch").load_file
save_file = pytest.importorskip("safetensors.torch").save_file
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.integration

RATE = 48_000


def write_clap(folder: Path, *, fusion: bool = False) -> Path:
    """Write a random model of two small towers, and a tokenizer of single letters."""
    text = {"vocab_size": 80, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    audio = {
        "patch_embeds_hidden_size": 8,
        "hidden_size": 16,
        "depths": [1, 1],
        "num_attention_heads": [1, 2],
        "num_hidden_layers": 2,
        "enable_fusion": fusion,
        "fusion_type": "aff_2d" if fusion else None,
    }
    config = transformers.ClapConfig(
        text_config={**text, "intermediate_size": 32}, audio_config=audio, projection_dim=8
    )
    with torch.random.fork_rng():
        torch.manual_seed(3)
        transformers.ClapModel(config).save_pretrained(folder)
    letters = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "Ġ", *string.ascii_letters]
    vocab = {letter: number for number, letter in enumerate(letters)}
    tokenizer = transformers.RobertaTokenizer(vocab=vocab, merges=[])
    extractor = transformers.ClapFeatureExtractor(truncation="fusion" if fusion else "rand_trunc")
    transformers.ClapProcessor(extractor, tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def clap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clap(tmp_path_factory.mktemp("clap") / "model")


def directly(folder: Path, text: str, samples: Any) -> float:
    """Compute a cosine as transformers' documentation does."""
    model = transformers.ClapModel.from_pretrained(folder)
    processor = transformers.ClapProcessor.from_pretrained(folder)
    inputs = processor(
        text=[text], audio=samples, sampling_rate=RATE, return_tensors="pt", padding=True
    )
    with torch.inference_mode():
        output = model(**inputs)
    return float(torch.nn.functional.cosine_similarity(output.text_embeds, output.audio_embeds))


@pytest.mark.parametrize("fusion", [False, True])
def test_cosines_are_those_of_the_model_itself(
    fusion: bool, tmp_path: Path, write_tone: WriteTone
) -> None:
    folder = write_clap(tmp_path / "model", fusion=fusion)
    low, high = write_tone("low.wav", frequency=220), write_tone("high.wav", frequency=1500)
    passages = [(high, 1.0, 4.0), (low, 0.0, 6.0), (high, 0.0, 6.0)]
    found = fits(folder, "soft and slow", passages)
    for (path, start, end), cosine in zip(passages, found, strict=True):
        cut = load_audio(path, sample_rate=RATE)[round(start * RATE) : round(end * RATE)]
        assert cosine == pytest.approx(directly(folder, "soft and slow", cut), abs=1e-5)
    assert np.ptp(found) > 1e-4


def test_long_passages_have_no_chance_in_them(clap: Path, write_tone: WriteTone) -> None:
    passages = [(write_tone("long.wav", seconds=23), 0.0, 23.0)]
    assert fits(clap, "dry", passages) == fits(clap, "dry", passages)


def without(folder: Path, copy: Path, name: str) -> Path:
    shutil.copytree(folder, copy)
    (copy / name).unlink()
    return copy


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("config.json", r"needs config\.json"),
        ("model.safetensors", r"no file named model\.safetensors"),
        ("processor_config.json", "feature extractor"),
        ("tokenizer.json", r"needs config\.json, and tokenizer\.json"),
    ],
)
def test_a_folder_that_lacks_a_file_is_refused(
    name: str, message: str, clap: Path, tmp_path: Path
) -> None:
    with pytest.raises(EncoderError, match=f"cannot be used as a CLAP model.*{message}"):
        fits(without(clap, tmp_path / "copy", name), "dry", [])


def test_pickles_and_weights_that_lack_a_tensor_are_refused(
    clap: Path, tmp_path: Path, write_tone: WriteTone
) -> None:
    folder = without(clap, tmp_path / "copy", "model.safetensors")
    tensors = load_file(clap / "model.safetensors")
    torch.save(tensors, folder / "pytorch_model.bin")
    with pytest.raises(EncoderError, match=r"pytorch_model\.bin may run code .* remove it"):
        fits(folder, "dry", [])
    (folder / "pytorch_model.bin").unlink()
    del tensors["text_model.embeddings.position_ids"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    passage = (write_tone("tone.wav"), 0.0, 6.0)
    assert fits(folder, "dry", [passage]) == fits(clap, "dry", [passage])
    del tensors["text_projection.linear1.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(EncoderError, match=r"lack 1 tensors, .* text_projection\.linear1\.weight"):
        fits(folder, "dry", [])


def test_a_model_on_the_hub_is_not_looked_for() -> None:
    with pytest.raises(EncoderError, match="No such file"):
        fits(Path("laion/clap-htsat-unfused"), "dry", [])


@pytest.mark.parametrize("text", ["", "a" * 501])
def test_a_text_has_a_length(text: str, clap: Path) -> None:
    with pytest.raises(SearchError, match="empty or longer than 500"):
        fits(clap, text, [])


def test_hits_are_put_in_the_order_of_their_fit(
    clap: Path, tmp_path: Path, write_tone: WriteTone, capsys: pytest.CaptureFixture[str]
) -> None:
    index = Corpus(120, seed=1).index(clip_rows(20, 6))
    index = replace(index, facts={**FACTS, "dataset": "demo"})
    publish(save_artifact(index, tmp_path / "indices"), str(tmp_path / "published"))
    audio = {f"r{n}": write_tone(f"r{n}.wav", seconds=20, frequency=200 + 90 * n) for n in range(8)}
    (tmp_path / "data/metadata").mkdir(parents=True)
    empty: Any = dict.fromkeys(COLUMNS, "") | {"duration_s": 20.0, "status": "ok"}
    rows = [Recording(**empty | {"recording_id": n, "audio": str(a)}) for n, a in audio.items()]
    write_recordings(tmp_path / "data/metadata/demo.tsv", rows)
    places = ["--artifacts", str(tmp_path / "published"), "--data", str(tmp_path / "data")]
    asked = ["search", "--clip", "r1@0.000", "--json", *places]

    def hits(*options: str) -> list[dict[str, Any]]:
        assert main([*asked, *options]) == 0
        found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
        return found

    describe = ("--describe", "soft", "--audio-text", str(clap))
    found = hits("-k", "3", *describe)
    known = [hit for hit in hits("-k", "15") if hit["recording_id"] in audio]
    passages = [(audio[hit["recording_id"]], hit["start_s"], hit["end_s"]) for hit in known]
    expected = sorted(fits(clap, "soft", passages), reverse=True)[:3]
    assert [hit.pop("fit") for hit in found] == pytest.approx(expected, abs=1e-6)
    assert len(found) == 3
    assert all(hit in known for hit in found)
    main([*asked[:3], *places, "-k", "1", *describe])
    lines = capsys.readouterr().out.splitlines()
    assert "performances of one piece" in lines[-4]
    assert lines[-3].split()[-1] == "fit"
    assert main([*asked, *describe[:2]]) == 1
    assert "--audio-text" in capsys.readouterr().err


def test_what_the_other_process_imports_is_neither_faiss_nor_torch_before_it_begins() -> None:
    code = "import mess_core.cli.main, mess_core.search.audio_text, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"faiss", "torch", "transformers"} & set(done.stdout.split())
