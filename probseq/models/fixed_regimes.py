"""A regression or autoregression whose coefficients switch by known probabilities: a hidden Markov chain of regimes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from probseq._types import Record
from probseq.distributions.base import Distribution
from probseq.distributions.emissions import Normal, Observation
from probseq.distributions.emissions.regression import NormalRegression
from probseq.distributions.params import Params, ParamSpec
from probseq.models.base import Batch, Scan, SequenceModel, Steps
from probseq.models.driven import DrivenHiddenMarkovModel
from probseq.models.hmm import HiddenMarkovModel

__all__ = ["FixedRegimes", "KnownRegimes"]


@dataclass(frozen=True, eq=False, repr=False)
class KnownRegimes(Record):
    """x_t - mu_(S_t) = sum_i phi_(i, S_t) (x_(t-i) - mu_(S_(t-i))) + beta_(S_t) u_t + e_t, S_t a chain of K regimes.

    A state is (S_t, ..., S_(t-order)), numbered with S_t as the leading digit in base K.

    Parameters
    ----------
    name : str
        What the regimes are of.
    n_regimes : K. order : int
    initial : p(S_1), (K,). transition : A (K, K), from row to column.
    mean : mu (K,). autoregression : phi (K, order). coefficients : beta (K, m).
    variance : Var e_t (K,).
    lag : int
        The variance of step t is that of regime S_(t-lag).
    parameters : tuple of str
        Names of the parameters that all this was made of.
    """

    name: str
    n_regimes: int
    order: int
    initial: np.ndarray
    transition: np.ndarray
    mean: np.ndarray
    autoregression: np.ndarray
    coefficients: np.ndarray
    variance: np.ndarray
    lag: int
    parameters: tuple[str, ...]

    def __repr__(self) -> str:
        return f"<{self.name} with {self.n_regimes} regimes>"

    def regimes(self) -> np.ndarray:
        """S_t, ..., S_(t-order) of every state, (K^(order + 1), order + 1)."""
        shape = (self.n_regimes,) * (self.order + 1)
        return np.stack([digit.ravel() for digit in np.indices(shape)], -1)


class FixedRegimes(SequenceModel[Any]):
    """The law of `KnownRegimes`; its parameters are the numbers that these were made of, and do not move it.

    The likelihood is exact; the first ``order`` values are conditioned on, and none may be missing where ``order > 0``.
    """

    def __init__(self, known: KnownRegimes) -> None:
        self.known = known
        regimes = known.regimes()
        n_states, m = len(regimes), known.coefficients.shape[1]
        now, before = regimes[:, 0], regimes[:, 1:]
        self.observation, self.n_covariates = Observation(1), m
        # The second state of a move must remember what the first one knew.
        follows = (regimes[:, None, :-1] == regimes[None, :, 1:]).all(-1)
        start = np.where((regimes == now[:, None]).all(-1), known.initial[now], 0.0)
        phi = known.autoregression[now]
        values = {
            "initial": start,
            "transition": np.where(follows, known.transition[now[:, None], now[None, :]], 0.0),
            "scale": np.sqrt(known.variance[regimes[:, known.lag]])[:, None],
        }
        self.chain: HiddenMarkovModel
        if known.order or m:
            values["intercept"] = (known.mean[now] - (phi * known.mean[before]).sum(-1))[:, None]
            if m:
                values["coefficients"] = known.coefficients[now][:, None]
            if known.order:
                values["autoregression"] = phi[:, :, None, None]
            seen = replace(self.observation, n_covariates=m)
            self.chain = DrivenHiddenMarkovModel(n_states, NormalRegression(known.order), seen, n_covariates=m)
        else:
            values["mean"] = known.mean[:, None]
            self.chain = HiddenMarkovModel(n_states, Normal(), self.observation)
        self._values = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in values.items()}

    def parameters(self) -> dict[str, ParamSpec]:
        return {name: ParamSpec(()) for name in self.known.parameters}

    def chain_params(self, params: Params) -> dict[str, Tensor]:
        """Parameters of ``chain``, whose states are those of `KnownRegimes`, with the draw dimensions."""
        draw = self._draw(params)
        return {name: value.expand(*draw, *value.shape) for name, value in self._values.items()}

    def of_regimes(self, probs: Tensor) -> Tensor:
        """Probabilities of the regimes (..., K) from those of the states."""
        return probs.unflatten(-1, (self.known.n_regimes, -1)).sum(-1)

    def initial_state(self, params: Params, n: int) -> Any:
        return self.chain.initial_state(self.chain_params(params), n)

    def scores_next(self, state: Any) -> Tensor | None:
        return self.chain.scores_next(state)

    def predict_next(self, params: Params, state: Any, u: Tensor | None = None) -> Distribution:
        return self.chain.predict_next(self.chain_params(params), state, u)

    def update(self, params: Params, state: Any, x: Tensor, seen: Tensor, u: Tensor | None = None) -> Any:
        return self.chain.update(self.chain_params(params), state, x, seen, u)

    def _scan(self, params: Params, batch: Batch, state: Any) -> Scan[Any]:
        return self.chain._scan(self.chain_params(params), batch, state)

    def _log_prob_steps(self, params: Params, batch: Batch, state: Any) -> Steps[Any]:
        return self.chain._log_prob_steps(self.chain_params(params), batch, state)

    def _forecast_marginals(self, params: Params, state: Any, u: Tensor | None, horizon: int) -> Distribution | None:
        return self.chain._forecast_marginals(self.chain_params(params), state, u, horizon)

    def _sample(
        self,
        params: Params,
        state: Any,
        length: int,
        generator: torch.Generator | None,
        u: Tensor | None,
        temper: Callable[[Distribution], Distribution] | None,
    ) -> tuple[Tensor, Any]:
        return self.chain._sample(self.chain_params(params), state, length, generator, u, temper)
