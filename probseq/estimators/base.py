"""The interface that every family shares: fit, score, predict, forecast, sample, stream, save."""

from __future__ import annotations

import math
import time
import warnings
from abc import ABC, abstractmethod
from enum import Enum
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
import torch
import xarray as xr
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError as SklearnNotFittedError

from probseq._random import RandomState, torch_generator
from probseq.data.sequences import Sequences, sequences
from probseq.distributions.emissions import Emission
from probseq.errors import (
    ApproximationWarning,
    CovariateError,
    DataError,
    DataWarning,
    DegenerateWarning,
    HistoryError,
    HorizonError,
    IncompatibleError,
    NotFittedError,
    ParameterError,
    ShapeError,
)
from probseq.estimators.pipeline import DataInfo, FittedTransforms, fit_transforms, transform_list
from probseq.estimators.state import State
from probseq.inference.base import Draws, Inference, Progress
from probseq.models.base import Batch, SequenceModel, Steps, map_state
from probseq.models.marginal import Marginalized
from probseq.results.backends import LawBackend, PathsBackend
from probseq.results.forecast import Forecast
from probseq.results.joint import ModelJoint, make_batch

__all__ = ["TRAINING", "SequenceEstimator"]


class _Training(Enum):
    """The history that a model was fitted to."""

    TRAINING = "training"

    def __repr__(self) -> str:
        return "ps.TRAINING"


TRAINING = _Training.TRAINING


class _Unfitted(NotFittedError, SklearnNotFittedError):
    """Both ours and scikit-learn's."""


