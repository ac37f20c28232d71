"""Model evidence: the probability of the data with the parameters integrated out."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.linalg import solve_triangular
from scipy.special import betaln, gammaln, logsumexp

from probseq._random import RandomState, numpy_generator, torch_generator
from probseq._types import or_none, whole_number
from probseq.data.sequences import Sequences
from probseq.distributions.params import Interval, ParamSpec, flatten
from probseq.distributions.stationary import Stationary
from probseq.errors import DataError, ParameterError, UnsupportedError
from probseq.estimators.base import SequenceEstimator
from probseq.estimators.pipeline import fit_transforms
from probseq.inference.coordinates import Coordinates
from probseq.inference.diagnostics import ess_bulk
from probseq.inference.laplace import Laplace, log_posterior, normal_approximation
from probseq.inference.nuts import NUTS, NUTSDraws
from probseq.inference.posterior import LogPosterior
from probseq.models.latent import DiscreteLatent
from probseq.models.recurrent import RecurrentModel
from probseq.models.relabel import exchangeable, permute_states
from probseq.results.joint import make_batch

__all__ = ["MarginalLikelihood", "marginal_likelihood"]

_MAX_ITER, _TOL = 1000, 1e-12


class MarginalLikelihood(NamedTuple):
    """log p(x) and how sure it is."""

    log_prob: float
    """nats on the scale of the data"""
    standard_error: float
    """of the simulation, in nats; NaN for Laplace's approximation, whose error is of another kind"""
    method: str
    """"laplace" or "bridge" """


def marginal_likelihood(
    model: SequenceEstimator, X: Any = None, *, n_proposals: int | None = None, random_state: RandomState = 0
) -> MarginalLikelihood:
    r"""log p(x) = log \int p(x | theta) p(theta) d theta, for small models whose prior is meant.

    Of a model fitted by ``NUTS`` by bridge sampling between its draws and a normal law of the unconstrained parameters
    with their mean and covariance; half of the draws fit that law, the others are bridged. Of a model fitted by
    ``Laplace`` by the normal law at the mode, with an error of order 1 / T. Hidden states that may change names count
    with all their names, k! times what one naming has, which takes it that namings lie apart.

    The evidence depends on the priors as much as on the data: a ten times wider prior of a well-determined parameter
    takes log 10 nats away. The weak default priors were made for estimation, so that evidence under them means little.
    A prior law counts as it was given: where a constraint of the model cuts some of it off, its mass is not one.

    Parameters
    ----------
    model : estimator fitted by ``ps.NUTS`` or ``ps.Laplace``, without weights of sequences
    X : the data that it was fitted to; needed only if it was loaded from a file
    n_proposals : int or None
        Draws from the normal law; as many as draws are bridged by default.
    random_state : seed of the proposals

    Returns
    -------
    MarginalLikelihood
        ``log_prob`` in nats, ``standard_error`` of the simulation, ``method``.

    Raises
    ------
    UnsupportedError
        For recurrent networks, other inferences, flat priors on unbounded parameters, and transforms whose Jacobian
        depends on the parameters.
    DataError
        For data other than those of the fit.
    ParameterError
        For fewer draws than the normal law needs.

    References
    ----------
    Meng and Wong (1996), Simulating ratios of normalizing constants via a simple identity, Statistica Sinica 6;
    Fruehwirth-Schnatter (2004), Estimating marginal likelihoods for mixture and Markov switching models using bridge
    sampling techniques, Econometrics Journal 7; Tierney and Kadane (1986).

    Examples
    --------
    >>> import probseq as ps
    >>> from torch.distributions import Gamma
    >>> y = ps.datasets.earthquakes()
    >>> counts = ps.IID(ps.Poisson(), inference=ps.Laplace(priors={"rate": Gamma(2.0, 0.1)})).fit(y)
    >>> round(ps.marginal_likelihood(counts).log_prob, 1)
    -395.4
    """
    if not isinstance(model, SequenceEstimator):
        raise ParameterError(got=f"model={model!r}", expected="a fitted estimator", remedy="Fit one.")
    model._check_fitted()
    data = _training_data(model, X)
    inference = model._inference()
    n_proposals = or_none(lambda name, value: whole_number(name, value, 10))("n_proposals", n_proposals)
    if not isinstance(inference, NUTS | Laplace) or isinstance(_innermost(model), RecurrentModel):
        raise UnsupportedError(
            got=f"{type(model).__name__} fitted by {type(inference).__name__}",
            expected="a model other than a network, fitted by NUTS or Laplace",
            remedy="Use inference=ps.NUTS(priors=...), or the prequential likelihood: backtest(model, X, refit=1).",
        )
    target, shift = _target(model, data, inference)
    if isinstance(inference, Laplace):
        near = normal_approximation(
            target, torch_generator(0), int(inference.n_init), inference.max_iter, inference.tol, None
        )
        peak = -near.search.scale * near.search.value
        value, error = peak + 0.5 * near.centre.size * math.log(2 * math.pi) + near.log_det, math.nan
    else:
        value, error = _bridge(target, model.draws_, n_proposals, numpy_generator(random_state))  # type: ignore[arg-type]
    value += shift + _log_constants(target) + _log_namings(model, target)
    return MarginalLikelihood(value, error, "laplace" if isinstance(inference, Laplace) else "bridge")


