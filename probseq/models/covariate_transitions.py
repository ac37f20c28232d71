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

    Examples
    --------
    >>> import numpy as np, probseq as ps
    >>> wet = np.tile(np.repeat([0.0, 1.0], 10), 3)
    >>> x = np.where(wet == 1, 9.0, 0.0) + np.tile([0.1, -0.1, 0.2], 20)
    >>> model = ps.HMM(2, transitions=ps.CovariateTransitions(), random_state=0).fit(x, covariates=wet)
    >>> [round(model.forecast(1, covariates=[[u]]).mean().item()) for u in (0.0, 1.0)]
    [0, 9]
    """

    varying: ClassVar[bool] = True

    def __init__(self, mask: Any = None) -> None:
        super().__init__(mask)

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
        # Rows last: the softmax over a handful of states then runs along contiguous memory.
        design = torch.cat([torch.ones_like(u[:, :1]), u], -1).mT.contiguous()
        taken = pairs.permute(0, 2, 3, 1).contiguous()
        leaving = taken.sum(2, keepdim=True)
        theta = torch.cat([params["transition_intercept"].unsqueeze(-1), params["transition_coefficients"]], -1)
        s, q = theta.shape[-2], theta.shape[-1]
        kept = self._free(s).unsqueeze(-1).expand(s, s, q).reshape(s, s * q).to(theta.dtype)
        log_probs, value = self._evaluate(theta, design, taken)
        for _ in range(_STEPS):
            weight = leaving * log_probs.exp()
            gradient = ((taken - weight) @ design.mT).reshape(*theta.shape[:2], s * q, 1) * kept.unsqueeze(-1)
            system = self._curvature(weight, log_probs, design) * kept.unsqueeze(-1) * kept.unsqueeze(-2)
            scale = system.diagonal(dim1=-2, dim2=-1).amax(-1, keepdim=True).clamp_min(1e-12)
            system = system + torch.diag_embed((1.0 - kept) * scale + _RIDGE * scale)
            move = torch.linalg.solve(system, gradient).reshape(theta.shape)
            before = value
            theta, log_probs, value = self._line(theta, log_probs, value, move, design, taken)
            if not bool((value > before + 1e-10 * before.abs()).any()):
                break
        return {"transition_intercept": theta[..., 0], "transition_coefficients": theta[..., 1:]}

    @staticmethod
    def _curvature(weight: Tensor, log_probs: Tensor, design: Tensor) -> Tensor:
        """sum_r w_rj (1(j = k) - p_rk) d_r d_r^T over blocks (j, k), (D, s, s q, s q)."""
        draws, s = weight.shape[:2]
        q = design.shape[0]
        outer = (design.unsqueeze(1) * design).reshape(q * q, -1).mT
        blocks = torch.empty(draws, s, s, q, s, q, dtype=weight.dtype)
        for j in range(s):
            for k in range(j + 1):
                share = weight[:, :, j] * ((1.0 if j == k else 0.0) - log_probs[:, :, k].exp())
                block = (share @ outer).reshape(draws, s, q, q)
                blocks[:, :, j, :, k], blocks[:, :, k, :, j] = block, block
        return blocks.reshape(draws, s, s * q, s * q)

    def _line(
        self, theta: Tensor, log_probs: Tensor, value: Tensor, move: Tensor, design: Tensor, taken: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Halve the step of each row until its objective does not fall."""
        step = torch.ones_like(value)
        done = torch.zeros_like(value, dtype=torch.bool)
        for _ in range(_HALVINGS):
            trial = theta + torch.where(done, torch.zeros_like(step), step)[..., None, None] * move
            logs, new = self._evaluate(trial, design, taken)
            better = ~done & (new > value)
            theta = torch.where(better[..., None, None], trial, theta)
            log_probs = torch.where(better[..., None, None], logs, log_probs)
            value, done = torch.where(better, new, value), done | better
            # A row that gains nothing any more need not hold up the others.
            if bool((done | (step < 0.1)).all()):
                break
            step = 0.5 * step
        return theta, log_probs, value

    def _evaluate(self, theta: Tensor, design: Tensor, taken: Tensor) -> tuple[Tensor, Tensor]:
        """log P(j | i, u_r) (D, s, s, r), and the objective of each row (D, s)."""
        logits = theta @ design
        support = self.support(theta.shape[-2])
        if support is not None:
            logits = torch.where(support.unsqueeze(-1), logits, torch.full_like(logits, -torch.inf))
        log_probs = torch.log_softmax(logits, 2)
        used = taken > 0
        each = torch.where(used, taken * torch.where(used, log_probs, torch.zeros_like(log_probs)), 0.0)
        return log_probs, each.sum((2, 3))

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
