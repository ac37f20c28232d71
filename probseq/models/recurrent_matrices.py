"""The matrices of a network's layers: their spectra, and the nearest matrices of low rank."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from probseq.distributions.params import Params
from probseq.models.recurrent import RecurrentModel

__all__ = [
    "GATES",
    "Factors",
    "eigenvalues",
    "factorise",
    "lost_parameters",
    "recurrent_matrices",
    "relative_error",
    "saved_numbers",
    "truncated",
]

GATES: dict[str, tuple[str, ...]] = {
    "rnn": ("new",),
    "relu": ("new",),
    "gru": ("reset", "keep", "new"),
    "lstm": ("input", "forget", "new", "output"),
}
"""What the blocks of rows of the matrices of a cell are for, in their order."""

_FINE = 2.0**40


class Factors(NamedTuple):
    """W = left diag(singular) right; left (*draw, m, r), singular (*draw, r) from the largest, right (*draw, r, n)."""

    left: Tensor
    singular: Tensor
    right: Tensor


def recurrent_matrices(model: RecurrentModel, params: Params, layer: int) -> Tensor:
    """U of each gate of a layer, by which h_{t-1} is multiplied, (*draw, gate, h, h) float64."""
    stacked = model.piece(params, f"layers.{layer}.recurrent").double()
    return stacked.unflatten(-2, (model.layout.gates, model.layout.hidden_size))


def eigenvalues(matrices: Tensor) -> Tensor:
    """Complex eigenvalues (..., h) of (..., h, h): the largest modulus first, then the smallest angle, +i before -i."""
    found = torch.linalg.eigvals(matrices)
    size = found.abs()
    unit = size.amax(-1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
    # Rounding must not tell apart what is equal, such as the moduli of a conjugate pair.
    order = torch.arange(found.shape[-1]).expand(found.shape)
    for key in (-found.imag, found.angle().abs(), -size / unit):
        order = order.gather(-1, torch.argsort((key * _FINE).round().gather(-1, order), dim=-1, stable=True))
    return found.gather(-1, order)


def factorise(model: RecurrentModel, params: Params, *, inputs: bool = True) -> dict[str, Factors]:
    """Singular value decompositions by the names of the pieces: recurrent matrices, and input matrices if wanted.

    The gates of a layer are one matrix (rows of all gates), whose factors they share.
    """
    found = {}
    for name, piece in model.pieces.items():
        if piece.kind == "recurrent" or (inputs and piece.kind == "input"):
            found[name] = Factors(*torch.linalg.svd(model.piece(params, name).double(), full_matrices=False))
    return found


def truncated(model: RecurrentModel, params: Params, factors: Mapping[str, Factors], rank: int) -> dict[str, Tensor]:
    r"""The parameters with sum_{i < rank} s_i u_i v_i' in place of each matrix W.

    Of all matrices of that rank it is the nearest to W, in the spectral norm and in that of Frobenius, where its
    squared distance is sum_{i >= rank} s_i^2. Matrices whose rank is not larger stay as they are, to the last bit.

    References
    ----------
    Eckart and Young (1936), The approximation of one matrix by another of lower rank, Psychometrika 1.
    """
    weights = params["weights"].clone()
    for name, (left, singular, right) in factors.items():
        if rank < singular.shape[-1]:
            near = (left[..., :rank] * singular[..., None, :rank]) @ right[..., :rank, :]
            piece = model.pieces[name]
            weights[..., piece.start : piece.stop] = near.flatten(-2).to(weights.dtype)
    return {**params, "weights": weights}


def relative_error(factors: Mapping[str, Factors], rank: int) -> float:
    """|| W - W_rank || / || W || in Frobenius' norm, over all matrices and draws together; 0 where all W are zero."""
    lost = sum(float(one.singular[..., rank:].square().sum()) for one in factors.values())
    whole = sum(float(one.singular.square().sum()) for one in factors.values())
    return math.sqrt(lost / whole) if whole else 0.0


def saved_numbers(factors: Mapping[str, Factors], rank: int) -> int:
    """How many numbers fewer a draw needs where each matrix (m, n) is two factors of r (m + n) numbers, if fewer."""
    return sum(max(0, m * n - rank * (m + n)) for m, n in _cut(factors, rank))


def lost_parameters(factors: Mapping[str, Factors], rank: int) -> int:
    """sum (m - r) (n - r): the dimensions that matrices of rank r have fewer than all."""
    return sum((m - rank) * (n - rank) for m, n in _cut(factors, rank))


def _cut(factors: Mapping[str, Factors], rank: int) -> list[tuple[int, int]]:
    """Shapes of the matrices of larger rank."""
    shapes = [(one.left.shape[-2], one.right.shape[-1]) for one in factors.values()]
    return [shape for shape in shapes if rank < min(shape)]
