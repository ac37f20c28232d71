"""What it takes to write an emission, a family or an inference of one's own.

An emission gives ``Emission.parameters`` and ``Emission.distribution``, whose law is a `Distribution`. A family is a
`SequenceModel` with its four methods, and a `SequenceEstimator` that says how users construct it. Methods that begin
with one underscore are hooks that subclasses define; nothing else with an underscore is meant to be used.

`probseq.testing` has the checks: ``check_distribution``, ``check_model`` and ``check_estimator``.
"""

from probseq._random import RandomState
from probseq._types import Rule, number_in, one_of, or_none, positive_number, truth_value, whole_number
from probseq.distributions.base import Distribution, ProductDistribution
from probseq.distributions.compose import Mixture
from probseq.distributions.counts import CountDistribution
from probseq.distributions.emissions import Emission, Observation, SufficientEmission
from probseq.distributions.params import (
    Constraint,
    Interval,
    Params,
    ParamSpec,
    Positive,
    PositiveDefinite,
    Real,
    Simplex,
)
from probseq.estimators.base import SequenceEstimator
from probseq.estimators.pipeline import DataInfo
from probseq.inference.base import Draws, Inference
from probseq.models.base import Batch, Scan, SequenceModel, Steps
from probseq.models.baseline import ClosedForm

__all__ = [
    "Batch",
    "ClosedForm",
    "Constraint",
    "CountDistribution",
    "DataInfo",
    "Distribution",
    "Draws",
    "Emission",
    "Inference",
    "Interval",
    "Mixture",
    "Observation",
    "ParamSpec",
    "Params",
    "Positive",
    "PositiveDefinite",
    "ProductDistribution",
    "RandomState",
    "Real",
    "Rule",
    "Scan",
    "SequenceEstimator",
    "SequenceModel",
    "Simplex",
    "Steps",
    "SufficientEmission",
    "number_in",
    "one_of",
    "or_none",
    "positive_number",
    "truth_value",
    "whole_number",
]
