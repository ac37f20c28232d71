"""What tired users pass to every emission: a sensible fit with a named warning, or an error that says what to do."""

import warnings

import numpy as np
import pytest

from probseq.distributions.emissions import Emission
from probseq.errors import (
    ConvergenceWarning,
    DataError,
    DataTypeError,
    DataWarning,
    DegenerateWarning,
    EmptyDataError,
    ParameterError,
    ProbseqError,
    ProbseqWarning,
    SupportError,
)
from probseq.testing.registry import ROWS, Row

ROW = {
    row.name: row
    for row in ROWS
    if row.name.startswith(("HMM ", "IID "))
    and " by " not in row.name
    and row.covariates == 0
    and isinstance(row.make().emission, Emission)
}
NUMBERS = ("real", "angle")
"""Kinds of data whose family gives every finite number a density."""


def changed(row: Row, value: float) -> np.ndarray:
    x = row.values(20)
    x[3, -1] = value
    return x


def outcome(row: Row, data) -> tuple[ProbseqError | None, set[type[Warning]]]:
    """The error or, where the fit ended, None after everything it says was found finite; and what was warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            model = row.make().fit(data)
            forecast = model.forecast(1)
            law = forecast._backend
            said = [
                np.asarray(model.log_likelihood_),
                *(value.values for value in model.params_.values()),
                law.probs() if law.nominal else law.quantile(np.array([0.1, 0.5, 0.9])),
            ]
        except ProbseqError as error:
            return error, {w.category for w in caught}
    kinds = {w.category for w in caught}
    foreign = [str(w.message) for w in caught if not issubclass(w.category, ProbseqWarning)]
    assert not foreign, f"a warning of some library reaches the user: {foreign[0]}"
    assert all(np.isfinite(part).all() for part in said), "a fit without a warning or an error is not finite"
    return None, kinds


@pytest.mark.parametrize("name", ROW)
def test_every_value_the_same(name):
    row = ROW[name]
    error, kinds = outcome(row, np.repeat(row.values(20)[:1], 20, 0))
    assert error is None
    if row.kind == "real":
        assert DegenerateWarning in kinds, "a spread of zero must be named"


@pytest.mark.parametrize("name", ROW)
@pytest.mark.parametrize("n", [1, 2])
def test_hardly_any_values(name, n):
    error, kinds = outcome(ROW[name], ROW[name].values(20)[:n])
    assert error is None or isinstance(error, DataError | ParameterError)
    assert error is not None or n > 1 or ROW[name].kind != "real" or DegenerateWarning in kinds


@pytest.mark.parametrize("name", ROW)
def test_one_value_among_missing_ones(name):
    x = ROW[name].values(20)
    x[np.arange(20) != 4] = np.nan
    error, _ = outcome(ROW[name], x)
    assert error is None or (ROW[name].missing == "forbidden" and isinstance(error, DataError))


@pytest.mark.parametrize("name", ROW)
def test_a_column_without_values(name):
    row = ROW[name]
    x = row.values(20)
    if row.make().emission.n_variables is None and row.n_variables == 1:
        x = np.column_stack([x, x])
    if x.shape[1] == 1:
        pytest.skip("the family has one column, and data without values are another test")
    x[:, -1] = np.nan
    error, kinds = outcome(row, x)
    if error is None:
        assert DataWarning in kinds, "a variable of which nothing is learnt must be named"
    else:
        assert isinstance(error, DataError)


@pytest.mark.parametrize("name", ROW)
def test_a_value_whose_square_overflows(name):
    error, _ = outcome(ROW[name], changed(ROW[name], 1e300))
    assert isinstance(error, DataError) and "1e+300" in str(error)


@pytest.mark.parametrize("name", ROW)
def test_a_huge_value(name):
    row = ROW[name]
    error, _ = outcome(row, changed(row, 1e15))
    if row.kind in ("bit", "unit"):
        assert isinstance(error, SupportError) and "1e+15" in str(error)
    elif row.kind == "code":
        assert isinstance(error, ParameterError | SupportError)
    else:
        assert error is None or isinstance(error, DataError)


@pytest.mark.parametrize("name", ROW)
@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_an_infinite_value(name, value):
    error, _ = outcome(ROW[name], changed(ROW[name], value))
    assert isinstance(error, DataError) and "inf" in str(error)


@pytest.mark.parametrize("name", ROW)
def test_a_negative_value(name):
    row = ROW[name]
    error, _ = outcome(row, changed(row, -2.0))
    if row.kind in NUMBERS:
        assert error is None
    else:
        assert isinstance(error, SupportError) and "-2" in str(error)


@pytest.mark.parametrize("name", ROW)
def test_half_a_count(name):
    row = ROW[name]
    error, _ = outcome(row, changed(row, 0.5))
    if row.model().observation.measures[-1] == "counting":
        assert isinstance(error, SupportError) and "0.5" in str(error)
    else:
        assert error is None


@pytest.mark.parametrize("name", ROW)
@pytest.mark.parametrize("factor", [1e-200, 1e12])
def test_data_in_another_unit(name, factor):
    row = ROW[name]
    if row.kind != "real":
        pytest.skip("these values have no unit")
    error, kinds = outcome(row, factor * row.values(20))
    assert error is None and kinds <= {DegenerateWarning, ConvergenceWarning}


@pytest.mark.parametrize("name", ROW)
def test_words(name):
    row = ROW[name]
    error, _ = outcome(row, np.array(["a", "b", "a", "c", "b", "a"]))
    if row.make().emission.nominal:
        assert error is None
    else:
        assert isinstance(error, DataTypeError) and "tokens" in str(error)


WRONG = {
    "a word among numbers": (np.array([1.0, "x", 2.0], dtype=object), DataError),
    "complex numbers": (np.array([1j, 2.0, 0.0]), DataError),
    "dates": (np.array(["2020-01-01"] * 3, dtype="datetime64[D]"), DataError),
    "nothing": ([], EmptyDataError),
    "only missing values": (np.full((20, 2), np.nan), EmptyDataError),
    "a number": (3.0, DataError),
    "None": (None, DataError),
}


@pytest.mark.parametrize("name", ROW)
@pytest.mark.parametrize("what", WRONG)
def test_what_is_no_data(name, what):
    data, expected = WRONG[what]
    error, _ = outcome(ROW[name], data)
    assert isinstance(error, expected)


def test_codes_with_gaps_do_not_fill_the_memory():
    row = ROW["HMM Categorical"]
    error, _ = outcome(row, changed(row, 1_700_000_000.0))
    assert isinstance(error, ParameterError) and "Renumber" in str(error)


def test_every_emission_is_here():
    import probseq as ps

    exported = {
        getattr(ps, name)
        for name in ps.__all__
        if isinstance(getattr(ps, name), type) and issubclass(getattr(ps, name), Emission)
    }
    with_inputs = {cls for cls in exported if issubclass(cls, ps.NormalRegression | ps.PoissonRegression)}
    heads_only = {cls for cls in exported if not cls.is_likelihood}
    assert exported - with_inputs - heads_only <= {type(row.make().emission) for row in ROW.values()}
