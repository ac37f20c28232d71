"""Networks with latent variables against the Kalman filter, and against themselves."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from probseq.distributions.emissions import Bernoulli, Categorical, Normal, Poisson
from probseq.distributions.params import take_draw
from probseq.errors import ApproximationWarning, ParameterError
from probseq.models.base import Batch, map_state
from probseq.models.dense import positive_inverse
from probseq.models.latent_bounds import Bound, elbo, iwae, path_values
from probseq.models.latent_families import DeepMarkovModel, StochasticRecurrentModel, VariationalRecurrentModel
from probseq.models.latent_state import Noise
from probseq.models.latent_trajectories import trajectories
from probseq.models.linear_gaussian import LinearGaussianModel, StateSpace
from probseq.testing.cases import ModelCase
from probseq.testing.models import model_checks

# These networks are not trained: that their particles collapse is what the tests want, and one of them asks for it.
pytestmark = pytest.mark.filterwarnings("ignore:Of .* particles")
FAMILIES = (DeepMarkovModel, VariationalRecurrentModel, StochasticRecurrentModel)
LATENT = 4


def matrix(rows: int, columns: int, seed: int) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def turning() -> torch.Tensor:
    found = matrix(LATENT, LATENT, 5)
    return 0.9 * found / torch.linalg.eigvals(found).abs().max()


class Linear(LinearGaussianModel):
    """s_(t+1) = A s_t + N(0, I), s_1 ~ N(0, I), x_t = C s_t + N(0, noise^2)."""

    def __init__(self, design: torch.Tensor, noise: float) -> None:
        self.design, self.noise = design, noise
        self.observation = Normal().observation(design.shape[0], None)

    def parameters(self):
        return {}

    def system(self, params):
        k, zero, one = self.design.shape[0], torch.zeros(LATENT).double(), torch.eye(LATENT).double()
        noise = self.noise**2 * torch.eye(k).double()
        return StateSpace(self.design, torch.zeros(k).double(), noise, turning(), zero, one, zero, one, None)


def as_network(linear: Linear, **settings):
    """The deep Markov model with the same law."""
    model = DeepMarkovModel(
        Normal(),
        linear.observation,
        n_latent=LATENT,
        hidden_size=3,
        emission_layers=0,
        transition="linear",
        dtype=torch.float64,
        **settings,
    )
    params = {name: torch.zeros(spec.shape).double() for name, spec in model.parameters().items()}
    w, k = model.split(params).model, linear.design.shape[0]
    w["transition.linear.0.weight"].copy_(turning())
    w["transition.noise"].fill_(positive_inverse(1.0))
    w["head.hidden"][:k] = linear.design
    w["head.bias"][k:] = math.log(math.expm1(linear.noise))
    return model, params


def make_wide(model, params, seed=0):
    """Weights under which the inference networks look about the prior, more widely than it: weights stay bounded."""
    generator = torch.Generator().manual_seed(seed)
    params["inference_weights"] = 0.1 * torch.randn(len(params["inference_weights"]), generator=generator).double()
    for name, piece in model.inference_weights.split(params["inference_weights"]).items():
        if name.endswith("combine.1.bias"):
            piece[model.n_latent :] = positive_inverse(1.3)


def simulated(linear: Linear, n: int, t: int) -> Batch:
    x, _ = linear.sample({}, linear.initial_state({}, n), t, torch.Generator().manual_seed(11))
    return Batch(x, torch.ones_like(x, dtype=torch.bool), torch.full((n,), t))


def test_the_mean_log_likelihood_of_a_linear_system_is_near_that_of_kalman():
    linear = Linear(matrix(1, LATENT, 7), 1.0)
    batch = simulated(linear, 1, 200)
    exact = float(linear.log_prob({}, batch)[0])
    found = []
    for seed in range(20):
        model, params = as_network(linear, proposal="prior", n_particles=1000, seed=seed)
        found.append(float(model.log_prob(params, batch)[0]))
    assert abs(np.mean(found) - exact) < 1.5


@pytest.mark.parametrize(("proposal", "flow_layers"), [("prior", 0), ("laplace", 0), ("network", 0), ("network", 2)])
def test_the_likelihood_is_unbiased(proposal, flow_layers):
    """The inference network is not trained: whatever particles are drawn from, the estimate is right on average."""
    linear = Linear(matrix(1, LATENT, 7), 1.0)
    batch = simulated(linear, 20, 10)
    exact = linear.log_prob({}, batch)
    found = []
    for seed in range(20):
        model, params = as_network(
            linear, proposal=proposal, n_particles=20, seed=seed, residual=True, flow_layers=flow_layers
        )
        make_wide(model, params, seed)
        found.append((model.log_prob(params, batch) - exact).exp())
    ratios = torch.stack(found)
    error = ratios.std(0) / len(found) ** 0.5
    z = (ratios.mean(0) - 1.0) / error
    assert abs(float(z.mean())) < 3.0 / batch.n**0.5
    assert float(ratios.std()) > 1e-3


def test_guided_particles_follow_many_precise_outputs_where_the_bootstrap_is_lost():
    linear = Linear(matrix(10, LATENT, 7), 0.1)
    batch = simulated(linear, 1, 50)
    exact = float(linear.log_prob({}, batch)[0])
    model, params = as_network(linear, proposal="prior", n_particles=1000)
    with pytest.warns(ApproximationWarning, match="at step .* of sequence 0"):
        blind = float(model.log_prob(params, batch)[0])
    model, params = as_network(linear, proposal="laplace", n_particles=100)
    steps = model.log_prob_steps(params, batch)
    assert blind < exact - 100.0
    assert abs(float(steps.values.sum()) - exact) < 5.0 * float(steps.error.square().sum().sqrt()) + 0.1


def test_missing_values_are_integrated_out():
    linear = Linear(matrix(2, LATENT, 7), 1.0)
    batch = simulated(linear, 5, 30)
    gaps = torch.rand(batch.x.shape, generator=torch.Generator().manual_seed(3)) < 0.4
    gaps[:, 10:14] = True
    batch = batch._replace(seen=~gaps, x=torch.where(gaps, 0.0, batch.x))
    exact = linear.log_prob_steps({}, batch)
    model, params = as_network(linear, proposal="laplace", n_particles=2000)
    steps = model.log_prob_steps(params, batch)
    assert torch.equal(steps.scored, exact.scored)
    assert float((steps.values.sum(-1) - exact.values.sum(-1)).abs().max()) < 0.25
    assert not bool(steps.values[:, 10:14].any())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "head", [Normal(), Poisson(), Bernoulli(), Categorical()], ids=lambda head: type(head).__name__
)
def test_checks_of_sequence_models(family, head):
    categories = 3 if isinstance(head, Categorical) else None
    observation = head.observation(2, categories)
    n_covariates = 1 if isinstance(head, Poisson) else 0
    model = family(
        head, observation, 2, 4, proposal="prior", n_particles=25, n_covariates=n_covariates, dtype=torch.float64
    )
    # So few particles are not the law that they stand for: paths and integrals over missing values agree with many.
    # The choice of particles that go on is no smooth function of the parameters.
    skip = ("missing_values", "sample_follows_law", "marginalized", "gradient")
    case = ModelCase(model, missing=model.missing)
    for name, check in model_checks():
        if name.removeprefix("check_") not in skip:
            check(case)


def random_case(family, inference=None, n=3, t=12, **settings):
    head = Bernoulli()
    settings |= {"inference": inference, "residual": True, "dtype": torch.float64}
    model = family(head, head.observation(3, None), 2, 5, **settings)
    generator = torch.Generator().manual_seed(2)
    x = (torch.rand(n, t, 3, generator=generator) < 0.4).double()
    seen = torch.rand(n, t, 3, generator=generator) < 0.85
    seen[:, 4] = False
    lengths = torch.tensor([t, t - 3, t - 5][:n])
    batch = Batch(x, seen & (torch.arange(t) < lengths.unsqueeze(-1)).unsqueeze(-1), lengths)
    params = model._initial_guess(batch, generator)
    params["weights"] += 0.1 * torch.randn(params["weights"].shape, generator=generator)
    make_wide(model, params)
    return model, params, batch


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("proposal", ["network", "laplace"])
def test_guided_steps_are_the_same_alone_together_and_streamed(family, proposal):
    model, params, batch = random_case(family, proposal=proposal, n_particles=30)
    whole = model.log_prob_steps(params, batch)
    for i in range(batch.n):
        one = Batch(batch.x[i : i + 1], batch.seen[i : i + 1], batch.lengths[i : i + 1])
        state = model.initial_state(params, 1)
        for t in range(int(one.lengths)):
            done = model.step(params, state, one.x[:, t], one.seen[:, t])
            state = done.state
            expected = float(whole.values[i, t])
            assert float(done.value) == pytest.approx(expected, abs=1e-10) or not bool(one.seen[0, t].any())
        final = map_state(lambda leaf, i=i: leaf[i : i + 1], whole.final)
        assert torch.allclose(final.z, state.z)
    many = {name: torch.stack([value, 1.1 * value]) for name, value in params.items()}
    both = model.log_prob(many, batch)
    for d in range(2):
        assert torch.allclose(both[d], model.log_prob(take_draw(many, d), batch))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("inference", [None, "right", "both"])
def test_the_bounds_are_in_order(family, inference):
    """ELBO <= IWAE <= log p, each within the noise of so many samples."""
    model, params, batch = random_case(family, inference, t=7, n_particles=4000)
    low = elbo(model, params, batch, 4000, torch.Generator().manual_seed(0))
    middle = iwae(model, params, batch, 4000, torch.Generator().manual_seed(0))
    high = model.log_prob(params, batch)
    assert bool((low < middle).all())
    assert float((middle - high).abs().max()) < 0.15


@pytest.mark.parametrize("flow_layers", [0, 2])
def test_what_is_missing_at_first_is_paid_for(flow_layers):
    """A network that looks ahead already has a say where nothing has been seen yet."""
    linear = Linear(matrix(1, LATENT, 7), 2.0)
    batch = simulated(linear, 3, 4)
    batch.seen[:, :2] = False
    model, params = as_network(linear, inference="right", residual=True, flow_layers=flow_layers)
    make_wide(model, params)
    model.inference_weights.split(params["inference_weights"])["smoother.combine.1.bias"][:LATENT] += 0.5
    ratio = path_values(model, params, batch, 40000, torch.Generator().manual_seed(0), "iwae")
    ratio = (ratio - linear.log_prob({}, batch).unsqueeze(-1)).exp()
    error = ratio.std(-1) / ratio.shape[-1] ** 0.5
    assert float(error.max()) < 0.05
    assert float(((ratio.mean(-1) - 1.0) / error).abs().max()) < 4.0


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("flow_layers", [0, 2])
def test_one_particle_is_one_path(family, flow_layers):
    """The filter and the bounds go the same way: the same noise gives the same path, of the same weight."""
    model, params, batch = random_case(family, n_particles=1, flow_layers=flow_layers)
    noise = torch.randn(batch.n, batch.t + 1, 1, 2, generator=torch.Generator().manual_seed(1)).double()
    start = model.start(params, batch.n, 1)
    found = trajectories(model, params, batch, batch.seen, start, noise[:, :-1])

    def given(state):
        rows = torch.arange(batch.n)
        return Noise(noise[rows, state.steps], state.begin, state.key)

    steps, cloud = model.run(params, batch, start._replace(noise=noise[:, 0]), given, keep=True)
    inside = batch.real
    assert torch.allclose(torch.where(inside[..., None, None], cloud.z - found.z, 0.0), torch.zeros(()).double())
    assert torch.allclose(steps.values, (found.log_lik + found.log_ratio)[..., 0], atol=1e-10)


@pytest.mark.parametrize("inference", [None, "both"])
def test_context_is_free_and_knows_nothing_of_what_is_scored(inference):
    model, params, batch = random_case(StochasticRecurrentModel, inference)
    late = torch.arange(batch.t) >= 5
    scored = batch.seen & late.unsqueeze(-1)
    other = batch._replace(x=torch.where(late[:, None], 1.0 - batch.x, batch.x))
    weights = {name: value.clone().requires_grad_() for name, value in params.items()}
    noise = torch.randn(batch.n, batch.t, 2, 2, generator=torch.Generator().manual_seed(1)).double()
    start = model.start(params, batch.n, 2)
    found, changed = (trajectories(model, weights, each, scored, start, noise) for each in (batch, other))
    assert torch.equal(found.z[:, :4], changed.z[:, :4])
    assert not bool(found.divergence[:, :4].any()) and not bool(found.log_ratio[:, :4].any())
    assert not bool(found.log_lik[:, :5].any())
    # Nothing is seen in step 4, the first one after the context: a network that looks ahead may use it.
    assert bool(found.paid[:, 4].any()) == (inference == "both")
    assert bool(found.paid[:, 5].any())
    slopes = torch.autograd.grad(found.z[:, 3].sum(), weights["inference_weights"], allow_unused=True)
    assert slopes[0] is None or not bool(slopes[0].any())


def test_particles_are_weighed_by_the_context_of_what_is_scored():
    linear = Linear(matrix(3, LATENT, 7), 0.5)
    batch = simulated(linear, 3, 9)
    late = (torch.arange(batch.t) >= 6).unsqueeze(-1)
    exact = linear.log_prob_steps({}, batch).values[:, 6:].sum(-1)
    model, params = as_network(linear, proposal="laplace")
    found, _ = model.trained_by(Bound("fivo", 2000))._training_log_prob(
        params, batch, batch.seen & late, None, torch.Generator().manual_seed(0)
    )
    assert float((found - exact).abs().max()) < 0.1
    blind = linear.log_prob({}, batch._replace(seen=batch.seen & late))
    assert float((blind - exact).abs().max()) > 0.2


@pytest.mark.parametrize("family", FAMILIES)
def test_the_divergence_is_the_mean_of_the_log_ratio(family):
    model, params, batch = random_case(family, "both")
    noise = torch.randn(batch.n, batch.t, 4000, 2, generator=torch.Generator().manual_seed(1)).double()
    found = trajectories(model, params, batch, batch.seen, model.start(params, batch.n, 4000), noise)
    mean = found.divergence.sum((1, 3))
    ratio = -found.log_ratio.sum(1)
    error = (ratio - mean).std(-1) / 4000**0.5
    assert float(((ratio.mean(-1) - mean.mean(-1)) / error).abs().max()) < 4.0


def test_where_nothing_more_is_seen_nothing_is_paid():
    model, params, batch = random_case(DeepMarkovModel, "both")
    seen = batch.seen.clone()
    seen[:, 6:] = False
    noise = torch.zeros(batch.n, batch.t, 1, 2).double()
    found = trajectories(model, params, batch._replace(seen=seen), seen, model.start(params, batch.n, 1), noise)
    assert not bool(found.divergence[:, 6:].any()) and not bool(found.log_ratio[:, 6:].any())
    assert bool((found.divergence[:, :4] > 0).all()) and bool((found.divergence[:, 4] > 0).all())


@pytest.mark.parametrize("flow_layers", [0, 2])
@pytest.mark.parametrize("objective", ["elbo", "iwae", "fivo"])
def test_training_moves_every_weight_that_it_should(objective, flow_layers):
    model, params, batch = random_case(DeepMarkovModel, "both", flow_layers=flow_layers)
    weights = {name: value.clone().requires_grad_() for name, value in params.items()}
    bound = Bound(objective, 1 if objective == "elbo" else 4)
    values, _ = model.trained_by(bound)._training_log_prob(
        weights, batch, batch.seen, None, torch.Generator().manual_seed(0)
    )
    values.sum().backward()
    moved = {name: model.inference_weights.split(weights["inference_weights"].grad) for name in ("inference_weights",)}
    assert bool((weights["weights"].grad != 0).any())
    for name, slope in moved["inference_weights"].items():
        filters = name.startswith("filter")
        # FIVO draws from the network that filters; the others from the one that smooths, beside which it learns.
        assert bool((slope != 0).any()) == (filters or objective != "fivo"), name


def test_free_bits_cost_what_they_say():
    model, params, batch = random_case(DeepMarkovModel)
    generator = torch.Generator()
    plain, free = (
        model.trained_by(Bound("elbo", 1, free_bits=bits))._training_log_prob(
            params, batch, batch.seen, None, generator.manual_seed(0)
        )[0]
        for bits in (0.0, 1e3)
    )
    start = model.start(params, batch.n, 1)
    noise = torch.randn(batch.n, batch.t, 1, 2, generator=generator.manual_seed(0), dtype=torch.float64)
    found = trajectories(model, params, batch, batch.seen, start, noise)
    assert torch.allclose(plain, found.log_lik.sum((1, 2)) - found.divergence.sum((1, 2, 3)))
    steps = batch.seen.any(-1).sum(1).double()
    assert torch.allclose(free, found.log_lik.sum((1, 2)) - 2 * 1e3 * steps)


def test_sizes_that_are_none_are_named():
    head = Normal()
    with pytest.raises(ParameterError, match="n_latent"):
        DeepMarkovModel(head, head.observation(1, None), n_latent=0)
    with pytest.raises(ParameterError, match="proposal"):
        DeepMarkovModel(head, head.observation(1, None), proposal="optimal")
    with pytest.raises(ParameterError, match="inference"):
        DeepMarkovModel(head, head.observation(1, None), inference="ahead")
