"""Baselines for users: the scores to beat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Self

import torch

from probseq._random import RandomState
from probseq._types import Rule, number_in, truth_value, whole_number
from probseq.distributions.emissions import Categorical, Emission, Observation, Poisson
from probseq.errors import IncompatibleError, UnsupportedError
from probseq.estimators.base import SequenceEstimator
from probseq.estimators.pipeline import DataInfo, emission_without_inputs
from probseq.inference.advi import ADVI
from probseq.inference.base import Draws, Inference
from probseq.inference.files import FileBatch, count_file
from probseq.inference.laplace import Laplace
from probseq.inference.map import MAP
from probseq.inference.nuts import NUTS
from probseq.inference.optimize import MLE
from probseq.models.base import Batch, SequenceModel
from probseq.models.baseline import IIDModel, MarkovChainModel, SeasonalWalkModel
from probseq.models.kneser_ney import KneserNeyModel, count_ngrams
from probseq.models.ngrams import NGramTables

__all__ = ["IID", "MarkovChain", "PoissonProcess", "RandomWalk", "SeasonalNaive"]


@dataclass(frozen=True)
class CountedDraws(Draws):
    """The discounts of Kneser-Ney smoothing, and the counts that they belong to."""

    tables: NGramTables | None = None


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

    Examples
    --------
    >>> import probseq as ps
    >>> quakes = ps.datasets.earthquakes()
    >>> model = ps.IID(ps.Poisson()).fit(quakes)
    >>> round(float(model.params_['rate'].squeeze()), 2), float(quakes.mean().round(2))
    (19.36, 19.36)
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
        return emission_without_inputs(self.emission, "emission")

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

    Examples
    --------
    >>> import probseq as ps
    >>> quakes = ps.datasets.earthquakes()
    >>> model = ps.PoissonProcess().fit(quakes)
    >>> round(model.score(quakes), 3)
    -3.663
    >>> round(ps.IID(ps.NegativeBinomial()).fit(quakes).score(quakes), 3)
    -3.343
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

    Examples
    --------
    >>> import probseq as ps
    >>> level = ps.datasets.lake_huron()
    >>> forecast = ps.RandomWalk(drift=False).fit(level).forecast(horizon=4)
    >>> forecast.std().values / forecast.std().values[0]
    array([1.        , 1.41421356, 1.73205081, 2.        ])
    """

    rules: ClassVar[Mapping[str, Rule]] = {"drift": truth_value}

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

    Examples
    --------
    >>> import probseq as ps
    >>> passengers = ps.datasets.air_passengers()
    >>> model = ps.SeasonalNaive(period=12, transform=ps.Log()).fit(passengers)
    >>> model.forecast(horizon=2).median().values.round(0), passengers.values[-12:-10]
    (array([417., 391.]), array([417., 391.]))
    """

    rules: ClassVar[Mapping[str, Rule]] = {
        "period": partial(whole_number, lowest=1, remedy="Use period=12 for months."),
        "drift": truth_value,
    }

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
        return SeasonalWalkModel(Observation(info.n_variables), int(self.period), bool(self.drift))


def _smoothing(name: str, value: Any) -> None:
    """The rule of what is added to counts."""
    if not isinstance(value, str) or value != "kneser_ney":
        number_in(name, value, "[0, inf)", f'Use {name}=0.5 or {name}="kneser_ney".')


class MarkovChain(_Baseline):
    """P(x_t | x_{t-order..t-1}) of tokens or codes, by smoothed counts; every token is scored.

    Parameters
    ----------
    order : int
    smoothing : float or "kneser_ney"
        A number is added to every count; 0 is maximum likelihood. "kneser_ney" is interpolated modified Kneser-Ney
        smoothing (Chen and Goodman 1999), the n-gram model to beat on text: contexts that are rare ask shorter ones. It
        keeps what was seen only, so that order 2 over thousands of characters is small; see ``KneserNeyModel`` for its
        equations, and for missing tokens, which end a context rather than being summed out.
    n_categories : int or None
    inference : Inference or None
        Kneser-Ney smoothing has rules of its own and takes ``MLE()`` only.
    random_state : int or None

    Examples
    --------
    >>> import probseq as ps
    >>> model = ps.MarkovChain(order=2, smoothing="kneser_ney").fit(["to be or not to be", "to do is to be"])
    >>> round(model.perplexity(["to be"]), 1)
    1.6
    """

    rules: ClassVar[Mapping[str, Rule]] = {
        "order": partial(whole_number, lowest=1),
        "smoothing": _smoothing,
    }

    def __init__(
        self,
        order: int = 1,
        smoothing: float | str = 0.5,
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

    @property
    def _is_kneser_ney(self) -> bool:
        return isinstance(self.smoothing, str)

    def _emission(self) -> Emission:
        return Categorical(self.n_categories)

    def _model_class(self) -> type[SequenceModel[Any]]:
        return KneserNeyModel if self._is_kneser_ney else MarkovChainModel

    def _require(self, inference: Any) -> None:
        super()._require(inference)
        if self._is_kneser_ney and not isinstance(inference, MLE):
            raise IncompatibleError(
                got=f'inference={inference!r} with smoothing="kneser_ney"',
                expected="MLE(): the discounts come from the counts of counts",
                remedy="Leave inference out, or use an additive smoothing such as 0.5.",
            )

    def _build(self, info: DataInfo) -> SequenceModel[Any]:
        observation = self._emission().observation(info.n_variables, info.n_categories)
        if not isinstance(self.smoothing, str):
            return MarkovChainModel(observation, self.order, self.smoothing)
        return KneserNeyModel(observation, self.order, getattr(vars(self).get("draws_"), "tables", None))

    def _infer(
        self, inference: Inference, model: SequenceModel[Any], batch: Batch, generator: torch.Generator, **options: Any
    ) -> tuple[SequenceModel[Any], Draws]:
        if not isinstance(model, KneserNeyModel):
            return super()._infer(inference, model, batch, generator, **options)
        if isinstance(batch, FileBatch):
            tables = count_file(batch.file, model.n_tokens, model.order)
        else:
            tables = count_ngrams(batch, model.n_tokens, model.order, options.get("weights"))
        counted = KneserNeyModel(model.observation, model.order, tables)
        # The discounts are not where the likelihood is highest: its curvature there says nothing.
        draws = MLE(covariance=False).fit(counted, batch, generator, **options)
        return counted, CountedDraws(**vars(draws), tables=tables)

    def with_parameters(self, *, n_covariates: int = 0, **parameters: Any) -> Self:
        """Return a fitted copy with known parameter values; see ``SequenceEstimator.with_parameters``.

        Raises
        ------
        UnsupportedError
            For Kneser-Ney smoothing, whose law is in what was counted.
        """
        if self._is_kneser_ney:
            raise UnsupportedError(
                got='with_parameters with smoothing="kneser_ney"',
                expected="text, whose n-grams are counted",
                remedy="Call fit, or use an additive smoothing such as 0.5.",
            )
        return super().with_parameters(n_covariates=n_covariates, **parameters)
