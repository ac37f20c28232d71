"""The fast forms of log-density tables against the plain broadcast."""

from __future__ import annotations

import pytest
import torch

from probseq.distributions.base import Distribution
from probseq.distributions.categorical import Bits, Categories
from probseq.distributions.counts import PoissonCounts
from probseq.distributions.gaussian import DiagonalStudentT, FullNormal
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
    }


@pytest.mark.parametrize("name", laws())
@pytest.mark.parametrize("holes", [False, True])
def test_table_equals_the_broadcast(name: str, holes: bool) -> None:
    law = laws()[name]
    g = torch.Generator().manual_seed(2)
    x = torch.randint(0, 2, (2, 40, VARIABLES), generator=g).double()
    seen = torch.rand(x.shape, generator=g) > (0.3 if holes else -1.0)
    table = component_log_prob(law, x, seen)
    plain = law[:, None, None].log_prob_seen(x.unsqueeze(-2), seen.unsqueeze(-2))
    torch.testing.assert_close(table, plain, rtol=1e-12, atol=1e-12)
