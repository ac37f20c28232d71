"""Baselines for users: the scores to beat."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from probseq._random import RandomState
from probseq.distributions.emissions import Categorical, Emission, Observation, Poisson
from probseq.errors import ParameterError
from probseq.estimators.base import SequenceEstimator
from probseq.estimators.pipeline import DataInfo, emission_or_normal
from probseq.inference.advi import ADVI
from probseq.inference.base import Inference
from probseq.inference.laplace import Laplace
from probseq.inference.map import MAP
from probseq.inference.nuts import NUTS
from probseq.inference.optimize import MLE
from probseq.models.base import SequenceModel
from probseq.models.baseline import IIDModel, MarkovChainModel, SeasonalWalkModel

__all__ = ["IID", "MarkovChain", "PoissonProcess", "RandomWalk", "SeasonalNaive"]


class _Baseline(SequenceEstimator):
    inferences: ClassVar[tuple[type[Inference], ...]] = (MLE, MAP, Laplace, ADVI, NUTS)

    def _default_inference(self) -> Inference:
        return MLE()


class IID(_Baseline):
    """p(x_t | x_<t) = p(x_t): independent events of one law.

    Parameters
    ----------
    emission : Emission
        The law; None is ``Normal()``.
    transform : transform or list of transforms
    inference : Inference or None
        None is maximum likelihood, in closed form where there is one.
    random_state : int or None
    """

    def __init__(
        self,
        emission: Emission | None = None,
        transform: Any = None,
        inference: Inference | None = None,
        random_state: RandomState = None,
    ) -> None:
        self.emission = emission
        self.transform = transform
        self.inference = inference
        self.random_state = random_state
        self._check_pair(inference)

    def _emission(self) -> Emission:
        return emission_or_normal(self.emission, "emission")

    def _model_class(self) -> type[SequenceModel[Any]]:
        return IIDModel

    def _build(self, info: DataInfo) -> SequenceModel[Any]:
        emission = self._emission()
        return IIDModel(emission, emission.observation(info.n_variables, info.n_categories))


class PoissonProcess(_Baseline):
    """A homogeneous Poisson process counted in steps: x_t ~ Poisson(rate), independent.

    Parameters
    ----------
    inference : Inference or None
    random_state : int or None
    """

    def __init__(self, inference: Inference | None = None, random_state: RandomState = None) -> None:
        self.inference = inference
        self.random_state = random_state
        self._check_pair(inference)

    def _emission(self) -> Emission:
        return Poisson()

    def _model_class(self) -> type[SequenceModel[Any]]:
        return IIDModel

    def _build(self, info: DataInfo) -> SequenceModel[Any]:
        return IIDModel(Poisson(), Poisson().observation(info.n_variables))


class RandomWalk(_Baseline):
    """x_t = x_{t-1} + drift + e_t, e_t ~ N(0, scale^2); the first value is conditioned on, gaps are exact.

    Parameters
    ----------
    drift : bool
    transform : transform or list of transforms
    inference : Inference or None
    random_state : int or None
    """

    def __init__(
        self,
        drift: bool = False,
        transform: Any = None,
        inference: Inference | None = None,
        random_state: RandomState = None,
    ) -> None:
        self.drift = drift
        self.transform = transform
        self.inference = inference
        self.random_state = random_state
        self._check_pair(inference)

    def _model_class(self) -> type[SequenceModel[Any]]:
        return SeasonalWalkModel

    def _build(self, info: DataInfo) -> SequenceModel[Any]:
        return SeasonalWalkModel(Observation(info.n_variables), 1, bool(self.drift))


class SeasonalNaive(_Baseline):
    """x_t = x_{t-period} + e_t, e_t ~ N(0, scale^2); the first period is conditioned on, gaps are exact.

    Parameters
    ----------
    period : int
        Steps in a season: 12 for months, 7 for days.
    drift : bool
        A mean change a season.
    transform : transform or list of transforms
    inference : Inference or None
    random_state : int or None
    """

    def __init__(
        self,
        period: int = 1,
        drift: bool = False,
        transform: Any = None,
        inference: Inference | None = None,
        random_state: RandomState = None,
    ) -> None:
        self.period = period
        self.drift = drift
        self.transform = transform
        self.inference = inference
        self.random_state = random_state
        self._check_pair(inference)

    def _model_class(self) -> type[SequenceModel[Any]]:
        return SeasonalWalkModel

    def _build(self, info: DataInfo) -> SequenceModel[Any]:
        if not isinstance(self.period, int | np.integer) or isinstance(self.period, bool) or self.period < 1:
            raise ParameterError(got=f"period={self.period!r}", expected="an integer from 1", remedy="Use period=12.")
        return SeasonalWalkModel(Observation(info.n_variables), int(self.period), bool(self.drift))


class MarkovChain(_Baseline):
    """P(x_t | x_{t-order..t-1}) of tokens or codes, by smoothed counts; every token is scored.

    Parameters
    ----------
    order : int
    smoothing : float
        Added to every count; 0 is maximum likelihood.
    n_categories : int or None
    inference : Inference or None
    random_state : int or None
    """

    def __init__(
        self,
        order: int = 1,
        smoothing: float = 0.5,
        n_categories: int | None = None,
        inference: Inference | None = None,
        random_state: RandomState = None,
    ) -> None:
        self.order = order
        self.smoothing = smoothing
        self.n_categories = n_categories
        self.inference = inference
        self.random_state = random_state
        self._check_pair(inference)

    def _emission(self) -> Emission:
        return Categorical(self.n_categories)

    def _model_class(self) -> type[SequenceModel[Any]]:
        return MarkovChainModel

    def _build(self, info: DataInfo) -> SequenceModel[Any]:
        observation = self._emission().observation(info.n_variables, info.n_categories)
        return MarkovChainModel(observation, self.order, self.smoothing)
