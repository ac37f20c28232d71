"""Known linear-Gaussian state spaces as fitted models: what `from_statsmodels` returns."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, NoReturn, Self, cast

import numpy as np
import torch
import xarray as xr

from probseq._random import RandomState
from probseq.data.sequences import Sequences
from probseq.errors import ParameterError, UnsupportedError
from probseq.estimators.gaussian_states import GaussianStates
from probseq.estimators.pipeline import DataInfo, fit_transforms
from probseq.inference.base import Draws, Inference
from probseq.inference.optimize import MLE
from probseq.models.base import SequenceModel
from probseq.models.fixed_state_space import FixedStateSpace, KnownSystem

__all__ = ["StateSpaceModel"]


class StateSpaceModel(GaussianStates):
    """A linear-Gaussian state space whose matrices are known; made by ``ps.from_statsmodels``, not fitted here.

    ``params_`` are the numbers that the matrices were made of, under the names they had there.

    Parameters
    ----------
    system : KnownSystem
    random_state : int or None
    """

    inferences: ClassVar[tuple[type[Inference], ...]] = ()

    def __init__(self, system: KnownSystem | None = None, random_state: RandomState = None) -> None:
        self.system = system
        self.inference = None
        self.random_state = random_state

    def _default_inference(self) -> Inference:
        return MLE()

    def _model_class(self) -> type[SequenceModel[Any]]:
        return FixedStateSpace

    def _build(self, info: DataInfo) -> SequenceModel[Any]:
        if not isinstance(self.system, KnownSystem):
            raise ParameterError(
                got=f"system={self.system!r}",
                expected="the state space of a fitted model",
                remedy="Make one with ps.from_statsmodels(results).",
            )
        return FixedStateSpace(self.system)

    def _fit(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise UnsupportedError(
            got="fit of a model whose matrices are known",
            expected="a model with parameters to find",
            remedy="Fit it again with statsmodels, or use ps.ARMA, ps.LocalLevel or ps.LocalTrend.",
        )

    def with_parameters(self, *, n_covariates: int = 0, **parameters: Any) -> Self:
        """Not possible: the matrices are known, not how they follow from parameters.

        Raises
        ------
        UnsupportedError
        """
        raise UnsupportedError(
            got="with_parameters of a model whose matrices are known",
            expected="a model that says how its matrices follow from parameters",
            remedy="Use results.model.smooth(params) of statsmodels, and adopt that.",
        )

    def _take(self, values: np.ndarray, covariance: np.ndarray | None, status: str, data: Sequences) -> Self:
        """Become fitted: the values of the parameters, their covariance, and the data they were found from."""
        info = self._info(data)
        transforms, *_ = fit_transforms([], data)
        model = self._build(info)
        params = {name: torch.tensor([float(v)], dtype=model.dtype) for name, v in zip(model.parameters(), values)}
        draws = Draws(params, log_prob=np.nan, objective=np.nan, status=status, covariance=covariance)
        self._adopt(model, transforms, draws, info, data)
        self.draws_ = replace(draws, log_prob=self.log_likelihood_, objective=self.log_likelihood_)
        self.fit_seconds_ = 0.0
        return self

    def smooth(self, X: Any, *, lengths: Any = None, covariates: Any = None, history: Any = None) -> xr.Dataset:
        """The hidden states given all the data; exact, also over gaps.

        Parameters
        ----------
        X : data in any form, NaN = missing

        Returns
        -------
        Dataset of ``mean`` and ``std``, dims ``sequence, time, state``: E[s_t | x_1:T] and the standard deviation.
        """
        data = self._borrow(X, lengths, covariates)
        _, smoothed, _, _ = self._smoothed(data, history)
        behind = ~data.mask()[..., None]
        spread = smoothed.cov[0].diagonal(dim1=-2, dim2=-1).clamp_min(0.0).sqrt()
        names = list(cast(KnownSystem, self.system).states)
        labelled = {}
        for name, value in (("mean", smoothed.mean[0]), ("std", spread)):
            array = np.where(behind, np.nan, value.numpy())[..., : len(names)]
            labelled[name] = data.label(array, ("sequence", "time", "state"), name=name)
        return xr.Dataset(labelled).assign_coords(state=names)
