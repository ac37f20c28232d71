"""Where the matrices of a network start."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from probseq._types import one_of
from probseq.kernels.cells import CellLayout

__all__ = ["SCHEMES", "check_scheme", "start_attention", "start_cells"]

SCHEMES = ("uniform", "xavier", "he", "orthogonal")


def check_scheme(scheme: str) -> None:
    """Raise ``ParameterError`` for a scheme that there is not."""
    one_of("initialization", scheme, SCHEMES)


def start_cells(layout: CellLayout, flat: Tensor, scheme: str, generator: torch.Generator) -> None:
    """Fill the weights of stacked cells, (size,).

    "uniform" draws all weights between +- h^(-1/2), as torch does. The others draw each gate's block (h, i) of a matrix
    by itself, with biases of zero: "xavier" between +- sqrt(6 / (h + i)) (Glorot and Bengio 2010, eq. 16), "he" from
    N(0, 2 / i) (He et al. 2015, eq. 10), "orthogonal" with orthonormal rows or columns (Saxe et al. 2014). The bias of
    an LSTM's forget gate is 1 in all of them (Jozefowicz et al. 2015): it remembers by default.
    """
    n = layout.n_layers
    views = layout.views(flat)
    for view in views[: 4 * n]:
        if scheme == "uniform":
            bound = layout.hidden_size**-0.5
            view.uniform_(-bound, bound, generator=generator)
        elif view.ndim > 1:
            _fill(view, layout.gates, scheme, generator)
        else:
            view.zero_()
    for place, view in enumerate(views[4 * n :]):
        view.fill_(1.0 if place % 2 == 0 else 0.0)
    if layout.cell == "lstm":
        for layer in layout.layers(flat):
            layer.b_x.unflatten(0, (4, -1))[1] = 1.0


def start_attention(weights: Mapping[str, Tensor], scheme: str, generator: torch.Generator) -> None:
    """Fill the pieces of an attention in the same way; no lag is preferred."""
    for name in ("attention.query", "attention.key"):
        view = weights[name]
        if scheme == "uniform":
            view.uniform_(-(view.shape[-1] ** -0.5), view.shape[-1] ** -0.5, generator=generator)
        else:
            _fill(view, 1, scheme, generator)
    weights["attention.lag"].zero_()


def _fill(matrix: Tensor, gates: int, scheme: str, generator: torch.Generator) -> None:
    """Each of the gates' blocks, one below the other."""
    for block in matrix.chunk(gates):
        rows, columns = block.shape
        if scheme == "xavier":
            bound = math.sqrt(6.0 / (rows + columns))
            block.uniform_(-bound, bound, generator=generator)
        elif scheme == "he":
            block.normal_(0.0, math.sqrt(2.0 / columns), generator=generator)
        else:
            random = torch.randn(max(rows, columns), min(rows, columns), dtype=torch.float64, generator=generator)
            q, r = torch.linalg.qr(random)
            q = q * torch.sign(r.diagonal())  # without it the factors are not uniform over the orthogonal group
            block.copy_(q if rows >= columns else q.T)
