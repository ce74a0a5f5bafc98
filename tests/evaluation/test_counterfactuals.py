"""Counterfactuals: one thing about a performance changes, and the judges find what was planted."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from matplotlib.figure import Figure

from mess_core.datasets.demo import SCORES, beats_to_tsv, interpret, perform, to_midi
from mess_core.errors import StorageError
from mess_core.evaluation.counterfactuals import (
    PARAMETERS,
    VARIANTS,
    Counterfactuals,
    excerpt,
    judge_counterfactuals,
    make_counterfactuals,
    read_counterfactuals,
    render,
    vary,
)
from mess_core.evaluation.spaces import Space
from mess_core.extraction import FeatureExtractor
from mess_core.files import file_sha256
from mess_core.layout import DESCRIPTORS, ENCODER, UNTRAINED, Layout
from mess_core.probing.pictures import draw_counterfactuals
from mess_core.recordings import Recording
from mess_core.targets.create import measure
from mess_core.targets.notes import Performance, read_performance
from tests.planted import ASPECTS, DIMS, LAYERS, Corpus
from tests.workflow.test_plan import recording

pytestmark = pytest.mark.unit

WINDOW_S, WORKS = 5.0, 6
N = WORKS * len(VARIANTS)
#: The target from MIDI of each parameter, and how much more of it there is with the one up: as a
#: ratio or, of what may be 0, as a difference.
TARGETS = {
    "tempo": ("chord_rate", 1.25**2, "ratio"),
    "rubato": ("rubato", 0.2, "at least"),
    "level": ("velocity_mean", 32.0, "difference"),
    "range": ("velocity_std", 1.75**2, "ratio"),
    "articulation": ("articulation_ratio", 1.75**2, "ratio"),
    "pedal": ("pedal_share", 1.0, "difference"),
}


def write(folder: Path, number: int, name: str = "rhapsodic") -> Recording:
    """Write one of the demo's performances."""
    played = perform(SCORES[number], interpret(name, SCORES[number].work_id))
    midi, beats = folder / f"{number}.mid", folder / f"{number}.tsv"
    midi.write_bytes(to_midi(played))
    beats.write_text(beats_to_tsv(played.beats))
    row = recording(str(number), midi=str(midi), beats=str(beats), audio="", audio_sha256="")
    return replace(row, midi_sha256=file_sha256(midi), beats_sha256=file_sha256(beats))


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Performance:
    row = write(tmp_path_factory.mktemp("demo"), 0)
    return excerpt(read_performance(Path(row.midi), beats=Path(row.beats)), WINDOW_S)


def expression(notes: Performance) -> dict[str, float]:
    found = measure(notes)["expression"]
    return {parameter: float(found[target]) for parameter, (target, *_) in TARGETS.items()}


@pytest.mark.parametrize("parameter", PARAMETERS)
def test_one_parameter_is_changed_and_no_other(notes: Performance, parameter: str) -> None:
    down, up = (expression(vary(notes, parameter, sign, WINDOW_S)) for sign in (-1, 1))
    for name, (_, amount, how) in TARGETS.items():
        moved = up[name] - down[name]
        if name != parameter:
            assert abs(moved) < 0.06 * abs(up[name]) + 1e-6, (name, down[name], up[name])
        elif how == "ratio":
            assert up[name] == pytest.approx(amount * down[name], rel=0.03)
        elif how == "difference":
            assert moved == pytest.approx(amount, abs=0.1)
        else:
            assert moved > amount
            assert down[name] < 0.01
    assert expression(vary(notes, "", 0, WINDOW_S)) == expression(notes)


def test_without_beats_time_is_bent_and_not_made_even(notes: Performance) -> None:
    free = Performance(notes.onsets, notes.releases, notes.pitches, notes.velocities, np.empty(0))
    np.testing.assert_allclose(vary(free, "rubato", -1, WINDOW_S).onsets, notes.onsets)
    bent = vary(free, "rubato", 1, WINDOW_S).onsets - notes.onsets
    # By 0.4 cycles of 5 s over 2 pi at most, and by nothing in the middle and the window's ends.
    assert np.abs(bent).max() == pytest.approx(0.4 * 5 / (2 * np.pi), rel=0.02)
    assert abs(np.interp(0, notes.onsets, bent)) < 0.02


def test_what_sounds_is_what_was_changed(notes: Performance) -> None:
    def sound(parameter: str, sign: int) -> npt.NDArray[np.float32]:
        samples = render(vary(notes, parameter, sign, WINDOW_S), parameter, sign, WINDOW_S)
        assert samples.shape == (132_000,)
        return samples

    level = {v: float(np.sqrt(np.mean(sound(*v) ** 2))) for v in VARIANTS}
    assert level["level", -1] < 0.7 * level["", 0] < 0.5 * level["level", 1]
    for sign in (-1, 1):
        assert level["room", sign] == pytest.approx(level["", 0], rel=1e-3)
        assert not np.array_equal(sound("room", sign), sound("", 0))
    spectra = [np.abs(np.fft.rfft(sound("instrument", sign))) for sign in (-1, 1)]
    low, high = (s @ np.arange(len(s)) / s.sum() for s in spectra)
    assert low < 0.8 * high
    # A hall rings on where a small room is silent: their loud moments are less loud.
    assert np.abs(sound("room", 1)).max() < np.abs(sound("room", -1)).max()


def test_only_the_pedal_of_the_passage_is_heard(notes: Performance) -> None:
    outside = replace(notes, pedal=np.array([[-5.0, -4.0], [3.0, 4.0]]))
    never = vary(notes, "pedal", -1, WINDOW_S)
    np.testing.assert_array_equal(render(outside, "", 0, 5.0), render(never, "", 0, WINDOW_S))


