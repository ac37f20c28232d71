"""Laplace's approximation of a network's last layer against Bayesian linear regression and exact curvatures."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.optimize import minimize_scalar

import probseq as ps
from probseq.distributions.emissions import Categorical, Emission, Normal, Poisson, Quantiles
from probseq.distributions.gaussian import DiagonalNormal
from probseq.distributions.params import ParamSpec, Real
from probseq.errors import IncompatibleError, ParameterError
from probseq.inference.base import Draws
from probseq.inference.laplace import Laplace
from probseq.inference.last_layer import LastLayer, fit_last_layer
from probseq.inference.options import TrainingOptions
from probseq.models.base import Batch
from probseq.models.recurrent import RecurrentModel
from probseq.models.wrappers import innermost

SIGMA = 0.5
SHORT = TrainingOptions(max_epochs=5, device="cpu")


class FixedScale(Emission):
    """N(loc, 0.5^2)."""

    def parameters(self, observation, components=()):
        dims = ("state",) * len(components) + ("variable",)
        return {"loc": ParamSpec((*components, observation.n_variables), Real(), dims)}

    def distribution(self, params, components=()):
        return DiagonalNormal(loc=params["loc"], scale=torch.full_like(params["loc"], SIGMA))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def net(head, n_variables=1, categories=None, hidden_size=3, **options):
    observation = head.observation(n_variables, categories)
    return RecurrentModel(head, observation, "gru", hidden_size, dtype=torch.float64, **options)


def series(n=2, t=25, k=1, seed=1):
    generator = seeded(seed)
    x = torch.zeros(n, t, k, dtype=torch.float64)
    for step in range(1, t):
        x[:, step] = 0.7 * x[:, step - 1] + 0.5 * torch.randn(n, k, generator=generator, dtype=torch.float64)
    seen = torch.rand(n, t, k, generator=generator) > 0.1
    lengths = torch.full((n,), t)
    lengths[0] = t - 4
    seen[0, t - 4 :] = False
    return Batch(torch.where(seen, x, 0.0), seen, lengths)


def codes(n=3, t=30, size=4):
    x = torch.randint(size, (n, t, 1), generator=seeded(6)).double()
    return Batch(x, torch.ones_like(x, dtype=torch.bool), torch.full((n,), t))


def body(model, batch, size=0.3):
    """Weights that were not trained."""
    start = model._initial_guess(batch, seeded())["weights"]
    moved = start + size * torch.randn(start.shape, generator=seeded(4), dtype=torch.float64)
    return Draws({"weights": moved.unsqueeze(0)}, log_prob=0.0, objective=0.0, status="converged")


def last_layer(model, batch, prior_scale="learnt", structure="full", n_draws=2, weights=None):
    return fit_last_layer(
        model, body(model, batch), batch, seeded(), n_draws, structure, prior_scale, max_iter=1000, weights=weights
    )


def places(model):
    """Which of all weights are of the last layer."""
    found = [torch.arange(p.start, p.stop) for p in model.pieces.values() if p.kind in ("head", "head_bias")]
    return torch.cat(found)


def regression(model, batch, vector):
    """The design (values, d) and the values: means are linear in the last layer's weights."""
    own = places(model)
    bare = vector.clone()
    bare[own] = 0.0
    units = bare.repeat(len(own), 1)
    units[torch.arange(len(own)), own] = 1.0
    law, _ = model.predictive({"weights": units}, batch)
    return law.mean[:, batch.seen].T.numpy(), batch.x[batch.seen].numpy()


