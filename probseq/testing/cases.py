"""What a check of a model works on: parameters, a ragged batch with gaps, and the slow reference."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from probseq.distributions.base import Distribution
from probseq.distributions.params import unconstrained_size, unflatten
from probseq.models.base import Batch, SequenceModel, map_state
from probseq.results.joint import make_batch

__all__ = ["ModelCase", "StepLoop", "repeat_state", "stream"]

_LENGTH = 9


@dataclass
class ModelCase:
    """A model with example parameters and data.

    Parameters
    ----------
    model : SequenceModel
    params : dict or None
        One value of every parameter; drawn in unconstrained space without it.
    missing : {"exact", "pattern", "forbidden"}
        What a missing value does: it is integrated out, it is told to the model as missing, or it raises.
    start : int
        How many first steps the model conditions on.
    seed : int
    """

    model: SequenceModel[Any]
    params: dict[str, Tensor] | None = None
    missing: str = "exact"
    start: int = 0
    seed: int = 0
    values: dict[str, Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self.values = self.random_params(()) if self.params is None else dict(self.params)

    @property
    def rtol(self) -> float:
        return 1e-10 if self.model.dtype == torch.float64 else 2e-3

    def random_params(self, draw: tuple[int, ...]) -> dict[str, Tensor]:
        """Parameters with unconstrained coordinates N(0, 0.6^2)."""
        specs = self.model.parameters()
        noise = torch.randn(*draw, unconstrained_size(specs), generator=stream(self.seed, "params"))
        return unflatten(specs, 0.6 * noise.to(self.model.dtype))

    def inputs(self, n: int, t: int) -> np.ndarray | None:
        m = self.model.n_covariates
        return np.random.default_rng(self.seed).normal(size=(n, t, m)) if m else None

    def simulate(self, n: int, t: int, name: str) -> Tensor:
        """Paths (n, t, k) of the model itself, after ``start`` values that are any possible ones."""
        array, generator = self.inputs(n, t), stream(self.seed, name)
        u = None if array is None else torch.as_tensor(array)
        begin = self.model.initial_state(self.values, n)
        before = None if u is None else u[:, : self.start]
        first = begin
        x = torch.zeros(n, 0, self.model.observation.n_variables, dtype=self.model.dtype)
        if self.start:
            x, _ = self.model.sample(self.values, begin, self.start, generator, before)
            lengths = torch.full((n,), self.start)
            seen = torch.ones_like(x, dtype=torch.bool)
            first = self.model.filter(self.values, Batch(x.double(), seen, lengths, before), begin)
        rest, _ = self.model.sample(
            self.values, first, t - self.start, generator, None if u is None else u[:, self.start :]
        )
        return torch.cat([x, rest], 1)

    @cached_property
    def whole(self) -> Batch:
        """Four sequences of the model's own, complete, of one length."""
        x = self.simulate(4, _LENGTH + self.start, "data").double().numpy()
        return make_batch(self.model, x, np.full(4, x.shape[1]), self.inputs(4, x.shape[1]))

    @cached_property
    def batch(self) -> Batch:
        """Sequences of different lengths, with holes where the model allows them."""
        x = self.whole.x.numpy().copy()
        n, t, _ = x.shape
        lengths = t - np.arange(n) * ((t - 1) // n)
        if self.missing != "forbidden":
            holes = np.random.default_rng(self.seed).random(x.shape) < 0.25
            holes[:, : self.start] = False
            holes[0, -2] = holes[1, self.start] = True
            x[holes] = np.nan
        return make_batch(self.model, x, lengths, None if self.whole.u is None else self.whole.u.numpy())

    def rows(self, batch: Batch) -> Iterator[tuple[int, Batch]]:
        """Every sequence by itself, without padding."""
        for i in range(batch.n):
            t = int(batch.lengths[i])
            u = None if batch.u is None else batch.u[i : i + 1, :t]
            yield i, Batch(batch.x[i : i + 1, :t], batch.seen[i : i + 1, :t], batch.lengths[i : i + 1], u)


@dataclass
class StepLoop:
    """One sequence, one step at a time, by ``predict_next`` and ``update`` alone.

    values : (t,), 0 where nothing is scored; laws : the predictive of every step; scored : (t, k); final : the state.
    """

    model: SequenceModel[Any]
    params: dict[str, Tensor]
    row: Batch
    values: Tensor = field(init=False)
    scored: Tensor = field(init=False)
    laws: list[Distribution] = field(init=False)
    final: Any = field(init=False)

    def __post_init__(self) -> None:
        state = self.model.initial_state(self.params, 1)
        values, scored, self.laws = [], [], []
        for t in range(self.row.t):
            x, seen = self.row.x[:, t], self.row.seen[:, t]
            u = None if self.row.u is None else self.row.u[:, t]
            law = self.model.predict_next(self.params, state, u)
            counted = self.model.scores_next(state)
            mask = seen if counted is None else seen & counted
            values.append(law.log_prob_seen(x, mask)[0] if bool(mask.any()) else torch.zeros((), dtype=x.dtype))
            scored.append(mask[0])
            self.laws.append(law)
            state = self.model.update(self.params, state, x, seen, u)
        self.values, self.scored = torch.stack(values).double().detach(), torch.stack(scored)
        self.final = state


def repeat_state(state: Any, row: int, times: int, draws: int = 0) -> Any:
    """One sequence's state many times, (times, ...), behind ``draws`` leading dimensions."""
    return map_state(lambda leaf: leaf.narrow(draws, row, 1).repeat_interleave(times, draws), state)


def stream(seed: int, name: str) -> torch.Generator:
    """A generator of its own for every use of a seed."""
    return torch.Generator().manual_seed(zlib.crc32(f"{seed} {name}".encode()))
