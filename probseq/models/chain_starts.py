"""Starting values of the EM algorithm for chains: clusters of the values, random centres, random regimes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from probseq.distributions.emissions import ConditionalEmission, Emission, Observation
from probseq.distributions.params import Simplex
from probseq.errors import DataError, ParameterError
from probseq.models.base import Batch

__all__ = ["checked_start", "start_params"]

_MAX_ROWS = 10_000
_SOFT = 0.05


def start_params(
    emission: Emission,
    observation: Observation,
    n_states: int,
    batch: Batch,
    n_starts: int,
    init: str,
    generator: torch.Generator,
    inputs: Tensor | None = None,
) -> dict[str, Tensor]:
    """Parameters (D, ...) of ``n_starts`` starts; long data are thinned to 10 000 random steps.

    ``inputs`` (n, t, q) are those of a `ConditionalEmission`. States that are known assign their steps in every start.
    """
    used = batch.real & batch.seen.any(-1)
    if isinstance(emission, ConditionalEmission):
        used = used & (torch.arange(batch.t) >= emission.order)
    rows = used.flatten().nonzero().squeeze(-1)
    if len(rows) == 0:
        raise DataError(
            got="no step that a state could be said of",
            expected="at least one seen value behind the first ones that are conditioned on",
            remedy="Pass longer sequences, or an emission of a lower order.",
        )
    if len(rows) > _MAX_ROWS:
        kept = torch.randperm(len(rows), generator=generator)[:_MAX_ROWS]
        rows = rows[kept.sort().values]
    k = batch.x.shape[-1]
    x, seen = batch.x.reshape(-1, k)[rows], batch.seen.reshape(-1, k)[rows]
    points = emission.points(observation, x, seen)
    given = None if inputs is None else inputs.reshape(-1, inputs.shape[-1])[rows]
    if given is not None:
        points = torch.cat([points, _residuals(points, given)], -1)
    labels = [_random(points, n_states, start, generator) for start in range(n_starts)]
    if init == "kmeans":
        labels[0] = _clusters(points, n_states, generator)
    if batch.states is not None:
        labels = [_agree(one, batch.states.flatten()[rows], n_states) for one in labels]
    hard = torch.nn.functional.one_hot(torch.stack(labels), n_states).to(x.dtype)
    soft = (1 - _SOFT) * hard + _SOFT / n_states
    if isinstance(emission, ConditionalEmission) and given is not None:
        params = emission.start(observation, x, seen, soft, given)
    else:
        params = emission.initial_params(observation, x[None], seen[None], soft.unsqueeze(1), (n_states,))
    params["initial"] = _dirichlet((n_starts, n_states), 2.0, generator)
    # Dwell times of 1 to 1000 steps, log-uniform for each state: regimes of very different length coexist in data.
    leave = 10.0 ** (-3.0 * torch.rand(n_starts, n_states, 1, generator=generator, dtype=x.dtype))
    jump = _dirichlet((n_starts, n_states, n_states), 1.0, generator)
    params["transition"] = (1 - leave) * torch.eye(n_states, dtype=x.dtype) + leave * jump
    if init == "kmeans":
        even = torch.full_like(jump[0], 1.0 / n_states)
        params["initial"][0] = even[0]
        params["transition"][0] = 0.5 * torch.eye(n_states, dtype=x.dtype) + 0.5 * even
    return params


def _residuals(points: Tensor, inputs: Tensor) -> Tensor:
    """What one regression leaves over, and its size, in units of its standard deviation."""
    design = torch.cat([torch.ones_like(inputs[:, :1]), inputs], -1)
    left = points - design @ torch.linalg.lstsq(design, points, driver="gelsd").solution
    spread = left.std(0, unbiased=False)
    scaled = left / torch.where(spread > 0, spread, torch.ones_like(spread))
    return torch.cat([scaled, scaled.abs()], -1)


def _agree(labels: Tensor, known: Tensor, n_states: int) -> Tensor:
    """Labels renamed to agree best with the known states, which then replace them."""
    told = known >= 0
    table = np.zeros((n_states, n_states))
    np.add.at(table, (labels[told].numpy(), known[told].numpy()), 1.0)
    renamed = torch.from_numpy(linear_sum_assignment(table, maximize=True)[1])[labels]
    return torch.where(told, known, renamed)


def _clusters(points: Tensor, n_states: int, generator: torch.Generator) -> Tensor:
    from sklearn.cluster import KMeans

    distinct = torch.unique(points, dim=0)
    if len(distinct) <= n_states:
        return torch.cdist(points, distinct).argmin(-1)
    seed = int(torch.randint(2**31 - 1, (1,), generator=generator))
    return torch.from_numpy(KMeans(n_states, n_init=3, random_state=seed).fit_predict(points.numpy())).long()


def _random(points: Tensor, n_states: int, start: int, generator: torch.Generator) -> Tensor:
    n = len(points)
    if start % 2:
        # Random regimes: a few consecutive stretches, each in a random state.
        cuts = torch.randint(n, (4 * n_states,), generator=generator)
        stretch = (torch.arange(n).unsqueeze(-1) >= cuts).sum(-1)
        return torch.randint(n_states, (4 * n_states + 1,), generator=generator)[stretch]
    centres = points[torch.randint(n, (n_states,), generator=generator)]
    noise = 1e-6 * torch.rand(n, n_states, generator=generator, dtype=points.dtype)
    return (torch.cdist(points, centres) + noise).argmin(-1)


def _dirichlet(shape: tuple[int, ...], concentration: float, generator: torch.Generator) -> Tensor:
    gamma = torch._standard_gamma(torch.full(shape, concentration, dtype=torch.float64), generator=generator)
    return gamma / gamma.sum(-1, keepdim=True)


def checked_start(start: Any, n_states: int) -> tuple[str, Tensor | None]:
    """The kind of start that a user asks for, "free", "stationary" or "known", and the probabilities if known."""
    if isinstance(start, str) and start in ("free", "stationary"):
        return start, None
    try:
        known = torch.as_tensor(np.asarray(start, dtype=np.float64))
    except (TypeError, ValueError, OverflowError):
        known = torch.zeros(0)
    if known.shape != (n_states,) or Simplex().violation(known):
        raise ParameterError(
            got=f"start={start!r}",
            expected=f'"free", "stationary" or {n_states} probabilities that sum to one',
            remedy="Choose one.",
        )
    return "known", known