def test_a_bad_file_is_left_out_and_the_others_are_made(tmp_path: Path) -> None:
    layout = Layout(tmp_path, "mine")
    assert read_counterfactuals(layout) is None
    rows = [write(tmp_path, number) for number in (0, 1)]
    (tmp_path / "1.mid").write_bytes(b"no MIDI")
    rows[1] = replace(rows[1], midi_sha256=file_sha256(tmp_path / "1.mid"))
    descriptors = FeatureExtractor("descriptors")
    extractors = (descriptors, descriptors)
    failed = make_counterfactuals(rows, layout.counterfactuals, extractors)
    assert failed.keys() == {"1"}
    assert "no readable MIDI" in failed["1"]
    found = read_counterfactuals(layout)
    assert found is not None
    assert list(zip(found.parameter, found.sign, strict=True)) == list(VARIANTS)
    assert set(found.work) == {"w0"}
    assert set(found.recording) == {"0"}
    assert found.encoder.shape == (len(VARIANTS), 8, 402)
    np.testing.assert_array_equal(found.encoder, found.descriptors)
    loudness = dict(zip(found.columns, found.measured.T, strict=True))["dynamics/loudness_level"]
    level = found.parameter == "level"
    assert np.diff(loudness[level]) > 6
    assert make_counterfactuals(rows[1:], layout.counterfactuals, extractors) == failed
    assert read_counterfactuals(layout) is None
    layout.counterfactuals.write_bytes(b"damaged")
    with pytest.raises(StorageError, match="delete it"):
        read_counterfactuals(layout)


@pytest.fixture(scope="module")
def planted() -> Counterfactuals:
    """Tempo moves with tempo, dynamics with level; descriptors hold works, then what is changed."""
    rng = np.random.default_rng(3)
    works = np.repeat(np.arange(WORKS), len(VARIANTS))
    parameters, signs = (np.tile(each, WORKS) for each in zip(*VARIANTS, strict=True))
    kinds = np.tile(np.arange(len(VARIANTS)), WORKS)
    width = sum(d for _, d in ASPECTS.values()) + 8
    values = rng.normal(size=(WORKS, width))[works]
    values[:, 0] += signs * (parameters == "tempo")
    values[:, 2:4] -= 0.5 * (signs * (parameters == "level"))[:, np.newaxis]
    mix = np.random.default_rng(99).normal(size=(LAYERS, width, DIMS))
    codes = np.zeros((N, 2, 32), np.float32)
    codes[np.arange(N), 0, works] = codes[np.arange(N), 1, kinds] = 1
    codes += 0.05 * rng.normal(size=codes.shape)
    return Counterfactuals(
        columns=np.array(["rhythm/tempo"]),
        work=np.array([f"w{n}" for n in works]),
        parameter=parameters,
        sign=signs,
        recording=np.array([f"r{n}" for n in works]),
        encoder=(np.einsum("np,lpd->nld", values, mix) + 20.0).astype(np.float32),
        descriptors=codes.astype(np.float32),
        measured=np.zeros((N, 1)),
    )


def test_the_table_has_what_was_planted(planted: Counterfactuals) -> None:
    lines = judge_counterfactuals([], Corpus(2000).projection(), planted)
    assert len(lines) == 8 * 2
    found = {(line["against"], line["asked"]): line for line in lines}
    assert found["tempo", "tempo"]["value"] == pytest.approx(2, abs=0.05)
    assert found["level", "dynamics"]["value"] == pytest.approx(-np.sqrt(2), abs=0.05)
    for parameter, aspect in (("tempo", "tempo"), ("level", "dynamics")):
        line = found.pop((parameter, aspect))
        assert (line["measure"], line["source"], line["chance"]) == ("moves most", "probed", 0.0)
        assert (line["n"], line["works"]) == (WORKS, WORKS)
    assert all(abs(line["value"]) < 0.05 for line in found.values())
    figure = Figure()
    draw_counterfactuals(figure.subplots(), lines)
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts[:4] == ["2.00", ".00", ".00", ".00"]
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == [*PARAMETERS, "instrument", "room"]


def test_what_has_no_direction_does_not_move(planted: Counterfactuals) -> None:
    known = Corpus(2000).projection()
    errors = known.standard_errors.copy()
    errors[known.aspects["dynamics"].number] = np.nan
    lines = judge_counterfactuals([], replace(known, standard_errors=errors), planted)
    assert {line["asked"] for line in lines} == {"tempo"}
    assert [line["measure"] for line in lines] == ["moves most"] * 8
    assert all(line["value"] is not None for line in lines)


def test_triplets_tell_spaces_of_notes_from_spaces_of_playing(planted: Counterfactuals) -> None:
    spaces = [
        Space("content", DESCRIPTORS, False, lambda x, _: x[:, 0].astype(float)),
        Space("playing", DESCRIPTORS, True, lambda x, _: x[:, 1].astype(float)),
        Space("neither", ENCODER, True, lambda x, _: np.zeros((len(x), 2))),
        Space("not there", UNTRAINED, False, lambda x, _: x[:, 0].astype(float)),
    ]
    lines = judge_counterfactuals(spaces, Corpus(2000).projection(), planted)
    found = {line["asked"]: line for line in lines if line["judge"] == "same notes"}
    assert {name: line["value"] for name, line in found.items()} == {
        "content": 1.0, "playing": 0.0, "neither": 0.5,
    }  # fmt: skip
    assert {line["chance"] for line in found.values()} == {0.5}
    # Of each work's 12 variants of playing, with each of the other works.
    assert found["content"]["n"] == WORKS * 12 * (WORKS - 1)


def test_where_they_are_made_there_is_no_faiss() -> None:
    check = "import mess_core.evaluation.counterfactuals, sys; print('faiss' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr
