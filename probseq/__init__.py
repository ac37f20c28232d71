"""probseq: sequence models with probabilities, under one likelihood.

Names are loaded when they are first used, so that ``import probseq`` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "probseq.estimators.base": ("TRAINING",),
    "probseq.estimators.hmm": ("HMM",),
    "probseq.estimators.hsmm": ("HSMM",),
    "probseq.estimators.arma": ("ARMA", "ARIMA"),
    "probseq.models.volatility": ("GARCH",),
    "probseq.estimators.auto_arma": ("AutoARMA",),
    "probseq.estimators.average": ("Average",),
    "probseq.estimators.per_sequence": ("PerSequence",),
    "probseq.estimators.classifier": ("SequenceClassifier",),
    "probseq.estimators.anomaly": ("AnomalyDetector",),
    "probseq.estimators.conformal": ("Conformal",),
    "probseq.estimators.recalibrated": ("Recalibrated",),
    "probseq.estimators.structural": ("LocalLevel", "LocalTrend"),
    "probseq.estimators.varma": ("VAR", "VARMA"),
    "probseq.estimators.linear_system": ("LinearDynamicalSystem",),
    "probseq.estimators.switching": ("SwitchingLDS",),
    "probseq.estimators.recurrent": ("RNN", "LSTM", "GRU"),
    "probseq.estimators.latent_network": ("DeepMarkov", "VRNN", "SRNN"),
    "probseq.estimators.baseline": ("IID", "RandomWalk", "SeasonalNaive", "MarkovChain", "PoissonProcess"),
    "probseq.estimators.storage": ("load",),
    "probseq.distributions.emissions": (
        "Normal",
        "StudentT",
        "GaussianMixture",
        "LogNormal",
        "LowRankNormal",
        "Gamma",
        "Beta",
        "VonMises",
        "Poisson",
        "NegativeBinomial",
        "ZeroInflatedPoisson",
        "Multinomial",
        "Categorical",
        "Bernoulli",
        "AutoregressiveBernoulli",
        "Quantiles",
        "Product",
        "Tied",
    ),
    "probseq.distributions.emissions.regression": ("NormalRegression", "PoissonRegression", "AutoregressiveNormal"),
    "probseq.distributions.durations": (
        "FreeDuration",
        "GeometricDuration",
        "NegativeBinomialDuration",
        "PoissonDuration",
    ),
    "probseq.models.transitions": ("Transitions", "LeftRight", "Banded", "Cyclic"),
    "probseq.models.covariate_transitions": ("CovariateTransitions",),
    "probseq.models.transforms": ("Log", "BoxCox", "Logit", "Standardize", "Difference", "ContextScale"),
    "probseq.models.discretize": ("Discretize",),
    "probseq.inference.em": ("EM",),
    "probseq.inference.online": ("OnlineEM",),
    "probseq.inference.optimize": ("MLE",),
    "probseq.inference.map": ("MAP",),
    "probseq.inference.advi": ("ADVI",),
    "probseq.inference.collapsed": ("Collapsed",),
    "probseq.inference.laplace": ("Laplace",),
    "probseq.inference.nuts": ("NUTS",),
    "probseq.inference.vb": ("VB",),
    "probseq.inference.variational_em": ("VariationalEM",),
    "probseq.inference.gibbs": ("Gibbs",),
    "probseq.inference.options": ("TrainingOptions",),
    "probseq.inference.callbacks": ("TrainingCallback", "TrainingRecord"),
    "probseq.inference.variational": ("MeanField",),
    "probseq.inference.amortized": ("AmortizedVI",),
    "probseq.inference.dropout": ("MCDropout",),
    "probseq.inference.ensemble": ("Ensemble",),
    "probseq.inference.langevin": ("SGHMC", "SGLD"),
    "probseq.inference.swag": ("SWAG",),
    "probseq.comparison.compare": ("compare",),
    "probseq.comparison.foreign": ("ForeignForecaster",),
    "probseq.comparison.backtest": ("backtest",),
    "probseq.comparison.cross_validation": ("cross_validate",),
    "probseq.comparison.leave_future_out": ("leave_future_out",),
    "probseq.comparison.marginal_likelihood": ("marginal_likelihood",),
    "probseq.comparison.bootstrap": ("bootstrap",),
    "probseq.comparison.calibration": ("calibration", "plot_calibration"),
    "probseq.integrations.adopt": ("from_hmmlearn",),
    "probseq.integrations.adopt_statsmodels": ("from_statsmodels",),
    "probseq.integrations.arviz": ("to_arviz",),
    "probseq.integrations.midi": ("write_midi",),
    "probseq.integrations.sktime": ("from_sktime", "to_sktime"),
    "probseq.data.sequences": ("sequences", "to_list"),
    "probseq.data.calendar": ("calendar",),
    "probseq.data.grid": ("on_grid",),
    "probseq.data.splits": ("split", "split_sequences"),
    "probseq.data.vocabulary": ("Vocabulary",),
    "probseq.data.textfile": ("TextFile",),
    "probseq.results": ("Forecast",),
    "probseq.report.entry": ("write_report",),
}
_MODULES = {"datasets": "probseq.data.datasets", "errors": "probseq.errors", "testing": "probseq.testing"}
_PUBLIC = {name: module for module, names in _HOMES.items() for name in names}

__all__ = ["__version__", *_PUBLIC, *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        value = getattr(importlib.import_module(_PUBLIC[name]), name)
    elif name in _MODULES:
        value = importlib.import_module(_MODULES[name])
    else:
        raise AttributeError(f"module 'probseq' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
