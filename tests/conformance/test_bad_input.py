"""Bad input over all families: the right class, what came, what was expected, what to do, and nothing half-fitted."""

import warnings
from contextlib import contextmanager

import numpy as np
import pandas as pd
import pytest

import probseq as ps
from probseq.errors import (
    CovariateError,
    DataError,
    DataTypeError,
    EmptyDataError,
    HistoryError,
    HorizonError,
    NotFittedError,
    ParameterError,
    ProbseqError,
    ProbseqWarning,
    ShapeError,
    SupportError,
    UnsupportedError,
    VocabularyError,
)


@contextmanager
def quiet():
    """Without the warnings that small and degenerate data deserve."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ProbseqWarning)
        yield


EM = ps.EM(n_init=1, max_iter=20, tol=1e-3)
NET = ps.MeanField(n_draws=2, training=ps.TrainingOptions(max_epochs=1))
AMORTIZED = ps.AmortizedVI(training=ps.TrainingOptions(max_epochs=1))
NUMBERS = {
    "HMM": lambda: ps.HMM(inference=EM, random_state=0),
    "ARMA": lambda: ps.ARMA(),
    "ARIMA": lambda: ps.ARIMA((1, 1, 0)),
    "LSTM": lambda: ps.LSTM(2, inference=NET, random_state=0),
    "GRU": lambda: ps.GRU(2, inference=NET, random_state=0),
    "RNN": lambda: ps.RNN(2, inference=NET, random_state=0),
    "DeepMarkov": lambda: ps.DeepMarkov(2, 2, n_particles=5, inference=AMORTIZED, random_state=0),
    "IID": lambda: ps.IID(),
    "RandomWalk": lambda: ps.RandomWalk(),
    "SeasonalNaive": lambda: ps.SeasonalNaive(period=2),
}
COUNTS = {
    "Poisson HMM": lambda: ps.HMM(emission=ps.Poisson(), inference=EM, random_state=0),
    "Poisson IID": lambda: ps.IID(ps.Poisson()),
    "Poisson LSTM": lambda: ps.LSTM(2, head=ps.Poisson(), inference=NET, random_state=0),
    "PoissonProcess": lambda: ps.PoissonProcess(),
}
CODES = {
    "MarkovChain": lambda: ps.MarkovChain(),
    "Categorical HMM": lambda: ps.HMM(emission=ps.Categorical(), inference=EM, random_state=0),
    "Categorical LSTM": lambda: ps.LSTM(2, head=ps.Categorical(), inference=NET, random_state=0),
}
BITS = {"Bernoulli HMM": lambda: ps.HMM(emission=ps.Bernoulli(), inference=EM, random_state=0)}
ALL = {**NUMBERS, **COUNTS, **CODES, **BITS}

GOOD = np.array([0.0, 1, 1, 0, 1, 1, 1, 0, 0, 1, 0, 1, 1, 1, 0, 0, 1, 1, 0, 1])

ANY = {
    "None": (None, DataTypeError),
    "a number": (3.0, ShapeError),
    "4-D": (np.zeros((2, 2, 2, 2)), ShapeError),
    "empty list": ([], EmptyDataError),
    "empty array": (np.array([]), EmptyDataError),
    "an empty sequence": ([GOOD, []], EmptyDataError),
    "all missing": (np.full(20, np.nan), EmptyDataError),
    "infinite": (np.where(np.arange(20) == 3, np.inf, GOOD), DataError),
    "text in numbers": (np.array([1.0, "two", 3.0], dtype=object), DataError),
    "a column of text": (pd.DataFrame({"a": [1.0, 2.0], "b": ["x", "y"]}), DataError),
    "dates": (pd.date_range("2024-01-01", periods=5).to_numpy(), DataError),
    "complex": (np.array([1j, 2.0]), DataError),
}


def fails(make, error, *args, **options):
    model = make()
    with pytest.raises(error) as caught:
        model.fit(*args, **options)
    says(caught.value)
    assert not hasattr(model, "model_"), "half fitted"
    with pytest.raises(NotFittedError):
        model.score(GOOD)


def says(error):
    assert isinstance(error, ProbseqError)
    assert error.got and error.expected and error.remedy, f"{error} lacks got, expected or remedy"


@pytest.mark.parametrize("family", ALL)
@pytest.mark.parametrize("name", ANY)
def test_data_that_nobody_takes(name, family):
    x, error = ANY[name]
    fails(ALL[family], error, x)


FIT = [
    ("negative counts", COUNTS, np.array([1.0, -2.0, 3.0]), SupportError),
    ("broken counts", COUNTS, np.array([1.0, 2.5, 3.0]), SupportError),
    ("negative codes", CODES, np.array([1.0, -1.0, 0.0]), SupportError),
    ("broken codes", CODES, np.array([0.5, 1.0, 0.0]), SupportError),
    ("no bits", BITS, np.array([0.0, 2.0, 1.0]), SupportError),
    ("a text for numbers", {**NUMBERS, **COUNTS, **BITS}, "to be or not to be", DataTypeError),
    ("tokens for numbers", NUMBERS, np.array(["a", "b", "a"]), DataTypeError),
]


@pytest.mark.parametrize(
    "family, make, x, error",
    [(f"{what}: {name}", make, x, error) for what, families, x, error in FIT for name, make in families.items()],
    ids=lambda value: value if isinstance(value, str) and ":" in value else "",
)
def test_data_outside_the_support(family, make, x, error):
    fails(make, error, x)


@pytest.mark.parametrize("family", ALL)
def test_one_value_fits_or_says_why_not(family):
    model = ALL[family]()
    try:
        with quiet():
            model.fit(np.array([1.0]))
    except ProbseqError as error:
        says(error)
        assert not hasattr(model, "model_")
    else:
        assert np.isfinite(model.log_prob(np.array([1.0])))


@pytest.mark.parametrize("family", ALL)
def test_constant_data_fit_with_a_finite_likelihood_or_say_why_not(family):
    model = ALL[family]()
    try:
        with quiet():
            model.fit(np.ones(20))
    except ProbseqError as error:
        says(error)
        assert not hasattr(model, "model_")
    else:
        assert np.isfinite(model.log_prob(np.ones(20)))
        assert np.isfinite(model.score(np.ones(20)))


OPTIONS = {
    "covariates of another length": ({"covariates": np.zeros((7, 1))}, CovariateError),
    "covariates with a gap": ({"covariates": np.where(np.arange(20) == 4, np.nan, 1.0)[:, None]}, CovariateError),
    "lengths that do not add up": ({"lengths": [5, 5]}, DataError),
    "negative lengths": ({"lengths": [25, -5]}, DataError),
    "weights of steps": ({"weights": np.ones(20)}, DataError),
    "negative weights": ({"weights": [-1.0]}, DataError),
}


@pytest.mark.parametrize("family", ["HMM", "ARMA", "LSTM", "IID", "MarkovChain"])
@pytest.mark.parametrize("name", OPTIONS)
def test_options_that_do_not_match(name, family):
    options, error = OPTIONS[name]
    fails(ALL[family], error, GOOD, **options)


@pytest.mark.parametrize("family", ["HMM", "IID", "RandomWalk", "SeasonalNaive", "MarkovChain", "PoissonProcess"])
def test_families_without_inputs_refuse_covariates(family):
    fails(ALL[family], CovariateError, GOOD, covariates=np.ones((20, 1)))


def test_arma_has_one_variable():
    fails(ps.ARMA, ShapeError, np.zeros((20, 2)))


SETTINGS = {
    "no states": lambda: ps.HMM(0),
    "states in halves": lambda: ps.HMM(2.5),
    "emission class": lambda: ps.HMM(emission=ps.Normal),
    "unknown covariance": lambda: ps.HMM(emission=ps.Normal("round")),
    "unknown start": lambda: ps.HMM(start="warm"),
    "mask of another size": lambda: ps.HMM(2, transitions=np.ones((3, 3), bool)),
    "negative order": lambda: ps.ARMA((-1, 0)),
    "order of one number": lambda: ps.ARMA((1,)),
    "season without a period": lambda: ps.ARMA((0, 1), (1, 0, 0)),
    "no hidden units": lambda: ps.LSTM(0),
    "head as a word": lambda: ps.LSTM(head="normal"),
    "period 0": lambda: ps.SeasonalNaive(0),
    "order 0": lambda: ps.MarkovChain(0),
    "negative smoothing": lambda: ps.MarkovChain(smoothing=-1),
    "no degrees of freedom": lambda: ps.IID(ps.StudentT(0.0)),
    "random_state as a word": lambda: ps.HMM(random_state="seed"),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_hyper_parameters(name):
    fails(SETTINGS[name], ParameterError, GOOD)


@pytest.fixture(scope="module")
def fitted():
    with quiet():
        return {
            "IID": ps.IID().fit(GOOD),
            "table": ps.IID().fit(pd.DataFrame({"a": GOOD, "b": GOOD[::-1]})),
            "text": ps.MarkovChain().fit("to be or not to be"),
            "codes": ps.MarkovChain().fit(GOOD),
            "counts": ps.PoissonProcess().fit(GOOD),
            "inputs": ps.ARMA((0, 0)).fit(GOOD, covariates=pd.DataFrame({"u": np.arange(20.0)})),
            "walk": ps.RandomWalk().fit(GOOD),
            "dated": ps.IID().fit(pd.Series(GOOD, index=pd.date_range("2024-01-01", periods=20, freq="D"))),
        }


LATE = pd.Series(GOOD, index=pd.date_range("2024-01-15", periods=20, freq="D"))
USES = {
    "horizon 0": ("IID", lambda m: m.forecast(0), HorizonError),
    "negative horizon": ("IID", lambda m: m.forecast(-3), HorizonError),
    "horizon in halves": ("IID", lambda m: m.forecast(1.5), HorizonError),
    "no horizon": ("IID", lambda m: m.forecast(), HorizonError),
    "predict of nothing": ("IID", lambda m: m.predict(), ParameterError),
    "predict of both": ("IID", lambda m: m.predict(GOOD, horizon=2), ParameterError),
    "length 0": ("IID", lambda m: m.sample(0), HorizonError),
    "no sequences": ("IID", lambda m: m.sample(3, n_sequences=0), HorizonError),
    "more variables": ("IID", lambda m: m.log_prob(np.zeros((5, 2))), ShapeError),
    "other columns": ("table", lambda m: m.log_prob(pd.DataFrame({"a": GOOD, "c": GOOD})), ShapeError),
    "columns in another order": ("table", lambda m: m.log_prob(pd.DataFrame({"b": GOOD, "a": GOOD})), ShapeError),
    "unknown token": ("text", lambda m: m.log_prob("to bee!"), VocabularyError),
    "unknown code": ("codes", lambda m: m.log_prob([0.0, 5.0]), DataError),
    "text for codes": ("codes", lambda m: m.log_prob("abc"), DataError),
    "negative count": ("counts", lambda m: m.score([1.0, -1.0]), SupportError),
    "nothing scored": ("walk", lambda m: m.score([1.0]), DataError),
    "no covariates": ("inputs", lambda m: m.log_prob(GOOD), CovariateError),
    "no future covariates": ("inputs", lambda m: m.forecast(2), CovariateError),
    "too few future covariates": ("inputs", lambda m: m.forecast(3, covariates={"u": [1.0]}), CovariateError),
    "other future covariates": (
        "inputs",
        lambda m: m.forecast(1, covariates=pd.DataFrame({"v": [1.0]})),
        CovariateError,
    ),
    "superfluous covariates": ("IID", lambda m: m.log_prob(GOOD, covariates=np.zeros((20, 1))), CovariateError),
    "superfluous future covariates": ("IID", lambda m: m.forecast(2, covariates=np.zeros((2, 1))), CovariateError),
    "overlapping history": ("dated", lambda m: m.log_prob(LATE, history=ps.TRAINING), HistoryError),
    "walk from nowhere": ("walk", lambda m: m.sample(3), HistoryError),
    "forecast of a walk from nowhere": ("walk", lambda m: m.forecast(3, history=None), HistoryError),
    "states of a model without": ("IID", lambda m: m.sample(3, states=True), UnsupportedError),
    "temperature of numbers": ("IID", lambda m: m.sample(3, temperature=0.5), UnsupportedError),
    "temperature 0": ("text", lambda m: m.sample(3, temperature=0), ParameterError),
    "infinite temperature": ("text", lambda m: m.sample(3, temperature=np.inf), ParameterError),
    "a word for the temperature": ("text", lambda m: m.sample(3, temperature="hot"), ParameterError),
    "temperature yes": ("text", lambda m: m.sample(3, temperature=True), ParameterError),
    "top_k of a half": ("text", lambda m: m.sample(3, top_k=0.5), ParameterError),
    "top_k yes": ("text", lambda m: m.sample(3, top_k=True), ParameterError),
    "top_p of 2": ("text", lambda m: m.sample(3, top_p=2.0), ParameterError),
    "a word for top_p": ("text", lambda m: m.sample(3, top_p="a"), ParameterError),
    "top_p that is no number": ("text", lambda m: m.sample(3, top_p=np.nan), ParameterError),
    "a word for states": ("text", lambda m: m.sample(3, states="no"), ParameterError),
    "a word for log_prob": ("text", lambda m: m.sample(3, log_prob="no"), ParameterError),
    "exclude a number": ("text", lambda m: m.sample(3, exclude=3), ParameterError),
    "update with two values": ("IID", lambda m: m.update(m.initial_state(), [1.0, 2.0]), ShapeError),
    "update with text": ("IID", lambda m: m.update(m.initial_state(), "x"), DataError),
    "update with inf": ("IID", lambda m: m.update(m.initial_state(), np.inf), DataError),
    "unknown parameter": ("IID", lambda m: m.with_parameters(mean=[0.0], width=[1.0]), ParameterError),
    "impossible parameter": ("IID", lambda m: m.with_parameters(mean=[0.0], scale=[-1.0]), ParameterError),
    "interval in percent": ("IID", lambda m: m.forecast(2).interval(90), ParameterError),
}


@pytest.mark.parametrize("name", USES)
def test_uses_of_a_fitted_model(name, fitted):
    family, use, error = USES[name]
    with pytest.raises(error) as caught:
        use(fitted[family])
    says(caught.value)


@pytest.mark.parametrize("family", ALL)
def test_a_failed_refit_keeps_no_mixture_of_fits(family):
    model = ALL[family]()
    with quiet():
        model.fit(GOOD)
        before = model.log_prob(GOOD).item()
        with pytest.raises(DataError):
            model.fit(np.full(9, np.nan))
    assert model.log_prob(GOOD).item() == before
