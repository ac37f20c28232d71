"""Classes of sequences by Bayes' rule: one sequence model a class."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Self

import numpy as np
import pandas as pd
import xarray as xr
from sklearn.base import ClassifierMixin, clone

from probseq.data.sequences import Sequences, sequences
from probseq.data.vocabulary import Vocabulary
from probseq.errors import (
    DataWarning,
    IncompatibleError,
    ParameterError,
    ProbseqError,
    ProbseqWarning,
    ShapeError,
    SupportError,
)
from probseq.estimators.base import SequenceEstimator
from probseq.estimators.class_labels import class_labels, class_priors
from probseq.estimators.members import Composed

__all__ = ["SequenceClassifier"]


class SequenceClassifier(ClassifierMixin, Composed):
    r"""P(c | x_{1:T}) proportional to P(c) prod_t p(x_t | x_{<t}, c): Bayes' rule over one sequence model a class.

    Each class has a copy of the model, fitted to its sequences. The log-likelihoods that are compared are those of the
    steps at which all classes score the same coordinates; with models that condition on their first values the
    posterior is that given these values, under a prior that does not look at them.

    Parameters
    ----------
    model : estimator, or dict of classes and estimators
        Any family, or one for each class. None is ``ps.HMM()``.
    prior : "empirical", "uniform", array (class,) or mapping of classes to probabilities
        P(c): the shares of the classes in ``y``, equal ones, or known ones (in the order of ``classes_``).

    Attributes
    ----------
    classes_ : array (class,)
        The labels, sorted.
    models_ : dict
        Label to fitted model.
    class_prior_ : array (class,)
        P(c).
    n_features_in_ : int
        The length of sequences that have one variable and one length, such as the rows of a 2-D array; for all other
        data the number of variables.

    Notes
    -----
    X is many sequences in any form that probseq reads (a list or mapping of sequences or texts, a 3-D array, ``X,
    lengths=``, long tables). A 2-D array or plain DataFrame is read as scikit-learn does: every row is a sequence of
    one variable, and as many columns as in the fit are expected (shorter or longer sequences go as a list). Results are
    NumPy arrays, as those of scikit-learn's classifiers.

    Examples
    --------
    >>> import probseq as ps
    >>> texts, labels = ["abababab", "babababa", "aabbaabb", "bbaabbaa"], ["fast", "fast", "slow", "slow"]
    >>> classifier = ps.SequenceClassifier(ps.MarkovChain()).fit(texts, labels)
    >>> classifier.predict(["abab", "aabb"]).tolist()
    ['fast', 'slow']
    """

    def __init__(self, model: Any = None, prior: Any = "empirical") -> None:
        self.model = model
        self.prior = prior

    def fit(self, X: Any, y: Any, *, lengths: Any = None, covariates: Any = None) -> Self:
        """Fit one model a class.

        Parameters
        ----------
        X : many sequences, see the class
        y : array (sequence,) of labels, or mapping of the names of the sequences to labels
        lengths : list of int
            Cuts a concatenated X into sequences.
        covariates : like X
            Known inputs at every step.

        Raises
        ------
        DataError
            For one sequence, one class, labels that do not match the sequences or are no classes, and what the model
            of a class says of its data (the class is named).
        ParameterError
            For what is no estimator, and for priors that are no probabilities.
        IncompatibleError
            Where the models of the classes score by different measures, or by no likelihood.
        """
        data = _many(X, lengths, covariates)
        classes, codes = class_labels(y, data)
        chosen = self._estimators(classes)
        prior = class_priors(self.prior, classes, codes)
        data, coded = _with_codes(data, chosen)
        models = {}
        for i, (label, estimator) in enumerate(zip(classes.tolist(), chosen, strict=True)):
            models[label] = _fit_class(estimator, data.select(np.flatnonzero(codes == i)), label)
        _check_measures(models)
        self.classes_, self.models_, self.class_prior_ = classes, models, prior
        self.vocabulary_: Any = data.vocabulary
        self._coded = coded
        alike = data.n_variables == 1 and len(set(data.lengths.tolist())) == 1
        self._columns = data.max_length if alike else None
        self.n_features_in_ = self._columns or data.n_variables
        return self

    def _estimators(self, classes: np.ndarray) -> list[SequenceEstimator]:
        """The unfitted estimator of every class."""
        labels = classes.tolist()
        if not isinstance(self.model, Mapping):
            return [self._template()] * len(labels)
        if set(self.model) != set(labels):
            raise ParameterError(
                got=f"models of the classes {list(self.model)}",
                expected=f"one for each of {labels}",
                remedy="Name every class of y once.",
            )
        for label, one in self.model.items():
            if not isinstance(one, SequenceEstimator):
                raise ParameterError(
                    got=f"model={one!r} for class {label!r}",
                    expected="an estimator of probseq",
                    remedy="Write its parentheses." if isinstance(one, type) else "Pass one, such as ps.HMM().",
                )
        return [self.model[label] for label in labels]

    def class_log_prob(self, X: Any, *, lengths: Any = None, covariates: Any = None) -> xr.DataArray:
        """log p(x_1:T | c) in nats, dims ``sequence, category``, over the steps that all classes score alike."""
        self._check_fitted()
        data = self._read(X, lengths, covariates)
        coords = {"category": ("category", self.classes_)}
        found = self._class_log_prob(data)
        return data.label(found, ("sequence", "category"), name="log_prob", coords=coords, attrs={"unit": "nats"})

    def predict_log_proba(self, X: Any, *, lengths: Any = None, covariates: Any = None) -> np.ndarray:
        """log P(c | x_1:T), shape (sequence, class), classes in the order of ``classes_``.

        A sequence without a scored value has the prior, as has, with a warning, one that no class thinks possible to
        which the prior gives a chance.
        """
        self._check_fitted()
        data = self._read(X, lengths, covariates)
        with np.errstate(divide="ignore"):
            prior = np.log(self.class_prior_)
        joint = self._class_log_prob(data) + prior
        impossible: np.ndarray = (joint == -np.inf).all(1)
        if impossible.any():
            name = data.names[int(np.argmax(impossible))]
            warnings.warn(
                f"{int(impossible.sum())} sequence(s), such as {name!r}, have probability zero in every class that the "
                "prior allows; their probabilities are the prior.",
                DataWarning,
                stacklevel=2,
            )
            joint = np.where(impossible[:, None], prior, joint)
        return joint - np.logaddexp.reduce(joint, 1, keepdims=True)

    def predict_proba(self, X: Any, *, lengths: Any = None, covariates: Any = None) -> np.ndarray:
        """P(c | x_1:T), shape (sequence, class), classes in the order of ``classes_``."""
        return np.exp(self.predict_log_proba(X, lengths=lengths, covariates=covariates))

    def predict(self, X: Any, *, lengths: Any = None, covariates: Any = None) -> np.ndarray:
        """The most probable class of each sequence, shape (sequence,)."""
        log_proba = self.predict_log_proba(X, lengths=lengths, covariates=covariates)
        return self.classes_[np.argmax(log_proba, 1)]

    def score(  # type: ignore[override]
        self, X: Any, y: Any, sample_weight: Any = None, *, lengths: Any = None, covariates: Any = None
    ) -> float:
        """Share of the sequences whose class is found; ``sample_weight`` are weights of the sequences."""
        from sklearn.metrics import accuracy_score

        self._check_fitted()
        data = self._read(X, lengths, covariates)
        classes, codes = class_labels(y, data, least=1)
        known = {label: i for i, label in enumerate(self.classes_.tolist())}
        truth = np.array([known.get(label, -1) for label in classes.tolist()])[codes]
        found = np.argmax(self.predict_log_proba(data), 1)
        return float(accuracy_score(truth, found, sample_weight=sample_weight))

    def _read(self, X: Any, lengths: Any, covariates: Any) -> Sequences:
        if isinstance(X, Sequences) and self._coded and X.vocabulary is not None:
            return X
        columns = _n_columns(X, lengths)
        if columns is not None and self._columns is not None and columns != self._columns:
            raise ShapeError(
                got=f"rows of another length: X has {columns} features, but SequenceClassifier is expecting "
                f"{self._columns} features as input",
                expected="a table with the columns of the fit",
                remedy="Pass list(X): sequences in lists may have any length.",
            )
        data = _many(X, lengths, covariates, None if self._coded else self.vocabulary_)
        return _coded(data, self.vocabulary_) if self._coded else data

    def _class_log_prob(self, data: Sequences) -> np.ndarray:
        steps = [model._steps(model._borrow(data), None) for model in self.models_.values()]
        scored = np.stack([one.scored.numpy() for one in steps])
        common = scored[0].any(-1) & (scored == scored[:1]).all((0, -1))
        return np.stack([np.where(common, one.values.double().numpy(), 0.0).sum(-1) for one in steps], -1)

    def _members(self) -> dict[Any, SequenceEstimator]:
        return self.models_

    def _found(self) -> dict[str, Any]:
        return {"classes": self.classes_, "prior": self.class_prior_, "coded": self._coded, "columns": self._columns}

    def _revive(self, members: dict[Any, SequenceEstimator], found: dict[str, Any]) -> None:
        self.models_, self.classes_, self.class_prior_ = members, found["classes"], found["prior"]
        self._coded, self._columns = found["coded"], found["columns"]
        first = next(iter(members.values()))
        self.vocabulary_ = first.vocabulary_
        self.n_features_in_ = self._columns or first.n_features_in_

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "models_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.string = True
        tags.input_tags.three_d_array = True
        # The two columns of scikit-learn's checks are no sequences that a law of sequences would tell apart.
        tags.classifier_tags.poor_score = True
        return tags


def _n_columns(X: Any, lengths: Any) -> int | None:
    """The number of columns of an array whose rows are sequences, None for other data."""
    if lengths is not None:
        return None
    if isinstance(X, pd.DataFrame):
        return None if sequences(X).many else X.shape[1]
    if isinstance(X, pd.Series | xr.DataArray) or not hasattr(X, "__array__"):
        return None
    shape = np.asarray(X).shape
    return int(shape[1]) if len(shape) == 2 else None


def _many(X: Any, lengths: Any, covariates: Any, vocabulary: Vocabulary | None = None) -> Sequences:
    """Sequences to classify; the rows of a table are some."""
    if isinstance(X, Sequences):
        data = sequences(X, covariates=covariates, vocabulary=vocabulary) if vocabulary else sequences(X)
    else:
        width = _n_columns(X, lengths)
        given = X
        rows = list(np.asarray(X)) if width else []
        if rows:
            unique = isinstance(X, pd.DataFrame) and X.index.is_unique
            given = dict(zip(X.index, rows, strict=True)) if unique else rows
        data = sequences(given, lengths=lengths, covariates=covariates, vocabulary=vocabulary)
    if not data.many:
        raise ShapeError(
            got="one sequence",
            expected="many: a list of sequences, a 3-D array, or a 2-D array whose rows are sequences",
            remedy="Write [x] for a single one. Reshape your data.",
        )
    return data


def _with_codes(data: Sequences, estimators: list[SequenceEstimator]) -> tuple[Sequences, bool]:
    """Codes of categories as tokens, so that every class knows all of them; and whether that was needed."""
    emissions = [one._emission() for one in estimators]
    if data.vocabulary is not None or not all(one is not None and one.nominal for one in emissions):
        return data, False
    for emission in emissions:
        if emission is not None:
            emission.check(data.values, "the data")
    if np.isnan(data.values).all():
        return data, False
    sizes = [getattr(emission, "n_categories", None) or 0 for emission in emissions]
    size = max(int(np.nanmax(data.values)) + 1, *sizes)
    return _coded(data, Vocabulary(tuple(range(size)))), True


def _coded(data: Sequences, vocabulary: Vocabulary) -> Sequences:
    size = len(vocabulary)
    wrong = data.values[(data.values < 0) | (data.values >= size) | (data.values % 1 != 0) & ~np.isnan(data.values)]
    if wrong.size:
        raise SupportError(
            got=f"code {wrong[0]:g}", expected=f"whole numbers from 0 to {size - 1}", remedy="Fit with all codes."
        )
    return replace(data, vocabulary=vocabulary)


def _fit_class(estimator: SequenceEstimator, data: Sequences, label: Any) -> SequenceEstimator:
    """A copy of the estimator for one class, which messages name."""
    model: SequenceEstimator = clone(estimator)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            model._fit(data, None, None, None, None)
        except ProbseqError as error:
            raise type(error)(
                got=f"{error.got}, for class {label!r}", expected=error.expected, remedy=error.remedy
            ) from error
    for one in caught:
        about = f"Class {label!r}: {one.message}" if issubclass(one.category, ProbseqWarning) else str(one.message)
        warnings.warn(about, one.category, stacklevel=3)
    return model


def _check_measures(models: dict[Any, SequenceEstimator]) -> None:
    """Raise where the likelihoods of the classes cannot be compared."""
    first_label, first = next(iter(models.items()))
    for label, model in models.items():
        if not model.has_likelihood:
            raise IncompatibleError(
                got=f"{model!r} for class {label!r}, which has no likelihood",
                expected="models that are fitted by their likelihood",
                remedy="Use a head with a density, such as ps.StudentT().",
            )
        one, other = first.model_.observation.measures, model.model_.observation.measures
        if one != other:
            raise IncompatibleError(
                got=f"{one} for class {first_label!r} and {other} for class {label!r}",
                expected="one base measure for all classes: densities do not compare with probabilities",
                remedy="Use laws of counts for all classes, or of measurements.",
            )
