"""MIDI files as players, editors and crashed recorders leave them."""

from pathlib import Path

import mido
import numpy as np
import pytest

from mess_core.errors import MidiError
from mess_core.targets import measure, measure_windows
from mess_core.targets.notes import read_performance
from tests.targets.signals import Event, midi_bytes, tempo

pytestmark = pytest.mark.unit

ON, OFF = "note_on", "note_off"


def key(tick: int, kind: str, note: int = 60, velocity: int = 64, channel: int = 0) -> Event:
    return tick, mido.Message(kind, note=note, velocity=velocity, channel=channel)


def write(path: Path, *tracks: list[Event], **options: int) -> Path:
    path.write_bytes(midi_bytes(*tracks, **options))
    return path


def played(path: Path) -> list[tuple[float, float, int]]:
    """Return onset, release and velocity of each note."""
    performance = read_performance(path)
    columns = (performance.onsets, performance.releases, performance.velocities)
    return [(float(a), float(b), int(v)) for a, b, v in zip(*columns, strict=True)]


SCALE = [key(480 * i // 2, (ON, OFF)[i % 2], 60 + i // 2) for i in range(8)]


@pytest.mark.parametrize("place", [0, 1, 2])
def test_tempo_counts_in_whatever_track_it_stands(tmp_path: Path, place: int) -> None:
    """Two beats at 40 BPM, then 120: notes begin on every half beat."""
    tracks: list[list[Event]] = [[], SCALE, []]
    tracks[place] = [tempo(0, 40), tempo(960, 120), *tracks[place]]
    path = write(tmp_path / "a.mid", *tracks)
    found = read_performance(path).onsets
    np.testing.assert_allclose(found, [0.0, 1.5, 3.0, 3.5])
    merged, now = [], 0.0
    for message in mido.MidiFile(path):  # mido's own merge is the reference
        now += message.time
        if message.type == ON:
            merged.append(now)
    np.testing.assert_allclose(found, merged)


@pytest.mark.parametrize(
    ("events", "notes"),
    [
        ([key(0, ON), key(480, OFF)], [(0, 0.5, 64)]),
        ([key(0, ON), key(480, ON, velocity=0)], [(0, 0.5, 64)]),
        ([key(0, ON), key(480, ON), (960, mido.MetaMessage("end_of_track"))],
         [(0, 0.5, 64), (0.5, 1, 64)]),
        ([key(0, ON), key(480, ON, velocity=9), key(960, OFF)], [(0, 0.5, 64), (0.5, 1, 9)]),
        ([key(0, ON), key(480, ON, velocity=9), key(480, OFF), key(960, OFF)],
         [(0, 0.5, 64), (0.5, 1, 9)]),
        ([key(0, ON), key(480, OFF), key(480, ON, velocity=9), key(960, OFF)],
         [(0, 0.5, 64), (0.5, 1, 9)]),
        ([key(0, ON), key(0, ON, velocity=99), key(480, OFF), key(480, OFF)],
         [(0, 0.5, 64), (0, 0.5, 99)]),
        ([key(0, ON), key(480, ON, velocity=9), key(720, OFF), key(960, OFF)],
         [(0, 0.75, 64), (0.5, 1, 9)]),
        ([key(0, ON), key(0, OFF), key(480, ON), key(960, OFF)], [(0, 0, 64), (0.5, 1, 64)]),
        ([key(0, OFF), key(480, ON), key(960, OFF), key(1440, OFF)], [(0.5, 1, 64)]),
        ([key(0, ON), key(480, ON, channel=1), key(960, OFF, channel=1), key(1440, OFF)],
         [(0, 1.5, 64), (0.5, 1, 64)]),
    ],
    ids=["plain", "velocity 0", "never released", "struck again", "released after", "and before",
         "struck twice at once", "in two voices",
         "no length", "stray releases", "two channels"],
)  # fmt: skip
def test_keys_are_held_as_a_player_would(
    tmp_path: Path, events: list[Event], notes: list[tuple[float, float, int]]
) -> None:
    assert played(write(tmp_path / "a.mid", events)) == notes


def test_two_hands_on_one_channel_hold_their_own_keys(tmp_path: Path) -> None:
    left, right = [key(0, ON), key(1920, OFF)], [key(480, ON), key(960, OFF)]
    assert played(write(tmp_path / "a.mid", left, right)) == [(0, 2, 64), (0.5, 1, 64)]


def pedal(tick: int, value: int, channel: int = 0) -> Event:
    return tick, mido.Message("control_change", control=64, value=value, channel=channel)


@pytest.mark.parametrize(
    ("events", "down"),
    [
        ([], []),
        ([pedal(0, 127), pedal(480, 0)], [(0, 0.5)]),
        # As a sensor sends it, half pedal included: 64 is down.
        ([pedal(0, 40), pedal(96, 64), pedal(192, 100), pedal(480, 63)], [(0.1, 0.5)]),
        # Never up again.
        ([pedal(480, 127)], [(0.5, 1.75)]),
        # Either of two hands' channels holds it; drums have none.
        ([pedal(0, 127), pedal(96, 127, 1), pedal(192, 0), pedal(480, 0, 1)], [(0, 0.5)]),
        ([pedal(0, 127, 9)], []),
    ],
)
def test_the_pedal_is_down_from_64(
    tmp_path: Path, events: list[Event], down: list[tuple[float, float]]
) -> None:
    path = write(tmp_path / "a.mid", events, SCALE)
    found = read_performance(path).pedal
    np.testing.assert_allclose(found, np.reshape(down, (-1, 2)), atol=1e-9)


def test_pedal_share_and_changes_are_those_of_the_time_played(tmp_path: Path) -> None:
    """Notes from 0.5 to 4.5 s; the pedal goes down before them, and at 3 and 4 s."""
    changes = {0.25: 127, 1.5: 0, 3: 127, 3.5: 0, 4: 127, 4.5: 0}
    events = [pedal(round(960 * time), value) for time, value in changes.items()]
    notes = [key(480 + 960 * i, ON, 60 + i) for i in range(4)]
    notes += [key(1440 + 960 * i, OFF, 60 + i) for i in range(4)]
    performance = read_performance(write(tmp_path / "a.mid", events + notes))
    whole = measure(performance)["expression"]
    assert whole["pedal_share"] == pytest.approx(2 / 4)
    assert whole["pedal_changes"] == pytest.approx(2 / 4)
    windows = measure_windows(performance, [0.0, 2.0, 4.0, 6.0], window_s=2.0)["expression"]
    np.testing.assert_allclose(windows["pedal_share"], [1 / 1.5, 0.25, 1.0, np.nan])
    np.testing.assert_allclose(windows["pedal_changes"], [0.0, 0.5, 2.0, np.nan])


def test_drums_do_not_count(tmp_path: Path) -> None:
    drums = [key(tick, kind, channel=9) for tick, kind in [(0, ON), (60, OFF)]]
    path = write(tmp_path / "a.mid", [*drums, key(480, ON), key(960, OFF)])
    assert played(path) == [(0.5, 1, 64)]


@pytest.mark.parametrize(
    ("tracks", "options", "message"),
    [
        ([[key(0, ON, channel=9), key(9, OFF, channel=9)]], {}, "holds no notes but drums"),
        ([[tempo(0, 90)]], {}, "holds no notes"),
        ([SCALE, SCALE], {"kind": 2}, "is of MIDI type 2"),
        ([SCALE], {"division": -6360}, "counts SMPTE frames"),
        ([], {}, "has no tracks"),
        ([[(0, mido.MetaMessage("set_tempo", tempo=0)), *SCALE]], {}, "has a tempo of 0"),
        ([[key(0, ON), key(269_000_000, OFF)]], {}, "has notes until 78 hours"),
    ],
)
def test_what_cannot_be_measured_is_refused_by_name(
    tmp_path: Path, tracks: list[list[Event]], options: dict[str, int], message: str
) -> None:
    path = write(tmp_path / "odd.mid", *tracks, **options)
    with pytest.raises(MidiError, match=rf"odd\.mid {message}"):
        read_performance(path)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_handful_of_notes_gives_nan(tmp_path: Path, count: int) -> None:
    performance = read_performance(write(tmp_path / "a.mid", SCALE[: 2 * count]))
    windows = measure_windows(performance, [0.0, 2.5], window_s=5.0)["expression"]
    for found in (measure(performance)["expression"], windows):
        defined = {name for name, value in found.items() if not np.isnan(value).all()}
        rates = {"chord_rate", "note_rate"} if count > 2 else set()
        assert defined == {"pedal_share", "pedal_changes"} | rates


@pytest.mark.parametrize("content", [b"", b"RIFF and no MIDI", b"MThd\0\0\0\6\0\1\0\1", None])
def test_unreadable_and_missing_midi_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = write(tmp_path / "bad.mid", SCALE)
    path.write_bytes(path.read_bytes()[:40] if content is None else content)
    with pytest.raises(MidiError, match=r"bad\.mid .*no readable MIDI file"):
        read_performance(path)
    with pytest.raises(MidiError, match=r"none\.mid is no file"):
        read_performance(tmp_path / "none.mid")
