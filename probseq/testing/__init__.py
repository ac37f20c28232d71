"""Conformance checks that anyone can run on an own model, distribution, estimator or inference.

Every check raises ``AssertionError`` with what differs; none needs pytest.
"""

from probseq.testing.composed import COMPOSED_ROWS, ComposedRow, check_composed, composed_checks
from probseq.testing.estimators import check_estimator, estimator_checks
from probseq.testing.inferences import check_inference
from probseq.testing.laws import check_distribution
from probseq.testing.models import check_model, model_checks
from probseq.testing.registry import ROWS, Row, unregistered

__all__ = [
    "COMPOSED_ROWS",
    "ROWS",
    "ComposedRow",
    "Row",
    "check_composed",
    "check_distribution",
    "check_estimator",
    "check_inference",
    "check_model",
    "composed_checks",
    "estimator_checks",
    "model_checks",
    "unregistered",
]