class SequenceEstimator(BaseEstimator, ABC):
    """A family of sequence models with scikit-learn's manners; see the methods."""

    inferences: ClassVar[tuple[type[Inference], ...]] = ()
    inference: Inference | None
    transform: Any
    has_states: ClassVar[bool] = False
    """Whether the family has discrete hidden states that can be sampled with the data."""
    random_state: RandomState

    # what a family defines ------------------------------------------------------------------------------------------

    @abstractmethod
    def _build(self, info: DataInfo) -> SequenceModel[Any]:
        """The model of (transformed) data such as these; raises ``ParameterError`` for bad hyper-parameters."""

    @abstractmethod
    def _model_class(self) -> type[SequenceModel[Any]]:
        """The class of what ``_build`` returns."""

    @abstractmethod
    def _default_inference(self) -> Inference:
        """The inference used for ``inference=None``."""

    def _emission(self) -> Emission | None:
        """The emission whose support the data must fit."""
        return None

    def _transforms(self) -> list[Any]:
        return transform_list(self.transform)

    # fit --------------------------------------------------------------------------------------------------------------

    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        lengths: Any = None,
        covariates: Any = None,
        validation: Any = None,
        static: Any = None,
        weights: Any = None,
        progress: Progress | None = None,
    ) -> Self:
        """Fit to one or many sequences.

        Parameters
        ----------
        X : array, list, str, pandas or xarray object
            One sequence or many; NaN is missing.
        y : ignored
            For scikit-learn's pipelines only.
        lengths : list of int
            Cuts a concatenated X into sequences.
        covariates : like X
            Known inputs at every step.
        validation : like X
            Held-out data for inferences that stop early.
        static : array (n, s)
            Inputs that do not vary in time; they join the covariates.
        weights : array (n,)
            Weights of the sequences.
        progress : callable
            Called with (iteration, objective in nats).

        Returns
        -------
        self
        """
        started = time.perf_counter()
        data = self._spread_static(sequences(X, lengths=lengths, covariates=covariates, static=static))
        _check_y(y, data)
        data.require_values()
        inference = self._inference()
        emission = self._emission()
        if emission is not None:
            emission.check(data.values, _called(data))
        transforms, values, steps, inputs = fit_transforms(self._transforms(), data)
        if np.isinf(values).any():
            raise DataError(got="a transform that is infinite", expected="finite values", remedy="Check for zeros.")
        info = self._info(data)
        model = self._build(info)
        self._check_covariates(model, data)
        held_out = None if validation is None else self._held_out(validation, data, transforms, model)
        batch = make_batch(model, values, steps, inputs)
        generator = torch_generator(self.random_state)
        draws = inference.fit(
            model, batch, generator, validation=held_out, weights=_sequence_weights(weights, data), progress=progress
        )
        for message in draws.messages:
            warnings.warn(message, DegenerateWarning, stacklevel=2)
        self._adopt(model, transforms, draws, info, data)
        self.fit_seconds_ = time.perf_counter() - started
        return self

    def with_parameters(self, *, n_covariates: int = 0, **parameters: Any) -> Self:
        """Return a fitted copy with known parameter values, without data.

        Parameters
        ----------
        **parameters : array-like
            Every parameter of the model by name (see ``params_``), on the scale of the transformed data.
        """
        import sklearn

        fitted: Self = sklearn.base.clone(self)
        info, model = fitted._match_parameters(parameters, n_covariates)
        specs = model.parameters()
        values = {}
        for name, spec in specs.items():
            value = torch.as_tensor(np.asarray(parameters[name], dtype=np.float64)).to(model.dtype)
            if tuple(value.shape) != spec.shape and value.numel() == math.prod(spec.shape):
                value = value.reshape(spec.shape)
            wrong = spec.constraint.violation(value) if tuple(value.shape) == spec.shape else None
            if tuple(value.shape) != spec.shape or wrong:
                raise ParameterError(
                    got=f"{name} of shape {tuple(value.shape)}" + (f", {wrong}" if wrong else ""),
                    expected=f"shape {spec.shape} {spec.dims}, allowed by {type(spec.constraint).__name__}",
                    remedy="Check the values.",
                )
            values[name] = value.unsqueeze(0)
        constants = tuple(t.constants(np.full((1, 3, info.n_variables), np.nan)) for t in fitted._transforms())
        transforms = FittedTransforms(tuple(fitted._transforms()), constants)
        draws = Draws(values, log_prob=math.nan, objective=math.nan, status="exact")
        fitted._adopt(model, transforms, draws, info, None)
        fitted.fit_seconds_ = 0.0
        return fitted

    def _match_parameters(self, parameters: dict[str, Any], n_covariates: int) -> tuple[DataInfo, SequenceModel[Any]]:
        """Find the number of variables and categories from the shapes of the given values."""
        probe = self._build(DataInfo(1, 2, n_covariates))
        specs = probe.parameters()
        missing, extra = set(specs) - set(parameters), set(parameters) - set(specs)
        if missing or extra:
            raise ParameterError(
                got=f"parameters {sorted(parameters)}", expected=f"exactly {sorted(specs)}", remedy="Check the names."
            )
        sizes = {"variable": 1, "category": 2}
        for name, spec in specs.items():
            shape = np.shape(parameters[name])
            dims = spec.dims
            if len(shape) == len(dims) - 1 and "variable" in dims:
                dims = tuple(d for d in dims if d != "variable")  # one variable, its axis left out
            for dim, size in zip(dims, shape, strict=False):
                if dim in sizes:
                    sizes[dim] = size
        info = DataInfo(sizes["variable"], sizes["category"], n_covariates)
        return info, self._build(info)

    def _adopt(
        self,
        model: SequenceModel[Any],
        transforms: FittedTransforms,
        draws: Draws,
        info: DataInfo,
        data: Sequences | None,
    ) -> None:
        self.info_, self.transforms_ = info, transforms
        self.draws_ = draws
        self.model_ = Marginalized(transforms.wrap(model), draws.params, draws.log_weights)
        self.n_features_in_ = info.n_variables
        self.converged_, self.n_iter_, self.status_ = draws.converged, draws.n_iter, draws.status
        self.n_parameters_ = self.model_.n_parameters
        self.training_ = data
        self.training_fingerprint_ = None
        self.training_state_ = None
        self.log_likelihood_, self.n_scored_ = math.nan, 0
        if data is None:
            self.covariate_names_: tuple[Any, ...] = tuple(f"u{i}" for i in range(info.n_covariates))
            self.vocabulary_ = None
            return
        if all(isinstance(name, str) for name in data.variables) and data.named and not data.flat:
            self.feature_names_in_ = np.asarray(data.variables, dtype=object)
        self.covariate_names_ = data.covariate_names
        self.vocabulary_ = data.vocabulary
        self.training_fingerprint_ = data.fingerprint()
        steps = self._steps(data, None)
        # The draws were found from these data: replaying them must not weigh the draws a second time.
        self.training_state_ = self.model_.reset_weights(steps.final)
        point = (
            self.model_.model._log_prob_steps(
                self.model_.params,
                self._batch(data),
                self.model_.model.initial_state(self.model_.params, data.n_sequences),
            )
            if self.model_.n_draws == 1
            else steps
        )
        self.log_likelihood_ = float(point.values.sum())
        self.n_scored_ = int(steps.scored.sum())

    def _inference(self) -> Inference:
        inference = self._default_inference() if self.inference is None else self.inference
        self._require(inference)
        return inference

    def _require(self, inference: Any) -> None:
        if inference is None:
            return
        known = tuple(cls() for cls in self.inferences)
        names = ", ".join(type(i).__name__ for i in known if i.can_fit(self._model_class()))
        if not isinstance(inference, Inference):
            raise IncompatibleError(
                got=f"inference={inference!r}",
                expected=f"an inference object: {names}",
                remedy="Write it with parentheses." if isinstance(inference, type) else "Pass one of them.",
            )
        inference.require(self._model_class(), known)

    def _info(self, data: Sequences) -> DataInfo:
        categories = None
        if data.vocabulary is not None:
            categories = len(data.vocabulary)
        else:
            finite = data.values[~np.isnan(data.values)]
            if finite.size and finite.min() >= 0 and finite.max() < 2**31:
                categories = int(finite.max()) + 1
        missing = bool((~data.seen() & data.mask()[..., None]).any())
        return DataInfo(data.n_variables, categories, data.n_covariates, missing)

    def _check_covariates(self, model: SequenceModel[Any], data: Sequences) -> None:
        if data.n_covariates and not model.n_covariates:
            raise CovariateError(
                got=f"covariates {list(data.covariate_names)} for {type(self).__name__}",
                expected="no covariates: this family does not use them",
                remedy="Leave them out, or use ARMA or a recurrent network.",
            )

    def _held_out(
        self, validation: Any, data: Sequences, transforms: FittedTransforms, model: SequenceModel[Any]
    ) -> Batch:
        held_out = self._spread_static(sequences(validation, vocabulary=data.vocabulary))
        values, lengths, inputs = held_out.values, held_out.lengths, held_out.covariates
        for transform, constants in zip(transforms.transforms, transforms.constants, strict=True):
            lag = values.shape[1]
            values = transform.apply(values, constants)
            lag -= values.shape[1]
            lengths, inputs = lengths - lag, None if inputs is None else inputs[:, lag:]
        return make_batch(model, values, lengths, inputs)

    @staticmethod
    def _spread_static(data: Sequences) -> Sequences:
        """Static inputs join the covariates of every step."""
        if data.static is None:
            return data
        from dataclasses import replace

        every = np.repeat(data.static[:, None, :], data.max_length, 1)
        inputs = every if data.covariates is None else np.concatenate([data.covariates, every], -1)
        names = (*data.covariate_names, *data.static_names)
        return replace(data, covariates=inputs, covariate_names=names, static=None, static_names=())

    # read -------------------------------------------------------------------------------------------------------------

    def _check_fitted(self) -> None:
        if not hasattr(self, "model_"):
            raise _Unfitted(
                got=f"a {type(self).__name__} that is not fitted",
                expected="a fitted model",
                remedy="Call fit(X) or with_parameters(...) first.",
            )

    def _read(self, X: Any, lengths: Any = None, covariates: Any = None) -> Sequences:
        """Read data for a fitted model."""
        self._check_fitted()
        vocabulary = self.vocabulary_
        data = self._spread_static(sequences(X, lengths=lengths, covariates=covariates, vocabulary=vocabulary))
        if data.n_variables != self.n_features_in_:
            raise ShapeError(
                got=f"X has {data.n_variables} features, but {type(self).__name__} is expecting "
                f"{self.n_features_in_} features as input",
                expected="the variables of the fit",
                remedy="Pass the same columns.",
            )
        names = getattr(self, "feature_names_in_", None)
        if names is not None and data.named and tuple(data.variables) != tuple(names):
            raise ShapeError(
                got=f"variables {list(data.variables)}. The feature names should match those that were passed during fit",
                expected=f"{list(names)} in this order",
                remedy="Select the columns by name.",
            )
        if data.n_covariates != self.model_.n_covariates:
            raise CovariateError(
                got=f"{data.n_covariates} covariates",
                expected=f"{self.model_.n_covariates}: {list(self.covariate_names_)}",
                remedy="Pass covariates= with the names of the fit.",
            )
        emission = self._emission()
        if emission is not None:
            emission.check(data.values, _called(data))
        categories = self.model_.observation.n_categories
        if categories is not None and np.nanmax(data.values, initial=0) >= categories:
            raise DataError(
                got=f"code {np.nanmax(data.values):g}",
                expected=f"codes below {categories}",
                remedy="Fit with all codes.",
            )
        return data

    def _batch(self, data: Sequences) -> Batch:
        return make_batch(self.model_, data.values, data.lengths, data.covariates)

    def _begin(self, data: Sequences, history: Any) -> Any:
        """The state before the first step of ``data``, or None for new sequences."""
        if history is None:
            return None
        if history is TRAINING or self._is_training(history):
            past, state = self._training()
            rows, gaps = _follow(past, data)
            state = map_state(lambda leaf: leaf[torch.as_tensor(rows)], state)
            if not gaps.any():
                return state
            holes = np.full((len(gaps), int(gaps.max()), self.n_features_in_), np.nan)
            batch = make_batch(self.model_, holes, gaps)
            return self.model_.filter({}, batch, state)
        past = history if isinstance(history, Sequences) else self._read(history)
        joined = data.concat_history(past)
        before = joined.slice_time(0, joined.lengths - data.lengths)
        return self.model_.filter({}, self._batch(before))

    def _is_training(self, history: Any) -> bool:
        if self.training_fingerprint_ is None:
            return False
        past = history if isinstance(history, Sequences) else self._read(history)
        return past.fingerprint() == self.training_fingerprint_

    def _training(self) -> tuple[Sequences, Any]:
        if self.training_ is None or self.training_state_ is None:
            raise HistoryError(
                got="history=ps.TRAINING for a model without training data",
                expected="a model fitted with fit(X)",
                remedy="Pass history=X, or history=None to start anew.",
            )
        return self.training_, self.training_state_

    def _steps(self, data: Sequences, state: Any, frozen: bool = False) -> Steps[Any]:
        model = self.model_.frozen() if frozen else self.model_
        with torch.no_grad():
            return model.log_prob_steps({}, self._batch(data), state)

    # score ------------------------------------------------------------------------------------------------------------

    def log_prob_steps(
        self,
        X: Any,
        *,
        lengths: Any = None,
        covariates: Any = None,
        history: Any = None,
        weights: str = "adapt",
    ) -> xr.DataArray:
        """log p(x_t | x_<t) in nats, dims ``sequence, time``; NaN where nothing is scored.

        Parameters
        ----------
        history : None, ps.TRAINING or data
            What came before X.
        weights : "adapt" or "frozen"
            Whether seeing data moves the weights of the parameter draws (the model's law) or not.
        """
        data = self._read(X, lengths, covariates)
        if weights not in ("adapt", "frozen"):
            raise ParameterError(
                got=f"weights={weights!r}", expected='"adapt" or "frozen"', remedy="Choose one of them."
            )
        steps = self._steps(data, self._begin(data, history), weights == "frozen")
        values = np.where(steps.scored.any(-1).numpy(), steps.values.numpy().astype(float), np.nan)
        return data.label(values, ("sequence", "time"), name="log_prob", attrs={"unit": "nats"})

    def log_prob(self, X: Any, *, lengths: Any = None, covariates: Any = None, history: Any = None) -> xr.DataArray:
        """log p(x_1:T) in nats over the scored values, dim ``sequence`` (a scalar for one sequence)."""
        data = self._read(X, lengths, covariates)
        steps = self._steps(data, self._begin(data, history))
        total = steps.values.double().sum(-1).numpy()
        return data.label(total, ("sequence",), name="log_prob", attrs={"unit": "nats"})

    def score(
        self, X: Any, y: Any = None, *, lengths: Any = None, covariates: Any = None, history: Any = None
    ) -> float:
        """Mean log p(x_t | x_<t) in nats per scored value; higher is better."""
        data = self._read(X, lengths, covariates)
        steps = self._steps(data, self._begin(data, history))
        n = int(steps.scored.sum())
        if n == 0:
            raise DataError(
                got="data in which no value is scored",
                expected="at least one value that is not missing and not only conditioned on",
                remedy="Pass longer data, or history=.",
            )
        return float(steps.values.double().sum()) / n

    @property
    def aic(self) -> float:
        """Akaike's criterion of the training data, -2 log L + 2 k."""
        self._check_fitted()
        return -2 * self.log_likelihood_ + 2 * self.n_parameters_

    @property
    def bic(self) -> float:
        """Schwarz's criterion of the training data, -2 log L + k log n, n = scored values."""
        self._check_fitted()
        return -2 * self.log_likelihood_ + self.n_parameters_ * math.log(max(self.n_scored_, 1))

    @property
    def params_(self) -> xr.Dataset:
        """The parameters as a Dataset; a ``draw`` dimension only where there are several draws."""
        self._check_fitted()
        variables: dict[str, Any] = {}
        sizes: dict[str, int] = {}
        for name, spec in self.model_.model.parameters().items():
            value = self.model_.params[name].detach().numpy()
            words = spec.dims if len(spec.dims) == len(spec.shape) else _axes(name, spec.shape)
            dims = _unique_dims(words, name, spec.shape, sizes)
            one = value.shape[0] == 1
            variables[name] = (dims if one else ("draw", *dims), value[0] if one else value)
        return xr.Dataset(variables)

    # predict ----------------------------------------------------------------------------------------------------------

    def predictive(self, X: Any, *, lengths: Any = None, covariates: Any = None, history: Any = None) -> Forecast:
        """The one-step-ahead predictive distribution of every row of X, given the rows before it."""
        data = self._read(X, lengths, covariates)
        return self._predictive(data, self._begin(data, history))

    def _predictive(self, data: Sequences, state: Any) -> Forecast:
        from probseq.distributions.compose import mixture

        batch = self._batch(data)
        with torch.no_grad():
            start = self.model_.initial_state({}, batch.n) if state is None else state
            laws, log_weights, scored = self.model_.predictive_draws(batch, start)
            law = mixture(log_weights.to(self.model_.dtype), laws)
        # A missing value has a predictive law too; only conditioning takes it away.
        missing = batch.real.unsqueeze(-1) & ~batch.seen
        several = self.model_.n_draws > 1
        backend = LawBackend(law, laws if several else None, log_weights.exp() if several else None)
        return Forecast(
            backend, data, data.index, scored=(scored | missing).numpy(), method=None, random_state=self.random_state
        )

    def predict(
        self,
        X: Any = None,
        *,
        horizon: int | None = None,
        lengths: Any = None,
        covariates: Any = None,
        history: Any = None,
    ) -> xr.DataArray:
        """Point predictions: E[x_t | x_<t] for every row of X, or E[x_T+1..x_T+h] with ``horizon=h``.

        The most probable category for tokens; the median, with a warning, where no mean exists.
        """
        if (X is None) == (horizon is None):
            raise ParameterError(
                got="both X and horizon" if horizon is not None else "neither X nor horizon",
                expected="one of them",
                remedy="predict(X) for fitted values, predict(horizon=12) for the future.",
            )
        if horizon is not None:
            past = TRAINING if history is None else history
            return self._point(self.forecast(horizon, history=past, covariates=covariates))
        return self._point(self.predictive(X, lengths=lengths, covariates=covariates, history=history))

    def _point(self, forecast: Forecast) -> xr.DataArray:
        if self.model_.observation.n_categories is not None and forecast._backend.nominal:
            return self._tokens(forecast.mode())
        mean = forecast.mean()
        defined = np.isfinite(mean.values) | ~np.isfinite(forecast.median().values)
        if defined.all():
            return mean.rename("prediction")
        warnings.warn(
            "The mean of this forecast does not exist; predict returns the median.", ApproximationWarning, stacklevel=3
        )
        return forecast.median().rename("prediction").drop_vars("quantile", errors="ignore")

    def _tokens(self, codes: xr.DataArray) -> xr.DataArray:
        if self.vocabulary_ is None:
            return codes.rename("prediction").astype(int)
        words = np.asarray(self.vocabulary_.tokens, dtype=object)
        return codes.copy(data=words[codes.values.astype(int)]).rename("prediction")

    def forecast(
        self,
        horizon: int | None = None,
        *,
        history: Any = TRAINING,
        covariates: Any = None,
        n_paths: int = 2000,
        state: State | None = None,
        random_state: RandomState = None,
    ) -> Forecast:
        """The joint predictive distribution of the next ``horizon`` steps.

        Parameters
        ----------
        horizon : int
        history : ps.TRAINING, None or data
            What came before; None starts a new sequence.
        covariates : like X
            Future values of the covariates, by name.
        n_paths : int
            Number of simulated paths where the law of a step has no closed form.
        state : State
            Continue from this state instead of a history.
        random_state : int or Generator
            For the paths; the estimator's own by default.
        """
        self._check_fitted()
        steps = _check_horizon(horizon)
        if state is not None:
            labels = self._unlabelled(state.n)
            tree, past, index = state.tree, None, tuple(pd.RangeIndex(1, steps + 1) for _ in range(state.n))
        elif history is None:
            labels, past = self._unlabelled(1), None
            tree, index = self.model_.initial_state({}, 1), (pd.RangeIndex(steps),)
        else:
            if history is TRAINING or self._is_training(history):
                past, tree = self._training()
                if history is not TRAINING:
                    past = history if isinstance(history, Sequences) else self._read(history)
            else:
                past = history if isinstance(history, Sequences) else self._read(history)
                tree = self.model_.filter({}, self._batch(past))
            labels, index = past, past.future_index(steps, covariates)
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
        u = None if inputs is None else torch.as_tensor(inputs)
        joint = ModelJoint(self.model_, tree, steps, inputs)
        several = self.model_.n_draws > 1
        with torch.no_grad():
            law = self.model_.forecast_marginals({}, tree, steps, u)
            if law is not None:
                draws = self.model_.forecast_draws(tree, steps, u) if several else None
                weights = tree.log_weights.exp().unsqueeze(1).expand(-1, steps, -1) if several else None
                backend: Any = LawBackend(law, draws, weights)
                method = None
            else:
                if not isinstance(n_paths, int | np.integer) or isinstance(n_paths, bool) or n_paths < 2:
                    raise ParameterError(
                        got=f"n_paths={n_paths!r}", expected="a whole number from 2", remedy="Try 2000."
                    )
                paths = joint.sample(int(n_paths), torch_generator(random_state))
                observation = self.model_.observation
                backend = PathsBackend(paths, observation.discrete, observation.n_categories)
                method = f"{n_paths} simulated paths"
        return Forecast(backend, labels, index, joint=joint, history=past, method=method, random_state=random_state)

    def _future_inputs(
        self, labels: Sequences, covariates: Any, steps: int, index: tuple[pd.Index, ...]
    ) -> np.ndarray | None:
        if not self.model_.n_covariates:
            if covariates is not None:
                raise CovariateError(
                    got="covariates for a model that was fitted without",
                    expected="no covariates",
                    remedy="Leave them out, or fit with them.",
                )
            return None
        if labels.covariates is not None:
            return labels.future_covariates(steps, covariates, index)
        if covariates is None:
            raise CovariateError(
                got="no future covariates",
                expected=f"the values of {list(self.covariate_names_)} over {steps} steps",
                remedy="Pass covariates=.",
            )
        inputs = sequences(covariates).values
        if inputs.shape != (labels.n_sequences, steps, self.model_.n_covariates):
            raise CovariateError(
                got=f"covariates of shape {inputs.shape}",
                expected=f"({labels.n_sequences}, {steps}, {self.model_.n_covariates})",
                remedy="Pass one row a step.",
            )
        return inputs

    def _unlabelled(self, n: int) -> Sequences:
        values = np.full((n, 1, self.n_features_in_), 0.0)
        flat = self.n_features_in_ == 1
        labels = sequences(values[0, :, 0] if flat and n == 1 else values[0] if n == 1 else values)
        from dataclasses import replace

        return replace(labels, vocabulary=self.vocabulary_)

    # generate ---------------------------------------------------------------------------------------------------------

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
        random_state: RandomState = None,
    ) -> Any:
        """Generate sequences from the model, after a history if one is given.

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

        Returns
        -------
        DataArray (sequence, time, variable); str or list of str for text.
        """
        from probseq.estimators.generation import generate

        return generate(
            self, length, n_sequences, history, covariates, states, (temperature, top_k, top_p), random_state
        )

    # stream -----------------------------------------------------------------------------------------------------------

    def initial_state(self, n_sequences: int = 1) -> State:
        """The state before the first step of new sequences."""
        self._check_fitted()
        return State(self.model_.initial_state({}, n_sequences), n_sequences)

    def filter(self, X: Any, *, lengths: Any = None, covariates: Any = None, history: Any = None) -> State:
        """The state after X."""
        data = self._read(X, lengths, covariates)
        with torch.no_grad():
            return State(self.model_.filter({}, self._batch(data), self._begin(data, history)), data.n_sequences)

    def update(self, state: State, x: Any, *, covariates: Any = None) -> State:
        """The state after one more step; constant time and memory.

        Parameters
        ----------
        x : a number, (k,), or (n, k); NaN is missing. A token for text models.
        """
        self._check_fitted()
        value = self._one_step(x, state.n, self.n_features_in_, "x")
        emission = self._emission()
        if emission is not None:
            emission.check(value)
        if np.isinf(value).any():
            raise DataError(got="an infinite value", expected="finite values or NaN", remedy="Mark it as missing.")
        seen = ~np.isnan(value)
        x_t = torch.as_tensor(np.where(seen, value, self.model_.observation.fill))
        u_t = self._one_input(covariates, state.n)
        with torch.no_grad():
            return State(self.model_.update({}, state.tree, x_t, torch.as_tensor(seen), u_t), state.n)

    def predictive_at(self, state: State, *, covariates: Any = None) -> Forecast:
        """The predictive distribution of the next step."""
        self._check_fitted()
        u = self._one_input(covariates, state.n)
        ready = self.model_.scores_next(state.tree)
        with torch.no_grad():
            law = self.model_.predict_next({}, state.tree, u)
            laws = self.model_.draw_laws(state.tree, u)
        several = self.model_.n_draws > 1
        weights = state.tree.log_weights.exp().unsqueeze(1) if several else None
        backend = LawBackend(law[:, None], laws[:, None] if several else None, weights)
        scored = None if ready is None else ready.unsqueeze(1).numpy()
        index = tuple(pd.RangeIndex(1, 2) for _ in range(state.n))
        return Forecast(backend, self._unlabelled(state.n), index, scored=scored, random_state=self.random_state)

    def state_from_bytes(self, data: bytes) -> State:
        """Read a state that ``State.to_bytes`` wrote."""
        self._check_fitted()
        return State.from_bytes(data, self.model_.initial_state({}, 1))

    def _one_step(self, x: Any, n: int, k: int, name: str) -> np.ndarray:
        if isinstance(x, str) and self.vocabulary_ is not None:
            x = self.vocabulary_.encode(np.array([x], dtype=object), end=False)
        try:
            value = np.asarray(x, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise DataError(got=f"{name}={x!r}", expected=f"numbers, {(n, k)}", remedy="Pass one step.") from error
        if value.size != n * k:
            raise ShapeError(
                got=f"{name} of shape {value.shape}",
                expected=f"{n} sequence(s) of {k} value(s)",
                remedy="Pass one step.",
            )
        return value.reshape(n, k)

    def _one_input(self, covariates: Any, n: int) -> torch.Tensor | None:
        m = self.model_.n_covariates
        if (covariates is None) != (m == 0):
            raise CovariateError(
                got="no covariates" if covariates is None else "covariates",
                expected=f"{m} covariates {list(self.covariate_names_)}",
                remedy="Pass covariates= for this step." if m else "Leave them out.",
            )
        return None if covariates is None else torch.as_tensor(self._one_step(covariates, n, m, "covariates"))

    # keep -------------------------------------------------------------------------------------------------------------

    def save(self, path: Any) -> None:
        """Write the fitted model to one file that ``ps.load`` reads; no pickle, no training values inside."""
        from probseq.estimators.storage import save

        self._check_fitted()
        save(self, path)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.one_d_array = True
        tags.input_tags.string = True
        tags.target_tags.required = False
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "model_")


