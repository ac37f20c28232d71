"""Scales that sequences bring along: hand calculation, unscored contexts, streaming, missing values, all families."""

import re
from functools import partial

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

import probseq as ps
from probseq.errors import HistoryError, IncompatibleError, ParameterError, ShapeError, UnsupportedError
from probseq.models.base import map_state

TRAINING = ps.TrainingOptions(max_epochs=3)


def standard(transform, **parameters):
    return ps.IID(transform=transform).with_parameters(**({"mean": [0.0], "scale": [1.0]} | parameters))


def test_iid_by_hand():
    x = np.array([10.0, 14.0, 12.0, 20.0, 3.0])
    m, s = x[:3].mean(), x[:3].std()
    model = standard(ps.ContextScale(3), mean=[0.5], scale=[2.0])
    steps = model.log_prob_steps(x)
    assert np.isnan(steps[:3]).all()
    assert_allclose(steps[3:], stats.norm(m + 0.5 * s, 2.0 * s).logpdf(x[3:]), rtol=1e-13)
    assert_allclose(model.score(x), steps[3:].mean(), rtol=1e-13)
    forecast = model.forecast(2, history=x)
    assert_allclose(forecast.mean(), m + 0.5 * s)
    assert_allclose(forecast.std(), 2.0 * s)


def test_mean_absolute_value_keeps_zero():
    x = np.array([-2.0, 4.0, 6.0, 1.0])
    steps = standard(ps.ContextScale(3, center=False)).log_prob_steps(x)
    assert_allclose(steps[3], stats.norm(0.0, 4.0).logpdf(1.0), rtol=1e-13)


def test_missing_values_are_left_out_of_the_scale():
    x = np.array([10.0, np.nan, 14.0, 20.0, np.nan, 3.0])
    steps = standard(ps.ContextScale(3)).log_prob_steps(x)
    assert_array_equal(np.isnan(steps), [True, True, True, False, True, False])
    assert_allclose(steps[[3, 5]], stats.norm(12.0, 2.0).logpdf(x[[3, 5]]), rtol=1e-13)


def test_floor_of_a_constant_context_and_the_scale_of_others_for_an_empty_one():
    model = standard(ps.ContextScale(2, floor=0.1))
    assert_allclose(model.log_prob_steps([50.0, 50.0, 53.0])[2], stats.norm(50.0, 5.0).logpdf(53.0))
    panel = [[1.0, 3.0, 0.0], [10.0, 14.0, 0.0], [100.0, 106.0, 0.0]]
    fitted = ps.IID(transform=ps.ContextScale(2)).fit(panel)
    assert fitted.transforms_.constants[0] == {"loc": [12.0], "scale": [2.0]}
    unseen = fitted.log_prob_steps([np.nan, np.nan, 13.0])[2]
    mean, scale = (float(fitted.params_[name].values.squeeze()) for name in ("mean", "scale"))
    assert_allclose(unseen, stats.norm(12.0 + 2.0 * mean, 2.0 * scale).logpdf(13.0))


def test_chosen_variables_leave_counts_alone():
    emission = ps.Product([ps.Normal(), ps.Poisson()])
    x = np.array([[10.0, 3.0], [14.0, 5.0], [20.0, 2.0], [np.nan, 7.0]])
    model = ps.IID(emission, transform=ps.ContextScale(2, variables=[0])).fit(x)
    mean, scale, rate = (float(v.values.squeeze()) for v in model.params_.values())
    expected = stats.norm(12.0 + 2.0 * mean, 2.0 * scale).logpdf(20.0) + stats.poisson(rate).logpmf(2)
    assert_allclose(model.log_prob_steps(x)[2:], [expected, stats.poisson(rate).logpmf(7)], rtol=1e-10)


FAMILIES = {
    "IID": lambda t: ps.IID(transform=t),
    "ARMA": lambda t: ps.ARMA((1, 1), transform=t),
    "HMM": lambda t: ps.HMM(2, transform=t, inference=ps.EM(n_init=2, tol=1e-8), random_state=0),
    "LSTM": lambda t: ps.LSTM(4, transform=t, inference=ps.MeanField(n_draws=3, training=TRAINING), random_state=0),
    "LSTM by MLE": lambda t: ps.LSTM(4, transform=t, inference=ps.MLE(training=TRAINING), random_state=0),
}


