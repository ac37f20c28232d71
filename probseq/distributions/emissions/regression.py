"""Linear regressions whose coefficients depend on the state, and their M-steps."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from probseq._types import whole_number
from probseq.distributions.base import Distribution
from probseq.distributions.counts import PoissonCounts
from probseq.distributions.emissions.base import Observation
from probseq.distributions.emissions.conditional import ConditionalEmission
from probseq.distributions.emissions.counts import Poisson
from probseq.distributions.estimation import EMPTY, above, pooled_moments, ratio, variance_floor
from probseq.distributions.gaussian import DiagonalNormal, FullNormal
from probseq.distributions.params import Params, ParamSpec, Positive, PositiveDefinite, Real
from probseq.errors import ParameterError

__all__ = ["AutoregressiveNormal", "NormalRegression", "PoissonRegression"]

_NEWTON_STEPS = 4
_HALVINGS = 12
_RIDGE = 1e-10
_LARGEST_LOG_RATE = 50.0


class NormalRegression(ConditionalEmission):
    r"""x_t ~ N(intercept_z + coefficients_z u_t + sum_l autoregression_zl x_{t-l}, Sigma_z).

    Parameters: ``intercept`` (k,), ``coefficients`` (k, m) per unit of each covariate, ``autoregression``
    (order, k, k) with [l, i, j] the weight of variable j, l + 1 steps ago, in variable i, and ``scale`` (k,), the
    standard deviations, or ``covariance`` (k, k).

    Parameters
    ----------
    order : int
        How many earlier values enter. The first ``order`` values of a sequence are conditioned on, not scored, and no
        value may be missing where ``order > 0``.
    covariance : {"diag", "full"}

    References
    ----------
    Hamilton (1989), A new approach to the economic analysis of nonstationary time series (with intercepts that switch);
    Fruehwirth-Schnatter (2006), Finite mixture and Markov switching models, chapters 8 and 12.

    Examples
    --------
    >>> import numpy as np, probseq as ps
    >>> u = np.arange(8.0)
    >>> model = ps.HMM(1, ps.NormalRegression(), random_state=0).fit(2 + 3 * u + np.tile([0.1, -0.1], 4), covariates=u)
    >>> [round(float(model.params_[name].squeeze()), 2) for name in ("intercept", "coefficients")]
    [2.03, 2.99]
    """

    def __init__(self, order: int = 0, covariance: str = "diag") -> None:
        self.order, self.covariance = order, covariance

    def check_arguments(self) -> None:
        whole_number("order", self.order, 0, "Try 1.")
        if self.covariance not in ("diag", "full"):
            raise ParameterError(
                got=f"covariance={self.covariance!r}", expected='"diag" or "full"', remedy="Choose one."
            )

    def parameters(self, observation: Observation, components: tuple[int, ...] = ()) -> dict[str, ParamSpec]:
        self.check_arguments()
        self._require_inputs(observation)
        k, m = observation.n_variables, observation.n_covariates
        state = ("state",) * len(components)
        specs = {"intercept": ParamSpec((*components, k), Real(), (*state, "variable"))}
        if m:
            specs["coefficients"] = ParamSpec((*components, k, m), Real(), (*state, "variable", "covariate"))
        if self.order:
            dims = (*state, "lag", "variable", "other_variable")
            specs["autoregression"] = ParamSpec((*components, self.order, k, k), Real(), dims)
        if self.covariance == "diag":
            specs["scale"] = ParamSpec((*components, k), Positive(), (*state, "variable"))
        else:
            dims = (*state, "variable", "other_variable")
            specs["covariance"] = ParamSpec((*components, k, k), PositiveDefinite(), dims)
        return specs

    def condition(self, params: Params, inputs: Tensor, components: tuple[int, ...]) -> Distribution:
        loc = _predict(self._weights(params), inputs)
        if self.covariance == "full":
            factor = torch.linalg.cholesky(params["covariance"]).unsqueeze(-4)
            return FullNormal(loc=loc, scale_tril=factor)
        return DiagonalNormal(loc=loc, scale=params["scale"].unsqueeze(-3))

    def flat_params(self, observation: Observation, x: Tensor, seen: Tensor) -> dict[str, Tensor]:
        pooled = pooled_moments(x.unsqueeze(0), seen.unsqueeze(0))
        params = {name: torch.zeros(spec.shape, dtype=x.dtype) for name, spec in self.parameters(observation).items()}
        params["intercept"] = pooled.mean
        if self.covariance == "full":
            params["covariance"] = torch.diag_embed(pooled.variance)
        else:
            params["scale"] = pooled.variance.sqrt()
        return params

    def climb(
        self, observation: Observation, x: Tensor, seen: Tensor, weights: Tensor, inputs: Tensor, params: Params
    ) -> dict[str, Tensor]:
        """Weighted least squares; missing coordinates of correlated errors enter through their law given the seen."""
        design = torch.cat([torch.ones_like(x[:, :1]), inputs], -1)
        floor = variance_floor(x.unsqueeze(0), seen.unsqueeze(0))
        if self.covariance == "full":
            return self._correlated(x, seen, weights, design, floor, params)
        mask = seen.to(x.dtype)
        beta = _least_squares(design, x, mask, weights, self._weights(params))
        gap = x.unsqueeze(1) - _predict(beta, inputs)
        total = weights.mT @ mask
        square = torch.einsum("drs,drsk->dsk", weights, mask.unsqueeze(1) * gap**2)
        scale = torch.maximum(ratio(square, total), floor).sqrt()
        new = self._named(beta, observation)
        return new | {"scale": torch.where(total > EMPTY, scale, params["scale"])}

    def _correlated(
        self, x: Tensor, seen: Tensor, weights: Tensor, design: Tensor, floor: Tensor, params: Params
    ) -> dict[str, Tensor]:
        before, covariance = self._weights(params), params["covariance"]
        expected = _predict(before, design[:, 1:])
        complete = x.unsqueeze(1).expand_as(expected).clone()
        left = torch.zeros_like(covariance)
        for pattern in torch.unique(seen, dim=0):
            if bool(pattern.all()) or not bool(pattern.any()):
                continue
            rows, o = (seen == pattern).all(-1), pattern.nonzero().squeeze(-1)
            gain = torch.linalg.solve(covariance[..., o, :][..., o], covariance[..., o, :]).mT
            gap = (complete - expected)[:, rows][..., o]
            guess = expected[:, rows] + torch.einsum("dsko,drso->drsk", gain, gap)
            complete[:, rows] = torch.where(pattern, complete[:, rows], guess)
            spare = covariance - gain @ covariance[..., o, :]
            left += weights[:, rows].sum(1)[..., None, None] * spare
        used = weights * seen.any(-1).to(x.dtype).unsqueeze(-1)
        beta = _least_squares_each(design, complete, used, before)
        gap = complete - _predict(beta, design[:, 1:])
        total = used.sum(1)[..., None, None]
        spread = torch.einsum("drs,drsk,drsl->dskl", used, gap, gap) + left
        new = above(ratio(spread, total), floor)
        observation = Observation(x.shape[-1], n_covariates=design.shape[-1] - 1 - self.order * x.shape[-1])
        return self._named(beta, observation) | {"covariance": torch.where(total > EMPTY, new, covariance)}

    def states_at_floor(self, observation: Observation, x: Tensor, seen: Tensor, params: Params) -> Tensor:
        # Of the values that are explained, as in the fit: the first ones are inputs only.
        floor = variance_floor(x[:, self.order :], seen[:, self.order :])
        if self.covariance == "full":
            unit = floor.sqrt()
            scaled = params["covariance"] / (unit.unsqueeze(-1) * unit)
            return torch.linalg.eigvalsh(scaled).amin(-1) <= 1.001
        return (params["scale"] ** 2 <= 1.001 * floor).any(-1)

    def _weights(self, params: Params) -> Tensor:
        """Intercept, lags and covariates side by side, (*draw, s, k, 1 + q)."""
        parts = [params["intercept"].unsqueeze(-1)]
        if self.order:
            parts.append(params["autoregression"].movedim(-3, -2).flatten(-2))
        if "coefficients" in params:
            parts.append(params["coefficients"])
        return torch.cat(parts, -1)

    def _named(self, beta: Tensor, observation: Observation) -> dict[str, Tensor]:
        k, lags = observation.n_variables, self.order * observation.n_variables
        params = {"intercept": beta[..., 0]}
        if observation.n_covariates:
            params["coefficients"] = beta[..., 1 + lags :]
        if self.order:
            params["autoregression"] = beta[..., 1 : 1 + lags].unflatten(-1, (self.order, k)).movedim(-2, -3)
        return params


class AutoregressiveNormal(NormalRegression):
    r"""x_t ~ N(intercept_z + sum_{l=1..order} autoregression_zl x_{t-l} + coefficients_z u_t, Sigma_z).

    The autoregressive hidden Markov model, or Markov switching autoregression; see ``NormalRegression``. The first
    ``order`` values are conditioned on; missing values raise, since they would be lags of later ones.

    Parameters
    ----------
    order : int
    covariance : {"diag", "full"}

    Examples
    --------
    >>> import probseq as ps
    >>> level = ps.datasets.lake_huron()
    >>> model = ps.HMM(1, ps.AutoregressiveNormal(order=1), random_state=0).fit(level)
    >>> round(model.score(level), 2)
    -1.08
    """

    def __init__(self, order: int = 1, covariance: str = "diag") -> None:
        super().__init__(order, covariance)

    def check_arguments(self) -> None:
        whole_number("order", self.order, 1, "NormalRegression has no earlier values.")
        super().check_arguments()


class PoissonRegression(ConditionalEmission):
    r"""x_t,i ~ Poisson(exp(intercept_zi + coefficients_zi u_t)), independent over the variables.

    Parameters: ``intercept`` (k,) and ``coefficients`` (k, m), on the scale of the logarithm of the rate.

    References
    ----------
    Zucchini, MacDonald and Langrock (2016), Hidden Markov models for time series, section 10.3.

    Examples
    --------
    >>> import numpy as np, probseq as ps
    >>> u = np.tile([0.0, 1.0], 20)
    >>> model = ps.HMM(1, ps.PoissonRegression(), random_state=0).fit(np.where(u == 1, 8, 4), covariates=u)
    >>> [round(float(model.params_[name].squeeze()), 2) for name in ("intercept", "coefficients")]
    [1.39, 0.69]
    """

    measure: ClassVar[str] = "counting"
    check = Poisson.check

    def parameters(self, observation: Observation, components: tuple[int, ...] = ()) -> dict[str, ParamSpec]:
        self._require_inputs(observation)
        k, m = observation.n_variables, observation.n_covariates
        state = ("state",) * len(components)
        return {
            "intercept": ParamSpec((*components, k), Real(), (*state, "variable"), unitless=True),
            "coefficients": ParamSpec((*components, k, m), Real(), (*state, "variable", "covariate"), unitless=True),
        }

    def condition(self, params: Params, inputs: Tensor, components: tuple[int, ...]) -> Distribution:
        beta = torch.cat([params["intercept"].unsqueeze(-1), params["coefficients"]], -1)
        return PoissonCounts(rate=_predict(beta, inputs).clamp(-_LARGEST_LOG_RATE, _LARGEST_LOG_RATE).exp())

    def flat_params(self, observation: Observation, x: Tensor, seen: Tensor) -> dict[str, Tensor]:
        mean = pooled_moments(x.unsqueeze(0), seen.unsqueeze(0)).mean
        k, m = observation.n_variables, observation.n_covariates
        return {"intercept": mean.clamp_min(1e-3).log(), "coefficients": torch.zeros(k, m, dtype=x.dtype)}

    def climb(
        self, observation: Observation, x: Tensor, seen: Tensor, weights: Tensor, inputs: Tensor, params: Params
    ) -> dict[str, Tensor]:
        """Damped Newton steps of the weighted log-linear model, for each state and variable by itself."""
        design = torch.cat([torch.ones_like(x[:, :1]), inputs], -1)
        centre, unit = _centre(design)
        design = (design - centre) / unit
        beta = _to_standard(torch.cat([params["intercept"].unsqueeze(-1), params["coefficients"]], -1), centre, unit)
        shares = weights.unsqueeze(-1) * seen.to(x.dtype).unsqueeze(1)

        def value(trial: Tensor) -> Tensor:
            eta = torch.einsum("dskq,rq->drsk", trial, design)
            return (shares * (x.unsqueeze(1) * eta - eta.exp())).sum(1)

        current = value(beta)
        for _ in range(_NEWTON_STEPS):
            rate = torch.einsum("dskq,rq->drsk", beta, design).exp()
            slope = torch.einsum("drsk,rq->dskq", shares * (x.unsqueeze(1) - rate), design)
            bend = torch.einsum("drsk,rq,rp->dskqp", shares * rate, design, design)
            size = bend.diagonal(dim1=-2, dim2=-1).amax(-1, keepdim=True).clamp_min(1e-12)
            move = torch.linalg.solve(bend + torch.diag_embed(_RIDGE * size.expand_as(slope)), slope)
            step = torch.ones_like(current)
            done = torch.zeros_like(current, dtype=torch.bool)
            for _ in range(_HALVINGS):
                trial = beta + torch.where(done, torch.zeros_like(step), step).unsqueeze(-1) * move
                new = value(trial)
                better = ~done & (new > current)
                beta = torch.where(better.unsqueeze(-1), trial, beta)
                current, done = torch.where(better, new, current), done | better
                step = 0.5 * step
            if not bool(done.any()):
                break
        plain = _from_standard(beta, centre, unit)
        return {"intercept": plain[..., 0], "coefficients": plain[..., 1:]}


def _predict(beta: Tensor, inputs: Tensor) -> Tensor:
    """(*draw, r, s, k) from weights (*draw, s, k, 1 + q) and inputs (*draw or 1s, r, q)."""
    s, k = beta.shape[-3:-1]
    flat = beta.flatten(-3, -2)
    values = inputs @ flat[..., 1:].mT + flat[..., 0].unsqueeze(-2)
    return values.unflatten(-1, (s, k))


def _centre(design: Tensor) -> tuple[Tensor, Tensor]:
    """Middle and spread of each column but the first, which is the intercept's."""
    centre, unit = design.mean(0), design.std(0, unbiased=False)
    first = torch.arange(design.shape[-1]) == 0
    centre = torch.where(first, torch.zeros_like(centre), centre)
    return centre, torch.where(first | (unit == 0), torch.ones_like(unit), unit)