def _called(data: Sequences) -> str:
    return f"variable {data.variables[0]!r}" if data.named and data.n_variables == 1 else "the data"


def _check_y(y: Any, data: Sequences) -> None:
    """``y`` is ignored, with a warning, only where it can be nothing but scikit-learn's empty gesture."""
    if y is None:
        return
    shape = np.shape(y)
    if len(shape) == 1 and data.n_sequences in (1, shape[0]) and shape[0] in (int(data.lengths[0]), data.n_sequences):
        warnings.warn("y is ignored: a sequence model predicts X itself.", DataWarning, stacklevel=3)
        return
    raise DataError(
        got=f"y of shape {shape}",
        expected="no y: a sequence model predicts X itself",
        remedy="Pass lengths=... for lengths and covariates=... for inputs, by name.",
    )


def _sequence_weights(weights: Any, data: Sequences) -> torch.Tensor | None:
    if weights is None:
        return None
    array = np.asarray(weights, dtype=np.float64)
    if array.shape != (data.n_sequences,) or not np.isfinite(array).all() or (array < 0).any() or not array.any():
        raise DataError(
            got=f"weights of shape {array.shape}",
            expected=f"{data.n_sequences} numbers >= 0, one a sequence, not all zero",
            remedy="Weigh sequences, not steps.",
        )
    return torch.as_tensor(array)


