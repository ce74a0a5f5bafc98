"""Rendering is checked by what is heard: where, how loud and how long."""

import io
import math
from importlib.resources import files
from itertools import pairwise
from pathlib import Path

import midirenderer
import mido
import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from mess_core.datasets.render import GAIN, RING_S, render_midi, render_midi_file
from mess_core.errors import MidiError
from tests.targets.signals import Event, midi_bytes, tempo

pytestmark = pytest.mark.unit

RATE = 44100
PERCEPIANO = Path(__file__).parents[3] / "shared/data/percepiano/midi"


def note(tick: int, length: int, pitch: int = 60, velocity: int = 80) -> list[Event]:
    return [
        (tick, mido.Message("note_on", note=pitch, velocity=velocity)),
        (tick + length, mido.Message("note_off", note=pitch)),
    ]


def pedal(tick: int, value: int) -> Event:
    return tick, mido.Message("control_change", control=64, value=value)


def rms(samples: npt.NDArray[np.float32], start_s: float, end_s: float) -> float:
    part = samples[round(start_s * RATE) : round(end_s * RATE)]
    return float(np.sqrt(np.mean(np.square(part, dtype=np.float64))))


def onset_after(samples: npt.NDArray[np.float32], start_s: float) -> float:
    """First time after ``start_s`` at which the sound passes a tenth of its coming peak."""
    start = round(start_s * RATE)
    level = np.abs(samples[start:]).max(axis=1)
    return start_s + float(np.argmax(level > 0.1 * level[:RATE].max())) / RATE


@pytest.mark.parametrize(("bpm", "seconds"), [(120, 0.5), (30, 2.0)])
def test_two_channels_and_time_to_ring_at_any_tempo(bpm: float, seconds: float) -> None:
    samples = render_midi(midi_bytes([tempo(0, bpm), *note(0, 480)]))
    assert samples.dtype == np.float32
    assert samples.shape[1] == 2
    assert len(samples) / RATE == pytest.approx(seconds + RING_S, abs=0.01)
    assert np.abs(samples[-1]).max() == 0


