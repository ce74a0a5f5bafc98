"""Short excerpts of recordings that a browser plays, inside a page.

Excerpts are mono MP3, which every browser plays (Ogg Vorbis is newer in some). Their level is not
changed, so that soft and loud can be compared.
"""

__all__ = ["LONGEST_S", "Excerpt", "cut_excerpt"]

import base64
import io
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mess_core.files import file_sha256

#: Seconds that an excerpt has at most, so that a page stays small.
LONGEST_S = 8.0

#: Sample rates of MPEG-1 and MPEG-2 layer III; others are resampled to the last.
_RATES = (16_000, 22_050, 24_000, 32_000, 48_000, 44_100)
#: Of soundfile, from 0 (best) to 1: about 48 kbit/s for mono at 44.1 kHz.
_COMPRESSION = 0.6
#: A cut through a sound clicks; seconds of fading in and out.
_FADE_S = 0.01


@dataclass(frozen=True, slots=True)
class Excerpt:
    """A piece of audio, or why there is none.

    Attributes
    ----------
    start_s, end_s : float
        Where it lies in the recording.
    uri : str
        ``data:audio/mpeg;base64,...``; empty when there is none.
    reason : str
        Why there is none; else empty.
    """

    start_s: float
    end_s: float
    uri: str = ""
    reason: str = ""


def cut_excerpt(path: Path, start_s: float, end_s: float, *, sha256: str = "") -> Excerpt:
    """Cut a passage out of an audio file.

    Parameters
    ----------
    path : Path
        The audio file.
    start_s, end_s : float
        The passage in seconds; what lies more than `LONGEST_S` after the start is left out.
    sha256 : str, optional
        Of the file that was indexed. Another file is not played, because it may sound otherwise.

    Returns
    -------
    Excerpt
        With a reason instead of audio where the file is gone, has changed or cannot be read.
    """
    end_s = min(end_s, start_s + LONGEST_S)
    try:
        if sha256 and file_sha256(path) != sha256:
            return Excerpt(start_s, end_s, reason="the audio file is not the one that was indexed")
        samples, rate = _read(path, start_s, end_s)
        return Excerpt(start_s, end_s, uri=_encode(samples, rate))
    except FileNotFoundError:
        return Excerpt(start_s, end_s, reason="the audio file is no longer there")
    # soundfile's errors are RuntimeErrors.
    except (OSError, RuntimeError, ValueError) as error:
        return Excerpt(start_s, end_s, reason=f"the audio file cannot be read: {error}")


def _read(path: Path, start_s: float, end_s: float) -> tuple[npt.NDArray[np.float32], int]:
    import soundfile

    with soundfile.SoundFile(path) as file:
        rate = int(file.samplerate)
        first = round(start_s * rate)
        if not 0 <= first < file.frames:
            raise ValueError(f"it has no sound at {start_s:g} s")
        file.seek(first)
        samples = file.read(round(end_s * rate) - first, dtype="float32", always_2d=True)
    return samples.mean(axis=1), rate


def _encode(samples: npt.NDArray[np.float32], rate: int) -> str:
    import soundfile
    from scipy.signal import resample_poly

    if rate not in _RATES:
        ratio = Fraction(_RATES[-1], rate)
        samples = resample_poly(samples, ratio.numerator, ratio.denominator)
        rate = _RATES[-1]
    fade = np.minimum(1.0, np.arange(1, len(samples) + 1) / (_FADE_S * rate))
    faded = np.clip(samples * fade * fade[::-1], -1, 1).astype(np.float32)
    buffer = io.BytesIO()
    soundfile.write(
        buffer,
        faded,
        rate,
        format="MP3",
        bitrate_mode="VARIABLE",
        compression_level=_COMPRESSION,
    )
    return "data:audio/mpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
