"""Pictures of forecasts, states and calibration, drawn from arrays.

Every function takes ``ax=None`` and returns the Axes it drew on; without one it makes a figure of its own. Matplotlib
is imported when the first picture is drawn, and its global settings stay as they are. Colours are those of Okabe and
Ito, which people with colour vision deficiencies tell apart. Times are numbers, strings or ``datetime64``.
"""

from probseq.plotting.attention import plot_attention
from probseq.plotting.calibration import plot_calibration_curves
from probseq.plotting.canvas import PALETTE, axes_in, hide_times
from probseq.plotting.diagnostics import plot_diagnostics
from probseq.plotting.forecasts import plot_cumulative_difference, plot_fan, plot_pit, plot_weights
from probseq.plotting.latent_paths import plot_latent_paths
from probseq.plotting.laws import plot_bars, plot_quantiles, plot_ridge
from probseq.plotting.networks import plot_compression, plot_gradient_norms, plot_spectra
from probseq.plotting.piano_rolls import plot_piano_roll
from probseq.plotting.residuals import plot_residuals
from probseq.plotting.states import plot_emissions, plot_state_probabilities, plot_states
from probseq.plotting.transitions import plot_transition_graph, plot_transition_matrix

__all__ = [
    "PALETTE",
    "axes_in",
    "hide_times",
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
    "plot_spectra",
    "plot_state_probabilities",
    "plot_states",
    "plot_transition_graph",
    "plot_transition_matrix",
    "plot_weights",
]
