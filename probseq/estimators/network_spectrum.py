"""What users see of the recurrent matrices of a network: singular values and eigenvalues."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import xarray as xr

from probseq.errors import ParameterError
from probseq.estimators.encoding import Encoding
from probseq.models.recurrent_matrices import GATES, eigenvalues, recurrent_matrices
from probseq.plotting import plot_spectra

__all__ = ["NetworkSpectrum"]


class NetworkSpectrum(Encoding):
    """Methods of an estimator whose model, behind its transforms, is a `RecurrentModel`."""

    def recurrent_spectrum(self, layer: int = 0, gate: str | None = None) -> xr.Dataset:
        r"""Singular values and eigenvalues of U, by which a layer multiplies h_{t-1}; for LSTM and GRU of each gate's.

        In a plain network h_t = f(U h_{t-1} + ...), gradients through j steps are products of j matrices
        U' diag(f'), so they vanish where the largest singular value is below 1 / max f' (which is 1 for tanh and relu)
        and can explode only where it is above (Pascanu, Mikolov and Bengio 2013, section 2.1). At h = 0 the
        eigenvalues are those of the dynamics: moduli are decays a step, angles are turns. Behind gates that is only a
        hint; ``gradient_norms`` measures what really passes.

        Parameters
        ----------
        layer : int
            The first is 0, the last is -1.
        gate : str or None
            One gate: "input", "forget", "new" or "output" of an LSTM, "reset", "keep" or "new" of a GRU. None is all.

        Returns
        -------
        Dataset with dims ``draw, gate, rank``, as far as there are several draws and gates; ranks from 1:

        singular_value
            The largest first.
        eigenvalue
            Complex, the largest modulus first, so that equal ranks of different draws need not be the same direction.
        spectral_norm, spectral_radius
            The first of them; spectral_radius is the modulus.

        The spread over ``draw`` is the uncertainty of the posterior: ``.quantile([.05, .95], "draw")``.

        Raises
        ------
        ParameterError
            For a layer or a gate that the network does not have.
        """
        self._check_fitted()
        model, number = self._recurrent(), self._layer(layer)
        names = GATES[model.layout.cell]
        if gate is not None and gate not in names:
            raise ParameterError(
                got=f"gate={gate!r}", expected=f"one of {list(names)}", remedy="gate=None is all of them."
            )
        with torch.no_grad():
            matrices = recurrent_matrices(model, self.model_.params, number)
            if gate is not None:
                matrices = matrices[:, names.index(gate)].unsqueeze(1)
            singular, eigen = torch.linalg.svdvals(matrices).numpy(), eigenvalues(matrices).numpy()
        keep = (slice(None) if self.model_.n_draws > 1 else 0, slice(None) if len(matrices[0]) > 1 else 0)
        coords: dict[str, Any] = {"draw": np.arange(self.model_.n_draws), "gate": list(names)}
        dims = [dim for dim, kept in zip(("draw", "gate"), keep) if isinstance(kept, slice)]
        found = xr.Dataset(
            {
                "singular_value": ([*dims, "rank"], singular[keep]),
                "eigenvalue": ([*dims, "rank"], eigen[keep]),
                "spectral_norm": (dims, singular[..., 0][keep]),
                "spectral_radius": (dims, np.abs(eigen[..., 0])[keep]),
            },
            {dim: coords[dim] for dim in dims} | {"rank": np.arange(1, singular.shape[-1] + 1)},
        )
        found.attrs = {"layer": number} | ({} if gate is None else {"gate": gate})
        return found

    def plot_recurrent_spectrum(self, layer: int = 0, gate: str | None = None, *, ax: Any = None) -> np.ndarray:
        """Eigenvalues of all draws beside the unit circle, and singular values with 90 % of the draws.

        Parameters
        ----------
        layer, gate
            As in ``recurrent_spectrum``.
        ax : two Axes, or a figure

        Returns
        -------
        Array of two Axes: eigenvalues, singular values.
        """
        found = self.recurrent_spectrum(layer, gate)
        names = [str(name) for name in found["gate"].values] if "gate" in found.dims else [gate or ""]
        arrays = []
        for name in ("eigenvalue", "singular_value"):
            array = found[name].values
            array = array if "draw" in found.dims else array[None]
            arrays.append(array if "gate" in found.dims else array[:, None])
        n_layers = self._recurrent().layout.n_layers
        title = f"layer {found.attrs['layer']}" if n_layers > 1 else None
        return plot_spectra(*arrays, names=names, title=title, ax=ax)
