"""What missing values must do, against sums and integrals over what they could have been."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.testing import assert_allclose
from torch import Tensor

from probseq.errors import DataError
from probseq.models.base import Batch
from probseq.testing.cases import ModelCase

__all__ = ["check_missing_values"]

_MOST = 80
"""Counts above this have no probability worth adding."""
_NODES = 1600


def check_missing_values(case: ModelCase) -> None:
    """As the model says: p(seen) sums or integrates p(seen, unseen) over the unseen, is given the gap, or raises."""
    if case.missing == "forbidden":
        _raises(case)
        return
    told = case.model.missing == "pattern"
    assert told == (case.missing == "pattern"), f"the model says {case.model.missing!r} of missing values"
    if case.missing == "pattern":
        _no_placeholder(case)
        return
    k = case.model.observation.n_variables
    steps = (case.start, case.start + 3, case.whole.t - 1)
    for t in (s if s > 0 else 1 for s in steps) if case.start else steps:
        for i in range(k):
            _integrates(case, t, i)


def _integrates(case: ModelCase, t: int, variable: int) -> None:
    row = _first(case.whole)
    hole = row.seen.clone()
    hole[0, t, variable] = False
    with_hole = row._replace(seen=hole, x=case.model.observation.filled(row.x, hole))
    got = float(case.model.log_prob(case.values, with_hole)[0])
    values, log_weights = _support(case, row, t, variable)
    n = len(values)
    x = row.x.expand(n, -1, -1).clone()
    x[:, t, variable] = values
    u = None if row.u is None else row.u.expand(n, -1, -1)
    every = Batch(x, torch.ones_like(x, dtype=torch.bool), row.lengths.expand(n), u)
    each = case.model.log_prob(case.values, every).double()
    expected = float(torch.logsumexp(each + log_weights, 0))
    rtol = 1e-10 if case.model.observation.measures[variable] == "counting" else 1e-6
    assert_allclose(
        got, expected, rtol=rtol, atol=rtol, err_msg=f"step {t}, variable {variable}: missing is not integrated out"
    )


def _support(case: ModelCase, row: Batch, t: int, variable: int) -> tuple[Tensor, Tensor]:
    """Values of one coordinate and the logarithms of their weights in a sum or quadrature."""
    observation = case.model.observation
    if observation.measures[variable] == "counting":
        size = observation.categories[variable]
        if size is None:
            state = case.model.filter(case.values, row.slice_time(0, t)) if t else _fresh(case)
            law = case.model.predict_next(case.values, state, None if row.u is None else row.u[:, t])
            bits = float(law.cdf(torch.ones(1, observation.n_variables, dtype=torch.float64))[..., variable]) > 1 - 1e-9
            size = 2 if bits else _MOST
        return torch.arange(size, dtype=torch.float64), torch.zeros(size, dtype=torch.float64)
    state = case.model.filter(case.values, row.slice_time(0, t)) if t else _fresh(case)
    law = case.model.predict_next(case.values, state, None if row.u is None else row.u[:, t]).marginal([variable])
    # v = Q(logistic(s)): p(v) dv = dp, so that the integrand is smooth however wide the predictive is.
    nodes, weights = _rule()
    s = 30.0 * nodes
    p = 1.0 / (1.0 + np.exp(-s))
    v = law.icdf(torch.as_tensor(p)[:, None, None])[:, 0, 0].double()
    log_slope = np.log(30.0 * weights) - np.logaddexp(0, s) - np.logaddexp(0, -s)
    density = law.log_prob(v.reshape(-1, 1, 1))[:, 0].double()
    good = torch.isfinite(v) & torch.isfinite(density)
    return v[good], (torch.as_tensor(log_slope) - density)[good]


@cache
def _rule() -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Legendre nodes and weights, an eigenvalue problem that takes a second."""
    return np.polynomial.legendre.leggauss(_NODES)


def _fresh(case: ModelCase) -> Any:
    return case.model.initial_state(case.values, 1)


def _no_placeholder(case: ModelCase) -> None:
    """What stands where nothing was seen must not be read."""
    batch = case.batch
    other = batch._replace(x=torch.where(batch.seen, batch.x, batch.x[:, :1].amax() + torch.zeros_like(batch.x)))
    plain, moved = (case.model.log_prob(case.values, b).detach() for b in (batch, other))
    assert_allclose(moved, plain, rtol=case.rtol, err_msg="an unseen value is read")


def _raises(case: ModelCase) -> None:
    hole = case.whole.seen.clone()
    hole[0, case.start + 2] = False
    try:
        case.model.log_prob(case.values, case.whole._replace(seen=hole))
    except DataError:
        return
    raise AssertionError("a gap that the model cannot integrate out raises no DataError")


def _first(batch: Batch) -> Batch:
    u = None if batch.u is None else batch.u[:1]
    return Batch(batch.x[:1], batch.seen[:1], batch.lengths[:1], u)