def _training_data(model: SequenceEstimator, X: Any) -> Sequences:
    if X is None:
        if model._fitted_to is None:
            raise DataError(got="a model without its data", expected="those of the fit", remedy="Pass X.")
        return model._fitted_to
    if not model._is_training(X):
        raise DataError(
            got="data other than those of the fit", expected="the data whose evidence is asked for", remedy="Refit."
        )
    return model._read(X)


def _innermost(model: SequenceEstimator) -> Any:
    """The model of the transformed data."""
    law = model.model_.model
    return model._build(model.info_) if model.transforms_.transforms else law


def _target(model: SequenceEstimator, data: Sequences, inference: NUTS | Laplace) -> tuple[LogPosterior, float]:
    """The density that the inference has drawn from, and what log p(x) of the data themselves has in addition."""
    transforms, values, steps, inputs = fit_transforms(model._transforms(), data)
    inner = _innermost(model)
    batch = transforms.given(make_batch(inner, values, steps, inputs))
    target = log_posterior(inner, batch, None, inference.priors)
    params = {name: value[:2] for name, value in model.draws_.params.items()}
    with torch.no_grad():
        outer = model.model_.model.log_prob(params, model._batch(data)).double().sum(-1)
        apart = (outer - target.log_likelihood(params)).numpy()
    if abs(apart - apart[0]).max() > 1e-6 * max(1.0, abs(float(apart[0]))):
        raise UnsupportedError(
            got=f"transform={[type(one).__name__ for one in transforms.transforms]}",
            expected="transforms that change the density by the same factor for all parameters",
            remedy="Transform the data beforehand.",
        )
    return target, float(apart[0])


def _log_constants(target: LogPosterior) -> float:
    """The logarithm of the density of the uniform laws that stand where there is no prior."""
    total = 0.0
    for name, spec in target.specs.items():
        if spec.trainable and name not in target.priors and spec.constraint.size(spec.shape):
            total -= _log_volume(name, spec)
    return total


def _log_volume(name: str, spec: ParamSpec) -> float:
    constraint = spec.constraint
    if isinstance(constraint, Interval):
        return math.prod(spec.shape) * math.log(constraint.high - constraint.low)
    if isinstance(constraint, Stationary):
        # Partial autocorrelation k + 1 enters the Jacobian as (1 - r)^ceil(k/2) (1 + r)^floor(k/2).
        k = np.arange(spec.shape[0])
        a, b = np.ceil(k / 2), np.floor(k / 2)
        return float(((a + b + 1) * math.log(2) + betaln(a + 1, b + 1)).sum())
    if spec.n_free == 0:
        return 0.0
    raise UnsupportedError(
        got=f"a flat prior of {name}",
        expected="a prior that is a probability law",
        remedy=f"Pass priors={{{name!r}: ...}} to the inference.",
    )


