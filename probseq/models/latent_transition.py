"""The prior law of the next latent state, given the last one, the memory and covariates."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from probseq._types import one_of
from probseq.models.dense import Dense, positive
from probseq.models.latent_laws import DiagonalLaw
from probseq.models.recurrent_layout import Part

__all__ = ["TRANSITIONS", "Transition"]

TRANSITIONS = ("gated", "linear")
_NOISE = "transition.noise"


class Transition:
    r"""p(z_t | z_{t-1}, h_t, u_t) = N(mu_t, diag(sigma_t)^2), v_t = (z_{t-1}, h_t, u_t) as far as they are read.

    Gated (Krishnan, Shalit and Sontag 2017, eq. 5): mu = (1 - g) * (A v + b) + g * f(v), with a net of one hidden layer
    for the gate g in (0, 1) and for f, and sigma = softplus(W tanh(f(v)) + c). Linear: mu = A v + b with a constant
    sigma. Where z_{t-1} is not read, (mu, sigma) come from a net of one hidden layer of the rest.

    Parameters
    ----------
    n_latent, n_memory, n_covariates, hidden_size : int
    kind : {"gated", "linear"}
    reads_latent : bool
    """

    def __init__(
        self, n_latent: int, n_memory: int, n_covariates: int, hidden_size: int, kind: str, reads_latent: bool
    ) -> None:
        one_of("transition", kind, TRANSITIONS)
        self.n_latent, self.reads_latent = n_latent, reads_latent
        self.kind = kind if reads_latent else "free"
        inputs = (n_latent if reads_latent else 0, n_memory, n_covariates)
        self.nets: dict[str, Dense] = {}
        if self.kind == "free":
            self.nets["free"] = Dense("transition.free", inputs, (hidden_size, 2 * n_latent))
            return
        self.nets["linear"] = Dense("transition.linear", inputs, (n_latent,))
        if kind == "gated":
            self.nets["gate"] = Dense("transition.gate", inputs, (hidden_size, n_latent))
            self.nets["proposed"] = Dense("transition.proposed", inputs, (hidden_size, n_latent))
            self.nets["scale"] = Dense("transition.scale", (n_latent,), (n_latent,))

    @property
    def parts(self) -> dict[str, Part]:
        parts: dict[str, Part] = {}
        for net in self.nets.values():
            parts |= net.parts
        if self.kind == "linear":
            parts[_NOISE] = Part((self.n_latent,), "dense_bias", 1.0)
        return parts

    def start(self, weights: Mapping[str, Tensor], generator: torch.Generator) -> None:
        """Fill the weights: the linear part keeps z_{t-1} as it is."""
        for net in self.nets.values():
            net.start(weights, generator)
        if self.kind == "free":
            return
        matrix = weights["transition.linear.0.weight"]
        matrix[:, : self.n_latent] = torch.eye(self.n_latent, dtype=matrix.dtype)
        if self.kind == "linear":
            weights[_NOISE].zero_()

    def __call__(
        self, weights: Mapping[str, Tensor], z: Tensor, memory: Tensor | None, u: Tensor | None
    ) -> DiagonalLaw:
        """The law, (*draw, ..., d), from inputs that broadcast against each other; absent ones are None."""
        inputs = {0: z} if self.reads_latent else {}
        inputs |= {} if memory is None else {1: memory}
        inputs |= {} if u is None else {2: u}
        if self.kind == "free":
            loc, scale = self._net(weights, "free", inputs).chunk(2, -1)
            return DiagonalLaw(loc, positive(scale))
        plain = self._net(weights, "linear", inputs)
        if self.kind == "linear":
            noise = positive(weights[_NOISE])
            noise = noise.reshape(*noise.shape[:-1], *(1,) * (plain.ndim - noise.ndim), noise.shape[-1])
            return DiagonalLaw(plain, noise.expand_as(plain))
        gate = torch.sigmoid(self._net(weights, "gate", inputs))
        proposed = self._net(weights, "proposed", inputs)
        scale = positive(self.nets["scale"](weights, torch.tanh(proposed)))
        return DiagonalLaw(torch.lerp(plain, proposed, gate), scale)

    def _net(self, weights: Mapping[str, Tensor], name: str, inputs: Mapping[int, Tensor]) -> Tensor:
        net = self.nets[name]
        return net.finish(weights, net.first(weights, inputs))
