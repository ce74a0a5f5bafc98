"""The losses by which hidden states learn to say what is known of a rendering.

Heads read the layers' own outputs and are thrown away. What MESS reads are means over time, so
those of scalars are linear on ``state.mean(1)``. A spread is no mean of what a single frame knows:
so `CURVES` ask each frame for the squares of velocities about the window's mean.
"""

__all__ = ["Heads", "losses"]

import torch
from torch import Tensor, nn
from torch.nn import functional

from mess_core.extraction.small import DIMS, HOP, SAMPLE_RATE
from mess_core.training.examples import SCALARS, Labels
from mess_core.training.render import KEYS

#: What each frame is asked for, smoothed over half a second: log density, velocity, its spread.
CURVES = 3
_SMOOTHING = 0.5 * SAMPLE_RATE / HOP  # frames
_LEAST_WEIGHT = 0.005  # notes per frame near one whose velocities count
_FRAME_LAYERS, _VELOCITY_LAYER, _CURVE_LAYERS, _SCALAR_LAYERS = (2, 4), 4, (3, 5), (2, 4, 6)


class Heads(nn.Module):
    """Linear readings of hidden states, and how far scalars differ within groups so far."""

    def __init__(self) -> None:
        super().__init__()
        self.frames = _heads(_FRAME_LAYERS, 3 * KEYS + 1)
        self.velocity = nn.Linear(DIMS, KEYS)
        self.curves = _heads(_CURVE_LAYERS, CURVES)
        self.scalars = _heads(_SCALAR_LAYERS, len(SCALARS))
        for name, bias in self.frames.named_parameters():
            if name.endswith("bias"):  # keys are rarely down, and more rarely struck
                nn.init.constant_(bias, -2.5)
                nn.init.constant_(bias[:KEYS], -5.0)
        self.spread: Tensor
        self.register_buffer("spread", torch.ones(len(SCALARS)))


def _heads(layers: tuple[int, ...], outputs: int) -> nn.ModuleDict:
    return nn.ModuleDict({str(layer): nn.Linear(DIMS, outputs) for layer in layers})


def losses(heads: Heads, states: list[Tensor], labels: Labels, versions: int) -> dict[str, Tensor]:
    """Return the weighted losses by name; their sum is what is trained on.

    ``states`` are `SmallEncoder`'s of windows that are groups of so many ``versions`` of one
    excerpt each, one group after the other. Weights of keys make up for how rare they are.
    """
    struck = labels.velocities > 0
    missed = heads.velocity(states[_VELOCITY_LAYER]) - labels.velocities / 127
    found = {"velocity": 20 * _masked(missed**2, struck), "curves": missed.new_zeros(())}
    asked = {"onset": (struck, 30.0), "held": (labels.held, 5.0)}
    asked |= {"sounding": (labels.sounding, 5.0), "pedal": (labels.pedal[..., None], 0.5)}
    for (layer, head), share in zip(heads.frames.items(), (0.5, 1.0), strict=True):
        logits = head(states[int(layer)]).split((KEYS, KEYS, KEYS, 1), -1)
        for (name, (truth, weight)), logit in zip(asked.items(), logits, strict=True):
            error = functional.binary_cross_entropy_with_logits(logit, truth.float())
            found[name] = found.get(name, 0) + weight * share * error
    curves, known = _curves(labels.velocities)
    for layer, head in heads.curves.items():
        found["curves"] += 0.5 * _error(head(states[int(layer)]), curves, known)
    return found | _scalars(heads, states, labels.scalars, versions)


def _error(read: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
    return _masked(functional.smooth_l1_loss(read, truth, reduction="none"), mask)


def _masked(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean where the mask is true; what it hides may be anything finite."""
    return (values * mask).sum() / mask.sum().clamp(min=1)


def _curves(velocities: Tensor) -> tuple[Tensor, Tensor]:
    """Return `CURVES` [shape=(n, frames, CURVES)], and where they are known."""
    struck = (velocities > 0).float()
    v = velocities / 127
    middle = (v.sum((1, 2)) / struck.sum((1, 2)).clamp(min=1))[:, None, None]
    moments = torch.stack([struck.sum(-1), v.sum(-1), (struck * (v - middle) ** 2).sum(-1)], 1)
    reach = round(3 * _SMOOTHING)
    lags = torch.arange(-reach, reach + 1, device=v.device) / _SMOOTHING
    kernel = torch.exp(-0.5 * lags**2) / (_SMOOTHING * 2.5066)
    series = moments.flatten(0, 1).unsqueeze(1)
    smooth = functional.conv1d(series, kernel[None, None], padding=reach)
    weight, total, square = smooth.view_as(moments).unbind(1)
    near = weight > _LEAST_WEIGHT
    safe = weight.clamp(min=_LEAST_WEIGHT)
    density = (torch.log(weight * SAMPLE_RATE / HOP + 0.5) - 1.8) / 0.8
    curves = torch.stack([density, total / safe * 4 - 2, (square / safe).sqrt() * 10 - 1], -1)
    return curves, torch.stack([torch.ones_like(near), near, near], -1)


def _scalars(heads: Heads, states: list[Tensor], truth: Tensor, versions: int) -> dict[str, Tensor]:
    known = torch.isfinite(truth)
    truth = torch.nan_to_num(truth)
    within, comparable = _differences(truth, known, versions)
    if heads.training:
        spread = (within.square().sum(0) / comparable.sum(0).clamp(min=1)).sqrt()
        heads.spread.lerp_(torch.where(comparable.any(0), spread, heads.spread), 0.02)
    scale = heads.spread.clamp(min=0.1)
    found = {"scalars": truth.new_zeros(()), "differences": truth.new_zeros(())}
    for layer, head in heads.scalars.items():
        read = head(states[int(layer)].mean(1))
        apart, _ = _differences(read, known, versions)
        found["scalars"] += 0.6 * _error(read, truth, known)
        found["differences"] += 0.6 * _error(apart / scale, within / scale, comparable)
    return found


def _differences(values: Tensor, known: Tensor, versions: int) -> tuple[Tensor, Tensor]:
    """Return values less the mean of their group's known ones, 0 where unknown, and the known."""
    grouped, mask = (x.view(-1, versions, x.shape[-1]) for x in (values, known))
    count = mask.sum(1, keepdim=True)
    mean = (grouped * mask).sum(1, keepdim=True) / count.clamp(min=1)
    comparable = mask & (count > 1)
    return ((grouped - mean) * comparable).flatten(0, 1), comparable.flatten(0, 1)
