"""MIDI to audio, with the piano of the soundfont that ships inside pretty_midi.

`midirenderer` synthesises (tempo changes, one or many tracks and the sustain pedal, which is down
from controller value 64 on, all measured), and this module repairs what surprises a user of it:

* It renders at 48 kHz; the result is resampled to the rate that was asked for.
* It stops with the file's last event; the file is made to last `RING_S` longer, so that strings
  ring and the hall decays, and the end is faded.
* It is quiet; every file gets the same `GAIN`. Files are never normalised one by one: the loudness
  of a performance is part of what is studied. Ten keys struck together at full velocity stay below
  full scale; what would exceed it is limited to it.
* It drops notes of velocity 11 and below.

The same MIDI and soundfont give the same samples on the same machine and library versions.
"""

__all__ = ["GAIN", "LONGEST_H", "RING_S", "render_midi", "render_midi_file"]

import io
from functools import lru_cache
from importlib.resources import files
from math import gcd
from pathlib import Path

import midirenderer
import mido
import numpy as np
import numpy.typing as npt
import soundfile
from scipy.signal import resample_poly

from mess_core.errors import MidiError
from mess_core.files import atomic_path
from mess_core.targets.notes import DEFAULT_TEMPO, parse_midi

#: What the synthesizer's samples are multiplied by (+6 dB). The loudest of about 50 recorded
#: performances of virtuoso music (ASAP, PercePiano) then peaks at 0.58 of full scale.
GAIN = 2.0
#: How long the sound lasts after the last event of the file, in seconds.
RING_S = 1.5
#: The longest file that is rendered, in hours; an hour takes about 4 GB of memory.
LONGEST_H = 3
#: How long the fade at the end is, in seconds.
_FADE_S = 0.5


def render_midi(
    midi: Path | bytes, *, sample_rate: int = 44100, soundfont: Path | None = None
) -> npt.NDArray[np.float32]:
    """Render a MIDI file to audio.

    Returns stereo samples in -1 to 1, float32 [shape=(frames, 2)], `RING_S` longer than the MIDI
    file. Raises `MidiError` if the file is missing, is no MIDI file, holds no notes, is longer than
    `LONGEST_H`, or the soundfont cannot be used.

    Parameters
    ----------
    midi : Path or bytes
        A standard MIDI file of type 0 or 1, or its content.
    sample_rate : int
        Of the result, in Hz.
    soundfont : Path, optional
        An ``.sf2`` file. The default is the one that ships inside pretty_midi (TimGM6mb).
    """
    name = str(midi) if isinstance(midi, Path) else "MIDI data"
    content = _ringing(parse_midi(midi), name)
    try:
        piano = soundfont.read_bytes() if soundfont else _default_soundfont()
    except OSError as error:
        raise MidiError(f"soundfont {soundfont} cannot be read ({error.strerror})") from None
    try:
        wav = midirenderer.render_wave_from(piano, content)
    except (RuntimeError, ValueError) as error:
        raise MidiError(
            f"{name} cannot be rendered with {soundfont or 'the default soundfont'}: {error}; "
            "export it again, and check that the soundfont is an .sf2 file"
        ) from None
    samples, rate = soundfile.read(io.BytesIO(wav), dtype="float32", always_2d=True)
    common = gcd(rate, sample_rate)
    resampled = resample_poly(samples, sample_rate // common, rate // common, axis=0)
    return _finished(resampled, sample_rate)


def render_midi_file(
    midi_path: Path, wav_path: Path, *, sample_rate: int = 44100, soundfont: Path | None = None
) -> None:
    """Render a MIDI file to a 16-bit stereo WAV file, whole or not at all.

    The folder is made when missing. Parameters and errors are those of `render_midi`; after an
    error nothing is written.
    """
    samples = render_midi(midi_path, sample_rate=sample_rate, soundfont=soundfont)
    with atomic_path(wav_path) as temporary:
        soundfile.write(temporary, samples, sample_rate, format="WAV", subtype="PCM_16")


def _ringing(midi: mido.MidiFile, name: str) -> bytes:
    """Let the file last `RING_S` longer."""
    if not any(m.type == "note_on" and m.velocity for track in midi.tracks for m in track):
        raise MidiError(f"{name} holds no notes; there is nothing to render")
    tempos = [message.tempo for message in midi.merged_track if message.type == "set_tempo"]
    hours = midi.length / 3600
    if hours > LONGEST_H:
        raise MidiError(
            f"{name} lasts {hours:.1f} hours, at most {LONGEST_H} can be rendered; look for an "
            "event that comes late, or cut the file"
        )
    tempo = tempos[-1] if tempos else DEFAULT_TEMPO
    longest = max(midi.tracks, key=lambda track: sum(message.time for message in track))
    ring = mido.second2tick(RING_S, midi.ticks_per_beat, tempo)
    longest.append(mido.MetaMessage("end_of_track", time=ring))
    buffer = io.BytesIO()
    try:
        midi.save(file=buffer)
    except ValueError as error:
        raise MidiError(f"{name} holds an invalid event: {error}; export it again") from None
    return buffer.getvalue()


@lru_cache(maxsize=1)
def _default_soundfont() -> bytes:
    return files("pretty_midi").joinpath("TimGM6mb.sf2").read_bytes()


def _finished(samples: npt.NDArray[np.float32], sample_rate: int) -> npt.NDArray[np.float32]:
    """Apply the gain, keep to -1 to 1, and fade the end."""
    fade = min(len(samples), round(_FADE_S * sample_rate))
    samples = np.clip(samples * np.float32(GAIN), -1, 1)
    samples[len(samples) - fade :] *= np.linspace(1, 0, fade, dtype=np.float32)[:, None]
    return samples
