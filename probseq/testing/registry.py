"""Every exported family with every emission it takes: the rows that the conformance suite runs over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch.distributions import Dirichlet

import probseq as ps
from probseq._types import Configuration
from probseq.data.sequences import sequences
from probseq.distributions.emissions import Emission
from probseq.estimators.base import SequenceEstimator
from probseq.estimators.pipeline import fit_transforms
from probseq.inference.base import Inference
from probseq.models.base import SequenceModel
from probseq.models.transforms import Transform
from probseq.testing.cases import ModelCase

__all__ = ["ROWS", "Row", "unregistered"]


@dataclass(frozen=True)
class Row:
    """One family with one emission.

    Parameters
    ----------
    name : str
    make : callable
        Returns a new estimator, small enough to be fitted in a moment.
    kind : {"real", "positive", "unit", "angle", "count", "share", "code", "bit", "mixed"}
        What values the data have; "mixed" data are real in the first variable and counts in the others.
    n_variables : int
    missing : {"exact", "pattern", "forbidden"}
        What a missing value does to the model, as in ``check_model``.
    start : int
        How many first values are conditioned on.
    covariates : int
        Number of covariates to fit with.
    skip : tuple of str
        Names of checks that do not apply, each with its reason beside the row.
    """

    name: str
    make: Callable[[], SequenceEstimator]
    kind: str = "real"
    n_variables: int = 1
    missing: str = "exact"
    start: int = 0
    covariates: int = 0
    skip: tuple[str, ...] = field(default=())

    def values(self, t: int = 40, seed: int = 0) -> np.ndarray:
        """One sequence (t, k) of the row's kind with some dependence in time."""
        rng = np.random.default_rng(seed)
        k = self.n_variables
        smooth = np.cumsum(rng.normal(size=(t, k)), 0) * 0.5 + rng.normal(size=(t, k)) * 0.3
        smooth -= smooth.mean(0)
        if self.kind == "real":
            return 3.0 + smooth
        if self.kind == "positive":
            return np.exp(0.3 * smooth) + 0.5
        if self.kind == "unit":
            return 1.0 / (1.0 + np.exp(-0.5 * smooth))
        if self.kind == "count":
            return rng.poisson(np.exp(1.0 + 0.3 * smooth)).astype(float)
        if self.kind == "code":
            codes = np.digitize(smooth, [-1.0, 1.0]).astype(float)
            codes[:3, 0] = [0, 1, 2]  # every category occurs
            return codes
        if self.kind == "angle":
            return np.mod(smooth + np.pi, 2 * np.pi) - np.pi
        if self.kind == "share":
            probs = np.exp(0.3 * smooth) / np.exp(0.3 * smooth).sum(1, keepdims=True)
            return np.array([rng.multinomial(6, p) for p in probs], dtype=float)
        if self.kind == "bit":
            return (smooth > 0).astype(float)
        if self.kind == "mixed":
            return np.concatenate([3.0 + smooth[:, :1], rng.poisson(np.exp(1.0 + 0.3 * smooth[:, 1:]))], 1)
        raise ValueError(self.kind)

    def inputs(self, t: int = 40, seed: int = 0) -> np.ndarray | None:
        """Covariates (t, m), or None."""
        return np.random.default_rng(seed + 1000).normal(size=(t, self.covariates)) if self.covariates else None

    @cached_property
    def fitted(self) -> SequenceEstimator:
        """The estimator fitted to ``values()``; not to be changed."""
        return self.make().fit(self.values(), covariates=self.inputs())

    def model(self) -> SequenceModel[Any]:
        """The mathematical model behind the estimator, its transforms included."""
        estimator = self.make()
        data = sequences(self.values(), covariates=self.inputs())
        transforms, _, _, _ = fit_transforms(estimator._transforms(), data)
        return transforms.wrap(estimator._build(estimator._info(data)))

    def case(self) -> ModelCase:
        """What ``check_model`` works on."""
        return ModelCase(self.model(), missing=self.missing, start=self.start)


