"""Averaging over models: which of them made the sequence is a latent variable, redrawn at each step or never."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from probseq.distributions.base import Distribution
from probseq.distributions.blend import blend, concatenated
from probseq.distributions.params import Params, ParamSpec, Simplex
from probseq.errors import IncompatibleError
from probseq.models.base import Batch, Scan, SequenceModel, Steps, map_state

__all__ = ["AverageModel", "AverageState"]


class AverageState(NamedTuple):
    """components : a state of each model, leaves (*draw, n, ...); log_weights : (*draw, n, m), normalised."""

    components: tuple[Any, ...]
    log_weights: Tensor


class AverageModel(SequenceModel[AverageState]):
    r"""p(x_{1:T}) = sum_m w_m p_m(x_{1:T} | theta_m), each model with parameters of its own.

    Seeing data multiplies the weights by each model's predictive density, so that the one-step factors multiply to the
    sum above and a simulated path keeps its model. With ``adapt=False`` the weights stay, and the model is drawn anew
    at each step, prod_t sum_m w_m p_m(x_t | x_<t), also along simulated paths; a missing value is then integrated out
    within each model only.

    With ``forgetting`` f < 1 the weights before step t + 1 are proportional to (w_mt p_m(x_t | x_<t))^f, so that the
    score of s steps ago counts f^s, and a step without a score draws the weights together. The law is the product of
    the one-step mixtures. One latent model of the whole sequence would not have it, as the weights that it implies
    forget nothing. Paths are drawn step by step, a model by the weights of the step and a value from that model, and
    the value moves the weights as data would. To draw the model anew does not make a path forget more than the weights
    do: for f = 1 it would give the law of paths that keep their model.

    A step is scored where all models of positive weight score the same values of it.

    Parameters of the first model keep their names, those of model m = 2, 3, ... are called ``name_m``; ``weights``
    (m,) are the weights at the start of a sequence.

    Source of the forgetting: Raftery, Karny and Ettler (2010), Technometrics 52, section 3.2.

    Parameters
    ----------
    models : list of SequenceModel
        Of the same variables, base measures and covariates.
    adapt : bool
    forgetting : float
        In (0, 1].
    known : bool
        Whether the weights are given and no parameters to learn.

    Raises
    ------
    IncompatibleError
        For no model, or models of different variables, measures or covariates.
    """

    def __init__(
        self,
        models: Sequence[SequenceModel[Any]],
        adapt: bool = True,
        forgetting: float = 1.0,
        known: bool = False,
    ) -> None:
        first = models[0] if models else None
        if first is None or any(_kind(m) != _kind(first) for m in models):
            raise IncompatibleError(
                got="no model to average" if first is None else "models of different data",
                expected="models of the same variables, base measure and covariates",
                remedy="Build them from the same data.",
            )
        self.models, self.adapt, self.forgetting, self.known = tuple(models), adapt, forgetting, known
        self.observation, self.n_covariates = first.observation, first.n_covariates
        double = any(m.dtype == torch.float64 for m in models)
        self.dtype = torch.float64 if double else first.dtype
        self.exact = all(m.exact for m in models)
        self.estimate = ", ".join(dict.fromkeys(m.estimate for m in models if m.estimate))
        self.likelihood = "conditional" if any(m.likelihood == "conditional" for m in models) else "exact"
        self.missing = next(
            (kind for kind in ("particles", "pattern") if any(m.missing == kind for m in models)), "exact"
        )
        self.starts_itself = self._keeps_model and all(m.starts_itself for m in models)
        self.n_settled = sum(m.n_settled for m in models)
        self._names = [
            {name: name if i == 0 else f"{name}_{i + 1}" for name in model.parameters()}
            for i, model in enumerate(models)
        ]

    @property
    def _keeps_model(self) -> bool:
        """Whether one model has made the whole sequence."""
        return self.adapt and self.forgetting == 1.0

    def parameters(self) -> dict[str, ParamSpec]:
        weights = ParamSpec((len(self.models),), Simplex(), ("component",), trainable=not self.known)
        specs = {"weights": weights}
        for model, names in zip(self.models, self._names, strict=True):
            specs |= {names[name]: spec for name, spec in model.parameters().items()}
        return specs

    def join(self, params: Sequence[Params], weights: Tensor) -> dict[str, Tensor]:
        """Parameters of the average from those of each model and the weights (*draw, m)."""
        joined = {"weights": weights}
        for one, names in zip(params, self._names, strict=True):
            joined |= {names[name]: value for name, value in one.items()}
        return joined

    def parts(self, params: Params) -> list[dict[str, Tensor]]:
        """The parameters of each model by their own names."""
        return [{name: params[longer] for name, longer in names.items()} for names in self._names]

    def _initial_guess(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        guesses = [model._initial_guess(batch, generator) for model in self.models]
        count = len(self.models)
        return self.join(guesses, torch.full((count,), 1.0 / count, dtype=self.dtype))

    # the one-step law -------------------------------------------------------------------------------------------------

    def initial_state(self, params: Params, n: int) -> AverageState:
        states = tuple(m.initial_state(own, n) for m, own in self._own(params))
        start = params["weights"].log().unsqueeze(-2)
        return AverageState(states, start.expand(*start.shape[:-2], n, len(self.models)))

    def predict_next(self, params: Params, state: AverageState, u: Tensor | None = None) -> Distribution:
        return blend(state.log_weights, [m.predict_next(own, one, u) for (m, own), one in self._with(params, state)])

    def update(
        self, params: Params, state: AverageState, x: Tensor, seen: Tensor, u: Tensor | None = None
    ) -> AverageState:
        log_weights = state.log_weights
        if self.adapt:
            scores = self.scores_next(state)
            scored = seen if scores is None else seen & scores
            laws = [m.predict_next(own, one, u) for (m, own), one in self._with(params, state)]
            each = torch.stack(torch.broadcast_tensors(*(law.log_prob_seen(x, scored) for law in laws)), -1)
            log_weights = _normalised(self.forgetting * (log_weights + each), log_weights)
        return AverageState(
            tuple(m.update(own, one, x, seen, u) for (m, own), one in self._with(params, state)), log_weights
        )

    def scores_next(self, state: AverageState) -> Tensor | None:
        each = [m.scores_next(one) for m, one in zip(self.models, state.components, strict=True)]
        given = [one for one in each if one is not None]
        if not given:
            return None
        whole = torch.ones_like(given[0])
        return _agreed([whole if one is None else one for one in each], state.log_weights)

    # trajectories -----------------------------------------------------------------------------------------------------

    def _scan(self, params: Params, batch: Batch, state: AverageState) -> Scan[AverageState]:
        scans = [m._scan(own, batch, one) for (m, own), one in self._with(params, state)]
        each, _ = self._factors(self._runs(params, batch, state), state)
        along, last = self._weights_along(state.log_weights, each, batch.real)
        before = AverageState(tuple(scan.states for scan in scans), along)
        return Scan(before, AverageState(tuple(scan.final for scan in scans), last))

    def _log_prob_steps(self, params: Params, batch: Batch, state: AverageState) -> Steps[AverageState]:
        runs = self._runs(params, batch, state)
        each, scored = self._factors(runs, state)
        along, last = self._weights_along(state.log_weights, each, batch.real)
        values = torch.logsumexp(along + each, -1)
        values = torch.where(scored.any(-1), values, torch.zeros_like(values))
        return Steps(values, scored, None, AverageState(tuple(run.final for run in runs), last))

    def _predictive(self, params: Params, batch: Batch, state: AverageState) -> tuple[Distribution, Tensor]:
        each, scored = self._factors(self._runs(params, batch, state), state)
        along, _ = self._weights_along(state.log_weights, each, batch.real)
        laws = [m._predictive(own, batch, one)[0] for (m, own), one in self._with(params, state)]
        return blend(along, laws), scored

    def _runs(self, params: Params, batch: Batch, state: AverageState) -> list[Steps[Any]]:
        return [m._log_prob_steps(own, batch, one) for (m, own), one in self._with(params, state)]

    def _factors(self, runs: Sequence[Steps[Any]], state: AverageState) -> tuple[Tensor, Tensor]:
        """log p_m(x_t | x_<t) (*draw, n, t, m), 0 where nothing is scored by the average, and the scored mask."""
        scored = _agreed([run.scored for run in runs], state.log_weights)
        each = torch.stack([run.values for run in runs], -1)
        return torch.where(scored.any(-1).unsqueeze(-1), each, torch.zeros_like(each)), scored

    def _weights_along(self, start: Tensor, each: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """Log-weights before each step (*draw, n, t, m) and after the last, from the factors (*draw, n, t, m)."""
        first = start.unsqueeze(-2)
        if not self.adapt:
            return first.expand(each.shape), start
        if self.forgetting < 1.0:
            return self._step_along(start, each, real)
        total = torch.cat([first, first + torch.cumsum(each, -2)], -2)
        if bool((total == -torch.inf).all(-1).any()):
            return self._step_along(start, each, real)  # what no model thinks possible does not end the weighing
        total = torch.log_softmax(total, -1)
        return total[..., :-1, :], total[..., -1, :]

    def _step_along(self, start: Tensor, each: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """As above, one step after the other; behind the end of a sequence, real (n, t) being False, nothing moves."""
        now, along = start.expand(*each.shape[:-2], each.shape[-1]), []
        for t in range(each.shape[-2]):
            along.append(now)
            after = _normalised(self.forgetting * (now + each[..., t, :]), now)
            now = torch.where(real[:, t].unsqueeze(-1), after, now)
        return torch.stack(along, -2) if along else each, now

    # the future -------------------------------------------------------------------------------------------------------

    def _forecast_marginals(
        self, params: Params, state: AverageState, u: Tensor | None, horizon: int
    ) -> Distribution | None:
        if not self._keeps_model and horizon > 1:
            return None  # each step has a model of its own: a mixture of all combinations
        laws = [m._forecast_marginals(own, one, u, horizon) for (m, own), one in self._with(params, state)]
        known = [law for law in laws if law is not None]
        if len(known) < len(laws):
            return None
        weights = state.log_weights.unsqueeze(-2)
        return blend(weights.expand(*weights.shape[:-2], horizon, weights.shape[-1]), known)

    def _forecast_joint(
        self, params: Params, state: AverageState, u: Tensor | None, horizon: int
    ) -> Distribution | None:
        if not self._keeps_model and horizon > 1:
            return None
        laws = [m._forecast_joint(own, one, u, horizon) for (m, own), one in self._with(params, state)]
        known = [law for law in laws if law is not None]
        return concatenated(state.log_weights, known) if len(known) == len(laws) else None

    def _sample(
        self,
        params: Params,
        state: AverageState,
        length: int,
        generator: torch.Generator | None,
        u: Tensor | None,
        temper: Callable[[Distribution], Distribution] | None,
    ) -> tuple[Tensor, AverageState]:
        if not self._keeps_model:
            return super()._sample(params, state, length, generator, u, temper)
        weights = state.log_weights.exp()
        draws = weights.ndim - 2
        choice = torch.multinomial(weights.reshape(-1, weights.shape[-1]), 1, generator=generator)
        choice = choice.reshape(weights.shape[:-1])
        x = torch.zeros(*choice.shape, length, self.observation.n_variables, dtype=self.dtype)
        states = list(state.components)
        for i, (model, own) in enumerate(self._own(params)):
            chosen = choice == i
            rows = torch.nonzero(chosen.reshape(-1, choice.shape[-1]).any(0)).squeeze(-1)
            if not len(rows):
                continue
            some = map_state(lambda leaf, r=rows: leaf.index_select(draws, r), states[i])
            future = None if u is None else u.index_select(u.ndim - 3, rows)
            path, after = model._sample(own, some, length, generator, future, temper)
            mine = chosen.index_select(draws, rows)

            def put(old: Tensor, new: Tensor, r: Tensor = rows, mine: Tensor = mine) -> Tensor:
                kept = old.index_select(draws, r)
                shaped = mine.reshape(*mine.shape, *(1,) * (old.ndim - mine.ndim))
                return old.index_copy(draws, r, torch.where(shaped, new.to(old.dtype), kept))

            x = put(x, path)
            states[i] = map_state(put, states[i], after)
        certain = torch.full_like(state.log_weights, -torch.inf).scatter(-1, choice.unsqueeze(-1), 0.0)
        return x, AverageState(tuple(states), certain)

    # pairs ------------------------------------------------------------------------------------------------------------

    def _own(self, params: Params) -> list[tuple[SequenceModel[Any], dict[str, Tensor]]]:
        return list(zip(self.models, self.parts(params), strict=True))

    def _with(self, params: Params, state: AverageState) -> list[tuple[Any, Any]]:
        return list(zip(self._own(params), state.components, strict=True))


def _kind(model: SequenceModel[Any]) -> tuple[Any, ...]:
    """What averaged models must have in common."""
    return model.observation.measures, model.observation.categories, model.n_covariates


def _agreed(masks: Sequence[Tensor], log_weights: Tensor) -> Tensor:
    """Values (n, ..., k) that all models of positive weight score; none of a step at which they differ.

    Models without weight do not count: the state of one that a simulated path did not choose has not seen that path.
    """
    first = masks[0]
    if all(torch.equal(mask, first) for mask in masks[1:]):
        return first
    table = torch.stack(list(masks))
    weights = log_weights.reshape(-1, *log_weights.shape[-2:])[0]
    ignored = (weights == -torch.inf).T.reshape(len(masks), first.shape[0], *(1,) * (first.ndim - 1))
    every, some = (table | ignored).all(0), (table & ~ignored).any(0)
    return every & (every == some).all(-1, keepdim=True)


def _normalised(log_weights: Tensor, otherwise: Tensor) -> Tensor:
    """Log-weights that sum to one; those given where every model thought the data impossible, as none is preferred."""
    possible = (log_weights > -torch.inf).any(-1, keepdim=True)
    safe = torch.where(possible, log_weights, torch.zeros_like(log_weights))
    return torch.where(possible, torch.log_softmax(safe, -1), otherwise)
