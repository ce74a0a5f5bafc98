"""The training loop: checkpoints every minute, resumes, logs, exports, validates.

Data depend on the seed and the step only. With ``steps`` so does the learning rate, and two runs on
one machine agree bit by bit; with ``seconds`` it follows the clock.
"""

__all__ = ["Budget", "export", "train"]

import io
import json
import math
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from mess_core.errors import ConfigError, EncoderError, nearest
from mess_core.extraction.checkpoint import find_checkpoint
from mess_core.extraction.encoder import pick_device
from mess_core.extraction.small import DIMS, LAYERS, SAMPLE_RATE, SmallEncoder
from mess_core.extraction.specs import SMALL_TYPE
from mess_core.extraction.torch_engine import load_module
from mess_core.files import write_bytes, write_json
from mess_core.targets.notes import Performance
from mess_core.training.examples import (
    GROUPS,
    VERSIONS,
    Batches,
    split,
    validation_batches,
)
from mess_core.training.losses import Heads, Labels, losses
from mess_core.training.render import Piano, read_performances, read_pianos
from mess_core.training.validate import best_layers, score

# AdamW (Loshchilov & Hutter, ICLR 2019), as in the pilot; a begun model gets a lower rate.
_RATE, _RATE_BEGUN = 1.2e-3, 8e-4
_BETAS, _DECAY, _CLIP = (0.9, 0.98), 0.02, 1.0
_WARM_UP = 120  # steps
_LAST_SHARE = 0.02  # of the rate, at the end
_CHECKPOINT_S, _LOG_S = 60.0, 30.0
_MOST_SKIPPED = 20  # steps in a row whose loss is not finite
_FOREVER = 10**9


@dataclass(frozen=True)
class Budget:
    """How long to train: so many ``seconds`` of training in all, or so many ``steps``."""

    seconds: float = math.inf
    steps: float = math.inf

    def share(self, step: int, seconds: float) -> float:
        """Return how much of it is used, 1 at the end."""
        return min(1.0, max(step / self.steps, seconds / self.seconds))


@dataclass
class State:
    """What a checkpoint holds."""

    model: SmallEncoder
    heads: Heads
    optimizer: torch.optim.AdamW
    step: int = 0
    seconds: float = 0.0

    def save(self, path: Path, settings: Mapping[str, Any]) -> None:
        """Write it, whole or not at all."""
        parts = {name: getattr(self, name).state_dict() for name in _PARTS}
        buffer = io.BytesIO()
        torch.save({**parts, "at": (self.step, self.seconds), "settings": dict(settings)}, buffer)
        write_bytes(path, buffer.getvalue())

    def load(self, path: Path, settings: Mapping[str, Any]) -> None:
        """Go on from a checkpoint; one of another run is a ConfigError."""
        stored = torch.load(path, map_location="cpu", weights_only=True)
        if stored["settings"] != dict(settings):
            raise ConfigError(
                f"{path} is of a run with {stored['settings']}, this one has {dict(settings)}; "
                "choose another --out, or remove the folder"
            )
        for name in _PARTS:
            getattr(self, name).load_state_dict(stored[name])
        self.step, self.seconds = stored["at"]


_PARTS = ("model", "heads", "optimizer")


def train(
    performances: Path,
    pianos: Path,
    out: Path,
    *,
    budget: Budget,
    leave_out: str | None = None,
    seed: int = 0,
    begin: str | None = None,
    workers: int = 0,
) -> dict[str, Any]:
    """Train a small encoder and export it to a folder; return its card.

    Parameters
    ----------
    performances, pianos : Path
        Folders; see `read_performances` and `read_pianos`.
    out : Path
        Gets ``checkpoint.pt``, ``log.jsonl`` and, at the end, a model folder's files and
        ``card.json``. A checkpoint that is there is gone on from.
    budget : Budget
        How long; what a checkpoint has used of it counts.
    leave_out : str, optional
        A piano that is not trained on. Validation is on it, else on all pianos.
    begin : str, optional
        A small encoder to begin from: a name or a folder.
    workers : int
        Processes that render; 0 renders between steps.

    Raises
    ------
    ConfigError
        If the piano to leave out is none, or the checkpoint is another run's.
    EncoderError
        If losses are not finite for many steps.
    """
    played, instruments = read_performances(performances), read_pianos(pianos)
    if leave_out is not None and leave_out not in instruments:
        raise ConfigError(f"no piano is called {leave_out!r} ({nearest(leave_out, instruments)})")
    heard = {name: p for name, p in instruments.items() if name != leave_out}
    studied, kept = split(played)
    settings = {"seed": seed, "leave_out": leave_out, "begin": begin}
    settings |= {"performances": len(studied), "pianos": ",".join(heard)}
    state = _begin(seed, begin)
    checkpoint = out / "checkpoint.pt"
    if checkpoint.exists():
        state.load(checkpoint, settings)
    batches = _batches(studied, heard, seed, state.step, workers)
    _run(state, batches, out, budget, settings, _RATE if begin is None else _RATE_BEGUN)
    card = {"steps": state.step, "windows": state.step * GROUPS * VERSIONS, "settings": settings}
    card |= {"seconds": round(state.seconds), "sources": _sources(studied)}
    export(state.model, out, card)
    judged = {leave_out: instruments[leave_out]} if leave_out else instruments
    card["validation"] = _validate(out, validation_batches(kept, judged))
    export(state.model, out, card)
    return card


