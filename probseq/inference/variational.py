"""Variational inference: a normal law with independent coordinates over the weights of a network."""

from __future__ import annotations

import math
import warnings
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from probseq._types import Configuration
from probseq.distributions.params import Real, flatten, unflatten
from probseq.errors import ApproximationWarning, IncompatibleError, ParameterError
from probseq.inference.base import Draws, Inference, Progress
from probseq.inference.law_fits import fit_law, log_prob_of_draws
from probseq.inference.options import TrainingOptions
from probseq.inference.weights import NormalWeights
from probseq.models.base import Batch, SequenceModel
from probseq.models.recurrent import RecurrentModel

__all__ = ["MeanField"]


class MeanField(Inference):
    r"""Bayes by backprop: maximise E_q log p(x | w) - KL(q || p) over a normal q with independent coordinates.

    Every step draws one weight vector for its whole mini-batch (so that the fused recurrent kernel runs), and mirrored
    noise in the next. The divergence is analytic and counted once a pass. The prior is the one of the model's
    parameters, a normal whose standard deviation depends on the kind of weight.

    Parameters
    ----------
    n_draws : int
        Weight vectors drawn from q after training; the fitted model averages over them.
    prior_scale : float
        Multiplies the standard deviations of the model's prior.
    initial_scale : float
        Standard deviations of q at the start, as a fraction of the prior's.
    kl_weight : float
        1 is the evidence lower bound. Below 1 the posterior is tempered, and a warning says so.
    kl_warmup : float
        Fraction of the training over which the weight of the divergence rises from 0 to ``kl_weight``.
    antithetic : bool
        Mirror every second draw at the mean.
    training : TrainingOptions or None
        Adam's learning rate is 2e-2 unless given. All data are trained on; with ``validation`` data, or where
        ``validation_fraction`` holds some back, the weights with the best score of the posterior mean are kept.
    """

    fits: ClassVar[str] = "recurrent networks"

    def __init__(
        self,
        n_draws: int = 30,
        prior_scale: float = 1.0,
        initial_scale: float = 0.1,
        kl_weight: float = 1.0,
        kl_warmup: float = 0.25,
        antithetic: bool = True,
        training: TrainingOptions | None = None,
    ) -> None:
        self.n_draws, self.prior_scale, self.initial_scale = n_draws, prior_scale, initial_scale
        self.kl_weight, self.kl_warmup, self.antithetic = kl_weight, kl_warmup, antithetic
        self.training = training

    def _default_part(self, name: str) -> Configuration | None:
        return TrainingOptions() if name == "training" else None

    def can_fit(self, model_class: type[SequenceModel[Any]]) -> bool:
        return issubclass(model_class, RecurrentModel)

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
        """Find q and draw from it.

        ``objective`` of the result is the evidence lower bound, its expectation over the same draws; ``log_prob`` is
        log (1/D) sum_d p(x | w_d), in nats.

        Raises
        ------
        IncompatibleError
            For parameters that are not real numbers with a normal prior.
        """
        self._check()
        law = self.law(model, batch, generator)
        options = (self.training or TrainingOptions()).completed(learning_rate=2e-2, validation_fraction=0.0)
        done, n_values = fit_law(
            model,
            law,
            batch,
            generator,
            options,
            kl_weight=self._kl_weight,
            validation=validation,
            weights=weights,
            progress=progress,
        )
        params = unflatten(model.parameters(), law.sample(self.n_draws, generator))
        total = log_prob_of_draws(model, params, batch, weights)
        divergence = float(law.divergence().detach())
        return Draws(
            params,
            log_prob=float(torch.logsumexp(total, 0) - math.log(len(total))),
            objective=float(total.mean()) - divergence,
            status=_status(done.status, done.trace),
            n_iter=done.n_epochs,
            trace=np.asarray(done.trace) * n_values,
            optima=np.asarray([float(total.mean()) - divergence]),
        )

    def law(self, model: SequenceModel[Any], batch: Batch, generator: torch.Generator) -> NormalWeights:
        """The law at the start of the training: around the model's starting values."""
        specs = {name: spec for name, spec in model.parameters().items() if spec.trainable}
        location, scale = [], []
        for name, spec in specs.items():
            if not isinstance(spec.constraint, Real) or not isinstance(spec.prior, torch.distributions.Normal):
                raise IncompatibleError(
                    got=f"the parameter {name!r} of {type(model).__name__}",
                    expected="real numbers with a normal prior",
                    remedy=f"MeanField fits {self.fits}.",
                )
            location.append(spec.prior.mean.expand(spec.shape).flatten())
            scale.append(spec.prior.stddev.expand(spec.shape).flatten() * self.prior_scale)
        mean = flatten(specs, model._initial_guess(batch, generator))
        where, width = torch.cat(location), torch.cat(scale)
        return NormalWeights(mean, (width * self.initial_scale).log(), where, width, self.antithetic)

    def _kl_weight(self, done: float) -> float:
        rising = 1.0 if done >= self.kl_warmup else done / self.kl_warmup
        return self.kl_weight * rising

    def _check(self) -> None:
        if not isinstance(self.n_draws, int) or self.n_draws < 1:
            raise ParameterError(got=f"n_draws={self.n_draws!r}", expected="a whole number of 1 or more")
        for name in ("prior_scale", "initial_scale", "kl_weight"):
            if not getattr(self, name) > 0:
                raise ParameterError(got=f"{name}={getattr(self, name)!r}", expected="a positive number")
        if self.kl_weight != 1:
            warnings.warn(
                f"kl_weight={self.kl_weight:g}: the posterior is tempered; 1 is the evidence lower bound.",
                ApproximationWarning,
                stacklevel=3,
            )


def _status(status: str, trace: list[float]) -> str:
    """Converged where the last tenth of the training rose by less than 0.02 nats per value, or than its noise."""
    if status != "max_iter" or len(trace) < 20:
        return status
    tenth = len(trace) // 10
    last, before = np.asarray(trace[-tenth:]), np.asarray(trace[-2 * tenth : -tenth])
    noise = math.sqrt((last.var() + before.var()) / tenth)
    return "converged" if last.mean() - before.mean() < max(0.02, 2 * noise) else status
