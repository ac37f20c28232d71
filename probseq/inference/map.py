"""Maximum a posteriori: the likelihood times a prior on every parameter that has one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution

from probseq._types import Rule, or_none, truth_value
from probseq.distributions.params import flatten, unflatten
from probseq.inference.base import Draws, Inference, Progress
from probseq.inference.information import information
from probseq.inference.law_fits import fit_law, log_prob_of_draws, training_options
from probseq.inference.options import TrainingOptions, options_or_none
from probseq.inference.posterior import LogPosterior
from probseq.inference.priors import checked_priors
from probseq.inference.search import SEARCH_RULES, climb, latent_problems, wants_covariance
from probseq.inference.weights import PenalizedWeights
from probseq.models.base import Batch, SequenceModel
from probseq.models.latent_network import LatentNetwork
from probseq.models.recurrent import RecurrentModel

__all__ = ["MAP"]


class MAP(Inference):
    r"""theta = argmax [log p(x_1:T | theta) + sum_j log p(theta_j)], by L-BFGS-B over unconstrained coordinates.

    A recurrent network is trained in mini-batches instead, by ``training``, its penalty counted once over all data.

    The prior is a density of the parameters as ``params_`` shows them, without the Jacobian of any map, so the maximum
    is that of the posterior density on their own scale: with Dirichlet(a) on a row of probabilities it is as if a - 1
    further events of each kind had been seen. The mode of a density is not invariant: a prior on a standard deviation
    and the same law written for the variance have different modes. Parameters without a prior are flat.

    Parameters
    ----------
    priors : dict or None
        Distributions (``torch.distributions`` or Pyro's) by the name of a parameter, each over one value, one row of
        probabilities or one matrix, broadcast to the parameter's shape. Names that are left out have the prior of the
        model's specification, if it has one; None in place of a distribution takes that away.
    n_init : int
        Random starts besides the model's guess (the best of a few short runs of EM where there are latent states).
    max_iter : int
        Iterations a start.
    tol : float
        A start has converged when an iteration raises the objective by less than ``tol`` relative to it.
    covariance : bool or None
        Whether the inverse of minus the Hessian of the log posterior is computed, for ``standard_errors_``; None
        computes it for at most 100 coordinates.
    training : TrainingOptions or None
        For recurrent nets, to which the four options above do not apply. The weights with the best likelihood of the
        data held back are kept, so with early stopping the result need not be the maximum.

    Notes
    -----
    The weights of a network are one parameter. Its own prior is normal, with a standard deviation by kind of weight,
    so that ``MAP()`` is a penalty on squares (L2); ``MAP({"weights": torch.distributions.Laplace(0.0, 0.1)})`` is one
    on absolute values (L1), under which gradient steps bring weights near zero but not to it.

    Examples
    --------
    >>> import probseq as ps, torch
    >>> sticky = torch.distributions.Dirichlet(torch.tensor([[20.0, 1.0], [1.0, 20.0]]))
    >>> model = ps.HMM(2, ps.Poisson(), inference=ps.MAP({"transition": sticky}), random_state=0)
    >>> model.fit(ps.datasets.earthquakes()).draws_.objective > model.log_likelihood_
    True
    """

    fits = "any model with a differentiable likelihood"
    rules: ClassVar[Mapping[str, Rule]] = {
        **SEARCH_RULES,
        "covariance": or_none(truth_value),
        "training": options_or_none,
    }

    def __init__(
        self,
        priors: Mapping[str, Distribution] | None = None,
        n_init: int = 0,
        max_iter: int = 1000,
        tol: float = 1e-12,
        covariance: bool | None = None,
        training: TrainingOptions | None = None,
    ) -> None:
        self.priors, self.n_init, self.max_iter, self.tol = priors, n_init, max_iter, tol
        self.covariance, self.training = covariance, training

    def can_fit(self, model_class: type[SequenceModel[Any]]) -> bool:
        return not issubclass(model_class, LatentNetwork)

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
        """Climb from every start and keep the best.

        ``objective``, ``trace`` and ``optima`` of the result include the prior; ``log_prob`` is the log-likelihood
        alone. ``status`` is "converged", "max_iter", "degenerate" or "interrupted".

        Raises
        ------
        ParameterError
            For settings out of range, and for priors of unknown parameters, wrong shape or wrong support.
        """
        self.check()
        priors = checked_priors(model.parameters(), self.priors)
        if isinstance(model, RecurrentModel):
            return self._train(model, priors, batch, generator, validation, weights, progress)
        target = LogPosterior(model, batch, weights, priors)
        search = climb(target, generator, self.n_init, self.max_iter, self.tol, progress)
        params = {n: v.detach().unsqueeze(0) for n, v in target.params(torch.as_tensor(search.x)).items()}
        messages = latent_problems(model, params, batch, weights)
        if messages and search.status != "interrupted":
            search.status = "degenerate"
        covariance = None
        if wants_covariance(self.covariance, search.x.size) and search.status != "interrupted":
            found = information(target, search.x)
            # What degenerated is the reason for what is not determined, and says it better.
            covariance, messages = found.covariance, messages or found.messages
        if search.status == "max_iter":
            messages = (*messages, f"The optimiser stopped after {search.n_iter} iterations before it converged.")
        with torch.no_grad():
            log_prob = float(target.log_likelihood(params)[0])
        return Draws(
            params=params,
            log_prob=log_prob,
            objective=-search.scale * search.value,
            status=search.status,
            n_iter=search.n_iter,
            trace=np.array(search.trace),
            optima=np.sort(np.array(search.optima))[::-1].copy(),
            messages=messages,
            covariance=covariance,
        )

    def _train(
        self,
        model: RecurrentModel,
        priors: Mapping[str, Distribution],
        batch: Batch,
        generator: torch.Generator,
        validation: Batch | None,
        weights: Tensor | None,
        progress: Progress | None,
    ) -> Draws:
        """Gradient steps in mini-batches."""
        specs = model.parameters()
        law = PenalizedWeights(flatten(specs, model._initial_guess(batch, generator)), specs, priors)
        options = training_options(self.training, learning_rate=5e-3, validation_fraction=0.15)
        fit = fit_law(model, law, batch, generator, options, validation=validation, weights=weights, progress=progress)
        params = unflatten(specs, law.centre().detach().unsqueeze(0))
        total = log_prob_of_draws(model, params, batch, weights)
        objective = float(total[0]) - float(law.divergence().detach())
        return Draws(params, **fit.record(total, objective, fit.done.status))
