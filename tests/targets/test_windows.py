"""Windows of a recording: what they have in common with the same samples alone."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
from threadpoolctl import threadpool_limits

from mess_core.targets import measure, measure_passage, measure_windows
from mess_core.targets.registry import TARGETS
from mess_core.targets.sound import Sound, analyse
from tests.targets.signals import RATE, Samples, melody, tone

pytestmark = pytest.mark.unit

WINDOW_S = 5.0

#: Multiples of frames, of loudness values and of local tempos: both grids are the same.
ON_GRID = (1.6 * 5, 1.6 * 10)
OFF_GRID = (2.5, 5.0, 7.5, 13.37)


#: How far a window's value may be from that of its samples alone: relative, and absolute in the
#: target's unit. Where frames are the same, what does not know its surroundings is the same, but
#: for the offset from zero, which is a mean over some seconds.
SAME = (2e-3, 1e-3)
#: The local tempo hears six seconds around every moment; alone, half of them at the ends.
ON_GRID_TOLERANCE = {
    **dict.fromkeys(("tempo", "local_tempo_level"), (0.01, 0.0)),
    "tempo_octave_ambiguity": (0.0, 0.15),
    "local_tempo_curve": (0.03, 0.0),
    **dict.fromkeys(("local_tempo_extent", "local_tempo_shape"), (0.0, 2.0)),
    # The noise is that of the recording.
    **dict.fromkeys(("spectral_centroid", "spectral_rolloff", "brightness_level"), (0.02, 0.0)),
    **dict.fromkeys(("brightness_curve", "brightness_extent", "note_connection"), (0.05, 0.0)),
    "brightness_shape": (0.0, 0.02),
}
#: Where frames lie up to 21 ms (loudness: 100 ms) elsewhere, every value differs a little, and an
#: onset or two at the ends are seen from outside only.
OFF_GRID_TOLERANCE = ON_GRID_TOLERANCE | {
    "tension_level": (0.01, 0.0),
    "harmonic_complexity": (0.02, 0.0),
    "dynamic_range": (0.1, 0.0),
    **dict.fromkeys(("crescendo_strength", "diminuendo_strength"), (0.02, 0.1)),
    **{f"{name}_extent": (0.05, 0.0) for name in ("tension", "brightness", "novelty")},
    "onset_density": (0.0, 0.61),
    "onset_rate_curve": (0.0, 1.0),
    "onset_rate_level": (0.0, 0.7),
    "onset_rate_extent": (0.0, 0.2),
    "onset_rate_shape": (0.0, 0.9),
    "chroma_mean": (0.0, 0.005),
    "tension_curve": (0.0, 0.06),
    "tension_shape": (0.0, 0.07),
    "brightness_curve": (0.1, 0.0),
    "brightness_shape": (0.0, 0.05),
    "note_connection": (0.14, 0.0),
    "resonance": (0.02, 0.0),
    "loudness_curve": (0.0, 3.0),
    "loudness_level": (0.0, 0.25),
    "loudness_extent": (0.02, 0.0),
    "loudness_shape": (0.0, 0.1),
    "novelty_curve": (0.15, 0.02),
    "novelty_level": (0.03, 0.0),
    "novelty_shape": (0.0, 0.12),
}
WINDOW_TARGETS = [
    name for name, spec in TARGETS.items() if spec.source == "audio" and "window" in spec.levels
]


@pytest.fixture(scope="module")
def music() -> Samples:
    return melody(24.0, growth=1.002)


@pytest.fixture(scope="module")
def sound(music: Samples) -> Sound:
    # As the library does: other numbers of threads round otherwise.
    with threadpool_limits(limits=1, user_api="blas"):
        return analyse(music, RATE)


Pair = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]


@pytest.fixture(scope="module")
def pairs(music: Samples, sound: Sound) -> dict[float, dict[str, Pair]]:
    """By window and target, the value in the recording and that of the samples alone."""
    found: dict[float, dict[str, Pair]] = {}
    for start in (*ON_GRID, *OFF_GRID):
        first = round(start * RATE)
        part = music[first : first + round(WINDOW_S * RATE)]
        inside = measure(sound.cut(start, start + WINDOW_S), level="window")
        alone = measure(analyse(part, RATE), level="window")
        found[start] = {
            name: (value, alone[category][name])
            for category, fields in inside.items()
            for name, value in fields.items()
        }
    return found


@pytest.mark.parametrize("name", WINDOW_TARGETS)
def test_a_window_is_worth_what_its_samples_are_worth_alone(
    name: str, pairs: dict[float, dict[str, Pair]]
) -> None:
    for start, compared in pairs.items():
        on_grid = start in ON_GRID
        given = ON_GRID_TOLERANCE.get(name, SAME) if on_grid else OFF_GRID_TOLERANCE[name]
        np.testing.assert_allclose(*compared[name], *given, err_msg=f"{name} at {start} s")


def test_onsets_belong_to_the_window_that_they_lie_in(sound: Sound) -> None:
    part = sound.cut(7.5, 12.5)
    inside = (sound.onsets >= 7.5) & (sound.onsets < 12.5)
    np.testing.assert_allclose(part.onsets, sound.onsets[inside] - 7.5)
    assert len(part.fades) == len(part.onset_levels) == inside.sum() > 5
    assert part.duration == 5.0


def test_frames_lie_wholly_inside() -> None:
    """The tone begins at 3 s: a window that ends there does not hear it."""
    samples = np.concatenate([np.zeros(3 * RATE, np.float32), tone(1000, 3.0)])
    sound = analyse(samples, RATE)
    before, after = sound.cut(0.0, 3.0), sound.cut(3.0, 6.0)
    assert np.isnan(before.loudness).all()
    assert np.isnan(before.centroid).all()
    assert not before.chroma.any()
    assert np.isfinite(after.loudness).all()
    np.testing.assert_allclose(after.centroid, 1000, rtol=0.02)
    assert len(after.loudness) == 27  # 3 s less 0.4 s, 10 per second


def test_windows_are_stacked(sound: Sound) -> None:
    starts = [0.0, 2.5, 19.0]
    stacked = measure_windows(sound, starts, window_s=WINDOW_S)
    assert stacked["rhythm"]["tempo"].shape == (3,)
    assert stacked["dynamics"]["loudness_curve"].shape == (3, 64)
    assert stacked["dynamics"]["loudness_shape"].shape == (3, 4)
    last = measure(sound.cut(19.0, 24.0), level="window")
    for category, fields in last.items():
        for name, value in fields.items():
            np.testing.assert_array_equal(stacked[category][name][2], value)


def test_windows_of_one_recording_keep_its_metrical_level(sound: Sound) -> None:
    tempos = measure_windows(sound, np.arange(0, 19, 2.5), window_s=WINDOW_S)["rhythm"]["tempo"]
    assert np.nanmax(tempos) / np.nanmin(tempos) < 1.3


def test_a_passage_of_a_file_is_measured_as_the_recordings_windows_are(
    music: Samples, sound: Sound, tmp_path: Path
) -> None:
    path = tmp_path / "take.wav"
    soundfile.write(path, music, RATE, subtype="FLOAT")
    found = measure_passage(path, 5.0, 12.5)
    windows = measure_windows(sound, [5.0, 7.5], window_s=WINDOW_S)
    whole = measure(sound)
    for category, fields in windows.items():
        for name, value in fields.items():
            np.testing.assert_array_equal(found[f"windows/{category}/{name}"], value)
            np.testing.assert_array_equal(found[f"{category}/{name}"], whole[category][name])
    # Shorter than a window: one around its middle.
    short = measure_passage(path, 6.5, 8.5)["windows/dynamics/loudness_level"]
    np.testing.assert_array_equal(short, windows["dynamics"]["loudness_level"][:1])
