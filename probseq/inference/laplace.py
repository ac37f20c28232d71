"""Laplace's approximation: a normal law around the mode of the posterior."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution

from probseq._types import Rule, one_of, or_none, whole_number
from probseq.errors import IncompatibleError, ParameterError
from probseq.inference.base import Draws, Inference, Progress
from probseq.inference.coordinates import Coordinates
from probseq.inference.files import FileBatch
from probseq.inference.information import curvature
from probseq.inference.last_layer import LastLayerDraws, check_last_layer, fit_last_layer
from probseq.inference.law_fits import learnt_or_positive
from probseq.inference.map import MAP
from probseq.inference.options import TrainingOptions, options_or_none
from probseq.inference.posterior import LogPosterior
from probseq.inference.priors import checked_priors
from probseq.inference.search import SEARCH_RULES, Search, climb, latent_problems
from probseq.inference.weak_priors import weak_priors
from probseq.models.base import Batch, SequenceModel
from probseq.models.latent_network import LatentNetwork
from probseq.models.recurrent import RecurrentModel

__all__ = ["Laplace", "NormalApproximation", "log_posterior", "normal_approximation"]

# Directions that bend less than this, relative to coordinates of unit information, are no wider than if they did.
_FLATTEST = 1e-4


class NormalApproximation(NamedTuple):
    """z ~ N(centre, root root'), over coordinates without redundancy.

    search : how the mode was found.
    coordinates : what z are.
    centre : (r,), the mode of the density of z.
    root : (r, r).
    log_det : log |root|.
    messages : what keeps the density from being normal near its mode.
    """

    search: Search
    coordinates: Coordinates
    centre: np.ndarray
    root: np.ndarray
    log_det: float
    messages: tuple[str, ...]


def log_posterior(
    model: SequenceModel[Any], batch: Batch, weights: Tensor | None, priors: Mapping[str, Distribution] | None
) -> LogPosterior:
    """The density of unconstrained coordinates, with weak priors where none are given."""
    target = LogPosterior(model, batch, weights, checked_priors(model.parameters(), priors), jacobian=True)
    given = None if priors is None else {name for name, prior in priors.items() if prior is None}
    target.priors.update({n: p for n, p in weak_priors(target).items() if n not in (given or ())})
    return target


def normal_approximation(
    target: LogPosterior,
    generator: torch.Generator,
    n_init: int,
    max_iter: int,
    tol: float,
    progress: Progress | None,
) -> NormalApproximation:
    """The mode of a target, and a normal law with the curvature there."""
    search = climb(target, generator, n_init, max_iter, tol, progress)
    coordinates = Coordinates(target.specs, search.x)
    centre = search.x[coordinates.index]
    matrix = curvature(target, coordinates, centre)
    diagonal = np.diag(matrix)
    unit = 1.0 / np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
    values, vectors = np.linalg.eigh(matrix * unit * unit[:, None]) if matrix.size else (diagonal, matrix)
    messages: tuple[str, ...] = ()
    if (values < _FLATTEST).any():
        names = sorted(set(coordinates.owner[coordinates.index]))
        messages = (
            f"The posterior of {', '.join(names)} does not bend at its mode in {int((values < _FLATTEST).sum())} of "
            f"{values.size} directions: a normal law is no approximation there.",
        )
    kept = values.clip(min=_FLATTEST)
    root = unit[:, None] * vectors / np.sqrt(kept)
    log_det = float(np.log(unit).sum() - 0.5 * np.log(kept).sum())
    return NormalApproximation(search, coordinates, centre, root, log_det, messages)


class Laplace(Inference):
    r"""theta(z), z ~ N(z*, (-d^2 l(z*))^-1), l(z) = log p(x | theta(z)) + log p(theta(z)) + log \|d theta / d z\|.

    A normal law of the unconstrained coordinates around the mode of their posterior density, from which parameters are
    drawn. Approximate: exact to first order in 1 / T where the parameters are well determined, poor for those near a
    boundary. It knows one mode; other names for the states of a hidden Markov model are the same law.

    Of a recurrent network the weights of the last layer (kinds "head" and "head_bias") have such a law, all others stay
    where ``MAP`` has trained them. What the last layer reads is fixed then; its mode is found anew, from all data, and
    its curvature is that of the exact log-likelihood.

    Parameters
    ----------
    priors : dict or None
        Distributions by the name of a parameter, as in ``MAP``. Where none is given it is weakly informative, centred
        at the model's starting value c: N(c, 10 u) for real numbers (u the standard deviation of the data for means, 1
        for what has no unit), a log-normal law with a factor of 50 either way for positive ones, an inverse Wishart law
        with k + 2 degrees of freedom for covariances, uniform for probabilities and stationary coefficients. None in
        place of a distribution is flat. Networks have their own prior, see ``prior_scale``.
    n_draws : int or None
        Draws; the fitted model averages over them. None is 200, of a network 30.
    n_init : int
        Random starts of the search for the mode, besides the model's guess.
    max_iter, tol
        Of that search, as in ``MAP``; of a network's last layer ``max_iter`` only.
    structure : {"full", "kronecker"}
        Of a network: the covariance of all weights of the last layer, up to 3000 of them, or a Kronecker product of one
        by outputs and one by what is read.
    prior_scale : float or "learnt"
        Of a network: multiplies the standard deviations of the last layer's prior. "learnt" finds the factor with the
        highest evidence; ``draws_.prior_scale`` shows it.
    training : TrainingOptions or None
        Of a network, as in ``MAP``.

    References
    ----------
    Tierney and Kadane (1986), Accurate approximations for posterior moments and marginal densities. MacKay (1992), The
    evidence framework applied to classification networks. Ritter, Botev and Barber (2018), A scalable Laplace
    approximation for neural networks. Daxberger et al. (2021), Laplace redux: effortless Bayesian deep learning.

    Examples
    --------
    >>> import probseq as ps
    >>> level = ps.datasets.lake_huron()
    >>> model = ps.ARMA((1, 0), inference=ps.Laplace(n_draws=100), random_state=0).fit(level)
    >>> parts = model.forecast(3).decompose()
    >>> bool((parts["epistemic"] > 0).all())
    True
    """

    fits = "any model with a differentiable likelihood"
    rules: ClassVar[Mapping[str, Rule]] = {
        **SEARCH_RULES,
        "n_draws": or_none(partial(whole_number, lowest=1)),
        "structure": partial(one_of, choices=("full", "kronecker")),
        "prior_scale": learnt_or_positive,
        "training": options_or_none,
    }

    def __init__(
        self,
        priors: Mapping[str, Distribution] | None = None,
        n_draws: int | None = None,
        n_init: int = 0,
        max_iter: int = 1000,
        tol: float = 1e-12,
        structure: str = "full",
        prior_scale: float | str = "learnt",
        training: TrainingOptions | None = None,
    ) -> None:
        self.priors, self.n_draws, self.n_init, self.max_iter, self.tol = priors, n_draws, n_init, max_iter, tol
        self.structure, self.prior_scale, self.training = structure, prior_scale, training

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
        r"""Find the mode and draw around it.

        ``objective`` is l(z*) + (r log 2 pi - log \|-d^2 l\|) / 2, Laplace's approximation of the log evidence, up to
        the constants of flat priors; ``trace`` and ``optima`` are of l. ``log_prob`` is log (1/D) sum_d p(x | theta_d).
        ``covariance`` is that of the flat coordinates. Of a network ``objective`` is the log evidence of its last
        layer, given the other weights (``LastLayerDraws``).

        Raises
        ------
        ParameterError
            For settings out of range and priors that do not fit.
        IncompatibleError
            For a network whose last layer is tied to its embedding or has no likelihood, or that learns from a file.
        """
        self.check()
        if isinstance(model, RecurrentModel):
            return self._fit_network(model, batch, generator, validation, weights, progress)
        target = log_posterior(model, batch, weights, self.priors)
        found = normal_approximation(target, generator, self.n_init, self.max_iter, self.tol, progress)
        search, size = found.search, found.centre.size
        noise = torch.randn(int(self.n_draws or 200), size, generator=generator, dtype=torch.float64).numpy()
        flat = torch.from_numpy(found.coordinates.flat(found.centre + noise @ found.root.T))
        mode = {n: v.unsqueeze(0) for n, v in target.params(torch.as_tensor(search.x)).items()}
        with torch.no_grad():
            params = {name: value.clone() for name, value in target.params(flat).items()}
            each = target.log_likelihood(params)
        problems = latent_problems(model, mode, batch, weights)
        status = "degenerate" if found.messages and search.status != "interrupted" else search.status
        messages = (*problems, *found.messages)
        if search.status == "max_iter":
            status = "max_iter"
            messages = (*messages, f"The optimiser stopped after {search.n_iter} iterations before it converged.")
        value = -search.scale * search.value
        return Draws(
            params=params,
            log_prob=float(torch.logsumexp(each, 0) - math.log(len(each))),
            objective=value + 0.5 * size * math.log(2 * math.pi) + found.log_det,
            status=status,
            n_iter=search.n_iter,
            trace=np.array(search.trace),
            optima=np.sort(np.array(search.optima))[::-1].copy(),
            messages=messages,
            covariance=found.coordinates.spread(found.root @ found.root.T),
        )

    def _fit_network(
        self,
        model: RecurrentModel,
        batch: Batch,
        generator: torch.Generator,
        validation: Batch | None,
        weights: Tensor | None,
        progress: Progress | None,
    ) -> LastLayerDraws:
        """Train all weights, then draw those of the last layer."""
        if self.priors is not None:
            raise ParameterError(
                got="priors for a recurrent network", expected="none: it has its own", remedy="Set prior_scale."
            )
        if isinstance(batch, FileBatch):
            raise IncompatibleError(
                got="a file", expected="data in memory", remedy="MeanField, SWAG and SGLD learn from files."
            )
        check_last_layer(model, self.structure)
        body = MAP(training=self.training).fit(
            model, batch, generator, validation=validation, weights=weights, progress=progress
        )
        return fit_last_layer(
            model,
            body,
            batch,
            generator,
            n_draws=int(self.n_draws or 30),
            structure=self.structure,
            prior_scale=self.prior_scale,
            max_iter=self.max_iter,
            weights=weights,
        )
