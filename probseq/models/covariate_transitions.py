"""Transitions of a hidden chain that covariates drive."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from probseq.distributions.params import Params, ParamSpec, Sparse
from probseq.errors import CovariateError, UnsupportedError
from probseq.models.transitions import Transitions

__all__ = ["CovariateTransitions"]

_STEPS = 3
_HALVINGS = 10
_RIDGE = 1e-8


class CovariateTransitions(Transitions):
    r"""P(z_t = j | z_{t-1} = i, u_t) = exp(a_ij + b_ij u_t) / sum_k exp(a_ik + b_ik u_t), a multinomial logit.

    u_t drives the transition into step t. Staying is the reference: a_ii = 0 and b_ii = 0 (the first possible state
    where a state may not follow itself). Parameters: ``transition_intercept`` a (s, s), ``transition_coefficients`` b
    (s, s, m) per unit of the covariate; forbidden entries are zeros that are not counted.

    Parameters
    ----------
    mask : (s, s) bool or None
        False forbids a transition at every step.

    References
    ----------
    Zucchini, MacDonald and Langrock (2016), Hidden Markov models for time series, section 10.4.
    """

    varying: ClassVar[bool] = True
    fixed: ClassVar[Any] = None

    def __init__(self, mask: Any = None) -> None:
        self.mask = mask

    def parameters(self, n_states: int, n_covariates: int = 0) -> dict[str, ParamSpec]:
        if n_covariates < 1:
            raise CovariateError(
                got="CovariateTransitions without covariates",
                expected="at least one covariate at every step",
                remedy="Pass covariates= to fit, or n_covariates= to with_parameters.",
            )
        shape, free = (n_states, n_states), self._free(n_states)
        slopes = free.unsqueeze(-1).expand(*shape, n_covariates)
        dims = ("state", "next_state")
        return {
            "transition_intercept": ParamSpec(shape, Sparse(free), dims),
            "transition_coefficients": ParamSpec((*shape, n_covariates), Sparse(slopes), (*dims, "covariate")),
        }

    def matrix(self, params: Params, u: Tensor | None = None) -> Tensor:
        """P(z_t | z_{t-1}, u_t), (*draw, *rows, s, s), for covariates u (*draw or 1s, *rows, m)."""
        if u is None:
            raise UnsupportedError(
                got="one transition matrix of a chain that covariates drive",
                expected="the covariates of a step",
                remedy="The matrix differs from step to step.",
            )
        intercept, slopes = params["transition_intercept"], params["transition_coefficients"]
        draw = intercept.ndim - 2
        between = (*intercept.shape[:draw], *(1,) * (u.ndim - 1 - draw))
        b = slopes.reshape(*between, *slopes.shape[draw:])
        logits = (b * u[..., None, None, :]).sum(-1) + intercept.reshape(*between, *intercept.shape[draw:])
        support = self.support(intercept.shape[-1])
        if support is not None:
            logits = torch.where(support, logits, torch.full_like(logits, -torch.inf))
        return torch.softmax(logits, -1)

    def from_matrix(self, matrix: Tensor, n_covariates: int = 0) -> dict[str, Tensor]:
        s = matrix.shape[-1]
        free = self._free(s)
        logs = matrix.clamp_min(1e-6).log()
        reference = logs.gather(-1, self._reference(s).expand(*logs.shape[:-1]).unsqueeze(-1))
        intercept = torch.where(free, logs - reference, torch.zeros_like(logs))
        slopes = torch.zeros(*matrix.shape, n_covariates, dtype=matrix.dtype)
        return {"transition_intercept": intercept, "transition_coefficients": slopes}

    def climb(self, pairs: Tensor, u: Tensor, params: Params) -> dict[str, Tensor]:
        r"""Raise sum_t sum_ij xi_t(i, j) log P(j | i, u_t) by damped Newton steps, for each row i by itself.

        Parameters
        ----------
        pairs : (D, r, s, s), p(z_{t-1} = i, z_t = j | x) of every step that follows another
        u : (r, m), their covariates
        """
        design = torch.cat([torch.ones_like(u[:, :1]), u], -1)
        theta = torch.cat([params["transition_intercept"].unsqueeze(-1), params["transition_coefficients"]], -1)
        s, q = theta.shape[-2], theta.shape[-1]
        free = self._free(s)
        value = self._value(theta, design, pairs)
        leaving = pairs.sum(-1)
        for _ in range(_STEPS):
            probs = self._probs(theta, design)
            gap = pairs - leaving.unsqueeze(-1) * probs
            gradient = torch.einsum("drij,rq->dijq", gap, design) * free.unsqueeze(-1)
            weight = leaving.unsqueeze(-1) * probs
            curvature = torch.zeros(*theta.shape[:2], s, q, s, q, dtype=theta.dtype)
            for j in range(s):
                for k in range(s):
                    each = -weight[..., j] * probs[..., k] + (weight[..., j] if j == k else 0.0)
                    curvature[:, :, j, :, k, :] = torch.einsum("dri,rq,rp->diqp", each, design, design)
            kept = free.unsqueeze(-1).expand(s, s, q).reshape(s, s * q).to(theta.dtype)
            system = curvature.reshape(*theta.shape[:2], s * q, s * q) * kept.unsqueeze(-1) * kept.unsqueeze(-2)
            scale = system.diagonal(dim1=-2, dim2=-1).amax(-1, keepdim=True).clamp_min(1e-12)
            system = system + torch.diag_embed((1.0 - kept) * scale + _RIDGE * scale)
            move = torch.linalg.solve(system, gradient.reshape(*theta.shape[:2], s * q, 1)).reshape(theta.shape)
            theta, value, moved = self._line(theta, value, move, design, pairs)
            if not moved:
                break
        return {"transition_intercept": theta[..., 0], "transition_coefficients": theta[..., 1:]}

    def _line(
        self, theta: Tensor, value: Tensor, move: Tensor, design: Tensor, pairs: Tensor
    ) -> tuple[Tensor, Tensor, bool]:
        """Halve the step of each row until its objective does not fall."""
        step = torch.ones_like(value)
        done = torch.zeros_like(value, dtype=torch.bool)
        for _ in range(_HALVINGS):
            trial = theta + torch.where(done, torch.zeros_like(step), step)[..., None, None] * move
            new = self._value(trial, design, pairs)
            better = ~done & (new > value)
            theta = torch.where(better[..., None, None], trial, theta)
            value, done = torch.where(better, new, value), done | better
            if bool(done.all()):
                break
            step = 0.5 * step
        return theta, value, bool(done.any())

    def _probs(self, theta: Tensor, design: Tensor) -> Tensor:
        """(D, r, s, s)."""
        logits = torch.einsum("dijq,rq->drij", theta, design)
        support = self.support(theta.shape[-2])
        if support is not None:
            logits = torch.where(support, logits, torch.full_like(logits, -torch.inf))
        return torch.softmax(logits, -1)

    def _value(self, theta: Tensor, design: Tensor, pairs: Tensor) -> Tensor:
        """The objective of each row, (D, s)."""
        return torch.xlogy(pairs, self._probs(theta, design)).sum((1, 3))

    def _reference(self, n_states: int) -> Tensor:
        support = self.support(n_states)
        own = torch.arange(n_states)
        if support is None:
            return own
        first = support.to(torch.int64).argmax(-1)
        return torch.where(support.diagonal(), own, first)

    def _free(self, n_states: int) -> Tensor:
        """Entries with parameters: possible, and not the reference of their row."""
        support = self.support(n_states)
        free = torch.ones(n_states, n_states, dtype=torch.bool) if support is None else support.clone()
        free[torch.arange(n_states), self._reference(n_states)] = False
        return free
