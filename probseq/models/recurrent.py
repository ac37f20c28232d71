"""Recurrent networks: the past is summarised by the memory of stacked cells."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from probseq.distributions.base import Distribution
from probseq.distributions.emissions import Emission, Observation
from probseq.distributions.params import Params, ParamSpec, Real
from probseq.errors import IncompatibleError
from probseq.kernels import cells
from probseq.kernels.cells import CellLayout, Memory, Passed
from probseq.models.base import Batch, Scan, SequenceModel, Steps
from probseq.models.parts import log_prob_in_parts, n_parts
from probseq.models.recurrent_attention import Attention
from probseq.models.recurrent_embedding import embedding_of
from probseq.models.recurrent_head import HeadLayer, LocalNoise
from probseq.models.recurrent_inputs import Inputs
from probseq.models.recurrent_layout import NetworkLayout, Part, Piece, cell_parts, check_sizes
from probseq.models.recurrent_noise import NO_DROPOUT, Dropout, Masks
from probseq.models.recurrent_start import check_scheme, start_attention, start_cells
from probseq.models.recurrent_state import RecurrentState, along, at_steps, recent

__all__ = ["RecurrentModel", "RecurrentState"]

_Weights = dict[str, Tensor]


class _Ran(NamedTuple):
    """features (n, t, f), inputs (n, t, i), memory after each sequence's end, outputs (n, t, h) of the last layer."""

    features: Tensor
    inputs: Tensor
    memory: Memory
    outputs: Tensor


