"""What a network reads at each step: past values in a form that suits it, and covariates."""

from __future__ import annotations

import torch
from torch import Tensor

from probseq.distributions.emissions import Emission, Observation
from probseq.errors import CovariateError
from probseq.models.recurrent_embedding import Embedding

__all__ = ["Inputs"]


class Inputs:
    """z_t = (x_{t-l}, which of it was seen, for lags l; u_t).

    Numbers enter as they are, counts and positive values as sign(x) log(1 + |x|), bits as -1 and 1 (0 where missing),
    categories as the vectors of an embedding; as indicators (all 0 where missing) beside numbers, or where variables
    have different numbers of them.

    Parameters
    ----------
    head : Emission
    observation : Observation
    n_lags, n_covariates : int
    embedding : Embedding or None
        For categories.
    """

    def __init__(
        self, head: Emission, observation: Observation, n_lags: int, n_covariates: int, embedding: Embedding | None
    ) -> None:
        self.n_covariates, self.embedding, self.bits = n_covariates, embedding, head.binary
        whole = head.shiftable
        each = whole if isinstance(whole, tuple) else (whole,) * observation.n_variables
        # Counts and positive values may be large, and no transform has scaled them.
        self._as_they_are = torch.tensor(each).repeat(n_lags)
        n_read = observation.n_variables * n_lags
        mixed = isinstance(observation.n_categories, tuple)
        self._categories = observation.categories * n_lags if mixed else ()
        if mixed:
            self.size = sum(2 if size is None else size for size in self._categories) + n_covariates
        elif embedding is not None:
            self.size = n_read * embedding.size + n_covariates
        else:
            self.size = (n_read if self.bits else 2 * n_read) + n_covariates

    def __call__(self, table: Tensor | None, x: Tensor, seen: Tensor, u: Tensor | None) -> Tensor:
        """z_t from the values read (*draw, n, r) and u_t (*draw, n, m) or (n, m), as (*draw, n, size).

        Raises
        ------
        CovariateError
            Where the covariates are not those of the fit.
        """
        if self.embedding is not None and table is not None:
            parts = [self.embedding.read(table, x, seen)]
        elif self.bits:
            parts = [torch.where(seen, 2 * x - 1, 0.0)]
        else:
            size = torch.where(
                self._as_they_are.to(x.device, non_blocking=True), x, torch.sign(x) * torch.log1p(x.abs())
            )
            parts = [torch.where(seen, size, 0.0), seen.to(x.dtype)]
            if self._categories:
                parts = [self._column(i, x, seen, *parts) for i in range(x.shape[-1])]
        if self.n_covariates:
            if u is None or u.shape[-1] != self.n_covariates:
                raise CovariateError(
                    got="no covariates" if u is None else f"{u.shape[-1]} covariates",
                    expected=f"{self.n_covariates} covariates at every step",
                    remedy="Pass covariates= with the columns of the fit.",
                )
            parts.append(u.to(x.dtype).expand(*x.shape[:-1], self.n_covariates))
        return torch.cat(parts, -1)

    def _column(self, i: int, x: Tensor, seen: Tensor, size: Tensor, known: Tensor) -> Tensor:
        """A number and whether it was seen, or the indicators of a category, (*draw, n, 2) or (*draw, n, C)."""
        n_categories = self._categories[i]
        if n_categories is None:
            return torch.stack([size[..., i], known[..., i]], -1)
        codes = torch.arange(n_categories, device=x.device, dtype=x.dtype)
        return ((x[..., i : i + 1] == codes) & seen[..., i : i + 1]).to(x.dtype)
