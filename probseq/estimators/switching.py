"""Switching linear dynamical systems for users."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, cast

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from probseq._random import RandomState, torch_generator
from probseq._types import Rule, one_of, whole_number
from probseq.data.sequences import Sequences
from probseq.distributions.emissions import Observation
from probseq.errors import IncompatibleError, UnsupportedError
from probseq.estimators.base import SequenceEstimator
from probseq.estimators.fitted import TRAINING
from probseq.estimators.pipeline import DataInfo
from probseq.inference.base import Inference
from probseq.inference.variational_em import VariationalEM
from probseq.models.base import Batch, SequenceModel
from probseq.models.switching import EMISSIONS
from probseq.models.switching_fit import FittedSwitchingModel
from probseq.models.wrappers import unwrap

__all__ = ["SwitchingLDS"]


class SwitchingLDS(SequenceEstimator):
    r"""s_t = A_z s_(t-1) + b_z + eta_t, eta_t ~ N(0, Q_z); x_t = C s_t + d + eps_t; z = z_t a Markov chain of regimes.

    A linear dynamical system whose way to move switches: calm and turbulent times, different rhythms, drifts up and
    down. `params_` are ``initial`` and ``switching`` of the chain, ``transition`` (A), ``drift`` (b) and
    ``shock_covariance`` (Q) of every regime, ``start_mean``, and ``loading`` (C), ``offset`` (d), ``noise_scale``.

    The likelihood has no closed form. It is estimated by a collapsed particle filter: particles are histories of
    regimes, each with the exact Kalman moments of its states (Chen and Liu 2000; Fearnhead and Clifford 2003). It is
    exact while ``n_particles`` covers all histories; then p(x_1:T) is right on average over the chance by which
    histories are chosen, the same for the same step of any sequence, and comes with its Monte Carlo error; `compare`
    says so.

    Parameters
    ----------
    n_regimes, n_states : int
    emission : "shared" or "own"
        Whether C, d and the noise are the same in all regimes, or each has its own.
    n_particles : int
        Histories that the filter keeps.
    transform : transform or list of transforms
    inference : Inference or None
        None is ``VariationalEM()``: closed-form steps up a lower bound of the likelihood, which takes regimes and
        states for independent given the data. ``draws_.objective`` is the bound.
    random_state : int or None

    Notes
    -----
    Numbers of regimes mean nothing after a fit. The first has shocks of unit covariance, and the coordinates of the
    states are those of `LinearDynamicalSystem` in it. Covariates are not taken.

    References
    ----------
    Ghahramani and Hinton (2000), Variational learning for switching state-space models, Neural Computation 12, 831-864.
    Doucet, de Freitas, Murphy and Russell (2000), Rao-Blackwellised particle filtering for dynamic Bayesian networks.

    Examples
    --------
    >>> import numpy as np, probseq as ps
    >>> rng = np.random.default_rng(0)
    >>> slope = np.repeat([1.0, -1.0, 1.0], 40)
    >>> x = np.cumsum(slope + 0.3 * rng.normal(size=120)) + 0.2 * rng.normal(size=120)
    >>> model = ps.SwitchingLDS(2, 1, n_particles=20, random_state=0).fit(x)
    >>> probs = model.smooth(x)["probability"]
    >>> (probs[[20, 60, 100]] > 0.5).values[:, 0].tolist() in ([True, False, True], [False, True, False])
    True
    """

    inferences: ClassVar[tuple[type[Inference], ...]] = (VariationalEM,)
    rules: ClassVar[Mapping[str, Rule]] = {
        "n_regimes": partial(whole_number, lowest=1, remedy="Try 2."),
        "n_states": partial(whole_number, lowest=1, remedy="Try 2."),
        "emission": partial(one_of, choices=EMISSIONS),
        "n_particles": partial(whole_number, lowest=1, remedy="Try 100."),
    }

    def __init__(
        self,
        n_regimes: int = 2,
        n_states: int = 1,
        emission: str = "shared",
        n_particles: int = 100,
        transform: Any = None,
        inference: Inference | None = None,
        random_state: RandomState = None,
    ) -> None:
        self.n_regimes = n_regimes
        self.n_states = n_states
        self.emission = emission
        self.n_particles = n_particles
        self.transform = transform
        self.inference = inference
        self.random_state = random_state
        self._check_pair(inference)

    def _emission(self) -> None:
        """No emission: ``emission=`` says whether regimes share how states are seen."""
        return None

    def _default_inference(self) -> Inference:
        return VariationalEM()

    def _require(self, inference: Any) -> None:
        super()._require(inference)
        if not isinstance(inference, VariationalEM):
            raise IncompatibleError(
                got=f"inference={type(inference).__name__}() for a likelihood that particles estimate",
                expected="VariationalEM",
                remedy="Leave inference out, or pass ps.VariationalEM().",
            )

    def _model_class(self) -> type[SequenceModel[Any]]:
        return FittedSwitchingModel

    def _build(self, info: DataInfo) -> SequenceModel[Any]:
        if info.n_covariates:
            raise UnsupportedError(
                got=f"{info.n_covariates} covariates for SwitchingLDS",
                expected="no covariates",
                remedy="Leave them out, or use ps.LinearDynamicalSystem.",
            )
        return FittedSwitchingModel(
            Observation(info.n_variables), self.n_regimes, self.n_states, self.emission, self.n_particles
        )

    def _names(self) -> dict[str, Any]:
        regimes, states = np.arange(self.n_regimes), np.arange(self.n_states)
        words = {
            "regime": regimes,
            "next_regime": regimes,
            "state": states,
            "next_state": states,
            "other_state": states,
        }
        return {**super()._names(), **words}

    # what was hidden --------------------------------------------------------------------------------------------------

    def smooth(
        self, X: Any, n_paths: int = 200, *, lengths: Any = None, history: Any = None, random_state: RandomState = None
    ) -> xr.Dataset:
        """Regimes and states given all the data, from paths of regimes simulated backwards.

        Parameters
        ----------
        X : data in any form, NaN = missing
        n_paths : int
            Paths that probabilities and moments are averaged over; a probability has a Monte Carlo error of
            sqrt(p (1 - p) / n_paths) beside that of the filter.
        history : data, ``ps.TRAINING`` or None
            What X continues, which is gone through anew; None starts new sequences.
        random_state : int or Generator
            The estimator's own by default.

        Returns
        -------
        Dataset of ``probability``, p(z_t = j | x_1..x_T), dims ``sequence, time, regime``, and of ``mean`` and ``std``
        of the states, dims ``sequence, time, state``, exact given each path.
        """
        data, model, batch, at, generator = self._hidden(X, lengths, history, n_paths, random_state)
        paths = model.sample_regimes(self.model_.params, batch, n_paths, generator)
        mean, cov = model.states_given(self.model_.params, batch, paths)
        share = torch.stack([(paths == j).double().mean(0) for j in range(model.n_regimes)], -1)
        return self._labelled(data, at, share, mean, cov)

    def sample_regimes(
        self, X: Any, n_paths: int = 100, *, lengths: Any = None, history: Any = None, random_state: RandomState = None
    ) -> xr.DataArray:
        """Paths of regimes from their law given all the data, dims ``path, sequence, time``; -1 where there is none."""
        data, model, batch, at, generator = self._hidden(X, lengths, history, n_paths, random_state)
        paths = model.sample_regimes(self.model_.params, batch, n_paths, generator).numpy()
        codes = np.where(data.mask() & (at >= 0), _steps(paths.transpose(1, 2, 0), at).transpose(2, 0, 1), -1)
        return data.label(codes, ("path", "sequence", "time"), name="regime", padded=True)

    def filter_states(self, X: Any, *, lengths: Any = None, history: Any = None) -> xr.Dataset:
        """Regimes and states given the data so far, as the particle filter has them; otherwise as `smooth`."""
        data, model, batch, at, _ = self._hidden(X, lengths, history, 1, 0)
        beliefs = model.filtered({name: value[0] for name, value in self.model_.params.items()}, batch)
        if not beliefs:
            k, r = model.n_regimes, model.n_states
            return self._labelled(data, at, *(torch.zeros(batch.n, 0, *shape) for shape in ((k,), (r,), (r, r))))
        shares, means, covs = [], [], []
        for belief in beliefs:
            w = belief.log_weights.exp()
            shares.append(torch.stack([(w * (belief.regime == j)).sum(-1) for j in range(model.n_regimes)], -1))
            mean = (w.unsqueeze(-1) * belief.mean).sum(-2)
            off = belief.mean - mean.unsqueeze(-2)
            spread = belief.cov + off.unsqueeze(-1) * off.unsqueeze(-2)
            means.append(mean)
            covs.append((w.unsqueeze(-1).unsqueeze(-1) * spread).sum(-3))
        return self._labelled(data, at, *(torch.stack(part, 1) for part in (shares, means, covs)))

    def _hidden(
        self, X: Any, lengths: Any, history: Any, n_paths: int, random_state: RandomState
    ) -> tuple[Sequences, FittedSwitchingModel, Batch, np.ndarray, torch.Generator]:
        """X, the model behind the transforms, its batch of past and X, and the steps of X there (n, t), from 0."""
        data = whole = self._borrow(X, lengths)
        whole_number("n_paths", n_paths, 1, "Try 200.")
        if history is not None:
            whole = data.concat_history(self._training()[0] if history is TRAINING else self._read_past(history))
        batch = self._batch(whole)
        start = self.model_.initial_state({}, batch.n)
        model, batch, _, first = unwrap(self.model_.model, batch, self.model_._unpack(start))
        seed = self.random_state if random_state is None else random_state
        at = (whole.lengths - data.lengths)[:, None] + np.arange(data.values.shape[1]) - first
        return data, cast(FittedSwitchingModel, model), batch, at, torch_generator(seed)

    def _labelled(self, data: Sequences, at: np.ndarray, share: Tensor, mean: Tensor, cov: Tensor) -> xr.Dataset:
        shown = (data.mask() & (at >= 0))[..., None]
        spread = cov.diagonal(dim1=-2, dim2=-1).clamp_min(0.0).sqrt()
        labelled = {}
        for name, value, word in (("probability", share, "regime"), ("mean", mean, "state"), ("std", spread, "state")):
            array = np.where(shown, _steps(value.numpy(), at), np.nan)
            coords = {word: np.arange(value.shape[-1])}
            labelled[name] = data.label(array, ("sequence", "time", word), name=name, coords=coords)
        return xr.Dataset(labelled)


def _steps(array: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Steps ``at`` (n, t) of an array (n, steps, ...); anything where there is no such step."""
    # One step more, so that there is one.
    padded = np.pad(array, ((0, 0), (0, 1), *((0, 0),) * (array.ndim - 2)))
    found: np.ndarray = padded[np.arange(len(at))[:, None], at.clip(0, padded.shape[1] - 1)]
    return found
