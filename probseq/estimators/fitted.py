"""A fitted model and the data it reads: what scoring, prediction and streaming build on."""

from __future__ import annotations

import warnings
from abc import ABC
from collections.abc import Hashable
from dataclasses import replace
from enum import Enum
from functools import cached_property
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError as SklearnNotFittedError

from probseq._random import RandomState
from probseq.data.batch import pack
from probseq.data.covariates import check_complete, order_by_name, read_covariates
from probseq.data.matching import matched
from probseq.data.sequences import Sequences, borrowed, sequences
from probseq.distributions.emissions import Emission
from probseq.errors import (
    CovariateError,
    DataError,
    DataTypeError,
    DataWarning,
    HistoryError,
    NotFittedError,
    ParameterError,
)
from probseq.estimators.history import (
    fingerprint,
    follow,
    replayed_steps,
    rest_of,
    rows_of,
    same_stamps,
    without_inputs,
)
from probseq.estimators.pipeline import DataInfo, FittedTransforms, check_support, future_inputs, model_inputs
from probseq.estimators.state import State, leaves_of
from probseq.inference.base import Draws
from probseq.models.base import Batch, Steps, map_state
from probseq.models.marginal import Marginalized
from probseq.results.joint import make_batch

__all__ = ["TRAINING", "FittedModel"]


class _Training(Enum):
    """The history that a model was fitted to."""

    TRAINING = "training"


TRAINING = _Training.TRAINING


class UnfittedError(NotFittedError, SklearnNotFittedError):
    """Both ours and scikit-learn's."""


_SUCH_AS = {"emission": "ps.Normal()", "head": "ps.Normal()", "transform": "ps.Log()"}


