"""Tension and novelty: what they say."""

import numpy as np
import numpy.typing as npt
import pytest

from mess_core.targets import harmony, phrasing
from mess_core.targets.sound import analyse
from tests.targets.signals import RATE, piano_chord

pytestmark = pytest.mark.unit

Float = npt.NDArray[np.float64]

NOTE, TRIAD, CLUSTER = (60,), (60, 64, 67), (60, 61, 62, 63)
FRAME_RATE = 24_000 / 512


def chroma_of(pitches: tuple[int, ...], frames: int = 100) -> Float:
    chroma = np.zeros((frames, 12))
    chroma[:, [pitch % 12 for pitch in pitches]] = 0.01
    return chroma


def test_a_cluster_is_tenser_than_a_triad_and_a_triad_than_a_note() -> None:
    note, triad, cluster = (
        harmony.tension_curve(chroma_of(pitches), FRAME_RATE) for pitches in (NOTE, TRIAD, CLUSTER)
    )
    np.testing.assert_allclose(note, 0, atol=1e-12)
    assert (triad > 0.2).all()
    assert (triad + 0.1 < cluster).all()
    assert (cluster < 1).all()


def test_tension_is_that_of_the_definition() -> None:
    """The discrete Fourier transform written out, of a triad and of a whole-tone scale."""
    for pitches in (TRIAD, (0, 2, 4, 6, 8, 10)):
        k, n = np.arange(1, 7)[:, None], np.array([pitch % 12 for pitch in pitches])
        vector = harmony.INTERVAL_WEIGHTS * np.exp(-2j * np.pi * k * n / 12).mean(axis=1)
        norm = np.sqrt((np.abs(vector) ** 2).sum())
        expected = 1 - norm / np.sqrt(np.square([3, 8, 11.5, 15, 14.5, 7.5]).sum())
        measured = harmony.tension_curve(chroma_of(pitches), FRAME_RATE)
        np.testing.assert_allclose(measured, expected, atol=1e-12)


def test_transposing_changes_no_tension() -> None:
    curves = [
        harmony.tension_curve(np.roll(chroma_of((0, 1, 4, 9)), shift, axis=1), FRAME_RATE)
        for shift in range(12)
    ]
    np.testing.assert_allclose(curves, np.broadcast_to(curves[0], (12, 64)), atol=1e-12)


@pytest.mark.parametrize("transposed", [0, 3, 7])
def test_tension_is_heard_in_audio(transposed: int) -> None:
    note, triad, cluster = (
        np.nanmean(harmony.tension_curve(sound.chroma, sound.frame_rate))
        for sound in (
            analyse(piano_chord(tuple(p + transposed for p in pitches)), RATE)
            for pitches in (NOTE, TRIAD, CLUSTER)
        )
    )
    assert note + 0.15 < triad < cluster - 0.05


def test_tension_rises_where_the_chord_does() -> None:
    sound = analyse(np.concatenate([piano_chord(TRIAD), piano_chord(CLUSTER)]), RATE)
    curve = harmony.tension_curve(sound.chroma, sound.frame_rate)
    assert curve[:28].max() < curve[36:].min()


def test_silence_has_no_tension() -> None:
    chroma = np.vstack([chroma_of(TRIAD, 200), np.zeros((400, 12))])
    curve = harmony.tension_curve(chroma, FRAME_RATE)
    assert np.isfinite(curve[:21]).all()
    assert np.isnan(curve[24:]).all()


def checkerboard_novelty(features: Float, frame_rate: float) -> Float:
    """Foote's novelty by its definition: a kernel along the diagonal of a full matrix."""
    similarity = features @ features.T
    length = round(phrasing.NOVELTY_S * frame_rate)
    place = np.concatenate([-np.arange(length)[::-1] - 0.5, np.arange(length) + 0.5])
    taper = np.exp(-0.5 * (place / (phrasing.NOVELTY_TAPER_S * frame_rate)) ** 2)
    novelty = np.full(len(features), np.nan)
    radial, sides = np.outer(taper, taper), np.sign(place)
    kernel = radial * np.outer(sides, sides) / radial[:length, :length].sum()
    for i in range(length, len(features) - length + 1):
        around = slice(i - length, i + length)
        novelty[i] = (kernel * similarity[around, around]).sum()
    return novelty


def test_novelty_is_footes_checkerboard_without_the_matrix() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(300, 24)).cumsum(axis=0)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    expected = checkerboard_novelty(features, 20.0)
    found = phrasing.novelty(features, 20.0)
    inner = np.isfinite(expected)
    assert inner.sum() == 300 - 2 * 40 + 1
    np.testing.assert_allclose(found[inner], expected[inner], atol=1e-9)


def test_novelty_peaks_where_harmony_changes() -> None:
    samples = np.concatenate(
        [*[piano_chord((60, 64, 67), 1.0)] * 6, *[piano_chord((61, 65, 68), 1.0)] * 6]
    )
    sound = analyse(samples, RATE)
    curve = phrasing.novelty_curve(sound.mfcc, sound.chroma, sound.frame_rate)
    assert abs(int(np.nanargmax(curve)) - 32) <= 1
    assert np.nanmax(curve) > 3 * np.nanmedian(curve)
    assert np.isnan(curve[[0, -1]]).all()


def test_novelty_peaks_where_timbre_changes_and_not_where_loudness_does() -> None:
    dull, bright = piano_chord((60,), 1.0, partials=2), piano_chord((60,), 1.0, partials=12)
    timbre = analyse(np.concatenate([*[dull] * 6, *[bright] * 6]), RATE)
    loudness = analyse(np.concatenate([*[dull * 0.4] * 6, *[dull] * 6]), RATE)
    curves = [
        phrasing.novelty_curve(sound.mfcc, sound.chroma, sound.frame_rate)
        for sound in (timbre, loudness)
    ]
    assert abs(int(np.nanargmax(curves[0])) - 32) <= 1
    assert curves[0][32] > 4 * curves[1][32]


def test_what_stays_the_same_has_no_novelty() -> None:
    sound = analyse(np.tile(piano_chord((60, 64), 1.0), 10), RATE)
    curve = phrasing.novelty_curve(sound.mfcc, sound.chroma, sound.frame_rate)
    assert np.nanmax(curve) < 0.02
