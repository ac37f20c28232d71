"""Hidden semi-Markov models for users."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, cast

import numpy as np
import torch
import xarray as xr

from probseq._random import RandomState
from probseq._types import Rule, one_of, whole_number
from probseq.distributions.durations import Duration, as_duration
from probseq.distributions.emissions import ConditionalEmission, Emission
from probseq.errors import IncompatibleError
from probseq.estimators.known_states import SupervisedFit
from probseq.estimators.pipeline import DataInfo, emission_or_normal
from probseq.estimators.states import StateMethods
from probseq.inference.advi import ADVI
from probseq.inference.base import Inference
from probseq.inference.em import EM
from probseq.inference.laplace import Laplace
from probseq.inference.map import MAP
from probseq.inference.nuts import NUTS
from probseq.inference.optimize import MLE
from probseq.models.base import SequenceModel
from probseq.models.hsmm import HiddenSemiMarkovModel
from probseq.models.transitions import Transitions

__all__ = ["HSMM"]


class HSMM(StateMethods, SupervisedFit):
    r"""Hidden semi-Markov model: states that last for durations of any law, each with its own law of what is observed.

    A state j is held for d ~ p_j steps, then another state k follows with probability A_jk (A_jj = 0). In a plain `HMM`
    every duration is geometric, so that the most probable one is always a single step; here it may be anything. The
    likelihood is exact, in O(T s (s + D)) time, D = ``max_duration``.

    Parameters
    ----------
    n_states : int
        At least 2: a state is always followed by another one.
    emission : Emission
        As in `HMM`, except those that depend on covariates or earlier values; None is ``Normal()``.
    duration : Duration
        ``NegativeBinomialDuration()``, ``PoissonDuration()``, ``FreeDuration(max_duration)`` or
        ``GeometricDuration()``, which is an `HMM`. None is ``NegativeBinomialDuration()``, which contains the geometric
        law (size 1). Durations beyond ``max_duration`` have a geometric tail, except under ``FreeDuration`` and
        ``tail="truncated"``, where they are impossible.
    left : "start", "censored" or "stationary"
        How the data begin. "start": with the first step of a segment. "censored": anywhere in a segment, so that its
        elapsed duration d has the law P(duration >= d) / E[duration]. "stationary": the same, and the law of the first
        state is the long-run share of time, not a parameter. The last segment is always cut by the end of the data
        and counts with the probability that it lasts at least so long.
    transitions : Transitions, array (n_states, n_states) of bool, or None
        Which states may follow which: a mask (False forbids), or ``Transitions(mask=, fixed=)``, ``Banded()``,
        ``Cyclic()``; the diagonal is forbidden in any case. None is all.
    transform : transform or list of transforms
    inference : Inference or None
        None is ``EM()``.
    random_state : int or None

    References
    ----------
    Guédon (2003), Estimating hidden semi-Markov chains from discrete sequences; Yu (2010), Hidden semi-Markov models.

    Examples
    --------
    >>> import numpy as np, probseq as ps
    >>> x = np.tile(np.repeat([0.0, 5.0], [4, 7]), 20) + np.random.default_rng(0).normal(size=220)
    >>> model = ps.HSMM(n_states=2, duration=ps.PoissonDuration(20), random_state=0).fit(x).order_states()
    >>> model.expected_durations().values.round()
    array([4., 7.])
    """

    inferences: ClassVar[tuple[type[Inference], ...]] = (EM, MLE, MAP, Laplace, ADVI, NUTS)

    rules: ClassVar[Mapping[str, Rule]] = {"left": partial(one_of, choices=("start", "censored", "stationary"))}

    def __init__(
        self,
        n_states: int = 2,
        emission: Emission | None = None,
        duration: Duration | None = None,
        left: str = "start",
        transitions: Transitions | Any = None,
        transform: Any = None,
        inference: Inference | None = None,
        random_state: RandomState = None,
    ) -> None:
        self.n_states = n_states
        self.emission = emission
        self.duration = duration
        self.left = left
        self.transitions = transitions
        self.transform = transform
        self.inference = inference
        self.random_state = random_state
        self._check_pair(inference)

    def _default_inference(self) -> Inference:
        return EM()

    def _default_part(self, name: str) -> Any:
        if name == "duration":
            return as_duration(None)
        return Transitions() if name == "transitions" else super()._default_part(name)

    def _model_class(self) -> type[SequenceModel[Any]]:
        return HiddenSemiMarkovModel

    def _emission(self) -> Emission:
        return emission_or_normal(self.emission, "emission")

    def _build(self, info: DataInfo) -> SequenceModel[Any]:
        emission = self._emission()
        if isinstance(emission, ConditionalEmission):
            raise IncompatibleError(
                got=f"emission={emission!r} with explicit durations",
                expected="an emission that depends on the state only",
                remedy="Use HMM for regression and autoregressive emissions.",
            )
        observation = emission.observation(info.n_variables, info.n_categories)
        duration = as_duration(self.duration)
        return HiddenSemiMarkovModel(self.n_states, emission, observation, duration, self.left, self.transitions)

    def _possible(self) -> tuple[np.ndarray, np.ndarray]:
        allowed, first = super()._possible()
        # A state may always last longer.
        return allowed | np.eye(len(first), dtype=bool), first

    def duration_probabilities(self, longest: int | None = None) -> xr.DataArray:
        """P(a visit of a state lasts d steps), dims ``state, duration``, for d = 1 .. ``longest``.

        Parameters
        ----------
        longest : int or None
            None is the ``max_duration`` of the law. What is missing from 1 in a row is the probability of longer ones.
        """
        self._check_fitted()
        model = cast(HiddenSemiMarkovModel, self._latent())
        size = model.duration.width if longest is None else longest
        whole_number("longest", size, 1, "Try 50.")
        with torch.no_grad():
            probs = model.duration.tables(self.model_.params).log_mass(int(size)).exp().numpy()
        coords = {"state": self._state_labels(), "duration": np.arange(1, int(size) + 1)}
        array = probs[0] if self.model_.n_draws == 1 else probs
        dims = self._lead(("draw", "state", "duration"))
        return xr.DataArray(array, dims=dims, name="probability", coords=coords)

    def stationary_distribution(self) -> xr.DataArray:
        """The share of time that each state has in the long run: visits times their mean duration, normalised."""
        return super().stationary_distribution()
