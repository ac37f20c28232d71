"""Emissions: what a state, or a network's output, says about one observed event."""

from probseq.distributions.emissions.base import Emission, Observation
from probseq.distributions.emissions.categorical import Bernoulli, Categorical
from probseq.distributions.emissions.conditional import ConditionalEmission
from probseq.distributions.emissions.counts import Poisson
from probseq.distributions.emissions.normal import Normal, normal_from_moments
from probseq.distributions.emissions.product import Product
from probseq.distributions.emissions.regression import AutoregressiveNormal, NormalRegression, PoissonRegression
from probseq.distributions.emissions.student import StudentT
from probseq.distributions.emissions.tied import Tied

__all__ = [
    "AutoregressiveNormal",
    "Bernoulli",
    "Categorical",
    "ConditionalEmission",
    "Emission",
    "Normal",
    "NormalRegression",
    "Observation",
    "Poisson",
    "PoissonRegression",
    "Product",
    "StudentT",
    "Tied",
    "normal_from_moments",
]
