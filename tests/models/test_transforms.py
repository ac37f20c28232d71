"""Transforms: exact Jacobians, units, and the identity of differenced scores."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy import stats

import probseq as ps
from probseq.data.sequences import sequences
from probseq.distributions.emissions import Normal, Observation, StudentT
from probseq.errors import DataError, DegenerateWarning, IncompatibleError, ParameterError, ShapeError, SupportError
from probseq.models.base import SequenceModel
from probseq.models.baseline import IIDModel
from probseq.models.hmm import HiddenMarkovModel
from probseq.models.wrappers import ElementwiseModel
from probseq.results.joint import make_batch
from probseq.testing.cases import ModelCase

MEAN, SCALE = 0.3, 0.7
PARAMS = {"mean": torch.tensor([MEAN], dtype=torch.float64), "scale": torch.tensor([SCALE], dtype=torch.float64)}
X = np.array([0.4, 0.7, 1.3, 2.2])


def normal_under(transform, x):
    model = transform.wrap(IIDModel(Normal(), Observation(1)), transform.constants(x[None, :, None]))
    return model.log_prob_steps(PARAMS, make_batch(model, x[None, :, None], np.array([len(x)]))).values[0].numpy()


def test_log_is_the_lognormal_density():
    assert_allclose(normal_under(ps.Log(), X), stats.lognorm(s=SCALE, scale=np.exp(MEAN)).logpdf(X), rtol=1e-12)
    shifted = stats.lognorm(s=SCALE, loc=-2.0, scale=np.exp(MEAN)).logpdf(X)
    assert_allclose(normal_under(ps.Log(shift=-2.0), X), shifted, rtol=1e-12)


def test_logit_is_the_logit_normal_density():
    u = X / 3.0
    expected = stats.norm(MEAN, SCALE).logpdf(np.log(u / (1 - u))) - np.log(u) - np.log1p(-u)
    assert_allclose(normal_under(ps.Logit(), u), expected, rtol=1e-12)
    assert_allclose(normal_under(ps.Logit(0.0, 3.0), X), expected - np.log(3.0), rtol=1e-12)


@pytest.mark.parametrize("lmbda", [0.5, -0.4, 2.0])
def test_boxcox_is_the_truncated_normal_density(lmbda):
    z = stats.boxcox(X, lmbda)
    ends = [-1 / lmbda, np.inf] if lmbda > 0 else [-np.inf, -1 / lmbda]
    law = stats.truncnorm(*((np.array(ends) - MEAN) / SCALE), MEAN, SCALE)
    assert_allclose(normal_under(ps.BoxCox(lmbda), X), law.logpdf(z) + (lmbda - 1) * np.log(X), rtol=1e-10)


def test_boxcox_of_zero_is_the_logarithm():
    assert_allclose(normal_under(ps.BoxCox(0.0), X), normal_under(ps.Log(), X), rtol=1e-12)


def test_boxcox_estimates_lmbda_as_scipy_does():
    x = np.random.default_rng(0).gamma(3.0, size=200)
    model = ps.IID(transform=ps.BoxCox()).fit(x)
    assert model.transforms_.constants[0]["lmbda"] == pytest.approx(stats.boxcox(x)[1])
    assert model.n_parameters_ == 3


CHANGES_OF_UNITS = {
    "plain": (None, {}),
    "Log": (ps.Log(), {}),
    "Standardize": (ps.Standardize(), {}),
    "Difference": (ps.Difference(), {}),
    "Log then Difference": ([ps.Log(), ps.Difference(2)], {}),
    "Standardize then Difference": ([ps.Standardize(), ps.Difference()], {}),
}


@pytest.mark.parametrize("name", CHANGES_OF_UNITS)
@pytest.mark.parametrize("family", ["HMM", "IID", "ARMA", "RandomWalk"])
def test_units_shift_log_prob_by_the_jacobian(name, family):
    """log p of c x under the model fitted to c x is log p of x minus n log c."""
    transform = CHANGES_OF_UNITS[name][0]
    make = {
        "HMM": lambda: ps.HMM(2, transform=transform, inference=ps.EM(n_init=1, tol=1e-13), random_state=0),
        "IID": lambda: ps.IID(transform=transform),
        "ARMA": lambda: ps.ARMA(order=(1, 0), transform=transform),
        "RandomWalk": lambda: ps.RandomWalk(transform=transform),
    }[family]
    rng = np.random.default_rng(4)
    x = np.exp(1.0 + 0.4 * np.sin(np.arange(50) / 3) + 0.2 * rng.normal(size=50))
    unit = 1000.0
    one, other = make().fit(x).log_prob_steps(x), make().fit(unit * x).log_prob_steps(unit * x)
    assert int(np.isnan(one).sum()) == int(np.isnan(other).sum()) < 5
    rtol = 1e-9 if family != "HMM" and family != "ARMA" else 1e-4
    assert_allclose(other.sum(), one.sum() - int((~np.isnan(one)).sum()) * np.log(unit), rtol=rtol)


@pytest.mark.parametrize("order, seasonal", [((1, 1, 0), (0, 0, 0)), ((0, 1, 1), (0, 1, 0, 4)), ((1, 2, 1), (0, 0, 0))])
def test_arima_scores_what_the_differenced_data_score(order, seasonal):
    rng = np.random.default_rng(1)
    x = np.cumsum(np.cumsum(rng.normal(size=80)))
    model = ps.ARMA(order, seasonal).fit(x)
    w, lost = x, 0
    for _ in range(order[1]):
        w, lost = np.diff(w), lost + 1
    if any(seasonal):
        w, lost = w[4:] - w[:-4], lost + 4
    plain = ps.ARMA((order[0], order[2]), trend="n")
    parameters = {name: value.values for name, value in model.params_.items()}
    differenced = plain.with_parameters(**parameters)
    steps = model.log_prob_steps(x)
    assert np.isnan(steps[:lost]).all() and not np.isnan(steps[lost:]).any()
    assert_allclose(steps[lost:], differenced.log_prob_steps(w), rtol=1e-8, atol=1e-8)
    by_wrapper = ps.ARMA((order[0], order[2]), trend="n", transform=ps.Difference()).with_parameters(**parameters)
    if lost == 1:
        assert_allclose(by_wrapper.log_prob_steps(x)[1:], steps[1:], rtol=1e-8)


def test_difference_scores_what_the_differenced_data_score():
    x = np.cumsum(np.random.default_rng(2).normal(size=60))
    levels, changes = ps.IID(transform=ps.Difference()).fit(x), ps.IID().fit(np.diff(x))
    assert_allclose(levels.log_prob_steps(x)[1:], changes.log_prob_steps(np.diff(x)), rtol=1e-12)
    assert levels.forecast(1).mean().item() == pytest.approx(x[-1] + changes.forecast(1).mean().item())


def test_transforms_apply_in_order():
    x = np.exp(np.cumsum(np.random.default_rng(3).normal(size=40)) / 5)
    model = ps.IID(transform=[ps.Log(), ps.Difference()]).fit(x)
    assert float(model.params_["mean"].item()) == pytest.approx(np.diff(np.log(x)).mean())


def test_a_bounded_map_over_a_mixture_equals_the_default():
    inner = HiddenMarkovModel(2, StudentT(), Observation(1))
    case = ModelCase(ElementwiseModel(inner, ps.BoxCox(0.5).bijection({"lmbda": 0.5})))
    slow = SequenceModel._log_prob_steps(
        case.model, case.values, case.batch, case.model.initial_state(case.values, case.batch.n)
    )
    real = case.batch.real
    assert_allclose(case.model.log_prob_steps(case.values, case.batch).values[real], slow.values[real], rtol=1e-10)


BAD = {
    "Log of 0": (ps.Log(), np.arange(10.0), SupportError),
    "Log of negatives": (ps.Log(), -np.arange(1.0, 10.0), SupportError),
    "Logit outside": (ps.Logit(), np.array([0.2, 1.0, 0.3]), SupportError),
    "Logit bounds": (ps.Logit(1.0, 0.0), np.array([0.2, 0.5, 0.3]), ParameterError),
    "BoxCox of negatives": (ps.BoxCox(), np.array([-1.0, 2.0, 3.0, 4.0]), SupportError),
    "BoxCox of constants": (ps.BoxCox(), np.ones(9), DataError),
    "Difference too long": (ps.Difference(12), np.arange(12.0), ShapeError),
    "Difference of lag 0": (ps.Difference(0), np.arange(12.0), ParameterError),
    "Difference over a gap": (ps.Difference(), np.array([1.0, 2.0, np.nan, 4.0, 5.0]), DataError),
    "a class": (ps.Log, np.arange(1.0, 9.0), ParameterError),
    "a word": ("log", np.arange(1.0, 9.0), ParameterError),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    transform, x, error = BAD[name]
    model = ps.IID(transform=transform)
    with pytest.raises(error) as caught:
        model.fit(x)
    assert caught.value.got and caught.value.expected and caught.value.remedy
    assert not hasattr(model, "model_")


def test_discrete_models_take_no_transform():
    for model in (
        ps.HMM(emission=ps.Poisson(), transform=ps.Log()),
        ps.IID(ps.Bernoulli(), transform=ps.Standardize()),
    ):
        with pytest.raises(IncompatibleError, match="discrete"):
            model.fit(np.array([1.0, 1.0, 1.0, 1.0, 1.0]) if isinstance(model, ps.HMM) else np.array([0.0, 1.0, 1.0]))
        assert not hasattr(model, "model_")


def test_standardize_of_a_constant_warns():
    with pytest.warns(DegenerateWarning, match="constant"):
        ps.Standardize().constants(np.ones((1, 9, 1)))


def test_forecasts_of_logs_are_lognormal():
    x = np.exp(np.random.default_rng(5).normal(size=100))
    forecast = ps.IID(transform=ps.Log()).fit(x).forecast(2)
    z = np.log(x)
    law = stats.lognorm(s=z.std(), scale=np.exp(z.mean()))
    assert_allclose(forecast.mean(), law.mean(), rtol=1e-9)
    assert_allclose(forecast.var(), law.var(), rtol=1e-9)
    assert_allclose(forecast.quantile(0.9), law.ppf(0.9), rtol=1e-9)
    assert forecast.exact


def test_missing_start_is_no_gap_in_an_elementwise_transform():
    x = np.array([np.nan, 1.0, 2.0, np.nan, 3.0, 2.5])
    model = ps.IID(transform=ps.Log()).fit(x)
    assert int(np.isnan(model.log_prob_steps(x)).sum()) == 2
    assert sequences(x).n_sequences == 1
