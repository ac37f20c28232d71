"""Observed information: how sharply a log density bends at a point, and the errors that follow from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution

from probseq.distributions.params import Params, ParamSpec, Real, Simplex, Sparse, unflatten
from probseq.inference.coordinates import Coordinates
from probseq.inference.posterior import LogPosterior
from probseq.inference.priors import checked_priors
from probseq.models.base import Batch, SequenceModel

__all__ = ["Information", "curvature", "information", "observed_information", "standard_errors"]

# A probability whose logit has less information than this (in nats) lies on the boundary.
_BOUNDARY = 1e-3
# Directions with less information than this, relative to coordinates of unit information, are not determined.
_FLAT = 1e-9
# In the units of the coordinates, but the narrowest, which is relative to their size.
_FIRST_STEP, _STEP, _WIDEST, _NARROWEST = 1e-4, 1e-3, 1e-2, 1e-12
_ROUNDS = 4
_LARGE_PART = 0.05
_DEPENDS = 1e-3


class Information(NamedTuple):
    """Observed information at a point.

    matrix : (m, m), minus the Hessian over the flat unconstrained coordinates, rows of probabilities centred.
    covariance : (m, m), its inverse; NaN for coordinates that the data do not determine.
    messages : what keeps it from being positive definite, in words.
    """

    matrix: np.ndarray
    covariance: np.ndarray
    messages: tuple[str, ...]


def observed_information(
    model: SequenceModel[Any],
    params: Params,
    batch: Batch,
    weights: Tensor | None = None,
    priors: Mapping[str, Distribution] | None = None,
) -> Information:
    r"""I = -d^2 [log p(x | theta(z)) + log p(theta)] / dz dz' at a point, and its inverse.

    By central differences of the analytic gradient, a thousandth of a standard deviation wide, symmetrised.

    Parameters
    ----------
    model : SequenceModel with a differentiable likelihood
    params : the point, with one draw (1, *spec.shape) or none
    batch, weights : the data and the weights of the sequences
    priors : distributions by the name of a parameter; those of the specifications count too

    Notes
    -----
    A probability on its boundary (an initial state that is certain, a transition that never happens) has no standard
    error: its coordinate stays where it is and is NaN in the covariance, and the other parameters are treated as if it
    were known.
    """
    specs = model.parameters()
    one = {n: v[0] if v.ndim > len(specs[n].shape) else v for n, v in params.items()}
    target = LogPosterior(model, batch, weights, checked_priors(specs, priors), constants=one)
    return information(target, target.flat(one).numpy())


def information(target: LogPosterior, flat: np.ndarray) -> Information:
    """Observed information of a target at flat coordinates (m,), see ``observed_information``."""
    coordinates = Coordinates(target.specs, flat)
    matrix = curvature(target, coordinates, flat[coordinates.index])
    still = _on_boundary(target.specs, coordinates, np.diag(matrix))
    if still.any():
        inner = Coordinates(target.specs, flat, still)
        kept = np.searchsorted(coordinates.index, inner.index)
        matrix, coordinates = matrix[np.ix_(kept, kept)], inner
    covariance, free, messages = _inverse(matrix, [str(o) for o in coordinates.owner[coordinates.index]])
    whole = coordinates.spread(covariance)
    unknown = _unmoved(target.specs, coordinates)
    unknown[coordinates.index[~free]] = True
    whole[unknown] = np.nan
    whole[:, unknown] = np.nan
    return Information(_centred(matrix, coordinates), whole, messages)


def curvature(target: LogPosterior, coordinates: Coordinates, z: np.ndarray) -> np.ndarray:
    """Minus the Hessian of the target over the coordinates at z (r,), (r, r)."""
    unit = target.units[coordinates.index]
    # Only coordinates that are their own values may go far; the maps of the others bend over a step of one.
    linear = {name for name, spec in target.specs.items() if isinstance(spec.constraint, Real | Sparse)}
    bends = np.array([owner not in linear for owner in coordinates.owner[coordinates.index]], dtype=bool)
    step = _FIRST_STEP * unit
    rows = np.arange(z.size)
    matrix = np.zeros((z.size, z.size))
    for _ in range(_ROUNDS):
        # A step below the rounding of the coordinate is none.
        step = np.maximum(step, _NARROWEST * np.abs(z))
        matrix[rows] = _differences(target, coordinates, z, step[rows], rows)
        with np.errstate(divide="ignore", invalid="ignore"):
            wanted = _STEP / np.sqrt(np.abs(np.diag(matrix)))
        wanted = np.where(bends, np.minimum(wanted, _WIDEST * unit), wanted)
        rows = np.flatnonzero(np.isfinite(wanted) & ((step > 10 * wanted) | (step < 0.1 * wanted)))
        if not rows.size:
            break
        step[rows] = wanted[rows]
    return 0.5 * (matrix + matrix.T)


def _differences(
    target: LogPosterior, coordinates: Coordinates, z: np.ndarray, step: np.ndarray, rows: np.ndarray
) -> np.ndarray:
    moves = np.zeros((rows.size, z.size))
    moves[np.arange(rows.size), rows] = step
    up, down = z + moves, z - moves
    width = (up - down)[np.arange(rows.size), rows]
    gradients = target.evaluate(coordinates.flat(np.concatenate([up, down])))[1][:, coordinates.index]
    return -(gradients[: rows.size] - gradients[rows.size :]) / width[:, None]


def _on_boundary(specs: Mapping[str, ParamSpec], coordinates: Coordinates, diagonal: np.ndarray) -> np.ndarray:
    """Coordinates of probabilities that next to nothing in the data speaks about, (m,) bool."""
    simplexes = {name for name, spec in specs.items() if isinstance(spec.constraint, Simplex)}
    bends = np.full(coordinates.centre.size, np.inf)
    bends[coordinates.index] = diagonal
    of_simplex = np.array([owner in simplexes for owner in coordinates.owner], dtype=bool)
    return of_simplex & (np.abs(bends) < _BOUNDARY)


def _unmoved(specs: Mapping[str, ParamSpec], coordinates: Coordinates) -> np.ndarray:
    """Coordinates (m,) of free parameters that were held at the centre, other than those of a moving row."""
    still = np.ones(coordinates.centre.size, dtype=bool)
    still[coordinates.index] = False
    still &= coordinates._rows < 0
    start = 0
    for spec in specs.values():
        if not spec.trainable:
            continue
        block = slice(start, start + spec.constraint.size(spec.shape))
        start = block.stop
        if isinstance(spec.constraint, Simplex):
            free = spec.constraint.free(spec.shape)
            still[block] &= (free & (free.sum(-1, keepdim=True) > 1)).numpy().ravel()
    return still


def _inverse(matrix: np.ndarray, owners: list[str]) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Inverse over the directions that have information, which coordinates have none of the others, and a message."""
    # What has no finite curvature is not determined.
    matrix = np.where(np.isfinite(matrix).all(0) & np.isfinite(matrix).all(1)[:, None], matrix, 0.0)
    diagonal = np.diag(matrix)
    unit = 1.0 / np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
    values, vectors = np.linalg.eigh(matrix * unit * unit[:, None]) if matrix.size else (diagonal, matrix)
    good = values > _FLAT
    inverse = (vectors[:, good] / values[good]) @ vectors[:, good].T * unit * unit[:, None]
    free = np.square(vectors[:, ~good]).sum(-1) < _LARGE_PART if matrix.size else np.ones(0, dtype=bool)
    if good.all():
        return inverse, free, ()
    names = sorted({owner for owner, well in zip(owners, free) if not well} or set(owners))
    message = (
        f"The observed information is not positive definite: {int((~good).sum())} of {good.size} directions, in "
        f"{', '.join(names)}, are not determined by the data (or the fit stopped before its maximum); their standard "
        "errors are NaN."
    )
    return inverse, free, (message,)


