"""Linear dynamical systems for users."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import torch

from probseq._random import RandomState
from probseq._types import Rule, one_of, whole_number
from probseq.distributions.emissions import Observation
from probseq.estimators.linear_states import LinearStates
from probseq.estimators.pipeline import DataInfo
from probseq.inference.advi import ADVI
from probseq.inference.base import Draws, Inference
from probseq.inference.em import EM
from probseq.inference.laplace import Laplace
from probseq.inference.map import MAP
from probseq.inference.nuts import NUTS
from probseq.inference.optimize import MLE
from probseq.models.base import Batch, SequenceModel
from probseq.models.linear_system import INPUTS, NOISES, STARTS, LinearSystemModel
from probseq.models.linear_system_axes import flipped, pivot_signs

__all__ = ["LinearDynamicalSystem"]

_TOL = 1e-9


class LinearDynamicalSystem(LinearStates):
    r"""s_(t+1) = A s_t + B u_(t+1) + eta_t, eta_t ~ N(0, I); x_t = C s_t + d + D' u_t + eps_t, eps_t ~ N(0, R).

    Hidden states that move linearly and are seen through noise: the Kalman filter's model with all its matrices learnt.
    Exact, with any values missing. `params_` are ``transition`` (A), ``loading`` (C), ``offset`` (d) and
    ``noise_scale`` (square roots of a diagonal R) or ``noise_covariance``; ``drive`` (B) and ``coefficients`` (D) with
    covariates; ``start_mean`` and ``start_covariance`` with a start of its own.

    The data tell the states up to other coordinates only. Shocks eta of unit covariance fix their units; fits rotate
    them so that (C; A), stacked, has zeros right of a diagonal that is not negative: the first variable sees the first
    state only. `order_states` turns them to the axes that explain most variance. With ``with_parameters`` any
    coordinates will do; a system with Var eta_t = L L' is this one with L^(-1) A L and C L.

    Parameters
    ----------
    n_states : int
    noise : "diag" or "full"
        Whether the noise of the variables is independent, or has any covariance.
    start : "stationary", "mean" or "free"
        The law of the first state: stationary, which keeps the eigenvalues of A inside the unit circle; N(m, I) with m
        learnt; N(m, P) with both learnt, for many sequences. With the last two A is any matrix.
    inputs : "state", "values" or "both"
        Where covariates enter: they drive the states (B), join the values (D), or both. Those of the first step of a
        sequence drive no state.
    transform : transform or list of transforms
    inference : Inference or None
        None is ``MLE(tol=1e-9)``, from the best of a few short runs of EM. ``EM()`` alone goes the same way in closed
        form; it is slow near the maximum. Its starts are a stochastic subspace, an autoregression of principal
        components and random systems.
    random_state : int or None

    Notes
    -----
    With more states than variables the data leave (r - k)^2 coordinates open, which ``n_parameters_`` does not count
    (with ``start="mean"`` only the (r - k)(r - k - 1) / 2 rotations of the states behind the first k): likelihood and
    forecasts are what they are, but how far the states behind the first k are shaken is a matter of where the fit
    began. There ``MLE`` computes no standard errors by default.

    References
    ----------
    Shumway and Stoffer (1982), An approach to time series smoothing and forecasting using the EM algorithm, J. Time
    Series Analysis 3, 253-264. Ghahramani and Hinton (1996), Parameter estimation for linear dynamical systems,
    technical report CRG-TR-96-2, University of Toronto.

    Examples
    --------
    >>> import numpy as np, probseq as ps
    >>> rng = np.random.default_rng(0)
    >>> state = np.zeros(200)
    >>> for t in range(1, 200):
    ...     state[t] = 0.9 * state[t - 1] + rng.normal()
    >>> x = state[:, None] * [1.0, 0.5, -0.5] + 0.5 * rng.normal(size=(200, 3))
    >>> model = ps.LinearDynamicalSystem(n_states=1, random_state=0).fit(x)
    >>> model.params_["loading"].values.ravel().round(1)
    array([ 1.1,  0.5, -0.5])
    >>> model.smooth(x)["mean"].dims
    ('time', 'state')
    """

    inferences: ClassVar[tuple[type[Inference], ...]] = (MLE, EM, MAP, Laplace, ADVI, NUTS)
    rules: ClassVar[Mapping[str, Rule]] = {
        "n_states": partial(whole_number, lowest=1, remedy="Try 2."),
        "noise": partial(one_of, choices=NOISES),
        "start": partial(one_of, choices=STARTS),
        "inputs": partial(one_of, choices=INPUTS),
    }

    def __init__(
        self,
        n_states: int = 2,
        noise: str = "diag",
        start: str = "stationary",
        inputs: str = "state",
        transform: Any = None,
        inference: Inference | None = None,
        random_state: RandomState = None,
    ) -> None:
        self.n_states = n_states
        self.noise = noise
        self.start = start
        self.inputs = inputs
        self.transform = transform
        self.inference = inference
        self.random_state = random_state
        self._check_pair(inference)

    def _default_inference(self) -> Inference:
        return MLE(tol=_TOL)

    def _model_class(self) -> type[SequenceModel[Any]]:
        return LinearSystemModel

    def _build(self, info: DataInfo) -> LinearSystemModel:
        return LinearSystemModel(
            Observation(info.n_variables), self.n_states, self.noise, self.start, info.n_covariates, self.inputs
        )

    def _infer(
        self, inference: Inference, model: SequenceModel[Any], batch: Batch, generator: torch.Generator, **options: Any
    ) -> tuple[SequenceModel[Any], Draws]:
        if self.inference is None and self.n_states > model.observation.n_variables:
            inference = MLE(tol=_TOL, covariance=False)
        model, draws = super()._infer(inference, model, batch, generator, **options)
        # A search may have passed a sign on its way.
        signs = pivot_signs(draws.params)
        if bool((signs > 0).all()):
            return model, draws
        params, each = flipped(dict(model.parameters()), draws.params, signs)
        covariance = None if draws.covariance is None else draws.covariance * each * each[:, None]
        return model, replace(draws, params=params, covariance=covariance)
