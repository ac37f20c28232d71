"""What users ask of the latent variables of a network: what they were, how sure that is, and what lies between two."""

from __future__ import annotations

from typing import Any, ClassVar, cast

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from probseq._random import RandomState, torch_generator
from probseq._types import number_in, whole_number
from probseq.data.sequences import Sequences
from probseq.distributions.params import take_draw
from probseq.errors import ParameterError, ShapeError
from probseq.estimators.base import SequenceEstimator
from probseq.estimators.latent_decoding import decode_paths
from probseq.models.base import Batch, map_state
from probseq.models.latent_network import LatentNetwork
from probseq.models.latent_smoothing import smooth_paths
from probseq.models.latent_state import LatentState
from probseq.models.wrappers import ElementwiseModel, innermost, layers, unwrap
from probseq.plotting import drawn_on, new_panels, plot_latent_paths
from probseq.results.plots import chosen_sequences, sequence_title, stamps, time_label

__all__ = ["LatentPaths"]

_SHOWN = 4


class LatentPaths(SequenceEstimator):
    """Methods of an estimator whose model, behind its transforms, is a ``LatentNetwork``.

    Latent coordinates have no unit, and those of different draws of the weights need not mean the same: where there are
    several, results have a dimension ``draw``. ``sample(..., states=True)`` gives
    those behind the values.
    """

    has_latent_paths: ClassVar[bool] = True

    def filter_states(self, X: Any, *, lengths: Any = None, covariates: Any = None, history: Any = None) -> xr.Dataset:
        """The latent variables given the data so far, z_t | x_1..x_t, by weighted particles.

        Returns
        -------
        Dataset of ``mean`` and ``std``, dims ``draw, sequence, time, state``; ``draw`` and ``sequence`` only where
        there are several.
        """
        data = self._borrow(X, lengths, covariates)
        model, batch, state, first = self._network(data, history)
        with torch.no_grad():
            _, cloud = model.run(self.model_.params, batch, state, keep=True)
        if cloud is None:
            mean = std = torch.zeros(self.model_.n_draws, batch.n, 0, model.n_latent)
        else:
            weights = cloud.log_weights.exp().unsqueeze(-1)
            centre = (weights * cloud.z).sum(-2)
            std = (weights * (cloud.z - centre.unsqueeze(-2)).square()).sum(-2).sqrt()
            mean = centre
        return self._moments(mean, std, data, first, f"particle filter ({model.n_particles} particles)")

    def smooth(
        self,
        X: Any,
        n_paths: int = 200,
        *,
        lengths: Any = None,
        covariates: Any = None,
        history: Any = None,
        random_state: RandomState = None,
    ) -> xr.Dataset:
        """The latent variables given all the data, z_t | x_1..x_T, by paths through the particles of a filter.

        Parameters
        ----------
        X : data in any form, NaN = missing
        n_paths : int
            Over how many paths mean and standard deviation are taken.

        Returns
        -------
        Dataset of ``mean`` and ``std``, as of `filter_states`.
        """
        data = self._borrow(X, lengths, covariates)
        whole_number("n_paths", n_paths, 2, "Try 200.")
        paths, first = self._paths(data, n_paths, history, random_state)
        model = self._inside()
        method = f"{n_paths} paths through {model.n_particles} particles"
        mean = paths.mean(1)
        std = paths.std(1) if mean.numel() else mean
        return self._moments(mean, std, data, first, method)

    def sample_states(
        self,
        X: Any,
        n_paths: int = 100,
        *,
        lengths: Any = None,
        covariates: Any = None,
        history: Any = None,
        random_state: RandomState = None,
    ) -> xr.DataArray:
        """Paths of the latent variables from their law given all the data, dims ``path, sequence, time, state``."""
        data = self._borrow(X, lengths, covariates)
        whole_number("n_paths", n_paths, 1, "Try 100.")
        paths, first = self._paths(data, n_paths, history, random_state)
        return self._label_latent(paths, ("path",), data, first, "state")

    def plot_states(
        self,
        X: Any,
        states: Any = None,
        *,
        sequence: Any = 0,
        draw: int = 0,
        level: float = 0.9,
        n_paths: int = 200,
        lengths: Any = None,
        covariates: Any = None,
        history: Any = None,
        random_state: RandomState = None,
        ax: Any = None,
    ) -> Any:
        """Latent variables over time, given the whole sequence, inside bands.

        Parameters
        ----------
        states : int, list of int or None
            Which coordinates; None are the four that vary most.
        sequence : int, list of int or None
            Which of several sequences, a panel each; None is all.
        draw : int
            Which of several draws of the weights.
        level : float
            The probability inside a band, which lies between quantiles of the paths.
        n_paths : int
        ax : Axes, one a sequence, or a figure

        Returns
        -------
        Axes, or an array of them where there are several sequences.

        Raises
        ------
        ParameterError
            For a coordinate, a sequence or a draw that is not there, and a level outside (0, 1).
        """
        data = self._borrow(X, lengths, covariates)
        number_in("level", level, "(0, 1)", "Write 0.9 for 90 %.")
        whole_number("n_paths", n_paths, 2, "Try 200.")
        rows = chosen_sequences(sequence, data.n_sequences)
        _below("draw", draw, self.model_.n_draws)
        chosen = _chosen(states, self._inside().n_latent)
        found, first = self._paths(data, n_paths, history, random_state)
        laws = [_band(found[draw, :, i, : int(data.lengths[i]) - first], level) for i in rows]
        if chosen is None:
            spread = sum(mean.var(0) for mean, _, _ in laws)
            chosen = sorted(np.argsort(-spread)[:_SHOWN].tolist())
        size = (8.0, 3.6 if len(rows) == 1 else 2.6 * len(rows))
        panels = new_panels(ax, len(rows), 1, size=size, what="one a sequence" if len(rows) > 1 else "")
        for panel, i, (mean, low, high) in zip(panels, rows, laws, strict=True):
            plot_latent_paths(
                stamps(data.index[i])[first:],
                mean[:, chosen],
                (low[:, chosen], high[:, chosen]),
                names=[f"state {state}" for state in chosen],
                title=sequence_title(data, i),
                xlabel=time_label(data, data.index[i]) if panel is panels[-1] else "",
                ax=panel,
            )
        return drawn_on(panels)

    def interpolate(
        self, a: Any, b: Any, n_points: int = 5, *, n_paths: int = 200, random_state: RandomState = None
    ) -> xr.DataArray:
        r"""Sequences between two, found by going from one to the other among the latent variables.

        At every step the means of z_t given all of a, and given all of b, are mixed, z = (1 - w) z^a + w z^b, and
        written as the mean of their emission (the most probable category for tokens). Where the network has a memory
        of values it reads what it has written. Covariates are mixed alike; draws of the weights are averaged.

        Parameters
        ----------
        a, b : one sequence each, of the same number of steps
            With covariates as ``ps.sequences(a, covariates=...)``.
        n_points : int
            Number of sequences, a and b among them as the model knows them.
        n_paths : int
            Over how many paths the means are taken.

        Returns
        -------
        DataArray, dims ``point, time, variable``, with the coordinate ``weight`` (w) from 0 to 1; the times of a.

        Raises
        ------
        ShapeError
            For several sequences, or two of different lengths.
        UnsupportedError
            Behind ``Difference`` or ``ContextScale``, which need values to start from, and ``Discretize``.
        """
        self._check_fitted()
        whole_number("n_points", n_points, 2, "Try 5.")
        whole_number("n_paths", n_paths, 2, "Try 200.")
        ends = [self._read(one) for one in (a, b)]
        if any(end.n_sequences != 1 for end in ends) or ends[0].max_length != ends[1].max_length:
            said = " and ".join(f"{end.n_sequences} of {end.max_length} steps" for end in ends)
            raise ShapeError(
                got=f"sequences {said}", expected="two single ones of the same length", remedy="Cut the longer one."
            )
        weight = np.linspace(0.0, 1.0, n_points)
        mixed = torch.as_tensor(weight)[:, None, None]
        means = [self._paths(end, n_paths, None, random_state)[0].mean(1)[:, 0] for end in ends]
        inputs = [self._batch(end).u for end in ends]
        u = None if inputs[0] is None else torch.lerp(*cast(tuple[Tensor, Tensor], inputs), mixed.to(inputs[0].dtype))
        start, end = (one.unsqueeze(1) for one in means)
        z = torch.lerp(start, end, mixed.to(start.dtype))
        codes = decode_paths(self.model_, z, u)
        labelled = (
            ends[0]
            .label(
                codes.unsqueeze(1).numpy(),
                ("point", "sequence", "time", "variable"),
                name="interpolation",
                coords={"weight": ("point", weight)},
            )
            .transpose("point", ...)
        )
        nominal = self.emission_ is not None and self.emission_.nominal
        return self._tokens(labelled).rename("interpolation") if nominal else labelled

    def _sample_states(
        self, state: Any, length: int, generator: torch.Generator, u: Tensor | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Values (n, length, k) on the data's scale and the latent variables behind them (n, length, d)."""
        wrappers = layers(self.model_.model)
        if not all(isinstance(one, ElementwiseModel) and one.bijection.onto_reals for one in wrappers):
            raise ParameterError(
                got="sample(states=True) behind Difference(), ContextScale(), Discretize() or BoxCox()",
                expected="a transform of each value by itself that reaches all of them",
                remedy="Sample first, then smooth(sample).",
            )
        # Each sequence has one draw of the weights, its own row along the draws.
        n = state.log_weights.shape[0]
        draw = torch.multinomial(state.log_weights.exp(), 1, generator=generator).squeeze(-1)
        inner = map_state(lambda leaf: leaf[torch.arange(n), draw].unsqueeze(1), state.inner)
        future = None if u is None else u.expand(n, *u.shape[-2:]).unsqueeze(1)
        with torch.no_grad():
            params = take_draw(self.model_.params, draw)
            x, z, _ = self._inside().simulate(params, inner, length, generator, future)
            for wrapper in reversed(wrappers):
                x = wrapper.bijection.forward(x)  # type: ignore[attr-defined]
        return x[:, 0].double().numpy(), z[:, 0].double().numpy()

    def _paths(self, data: Sequences, n_paths: int, history: Any, random_state: RandomState) -> tuple[Tensor, int]:
        """Paths given all the data (draw, path, n, t, d), and the number of leading steps without any."""
        model, batch, state, first = self._network(data, history)
        generator = torch_generator(self.random_state if random_state is None else random_state)
        return smooth_paths(model, self.model_.params, batch, int(n_paths), generator, state), first

    def _inside(self) -> LatentNetwork:
        model: Any = innermost(self.model_.model)
        return cast(LatentNetwork, model)

    def _network(self, data: Sequences, history: Any) -> tuple[LatentNetwork, Batch, LatentState, int]:
        """The network with its own batch and state, and the number of leading steps that it does not see."""
        batch = self._batch(data)
        begun = self._begin(data, history)
        start = self.model_.initial_state({}, batch.n) if begun is None else begun
        _, batch, state, first = unwrap(self.model_.model, batch, self.model_._unpack(start))
        return self._inside(), batch, state, first

    def _moments(self, mean: Tensor, std: Tensor, data: Sequences, first: int, method: str) -> xr.Dataset:
        """Moments (draw, n, t, d) as a Dataset."""
        parts = {name: self._label_latent(one, (), data, first, name) for name, one in (("mean", mean), ("std", std))}
        return xr.Dataset(parts, attrs={"exact": 0, "method": method})

    def _label_latent(self, found: Tensor, inner: tuple[str, ...], data: Sequences, first: int, name: str) -> Any:
        """Label (draw, [path,] n, t, d); without ``draw`` where there is one draw only."""
        widths = [(0, 0)] * (found.ndim - 2) + [(first, 0), (0, 0)]
        array = np.pad(found.double().numpy(), widths, constant_values=np.nan)
        dims: tuple[str, ...] = ("draw", *inner, "sequence", "time", "state")
        if self.model_.n_draws == 1:
            array, dims = array[0], dims[1:]
        return data.label(array, dims, name=name)


def _chosen(states: Any, n: int) -> list[int] | None:
    """Coordinates that were asked for, of n."""
    if states is None:
        return None
    several = states.ndim == 1 if isinstance(states, np.ndarray) else isinstance(states, list | tuple | range)
    chosen = list(states) if several else [states]
    if not chosen:
        raise ParameterError(got="states=[]", expected="at least one coordinate", remedy="Leave states out.")
    for state in chosen:
        _below("a state", state, n)
    return chosen


def _band(paths: Tensor, level: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean and quantiles of paths (path, time, state)."""
    found = paths.double().numpy()
    low, high = np.quantile(found, [0.5 - level / 2, 0.5 + level / 2], axis=0)
    return found.mean(0), low, high


def _below(name: str, value: Any, n: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 0 <= value < n:
        raise ParameterError(got=f"{name}={value!r}", expected=f"a whole number below {n}", remedy="They count from 0.")
