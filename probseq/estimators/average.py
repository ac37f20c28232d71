"""Averages of models of any families: one predictive distribution from many."""

from __future__ import annotations

import time
import warnings
from collections.abc import Hashable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np
import torch
import xarray as xr
from sklearn.base import clone

from probseq._random import RandomState, numpy_generator
from probseq._types import Rule, number_in, truth_value
from probseq.data.sequences import Sequences, sequences
from probseq.distributions.emissions import Emission
from probseq.errors import (
    ConvergenceWarning,
    DataError,
    DegenerateWarning,
    IncompatibleError,
    ParameterError,
    UnsupportedError,
)
from probseq.estimators.arma import ARMA
from probseq.estimators.average_scores import held_out_scores, read_as_models, split_off, suited, unique_names
from probseq.estimators.base import SequenceEstimator
from probseq.estimators.fitted import TRAINING, check_y
from probseq.estimators.hmm import HMM
from probseq.estimators.members import WithMembers
from probseq.estimators.pipeline import DataInfo, FittedTransforms
from probseq.estimators.weights import sequence_weights
from probseq.evaluation.weights import pseudo_bma_weights, stacking_weights
from probseq.inference.average_draws import AverageDraws
from probseq.inference.base import Inference, Progress
from probseq.inference.optimize import MLE
from probseq.models.average import AverageModel, AverageState
from probseq.models.base import SequenceModel, map_state
from probseq.models.marginal import Marginalized
from probseq.models.settled import SettledModel

__all__ = ["Average"]

_WORDS = ("stacking", "pseudo_bma", "online", "equal")


