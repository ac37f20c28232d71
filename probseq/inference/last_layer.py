"""A normal law of the weights of a network's last layer, what it reads being fixed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize, minimize_scalar
from torch import Tensor

from probseq.distributions.params import unflatten
from probseq.errors import IncompatibleError, ParameterError
from probseq.inference.base import Draws
from probseq.inference.law_fits import log_prob_of_draws
from probseq.inference.weight_draws import WeightDraws
from probseq.models.base import Batch
from probseq.models.recurrent import RecurrentModel

__all__ = ["LastLayer", "LastLayerDraws", "check_last_layer", "fit_last_layer"]

# Weights of a last layer whose covariance is kept as a whole, and outputs whose curvature is found one by one.
_MOST_WEIGHTS, _MOST_OUTPUTS = 3000, 256
_ROUNDS, _SAME, _FEW = 30, 1e-3, 50
_SCALES = (1e-3, 1e3)
_PIECES = ("head.hidden", "head.direct", "head.bias")


@dataclass(frozen=True)
class LastLayerDraws(WeightDraws):
    """Draws of the last layer's weights, all other weights the same; ``objective`` is the log evidence.

    Parameters
    ----------
    prior_scale : float
        What multiplies the standard deviations of the last layer's prior.
    n_effective : float
        Number of its weights that the data determine, sum of l / (l + 1 / prior_scale^2) over the eigenvalues l of the
        likelihood's curvature in units of the prior.
    """

    prior_scale: float = 1.0
    n_effective: float = math.nan


class _Bend(NamedTuple):
    """Curvature of minus the log-likelihood in its eigenvectors: ``values`` (q, f), a basis of (q f) or of q and f."""

    values: Tensor
    basis: tuple[Tensor, ...]

    def rotate(self, w: Tensor) -> Tensor:
        """Coordinates (..., q, f) along the eigenvectors."""
        if len(self.basis) == 1:
            return (w.flatten(-2) @ self.basis[0]).view(w.shape)
        return self.basis[0].mT @ w @ self.basis[1]

    def back(self, w: Tensor) -> Tensor:
        """The inverse of ``rotate``."""
        if len(self.basis) == 1:
            return (w.flatten(-2) @ self.basis[0].mT).view(w.shape)
        return self.basis[0] @ w @ self.basis[1].mT


class LastLayer:
    r"""log p(x | W) = sum_r c_r log p(x_r | o_r), o_r = W z_r, over the steps r of all sequences with scored values.

    z_r is what the last layer reads: features, inputs and 1, each times the standard deviation of the prior of the
    weights that multiply it, so that the prior of W (q, f) is N(0, s^2) in every entry. All in double precision.

    Parameters
    ----------
    model : RecurrentModel
    vector : (m,)
        All weights.
    batch : Batch
    weights : (n,) or None
        Of the sequences, c.
    """

    def __init__(self, model: RecurrentModel, vector: Tensor, batch: Batch, weights: Tensor | None) -> None:
        params, scored = {"weights": vector}, batch.to_explain
        split, start = model._split(params), model.initial_state(params, batch.n)
        with torch.no_grad():
            ran = model._run(split, model._sequence_inputs(split, batch, start), batch, start)
        rows = scored.any(-1)
        reads = torch.cat([ran.features, ran.inputs, torch.ones_like(ran.features[..., :1])], -1)[rows].double()
        scale = torch.cat([_columns(model.weights.piece(model.weights.scale, name)) for name in _PIECES], -1)[0]
        self.model, self.scale = model, scale.double()
        self.reads = reads * self.scale
        self.x, self.seen = model._filled(batch.x, scored)[rows].double(), scored[rows]
        each = torch.ones(batch.n, dtype=torch.float64) if weights is None else weights.double()
        self.counts = each.unsqueeze(-1).expand(rows.shape)[rows]
        self.constants = {n: value.double() for n, value in split.items() if n.startswith("head.constant.")}
        start_weights = torch.cat([_columns(split[name]) for name in _PIECES], -1).double()
        self.start = start_weights / self.scale

    def score(self, outputs: Tensor, x: Tensor | None = None) -> tuple[float, Tensor]:
        """The log-likelihood and its gradient by the outputs (r, q); ``x`` (r, k) in place of the data."""
        outputs = outputs.detach().requires_grad_()
        with torch.enable_grad():
            law = self.model.output._law(outputs, self.constants)
            value = (law.log_prob_seen(self.x if x is None else x, self.seen) * self.counts).sum()
            (gradient,) = torch.autograd.grad(value, outputs)
        return float(value.detach()), gradient

    def value(self, w: Tensor) -> tuple[float, Tensor]:
        """The log-likelihood and its gradient (q, f)."""
        value, gradient = self.score(self.reads @ w.mT)
        return value, gradient.mT @ self.reads

    def climb(self, w: Tensor, precision: float, max_iter: int) -> Tensor:
        """The mode of the posterior under the prior N(0, 1 / precision), from w."""
        unit = max(1.0, float(self.counts.sum()))

        def cost(flat: np.ndarray) -> tuple[float, np.ndarray]:
            here = torch.from_numpy(flat).view(w.shape)
            value, gradient = self.value(here)
            total = 0.5 * precision * float(here.square().sum()) - value
            slope = (precision * here - gradient).flatten().numpy()
            return float(np.nan_to_num(total, nan=1e100, posinf=1e100)) / unit, np.nan_to_num(slope) / unit

        options = {"maxiter": max_iter, "maxfun": 2 * max_iter, "ftol": 1e-15, "gtol": 1e-10}
        start = w.flatten().numpy()
        found = minimize(cost, start, jac=True, method="L-BFGS-B", options=options)
        return torch.from_numpy(found.x).view(w.shape) if found.fun <= cost(start)[0] else w

    def bend(self, w: Tensor, structure: str, generator: torch.Generator) -> _Bend:
        """The curvature at w, where it is upwards, as a whole or as a product of that by outputs and that by reads."""
        outputs = self.reads @ w.mT
        if structure == "kronecker":
            weighted = self.reads * self.counts.unsqueeze(-1)
            of_reads = torch.linalg.eigh(self.reads.mT @ weighted)
            of_outputs = torch.linalg.eigh(self._mean_information(outputs, generator))
            values = of_outputs.eigenvalues.clamp_min(0).unsqueeze(-1) * of_reads.eigenvalues.clamp_min(0)
            return _Bend(values, (of_outputs.eigenvectors, of_reads.eigenvectors))
        (q, f), matrix = w.shape, []
        for j in range(q):
            row = self._second(outputs, j)
            matrix.append(torch.cat([(self.reads * row[:, i : i + 1]).mT @ self.reads for i in range(q)], -1))
        whole = torch.cat(matrix)
        found = torch.linalg.eigh(0.5 * (whole + whole.mT))
        return _Bend(found.eigenvalues.clamp_min(0).view(q, f), (found.eigenvectors,))

    def _second(self, outputs: Tensor, j: int) -> Tensor:
        """Minus the second derivatives by output j and any other, (r, q), as differences of gradients.

        Compiled densities have first derivatives only; the error is of the order of 1e-8.
        """
        step = torch.zeros_like(outputs)
        step[:, j] = 1e-4 * outputs[:, j].abs().clamp_min(1.0)
        upper, lower = outputs + step, outputs - step
        width = (upper - lower)[:, j : j + 1]
        return (self.score(lower)[1] - self.score(upper)[1]) / width

    def _mean_information(self, outputs: Tensor, generator: torch.Generator) -> Tensor:
        """The mean curvature by the outputs, (q, q); of many outputs that of values drawn from the law."""
        q, total = outputs.shape[-1], self.counts.sum()
        if q <= _MOST_OUTPUTS:
            found = torch.stack([self._second(outputs, j).sum(0) for j in range(q)]) / total
            return 0.5 * (found + found.mT)
        with torch.no_grad():
            x = self.model.output._law(outputs, self.constants).sample(generator=generator)
        scores = self.score(outputs, x.to(outputs.dtype))[1]
        return scores.mT @ (scores / self.counts.clamp_min(1e-12).unsqueeze(-1)) / total

    def vectors(self, w: Tensor, vector: Tensor) -> Tensor:
        """All weights (d, m), those of the last layer from (d, q, f)."""
        found = vector.repeat(len(w), 1)
        first = 0
        for name in _PIECES:
            piece = self.model.pieces[name]
            width = 1 if name == "head.bias" else piece.shape[1]
            own = (w * self.scale)[..., first : first + width]
            found[:, piece.start : piece.stop] = own.flatten(1).to(vector.dtype)
            first += width
        return found


def fit_last_layer(
    model: RecurrentModel,
    body: Draws,
    batch: Batch,
    generator: torch.Generator,
    n_draws: int,
    structure: str,
    prior_scale: float | str,
    max_iter: int,
    weights: Tensor | None,
) -> LastLayerDraws:
    """Draws around the mode of the last layer's posterior, the other weights as in ``body``, which is one draw."""
    vector = body.params["weights"][0]
    layer = LastLayer(model, vector, batch, weights)
    w, precision = layer.start, 1.0 if prior_scale == "learnt" else float(prior_scale) ** -2
    for _ in range(_ROUNDS if prior_scale == "learnt" else 0):
        w = layer.climb(w, precision, min(max_iter, _FEW))  # each round goes on where the last one came to
        before, precision = precision, _best_precision(w, layer.bend(w, structure, generator))
        if abs(math.log(precision / before)) < _SAME:
            break
    w = layer.climb(w, precision, max_iter)
    bend = layer.bend(w, structure, generator)
    w = _polished(layer, w, bend, precision)
    spread = (bend.values + precision).rsqrt()
    noise = torch.randn((n_draws, *w.shape), dtype=torch.float64, generator=generator)
    drawn = layer.vectors(w + bend.back(spread * noise), vector)
    params = unflatten(model.parameters(), drawn)
    total = log_prob_of_draws(model, params, batch, weights)
    log_det, squares = float((bend.values / precision + 1).log().sum()), precision * float(w.square().sum())
    evidence = layer.value(w)[0] - 0.5 * squares - 0.5 * log_det
    effective = float((bend.values * spread.square()).sum())
    return LastLayerDraws(
        params,
        log_prob=float(torch.logsumexp(total, 0) - math.log(n_draws)),
        objective=evidence,
        status=body.status,
        n_iter=body.n_iter,
        trace=body.trace,
        optima=np.asarray([evidence]),
        point=unflatten(model.parameters(), layer.vectors(w.unsqueeze(0), vector)),
        divergence=0.5 * (log_det - effective + squares),
        prior_scale=precision**-0.5,
        n_effective=effective,
    )


