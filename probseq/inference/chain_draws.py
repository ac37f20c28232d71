"""Draws of Markov chain Monte Carlo, which know their chains."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Self

from torch import Tensor

from probseq.inference.base import Draws
from probseq.inference.diagnostics import ChainDiagnostics, chain_diagnostics

__all__ = ["ChainDraws"]


@dataclass(frozen=True)
class ChainDraws(Draws):
    """Draws of several chains, chain after chain, and how well the chains agree.

    Parameters
    ----------
    n_chains : int
    diagnostics : ChainDiagnostics
        R-hat and effective sample sizes of every parameter, after relabelling.
    permutation : (n_draws, s) int64 or None
        What relabelling did: state i of a draw was its state ``[draw, i]`` in the chain.
    """

    n_chains: int = 1
    diagnostics: ChainDiagnostics = field(default_factory=lambda: ChainDiagnostics({}, {}, {}))
    permutation: Tensor | None = None

    def renamed(self, params: dict[str, Tensor], order: Tensor) -> Self:
        before = self.permutation
        return replace(
            self,
            params=params,
            diagnostics=chain_diagnostics(params, self.n_chains),
            permutation=order if before is None else before.gather(-1, order),
        )
