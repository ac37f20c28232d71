"""Hidden Markov models for users."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from probseq._random import RandomState
from probseq.distributions.emissions import ConditionalEmission, Emission
from probseq.estimators.known_states import SupervisedFit
from probseq.estimators.online import OnlineLearning
from probseq.estimators.pipeline import DataInfo, emission_or_normal
from probseq.estimators.states import StateMethods
from probseq.inference.advi import ADVI
from probseq.inference.base import Inference
from probseq.inference.em import EM
from probseq.inference.gibbs import Gibbs
from probseq.inference.laplace import Laplace
from probseq.inference.map import MAP
from probseq.inference.nuts import NUTS
from probseq.inference.online import OnlineEM
from probseq.inference.optimize import MLE
from probseq.inference.vb import VB
from probseq.models.base import SequenceModel
from probseq.models.hmm import HiddenMarkovModel
from probseq.models.transitions import Transitions, as_transitions

__all__ = ["HMM"]


class HMM(StateMethods, SupervisedFit, OnlineLearning):
    """Hidden Markov model: a Markov chain of states, each with its own law of what is observed.

    Parameters
    ----------
    n_states : int
    emission : Emission
        Any emission, such as ``Normal(covariance=...)``, ``StudentT()``, ``Poisson()`` or ``Categorical()``;
        ``Product([...])`` of several for columns of different kinds, ``Tied(...)`` for states that share parameters.
        None is ``Normal()``.
    start : "free", "stationary" or array (n_states,)
        Whether the law of the first state is estimated, the stationary distribution of the chain, or known.
    transitions : Transitions, array (n_states, n_states) of bool, or None
        ``LeftRight()``, ``Banded()``, ``Cyclic()``, ``Transitions(mask=, fixed=)``, or ``CovariateTransitions()``,
        whose probabilities depend on covariates. An array is a mask: False forbids a transition, an exact zero that
        is not counted as a parameter. None is all free.
    transform : transform or list of transforms
    inference : Inference or None
        None is ``EM()``. ``MLE``, ``MAP`` are points, too; ``VB``, ``Gibbs``, ``NUTS`` and ``Laplace`` give many draws
        of the parameters, over which forecasts average and which methods of states show along a dimension ``draw``.
    random_state : int or None

    Examples
    --------
    >>> import probseq as ps
    >>> model = ps.HMM(n_states=2, emission=ps.Poisson(), random_state=0).fit(ps.datasets.earthquakes())
    >>> round(model.log_likelihood_, 4)
    -341.8787
    """

    inferences: ClassVar[tuple[type[Inference], ...]] = (EM, MLE, MAP, Laplace, ADVI, NUTS, VB, Gibbs, OnlineEM)

    def __init__(
        self,
        n_states: int = 2,
        emission: Emission | None = None,
        start: Any = "free",
        transitions: Transitions | Any = None,
        transform: Any = None,
        inference: Inference | None = None,
        random_state: RandomState = None,
    ) -> None:
        self.n_states = n_states
        self.emission = emission
        self.start = start
        self.transitions = transitions
        self.transform = transform
        self.inference = inference
        self.random_state = random_state
        self._check_pair(inference)

    def _default_inference(self) -> Inference:
        return EM()

    def _default_part(self, name: str) -> Any:
        return Transitions() if name == "transitions" else super()._default_part(name)

    def _model_class(self) -> type[SequenceModel[Any]]:
        return HiddenMarkovModel

    def _emission(self) -> Emission:
        return emission_or_normal(self.emission, "emission")

    def _build(self, info: DataInfo) -> SequenceModel[Any]:
        emission = self._emission()
        observation = emission.observation(info.n_variables, info.n_categories)
        transitions = as_transitions(self.transitions)
        if not transitions.varying and not isinstance(emission, ConditionalEmission):
            return HiddenMarkovModel(self.n_states, emission, observation, self.start, transitions)
        from probseq.models.driven import DrivenHiddenMarkovModel

        known = replace(observation, n_covariates=info.n_covariates)
        return DrivenHiddenMarkovModel(
            self.n_states, emission, known, self.start, transitions, n_covariates=info.n_covariates
        )
