"""Alignment of rendered performances whose beats are known, from audio and from MIDI."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from mess_core.alignment import align
from mess_core.alignment.align import LEAST_SHARED, align_work, shared_music
from mess_core.alignment.audio import Features, align_audio, extract
from mess_core.alignment.maps import Alignment
from mess_core.datasets.demo import SCORES, interpret, perform, to_midi
from mess_core.datasets.render import render_midi
from mess_core.errors import AlignmentError
from mess_core.files import file_sha256
from mess_core.recordings import Recording

pytestmark = pytest.mark.unit

RATE = 24_000
#: Settings were chosen on no work of the demo.
WORK, OTHER_WORK = sorted(score.work_id for score in SCORES)[:2]

Audio = npt.NDArray[np.float32]
Played = tuple[Audio, npt.NDArray[np.float64], bytes]


def played(work_id: str, interpretation: str) -> Played:
    """Return the sound, the beats and the MIDI of an interpretation."""
    score = next(s for s in SCORES if s.work_id == work_id)
    performance = perform(score, interpret(interpretation, work_id))
    midi = to_midi(performance)
    audio = render_midi(midi, sample_rate=RATE).mean(1)
    return audio, np.array([beat.time_s for beat in performance.beats]), midi


@pytest.fixture(scope="module")
def crisp() -> Played:
    return played(WORK, "crisp")


@pytest.fixture(scope="module")
def rhapsodic() -> Played:
    return played(WORK, "rhapsodic")


def test_beats_are_found_from_audio_and_errors_are_what_they_say(
    crisp: Played, rhapsodic: Played
) -> None:
    alignment = align_audio(extract(crisp[0]), extract(rhapsodic[0]))
    assert shared_music(alignment, len(crisp[0]) / RATE, len(rhapsodic[0]) / RATE) > 0.85
    error = alignment.to_recording(crisp[1]) - rhapsodic[1]
    assert np.isfinite(error).all()
    assert np.median(np.abs(error)) < 0.015
    assert np.mean(np.abs(error) < 0.05) > 0.9
    known = np.interp(rhapsodic[1], alignment.times, alignment.errors)
    assert np.mean(np.abs(error) < 2 * known) > 0.85
    assert np.mean(np.abs(error) < 0.2 * known) < 0.5


def test_twelve_seconds_are_enough(crisp: Played, rhapsodic: Played) -> None:
    stop = round(12 * RATE)
    alignment = align_audio(extract(crisp[0][:stop]), extract(rhapsodic[0][:stop]))
    assert shared_music(alignment, 12.0, 12.0) > 0.6
    error = alignment.to_recording(crisp[1]) - rhapsodic[1]
    assert np.nanmedian(np.abs(error)) < 0.015


def test_the_map_goes_both_ways(crisp: Played, rhapsodic: Played) -> None:
    alignment = align_audio(extract(crisp[0]), extract(rhapsodic[0]))
    assert alignment.to_work(alignment.to_recording(crisp[1])) == pytest.approx(crisp[1], abs=1e-6)
    assert (np.diff(alignment.times) > 0).all()
    assert (np.diff(alignment.work_times) > 0).all()


def test_a_cut_is_left_out_and_moves_nothing_else() -> None:
    works = sorted(score.work_id for score in SCORES)[:3]
    crisp, rhapsodic = ([played(work, name) for work in works] for name in ("crisp", "rhapsodic"))
    reference, other = (np.concatenate([p[0] for p in parts]) for parts in (crisp, rhapsodic))
    whole = align_audio(extract(reference), extract(other))
    assert len(whole.regions) == 1
    starts = np.cumsum([0, *(len(p[0]) for p in rhapsodic)]) / RATE
    beats = np.concatenate([p[1] + at for p, at in zip(rhapsodic, starts[:-1], strict=True)])
    start, stop = 40.0, 55.0
    samples = np.delete(other, slice(round(start * RATE), round(stop * RATE)))
    cut = align_audio(extract(reference), extract(samples))
    assert len(cut.regions) == 2
    assert cut.regions[0, 1] == pytest.approx(start, abs=1.5)
    before, after = beats < start - 2, beats > stop + 2
    same = np.where(after, beats - (stop - start), beats)[before | after]
    moved = cut.to_work(same) - whole.to_work(beats[before | after])
    assert np.isfinite(moved).mean() > 0.95
    moved = moved[np.isfinite(moved)]
    assert np.median(np.abs(moved)) < 0.01
    assert np.abs(moved).max() < 0.1
    # What is cut out lies nowhere in the recording.
    middle = whole.to_work(np.array([(start + stop) / 2]))
    assert np.isnan(cut.to_recording(middle)).all()


def test_another_work_and_silence_are_aligned_nowhere(crisp: Played) -> None:
    for samples in (played(OTHER_WORK, "crisp")[0], np.zeros(30 * RATE, np.float32)):
        alignment = align_audio(extract(crisp[0]), extract(samples))
        assert shared_music(alignment, 30.0, 30.0) < LEAST_SHARED
        assert np.isnan(alignment.to_recording(crisp[1])).all()


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> list[Recording]:
    """Four performances of a work, and one of another under its name; two have MIDI."""
    folder = tmp_path_factory.mktemp("works")
    rows = []
    for name in ("crisp", "rhapsodic", "dramatic", "singing", "other"):
        of_work = OTHER_WORK if name == "other" else WORK
        audio, _, midi = played(of_work, "crisp" if name == "other" else name)
        soundfile.write(folder / f"{name}.wav", audio, RATE)
        with_midi = name in ("rhapsodic", "dramatic")
        path = folder / f"{name}.mid"
        path.write_bytes(midi)
        rows.append(
            Recording(
                **{"recording_id": name, "work_id": WORK, "performer": name, "composer": ""},
                **{"title": "", "split": "", "audio": str(folder / f"{name}.wav")},
                midi=str(path) if with_midi else "",
                beats="",
                audio_sha256=file_sha256(folder / f"{name}.wav"),
                midi_sha256=file_sha256(path) if with_midi else "",
                beats_sha256="",
                duration_s=len(audio) / RATE,
                status="ok",
                reason="",
            )
        )
    return rows


def test_a_work_is_aligned_and_what_is_not_of_it_is_left_out(
    table: list[Recording], tmp_path: Path
) -> None:
    work = align_work(WORK, table, cache=tmp_path)
    assert work.reference in ("rhapsodic", "dramatic")
    assert work.sources == {
        **dict.fromkeys(("crisp", "singing"), "audio"),
        **dict.fromkeys(("rhapsodic", "dramatic"), "midi"),
    }
    assert list(work.left_out) == ["other"]
    assert "is it of" in work.left_out["other"]
    # The reference is aligned where somebody else plays, not in its silence.
    own = work.alignments[work.reference]
    length = next(r.duration_s for r in table if r.recording_id == work.reference)
    assert own.regions[0, 0] > 0.1
    assert own.regions[-1, 1] < length - 1
    assert own.to_work(own.times) == pytest.approx(own.times)
    # Through the reference, any two performances are aligned.
    beats = {name: played(WORK, name)[1] for name in work.alignments}
    places = work.alignments["crisp"].to_work(beats["crisp"])
    for name, alignment in work.alignments.items():
        assert np.nanmedian(np.abs(alignment.to_recording(places) - beats[name])) < 0.025


def test_one_more_recording_is_aligned_to_the_reference_alone(
    table: list[Recording], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    audio_only = [replace(row, midi="", midi_sha256="") for row in table[:4]]
    pairs: list[Features] = []

    def counted(reference: Features, other: Features) -> Alignment:
        pairs.append(other)
        return align_audio(reference, other)

    monkeypatch.setattr(align, "align_audio", counted)
    first = align_work(WORK, audio_only[:3], cache=tmp_path)
    assert len(pairs) == 2
    # As long as the reference, so that that is still of median length, and the first by name.
    length = next(r.duration_s for r in audio_only if r.recording_id == first.reference)
    rows = [*audio_only[:3], replace(audio_only[3], duration_s=length)]
    for _ in range(2):  # the second time nothing is aligned
        more = align_work(WORK, rows, cache=tmp_path)
        assert more.reference == first.reference
        assert more.alignments.keys() - first.alignments.keys() == {"singing"}
        assert len(pairs) == 3


def test_recordings_of_different_works_alone_are_all_left_out(
    table: list[Recording], tmp_path: Path
) -> None:
    work = align_work(WORK, [table[0], table[4]], cache=tmp_path)
    assert work.alignments == {}
    assert set(work.left_out) == {"crisp", "other"}


def test_a_pair_that_cannot_be_aligned_does_not_stop_the_others(
    table: list[Recording], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_long(*_: Any) -> Alignment:
        raise AlignmentError("too long to be compared")

    monkeypatch.setattr(align, "align_notes", too_long)
    work = align_work(WORK, table[:4], cache=tmp_path)
    assert len(work.alignments) == 3
    assert list(work.left_out.values()) == ["too long to be compared"]
