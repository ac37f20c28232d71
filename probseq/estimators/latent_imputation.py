"""Missing values of networks with latent variables."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from probseq._random import RandomState, torch_generator
from probseq._types import or_none, whole_number
from probseq.data.sequences import Sequences
from probseq.distributions.base import Distribution
from probseq.distributions.compose import mixture, push
from probseq.distributions.conditioning import given
from probseq.errors import UnsupportedError
from probseq.estimators.latent_decoding import centre_of
from probseq.estimators.latent_paths import LatentPaths
from probseq.models.latent_smoothing import smooth_paths
from probseq.models.wrappers import ElementwiseModel, layers

__all__ = ["LatentImputation"]


class LatentImputation(LatentPaths):
    """What the seen values say about those that were not seen."""

    def impute(
        self,
        X: Any,
        n_draws: int | None = None,
        *,
        n_paths: int = 200,
        lengths: Any = None,
        covariates: Any = None,
        history: Any = None,
        random_state: RandomState = None,
    ) -> xr.DataArray:
        r"""The data with their missing values replaced, by paths of z_1:T given all that was seen, before and after.

        A missing value is drawn from p(x_t | z_t, h_t) and what was seen of the same step. h_t has read of missing
        values that they are missing: only a ``DeepMarkov`` integrates them out. Where parts of steps are missing,
        particles are drawn from the prior in place of the inference network, which learnt from whole steps.

        Parameters
        ----------
        X : data in any form, NaN = missing
        n_draws : int or None
            None puts the mean over ``n_paths`` paths (the most probable category, for tokens). A number draws so many
            completions, along a dimension ``path``: their spread is the uncertainty of what is missing.
        n_paths : int
            Without a history there are at least as many particles.
        random_state : int or Generator
            Of the paths; the estimator's own by default.

        Returns
        -------
        DataArray on the scale of the data, dims ``sequence, time, variable``.

        Raises
        ------
        ParameterError
            For ``n_draws`` or ``n_paths`` that are no whole numbers from 1.
        UnsupportedError
            Behind ``Difference``, ``ContextScale`` or ``Discretize``; after a history where every path has its own
            memory (`VRNN`); for heads whose coordinates depend on each other, where part of a step is missing.
        """
        data = self._borrow(X, lengths, covariates)
        or_none(lambda name, value: whole_number(name, value, 1, "Try 100."))("n_draws", n_draws)
        whole_number("n_paths", n_paths, 1, "Try 200.")
        self._refuse(history)
        missing = ~data.seen() & data.mask()[..., None]
        filled = np.where(missing, 0.0, data.values)
        if n_draws is not None:
            filled = np.repeat(filled[None], int(n_draws), 0)
        if missing.any():
            generator = torch_generator(self.random_state if random_state is None else random_state)
            with torch.no_grad():
                found = self._missing_values(data, history, missing, n_draws, int(n_paths), generator)
            filled = np.where(missing, found, filled)
        dims = ("sequence", "time", "variable")
        done = data.label(filled, dims if n_draws is None else ("path", *dims), name="imputed", attrs=data.attrs)
        return done if self.vocabulary_ is None else self._tokens(done).rename("imputed")

    def _refuse(self, history: Any) -> None:
        if not all(isinstance(wrapper, ElementwiseModel) for wrapper in layers(self.model_.model)):
            raise UnsupportedError(
                got="impute behind Difference(), ContextScale() or Discretize()",
                expected="a model of the values",
                remedy="Scale with Standardize(), which standardize=True does.",
            )
        if history is not None and self._inside().memory == "path":
            raise UnsupportedError(
                got=f"impute of {type(self).__name__} after a history",
                expected="one sequence, since each of its paths has a memory of its own",
                remedy="Pass the history and X as one.",
            )

    def _missing_values(
        self,
        data: Sequences,
        history: Any,
        missing: np.ndarray,
        n_draws: int | None,
        n_paths: int,
        generator: torch.Generator,
    ) -> np.ndarray:
        """([path,] n, t, k); where nothing is missing without meaning."""
        model, batch, state, _ = self._network(data, history)
        params = self.model_.params
        m = n_paths if n_draws is None else int(n_draws)
        if model.proposal == "network" and bool((batch.seen.any(-1) & ~batch.seen.all(-1)).any()):
            model = copy.copy(model)
            model.proposal = "prior"
        if history is None:
            model = model.with_particles(max(model.n_particles, m))
            state = model.initial_state(params, batch.n)
        z = smooth_paths(model, params, batch, m, generator, state).movedim(1, 2)
        log_weights = self._weights_of_draws(data, history)
        drawn = torch.multinomial(log_weights.exp(), m, replacement=True, generator=generator)
        sequence, path = torch.arange(batch.n).unsqueeze(-1), torch.arange(m)
        w, own, shared = model.split(params), model.start(params, batch.n, m).own, state.shared
        k = batch.x.shape[-1]
        found = torch.zeros((batch.n, batch.t, k) if n_draws is None else (m, batch.n, batch.t, k), dtype=torch.float64)
        for t in range(batch.t):
            u = None if batch.u is None else batch.u[:, t].to(model.dtype)
            x, seen, now = batch.x[:, t], batch.seen[:, t], z[..., t, :]
            if missing[:, t].any():
                at = (value.unsqueeze(-2) for value in (model.observation.filled(x, seen).to(model.dtype), seen))
                law = given(model.law(w, now, own, shared, u), *at)
                if n_draws is None:
                    law = law.movedim(0, 1).reshape(batch.n, z.shape[0] * m)
                    each = (log_weights - math.log(m)).to(model.dtype).repeat_interleave(m, -1)
                    found[:, t] = centre_of(self._on_data_scale(mixture(each, law)).reshape(1, batch.n))[0]
                else:
                    one = self._on_data_scale(law[drawn, sequence, path])
                    found[:, :, t] = one.sample((), generator=generator).double().movedim(0, 1)
            own, shared = model.advance(w, now, own, shared, model.read(w, x, seen, u))
        return found.numpy()

    def _weights_of_draws(self, data: Sequences, history: Any) -> Tensor:
        """log p(draw | data), (n, draw); the training data do not weigh the draws a second time."""
        begun = self._begin(data, history)
        start = self.model_.initial_state({}, data.n_sequences) if begun is None else begun
        if self.model_.n_draws == 1 or (history is None and self._is_training(data)):
            return start.log_weights.expand(data.n_sequences, -1)  # type: ignore[no-any-return]
        return self.model_.filter({}, self._batch(data), start).log_weights  # type: ignore[no-any-return]

    def _on_data_scale(self, law: Distribution) -> Distribution:
        for wrapper in reversed(layers(self.model_.model)):
            if isinstance(wrapper, ElementwiseModel):
                law = push(law, wrapper.bijection)
        return law
