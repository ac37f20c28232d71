"""The weights of a network by name: where they lie in one flat vector, and what is believed of them beforehand."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor

from probseq.errors import ParameterError
from probseq.kernels.cells import CELLS, CellLayout

__all__ = ["NetworkLayout", "Part", "Piece", "cell_parts", "check_sizes"]

_CELLS = "layers"


class Piece(NamedTuple):
    """Weights start .. stop-1 of the flat vector, which together have a shape.

    kind : {"embedding", "input", "recurrent", "bias", "norm", "attention", "head", "head_bias", "constant", "dense",
        "dense_bias"}
    """

    start: int
    stop: int
    shape: tuple[int, ...]
    kind: str


class Part(NamedTuple):
    """A piece before it has a place, and the location and scale of its normal prior (numbers or tensors)."""

    shape: tuple[int, ...]
    kind: str
    scale: float | Tensor
    location: float | Tensor = 0.0


def cell_parts(cells: CellLayout, block: str = _CELLS) -> dict[str, Part]:
    """The parts of stacked cells in the order of their flat vector: "layers.0.input", "layers.0.recurrent", ...

    A matrix has the prior scale 0.5 / sqrt(columns), a bias 0.3; the gain of a norm is near 1.
    """
    each = [("input", "input"), ("recurrent", "recurrent"), ("bias_input", "bias"), ("bias_recurrent", "bias")]
    names = [(f"{block}.{layer}.{name}", kind) for layer in range(cells.n_layers) for name, kind in each]
    if cells.layer_norm:
        names += [(f"{block}.{i}.norm_{name}", "norm") for i in range(cells.n_layers) for name in ("gain", "shift")]
    parts = {}
    for (name, kind), shape in zip(names, cells.shapes, strict=True):
        scale = 0.5 * shape[1] ** -0.5 if len(shape) > 1 else 0.3
        parts[name] = Part(shape, kind, scale, 1.0 if name.endswith("norm_gain") else 0.0)
    return parts


class NetworkLayout:
    """Parts laid one behind the other.

    Parameters
    ----------
    parts : mapping of name to Part, in order
    dtype : torch.dtype
        Of the prior.
    blocks : tuple of str
        First words of the names of stacked cells: ``split`` leaves the pieces of each such stack in one flat vector.

    Attributes
    ----------
    pieces : dict of name to Piece, in order
    location, scale : (m,), of the normal prior with independent coordinates
    """

    def __init__(self, parts: Mapping[str, Part], dtype: torch.dtype, blocks: tuple[str, ...] = (_CELLS,)) -> None:
        sizes = [math.prod(part.shape) for part in parts.values()]
        stops = list(accumulate(sizes))
        self.pieces = {
            name: Piece(stop - size, stop, part.shape, part.kind)
            for (name, part), size, stop in zip(parts.items(), sizes, stops, strict=True)
        }
        self.sizes, self.size = tuple(sizes), sum(sizes)
        self.location = _flat([(part.location, part.shape) for part in parts.values()], dtype)
        self.scale = _flat([(part.scale, part.shape) for part in parts.values()], dtype)
        # The cells stay one block: their kernel wants its weights in one piece of memory.
        self._groups: dict[str, tuple[int, tuple[int, ...]]] = {}
        for name, piece in self.pieces.items():
            size = piece.stop - piece.start
            block = name.partition(".")[0]
            if block in blocks:
                known = self._groups.get(block, (0, ()))[0]
                self._groups[block] = (known + size, (known + size,))
            else:
                self._groups[name] = (size, piece.shape)

    def split(self, weights: Tensor) -> dict[str, Tensor]:
        """Views (*draw, *shape) of (*draw, m) by name; each stack of cells is one flat vector, such as "layers"."""
        draw = weights.shape[:-1]
        views = weights.split([size for size, _ in self._groups.values()], -1)
        return {name: view.view(*draw, *shape) for view, (name, (_, shape)) in zip(views, self._groups.items())}

    def piece(self, weights: Tensor, name: str) -> Tensor:
        """One piece of (*draw, m) as a view (*draw, *shape)."""
        found = self.pieces[name]
        return weights[..., found.start : found.stop].view(*weights.shape[:-1], *found.shape)

    def within_cells(self, kind: str) -> tuple[slice, ...]:
        """Where the pieces of a kind lie in the flat vector of the cells."""
        cells = [piece for name, piece in self.pieces.items() if name.partition(".")[0] == _CELLS]
        return tuple(slice(p.start - cells[0].start, p.stop - cells[0].start) for p in cells if p.kind == kind)


def check_sizes(cell: Any, hidden_size: Any, n_layers: Any, embedding_size: Any, lags: Any) -> None:
    """Raise ``ParameterError`` for a cell that there is not, and for sizes and lags that are none."""
    if cell not in CELLS:
        raise ParameterError(got=f"cell={cell!r}", expected=f"one of {sorted(CELLS)}", remedy="Choose one of them.")
    for name, value in (("hidden_size", hidden_size), ("n_layers", n_layers), ("embedding_size", embedding_size)):
        if value is not None and (not isinstance(value, numbers.Integral) or value < 1):
            raise ParameterError(got=f"{name}={value!r}", expected="a whole number of 1 or more", remedy="Try 8.")
    listed = isinstance(lags, tuple | list) and bool(lags)
    whole = listed and all(
        isinstance(lag, numbers.Integral) and not isinstance(lag, bool) and int(lag) >= 1 for lag in lags
    )
    if not whole or len(set(lags)) < len(lags):
        raise ParameterError(
            got=f"lags={lags!r}", expected="different whole numbers of 1 or more, such as (1, 12)", remedy="Try (1,)."
        )


def _flat(values: list[tuple[float | Tensor, tuple[int, ...]]], dtype: torch.dtype) -> Tensor:
    whole = [torch.as_tensor(value, dtype=dtype).expand(shape).flatten() for value, shape in values]
    return torch.cat(whole)
