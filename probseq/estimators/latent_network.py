"""Generative networks with latent variables for users."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import numpy as np

from probseq._random import RandomState
from probseq._types import Rule, one_of, or_none, truth_value, whole_number
from probseq.distributions.emissions import Emission
from probseq.errors import IncompatibleError
from probseq.estimators.latent_imputation import LatentImputation
from probseq.estimators.network_bounds import NetworkBounds
from probseq.estimators.network_values import check_sizes, standardized
from probseq.estimators.pipeline import DataInfo, emission_without_inputs
from probseq.inference.amortized import AmortizedVI
from probseq.inference.base import Inference
from probseq.inference.ensemble import Ensemble
from probseq.models.base import SequenceModel
from probseq.models.latent_families import DeepMarkovModel, StochasticRecurrentModel, VariationalRecurrentModel
from probseq.models.latent_network import PROPOSALS, LatentNetwork
from probseq.models.latent_transition import TRANSITIONS
from probseq.models.transforms import Transform

__all__ = ["LOOKS", "SRNN", "VRNN", "DeepMarkov"]

LOOKS = ("left", "right", "both")
_COUNT = partial(whole_number, lowest=1)

_PARAMETERS = """

    Trained on a lower bound of the likelihood (``AmortizedVI``), scored by particles. ``log_prob`` and all that follows
    from it is an estimate: the logarithm of a particle filter's unbiased estimate of p(x_1:T), FIVO, which is a lower
    bound on average, and the tighter the more particles there are; its ``attrs`` say so, with the Monte Carlo error.
    `elbo` and `iwae` are the other two bounds.

    Parameters
    ----------
    n_latent : int
        Numbers in z_t.
    hidden_size : int
        Units of every hidden layer, and of h_t.
    head : Emission
        The law of a value given z_t; None is ``Normal()``. ``Bernoulli()`` or ``AutoregressiveBernoulli(rank)`` for
        piano rolls, ``Categorical()`` for text, ``Poisson()`` for counts, ``StudentT()`` for outliers.
    emission_layers : int
        Hidden layers between the latent variables and the head; 0 is a linear map.
    look : "left", "right", "both" or None
        What the law that training draws z_t from is told beside z_t-1: the values up to step t, those from t on, or
        all. None is {own}. Forecasts and scores use the past alone, whatever this is.
    {transition}residual : bool
        Whether the law that z_t is drawn from in training moves the mean of the prior, rather than replaces it
        (Fraccaro et al. 2016, eq. 14).
    flow_layers : int
        Inverse autoregressive flows (Kingma et al. 2016) that bend the laws which z_t is drawn from in training and in
        the particle filter, so that the numbers in z_t may depend on each other; 0 leaves these laws normal.
    proposal : "network", "laplace" or "prior"
        What particles are drawn from: the network that looks left, trained beside; a normal approximation of
        p(z_t | z_t-1, x_t), found by two steps of Newton's method, exact where all is linear and normal; or the prior
        (the bootstrap filter).
    n_particles : int
        Cost and memory grow with it, and the bound gets tighter.
    standardize : bool
        Describe continuous data in standard deviations from their mean, after ``transform``.
    transform : transform or list of transforms
    inference : Inference or None
        None is ``AmortizedVI()``. ``Ensemble(inference=AmortizedVI())`` gives draws of the weights, whose spread is the
        uncertainty of ``decompose()``.
    random_state : int or None
        Of the training and of paths. Particles are a function of the data alone: the same data score the same.
    """

_TRANSITION = """transition : "gated" or "linear"
        How the mean of z_t depends on z_t-1: by a gate between a linear map and a net (Krishnan et al. 2017, eq. 5), or
        by a linear map, with a constant standard deviation.
    """

_EXAMPLE = """
    Examples
    --------
    >>> import probseq as ps
    >>> y = [0.1, 0.9, 0.2, 0.8, 0.1, 1.0, 0.2, 0.9, 0.0, 0.8]
    >>> quick = ps.AmortizedVI(training=ps.TrainingOptions(max_epochs=2))
    >>> model = ps.{name}(n_latent=2, hidden_size=4, inference=quick, random_state=0).fit(y)
    >>> model.log_prob(y).attrs["method"]
    'FIVO (100 particles)'
    >>> model.smooth(y)["mean"].dims
    ('time', 'state')
    """


class _LatentEstimator(LatentImputation, NetworkBounds):
    """Constructor and model that the families share."""

    family: ClassVar[type[LatentNetwork]]

    def __init_subclass__(cls, own: str = "", **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not own:
            return
        transition = _TRANSITION if "transition" in cls.rules else ""
        words = _PARAMETERS.replace("{own}", own).replace("{transition}", transition)
        cls.__doc__ = (cls.__doc__ or "") + words + _EXAMPLE.replace("{name}", cls.__name__)

    inferences: ClassVar[tuple[type[Inference], ...]] = (AmortizedVI, Ensemble)
    rules: ClassVar[Mapping[str, Rule]] = {
        "n_latent": _COUNT,
        "hidden_size": _COUNT,
        "emission_layers": partial(whole_number, lowest=0),
        "look": or_none(partial(one_of, choices=LOOKS)),
        "residual": truth_value,
        "flow_layers": partial(whole_number, lowest=0),
        "proposal": partial(one_of, choices=PROPOSALS),
        "n_particles": _COUNT,
        "standardize": truth_value,
    }

    def __init__(
        self,
        n_latent: int = 16,
        hidden_size: int = 32,
        head: Emission | None = None,
        emission_layers: int = 1,
        look: str | None = None,
        residual: bool = False,
        flow_layers: int = 0,
        proposal: str = "network",
        n_particles: int = 100,
        standardize: bool = True,
        transform: Any = None,
        inference: Inference | None = None,
        random_state: RandomState = None,
    ) -> None:
        self.n_latent, self.hidden_size = n_latent, hidden_size
        self.head, self.emission_layers = head, emission_layers
        self.look, self.residual, self.flow_layers = look, residual, flow_layers
        self.proposal, self.n_particles = proposal, n_particles
        self.standardize, self.transform = standardize, transform
        self.inference, self.random_state = inference, random_state
        self._check_pair(inference)

    def _default_inference(self) -> Inference:
        return AmortizedVI()

    def _model_class(self) -> type[SequenceModel[Any]]:
        return self.family

    def _emission(self) -> Emission:
        return emission_without_inputs(self.head, "head")

    def _transforms(self) -> list[Transform]:
        transforms = super()._transforms()
        return standardized(transforms, self._emission()) if self.standardize else transforms

    def _check_arguments(self) -> None:
        super()._check_arguments()
        if not self._emission().is_likelihood:
            raise IncompatibleError(
                got=f"head={self.head!r}, which is no likelihood",
                expected="a law with a density or probabilities, such as Normal(), whose bound can be trained",
                remedy="Use that head, or a recurrent network with this one.",
            )

    def _check_values(self, values: np.ndarray, inputs: np.ndarray | None) -> None:
        check_sizes(self._emission(), self._transforms(), values, inputs)

    def _build(self, info: DataInfo) -> LatentNetwork:
        head = self._emission()
        return self.family(
            head,
            head.observation(info.n_variables, info.n_categories),
            int(self.n_latent),
            int(self.hidden_size),
            emission_layers=int(self.emission_layers),
            inference=self.look,
            residual=bool(self.residual),
            flow_layers=int(self.flow_layers),
            proposal=self.proposal,
            n_particles=int(self.n_particles),
            n_covariates=info.n_covariates,
            **self._further(),
        )

    def _further(self) -> dict[str, Any]:
        """Arguments of the model that one family has."""
        return {}


class VRNN(_LatentEstimator, own="the value of step t and h_t, which has read the past"):
    r"""Variational recurrent network (Chung et al. 2015): noise at every step, which the memory of a path takes up.

    z_t ~ p(z_t | h_t, u_t), x_t ~ p(x_t | z_t, h_t, u_t), h_t+1 = GRU(h_t, x_t, z_t, u_t), with covariates u_t. A
    missing value is told to the network as missing.
    """

    family: ClassVar[type[LatentNetwork]] = VariationalRecurrentModel


class _Markov(_LatentEstimator):
    """A family whose latent variables follow each other."""

    rules: ClassVar[Mapping[str, Rule]] = {
        **_LatentEstimator.rules,
        "transition": partial(one_of, choices=TRANSITIONS),
    }

    def __init__(self, *arguments: Any, transition: str = "gated", **options: Any) -> None:
        self.transition = transition
        super().__init__(*arguments, **options)

    def _further(self) -> dict[str, Any]:
        return {"transition": self.transition}


class DeepMarkov(_Markov, own='"left"'):
    r"""Deep Markov model (Krishnan, Shalit and Sontag 2017): a hidden Markov chain of real vectors, with nets inside.

    z_t ~ p(z_t | z_t-1, u_t), x_t ~ p(x_t | z_t, u_t), with covariates u_t. Missing values are integrated out by the
    particles. With ``transition="linear"`` and ``emission_layers=0`` it is a linear dynamical system.
    """

    family: ClassVar[type[LatentNetwork]] = DeepMarkovModel


class SRNN(_Markov, own="the value of step t and h_t, which has read the past"):
    r"""Stochastic recurrent network (Fraccaro et al. 2016): a chain of latent variables beside a memory of the data.

    z_t ~ p(z_t | z_t-1, h_t, u_t), x_t ~ p(x_t | z_t, h_t, u_t), h_t+1 = GRU(h_t, x_t, u_t), with covariates u_t.
    ``look="right"`` is the inference network of the paper. A missing value is told to the network as missing.
    """

    family: ClassVar[type[LatentNetwork]] = StochasticRecurrentModel


_SHARED = inspect.signature(_LatentEstimator.__init__)
_OWN = inspect.Parameter("transition", inspect.Parameter.KEYWORD_ONLY, default="gated", annotation="str")
# scikit-learn reads the arguments of a constructor from its signature.
setattr(_Markov.__init__, "__signature__", _SHARED.replace(parameters=[*_SHARED.parameters.values(), _OWN]))  # noqa: B010
