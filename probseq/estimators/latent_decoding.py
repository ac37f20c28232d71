"""Paths of latent variables written as values."""

from __future__ import annotations

import torch
from torch import Tensor

from probseq.distributions.base import Distribution
from probseq.distributions.compose import mixture, push
from probseq.errors import UnsupportedError
from probseq.models.latent_network import LatentNetwork
from probseq.models.marginal import Marginalized
from probseq.models.wrappers import ElementwiseModel, innermost, layers
from probseq.results.backends import LawBackend

__all__ = ["centre_of", "decode_paths"]


def decode_paths(fitted: Marginalized, z: Tensor, u: Tensor | None = None) -> Tensor:
    """E[x_t | z_t, h_t] on the scale of the data, averaged over draws, (m, t, k); for categories the most probable one.

    h_t is what the network remembers of the values that were written before.

    Parameters
    ----------
    z : (draw, m, t, d)
    u : (m, t, covariate) or None

    Raises
    ------
    UnsupportedError
        Behind a transform that needs values to start from, or rounds them.
    """
    wrappers, network = layers(fitted.model), innermost(fitted.model)
    if not all(isinstance(wrapper, ElementwiseModel) for wrapper in wrappers):
        raise UnsupportedError(
            got="interpolation behind Difference(), ContextScale() or Discretize()",
            expected="a model of the values",
            remedy="Scale with Standardize(), which standardize=True does.",
        )
    if not isinstance(network, LatentNetwork):
        raise TypeError(f"{type(network).__name__} is no network with latent variables")
    n_draws, m, t, _ = z.shape
    weights = fitted.log_weights.to(network.dtype).expand(m, n_draws)
    found = []
    with torch.no_grad():
        w = network.split(fitted.params)
        state = network.start(fitted.params, m, 1)
        own, shared = state.own, state.shared
        for i in range(t):
            now = z[:, :, i].unsqueeze(-2).to(network.dtype)
            inputs = None if u is None else u[:, i].to(network.dtype)
            laws = network.law(w, now, own, shared, inputs)[..., 0]
            law = mixture(weights, laws.movedim(0, 1))
            for wrapper in reversed(wrappers):
                law = push(law, wrapper.bijection)  # type: ignore[attr-defined]
            found.append(centre_of(law.reshape(1, m))[0])
            written = centre_of(laws.reshape(1, n_draws * m))[0].unflatten(0, (n_draws, m))
            read = network.read(w, written, torch.ones_like(written, dtype=torch.bool), inputs)
            own, shared = network.advance(w, now, own, shared, read)
    return torch.stack(found, 1)


def centre_of(law: Distribution) -> Tensor:
    """The mean of each number and the most probable of categories, (1, n, k)."""
    backend = LawBackend(law)
    nominal = torch.as_tensor(backend.nominal_variables)
    mean = torch.zeros(backend.shape, dtype=torch.float64)
    if not bool(nominal.all()):
        mean = torch.as_tensor(backend.mean()).double()
    return torch.where(nominal, torch.as_tensor(backend.mode()), mean) if bool(nominal.any()) else mean
