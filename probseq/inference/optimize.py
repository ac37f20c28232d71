"""Maximum likelihood by quasi-Newton steps with analytic gradients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from probseq._types import Rule, or_none, truth_value
from probseq.distributions.params import unconstrained_size
from probseq.inference.base import Draws, Inference, Progress
from probseq.inference.information import information
from probseq.inference.options import TrainingOptions, options_or_none
from probseq.inference.posterior import LogPosterior
from probseq.inference.profile_search import ProfileSearch
from probseq.inference.search import SEARCH_RULES, Search, climb, latent_problems, wants_covariance
from probseq.models.base import Batch, SequenceModel
from probseq.models.baseline import ClosedForm
from probseq.models.concentrated import ConcentratedLikelihood, Profile
from probseq.models.latent_network import LatentNetwork
from probseq.models.recurrent import RecurrentModel

__all__ = ["MLE"]

# In longer series the reasoned start is near the highest maximum, and further ones would only cost time.
_SHORT = 500


class MLE(Inference):
    r"""theta = argmax log p(x_1:T | theta), over unconstrained coordinates, by L-BFGS-B or, compiled, by BFGS.

    A model with a closed form is fitted by it. Where a model concentrates its location and scale out (ARMA), only the
    other parameters are searched, by BFGS. A recurrent net is trained in mini-batches with Adam and early stopping
    instead, by ``training``. All others use automatic differentiation of ``log_prob_steps``.

    Parameters
    ----------
    n_init : int
        Random starts besides the reasoned ones (Hannan-Rissanen and white noise for ARMA, the best of a few short runs
        of EM for models with latent states, the model's guess otherwise).
        The reasoned start with the highest likelihood and all random ones are followed; for short series the other
        reasoned ones too, as far as they lead elsewhere.
    max_iter : int
        Iterations a start.
    tol : float
        A start has converged when an iteration lowers the objective (nats per scored value) by less than ``tol``
        relative to it, and, with BFGS, the next is expected to do so too; with L-BFGS-B also when no slope exceeds
        1e-7.
    covariance : bool or None
        Whether the inverse observed information is computed, for ``standard_errors_``. None computes it where the model
        has a fast form for it, or at most 100 coordinates (two to four gradients each).
    training : TrainingOptions or None
        For recurrent nets, to which the options above do not apply.

    References
    ----------
    Byrd, Lu, Nocedal and Zhu (1995), A limited memory algorithm for bound constrained optimization. Nocedal and Wright
    (2006), Numerical Optimization, chapter 6.

    Examples
    --------
    >>> import probseq as ps
    >>> level = ps.datasets.lake_huron()
    >>> model = ps.ARMA((1, 0), inference=ps.MLE(covariance=True)).fit(level)
    >>> round(float(model.params_["ar"].squeeze()), 2), round(float(model.standard_errors_["ar"].squeeze()), 2)
    (0.84, 0.05)
    """

    fits = "any model with a differentiable likelihood"
    rules: ClassVar[Mapping[str, Rule]] = {
        **SEARCH_RULES,
        "covariance": or_none(truth_value),
        "training": options_or_none,
    }

    def __init__(
        self,
        n_init: int = 0,
        max_iter: int = 1000,
        tol: float = 1e-12,
        covariance: bool | None = None,
        training: TrainingOptions | None = None,
    ) -> None:
        self.n_init, self.max_iter, self.tol, self.covariance = n_init, max_iter, tol, covariance
        self.training = training

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

        ``status`` is "exact" (a closed form), "converged", "max_iter", "degenerate" (a state emptied or its variance
        collapsed) or "interrupted".

        Raises
        ------
        ParameterError
            For settings out of range.
        """
        self.check()
        if isinstance(model, RecurrentModel):
            from probseq.inference.training import train_point

            return train_point(
                model, batch, generator, self.training, validation=validation, weights=weights, progress=progress
            )
        if isinstance(model, ClosedForm):
            return self._fit_closed(model, batch, weights)
        if isinstance(model, ConcentratedLikelihood):
            return self._fit_profile(model.concentrated(batch, weights), generator, progress)
        return self._fit_flat(model, batch, generator, weights, progress)

    def _fit_profile(self, profile: Profile, generator: torch.Generator, progress: Progress | None) -> Draws:
        search = ProfileSearch(profile, self.max_iter, self.tol, progress)
        starts = profile.starts(self.n_init, generator)
        reasoned = starts[: len(starts) - self.n_init] if profile.size else starts
        values = [search.evaluate(x)[0] for x in reasoned]
        first = int(np.argmin(values))
        chosen, others = [reasoned[first], *starts[len(reasoned) :]], reasoned[:first] + reasoned[first + 1 :]
        if profile.size == 0:
            search.status, search.optima = "exact", list(search.trace)
        else:
            search.descend_all(chosen)
            if search.status != "interrupted" and profile.count <= _SHORT:
                search.challenge([*others, *profile.rivals()])
        params = profile.parameters(search.x)
        return self._draws(
            search,
            params,
            messages=profile.problems(search.x),
            covariance=profile.covariance(search.x)
            if wants_covariance(self.covariance, 0) and search.status != "interrupted"
            else None,
        )

    def _fit_flat(
        self,
        model: SequenceModel[Any],
        batch: Batch,
        generator: torch.Generator,
        weights: Tensor | None,
        progress: Progress | None,
    ) -> Draws:
        target = LogPosterior(model, batch, weights)
        search = climb(target, generator, self.n_init, self.max_iter, self.tol, progress)
        params = target.params(torch.as_tensor(search.x))
        messages = latent_problems(model, {n: v.unsqueeze(0) for n, v in params.items()}, batch, weights)
        if messages and search.status != "interrupted":
            search.status = "degenerate"
        covariance = None
        if wants_covariance(self.covariance, search.x.size) and search.status != "interrupted":
            found = information(target, search.x)
            # What degenerated is the reason for what is not determined, and says it better.
            covariance, messages = found.covariance, messages or found.messages
        return self._draws(search, params, messages, covariance)

    def _fit_closed(self, model: SequenceModel[Any], batch: Batch, weights: Tensor | None) -> Draws:
        found = model.maximum_likelihood(batch, weights) if isinstance(model, ClosedForm) else {}
        params = {name: value.detach() for name, value in found.items()}
        draws = {name: value.unsqueeze(0) for name, value in params.items()}
        target = LogPosterior(model, batch, weights, constants=params)
        with torch.no_grad():
            value = float(target.log_likelihood(draws)[0])
        covariance = None
        if wants_covariance(self.covariance, unconstrained_size(target.specs)):
            covariance = information(target, target.flat(params).numpy()).covariance
        once = np.array([value])
        messages = model.problems(params, batch) if isinstance(model, ClosedForm) else ()
        return Draws(draws, value, value, "exact", trace=once, optima=once, messages=messages, covariance=covariance)

    @staticmethod
    def _draws(
        search: Search,
        params: dict[str, Tensor],
        messages: tuple[str, ...],
        covariance: np.ndarray | None,
    ) -> Draws:
        log_prob = -search.scale * search.value
        if search.status == "max_iter":
            messages = (*messages, f"The optimiser stopped after {search.n_iter} iterations before it converged.")
        return Draws(
            params={name: value.detach().unsqueeze(0) for name, value in params.items()},
            log_prob=log_prob,
            objective=log_prob,
            status=search.status,
            n_iter=search.n_iter,
            trace=np.array(search.trace),
            optima=np.sort(np.array(search.optima))[::-1].copy(),
            messages=messages,
            covariance=covariance,
        )
