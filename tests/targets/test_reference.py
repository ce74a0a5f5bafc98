"""The spectral targets equal librosa's on the same frames."""

import numpy as np
import pytest

from mess_core.targets.sound import _without_offset, analyse
from mess_core.targets.timbre import mean_frequency, rolloff_frequency

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
    frequencies = np.arange(1025) * RATE / 2048
    centroid = librosa.feature.spectral_centroid(S=magnitude, sr=RATE)[0]
    np.testing.assert_allclose(mean_frequency(magnitude.T, frequencies), centroid, rtol=1e-4)
    rolloff = librosa.feature.spectral_rolloff(S=magnitude, sr=RATE)[0]
    np.testing.assert_allclose(rolloff_frequency(magnitude.T, frequencies), rolloff)
    # Noise of -34 dBFS hides nothing of a tone, but raises its centroid by thousands of hertz.
    pure = 700 * 1.2 * time**0.2
    middles = np.arange(len(sound.centroid)) * 512 + 1024
    np.testing.assert_allclose(sound.centroid, pure[middles], rtol=0.05)
