"""Rendering: levels follow velocity, dampers follow keys and pedal; versions differ."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import mido
import numpy as np
import pytest
import soundfile

from mess_core.errors import AudioError, MidiError
from mess_core.extraction.small import SAMPLE_RATE
from mess_core.targets.notes import Performance
from mess_core.training.examples import CONTEXT_S, WINDOW_S, excerpt, vary
from mess_core.training.render import (
    Floats,
    Piano,
    draw_character,
    mix,
    read_performances,
    read_pianos,
    record,
    sounding_ends,
)
from tests.training.planted import plain_character, scale, write_performances, write_piano

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def piano(tmp_path_factory: pytest.TempPathFactory) -> Piano:
    folder = tmp_path_factory.mktemp("pianos")
    write_piano(folder, "sine", partials=1)
    return read_pianos(folder)["sine"]


def note(
    pitch: float = 60, velocity: float = 64, held: float = 0.5, **pedal: object
) -> Performance:
    one = (np.array([value]) for value in (0.0, held, pitch, velocity))
    return Performance(*one, **pedal)  # type: ignore[arg-type]


def played(performance: Performance, piano: Piano) -> Floats:
    return mix(performance, piano, plain_character(), 0, 2)


def level(audio: Floats, start_s: float, stop_s: float) -> float:
    part = audio[round(start_s * SAMPLE_RATE) : round(stop_s * SAMPLE_RATE)]
    return float(10 * np.log10(np.square(part, dtype=np.float64).mean() + 1e-12))


@pytest.mark.parametrize(("soft", "loud"), [(30, 60), (59, 118), (70, 71)])
def test_level_follows_velocity_whatever_the_samples_do(
    piano: Piano, soft: float, loud: float
) -> None:
    levels = [level(played(note(velocity=v), piano), 0.1, 0.4) for v in (soft, loud)]
    expected = 40 * np.log10(loud / soft)
    assert levels[1] - levels[0] == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize("pitch", [21, 60, 61, 62, 100, 108])
def test_every_key_has_its_frequency(piano: Piano, pitch: int) -> None:
    audio = played(note(pitch, held=2.0), piano)
    hertz = np.fft.rfftfreq(len(audio), 1 / SAMPLE_RATE)[np.abs(np.fft.rfft(audio)).argmax()]
    assert hertz == pytest.approx(440 * 2 ** ((pitch - 69) / 12), rel=0.005, abs=0.5)


def test_a_note_is_damped_without_pedal_and_rings_with_it(piano: Piano) -> None:
    dry = played(note(), piano)
    wet = played(note(pedal=np.array([[0.2, 1.5]])), piano)
    assert level(dry, 0.1, 0.4) == pytest.approx(level(wet, 0.1, 0.4), abs=0.01)
    assert level(dry, 0.9, 1.2) < level(dry, 0.1, 0.4) - 40
    assert level(wet, 0.9, 1.2) > level(wet, 0.1, 0.4) - 6
    assert level(wet, 1.9, 2.0) < level(wet, 0.9, 1.2) - 40


def test_a_key_that_is_struck_again_begins_anew() -> None:
    again = Performance(
        np.array([0.0, 1.0, 1.5]),
        np.array([0.2, 1.2, 1.7]),
        np.array([60.0, 60.0, 64.0]),
        np.full(3, 64.0),
        pedal=np.array([[0.1, 3.0]]),
    )
    np.testing.assert_array_equal(sounding_ends(again), [1.0, 3.0, 3.0])


def test_what_was_struck_before_the_window_is_heard_in_it(piano: Piano) -> None:
    performance = note(held=1.0)
    whole = mix(performance, piano, plain_character(), 0, 2)
    late = mix(performance, piano, plain_character(), 0.5, 2)
    np.testing.assert_array_equal(late, whole[SAMPLE_RATE // 2 :])


def test_a_piano_of_another_form_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="is no folder with note samples"):
        read_pianos(tmp_path)
    soundfile.write(tmp_path / "short.wav", np.zeros(1000), SAMPLE_RATE)
    with pytest.raises(AudioError, match=r"1000 frames at 24000 Hz; expected mono .* 180 equally"):
        read_pianos(tmp_path)


def test_performances_are_read_from_the_packed_form_and_from_midi(tmp_path: Path) -> None:
    with pytest.raises(MidiError, match="is no folder with MIDI files or performances"):
        read_performances(tmp_path)
    np.savez(tmp_path / "performances.npz", meta=np.array(["one"]))
    with pytest.raises(MidiError, match=r"performances\.npz cannot be read: .*nn"):
        read_performances(tmp_path)
    arrays: dict[str, Any] = {key: np.ones(1) for key in ("dt", "du", "pi", "ve", "pt", "pv")}
    arrays |= {"meta": np.array(["one", "two"]), "nn": np.ones(1, int), "npd": np.zeros(1, int)}
    np.savez(tmp_path / "performances.npz", **arrays)
    with pytest.raises(MidiError, match=r"performances\.npz cannot be read: .*shorter"):
        read_performances(tmp_path)
    write_performances(tmp_path, seed=1, count=2)
    with np.load(tmp_path / "performances.npz") as packed:
        first, second = read_performances(tmp_path).values()
        assert second.onsets[2] == pytest.approx(packed["dt"][120:123].sum() * 1e-4)
        assert first.releases[5] - first.onsets[5] == pytest.approx(packed["du"][5] * 1e-4)
        assert second.velocities[0] == packed["ve"][120]
        # The pedal goes down an eleventh time and never up again: until the last note ends.
        assert first.pedal.shape == (11, 2)
        np.testing.assert_allclose(first.pedal[:10].ravel(), packed["pt"][:20] * 1e-4)
        assert (np.diff(first.pedal.ravel()) >= 0).all()
    track = mido.MidiTrack(
        [mido.Message("note_on", note=60, velocity=50), mido.Message("note_off", note=60, time=480)]
    )
    mido.MidiFile(tracks=[track]).save(tmp_path / "mine.mid")
    assert read_performances(tmp_path)["mine.mid"].pitches.tolist() == [60]


def test_versions_are_playable_and_those_of_a_seed_the_same() -> None:
    source = excerpt(scale(count=60), 5.0, np.random.default_rng(0))
    versions = [vary(source, np.random.default_rng(seed)) for seed in range(40)]
    for version in versions:
        assert (np.diff(version.onsets) >= 0).all()
        assert (version.releases > version.onsets).all()
        assert version.onsets.min() >= -CONTEXT_S
        assert version.onsets.max() < WINDOW_S
        assert ((version.velocities >= 1) & (version.velocities <= 127)).all()
        for pitch in np.unique(version.pitches):
            on_key = version.pitches == pitch
            assert (version.releases[on_key][:-1] <= version.onsets[on_key][1:] + 0.005).all()
    again = vary(source, np.random.default_rng(7))
    np.testing.assert_array_equal(again.onsets, versions[7].onsets)
    np.testing.assert_array_equal(again.velocities, versions[7].velocities)
    spreads = [version.velocities.std() for version in versions]
    assert max(spreads) > 3 * min(spreads)
    rates = [((v.onsets >= 0) & (v.onsets < 5)).sum() for v in versions]
    assert max(rates) > 1.3 * min(rates)


def test_recordings_differ_in_colour_and_keep_level(piano: Piano) -> None:
    dry = played(replace(scale(), pedal=np.array([[0.0, 5.0]])), piano)
    recorded = [record(dry, np.random.default_rng(seed)) for seed in range(30)]
    levels = [level(audio, 0, 2) for audio in recorded]
    assert all(np.isfinite(audio).all() and len(audio) == len(dry) for audio in recorded)
    assert np.mean(levels) == pytest.approx(level(dry, 0, 2) - 14, abs=3)
    assert np.std(levels) > 1.5
    characters = [draw_character(np.random.default_rng(seed)) for seed in range(30)]
    laws = [c.level_db(30) for c in characters]
    assert all(c.level_db(30) < c.level_db(60) < c.level_db(120) for c in characters)
    assert np.std(laws) > 3
