"""The three families of networks with latent variables: they differ in what is remembered."""

from __future__ import annotations

from typing import ClassVar

from probseq.models.latent_network import LatentNetwork

__all__ = ["DeepMarkovModel", "StochasticRecurrentModel", "VariationalRecurrentModel"]


class DeepMarkovModel(LatentNetwork):
    """z_t ~ p(z_t | z_{t-1}, u_t), x_t ~ p(x_t | z_t, u_t): a hidden Markov chain of real vectors, without h_t.

    Missing values are integrated out (by the particles): nothing depends on them.

    References
    ----------
    Krishnan, Shalit and Sontag (2017), Structured inference networks for nonlinear state space models, AAAI.
    """


class VariationalRecurrentModel(LatentNetwork):
    """z_t ~ p(z_t | h_t), x_t ~ p(x_t | z_t, h_t), h_{t+1} = cell(h_t, x_t, z_t, u_t): every path has its own memory.

    References
    ----------
    Chung, Kastner, Dinh, Goel, Courville and Bengio (2015), A recurrent latent variable model for sequential data,
    NeurIPS.
    """

    memory: ClassVar[str] = "path"
    markov: ClassVar[bool] = False
    filters: ClassVar[str] = "none"


class StochasticRecurrentModel(LatentNetwork):
    """z_t ~ p(z_t | z_{t-1}, h_t), x_t ~ p(x_t | z_t, h_t), h_{t+1} = cell(h_t, x_t, u_t): the memory is of the data.

    References
    ----------
    Fraccaro, Sonderby, Paquet and Winther (2016), Sequential neural models with stochastic layers, NeurIPS.
    """

    memory: ClassVar[str] = "data"
    filters: ClassVar[str] = "none"
