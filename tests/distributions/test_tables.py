"""The fast forms of log-density tables against the plain broadcast."""

from __future__ import annotations

import pytest
import torch

from probseq.distributions.base import Distribution
from probseq.distributions.beta import DiagonalBeta
from probseq.distributions.bijections import Exponential
from probseq.distributions.categorical import Bits, Categories
from probseq.distributions.circular import DiagonalVonMises
from probseq.distributions.compose import Mixture, push
from probseq.distributions.counts import NegativeBinomialCounts, PoissonCounts, ZeroInflatedCounts
from probseq.distributions.gamma import DiagonalGamma
from probseq.distributions.gaussian import DiagonalNormal, DiagonalStudentT, FullNormal
from probseq.distributions.tables import component_log_prob

DRAWS, STATES, VARIABLES = 3, 4, 5


def laws() -> dict[str, Distribution]:
    g = torch.Generator().manual_seed(1)
    shape = (DRAWS, STATES, VARIABLES)
    loc = torch.randn(shape, generator=g, dtype=torch.float64)
    root = torch.randn(*shape, VARIABLES, generator=g, dtype=torch.float64)
    factor = torch.linalg.cholesky(root @ root.mT + torch.eye(VARIABLES, dtype=torch.float64))
    logits = torch.randn(*shape, 3, generator=g, dtype=torch.float64)
    return {
        "bits": Bits(logit=loc),
        "categories": Categories(logits=logits),
        "poisson": PoissonCounts(rate=loc.exp()),
        "student": DiagonalStudentT(df=torch.full_like(loc, 4.0), loc=loc, scale=loc.exp()),
        "full": FullNormal(loc=loc, scale_tril=factor),
        "normal": DiagonalNormal(loc=loc, scale=loc.exp()),
        "narrow normal": DiagonalNormal(loc=1e6 + loc, scale=1e-5 * loc.exp()),
        "negative binomial": NegativeBinomialCounts(location=loc.exp(), dispersion=loc.exp()),
        "zero-inflated": ZeroInflatedCounts(rate=loc.exp(), zero_prob=torch.sigmoid(loc)),
        "gamma": DiagonalGamma(shape=loc.exp(), rate=(-loc).exp()),
        "beta": DiagonalBeta(a=loc.exp(), b=(-loc).exp()),
        "von mises": DiagonalVonMises(loc=loc, concentration=loc.exp()),
        "log-normal": push(DiagonalNormal(loc=loc, scale=loc.exp()), Exponential()),
        "mixture": Mixture(
            torch.log_softmax(logits[..., 0, :], -1),
            DiagonalNormal(loc=logits.mT.expand(*logits.shape[:2], 3, VARIABLES), scale=logits.mT.exp()),
        ),
    }


def values(name: str, g: torch.Generator) -> torch.Tensor:
    if name in ("bits", "categories"):
        return torch.randint(0, 2, (2, 40, VARIABLES), generator=g).double()
    if name in ("poisson", "negative binomial", "zero-inflated"):
        return torch.randint(0, 30, (2, 40, VARIABLES), generator=g).double()
    x = torch.rand(2, 40, VARIABLES, generator=g, dtype=torch.float64)
    return 1e6 + x if name == "narrow normal" else x


@pytest.mark.parametrize("name", laws())
@pytest.mark.parametrize("holes", [False, True])
def test_table_equals_the_broadcast(name: str, holes: bool) -> None:
    law = laws()[name]
    g = torch.Generator().manual_seed(2)
    x = values(name, g)
    seen = torch.rand(x.shape, generator=g) > (0.3 if holes else -1.0)
    table = component_log_prob(law, x, seen)
    plain = law[:, None, None].log_prob_seen(x.unsqueeze(-2), seen.unsqueeze(-2))
    torch.testing.assert_close(table, plain, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", ["poisson", "negative binomial", "zero-inflated", "gamma", "bits", "categories"])
def test_values_outside_the_support_have_no_probability_and_large_counts_are_exact(name: str) -> None:
    law = laws()[name]
    odd = torch.tensor([-1.0, 0.5, 3.0, 1e9, 1e300], dtype=torch.float64)
    x = values(name, torch.Generator().manual_seed(3))
    x[0, :5, 0] = odd
    seen = torch.ones_like(x, dtype=torch.bool)
    table = component_log_prob(law, x, seen)
    plain = law[:, None, None].log_prob_seen(x.unsqueeze(-2), seen.unsqueeze(-2))
    torch.testing.assert_close(table, plain, rtol=1e-11, atol=1e-11)
    assert bool(torch.isneginf(table[:, 0, 0]).all())


@pytest.mark.parametrize("name", laws())
def test_gradients_of_the_table(name: str) -> None:
    g = torch.Generator().manual_seed(2)
    x = values(name, g)
    seen = torch.rand(x.shape, generator=g) > 0.3
    leaves: list[torch.Tensor] = []

    def leaf(tensor: torch.Tensor, _: int) -> torch.Tensor:
        leaves.append(tensor.detach().clone().requires_grad_())
        return leaves[-1]

    law = laws()[name].map_batch(leaf)
    weights = torch.rand(DRAWS, 2, 40, STATES, generator=g, dtype=torch.float64)
    ours = torch.autograd.grad((weights * component_log_prob(law, x, seen)).sum(), leaves)
    plain = (weights * law[:, None, None].log_prob_seen(x.unsqueeze(-2), seen.unsqueeze(-2))).sum()
    for one, other in zip(ours, torch.autograd.grad(plain, leaves), strict=True):
        if one.ndim == 4 and name == "full":  # above the diagonal of a factor there is nothing
            one, other = one.tril(), other.tril()
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)
