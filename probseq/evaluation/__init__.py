"""Scores and calibration of probabilistic forecasts, on NumPy arrays."""

from probseq.evaluation.calibration import PitHistogram, Uniformity, coverage, pit, pit_histogram, uniformity_test
from probseq.evaluation.crps import (
    crps_discrete,
    crps_normal,
    crps_normal_mixture,
    crps_poisson,
    crps_quantile,
    crps_samples,
    crps_student_t,
    energy_score,
)
from probseq.evaluation.scores import (
    brier_score,
    check_levels,
    interval_score,
    log_mean_exp,
    mase,
    mean_log_score,
    perplexity,
    pinball_loss,
    ranked_probability_score,
    rmse,
    to_bits,
    weighted_quantile_loss,
)
from probseq.evaluation.uncertainty import MeanEstimate, clustered_mean, hac_mean, paired_difference
from probseq.evaluation.weights import pseudo_bma_weights, stacking_weights

__all__ = [
    "MeanEstimate",
    "PitHistogram",
    "Uniformity",
    "brier_score",
    "check_levels",
    "clustered_mean",
    "coverage",
    "crps_discrete",
    "crps_normal",
    "crps_normal_mixture",
    "crps_poisson",
    "crps_quantile",
    "crps_samples",
    "crps_student_t",
    "energy_score",
    "hac_mean",
    "interval_score",
    "log_mean_exp",
    "mase",
    "mean_log_score",
    "paired_difference",
    "perplexity",
    "pinball_loss",
    "pit",
    "pit_histogram",
    "pseudo_bma_weights",
    "ranked_probability_score",
    "rmse",
    "stacking_weights",
    "to_bits",
    "uniformity_test",
    "weighted_quantile_loss",
]
