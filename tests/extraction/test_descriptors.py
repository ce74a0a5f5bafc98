"""Descriptors of signals with known parameters say what was done to them."""

import re
from pathlib import Path

import numpy as np
import pytest

from mess_core.errors import EncoderError
from mess_core.extraction import extract_passage, load_encoder
from mess_core.extraction.descriptors import FAMILIES, describe
from mess_core.extraction.extractor import FeatureExtractor
from mess_core.extraction.specs import DESCRIPTORS, MODELS

pytestmark = pytest.mark.unit

RATE = 24_000
SPEC = MODELS[DESCRIPTORS]


def play(
    keys: tuple[int, ...] = (60,),
    *,
    every_s: float = 0.5,
    decay: float = 3.0,
    partials: int = 4,
    gain: float = 0.1,
    seconds: float = 5.0,
) -> np.ndarray:
    """Strike MIDI keys together again and again; each tone decays by e ** -decay a second."""
    times = np.arange(round(seconds * RATE)) / RATE
    since = times % every_s
    tone = sum(
        np.sin(2 * np.pi * n * 440 * 2 ** ((key - 69) / 12) * since) / n
        for key in keys
        for n in range(1, partials + 1)
    )
    attack = np.minimum(since / 0.02, 1)
    return np.asarray(gain * attack * np.exp(-decay * since) * tone, np.float32)


def test_louder_by_6_db_is_6_db_more_and_nothing_else_of_level() -> None:
    soft, loud = describe(play(gain=0.05)), describe(play(gain=0.1))
    rise = 20 * np.log10(2)
    np.testing.assert_allclose(
        loud["dynamics"]["level"] - soft["dynamics"]["level"], rise / 8, 0.01
    )
    np.testing.assert_allclose(loud["dynamics"]["spread"], soft["dynamics"]["spread"], atol=0.01)
    struck = loud["keys"]["struck"][0] - soft["keys"]["struck"][0]
    assert struck == pytest.approx(rise / 5, rel=0.05)


def test_a_full_scale_sine_has_its_level_and_its_key() -> None:
    times = np.arange(5 * RATE) / RATE
    numbers = describe(np.sin(2 * np.pi * 440 * times).astype(np.float32))
    assert numbers["dynamics"]["level"][0] * 8 == pytest.approx(-3.01, abs=0.02)
    levels = numbers["harmony"]["key_level"] * 5
    # A4 is the 49th key of a piano.
    assert levels.argmax() == 48
    assert levels.max() == pytest.approx(0, abs=0.2)
    assert levels[[36, 60]].max() < -60


def test_a_swell_has_a_slope_and_a_steady_sound_none() -> None:
    ramp = np.linspace(0.1, 1, 5 * RATE, dtype=np.float32)
    steady, swell, fade = (
        describe(play() * curve)["dynamics"]["contour"][0]
        for curve in (np.float32(1), ramp, ramp[::-1])
    )
    assert swell > 0.5 > abs(steady)
    assert fade < -0.5


def test_more_partials_are_brighter() -> None:
    dark, bright = describe(play(partials=1)), describe(play(partials=12))
    assert bright["timbre"]["shape"][0] > dark["timbre"]["shape"][0] + 0.5
    assert bright["timbre"]["mel_mean"][20:].mean() > dark["timbre"]["mel_mean"][20:].mean() + 0.5


def test_a_chord_has_its_pitch_classes() -> None:
    chord = describe(play((60, 64, 67), partials=1))["harmony"]
    assert set(np.argsort(chord["chroma_mean"])[-3:]) == {0, 4, 7}
    low, high = (describe(play((key,)))["harmony"]["pitch"][0] for key in (48, 72))
    assert high - low == pytest.approx(24 / 4, rel=0.1)
    alone = describe(play(partials=1))["space"]["sounding"]
    assert describe(play((60, 64, 67), partials=1))["space"]["sounding"][0] > alone[0]


def test_more_onsets_are_counted_and_their_period_is_found() -> None:
    for every_s in (0.25, 0.5):
        rhythm = describe(play(every_s=every_s, decay=8))["rhythm"]
        rate, log_interval = rhythm["intervals"][:2] * 0.5
        assert 2**rate - 1 == pytest.approx(1 / every_s, rel=0.15)
        assert 2**log_interval == pytest.approx(every_s, rel=0.05)
    lags = np.geomspace(0.15, 1.6, 24)
    strongest = lags[rhythm["autocorrelation"].argmax()]
    assert min(abs(strongest - 0.5 * n) for n in (1, 2, 3)) < 0.06


