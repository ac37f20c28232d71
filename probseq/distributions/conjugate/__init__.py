"""Conjugate priors: laws of parameters that keep their form when data come in.

Weakly informative by default, scaled to the data; every hyper-parameter can be set by its name. Sources: Bernardo and
Smith (2000), appendix A; Gelman et al. (2013), chapters 2, 3 and 23.
"""

from __future__ import annotations

from torch import Tensor

from probseq.distributions.conjugate.base import ConjugateLaw, Settings, check_names
from probseq.distributions.conjugate.counts import BetaBits, GammaRates
from probseq.distributions.conjugate.dirichlet import DirichletCategories, DirichletRows
from probseq.distributions.conjugate.normal import NormalGamma
from probseq.distributions.conjugate.product import ProductLaw
from probseq.distributions.conjugate.wishart import NormalWishart
from probseq.distributions.emissions import Bernoulli, Categorical, Emission, Normal, Observation, Poisson, Product
from probseq.errors import IncompatibleError

__all__ = [
    "BetaBits",
    "ConjugateLaw",
    "DirichletCategories",
    "DirichletRows",
    "GammaRates",
    "NormalGamma",
    "NormalWishart",
    "ProductLaw",
    "Settings",
    "check_names",
    "conjugate_family",
    "conjugate_names",
    "conjugate_prior",
]


def conjugate_family(emission: Emission) -> type[ConjugateLaw]:
    """The family of laws of an emission's parameters.

    Raises
    ------
    IncompatibleError
        for an emission without a conjugate prior.
    """
    if type(emission) is Normal:
        return NormalGamma if emission.covariance in ("diag", "spherical") else NormalWishart
    kinds = ((Poisson, GammaRates), (Categorical, DirichletCategories), (Bernoulli, BetaBits), (Product, ProductLaw))
    for kind, family in kinds:
        if type(emission) is kind:
            return family
    raise IncompatibleError(
        got=f"a conjugate prior for {type(emission).__name__}",
        expected="Normal, Poisson, Categorical, Bernoulli, or a Product of these",
        remedy="Other emissions have no conjugate prior: NUTS and Laplace draw without one.",
    )


def conjugate_names(emission: Emission) -> tuple[str, ...]:
    """The hyper-parameters of an emission's prior that can be set.

    Raises
    ------
    IncompatibleError
        for an emission without a conjugate prior.
    """
    if type(emission) is Product:
        return tuple(f"{p.prefix}_{name}" for p in emission.parts() for name in conjugate_names(p.emission))
    return conjugate_family(emission).names


def conjugate_prior(
    emission: Emission, observation: Observation, n_states: int, x: Tensor, seen: Tensor, settings: Settings
) -> ConjugateLaw:
    """The prior of an emission's parameters in every state, from data (n, t, k) and what a user has set.

    Raises
    ------
    IncompatibleError
        for an emission without a conjugate prior.
    ParameterError
        for names, shapes or values that the prior does not have.
    """
    check_names(settings, conjugate_names(emission), type(emission).__name__)
    return conjugate_family(emission).weak(emission, observation, n_states, x, seen, settings)
