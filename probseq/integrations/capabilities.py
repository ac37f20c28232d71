"""What an estimator can take, asked of its model before there are data."""

from __future__ import annotations

from typing import Any, NamedTuple

from probseq.distributions.emissions.regression import AutoregressiveNormal
from probseq.errors import ParameterError, ProbseqError
from probseq.estimators.average import Average
from probseq.estimators.base import SequenceEstimator
from probseq.estimators.calibrated import Calibrated
from probseq.estimators.pipeline import DataInfo
from probseq.models.base import SequenceModel
from probseq.models.conditional_arma import ConditionalARMAModel
from probseq.models.transforms import Difference

__all__ = ["Capabilities", "capabilities"]


class Capabilities(NamedTuple):
    """What an estimator takes and gives.

    multivariate : several variables at once.
    covariates : known inputs at every step.
    missing : missing values, also between others.
    numbers : its variables are numbers, which have quantiles, rather than labels.
    random : fits or forecasts are drawn, and no ``random_state`` fixes them.
    """

    multivariate: bool
    covariates: bool
    missing: bool
    numbers: bool
    random: bool


def capabilities(estimator: Any) -> Capabilities:
    """Ask an estimator, or the model that a ``Conformal`` or ``Recalibrated`` corrects.

    Raises
    ------
    ParameterError
        For anything else, such as a class or a ``PerSequence``.
    """
    if isinstance(estimator, Calibrated):
        return capabilities(estimator._template())
    if not isinstance(estimator, SequenceEstimator):
        raise ParameterError(
            got=f"estimator={estimator!r}",
            expected="an estimator of probseq for one sequence",
            remedy="Write ps.ARMA((1, 0)), with its parentheses.",
        )
    numbers, drawn = _are_numbers(estimator), _is_drawn(estimator)
    if isinstance(estimator, Average):
        each = [capabilities(part) for part in estimator._named().values()]
        return Capabilities(
            all(one.multivariate for one in each),
            any(one.covariates for one in each),
            all(one.missing for one in each),
            numbers,
            drawn,
        )
    return Capabilities(
        multivariate=any(_model(estimator, 2, m) is not None for m in (0, 1)),
        covariates=any(_takes_input(_model(estimator, k, 1)) for k in (1, 2)),
        missing=_takes_gaps(estimator),
        numbers=numbers,
        random=drawn,
    )


def _are_numbers(estimator: SequenceEstimator) -> bool:
    emission = estimator._emission()
    return emission is None or not emission.nominal


def _is_drawn(estimator: SequenceEstimator) -> bool:
    return "random_state" in estimator.get_params(deep=False) and estimator.random_state is None


def _model(estimator: SequenceEstimator, n_variables: int, n_covariates: int) -> SequenceModel[Any] | None:
    """The model of data of this size, or None where there is none."""
    try:
        model = estimator._build(DataInfo(n_variables, (2,) * n_variables, n_covariates))
        model.parameters()
    except ProbseqError:
        return None
    return model


def _takes_input(model: SequenceModel[Any] | None) -> bool:
    return model is not None and model.n_covariates > 0


def _takes_gaps(estimator: SequenceEstimator) -> bool:
    if any(isinstance(one, Difference) for one in estimator._transforms()):
        return False
    if isinstance(estimator._emission(), AutoregressiveNormal):
        return False
    return not isinstance(_model(estimator, 1, 0), ConditionalARMAModel)
