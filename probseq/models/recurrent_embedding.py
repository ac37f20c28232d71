"""Vectors that stand for the tokens a network reads: learnt, given, or given and kept."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from probseq.distributions.emissions import Observation
from probseq.errors import IncompatibleError, ParameterError, ShapeError
from probseq.models.recurrent_layout import Part

__all__ = ["Embedding", "embedding_of", "read_vectors"]


class Embedding:
    r"""v(c) = a row of a table for each category c, and one more row that means "nothing seen", for each variable.

    The rows that are learnt are one piece of the network's weights. Rows that were given and are ``frozen`` are
    constants, the same for all variables. What was given and is not frozen is where learning starts and where the
    prior has its mean.

    Parameters
    ----------
    n_variables, n_categories, size : int
    given : (n_categories, size) or None
        Known vectors, NaN in the rows of categories that have none.
    frozen : bool
        Whether the known vectors stay what they are.
    """

    def __init__(
        self, n_variables: int, n_categories: int, size: int, given: Tensor | None = None, frozen: bool = False
    ) -> None:
        self.n_variables, self.n_categories, self.size, self.given = n_variables, n_categories, size, given
        known = torch.zeros(n_categories, dtype=torch.bool) if given is None else ~given.isnan().any(-1)
        self.spread = 1.0 if given is None else max(float(given[known].square().mean().sqrt()), 1e-3)
        kept = known if frozen else torch.zeros_like(known)
        self.frozen = None if given is None or not kept.any() else given[kept]
        self.learnt = torch.nonzero(~kept).squeeze(-1)
        self.shape = (n_variables, len(self.learnt) + 1, size)
        # Kept rows come first in a table, then those learnt, then that of "nothing seen".
        order = torch.cat([torch.nonzero(kept).squeeze(-1), self.learnt])
        self.row = torch.cat([torch.argsort(order), torch.tensor([n_categories])])
        self._there: dict[torch.device, tuple[Tensor, Tensor | None]] = {}

    @property
    def part(self) -> Part:
        """The learnt rows, with their prior."""
        if self.given is None:
            return Part(self.shape, "embedding", self.spread)
        location = self.given.new_zeros(self.shape)
        location[:, :-1] = torch.nan_to_num(self.given[self.learnt])
        return Part(self.shape, "embedding", self.spread, location)

    def start(self, piece: Tensor, generator: torch.Generator) -> None:
        """Fill the learnt rows (k, rows, size): those given as they are, the others at random."""
        piece.normal_(0.0, self.size**-0.5 if self.given is None else self.spread, generator=generator)
        if self.given is not None:
            given = self.given[self.learnt].to(piece.dtype)
            piece[:, :-1] = torch.where(given.isnan(), piece[:, :-1], given)

    def read(self, piece: Tensor, x: Tensor, seen: Tensor) -> Tensor:
        """Vectors side by side, (*draw, ..., r * size), for codes (*draw, ..., r), r a multiple of the variables."""
        k, rows, size = self.shape
        place, frozen = self._on(x.device)
        n_kept = 0 if frozen is None else len(frozen)
        code = torch.where(seen, x, self.n_categories).long()
        at = place[code] - n_kept if n_kept else code
        index = at.clamp_min(0) + (torch.arange(k, device=x.device) * rows).repeat(x.shape[-1] // k)
        if piece.ndim > 3:
            draws = torch.arange(piece.shape[0], device=x.device) * k * rows
            index = index + draws.view(-1, *(1,) * (index.ndim - 1))
        found = torch.nn.functional.embedding(index, piece.reshape(-1, size))
        if frozen is not None:
            constant = torch.nn.functional.embedding((at + n_kept).clamp_max(n_kept - 1), frozen)
            found = torch.where((at < 0).unsqueeze(-1), constant, found)
        return found.flatten(-2)

    def scores(self, piece: Tensor, queries: Tensor) -> Tensor:
        """v(c) . q for the categories of every variable, (*draw, r, k, C), from q (*draw, r, k, size)."""
        place, frozen = self._on(queries.device)
        each = queries.movedim(-2, -3)
        parts = [torch.matmul(each, piece[..., :-1, :].mT)]
        if frozen is not None:
            parts.insert(0, torch.matmul(each, frozen.T))
        both = torch.cat(parts, -1) if len(parts) > 1 else parts[0]
        ordered = both if frozen is None else both.index_select(-1, place[:-1])
        return ordered.movedim(-3, -2)

    def _on(self, device: torch.device) -> tuple[Tensor, Tensor | None]:
        """Places of the rows and kept rows on a device."""
        if device not in self._there:
            self._there[device] = (self.row.to(device), None if self.frozen is None else self.frozen.to(device))
        return self._there[device]


def embedding_of(
    observation: Observation,
    hidden_size: int,
    size: int | None,
    given: Tensor | None,
    frozen: bool,
    dtype: torch.dtype,
) -> Embedding | None:
    """The embedding of categories; None for numbers, also beside categories, and for different numbers of categories.

    Raises
    ------
    ShapeError, ParameterError, IncompatibleError
        For vectors that do not fit the categories, and where there are no categories.
    """
    k, n_categories = observation.n_variables, observation.n_categories
    if isinstance(n_categories, tuple) and (given is not None or size is not None):
        raise IncompatibleError(
            got=f"an embedding for {n_categories} categories of the {k} variables",
            expected="categories in all variables, the same number in each",
            remedy="Leave embedding and embedding_size out: such categories enter as indicators.",
        )
    if given is None and frozen:
        raise ParameterError(
            got="freeze_embedding=True without an embedding",
            expected="known vectors to keep",
            remedy="Pass embedding=, or leave freeze_embedding out.",
        )
    if n_categories is None or isinstance(n_categories, tuple):
        if given is not None:
            raise IncompatibleError(
                got="an embedding for data without categories",
                expected="head=Categorical()",
                remedy="Leave embedding out.",
            )
        return None
    if given is not None and (given.ndim != 2 or given.shape[0] != n_categories or size not in (None, given.shape[1])):
        raise ShapeError(
            got=f"an embedding of shape {tuple(given.shape)} for {n_categories} categories"
            + (f" and embedding_size={size}" if size else ""),
            expected=f"({n_categories}, {size or 'size'})",
            remedy="Pass one vector a category; its length is the embedding_size.",
        )
    if size is None:
        size = min(hidden_size, n_categories) if given is None else int(given.shape[1])
    return Embedding(k, n_categories, size, None if given is None else given.to(dtype), frozen)


def read_vectors(
    given: Any, n_categories: int, tokens: Sequence[Hashable] | None, dtype: torch.dtype = torch.float32
) -> Tensor:
    """What a user passes as ``embedding=``, as (n_categories, size) with NaN in the rows of tokens without a vector.

    Parameters
    ----------
    given : array (n_categories, size), or mapping from tokens to vectors
    tokens : the tokens in the order of their codes; None where the codes are the keys themselves

    Raises
    ------
    ShapeError
        For a matrix that does not have one row a category, and vectors of different lengths.
    ParameterError
        For what holds no numbers, infinite numbers, or vectors of none of the tokens.
    """
    if not isinstance(given, Mapping):
        matrix = _numbers(given, "embedding")
        if matrix.ndim != 2 or matrix.shape[0] != n_categories or not matrix.shape[1]:
            raise ShapeError(
                got=f"an embedding of shape {tuple(matrix.shape)} for {n_categories} categories",
                expected=f"({n_categories}, size): one vector a category, in the order of the codes",
                remedy="Pass a mapping from tokens to vectors where the order is not known.",
            )
        return matrix.to(dtype)
    keys = list(range(n_categories)) if tokens is None else list(tokens)
    found = {code: _numbers(given[key], f"embedding[{key!r}]") for code, key in enumerate(keys) if key in given}
    if not found:
        raise ParameterError(
            got=f"an embedding with vectors of none of the {n_categories} tokens",
            expected="vectors of some of them",
            remedy=f"Its keys should be such as {keys[0]!r}.",
        )
    shapes = {tuple(vector.shape) for vector in found.values()}
    if len(shapes) > 1 or len(next(iter(shapes))) != 1 or not next(iter(shapes))[0]:
        raise ShapeError(got=f"vectors of shapes {sorted(shapes)}", expected="vectors of one length")
    matrix = torch.full((n_categories, next(iter(shapes))[0]), torch.nan, dtype=dtype)
    for code, vector in found.items():
        matrix[code] = vector.to(dtype)
    return matrix


def _numbers(value: Any, name: str) -> Tensor:
    try:
        array = torch.from_numpy(np.array(value, dtype=np.float64))
    except (TypeError, ValueError) as error:
        raise ParameterError(
            got=f"{name}={type(value).__name__} that holds no numbers", expected="numbers", remedy="Pass an array."
        ) from error
    if not bool(torch.isfinite(array).all()):
        raise ParameterError(
            got=f"{name} with values that are not finite",
            expected="finite numbers",
            remedy="Leave tokens without a vector out of a mapping; they start at random.",
        )
    return array
