"""Every exported estimator that is made of fitted ones passes the checks of its kind."""

import numpy as np
import pytest

import probseq as ps
from probseq.estimators.members import Composed
from probseq.testing import COMPOSED_ROWS, ComposedRow, composed_checks
from probseq.testing.composed import check_failed_fit, check_storage, check_unfitted


@pytest.mark.parametrize("row", COMPOSED_ROWS, ids=lambda row: row.name)
@pytest.mark.parametrize("name, check", composed_checks(), ids=[name for name, _ in composed_checks()])
def test_registered_estimator(row, name, check):
    check(row)


def test_every_export_has_a_row():
    homes = [names for home, names in ps._HOMES.items() if home.startswith("probseq.estimators")]
    exported = {getattr(ps, name) for names in homes for name in names}
    wanted = {one for one in exported if isinstance(one, type) and issubclass(one, Composed)}
    assert wanted == {type(row.make()) for row in COMPOSED_ROWS}


X = np.random.default_rng(0).normal(size=90)


class Forgetful(ps.Conformal):
    """Files lose what it learnt of residuals."""

    def _revive(self, members, found):
        super()._revive(members, {**found, "residuals": [2 * one for one in found["residuals"]]})


class Leaky(ps.AnomalyDetector):
    """Counts as fitted from the first attempt."""

    def fit(self, X, y=None, **options):
        try:
            return super().fit(X, y, **options)
        finally:
            self.estimator_ = None

    def predict(self, X, **options):
        return 0


def test_checks_find_what_is_wrong():
    ask = {"predict": lambda m, x: m.predict(x)}
    row = ComposedRow("forgetful", lambda: Forgetful(ps.IID()), lambda: {"X": X}, ask)
    with pytest.raises(AssertionError, match="(?s)predict is .* after load"):
        check_storage(row)
    leaky = ComposedRow("leaky", lambda: Leaky(ps.IID()), lambda: {"X": X}, ask)
    with pytest.raises(AssertionError, match="half fitted"):
        check_failed_fit(leaky)
    with pytest.raises(AssertionError, match="predict of an unfitted"):
        check_unfitted(leaky)
