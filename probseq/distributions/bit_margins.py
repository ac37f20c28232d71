"""The single bits of mixtures of laws of bits: each is one number, whatever the mixture is made of."""

from __future__ import annotations

import torch
from torch import Tensor

from probseq.distributions.autoregressive_bits import AutoregressiveBits
from probseq.distributions.base import Distribution
from probseq.distributions.categorical import Bits
from probseq.distributions.compose import Mixture

__all__ = ["single_bits"]

_CHUNK = 1 << 19


def single_bits(law: Distribution) -> Distribution:
    """The bits of a law as if they were independent, each with its marginal probability; any other law as it is.

    Where the margins of the components are averages over draws, so are those of a mixture, over as many draws of it,
    spread evenly over the components by their weights.
    """
    if isinstance(law, AutoregressiveBits):
        return law.bits
    if not isinstance(law, Mixture) or not isinstance(law.components, AutoregressiveBits | Bits):
        return law
    with torch.no_grad():
        inner = law.components
        drawn = isinstance(inner, AutoregressiveBits) and inner.margin_draws
        p = _drawn(law, inner, int(drawn)) if isinstance(inner, AutoregressiveBits) and drawn else law.mean
    return Bits(logit=torch.logit(p.double(), eps=torch.finfo(p.dtype).eps))


def _drawn(law: Mixture, inner: AutoregressiveBits, n_draws: int) -> Tensor:
    """P(x_i = 1) of a mixture, (*B, k)."""
    weights = law.weights.detach().double().flatten(0, -2)
    size = weights.shape[-1]
    total = weights.cumsum(-1)
    places = (torch.arange(n_draws, device=total.device) + 0.5) / n_draws * total[:, -1:]
    chosen = torch.searchsorted(total, places).clamp_max(size - 1)
    every = inner.reshape(-1)
    at = chosen + size * torch.arange(len(weights), device=total.device).unsqueeze(-1)
    generator = torch.Generator(total.device).manual_seed(0)
    step, parts = max(1, _CHUNK // (n_draws * inner.hidden_bias.shape[-1])), []
    for first in range(0, len(at), step):
        part = _taken(every, at[first : first + step].flatten())
        parts.append(part.chances(generator).unflatten(0, (-1, n_draws)).mean(1))
    p = torch.cat(parts) if parts else weights.new_zeros((0, inner.n_variables))
    return p.reshape(*law.batch_shape, inner.n_variables)


def _taken(law: AutoregressiveBits, rows: Tensor) -> AutoregressiveBits:
    """Some of a batch (r,)."""
    return law.map_batch(lambda t, e: t[rows])
