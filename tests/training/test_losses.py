"""Labels of planted performances, and losses that ask for what they say."""

import numpy as np
import pytest
import torch
from torch.utils.data import default_collate

from mess_core.extraction.small import SAMPLE_RATE, SmallEncoder
from mess_core.targets.notes import Performance
from mess_core.training.examples import FRAMES, SCALARS, Labels, label
from mess_core.training.losses import Heads, _curves, _differences, losses
from tests.training.planted import scale

pytestmark = pytest.mark.unit

SILENCE = np.zeros(5 * SAMPLE_RATE, np.float32)


def scalars(labels: Labels) -> dict[str, float]:
    return dict(zip(SCALARS, labels.scalars.tolist(), strict=True))


def test_scalars_are_those_of_the_planted_performance() -> None:
    found = scalars(label(scale(velocities=(50, 70), pedal=((-1.0, 1.5), (3.0, 3.5))), SILENCE))
    expected = {
        "velocity_mean": (60 - 62) / 18,
        "velocity_spread": (10 - 13) / 7,
        "pedal_share": (2.0 / 5 - 0.5) / 0.4,
        "pedal_changes": (1 / 5 - 0.6) / 0.6,
        "log_density": (np.log(4) - 2.0) / 0.7,
        "log_chord_rate": (np.log(4) - 1.3) / 0.6,
        "log_held": (np.log(0.125) + 1.3) / 0.7,
        "articulation": (np.log(0.5) + 0.1) / 0.6,
        "pitch_mean": (62.85 - 62) / 7,
        "ioi_spread": -0.6 / 0.3,
        "log_chord_size": -0.5 / 0.35,
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=0.01)
    assert np.isnan(found["melody_lead"])


@pytest.mark.parametrize("held", [0.3, 0.9, 1.2])
def test_articulation_is_key_overlap(held: float) -> None:
    articulation = scalars(label(scale(held=held), SILENCE))["articulation"]
    assert articulation == pytest.approx((np.log(held) + 0.1) / 0.6, abs=1e-5)


def test_loudness_is_the_recordings() -> None:
    rising = (np.linspace(-50, -30, 5 * SAMPLE_RATE) / 20).astype(np.float32)
    noise = np.random.default_rng(1).normal(size=5 * SAMPLE_RATE)
    found = scalars(label(scale(), (10**rising * noise).astype(np.float32)))
    assert found["loudness_mean"] == pytest.approx((-40 + 32) / 8, abs=0.03)
    assert found["loudness_slope"] == pytest.approx(4 / 1.5, abs=0.07)


def test_frames_say_what_sounds_when() -> None:
    notes = Performance(
        np.array([-1.0, 1.0]),
        np.array([0.5, 1.5]),
        np.array([40.0, 60.0]),
        np.array([30.0, 90.0]),
        pedal=np.array([[1.2, 4.0]]),
    )
    labels = label(notes, SILENCE)
    assert labels.velocities.shape == (FRAMES, 88)
    assert labels.velocities.nonzero().tolist() == [[74, 39]]  # frame 74 is centred on 0.995 s
    assert float(labels.velocities[74, 39]) == 90
    seconds = {
        name: getattr(labels, name)[:, key].sum().item() / 75
        for name, key in (("held", 39), ("sounding", 39))
    }
    assert seconds == pytest.approx({"held": 0.5, "sounding": 3.0}, abs=0.02)
    assert labels.held[:, 19].nonzero().max() == pytest.approx(0.5 * 75, abs=2)
    assert labels.pedal.sum().item() / 75 == pytest.approx(2.8, abs=0.02)


def test_the_curve_of_spread_is_the_spread_about_the_windows_mean() -> None:
    velocities = label(scale(velocities=(51, 77)), SILENCE).velocities[np.newaxis]
    curves, known = _curves(velocities)
    middle = slice(100, 250)
    assert known[0, middle].all()
    assert curves[0, middle, 1].mean() == pytest.approx(64 / 127 * 4 - 2, abs=0.03)
    assert curves[0, middle, 2].mean() == pytest.approx(13 / 127 * 10 - 1, abs=0.03)
    nothing, known = _curves(torch.zeros_like(velocities))
    assert torch.isfinite(nothing).all()
    assert not known[..., 1:].any()


def test_differences_are_within_groups_and_between_what_is_known() -> None:
    values = torch.tensor([[1.0], [3.0], [5.0], [0.0], [10.0], [7.0]])
    known = torch.tensor([[True], [True], [True], [False], [True], [False]])
    found, comparable = _differences(values, known, 3)
    assert found[:, 0].tolist() == [-2, 0, 2, 0, 0, 0]
    assert comparable[:, 0].tolist() == [True, True, True, False, False, False]


def test_a_window_without_notes_has_finite_losses_and_gradients() -> None:
    empty = Performance(*(np.zeros(0) for _ in range(4)))
    torch.manual_seed(1)
    model, heads = SmallEncoder(), Heads()
    labels = default_collate([label(n, SILENCE) for n in (empty, scale(), scale(), empty)])
    found = losses(heads, model(torch.zeros(4, 5 * SAMPLE_RATE)), labels, versions=2)
    torch.stack(list(found.values())).sum().backward()  # type: ignore[no-untyped-call]
    for part in (model, heads):
        gradients = [p.grad for p in part.parameters() if p.grad is not None]
        assert gradients
        assert all(torch.isfinite(gradient).all() for gradient in gradients)