@pytest.mark.parametrize("sample_rate", [16000, 24000, 44100, 48000])
def test_pitch_and_length_do_not_depend_on_the_rate(sample_rate: int) -> None:
    samples = render_midi(midi_bytes(note(0, 1920, pitch=69)), sample_rate=sample_rate)
    assert len(samples) / sample_rate == pytest.approx(2 + RING_S, abs=0.01)
    second = samples[sample_rate // 2 : sample_rate // 2 + sample_rate, 0]
    spectrum = np.abs(np.fft.rfft(second * np.hanning(len(second))))
    assert np.argmax(spectrum[:600]) == pytest.approx(440, abs=2)


@pytest.mark.parametrize("tracks", ["one", "two"])
def test_tempo_changes_move_onsets(tracks: str) -> None:
    tempos = [tempo(0, 120), tempo(960, 60)]
    notes = note(0, 240) + note(960, 240) + note(1920, 240)
    content = midi_bytes(tempos + notes, kind=0) if tracks == "one" else midi_bytes(tempos, notes)
    samples = render_midi(content)
    # Two beats at 120 a minute take 1 s, two more at 60 a minute take 2 s.
    assert onset_after(samples, 0.7) == pytest.approx(1.0, abs=0.02)
    assert onset_after(samples, 2.5) == pytest.approx(3.0, abs=0.02)


@pytest.mark.parametrize(("value", "sounds"), [(0, False), (63, False), (64, True), (127, True)])
def test_sustain_pedal_holds_from_64_on(value: int, sounds: bool) -> None:
    samples = render_midi(midi_bytes([pedal(0, value), *note(0, 240), pedal(1920, 0)]))
    assert (rms(samples, 1.0, 1.5) > 0.05 * rms(samples, 0.0, 0.2)) == sounds


def test_louder_velocity_is_louder_and_files_are_not_normalised() -> None:
    levels = [
        rms(render_midi(midi_bytes(note(0, 480, velocity=v))), 0.0, 0.5) for v in (30, 60, 90, 120)
    ]
    steps = [20 * math.log10(b / a) for a, b in pairwise(levels)]
    assert min(steps) > 3


def test_ten_fingers_at_full_velocity_stay_below_full_scale() -> None:
    chord = [event for p in range(36, 86, 5) for event in note(0, 960, pitch=p, velocity=127)]
    assert 0.3 < np.abs(render_midi(midi_bytes(chord))).max() < 0.9


def test_more_than_full_scale_is_limited() -> None:
    keyboard = [event for p in range(21, 109) for event in note(0, 960, pitch=p, velocity=127)]
    assert np.abs(render_midi(midi_bytes(keyboard))).max() == 1


def test_level_is_the_synthesizers_times_the_gain() -> None:
    content = midi_bytes([*note(0, 960), (1920, mido.Message("note_off", note=0))])
    soundfont = files("pretty_midi").joinpath("TimGM6mb.sf2").read_bytes()
    raw, _ = soundfile.read(io.BytesIO(midirenderer.render_wave_from(soundfont, content)))
    ours = render_midi(content, sample_rate=48000)
    assert ours[:48000] == pytest.approx(GAIN * raw[:48000], abs=1e-6)


def test_file_is_16_bit_stereo_and_equal_twice(tmp_path: Path) -> None:
    midi = tmp_path / "a.mid"
    midi.write_bytes(midi_bytes(note(0, 480)))
    render_midi_file(midi, tmp_path / "one/a.wav")
    render_midi_file(midi, tmp_path / "two/b.wav")
    info = soundfile.info(tmp_path / "one/a.wav")
    assert (info.samplerate, info.channels, info.subtype) == (RATE, 2, "PCM_16")
    # 44 bytes of header: no chunk that could hold a time stamp.
    assert (tmp_path / "one/a.wav").stat().st_size == 44 + 4 * info.frames
    assert (tmp_path / "one/a.wav").read_bytes() == (tmp_path / "two/b.wav").read_bytes()


NO_MIDI = {
    "empty": b"",
    "truncated": midi_bytes(note(0, 480))[:-6],
    "no notes": midi_bytes([tempo(0, 120)]),
    "only releases": midi_bytes([(0, mido.Message("note_on", note=60, velocity=0))]),
}


@pytest.mark.parametrize("fault", NO_MIDI)
def test_faulty_files_are_named_and_nothing_is_written(fault: str, tmp_path: Path) -> None:
    midi = tmp_path / "faulty.mid"
    midi.write_bytes(NO_MIDI[fault])
    with pytest.raises(MidiError, match=r"faulty\.mid"):
        render_midi_file(midi, tmp_path / "faulty.wav")
    assert [path.name for path in tmp_path.iterdir()] == ["faulty.mid"]


def test_missing_file_and_unusable_soundfont(tmp_path: Path) -> None:
    with pytest.raises(MidiError, match=r"none\.mid cannot be read"):
        render_midi(tmp_path / "none.mid")
    with pytest.raises(MidiError, match=r"soundfont .*none\.sf2 cannot be read"):
        render_midi(midi_bytes(note(0, 480)), soundfont=tmp_path / "none.sf2")
    (tmp_path / "bad.sf2").write_bytes(b"no soundfont")
    with pytest.raises(MidiError, match=r"cannot be rendered with .*bad\.sf2"):
        render_midi(midi_bytes(note(0, 480)), soundfont=tmp_path / "bad.sf2")


@pytest.mark.skipif(not PERCEPIANO.is_dir(), reason="../shared/data/percepiano is absent")
def test_real_performances_render_at_their_length_without_clipping() -> None:
    paths = sorted(PERCEPIANO.glob("*_8bars_*.mid"))[::90][:5]
    assert len(paths) == 5
    for path in paths:
        samples = render_midi(path)
        assert len(samples) / RATE == pytest.approx(mido.MidiFile(path).length + RING_S, abs=0.1)
        assert 0.02 < np.abs(samples).max() < 1
