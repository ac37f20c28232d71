"""What ARMA parameters mean in time and in frequency: responses to an innovation, autocorrelations, spectra."""

from __future__ import annotations

import numpy as np
from scipy.signal import lfilter

from probseq.distributions.params import Params
from probseq.kernels.polynomials import autocovariances
from probseq.models.arma import ARMAModel
from probseq.models.conditional_arma import ConditionalARMAModel

__all__ = ["autocovariance", "impulse_response", "spectral_density"]


def _polynomials(model: ARMAModel | ConditionalARMAModel, params: Params) -> list[tuple[np.ndarray, np.ndarray]]:
    """(1, -phi_1, ...) and (1, theta_1, ...) of the whole polynomials of every draw."""
    found = []
    for ar, ma in zip(*(c.detach().numpy() for c in model.polynomials(params))):
        pair = []
        for lags, coefficients, sign in ((model.lags.ar, ar, -1.0), (model.lags.ma, ma, 1.0)):
            poly = np.zeros(int(lags[-1]) + 1 if lags.size else 1)
            poly[0] = 1.0
            poly[lags] = sign * coefficients
            pair.append(poly)
        found.append((pair[0], pair[1]))
    return found


def _scales(model: ARMAModel | ConditionalARMAModel, params: Params) -> np.ndarray:
    """Standard deviation of the innovations, unconditional where it moves, (D,)."""
    found = model.unconditional_scale(params) if isinstance(model, ConditionalARMAModel) else params["scale"]
    return found.detach().numpy()


def impulse_response(model: ARMAModel | ConditionalARMAModel, params: Params, n: int) -> np.ndarray:
    """psi_0, ..., psi_(n-1) of x_t = sum_j psi_j e_(t-j), for every draw (D, n); with differences for the levels."""
    unit = np.zeros(n)
    unit[:1] = 1.0
    integrated = np.append(1.0, -model.lags.differences)
    return np.stack([lfilter([1.0], integrated, lfilter(ma, ar, unit)) for ar, ma in _polynomials(model, params)])


def autocovariance(model: ARMAModel | ConditionalARMAModel, params: Params, n_lags: int) -> np.ndarray:
    """Cov(w_t, w_(t+k)) for k = 0, ..., n_lags of the (differenced) series, for every draw (D, n_lags + 1)."""
    found = []
    for (ar, ma), scale in zip(_polynomials(model, params), _scales(model, params)):
        lags = np.flatnonzero(ar[1:]) + 1
        gamma, _, _ = autocovariances(lags, np.ascontiguousarray(-ar[lags]), n_lags + ma.size - 1)
        both = np.convolve(ma, ma[::-1])
        away = np.arange(-(ma.size - 1), ma.size)
        at = np.abs(np.arange(n_lags + 1)[:, None] + away)
        found.append(scale**2 * (gamma[at] @ both))
    return np.stack(found)


def spectral_density(model: ARMAModel | ConditionalARMAModel, params: Params, frequencies: np.ndarray) -> np.ndarray:
    r"""f(v) = scale^2 |theta(e^{-2 pi i v}) / phi(e^{-2 pi i v})|^2 of the (differenced) series, for every draw (D, n).

    v in turns a step; the variance is the integral of f from -1/2 to 1/2.
    """
    turn = np.exp(-2j * np.pi * np.asarray(frequencies, dtype=float))
    found = []
    for (ar, ma), scale in zip(_polynomials(model, params), _scales(model, params)):
        found.append(scale**2 * np.abs(np.polyval(ma[::-1], turn) / np.polyval(ar[::-1], turn)) ** 2)
    return np.stack(found)
