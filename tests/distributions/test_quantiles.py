"""Laws through given quantiles: one law between and beyond them, the loss that trains them."""

import numpy as np
import pytest
import torch

from probseq.distributions.bijections import Affine, Exponential
from probseq.distributions.compose import mixture, push
from probseq.distributions.emissions import Normal, Product, Quantiles
from probseq.distributions.increasing import Increasing
from probseq.distributions.params import read_outputs
from probseq.distributions.quantiles import QuantileLaw
from probseq.errors import IncompatibleError, ParameterError
from probseq.testing import check_distribution

LEVELS = (0.1, 0.25, 0.5, 0.9)


def law_of(*batch, k=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    steps = 0.2 + torch.rand(*batch, k, len(LEVELS), generator=generator, dtype=torch.float64)
    return QuantileLaw(LEVELS, steps.cumsum(-1) - 2.0)


def test_it_is_one_law():
    # The density jumps at the quantiles, where a panel of the check's integration loses digits.
    check_distribution(law_of(3), n_samples=3000, rtol=1e-4)
    check_distribution(push(law_of(2), Exponential()), n_samples=3000, rtol=1e-4)


def test_quantiles_are_those_given():
    law = law_of(3)
    for i, q in enumerate(LEVELS):
        level = torch.full((3, 2), q, dtype=torch.float64)
        torch.testing.assert_close(law.icdf(level), law.values[..., i], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(law.cdf(law.values[..., i]), level, rtol=1e-12, atol=1e-12)


def test_moments_are_integrals_over_the_quantile_function():
    law = law_of(2)
    s, w = np.polynomial.legendre.leggauss(4000)
    u = 1.0 / (1.0 + np.exp(-36.0 * s))
    weight = torch.as_tensor(36.0 * w * u * (1.0 - u))
    x = law.icdf(torch.as_tensor(u)[:, None, None].expand(-1, 2, 2))
    mean = (weight[:, None, None] * x).sum(0)
    torch.testing.assert_close(law.mean, mean, rtol=1e-4, atol=1e-4)
    square = (weight[:, None, None] * (x - mean) ** 2).sum(0)
    torch.testing.assert_close(law.variance, square, rtol=1e-3, atol=1e-3)


def test_the_training_score_is_the_pinball_loss():
    law = law_of(3)
    x = torch.randn(3, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    seen = torch.tensor([[True, True], [False, True], [False, False]])
    expected = torch.zeros(3, dtype=torch.float64)
    for row in range(3):
        for i in range(2):
            for j, q in enumerate(LEVELS):
                gap = float(x[row, i] - law.values[row, i, j])
                expected[row] -= float(seen[row, i]) * max(q * gap, (q - 1) * gap) / len(LEVELS)
    torch.testing.assert_close(law.training_score(x, seen), expected, rtol=1e-12, atol=1e-12)


def test_what_is_made_of_quantiles_is_no_likelihood_either():
    law = law_of(3)
    assert not law.is_likelihood
    assert not mixture(torch.log(torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)), law).is_likelihood
    assert not push(law, Exponential()).is_likelihood
    moved = push(law, Affine(torch.tensor([1.0, 2.0]).double(), torch.tensor([3.0, 0.5]).double()))
    assert isinstance(moved, QuantileLaw)
    torch.testing.assert_close(moved.values[..., 1, :], 2.0 + 0.5 * law.values[..., 1, :])
    both = Product([Normal(), Quantiles()])
    assert not both.is_likelihood
    outputs = torch.randn(4, 2 + 11, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    parts = both.from_outputs(outputs, both.observation(2))
    x, seen = torch.zeros(4, 2, dtype=torch.float64), torch.ones(4, 2, dtype=torch.bool)
    expected = parts.parts[0].log_prob(x[:, :1]) + parts.parts[1].training_score(x[:, 1:], seen[:, 1:])
    torch.testing.assert_close(parts.training_score(x, seen), expected)


def test_outputs_never_cross():
    emission = Quantiles(LEVELS)
    outputs = 50 * torch.randn(200, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    law = emission.from_outputs(outputs, emission.observation(2))
    assert bool((law.values.diff(dim=-1) > 0).all())
    assert law.values.shape == (200, 2, 4)


def test_increasing_numbers_and_their_coordinates():
    constraint, shape = Increasing(), (2, 3)
    flat = torch.randn(5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    value = constraint.constrain(flat, shape)
    torch.testing.assert_close(constraint.unconstrain(value, shape), flat, rtol=1e-10, atol=1e-10)
    assert constraint.violation(value) is None
    assert "increasing" in str(constraint.violation(value.flip(-1)))
    jacobian = torch.func.jacrev(lambda z: constraint.constrain(z, shape).flatten())(flat[0])
    torch.testing.assert_close(constraint.log_abs_det(flat, shape)[0], torch.linalg.slogdet(jacobian).logabsdet)
    specs = Quantiles(LEVELS).parameters(Normal().observation(2))
    assert read_outputs(specs, torch.zeros(1, 8))["values"].shape == (1, 2, 4)


@pytest.mark.parametrize("levels", [(0.5,), (0.5, 0.1), (0.0, 0.5), (10, 90), "median", (0.1, True)])
def test_bad_levels_are_named(levels):
    with pytest.raises(ParameterError, match="levels="):
        Quantiles(levels).check_arguments()


def test_states_have_no_quantiles():
    with pytest.raises(IncompatibleError, match="LSTM"):
        Quantiles().parameters(Normal().observation(1), (2,))
