"""Priors of parameters: which a user gave, which a model brings, and weak ones for the rest."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Dirichlet, Distribution

from probseq.distributions.params import Params, ParamSpec, PositiveDefinite, Simplex, Sparse
from probseq.errors import ParameterError

__all__ = ["checked_priors", "in_precision", "log_prior"]

_PROBES = 64


def checked_priors(specs: Mapping[str, ParamSpec], given: Mapping[str, Any] | None) -> dict[str, Distribution]:
    """The priors to use, by parameter: those given, else those that the model's specifications bring.

    Parameters
    ----------
    specs : of the model
    given : mapping of ``torch.distributions`` (Pyro's are such) by the name of a parameter; None is none. The name
        mapped to None takes the model's own prior away.

    Raises
    ------
    ParameterError
        For a name that the model does not have, an object that is no distribution, a shape that does not broadcast to
        the parameter's, or a support that leaves out values which the parameter may take.
    """
    chosen = {name: spec.prior for name, spec in specs.items() if spec.trainable and spec.prior is not None}
    if given is not None and not isinstance(given, Mapping):
        raise ParameterError(
            got=f"priors={given!r}",
            expected="a dict of distributions by the name of the parameter",
            remedy='Write priors={"transition": torch.distributions.Dirichlet(...)}.',
        )
    for name, prior in (given or {}).items():
        if name not in specs or not specs[name].trainable:
            known = sorted(n for n, spec in specs.items() if spec.trainable)
            raise ParameterError(
                got=f"a prior for {name!r}", expected=f"the name of a parameter: {known}", remedy="Check the spelling."
            )
        if prior is None:
            chosen.pop(name, None)
            continue
        if not isinstance(prior, Distribution):
            raise ParameterError(
                got=f"the prior {prior!r} for {name!r}",
                expected="a distribution of torch.distributions or pyro.distributions",
                remedy="Write, for example, torch.distributions.Normal(0.0, 10.0).",
            )
        _check_prior(name, specs[name], prior)
        chosen[name] = prior
    return {name: in_precision(prior) for name, prior in chosen.items()}


def log_prior(specs: Mapping[str, ParamSpec], priors: Mapping[str, Distribution], params: Params) -> Tensor:
    """sum log p(parameter), over the constrained values, (*draw,) in nats; flat parameters add nothing."""
    total: Tensor | None = None
    for name, prior in priors.items():
        spec, value = specs[name], params[name]
        lead = value.ndim - len(spec.shape)
        simplex = spec.constraint if isinstance(spec.constraint, Simplex) else None
        if simplex is not None and isinstance(prior, Dirichlet):
            each = _log_dirichlet(prior.concentration, value, simplex.free(spec.shape))
        else:
            each = prior.log_prob(value)
            if isinstance(spec.constraint, Sparse) and not prior.event_shape:
                # Structural zeros are no parameters.
                each = torch.where(spec.constraint.support, each, torch.zeros_like(each))
        part = each.reshape(*value.shape[:lead], -1).sum(-1)
        total = part if total is None else total + part
    if total is None:
        for name, spec in specs.items():
            value = params[name]
            return torch.zeros(value.shape[: value.ndim - len(spec.shape)], dtype=torch.float64)
        return torch.zeros((), dtype=torch.float64)
    return total


def _log_dirichlet(concentration: Tensor, value: Tensor, free: Tensor) -> Tensor:
    """Log density of the shares of the free entries, (*draw, *rows): structural zeros and fixed entries have none."""
    if bool(free.all()):
        constant = torch.lgamma(concentration.sum(-1)) - torch.lgamma(concentration).sum(-1)
        return torch.xlogy(concentration - 1.0, value).sum(-1) + constant
    alpha = torch.where(free, concentration, torch.zeros_like(concentration))
    kept = torch.where(free, value, torch.zeros_like(value))
    total = kept.sum(-1, keepdim=True)
    shares = torch.where(free, value / torch.where(total > 0, total, torch.ones_like(total)), torch.ones_like(value))
    several = free.sum(-1) > 1
    density = torch.where(free, torch.xlogy(alpha - 1.0, shares), torch.zeros_like(shares)).sum(-1)
    each = torch.where(free, torch.lgamma(torch.where(free, alpha, torch.ones_like(alpha))), torch.zeros_like(alpha))
    constant = torch.lgamma(torch.where(several, alpha.sum(-1), torch.ones_like(alpha.sum(-1)))) - each.sum(-1)
    return torch.where(several, density + constant, torch.zeros_like(density))


def _check_prior(name: str, spec: ParamSpec, prior: Distribution) -> None:
    shape = tuple(prior.batch_shape) + tuple(prior.event_shape)
    event = len(prior.event_shape)
    try:
        fits = tuple(torch.broadcast_shapes(shape, spec.shape)) == tuple(spec.shape)
    except RuntimeError:
        fits = False
    if not fits or (event and tuple(prior.event_shape) != tuple(spec.shape[-event:])):
        raise ParameterError(
            got=f"a prior of shape {shape} for {name!r}",
            expected=f"one that broadcasts to {tuple(spec.shape)} {spec.dims}",
            remedy="A scalar prior serves every entry; a Dirichlet has one concentration a category.",
        )
    needed = {Simplex: 1, PositiveDefinite: 2}.get(type(spec.constraint), 0)
    if event < needed or not _covers(spec, prior):
        raise ParameterError(
            got=f"the prior {prior!r} for {name!r}",
            expected=f"a distribution over all values of {type(spec.constraint).__name__}",
            remedy="Its support must contain every value that the parameter may take; probabilities that sum to one "
            "take a Dirichlet.",
        )
    structured = isinstance(spec.constraint, Simplex) and not bool(spec.constraint.free(spec.shape).all())
    if structured and not isinstance(prior, Dirichlet):
        raise ParameterError(
            got=f"the prior {prior!r} for {name!r}, some of whose entries are known",
            expected="a Dirichlet, which is taken over the free entries of each row",
            remedy="Write torch.distributions.Dirichlet(...).",
        )


def _covers(spec: ParamSpec, prior: Distribution) -> bool:
    """Whether values from all over the parameter's range are in the support of the prior."""
    size = spec.constraint.size(spec.shape)
    generator = torch.Generator().manual_seed(0)
    spread = torch.tensor([0.1, 1.0, 3.0, 10.0], dtype=torch.float64).repeat(_PROBES // 4).unsqueeze(-1)
    flat = spread * torch.randn(_PROBES, size, generator=generator, dtype=torch.float64)
    values = spec.constraint.constrain(flat, spec.shape)
    try:
        support: Any = prior.support
        return bool(support.check(values).all())
    except NotImplementedError:
        return True  # a law that does not tell its support


def in_precision(
    prior: Distribution, dtype: torch.dtype = torch.float64, device: torch.device | None = None
) -> Distribution:
    """The same law with its arithmetic in another precision, and on another device."""
    twin = copy.copy(prior)
    for name, value in vars(prior).items():
        if isinstance(value, Tensor) and value.is_floating_point():
            twin.__dict__[name] = value.to(dtype=dtype, device=device)
        elif isinstance(value, Distribution):
            twin.__dict__[name] = in_precision(value, dtype, device)
    return twin