def _to_standard(beta: Tensor, centre: Tensor, unit: Tensor) -> Tensor:
    scaled = beta * unit
    shift = (beta * centre).sum(-1, keepdim=True)
    return torch.cat([scaled[..., :1] + shift, scaled[..., 1:]], -1)


def _from_standard(beta: Tensor, centre: Tensor, unit: Tensor) -> Tensor:
    plain = beta / unit
    shift = (plain * centre).sum(-1, keepdim=True)
    return torch.cat([plain[..., :1] - shift, plain[..., 1:]], -1)


def _least_squares(design: Tensor, x: Tensor, mask: Tensor, weights: Tensor, previous: Tensor) -> Tensor:
    """argmin of sum_r w_r mask_rk (x_rk - beta_k z_r)^2, (D, s, k, 1 + q); as before where nothing is seen."""
    if bool((mask == mask[:, :1]).all()):
        shares = weights * mask[:, :1]
        return _least_squares_each(design, x[None, :, None, :], shares, previous)
    columns = []
    for j in range(x.shape[-1]):
        shares, target = weights * mask[:, j : j + 1], x[None, :, None, j : j + 1]
        columns.append(_least_squares_each(design, target, shares, previous[..., j : j + 1, :]))
    return torch.cat(columns, -2)


def _least_squares_each(design: Tensor, target: Tensor, weights: Tensor, previous: Tensor) -> Tensor:
    """Weighted least squares of targets (D or 1, r, s or 1, k) on rows (r, 1 + q) with weights (D, r, s)."""
    centre, unit = _centre(design)
    z = (design - centre) / unit
    # Around the previous fit, so that a large common level costs no digits.
    gap = target - _predict(previous, design[:, 1:])
    gram = torch.einsum("drs,rq,rp->dsqp", weights, z, z)
    cross = torch.einsum("drs,drsk,rq->dskq", weights, gap, z)
    size = gram.diagonal(dim1=-2, dim2=-1).amax(-1, keepdim=True).clamp_min(1e-12)
    gram = gram + torch.diag_embed((_RIDGE * size).expand(gram.shape[:-1]))
    move = torch.linalg.solve(gram.unsqueeze(-3), cross.unsqueeze(-1)).squeeze(-1)
    used = (weights.sum(1) > EMPTY)[..., None, None]
    return previous + torch.where(used, _from_standard(move, centre, unit), torch.zeros_like(previous))
