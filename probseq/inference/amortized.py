"""Generative and inference networks trained together on a lower bound of the likelihood."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from probseq._types import Rule, number_in, one_of, or_none, whole_number
from probseq.distributions.params import flatten, unflatten
from probseq.errors import ParameterError
from probseq.inference.base import Draws, Inference, Progress
from probseq.inference.law_fits import fit_law, log_prob_of_draws, training_options
from probseq.inference.options import TrainingOptions, options_or_none
from probseq.inference.weights import PointWeights
from probseq.models.base import Batch, SequenceModel
from probseq.models.latent_bounds import BOUNDS, Bound
from probseq.models.latent_network import LatentNetwork

__all__ = ["AmortizedVI"]

_SAMPLES = {"elbo": 1, "iwae": 8, "fivo": 8}
_LEARNING_RATE = 3e-3
_VALIDATION = 0.15


class AmortizedVI(Inference):
    r"""argmax over generative weights theta and inference weights phi of a lower bound of log p_theta(x).

    "elbo": E_q[log p(x, z) - log q(z | x)], with the divergence between normal laws in closed form (Kingma and Welling
    2014), and from the paths themselves where flows bend them. "iwae": E log 1/m sum_i p(x, z^i) / q(z^i | x) over m
    whole paths (Burda, Grosse and Salakhutdinov 2016). "fivo": the log of a particle filter's estimate, whose m
    particles are resampled where few carry the weight (Maddison et al. 2017); gradients do not pass through the choice.
    Gradients of z are by reparametrisation; particles of ``proposal="laplace"`` stay where they are. The weights are a
    point: ``Ensemble(inference=AmortizedVI())`` gives draws of them.

    Where the model has an inference network that looks ahead, the ELBO and IWAE draw from it; the one that filters,
    from which particles are proposed, then learns by maximum likelihood of the paths that the other one draws.
    With FIVO the one that looks ahead learns nothing.

    Parameters
    ----------
    objective : {"elbo", "iwae", "fivo"}
    n_samples : int or None
        Paths or particles of each sequence in a step of training; None is 1 for the ELBO and 8 for the others.
    kl_annealing : float
        Fraction of the training over which the divergence's weight rises from 0 to 1 (Bowman et al. 2016); of the ELBO.
    free_bits : float
        Nats of divergence that each latent variable may have at each step, on average over a mini-batch, at no cost
        (Kingma et al. 2016); of the ELBO. With flows, n_latent times as many of all of them together.
    training : TrainingOptions or None

    Raises
    ------
    ParameterError
        For annealing or free bits with another objective than the ELBO.

    Examples
    --------
    >>> import probseq as ps
    >>> level = ps.datasets.lake_huron()
    >>> short = ps.TrainingOptions(max_epochs=3)
    >>> model = ps.VRNN(2, 4, inference=ps.AmortizedVI(training=short), random_state=0).fit(level)
    >>> bool(model.elbo(level, 20, random_state=0) < 0)
    True
    """

    fits: ClassVar[str] = "networks with latent variables"
    rules: ClassVar[Mapping[str, Rule]] = {
        "objective": partial(one_of, choices=BOUNDS),
        "n_samples": or_none(partial(whole_number, lowest=1)),
        "kl_annealing": partial(number_in, interval="[0, 1]"),
        "free_bits": partial(number_in, interval="[0, inf)"),
        "training": options_or_none,
    }

    def __init__(
        self,
        objective: str = "elbo",
        n_samples: int | None = None,
        kl_annealing: float = 0.0,
        free_bits: float = 0.0,
        training: TrainingOptions | None = None,
    ) -> None:
        self.objective, self.n_samples = objective, n_samples
        self.kl_annealing, self.free_bits, self.training = kl_annealing, free_bits, training

    def can_fit(self, model_class: type[SequenceModel[Any]]) -> bool:
        return issubclass(model_class, LatentNetwork)

    def check(self) -> None:
        super().check()
        if self.objective != "elbo" and (self.kl_annealing or self.free_bits):
            raise ParameterError(
                got=f'objective="{self.objective}" with kl_annealing={self.kl_annealing}, free_bits={self.free_bits}',
                expected='objective="elbo", the only bound with a divergence to weigh',
                remedy="Leave them at 0.",
            )

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
        """Train by stochastic gradients; ``objective`` is the bound, ``log_prob`` the particle filter's estimate.

        Raises
        ------
        ParameterError
            For settings out of range.
        IncompatibleError
            For models without latent variables.
        """
        self.check()
        self.require(type(model))
        if not isinstance(model, LatentNetwork):
            raise TypeError(f"{type(model).__name__} is no network with latent variables")
        samples = self.n_samples or _SAMPLES[self.objective]
        trained = model.trained_by(Bound(self.objective, int(samples), self._kl_weight, float(self.free_bits)))
        specs = model.parameters()
        law = PointWeights(flatten(specs, model._initial_guess(batch, generator)))
        options = training_options(self.training, _LEARNING_RATE, _VALIDATION)
        fit = fit_law(
            trained, law, batch, generator, options, validation=validation, weights=weights, progress=progress
        )
        params = unflatten(specs, law.centre().detach().unsqueeze(0))
        total = log_prob_of_draws(model, params, batch, weights)
        reached = fit.done.trace[-1] * fit.n_values if fit.done.trace else float(total[0])
        return Draws(params, **fit.record(total, float(reached), fit.done.status))

    def _kl_weight(self, done: float) -> float:
        return 1.0 if not self.kl_annealing else min(1.0, done / self.kl_annealing)