def check_last_layer(model: RecurrentModel, structure: str) -> None:
    """Raise for last layers that have no such law, or are too large for the structure."""
    if model.output.tied is not None:
        raise IncompatibleError(
            got="a last layer that is tied to the embedding",
            expected="tie_embeddings=False",
            remedy="MeanField and SGLD fit tied embeddings.",
        )
    if not model.head.is_likelihood:
        raise IncompatibleError(
            got=f"head={model.head!r}, which has no likelihood", expected="a head with a density that bends"
        )
    size = model.output.n_outputs * (model.n_features + model.inputs.size + 1)
    if structure == "full" and size > _MOST_WEIGHTS:
        raise ParameterError(
            got=f'structure="full" for {size} weights of the last layer',
            expected=f"at most {_MOST_WEIGHTS}",
            remedy='Use structure="kronecker".',
        )


def _best_precision(w: Tensor, bend: _Bend) -> float:
    """The precision of the prior with the highest evidence while the mode and the curvature stay what they are."""
    squares = float(w.square().sum())

    def cost(log_scale: float) -> float:
        precision = math.exp(-2 * log_scale)
        return precision * squares + float((bend.values / precision + 1).log().sum())

    bounds = (math.log(_SCALES[0]), math.log(_SCALES[1]))
    found = minimize_scalar(cost, bounds=bounds, method="bounded", options={"xatol": 1e-8})
    return math.exp(-2 * float(found.x))


def _polished(layer: LastLayer, w: Tensor, bend: _Bend, precision: float) -> Tensor:
    """One step of Newton's method from w, where it leads up."""
    value, gradient = layer.value(w)
    move = bend.back(bend.rotate(gradient - precision * w) / (bend.values + precision))
    reached = layer.value(w + move)[0] - 0.5 * precision * float((w + move).square().sum())
    return w + move if reached >= value - 0.5 * precision * float(w.square().sum()) else w


def _columns(value: Tensor) -> Tensor:
    """A matrix, also of a vector."""
    return value if value.ndim > 1 else value.unsqueeze(-1)
