"""Training a law of a network's weights on a batch, and what its draws say about that batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from probseq.inference.base import Progress
from probseq.inference.options import TrainingOptions
from probseq.inference.weights import WeightLaw
from probseq.inference.windows import Windows, hold_back, whole_sequences
from probseq.models.base import Batch, SequenceModel

__all__ = ["fit_law", "log_prob_of_draws"]

# Steps of all draws that are evaluated in one go: more would take memory and gain no time.
_STEPS_AT_ONCE = 100_000


def fit_law(
    model: SequenceModel[Any],
    law: WeightLaw,
    batch: Batch,
    generator: torch.Generator,
    options: TrainingOptions,
    *,
    kl_weight: Callable[[float], float] = lambda done: 1.0,
    validation: Batch | None = None,
    weights: Tensor | None = None,
    progress: Progress | None = None,
) -> tuple[Any, float]:
    """Train a law in place on what ``options`` do not hold back; see ``training.train``.

    Returns
    -------
    How the training went (``training.Trained``), and the number of values that it was trained on.
    """
    from probseq.inference.training import train

    rest, rest_weights, held = batch, weights, None
    if validation is not None:
        held = whole_sequences(validation)
    elif options.validation_fraction:
        rest, rest_weights, held = hold_back(batch, weights, options.validation_fraction, generator)
    windows = Windows(rest, rest.seen, rest_weights, options.window, options.context)
    done = train(model, law, windows, generator, options, kl_weight=kl_weight, validation=held, progress=progress)
    return done, windows.n_values


def log_prob_of_draws(
    model: SequenceModel[Any], params: Mapping[str, Tensor], batch: Batch, weights: Tensor | None = None
) -> Tensor:
    """log p(x | w_d) of the whole batch, each sequence by its weight, (D,) in double precision, without gradients."""
    n_draws = next(iter(params.values())).shape[0]
    size = max(1, _STEPS_AT_ONCE // max(1, batch.n * batch.t))
    parts = []
    with torch.no_grad():
        for first in range(0, n_draws, size):
            some = {name: value[first : first + size] for name, value in params.items()}
            each = model.log_prob(some, batch).double()
            parts.append((each if weights is None else each * weights).sum(-1))
    return torch.cat(parts)
