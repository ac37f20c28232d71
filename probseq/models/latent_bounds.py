"""Lower bounds of the log-likelihood of networks with latent variables, for training and for comparing."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from probseq.distributions.params import Params
from probseq.models.base import Batch, map_state
from probseq.models.latent_state import LatentState, Noise
from probseq.models.latent_trajectories import Trajectories, trajectories

if TYPE_CHECKING:
    from probseq.models.latent_network import LatentNetwork

__all__ = ["BOUNDS", "Bound", "elbo", "iwae", "path_values", "trained_bound"]

BOUNDS = ("elbo", "iwae", "fivo")
# Numbers of one layer of all samples that are evaluated at once.
_AT_ONCE = 2**24


def _always(done: float) -> float:
    return 1.0


class Bound(NamedTuple):
    """What training maximises.

    objective : "elbo", "iwae" (samples of whole paths) or "fivo" (particles that are resampled)
    n_samples : samples or particles of each sequence
    kl_weight : of the fraction of the training that lies behind, by which the divergence of the ELBO is multiplied
    free_bits : nats of divergence of each latent variable and step, on average, that cost nothing; with flows, of all
        latent variables together, as many times as there are
    """

    objective: str = "elbo"
    n_samples: int = 1
    kl_weight: Callable[[float], float] = _always
    free_bits: float = 0.0


def trained_bound(
    model: LatentNetwork,
    params: Params,
    batch: Batch,
    scored: Tensor,
    state: LatentState | None,
    bound: Bound,
    generator: torch.Generator,
    done: float,
) -> tuple[Tensor, LatentState]:
    """What training maximises, (n,), and the state after the last step."""
    start = model.start(params, batch.n, bound.n_samples) if state is None else state

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=model.dtype, device=generator.device).to(start.z.device)

    if bound.objective == "fivo":

        def noise(now: LatentState) -> Noise:
            begin = torch.rand(now.begin.shape, generator=generator, dtype=torch.float64, device=generator.device)
            return Noise(drawn(*now.noise.shape), begin.to(now.begin.device), now.key)

        start = start._replace(**noise(start)._asdict())
        # What is seen before the first scored value is context, which weighs the particles.
        counts = scored.any(-1, keepdim=True)
        seen = torch.where(counts, batch.seen & scored, batch.seen)
        steps, _ = model.run(params, batch._replace(seen=seen), start, noise)
        return torch.where(counts[..., 0], steps.values, 0.0).sum(-1), steps.final
    found = trajectories(model, params, batch, scored, start, drawn(batch.n, batch.t, *start.z.shape[1:]))
    final = map_state(torch.Tensor.detach, found.final)
    if bound.objective == "iwae":
        total = (found.log_lik + found.log_ratio).sum(1)
        value = torch.logsumexp(total, -1) - math.log(total.shape[-1])
    else:
        value = found.log_lik.sum(1).mean(-1) - bound.kl_weight(done) * _cost(model, found, bound.free_bits)
    # The filtering network learns beside the bound, whose value it leaves as it is.
    return value + (found.guiding - found.guiding.detach()), final


def _cost(model: LatentNetwork, found: Trajectories, free: float) -> Tensor:
    """The divergence of each sequence, (n,); below ``free`` nats a step on average, a latent variable costs those."""
    each = found.divergence.mean(2)
    if free <= 0.0:
        return each.sum((1, 2))
    steps, least = found.paid.sum(1), free * model.n_latent / each.shape[-1]
    mean = each.sum((0, 1)) / steps.sum().clamp_min(1)
    return torch.where(mean > least, each.sum(1), least * steps.unsqueeze(-1)).sum(-1)


def elbo(model: LatentNetwork, params: Params, batch: Batch, n_samples: int, generator: torch.Generator) -> Tensor:
    """E_q[log p(x, z) - log q(z | x)] of each sequence, (n,), over ``n_samples`` paths; parameters without draws."""
    return path_values(model, params, batch, n_samples, generator, "elbo").mean(-1)


def iwae(model: LatentNetwork, params: Params, batch: Batch, n_samples: int, generator: torch.Generator) -> Tensor:
    """log 1/m sum_i p(x, z^i) / q(z^i | x), (n,): on average a lower bound, the tighter the more samples.

    References
    ----------
    Burda, Grosse and Salakhutdinov (2016), Importance weighted autoencoders, ICLR.
    """
    return torch.logsumexp(path_values(model, params, batch, n_samples, generator, "iwae"), -1) - math.log(n_samples)


def path_values(
    model: LatentNetwork, params: Params, batch: Batch, n_samples: int, generator: torch.Generator, bound: str
) -> Tensor:
    """What each of ``n_samples`` paths adds to a bound, (n, m) in double precision: the ELBO is their mean.

    For "iwae" they are log p(x, z^i) - log q(z^i | x).
    """
    of = _elbo_of if bound == "elbo" else _ratio_of
    return torch.cat(_evaluated(model, params, batch, n_samples, generator, of), -1).double()


def _elbo_of(found: Trajectories) -> Tensor:
    return found.log_lik.sum(1) - found.divergence.sum((1, 3))


def _ratio_of(found: Trajectories) -> Tensor:
    return (found.log_lik + found.log_ratio).sum(1)


def _evaluated(
    model: LatentNetwork,
    params: Params,
    batch: Batch,
    n_samples: int,
    generator: torch.Generator,
    of: Callable[[Trajectories], Tensor],
) -> list[Tensor]:
    """(n, m) for parts of the samples that fit into memory."""
    if not batch.t:
        return [torch.zeros((batch.n, n_samples), dtype=model.dtype)]
    width = batch.n * batch.t * max(model.hidden_size, model.n_latent, model.observation.n_variables)
    most = max(1, _AT_ONCE // max(1, width))
    scored, parts = batch.seen & batch.real.unsqueeze(-1), []
    with torch.no_grad():
        for first in range(0, n_samples, most):
            m = min(most, n_samples - first)
            noise = torch.randn((batch.n, batch.t, m, model.n_latent), generator=generator, dtype=model.dtype)
            start = model.start(params, batch.n, m)
            parts.append(of(trajectories(model, params, batch, scored, start, noise.to(start.z.device))))
    return parts
