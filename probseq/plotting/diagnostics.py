"""One picture of how well a linear model fits, and of what it says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from probseq.evaluation.whiteness import autocorrelations, ljung_box, partial_autocorrelations
from probseq.plotting.canvas import new_panels, square, whole_ticks
from probseq.plotting.residuals import plot_residuals
from probseq.plotting.style import BAND, INK, LINE, PALETTE, THIN, beside, finish, picture, tint

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_diagnostics"]

_LIMIT = 1.959964


@picture
def plot_diagnostics(
    times: Any,
    residuals: ArrayLike,
    *,
    n_fitted: int,
    ar_roots: ArrayLike,
    ma_roots: ArrayLike,
    response: ArrayLike,
    spectrum: tuple[ArrayLike, ArrayLike],
    n_lags: int = 20,
    breaks: Sequence[int] = (),
    title: str | None = None,
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
    n_lags, breaks, title, xlabel, color
        as in ``plot_residuals``.
    ax
        nine axes, or a figure.

    Returns
    -------
    The nine axes.

    Raises
    ------
    ParameterError
        There are not nine axes.
    """
    panels = new_panels(ax, 3, 3, size=(12.0, 8.4), what="one a diagnostic")
    z = np.asarray(residuals, float)
    joints = tuple(int(i) for i in breaks)
    plot_residuals(times, z, n_lags=n_lags, breaks=joints, title=title, xlabel=xlabel, color=color, ax=panels[:4])
    most = min(n_lags, max(int(np.isfinite(z).sum()) // 2, 1))
    lags = np.arange(1, most + 1)
    band = _LIMIT / np.sqrt(max(int(np.isfinite(z).sum()), 1))
    values = partial_autocorrelations(autocorrelations(z, most, joints))
    panels[4].fill_between(lags, -band, band, color=BAND, lw=0)
    panels[4].vlines(lags, 0, values, color=tint(color, 0.8), lw=2.4)
    panels[4].axhline(0, color=INK, lw=THIN)
    reach = min(1.05, 1.2 * max([0.3, band, *np.abs(values)]))
    panels[4].set_ylim(-reach, reach)
    finish(panels[4], None, "lag", "partial autocorrelation")
    tested = lags[lags > n_fitted]
    p = [ljung_box(z, int(lag), n_fitted, joints)[2] for lag in tested]
    panels[5].plot(tested, p, ls="", marker="o", ms=4, color=tint(color, 0.8), mew=0)
    panels[5].axhline(0.05, color=INK, lw=THIN, ls="--")
    panels[5].set_ylim(0, 1.02)
    finish(panels[5], None, "lags tested together", "p-value, Ljung-Box")
    _roots(panels[6], np.asarray(ar_roots, complex), np.asarray(ma_roots, complex))
    psi = np.asarray(response, float)
    panels[7].vlines(np.arange(len(psi)), 0, psi, color=tint(color, 0.45), lw=1.6)
    panels[7].plot(np.arange(len(psi)), psi, ls="", marker="o", ms=3.5, color=color, mew=0)
    panels[7].axhline(0, color=INK, lw=THIN)
    finish(panels[7], None, "steps after the innovation", "response to one unit")
    frequencies, density = (np.asarray(one, float) for one in spectrum)
    panels[8].semilogy(frequencies, density, color=color, lw=LINE)
    finish(panels[8], None, "frequency, turns a step", "spectral density")
    for panel in (panels[4], panels[5], panels[7]):
        whole_ticks(panel.xaxis)
    return np.array(panels, dtype=object)


def _roots(ax: Axes, ar: NDArray[np.complex128], ma: NDArray[np.complex128]) -> None:
    """Inverse roots: stationary and invertible inside the unit circle."""
    angle = np.linspace(0, 2 * np.pi, 200)
    ax.plot(np.cos(angle), np.sin(angle), color=INK, lw=THIN)
    for roots, marker, shade, label in ((ar, "o", PALETTE[0], "AR"), (ma, "x", PALETTE[4], "MA")):
        if len(roots):
            inverse = 1.0 / roots
            ax.plot(inverse.real, inverse.imag, ls="", marker=marker, ms=5, color=shade, mfc="none", label=label)
    inverses = 1.0 / np.concatenate([ar, ma])
    square(ax, 1.12 * max(1.0, float(np.abs(inverses).max(initial=0.0))))
    finish(ax, None, "inverse roots, real part", "imaginary part")
    if len(ar) or len(ma):
        beside(ax)
