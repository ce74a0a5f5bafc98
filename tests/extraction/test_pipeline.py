"""Extraction over many recordings: right values, nothing computed twice, nothing lost."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks.recordings import describe
from mess_core.errors import AudioError, DatasetError, EncoderError, MessError, StorageError
from mess_core.extraction.audio import load_audio
from mess_core.extraction.encoder import Encoder
from mess_core.extraction.extractor import FeatureExtractor
from mess_core.extraction.pipeline import ExtractionPipeline, estimate_extraction_time
from mess_core.extraction.storage import load_features
from mess_core.files import read_json, save_array, write_bytes, write_json
from mess_core.layout import Layout
from mess_core.recordings import Recording, write_recordings
from mess_core.workflow import jobs
from tests.conftest import WriteTone

pytestmark = pytest.mark.unit


@pytest.fixture
def extractor(torch_encoder: Encoder) -> FeatureExtractor:
    return FeatureExtractor(torch_encoder, window_s=1.0, batch_size=2)


@pytest.fixture
def recordings(write_tone: WriteTone) -> list[Recording]:
    return [
        describe(write_tone(f"{name}.wav", seconds=2.25, frequency=frequency))
        for name, frequency in (("a", 220.0), ("b", 440.0), ("c", 880.0))
    ]


def count_decoded(monkeypatch: pytest.MonkeyPatch, extractor: FeatureExtractor) -> list[str]:
    """Return a list that grows by the files that are really decoded for the model."""
    files: list[str] = []
    real = extractor.windows

    def windows(path: Path) -> Iterator[tuple[int, np.ndarray]]:
        files.append(path.stem)
        return real(path)

    monkeypatch.setattr(extractor, "windows", windows)
    return files


def run(
    extractor: FeatureExtractor,
    layout: Layout,
    recordings: Sequence[Recording],
    views: Sequence[str] = ("segments", "aggregated"),
) -> Mapping[str, Mapping[str, str]]:
    summary = ExtractionPipeline(extractor, layout, views=views).run(recordings)
    assert not summary.failed
    return summary.stored


def test_views_have_the_contracts_shapes_and_agree(
    tmp_path: Path, extractor: FeatureExtractor, recordings: list[Recording]
) -> None:
    layout = Layout(tmp_path / "data", "x")
    run(extractor, layout, recordings, ("raw", "segments", "aggregated"))
    raw, segments, aggregated = (
        load_features(layout, "a", view=view) for view in ("raw", "segments", "aggregated")
    )
    dims = extractor.encoder.spec.dims
    assert raw.shape == (4, 13, 74, dims)
    assert segments.shape == (4, 13, dims)
    assert aggregated.shape == (13, dims)
    np.testing.assert_allclose(segments, raw.mean(axis=2), atol=1e-5)
    np.testing.assert_allclose(aggregated, segments.mean(axis=0), atol=1e-6)
    pooled = Layout(tmp_path / "other", "x")
    run(extractor, pooled, recordings)
    np.testing.assert_allclose(load_features(pooled, "a", view="segments"), segments, atol=1e-5)


def test_a_window_alone_equals_the_same_window_inside_a_recording(
    extractor: FeatureExtractor, recordings: list[Recording]
) -> None:
    samples = load_audio(Path(recordings[0].audio))
    inside = extractor.extract(samples)
    assert inside.starts_s.tolist() == [0.0, 0.5, 1.0, 1.25]
    for start, expected in zip(inside.starts_s, inside.segments, strict=True):
        first = round(start * 24_000)
        alone = extractor.extract(samples[first : first + 24_000]).segments[0]
        np.testing.assert_allclose(alone, expected, rtol=1e-4, atol=1e-5)


def test_nothing_is_computed_twice_and_outputs_come_back_from_the_store(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    extractor: FeatureExtractor,
    recordings: list[Recording],
) -> None:
    layout = Layout(tmp_path / "data", "x")
    first = run(extractor, layout, recordings[:2])
    expected = layout.features("segments", "a").read_bytes()
    kept = layout.features("segments", "b").stat()
    decoded = count_decoded(monkeypatch, extractor)

    layout.features("segments", "a").unlink()
    write_bytes(layout.features("aggregated", "a"), b"another file")
    second = run(extractor, layout, recordings)
    assert decoded == ["c"]
    assert layout.features("segments", "a").read_bytes() == expected
    assert load_features(layout, "a").shape == (13, extractor.encoder.spec.dims)
    assert layout.features("segments", "b").stat().st_mtime_ns == kept.st_mtime_ns
    assert second.items() >= first.items()


def test_outputs_are_the_cached_files_and_damage_is_computed_again(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    extractor: FeatureExtractor,
    recordings: list[Recording],
) -> None:
    layout = Layout(tmp_path / "data", "x")
    run(extractor, layout, recordings[:2])
    output = layout.features("segments", "a")
    assert output.stat().st_nlink == 2
    assert output.stat().st_mode & 0o222 == 0
    expected = output.read_bytes()
    output.chmod(0o644)
    output.write_bytes(b"through the link into the cache")
    decoded = count_decoded(monkeypatch, extractor)
    run(extractor, layout, recordings[:2])
    assert decoded == ["a"]
    assert output.read_bytes() == expected
    assert output.stat().st_nlink == 2


def test_the_same_audio_under_another_name_or_time_costs_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    extractor: FeatureExtractor,
    recordings: list[Recording],
) -> None:
    layout = Layout(tmp_path / "data", "x")
    run(extractor, layout, recordings[:1])
    decoded = count_decoded(monkeypatch, extractor)
    Path(recordings[0].audio).touch()
    run(extractor, layout, [replace(recordings[0], recording_id="renamed")])
    assert decoded == []
    np.testing.assert_array_equal(load_features(layout, "a"), load_features(layout, "renamed"))


def test_settings_that_matter_change_the_fingerprint(
    tmp_path: Path, extractor: FeatureExtractor, recordings: list[Recording]
) -> None:
    layout = Layout(tmp_path, "x")
    names = {
        ExtractionPipeline(
            FeatureExtractor(extractor.encoder, window_s=window_s, overlap=overlap), layout
        ).fingerprint(recordings[i], view)
        for window_s, overlap, i, view in (
            (1.0, 0.5, 0, "segments"),
            (2.0, 0.5, 0, "segments"),
            (1.0, 0.0, 0, "segments"),
            (1.0, 0.5, 1, "segments"),
            (1.0, 0.5, 0, "aggregated"),
        )
    }
    assert len(names) == 5


def test_one_bad_recording_does_not_stop_the_others(
    tmp_path: Path, extractor: FeatureExtractor, recordings: list[Recording]
) -> None:
    layout = Layout(tmp_path / "data", "x")
    Path(recordings[1].audio).write_bytes(b"changed since the scan")
    seen: list[tuple[int, int, str]] = []
    summary = ExtractionPipeline(extractor, layout).run(
        recordings, progress=lambda done, total, name: seen.append((done, total, name))
    )
    assert (list(summary.computed), list(summary.kept)) == (["a", "c"], [])
    assert "run `mess recordings` again" in summary.failed["b"]
    assert (summary.windows, summary.audio_s) == (8, 4.5)
    first, _, cause = summary.lines()
    assert first == "2 recordings computed, 0 kept, 1 failed"
    assert cause == f"  b: {summary.failed['b']}"
    assert seen[-1][:2] == (6, 6)
    assert [done for done, _, _ in seen] == sorted(done for done, _, _ in seen)


def test_batches_cross_the_recordings_borders(
    tmp_path: Path,
    extractor: FeatureExtractor,
    recordings: list[Recording],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes: list[int] = []
    engine = extractor.encoder.engine
    real = engine.run

    def run_batch(windows: np.ndarray, *, raw: bool = False) -> object:
        sizes.append(len(windows))
        return real(windows, raw=raw)

    monkeypatch.setattr(engine, "run", run_batch)
    wide = FeatureExtractor(extractor.encoder, window_s=1.0, batch_size=5)
    layout = Layout(tmp_path / "data", "x")
    run(wide, layout, recordings)
    assert sizes == [5, 5, 2]
    alone = wide.extract_file(Path(recordings[1].audio)).segments
    np.testing.assert_allclose(
        load_features(layout, "b", view="segments"), alone, rtol=1e-4, atol=1e-5
    )


def test_raw_may_be_half_as_large(
    tmp_path: Path, extractor: FeatureExtractor, recordings: list[Recording]
) -> None:
    layouts = {dtype: Layout(tmp_path / dtype, "x") for dtype in ("float32", "float16")}
    for dtype, layout in layouts.items():
        views = ("raw", "segments", "aggregated")
        ExtractionPipeline(extractor, layout, views=views, raw_dtype=dtype).run(recordings[:1])
    full, half = (load_features(layout, "a", view="raw") for layout in layouts.values())
    assert half.dtype == np.float16
    np.testing.assert_array_equal(half, full.astype(np.float16))
    segments = [load_features(layout, "a", view="segments") for layout in layouts.values()]
    np.testing.assert_array_equal(segments[0], segments[1])


def test_raw_that_comes_later_leaves_what_is_there_and_does_not_outlive_its_setting(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    extractor: FeatureExtractor,
    recordings: list[Recording],
) -> None:
    layout = Layout(tmp_path / "data", "x")
    views = ("raw", "segments", "aggregated")
    run(extractor, layout, recordings[:1])
    before = layout.features("segments", "a").stat().st_mtime_ns
    run(extractor, layout, recordings[:1], views)
    assert layout.features("segments", "a").stat().st_mtime_ns == before
    raw, segments = (load_features(layout, "a", view=view) for view in ("raw", "segments"))
    np.testing.assert_allclose(segments, raw.mean(axis=2), atol=1e-5)
    # Frames of another run do not stay beside features, but in the cache.
    run(extractor, layout, recordings[:1])
    assert not layout.features("raw", "a").exists()
    decoded = count_decoded(monkeypatch, extractor)
    run(extractor, layout, recordings[:1], views)
    assert decoded == []
    assert load_features(layout, "a", view="raw").shape[0] == 4


def test_a_shard_is_extracted_by_one_call_and_not_by_another_encoder(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    torch_encoder: Encoder,
    recordings: list[Recording],
) -> None:
    monkeypatch.setattr(
        "mess_core.extraction.extractor.load_encoder", lambda *_, **__: torch_encoder
    )
    layout = Layout(tmp_path / "data", "x")
    write_recordings(layout.table, recordings)
    facts = torch_encoder.facts()
    shard: Any = {"inputs": "i", "source": "encoder", "shard": "0", "shards": 1, "threads": 1}
    shard |= {"encoder": "any", "window_s": 1.0, "raw_dtype": None, "batch_size": 0}
    write_json(layout.features_manifest, {"shards": {"0": "i"}, "encoder": facts})
    jobs.extract_shard(layout, **shard)
    receipt = read_json(layout.receipt("features", "0"))
    assert (receipt["encoder"], receipt["engine"]) == (facts, torch_encoder.engine.name)
    assert receipt["recordings"].keys() == {"a", "b", "c"}
    manifest = {"shards": {"0": "i"}, "encoder": facts | {"precision": "bfloat16"}}
    write_json(layout.features_manifest, manifest)
    with pytest.raises(EncoderError, match=r"precision 'bfloat16' there, 'float32' here"):
        jobs.extract_shard(layout, **shard)


def test_the_estimate_is_the_sampled_time_per_window(
    monkeypatch: pytest.MonkeyPatch, extractor: FeatureExtractor, recordings: list[Recording]
) -> None:
    corpus = [
        replace(recordings[0], recording_id=str(i), duration_s=2.0 + 10 * (i % 3))
        for i in range(30)
    ]
    seen: list[int] = []

    def extract(_: FeatureExtractor, some: Sequence[Recording]) -> SimpleNamespace:
        seen.append(len(some))
        windows = 12 * len(some)
        # The first run pays for what is loaded once.
        seconds = windows * 0.25 + (100.0 if len(seen) == 1 else 0.0)
        return SimpleNamespace(windows=windows, seconds=seconds)

    monkeypatch.setattr("mess_core.extraction.pipeline._extract_beginnings", extract)
    estimate = estimate_extraction_time(extractor, corpus, sample_s=30.0)
    # 2 s have 3 windows of 1 s, 12 s have 23, 22 s have 43.
    assert estimate.windows == 10 * (3 + 23 + 43)
    assert estimate.seconds == pytest.approx(0.25 * estimate.windows)
    assert seen == [1, 8, 8]
    assert estimate.sampled == 12 * 16


def test_the_estimate_really_extracts_and_leaves_nothing(
    extractor: FeatureExtractor, recordings: list[Recording]
) -> None:
    estimate = estimate_extraction_time(extractor, recordings, sample_s=0.0001)
    assert estimate.sampled == estimate.windows == 12
    assert estimate.seconds > 0
    gone = [replace(r, audio="nowhere.wav") for r in recordings]
    with pytest.raises(DatasetError, match="none of 3 recordings could be extracted"):
        estimate_extraction_time(extractor, gone)
    short = [replace(r, duration_s=0.5) for r in recordings]
    with pytest.raises(DatasetError, match="none of 3 recordings is as long as a window of 1 s"):
        estimate_extraction_time(extractor, short)


def test_unknown_views_are_refused(tmp_path: Path, extractor: FeatureExtractor) -> None:
    with pytest.raises(MessError, match=r"unknown views \['pooled'\]"):
        ExtractionPipeline(extractor, Layout(tmp_path, "x"), views=("pooled",))


def test_samples_that_are_not_finite_are_refused(extractor: FeatureExtractor) -> None:
    with pytest.raises(AudioError, match="not all finite"):
        extractor.extract(np.full(48_000, np.inf, np.float32))


def test_an_unknown_view_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"'segment' is no view.*'segments'"):
        load_features(Layout(tmp_path, "x"), "a", view="segment")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist; run snakemake"),
        (np.zeros(3, np.float32), r"holds float32 \(3,\)"),
        (np.zeros((2, 3), np.float64), r"holds float64 \(2, 3\)"),
        (np.full((2, 3), np.nan, np.float32), "not finite"),
    ],
)
def test_wrong_files_are_named(tmp_path: Path, content: np.ndarray | None, message: str) -> None:
    layout = Layout(tmp_path, "x")
    path = layout.features("aggregated", "a")
    path.parent.mkdir(parents=True)
    if content is not None:
        np.save(path, content)
    with pytest.raises(StorageError, match=message):
        load_features(layout, "a")


@pytest.mark.parametrize("size", [0, 20, 140])
def test_damaged_files_are_named(tmp_path: Path, size: int) -> None:
    layout = Layout(tmp_path, "x")
    path = layout.features("aggregated", "a")
    save_array(path, np.ones((2, 3), np.float32))
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(StorageError, match=r"a\.npy is damaged.*delete it"):
        load_features(layout, "a")