def _begin(seed: int, begin: str | None) -> State:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, heads = SmallEncoder(), Heads()
    if begin is not None:
        model.load_state_dict(load_module(find_checkpoint(begin)).state_dict())
    device = torch.device(pick_device().device)
    model.to(device).train()
    heads.to(device).train()
    parameters = [*model.parameters(), *heads.parameters()]
    matrices = [p for p in parameters if p.ndim > 1]
    others = [p for p in parameters if p.ndim < 2]
    groups: list[dict[str, Any]] = [{"params": matrices}, {"params": others, "weight_decay": 0.0}]
    return State(model, heads, torch.optim.AdamW(groups, betas=_BETAS, weight_decay=_DECAY))


def _batches(
    played: Mapping[str, Performance],
    pianos: Mapping[str, Piano],
    seed: int,
    first: int,
    workers: int,
) -> Iterator[tuple[Tensor, Labels]]:
    loader = torch.utils.data.DataLoader(
        Batches(played, pianos, seed),
        batch_size=None,
        sampler=range(first, _FOREVER),
        num_workers=workers,
        multiprocessing_context="fork" if workers else None,
    )
    return iter(loader)


def _run(
    state: State,
    batches: Iterator[tuple[Tensor, Labels]],
    out: Path,
    budget: Budget,
    settings: Mapping[str, Any],
    rate: float,
) -> None:
    device = next(state.model.parameters()).device
    began = time.monotonic() - state.seconds
    saved = logged = state.seconds
    recent: dict[str, list[float]] = defaultdict(list)
    skipped = 0
    while (share := budget.share(state.step, state.seconds)) < 1:
        warm = min(1.0, (state.step + 1) / _WARM_UP)
        cosine = _LAST_SHARE + (1 - _LAST_SHARE) * (1 + math.cos(math.pi * share)) / 2
        for group in state.optimizer.param_groups:
            group["lr"] = rate * warm * cosine
        audio, labels = next(batches)
        found = _step(state, audio.to(device), labels.to(device))
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
        done = budget.share(state.step, state.seconds) >= 1
        if done or state.seconds - logged >= _LOG_S:
            _log(out, state, state.seconds - logged, rate * warm * cosine, recent)
            logged = state.seconds
            recent.clear()
        if (done or state.seconds - saved >= _CHECKPOINT_S) and not skipped:
            state.save(out / "checkpoint.pt", settings)
            saved = state.seconds


def _step(state: State, audio: Tensor, labels: Labels) -> dict[str, float]:
    """Make a step and return the losses; none, and no step, where they are not finite."""
    state.optimizer.zero_grad(set_to_none=True)
    log_mel = state.model.log_mel(audio)
    if not torch.isfinite(log_mel).all():  # the running means of norms would never recover
        return {}
    states = state.model.states(log_mel)
    found = losses(state.heads, states, log_mel, labels, versions=VERSIONS)
    total = torch.stack(list(found.values())).sum()
    total.backward()  # type: ignore[no-untyped-call]
    parameters = [*state.model.parameters(), *state.heads.parameters()]
    length = torch.nn.utils.clip_grad_norm_(parameters, _CLIP)
    if not bool(torch.isfinite(total) & torch.isfinite(length)):
        return {}
    state.optimizer.step()
    return {"total": total.item(), **{name: loss.item() for name, loss in found.items()}}


def _log(
    out: Path, state: State, elapsed: float, rate: float, recent: Mapping[str, list[float]]
) -> None:
    means = {name: round(sum(v) / len(v), 4) for name, v in recent.items() if v}
    steps = len(next(iter(recent.values()), []))
    line: dict[str, Any] = {"step": state.step, "seconds": round(state.seconds, 1)}
    line |= {"windows_per_s": round(steps * GROUPS * VERSIONS / max(elapsed, 1e-9), 2)}
    line |= {"rate": rate, **means}
    out.mkdir(parents=True, exist_ok=True)
    with (out / "log.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    print("  ".join(f"{key} {value:.4g}" for key, value in line.items()), flush=True)


def export(model: SmallEncoder, folder: Path, card: Mapping[str, Any]) -> None:
    """Write a model as a folder that `encoder` takes, in float16, with its card."""
    tensors = {
        name: (tensor.half() if tensor.is_floating_point() else tensor).cpu().contiguous()
        for name, tensor in model.state_dict().items()
    }
    write_bytes(folder / "model.safetensors", save(tensors, metadata={"format": "pt"}))
    form = {"sampling_rate": SAMPLE_RATE, "hidden_size": DIMS, "num_hidden_layers": LAYERS - 1}
    config = {"model_type": SMALL_TYPE, **form, "license": "unknown", "mess_trained": True}
    write_json(folder / "config.json", config)
    write_json(folder / "card.json", dict(card))


def _sources(played: Mapping[str, Performance]) -> dict[str, int]:
    found: dict[str, int] = defaultdict(int)
    for name in played:
        found[name.partition("/")[0] if "/" in name else "."] += 1
    return dict(found)


def _validate(folder: Path, batches: list[tuple[Tensor, Labels]]) -> dict[str, list[float]]:
    """Judge what was exported, as it will be loaded."""
    model = load_module(find_checkpoint(str(folder)))
    with torch.inference_mode():
        pooled = [torch.stack([s.mean(1) for s in model(audio)], 1) for audio, _ in batches]
    scalars = torch.cat([labels.scalars for _, labels in batches])
    table = score(torch.cat(pooled).numpy(), scalars.numpy(), versions=VERSIONS)
    print(best_layers(table), flush=True)
    return table
