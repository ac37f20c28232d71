"""What a fitted model expects: one-step predictives, forecasts, generation."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
import xarray as xr

from probseq._random import RandomState, torch_generator
from probseq.data.sequences import Sequences
from probseq.distributions.compose import mixture
from probseq.errors import (
    ApproximationWarning,
    HistoryError,
    HorizonError,
    ParameterError,
)
from probseq.estimators.fitted import TRAINING, FittedModel
from probseq.estimators.state import State
from probseq.results.backends import Backend, LawBackend, PathsBackend
from probseq.results.forecast import Forecast
from probseq.results.joint import ModelJoint

__all__ = ["Predicting"]


def check_asked(X: Any, horizon: int | None) -> None:
    """Whether ``predict`` is asked for the rows of X or for the future, and not for both or neither."""
    if (X is None) == (horizon is None):
        raise ParameterError(
            got="both X and horizon" if horizon is not None else "neither X nor horizon",
            expected="one of them",
            remedy="predict(X) for fitted values, predict(horizon=12) for the future.",
        )


class Predicting(FittedModel):
    """Predictive distributions and simulation."""

    has_states: ClassVar[bool] = False
    """Whether the family has discrete hidden states that can be sampled with the data."""
    has_latent_paths: ClassVar[bool] = False
    """Whether it has hidden states that are vectors and can be sampled with the data."""

    def predictive(
        self,
        X: Any,
        *,
        lengths: Any = None,
        covariates: Any = None,
        history: Any = None,
        weights: str = "adapt",
    ) -> Forecast:
        """The one-step-ahead predictive distribution of every row of X, given the rows before it.

        Parameters
        ----------
        history : None, ps.TRAINING or data
            What came before X.
        weights : "adapt" or "frozen"
            Whether what is seen moves the weights of the parameter draws (the model's law), or each draw keeps the
            weight that the fit gave it.
            ``decompose()`` of the result is by these weights.
        """
        data = self._read(X, lengths, covariates)
        return self._predictive(data, self._begin(data, history, weights), weights)

    def _predictive(self, data: Sequences, state: Any, weights: str = "adapt") -> Forecast:
        batch, model = self._batch(data), self._weighed(weights)
        with torch.no_grad():
            start = model.initial_state({}, batch.n) if state is None else state
            laws, log_weights, scored = model.predictive_draws(batch, start)
            law = mixture(log_weights.to(self.model_.dtype), laws)
        # A missing value has a predictive law too; only conditioning takes it away.
        missing = batch.real.unsqueeze(-1) & ~batch.seen
        several = self.model_.n_draws > 1
        backend = LawBackend(law, laws if several else None, log_weights.exp() if several else None)
        method = None
        if not model.exact and (model.missing != "particles" or bool(missing.any())):
            backend.exact, method = False, model.estimate
        return Forecast(
            backend, data, data.index, scored=(scored | missing).numpy(), method=method, random_state=self.random_state
        )

    def predict(
        self,
        X: Any = None,
        *,
        horizon: int | None = None,
        lengths: Any = None,
        covariates: Any = None,
        history: Any = ...,
        weights: str = "adapt",
    ) -> xr.DataArray:
        """Point predictions: E[x_t | x_<t] for every row of X, or E[x_T+1..x_T+h] with ``horizon=h``.

        The most probable category for tokens; the median, with a warning, where no mean exists. Without ``history=``
        rows of X start a new sequence, and the future follows the training data. ``weights`` are as for ``predictive``
        and ``forecast``.
        """
        check_asked(X, horizon)
        if horizon is not None:
            past = TRAINING if history is ... else history
            return self._point(self.forecast(horizon, history=past, covariates=covariates, weights=weights))
        past = None if history is ... else history
        return self._point(self.predictive(X, lengths=lengths, covariates=covariates, history=past, weights=weights))

    def _point(self, forecast: Forecast) -> xr.DataArray:
        if self.model_.observation.n_categories is not None and forecast._backend.nominal:
            return self._tokens(forecast.mode())
        mean = forecast._label(forecast._backend.mean(), "mean")
        if forecast._backend.nominal_variables.any():
            mean = mean.fillna(forecast._label(forecast._backend.mode(), "mode"))
        defined = np.isfinite(mean.values) | ~np.isfinite(forecast.median().values)
        if defined.all():
            return mean.rename("prediction")
        warnings.warn(
            "The mean of this forecast does not exist; predict returns the median.", ApproximationWarning, stacklevel=3
        )
        return forecast.median().rename("prediction").drop_vars("quantile", errors="ignore")

    def _tokens(self, codes: xr.DataArray) -> xr.DataArray:
        """Tokens for codes; "" (or -1 for codes without a vocabulary) where there is no step."""
        there = ~np.isnan(codes.values)
        whole = np.where(there, codes.values, -1).astype(int)
        if self.vocabulary_ is None:
            return codes.copy(data=whole).rename("prediction")
        words = np.asarray([*self.vocabulary_.tokens, ""], dtype=object)
        return codes.copy(data=words[whole]).rename("prediction")

    def forecast(
        self,
        horizon: int | None = None,
        *,
        history: Any = TRAINING,
        covariates: Any = None,
        n_paths: int = 2000,
        state: State | None = None,
        weights: str = "adapt",
        random_state: RandomState = None,
    ) -> Forecast:
        """The joint predictive distribution of the next ``horizon`` steps.

        A model of several parameter draws keeps one of them along each path.

        Parameters
        ----------
        horizon : int
        history : ps.TRAINING, None or data
            What came before; None starts a new sequence. Draws of parameters are weighed by what it has beyond the data
            that they were fitted to, as far as it begins with all of these, under the same names; some of many
            series, or a piece of one, are taken for new data (``weights="frozen"`` then keeps the weights of the fit).
        covariates : like X
            Future values of the covariates, by name.
        n_paths : int
            Number of simulated paths where the law of a step has no closed form.
        state : State
            Continue from this state instead of a history.
        weights : "adapt" or "frozen"
            Whether the history has moved the weights of the parameter draws (the model's law), or each draw has the
            weight that the fit gave it, whatever the history or the state. ps.TRAINING does not move them.
        random_state : int or Generator
            For the paths; the estimator's own by default.
        """
        self._check_fitted()
        steps = _check_horizon(horizon)
        if state is not None:
            self._check_state(state)
            if history is not TRAINING:
                raise ParameterError(
                    got="both state= and history=", expected="one of them", remedy="A state knows its past."
                )
            labels = self._unlabelled(state.n)
            tree, past = state.tree, None
            index: tuple[pd.Index, ...] = tuple(pd.RangeIndex(1, steps + 1) for _ in range(state.n))
        elif history is None:
            labels, past = self._unlabelled(1), None
            tree, index = self.model_.initial_state({}, 1), (pd.RangeIndex(steps),)
        else:
            if history is TRAINING or self._is_training(history, stamped=True):
                past, tree = self._training()
            else:
                past = self._read_past(history)
                tree = self._after(past)
            labels, index = past, past.future_index(steps, covariates)
        tree = self._held(tree, weights)
        inputs = self._future_inputs(labels, covariates, steps, index)
        seed = self.random_state if random_state is None else random_state
        return self._forecast(tree, steps, inputs, labels, index, past, n_paths, seed)

    def _forecast(
        self,
        tree: Any,
        steps: int,
        inputs: np.ndarray | None,
        labels: Sequences,
        index: tuple[pd.Index, ...],
        past: Sequences | None,
        n_paths: int,
        random_state: RandomState,
    ) -> Forecast:
        ready = self.model_.scores_next(tree)
        if ready is not None and not bool(ready.all()):
            raise HistoryError(
                got="a forecast without the values that the model starts from",
                expected=f"a history, since {type(self).__name__} conditions on its first values",
                remedy="Pass history=X, or use the default ps.TRAINING after fit.",
            )
        joint, backend, method = self._ahead(tree, steps, inputs, n_paths, random_state)
        return Forecast(
            backend, labels, index, joint=joint, history=past, method=method, future=True, random_state=random_state
        )

    def _ahead(
        self, tree: Any, steps: int, inputs: np.ndarray | None, n_paths: int, random_state: RandomState
    ) -> tuple[ModelJoint, Backend, str | None]:
        """The law of the next steps after states that are ready: together, each by itself, and how it was found."""
        joint = ModelJoint(self.model_, tree, steps, inputs)
        known = joint.steps()
        if known is not None:
            return joint, known, None
        if not isinstance(n_paths, int | np.integer) or isinstance(n_paths, bool) or n_paths < 2:
            raise ParameterError(got=f"n_paths={n_paths!r}", expected="a whole number from 2", remedy="Try 2000.")
        paths = joint.sample(int(n_paths), torch_generator(random_state))
        observation, method = self.model_.observation, f"{n_paths} simulated paths"
        u = None if inputs is None else torch.as_tensor(inputs)
        with torch.no_grad():
            means = self.model_.forecast_mean({}, tree, steps, u)
            # A moment that the next step does not have, no later one has.
            law = self.model_.predict_next({}, tree, None if u is None else u[:, 0])
        if means is not None:
            paths = paths + (means.double().numpy() - paths.mean(0))
            method = f"{method}, moved to the exact means"
        finite = (law.has_moment(1.0)[:, None].numpy(), law.has_moment(2.0)[:, None].numpy())
        discrete = observation.discrete_variables.numpy()
        return joint, PathsBackend(paths, discrete, observation.n_categories, finite), method

    def sample(
        self,
        length: int,
        n_sequences: int | None = None,
        *,
        history: Any = None,
        covariates: Any = None,
        states: bool = False,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        exclude: Any = None,
        beams: int | None = None,
        log_prob: bool = False,
        weights: str = "adapt",
        random_state: RandomState = None,
    ) -> Any:
        """Generate sequences from the model, after a history if one is given.

        A model of several parameter draws keeps one of them along each sequence.

        Parameters
        ----------
        length : int
        n_sequences : int or None
            None gives one sequence without a ``sequence`` dimension.
        history : None, ps.TRAINING or one sequence
        states : bool
            Also return the hidden states, where the family has some.
        temperature, top_k, top_p
            For tokens: p^(1/temperature), the k most probable, the smallest set of probability top_p.
        exclude : token, or list of tokens
            What is never drawn, such as ``"<unknown>"``.
        beams : int
            For tokens: instead of drawing, search for the most probable sequences, keeping so many at each step (draws
            are averaged); the best first. A sequence that has ended stays as it is.
        log_prob : bool
            Also return log p of each sequence given the history under the model's own law, in nats, the end included.
        weights : "adapt" or "frozen"
            Whether the history has moved the weights by which parameter draws are chosen, as for ``forecast``.

        Returns
        -------
        DataArray (sequence, time, variable); str or list of str for text. A pair where more is asked for.
        """
        from probseq.estimators.generation import Shaping, generate

        shaping = Shaping(temperature, top_k, top_p, beams)
        return generate(
            self, length, n_sequences, history, covariates, states, shaping, exclude, log_prob, weights, random_state
        )


def _check_horizon(horizon: Any) -> int:
    if not isinstance(horizon, int | np.integer) or isinstance(horizon, bool) or horizon < 1:
        raise HorizonError(got=f"horizon={horizon!r}", expected="a whole number from 1", remedy="Try horizon=12.")
    return int(horizon)