def _check_horizon(horizon: Any) -> int:
    if not isinstance(horizon, int | np.integer) or isinstance(horizon, bool) or horizon < 1:
        raise HorizonError(got=f"horizon={horizon!r}", expected="a whole number from 1", remedy="Try horizon=12.")
    return int(horizon)


def _follow(past: Sequences, data: Sequences) -> tuple[np.ndarray, np.ndarray]:
    """Rows of ``past`` that ``data`` continue, and the missing steps between, both (n,)."""
    last = past.slice_time(past.lengths - 1, past.lengths)
    joined = data.concat_history(last)
    if past.n_sequences == data.n_sequences == 1:
        rows = np.zeros(1, dtype=int)
    else:
        at = {name: i for i, name in enumerate(past.names)}
        rows = np.array([at[name] for name in data.names])
    return rows, joined.lengths - data.lengths - 1


def _axes(name: str, shape: tuple[int, ...]) -> tuple[str, ...]:
    return tuple(f"{name}_{i}" for i in range(len(shape)))


def _unique_dims(dims: tuple[str, ...], name: str, shape: tuple[int, ...], sizes: dict[str, int]) -> tuple[str, ...]:
    """Dimension names that xarray accepts: none twice in an array, one size each over the Dataset."""
    second = {"state": "next_state", "variable": "other_variable"}
    named = [second.get(d, f"{d}_{i}") if d in dims[:i] else d for i, d in enumerate(dims)]
    out = [d if sizes.get(d, size) == size else f"{name}_{d}" for d, size in zip(named, shape, strict=True)]
    sizes.update(zip(out, shape, strict=True))
    return tuple(out)
