"""Generative networks with latent variables, whose state is a cloud of weighted particles."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor

from probseq._types import one_of, whole_number
from probseq.distributions.base import Distribution
from probseq.distributions.compose import mixture
from probseq.distributions.emissions import Emission, Observation
from probseq.distributions.params import Params, ParamSpec, Real
from probseq.kernels import cells
from probseq.kernels.cells import CellLayout, Memory
from probseq.models.base import Batch, SequenceModel, Steps, map_state
from probseq.models.dense import Dense
from probseq.models.latent_bounds import Bound, trained_bound
from probseq.models.latent_filter import Stepped, run, step
from probseq.models.latent_guide import DIRECTIONS, Guide
from probseq.models.latent_laws import DiagonalLaw
from probseq.models.latent_simulation import simulate
from probseq.models.latent_state import Cloud, LatentState, Noise, first_keys, noise_of
from probseq.models.latent_transition import Transition
from probseq.models.recurrent_embedding import embedding_of
from probseq.models.recurrent_head import HeadLayer
from probseq.models.recurrent_inputs import Inputs
from probseq.models.recurrent_layout import NetworkLayout, Part, cell_parts
from probseq.models.recurrent_start import start_cells

__all__ = ["PROPOSALS", "LatentNetwork", "Weights"]

PROPOSALS = ("network", "laplace", "prior")


class Weights(NamedTuple):
    """Generative weights and those of the inference networks, by name."""

    model: Mapping[str, Tensor]
    guide: Mapping[str, Tensor]


class LatentNetwork(SequenceModel[LatentState]):
    r"""z_t ~ p(z_t | z_{t-1}, h_t, u_t), x_t ~ p(x_t | z_t, h_t, u_t), h_{t+1} = cell(h_t, x_t, u_t [, z_t]).

    p(x_t | x_<t) = sum_i w_i p(x_t | z_t^i) p(z_t^i | z_{t-1}^i) / q(z_t^i | z_{t-1}^i, x_<=t), estimated by particles
    that were weighed by what came before and that are drawn from q. They are resampled systematically where their
    effective number falls below half. The product over the steps is an unbiased estimate of p(x_1:T); its logarithm is
    a lower bound on average, FIVO (Maddison et al. 2017), and tighter the more particles there are.

    All randomness is a function of the seed and of the values seen so far: the same data give the same numbers, alone
    or beside other sequences, step by step or in one go. Sequences share their noise as long as they are alike, and so
    do draws of the weights.

    Parameters
    ----------
    head : Emission
    observation : Observation
    n_latent, hidden_size : int
        Size of z_t, and of h_t and of all hidden layers.
    emission_layers : int
        Hidden layers between (z_t, h_t) and the head.
    transition : {"gated", "linear"}
        See ``Transition``.
    inference : {"left", "right", "both"} or None
        What the law that training draws from looks at, see ``Guide``; None is the family's own.
    rnn_size : int or None
        Size of the nets of the inference network; None is ``hidden_size``.
    residual, flow_layers : bool, int
        See ``Guide``.
    proposal : {"network", "laplace", "prior"}
        What particles are drawn from: the inference network that looks at x_1, ..., x_t, Newton's approximation of
        p(z_t | z_{t-1}, x_t), exact where that is normal, or the prior (the bootstrap filter).
    n_particles, seed : int
    n_covariates : int
    dtype : torch.dtype

    Notes
    -----
    Parameters are ``weights`` (generative) and ``inference_weights``; only the former are free parameters of the law.
    """

    exact = False
    shares_noise = True
    bound = Bound()
    memory: ClassVar[str] = "none"
    """Whether h_t is there and what it has read: "none", "data" or "path" (the data and the latent states)."""
    markov: ClassVar[bool] = True
    """Whether z_t depends on z_{t-1} beside what h_t remembers of it."""
    filters: ClassVar[str] = "left"
    """What the inference network that filters looks at: "left", or "none" where h_t holds the past."""

    def __init__(
        self,
        head: Emission,
        observation: Observation,
        n_latent: int = 16,
        hidden_size: int = 32,
        emission_layers: int = 1,
        transition: str = "gated",
        inference: str | None = None,
        rnn_size: int | None = None,
        residual: bool = False,
        flow_layers: int = 0,
        proposal: str = "network",
        n_particles: int = 100,
        seed: int = 0,
        n_covariates: int = 0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        for name, value, lowest in (
            ("n_latent", n_latent, 1),
            ("hidden_size", hidden_size, 1),
            ("emission_layers", emission_layers, 0),
            ("n_particles", n_particles, 1),
            ("flow_layers", flow_layers, 0),
            ("rnn_size", 1 if rnn_size is None else rnn_size, 1),
        ):
            whole_number(name, value, lowest)
        one_of("proposal", proposal, PROPOSALS)
        self.head, self.observation, self.n_latent, self.hidden_size = head, observation, n_latent, hidden_size
        self.proposal, self.n_particles, self.seed = proposal, n_particles, seed
        self.n_covariates, self.dtype = n_covariates, dtype
        self.missing = "exact" if self.memory == "none" else "pattern"
        self.estimate = _estimate(n_particles)
        self.embedding = embedding_of(observation, hidden_size, None, None, False, dtype)
        self.inputs = Inputs(head, observation, 1, n_covariates, self.embedding)
        self.width = 0 if self.memory == "none" else hidden_size
        self.cells = None
        if self.memory != "none":
            self.cells = CellLayout("gru", self.inputs.size + (n_latent if self.memory == "path" else 0), hidden_size)
        self.transition = Transition(n_latent, self.width, n_covariates, hidden_size, transition, self.markov)
        inside = (n_latent, self.width)
        self.decoder = Dense("emission", inside, (hidden_size,) * emission_layers) if emission_layers else None
        n_features = hidden_size if emission_layers else sum(inside)
        self.output = HeadLayer(head, observation, n_features, n_covariates, max(1, n_covariates))
        n_read = self.inputs.size + (self.width if self.memory == "data" else 0)
        own = self.width if self.memory == "path" else 0
        sizes = (n_read, own, n_latent, hidden_size, hidden_size if rnn_size is None else rnn_size)
        settings: dict[str, Any] = {"residual": residual, "reads_latent": self.markov, "flow_layers": flow_layers}
        self.filter_guide = Guide("filter", *sizes, self.filters, **settings)
        self.smoother_guide: Guide | None = None
        if inference not in (None, self.filters):
            one_of("inference", inference, DIRECTIONS)
            self.smoother_guide = Guide("smoother", *sizes, inference, **settings)
        self._lay_out()

    def _lay_out(self) -> None:
        read: dict[str, Part] = {} if self.embedding is None else {"embedding": self.embedding.part}
        parts: dict[str, Part] = {"start": Part((self.n_latent,), "dense_bias", 1.0)} if self.markov else {}
        parts |= {} if self.cells is None else read | cell_parts(self.cells)
        parts |= self.transition.parts | ({} if self.decoder is None else self.decoder.parts) | self.output.parts
        self.weights = NetworkLayout(parts, self.dtype)
        guides = [guide for guide in (self.filter_guide, self.smoother_guide) if guide is not None]
        inference = read if self.cells is None else {}
        for guide in guides:
            inference = inference | guide.parts
        blocks = tuple(block for guide in guides for block in guide.blocks)
        self.inference_weights = NetworkLayout(inference, self.dtype, blocks)

    # weights ----------------------------------------------------------------------------------------------------------

    def parameters(self) -> dict[str, ParamSpec]:
        return {
            name: ParamSpec(
                (layout.size,),
                Real(),
                (name.removesuffix("s"),),
                torch.distributions.Normal(layout.location, layout.scale, validate_args=False),
            )
            for name, layout in (("weights", self.weights), ("inference_weights", self.inference_weights))
        }

    @property
    def n_parameters(self) -> int:
        """Number of generative weights."""
        return self.weights.size + self.n_settled

    def _draw(self, params: Params) -> tuple[int, ...]:
        return tuple(params["weights"].shape[:-1])

    def split(self, params: Params) -> Weights:
        """The weights by name."""
        return Weights(self.weights.split(params["weights"]), self.inference_weights.split(params["inference_weights"]))

    def _initial_guess(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Random weights; the head starts at the marginal law of the data."""
        found = {
            name: torch.zeros(layout.size, dtype=self.dtype)
            for name, layout in (("weights", self.weights), ("inference_weights", self.inference_weights))
        }
        w = self.split(found)
        if self.cells is not None:
            start_cells(self.cells, w.model["layers"], "uniform", generator)
        if self.embedding is not None:
            self.embedding.start((w.guide if self.cells is None else w.model)["embedding"], generator)
        self.transition.start(w.model, generator)
        if self.decoder is not None:
            self.decoder.start(w.model, generator)
        for guide in (self.filter_guide, self.smoother_guide):
            if guide is not None:
                guide.start(w.guide, generator)
        bound = 0.5 * self.output.n_features**-0.5
        self.output.start(w.model, bound, batch.x, batch.seen, generator)
        return found

    # the parts of a step ----------------------------------------------------------------------------------------------

    def read(self, w: Weights, x: Tensor, seen: Tensor, u: Tensor | None) -> Tensor:
        """What describes x_t to the networks, (*draw, n, i); what was not seen is told as not seen."""
        draw = next(iter(w.model.values())).shape[: self._draws(w)]
        shape = (*draw, *x.shape[x.ndim - 2 :]) if x.ndim == 2 else x.shape
        x = self.observation.filled(x, seen).to(self.dtype).expand(shape)
        table = (w.guide if self.cells is None else w.model).get("embedding")
        return self.inputs(table, x, seen.expand(shape), u)

    def _draws(self, w: Weights) -> int:
        return w.model["head.bias"].ndim - 1

    def describe(self, read: Tensor, shared: Memory) -> Tensor:
        """What the inference networks read: x_t, and the memory of the data where there is one."""
        return torch.cat([read, shared.hidden[..., -1, :]], -1) if self.memory == "data" else read

    def prior(self, w: Weights, z: Tensor, own: Memory, shared: Memory, u: Tensor | None) -> DiagonalLaw:
        """p(z_t | z_{t-1}, h_t, u_t), (*draw, n, particle, d), from z_{t-1} so shaped and memories before step t."""
        law = self.transition(w.model, z, self.remembered(own, shared), self._inputs(u, self._draws(w), z))
        return DiagonalLaw(law.loc.expand_as(z), law.scale.expand_as(z))

    def law(self, w: Weights, z: Tensor, own: Memory, shared: Memory, u: Tensor | None) -> Distribution:
        """p(x_t | z_t, h_t, u_t), batch (*draw, n, particle)."""
        d = self._draws(w)
        memory = self.remembered(own, shared)
        inside = (z,) if memory is None else (z, memory)
        if self.decoder is None:
            features = torch.cat([part.expand(*z.shape[:-1], part.shape[-1]) for part in inside], -1)
        else:
            features = torch.tanh(self.decoder(w.model, *inside))
        known = self._inputs(u, d, z)
        known = z[..., :0] if known is None else known.expand(*z.shape[:-1], self.n_covariates)
        found = self.output.law(w.model, features.flatten(d, -2), known.flatten(d, -2))
        return found.reshape(*z.shape[:-1])

    def advance(self, w: Weights, z: Tensor, own: Memory, shared: Memory, read: Tensor) -> tuple[Memory, Memory]:
        """Memories after step t, from z_t (*draw, n, particle, d) and what describes x_t (*draw, n, i)."""
        if self.cells is None:
            return own, shared
        if self.memory == "data":
            return own, cells.step(self.cells, w.model["layers"], read, shared).final
        d = self._draws(w)
        each = read.unsqueeze(-2).expand(*z.shape[:-1], read.shape[-1])
        rows = map_state(lambda leaf: leaf.flatten(d, d + 1), own)
        after = cells.step(self.cells, w.model["layers"], torch.cat([each, z], -1).flatten(d, d + 1), rows).final
        return map_state(lambda leaf: leaf.unflatten(d, z.shape[d : d + 2]), after), shared

    def remembered(self, own: Memory, shared: Memory) -> Tensor | None:
        """h_t beside the particles, (*draw, n, particle or 1, h); None without one."""
        if self.memory == "none":
            return None
        return own.hidden[..., -1, :] if self.memory == "path" else shared.hidden[..., -1, :].unsqueeze(-2)

    def _inputs(self, u: Tensor | None, draws: int, z: Tensor) -> Tensor | None:
        """u_t beside the particles, (*draw, n, 1, m)."""
        if not self.n_covariates or u is None:
            return None
        return u.to(z.dtype).expand(*z.shape[:draws], *u.shape[-2:]).unsqueeze(-2)

    # one step of all particles ----------------------------------------------------------------------------------------

    def initial_state(self, params: Params, n: int) -> LatentState:
        return self.start(params, n, self.n_particles)

    def start(self, params: Params, n: int, n_particles: int) -> LatentState:
        """The state before the first step with any number of particles."""
        w, shape = self.split(params), (*self._draw(params), n)
        bias = w.model["head.bias"]
        like = bias.new_zeros(shape)
        z = bias.new_zeros((*shape, n_particles, self.n_latent))
        if self.markov:
            z = z + w.model["start"].unsqueeze(-2).unsqueeze(-2)
        layers = 0 if self.cells is None else 1
        hidden = bias.new_zeros((*shape, layers, self.width))
        nothing, remembered = Memory(hidden[..., :0, :], hidden[..., :0, :]), Memory(hidden, hidden[..., :0, :])
        own = remembered if self.memory == "path" else nothing
        own = map_state(lambda leaf: leaf.unsqueeze(-3).expand(*shape, n_particles, *leaf.shape[-2:]), own)
        even = torch.full((*shape, n_particles), -math.log(n_particles), dtype=torch.float64, device=bias.device)
        noise = noise_of(first_keys(self.seed, shape, bias.device), n_particles, self.n_latent, self.dtype)
        return LatentState(
            z,
            own,
            remembered if self.memory == "data" else nothing,
            self.filter_guide.empty_reader(like),
            even,
            *noise,
            torch.zeros(shape, dtype=torch.int64, device=bias.device),
        )

    def predict_next(self, params: Params, state: LatentState, u: Tensor | None = None) -> Distribution:
        """A mixture over the particles, each moved by the prior."""
        w = self.split(params)
        z = self.prior(w, state.z, state.own, state.shared, u).at(state.noise)
        return mixture(state.log_weights.to(self.dtype), self.law(w, z, state.own, state.shared, u))

    def update(
        self, params: Params, state: LatentState, x: Tensor, seen: Tensor, u: Tensor | None = None
    ) -> LatentState:
        """The state after step t. Where nothing is seen particles move by the prior and keep their weights."""
        return self.step(params, state, x, seen, u).state

    def step(
        self,
        params: Params,
        state: LatentState,
        x: Tensor,
        seen: Tensor,
        u: Tensor | None = None,
        noise: Callable[[LatentState], Noise] | None = None,
    ) -> Stepped:
        """One step of the particle filter; its arguments are those of ``latent_filter.step``."""
        return step(self, params, state, x, seen, u, noise)

    # training ---------------------------------------------------------------------------------------------------------

    def _training_log_prob(
        self,
        params: Params,
        batch: Batch,
        scored: Tensor,
        state: LatentState | None,
        generator: torch.Generator,
        done: float = 1.0,
    ) -> tuple[Tensor, LatentState]:
        """The ``bound`` of each sequence, by noise of the generator."""
        return trained_bound(self, params, batch, scored, state, self.bound, generator, done)

    def _validation_log_prob(self, params: Params, batch: Batch, scored: Tensor) -> Tensor:
        """The ELBO, or the bound that training maximises where that is another one, by the same noise every time."""
        generator = torch.Generator(device=batch.x.device).manual_seed(self.seed)
        bound = Bound(self.bound.objective, self.bound.n_samples)
        return trained_bound(self, params, batch, scored, None, bound, generator, 1.0)[0]

    def trained_by(self, bound: Bound) -> Self:
        """The same model, whose training maximises that bound."""
        other = copy.copy(self)
        other.bound = bound
        return other

    def with_particles(self, n_particles: int) -> Self:
        """The same model with another number of particles."""
        other = copy.copy(self)
        other.n_particles, other.estimate = n_particles, _estimate(n_particles)
        return other

    # whole sequences --------------------------------------------------------------------------------------------------

    def _log_prob_steps(self, params: Params, batch: Batch, state: LatentState) -> Steps[LatentState]:
        return self.run(params, batch, state)[0]

    def run(
        self,
        params: Params,
        batch: Batch,
        state: LatentState,
        noise: Callable[[LatentState], Noise] | None = None,
        keep: bool = False,
    ) -> tuple[Steps[LatentState], Cloud | None]:
        """Filter a batch; its arguments are those of ``latent_filter.run``."""
        return run(self, params, batch, state, noise, keep)

    def _sample(
        self,
        params: Params,
        state: LatentState,
        length: int,
        generator: torch.Generator | None,
        u: Tensor | None,
        temper: Callable[[Distribution], Distribution] | None,
    ) -> tuple[Tensor, LatentState]:
        """A path goes on from one particle, chosen by weight."""
        x, _, final = self.simulate(params, state, length, generator, u, temper)
        return x, final

    def simulate(
        self,
        params: Params,
        state: LatentState,
        length: int,
        generator: torch.Generator | None = None,
        u: Tensor | None = None,
        temper: Callable[[Distribution], Distribution] | None = None,
    ) -> tuple[Tensor, Tensor, LatentState]:
        """Values (*draw, n, length, k), the latent states behind them (*draw, n, length, d), the state after them."""
        return simulate(self, params, state, length, generator, u, temper)


def _estimate(n_particles: int) -> str:
    return f"FIVO ({n_particles} particle{'' if n_particles == 1 else 's'})"