def _centred(matrix: np.ndarray, coordinates: Coordinates) -> np.ndarray:
    """The information over all flat coordinates: what moves the pivot of a row moves the others backwards."""
    m = coordinates.centre.size
    whole = np.zeros((m, m))
    whole[np.ix_(coordinates.index, coordinates.index)] = matrix
    for row in range(coordinates.n_rows):
        members = np.flatnonzero(coordinates._rows == row)
        if members.size:
            moving = np.isin(members, coordinates.index)
            pivot, others = members[~moving], members[moving]
            whole[pivot] = -whole[others].sum(0)
            whole[:, pivot] = -whole[:, others].sum(1, keepdims=True)
    return whole


def standard_errors(specs: Mapping[str, ParamSpec], params: Params, covariance: np.ndarray) -> dict[str, Tensor]:
    r"""sqrt(diag(J C J')), J = d theta / d z: the delta method, for every parameter in its own shape.

    Parameters
    ----------
    specs : of the model
    params : the point, without draw dimensions
    covariance : (m, m), of the flat unconstrained coordinates; NaN where one is not determined

    Returns
    -------
    Values of ``spec.shape``: NaN where they depend on a coordinate that is not determined, 0 for constants and
    structural zeros.
    """
    moved = {name: spec for name, spec in specs.items() if spec.trainable}
    errors = {name: torch.zeros(spec.shape, dtype=torch.float64) for name, spec in specs.items()}
    unknown = np.isnan(np.diag(covariance))
    known = np.where(unknown | unknown[:, None], 0.0, covariance)
    start = 0
    for name, spec in moved.items():
        size = spec.constraint.size(spec.shape)
        block = slice(start, start + size)
        start += size
        if not size:
            continue
        centre = spec.constraint.unconstrain(params[name], spec.shape).double()

        def natural(flat: Tensor, name: str = name, spec: ParamSpec = spec) -> Tensor:
            return unflatten({name: spec}, flat)[name].reshape(-1)

        jacobian = torch.autograd.functional.jacobian(natural, centre).numpy()
        variance = np.einsum("ij,jk,ik->i", jacobian, known[block, block], jacobian)
        reach = np.abs(jacobian)
        lost = (reach[:, unknown[block]] > _DEPENDS * reach.max(-1, keepdims=True, initial=0.0)).any(-1)
        error = np.where(lost, np.nan, np.sqrt(variance.clip(0.0)))
        errors[name] = torch.from_numpy(error).reshape(spec.shape)
    return errors
