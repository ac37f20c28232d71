"""Every exported family with every emission passes the estimator checks."""

import pytest

import probseq as ps
from probseq.testing import ROWS, Row, check_estimator, estimator_checks, unregistered
from probseq.testing import registry as rows
from probseq.testing.estimators import check_construction


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
@pytest.mark.parametrize("name, check", estimator_checks(), ids=[name for name, _ in estimator_checks()])
def test_registered_estimator(row, name, check):
    if name in row.skip:
        pytest.skip("does not apply to this row")
    check(row)


def test_every_export_has_a_row():
    assert unregistered() == []


def test_an_export_without_a_row_is_found(monkeypatch):
    monkeypatch.setattr(rows, "ROWS", tuple(row for row in ROWS if not row.name.startswith("GRU")))
    assert unregistered() == ["GRU"]
    monkeypatch.setattr(rows, "ROWS", tuple(row for row in ROWS if "Bernoulli" not in row.name))
    assert unregistered() == ["AutoregressiveBernoulli", "Bernoulli"]


def test_checks_find_an_estimator_that_keeps_a_failed_fit():
    class Leaky(ps.IID):
        def fit(self, X, y=None, **options):
            self.model_ = None
            return super().fit(X, y, **options)

    with pytest.raises(AssertionError, match="half fitted"):
        check_estimator(Row("leaky", Leaky), skip=("check_construction", "check_storage"))


def test_checks_find_a_changed_argument():
    class Eager(ps.IID):
        def __init__(self, emission=None, transform=None, inference=None, random_state=None):
            super().__init__(emission or ps.Normal(), transform, inference, random_state)
            self.random_state = [random_state]

    with pytest.raises(RuntimeError, match="modifies parameter random_state"):
        check_construction(Row("eager", lambda: Eager(emission=False)))
