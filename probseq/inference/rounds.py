"""The order in which training reads its data: passes in rounds, and where in them it stands."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch

from probseq.inference.options import TrainingOptions
from probseq.inference.windows import MiniBatch, MiniBatches

__all__ = ["Rounds"]

_FEWEST_STEPS = 25
_MOST_STEPS = 400


class Rounds:
    """An iterable whose every iteration is a round: several short passes over the data, one, or part of a long one.

    A round ends with what costs time: validation, callbacks, a checkpoint.

    Parameters
    ----------
    data : MiniBatches
    options : TrainingOptions
    generator : orders the passes
    """

    def __init__(self, data: MiniBatches, options: TrainingOptions, generator: torch.Generator) -> None:
        self.data, self.batch_size, self.generator = data, options.batch_size, generator
        self.batches = max(1, data.n_batches(options.batch_size))
        self.epochs = options.epochs(self.batches)
        self.passes = max(1, min(_FEWEST_STEPS // self.batches, self.epochs))
        self.parts = -(-self.batches // _MOST_STEPS)
        self.rounds = -(-self.epochs // self.passes) * self.parts
        self.steps = self.epochs * self.batches
        self.n_passes, self.part, self.used = 0, 0, 0
        self._running: Iterator[MiniBatch] | None = None
        self._begun = generator.get_state()

    def __iter__(self) -> Iterator[MiniBatch]:
        if self.parts > 1:
            yield from self._part()
            return
        for _ in range(min(self.passes, self.epochs - self.n_passes)):
            yield from self.data.passing(self.batch_size, self.generator)
            self.n_passes += 1

    def _part(self) -> Iterator[MiniBatch]:
        if self._running is None:
            self._begun, self.part, self.used = self.generator.get_state(), 0, 0
            self._running = self.data.passing(self.batch_size, self.generator)
        self.part += 1
        last = self.part == self.parts
        for mini in islice(self._running, None if last else -(-self.batches // self.parts)):
            self.used += 1
            yield mini
        if last:
            self._running, self.part, self.used = None, 0, 0
            self.n_passes += 1

    def state(self) -> dict[str, Any]:
        """Where the reading stands after a round."""
        return {
            "n_passes": self.n_passes,
            "part": self.part,
            "used": self.used,
            "begun": self._begun,
            "generator": self.generator.get_state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Stand there again."""
        self.n_passes, self.part, self.used = state["n_passes"], state["part"], state["used"]
        if self.part:
            self._begun = state["begun"].cpu()
            self.generator.set_state(self._begun)
            self._running = self.data.passing(self.batch_size, self.generator)
            for _ in range(self.used):
                next(self._running, None)
        self.generator.set_state(state["generator"].cpu())
