"""Plain descriptors of a window: what a probe of an encoder is compared with.

What everyone would try first, from the same spectrogram as the targets: mean and spread over the
window of 40 log-mel levels, 13 MFCC and loudness, and the mean chroma. All of it is defined for
every sound: what is softer than `FLOOR_DBFS` counts as being at that level.
"""

__all__ = ["DESCRIPTORS", "descriptors"]

import numpy as np
import numpy.typing as npt

from mess_core.targets.harmony import chroma_mean
from mess_core.targets.sound import FLOOR_DBFS, MEL_BANDS, MFCCS, Sound

#: Names of the entries.
DESCRIPTORS: tuple[str, ...] = (
    *(f"mel_mean_{i}" for i in range(MEL_BANDS)),
    *(f"mel_spread_{i}" for i in range(MEL_BANDS)),
    *(f"chroma_mean_{i}" for i in range(12)),
    *(f"mfcc_mean_{i}" for i in range(MFCCS)),
    *(f"mfcc_spread_{i}" for i in range(MFCCS)),
    "loudness_mean",
    "loudness_spread",
)


def descriptors(sound: Sound) -> npt.NDArray[np.float32]:
    """Return the descriptors of a window.

    Parameters
    ----------
    sound : Sound
        The series of a window (`Sound.cut`) of at least 0.4 s.

    Returns
    -------
    ndarray of float32 [shape=(120,)]
        As `DESCRIPTORS` names them: levels in dB, shares of pitch classes, MFCC in dB. Finite.
    """
    loudness = np.nan_to_num(sound.loudness, nan=FLOOR_DBFS)
    parts = [
        sound.mel_level.mean(axis=0),
        sound.mel_level.std(axis=0),
        np.nan_to_num(chroma_mean(sound.chroma)),
        sound.mfcc.mean(axis=0),
        sound.mfcc.std(axis=0),
        [loudness.mean(), loudness.std()],
    ]
    return np.concatenate(parts).astype(np.float32)
