"""Optimisers, and how their learning rate changes along a training."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from probseq.inference.options import TrainingOptions

__all__ = ["Schedule", "make_optimizer"]


def make_optimizer(options: TrainingOptions, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimiser that ``options`` name."""
    rate, decay = float(options.learning_rate or 0.0), options.weight_decay
    if options.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=rate, momentum=options.momentum, weight_decay=decay)
    if options.optimizer == "rmsprop":
        return torch.optim.RMSprop(parameters, lr=rate, momentum=options.momentum, weight_decay=decay)
    kind = torch.optim.AdamW if options.optimizer == "adamw" else torch.optim.Adam
    # One kernel over a flat vector; Lightning does not clip gradients before it in mixed precision.
    return kind(parameters, lr=rate, weight_decay=decay, fused=options.precision.startswith("32"))


class Schedule:
    """Factors of the learning rate: a linear rise over ``warmup``, then what ``schedule`` says."""

    def __init__(self, options: TrainingOptions, rounds: int) -> None:
        self.kind, self.warmup = options.schedule, options.warmup
        self.patience = max(2.0, 0.25 * options.patience * rounds)
        self.halvings, self.waited, self.best = 0, 0, -math.inf

    def factor(self, done: float, step: float) -> float:
        """The factor for the step that begins with the fraction ``done`` behind it, ``step`` of it in one step."""
        if done < self.warmup:
            return min(1.0, (done + step) / self.warmup)
        if self.kind == "cosine":
            return 0.5 * (1 + math.cos(math.pi * min(1.0, (done - self.warmup) / (1 - self.warmup))))
        return 0.5**self.halvings

    def look(self, score: float, done: float) -> None:
        """Note the score of a round (higher is better); a plateau halves the rate."""
        if score > self.best:
            self.best, self.waited = score, 0
        elif done >= self.warmup:
            self.waited += 1
        if self.kind == "plateau" and self.waited > self.patience:
            self.halvings, self.waited = self.halvings + 1, 0

    def state(self) -> dict[str, Any]:
        """What it remembers."""
        return {"halvings": self.halvings, "waited": self.waited, "best": self.best}

    def restore(self, state: dict[str, Any]) -> None:
        """Remember it again."""
        self.halvings, self.waited, self.best = state["halvings"], state["waited"], state["best"]
