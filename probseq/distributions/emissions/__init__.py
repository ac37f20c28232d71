"""Emissions: what a state, or a network's output, says about one observed event."""

from probseq.distributions.emissions.autoregressive_bernoulli import AutoregressiveBernoulli
from probseq.distributions.emissions.base import Emission, Observation, SufficientEmission
from probseq.distributions.emissions.beta import Beta
from probseq.distributions.emissions.categorical import Bernoulli, Categorical
from probseq.distributions.emissions.conditional import ConditionalEmission
from probseq.distributions.emissions.counts import NegativeBinomial, Poisson, ZeroInflatedPoisson
from probseq.distributions.emissions.gamma import Gamma
from probseq.distributions.emissions.lognormal import LogNormal
from probseq.distributions.emissions.low_rank import LowRankNormal
from probseq.distributions.emissions.mixture import GaussianMixture
from probseq.distributions.emissions.multinomial import Multinomial
from probseq.distributions.emissions.normal import Normal, normal_from_moments
from probseq.distributions.emissions.product import Product
from probseq.distributions.emissions.quantiles import Quantiles
from probseq.distributions.emissions.regression import AutoregressiveNormal, NormalRegression, PoissonRegression
from probseq.distributions.emissions.student import StudentT
from probseq.distributions.emissions.tied import Tied
from probseq.distributions.emissions.vonmises import VonMises

__all__ = [
    "AutoregressiveBernoulli",
    "AutoregressiveNormal",
    "Bernoulli",
    "Beta",
    "Categorical",
    "ConditionalEmission",
    "Emission",
    "Gamma",
    "GaussianMixture",
    "LogNormal",
    "LowRankNormal",
    "Multinomial",
    "NegativeBinomial",
    "Normal",
    "NormalRegression",
    "Observation",
    "Poisson",
    "PoissonRegression",
    "Product",
    "Quantiles",
    "StudentT",
    "SufficientEmission",
    "Tied",
    "VonMises",
    "ZeroInflatedPoisson",
    "normal_from_moments",
]
