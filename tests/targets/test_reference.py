"""The spectral targets equal librosa's on the same frames."""

import numpy as np
import pytest

from mess_core.targets.sound import _without_offset, analyse

pytestmark = [pytest.mark.integration, pytest.mark.slow]  # librosa compiles for 15 s at first use

RATE = 24_000


def test_frames_equal_librosa() -> None:
    import librosa

    rng = np.random.default_rng(1)
    time = np.arange(2 * RATE) / RATE
    samples = (
        0.3 * np.sin(2 * np.pi * 700 * time**1.2) + 0.02 * rng.normal(size=len(time))
    ).astype(np.float32)
    sound = analyse(samples, RATE)
    samples = _without_offset(samples, RATE)
    magnitude = np.abs(librosa.stft(samples, n_fft=2048, hop_length=512, center=False))
    pairs = {
        "centroid": librosa.feature.spectral_centroid(S=magnitude, sr=RATE),
        "bandwidth": librosa.feature.spectral_bandwidth(S=magnitude, sr=RATE),
    }
    for name, expected in pairs.items():
        np.testing.assert_allclose(getattr(sound, name), expected[0], rtol=1e-3, err_msg=name)
    crossings = librosa.feature.zero_crossing_rate(
        samples, frame_length=2048, hop_length=512, center=False
    )
    # Ours count the change into a frame's first sample as well.
    np.testing.assert_allclose(sound.zero_crossings, crossings[0], atol=1 / 2048 + 1e-6)
    rolloff = librosa.feature.spectral_rolloff(S=magnitude, sr=RATE)
    np.testing.assert_allclose(sound.rolloff, rolloff[0], atol=RATE / 2048 + 1e-6)
