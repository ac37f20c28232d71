"""Pictures of forecasts, states and calibration, drawn from arrays.

Every function takes ``ax`` and returns what it drew on: one Axes, or for several panels a flat array of Axes. That
may be passed as ``ax`` too, or a Figure or SubFigure in which the panels are made;
None makes a figure. The plot methods of estimators, forecasts and comparisons keep this rule too.

Matplotlib is imported when the first picture is drawn, and its global settings stay as they are; `style` says how
everything looks. Colours are those of Okabe and Ito, which people with colour vision deficiencies tell apart. Times are
numbers, strings, ``datetime64`` or an index of pandas. Chinese characters are drawn with a font that comes with the
package; a character for which there is no font is a GlyphError, never a box. Equations between dollars are drawn by
matplotlib itself.
"""

from probseq.plotting.attention import plot_attention
from probseq.plotting.calibration import plot_calibration_curves
from probseq.plotting.canvas import axes_in, drawn_on, figure_class, hide_times, new_panels
from probseq.plotting.diagnostics import plot_diagnostics
from probseq.plotting.forecasts import plot_cumulative_difference, plot_fan, plot_pit, plot_weights
from probseq.plotting.latent_paths import plot_latent_paths
from probseq.plotting.laws import plot_bars, plot_quantiles, plot_ridge, plot_shades
from probseq.plotting.networks import plot_compression, plot_gradient_norms, plot_spectra
from probseq.plotting.piano_rolls import plot_piano_roll
from probseq.plotting.residuals import plot_residuals
from probseq.plotting.states import plot_emissions, plot_state_probabilities, plot_states
from probseq.plotting.style import PALETTE
from probseq.plotting.transitions import plot_transition_graph, plot_transition_matrix

__all__ = [
    "PALETTE",
    "axes_in",
    "drawn_on",
    "figure_class",
    "hide_times",
    "new_panels",
    "plot_attention",
    "plot_bars",
    "plot_calibration_curves",
    "plot_compression",
    "plot_cumulative_difference",
    "plot_diagnostics",
    "plot_emissions",
    "plot_fan",
    "plot_gradient_norms",
    "plot_latent_paths",
    "plot_piano_roll",
    "plot_pit",
    "plot_quantiles",
    "plot_residuals",
    "plot_ridge",
    "plot_shades",
    "plot_spectra",
    "plot_state_probabilities",
    "plot_states",
    "plot_transition_graph",
    "plot_transition_matrix",
    "plot_weights",
]
