"""What every inference is: hyper-parameters, the models it can fit, and the draws it returns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from probseq._types import Configuration, Record
from probseq.errors import IncompatibleError
from probseq.inference.options import TrainingOptions
from probseq.models.base import Batch, SequenceModel

__all__ = ["Draws", "Inference", "Progress"]

Progress = Callable[[int, float], None]
"""Called with (iteration, objective in nats) as a fit goes on."""


@dataclass(frozen=True)
class Draws(Record):
    """Parameter draws and how they were found.

    All nats are those of the data that the model behind ``transform=`` reads, such as standardised ones: the
    estimator's ``log_likelihood_``, on the scale of the data, has the log-Jacobian of the transforms in addition.

    Parameters
    ----------
    params : dict
        Values of shape (n_draws, *spec.shape); a point estimate is one draw.
    log_weights : (n_draws,) or None
        None is equal weights.
    log_prob : float
        Log-likelihood of the training data at the point estimate (or under the posterior average), nats.
    objective : float
        The quantity that was maximised (with its prior or KL), nats.
    status : str
        "converged", "max_iter", "decreased", "degenerate", "interrupted", "stopped" (by a callback), "exact" or
        "streaming" (after ``partial_fit``).
    n_iter : int
    trace : array
        Objective by iteration.
    optima : array
        Final objective of every start, best first.
    messages : tuple of str
        What a user should know: the state that emptied, the root near one.
    covariance : (m, m) or None
        Estimated covariance of the flat unconstrained parameters, where the inference gives one.
    """

    params: dict[str, Tensor]
    log_prob: float
    objective: float
    status: str
    n_iter: int = 1
    trace: np.ndarray = field(default_factory=lambda: np.zeros(0))
    optima: np.ndarray = field(default_factory=lambda: np.zeros(0))
    messages: tuple[str, ...] = ()
    log_weights: Tensor | None = None
    covariance: np.ndarray | None = None

    @property
    def converged(self) -> bool:
        return self.status in ("converged", "exact")

    def renamed(self, params: dict[str, Tensor], order: Tensor) -> Self:
        """These draws with other names of latent states: ``params``, where state i of draw d was ``order[d, i]``."""
        return replace(self, params=params)


class Inference(Configuration, ABC):
    """A way of fitting: an object with hyper-parameters only, passed as ``inference=``.

    As with scikit-learn's estimators any values can be given and changed; ``fit`` begins with ``check``, which looks at
    them. ``rules`` has one for every argument that can be judged without the model and the data.
    """

    fits: ClassVar[str] = "any model"

    def _default_part(self, name: str) -> Configuration | None:
        return TrainingOptions() if name == "training" else None

    @abstractmethod
    def can_fit(self, model_class: type[SequenceModel[Any]]) -> bool:
        """Whether models of this class can be fitted this way."""

    def require(self, model_class: type[SequenceModel[Any]], known: tuple[Inference, ...] = ()) -> None:
        """Raise ``IncompatibleError``, listing what works, if this inference cannot fit that class."""
        if not self.can_fit(model_class):
            names = [type(i).__name__ for i in known if i.can_fit(model_class)]
            raise IncompatibleError(
                got=f"inference={type(self).__name__}() for {model_class.__name__}",
                expected=f"one of {', '.join(names)}" if names else "an inference that fits this model",
                remedy=f"{type(self).__name__} fits {self.fits}.",
            )

    def check(self) -> None:
        """Raise ``ParameterError`` for settings that no model and no data could make right."""
        self.check_rules()

    @abstractmethod
    def fit(
        self,
        model: SequenceModel[Any],
        batch: Batch,
        generator: torch.Generator,
        *,
        validation: Batch | None = None,
        weights: Tensor | None = None,
        progress: Progress | None = None,
    ) -> Draws:
        """Find draws of the parameters given the batch.

        Parameters
        ----------
        generator : source of every random number; the global one is never touched
        validation : batch for early stopping, where the inference uses one
        weights : (n,) sequence weights or None
        progress : called as the fit goes on
        """
