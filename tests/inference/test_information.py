"""Observed information: second differences of the likelihood, closed forms, and what has no standard error."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

import probseq as ps
from probseq.distributions.params import Positive, Real, Simplex, flatten, unflatten
from probseq.errors import DegenerateWarning, UnsupportedError
from probseq.inference.information import observed_information
from probseq.inference.posterior import LogPosterior
from probseq.models.arma import ARMAModel
from probseq.models.base import Batch
from probseq.models.hmm import HiddenMarkovModel


def as_batch(x, seen=None):
    x = torch.as_tensor(np.asarray(x, dtype=float))
    seen = torch.ones_like(x, dtype=torch.bool) if seen is None else seen
    return Batch(torch.where(seen, x, 0.0), seen, torch.full((x.shape[0],), x.shape[1]))


def data(emission, n=2, t=60, k=2, seed=0):
    rng = np.random.default_rng(seed)
    z = (np.arange(t) // 10 % 2)[None, :, None] * np.ones((n, 1, k))
    if isinstance(emission, ps.Poisson):
        x = rng.poisson(2 + 4 * z).astype(float)
    elif isinstance(emission, ps.Categorical):
        x = rng.integers(0, 3, (n, t, k)).astype(float)
    else:
        x = 2 * z + rng.standard_t(5, (n, t, k))
    return as_batch(x, torch.from_numpy(rng.random((n, t, k)) > 0.1))


def point(model, seed=0):
    """Values away from every boundary."""
    generator = torch.Generator().manual_seed(seed)
    specs = model.parameters()
    size = sum(spec.constraint.size(spec.shape) for spec in specs.values())
    return unflatten(specs, 0.5 * torch.randn(size, generator=generator, dtype=torch.float64))


MODELS = {
    "normal": lambda: HiddenMarkovModel(2, ps.Normal(), ps.Normal().observation(2)),
    "full": lambda: HiddenMarkovModel(2, ps.Normal("full"), ps.Normal("full").observation(2)),
    "student": lambda: HiddenMarkovModel(2, ps.StudentT(), ps.StudentT().observation(2), start="stationary"),
    "poisson": lambda: HiddenMarkovModel(3, ps.Poisson(), ps.Poisson().observation(2)),
    "categorical": lambda: HiddenMarkovModel(2, ps.Categorical(3), ps.Categorical(3).observation(2)),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_matrix_is_the_second_difference_of_the_kernels_likelihood(name):
    model = MODELS[name]()
    batch, params = data(model.emission), point(model)
    weights = torch.tensor([1.0, 2.5], dtype=torch.float64)
    found = observed_information(model, params, batch, weights)
    specs = model.parameters()
    centre = flatten(specs, params)

    def value(flat):
        return float((model.log_prob(unflatten(specs, flat), batch) * weights).sum())

    rng = np.random.default_rng(1)
    for _ in range(4):
        v = torch.from_numpy(rng.normal(size=centre.shape))
        h = 1e-3
        f = [value(centre + step * h * v) for step in (-2, -1, 0, 1, 2)]
        second = (-f[0] + 16 * f[1] - 30 * f[2] + 16 * f[3] - f[4]) / (12 * h**2)
        assert_allclose(v.numpy() @ found.matrix @ v.numpy(), -second, rtol=1e-5, atol=1e-4)


def test_covariance_is_the_pseudo_inverse_where_all_is_determined():
    values = ps.datasets.earthquakes()
    model = ps.HMM(2, ps.Poisson(), start="stationary", inference=ps.MLE(), random_state=0).fit(values)
    inner = model.model_.model
    found = observed_information(inner, model.model_.params, model._batch(model.training_))
    assert found.messages == ()
    assert_allclose(found.covariance, np.linalg.pinv(found.matrix, rcond=1e-8, hermitian=True), rtol=1e-6, atol=1e-9)
    assert_allclose(found.covariance, model.draws_.covariance, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("make", [lambda e: ps.IID(e), lambda e: ps.HMM(1, e, inference=ps.MLE())])
def test_one_state_has_the_closed_forms_of_independent_values(make):
    rng = np.random.default_rng(0)
    counts, x = rng.poisson(7.0, 50).astype(float), 300 + 0.01 * rng.normal(size=80)
    model = make(ps.Poisson()).fit(counts)
    assert_allclose(model.standard_errors_["rate"].values.ravel(), np.sqrt(counts.mean() / 50), rtol=1e-6)
    model = make(ps.Normal()).fit(x)
    sd = x.std()
    assert_allclose(model.standard_errors_["mean"].values.ravel(), sd / np.sqrt(80), rtol=1e-4)
    assert_allclose(model.standard_errors_["scale"].values.ravel(), sd / np.sqrt(160), rtol=1e-4)


def test_a_markov_chain_has_the_multinomial_errors_of_its_rows():
    codes = np.random.default_rng(0).integers(0, 3, 400).astype(float)
    model = ps.MarkovChain(order=1, inference=ps.MLE()).fit(codes)
    name = next(n for n, v in model.params_.items() if v.ndim == 2)
    p = model.params_[name].values[:3]
    visits = np.bincount(codes[:-1].astype(int))[:, None]
    assert_allclose(model.standard_errors_[name].values[:3], np.sqrt(p * (1 - p) / visits), rtol=1e-6)


def test_em_and_mle_end_with_the_same_errors_and_name_what_has_none():
    values = ps.datasets.earthquakes()
    by_em = ps.HMM(2, ps.Poisson(), inference=ps.EM(tol=1e-10, covariance=True), random_state=0).fit(values)
    by_mle = ps.HMM(2, ps.Poisson(), inference=ps.MLE(), random_state=0).fit(values)
    order = np.argsort(by_em.params_["rate"].values.ravel())
    other = np.argsort(by_mle.params_["rate"].values.ravel())
    for name in ("rate", "transition"):
        a, b = by_em.standard_errors_[name].values[order], by_mle.standard_errors_[name].values[other]
        if name == "transition":
            a, b = a[:, order], b[:, other]
        assert_allclose(a, b, rtol=1e-3)
    # One sequence says with certainty where it began: that probability is on its boundary.
    assert np.isnan(by_em.standard_errors_["initial"]).all()
    assert list(by_em.standard_errors_) == list(by_em.params_)


def test_forbidden_transitions_have_no_error_and_those_that_never_happen_none_that_is_known():
    mask = np.array([[True, True, False], [True, True, True], [True, True, True]])
    values = ps.datasets.earthquakes()
    model = ps.HMM(3, ps.Poisson(), "stationary", mask, inference=ps.MLE(), random_state=0).fit(values)
    errors = model.standard_errors_["transition"].values
    p = model.params_["transition"].values
    assert errors[0, 2] == 0.0
    never = (p < 1e-6) & mask
    assert np.isnan(errors[never]).all() and np.isfinite(errors[~never]).all()
    assert (errors[~never & mask] > 0).all()


def test_redundant_parameters_are_named():
    class Twice(HiddenMarkovModel):
        """A rate that is a sum of two parameters, which nothing tells apart."""

        def parameters(self):
            specs = dict(super().parameters())
            return {**specs, "more": specs["rate"]}

        def log_prob_steps(self, params, batch, state=None):
            rest = {n: v for n, v in params.items() if n != "more"}
            inner = HiddenMarkovModel(1, ps.Poisson(), self.observation)
            return inner.log_prob_steps({**rest, "rate": params["rate"] + params["more"]}, batch, state)

    model = Twice(1, ps.Poisson(), ps.Poisson().observation(1))
    batch = as_batch(np.random.default_rng(0).poisson(6.0, (1, 40, 1)))
    one = torch.ones(1, dtype=torch.float64)
    params = {"initial": one, "transition": one[None], "rate": 2.5 * one[None], "more": 3.5 * one[None]}
    found = observed_information(model, params, batch)
    assert "not positive definite: 1 of 2 directions, in more, rate" in found.messages[0]
    assert np.isnan(np.diag(found.covariance)[-2:]).all()


def test_errors_of_an_arma_model_are_those_of_its_fast_form():
    y = ps.datasets.lake_huron() if hasattr(ps.datasets, "lake_huron") else ps.datasets.air_passengers()
    model = ps.ARMA(order=(1, 1)).fit(np.log(np.asarray(y, dtype=float)))
    found = observed_information(model.model_.model, model.model_.params, model._batch(model.training_))
    assert isinstance(model.model_.model, ARMAModel)
    assert_allclose(found.covariance, model.draws_.covariance, rtol=2e-3, atol=1e-9)
    table = model.summary()
    assert_allclose(table["std_error"][:2], [float(model.standard_errors_[n].squeeze()) for n in ("ar", "ma")])


def test_errors_survive_a_file_and_are_refused_without_a_covariance(tmp_path):
    counts = np.random.default_rng(0).poisson(4.0, 30).astype(float)
    model = ps.IID(ps.Poisson()).fit(counts)
    model.save(tmp_path / "model")
    again = ps.load(tmp_path / "model")
    assert_allclose(again.standard_errors_["rate"], model.standard_errors_["rate"])
    plain = ps.HMM(1, ps.Poisson(), inference=ps.EM(n_init=1)).fit(counts)
    with pytest.raises(UnsupportedError, match="covariance=True"):
        _ = plain.standard_errors_


def test_mle_of_more_states_than_the_data_have_is_degenerate_and_says_which():
    x = np.append(np.repeat([1.0, 1.0, 5.0, 5.0, 9.0], 5), 9.5)
    with pytest.warns(DegenerateWarning, match="state"):
        model = ps.HMM(3, ps.Normal(), inference=ps.MLE(max_iter=300), random_state=0).fit(x)
    assert model.status_ == "degenerate" and not model.converged_


def test_the_flat_function_is_the_density_of_the_coordinates():
    """With the last term, a density of theta becomes one of z: a change of variables by finite differences."""
    model = HiddenMarkovModel(2, ps.Normal(), ps.Normal().observation(1))
    specs = model.parameters()
    target = LogPosterior(model, as_batch(np.zeros((1, 3, 1))), jacobian=True)
    flat = flatten(specs, point(model, 3))
    start, total = 0, 0.0
    for spec in specs.values():
        size = spec.constraint.size(spec.shape)
        block = flat[start : start + size]
        start += size

        def natural(z, spec=spec):
            return spec.constraint.constrain(z, spec.shape).reshape(-1)

        jacobian = torch.autograd.functional.jacobian(natural, block)
        if isinstance(spec.constraint, Simplex):
            # The last entry of each row stays: log-ratios to it.
            width = spec.shape[-1]
            keep = [i for i in range(size) if i % width != width - 1]
            jacobian = jacobian[keep][:, keep]
        else:
            assert isinstance(spec.constraint, Real | Positive)
        total += float(torch.linalg.slogdet(jacobian).logabsdet)
    assert_allclose(float(target.log_abs_det(flat)), total, rtol=1e-10)


@pytest.mark.parametrize("options", [{"start": [1.0, 0.0]}, {"transitions": np.array([[True, True], [False, True]])}])
def test_mle_starts_where_em_points_to_and_ends_with_it(options):
    rng = np.random.default_rng(0)
    x = np.repeat([0.0, 3.0], 60) + rng.normal(size=120)
    by_em = ps.HMM(2, inference=ps.EM(n_init=6), random_state=0, **options).fit(x)
    by_mle = ps.HMM(2, inference=ps.MLE(), random_state=0, **options).fit(x)
    assert_allclose(by_mle.log_likelihood_, by_em.log_likelihood_, atol=1e-5)