class RecurrentModel(SequenceModel[RecurrentState]):
    r"""h_t = cell(h_{t-1}, z_t), x_t ~ head(A f_t + B z_t + b), z_t = (x_{t-l}, which of it was seen, for lags l; u_t).

    The features f_t are what the last layer passes on, y_t (h_t itself, see ``CellLayout`` for residual connections and
    layer norms), and with ``attention`` a weighted mean of the last y beside it, see ``Attention``.

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
        For categories; None is that of ``embedding``, or the smaller of ``hidden_size`` and the number of categories.
    lags : tuple of int
        Which past values enter at each step; (1, 12) adds last year's value of a monthly series. The rest of the past
        is in the memory only.
    n_covariates : int
        Number of known inputs of each step.
    dtype : torch.dtype
    residual, layer_norm : bool
        See ``CellLayout``.
    dropout : Dropout
        Noise of the training, see ``Dropout``; nothing else has it.
    embedding : (n_categories, embedding_size) or None
        Known vectors, NaN in the rows of categories that have none.
    freeze_embedding : bool
        Whether those vectors are constants rather than weights.
    tie_embeddings : bool
        Whether logits are products with the vectors that are read, see ``HeadLayer``.
    attention : int or None
        How many of the last steps, the present included, are attended to.
    attention_heads : int
    initialization : {"uniform", "xavier", "he", "orthogonal"}
        Where matrices start, see ``start_cells``. The head's start near zero.

    Attributes
    ----------
    pieces : dict of name to Piece
        Where the weights lie in the flat vector: "embedding", "layers.0.input", "layers.0.recurrent",
        "layers.0.bias_input", "layers.0.bias_recurrent", ..., "layers.0.norm_gain", "layers.0.norm_shift", ...,
        "attention.query", "attention.key", "attention.lag", "head.hidden" (A), "head.direct" (B), "head.bias",
        "head.constant.<name>", as far as the network has them.

    Notes
    -----
    All weights are one flat vector ``weights``. Its prior is normal with mean 0 and a standard deviation by kind of
    weight: 0.5 / sqrt(columns) for the matrices of the cells and A, 1 / sqrt(values read) for the direct way B, 0.3 for
    the biases of the cells, 1 for embeddings, 10 for the bias b, which carries the level of the data. Gains of norms
    have the mean 1, given vectors that are learnt further are the mean of their own prior.
    """

    missing = "pattern"

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
        *,
        residual: bool = False,
        layer_norm: bool = False,
        dropout: Dropout = NO_DROPOUT,
        embedding: Tensor | None = None,
        freeze_embedding: bool = False,
        tie_embeddings: bool = False,
        attention: int | None = None,
        attention_heads: int = 1,
        initialization: str = "uniform",
    ) -> None:
        check_sizes(cell, hidden_size, n_layers, embedding_size, lags)
        check_scheme(initialization)
        dropout.check()
        self.head, self.observation, self.dtype, self.n_covariates = head, observation, dtype, n_covariates
        self.lags, self.memory_length = tuple(int(lag) for lag in lags), int(max(lags))
        self.dropout, self.initialization = dropout, initialization
        self.embedding = embedding_of(observation, hidden_size, embedding_size, embedding, freeze_embedding, dtype)
        self.inputs = Inputs(head, observation, len(lags), n_covariates, self.embedding)
        self.layout = CellLayout(cell, self.inputs.size, hidden_size, n_layers, residual, layer_norm)
        self.attention = None if attention is None else Attention(attention, attention_heads, hidden_size)
        self.n_features = hidden_size * (1 if self.attention is None else 1 + attention_heads)
        if tie_embeddings and self.embedding is None:
            raise IncompatibleError(
                got=f"tie_embeddings=True with head={head!r}",
                expected="data of categories, which have an embedding",
                remedy="Use head=Categorical(), or leave tie_embeddings out.",
            )
        tied = self.embedding if tie_embeddings else None
        n_read = observation.n_variables * len(lags)
        self.output = HeadLayer(head, observation, self.n_features, self.inputs.size, n_read, tied)
        parts: dict[str, Part] = {} if self.embedding is None else {"embedding": self.embedding.part}
        parts |= cell_parts(self.layout)
        parts |= {} if self.attention is None else self.attention.parts
        self.weights = NetworkLayout(parts | self.output.parts, dtype)

    # weights ----------------------------------------------------------------------------------------------------------

    @property
    def pieces(self) -> dict[str, Piece]:
        """Where the weights lie in the flat vector, by name, in order."""
        return self.weights.pieces

    def piece(self, params: Params, name: str) -> Tensor:
        """One of the ``pieces`` as a view (*draw, *shape)."""
        return self.weights.piece(params["weights"], name)

    def parameters(self) -> dict[str, ParamSpec]:
        prior = torch.distributions.Normal(self.weights.location, self.weights.scale, validate_args=False)
        return {"weights": ParamSpec((self.weights.size,), Real(), ("weight",), prior)}

    def _split(self, params: Params) -> _Weights:
        return self.weights.split(params["weights"])

    def _draw(self, params: Params) -> tuple[int, ...]:
        return tuple(params["weights"].shape[:-1])

    def _initial_guess(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Random weights; the head starts at the marginal law of the data, the LSTM remembers by default."""
        start = torch.zeros(self.weights.size, dtype=self.dtype)
        weights = self.weights.split(start)
        start_cells(self.layout, weights["layers"], self.initialization, generator)
        if self.embedding is not None:
            self.embedding.start(weights["embedding"], generator)
        if self.attention is not None:
            start_attention(weights, self.initialization, generator)
        self.output.start(weights, 0.1 * self.layout.hidden_size**-0.5, batch.x, batch.seen, generator)
        return {"weights": start}

    # one step ---------------------------------------------------------------------------------------------------------

    def initial_state(self, params: Params, n: int) -> RecurrentState:
        memory = self.layout.empty_memory(self._split(params)["layers"], n)
        draw, width = self._draw(params), 0 if self.attention is None else self.attention.window - 1
        shape = (*draw, n, self.memory_length, self.observation.n_variables)
        x = self.observation.like(torch.empty(shape, dtype=self.dtype, device=memory.hidden.device))
        past = memory.hidden.new_zeros((*draw, n, width, self.layout.hidden_size))
        held = torch.zeros((*draw, n, width), dtype=torch.bool, device=past.device)
        return RecurrentState(*memory, x, torch.zeros_like(x, dtype=torch.bool), past, held)

    def predict_next(self, params: Params, state: RecurrentState, u: Tensor | None = None) -> Distribution:
        weights = self._split(params)
        return self._law(weights, state, *self._step(weights, state, u))

    def update(
        self, params: Params, state: RecurrentState, x: Tensor, seen: Tensor, u: Tensor | None = None
    ) -> RecurrentState:
        """The state after step t; what was not seen is passed on as not seen."""
        return self._after(state, self._step(self._split(params), state, u)[0], self._filled(x, seen), seen)

    def _sample(
        self,
        params: Params,
        state: RecurrentState,
        length: int,
        generator: torch.Generator | None,
        u: Tensor | None,
        temper: Callable[[Distribution], Distribution] | None,
    ) -> tuple[Tensor, RecurrentState]:
        """One run of the cells a step: what the law was made from is what the memory becomes."""
        weights, values = self._split(params), []
        for t in range(length):
            passed, inputs = self._step(weights, state, None if u is None else u.select(-2, t))
            law = self._law(weights, state, passed, inputs)
            x = (law if temper is None else temper(law)).sample((), generator=generator)
            values.append(x)
            state = self._after(state, passed, x.to(self.dtype), torch.ones_like(x, dtype=torch.bool))
        return torch.stack(values, -2), state

    def _law(self, weights: _Weights, state: RecurrentState, passed: Passed, inputs: Tensor) -> Distribution:
        features = self._features(weights, passed.outputs.unsqueeze(-2), state.past, state.held).squeeze(-2)
        return self.output.law(weights, features, inputs)

    def _after(self, state: RecurrentState, passed: Passed, x: Tensor, seen: Tensor) -> RecurrentState:
        past, held = state.past, state.held
        if self.attention is not None:
            past = torch.cat([past[..., 1:, :], passed.outputs.unsqueeze(-2)], -2)
            held = torch.cat([held[..., 1:], torch.ones_like(held[..., :1])], -1)
        last = (*state.x.shape[:-2], 1, state.x.shape[-1])
        values = torch.cat([state.x[..., 1:, :], x.unsqueeze(-2).expand(last)], -2)
        known = torch.cat([state.seen[..., 1:, :], seen.unsqueeze(-2).expand(last)], -2)
        return RecurrentState(*passed.final, values, known, past, held)

    def _step(self, weights: _Weights, state: RecurrentState, u: Tensor | None) -> tuple[Passed, Tensor]:
        """What the cells pass on and remember at the next step, and their inputs."""
        inputs = self.inputs(weights.get("embedding"), self._read(state.x), self._read(state.seen), u)
        return cells.step(self.layout, weights["layers"], inputs, state.memory), inputs

    def _features(self, weights: _Weights, outputs: Tensor, past: Tensor, held: Tensor) -> Tensor:
        """f_t (*draw, n, t, f) from y_t (*draw, n, t, h) and those before the first of them."""
        if self.attention is None:
            return outputs
        return torch.cat([outputs, self.attention.context(weights, outputs, past, held)], -1)

    def _read(self, recent: Tensor) -> Tensor:
        """The lagged values side by side, (*draw, n, lag, k) -> (*draw, n, n_read)."""
        return torch.cat([recent[..., -lag, :] for lag in self.lags], -1)

    def _filled(self, x: Tensor, seen: Tensor) -> Tensor:
        return self.observation.filled(x, seen).to(self.dtype)

    # whole sequences --------------------------------------------------------------------------------------------------

    def _sequence_inputs(self, weights: _Weights, batch: Batch, state: RecurrentState) -> Tensor:
        """Inputs of all steps, (*draw, n, t, i): the values shifted by the lags."""
        x = along(state.x, self._filled(batch.x, batch.seen))
        seen = along(state.seen, batch.seen)
        first = [self.memory_length - lag for lag in self.lags]
        before = torch.cat([x[..., start : start + batch.t, :] for start in first], -1)
        known = torch.cat([seen[..., start : start + batch.t, :] for start in first], -1)
        u = None if batch.u is None else torch.where(batch.real.unsqueeze(-1), batch.u, 0.0)
        return self.inputs(weights.get("embedding"), before, known, u)

    def _recent(self, batch: Batch, state: RecurrentState, outputs: Tensor, after: Tensor | None) -> tuple[Tensor, ...]:
        return recent(state, self._filled(batch.x, batch.seen), batch.seen, outputs, after)

    def _scan(self, params: Params, batch: Batch, state: RecurrentState) -> Scan[RecurrentState]:
        if not batch.t:
            return super()._scan(params, batch, state)
        weights = self._split(params)
        inputs = self._sequence_inputs(weights, batch, state)
        outputs, trajectory = cells.scan(self.layout, weights["layers"], inputs, state.memory)
        after = torch.arange(batch.t + 1, device=inputs.device).minimum(batch.lengths.unsqueeze(-1))
        draws = inputs.ndim > 3
        hidden, cell = at_steps(trajectory.hidden, after, draws), at_steps(trajectory.cell, after, draws)
        everything = RecurrentState(hidden, cell, *self._recent(batch, state, outputs, after))
        time = 2 if draws else 1
        before = RecurrentState(*(leaf.narrow(time, 0, batch.t) for leaf in everything))
        return Scan(before, RecurrentState(*(leaf.select(time, batch.t) for leaf in everything)))

    def _run(
        self,
        weights: _Weights,
        inputs: Tensor,
        batch: Batch,
        state: RecurrentState,
        masks: Masks | None = None,
        to_end: bool = False,
    ) -> _Ran:
        """The fused kernel over a batch, for one draw; ``to_end`` runs all sequences to the end of the batch."""
        lengths = None if to_end else batch.lengths
        flat, read = weights["layers"], inputs
        between: tuple[Tensor, ...] = ()
        if masks is not None:
            flat = flat if masks.weights is None else flat * masks.weights
            read = inputs if masks.inputs is None else inputs * masks.inputs
            between = masks.between
        outputs, memory = cells.whole(self.layout, flat, read, state.memory, lengths, between)
        features = self._features(weights, outputs, state.past, state.held)
        if masks is not None:
            features = features if masks.features is None else features * masks.features
            inputs = inputs if masks.direct is None else inputs * masks.direct
        return _Ran(features, inputs, memory, outputs)

    def _pass(
        self,
        params: Params,
        batch: Batch,
        state: RecurrentState,
        noise: torch.Generator | None = None,
        to_end: bool = False,
    ) -> tuple[Distribution, RecurrentState]:
        """The laws of all steps by the fused kernel, one draw after the other, and the final state.

        With ``to_end`` that is the state after the last step of the batch, also where sequences end before.
        """
        weights = self._split(params)
        inputs = self._sequence_inputs(weights, batch, state)
        if not self._draw(params):
            ran = self._run(weights, inputs, batch, state, self._masks(batch, inputs, noise), to_end)
        else:
            each = []
            for d in range(self._draw(params)[0]):
                own = {name: value[d] for name, value in weights.items()}
                start = RecurrentState(*(leaf[d] for leaf in state))
                each.append(self._run(own, inputs[d], batch, start, self._masks(batch, inputs, noise), to_end))
            memory = Memory(*(torch.stack(leaves) for leaves in zip(*(one.memory for one in each))))
            features, read, outputs = (
                torch.stack([getattr(one, name) for one in each]) for name in ("features", "inputs", "outputs")
            )
            ran = _Ran(features, read, memory, outputs)
        d = ran.features.ndim - 3
        local = None
        if noise is not None and "local_scale" in params:
            local = LocalNoise(self.weights.split(params["local_scale"]), noise)
        law = self.output.law(weights, ran.features.flatten(d, d + 1), ran.inputs.flatten(d, d + 1), local)
        law = law.reshape(*ran.features.shape[:-1])
        if to_end:
            return law, RecurrentState(*ran.memory, *self._recent(batch, state, ran.outputs, None))
        leaves = self._recent(batch, state, ran.outputs, batch.lengths.unsqueeze(-1))
        return law, RecurrentState(*ran.memory, *(leaf.squeeze(d + 1) for leaf in leaves))

    def _masks(self, batch: Batch, like: Tensor, noise: torch.Generator | None) -> Masks | None:
        if noise is None or not any(self.dropout):
            return None
        sizes = (self.layout.n_inputs, self.layout.hidden_size, self.n_features)
        above = self.layout.n_layers - 1
        return self.dropout.masks(
            like, (batch.n, batch.t), sizes, above, self.weights.within_cells("recurrent"), self.layout.size, noise
        )

    def _log_prob_steps(self, params: Params, batch: Batch, state: RecurrentState) -> Steps[RecurrentState]:
        if not batch.t:
            return super()._log_prob_steps(params, batch, state)
        if (parts := n_parts(self, params, batch, self.output.n_outputs)) > 1:
            return log_prob_in_parts(self, params, batch, state, parts)
        law, final = self._pass(params, batch, state)
        values = law.log_prob_seen(self._filled(batch.x, batch.seen), batch.seen)
        values = torch.where(batch.seen.any(-1), values, torch.zeros_like(values))
        return Steps(values, batch.seen, None, final)

    def _training_log_prob(
        self,
        params: Params,
        batch: Batch,
        scored: Tensor,
        state: RecurrentState | None,
        generator: torch.Generator,
        done: float = 1.0,
    ) -> tuple[Tensor, RecurrentState]:
        """As `log_prob`, with the noise of dropout where the network has some.

        With ``params["local_scale"]``, standard deviations of the weights (m,), what the head's weights make of each
        step is drawn in place of them. The final state is that after the last step of the batch: training fills
        sequences up with steps where nothing is seen.
        """
        start = self.initial_state(params, batch.n) if state is None else state
        noisy = {"noise": generator} if any(self.dropout) or "local_scale" in params else {}
        law, final = self._pass(params, batch, start, to_end=True, **noisy)
        with torch.autocast(batch.x.device.type, enabled=False):  # half precision is for the network, not for densities
            return law.training_score(self._filled(batch.x, scored), scored).sum(-1), final

    def _forecast_marginals(
        self, params: Params, state: RecurrentState, u: Tensor | None, horizon: int
    ) -> Distribution | None:
        """Of the next step alone; later ones depend on values that have not come."""
        if horizon > 1:
            return None
        return self.predict_next(params, state, None if u is None else u[..., 0, :])[..., None]

    def _predictive(self, params: Params, batch: Batch, state: RecurrentState) -> tuple[Distribution, Tensor]:
        if not batch.t:
            return super()._predictive(params, batch, state)
        return self._pass(params, batch, state, to_end=True)[0], batch.seen
