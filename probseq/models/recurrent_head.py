"""From what a network remembers to the law of the next value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from probseq.distributions.base import Distribution
from probseq.distributions.emissions import Categorical, Emission, Observation
from probseq.distributions.params import ParamSpec, Real, unconstrained_size
from probseq.errors import IncompatibleError
from probseq.models.recurrent_embedding import Embedding
from probseq.models.recurrent_layout import Part

__all__ = ["HeadLayer", "LocalNoise"]

_LARGEST_SAMPLE = 10_000
_TINY = 1e-12
# The spread that constant values are given where a law is started, as a fraction of their size.
_APART = 0.02


class LocalNoise(NamedTuple):
    """scale : the standard deviations of the head's weights by name; generator : of the noise."""

    scale: Mapping[str, Tensor]
    generator: torch.Generator


class HeadLayer:
    r"""x_t ~ emission(o_t), o_t = A f_t + B z_t + b, with features f_t of the memory and inputs z_t of the step.

    With ``tied`` embeddings the logit of category c of variable i is v_i(c) . q_i + b_ic with the query
    q = A f_t + B z_t, so that a token is written with the vector it is read with (Press and Wolf 2017, eq. 1). Where
    one variable's vectors have as many units as the features, A is the identity and no weight.

    Parameters of the emission that do not vary in time are learnt once, beside these weights.

    Parameters
    ----------
    emission : Emission
    observation : Observation
    n_features, n_inputs : int
    n_read : int
        Number of values among the inputs, which sets the prior of B.
    tied : Embedding or None

    Raises
    ------
    IncompatibleError
        For tied embeddings under a head without categories.
    """

    def __init__(
        self,
        emission: Emission,
        observation: Observation,
        n_features: int,
        n_inputs: int,
        n_read: int,
        tied: Embedding | None = None,
    ) -> None:
        if tied is not None and not isinstance(emission, Categorical):
            raise IncompatibleError(
                got=f"tied embeddings with head={emission!r}",
                expected="a head of categories",
                remedy="Use head=Categorical(), or tie_embeddings=False.",
            )
        self.emission, self.observation, self.tied = emission, observation, tied
        self.n_features, self.n_inputs, self.n_read = n_features, n_inputs, n_read
        self.constants: dict[str, ParamSpec] = emission.constant_specs(observation)
        self.n_outputs = unconstrained_size(emission.output_specs(observation))
        rows = self.n_outputs if tied is None else observation.n_variables * tied.size
        self.shape = (rows, n_features)
        self.identity = tied is not None and observation.n_variables == 1 and tied.size == n_features

    @property
    def parts(self) -> dict[str, Part]:
        """The weights of the head with their priors."""
        rows, n_features = self.shape
        parts = {} if self.identity else {"head.hidden": Part(self.shape, "head", 0.5 * n_features**-0.5)}
        parts["head.direct"] = Part((rows, self.n_inputs), "head", self.n_read**-0.5)
        parts["head.bias"] = Part((self.n_outputs,), "head_bias", 10.0)
        for name, spec in self.constants.items():
            size = spec.constraint.size(spec.shape)
            part = Part((size,), "constant", 1.0)
            if isinstance(spec.prior, torch.distributions.Normal) and isinstance(spec.constraint, Real):
                location, scale = (value.expand(spec.shape).flatten() for value in (spec.prior.mean, spec.prior.stddev))
                part = part._replace(scale=scale, location=location)
            parts[f"head.constant.{name}"] = part
        return parts

    def law(
        self, weights: Mapping[str, Tensor], features: Tensor, inputs: Tensor, local: LocalNoise | None = None
    ) -> Distribution:
        """Laws of batch shape (*draw, r) from features (*draw, r, f) and inputs (*draw, r, i).

        With ``local`` noise A, B and b are N(their value, scale^2) with independent entries; what they make of each row
        is drawn, not they themselves.
        """
        moved = torch.matmul(inputs, weights["head.direct"].mT)
        moved = moved + (features if self.identity else torch.matmul(features, weights["head.hidden"].mT))
        if local is not None:
            moved = moved + self._local_noise(local, features, inputs)
        if self.tied is not None:
            queries = moved.unflatten(-1, (self.observation.n_variables, self.tied.size))
            moved = self.tied.scores(weights["embedding"], queries).flatten(-2)
        moved = moved + weights["head.bias"].unsqueeze(-2)
        if local is not None:
            moved = moved + local.scale["head.bias"].unsqueeze(-2) * _normal_like(moved, local.generator)
        return self._law(moved, weights)

    def _local_noise(self, local: LocalNoise, features: Tensor, inputs: Tensor) -> Tensor:
        """N(0, sum_j scale_ij^2 f_j^2 + sum_j scale_ij^2 z_j^2) for each row and output."""
        variance = torch.matmul(inputs.square(), local.scale["head.direct"].square().mT)
        if not self.identity:
            variance = variance + torch.matmul(features.square(), local.scale["head.hidden"].square().mT)
        # The slope of the root is infinite at zero, where all that is read is zero.
        return variance.clamp_min(_TINY).sqrt() * _normal_like(variance, local.generator)

    def _law(self, outputs: Tensor, weights: Mapping[str, Tensor]) -> Distribution:
        if not self.constants:
            return self.emission.from_outputs(outputs, self.observation)
        known = {
            name: spec.constraint.constrain(weights[f"head.constant.{name}"], spec.shape)
            for name, spec in self.constants.items()
        }
        return self.emission.from_outputs(outputs, self.observation, known)

    def start(
        self,
        weights: Mapping[str, Tensor],
        bound: float,
        x: Tensor,
        seen: Tensor,
        generator: torch.Generator,
    ) -> None:
        """Fill the weights: the law is that of all values seen (n, t, k), and hardly depends on the memory.

        Parameters
        ----------
        bound : float
            Largest size of an entry of A.
        """
        if not self.identity:
            weights["head.hidden"].uniform_(-bound, bound, generator=generator)
        if self.constants:
            values = self.emission.initial_constants(self.observation, generator)
            for name, spec in self.constants.items():
                flat = spec.constraint.unconstrain(values[name], spec.shape)
                weights[f"head.constant.{name}"].copy_(flat)
        weights["head.bias"].copy_(self._marginal_outputs(weights, x, seen, generator))

    def _marginal_outputs(
        self, weights: Mapping[str, Tensor], x: Tensor, seen: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Outputs, constant in time, that fit the values best, (n_outputs,)."""
        rows = seen.any(-1)
        x, seen = x[rows].double(), seen[rows]
        if len(x) > _LARGEST_SAMPLE:
            chosen = torch.randperm(len(x), generator=generator)[:_LARGEST_SAMPLE]
            x, seen = x[chosen], seen[chosen]
        outputs = self.emission.initial_outputs(self.observation).requires_grad_()
        if not len(x):
            return outputs.detach()
        x, seen = self._spread(x, seen)
        constants = {name: value.double() for name, value in weights.items() if name.startswith("head.constant.")}
        optimizer = torch.optim.LBFGS([outputs], max_iter=50, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimizer.zero_grad()
            law = self._law(outputs, constants)
            value = -law.expand(torch.Size([len(x)])).training_score(x, seen).mean() + 1e-4 * (outputs**2).sum()
            value.backward()
            return value

        with torch.enable_grad():
            optimizer.step(loss)
        return torch.nan_to_num(outputs.detach(), 0.0, 0.0, 0.0)

    def _spread(self, x: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Values (r, k) and which are seen; those that are constant are taken twice, a little apart.

        The law of a constant has the scale 0, from which no gradient leads away.
        """
        shiftable = self.emission.shiftable
        anywhere = torch.tensor(shiftable if isinstance(shiftable, tuple) else (shiftable,) * x.shape[-1])
        size = torch.where(anywhere, x.abs().clamp_min(1.0), x.abs())
        most = torch.where(seen, x, -torch.inf).amax(0)
        least = torch.where(seen, x, torch.inf).amin(0)
        constant = ~self.observation.discrete_variables & (most - least <= 1e-6 * most.abs())
        if not bool(constant.any()):
            return x, seen
        return torch.cat([x, torch.where(constant, x - _APART * size, x)]), torch.cat([seen, seen])


def _normal_like(values: Tensor, generator: torch.Generator) -> Tensor:
    return torch.empty_like(values).normal_(generator=generator)
