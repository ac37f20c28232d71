"""What users see of the inside of a recurrent network: its hidden states, and what it attends to."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from probseq.data.sequences import Sequences
from probseq.errors import ParameterError
from probseq.estimators.predicting import Predicting
from probseq.models.base import Batch
from probseq.models.recurrent import RecurrentModel, RecurrentState
from probseq.models.recurrent_inside import attention_weights, hidden_states
from probseq.models.wrappers import innermost, unwrap
from probseq.plotting import drawn_on, new_panels, plot_attention
from probseq.results.plots import chosen_sequences, sequence_title, shown_tokens, stamps, time_label

__all__ = ["Encoding"]


class Encoding(Predicting):
    """Methods of an estimator whose model, behind its transforms, is a `RecurrentModel`."""

    def encode(
        self, X: Any, layer: int = -1, *, lengths: Any = None, covariates: Any = None, history: Any = None
    ) -> xr.DataArray:
        """Hidden states h_t of one layer, dims ``draw, sequence, time, unit``: what each value is predicted from.

        h_t is causal: it depends on the values before step t and on the covariates up to step t. It has no ``draw``
        where the weights have one draw only; average over it at your own risk, as the units of different draws need not
        mean the same.

        Parameters
        ----------
        X : data in any form
        layer : int
            Which layer, the first is 0, the last is -1.

        Returns
        -------
        DataArray; NaN where a transform (a difference) leaves nothing to predict, and beyond a sequence's end.

        Raises
        ------
        ParameterError
            For a layer that the network does not have.
        """
        data = self._read(X, lengths, covariates)
        model, batch, state, first = self._network(data, history)
        number = self._layer(layer)
        with torch.no_grad():
            found = hidden_states(model, self.model_.params, batch, state)[..., number, :]
        units = {"unit": np.arange(found.shape[-1])}
        return self._label_steps(found, ("unit",), data, first, "encoding", units)

    def attention_weights(
        self, X: Any, *, lengths: Any = None, covariates: Any = None, history: Any = None
    ) -> xr.DataArray:
        """How much the prediction of each step draws on the state ``lag`` steps before, dims ``time, lag``.

        Before them stand ``draw`` and ``sequence`` where there are several; between them ``head`` where there are
        several heads. The weights of a step sum to one over ``lag``; lag 0 is the state of the step itself.

        Raises
        ------
        UnsupportedError
            For a network without attention.
        """
        data = self._read(X, lengths, covariates)
        model, batch, state, first = self._network(data, history)
        with torch.no_grad():
            found = attention_weights(model, self.model_.params, batch, state)
        coords = {"head": np.arange(found.shape[-2]), "lag": np.arange(found.shape[-1])}
        if found.shape[-2] > 1:
            return self._label_steps(found, ("head", "lag"), data, first, "attention", coords)
        return self._label_steps(found.squeeze(-2), ("lag",), data, first, "attention", {"lag": coords["lag"]})

    def plot_attention(
        self,
        X: Any,
        *,
        sequence: Any = 0,
        head: int = 0,
        lengths: Any = None,
        covariates: Any = None,
        history: Any = None,
        ax: Any = None,
    ) -> Any:
        """Draw the attention weights over time, averaged over draws; below a text stand its tokens.

        Parameters
        ----------
        sequence : int, list of int or None
            Which of several sequences, a panel each; None is all.
        head : int
            Which of several heads.
        ax : Axes, one a sequence, or a figure

        Returns
        -------
        Axes, or an array of them where there are several sequences.
        """
        data = self._read(X, lengths, covariates)
        model, batch, state, first = self._network(data, history)
        heads = 1 if model.attention is None else model.attention.heads
        if isinstance(head, bool) or not isinstance(head, int | np.integer) or not 0 <= head < heads:
            raise ParameterError(
                got=f"head={head!r}", expected=f"a whole number below {heads}", remedy="The first is head=0."
            )
        chosen = chosen_sequences(sequence, data.n_sequences)
        with torch.no_grad():
            found = attention_weights(model, self.model_.params, batch, state).mean(0)[:, :, head]
        size = (8.0, 3.6 if len(chosen) == 1 else 2.6 * len(chosen))
        panels = new_panels(ax, len(chosen), 1, size=size, what="one a sequence" if len(chosen) > 1 else "")
        for panel, i in zip(panels, chosen, strict=True):
            length = int(data.lengths[i])
            plot_attention(
                stamps(data.index[i])[first:],
                found[i, : length - first].numpy(),
                tokens=shown_tokens(data, i)[first:] if data.vocabulary is not None else None,
                title=sequence_title(data, i),
                xlabel=time_label(data, data.index[i]) if data.vocabulary is None and panel is panels[-1] else "",
                ax=panel,
            )
        return drawn_on(panels)

    def _recurrent(self) -> RecurrentModel:
        model = innermost(self.model_.model)
        if not isinstance(model, RecurrentModel):
            raise TypeError(f"{type(model).__name__} is no recurrent network")
        return model

    def _layer(self, layer: Any) -> int:
        """The number of a layer from 0."""
        n = self._recurrent().layout.n_layers
        if isinstance(layer, bool) or not isinstance(layer, int | np.integer) or not -n <= layer < n:
            raise ParameterError(
                got=f"layer={layer!r}", expected=f"a whole number from {-n} to {n - 1}", remedy="The last layer is -1."
            )
        return int(layer) % n

    def _network(self, data: Sequences, history: Any) -> tuple[RecurrentModel, Batch, RecurrentState, int]:
        """The network with its own batch and state, and the number of leading steps that it does not see."""
        batch = self._batch(data)
        begun = self._begin(data, history)
        start = self.model_.initial_state({}, batch.n) if begun is None else begun
        _, batch, state, first = unwrap(self.model_.model, batch, self.model_._unpack(start))
        return self._recurrent(), batch, state, first

    def _label_steps(
        self, found: Tensor, last: tuple[str, ...], data: Sequences, first: int, name: str, coords: dict[str, Any]
    ) -> xr.DataArray:
        """Label (draw, n, t, ...); without ``draw`` where there is one draw only."""
        widths = [(0, 0), (0, 0), (first, 0)] + [(0, 0)] * len(last)
        array = np.pad(found.numpy(), widths, constant_values=np.nan)
        dims: tuple[str, ...] = ("draw", "sequence", "time", *last)
        if self.model_.n_draws == 1:
            array, dims = array[0], dims[1:]
        return data.label(array, dims, name=name, coords=coords)
