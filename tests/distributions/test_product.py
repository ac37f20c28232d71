"""The law of mixed events against scipy, and the parts of mixtures of such laws."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy import optimize, stats

from probseq.distributions.bijections import Affine, Exponential
from probseq.distributions.categorical import Categories
from probseq.distributions.compose import Mixture, Pushforward, push
from probseq.distributions.counts import PoissonCounts
from probseq.distributions.gaussian import DiagonalNormal, FullNormal
from probseq.distributions.product import IndependentParts
from probseq.distributions.tables import component_log_prob
from probseq.errors import IncompatibleError
from probseq.testing.laws import check_distribution

LOC = np.array([[0.0, 1.0], [3.0, -1.0]])
COVARIANCE = np.array([[[1.0, 0.4], [0.4, 0.5]], [[2.0, -0.3], [-0.3, 0.2]]])
RATE = np.array([1.5, 6.0])
WEIGHTS = np.array([0.3, 0.7])


def mixed() -> IndependentParts:
    """Two laws of (normal, count, normal) with correlated normals around the count."""
    normal = FullNormal(loc=torch.tensor(LOC), scale_tril=torch.linalg.cholesky(torch.tensor(COVARIANCE)))
    return IndependentParts([normal, PoissonCounts(rate=torch.tensor(RATE)[:, None])], columns=[[0, 2], [1]])


def mixture() -> Mixture:
    return Mixture(torch.tensor(WEIGHTS).log(), mixed())


def density(x: np.ndarray, seen: np.ndarray, j: int) -> float:
    own = [i for i, column in enumerate((0, 2)) if seen[column]]
    p = stats.poisson(RATE[j]).pmf(x[1]) if seen[1] else 1.0
    if own:
        p *= stats.multivariate_normal(LOC[j][own], COVARIANCE[j][np.ix_(own, own)]).pdf(x[[0, 2]][own])
    return float(p)


@pytest.mark.parametrize("pattern", list(np.ndindex(2, 2, 2)))
def test_density_of_what_is_seen_is_the_product_over_parts(pattern):
    seen, x = np.array(pattern, dtype=bool), np.array([0.7, 3.0, -0.4])
    value, mask = torch.tensor(x), torch.tensor(seen)
    got = mixed().log_prob_seen(value, mask)
    assert_allclose(got.exp(), [density(x, seen, j) for j in range(2)], rtol=1e-12)
    both = sum(w * density(x, seen, j) for j, w in enumerate(WEIGHTS))
    assert_allclose(mixture().log_prob_seen(value, mask).exp(), both, rtol=1e-12)
    table = component_log_prob(mixed(), value.reshape(1, 1, 3), mask.reshape(1, 1, 3))
    assert_allclose(table[0, 0], got, rtol=1e-12, atol=1e-12)


def test_moments_and_kinds_are_those_of_the_columns():
    law = mixed()
    assert law.discrete_variables.tolist() == [False, True, False] and not law.discrete and not law.nominal
    assert_allclose(law.mean, np.stack([LOC[:, 0], RATE, LOC[:, 1]], -1))
    assert_allclose(law.variance, np.stack([COVARIANCE[:, 0, 0], RATE, COVARIANCE[:, 1, 1]], -1))
    assert bool(law.has_moment(3).all()) and law.has_moment(3).shape == (2, 3)
    assert mixture().blocks == [[0, 2], [1]]


@pytest.mark.parametrize("index", [[0], [1], [2], [0, 1], [1, 0], [2, 0], [2, 1, 0], [0, 2]])
def test_marginals_keep_the_order_asked_for(index):
    law, one = mixed(), mixed().marginal(index)
    x = torch.tensor([0.7, 3.0, -0.4])
    seen = torch.zeros(3, dtype=torch.bool)
    seen[index] = True
    assert_allclose(one.log_prob(x[index]), law.log_prob_seen(x, seen), rtol=1e-12)
    assert_allclose(one.cdf(x[index]), law.cdf(x)[..., index], rtol=1e-12)
    assert_allclose(one.mean, law.mean[..., index])
    assert one.discrete_variables.tolist() == law.discrete_variables[index].tolist()


def test_a_single_part_stands_for_itself():
    assert isinstance(mixed().marginal([1]), PoissonCounts)
    assert isinstance(mixture().marginal([0]).components, DiagonalNormal)


def test_the_law_is_one_law():
    check_distribution(mixed(), n_samples=3000)
    check_distribution(mixture()[None], n_samples=3000)


def test_quantiles_of_a_mixture_invert_each_kind_of_cdf():
    law = mixture()
    for q in (0.03, 0.4, 0.9):
        x = law.icdf(torch.full((3,), q, dtype=torch.float64)).numpy()

        def cdf(v, i, q=q):
            parts = [stats.norm(LOC[j, i // 2], COVARIANCE[j, i // 2, i // 2] ** 0.5).cdf(v) for j in range(2)]
            return WEIGHTS @ parts - q

        for i in (0, 2):
            assert_allclose(x[i], optimize.brentq(cdf, -20, 20, args=(i,), xtol=1e-13), atol=1e-9)
        steps = np.arange(40)
        total = sum(w * stats.poisson(r).cdf(steps) for w, r in zip(WEIGHTS, RATE, strict=True))
        assert x[1] == steps[total >= q][0]


def test_mixtures_inside_a_part_become_one_mixture_in_its_marginal():
    inner = Mixture(
        torch.tensor([0.2, 0.8]).log().expand(2, 2),
        DiagonalNormal(loc=torch.arange(4.0).reshape(2, 2, 1).double(), scale=torch.ones(2, 2, 1).double()),
    )
    law = Mixture(
        torch.tensor(WEIGHTS).log(), IndependentParts([inner, PoissonCounts(rate=torch.tensor([[1.0], [2.0]]))])
    )
    one = law.marginal([0])
    assert isinstance(one.components, DiagonalNormal)
    assert_allclose(one.weights, [0.06, 0.24, 0.14, 0.56])
    assert_allclose(one.mean, law.mean[..., :1])


def test_batch_dimensions_move_in_all_parts_together():
    law = mixed().reshape(2, 1).movedim(0, 1)
    assert law.batch_shape == (1, 2)
    assert_allclose(law[0].mean, mixed().mean)
    assert law.expand(torch.Size([4, 2])).sample((3,), generator=torch.Generator().manual_seed(0)).shape == (3, 4, 2, 3)


def test_an_affine_map_that_leaves_counts_alone_moves_the_rest():
    law = push(mixture(), Affine(torch.tensor([5.0, 0.0, -1.0]), torch.tensor([2.0, 1.0, 3.0])))
    assert_allclose(law.mean, mixture().mean * torch.tensor([2.0, 1.0, 3.0]) + torch.tensor([5.0, 0.0, -1.0]))
    x = torch.tensor([5.3, 2.0, 0.4]).double()
    z = (x - torch.tensor([5.0, 0.0, -1.0])) / torch.tensor([2.0, 1.0, 3.0])
    assert_allclose(law.log_prob(x), mixture().log_prob(z) - np.log(6.0), rtol=1e-6)


def test_a_map_that_moves_counts_raises():
    with pytest.raises(IncompatibleError, match="discrete"):
        push(mixed(), Exponential())
    with pytest.raises(IncompatibleError, match="discrete"):
        push(mixed(), Affine(torch.zeros(3), 2 * torch.ones(3)))


def test_a_map_of_measured_parts_is_that_of_each():
    parts = [
        DiagonalNormal(loc=torch.zeros(1), scale=torch.ones(1)),
        DiagonalNormal(loc=torch.ones(2), scale=torch.ones(2)),
    ]
    law = push(IndependentParts(parts), Exponential())
    assert all(isinstance(part, Pushforward) for part in law.parts)
    x = torch.tensor([0.5, 2.0, 3.0]).double()
    expected = stats.lognorm(1).logpdf(0.5) + stats.lognorm(1, scale=np.e).logpdf([2.0, 3.0]).sum()
    assert_allclose(law.log_prob(x), expected, rtol=1e-6)


def test_labels_are_kept_apart_from_counts():
    law = IndependentParts([PoissonCounts(rate=torch.ones(1)), Categories(logits=torch.zeros(1, 3))])
    assert law.discrete and not law.nominal
    assert law.nominal_variables.tolist() == [False, True]
