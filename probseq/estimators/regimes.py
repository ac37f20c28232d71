"""Markov-switching regressions with known parameters, as fitted models: what `from_statsmodels` returns of these."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, NoReturn, Self, cast

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from probseq._random import RandomState
from probseq.data.sequences import Sequences
from probseq.errors import ParameterError, UnsupportedError
from probseq.estimators.base import SequenceEstimator
from probseq.estimators.pipeline import DataInfo, fit_transforms
from probseq.inference.base import Draws, Inference
from probseq.inference.optimize import MLE
from probseq.models.base import SequenceModel
from probseq.models.fixed_regimes import FixedRegimes, KnownRegimes

__all__ = ["RegimeModel"]


class RegimeModel(SequenceEstimator):
    """A Markov-switching regression or autoregression with known parameters; made by ``ps.from_statsmodels``.

    ``params_`` are the numbers that it was made of, under the names they had there.

    Parameters
    ----------
    system : KnownRegimes
    random_state : int or None
    """

    inferences: ClassVar[tuple[type[Inference], ...]] = ()

    def __init__(self, system: KnownRegimes | None = None, random_state: RandomState = None) -> None:
        self.system = system
        self.inference = None
        self.random_state = random_state

    def _default_inference(self) -> Inference:
        return MLE()

    def _model_class(self) -> type[SequenceModel[Any]]:
        return FixedRegimes

    def _build(self, info: DataInfo) -> SequenceModel[Any]:
        if not isinstance(self.system, KnownRegimes):
            raise ParameterError(
                got=f"system={self.system!r}",
                expected="the regimes of a fitted model",
                remedy="Make one with ps.from_statsmodels(results).",
            )
        return FixedRegimes(self.system)

    def _fit(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise UnsupportedError(
            got="fit of a model whose regimes are known",
            expected="a model with parameters to find",
            remedy="Fit it again with statsmodels, or use ps.HMM(emission=ps.AutoregressiveNormal()).",
        )

    def with_parameters(self, *, n_covariates: int = 0, **parameters: Any) -> Self:
        """Not possible: the regimes are known, not how they follow from parameters.

        Raises
        ------
        UnsupportedError
        """
        raise UnsupportedError(
            got="with_parameters of a model whose regimes are known",
            expected="a model that says how its regimes follow from parameters",
            remedy="Use results.model.smooth(params) of statsmodels, and adopt that.",
        )

    def _take(self, values: np.ndarray, status: str, data: Sequences) -> Self:
        """Become fitted: the values of the parameters, and the data they were found from."""
        info = self._info(data)
        transforms, *_ = fit_transforms([], data)
        model = self._build(info)
        params = {name: torch.tensor([float(v)], dtype=model.dtype) for name, v in zip(model.parameters(), values)}
        draws = Draws(params, log_prob=np.nan, objective=np.nan, status=status)
        self._adopt(model, transforms, draws, info, data)
        self.draws_ = replace(draws, log_prob=self.log_likelihood_, objective=self.log_likelihood_)
        self.fit_seconds_ = 0.0
        return self

    def smooth(self, X: Any, *, lengths: Any = None, covariates: Any = None, history: Any = None) -> xr.DataArray:
        """p(regime_t | x_1..x_T), the probability of each regime given all the data, dims ``sequence, time, state``."""
        return self._regimes("smooth", "smoothed", X, lengths, covariates, history)

    def filter_states(
        self, X: Any, *, lengths: Any = None, covariates: Any = None, history: Any = None
    ) -> xr.DataArray:
        """p(regime_t | x_1..x_t), each regime's probability given the data so far, dims ``sequence, time, state``."""
        return self._regimes("filter_states", "filtered", X, lengths, covariates, history)

    def decode(self, X: Any, *, lengths: Any = None, covariates: Any = None, history: Any = None) -> xr.DataArray:
        """The most probable path of regimes (Viterbi), dims ``sequence, time``; -1 behind the end of a sequence."""
        data = self._borrow(X, lengths, covariates)
        model, params, batch, state = self._problem(data, history)
        with torch.no_grad():
            states = model.chain.decode(params, batch, state).states[0].numpy()
        codes = np.where(states < 0, -1, states // model.known.n_regimes**model.known.order)
        return data.label(codes, ("sequence", "time"), name="state")

    def _problem(self, data: Sequences, history: Any) -> tuple[FixedRegimes, dict[str, Tensor], Any, Any]:
        batch, begun = self._batch(data), self._begin(data, history)
        start = self.model_.initial_state({}, batch.n) if begun is None else begun
        model = cast(FixedRegimes, self.model_.model)
        return model, model.chain_params(self.model_.params), batch, self.model_._unpack(start)

    def _regimes(self, method: str, name: str, X: Any, lengths: Any, covariates: Any, history: Any) -> xr.DataArray:
        data = self._borrow(X, lengths, covariates)
        model, params, batch, state = self._problem(data, history)
        with torch.no_grad():
            probs = model.of_regimes(getattr(model.chain, method)(params, batch, state))[0].numpy()
        array = np.where(data.mask()[..., None], probs, np.nan)
        coords = {"state": np.arange(model.known.n_regimes)}
        return data.label(array, ("sequence", "time", "state"), name=name, coords=coords)
