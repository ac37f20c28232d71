"""Estimators whose model is linear-Gaussian: hidden components given all the data, and missing values."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from probseq._random import RandomState, torch_generator
from probseq.data.sequences import Sequences
from probseq.distributions.compose import mixture, push
from probseq.distributions.gaussian import DiagonalNormal
from probseq.distributions.params import take_draw
from probseq.errors import ParameterError, UnsupportedError
from probseq.estimators.base import SequenceEstimator
from probseq.models.base import Batch, map_state
from probseq.models.linear_gaussian import LinearGaussianModel, SmoothedStates
from probseq.models.wrappers import ElementwiseModel, layers, unwrap
from probseq.results.backends import LawBackend

__all__ = ["GaussianStates"]

_DIMS = ("sequence", "time", "variable")


class GaussianStates(SequenceEstimator):
    """Methods of an estimator whose model, behind its transforms, is a ``LinearGaussianModel``."""

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
            None puts E[x_t | all that was seen], with its standard deviation in a coordinate ``std`` (0 where a value
            was seen). A number draws so many completions from their joint law given all that was seen, along a
            dimension ``path``.
        random_state : int or Generator
            For the draws; the estimator's own by default.

        Returns
        -------
        DataArray on the scale of the data, dims ``sequence, time, variable``.

        Raises
        ------
        ParameterError
            For ``n_draws`` that is no whole number from 1.
        UnsupportedError
            Behind ``Difference``, which has no missing values.
        """
        data = self._read(X, lengths, covariates)
        if n_draws is not None and (not isinstance(n_draws, int | np.integer) or n_draws is True or n_draws < 1):
            raise ParameterError(
                got=f"n_draws={n_draws!r}", expected="a whole number from 1, or None", remedy="Try n_draws=100."
            )
        if not all(isinstance(wrapper, ElementwiseModel) for wrapper in layers(self.model_.model)):
            raise UnsupportedError(
                got="impute behind Difference() or ContextScale()",
                expected="a model of the values",
                remedy="Let the level or the trend of the model do the differencing; scale with Standardize().",
            )
        missing = ~data.seen() & data.mask()[..., None]
        filled = np.where(missing, 0.0, data.values)
        if n_draws is None:
            spread = np.where(data.mask()[..., None], 0.0, np.nan) + np.zeros_like(filled)
            with torch.no_grad():
                filled[missing], spread[missing] = self._expected(data, history, missing)
            done, each = data.label(filled, _DIMS, name="imputed", attrs=data.attrs), data.label(spread, _DIMS)
            return done.assign_coords(std=(each.dims, each.values))
        filled = np.repeat(filled[None], int(n_draws), 0)
        seed = self.random_state if random_state is None else random_state
        with torch.no_grad():
            filled[:, missing] = self._completions(data, history, missing, int(n_draws), torch_generator(seed))
        return data.label(filled, ("path", *_DIMS), name="imputed", attrs=data.attrs)

    def _problem(self, data: Sequences, history: Any) -> tuple[LinearGaussianModel, Batch, Any, int]:
        """The innermost model with its own batch and state, and the number of leading steps that it does not see."""
        batch = self._batch(data)
        begun = self._begin(data, history)
        start = self.model_.initial_state({}, batch.n) if begun is None else begun
        model, batch, state, first = unwrap(self.model_.model, batch, self.model_._unpack(start))
        if not isinstance(model, LinearGaussianModel):
            raise TypeError(f"{type(model).__name__} is no linear-Gaussian model")
        return model, batch, state, first

    def _draw_weights(self, data: Sequences, history: Any) -> Tensor:
        """log p(draw | data), (n, draw); the training data do not weigh the draws a second time."""
        begun = self._begin(data, history)
        start = self.model_.initial_state({}, data.n_sequences) if begun is None else begun
        if self.model_.n_draws == 1 or (history is None and self._is_training(data)):
            weights: Tensor = start.log_weights
            return weights
        found: Tensor = self.model_.filter({}, self._batch(data), start).log_weights
        return found

    def _smoothed(self, data: Sequences, history: Any) -> tuple[LinearGaussianModel, SmoothedStates, Tensor, int]:
        """The model, what smoothing says (draw, n, t, ...), weights of the draws (draw, n), leading unseen steps."""
        model, batch, state, first = self._problem(data, history)
        with torch.no_grad():
            smoothed = model.smooth(self.model_.params, batch, state)
            weights = self._draw_weights(data, history).exp().T
        return model, smoothed, weights, first

    def _expected(self, data: Sequences, history: Any, missing: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Means and standard deviations of what is missing, in the order of ``missing``."""
        _, smoothed, _, _ = self._smoothed(data, history)
        at = torch.as_tensor(missing.any(-1))
        variance = smoothed.x_cov.diagonal(dim1=-2, dim2=-1)[:, at]
        loc, scale = smoothed.x[:, at], torch.where(variance > 0.0, variance, 1.0).sqrt()
        law: Any = DiagonalNormal(loc=loc.movedim(0, -2), scale=scale.movedim(0, -2))
        which = at.nonzero()[:, 0]
        law = mixture(self._draw_weights(data, history)[which].to(law.dtype), law)
        for wrapper in reversed(layers(self.model_.model)):
            if isinstance(wrapper, ElementwiseModel):
                law = push(law, wrapper.bijection)
        backend, gone = LawBackend(law.reshape(1, len(which))), missing[missing.any(-1)]
        return backend.mean()[0][gone], np.sqrt(backend.variance()[0][gone])

    def _completions(
        self, data: Sequences, history: Any, missing: np.ndarray, n_paths: int, generator: torch.Generator
    ) -> np.ndarray:
        model, batch, state, _ = self._problem(data, history)
        weights = self._draw_weights(data, history).exp()
        chosen = torch.multinomial(weights, n_paths, replacement=True, generator=generator).T
        result = torch.zeros(n_paths, *batch.x.shape, dtype=model.dtype)
        for d in torch.unique(chosen).tolist():
            rows = (chosen == d).any(-1).nonzero().squeeze(-1)
            begun = map_state(lambda leaf, d=d: leaf[d], state)
            found = model.sample_values(take_draw(self.model_.params, d), batch, len(rows), generator, begun)
            result[rows] = torch.where((chosen[rows] == d)[..., None, None], found, result[rows])
        for wrapper in reversed(layers(self.model_.model)):
            if isinstance(wrapper, ElementwiseModel):
                result = wrapper.bijection.forward(result)
        values: np.ndarray = result.double().numpy()[:, missing]
        return values
