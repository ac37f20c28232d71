"""What users see of a hidden Markov model with many parameter draws: forecasts, states, files."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

import probseq as ps
from probseq.errors import DegenerateWarning, IncompatibleError, ParameterError


@pytest.fixture(scope="module", params=["VB", "Gibbs"])
def fitted(request):
    chosen = {"VB": ps.VB(n_draws=20, n_init=3), "Gibbs": ps.Gibbs(n_draws=80, n_chains=2, n_warmup=100, thin=5)}
    model = ps.HMM(2, ps.Poisson(), inference=chosen[request.param], random_state=0)
    return model.fit(ps.datasets.earthquakes())


def test_every_state_method_has_a_dimension_of_draws(fitted):
    y = ps.datasets.earthquakes()
    n = fitted.model_.n_draws
    smooth = fitted.smooth(y)
    assert smooth.dims == ("draw", "time", "state") and smooth.shape == (n, 107, 2)
    assert_allclose(smooth.sum("state"), 1.0)
    assert fitted.decode(y).dims == ("draw", "time")
    assert fitted.sample_states(y, 3).dims == ("draw", "path", "time")
    assert fitted.stationary_distribution().sizes == {"draw": n, "state": 2}
    assert fitted.params_["rate"].dims[:2] == ("draw", "state")
    # The names of the states agree: draw by draw the second state is the one with more earthquakes.
    assert bool((fitted.params_["rate"].diff("state") > 0).all())
    assert float(fitted.decode(y).std("draw").mean()) < 0.25


def test_forecasts_average_over_the_draws(fitted):
    forecast = fitted.forecast(5)
    parts = forecast.decompose()
    assert forecast.exact
    assert_allclose(parts["total"], parts["aleatoric"] + parts["epistemic"], rtol=1e-9)
    assert bool((parts["epistemic"] > 0).all())
    assert_allclose(parts["total"], forecast.var(), rtol=1e-9)
    point = ps.HMM(2, ps.Poisson(), random_state=0).fit(ps.datasets.earthquakes())
    assert_allclose(forecast.mean(), point.forecast(5).mean(), rtol=0.1)


def test_sampled_states_belong_to_the_sampled_values(fitted):
    x, states = fitted.sample(2000, n_sequences=3, states=True, random_state=1)
    rates = [float(x.where(states == j).mean()) for j in (0, 1)]
    assert_allclose(rates, [15.4, 26.0], atol=3.0)
    again, same = fitted.sample(2000, n_sequences=3, states=True, random_state=1)
    assert x.equals(again) and states.equals(same)


def test_files_keep_the_draws_and_the_prior(fitted, tmp_path):
    y = ps.datasets.earthquakes()
    fitted.save(tmp_path / "model")
    loaded = ps.load(tmp_path / "model")
    assert_allclose(loaded.log_prob(y), fitted.log_prob(y), rtol=1e-12)
    assert loaded.inference == fitted.inference


def test_a_prior_of_arrays_survives_clones_and_files(tmp_path):
    prior = {"transition": np.array([[20.0, 1.0], [1.0, 20.0]]), "rate": 0.1}
    model = ps.HMM(2, ps.Poisson(), inference=ps.VB(n_draws=2, prior=prior), random_state=0)
    model.fit(ps.datasets.earthquakes()).save(tmp_path / "model")
    assert ps.load(tmp_path / "model").inference == model.inference == model.__sklearn_clone__().inference
    free = ps.HMM(2, ps.Poisson(), inference=ps.VB(n_draws=2), random_state=0).fit(ps.datasets.earthquakes())
    stays = [float(m.draws_.point["transition"][0].diagonal().sum()) for m in (model, free)]
    assert stays[0] > stays[1]


def test_the_mean_of_the_posterior_is_a_model():
    y = ps.datasets.earthquakes()
    model = ps.HMM(2, ps.Poisson(), inference=ps.VB(n_draws=50), random_state=0).fit(y)
    values = {name: value[0] for name, value in model.draws_.point.items()}
    point = ps.HMM(2, ps.Poisson()).with_parameters(**values)
    assert_allclose(float(point.log_prob(y)), float(model.log_prob(y)), atol=2.0)


def test_a_new_order_reaches_all_that_the_draws_know(fitted):
    y = ps.datasets.earthquakes()
    turned = fitted.order_states("rate", descending=True)
    assert_allclose(turned.params_["rate"], fitted.params_["rate"][:, ::-1])
    before, after = fitted.draws_, turned.draws_
    if hasattr(before, "point"):
        assert_allclose(after.point["rate"], before.point["rate"].flip(1))
        assert_allclose(after.point["transition"], before.point["transition"].flip(1, 2))
        assert_allclose(after.occupancy, before.occupancy.flip(0))
        assert_allclose(after.law.point()["rate"], after.point["rate"])
    else:
        assert_allclose(after.diagnostics.r_hat["rate"], before.diagnostics.r_hat["rate"][::-1])
        assert bool((after.permutation == before.permutation.flip(1)).all())
    assert_allclose(turned.log_prob(y), fitted.log_prob(y), rtol=1e-10)


def test_pruned_states_warn():
    y = ps.datasets.earthquakes()
    with pytest.warns(DegenerateWarning, match="of 6 states are not needed"):
        model = ps.HMM(6, ps.Poisson(), inference=ps.VB(n_draws=5), random_state=0).fit(y)
    assert len(model.draws_.pruned) == 6 - int((model.draws_.occupancy >= 1).sum()) > 0


def test_transforms_and_gaps_work_under_both():
    y = np.exp(np.random.default_rng(0).normal(size=80).cumsum() * 0.1 + 3)
    y[[5, 17]] = np.nan
    for inference in (ps.VB(n_draws=4, n_init=2, prune=0.0), ps.Gibbs(n_draws=4, n_chains=2, n_warmup=20)):
        model = ps.HMM(2, transform=ps.Log(), inference=inference, random_state=0).fit(y)
        assert np.isfinite(float(model.log_prob(y))) and model.forecast(2).mean().shape == (2,)


def test_misuse_is_told():
    y = ps.datasets.earthquakes()
    with pytest.raises(IncompatibleError, match="StudentT"):
        ps.HMM(2, ps.StudentT(), inference=ps.Gibbs()).fit(y)
    with pytest.raises(ParameterError, match="'transitions' in the prior.*'transition'"):
        ps.HMM(2, ps.Poisson(), inference=ps.VB(prior={"transitions": 1.0})).fit(y)
    with pytest.raises(IncompatibleError, match="Gibbs.*ARMAModel.*MLE"):
        ps.ARMA((1, 0), inference=ps.Gibbs())
