"""Capabilities of models with latent states; ask with ``isinstance``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from probseq.distributions.base import Distribution
from probseq.distributions.params import Params
from probseq.models.base import Batch

__all__ = [
    "DiscreteLatent",
    "EMStep",
    "ExpectationMaximization",
    "LeftOut",
    "StatePaths",
    "VariationalExpectation",
    "VariationalStart",
]


class StatePaths(NamedTuple):
    """Most probable state paths.

    states : (*draw, n, t) int64, -1 on padding.
    log_prob : (*draw, n), log p(x_1:T, z_1:T) in nats.
    """

    states: Tensor
    log_prob: Tensor


class LeftOut(NamedTuple):
    """What the other steps say about a step.

    probs : (*draw, n, t, s), p(z_t | x_u for all u != t); zero on padding.
    log_prob : (*draw, n, t), log p(x_u for all u != t) in nats.
    """

    probs: Tensor
    log_prob: Tensor


class DiscreteLatent(ABC):
    """Capability of a model whose latent state z_t takes one of ``n_states`` values.

    ``state=None`` starts new sequences in every method.
    """

    n_states: int
    known_start: Tensor | None = None
    """The law of the first state (s,), where it is known rather than a parameter."""

    @abstractmethod
    def state_laws(self, params: Params, batch: Batch | None = None) -> Distribution:
        """p(x_t | z_t = j), batch shape (*draw, n, t, s); (*draw, s) without a batch, where all steps share the laws.

        Raises
        ------
        UnsupportedError
            Without a batch, where the laws depend on covariates or on values before.
        """

    @abstractmethod
    def leave_one_out(self, params: Params, batch: Batch, state: Any = None) -> LeftOut:
        """p(z_t | x_u for all u != t) for every t, exact."""

    @abstractmethod
    def expected_transitions(self, params: Params, batch: Batch, state: Any = None) -> Tensor:
        """E[number of moves from i to j | x_1:T], (*draw, n, s, s)."""

    @abstractmethod
    def expected_durations(self, params: Params) -> Tensor:
        """E[steps that a visit of a state lasts], (*draw, s)."""

    @abstractmethod
    def permute_state(self, state: Any, permutation: Tensor) -> Any:
        """A state of the sequence model (leaves (*draw, n, ...)) where latent state i is the old ``permutation[i]``.

        ``permutation`` is (*draw, s), as in `probseq.models.relabel.permute_states`.
        """

    @abstractmethod
    def filter_states(self, params: Params, batch: Batch, state: Any = None) -> Tensor:
        """p(z_t | x_1:t), (*draw, n, t, s), exact; zero on padding."""

    @abstractmethod
    def smooth(self, params: Params, batch: Batch, state: Any = None) -> Tensor:
        """p(z_t | x_1:T), (*draw, n, t, s), exact; zero on padding."""

    @abstractmethod
    def decode(self, params: Params, batch: Batch, state: Any = None, k: int | None = None) -> StatePaths:
        """argmax over z_1:T of p(z_1:T | x_1:T); with ``k`` the best k paths, an axis in front of the sequences.

        Where there are fewer than k possible paths, the others are -1 with log-probability -inf.
        """

    @abstractmethod
    def sample_states(
        self, params: Params, batch: Batch, n_paths: int, generator: torch.Generator, state: Any = None
    ) -> Tensor:
        """Paths from p(z_1:T | x_1:T), (*draw, path, n, t) int64, -1 on padding."""

    @abstractmethod
    def simulate(
        self,
        params: Params,
        state: Any,
        length: int,
        generator: torch.Generator | None = None,
        u: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Any]:
        """Values (*draw, n, length, k), the states behind them (*draw, n, length) and the state after them.

        ``u`` are the covariates of these steps, (n, length, m) or (*draw, n, length, m).
        """

    @abstractmethod
    def stationary_distribution(self, params: Params) -> Tensor:
        """The distribution pi = pi A that one step leaves unchanged, (*draw, s)."""


class EMStep(NamedTuple):
    """One step of EM from some parameters.

    log_prob : (D,), weighted log-likelihood of the parameters *before* the step, nats.
    params : the parameters after it, (D, ...).
    occupancy : (D, s), expected number of (weighted) steps in each state before it; of states that are numbers the sum
        of their expected squares.
    """

    log_prob: Tensor
    params: dict[str, Tensor]
    occupancy: Tensor


class ExpectationMaximization(ABC):
    """Capability of a model that EM can fit; parameters carry one draw dimension, one draw for each start."""

    @abstractmethod
    def em_start(self, batch: Batch, n_starts: int, init: str, generator: torch.Generator) -> dict[str, Tensor]:
        """Starting parameters, (D, ...).

        ``init`` is "kmeans" (the first start follows clusters of the values, or what else the model has to reason
        from, the others are random) or "random".
        """

    @abstractmethod
    def em_step(self, params: Params, batch: Batch, weights: Tensor | None = None) -> EMStep:
        """E-step and M-step; ``weights`` (n,) weigh the sequences. The log-likelihood never falls."""

    @abstractmethod
    def em_problems(self, params: Params, batch: Batch, occupancy: Tensor) -> list[tuple[str, ...]]:
        """For every draw, what has degenerated, in words that name the state; empty where all is well.

        ``occupancy`` is that of the last `EMStep`; of a model without discrete states it may be empty, (D, 0).
        """


class VariationalStart(NamedTuple):
    """Where a run of variational EM stands: parameters without draw dimensions, and a belief about latent variables."""

    params: dict[str, Tensor]
    belief: Any


class VariationalExpectation(ABC):
    """Capability of a model whose latent variables variational EM takes for independent of one another in parts."""

    @abstractmethod
    def variational_starts(self, batch: Batch, n_starts: int, generator: torch.Generator) -> list[VariationalStart]:
        """Reasoned starts first, the others by chance."""

    @abstractmethod
    def variational_step(
        self, start: VariationalStart, batch: Batch, weights: Tensor | None = None
    ) -> tuple[float, VariationalStart]:
        """The bound E[log p(x, latent)] + entropy at the parameters that came, nats, and where the step leads.

        The bound never falls from step to step.
        """

    @abstractmethod
    def variational_problems(self, start: VariationalStart, batch: Batch) -> tuple[str, ...]:
        """What has degenerated, in words; empty where all is well."""
