"""The law of single steps given all the others: missing values and ordinary residuals of models with hidden states."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from probseq._random import RandomState, torch_generator
from probseq.data.sequences import Sequences
from probseq.distributions.base import Distribution
from probseq.distributions.compose import mixture, push
from probseq.distributions.conditioning import given
from probseq.distributions.discretized import discretized
from probseq.distributions.params import take_draw
from probseq.errors import ApproximationWarning, ParameterError, UnsupportedError
from probseq.estimators.latent import HiddenStates
from probseq.estimators.residuals import Residuals
from probseq.models.base import Batch, map_state
from probseq.models.context_scale import ContextScaledModel
from probseq.models.discretized import DiscretizedModel
from probseq.models.latent import DiscreteLatent
from probseq.models.wrappers import ElementwiseModel, layers
from probseq.results.backends import LawBackend
from probseq.results.forecast import Forecast

__all__ = ["Imputation"]

_DIMS = ("sequence", "time", "variable")


class Imputation(HiddenStates, Residuals):
    """What the seen values say about a step that was not seen."""

    def impute(
        self,
        X: Any,
        n_draws: int | None = None,
        *,
        lengths: Any = None,
        covariates: Any = None,
        history: Any = None,
        random_state: RandomState = None,
    ) -> xr.DataArray:
        """The data with their missing values replaced, exact given the model and its parameter draws.

        Parameters
        ----------
        X : data in any form, NaN = missing
        n_draws : int or None
            None puts E[x_t | all that was seen] (the most probable category, for tokens; the median, with a warning,
            where no mean exists), with its standard deviation in a coordinate ``std`` (0 where a value was seen, NaN
            for categories; none for tokens). A number draws so many completions from their joint law given all that
            was seen, along a dimension ``path``.
        random_state : int or Generator
            For the draws; the estimator's own by default.

        Returns
        -------
        DataArray on the scale of the data, dims ``sequence, time, variable``.

        Raises
        ------
        UnsupportedError
            Behind ``ContextScale``.
        """
        data = self._read(X, lengths, covariates)
        if any(isinstance(wrapper, ContextScaledModel) for wrapper in layers(self.model_.model)):
            raise UnsupportedError(
                got="impute behind ContextScale()",
                expected="a model of the values, or of values that are all mapped alike",
                remedy="Fit without it, or with Standardize().",
            )
        if n_draws is not None and (not isinstance(n_draws, int | np.integer) or n_draws is True or n_draws < 1):
            raise ParameterError(
                got=f"n_draws={n_draws!r}", expected="a whole number from 1, or None", remedy="Try n_draws=100."
            )
        missing = ~data.seen() & data.mask()[..., None]
        filled = np.where(missing, 0.0, data.values)
        if n_draws is not None:
            filled = np.repeat(filled[None], int(n_draws), 0)
        rows = np.nonzero(missing.any(-1))
        spread = np.where(data.mask()[..., None], 0.0, np.nan) + np.zeros_like(data.values)
        if len(rows[0]):
            with torch.no_grad():
                if n_draws is None:
                    found, each = self._expected(data, history, rows)
                    spread[rows] = np.where(missing[rows], each, 0.0)
                else:
                    seed = self.random_state if random_state is None else random_state
                    found = self._completions(data, history, rows, int(n_draws), torch_generator(seed))
            at: Any = (..., *rows, slice(None))
            filled[at] = np.where(missing[rows], found, filled[at])
        dims = _DIMS if n_draws is None else ("path", *_DIMS)
        done = data.label(filled, dims, name="imputed", attrs=data.attrs)
        if self.vocabulary_ is not None:
            return self._tokens(done).rename("imputed")
        if n_draws is not None:
            return done
        deviation = data.label(spread, dims)
        return done.assign_coords(std=(deviation.dims, deviation.values))

    def _expected(self, data: Sequences, history: Any, rows: tuple[np.ndarray, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation given all that was seen at the steps (sequence, time) ``rows``, (m, k) each."""
        model, batch, state, _ = self._problem(data, history)
        at = tuple(torch.as_tensor(row) for row in rows)
        probs = model.smooth(self.model_.params, batch, state)[:, at[0], at[1]]
        law = self._on_data_scale(mixture(probs.log(), self._missing_laws(model, batch, at)))
        law = mixture(self._draw_weights(data, history)[at[0]].to(law.dtype), law.movedim(0, 1))
        backend = LawBackend(law.reshape(1, len(rows[0])))
        if backend.nominal:
            return backend.mode()[0], np.full(backend.mode()[0].shape, np.nan)
        return _point(backend)[0], np.where(backend.nominal_variables, np.nan, np.sqrt(backend.variance()[0]))

    def _completions(
        self, data: Sequences, history: Any, rows: tuple[np.ndarray, ...], n_paths: int, generator: torch.Generator
    ) -> np.ndarray:
        """Joint draws of the values at ``rows``, (path, m, k): a parameter draw, its states, then the values."""
        model, batch, state, _ = self._problem(data, history)
        at = tuple(torch.as_tensor(row) for row in rows)
        laws = self._missing_laws(model, batch, at)
        weights = self._draw_weights(data, history).exp()
        draw = torch.multinomial(weights, n_paths, replacement=True, generator=generator).T
        states = torch.zeros(n_paths, *at[0].shape, dtype=torch.long)
        for d in torch.unique(draw).tolist():
            one = slice(d, d + 1)
            chosen = draw == d
            slot = chosen.cumsum(0) - 1
            begun = None if state is None else map_state(lambda leaf, one=one: leaf[one], state)
            most = int(slot.max()) + 1
            found = model.sample_states(take_draw(self.model_.params, one), batch, most, generator, begun)[0]
            each = found[slot[:, at[0]].clamp_min(0), at[0], at[1]]
            states = torch.where(chosen[:, at[0]], each, states)
        step = torch.arange(len(at[0]))
        paths = [self._on_data_scale(laws[draw[p, at[0]], step, states[p]]) for p in range(n_paths)]
        return np.stack([law.sample((), generator=generator).double().numpy() for law in paths])

    def _given_the_others(self, data: Sequences, history: Any) -> Forecast:
        model, batch, state, first = self._problem(data, history)
        if first or not self._elementwise():
            raise UnsupportedError(
                got='kind="ordinary" behind Difference() or ContextScale()',
                expected="a model of the values",
                remedy='Use kind="forecast".',
            )
        left = model.leave_one_out(self.model_.params, batch, state)
        law = self._on_data_scale(mixture(left.probs.log(), model.state_laws(self.model_.params, batch)))
        weights = self._draw_weights(data, history, left.log_prob)
        law = mixture(weights.to(law.dtype), law.movedim(0, 2))
        return Forecast(LawBackend(law), data, data.index, random_state=self.random_state)

    def _missing_laws(self, model: DiscreteLatent, batch: Batch, at: tuple[Tensor, ...]) -> Distribution:
        """The law in every state given what was seen of the same step, batch (draw, m, s)."""
        laws = model.state_laws(self.model_.params, batch)[:, at[0], at[1]]
        return given(laws, batch.x[at].unsqueeze(1), batch.seen[at].unsqueeze(1))

    def _elementwise(self) -> bool:
        return all(isinstance(wrapper, ElementwiseModel | DiscretizedModel) for wrapper in layers(self.model_.model))

    def _on_data_scale(self, law: Distribution) -> Distribution:
        for wrapper in reversed(layers(self.model_.model)):
            if isinstance(wrapper, ElementwiseModel):
                law = push(law, wrapper.bijection)
            elif isinstance(wrapper, DiscretizedModel):
                law = discretized(law, wrapper.width, wrapper.lowest)
        return law


def _point(backend: LawBackend) -> np.ndarray:
    """The mean, the mode of categories beside numbers, the median where no mean exists."""
    best = backend.mean()
    if backend.nominal_variables.any():
        best = np.where(backend.nominal_variables, backend.mode(), best)
    if not np.isfinite(best).all():
        warnings.warn(
            "The mean of a missing value does not exist; impute puts the median.", ApproximationWarning, stacklevel=4
        )
        best = np.where(np.isfinite(best), best, backend.quantile(np.array([0.5]))[..., 0])
    return best