def _log_namings(model: SequenceEstimator, target: LogPosterior) -> float:
    """log k! where k hidden states may change names and the draws keep to one naming."""
    law, draws = target.model, model.draws_
    if not isinstance(law, DiscreteLatent):
        return 0.0
    if isinstance(draws, NUTSDraws):
        if draws.permutation is None:
            return 0.0
        return float(gammaln(draws.permutation.shape[-1] + 1))
    if not exchangeable(law, draws.params, target.batch):
        return 0.0
    params = {name: value[:1] for name, value in draws.params.items()}
    turned = permute_states(target.specs, params, torch.arange(law.n_states).roll(1))
    with torch.no_grad():
        symmetric = torch.allclose(target.log_prior(turned), target.log_prior(params), rtol=1e-8, atol=1e-8)
    return float(gammaln(law.n_states + 1)) if symmetric else 0.0


def _bridge(
    target: LogPosterior, draws: NUTSDraws, n_proposals: int | None, rng: np.random.Generator
) -> tuple[float, float]:
    """log of the integral of exp l(z), and its standard error.

    The fixed point of r = mean_g[p / (s1 p + s2 r g)] / mean_p[g / (s1 p + s2 r g)] (Meng and Wong 1996, section 3.2)
    and the error of its logarithm (Fruehwirth-Schnatter 2004, section 3.2).
    """
    flat = flatten(target.specs, draws.params).double().numpy()
    coordinates = Coordinates(target.specs, flat[int(len(flat) // 2)])
    z = coordinates.of(flat).reshape(draws.n_chains, -1, coordinates.size)
    half = z.shape[1] // 2
    fitted, kept = z[:, :half].reshape(-1, coordinates.size), z[:, half:]
    r = coordinates.size
    if len(fitted) < 5 * r + 20:
        raise ParameterError(
            got=f"{len(flat)} draws of {r} parameters",
            expected=f"at least {2 * (5 * r + 20)}",
            remedy="Fit with NUTS(n_draws=...) of that size.",
        )
    effective = float(np.nanmedian(ess_bulk(kept))) if r else float(kept.shape[0] * kept.shape[1])
    bridged = kept.reshape(-1, r)
    n = len(bridged) if n_proposals is None else n_proposals
    centre = fitted.mean(0)
    root = np.linalg.cholesky(np.atleast_2d(np.cov(fitted.T))) if r else np.zeros((0, 0))
    noise = rng.standard_normal((n, r))
    log_norm = -0.5 * r * math.log(2 * math.pi) - np.log(np.diag(root)).sum()

    def ratio(points: np.ndarray, standard: np.ndarray) -> np.ndarray:
        values, _ = target.evaluate(coordinates.flat(points))
        return values + 0.5 * (standard**2).sum(-1) - log_norm

    here = ratio(bridged, solve_triangular(root, (bridged - centre).T, lower=True).T if r else bridged)
    there = ratio(centre + noise @ root.T, noise)
    share = effective / (effective + n)
    log_z = float(np.median(here))
    for _ in range(_MAX_ITER):
        top, bottom = _parts(there, here, log_z, share)
        new = float(logsumexp(top) - math.log(len(top)) - logsumexp(bottom) + math.log(len(bottom)))
        moved, log_z = abs(new - log_z), new
        if moved < _TOL * max(1.0, abs(log_z)):
            break
    top, bottom = (np.exp(part - part.max()) for part in _parts(there, here, log_z, share))
    variance = top.var() / top.mean() ** 2 / n + bottom.var() / bottom.mean() ** 2 / effective
    return log_z, float(math.sqrt(variance))


def _parts(there: np.ndarray, here: np.ndarray, log_z: float, share: float) -> tuple[np.ndarray, np.ndarray]:
    """log p / (s1 p + s2 r g) at the proposals, and log g / (s1 p + s2 r g) at the draws, up to r where p / g is r."""
    a, b = math.log(share), math.log1p(-share) + log_z
    return there - np.logaddexp(a + there, b), -np.logaddexp(a + here, b)