def panel(scales=(1.0, 50.0, 2000.0, 0.01), t=30):
    rng = np.random.default_rng(0)
    return [s * (5.0 + np.cumsum(rng.normal(size=t - i))) for i, s in enumerate(scales)]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_series_in_another_unit_is_the_same_series(name):
    """log p of c x is log p of x minus log c for every scored value, without fitting again."""
    model = FAMILIES[name](ps.ContextScale(8)).fit(panel())
    x = panel((1.0,))[0]
    one, other = model.log_prob_steps(x), model.log_prob_steps(1000.0 * x)
    assert_array_equal(np.isnan(one), np.arange(30) < 8)
    tolerance = 1e-9 if not name.startswith("LSTM") else 1e-4
    assert_allclose(other[8:], one[8:] - np.log(1000.0), rtol=tolerance, atol=tolerance)
    here = model.forecast(3, history=x, random_state=0, n_paths=50).mean()
    there = model.forecast(3, history=1000.0 * x, random_state=0, n_paths=50).mean()
    assert_allclose(there, 1000.0 * here, rtol=tolerance)


@pytest.mark.parametrize("name", FAMILIES)
def test_streaming_is_the_batch(name):
    model = FAMILIES[name](ps.ContextScale(6)).fit(panel())
    x = panel((1.0,))[0][:12]
    x[[2, 9]] = np.nan
    state = model.initial_state()
    for value in x[:4]:
        state = model.update(state, [value])
    state = model.state_from_bytes(state.to_bytes())
    for value in x[4:]:
        state = model.update(state, [value])
    stop = model.filter(x)
    tolerance = 1e-9 if not name.startswith("LSTM") else 1e-4
    assert_allclose(model.predictive_at(state).mean(), model.predictive_at(stop).mean(), rtol=tolerance)
    both = [model.forecast(3, state=s, n_paths=20, random_state=0).mean() for s in (state, stop)]
    assert_allclose(both[0], both[1], rtol=tolerance)
    split = model.log_prob(x[:3]) + model.log_prob(x[3:], history=x[:3])
    assert_allclose(split, model.log_prob(x), rtol=tolerance)
    assert float(model.log_prob(x[:3])) == 0.0


def test_ragged_sequences_are_scored_one_by_one():
    model = ps.ARMA((1, 0), transform=ps.ContextScale(6)).fit(panel())
    ragged = [*panel(), np.arange(4.0)]
    together = model.log_prob(ragged)
    assert_allclose(together, [model.log_prob(one) for one in ragged], rtol=1e-12)
    assert float(together[-1]) == 0.0
    after = model.log_prob([one[-3:] for one in panel()], history=[one[:-3] for one in panel()])
    assert_allclose(after, [model.log_prob_steps(one)[-3:].sum() for one in panel()], rtol=1e-10)


def test_networks_are_trained_on_the_scored_values_only():
    seen = {}

    class Look(ps.LSTM):
        def _infer(self, inference, model, batch, generator, **options):
            seen["batch"] = batch
            return super()._infer(inference, model, batch, generator, **options)

    Look(2, transform=[ps.ContextScale(5), ps.Difference(2)], inference=ps.MLE(training=TRAINING), random_state=0).fit(
        panel()
    )
    batch = seen["batch"]
    first = batch.to_explain[..., 0].long().argmax(1)
    assert_array_equal(first, [3, 3, 3, 3])  # two of the five steps are lost to the difference
    assert bool(batch.seen[:, 0].all())


def test_a_network_that_is_a_walk_continues_from_the_context():
    """The inner model reads the context: the first scored value follows the last of it."""
    model = ps.RandomWalk(transform=ps.ContextScale(4)).with_parameters(scale=[1.0])
    x = np.array([1.0, 2.0, 4.0, 9.0, 7.0])
    s = x[:4].std()
    assert_allclose(model.log_prob_steps(x)[4], stats.norm(9.0, s).logpdf(7.0), rtol=1e-12)


def test_static_features_and_scales_make_one_model_for_many_series():
    """Half of the series rise, half fall; only a static feature tells which."""
    rng = np.random.default_rng(0)
    kind = np.tile([-1.0, 1.0], 20)
    size = np.exp(rng.normal(size=40) * 2)
    x = size[:, None] * (kind[:, None] * np.arange(16.0) + 0.3 * rng.normal(size=(40, 16)))
    # The first four steps are alike: what comes next is in the feature only.
    x[:, :4] = size[:, None] * rng.normal(size=(40, 4))
    x = x[..., None]

    def fit(static):
        options = ps.TrainingOptions(max_epochs=40, learning_rate=2e-2)
        net = ps.LSTM(8, transform=ps.ContextScale(4), inference=ps.MLE(training=options), random_state=0)
        return net.fit(x[:30], static=static)

    with_feature, without = fit(kind[:30, None]), fit(None)
    held = ps.sequences(x[30:], static=kind[30:, None])
    gain = with_feature.log_prob_steps(held)[:, 4] - without.log_prob_steps(x[30:])[:, 4]
    assert float(gain.mean()) > 0.3
    forecast = with_feature.forecast(3, history=ps.sequences(x[30:, :4], static=kind[30:, None]), random_state=0)
    assert_array_equal(np.sign(forecast.mean()[:, -1].values.ravel()), kind[30:])