def test_a_longer_decay_loses_less_and_leaves_fewer_gaps() -> None:
    short, long = (describe(play(every_s=1.0, decay=decay)) for decay in (12.0, 2.0))
    # Of a tone that decays by e ** -2 a second, 0.45 s take 7.8 dB.
    assert long["keys"]["lost"][7] * 4 == pytest.approx(7.8, abs=1.5)
    for family, group in (("keys", "lost"), ("articulation", "lost"), ("articulation", "gaps")):
        assert (short[family][group] >= long[family][group]).all(), (family, group)
        assert short[family][group].sum() > long[family][group].sum() + 1


@pytest.mark.parametrize("seconds", [0.5, 5.0, 7.3])
def test_every_window_has_finite_numbers_of_a_bounded_size(seconds: float) -> None:
    noise = np.random.default_rng(0).normal(size=round(seconds * RATE)).astype(np.float32)
    click = np.zeros_like(noise)
    click[len(click) // 2] = 1
    windows = np.stack(
        [0 * noise, 0.3 * noise, 1e-4 * noise, click, 0 * noise + 0.5, noise.clip(-1, 1)]
    )
    layers = load_encoder(DESCRIPTORS).pooled(windows)
    assert np.isfinite(layers).all()
    assert np.abs(layers).max() < 100
    # Silence with an offset from zero is silence.
    np.testing.assert_array_equal(layers[0], layers[4])


def test_layers_are_the_families_side_by_side_and_do_not_depend_on_the_batch() -> None:
    encoder = load_encoder(DESCRIPTORS)
    windows = np.stack([play(), play((48, 55)), play(every_s=0.2)])
    layers = encoder.pooled(windows)
    assert layers.shape == (3, SPEC.layers, SPEC.dims)
    assert layers.dtype == np.float32
    assert SPEC.layer_names == (*FAMILIES, "all")
    alone = np.concatenate([encoder.pooled(window[np.newaxis]) for window in windows])
    np.testing.assert_array_equal(layers, alone)
    at = 0
    for layer, (name, groups) in zip(layers[0], describe(windows[0]).items(), strict=False):
        numbers = np.concatenate([*groups.values()])
        np.testing.assert_allclose(layer[: len(numbers)], numbers, rtol=1e-6)
        assert not layer[len(numbers) :].any()
        weight = 1.0 if name in ("timbre", "harmony") else 0.1
        joined = layers[0, -1, at : at + len(numbers)]
        np.testing.assert_allclose(joined, weight * numbers, rtol=1e-5, atol=1e-6)
        at += len(numbers)
    assert at == SPEC.dims


def test_what_descriptors_lack_is_said() -> None:
    encoder = load_encoder(DESCRIPTORS, device="cpu", precision="bfloat16")
    assert encoder.engine.precision == "float32"
    with pytest.raises(EncoderError, match="no frames; set `save_raw: false`"):
        encoder.hidden_states(play()[np.newaxis])
    with pytest.raises(EncoderError, match=r"a window has 0\.4 s; descriptors need at least 0\.5"):
        encoder.pooled(play(seconds=0.4)[np.newaxis])


def test_a_passage_is_described_like_its_window(tmp_path: Path) -> None:
    import soundfile

    samples = play(seconds=10.0)
    soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
    extractor = FeatureExtractor(DESCRIPTORS)
    passage = extract_passage(extractor, tmp_path / "a.wav", 5.0, 10.0)
    np.testing.assert_array_equal(
        passage, extractor.encoder.pooled(samples[np.newaxis, 5 * RATE :])
    )


def test_the_page_defines_every_group_with_its_size_and_unit() -> None:
    page = (Path(__file__).parents[2] / "docs" / "descriptors.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| ([\d.]+)", page, re.MULTILINE)
    from mess_core.extraction.descriptors import _hear

    heard = _hear(play())
    expected = [
        (group, str(np.size(values)), f"{unit:g}")
        for family in FAMILIES.values()
        for group, (unit, values) in family(heard).items()
    ]
    assert rows == expected
