"""Recurrent networks: the past is summarised by the memory of stacked cells."""

from __future__ import annotations

import math
import numbers
from typing import NamedTuple

import torch
from torch import Tensor

from probseq.distributions.base import Distribution
from probseq.distributions.emissions import Bernoulli, Emission, Observation
from probseq.distributions.params import Params, ParamSpec, Real, unconstrained_size
from probseq.errors import CovariateError, IncompatibleError, ParameterError
from probseq.kernels import cells
from probseq.kernels.cells import CELLS, CellLayout, Memory
from probseq.models.base import Batch, Scan, SequenceModel, Steps

__all__ = ["RecurrentModel", "RecurrentState"]

_LARGEST_SAMPLE = 10_000


class RecurrentState(NamedTuple):
    """The memory after step t-1 read its input, and the values that step t will read.

    hidden : (*draw, n, n_layers, hidden_size)
    cell : the same for the LSTM, (*draw, n, 0, hidden_size) for other cells
    x : (*draw, n, lag, k), the last values up to the longest lag, oldest first; the fill value where they were not seen
    seen : (*draw, n, lag, k) bool, all False before the first step
    """

    hidden: Tensor
    cell: Tensor
    x: Tensor
    seen: Tensor


class _Weights(NamedTuple):
    table: Tensor
    cells: Tensor
    w: Tensor
    b: Tensor


