"""One picture of how well a linear model fits, and of what it says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from probseq.errors import ShapeError
from probseq.evaluation.whiteness import autocorrelations, ljung_box, partial_autocorrelations
from probseq.plotting.canvas import INK, PALETTE, finish, tint
from probseq.plotting.residuals import plot_residuals

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_diagnostics"]

_LIMIT = 1.959964


def plot_diagnostics(
    times: ArrayLike,
    residuals: ArrayLike,
    *,
    n_fitted: int,
    ar_roots: ArrayLike,
    ma_roots: ArrayLike,
    response: ArrayLike,
    spectrum: tuple[ArrayLike, ArrayLike],
    n_lags: int = 20,
    breaks: Sequence[int] = (),
    xlabel: str = "",
    color: str = PALETTE[0],
    ax: Any = None,
) -> NDArray[Any]:
    """Draw nine panels: four of `plot_residuals`, then partial autocorrelations, tests, roots, response and spectrum.

    Parameters
    ----------
    times, residuals
        shape (time,); NaN is left out.
    n_fitted
        number of coefficients, which the degrees of freedom of the Ljung-Box tests lose.
    ar_roots, ma_roots
        complex roots of both polynomials; their inverses are drawn.
    response
        psi_0, psi_1, ...
    spectrum
        frequencies and densities.
    n_lags, breaks, xlabel, color
        as in ``plot_residuals``.
    ax
        nine axes; without them a figure of its own.

    Returns
    -------
    The nine axes.

    Raises
    ------
    ShapeError
        There are not nine axes.
    """
    panels = _nine(ax)
    z = np.asarray(residuals, float)
    joints = tuple(int(i) for i in breaks)
    plot_residuals(times, z, n_lags=n_lags, breaks=joints, xlabel=xlabel, color=color, ax=panels[:4])
    most = min(n_lags, max(int(np.isfinite(z).sum()) // 2, 1))
    lags = np.arange(1, most + 1)
    band = _LIMIT / np.sqrt(max(int(np.isfinite(z).sum()), 1))
    values = partial_autocorrelations(autocorrelations(z, most, joints))
    panels[4].fill_between(lags, -band, band, color="#E9E9E9", lw=0)
    panels[4].vlines(lags, 0, values, color=tint(color, 0.8), lw=2.4)
    panels[4].axhline(0, color=INK, lw=0.8)
    reach = min(1.05, 1.2 * max([0.3, band, *np.abs(values)]))
    panels[4].set_ylim(-reach, reach)
    finish(panels[4], None, "lag", "partial autocorrelation")
    tested = lags[lags > n_fitted]
    p = [ljung_box(z, int(lag), n_fitted, joints)[2] for lag in tested]
    panels[5].plot(tested, p, ls="", marker="o", ms=4, color=tint(color, 0.8), mew=0)
    panels[5].axhline(0.05, color=INK, lw=0.9, ls="--")
    panels[5].set_ylim(0, 1)
    finish(panels[5], None, "lags tested together", "p-value, Ljung-Box")
    _roots(panels[6], np.asarray(ar_roots, complex), np.asarray(ma_roots, complex))
    psi = np.asarray(response, float)
    panels[7].vlines(np.arange(len(psi)), 0, psi, color=tint(color, 0.45), lw=1.6)
    panels[7].plot(np.arange(len(psi)), psi, ls="", marker="o", ms=3.5, color=color, mew=0)
    panels[7].axhline(0, color=INK, lw=0.8)
    finish(panels[7], None, "steps after the innovation", "response to one unit")
    frequencies, density = (np.asarray(one, float) for one in spectrum)
    panels[8].semilogy(frequencies, density, color=color, lw=1.6)
    finish(panels[8], None, "frequency, turns a step", "spectral density")
    return np.array(panels, dtype=object)


def _nine(ax: Any) -> list[Axes]:
    if ax is None:
        import matplotlib.pyplot as plt

        _, axes = plt.subplots(3, 3, figsize=(12.0, 8.4), layout="constrained")
        return list(axes.ravel())
    panels = list(np.asarray(ax, dtype=object).ravel())
    if len(panels) != 9:
        raise ShapeError(got=f"{len(panels)} axes", expected="nine", remedy="Make them with plt.subplots(3, 3).")
    return panels


def _roots(ax: Axes, ar: NDArray[np.complex128], ma: NDArray[np.complex128]) -> None:
    """Inverse roots: stationary and invertible inside the unit circle."""
    angle = np.linspace(0, 2 * np.pi, 200)
    ax.plot(np.cos(angle), np.sin(angle), color=INK, lw=0.9)
    for roots, marker, shade, label in ((ar, "o", PALETTE[0], "AR"), (ma, "x", PALETTE[4], "MA")):
        if len(roots):
            inverse = 1.0 / roots
            ax.plot(inverse.real, inverse.imag, ls="", marker=marker, ms=5, color=shade, mfc="none", label=label)
    ax.set_aspect("equal", adjustable="datalim")
    ax.set_ylim(-1.15, 1.15)
    finish(ax, None, "inverse roots, real part", "imaginary part")
    if len(ar) or len(ma):
        ax.legend(loc="upper left", frameon=False, fontsize="small")