_CHAINS_ONLY = ("full", "spherical", "tied", "Gamma", "Beta", "VonMises", "Multinomial", "tied GaussianMixture")
_ALL_NETS = ("diag", "Poisson", "Categorical")
# Checks that ask for log probabilities.
_WITHOUT_LIKELIHOOD = (
    "check_fit",
    "check_scores",
    "check_input_forms",
    "check_ragged",
    "check_coordinates",
    "check_history",
    "check_streaming",
    "check_forecast",
    "check_storage",
)


def _kinds() -> list[tuple[str, Emission, str, int]]:
    return [
        ("diag", ps.Normal(), "real", 2),
        ("full", ps.Normal(covariance="full"), "real", 2),
        ("spherical", ps.Normal(covariance="spherical"), "real", 2),
        ("tied", ps.Normal(covariance="tied"), "real", 2),
        ("StudentT", ps.StudentT(), "real", 1),
        ("Poisson", ps.Poisson(), "count", 1),
        ("Categorical", ps.Categorical(), "code", 1),
        ("Bernoulli", ps.Bernoulli(), "bit", 2),
        ("AutoregressiveBernoulli", ps.AutoregressiveBernoulli(3), "bit", 3),
        ("NegativeBinomial", ps.NegativeBinomial(), "count", 1),
        ("ZeroInflatedPoisson", ps.ZeroInflatedPoisson(), "count", 2),
        ("Gamma", ps.Gamma(), "positive", 2),
        ("LogNormal", ps.LogNormal(), "positive", 1),
        ("LowRankNormal", ps.LowRankNormal(), "real", 3),
        ("Beta", ps.Beta(), "unit", 1),
        ("VonMises", ps.VonMises(), "angle", 2),
        ("Multinomial", ps.Multinomial(n_trials=6), "share", 3),
        ("GaussianMixture", ps.GaussianMixture(2), "real", 1),
        ("tied GaussianMixture", ps.GaussianMixture(2, covariance="tied"), "real", 2),
        ("Product", ps.Product([ps.Normal(), ps.Poisson()]), "mixed", 2),
    ]


def _average(weights: str, forgetting: float) -> SequenceEstimator:
    models = {"ar": ps.ARMA((1, 0)), "walk": ps.ARMA((0, 1, 1)), "trend": ps.ARMA((1, 1, 0))}
    return ps.Average(models, weights, forgetting)


def _quick_em() -> Inference:
    return ps.EM(n_init=1, max_iter=300, tol=1e-3)


def _priors() -> dict[str, Any]:
    return {"transition": Dirichlet(torch.full((2,), 1.5)), "mean": torch.distributions.Normal(0.0, 10.0)}


def _quick_gibbs() -> Inference:
    return ps.Gibbs(n_draws=4, n_chains=2, n_warmup=20, thin=5)


def _quick_nuts() -> Inference:
    return ps.NUTS(n_draws=3, n_chains=1, n_warmup=5, max_tree_depth=3)


def _hmm(emission: Emission) -> SequenceEstimator:
    return ps.HMM(2, emission, inference=_quick_em(), random_state=0)


def _linear(inference: Inference | None = None, n_states: int = 2, **options: Any) -> SequenceEstimator:
    quick = ps.MLE(tol=1e-4, covariance=False) if inference is None else inference
    return ps.LinearDynamicalSystem(n_states, inference=quick, random_state=0, **options)


# Mixtures of all histories, at thousands of points.
_COSTLY = ("check_missing_values", "check_predictive_laws", "check_marginalized")


def _switching(emission: str = "shared") -> SequenceEstimator:
    quick = ps.VariationalEM(n_init=1, max_iter=200, tol=0.1)
    return ps.SwitchingLDS(2, 1, emission, n_particles=128, inference=quick, random_state=0)


def _net(cell: Callable[..., SequenceEstimator], head: Emission) -> SequenceEstimator:
    return cell(3, head=head, inference=_quick_net(), random_state=0)


def _deep(cell: Callable[..., SequenceEstimator], **options: Any) -> SequenceEstimator:
    return cell(4, inference=_quick_net(), random_state=0, **options)


def _latent(family: Callable[..., SequenceEstimator], head: Emission, **options: Any) -> SequenceEstimator:
    given = {"proposal": "prior", "n_particles": 20, "inference": ps.AmortizedVI(training=_least()), **options}
    return family(2, 3, head, random_state=0, **given)


