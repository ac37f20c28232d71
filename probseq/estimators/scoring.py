"""How well a fitted model predicts: log-likelihoods, criteria, parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from torch import Tensor

from probseq.data.sequences import Sequences
from probseq.data.textfile import TextFile
from probseq.errors import DataError, UnsupportedError
from probseq.estimators.fitted import FittedModel, check_y
from probseq.inference.information import standard_errors
from probseq.models.base import SequenceModel, Steps

__all__ = ["Scoring", "is_estimate"]


def is_estimate(model: SequenceModel[Any], data: Sequences, steps: Steps[Any]) -> bool:
    """Whether scores are estimates; where particles stand for missing values, only if some are missing."""
    if model.exact or (steps.error is not None and not bool(steps.error.any())):
        return False
    gaps = bool((~data.seen() & data.mask()[..., None]).any())
    return steps.error is not None or gaps or model.missing != "particles"


class _NoStandardErrorsError(UnsupportedError, AttributeError):
    """An attribute that is not there, too, so that `hasattr` and `dir` can tell."""


class Scoring(FittedModel):
    """Log-likelihoods on the scale of the data, in nats."""

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
            What came before X. As for ``forecast``, draws of parameters are weighed by what is new in it only.
        weights : "adapt" or "frozen"
            Whether what is seen moves the weights of the parameter draws (the model's law), or each draw keeps the
            weight that the fit gave it: the product of one-step averages, another score.
        """
        self._require_likelihood("log_prob_steps")
        data = self._borrow(X, lengths, covariates)
        steps = self._steps(data, self._begin(data, history, weights), weights)
        values = np.where(steps.scored.any(-1).numpy(), steps.values.numpy().astype(float), np.nan)
        return data.label(values, ("sequence", "time"), name="log_prob", attrs={"unit": "nats"})

    def log_prob(
        self,
        X: Any,
        *,
        lengths: Any = None,
        covariates: Any = None,
        history: Any = None,
        weights: str = "adapt",
    ) -> xr.DataArray:
        """log p(x_1:T) in nats over the scored values, dim ``sequence`` (a scalar for one sequence).

        The sum of ``log_prob_steps``, whose arguments it takes. Where it is an estimate ``attrs`` have ``exact`` (0),
        the ``method`` with its number of particles, and ``monte_carlo_error``, a standard error in nats (one number a
        sequence) of the first order: it is too small where few particles carry the weight.
        """
        self._require_likelihood("log_prob")
        data = self._borrow(X, lengths, covariates)
        steps = self._steps(data, self._begin(data, history, weights), weights)
        total = steps.values.double().sum(-1).numpy()
        attrs: dict[Any, Any] = {"unit": "nats", **self._estimated(data, steps)}
        return data.label(total, ("sequence",), name="log_prob", attrs=attrs)

    def score(
        self,
        X: Any,
        y: Any = None,
        *,
        lengths: Any = None,
        covariates: Any = None,
        history: Any = None,
        weights: str = "adapt",
    ) -> float:
        """Mean log p(x_t | x_<t) in nats per scored value; higher is better. X may be a ``TextFile``.

        The mean of ``log_prob_steps``, whose arguments it takes.
        """
        if isinstance(X, TextFile):
            from probseq.estimators.text_files import file_totals, mean_nats

            others = {"y": y, "lengths": lengths, "covariates": covariates}
            nats, n = mean_nats(file_totals(self, X, history, others, weights))
            return -nats / n
        self._require_likelihood("score")
        data = self._borrow(X, lengths, covariates)
        check_y(y, data)
        steps = self._steps(data, self._begin(data, history, weights), weights)
        n = int(np.count_nonzero(steps.scored.numpy()))
        if n == 0:
            raise DataError(
                got="data in which no value is scored",
                expected="at least one value that is not missing and not only conditioned on",
                remedy="Pass longer data, or history=.",
            )
        return float(steps.values.numpy().sum(dtype=np.float64)) / n

    @property
    def aic(self) -> float:
        """Akaike's criterion of the training data, -2 log L + 2 k."""
        self._require_likelihood("aic")
        return -2 * self.log_likelihood_ + 2 * self.n_parameters_

    @property
    def aicc(self) -> float:
        """AIC with the correction for short series of Hurvich and Tsai (1989), + 2 k (k + 1) / (n - k - 1).

        n = steps with a scored value; inf where n <= k + 1.
        """
        k, n = self.n_parameters_, self.n_scored_steps_
        return self.aic + 2 * k * (k + 1) / (n - k - 1) if n > k + 1 else math.inf

    @property
    def bic(self) -> float:
        """Schwarz's criterion of the training data, -2 log L + k log n, n = steps with a scored value."""
        self._require_likelihood("bic")
        return -2 * self.log_likelihood_ + self.n_parameters_ * math.log(max(self.n_scored_steps_, 1.0))

    def _estimated(self, data: Sequences, steps: Steps[Any]) -> dict[str, Any]:
        """Attributes of a log-likelihood that is an estimate; none where it is exact."""
        if not is_estimate(self.model_, data, steps):
            return {}
        told: dict[str, Any] = {"exact": 0, "method": self.model_.estimate or "particles"}
        if steps.error is None:
            return told
        error = steps.error.double().square().sum(-1).sqrt().numpy()
        return told | {"monte_carlo_error": error if data.many else float(error[0])}

    def _require_likelihood(self, what: str) -> None:
        """Raise where the fit maximised something else than a likelihood."""
        self._check_fitted()
        if not self.has_likelihood:
            raise UnsupportedError(
                got=f"{what} of {type(self).__name__} with {self.emission_!r}, which is no likelihood",
                expected="a law that was fitted by its likelihood",
                remedy="Use predictive(X).crps(X) and compare(); or a head with a density, such as StudentT().",
            )

    @property
    def params_(self) -> xr.Dataset:
        """The parameters as a Dataset; a ``draw`` dimension only where there are several draws."""
        self._check_fitted()
        return self._label_params(self.model_.params)

    @property
    def standard_errors_(self) -> xr.Dataset:
        """Standard errors of ``params_``, under the same names, by the delta method from the observed information.

        NaN where the data determine none: a probability on its boundary (an initial state that is certain, a transition
        that never happens), an empty state. Structural zeros and known values have 0.

        Raises
        ------
        UnsupportedError
            Where the inference computed no covariance, or the parameters are draws.
        """
        self._check_fitted()
        covariance = self.draws_.covariance
        if self.model_.n_draws > 1 or covariance is None:
            several = self.model_.n_draws > 1
            raise _NoStandardErrorsError(
                got="standard errors of parameters that are draws" if several else "a fit without a covariance",
                expected="a point estimate whose inference computed the observed information",
                remedy='params_.std("draw") is the spread of the posterior.'
                if several
                else "Fit with inference=ps.MLE(covariance=True), ps.EM(covariance=True) or ps.MAP(covariance=True).",
            )
        centre = {name: value[0] for name, value in self.model_.params.items()}
        errors = standard_errors(self.model_.model.parameters(), centre, covariance)
        return self._label_params({name: value.unsqueeze(0) for name, value in errors.items()})

    def _label_params(self, params: Mapping[str, Tensor]) -> xr.Dataset:
        """Values (draw, *spec.shape) under the names of the parameters."""
        variables: dict[str, Any] = {}
        sizes: dict[str, int] = {}
        for name, spec in self.model_.model.parameters().items():
            value = params[name].detach().numpy().copy()  # theirs to change
            words = spec.dims if len(spec.dims) == len(spec.shape) else _axes(name, spec.shape)
            dims = _unique_dims(words, name, spec.shape, sizes)
            one = value.shape[0] == 1
            variables[name] = (dims if one else ("draw", *dims), value[0] if one else value)
        data = xr.Dataset(variables)
        return data.assign_coords(
            {dim: names for dim, names in self._names().items() if data.sizes.get(dim) == len(names)}
        )

    def _names(self) -> dict[str, Any]:
        """Names along the dimensions of parameters: those of the variables, the tokens, the covariates."""
        names: dict[str, Any] = {}
        if self.training_ is not None:
            names["variable"] = names["other_variable"] = [str(v) for v in self.training_.variables]
        if self.vocabulary_ is not None:
            names["category"] = [str(token) for token in self.vocabulary_.tokens]
        if self.covariate_names_:
            names["covariate"] = [str(c) for c in self.covariate_names_]
        return names


def _axes(name: str, shape: tuple[int, ...]) -> tuple[str, ...]:
    return tuple(f"{name}_{i}" for i in range(len(shape)))


def _unique_dims(dims: tuple[str, ...], name: str, shape: tuple[int, ...], sizes: dict[str, int]) -> tuple[str, ...]:
    """Dimension names that xarray accepts: none twice in an array, one size each over the Dataset."""
    second = {"state": "next_state", "variable": "other_variable"}
    named = [second.get(d, f"{d}_{i}") if d in dims[:i] else d for i, d in enumerate(dims)]
    out = [d if sizes.get(d, size) == size else f"{name}_{d}" for d, size in zip(named, shape, strict=True)]
    sizes.update(zip(out, shape, strict=True))
    return tuple(out)