class Average(WithMembers, SequenceEstimator):
    r"""A mixture of models: p(x_t | x_<t) = sum_m w_m p_m(x_t | x_<t).

    ``fit`` fits every model to the first part of the data, learns the weights from their one-step log scores on the
    rest, and fits every model again to all of it. The result is a sequence model like any other. A step is scored where
    all models score the same values of it.

    - "stacking": the weights that would have predicted best, argmax_w sum_t log sum_m w_m p_m(x_t | x_<t);
    - "pseudo_bma": w_m proportional to exp(sum_t log p_m(x_t | x_<t)), averaged over the Bayesian bootstrap
      of the steps (pseudo-BMA+);
    - "online": w_m,t+1 proportional to (w_mt p_m(x_t | x_<t))^f with f = ``forgetting``, so that the score of s steps
      ago counts f^s; new data go on moving the weights. f = 1 is Bayesian model averaging;
    - "equal", or numbers: weights that are known.

    Weights that are fixed draw the model anew at each step, along forecasts and simulated paths, too; these are then
    simulated. "online" weights with f = 1 are those of a latent model that made the whole sequence: a path keeps it,
    and forecasts are exact where those of the models are. With f < 1 no latent model has these one-step laws; paths are
    drawn step by step and move the weights as data would.

    Models of several parameter draws weigh these by what is seen, each for itself, and not at all where a method is
    called with ``weights="frozen"``.

    Parameters
    ----------
    models : dict of name -> estimator, or list
        Of any families, with one base measure: densities, or probabilities of the same values. They stay as they are;
        copies are fitted. None is an AR(1) and a hidden Markov model of two states.
    weights : "stacking", "pseudo_bma", "online", "equal", or one number a model
        Numbers in the order of the models, or by name; they are divided by their sum.
    forgetting : float
        For "online": in (0, 1].
    validation_fraction : float
        Share of the steps of each sequence, its last ones, that the weights are learnt on.
    prefit : bool
        Whether the models are fitted already. ``fit`` then learns the weights from all of X, which they should not have
        seen, and nothing else. Pass a dict: scikit-learn's ``clone`` forgets the fits of a list.
    random_state : int, Generator or None
        For the bootstrap, and for the paths of forecasts.

    Attributes
    ----------
    params_ : Dataset
        ``weights`` by ``component``.
    models_ : dict
        The fitted models by name.

    References
    ----------
    Yao, Vehtari, Simpson and Gelman (2018), Bayesian Analysis 13, for stacking and pseudo-BMA+; Raftery, Karny and
    Ettler (2010), Technometrics 52, for forgetting.

    Examples
    --------
    >>> import probseq as ps
    >>> y = ps.datasets.lake_huron()
    >>> both = ps.Average({"ar": ps.ARMA((1, 0)), "walk": ps.ARMA((0, 1, 1))}).fit(y)
    >>> round(float(both.params_.weights.sum()), 6)
    1.0
    >>> both.forecast(3).mean().sizes["time"]
    3
    """

    inference: Inference | None = None
    _fitted_models: dict[Any, SequenceEstimator]
    rules: ClassVar[Mapping[str, Rule]] = {
        "forgetting": partial(number_in, interval="(0, 1]", remedy="Try 0.99."),
        "validation_fraction": partial(number_in, interval="(0, 1)", remedy="Try 0.2."),
        "prefit": truth_value,
    }

    def __init__(
        self,
        models: Mapping[str, SequenceEstimator] | Sequence[SequenceEstimator] | None = None,
        weights: str | Sequence[float] | Mapping[str, float] = "stacking",
        forgetting: float = 0.99,
        validation_fraction: float = 0.2,
        prefit: bool = False,
        random_state: RandomState = None,
    ) -> None:
        self.models = models
        self.weights = weights
        self.forgetting = forgetting
        self.validation_fraction = validation_fraction
        self.prefit = prefit
        self.random_state = random_state

    @property
    def models_(self) -> dict[str, SequenceEstimator]:
        """The fitted models by name."""
        self._check_fitted()
        return dict(self._fitted_models)

    def component_weights(
        self, X: Any, *, lengths: Any = None, covariates: Any = None, history: Any = None
    ) -> xr.DataArray:
        """w_m before each step of X, dims ``sequence, time, component``: by them the step is predicted.

        Weights that are fixed are the same at every step.

        Parameters
        ----------
        X : data in any form
        history : None, ps.TRAINING or data
            What came before X.
        """
        data = self._read(X, lengths, covariates)
        state = self._begin(data, history)
        with torch.no_grad():
            start = self.model_.initial_state({}, data.n_sequences) if state is None else state
            along = self.model_._scan({}, self._batch(data), start).states.inner.log_weights
        values = np.where(data.mask()[..., None], along.exp().squeeze(2).numpy(), np.nan)
        names = np.array(list(self._named()), dtype=object)
        coords = {"component": ("component", names)}
        return data.label(values, ("sequence", "time", "component"), name="weight", coords=coords)

    # what every estimator defines -------------------------------------------------------------------------------------

    def _model_class(self) -> type[SequenceModel[Any]]:
        return AverageModel

    def _default_inference(self) -> Inference:
        return MLE()

    def _emission(self) -> Emission | None:
        each = [model._emission() for model in self._named().values()]
        return None if any(one is None for one in each) else each[0]

    @property
    def has_likelihood(self) -> bool:
        """All averaged models have one."""
        return all(model.has_likelihood for model in self._named().values())

    def _names(self) -> dict[str, Any]:
        return {**super()._names(), "component": list(self._named())}

    def with_parameters(self, *, n_covariates: int = 0, **parameters: Any) -> Self:
        """Not possible: a mixture has no parameters but those of its models.

        Raises
        ------
        UnsupportedError
        """
        raise UnsupportedError(
            got="with_parameters for Average",
            expected="fitted models",
            remedy="Make each with its own with_parameters, then Average(models, weights=[...], prefit=True).fit(X).",
        )

    def _build(self, info: DataInfo) -> SequenceModel[Any]:
        if "_fitted_models" in vars(self):
            return self._assemble([model.model_ for model in self._fitted_models.values()])
        models = []
        for model in self._named().values():
            transforms = model._transforms()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DegenerateWarning)  # no data: a standardisation changes nothing
                constants = tuple(t.constants(np.full((1, 3, info.n_variables), np.nan)) for t in transforms)
            models.append(FittedTransforms(tuple(transforms), constants).wrap(model._build(info)))
        return self._average(models)

    def _average(self, models: Sequence[SequenceModel[Any]]) -> AverageModel:
        online = isinstance(self.weights, str) and self.weights == "online"
        return AverageModel(models, online, float(self.forgetting) if online else 1.0, known=not self._learns)

    @property
    def _learns(self) -> bool:
        """Whether the weights come from the data."""
        return isinstance(self.weights, str) and self.weights != "equal"

    def _assemble(self, models: Sequence[Marginalized]) -> AverageModel:
        """The average of fitted models."""
        n_covariates = max(model.n_covariates for model in models)
        return self._average([SettledModel(model, n_covariates) for model in models])

    def _members(self) -> Mapping[Hashable, SequenceEstimator]:
        return self._fitted_models

    def _revive(self, members: dict[Any, SequenceEstimator], found: dict[str, Any]) -> None:
        self._fitted_models = members

    # arguments --------------------------------------------------------------------------------------------------------

    def _named(self) -> dict[str, SequenceEstimator]:
        models = self.models
        if models is None:
            return {"ar": ARMA((1, 0)), "hmm": HMM(2, random_state=self.random_state)}
        if isinstance(models, list | tuple):
            models = dict(zip(unique_names([type(model).__name__ for model in models]), models, strict=True))
        if not isinstance(models, Mapping) or not models:
            raise ParameterError(
                got=f"models={models!r}", expected="a dict or list of models, at least one", remedy="Pass some."
            )
        for name, model in models.items():
            if not isinstance(model, SequenceEstimator):
                raise ParameterError(
                    got=f"{model!r} under the name {name!r}",
                    expected="a model of probseq, such as ps.ARMA()",
                    remedy="Write its parentheses." if isinstance(model, type) else "Pass models.",
                )
        return {str(name): model for name, model in models.items()}

    def _check_arguments(self) -> None:
        super()._check_arguments()
        numpy_generator(self.random_state)
        models = self._named()
        for name, model in models.items():
            if self.prefit:
                model._check_fitted()
            if not model.has_likelihood:
                raise IncompatibleError(
                    got=f"the model {name!r}, whose law is no likelihood",
                    expected="models with a density or probabilities, since weights are learnt from log scores",
                    remedy="Leave it out, or give it a head with a density, such as StudentT().",
                )
        if not isinstance(self.weights, str):
            self._known_weights(list(models))
        elif self.weights not in _WORDS:
            raise ParameterError(
                got=f"weights={self.weights!r}", expected=f"one of {_WORDS}, or numbers", remedy="Try stacking."
            )

    def _known_weights(self, names: list[str]) -> np.ndarray:
        given = self.weights
        if isinstance(given, Mapping):
            given = [given[name] for name in names] if set(given) == set(names) else []
        try:
            each = np.asarray(given, dtype=float)
        except (TypeError, ValueError):
            each = np.zeros(0)
        if each.shape != (len(names),) or not np.isfinite(each).all() or (each < 0).any() or each.sum() == 0:
            raise ParameterError(
                got=f"weights={self.weights!r}",
                expected=f"{len(names)} numbers from 0 for {names}, not all 0, or one of {_WORDS}",
                remedy='Try weights="stacking".',
            )
        return np.asarray(each / each.sum())

    # fitting ----------------------------------------------------------------------------------------------------------

    def _fit(
        self,
        data: Sequences,
        y: Any,
        validation: Any,
        weights: Any,
        progress: Progress | None,
        annotate: Any = None,
    ) -> Self:
        started = time.perf_counter()
        check_y(y, data)
        data.require_values()
        self._check_arguments()
        templates = self._named()
        if self.prefit:
            data = read_as_models(templates, data)
        else:
            templates = {name: clone(model) for name, model in templates.items()}
        held = None if validation is None else sequences(validation, vocabulary=data.vocabulary)

        def refitted(model: SequenceEstimator, part: Sequences) -> SequenceEstimator:
            told = None if held is None else suited(model, held)
            return clone(model).fit(suited(model, part), validation=told, weights=weights)  # type: ignore[no-any-return]

        each = sequence_weights(weights, data)
        learns = self._learns and len(templates) > 1
        scores, ages = np.zeros((0, len(templates))), np.zeros(0)
        if self.prefit:
            fitted = dict(templates)
            if learns:
                scores, ages = held_out_scores(fitted, data, None)
        else:
            if learns:
                first, rest = split_off(data, float(self.validation_fraction))
                with warnings.catch_warnings():
                    for category in (ConvergenceWarning, DegenerateWarning):
                        warnings.simplefilter("ignore", category)
                    early = {name: refitted(model, first) for name, model in templates.items()}
                scores, ages = held_out_scores(early, rest, TRAINING)
            fitted = {name: refitted(model, data) for name, model in templates.items()}
        shares = self._shares(list(templates), scores, ages) if learns else self._fixed(list(templates))
        model = self._assemble([own.model_ for own in fitted.values()])
        self._check_covariates(model, data)
        draws = AverageDraws(
            params={"weights": torch.from_numpy(shares)[None]},
            log_prob=float("nan"),
            objective=float("nan"),
            status=next((own.status_ for own in fitted.values() if not own.converged_), "converged"),
            n_iter=max(int(own.n_iter_) for own in fitted.values()),
            n_held_out=len(scores),
        )
        self._adopt(model, FittedTransforms((), ()), draws, self._info(data), data, each)
        self._fitted_models = fitted
        self.training_state_ = self._after_training(model, fitted)
        self.fit_seconds_ = time.perf_counter() - started
        return self

    def _fixed(self, names: list[str]) -> np.ndarray:
        even = np.full(len(names), 1 / len(names))
        return even if isinstance(self.weights, str) else self._known_weights(names)

    def _shares(self, names: list[str], scores: np.ndarray, ages: np.ndarray) -> np.ndarray:
        """Weights from log scores (value, model) of steps that lie ``ages`` (value,) before the end."""
        if not len(scores):
            raise DataError(
                got=f"no held-out step that all of {names} score",
                expected="at least one, to learn the weights from",
                remedy='Pass longer data, a larger validation_fraction, or weights="equal".',
            )
        if self.weights == "stacking":
            return stacking_weights(scores)
        if self.weights == "pseudo_bma":
            return pseudo_bma_weights(scores, random_state=0 if self.random_state is None else self.random_state)
        total = (float(self.forgetting) ** (ages + 1)) @ np.maximum(scores, -1e9)
        share = np.exp(total - total.max())
        return np.asarray(share / share.sum())

    def _after_training(self, model: AverageModel, fitted: Mapping[str, SequenceEstimator]) -> Any:
        """The state behind the training data, which have weighed neither the models nor their draws."""
        states = [own.training_state_ for own in fitted.values()]
        if self.prefit or any(one is None for one in states):
            states = self._held_components(self.training_state_)
        n = self.training_state_.log_weights.shape[0]
        start = self.model_.params["weights"].log().unsqueeze(-2)
        return self._packed(states, start.expand(1, n, start.shape[-1]), self.training_state_)

    # draws of the models ----------------------------------------------------------------------------------------------

    def _weighed(self, weights: str) -> Marginalized:
        """As for every estimator; the draws are those of each model, and keep their weights where these are frozen."""
        model = super()._weighed(weights)
        if weights == "adapt":
            return model
        each = [own._weighed(weights) for own in self._fitted_models.values()]
        return Marginalized(self._assemble(each), model.params, model.log_weights, adapt=False)

    def _held(self, state: Any, weights: str) -> Any:
        if weights == "adapt":
            return state
        return self._packed(self._held_components(state), self.model_._unpack(state).log_weights, state)

    def _held_components(self, state: Any) -> list[Any]:
        """The state of each model, its draws weighed as after its fit."""
        components = self.model_._unpack(state).components
        alone = [map_state(lambda leaf: leaf.squeeze(0), one) for one in components]
        return [own._held(one, "frozen") for own, one in zip(self._fitted_models.values(), alone, strict=True)]

    def _packed(self, states: Sequence[Any], log_weights: torch.Tensor, like: Any) -> Any:
        components = tuple(map_state(lambda leaf: leaf.unsqueeze(0), one) for one in states)
        return self.model_._pack(AverageState(components, log_weights), like.log_weights)
