"""The training loop: checkpoints every minute, resumes, logs, exports, validates.

Data depend on the seed and the step only. With ``steps`` so does the learning rate, and two runs on
one machine agree bit by bit; with ``seconds`` it follows the clock.
"""

__all__ = ["export", "train", "validate"]

import copy
import ctypes
import io
import json
import math
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from mess_core.errors import ConfigError, EncoderError, nearest
from mess_core.evaluation.judges import Rows, within_works
from mess_core.extraction.checkpoint import find_checkpoint
from mess_core.extraction.encoder import pick_device
from mess_core.extraction.small import DIMS, LAYERS, SAMPLE_RATE, SmallEncoder, SmallStates
from mess_core.extraction.specs import SMALL_TYPE
from mess_core.extraction.torch_engine import load_module
from mess_core.files import write_bytes, write_json
from mess_core.training.examples import GROUPS, SCALARS, VERSIONS, Batches, Example, Labels, split
from mess_core.training.losses import Heads, losses
from mess_core.training.render import read_performances, read_pianos

# AdamW (Loshchilov & Hutter, ICLR 2019), as in the pilot; a begun model gets a lower rate.
_RATE, _RATE_BEGUN = 1.2e-3, 8e-4
_BETAS, _DECAY, _CLIP = (0.9, 0.98), 0.02, 1.0
_WARM_UP = 120  # steps
_LAST_SHARE = 0.02  # of the rate, at the end
_CHECKPOINT_S, _LOG_S = 60.0, 30.0
_MOST_SKIPPED = 20  # steps in a row whose loss is not finite
_PARTS = ("model", "heads", "optimizer")  # of a checkpoint
_VALIDATION_SEED, _VALIDATION_BATCHES = 2026, 15
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of malloc.h


@dataclass
class State:
    """What a checkpoint holds, and of which run."""

    model: SmallEncoder
    heads: Heads
    optimizer: torch.optim.AdamW
    settings: dict[str, Any]
    step: int = 0
    seconds: float = 0.0

    def save(self, path: Path) -> None:
        """Write it, whole or not at all."""
        parts = {name: getattr(self, name).state_dict() for name in _PARTS}
        buffer = io.BytesIO()
        torch.save({**parts, "at": (self.step, self.seconds), "settings": self.settings}, buffer)
        write_bytes(path, buffer.getvalue())

    def load(self, path: Path) -> None:
        """Go on from a checkpoint; one of another run is a ConfigError."""
        try:
            stored = torch.load(path, map_location="cpu", weights_only=True)
            settings = stored["settings"]
        except Exception:  # whatever damaged bytes run into; torch advises to trust them
            raise ConfigError(
                f"{path} is damaged; remove it to begin anew, or choose another --out"
            ) from None
        if settings != self.settings:
            raise ConfigError(
                f"{path} is of a run with {settings}, this one has {self.settings}; "
                "choose another --out, or remove the folder"
            )
        for name in _PARTS:
            getattr(self, name).load_state_dict(stored[name])
        self.step, self.seconds = stored["at"]


def train(
    performances: Path,
    pianos: Path,
    out: Path,
    *,
    seconds: float = math.inf,
    steps: float = math.inf,
    leave_out: str | None = None,
    seed: int = 0,
    begin: str | None = None,
    workers: int = 0,
) -> dict[str, Any]:
    """Train a small encoder and export it to the folder ``out``; return its card.

    ``performances`` and ``pianos`` are folders as `read_performances` and `read_pianos` have them;
    so many ``workers`` render. A ``checkpoint.pt`` in ``out`` is gone on from; ``seconds`` and
    ``steps`` count earlier calls. The piano called ``leave_out`` is not trained on, but validated
    on; else all are. ``begin`` names a small encoder to begin from.

    A ConfigError says that there is no such piano, or that the checkpoint is another run's; an
    EncoderError that the losses of many steps were not finite.
    """
    if workers < 0:
        raise ConfigError(f"there cannot be {workers} workers; give 0 or more")
    instruments, played = read_pianos(pianos), read_performances(performances)
    if leave_out is not None and leave_out not in instruments:
        raise ConfigError(f"no piano is called {leave_out!r} ({nearest(leave_out, instruments)})")
    heard = {name: p for name, p in instruments.items() if name != leave_out}
    studied, kept = split(played)
    settings = {"seed": seed, "leave_out": leave_out, "begin": begin}
    settings |= {"performances": len(studied), "pianos": ",".join(heard)}
    state = _begin(settings)
    if (out / "checkpoint.pt").exists():
        state.load(out / "checkpoint.pt")
    batches = torch.utils.data.DataLoader(
        Batches(studied, heard, seed),
        batch_size=None,
        sampler=range(state.step, 10**9),
        num_workers=workers,
        multiprocessing_context="fork" if workers else None,
    )
    _run(state, iter(batches), out, seconds, steps)
    export(state.model, out)
    judged = {leave_out: instruments[leave_out]} if leave_out else instruments
    sources = Counter(name.rpartition("/")[0].partition("/")[0] or "." for name in studied)
    card = {"steps": state.step, "windows": state.step * GROUPS * VERSIONS, "settings": settings}
    card |= {"seconds": round(state.seconds), "sources": sources}
    card |= {"validation": validate(out, Batches(kept, judged, _VALIDATION_SEED, alike=1.0))}
    write_json(out / "card.json", card)
    return card


