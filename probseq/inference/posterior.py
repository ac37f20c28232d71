"""The function that gradient-based inferences climb: a log posterior density over flat coordinates."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution

from probseq.distributions.params import Params, ParamSpec, Simplex, flatten, unflatten
from probseq.errors import ProbseqError
from probseq.inference.priors import log_prior
from probseq.inference.units import coordinate_units
from probseq.models.base import Batch, SequenceModel

__all__ = ["LogPosterior"]

# Numbers that the likelihoods of all points of one evaluation may keep (points x steps x states).
_TABLE = 4_000_000


class LogPosterior:
    r"""l(z) = sum_n w_n log p(x_n | theta(z)) + log p(theta(z)) [+ log \|d theta / d z\|], in nats.

    z are the unconstrained coordinates of the trainable parameters, as ``flatten`` gives them. Without priors it is the
    log-likelihood. The prior is a density of the parameters' own values; the last term makes it one of z.

    Parameters
    ----------
    model : SequenceModel
    batch : Batch
    weights : (n,) or None, of the sequences
    priors : distributions by name
    jacobian : bool
        Whether the last term is added.
    constants : values of the parameters that are not trainable, without draw dimensions
    """

    def __init__(
        self,
        model: SequenceModel[Any],
        batch: Batch,
        weights: Tensor | None = None,
        priors: Mapping[str, Distribution] | None = None,
        *,
        jacobian: bool = False,
        constants: Params | None = None,
    ) -> None:
        self.model, self.batch, self.weights = model, batch, weights
        self.specs: dict[str, ParamSpec] = dict(model.parameters())
        self.priors, self.jacobian = dict(priors or {}), jacobian
        self.constants = {name: v for name, v in (constants or {}).items() if not self.specs[name].trainable}
        self.count = float(max(1, int(batch.seen.sum())))
        states = max(1, int(getattr(model, "n_states", 1)))
        self._group = max(1, _TABLE // max(1, batch.n * batch.t * states))

    @cached_property
    def units(self) -> np.ndarray:
        """The units (m,) that the coordinates are measured in, see ``coordinate_units``."""
        return coordinate_units(self.specs, self.batch, self.model.observation.discrete)

    def flat(self, params: Params) -> Tensor:
        """Coordinates (m,) of values without draw dimensions."""
        return flatten(self.specs, params).detach().to(torch.float64)

    def params(self, flat: Tensor) -> dict[str, Tensor]:
        """Values of all parameters at coordinates (*draw, m)."""
        lead = flat.shape[:-1]
        fixed = {name: value.expand(*lead, *value.shape) for name, value in self.constants.items()}
        values = {**fixed, **unflatten(self.specs, flat.to(self.model.dtype))}
        return {name: values[name] for name in self.specs}

    def log_prior(self, params: Params) -> Tensor:
        """log p(theta), (*draw,); 0 without priors."""
        return log_prior(self.specs, self.priors, params)

    def log_likelihood(self, params: Params) -> Tensor:
        """Weighted log p(x | theta), (*draw,)."""
        each = self.model.log_prob_steps(params, self.batch).values.double().sum(-1)
        return each.sum(-1) if self.weights is None else (each * self.weights).sum(-1)

    def log_abs_det(self, flat: Tensor) -> Tensor:
        """log |d theta / d z| over the identified coordinates, (*draw,); probabilities against their log-ratios."""
        total = torch.zeros(flat.shape[:-1], dtype=flat.dtype)
        start = 0
        for spec in self.specs.values():
            if not spec.trainable:
                continue
            size = spec.constraint.size(spec.shape)
            block = flat[..., start : start + size]
            start += size
            if isinstance(spec.constraint, Simplex):
                free = spec.constraint.free(spec.shape)
                logits = block.reshape(*block.shape[:-1], *spec.shape)
                shut = torch.where(free, logits, torch.full_like(logits, -1e300))
                logs = torch.where(free, torch.log_softmax(shut, -1), torch.zeros_like(logits))
                total = total + logs.reshape(*block.shape[:-1], -1).sum(-1)
            elif size:
                total = total + spec.constraint.log_abs_det(block, spec.shape)
        return total

    def value(self, flat: Tensor) -> Tensor:
        """l at coordinates (D, m), (D,); differentiable."""
        params = self.params(flat)
        total = self.log_likelihood(params)
        if self.priors:
            total = total + self.log_prior(params)
        return total + self.log_abs_det(flat) if self.jacobian else total

    def evaluate(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """l (D,) and its gradients (D, m) at points (D, m); -inf and zeros where l is no number."""
        values, gradients = np.empty(len(points)), np.empty(points.shape)
        for start in range(0, len(points), self._group):
            part = slice(start, start + self._group)
            values[part], gradients[part] = self._evaluate(points[part])
        return values, gradients

    def _evaluate(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        flat = torch.as_tensor(points, dtype=torch.float64).requires_grad_(True)
        try:
            with torch.enable_grad():
                value = self.value(flat)
                (gradient,) = torch.autograd.grad(value.sum(), flat)
        except ProbseqError:
            raise
        except (torch.linalg.LinAlgError, ValueError):  # type: ignore[attr-defined]
            # A matrix without a factor, or a value that rounding put outside a support.
            if len(points) == 1:
                return np.full(1, -np.inf), np.zeros(points.shape)
            each = [self._evaluate(row[None]) for row in points]
            return np.concatenate([v for v, _ in each]), np.concatenate([g for _, g in each])
        values, gradients = value.detach().numpy().astype(float), gradient.numpy().astype(float)
        bad = ~np.isfinite(values) | ~np.isfinite(gradients).all(-1)
        values[bad], gradients[bad] = -np.inf, 0.0
        return values, gradients

    def objective(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        """-l / count and its gradient (m,), what a minimiser sees."""
        values, gradients = self.evaluate(x[None])
        return -float(values[0]) / self.count, -gradients[0] / self.count
