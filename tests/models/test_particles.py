"""Particles for missing inputs: a network that is an autoregression, against the dense normal law."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy import stats

import probseq as ps
from probseq.distributions.emissions import Normal
from probseq.errors import ParameterError, UnsupportedError
from probseq.models.marginal import Marginalized
from probseq.models.particles import ParticleModel
from probseq.models.recurrent import RecurrentModel
from probseq.results.joint import make_batch

PHI, SCALE = 0.9, 0.5


def autoregression(n_particles, k=1, seed=0):
    """x_t ~ N(0.9 x_{t-1}, 0.5^2), x_0 = 0, as a network that only uses its direct way."""
    emission = Normal("full") if k > 1 else Normal()
    inner = RecurrentModel(emission, emission.observation(k), "rnn", 2, dtype=torch.float64)
    weights = torch.zeros(inner.n_parameters, dtype=torch.float64)
    params = {"weights": weights}
    for i in range(k):
        inner.piece(params, "head.direct")[i, i] = PHI
    law = inner.predict_next(params, inner.initial_state(params, 1))
    scale = float(law.stddev.flatten()[0])
    return ParticleModel(inner, n_particles, seed), params, scale


def dense(x, scale):
    """log p of the seen values of one sequence (t,) from their joint normal law."""
    t = len(x)
    lower = np.tril(PHI ** np.maximum(np.subtract.outer(np.arange(t), np.arange(t)), 0))
    covariance = scale**2 * lower @ lower.T
    seen = ~np.isnan(x)
    return stats.multivariate_normal(np.zeros(seen.sum()), covariance[np.ix_(seen, seen)]).logpdf(x[seen])


def series(scale, n=4, t=12, missing=0.35):
    rng = np.random.default_rng(2)
    x = np.zeros((n, t))
    for i in range(1, t):
        x[:, i] = PHI * x[:, i - 1] + scale * rng.normal(size=n)
    x[rng.random(x.shape) < missing] = np.nan
    x[0, 5:9] = np.nan
    return x


def test_the_likelihood_of_an_autoregression_with_gaps():
    model, params, scale = autoregression(20000)
    x = series(scale)
    lengths = np.array([12, 12, 7, 10])
    steps = model.log_prob_steps(params, make_batch(model, x[..., None], lengths))
    expected = [dense(row[:length], scale) for row, length in zip(x, lengths, strict=True)]
    error = steps.error.square().sum(-1).sqrt()
    assert float(error.max()) < 0.03 and not bool((steps.error < 0).any())
    assert (np.abs(steps.values.sum(-1).numpy() - expected) < 5 * error.numpy() + 1e-9).all()
    state = model.filter(params, make_batch(model, x[:1, :9, None], np.array([9])))
    mean = float(model.predict_next(params, state).mean)
    last = int(np.flatnonzero(~np.isnan(x[0, :9])).max())
    assert mean == pytest.approx(PHI ** (9 - last) * x[0, last], abs=0.05)


def test_the_estimate_of_the_likelihood_is_unbiased():
    """E[p-hat] = p over seeds, with few particles and gaps at every other step."""
    x = np.array([0.5, np.nan, 1.5, np.nan, np.nan, -1.0, 0.3])
    estimates = []
    for seed in range(144):
        model, params, scale = autoregression(5, seed=1_000_003 * seed)
        batch = make_batch(model, x[None, :, None], np.array([7]))
        estimates.append(float(model.log_prob(params, batch)[0]))
    ratio = np.exp(np.array(estimates) - dense(x, scale))
    assert abs(ratio.mean() - 1.0) < 4 * ratio.std() / 12
    assert np.mean(estimates) < dense(x, scale)


def test_complete_data_are_exact_and_streaming_is_the_batch():
    model, params, scale = autoregression(50)
    x = series(scale, missing=0.0)
    x[0, 5:9] = 0.3
    batch = make_batch(model, x[..., None], np.full(4, 12))
    steps = model.log_prob_steps(params, batch)
    assert_allclose(steps.values.sum(-1), [dense(row, scale) for row in x], rtol=1e-10)
    assert not bool(steps.error.any()) and not bool(steps.final.spread.any())
    gaps = make_batch(model, series(scale)[..., None], np.full(4, 12))
    together = model.log_prob_steps(params, gaps)
    first = model.log_prob_steps(params, gaps.slice_time(0, 6))
    rest = model.log_prob_steps(params, gaps.slice_time(6, 12), first.final)
    assert_allclose(torch.cat([first.values, rest.values], -1), together.values, rtol=1e-9, atol=1e-9)


def test_half_seen_steps_condition_the_other_half():
    """Two independent autoregressions under one full covariance: what is missing of one tells nothing of the other."""
    model, params, scale = autoregression(4000, k=2)
    a, b = series(scale, n=2)
    x = np.stack([a, b], -1)[None]
    x[0, 2] = [0.1, np.nan]
    total = float(model.log_prob(params, make_batch(model, x, np.array([12])))[0])
    assert total == pytest.approx(dense(x[0, :, 0], scale) + dense(x[0, :, 1], scale), abs=0.15)


def test_paths_start_from_the_particles():
    model, params, scale = autoregression(3000)
    x = np.array([[1.0, np.nan, np.nan]])
    state = model.filter(params, make_batch(model, x[..., None], np.array([3])))
    paths, final = model.sample(params, _repeated(state, 3000), 1, torch.Generator().manual_seed(0))
    assert float(paths.mean()) == pytest.approx(PHI**3, abs=5 * scale * 1.6 / 3000**0.5 + 0.03)
    expected = scale * np.sqrt(1 + PHI**2 + PHI**4)
    assert float(paths.std()) == pytest.approx(expected, rel=0.06)
    assert int(final.steps[0]) == 4


def _repeated(state, times):
    from probseq.models.base import map_state

    return map_state(lambda leaf: leaf.repeat_interleave(times, 0), state)


def gappy():
    rng = np.random.default_rng(0)
    x = np.zeros(60)
    for t in range(1, 60):
        x[t] = PHI * x[t - 1] + 0.5 * rng.normal()
    x[[7, 8, 30]] = np.nan
    return x


def test_networks_take_particles_as_an_option(tmp_path):
    y, quick = gappy(), ps.MLE(training=ps.TrainingOptions(max_epochs=3))
    mask = ps.LSTM(3, inference=quick, random_state=0).fit(y)
    model = ps.LSTM(3, inference=quick, random_state=0, missing="particles", n_particles=40).fit(y)
    np.testing.assert_array_equal(model.params_.weights, mask.params_.weights)  # the training is the same
    assert not model.model_.exact and mask.model_.exact
    complete = y[10:30]
    assert_allclose(model.log_prob_steps(complete), mask.log_prob_steps(complete), rtol=1e-5)
    steps = model.log_prob_steps(y)
    assert np.isnan(steps[[7, 8, 30]]).all() and abs(float(steps[9] - mask.log_prob_steps(y)[9])) > 1e-6
    assert_allclose(model.log_prob_steps(y), steps)  # the particles are the same every time
    assert np.isfinite(model.forecast(3, n_paths=20, random_state=0).mean()).all()
    model.save(tmp_path / "net")
    assert_allclose(ps.load(tmp_path / "net").log_prob_steps(y), steps)
    assert mask.summary().attrs["missing"] == "pattern"
    notes = ps.compare({"mask": mask, "particles": model}, y).table["note"]
    assert "given the pattern of missing values" in notes["mask"] and "log score is an estimate" in notes["particles"]
    assert "estimate" not in ps.compare({"mask": mask, "particles": model}, complete).table["note"]["particles"]


def test_particles_of_several_draws_and_a_stream():
    inference = ps.MeanField(n_draws=2, training=ps.TrainingOptions(max_epochs=2))
    y = gappy()
    model = ps.GRU(3, inference=inference, random_state=0, missing="particles", n_particles=20).fit(y)
    state = model.initial_state()
    for value in y[:12]:
        state = model.update(state, [value])
    later = model.predictive_at(state).mean()
    assert_allclose(later, model.predictive_at(model.filter(y[:12])).mean(), rtol=1e-4)
    assert model.predictive(y).mean().shape == (60,)


@pytest.mark.parametrize("options", [{"missing": "drop"}, {"missing": "particles", "n_particles": 1}])
def test_bad_options(options):
    with pytest.raises(ParameterError):
        ps.LSTM(2, **options).fit(np.arange(9.0))


def test_nobody_looks_inside_between_particles():
    quick = ps.MLE(training=ps.TrainingOptions(max_epochs=1))
    model = ps.LSTM(2, inference=quick, random_state=0, missing="particles").fit(gappy())
    assert model.encode(gappy()[10:30]).sizes["time"] == 20
    with pytest.raises(UnsupportedError):
        model.encode(gappy())


def several(n_particles, seed=0):
    """Three autoregressions of other slopes as draws, and the scales of their steps."""
    model, params, scale = autoregression(n_particles, seed=seed)
    many = {"weights": params["weights"].repeat(3, 1)}
    for d, phi in enumerate((0.2, 0.9, 1.1)):
        model.inner.piece(many, "head.direct")[d, 0, 0] = phi
    return Marginalized(model, many, torch.log(torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64))), scale


@pytest.mark.parametrize("frozen", [False, True])
def test_errors_of_draws_reach_their_average(frozen):
    """To first order the variance of a step is that of all factors before it, through the slopes of the average."""
    model, scale = several(300)
    model = model.frozen() if frozen else model
    batch = make_batch(model, series(scale)[..., None], np.array([12, 12, 7, 10]))
    each = model.model.log_prob_steps(model.params, batch)
    start = model.initial_state({}, batch.n).log_weights

    def average(values):
        along, _ = model._weights_along(start, values)
        return torch.logsumexp(along + values.movedim(0, -1), -1)

    slopes = torch.autograd.functional.jacobian(average, each.values)  # (n, t, D, n, t)
    expected = torch.einsum("ntdms,dms->nt", slopes.square(), each.error.square()).sqrt()
    steps = model.log_prob_steps({}, batch)
    assert float(expected.max()) > 0.01
    assert_allclose(steps.error, expected, rtol=1e-9, atol=1e-14)


def test_errors_of_an_average_are_those_over_seeds():
    x = np.array([0.5, np.nan, 1.5, np.nan, np.nan, -1.0, 0.3])
    values, errors = [], []
    for seed in range(100):
        model, _ = several(100, seed=1_000_003 * seed)
        steps = model.log_prob_steps({}, make_batch(model, x[None, :, None], np.array([7])))
        values.append(steps.values[0].numpy())
        errors.append(steps.error[0].numpy())
    moved = np.std(values, 0)
    assert_allclose(moved[[0, 1, 3, 4]], 0.0, atol=1e-14)
    told = np.sqrt(np.mean(np.square(errors), 0))
    assert_allclose(told[[2, 5, 6]], moved[[2, 5, 6]], rtol=0.25)