@pytest.mark.parametrize("structure", ["full", "kronecker"])
@pytest.mark.parametrize("prior_scale", [0.7, "learnt"])
@pytest.mark.parametrize("k", [1, 2])
def test_a_linear_normal_head_has_the_posterior_and_evidence_of_bayesian_regression(structure, prior_scale, k):
    model, batch = net(FixedScale(), k), series(k=k)
    if k > 1:  # a Kronecker product is exact where all variables are seen together
        batch = batch._replace(seen=batch.seen.all(-1, keepdim=True).expand_as(batch.seen))
    vector = body(model, batch).params["weights"][0]
    design, values = regression(model, batch, vector)
    own = places(model)
    prior = model.weights.scale[own].numpy()

    def evidence(scale):
        covariance = SIGMA**2 * np.eye(len(values)) + design @ np.diag((scale * prior) ** 2) @ design.T
        return stats.multivariate_normal(np.zeros(len(values)), covariance).logpdf(values)

    n_draws = 2000 if prior_scale == "learnt" and k == 1 else 2
    draws = last_layer(model, batch, prior_scale, structure, n_draws)
    scale = draws.prior_scale
    if prior_scale == "learnt":
        best = minimize_scalar(lambda z: -evidence(math.exp(z)), bounds=(-5, 5), method="bounded")
        assert draws.objective == pytest.approx(-best.fun, abs=1e-6)
        assert math.log(scale) == pytest.approx(best.x, abs=2e-3)
    else:
        assert scale == pytest.approx(0.7)
    assert draws.objective == pytest.approx(evidence(scale), abs=1e-6)
    precision = design.T @ design / SIGMA**2 + np.diag((scale * prior) ** -2)
    covariance = np.linalg.inv(precision)
    mean = covariance @ design.T @ values / SIGMA**2
    np.testing.assert_allclose(draws.point["weights"][0, own], mean, atol=1e-6)
    ratio = covariance / (scale * prior) ** 2
    kl = 0.5 * (np.trace(ratio) + ((mean / prior / scale) ** 2).sum() - len(mean) - np.linalg.slogdet(ratio)[1])
    assert draws.divergence == pytest.approx(kl, abs=1e-6)
    assert draws.n_effective == pytest.approx(len(mean) - np.trace(ratio), abs=1e-6)
    rest = torch.ones(len(vector), dtype=torch.bool)
    rest[own] = False
    assert bool((draws.params["weights"][:, rest] == vector[rest]).all())
    if n_draws > 2:
        found = draws.params["weights"][:, own].numpy()
        width = np.sqrt(np.diag(covariance))
        assert np.abs((found.mean(0) - mean) / width).max() < 4.5 / math.sqrt(n_draws)
        assert np.abs((np.cov(found.T) - covariance) / np.outer(width, width)).max() < 4.5 * math.sqrt(2 / n_draws)


HEADS = {
    "Poisson": (Poisson(), None),
    "Categorical": (Categorical(), 4),
    "Normal": (Normal(), None),
}


@pytest.mark.parametrize("name", HEADS)
def test_the_curvature_is_that_of_the_exact_log_likelihood(name):
    head, categories = HEADS[name]
    batch = codes()
    model = net(head, 1, categories, 2)
    vector = body(model, batch, 0.1).params["weights"][0]
    layer = LastLayer(model, vector, batch, None)
    # Where the likelihood is highest, so that it bends downwards in all directions that matter.
    w = layer.climb(layer.start, 1e-2, 1000)
    own = places(model)
    vector = layer.vectors(w.unsqueeze(0), vector)[0]

    def log_prob(weights):
        return model.log_prob({"weights": vector.index_put((own,), weights)}, batch).sum()

    torch.testing.assert_close(torch.tensor(layer.value(w)[0]).double(), log_prob(vector[own]).detach())
    hessian = -torch.autograd.functional.hessian(log_prob, vector[own])
    bend = layer.bend(w, "full", seeded())
    whole = bend.basis[0] @ torch.diag(bend.values.flatten()) @ bend.basis[0].mT
    unit = (w.new_ones(w.shape) * layer.scale).flatten()
    found = whole / unit / unit.unsqueeze(-1)
    # From (row, column) of the joined matrix to the order of the flat vector.
    labels = torch.arange(w.numel(), dtype=torch.float64).view(w.shape) / layer.scale
    order = layer.vectors(labels.unsqueeze(0), torch.zeros(len(vector)).double())[0, own].round().long()
    found = found[order][:, order]
    values, vectors = torch.linalg.eigh(hessian * unit[order] * unit[order].unsqueeze(-1))
    clipped = vectors @ torch.diag(values.clamp_min(0)) @ vectors.mT / unit[order] / unit[order].unsqueeze(-1)
    torch.testing.assert_close(found, clipped, rtol=1e-5, atol=1e-5 * float(hessian.abs().max()))
    back = bend.back(bend.rotate(w))
    torch.testing.assert_close(back, w)


