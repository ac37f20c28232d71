"""Laws of a flat weight vector that gradient training changes; the simplest is a point."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from probseq.distributions.params import ParamSpec, unflatten
from probseq.inference.options import TrainingOptions
from probseq.inference.priors import in_precision, log_prior
from probseq.inference.windows import MiniBatches

__all__ = ["PenalizedWeights", "PointWeights", "WeightLaw"]


class WeightLaw(nn.Module, ABC):
    """What is trained: a law of the flat unconstrained vector; a point is one too.

    Attributes
    ----------
    ready : float
        Fraction of the training before which the law is not yet what is looked for: validation scores are compared, and
        weights kept, from there on.
    """

    ready: float = 0.0

    @abstractmethod
    def draw(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        """The vectors of one step, each (m,); the mini-batch is shared out among them."""

    @abstractmethod
    def divergence(self) -> Tensor | None:
        """Kullback-Leibler divergence from the prior in nats, or None."""

    @abstractmethod
    def centre(self) -> Tensor:
        """The vector used for validation, (m,)."""

    def params(self, specs: Mapping[str, ParamSpec], vector: Tensor) -> dict[str, Tensor]:
        """What the model is given for a vector drawn in training: its parameters."""
        return unflatten(specs, vector)

    def prepare(self, data: MiniBatches, options: TrainingOptions) -> None:
        """Called before a training on these data; raises ``ParameterError`` where it would be too short for the law."""

    def optimizer(self, options: TrainingOptions) -> torch.optim.Optimizer | None:
        """An optimiser of its own; None is that of the options."""
        return None

    def rate(self, done: float, scheduled: float) -> float:
        """The learning rate of the step that begins with the fraction ``done`` behind it; by default as scheduled."""
        return scheduled

    def after_step(self, done: float, generator: torch.Generator) -> None:
        """Called after each step of the optimiser; ``done`` in [0, 1] is the fraction of the training behind it."""

    def noise_state(self) -> dict[str, Tensor]:
        """What the next draws depend on besides the generator, parameters and buffers; a stopped training keeps it."""
        return {}

    def restore_noise(self, state: dict[str, Tensor]) -> None:
        """Take up again what ``noise_state`` gave."""


class PointWeights(WeightLaw):
    """A single vector."""

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.flat = nn.Parameter(start.clone())

    def draw(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        return (self.flat,)

    def divergence(self) -> Tensor | None:
        return None

    def centre(self) -> Tensor:
        return self.flat


class PenalizedWeights(PointWeights):
    """A single vector, with minus the log density of a prior in place of a divergence.

    Parameters
    ----------
    start : (m,)
    specs : of the model
    priors : mapping from the name of a parameter to its prior
    """

    def __init__(self, start: Tensor, specs: Mapping[str, ParamSpec], priors: Mapping[str, Distribution]) -> None:
        super().__init__(start)
        self.specs, self._given = specs, dict(priors)
        self._there: dict[torch.device, dict[str, Distribution]] = {}

    def divergence(self) -> Tensor:
        """-log p(w) in nats."""
        device = self.flat.device
        if device not in self._there:
            near = {name: in_precision(prior, self.flat.dtype, device) for name, prior in self._given.items()}
            self._there[device] = near
        return -log_prior(self.specs, self._there[device], unflatten(self.specs, self.flat))
