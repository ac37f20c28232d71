"""The interface that every family shares: fit, score, predict, forecast, sample, stream, save."""

from __future__ import annotations

import math
import time
import warnings
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Self

import numpy as np
import torch

from probseq._random import torch_generator
from probseq._types import Ruled, whole_number
from probseq.data.matching import matched
from probseq.data.sequences import Sequences, sequences
from probseq.data.textfile import TextFile
from probseq.errors import (
    ConvergenceWarning,
    CovariateError,
    DataError,
    DataTypeError,
    DataWarning,
    DegenerateWarning,
    IncompatibleError,
    ParameterError,
    ShapeError,
)
from probseq.estimators.fitted import TRAINING, _called, check_y
from probseq.estimators.history import before_the_end
from probseq.estimators.pipeline import (
    DataInfo,
    FittedTransforms,
    check_support,
    fit_transforms,
    model_inputs,
    n_codes,
    numbers,
    transform_list,
)
from probseq.estimators.residuals import Residuals
from probseq.estimators.scoring import Scoring
from probseq.estimators.streaming import Streaming
from probseq.estimators.surprise import Surprise
from probseq.estimators.text_scores import TextScores
from probseq.estimators.weights import sequence_weights
from probseq.inference.base import Draws, Inference, Progress
from probseq.models.base import Batch, SequenceModel
from probseq.models.marginal import Marginalized
from probseq.results.joint import make_batch

__all__ = ["TRAINING", "SequenceEstimator"]


