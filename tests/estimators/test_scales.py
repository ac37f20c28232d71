"""Networks and the units of the data: any unit is as good as another where they are standardised, else it is named."""

import numpy as np
import pytest

import probseq as ps
from probseq.errors import DataError, DegenerateWarning

RNG = np.random.default_rng(0)
WAVE = np.sin(np.arange(40) / 5) + 0.1 * RNG.normal(size=40)
COUNTS = RNG.poisson(3.0, 40)
QUICK = ps.MLE(training=ps.TrainingOptions(max_epochs=3))


def net(**options):
    return ps.LSTM(3, inference=QUICK, random_state=0, **options)


@pytest.mark.parametrize("power", [-400, 100])
@pytest.mark.parametrize("transform", [None, ps.ContextScale(8)], ids=["standardised", "by context"])
@pytest.mark.parametrize("head", [ps.Normal(), ps.StudentT()], ids=["normal", "t"])
def test_another_unit_gives_the_same_model(power, transform, head):
    unit = 2.0**power  # exact in the arithmetic
    one, other = (net(head=head, transform=transform).fit(x) for x in (WAVE, unit * WAVE))
    np.testing.assert_array_equal(one.params_["weights"], other.params_["weights"])
    shift = one.n_scored_ * power * np.log(2.0)
    assert other.log_likelihood_ + shift == pytest.approx(one.log_likelihood_, rel=1e-9)
    near, far = one.forecast(1), other.forecast(1)
    for name in ("mean", "median", "std"):
        np.testing.assert_allclose(getattr(far, name)() / unit, getattr(near, name)(), rtol=1e-12)


@pytest.mark.parametrize(
    "options, data, size",
    [
        ({"standardize": False}, {"X": 1e-30 * WAVE}, r"e-31 in variable 0.*standardize=True"),
        ({"standardize": False}, {"X": 1e-60 * WAVE}, "e-61 in variable 0"),
        ({"standardize": False}, {"X": 1e30 * WAVE}, r"e\+29 in variable 0.*from 1e-06 to 1e\+06"),
        ({"standardize": False}, {"X": np.stack([WAVE, 1e20 * WAVE], 1)}, "in variable 1"),
        ({"head": ps.Gamma()}, {"X": 1e-30 * np.exp(WAVE)}, "in variable 0"),
        ({"head": ps.Gamma()}, {"X": 1e30 * np.exp(WAVE)}, "in variable 0"),
        ({"head": ps.Poisson()}, {"X": 10**9 * (1 + COUNTS)}, "in variable 0"),
        ({"head": ps.NegativeBinomial()}, {"X": 1e15 * (1 + COUNTS)}, "in variable 0"),
        (
            {"head": ps.Product([ps.Normal(), ps.Poisson()])},
            {"X": np.stack([1e30 * WAVE, 1e15 * (1 + COUNTS)], 1)},
            "in variable 1",
        ),
        ({}, {"X": WAVE, "covariates": 1e30 * WAVE}, "in covariate 0"),
        ({}, {"X": WAVE, "covariates": np.stack([WAVE, 1e-30 * WAVE], 1)}, "in covariate 1"),
    ],
)
def test_a_unit_that_no_training_copes_with_is_named(options, data, size):
    with pytest.raises(DataError, match=size):
        net(**options).fit(**data)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e-30, 1e30, -1e-200])
def test_values_that_do_not_vary(value):
    with pytest.warns(DegenerateWarning, match="constant"):
        model = net().fit(np.full(30, value))
    assert np.isfinite(model.log_likelihood_)
    assert float(model.forecast(1).median().item()) == pytest.approx(value, abs=0.1 * max(1.0, abs(value)))


def test_positive_values_of_any_size_have_logarithms():
    ordinary, large = (net(head=ps.LogNormal()).fit(size * np.exp(WAVE)) for size in (1.0, 1e30))
    assert large.log_likelihood_ < ordinary.log_likelihood_ - 30 * np.log(1e30)
    assert 1e28 < float(large.forecast(1).median().item()) < 1e32


def test_a_few_extreme_values_are_no_unit():
    x = WAVE.copy()
    x[7] = 1e8
    assert net(standardize=False, head=ps.StudentT()).fit(x).n_scored_ == 40
