"""Training examples: groups of versions of excerpts, the same for a seed and a number."""

__all__ = ["Batches", "Example", "example", "split", "validation_batches"]

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mess_core.errors import MidiError
from mess_core.targets.notes import Performance
from mess_core.training.augment import draw_character, record
from mess_core.training.losses import Labels, collate, label
from mess_core.training.render import SAMPLE_RATE, Floats, Piano, mix
from mess_core.training.versions import WINDOW_S, excerpt, vary

#: Excerpts in a batch, and versions of each.
GROUPS, VERSIONS = 4, 4
_VALIDATION_BATCHES = 15
_KEPT = 20  # one performance in so many is never trained on
_FEWEST_NOTES = 5  # in a window
_BEFORE_S = 0.5  # what is rendered before a window, for its reverberation
# Of pop, transcribed note by note with even touch, at most about 15 % are wanted.
_SHARES = {"POP909-Dataset": 0.7}


class Example(NamedTuple):
    """A rendering [shape=(samples,)] and what is known of it."""

    audio: Floats
    labels: Labels


def split(played: Mapping[str, Performance]) -> tuple[dict[str, Performance], ...]:
    """Return the performances to train on, and those to validate on, chosen by their names."""
    names = sorted(played, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    if len(names) < 2:
        raise MidiError("there is one performance; at least two are needed, one for validation")
    kept = names[: -(-len(names) // _KEPT)]
    return {n: played[n] for n in names if n not in kept}, {n: played[n] for n in kept}


def example(version: Performance, piano: Piano, rng: np.random.Generator) -> Example:
    """Render a version of an excerpt on a piano, in a room, in a recording."""
    dry = mix(version, piano, draw_character(rng), start_s=-_BEFORE_S, stop_s=WINDOW_S)
    audio = record(dry, rng)[round(_BEFORE_S * SAMPLE_RATE) :]
    return Example(audio, label(version, audio))


class Batches(torch.utils.data.Dataset[tuple[Tensor, Labels]]):
    """Batch ``i`` is audio [shape=(GROUPS * VERSIONS, samples)] with its labels.

    Of the share ``alike`` of excerpts all versions are on one instrument in one recording, as
    players of a work are compared; of the others each is on another piano.
    """

    def __init__(
        self,
        performances: Mapping[str, Performance],
        pianos: Mapping[str, Piano],
        seed: int,
        *,
        alike: float = 0.5,
    ) -> None:
        self.alike = alike
        self.performances = list(performances.values())
        self.pianos = list(pianos.values())
        self.seed = seed
        weights = np.array(
            [p.onsets[-1] * _SHARES.get(n.split("/")[0], 1.0) for n, p in performances.items()]
        )
        self._chances = weights / weights.sum()

    def __getitem__(self, i: int) -> tuple[Tensor, Labels]:
        rng = np.random.default_rng([self.seed, i])
        examples = [found for _ in range(GROUPS) for found in self._group(rng)]
        audio = torch.from_numpy(np.stack([found.audio for found in examples]))
        return audio, collate([found.labels for found in examples])

    def _group(self, rng: np.random.Generator) -> list[Example]:
        source = self._excerpt(rng)
        # Each version on another piano, as far as there are so many.
        order = np.resize(rng.permutation(len(self.pianos)), VERSIONS)
        seeds = rng.integers(2**32, size=VERSIONS)
        if rng.random() < self.alike:
            order[:], seeds[:] = order[0], seeds[0]
        return [
            example(vary(source, rng), self.pianos[number], np.random.default_rng(seed))
            for number, seed in zip(order, seeds, strict=True)
        ]

    def _excerpt(self, rng: np.random.Generator) -> Performance:
        for _ in range(100):
            performance = self.performances[rng.choice(len(self.performances), p=self._chances)]
            start = rng.uniform(0, max(performance.onsets[-1] - WINDOW_S, 0))
            source = excerpt(performance, start, rng)
            if ((source.onsets >= 0) & (source.onsets < WINDOW_S)).sum() >= _FEWEST_NOTES:
                break
        return source


def validation_batches(
    performances: Mapping[str, Performance], pianos: Mapping[str, Piano]
) -> list[tuple[Tensor, Labels]]:
    """Return the batches on which every run with the same performances is judged."""
    batches = Batches(performances, pianos, seed=2026, alike=1.0)
    return [batches[i] for i in range(_VALIDATION_BATCHES)]
