"""What users see of gradients through time: how far back a network learns from what it predicts now."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from probseq._types import one_of, whole_number
from probseq.data.sequences import Sequences
from probseq.errors import ParameterError, ShapeError
from probseq.estimators.encoding import Encoding
from probseq.models.recurrent_gradients import gradient_norms, growth_rate, spread_steps
from probseq.plotting import plot_gradient_norms

__all__ = ["NetworkGradients"]

_DEFAULT_LAGS, _LEAST_LAGS = 50, 2
_QUANTILES = (0.05, 0.5, 0.95)


class NetworkGradients(Encoding):
    """Methods of an estimator whose model, behind its transforms, is a `RecurrentModel`."""

    def gradient_norms(
        self,
        X: Any,
        max_lag: int | None = None,
        *,
        n_steps: int = 100,
        of: str = "memory",
        bounds: tuple[float, float] = (0.9, 1.05),
        lengths: Any = None,
        covariates: Any = None,
        history: Any = None,
    ) -> xr.Dataset:
        r"""|| d log p(x_t | x_<t) / d h_{t-lag} ||, averaged over steps t: how far back the score of a step reaches.

        The gradient of a weight is a sum over lags of this gradient times what the weight does at t - lag: where it
        has vanished, training cannot learn from values so far back; where it has exploded, one step of training may
        ruin everything (Pascanu, Mikolov and Bengio 2013, equations 3 to 5). The law is that of the network itself,
        behind the transforms; h_t is what x_t is predicted from (``encode``), so that lag 0 is the gradient of the
        head. Of a head without a density (``Quantiles``) it is the score that training maximises.

        Vanishing is no fault where the data ask for no longer memory than that.

        Parameters
        ----------
        X : data in any form
        max_lag : int or None
            The longest lag, from 2; None is the smaller of 50 and half the longest sequence. Only steps with so many
            steps of X behind them count.
        n_steps : int
            At most so many steps t of all sequences are looked at, in even distances; deterministic.
        of : {"memory", "hidden"}
            With respect to what: all that a layer carries to its next step, (h, c) of an LSTM, or h alone, whose
            gradient leaves out what flows through the cell c. The same for networks without cells.
        bounds : (float, float)
            Rates of growth a step below which gradients are called vanishing, and above which exploding. 0.9 is halved
            in 6.6 steps, 1.05 doubled in 14.2.

        Returns
        -------
        Dataset with dims ``draw, layer, lag``, as far as there are several draws and layers:

        norm
            Mean over steps, in nats per unit of h, which has no unit.
        norm_quantile
            Quantiles .05, .5 and .95 over steps, with a further dim ``quantile``.
        growth_rate
            exp of the slope of log norm through lags 1 to ``max_lag`` (least squares): the factor a step back.
        half_life
            In steps, -log 2 / log growth_rate; inf where gradients do not decay, 0 where none passes.
        diagnosis
            "vanishing", "healthy" or "exploding" by ``bounds``, from the geometric mean over draws; no ``draw``.

        Raises
        ------
        ParameterError
            For ``max_lag``, ``n_steps``, ``of`` or ``bounds`` that make no sense.
        ShapeError
            Where no step that was seen has ``max_lag`` steps behind it.
        """
        data = self._read(X, lengths, covariates)
        low, high = _bounds(bounds)
        raw = self._raw_norms(data, history, max_lag, n_steps, of)
        norm = raw.mean(1)
        rate = growth_rate(norm)
        found = {
            "norm": norm.numpy(),
            "norm_quantile": np.moveaxis(np.quantile(raw.numpy(), _QUANTILES, axis=1), 0, -1),
            "growth_rate": rate.numpy(),
            "half_life": _half_life(rate).numpy(),
        }
        several = {"draw": raw.shape[0] > 1, "layer": raw.shape[2] > 1}
        dims = [dim for dim, many in several.items() if many]
        keep = tuple(slice(None) if many else 0 for many in several.values())
        last: dict[str, list[str]] = {"norm": ["lag"], "norm_quantile": ["lag", "quantile"]}
        coords = {"draw": np.arange(raw.shape[0]), "layer": np.arange(raw.shape[2])}
        result = xr.Dataset(
            {name: ([*dims, *last.get(name, [])], value[keep]) for name, value in found.items()},
            {dim: coords[dim] for dim in dims} | {"lag": np.arange(raw.shape[3]), "quantile": list(_QUANTILES)},
        )
        words = np.array(_diagnosis(_overall(rate), low, high))
        result["diagnosis"] = ("layer", words) if several["layer"] else ((), words[0])
        result.attrs = {"of": of, "vanishing_below": low, "exploding_above": high, "n_steps": raw.shape[1]}
        return result

    def plot_gradient_norms(
        self,
        X: Any,
        max_lag: int | None = None,
        *,
        n_steps: int = 100,
        of: str = "memory",
        bounds: tuple[float, float] = (0.9, 1.05),
        lengths: Any = None,
        covariates: Any = None,
        history: Any = None,
        ax: Any = None,
    ) -> Any:
        """Draw the norms by lag on a logarithmic scale, averaged over draws, with 90 % of steps and draws and the rate.

        The arguments are those of ``gradient_norms``, and ``ax``; returns the Axes.
        """
        data = self._read(X, lengths, covariates)
        low, high = _bounds(bounds)
        raw = self._raw_norms(data, history, max_lag, n_steps, of)
        norm = raw.mean((0, 1))
        rate = growth_rate(norm)
        words = [
            f"{word}, {_pace(float(one))}" for word, one in zip(_diagnosis(rate, low, high), rate.tolist(), strict=True)
        ]
        if len(words) > 1:
            words = [f"layer {i}: {word}" for i, word in enumerate(words)]
        each = raw.flatten(0, 1).numpy()
        band = np.quantile(each, (_QUANTILES[0], _QUANTILES[-1]), axis=0)
        return plot_gradient_norms(norm.numpy(), (band[0], band[1]), growth=rate.numpy(), labels=words, ax=ax)

    def _raw_norms(self, data: Sequences, history: Any, max_lag: Any, n_steps: Any, of: Any) -> Tensor:
        """(D, w, n_layers, max_lag + 1)."""
        one_of("of", of, ("memory", "hidden"))
        if max_lag is not None:
            whole_number("max_lag", max_lag, _LEAST_LAGS, f"Try max_lag={_DEFAULT_LAGS}.")
        whole_number("n_steps", n_steps, 1, f"Try n_steps={_DEFAULT_LAGS}.")
        model, batch, state, _ = self._network(data, history)
        longest = int(batch.lengths.max())
        lags = max(_LEAST_LAGS, min(_DEFAULT_LAGS, longest // 2)) if max_lag is None else int(max_lag)
        rows, steps = spread_steps(batch, lags, int(n_steps))
        if not len(rows):
            seen = torch.nonzero(batch.seen.any(-1) & batch.real)[:, 1]
            most = int(seen.max()) if len(seen) else 0
            raise ShapeError(
                got=f"sequences of at most {longest} steps behind the transforms, with max_lag={lags}",
                expected=f"a value that was seen with {lags} steps before it",
                remedy=f"Pass longer sequences, or max_lag={most}."
                if most >= _LEAST_LAGS
                else f"Pass sequences with values behind the first {_LEAST_LAGS} steps.",
            )
        with torch.no_grad():
            return gradient_norms(model, self.model_.params, batch, state, rows, steps, lags, memory=of == "memory")


def _bounds(bounds: Any) -> tuple[float, float]:
    try:
        low, high = (float(one) for one in bounds)
    except (TypeError, ValueError):
        low = high = np.nan
    if not 0 < low <= 1 <= high:
        raise ParameterError(
            got=f"bounds={bounds!r}", expected="two rates, 0 < low <= 1 <= high", remedy="Try bounds=(0.9, 1.05)."
        )
    return low, high


def _overall(rate: Tensor) -> Tensor:
    """Geometric mean over draws, (n_layers,) from (D, n_layers); 0 where no draw passes anything on."""
    return rate.clamp_min(torch.finfo(rate.dtype).tiny).log().mean(0).exp()


def _diagnosis(rate: Tensor, low: float, high: float) -> list[str]:
    return ["vanishing" if one < low else "exploding" if one > high else "healthy" for one in rate.tolist()]


def _half_life(rate: Tensor) -> Tensor:
    decays = (rate > 0) & (rate < 1)
    steps = -np.log(2.0) / torch.where(decays, rate, 0.5).log()
    return torch.where(decays, steps, torch.where(rate > 0, torch.inf, 0.0))


def _pace(rate: float) -> str:
    if rate == 0:
        return "nothing passes"
    if rate == 1:
        return "constant"
    steps = np.log(2.0) / abs(np.log(rate))
    return f"{'halved' if rate < 1 else 'doubled'} in {steps:.3g} steps"
