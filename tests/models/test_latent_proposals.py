"""Normal approximations of what a value says about its latent state."""

from __future__ import annotations

import pytest
import torch

from probseq.models.latent_laws import DiagonalLaw
from probseq.models.latent_proposals import laplace_law


def test_it_is_exact_where_all_is_linear_and_normal():
    generator = torch.Generator().manual_seed(0)
    loc, design = torch.randn(2, 3, generator=generator).double(), torch.randn(4, 3, generator=generator).double()
    x = torch.randn(4, generator=generator).double()
    scale = torch.tensor([0.5, 1.0, 2.0]).double().expand(2, 3)
    law = laplace_law(DiagonalLaw(loc, scale), lambda z: -0.5 * ((x - z @ design.mT) / 0.3).square().sum(-1))
    cov = torch.linalg.inv(design.mT @ design / 0.09 + torch.diag(scale[0] ** -2))
    mean = (x @ design / 0.09 + loc / scale.square()) @ cov
    assert torch.allclose(law.factor @ law.factor.mT, cov.expand(2, 3, 3), atol=1e-12)
    assert torch.allclose(law.loc, mean, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_steps_that_lead_down_are_shortened(dtype):
    """Counts with the rate e^z: all of Newton's first step goes where the rate overflows."""
    x = torch.tensor([0.0, 5.0, 100.0, 3000.0], dtype=dtype)
    prior = DiagonalLaw(torch.zeros(4, 1, dtype=dtype), torch.ones(4, 1, dtype=dtype))

    def gain(z):
        return x * z[..., 0] - z[..., 0].exp()

    law = laplace_law(prior, gain)
    height = gain(law.loc) - 0.5 * law.loc[..., 0].square()
    assert bool((height >= gain(prior.loc) - 1e-3).all())
    assert bool(law.factor.isfinite().all()) and bool((law.loc.abs() < 10.0).all())