class SequenceEstimator(Ruled, Scoring, Surprise, TextScores, Residuals, Streaming):
    """A family of sequence models with scikit-learn's manners; see the methods."""

    inferences: ClassVar[tuple[type[Inference], ...]] = ()
    inference: Inference | None

    @abstractmethod
    def _build(self, info: DataInfo) -> SequenceModel[Any]:
        """The model of (transformed) data such as these; raises ``ParameterError`` for bad hyper-parameters."""

    @abstractmethod
    def _model_class(self) -> type[SequenceModel[Any]]:
        """The class of what ``_build`` returns."""

    @abstractmethod
    def _default_inference(self) -> Inference:
        """The inference used for ``inference=None``."""

    def _default_part(self, name: str) -> Any:
        return self._default_inference() if name == "inference" else super()._default_part(name)

    def _transforms(self) -> list[Any]:
        return transform_list(vars(self).get("transform"))

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
        X : array, list, str, pandas or xarray object, or TextFile
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
        weights : array (n,), or mapping from the names of the sequences
            Weights of the sequences: 2 counts a sequence twice, in the fit, ``log_likelihood_``, ``aic`` and ``bic``.
        progress : callable
            Called with (iteration, objective in nats).

        Returns
        -------
        self
        """
        if isinstance(X, TextFile):
            from probseq.estimators.text_files import fit_file

            others = {"y": y, "lengths": lengths, "covariates": covariates, "static": static, "weights": weights}
            if fit_file(self, X, validation, progress, **others):
                return self
        return self._fit(
            sequences(X, lengths=lengths, covariates=covariates, static=static), y, validation, weights, progress
        )

    def _fit(
        self,
        data: Sequences,
        y: Any,
        validation: Any,
        weights: Any,
        progress: Progress | None,
        annotate: Callable[[Batch], Batch] | None = None,
    ) -> Self:
        """Fit to data that were read; ``annotate`` adds to the training batch what only one family knows."""
        started = time.perf_counter()
        check_y(y, data)
        data.require_values()
        _warn_of_empty_variables(data)
        self._check_arguments()
        inference = self._inference()
        self._check_tokens(data)
        emission = self._emission()
        if emission is not None:
            emission.check_arguments()
            emission.check(data.values, _called(data))
        transforms, values, steps, inputs = fit_transforms(self._transforms(), data)
        if np.isinf(values).any():
            raise DataError(got="a transform that is infinite", expected="finite values", remedy="Check for zeros.")
        self._check_values(values, inputs)
        info = self._info(data)
        model = self._build(info)
        model.parameters()  # raises for hyper-parameters of the emission that do not exist
        transforms.wrap(model)  # raises for transforms that the kinds of the variables do not allow
        self._check_covariates(model, data)
        held_out = None if validation is None else self._held_out(validation, data, transforms, model)
        batch = transforms.given(make_batch(model, values, steps, inputs))
        if annotate is not None:
            batch = annotate(batch)
        each, generator = sequence_weights(weights, data), torch_generator(self.random_state)
        told = {"validation": held_out, "weights": each, "progress": progress}
        model, draws = self._infer(inference, model, batch, generator, **told)
        for i, message in enumerate(draws.messages):
            stopped = draws.status in ("max_iter", "decreased") and i == len(draws.messages) - 1
            warnings.warn(message, ConvergenceWarning if stopped else DegenerateWarning, stacklevel=3)
        self._adopt(model, transforms, draws, info, data, each)
        self.fit_seconds_ = time.perf_counter() - started
        return self

    def _infer(
        self, inference: Inference, model: SequenceModel[Any], batch: Batch, generator: torch.Generator, **options: Any
    ) -> tuple[SequenceModel[Any], Draws]:
        """The draws, and the model that they belong to: another one where the data choose its structure."""
        return model, inference.fit(model, batch, generator, **options)

    def with_parameters(self, *, n_covariates: int = 0, **parameters: Any) -> Self:
        """Return a fitted copy with known parameter values, without data.

        Parameters
        ----------
        **parameters : array-like
            Every parameter of the model by name (see ``params_``), on the scale of the transformed data.
        """
        import sklearn

        fitted: Self = sklearn.base.clone(self)
        fitted._check_arguments()
        whole_number("n_covariates", n_covariates, 0)
        parameters = {name: numbers(name, value) for name, value in parameters.items()}
        info, model = fitted._match_parameters(parameters, n_covariates)
        specs = model.parameters()
        values = {}
        for name, spec in specs.items():
            value = torch.as_tensor(parameters[name]).to(model.dtype)
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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DegenerateWarning)  # no data: a standardisation changes nothing
            constants = tuple(t.constants(np.full((1, 3, info.n_variables), np.nan)) for t in fitted._transforms())
        transforms = FittedTransforms(tuple(fitted._transforms()), constants)
        draws = Draws(values, log_prob=math.nan, objective=math.nan, status="exact")
        fitted._adopt(model, transforms, draws, info, None)
        fitted.fit_seconds_ = 0.0
        return fitted

    def _match_parameters(
        self, parameters: dict[str, np.ndarray], n_covariates: int
    ) -> tuple[DataInfo, SequenceModel[Any]]:
        """Find the number of variables and categories from the shapes of the given values."""
        emission = self._emission()
        fixed = None if emission is None else emission.n_variables
        probe = self._build(DataInfo(fixed or 1, 2, n_covariates))
        specs = probe.parameters()
        missing, extra = set(specs) - set(parameters), set(parameters) - set(specs)
        if missing or extra:
            raise ParameterError(
                got=f"parameters {sorted(parameters)}", expected=f"exactly {sorted(specs)}", remedy="Check the names."
            )
        sizes = {"variable": 1, "category": 2}
        for name, spec in specs.items():
            shape = parameters[name].shape
            dims = spec.dims
            if len(shape) == len(dims) - 1 and "variable" in dims:
                dims = tuple(d for d in dims if d != "variable")  # one variable, its axis left out
            for dim, size in zip(dims, shape, strict=False):
                if dim in sizes:
                    sizes[dim] = size
        info = DataInfo(fixed or sizes["variable"], sizes["category"], n_covariates)
        return info, self._build(info)

    def _adopt(
        self,
        model: SequenceModel[Any],
        transforms: FittedTransforms,
        draws: Draws,
        info: DataInfo,
        data: Sequences | None,
        weights: torch.Tensor | None = None,
    ) -> None:
        fitted = Marginalized(transforms.wrap(model), draws.params, draws.log_weights)
        steps = None
        if data is not None:
            with torch.no_grad():
                steps = fitted.log_prob_steps({}, make_batch(fitted, data.values, data.lengths, model_inputs(data)))
        # Nothing is set before everything that can fail has been done: a failed fit leaves no trace.
        self.info_, self.transforms_, self.draws_, self.model_ = info, transforms, draws, fitted
        self.emission_ = self._emission()
        self.n_features_in_ = info.n_variables
        self.converged_, self.n_iter_, self.status_ = draws.converged, draws.n_iter, draws.status
        self.n_parameters_ = fitted.n_parameters
        self.training_, self._fitted_to, self.training_state_ = data, data, None
        self.log_likelihood_, self.n_scored_, self.n_scored_steps_ = math.nan, 0, 0.0
        for name in ("feature_names_in_", "training_fingerprint_"):
            self.__dict__.pop(name, None)
        if data is None or steps is None:
            self.covariate_names_: tuple[Any, ...] = tuple(f"u{i}" for i in range(info.n_covariates))
            self.vocabulary_ = None
            return
        if all(isinstance(name, str) for name in data.variables) and data.named and not data.flat:
            self.feature_names_in_ = np.asarray(data.variables, dtype=object)
        self.covariate_names_ = (*data.covariate_names, *data.static_names)
        self.vocabulary_ = data.vocabulary
        # The draws were found from these data: replaying them must not weigh the draws a second time.
        self.training_ = before_the_end(data)
        if self.training_ is data:
            self.training_state_ = fitted.reset_weights(steps.final)
        else:
            with torch.no_grad():
                self.training_state_ = fitted.reset_weights(fitted.filter({}, self._batch(self.training_)))
        # A weight of two is the sequence twice, for the likelihood and for what it is compared by.
        counted = [steps.values.numpy(), steps.scored.numpy().sum(-1), steps.scored.numpy().any(-1)]
        each = np.ones(len(steps.values)) if weights is None else weights.numpy()
        self.log_likelihood_, n_scored, self.n_scored_steps_ = (
            float(part.sum(-1, dtype=np.float64) @ each) for part in counted
        )
        self.n_scored_ = int(n_scored) if n_scored.is_integer() else n_scored
        if not self.has_likelihood:
            self.log_likelihood_ = math.nan

    def _inference(self) -> Inference:
        inference = self._default_inference() if self.inference is None else self.inference
        self._require(inference)
        return inference

    def _check_arguments(self) -> None:
        """Raise for arguments that no data could make right, and for some that others leave without effect."""
        self.check_rules()

    def _check_values(self, values: np.ndarray, inputs: np.ndarray | None) -> None:
        """Raise for values (n, t, k) and inputs (n, t, m) that this family cannot learn from, once transformed."""

    def _check_pair(self, inference: Any) -> None:
        """Raise at construction for an inference that cannot fit this family; what is none raises in fit."""
        if isinstance(inference, Inference):
            self._require(inference)

    def _require(self, inference: Any) -> None:
        if isinstance(inference, Inference) and inference.can_fit(self._model_class()):
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
        categories = tuple(n_codes(data.values[..., i]) for i in range(data.n_variables))
        if data.vocabulary is not None:
            categories = (len(data.vocabulary),) * data.n_variables
        missing = bool((~data.seen() & data.mask()[..., None]).any())
        return DataInfo(data.n_variables, categories, data.n_covariates + len(data.static_names), missing)

    def _check_tokens(self, data: Sequences) -> None:
        """Codes of tokens are labels: no law of numbers may read them."""
        emission = self._emission()
        if data.vocabulary is not None and (emission is None or not emission.nominal):
            raise DataTypeError(
                got=f"tokens for {self!r}",
                expected="numbers",
                remedy="Use MarkovChain(), HMM(emission=Categorical()) or LSTM(head=Categorical()).",
            )

    def _check_covariates(self, model: SequenceModel[Any], data: Sequences) -> None:
        given = [*data.covariate_names, *data.static_names]
        if given and not model.n_covariates:
            raise CovariateError(
                got=f"covariates {given} for {type(self).__name__}",
                expected="no covariates: this family does not use them",
                remedy="Leave them out, or use ARMA, a recurrent network, or an HMM with CovariateTransitions or "
                "a regression emission.",
            )

    def _held_out(
        self, validation: Any, data: Sequences, transforms: FittedTransforms, model: SequenceModel[Any]
    ) -> Batch:
        held_out = sequences(validation, vocabulary=data.vocabulary).require_values()
        same = held_out.n_variables == data.n_variables and (held_out.vocabulary is None) == (data.vocabulary is None)
        if not same or held_out.n_covariates + len(held_out.static_names) != model.n_covariates:
            raise ShapeError(
                got=f"validation data with {held_out.n_variables} variables and {held_out.n_covariates} covariates",
                expected=f"{data.n_variables} variables and {model.n_covariates} covariates, as in X",
                remedy="Read both alike; ps.sequences(X, covariates=...) adds covariates.",
            )
        held_out = matched(
            held_out,
            data.variables,
            named=data.named and not data.flat,
            inputs=(*data.covariate_names, *data.static_names),
            n_static=len(data.static_names),
            who=type(self).__name__,
        )
        check_support(held_out.values, self._emission(), model.observation.n_categories, "the validation data")
        values, lengths, inputs = held_out.values, held_out.lengths, model_inputs(held_out)
        for transform, constants in zip(transforms.transforms, transforms.constants, strict=True):
            lag = values.shape[1]
            values = transform.apply(values, constants)
            lag -= values.shape[1]
            lengths, inputs = lengths - lag, None if inputs is None else inputs[:, lag:]
        return transforms.given(make_batch(model, values, lengths, inputs))

    def save(self, path: Any) -> None:
        """Write the fitted model to one file that ``ps.load`` reads; no pickle, no training values inside."""
        from probseq.estimators.storage import save

        self._check_fitted()
        save(self, path)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.string = True
        tags.target_tags.required = False
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "model_")


def _warn_of_empty_variables(data: Sequences) -> None:
    seen = data.seen()
    empty = [variable for i, variable in enumerate(data.variables) if not seen[..., i].any()]
    if empty:
        warnings.warn(
            f"Every value of variable {empty[0]!r} is missing: nothing is learnt of it.", DataWarning, stacklevel=4
        )