def test_the_mode_has_no_slope():
    model, batch = net(Poisson()), codes()
    draws = last_layer(model, batch)
    layer = LastLayer(model, draws.point["weights"][0], batch, None)
    slope = layer.value(layer.start)[1] - layer.start / draws.prior_scale**2
    assert float(slope.abs().max()) < 1e-4
    assert 0 < draws.n_effective < len(places(model))


def test_the_curvature_of_many_outputs_is_drawn(monkeypatch):
    model, batch = net(Categorical(), 1, 3, 2), codes(n=40, t=100, size=3)
    layer = LastLayer(model, body(model, batch).params["weights"][0], batch, None)
    outputs = layer.reads @ layer.start.mT
    exact = layer._mean_information(outputs, seeded())
    monkeypatch.setattr("probseq.inference.last_layer._MOST_OUTPUTS", 1)
    drawn = layer._mean_information(outputs, seeded())
    assert not torch.equal(drawn, exact)
    torch.testing.assert_close(drawn, exact, atol=4.5 * 0.5 / math.sqrt(4000), rtol=0)


def test_weights_of_sequences_count_as_copies():
    model, batch = net(Normal()), series(n=2)
    double = Batch(*(None if leaf is None else leaf[[0, 1, 1]] for leaf in batch))
    for structure in ("full", "kronecker"):
        weighted = last_layer(model, batch, 1.0, structure, weights=torch.tensor([1.0, 2.0]).double())
        copied = fit_last_layer(model, body(model, batch), double, seeded(), 2, structure, 1.0, 1000, None)
        assert weighted.objective == pytest.approx(copied.objective, abs=1e-5)
        assert weighted.divergence == pytest.approx(copied.divergence, abs=1e-4)
        torch.testing.assert_close(weighted.point["weights"], copied.point["weights"], rtol=1e-4, atol=1e-4)


def standardized(y):
    x = torch.as_tensor((y - y.mean()) / y.std()).float().view(1, -1, 1)
    return Batch(x, torch.ones_like(x, dtype=torch.bool), torch.tensor([len(y)]))


@pytest.mark.parametrize("structure", ["full", "kronecker"])
def test_a_fit_trains_and_draws(structure):
    y = series(n=1, t=60).x[0, :, 0].numpy()
    model = ps.GRU(3, inference=Laplace(structure=structure, training=SHORT), random_state=0).fit(y)
    draws = model.draws_
    assert draws.params["weights"].shape[0] == 30
    assert draws.prior_scale > 0
    assert draws.n_iter == 5
    total = innermost(model.model_.model).log_prob(draws.params, standardized(y)).sum(-1)
    assert draws.log_prob == pytest.approx(float(torch.logsumexp(total, 0)) - math.log(30), rel=1e-5)
    assert math.isfinite(draws.objective)


def test_three_thousand_weights_are_enough_for_a_full_covariance(monkeypatch):
    monkeypatch.setattr("probseq.inference.last_layer._MOST_WEIGHTS", 5)
    with pytest.raises(ParameterError, match="kronecker"):
        Laplace(training=SHORT).fit(net(Normal()), series(), seeded())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_draws": 0}, "n_draws=0"),
        ({"structure": "diagonal"}, "structure='diagonal'"),
        ({"prior_scale": -1.0}, "prior_scale=-1.0"),
        ({"prior_scale": "guess"}, "prior_scale='guess'"),
        ({"priors": {"weights": None}}, "prior_scale"),
        ({"training": 3}, "TrainingOptions"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ParameterError, match=message):
        Laplace(**{"training": SHORT, **options}).fit(net(Normal()), series(), seeded())


def test_heads_without_such_a_law_are_refused():
    with pytest.raises(IncompatibleError, match="tie"):
        Laplace().fit(net(Categorical(), 1, 4, tie_embeddings=True), codes(), seeded())
    with pytest.raises(IncompatibleError, match="likelihood"):
        Laplace().fit(net(Quantiles((0.1, 0.5, 0.9))), series(), seeded())