def _latent_rows() -> list[Row]:
    """Networks with latent variables, of few particles; the law of the next step moves these by the prior."""
    # A few particles are not the law that they stand for: values that are drawn, or integrated over, show it.
    few = ("check_missing_values", "check_sample_follows_law", "check_marginalized")
    # What particles are drawn from is told the value of the step, which its one-step law cannot know.
    guided = (*few, "check_scan_equals_step_loop", "check_scores", "check_streaming")
    ensemble = ps.Ensemble(2, ps.AmortizedVI("fivo", 2, training=_least()))
    net: dict[str, Any] = {"proposal": "network", "residual": True, "flow_layers": 1, "look": "both"}
    net["transition"] = "linear"
    bits, codes, deep = ps.AutoregressiveBernoulli(2), ps.Categorical(), ps.DeepMarkov
    return [
        Row("DeepMarkov", partial(_latent, deep, ps.Normal()), skip=few),
        Row("DeepMarkov guided", partial(_latent, deep, ps.StudentT(), **net), covariates=1, skip=guided),
        Row("DeepMarkov AutoregressiveBernoulli", partial(_latent, deep, bits, inference=ensemble), "bit", 3, skip=few),
        Row("VRNN", partial(_latent, ps.VRNN, ps.Poisson()), "count", missing="pattern", skip=few),
        Row("SRNN", partial(_latent, ps.SRNN, codes, look="right"), "code", missing="pattern", skip=few),
    ]


def _least() -> ps.TrainingOptions:
    return ps.TrainingOptions(max_epochs=2)


def _quick_net() -> Inference:
    return ps.MeanField(n_draws=3, training=_short())


def _short() -> ps.TrainingOptions:
    return ps.TrainingOptions(max_epochs=4)


def _noisy(learning_rate: float | None = None) -> ps.TrainingOptions:
    """Several mini-batches a pass."""
    return ps.TrainingOptions(max_epochs=4, window=10, batch_size=2, learning_rate=learning_rate)


