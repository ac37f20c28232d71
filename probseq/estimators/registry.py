"""Every estimator that users can construct, and the module it lives in."""

from __future__ import annotations

__all__ = ["FAMILIES"]

FAMILIES = {
    "HMM": "probseq.estimators.hmm",
    "HSMM": "probseq.estimators.hsmm",
    "ARMA": "probseq.estimators.arma",
    "AutoARMA": "probseq.estimators.auto_arma",
    "Average": "probseq.estimators.average",
    "VAR": "probseq.estimators.varma",
    "VARMA": "probseq.estimators.varma",
    "LocalLevel": "probseq.estimators.structural",
    "LocalTrend": "probseq.estimators.structural",
    "LinearDynamicalSystem": "probseq.estimators.linear_system",
    "SwitchingLDS": "probseq.estimators.switching",
    "StateSpaceModel": "probseq.estimators.state_space",
    "RegimeModel": "probseq.estimators.regimes",
    "RNN": "probseq.estimators.recurrent",
    "LSTM": "probseq.estimators.recurrent",
    "GRU": "probseq.estimators.recurrent",
    "DeepMarkov": "probseq.estimators.latent_network",
    "VRNN": "probseq.estimators.latent_network",
    "SRNN": "probseq.estimators.latent_network",
    "IID": "probseq.estimators.baseline",
    "RandomWalk": "probseq.estimators.baseline",
    "SeasonalNaive": "probseq.estimators.baseline",
    "MarkovChain": "probseq.estimators.baseline",
    "PoissonProcess": "probseq.estimators.baseline",
    "PerSequence": "probseq.estimators.per_sequence",
    "SequenceClassifier": "probseq.estimators.classifier",
    "AnomalyDetector": "probseq.estimators.anomaly",
    "Conformal": "probseq.estimators.conformal",
    "Recalibrated": "probseq.estimators.recalibrated",
}