class FittedModel(BaseEstimator, ABC):
    """What every estimator has after ``fit`` or ``with_parameters``, and how it reads data."""

    random_state: RandomState
    model_: Marginalized
    emission_: Emission | None
    info_: DataInfo
    transforms_: FittedTransforms
    draws_: Draws
    n_features_in_: int
    n_parameters_: int
    covariate_names_: tuple[Any, ...]
    vocabulary_: Any
    training_: Sequences | None
    training_state_: Any
    log_likelihood_: float
    """Nats of the training data; NaN where the emission is no likelihood."""
    n_scored_: float
    n_scored_steps_: float
    fit_seconds_: float
    _fitted_to: Sequences | None = None

    @property
    def has_likelihood(self) -> bool:
        """Whether the law is fitted by its likelihood, so that its log probabilities may be compared with others'."""
        emission = self._emission()
        return emission is None or emission.is_likelihood

    @cached_property
    def training_fingerprint_(self) -> str | None:
        """What tells the training data from others, also once the model was saved without them; made when needed."""
        return None if self._fitted_to is None else fingerprint(self._fitted_to)

    @property
    def transform(self) -> Any:
        """Not readable: scikit-learn takes whatever has an attribute of this name for a transformer of data."""
        raise AttributeError("The hyper-parameter transform is read by get_params()['transform'].")

    @transform.setter
    def transform(self, value: Any) -> None:
        self.__dict__["transform"] = value

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's arguments by name; ``deep`` adds those of emissions, transforms and inferences."""
        params = {name: vars(self).get(name) for name in self._get_param_names()}
        if deep:
            for name, part in list(params.items()):
                if part is not None and hasattr(part, "get_params") and not isinstance(part, type):
                    params.update({f"{name}__{inner}": value for inner, value in part.get_params().items()})
        return params

    def set_params(self, **params: Any) -> Self:
        """Set constructor arguments by name; ``emission__covariance`` is one of a component, or of its default.

        Raises
        ------
        ParameterError
            For an argument of a component that has none.
        """
        nested = {name: value for name, value in params.items() if "__" in name}
        super().set_params(**{name: value for name, value in params.items() if name not in nested})
        for name in nested:
            part = name.partition("__")[0]
            held = vars(self).get(part)
            if part in self._get_param_names() and held is None:
                held = self._default_part(part)
                setattr(self, part, held)
            if part in self._get_param_names() and (isinstance(held, type) or not hasattr(held, "set_params")):
                raise ParameterError(
                    got=f"{name} with {part}={held!r}",
                    expected="a component that has arguments of its own",
                    remedy=f"Pass {part}= together with it, such as {_SUCH_AS.get(part, 'an object')}.",
                )
        super().set_params(**nested)
        return self

    def _default_part(self, name: str) -> Any:
        """A new object of what None stands for, or None."""
        return self._emission() if name in ("emission", "head") else None

    def _emission(self) -> Emission | None:
        """The emission whose support the data must fit."""
        return None

    def _check_fitted(self) -> None:
        if not hasattr(self, "model_"):
            raise UnfittedError(
                got=f"an unfitted {type(self).__name__}",
                expected="a fitted model",
                remedy="Call fit(X) or with_parameters(...) first.",
            )

    def _read(self, X: Any, lengths: Any = None, covariates: Any = None, end: bool | None = None) -> Sequences:
        """Read data for a fitted model."""
        self._check_fitted()
        data = sequences(X, lengths=lengths, covariates=covariates, vocabulary=self._words(X), end=end)
        return self._checked(data)

    def _borrow(self, X: Any, lengths: Any = None, covariates: Any = None) -> Sequences:
        """As `_read`, for questions whose answer does not keep the values."""
        self._check_fitted()
        return self._checked(borrowed(X, lengths=lengths, covariates=covariates, vocabulary=self._words(X)))

    def _read_past(self, history: Any) -> Sequences:
        """Read a history: a text that goes on has not ended, and inputs that the model does not use are left out."""
        self._check_fitted()
        end = None if self.vocabulary_ is None or isinstance(history, Sequences) else False
        past = sequences(history, vocabulary=self._words(history), end=end)
        if not self.model_.n_covariates:
            past = without_inputs(past)
        return self._checked(past)

    def _words(self, X: Any) -> Any:
        """The vocabulary to read X with; data that were read already keep theirs, to be compared."""
        return None if isinstance(X, Sequences) and X.vocabulary is None else self.vocabulary_

    def _checked(self, data: Sequences) -> Sequences:
        """Data that this model can take, or an error that says why not."""
        if (data.vocabulary is None) != (self.vocabulary_ is None):
            tokens, numbers = "tokens", "numbers"
            got, expected = (numbers, tokens) if data.vocabulary is None else (tokens, numbers)
            raise DataTypeError(got=got, expected=f"{expected}, as in the fit", remedy="Pass data of the same kind.")
        data = self._matched(data)
        check_support(data.values, self.emission_, self.model_.observation.n_categories, _called(data))
        self.transforms_.check(data.values)
        return data

    def _matched(self, data: Sequences) -> Sequences:
        """Data with the variables of the fit, and its inputs in their order there."""
        past, names = self.training_, self._variable_names()
        return matched(
            data,
            tuple(f"x{j}" for j in range(self.n_features_in_)) if names is None else names,
            named=names is not None,
            inputs=self.covariate_names_,
            n_static=0 if past is None else len(past.static_names),
            who=type(self).__name__,
        )

    def _variable_names(self) -> tuple[Hashable, ...] | None:
        """The names of the variables in the fit, None where they had none or there was a single series."""
        past, names = self.training_, getattr(self, "feature_names_in_", None)
        if names is not None:
            return tuple(names)
        return past.variables if past is not None and past.named and not past.flat else None

    def _batch(self, data: Sequences) -> Batch:
        return make_batch(self.model_, data.values, data.lengths, model_inputs(data))

    def _weighed(self, weights: str) -> Marginalized:
        """The fitted law; for "frozen", with draws that keep the weights of the fit whatever is seen.

        Raises
        ------
        ParameterError
            For another word.
        """
        self._check_fitted()
        if weights not in ("adapt", "frozen"):
            raise ParameterError(
                got=f"weights={weights!r}", expected='"adapt" or "frozen"', remedy="Choose one of them."
            )
        return self.model_.frozen() if weights == "frozen" else self.model_

    def _held(self, state: Any, weights: str) -> Any:
        """The state of the law of these weights: what each draw remembers does not depend on its weight."""
        return state if self._weighed(weights).adapt else self.model_.reset_weights(state)

    def _begin(self, data: Sequences, history: Any, weights: str = "adapt") -> Any:
        """The state before the first step of ``data``, or None for new sequences."""
        state = self._before(data, history)
        return None if state is None else self._held(state, weights)

    def _before(self, data: Sequences, history: Any) -> Any:
        if history is None:
            return None
        if history is TRAINING or self._is_training(history, stamped=True):
            past, state = self._training()
            rows, gaps = follow(past, data)
            state = map_state(lambda leaf: leaf[torch.as_tensor(rows)], state)
            if not gaps.any():
                return state
            holes = np.full((len(gaps), int(gaps.max()), self.n_features_in_), np.nan)
            batch = make_batch(self.model_, holes, gaps)
            return self.model_.filter({}, batch, state)
        past = self._read_past(history)
        joined = data.concat_history(past)
        before = joined.slice_time(0, joined.lengths - data.lengths)
        return self._after(before, past, rows_of(past, data))

    def _after(self, data: Sequences, past: Sequences | None = None, rows: np.ndarray | None = None) -> Any:
        """The state after ``data``, which are sequences ``rows`` of ``past`` with the missing steps behind them.

        Draws were found from the training data: where the past begins with these, they are weighed by the rest.
        """
        known = replayed_steps(data if past is None else past, self.training_, self.training_fingerprint_)
        if known is None or self.training_state_ is None:
            return self.model_.filter({}, self._batch(data))
        at = np.arange(len(known)) if rows is None else rows
        state = map_state(lambda leaf: leaf[torch.as_tensor(at)], self.training_state_)
        values, lengths, inputs = rest_of(data, known[at])
        if not lengths.any():
            return state
        return self.model_.filter({}, make_batch(self.model_, values, lengths, inputs), state)

    def _is_training(self, history: Any, stamped: bool = False) -> bool:
        """Whether these are the training data; with ``stamped`` at no other times than these."""
        if self.training_fingerprint_ is None:
            return False
        past = history
        if not isinstance(history, Sequences):
            past = sequences(history, vocabulary=self.vocabulary_)
        alike = not stamped or same_stamps(past, self.training_)
        return alike and fingerprint(past) == self.training_fingerprint_

    def _training(self) -> tuple[Sequences, Any]:
        if self.training_ is None or self.training_state_ is None:
            raise HistoryError(
                got="history=ps.TRAINING for a model without training data",
                expected="a model fitted with fit(X)",
                remedy="Pass history=X, or history=None to start anew.",
            )
        return self.training_, self.training_state_

    def _steps(self, data: Sequences, state: Any, weights: str = "adapt") -> Steps[Any]:
        model = self._weighed(weights)
        with torch.no_grad():
            return model.log_prob_steps({}, self._batch(data), state)

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
        if labels.covariates is not None or labels.static is not None:
            return future_inputs(labels, steps, covariates, index)
        if covariates is None:
            raise CovariateError(
                got="no future covariates",
                expected=f"the values of {list(self.covariate_names_)} over {steps} steps",
                remedy="Pass covariates=.",
            )
        given = read_covariates(covariates)
        order = order_by_name(given.variables, given.blocks[0].shape[1], self.covariate_names_)
        inputs = pack(given.blocks)[..., order]
        if len(inputs) == 1:
            inputs = np.repeat(inputs, labels.n_sequences, 0)
        if inputs.shape != (labels.n_sequences, steps, self.model_.n_covariates):
            raise CovariateError(
                got=f"covariates of shape {inputs.shape}",
                expected=f"({labels.n_sequences}, {steps}, {self.model_.n_covariates})",
                remedy="Pass one row a step.",
            )
        for name, block in zip(labels.names, inputs, strict=True):
            check_complete(block, self.covariate_names_, f"sequence {name!r}" if labels.many else "the future")
        return inputs

    def _check_state(self, state: Any) -> None:
        """Raise unless ``state`` is one of this model's."""
        template = leaves_of(self.model_.initial_state({}, 1))
        fits = isinstance(state, State)
        if fits:
            leaves = leaves_of(state.tree)
            fits = len(leaves) == len(template) and all(
                a.shape[1:] == b.shape[1:] for a, b in zip(leaves, template, strict=True)
            )
        if not fits:
            raise ParameterError(
                got=repr(state) if isinstance(state, State) else f"state={state!r}",
                expected=f"a state of this {type(self).__name__}",
                remedy="Make one with initial_state() or filter(X).",
            )

    def _position(self, variable: Any) -> int:
        """The number of a variable that a user named or counted."""
        n, names = self.n_features_in_, []
        if isinstance(variable, int | np.integer) and -n <= variable < n:
            return int(variable) % n
        if self.training_ is not None:
            names = list(self.training_.variables)
            if variable in names:
                return names.index(variable)
        raise ParameterError(
            got=f"variable={variable!r}",
            expected=f"a number below {n}" + (f" or one of {names}" if names else ""),
            remedy="Variables count from 0.",
        )

    def _unlabelled(self, n: int) -> Sequences:
        values = np.full((n, 1, self.n_features_in_), 0.0)
        flat = self.n_features_in_ == 1
        labels = sequences(values[0, :, 0] if flat and n == 1 else values[0] if n == 1 else values)
        labels = replace(labels, vocabulary=self.vocabulary_)
        past = self.training_
        if past is None:
            return labels
        return replace(
            labels, variables=past.variables, flat=past.flat, named=past.named, attrs=past.attrs, is_text=past.is_text
        )


def _called(data: Sequences) -> str:
    return f"variable {data.variables[0]!r}" if data.named and data.n_variables == 1 else "the data"


def check_y(y: Any, data: Sequences) -> None:
    """``y`` is ignored, with a warning, only where it can be nothing but scikit-learn's empty gesture."""
    if y is None:
        return
    shape = np.shape(y)
    if len(shape) == 1 and data.n_sequences in (1, shape[0]) and shape[0] in (int(data.lengths[0]), data.n_sequences):
        warnings.warn("y is ignored: a sequence model predicts X itself.", DataWarning, stacklevel=4)
        return
    raise DataError(
        got=f"y of shape {shape}",
        expected="no y: a sequence model predicts X itself",
        remedy="Pass lengths=... for lengths and covariates=... for inputs, by name.",
    )
