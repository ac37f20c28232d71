"""Networks with latent variables as estimators: against dense normal laws, and what users see of them."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

import probseq as ps
from probseq.distributions.emissions import Normal
from probseq.errors import ApproximationWarning, IncompatibleError, ParameterError, ShapeError, UnsupportedError
from probseq.estimators.pipeline import DataInfo
from probseq.models.dense import positive_inverse
from probseq.models.marginal import Marginalized

# Networks that are not trained explain little: that their particles collapse is no news.
pytestmark = pytest.mark.filterwarnings("ignore:Of .* particles")
QUICK = ps.AmortizedVI(training=ps.TrainingOptions(max_epochs=2))
FAMILIES = (ps.DeepMarkov, ps.VRNN, ps.SRNN)
# z_t = A z_{t-1} + N(0, Q^2), z_0 = Z, x_t = C z_t + D + N(0, R^2)
A, Q, Z, C, D, R = 0.8, 0.7, 1.5, 1.3, -0.4, 0.9
T = 12


def linear(**settings):
    """A deep Markov model that is a linear system, with its parameters."""
    given = {"proposal": "laplace", "n_particles": 400, "standardize": False, "random_state": 0} | settings
    estimator = ps.DeepMarkov(1, 2, Normal(), 0, transition="linear", **given)
    network = estimator._build(DataInfo())
    params = {name: torch.zeros(spec.shape) for name, spec in network.parameters().items()}
    w = network.split(params)
    w.model["start"].fill_(Z)
    w.model["transition.linear.0.weight"].fill_(A)
    w.model["transition.noise"].fill_(positive_inverse(Q))
    w.model["head.hidden"][0] = C
    w.model["head.bias"][0] = D
    w.model["head.bias"][1] = math.log(math.expm1(R))
    for block, name in ((w.guide, "filter"), (w.guide, "smoother")):
        for piece, value in block.items():
            if piece == f"{name}.combine.1.bias":
                value[1] = positive_inverse(1.2)
    return estimator.with_parameters(**{name: value.numpy() for name, value in params.items()})


def dense(t=T):
    """Means and covariances of z_1..z_t and x_1..x_t, by sums of the noise."""
    power = A ** np.subtract.outer(np.arange(t), np.arange(t)).clip(0) * np.tri(t)
    mean = Z * A ** np.arange(1, t + 1)
    cov = Q**2 * power @ power.T
    return mean, cov, C * mean + D, C**2 * cov + R**2 * np.eye(t)


def given(x, upto=None):
    """E and sd of z_1..z_T given the values that are not missing, among the first ``upto``."""
    mean, cov, seen_mean, seen_cov = dense(len(x))
    seen = ~np.isnan(x) & (np.arange(len(x)) < (len(x) if upto is None else upto))
    gain = C * cov[:, seen] @ np.linalg.inv(seen_cov[np.ix_(seen, seen)])
    left = cov - gain @ (C * cov[seen])
    return mean + gain @ (x - seen_mean)[seen], np.sqrt(np.diag(left))


@pytest.fixture(scope="module")
def x():
    mean, _, seen_mean, seen_cov = dense()
    return np.random.default_rng(4).multivariate_normal(seen_mean, seen_cov)


def exact(x):
    seen = ~np.isnan(x)
    _, _, mean, cov = dense(len(x))
    return multivariate_normal(mean[seen], cov[np.ix_(seen, seen)]).logpdf(x[seen])


def test_log_prob_is_that_of_the_linear_system_within_its_error(x):
    model = linear()
    gaps = np.where(np.isin(np.arange(T), [0, 4, 5, 11]), np.nan, x)
    for data in (x, gaps):
        found = model.log_prob(data)
        assert found.attrs["method"] == "FIVO (400 particles)" and not found.attrs["exact"]
        assert abs(float(found) - exact(data)) < 5.0 * found.attrs["monte_carlo_error"] + 0.01
        assert 0.0 < found.attrs["monte_carlo_error"] < 0.2
    assert "exact" not in ps.IID().fit(x).log_prob(x).attrs


def test_bounds_are_bounds(x):
    x = x[:5]
    model = linear(look="both", residual=True, proposal="network", n_particles=2000)
    low, middle, high = model.elbo(x, 2000), model.iwae(x, 2000), model.log_prob(x)
    assert float(low) < float(middle) - 0.3
    assert abs(float(middle) - exact(x)) < 5.0 * middle.attrs["monte_carlo_error"] + 0.1
    assert abs(float(high) - exact(x)) < 5.0 * high.attrs["monte_carlo_error"] + 0.1
    for found, name, number in ((low, "ELBO", 2000), (middle, "IWAE", 2000)):
        assert (found.attrs["bound"], found.attrs["n_samples"]) == (name, number)
        assert found.attrs["method"] == f"{name} ({number} samples)" and found.attrs["unit"] == "nats"
    again = [float(model.elbo(x, 200, random_state=seed)) for seed in range(12)]
    claimed = model.elbo(x, 200).attrs["monte_carlo_error"]
    assert 0.5 < np.std(again, ddof=1) / claimed < 1.7
    assert float(middle) > np.mean(again)
    assert np.isnan(model.elbo(x, 1).attrs["monte_carlo_error"])


def test_fivo_is_log_prob_and_tells_its_own_error(x):
    model = linear(proposal="prior", n_particles=100)
    assert float(model.fivo(x)) == float(model.log_prob(x))
    found = model.fivo(x, 200, random_state=1)
    assert found.attrs["n_particles"] == 200 and found.attrs["bound"] == "FIVO"
    spread = np.std([float(model.fivo(x, 200, random_state=seed)) for seed in range(20)], ddof=1)
    assert 0.6 < spread / found.attrs["monte_carlo_error"] < 2.5
    few = np.mean([float(model.fivo(x, 3, random_state=seed)) for seed in range(20)])
    assert few < exact(x) - 0.3


def test_states_are_those_of_the_linear_system(x):
    model = linear(n_particles=1000)
    gaps = np.where(np.isin(np.arange(T), [3, 4]), np.nan, x)
    smoothed, filtered = model.smooth(gaps, 1000), model.filter_states(gaps)
    mean, std = given(gaps)
    assert smoothed["mean"].dims == ("time", "state")
    assert np.abs(smoothed["mean"].values[:, 0] - mean).max() < 0.1
    assert np.abs(smoothed["std"].values[:, 0] / std - 1.0).max() < 0.12
    for t in range(T):
        mean, std = given(gaps, t + 1)
        assert abs(filtered["mean"].values[t, 0] - mean[t]) < 0.08
        assert abs(filtered["std"].values[t, 0] / std[t] - 1.0) < 0.1
    paths = linear(proposal="prior").sample_states(gaps, 200)
    assert paths.dims == ("path", "time", "state")
    steps = np.corrcoef(paths.values[:, 3, 0], paths.values[:, 4, 0])[0, 1]
    assert 0.3 < steps < 0.95


def test_between_two_sequences_lie_means_of_their_latent_variables(x):
    model = linear(proposal="prior", n_particles=1000)
    other = x[::-1] + 1.0
    found = model.interpolate(x, other, 3, n_paths=1000)
    assert found.dims == ("point", "time") and found["weight"].values.tolist() == [0.0, 0.5, 1.0]
    assert np.allclose(found[1], 0.5 * (found[0] + found[2]), atol=1e-4)
    for point, data in ((0, x), (2, other)):
        assert np.abs(found[point].values - (C * given(data)[0] + D)).max() < 0.2


def test_samples_come_with_the_latent_variables_behind_them():
    model = linear(transform=ps.Log())
    x, z = model.sample(4, 2000, states=True, random_state=0)
    assert x.dims == ("sequence", "time", "variable") and z.dims == ("sequence", "time", "state")
    mean, cov, _, _ = dense(4)
    assert np.abs(z.values[..., 0].mean(0) - mean).max() < 0.1
    assert np.abs(np.cov(z.values[..., 0].T) - cov).max() < 0.12
    noise = np.log(x.values[..., 0]) - C * z.values[..., 0] - D
    assert np.abs(noise.mean(0)).max() < 0.1 and np.abs(noise.std(0) - R).max() < 0.1
    with pytest.raises(ParameterError, match="Difference"):
        linear(transform=ps.Difference()).sample(4, states=True, history=[1.0, 2.0])


def test_bounds_are_on_the_scale_of_the_data(x):
    plain, logs, steps = (
        linear(proposal="prior", n_particles=50, transform=one) for one in (None, ps.Log(), ps.Difference())
    )
    y = np.exp(x)
    for name in ("elbo", "iwae", "fivo", "log_prob"):
        inner, outer = (float(getattr(model, name)(data)) for model, data in ((plain, x), (logs, y)))
        assert outer == pytest.approx(inner - x.sum(), abs=1e-4)
    walk = np.cumsum(np.concatenate([[5.0], x]))
    for name in ("elbo", "iwae", "fivo", "log_prob"):
        assert float(getattr(steps, name)(walk)) == pytest.approx(float(getattr(plain, name)(x)), abs=1e-3)
    assert steps.smooth(walk)["mean"].isnull().sum() == 1
    assert steps.log_prob(walk).attrs["monte_carlo_error"] > 0.0
    with pytest.raises(UnsupportedError, match="Difference"):
        steps.interpolate(walk, walk)
    bent = ps.DeepMarkov(1, 2, n_particles=5, transform=ps.BoxCox(0.5), inference=QUICK, random_state=0).fit(y)
    with pytest.raises(UnsupportedError, match="BoxCox"):
        bent.elbo(y)


HEADS = {
    "bits": (ps.Bernoulli(), lambda rng, t: rng.integers(0, 2, (t, 3)).astype(float)),
    "dependent bits": (ps.AutoregressiveBernoulli(2), lambda rng, t: rng.integers(0, 2, (t, 3)).astype(float)),
    "numbers": (None, lambda rng, t: rng.normal(50.0, 3.0, (t, 2))),
    "outliers": (ps.StudentT(), lambda rng, t: rng.standard_t(3, (t, 1))),
    "counts": (ps.Poisson(), lambda rng, t: rng.poisson(4.0, (t, 1)).astype(float)),
    "codes": (ps.Categorical(), lambda rng, t: np.arange(t)[:, None] % 3 * 1.0),
}


@pytest.mark.parametrize("name", HEADS)
def test_every_head_over_sequences_of_different_lengths(name):
    head, values = HEADS[name]
    rng = np.random.default_rng(0)
    data = [values(rng, t) for t in (9, 6)]
    if name != "codes":
        data[0][3, 0] = np.nan
    family = FAMILIES[list(HEADS).index(name) % 3]
    model = family(2, 4, head, n_particles=10, inference=QUICK, random_state=0).fit(data)
    whole = model.log_prob(data)
    assert whole.dims == ("sequence",) and whole.attrs["monte_carlo_error"].shape == (2,)
    for i, one in enumerate(data):
        assert float(model.log_prob(one)) == pytest.approx(float(whole[i]), abs=1e-4)
    low, middle = model.elbo(data, 20), model.iwae(data, 20)
    assert low.dims == ("sequence",) and bool((low < middle).all())
    states = model.smooth(data, 20)
    assert states.sizes == {"sequence": 2, "time": 9, "state": 2}
    assert int(states["mean"].isnull().sum()) == 3 * 2
    alone = model.filter_states(data[1])["mean"]
    assert np.allclose(alone, model.filter_states(data)["mean"][1, :6], atol=1e-5)
    between = model.interpolate(data[0][:5], data[1][:5], 3, n_paths=10)
    assert between.sizes["point"] == 3 and between.dtype == (int if name == "codes" else float)
    assert model.forecast(2, n_paths=20).n_steps == 2


def test_tokens_of_any_language():
    text = "天地玄黄宇宙洪荒日月盈昃辰宿列张"
    model = ps.VRNN(2, 4, ps.Categorical(), n_particles=10, inference=QUICK, random_state=0).fit(text)
    assert set(model.sample(8, random_state=1)) <= set(text)
    assert np.isfinite(float(model.log_prob(text)))
    between = model.interpolate("天地玄黄", "日月盈昃", 2, n_paths=10)
    assert between.shape[0] == 2 and {str(token) for token in between.values.ravel()} <= {*text, "", "<end>"}
    other = ps.SRNN(2, 4, ps.Categorical(), n_particles=10, inference=QUICK, random_state=0)
    words = other.fit([np.array(["a", "b", "a", "c"]), np.array(["b", "a"])])
    assert np.isfinite(words.log_prob(np.array(["a", "c"])))


@pytest.fixture(scope="module")
def wave():
    return np.sin(np.arange(30) / 3.0) + np.random.default_rng(0).normal(0.0, 0.1, 30)


@pytest.fixture(scope="module")
def members(wave):
    inference = ps.Ensemble(3, ps.AmortizedVI(training=ps.TrainingOptions(max_epochs=15)))
    return ps.DeepMarkov(2, 4, n_particles=20, inference=inference, random_state=0).fit(wave)


def test_members_of_an_ensemble_are_the_uncertainty_of_the_weights(members, wave):
    assert members.model_.n_draws == 3
    parts = members.predictive(wave).decompose()
    assert np.allclose(parts["total"], parts["aleatoric"] + parts["epistemic"])
    assert bool((parts["epistemic"] > 0).all())
    ahead = members.forecast(3, n_paths=100).decompose()
    assert bool((ahead["epistemic"] > 0).any())
    states = members.smooth(wave, 20)
    assert states["mean"].dims == ("draw", "time", "state")
    assert members.sample_states(wave, 5).dims == ("draw", "path", "time", "state")
    assert members.interpolate(wave[:10], wave[10:20], 2, n_paths=20).shape == (2, 10)
    assert float(members.elbo(wave, 50)) < float(members.iwae(wave, 50))


def test_members_are_weighed_alike_whether_streamed_or_not(members, wave):
    stream = members.initial_state()
    for value in wave[:8]:
        stream = members.update(stream, value)
    whole = members.filter(wave[:8])
    assert torch.allclose(stream.tree.log_weights, whole.tree.log_weights, atol=1e-4)
    assert float(whole.tree.log_weights.std()) > 1e-2
    ahead = members.model_._scan({}, members._batch(members._read(wave[:8])), members.model_.initial_state({}, 1))
    assert torch.allclose(ahead.final.log_weights, whole.tree.log_weights, atol=1e-4)


def test_members_that_are_alike_are_no_surer_than_one(members, wave):
    one = {name: value[:1] for name, value in members.model_.params.items()}
    alike = Marginalized(members.model_.model, {name: value.expand(3, -1) for name, value in one.items()})
    batch = members._batch(members._read(wave))
    steps, alone = (model._log_prob_fresh({}, batch) for model in (alike, Marginalized(members.model_.model, one)))
    assert torch.allclose(steps.values, alone.values, atol=1e-5)
    assert torch.allclose(steps.error, alone.error, rtol=1e-4, atol=1e-7)


def test_an_ensemble_trains_latent_networks_on_bounds_by_default(members, wave):
    default = ps.Ensemble(2)
    assert default._of_members(type(members._build(members.info_))).__class__ is ps.AmortizedVI
    with pytest.raises(IncompatibleError, match="Ensemble"):
        ps.DeepMarkov(inference=ps.Ensemble(inference=ps.MLE()))


@pytest.mark.parametrize("inference", [ps.MLE(), ps.MAP(), ps.Laplace(), ps.NUTS(), ps.ADVI(), ps.MeanField(), ps.EM()])
def test_inferences_without_a_bound_are_refused_at_construction(inference):
    with pytest.raises(IncompatibleError, match="AmortizedVI, Ensemble"):
        ps.VRNN(inference=inference)
    with pytest.raises(IncompatibleError, match="latent"):
        ps.LSTM(inference=ps.AmortizedVI())


def test_pictures_of_latent_paths(members, wave):
    import matplotlib.pyplot as plt

    _, ax = plt.subplots()
    assert members.plot_states(wave, n_paths=20, ax=ax) is ax
    assert [line.get_label() for line in ax.lines] == ["state 0", "state 1"]
    assert len(ax.collections) == 2
    one = members.plot_states([wave, wave[:7]], 1, sequence=1, draw=2, n_paths=20)
    assert len(one.lines) == 1 and len(one.lines[0].get_xdata()) == 7
    assert len(members.plot_states(wave[:1], n_paths=20).lines) == 2
    for wrong in (
        {"sequence": 1},
        {"draw": 3},
        {"states": [2]},
        {"level": 90},
        {"n_paths": 1},
        {"states": "all"},
        {"states": 1.5},
        {"states": []},
    ):
        with pytest.raises(ParameterError):
            members.plot_states(wave, **wrong)
    plt.close("all")


def test_rounded_values_have_no_bound_and_say_so():
    y = np.round(np.random.default_rng(0).normal(0.0, 3.0, 12))
    net = ps.DeepMarkov(2, 4, n_particles=50, transform=ps.Discretize(), inference=QUICK, random_state=0).fit(y)
    assert net.log_prob(y).attrs == {"unit": "nats", "exact": 0, "method": "particle filter (50 particles)"}
    for bound in (net.elbo, net.iwae, net.fivo):
        with pytest.raises(UnsupportedError, match="behind Discretize"):
            bound(y)
    with pytest.raises(UnsupportedError, match="Discretize"):
        net.impute([0.0, np.nan])


def test_what_is_only_conditioned_on_adds_nothing():
    net = ps.SRNN(2, 4, n_particles=10, transform=ps.Difference(), inference=QUICK, random_state=0)
    net.fit(np.arange(9.0) % 4)
    for bound in (net.elbo, net.iwae, net.fivo):
        found = bound([1.0])
        assert float(found) == 0.0 and found.attrs["monte_carlo_error"] == 0.0
    assert net.smooth([1.0])["mean"].shape == (1, 2) and bool(net.smooth([1.0])["mean"].isnull().all())


def test_estimates_without_a_known_error_are_not_called_exact(members, wave):
    one = ps.DeepMarkov(2, 4, n_particles=1, inference=QUICK, random_state=0).fit(wave)
    for model, data in ((one, wave), (members, np.full(3, 1e30))):
        told = model.log_prob(data).attrs
        assert told["exact"] == 0 and told["method"].startswith("FIVO") and math.isnan(told["monte_carlo_error"])
    assert one.log_prob([np.nan, np.nan]).attrs == {"unit": "nats"}
    found = ps.compare({"one": one, "iid": ps.IID().fit(wave)}, wave).table
    assert found.loc["one", "likelihood"] == "FIVO (1 particle)" and "lower bound" in found.loc["one", "note"]


def test_wrong_uses_are_named(members, wave):
    with pytest.raises(ShapeError, match="the same length"):
        members.interpolate(wave, wave[:5])
    with pytest.raises(ShapeError, match="single"):
        members.interpolate([wave, wave], wave)
    for name in ("n_samples", "n_points", "n_paths", "n_particles"):
        use = {"n_samples": members.elbo, "n_points": members.interpolate, "n_paths": members.smooth}
        with pytest.raises(ParameterError, match=name):
            use.get(name, members.fivo)(*([wave, wave] if name == "n_points" else [wave]), **{name: 0})
    with pytest.raises(IncompatibleError, match="no likelihood"):
        ps.VRNN(head=ps.Quantiles()).fit(wave)
    with pytest.raises(ps.errors.NotFittedError):
        ps.SRNN().elbo(wave)


def test_a_collapse_names_the_step():
    model = linear(proposal="prior", n_particles=100)
    x = np.zeros(T)
    x[7] = 60.0
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.log_prob(x)
    [one] = [w for w in caught if issubclass(w.category, ApproximationWarning)]
    assert "at step 7 of sequence 0" in str(one.message)


def test_streams_go_on_where_a_filter_ended(wave):
    model = ps.VRNN(2, 4, n_particles=15, inference=QUICK, random_state=0).fit(wave)
    state = model.filter(wave[:20])
    for value in wave[20:24]:
        state = model.update(state, value)
    whole = model.state_from_bytes(model.filter(wave[:24]).to_bytes())
    one, other = (model.forecast(3, state=s, n_paths=50, random_state=0).mean() for s in (state, whole))
    assert np.allclose(one, other, atol=1e-5)
    law = model.predictive(wave)
    assert not law.exact and law.method == "FIVO (15 particles)"


def test_flows_bend_what_training_and_the_filter_draw_from():
    wave = np.sin(np.arange(30.0))
    model = ps.DeepMarkov(2, 4, flow_layers=2, look="both", n_particles=20, inference=QUICK, random_state=0).fit(wave)
    network = model._network_inside()
    assert [guide.flow.n_latent for guide in (network.filter_guide, network.smoother_guide)] == [2, 2]
    assert np.isfinite(float(model.elbo(wave))) and np.isfinite(float(model.log_prob(wave)))
    with pytest.raises(ParameterError, match="flow_layers"):
        ps.DeepMarkov(flow_layers=-1, inference=QUICK).fit(wave)
