"""Pictures of hidden states with the names, stamps and units of the data."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from probseq.distributions.base import Distribution
from probseq.distributions.compose import push
from probseq.errors import ParameterError, UnsupportedError
from probseq.estimators.state_names import StateNames
from probseq.models.base import Batch
from probseq.models.discretized import DiscretizedModel
from probseq.models.latent import DiscreteLatent
from probseq.models.wrappers import ElementwiseModel, layers
from probseq.plotting import (
    drawn_on,
    figure_class,
    hide_times,
    new_panels,
    plot_emissions,
    plot_state_probabilities,
    plot_states,
    plot_transition_graph,
    plot_transition_matrix,
)
from probseq.results.plots import chosen_sequences, sequence_title, stamps, time_label, unit_label, visible

__all__ = ["StatePlots"]

_POINTS = 400
_MOST_COUNTS = 200
_STEPS = 300


class StatePlots(StateNames):
    """Pictures of fitted states; each returns the axes it drew on."""

    def plot_states(
        self,
        X: Any,
        *,
        sequence: Any = 0,
        lengths: Any = None,
        covariates: Any = None,
        history: Any = None,
        ax: Any = None,
    ) -> Any:
        """The series of one sequence over its decoded states, one panel a variable, and their probabilities below.

        Parameters
        ----------
        sequence : int, list of int or None
            Which of several sequences; None is all. Several have panels below each other, without probabilities.
        ax : Axes, one a variable of each sequence, or a figure

        Returns
        -------
        Axes, or an array of them where there are several variables or sequences. The panel of probabilities is the last
        of the figure's axes.
        """
        data = self._read(X, lengths, covariates)
        chosen = chosen_sequences(sequence, data.n_sequences)
        k = data.n_variables
        model, batch, state, first = self._problem(data, history)
        with torch.no_grad():
            probs = model.smooth(self.model_.params, batch, state).mean(0).numpy()
            if self.model_.n_draws == 1:
                paths = model.decode(self.model_.params, batch, state).states[0].numpy()
            else:
                paths = probs.argmax(-1)
        panels, below = _stacked(ax, k, len(chosen))
        tokens = None if self.vocabulary_ is None else [visible(token) for token in self.vocabulary_.tokens]
        for place, i in enumerate(chosen):
            length = int(data.lengths[i])
            share = np.pad(probs[i, : length - first], ((first, 0), (0, 0)))
            path = np.pad(paths[i, : length - first], (first, 0), constant_values=-1)
            when = stamps(data.index[i])
            label = time_label(data, data.index[i])
            for j, panel in enumerate(panels[place * k : (place + 1) * k]):
                last = place == len(chosen) - 1 and j == k - 1
                plot_states(
                    when,
                    data.values[i, :length, j],
                    path,
                    share if below is None and last and len(chosen) == 1 else None,
                    names=self._state_words(model.n_states),
                    categories=tokens,
                    xlabel=label if below is None and last else "",
                    ylabel=unit_label(data, j),
                    title=sequence_title(data, i) if j == 0 else None,
                    legend=place == 0 and j == 0,
                    ax=panel,
                )
                if below is not None or j < k - 1:
                    hide_times(panel)
            if below is not None:
                plot_state_probabilities(when, share, xlabel=label, ax=below)
        return drawn_on(panels)

    def plot_transitions(self, kind: str = "both", *, ax: Any = None) -> Any:
        """How states follow one another: the matrix of probabilities and its graph, averaged over parameter draws.

        Parameters
        ----------
        kind : "both", "matrix" or "graph"
        ax : Axes, two for "both", or a figure

        Returns
        -------
        Axes, an array of two for "both".

        Raises
        ------
        UnsupportedError
            Where covariates drive the transitions, so that there is no one matrix.
        """
        self._check_fitted()
        if kind not in ("both", "matrix", "graph"):
            raise ParameterError(got=f"kind={kind!r}", expected='"both", "matrix" or "graph"', remedy="Choose one.")
        with torch.no_grad():
            often = self._latent().stationary_distribution(self.model_.params).mean(0).numpy()
        matrix = self.model_.params["transition"].mean(0).numpy()
        words = self._state_words(len(matrix))
        if kind == "matrix":
            return plot_transition_matrix(matrix, names=words, ax=ax)
        if kind == "graph":
            return plot_transition_graph(matrix, often, names=words, ax=ax)
        n = len(matrix)
        size = (max(9.4, 3.0 + 1.05 * n), max(4.0, 1.0 + 0.5 * n))
        left, right = new_panels(ax, 1, 2, size=size, what="one for the matrix and one for the graph")
        plot_transition_matrix(matrix, names=words, ax=left)
        plot_transition_graph(matrix, often, names=words, ax=right)
        return np.array([left, right], dtype=object)

    def plot_emissions(
        self,
        X: Any,
        variable: Any = 0,
        *,
        lengths: Any = None,
        covariates: Any = None,
        history: Any = None,
        ax: Any = None,
    ) -> Any:
        """The fitted law of each state over the histogram of one variable of all sequences.

        States are weighted by the expected share of steps in them. Laws that depend on covariates or on earlier values
        are averaged over the steps. Behind ``Difference()`` the differences are drawn.

        Parameters
        ----------
        variable : int or name
        ax : Axes

        Returns
        -------
        Axes.
        """
        data = self._read(X, lengths, covariates)
        j = self._position(variable)
        with torch.no_grad():
            model, batch, state, first = self._problem(data, history)
            # The densities that are rounded are drawn, not their cells.
            moving = [layer for layer in layers(self.model_.model) if not isinstance(layer, DiscretizedModel)]
            bijections = [layer.bijection for layer in moving if isinstance(layer, ElementwiseModel)]
            plain = len(bijections) == len(moving)
            values = data.values[..., j] if plain else np.where(batch.seen[..., j], batch.x[..., j], np.nan)
            weights = model.smooth(self.model_.params, batch, state)[:, batch.real]
            laws, share = self._laws_of_states(model, batch, weights)
            laws = laws.marginal([j])
            for bijection in reversed(bijections) if plain else ():
                laws = push(laws, bijection.select([j]))
            counted = bool(laws.discrete_variables[0])
            grid, step = _grid(values[data.mask()] if plain else values[batch.real.numpy()], counted)
            nominal = bool(laws.nominal_variables[0])
            if nominal:
                grid = np.arange(laws.n_categories)  # type: ignore[attr-defined]
            heights = (share.unsqueeze(-1) * _heights(laws, grid, step, counted and not nominal)).sum(1).mean(0)
        words = [str(code) for code in grid] if nominal else None
        if nominal and self.vocabulary_ is not None:
            words = [visible(token) for token in self.vocabulary_.tokens]
        return plot_emissions(
            values,
            grid,
            heights.numpy(),
            weights.mean((0, 1)).numpy(),
            discrete=counted,
            names=self._state_words(model.n_states),
            categories=words,
            xlabel=unit_label(data, j) + ("" if plain else " (differences)"),
            ax=ax,
        )

    def _laws_of_states(self, model: DiscreteLatent, batch: Batch, weights: Tensor) -> tuple[Distribution, Tensor]:
        """Laws (draw, r, s) of some steps and the shares of those steps in each state, (draw, r, s)."""
        params = self.model_.params
        try:
            return model.state_laws(params)[:, None], torch.ones(weights.shape[0], 1, weights.shape[-1])
        except UnsupportedError:
            rows = np.unique(np.linspace(0, weights.shape[1] - 1, _STEPS).round().astype(int))
            at = torch.nonzero(batch.real)[rows]
            some = weights[:, rows]
            return model.state_laws(params, batch)[:, at[:, 0], at[:, 1]], some / some.sum(1, keepdim=True)

    def _state_words(self, n_states: int) -> list[str]:
        return [f"state {s}" for s in range(n_states)] if self.state_names_ is None else list(self.state_names_)


def _stacked(ax: Any, k: int, n: int) -> tuple[list[Any], Any]:
    """One panel a variable of each of n sequences and, in a new figure of one sequence, one for the probabilities."""
    if n > 1:
        return new_panels(ax, n * k, 1, size=(8.0, 2.4 * n * k), what="one for each variable of each sequence"), None
    if ax is not None and not isinstance(ax, figure_class()):
        return new_panels(ax, k, 1, size=(0.0, 0.0), what="one a variable" if k > 1 else ""), None
    size, ratios = (8.0, 3.2 + 1.6 * k if k > 1 else 4.6), [2.0 if k > 1 else 3.0] * k + [1.0]
    panels = new_panels(ax, k + 1, 1, size=size, sharex=True, gridspec_kw={"height_ratios": ratios})
    return panels[:-1], panels[-1]


def _grid(values: np.ndarray, counted: bool) -> tuple[np.ndarray, int]:
    """Points along the data, and for counts how many each of them stands for."""
    seen = values[~np.isnan(values)]
    low, high = (float(seen.min()), float(seen.max())) if len(seen) else (0.0, 1.0)
    if counted:
        step = max(1, math.ceil((high - low + 1) / _MOST_COUNTS))
        return np.arange(low, high + step, step), step
    room = 0.04 * (high - low) or 1.0
    return np.linspace(low - room, high + room, _POINTS), 1


def _heights(laws: Distribution, grid: np.ndarray, step: int, counted: bool) -> Tensor:
    """Densities or masses (draw, r, s, point) of one variable."""
    x = torch.as_tensor(grid, dtype=torch.float64)
    each = []
    for start in x:
        value = start.expand(*laws.batch_shape, 1)
        if counted:
            each.append((laws.cdf(value + (step - 1)) - laws.cdf_left(value)).squeeze(-1))
        else:
            each.append(laws.log_prob(value).exp())
    return torch.stack(each, -1)