class RecurrentModel(SequenceModel[RecurrentState]):
    r"""h_t = cell(h_{t-1}, z_t), x_t ~ head(A h_t + B z_t + b), z_t = (x_{t-l}, which of it was seen, for lags l; u_t).

    The law is exact *given the pattern of missingness*: a missing value is told to the network as missing (zero and a
    flag, or an embedding of its own), never replaced by a number that looks like data, and not integrated out. Before
    the first step nothing was seen; the first value is predicted from that, and scored.

    Numbers enter as they are, counts as log(1 + x), bits as -1 and 1 (0 where missing), categories through an embedding
    learnt with the rest. The direct way B from the input to the head lets a random walk or an autoregression be
    represented by a handful of weights.

    Parameters
    ----------
    head : Emission
        The law of one event, given by the network's outputs.
    observation : Observation
    cell : {"lstm", "gru", "rnn", "relu"}
    hidden_size, n_layers : int
    embedding_size : int or None
        For categories; None is the smaller of ``hidden_size`` and the number of categories.
    lags : tuple of int
        Which past values enter at each step; (1, 12) adds last year's value of a monthly series. The rest of the past
        is in the memory only.
    n_covariates : int
        Number of known inputs of each step.
    dtype : torch.dtype

    Notes
    -----
    All weights are one flat vector ``weights``: embedding, cells (in the order of ``torch.nn.LSTM``), head matrix, head
    bias. Its prior is normal with mean 0 and a standard deviation by kind of weight: 0.5 / sqrt(columns) for the
    matrices of the cells and the part A of the head's, 1 / sqrt(values read) for the direct way B, 0.3 for the biases
    of the cells, 1 for embeddings, 10 for the bias b, which carries the level of the data.
    """

    def __init__(
        self,
        head: Emission,
        observation: Observation,
        cell: str = "lstm",
        hidden_size: int = 32,
        n_layers: int = 1,
        embedding_size: int | None = None,
        lags: tuple[int, ...] = (1,),
        n_covariates: int = 0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if cell not in CELLS:
            raise ParameterError(got=f"cell={cell!r}", expected=f"one of {sorted(CELLS)}", remedy="Choose one of them.")
        for name, value in (("hidden_size", hidden_size), ("n_layers", n_layers), ("embedding_size", embedding_size)):
            if value is not None and (not isinstance(value, numbers.Integral) or value < 1):
                raise ParameterError(got=f"{name}={value!r}", expected="a whole number of 1 or more")
        if (
            not lags
            or any(not isinstance(lag, numbers.Integral) or lag < 1 for lag in lags)
            or len(set(lags)) < len(lags)
        ):
            raise ParameterError(got=f"lags={lags!r}", expected="different whole numbers of 1 or more, such as (1, 12)")
        self.head, self.observation, self.dtype, self.n_covariates = head, observation, dtype, n_covariates
        self.lags, self.memory_length = tuple(int(lag) for lag in lags), int(max(lags))
        self.n_read = observation.n_variables * len(lags)
        k, n_categories = observation.n_variables, observation.n_categories
        if isinstance(n_categories, tuple):
            raise IncompatibleError(
                got=f"{n_categories} categories of the {k} variables for a recurrent network",
                expected="categories in all variables, the same number in each, or in none",
                remedy="Code a category as bits (Bernoulli), or use HMM.",
            )
        if n_categories is not None:
            self.embedding_size = min(hidden_size, n_categories) if embedding_size is None else embedding_size
            self.table_shape = (k, n_categories + 1, self.embedding_size)
            n_inputs = self.n_read * self.embedding_size
        else:
            self.embedding_size, self.table_shape = 0, (0, 0, 0)
            n_inputs = self.n_read if isinstance(head, Bernoulli) else 2 * self.n_read
        self.layout = CellLayout(cell, n_inputs + n_covariates, hidden_size, n_layers)
        self.n_outputs = unconstrained_size(head.parameters(observation))
        self.n_features = hidden_size + self.layout.n_inputs
        self.sizes = (math.prod(self.table_shape), self.layout.size, self.n_outputs * self.n_features, self.n_outputs)

    # weights ----------------------------------------------------------------------------------------------------------

    def parameters(self) -> dict[str, ParamSpec]:
        scale = self._prior_scale()
        prior = torch.distributions.Normal(torch.zeros_like(scale), scale, validate_args=False)
        return {"weights": ParamSpec(tuple(scale.shape), Real(), ("weight",), prior)}

    def _prior_scale(self) -> Tensor:
        pieces = [torch.ones(self.sizes[0])]
        for shape in self.layout.shapes:
            scale = 0.3 if len(shape) == 1 else 0.5 * shape[1] ** -0.5
            pieces.append(torch.full((math.prod(shape),), scale))
        from_hidden = torch.full((self.n_outputs, self.layout.hidden_size), 0.5 * self.layout.hidden_size**-0.5)
        direct = torch.full((self.n_outputs, self.layout.n_inputs), self.n_read**-0.5)
        pieces += [torch.cat([from_hidden, direct], -1).flatten(), torch.full((self.n_outputs,), 10.0)]
        return torch.cat(pieces).to(self.dtype)

    def _split(self, params: Params) -> _Weights:
        weights = params["weights"]
        draw = weights.shape[:-1]
        table, flat, w, b = weights.split(self.sizes, -1)
        return _Weights(table.view(*draw, *self.table_shape), flat, w.view(*draw, self.n_outputs, self.n_features), b)

    def _draw(self, params: Params) -> tuple[int, ...]:
        return tuple(params["weights"].shape[:-1])

    def _initial_guess(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Small random weights; the head starts at the marginal law of the data, the LSTM remembers by default."""
        start = torch.zeros(sum(self.sizes), dtype=self.dtype)
        parts = self._split({"weights": start})
        bound = self.layout.hidden_size**-0.5
        for view in self.layout.views(parts.cells):
            view.uniform_(-bound, bound, generator=generator)
        if self.layout.cell == "lstm":
            for layer in self.layout.layers(parts.cells):
                layer.b_x.unflatten(0, (4, -1))[1] = 1.0
        if parts.table.numel():
            parts.table.normal_(0.0, self.embedding_size**-0.5, generator=generator)
        parts.w[:, : self.layout.hidden_size].uniform_(-0.1 * bound, 0.1 * bound, generator=generator)
        parts.b.copy_(self._marginal_outputs(batch, generator))
        return {"weights": start}

    def _marginal_outputs(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Outputs of the head, constant in time, that fit the values best, (n_outputs,)."""
        rows = batch.seen.any(-1)
        x, seen = batch.x[rows].double(), batch.seen[rows]
        if len(x) > _LARGEST_SAMPLE:
            chosen = torch.randperm(len(x), generator=generator)[:_LARGEST_SAMPLE]
            x, seen = x[chosen], seen[chosen]
        outputs = torch.zeros(self.n_outputs, dtype=torch.float64, requires_grad=True)
        if not len(x):
            return outputs.detach()
        optimizer = torch.optim.LBFGS([outputs], max_iter=50, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimizer.zero_grad()
            law = self.head.from_outputs(outputs, self.observation)
            value = -law.expand(torch.Size([len(x)])).log_prob_seen(x, seen).mean() + 1e-4 * (outputs**2).sum()
            value.backward()
            return value

        with torch.enable_grad():
            optimizer.step(loss)
        return torch.nan_to_num(outputs.detach(), 0.0, 0.0, 0.0)

    # one step ---------------------------------------------------------------------------------------------------------

    def initial_state(self, params: Params, n: int) -> RecurrentState:
        memory = self.layout.empty_memory(self._split(params).cells, n)
        shape = (*self._draw(params), n, self.memory_length, self.observation.n_variables)
        x = self.observation.like(torch.empty(shape, dtype=self.dtype, device=memory.hidden.device))
        return RecurrentState(*memory, x, torch.zeros_like(x, dtype=torch.bool))

    def predict_next(self, params: Params, state: RecurrentState, u: Tensor | None = None) -> Distribution:
        weights = self._split(params)
        inputs = self._encode(weights, self._read(state.x), self._read(state.seen), u)
        memory = cells.step(self.layout, weights.cells, inputs, Memory(state.hidden, state.cell))
        return self._law(weights, memory.hidden[..., -1, :], inputs)

    def update(
        self, params: Params, state: RecurrentState, x: Tensor, seen: Tensor, u: Tensor | None = None
    ) -> RecurrentState:
        """The state after step t; what was not seen is passed on as not seen."""
        weights = self._split(params)
        inputs = self._encode(weights, self._read(state.x), self._read(state.seen), u)
        memory = cells.step(self.layout, weights.cells, inputs, Memory(state.hidden, state.cell))
        last = (*state.x.shape[:-2], 1, state.x.shape[-1])
        values = torch.cat([state.x[..., 1:, :], self._filled(x, seen).unsqueeze(-2).expand(last)], -2)
        return RecurrentState(*memory, values, torch.cat([state.seen[..., 1:, :], seen.unsqueeze(-2).expand(last)], -2))

    def _read(self, recent: Tensor) -> Tensor:
        """The lagged values side by side, (*draw, n, lag, k) -> (*draw, n, n_read)."""
        return torch.cat([recent[..., -lag, :] for lag in self.lags], -1)

    def _filled(self, x: Tensor, seen: Tensor) -> Tensor:
        return self.observation.filled(x, seen).to(self.dtype)

    def _encode(self, weights: _Weights, x: Tensor, seen: Tensor, u: Tensor | None) -> Tensor:
        """z_t from the values read (*draw, n, n_read) and u_t (*draw, n, m) or (n, m), as (*draw, n, i)."""
        if self.observation.n_categories is not None:
            parts = [self._embed(weights.table, x, seen)]
        elif isinstance(self.head, Bernoulli):
            parts = [torch.where(seen, 2 * x - 1, 0.0)]
        else:
            whole = self.head.shiftable
            each = whole if isinstance(whole, tuple) else (whole,) * self.observation.n_variables
            # Counts and positive values may be large, and no transform has scaled them.
            scaled = torch.tensor(each, device=x.device).repeat(len(self.lags))
            size = torch.where(scaled, x, torch.sign(x) * torch.log1p(x.abs()))
            parts = [torch.where(seen, size, 0.0), seen.to(x.dtype)]
        if self.n_covariates:
            if u is None or u.shape[-1] != self.n_covariates:
                raise CovariateError(
                    got="no covariates" if u is None else f"{u.shape[-1]} covariates",
                    expected=f"{self.n_covariates} covariates at every step",
                    remedy="Pass covariates= with the columns of the fit.",
                )
            parts.append(u.to(x.dtype).expand(*x.shape[:-1], self.n_covariates))
        return torch.cat(parts, -1)

    def _embed(self, table: Tensor, x: Tensor, seen: Tensor) -> Tensor:
        """Rows of the tables (*draw, k, C + 1, e) for codes (*draw, ..., n_read); the last row means nothing seen."""
        k, rows, size = self.table_shape
        variable = torch.arange(k, device=x.device).repeat(len(self.lags))
        code = torch.where(seen, x, rows - 1).long() + variable * rows
        if table.ndim > 3:
            n_draws = table.shape[0]
            code = code + (torch.arange(n_draws, device=x.device) * k * rows).view(-1, *(1,) * (code.ndim - 1))
        return torch.nn.functional.embedding(code, table.reshape(-1, size)).flatten(-2)

    def _law(self, weights: _Weights, hidden: Tensor, inputs: Tensor) -> Distribution:
        outputs = torch.matmul(torch.cat([hidden, inputs], -1), weights.w.mT) + weights.b.unsqueeze(-2)
        return self.head.from_outputs(outputs, self.observation)

    # whole sequences --------------------------------------------------------------------------------------------------

    def _along(self, state: Tensor, batch: Tensor) -> Tensor:
        """The values before the batch and those of it, (*draw, n, lag + t, k)."""
        return torch.cat([state, batch.expand(*state.shape[:-2], *batch.shape[-2:])], -2)

    def _sequence_inputs(self, weights: _Weights, batch: Batch, state: RecurrentState) -> Tensor:
        """Inputs of all steps, (*draw, n, t, i): the values shifted by the lags."""
        x = self._along(state.x, self._filled(batch.x, batch.seen))
        seen = self._along(state.seen, batch.seen)
        first = [self.memory_length - lag for lag in self.lags]
        before = torch.cat([x[..., start : start + batch.t, :] for start in first], -1)
        known = torch.cat([seen[..., start : start + batch.t, :] for start in first], -1)
        u = None if batch.u is None else torch.where(batch.real.unsqueeze(-1), batch.u, 0.0)
        return self._encode(weights, before, known, u)

    def _recent(self, batch: Batch, state: RecurrentState, after: Tensor) -> tuple[Tensor, Tensor]:
        """The values to read, and which were seen, ``after`` (n, s) steps; leaves (*draw, n, s, lag, k)."""
        x = self._along(state.x, self._filled(batch.x, batch.seen))
        seen = self._along(state.seen, batch.seen)
        steps = after.unsqueeze(-1) + torch.arange(self.memory_length, device=x.device)
        draws = x.ndim > 3
        return _at_steps(x, steps, draws), _at_steps(seen, steps, draws)

    def _scan(self, params: Params, batch: Batch, state: RecurrentState) -> Scan[RecurrentState]:
        if not batch.t:
            return super()._scan(params, batch, state)
        weights = self._split(params)
        inputs = self._sequence_inputs(weights, batch, state)
        along = cells.scan(self.layout, weights.cells, inputs, Memory(state.hidden, state.cell))
        after = torch.arange(batch.t + 1, device=inputs.device).minimum(batch.lengths.unsqueeze(-1))
        draws = inputs.ndim > 3
        hidden, cell = _at_steps(along.hidden, after, draws), _at_steps(along.cell, after, draws)
        everything = RecurrentState(hidden, cell, *self._recent(batch, state, after))
        time = 2 if draws else 1
        before = RecurrentState(*(leaf.narrow(time, 0, batch.t) for leaf in everything))
        return Scan(before, RecurrentState(*(leaf.select(time, batch.t) for leaf in everything)))

    def _pass(self, params: Params, batch: Batch, state: RecurrentState) -> tuple[Distribution, Memory]:
        """The laws of all steps by the fused kernel, one draw after the other, and the final memory."""
        lengths = None if bool((batch.lengths == batch.t).all()) else batch.lengths
        weights = self._split(params)
        inputs = self._sequence_inputs(weights, batch, state)
        if not self._draw(params):
            memory = Memory(state.hidden, state.cell)
            done = cells.whole(self.layout, weights.cells, inputs, memory, lengths)
            return self._law(weights, done.outputs, inputs), done.final
        each = [
            cells.whole(self.layout, flat, inputs[d], Memory(state.hidden[d], state.cell[d]), lengths)
            for d, flat in enumerate(weights.cells)
        ]
        outputs = torch.stack([done.outputs for done in each])
        law = self._law(weights, outputs.flatten(1, 2), inputs.flatten(1, 2)).reshape(*outputs.shape[:3])
        return law, Memory(*(torch.stack(leaves) for leaves in zip(*(done.final for done in each))))

    def _log_prob_steps(self, params: Params, batch: Batch, state: RecurrentState) -> Steps[RecurrentState]:
        if not batch.t:
            return super()._log_prob_steps(params, batch, state)
        law, final = self._pass(params, batch, state)
        values = law.log_prob_seen(self._filled(batch.x, batch.seen), batch.seen)
        values = torch.where(batch.seen.any(-1), values, torch.zeros_like(values))
        return Steps(values, batch.seen, None, self._after(batch, state, final))

    def _after(self, batch: Batch, state: RecurrentState, final: Memory) -> RecurrentState:
        """The state after each sequence's last step, from that before the batch and the memory at the end."""
        x, seen = (leaf.squeeze(-3) for leaf in self._recent(batch, state, batch.lengths.unsqueeze(-1)))
        return RecurrentState(final.hidden, final.cell, x, seen)

    def _training_log_prob(
        self,
        params: Params,
        batch: Batch,
        scored: Tensor,
        state: RecurrentState | None,
        generator: torch.Generator,
    ) -> tuple[Tensor, RecurrentState]:
        start = self.initial_state(params, batch.n) if state is None else state
        law, final = self._pass(params, batch, start)
        values = law.log_prob_seen(self._filled(batch.x, scored), scored).sum(-1)
        return values, self._after(batch, start, final)

    def _predictive(self, params: Params, batch: Batch, state: RecurrentState) -> tuple[Distribution, Tensor]:
        if not batch.t:
            return super()._predictive(params, batch, state)
        return self._pass(params, batch, state)[0], batch.seen


def _at_steps(leaf: Tensor, steps: Tensor, draws: bool) -> Tensor:
    """Choose for each sequence, (n, ...) steps, from leaves (n, t, ...), or (D, n, t, ...) where there are draws."""
    rows = torch.arange(steps.shape[0], device=steps.device).view(-1, *(1,) * (steps.ndim - 1))
    return leaf[:, rows, steps] if draws else leaf[rows, steps]
