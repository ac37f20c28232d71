"""Inverse autoregressive flows: normal noise bent into laws whose coordinates depend on each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from probseq.models.dense import affine
from probseq.models.recurrent_layout import Part

__all__ = ["Flow"]

# Makes sigma 0.88 where the net says nothing: a flow begins near the identity.
_BIAS = 2.0


class _Masks(NamedTuple):
    """inward : (h, d) and outward : (2 d, h), True where a weight counts; order : the coordinates from first to last"""

    inward: Tensor
    outward: Tensor
    order: list[int]


class Flow:
    r"""z' = sigma * z + (1 - sigma) * m, sigma = sigmoid(s + 2), with (m, s) of coordinate i from c and z_1 .. z_i-1.

    That net has one hidden layer, tanh(A z + C c + b), and masks through which no later coordinate is seen (MADE);
    log |det dz'/dz| = sum_i log sigma_i. Layers follow one another, every other one in the reverse order.

    Parameters
    ----------
    name : str
        First part of the names of its pieces: "name.0.inward", "name.0.context", ...
    n_latent, n_context : int
        Sizes of z and of c.
    hidden_size : int
        Units of the hidden layer, of which there are at least as many as coordinates.
    n_layers : int

    References
    ----------
    Kingma, Salimans, Jozefowicz, Chen, Sutskever and Welling (2016), Improved variational inference with inverse
    autoregressive flow, NeurIPS, eq. 14; Germain, Gregor, Murray and Larochelle (2015), MADE, ICML.
    """

    def __init__(self, name: str, n_latent: int, n_context: int, hidden_size: int, n_layers: int) -> None:
        self.n_latent, self.n_context, self.hidden_size = n_latent, n_context, max(hidden_size, n_latent)
        self.names = [f"{name}.{i}" for i in range(n_layers)]
        self.masks = [self._mask(backwards=bool(i % 2)) for i in range(n_layers)]

    def _mask(self, backwards: bool) -> _Masks:
        place = torch.arange(1, self.n_latent + 1)
        place = place.flip(0) if backwards else place
        # The last coordinate that a hidden unit looks at, from 0, nothing but the context, to the last but one.
        unit = torch.linspace(1, self.n_latent, self.hidden_size).round().long() - 1
        outward = place.repeat(2).unsqueeze(-1) > unit
        return _Masks(unit.unsqueeze(-1) >= place, outward, place.argsort().tolist())

    @property
    def parts(self) -> dict[str, Part]:
        """The weights, with the prior scale 1 / sqrt(columns) of a matrix and 1 of a bias."""
        parts, h = {}, self.hidden_size
        for name in self.names:
            for piece, shape in (
                ("inward", (h, self.n_latent)),
                ("context", (h, self.n_context)),
                ("outward", (2 * self.n_latent, h)),
            ):
                parts[f"{name}.{piece}"] = Part(shape, "dense", max(1, shape[1]) ** -0.5)
            parts[f"{name}.hidden_bias"] = Part((h,), "dense_bias", 1.0)
            parts[f"{name}.bias"] = Part((2 * self.n_latent,), "dense_bias", 1.0)
        return parts

    def start(self, weights: Mapping[str, Tensor], generator: torch.Generator) -> None:
        """Fill the weights: uniform between +- 1 / sqrt(columns), a tenth of that outward, biases zero."""
        for name, part in self.parts.items():
            if part.kind == "dense_bias":
                weights[name].zero_()
                continue
            bound = float(part.scale) * (0.1 if name.endswith("outward") else 1.0)
            weights[name].uniform_(-bound, bound, generator=generator)

    def __call__(self, weights: Mapping[str, Tensor], z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """z' (*draw, ..., d) and log |det dz'/dz| (*draw, ...), from z and c (*draw, ..., size of c)."""
        total = torch.zeros_like(z[..., 0])
        for i, name in enumerate(self.names):
            shift, log_scale = self._net(weights, i, z, self._known(weights, name, context))
            z, total = torch.lerp(shift, z, log_scale.exp()), total + log_scale.sum(-1)
        return z, total

    def inverse(self, weights: Mapping[str, Tensor], z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """z and log |det dz'/dz| from z': one coordinate after the other."""
        total = torch.zeros_like(z[..., 0])
        for i in reversed(range(len(self.names))):
            known = self._known(weights, self.names[i], context)
            found = torch.zeros_like(z)
            for coordinate in self.masks[i].order:
                shift, log_scale = self._net(weights, i, found, known)
                here = torch.arange(self.n_latent, device=z.device) == coordinate
                found = torch.where(here, shift + (z - shift) * torch.exp(-log_scale), found)
            # A coordinate's net does not look at the last one, which alone has changed since.
            z, total = found, total + log_scale.sum(-1)
        return z, total

    def _known(self, weights: Mapping[str, Tensor], name: str, context: Tensor) -> Tensor:
        return affine(context, weights[f"{name}.context"], weights[f"{name}.hidden_bias"])

    def _net(self, weights: Mapping[str, Tensor], i: int, z: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """m and log sigma of a layer, each (*draw, ..., d)."""
        name = self.names[i]
        inward, outward = weights[f"{name}.inward"], weights[f"{name}.outward"]
        inward = inward * self.masks[i].inward.to(inward.device)
        outward = outward * self.masks[i].outward.to(outward.device)
        hidden = torch.tanh(affine(z, inward) + known)
        shift, logit = affine(hidden, outward, weights[f"{name}.bias"]).chunk(2, -1)
        return shift, logsigmoid(logit + _BIAS)
