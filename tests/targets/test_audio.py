"""Audio targets on signals of which the truth is known."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from mess_core.errors import AudioError
from mess_core.targets import MusicalAspectTargets, validate_target_structure
from mess_core.targets.registry import CATEGORIES, TARGETS
from mess_core.targets.sound import _without_offset, analyse
from tests.targets.signals import (
    RATE,
    Samples,
    bursts,
    clicks,
    hertz,
    melody,
    noise,
    seconds,
    slowing_clicks,
    tone,
)

pytestmark = pytest.mark.unit

Values = dict[str, npt.NDArray[np.float64]]


def notes(attack: float, *, level: float = 0.5) -> Samples:
    """Twelve notes of one second, each rising for ``attack`` seconds and decaying."""
    time = seconds(1.0)
    shape = np.minimum(time / attack, 1) * np.exp(-5 * np.maximum(time - attack, 0))
    note = level * shape * np.sin(2 * np.pi * 440 * time)
    return np.tile(note, 12).astype(np.float32)


def values(samples: Samples, rate: int = RATE) -> Values:
    computed = MusicalAspectTargets().compute(samples, rate)
    validate_target_structure(computed)
    return {name: array for fields in computed.values() for name, array in fields.items()}


def scalar(samples: Samples, name: str) -> float:
    return float(values(samples)[name])


SIGNALS: dict[str, Any] = {
    "nothing": np.zeros(0, np.float32),
    "one sample": np.ones(1, np.float32),
    "a frame less one": tone(440, 2047 / RATE),
    "a frame": tone(440, 2048 / RATE),
    "silence": np.zeros(3 * RATE, np.float32),
    "below the floor": tone(440, 3.0, 1e-5),
    "constant": np.full(3 * RATE, 0.5, np.float32),
    "one impulse": np.eye(1, 3 * RATE, RATE, dtype=np.float32)[0],
    "full-scale noise": np.clip(noise(3.0, 1.0), -1, 1),
    "0.3 s": tone(440, 0.3),
    "ends abruptly": np.concatenate([np.zeros(RATE, np.float32), tone(440, 2.01)]),
}


@pytest.mark.parametrize("samples", SIGNALS.values(), ids=SIGNALS)
def test_every_signal_gives_valid_targets(samples: Samples) -> None:
    computed = MusicalAspectTargets().compute(samples, RATE)
    assert set(computed) == set(CATEGORIES[:-1])
    validate_target_structure(computed)  # all fields, and of their shapes


@pytest.mark.parametrize("name", ["nothing", "one sample", "silence", "below the floor"])
def test_nothing_is_made_up_for_silence(name: str) -> None:
    assert all(np.isnan(array).all() for array in values(SIGNALS[name]).values())


def test_a_tone_has_its_own_frequency_as_centroid_and_no_width() -> None:
    measured = values(tone(1000))
    assert measured["spectral_centroid"] == pytest.approx(1000, rel=0.01)
    assert measured["spectral_rolloff"] == pytest.approx(1000, abs=25)
    np.testing.assert_allclose(measured["brightness_curve"], 1000, rtol=0.01)


def test_white_noise_lies_in_the_middle_of_the_band() -> None:
    measured = values(noise())
    assert measured["spectral_centroid"] == pytest.approx(RATE / 4, rel=0.02)
    assert measured["spectral_rolloff"] == pytest.approx(0.85 * RATE / 2, rel=0.02)


def test_silent_stretches_do_not_dilute_timbre() -> None:
    padded = np.concatenate([tone(1000), np.zeros(8 * RATE, np.float32)])
    assert scalar(padded, "spectral_centroid") == pytest.approx(1000, rel=0.02)
    assert np.isnan(values(padded)["brightness_curve"][30:]).all()


@pytest.mark.parametrize("bpm", [75, 100, 120, 144])
def test_clicks_have_their_tempo_and_density(bpm: float) -> None:
    measured = values(clicks(bpm))
    assert measured["tempo"] == pytest.approx(bpm, rel=0.01)
    assert measured["onset_density"] == pytest.approx(bpm / 60, rel=0.05)


def accented(bpm: float, level: float) -> Samples:
    """Clicks of which every other one is soft, over soft noise, so that the accents count."""
    times = list(np.arange(0.2, 19.8, 60 / bpm))
    return bursts(times, 20.0, [1.0, level] * len(times)) + noise(20.0, 0.004)


def test_tempo_prefers_the_octave_near_120() -> None:
    """Of two rates that are heard, whichever is the faster."""
    assert scalar(accented(240, 0.2), "tempo") == pytest.approx(120, rel=0.01)
    assert scalar(accented(120, 0.2), "tempo") == pytest.approx(120, rel=0.01)


def test_octave_errors_are_reported() -> None:
    """Where every other click is softer, two rates are heard; where all are alike, one."""
    measured = values(accented(170, 0.3))
    assert min(abs(measured["tempo"] / bpm - 1) for bpm in (85, 170)) < 0.02
    assert measured["tempo_octave_ambiguity"] > 0.4
    assert scalar(accented(170, 1.0), "tempo_octave_ambiguity") < 0.15


def test_local_tempo_follows_a_ritardando_and_stays_at_its_level() -> None:
    samples, times = slowing_clicks(128, 96, 50)
    intervals = np.diff(times)
    measured = values(samples)
    curve = measured["local_tempo_curve"]
    cells = (np.arange(64) + 0.5) * (times[-1] + 0.3) / 64
    true = 60 / np.interp(cells, times[1:] - intervals / 2, intervals)
    inner = slice(6, 58)
    np.testing.assert_allclose(curve[inner], true[inner], rtol=0.04)
    assert measured["local_tempo_shape"][0] > 0.9
    assert measured["tempo"] == pytest.approx(np.exp(np.log(true).mean()), rel=0.03)


def test_onsets_are_where_the_clicks_are() -> None:
    found = analyse(clicks(120), RATE).onsets
    np.testing.assert_allclose(found, 0.25 + 0.5 * np.arange(len(found)), atol=0.035)
    assert len(found) == 24


def test_a_sustained_sound_has_no_tempo_and_few_onsets() -> None:
    measured = values(tone(440, 8, 1.0))
    assert all(np.isnan(measured[n]) for n in ("tempo", "note_connection", "dynamic_range"))
    assert measured["resonance"] == 1
    np.testing.assert_allclose(measured["loudness_curve"], -3.01, atol=0.02)
    assert scalar(tone(440, 8), "onset_density") == 0
    assert scalar(noise(20), "onset_density") < 0.3


def test_onset_rate_curve_follows_where_it_is_busy() -> None:
    curve = values(np.concatenate([clicks(60, 20), clicks(240, 20)]))["onset_rate_curve"]
    assert np.median(curve[5:25]) == pytest.approx(1, rel=0.2)
    assert np.median(curve[40:60]) == pytest.approx(4, rel=0.2)


def test_crescendo_strength_is_the_slope_in_db_per_second() -> None:
    gain = 10 ** (2.0 * (seconds(12) - 12) / 20)
    swell = (gain * tone(440, 12)).astype(np.float32)
    rising, falling = values(swell), values(swell[::-1].copy())
    assert rising["crescendo_strength"] == pytest.approx(2.0, rel=0.02)
    assert rising["diminuendo_strength"] == 0
    assert falling["diminuendo_strength"] == pytest.approx(2.0, rel=0.02)


def test_a_quiet_copy_has_the_same_dynamics_and_shape() -> None:
    music = notes(0.01) * np.repeat([0.2, 0.5, 1.0], 4 * RATE).astype(np.float32)
    loud, quiet = values(music), values((music * 0.1).astype(np.float32))
    for name in ("dynamic_range", "resonance", "crescendo_strength"):
        assert quiet[name] == pytest.approx(loud[name], rel=1e-3), name
    for name in ("spectral_centroid", "harmonic_complexity", "note_connection", "tempo"):
        assert quiet[name] == pytest.approx(loud[name], rel=0.03), name
    np.testing.assert_allclose(quiet["loudness_curve"], loud["loudness_curve"] - 20, atol=0.01)


def test_ranges_do_not_follow_the_recordings_own_peak() -> None:
    """Playing 20 dB softer over the same noise changes no range and no slope."""
    four = notes(0.01, level=1.0)[: 4 * RATE]
    four[-RATE // 50 :] *= np.linspace(1, 0, RATE // 50, dtype=np.float32)
    music = np.tile(np.concatenate([four, np.zeros(2 * RATE, np.float32)]), 3)
    music *= 10 ** (np.linspace(-8, 0, 18 * RATE, dtype=np.float32) / 20)
    hiss = noise(18.0, 10 ** (-92 / 20))
    loud, soft = values(music + hiss), values(music * np.float32(0.1) + hiss)

    ranges = ("dynamic_range", "crescendo_strength", "diminuendo_strength")
    for name in (*ranges, "loudness_extent"):
        assert soft[name] == pytest.approx(loud[name], rel=0.02, abs=0.02), name
    assert soft["loudness_level"] == pytest.approx(loud["loudness_level"] - 20, abs=0.1)


#: Offsets of a few per cent of full scale, by time in shares of the recording.
OFFSETS: dict[str, Callable[[npt.NDArray[np.float64]], npt.ArrayLike]] = {
    "small": lambda _: 0.01,
    "large and negative": lambda _: -0.2,
    "drifting": lambda share: 0.02 - 0.05 * share,
    "wandering": lambda share: 0.01 + 0.01 * np.sin(2 * np.pi * share),
}


@pytest.mark.parametrize("offset", OFFSETS.values(), ids=OFFSETS)
def test_an_offset_from_zero_changes_nothing(
    offset: Callable[[npt.NDArray[np.float64]], npt.ArrayLike],
) -> None:
    music = melody(20.0, growth=1.003)
    shifted = music + np.asarray(offset(np.linspace(0, 1, len(music))), np.float32)
    plain, found = values(music), values(shifted)
    for name, spec in TARGETS.items():
        if spec.kind == "scalar" and spec.source == "audio":
            tolerance = 0.05 if name == "brightness_extent" else 0.02
            assert found[name] == pytest.approx(plain[name], rel=tolerance), name


def test_removing_the_offset_leaves_the_lowest_key_alone() -> None:
    lowest, inner = tone(27.5, 5.0), slice(2 * RATE, 3 * RATE)
    left = _without_offset(lowest, RATE)
    np.testing.assert_allclose(left[inner], lowest[inner], atol=3e-4)
    np.testing.assert_allclose(left, lowest, atol=5e-3)  # half a wave at the edge is an offset


def test_more_pitch_classes_are_more_complex() -> None:
    def chord(*pitches: int) -> Samples:
        parts = [tone(hertz(pitch), 3, 0.1) for pitch in pitches]
        return np.asarray(np.sum(parts, axis=0), np.float32)

    single, triad, cluster = (
        scalar(chord(*pitches), "harmonic_complexity")
        for pitches in [(72,), (72, 76, 79), (72, 74, 76, 77, 79)]
    )
    assert single == pytest.approx(0, abs=0.2)
    assert triad == pytest.approx(np.log2(3), abs=0.2)
    assert cluster > triad + 0.3


@pytest.mark.parametrize("pitch", range(60, 72))
def test_chroma_names_the_pitch_class(pitch: int) -> None:
    share = values(tone(hertz(pitch)))["chroma_mean"]
    assert int(share.argmax()) == pitch % 12
    assert share.max() > 0.9
    assert share.sum() == pytest.approx(1)


def played(
    *,
    held: float = 0.9,
    interval: float = 0.3,
    rings_on: bool = False,
    velocities: tuple[float, ...] = (1.0,),
    duration: float = 12.0,
) -> Samples:
    """Notes of a scale, held for a share of the interval, then damped unless they ring on."""
    samples = np.zeros(round((duration + 3) * RATE))
    time = seconds(3.0)
    release = (
        np.ones(len(time)) if rings_on else np.exp(-np.maximum(time - held * interval, 0) / 0.02)
    )
    for i in range(int(duration / interval) - 1):
        frequency = hertz(55 + 7 * i % 24)
        note = sum(np.sin(2 * np.pi * k * frequency * time) / k**2 for k in range(1, 9))
        note *= release * np.exp(-time) * np.minimum(time / 0.005, 1)
        start = round((0.2 + i * interval) * RATE)
        samples[start : start + len(note)] += 0.1 * velocities[i % len(velocities)] * note
    return samples[: round(duration * RATE)].astype(np.float32)


#: Noise at -60 dBFS, as of an old recording.
HISS = noise(12.0, 1e-3)


@pytest.mark.parametrize("hiss", [0, 1])
def test_connected_notes_lose_little_until_the_next(hiss: int) -> None:
    staccato, portato, legato = (
        scalar(played(held=held) + hiss * HISS, "note_connection") for held in (0.3, 0.7, 1.0)
    )
    assert staccato < portato - 20 < legato - 40
    assert -30 < legato <= 0


@pytest.mark.parametrize("hiss", [0, 1])
def test_what_rings_on_after_the_next_note_is_resonance(hiss: int) -> None:
    dry, wet = (
        scalar(played(rings_on=rings_on) + hiss * HISS, "resonance") for rings_on in (False, True)
    )
    assert dry + 0.1 < wet
    assert wet > 0.9


@pytest.mark.parametrize("interval", [0.15, 0.6])
def test_the_range_of_touch_is_heard_at_any_rate(interval: float) -> None:
    """Decay between slow notes is no dynamics."""
    even, wide = (
        scalar(played(held=0.5, interval=interval, velocities=velocities), "dynamic_range")
        for velocities in [(1.0,), (0.25, 0.5, 1.0)]
    )
    assert even < 4
    assert wide == pytest.approx(12.04, abs=2.5)


def test_noise_below_the_music_is_not_its_brightness() -> None:
    pair = tone(1000, 12.0, 0.1) + tone(2000, 12.0, 0.1)
    pair *= np.repeat([1.0, 0.0, 0.1], 4 * RATE).astype(np.float32)
    clean, noisy = values(pair), values(pair + HISS)
    for name, expected in (("spectral_centroid", 1500), ("spectral_rolloff", 2000)):
        assert clean[name] == pytest.approx(expected, rel=0.02), name
        assert noisy[name] == pytest.approx(expected, rel=0.05), name
    music = played()
    assert scalar(music + HISS, "spectral_centroid") == pytest.approx(
        scalar(music, "spectral_centroid"), rel=0.15
    )


def test_the_rate_hardly_matters_below_its_half() -> None:
    time = np.arange(4 * 44_100) / 44_100
    fast = values((0.3 * np.sin(2 * np.pi * 1000 * time)).astype(np.float32), 44_100)
    assert fast["spectral_centroid"] == pytest.approx(1000, rel=0.01)


def test_the_result_does_not_depend_on_the_blocks() -> None:
    long = np.tile(notes(0.01), 3)
    series = analyse(long, RATE)
    assert len(series.centroid) == len(series.onset_strength) == (len(long) - 2048) // 512 + 1
    frame = long[512 * 300 : 512 * 300 + 2048]
    magnitude = np.abs(np.fft.rfft(frame * np.hanning(2049)[:-1]))
    expected = np.sum(magnitude * np.fft.rfftfreq(2048, 1 / RATE)) / magnitude.sum()
    assert series.centroid[300] == pytest.approx(expected, rel=1e-3)


def test_unusable_arguments_are_refused() -> None:
    compute = MusicalAspectTargets().compute
    with pytest.raises(AudioError, match=r"\(2, 8\), expected mono"):
        compute(np.zeros((2, 8), np.float32), RATE)
    with pytest.raises(AudioError, match="not finite"):
        compute(np.array([0, np.nan], np.float32), RATE)
    with pytest.raises(AudioError, match="sample rate is 0"):
        compute(np.zeros(8, np.float32), 0)