def _rows() -> list[Row]:
    rows = []
    for name, emission, kind, k in _kinds():
        rows += [
            Row(f"HMM {name}", partial(_hmm, emission), kind, k),
            Row(f"IID {name}", partial(ps.IID, emission), kind, k),
        ]
        if name not in _CHAINS_ONLY:
            for net in (ps.LSTM, ps.GRU, ps.RNN) if name in _ALL_NETS else (ps.LSTM,):
                rows.append(
                    Row(
                        f"{net.__name__} {name}",
                        partial(_net, net, emission),
                        kind,
                        k,
                        "pattern",
                    )
                )
    rows += [
        Row("HMM stationary", lambda: ps.HMM(2, start="stationary", inference=_quick_em(), random_state=0)),
        Row("HMM by MAP", lambda: ps.HMM(2, inference=ps.MAP(_priors(), tol=1e-5), random_state=0)),
        Row(
            "HMM cyclic",
            lambda: ps.HMM(3, transitions=ps.Cyclic(), start=[1, 0, 0], inference=_quick_em(), random_state=0),
        ),
        Row("HMM regression", partial(_hmm, ps.NormalRegression()), covariates=1),
        Row("HMM Poisson regression", partial(_hmm, ps.PoissonRegression()), "count", covariates=2),
        # A missing value would be an input of the steps after it.
        Row(
            "HMM autoregression",
            lambda: ps.HMM(2, ps.AutoregressiveNormal(), inference=ps.EM(n_init=6, tol=1e-3), random_state=0),
            missing="forbidden",
            start=1,
        ),
        Row(
            "HMM driven",
            lambda: ps.HMM(2, transitions=ps.CovariateTransitions(), inference=_quick_em(), random_state=0),
            covariates=1,
        ),
        Row("HMM Tied states", lambda: ps.HMM(3, ps.Tied(states=[0, 1, 0]), inference=_quick_em(), random_state=0)),
        Row("HMM Tied scale", lambda: ps.HMM(2, ps.Tied(shared=("scale",)), inference=_quick_em(), random_state=0)),
        Row("HMM by OnlineEM", lambda: ps.HMM(2, inference=ps.OnlineEM(tol=1e-2, n_init=2), random_state=0)),
        Row("HMM by Laplace", lambda: ps.HMM(2, inference=ps.Laplace(n_draws=3), random_state=0)),
        Row("ARMA collapsed", lambda: ps.ARMA(order=(1, 0), inference=ps.Collapsed(n_draws=3), random_state=0)),
        Row("ARMA by ADVI", lambda: ps.ARMA(order=(1, 0), inference=ps.ADVI(n_draws=3), random_state=0)),
        Row("ARMA by Laplace", lambda: ps.ARMA(order=(1, 0), inference=ps.Laplace(n_draws=3), random_state=0)),
        Row("HMM by NUTS", lambda: ps.HMM(2, ps.Poisson(), inference=_quick_nuts(), random_state=0), "count"),
        Row("HMM by VB", lambda: ps.HMM(2, inference=ps.VB(n_draws=3, n_init=2, prune=0.0), random_state=0)),
        Row("HMM by Gibbs", lambda: ps.HMM(2, ps.Poisson(), inference=_quick_gibbs(), random_state=0), "count"),
        Row("HSMM", lambda: ps.HSMM(2, duration=ps.FreeDuration(6), inference=_quick_em(), random_state=0)),
        Row(
            "HSMM negative binomial",
            lambda: ps.HSMM(
                2,
                ps.Poisson(),
                ps.NegativeBinomialDuration(8),
                "stationary",
                inference=ps.EM(n_init=1, tol=0.1),
                random_state=0,
            ),
            "count",
        ),
        Row(
            "HSMM by MLE",
            lambda: ps.HSMM(
                3,
                duration=ps.PoissonDuration(5),
                left="censored",
                inference=ps.MLE(tol=1e-3, covariance=False),
                random_state=0,
            ),
        ),
        Row("HMM by MLE", lambda: ps.HMM(2, inference=ps.MLE(tol=1e-5), random_state=0)),
        Row("ARMA", lambda: ps.ARMA(order=(1, 1))),
        Row("ARIMA", lambda: ps.ARIMA(order=(1, 1, 0), inference=ps.MLE()), start=1),
        Row("ARMA seasonal", lambda: ps.ARMA(order=(1, 0, 0), seasonal_order=(1, 1, 0, 4)), start=4),
        Row("AutoARMA", lambda: ps.AutoARMA(d=0, max_p=2, max_q=1)),
        Row("AutoARMA averaged", lambda: ps.AutoARMA(d=1, max_p=2, max_q=1, average=3), start=1),
        # With fixed weights a missing value is integrated out within each model only.
        Row("Average", lambda: ps.Average(random_state=0), skip=("check_missing_values",)),
        Row("Average online", partial(_average, "online", 1.0), start=1),
        Row("Average forgetting", partial(_average, "online", 0.9), start=1, skip=("check_missing_values",)),
        Row(
            "Average of counts",
            lambda: ps.Average([ps.PoissonProcess(), ps.PoissonProcess()], "pseudo_bma"),
            "count",
            skip=("check_missing_values",),
        ),
        Row("AutoARMA with covariates", lambda: ps.AutoARMA(4, d=0, D=0, max_P=1, max_Q=0, max_q=1), covariates=2),
        Row("ARMA sparse", lambda: ps.ARMA(order=([1, 3], 1, [2])), start=1),
        Row("ARMA with line and waves", lambda: ps.ARMA((1, 0), trend="ct", fourier={6.5: 1})),
        Row("ARMA with covariates", lambda: ps.ARMA(order=(1, 0)), covariates=2),
        Row("ARMA Laplace", lambda: ps.ARMA((1, 0), innovations="laplace"), missing="forbidden", start=1),
        Row("ARMA GARCH", lambda: ps.ARMA((0, 0), volatility=ps.GARCH(1, 1)), missing="forbidden"),
        Row("ARIMA skewed", lambda: ps.ARIMA((1, 1, 1), innovations="skewt"), "real", 1, "forbidden", 2, covariates=1),
        Row("LocalLevel", ps.LocalLevel, start=1),
        Row("LocalLevel with covariates", lambda: ps.LocalLevel(period=4), start=4, covariates=2),
        Row("LocalLevel by Laplace", lambda: ps.LocalLevel(inference=ps.Laplace(n_draws=3), random_state=0), start=1),
        Row("LocalTrend", ps.LocalTrend, start=2),
        Row("LocalTrend damped", lambda: ps.LocalTrend(damped=True, period=3, seasonal="trigonometric"), start=4),
        Row("Log LocalTrend", lambda: ps.LocalTrend(transform=ps.Log()), "positive", start=2),
        Row("VAR", ps.VAR, n_variables=2),
        Row("VAR with covariates", lambda: ps.VAR(order=2), n_variables=2, covariates=1),
        Row("VAR by Laplace", lambda: ps.VAR(inference=ps.Laplace(n_draws=3), random_state=0), n_variables=2),
        Row("VARMA", ps.VARMA, n_variables=2),
        Row("VARMA of one variable", ps.VARMA),
        Row("LinearDynamicalSystem", _linear, n_variables=2),
        Row("LinearDynamicalSystem by EM", lambda: _linear(ps.EM(n_init=1, tol=0.1), n_states=1), n_variables=2),
        Row("LinearDynamicalSystem with covariates", lambda: _linear(inputs="both", n_states=1), covariates=1),
        Row("LinearDynamicalSystem driven", lambda: _linear(noise="full", start="mean"), n_variables=2, covariates=1),
        Row("LinearDynamicalSystem by Laplace", lambda: _linear(ps.Laplace(n_draws=3, tol=1e-3), n_states=1)),
        # A missing value is integrated over by as many histories as there are; so many points of it cost too much.
        Row("SwitchingLDS", _switching, n_variables=2, skip=_COSTLY),
        Row("SwitchingLDS with own emissions", lambda: _switching(emission="own"), skip=_COSTLY),
        Row("RandomWalk", ps.RandomWalk, n_variables=2, start=1),
        Row("RandomWalk with drift", lambda: ps.RandomWalk(drift=True), start=1),
        Row("SeasonalNaive", lambda: ps.SeasonalNaive(period=4), start=4),
        Row("MarkovChain", lambda: ps.MarkovChain(order=2), "code"),
        Row("MarkovChain Kneser-Ney", lambda: ps.MarkovChain(2, "kneser_ney"), "code", missing="pattern"),
        Row("PoissonProcess", ps.PoissonProcess, "count"),
        Row(
            "LSTM with covariates",
            lambda: ps.LSTM(3, inference=_quick_net(), random_state=0),
            missing="pattern",
            covariates=2,
        ),
        Row(
            "LSTM by MLE",
            lambda: ps.LSTM(2, inference=ps.MLE(training=ps.TrainingOptions(max_epochs=20)), random_state=0),
            missing="pattern",
        ),
        Row(
            "LSTM Quantiles",
            partial(_net, ps.LSTM, ps.Quantiles((0.1, 0.5, 0.9))),
            n_variables=2,
            missing="pattern",
            skip=_WITHOUT_LIKELIHOOD,
        ),
        Row(
            "LSTM of layers",
            partial(_deep, ps.LSTM, n_layers=2, residual=True, layer_norm=True, dropout=0.1),
            n_variables=2,
            missing="pattern",
        ),
        Row(
            "GRU with attention",
            partial(_deep, ps.GRU, attention=3, initialization="orthogonal"),
            missing="pattern",
            covariates=1,
        ),
        Row(
            "LSTM with tied embeddings",
            partial(_deep, ps.LSTM, head=ps.Categorical(), tie_embeddings=True, locked_dropout=0.1),
            "code",
            missing="pattern",
        ),
        Row(
            "LSTM with known embeddings",
            partial(_deep, ps.LSTM, head=ps.Categorical(), embedding=np.eye(3), freeze_embedding=True),
            "code",
            missing="pattern",
        ),
        Row("RNN relu", partial(_deep, ps.RNN, nonlinearity="relu", weight_dropout=0.1), missing="pattern"),
        Row("LSTM by MAP", lambda: ps.LSTM(2, inference=ps.MAP(training=_short()), random_state=0), missing="pattern"),
        Row(
            "LSTM by MCDropout",
            lambda: ps.LSTM(2, inference=ps.MCDropout(n_draws=3, training=_short()), random_state=0),
            missing="pattern",
        ),
        Row(
            "LSTM by Ensemble",
            lambda: ps.LSTM(2, inference=ps.Ensemble(2, ps.MLE(training=_short())), random_state=0),
            missing="pattern",
        ),
        Row(
            "LSTM by SWAG",
            lambda: ps.LSTM(2, inference=ps.SWAG(n_draws=3, training=_noisy()), random_state=0),
            missing="pattern",
        ),
        Row(
            "LSTM by Laplace",
            lambda: ps.LSTM(2, inference=ps.Laplace(n_draws=3, training=_short()), random_state=0),
            missing="pattern",
        ),
        Row(
            "LSTM by SGLD",
            lambda: ps.LSTM(2, inference=ps.SGLD(3, learning_rate=1e-4, training=_noisy(1e-4)), random_state=0),
            missing="pattern",
        ),
        Row(
            "LSTM by SGHMC",
            lambda: ps.LSTM(2, inference=ps.SGHMC(3, learning_rate=1e-5, training=_noisy(1e-4)), random_state=0),
            missing="pattern",
        ),
        *_latent_rows(),
        Row("Log HMM", lambda: ps.HMM(2, transform=ps.Log(), inference=_quick_em(), random_state=0), "positive"),
        Row("Log ARIMA", lambda: ps.ARMA((0, 1, 1), transform=ps.Log()), "positive", start=1),
        Row("Logit IID", lambda: ps.IID(transform=ps.Logit()), "unit"),
        # A missing value under BoxCox is integrated over the whole line, not over the transform's range.
        Row("BoxCox ARMA", lambda: ps.ARMA((1, 0), transform=ps.BoxCox()), "positive", skip=("check_missing_values",)),
        Row("Standardize IID", lambda: ps.IID(ps.Normal("full"), transform=ps.Standardize()), n_variables=2),
        Row(
            "Log Difference HMM",
            lambda: ps.HMM(2, transform=[ps.Log(), ps.Difference()], inference=_quick_em(), random_state=0),
            "positive",
            missing="forbidden",
            start=1,
        ),
        Row("Discretize IID", lambda: ps.IID(transform=ps.Discretize(lowest=0)), "count", missing="pattern"),
        Row(
            "Discretize Log HMM",
            lambda: ps.HMM(
                2, transform=[ps.Discretize(), ps.Log(-0.5)], inference=ps.EM(n_init=1, tol=1e-3), random_state=0
            ),
            "count",
            missing="pattern",
        ),
        Row("Difference(3) IID", lambda: ps.IID(transform=ps.Difference(3)), missing="forbidden", start=3),
        Row(
            "ContextScale IID", lambda: ps.IID(ps.Normal("full"), transform=ps.ContextScale(3)), n_variables=2, start=3
        ),
        Row("ContextScale ARMA", lambda: ps.ARMA((1, 0), transform=ps.ContextScale(4)), start=4, covariates=1),
        Row(
            "Log ContextScale HMM",
            lambda: ps.HMM(2, transform=[ps.Log(), ps.ContextScale(4)], inference=_quick_em(), random_state=0),
            "positive",
            start=4,
        ),
        Row(
            "LSTM ContextScale",
            partial(_deep, ps.LSTM, transform=ps.ContextScale(3, center=False)),
            missing="pattern",
            start=3,
            covariates=1,
        ),
    ]
    return rows


ROWS: tuple[Row, ...] = tuple(_rows())


def unregistered() -> list[str]:
    """Exported families, emissions, inferences and transforms that occur in no row."""
    exported = {name: getattr(ps, name) for name in ps.__all__ if not name.startswith("_")}
    kinds = (SequenceEstimator, Emission, Inference, Transform)
    wanted = {name: cls for name, cls in exported.items() if isinstance(cls, type) and issubclass(cls, kinds)}
    used: set[type] = set()
    for row in ROWS:
        _collect(row.make(), used)
    return sorted(name for name, cls in wanted.items() if cls not in used)


def _collect(part: Any, used: set[type]) -> None:
    if isinstance(part, SequenceEstimator | Configuration):
        used.add(type(part))
        for value in part.get_params(deep=False).values():
            _collect(value, used)
    elif isinstance(part, list | tuple):
        for value in part:
            _collect(value, used)