def _begin(settings: dict[str, Any]) -> State:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings["seed"])
        model, heads = SmallEncoder(), Heads()
    if settings["begin"] is not None:
        checkpoint = find_checkpoint(settings["begin"])
        if checkpoint.spec.kind != "small":
            raise ConfigError(f"{settings['begin']} is no small encoder; begin from mess-small")
        model.load_state_dict(load_module(checkpoint).state_dict())
    both = torch.nn.ModuleList([model, heads]).to(pick_device().device).train()
    matrices = {"params": [p for p in both.parameters() if p.ndim > 1], "weight_decay": _DECAY}
    others = {"params": [p for p in both.parameters() if p.ndim <= 1], "weight_decay": 0.0}
    return State(model, heads, torch.optim.AdamW([matrices, others], betas=_BETAS), settings)


def _run(state: State, batches: Iterator[Example], out: Path, seconds: float, steps: float) -> None:
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        # glibc keeps what is freed: new pages for every step would take a third of the time.
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    device = next(state.model.parameters()).device
    top_rate = _RATE if state.settings["begin"] is None else _RATE_BEGUN
    began = time.monotonic() - state.seconds
    saved = logged = state.seconds
    recent: dict[str, list[float]] = defaultdict(list)
    skipped = 0
    while (share := max(state.step / steps, state.seconds / seconds)) < 1:
        rate = top_rate * min(1.0, (state.step + 1) / _WARM_UP)
        rate *= _LAST_SHARE + (1 - _LAST_SHARE) * (1 + math.cos(math.pi * share)) / 2
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        audio, labels = next(batches)
        found = _step(state, audio.to(device), Labels(*(part.to(device) for part in labels)))
        skipped = 0 if found else skipped + 1
        if skipped > _MOST_SKIPPED:
            raise EncoderError(
                f"the losses of {skipped} steps in a row were not finite (step {state.step}); "
                f"the last good state is {out / 'checkpoint.pt'}: remove it to begin anew"
            )
        for name, value in found.items():
            recent[name].append(value)
        state.step += 1
        state.seconds = time.monotonic() - began
        done = state.step >= steps or state.seconds >= seconds
        if done or state.seconds - logged >= _LOG_S:
            windows_per_s = len(recent["total"]) * GROUPS * VERSIONS / (state.seconds - logged)
            line = {"step": state.step, "seconds": state.seconds, "rate": rate}
            line |= {"windows_per_s": windows_per_s}
            line |= {name: sum(v) / len(v) for name, v in recent.items() if v}
            out.mkdir(parents=True, exist_ok=True)
            with (out / "log.jsonl").open("a") as file:
                file.write(json.dumps(line) + "\n")
            print("  ".join(f"{name} {value:.4g}" for name, value in line.items()), flush=True)
            logged = state.seconds
            recent.clear()
        if (done or state.seconds - saved >= _CHECKPOINT_S) and not skipped:
            state.save(out / "checkpoint.pt")
            saved = state.seconds


def _step(state: State, audio: Tensor, labels: Labels) -> dict[str, float]:
    """Make a step and return the losses; none, and no step, where they are not finite."""
    state.optimizer.zero_grad(set_to_none=True)
    log_mel = state.model.log_mel(audio)
    if not torch.isfinite(log_mel).all():  # the running means of norms would never recover
        return {}
    states = state.model.states(log_mel)
    found = losses(state.heads, states, labels, versions=VERSIONS)
    total = torch.stack(list(found.values())).sum()
    total.backward()  # type: ignore[no-untyped-call]
    parameters = [*state.model.parameters(), *state.heads.parameters()]
    length = torch.nn.utils.clip_grad_norm_(parameters, _CLIP)
    if not bool(torch.isfinite(total) & torch.isfinite(length)):
        return {}
    state.optimizer.step()
    return {"total": total.item(), **{name: loss.item() for name, loss in found.items()}}


def export(model: SmallEncoder, folder: Path) -> None:
    """Write a model as a folder that `encoder` takes, in float16."""
    tensors = copy.deepcopy(model).cpu().half().state_dict()
    write_bytes(folder / "model.safetensors", save(tensors, metadata={"format": "pt"}))
    form = {"sampling_rate": SAMPLE_RATE, "hidden_size": DIMS, "num_hidden_layers": LAYERS - 1}
    config = {"model_type": SMALL_TYPE, **form, "license": "unknown", "mess_trained": True}
    write_json(folder / "config.json", config)


def validate(encoder: str | Path, batches: Batches) -> dict[str, dict[str, Any]]:
    """Judge what the time means of an exported encoder know of differences between versions.

    Returns and prints for each scalar that is known of enough excerpts the ``r2`` within excerpts
    and its 95 % interval.
    """
    model = SmallStates(load_module(find_checkpoint(str(encoder))))
    examples = [batches[i] for i in range(_VALIDATION_BATCHES)]
    with torch.inference_mode():
        pooled = torch.cat([model(audio)[0] for audio, _ in examples]).numpy()
    scalars = torch.cat([labels.scalars for _, labels in examples]).numpy().astype(float)
    excerpts = (np.arange(len(pooled)) // VERSIONS).astype(str)
    table = {}
    print("R2 within excerpts, 95 % interval")
    for name, truth in zip(SCALARS, scalars.T, strict=True):
        with np.errstate(divide="ignore", invalid="ignore"):  # resamples without differences
            figure = within_works(pooled, truth, Rows(excerpts, excerpts, excerpts), name=name)
        low, high = figure.interval or (np.nan, np.nan)
        if np.isfinite(low + high):
            table[name] = {"r2": figure.value, "low": low, "high": high}
            print(f"{name:<18}{figure.value:6.2f}  {low:.2f} to {high:.2f}")
    return table