BAD = {
    "length 0": (lambda: ps.IID(transform=ps.ContextScale(0)).fit(np.arange(5.0)), ParameterError),
    "length 2.5": (lambda: ps.IID(transform=ps.ContextScale(2.5)).fit(np.arange(5.0)), ParameterError),
    "center": (lambda: ps.IID(transform=ps.ContextScale(2, center="mean")).fit(np.arange(5.0)), ParameterError),
    "floor": (lambda: ps.IID(transform=ps.ContextScale(2, floor=0.0)).fit(np.arange(5.0)), ParameterError),
    "variables": (lambda: ps.IID(transform=ps.ContextScale(2, variables=[1])).fit(np.arange(5.0)), ParameterError),
    "short": (lambda: ps.IID(transform=ps.ContextScale(5)).fit(np.arange(5.0)), ShapeError),
    "no history": (lambda: standard(ps.ContextScale(2)).sample(5), HistoryError),
    "short history": (lambda: standard(ps.ContextScale(4)).forecast(2, history=[1.0, 2.0]), HistoryError),
}


@pytest.mark.parametrize("name", BAD)
def test_errors(name):
    call, error = BAD[name]
    with pytest.raises(error):
        call()


COUNTS = np.random.default_rng(3).poisson(5.0, (30, 2)).astype(float)
QUICK = ps.MLE(training=TRAINING)


@pytest.mark.parametrize(
    "call, remedy",
    [
        (lambda: two_states().impute(panel()), r"Standardize\(\)"),
        (lambda: two_states().residuals(panel(), kind="ordinary"), 'kind="forecast"'),
        (lambda: ps.ARMA((1, 0), transform=ps.ContextScale(4)).fit(panel()).impute(panel()), r"Standardize\(\)"),
        (lambda: ps.LocalLevel(transform=ps.ContextScale(4)).fit(panel()).impute(panel()), r"Standardize\(\)"),
    ],
    ids=["states", "residuals", "ARMA", "level"],
)
def test_what_cannot_see_the_values_behind_the_scale_says_what_can(call, remedy):
    with pytest.raises(UnsupportedError, match="ContextScale") as error:
        call()
    assert re.search(remedy, error.value.remedy)


def two_states():
    quick = ps.EM(n_init=1, tol=1.0)
    return ps.HMM(2, transform=ps.ContextScale(4), inference=quick, random_state=0).fit(panel())


@pytest.mark.parametrize(
    "make",
    [lambda **options: ps.LSTM(2, head=ps.Poisson(), inference=QUICK, **options), partial(ps.IID, ps.Poisson())],
    ids=["network", "IID"],
)
def test_counts_have_no_scale(make):
    with pytest.raises(IncompatibleError, match="no transform with counts.*networks read logarithms.*variables="):
        make(transform=ps.ContextScale(4)).fit(COUNTS)


def test_counts_beside_real_numbers_stay_what_they_are():
    x = np.stack([np.sin(np.arange(30.0)), COUNTS[:, 0]], 1)
    head = ps.Product([ps.Normal(), ps.Poisson()])
    model = ps.LSTM(2, head=head, transform=ps.ContextScale(4, variables=[0]), inference=QUICK, random_state=0).fit(x)
    drawn = model.forecast(3, random_state=0).sample(20)
    assert_array_equal(drawn[..., 1], np.round(drawn[..., 1]))


def test_states_are_decoded_behind_the_scale():
    rng = np.random.default_rng(1)
    z = np.repeat([0.0, 3.0, 0.0], 20) + 0.3 * rng.normal(size=60)
    model = ps.HMM(2, transform=ps.ContextScale(8), inference=ps.EM(n_init=3, tol=1e-6), random_state=0).fit(z)
    path, other = model.decode(z), model.decode(500.0 * z + 2.0)
    assert_array_equal(path, other)
    assert len(np.unique(path[:20])) == 1 and int(path[30]) != int(path[5])
    state = model.filter(z).tree
    assert int(map_state(lambda leaf: leaf[:, 0], state).inner.steps) == 60
    assert torch.isfinite(state.inner.scale).all()
