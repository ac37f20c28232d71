"""Linear dynamical systems with unknown matrices: hidden linear states seen through noise."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from torch import Tensor

from probseq._types import one_of, whole_number
from probseq.distributions.emissions import Observation
from probseq.distributions.gaussian import lower_factor
from probseq.distributions.params import Params, ParamSpec, Positive, PositiveDefinite, Real, Sparse
from probseq.distributions.stationary_matrices import StableMatrix, lyapunov
from probseq.errors import CovariateError, ShapeError
from probseq.kernels.linear_gaussian import make_system
from probseq.models.base import Batch, map_state
from probseq.models.latent import EMStep, ExpectationMaximization
from probseq.models.linear_gaussian_driven import DrivenLinearGaussian
from probseq.models.linear_gaussian_state import GaussianState, StateSpace
from probseq.models.linear_system_moments import Values, expected_sums
from probseq.models.linear_system_starts import starting_coefficients
from probseq.models.linear_system_step import Coefficients, maximise, rotated, staircase

__all__ = ["INPUTS", "NOISES", "STARTS", "LinearSystemModel", "Loadings"]

STARTS = ("stationary", "mean", "free")
NOISES = ("diag", "full")
INPUTS = ("state", "values", "both")

# Of the variance of a variable: the least noise that a fit leaves, and what counts as none.
_FLOOR, _NONE = 1e-12, 1e-9
# How near to the unit circle an eigenvalue counts as on it.
_UNIT = 1e-6


class Loadings(Sparse):
    """C (k, r), of whose coordinates those right of the diagonal are none: rotating the states makes them zero.

    Any finite C is allowed, and is the same law as its rotation; what takes coordinates for a search or for a posterior
    starts from one with the zeros, as every fit leaves it.
    """

    def __init__(self, k: int, r: int) -> None:
        super().__init__(torch.ones(k, r, dtype=torch.bool).tril())

    def violation(self, value: Tensor) -> str | None:
        return None if bool(torch.isfinite(value).all()) else "not finite"


class LinearSystemModel(DrivenLinearGaussian, ExpectationMaximization):
    r"""s_(t+1) = A s_t + B u_(t+1) + eta_t, eta_t ~ N(0, I); x_t = C s_t + d + D' u_t + eps_t, eps_t ~ N(0, R).

    The shocks have unit covariance, which fixes the units of the states; rotations of the states leave the law as it
    is. Fits rotate them so that (C; A), stacked, has zeros right of its diagonal and a diagonal that is not negative:
    the first variable sees the first state only, the second the first two, and so on (Geweke and Zhou 1996). That tells
    everything apart with as many states as variables, or fewer. With more, C D = 0 has solutions D, and P + D in place
    of the covariance P of the states leaves all autocovariances as they are, with other shocks.

    Parameters
    ----------
    observation : Observation
        Continuous variables.
    n_states : int
    noise : "diag" or "full"
        Whether R is diagonal (``noise_scale``, standard deviations) or any covariance (``noise_covariance``).
    start : "stationary", "mean" or "free"
        s_1 ~ N(0, P) with P = A P A' + I, and A has its eigenvalues inside the unit circle; s_1 ~ N(start_mean, I); or
        s_1 ~ N(start_mean, start_covariance). With the last two A is any matrix.
    n_covariates : int
    inputs : "state", "values" or "both"
        Where covariates enter: B (``drive``), D (``coefficients``), or both. Those of a first step drive no state.

    Raises
    ------
    ParameterError
        For arguments that are none.
    ShapeError
        For counts and categories.

    References
    ----------
    Shumway and Stoffer (1982), An approach to time series smoothing and forecasting using the EM algorithm, J. Time
    Series Analysis 3, 253-264. Ghahramani and Hinton (1996), Parameter estimation for linear dynamical systems. Geweke
    and Zhou (1996), Measuring the pricing error of the arbitrage pricing theory, Review of Financial Studies 9.
    """

    def __init__(
        self,
        observation: Observation,
        n_states: int = 1,
        noise: str = "diag",
        start: str = "stationary",
        n_covariates: int = 0,
        inputs: str = "state",
    ) -> None:
        whole_number("n_states", n_states, 1, "Try 2.")
        one_of("noise", noise, NOISES)
        one_of("start", start, STARTS)
        one_of("inputs", inputs, INPUTS)
        if observation.discrete:
            raise ShapeError(
                got=f"variables with {observation.measure} measure for a linear dynamical system",
                expected="continuous variables",
                remedy="Leave counts and categories out, or use ps.HMM.",
            )
        self.observation, self.n_states, self.noise, self.start = observation, int(n_states), noise, start
        self.n_covariates = n_covariates
        self.drives = n_covariates > 0 and inputs != "values"
        self.joins = n_covariates > 0 and inputs != "state"
        k, r, m = observation.n_variables, self.n_states, n_covariates
        turn = StableMatrix() if start == "stationary" else Real()
        self._specs = {
            "transition": ParamSpec((r, r), turn, ("next_state", "state"), unitless=True),
            "loading": ParamSpec((k, r), Loadings(k, r), ("variable", "state")),
            "offset": ParamSpec((k,), Real(), ("variable",)),
        }
        if noise == "full":
            self._specs["noise_covariance"] = ParamSpec((k, k), PositiveDefinite(), ("variable", "other_variable"))
        else:
            self._specs["noise_scale"] = ParamSpec((k,), Positive(), ("variable",))
        if start != "stationary":
            self._specs["start_mean"] = ParamSpec((r,), Real(), ("state",), unitless=True)
        if start == "free":
            square = ("state", "other_state")
            self._specs["start_covariance"] = ParamSpec((r, r), PositiveDefinite(), square, unitless=True)
        if self.drives:
            self._specs["drive"] = ParamSpec((r, m), Real(), ("state", "covariate"), unitless=True)
        if self.joins:
            self._specs["coefficients"] = ParamSpec((m, k), Real(), ("covariate", "variable"))

    n_cells = 2**20
    """Work of a step of EM, in those of a state of a Markov chain: so much that few starts are made by default."""

    @property
    def n_parameters(self) -> int:
        """Number of free parameters of the law of the data.

        With more states than variables (r - k)^2 coordinates change nothing that can be seen: rotations of the states
        behind the first k, and how far these are shaken. With ``start="mean"`` the first covariance is known, which
        leaves the rotations.
        """
        more = max(0, self.n_states - self.observation.n_variables)
        return super().n_parameters - (more * (more - 1) // 2 if self.start == "mean" else more**2)

    def parameters(self) -> dict[str, ParamSpec]:
        return dict(self._specs)

    # the state space --------------------------------------------------------------------------------------------------

    def system(self, params: Params) -> StateSpace:
        r = self.n_states
        zero, one = torch.zeros(r, dtype=self.dtype), torch.eye(r, dtype=self.dtype)
        turn = params["transition"]
        return StateSpace(
            params["loading"],
            params["offset"],
            self.noise_covariance(params),
            turn,
            zero,
            one,
            zero if self.start == "stationary" else params["start_mean"],
            lyapunov(turn, one) if self.start == "stationary" else params.get("start_covariance", one),
        )

    def noise_covariance(self, params: Params) -> Tensor:
        """R, (*draw, k, k)."""
        return params["noise_covariance"] if self.noise == "full" else torch.diag_embed(params["noise_scale"] ** 2)

    def drive(self, params: Params) -> Tensor | None:
        return params["drive"] if self.drives else None

    def inputs(self, params: Params, u: Tensor | None, trailing: int) -> Tensor | float:
        if not self.n_covariates:
            return 0.0
        if u is None:
            raise CovariateError(
                got="no covariates", expected=f"{self.n_covariates} at every step", remedy="Pass covariates=."
            )
        if not self.joins:
            return 0.0
        beta = params["coefficients"]
        return u.to(self.dtype) @ beta.reshape(*beta.shape[:-2], *(1,) * (trailing - 1), *beta.shape[-2:])

    def filter_moments(self, params: Params, batch: Batch, state: GaussianState) -> tuple[Tensor, Tensor]:
        """E[s_t | x_<=t] (*draw, n, t, r) and Var[s_t | x_<=t] (*draw, n, t, r, r); exact, no gradients."""
        with torch.no_grad():
            before, space = self._scan(params, batch, state).states, self._space(params)
            mean, cov = before.mean, before.cov
            if self.drives:
                # The covariates of a step drive its state.
                added = self._driven(params, batch.u, state.age, batch.lengths)
                if added is not None:
                    past = added[0] @ space.transition.mT.unsqueeze(-3)
                    mean = mean + added[0] - torch.cat([torch.zeros_like(past[..., :1, :]), past[..., :-1, :]], -2)
            one = torch.eye(batch.x.shape[-1], dtype=self.dtype)
            seen = batch.seen.to(self.dtype)
            # A variable that is not seen is one of unit variance that knows nothing of the state.
            z = space.design.unsqueeze(-3).unsqueeze(-3) * seen.unsqueeze(-1)
            both = seen.unsqueeze(-1) * seen.unsqueeze(-2)
            h = space.noise.unsqueeze(-3).unsqueeze(-3) * both + one * (1.0 - both)
            loc = mean @ space.design.mT.unsqueeze(-3) + space.offset.unsqueeze(-2).unsqueeze(-2)
            e = (batch.x.to(self.dtype) - self.inputs(params, batch.u, 2) - loc) * seen
            gain = torch.linalg.solve(z @ cov @ z.mT + h, z @ cov).mT
            return mean + (gain @ e.unsqueeze(-1)).squeeze(-1), cov - gain @ z @ cov

    def sample_states(
        self,
        params: Params,
        batch: Batch,
        n_paths: int,
        generator: torch.Generator | None = None,
        state: GaussianState | None = None,
    ) -> Tensor:
        """Joint draws of all states given the data, (n_paths, *draw, n, t, r); exact.

        A path from the model's own law is moved by what smoothing says of it and of the data (Durbin and Koopman 2002,
        Biometrika 89, 603-615).
        """
        start = self.initial_state(params, batch.n) if state is None else state
        space, draws, draw = self._space(params), len(self._draw(params)), self._draw(params)
        many = map_state(lambda leaf: torch.cat([leaf] * n_paths, draws), start)
        shape = (*draw, n_paths * batch.n)

        def noise(size: int) -> Tensor:
            return torch.randn((*shape, size), generator=generator, dtype=self.dtype)

        with torch.no_grad():
            s = many.mean + (lower_factor(many.cov) @ noise(self.n_states).unsqueeze(-1)).squeeze(-1)
            z, turn, root = (part.unsqueeze(-3) for part in (space.design, space.transition, lower_factor(space.noise)))
            states, values = [], []
            for _ in range(batch.t):
                states.append(s)
                seen = z @ s.unsqueeze(-1) + root @ noise(self.observation.n_variables).unsqueeze(-1)
                values.append(seen.squeeze(-1) + space.offset.unsqueeze(-2))
                s = (turn @ s.unsqueeze(-1)).squeeze(-1) + noise(self.n_states)
            # Covariates move paths and data alike: those of the path are zero.
            u = None if batch.u is None else torch.zeros_like(batch.u).repeat(n_paths, 1, 1)
            flags, lengths = batch.seen.repeat(n_paths, 1, 1), batch.lengths.repeat(n_paths)
            path = torch.stack(states, -2)
            away = path - self.smooth(params, Batch(torch.stack(values, -2), flags, lengths, u), many).mean
            each = away.unflatten(draws, (n_paths, batch.n)).movedim(draws, 0)
            return self.smooth(params, batch, start).mean + each

    # expectation maximisation -----------------------------------------------------------------------------------------

    def em_start(self, batch: Batch, n_starts: int, init: str, generator: torch.Generator) -> dict[str, Tensor]:
        """Starting parameters; all but ``init="random"`` begin with a subspace and with principal components."""
        values, centre = self._values(batch, None)
        found = starting_coefficients(
            values, self.n_states, self.noise == "full", self.start, n_starts, init != "random", generator
        )
        return self._params([self._canonical(one, centre) for one in found])

    def em_step(self, params: Params, batch: Batch, weights: Tensor | None = None) -> EMStep:
        values, centre = self._values(batch, weights)
        with torch.no_grad():
            space = self._space(params)
            state = self.initial_state(params, batch.n)
            driven = self._driven(params, batch.u, state.age, batch.lengths)
        floor = _FLOOR * _variances(values)
        full, n, log_prob, occupancy = self.noise == "full", len(space.mean), [], []
        found = []
        for d in range(n):
            old = self._coefficients(params, d, centre)
            r = self.n_states
            added = np.zeros((batch.n, batch.t, r)) if driven is None else driven[0][d].numpy()
            covariance = old.noise if full else np.diag(old.noise)
            parts = [np.ascontiguousarray(one) for one in (old.loading, old.offset, covariance, old.transition)]
            system = make_system(*parts, np.zeros(r), np.eye(r))
            mean, cov = space.mean[d].numpy(), np.ascontiguousarray(space.cov[d].numpy())
            sums = expected_sums(system, full, old.coefficients, added, mean, cov, values)
            log_prob.append(sums.log_prob)
            occupancy.append(np.diag(sums.past_past)[:r] + np.diag(sums.first_first))
            found.append(self._canonical(maximise(sums, old, self.start, floor), centre))
        return EMStep(
            torch.tensor(log_prob, dtype=torch.float64), self._params(found), torch.from_numpy(np.stack(occupancy))
        )

    def em_problems(self, params: Params, batch: Batch, occupancy: Tensor) -> list[tuple[str, ...]]:
        variance = _variances(self._values(batch, None)[0])
        noise = self.noise_covariance(params).diagonal(dim1=-2, dim2=-1).numpy()
        found = []
        for d, row in enumerate(noise):
            said = [f"Variable {i} has no noise left: the states explain it exactly." for i in range(len(row))
                    if row[i] < _NONE * variance[i]]  # fmt: skip
            largest = float(torch.linalg.eigvals(params["transition"][d]).abs().max())
            if self.start == "stationary" and largest > 1.0 - _UNIT:
                said.append(
                    f"An eigenvalue of the transition, {largest:.8f}, is on the unit circle: the states are not "
                    'stationary. Try start="mean", or a transform Difference().'
                )
            if self.start == "free":
                size = torch.linalg.eigvalsh(params["start_covariance"][d])
                if float(size[0]) < 1e-8 * max(1.0, float(size[-1])):
                    said.append(
                        "The covariance of the first state is singular: there are too few sequences to learn it from. "
                        'Try start="mean" or start="stationary".'
                    )
            found.append(tuple(said))
        return found

    def _initial_guess(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        return {name: value[0] for name, value in self.em_start(batch, 1, "kmeans", generator).items()}

    # between tensors and arrays ---------------------------------------------------------------------------------------

    def _values(self, batch: Batch, weights: Tensor | None) -> tuple[Values, np.ndarray]:
        """The data as arrays, and what was taken off each variable."""
        seen = batch.seen.numpy()
        x = np.where(seen, batch.x.double().numpy(), 0.0)
        centre = x.sum((0, 1)) / seen.sum((0, 1)).clip(1)
        u = np.zeros((batch.n, batch.t, 0)) if batch.u is None or not self.n_covariates else batch.u.double().numpy()
        u = np.where(batch.real.numpy()[..., None], u, 0.0)
        each = np.ones(batch.n) if weights is None else weights.double().numpy()
        centred = np.where(seen, x - centre, 0.0)
        return Values(centred, seen, batch.lengths.numpy(), u, each, self.drives, self.joins), centre

    def _coefficients(self, params: Params, d: int, centre: np.ndarray) -> Coefficients:
        """Draw d as arrays, for values less ``centre``."""
        r, m = self.n_states, self.n_covariates
        got = {name: value[d].detach().numpy() for name, value in params.items()}
        noise = got["noise_covariance"] if self.noise == "full" else got["noise_scale"] ** 2
        return Coefficients(
            got["transition"],
            got["drive"] if self.drives else np.zeros((r, 0)),
            got["loading"],
            got["offset"] - centre,
            got["coefficients"] if self.joins else np.zeros((m, len(centre))),
            noise,
            got.get("start_mean", np.zeros(r)),
            got.get("start_covariance", np.eye(r)),
        )

    def _canonical(self, found: Coefficients, centre: np.ndarray) -> Coefficients:
        """For the values themselves, with the states rotated as the class says."""
        found = rotated(found, staircase(found.transition, found.loading))
        found = found._replace(offset=found.offset + centre, loading=np.tril(found.loading))
        if self.start == "free":
            # Symmetric and positive definite also where it collapses.
            values, vectors = np.linalg.eigh(0.5 * (found.first_cov + found.first_cov.T))
            least = 1e-10 * max(1.0, float(values[-1]))
            found = found._replace(first_cov=(vectors * values.clip(least)) @ vectors.T)
        return found

    def _params(self, found: list[Coefficients]) -> dict[str, Tensor]:
        names = {
            "transition": "transition",
            "loading": "loading",
            "offset": "offset",
            "noise_covariance": "noise",
            "noise_scale": "noise",
            "start_mean": "first_mean",
            "start_covariance": "first_cov",
            "drive": "drive",
            "coefficients": "coefficients",
        }
        stacked = {
            name: np.stack([cast(np.ndarray, getattr(one, names[name])) for one in found]) for name in self._specs
        }
        if "noise_scale" in stacked:
            stacked["noise_scale"] = np.sqrt(stacked["noise_scale"])
        return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in stacked.items()}


def _variances(values: Values) -> np.ndarray:
    """Variance of each variable about its mean, (k,); that of a constant from the size of its rounding."""
    count = values.seen.sum((0, 1)).clip(1)
    found: np.ndarray = np.square(values.x).sum((0, 1)) / count
    return np.where(found > 0, found, 1e-20)
