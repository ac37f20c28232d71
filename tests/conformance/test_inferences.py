"""Every inference with the models it can fit."""

import copy

import numpy as np
import pytest
from torch.distributions import Laplace, Normal

import probseq as ps
from probseq.data.sequences import sequences
from probseq.distributions.params import take_draw
from probseq.errors import IncompatibleError, ParameterError, UnsupportedError
from probseq.estimators.pipeline import fit_transforms
from probseq.models.marginal import Marginalized
from probseq.results.joint import make_batch
from probseq.testing import ROWS, check_inference

SHORT = ps.TrainingOptions(max_epochs=2)
NOISY = ps.TrainingOptions(max_epochs=2, window=10, batch_size=2)
# Chains of a few steps are quiet only if these are small.
QUIET = ps.TrainingOptions(max_epochs=4, window=10, batch_size=2, learning_rate=1e-4)
FITS = [
    ("HMM diag", ps.EM(n_init=2, max_iter=50, tol=1e-4)),
    ("HMM Poisson", ps.EM(n_init=1, init="random", max_iter=50)),
    ("HMM diag", ps.OnlineEM(n_init=2, window=15, max_epochs=5)),
    ("HMM Poisson", ps.OnlineEM(max_epochs=1)),
    ("HMM diag", ps.MLE(max_iter=30)),
    ("ARMA", ps.MLE()),
    ("ARIMA", ps.MLE()),
    ("IID StudentT", ps.MLE()),
    ("MarkovChain", ps.MLE()),
    ("HMM diag", ps.MAP({"mean": Normal(0.0, 10.0)}, max_iter=30)),
    ("ARMA", ps.MAP({"ar": Normal(0.0, 1.0)}, n_init=1, max_iter=20)),
    ("MarkovChain", ps.MAP()),
    ("HMM diag", ps.VB(n_draws=3, n_init=2)),
    ("HMM full", ps.VB(n_draws=1, n_init=1, init="random")),
    ("HMM Categorical", ps.VB(n_draws=2, n_init=2, prior={"concentration": 1.0})),
    ("HMM tied", ps.Gibbs(n_draws=4, n_chains=2, n_warmup=5)),
    ("HMM Bernoulli", ps.Gibbs(n_draws=1, n_chains=1, n_warmup=5, order=None)),
    ("HMM stationary", ps.Gibbs(n_draws=4, n_chains=2, n_warmup=5, order="mean")),
    ("HMM diag", ps.Laplace(n_draws=3, max_iter=50)),
    ("ARMA", ps.Laplace(n_draws=3)),
    ("IID full", ps.Laplace(n_draws=3)),
    ("HMM Poisson", ps.NUTS(n_draws=4, n_chains=2, n_warmup=3, max_tree_depth=3)),
    ("ARIMA", ps.NUTS(n_draws=2, n_chains=1, n_warmup=2, max_tree_depth=2)),
    ("LinearDynamicalSystem", ps.EM(n_init=2, max_iter=30)),
    ("LinearDynamicalSystem", ps.MLE(max_iter=20)),
    ("LinearDynamicalSystem by EM", ps.NUTS(n_draws=2, n_chains=1, n_warmup=2, max_tree_depth=2)),
    ("SwitchingLDS", ps.VariationalEM(n_init=2, max_iter=40)),
    ("LSTM diag", ps.MLE(training=SHORT)),
    ("LSTM diag", ps.MeanField(n_draws=3, training=SHORT)),
    ("GRU Categorical", ps.MeanField(n_draws=2, training=SHORT)),
    ("LSTM diag", ps.MeanField(2, "learnt", draws_per_batch=2, local_reparameterization=True, training=SHORT)),
    ("RNN Poisson", ps.MAP(training=SHORT)),
    ("LSTM diag", ps.MAP({"weights": Laplace(0.0, 0.1)}, training=SHORT)),
    ("LSTM diag", ps.MCDropout(n_draws=3, training=SHORT)),
    ("GRU Categorical", ps.MCDropout(0.2, n_draws=2, draws_per_batch=2, training=SHORT)),
    ("LSTM diag", ps.Ensemble(2, ps.MLE(training=SHORT))),
    ("GRU Categorical", ps.Ensemble(2, ps.MeanField(n_draws=2, training=SHORT))),
    ("LSTM diag", ps.SWAG(n_draws=3, training=NOISY)),
    ("GRU Categorical", ps.SWAG(n_draws=2, rank=2, n_snapshots=2, training=NOISY)),
    ("LSTM diag", ps.Laplace(n_draws=3, training=SHORT)),
    ("GRU Categorical", ps.Laplace(n_draws=2, structure="kronecker", training=SHORT)),
    ("RNN Poisson", ps.Laplace(n_draws=2, prior_scale=0.5, training=SHORT)),
    ("DeepMarkov", ps.AmortizedVI(kl_annealing=0.5, free_bits=0.1, training=SHORT)),
    ("DeepMarkov guided", ps.AmortizedVI("iwae", 2, training=SHORT)),
    ("SRNN", ps.AmortizedVI("fivo", 2, training=SHORT)),
    ("VRNN", ps.Ensemble(2, ps.AmortizedVI(training=SHORT))),
    ("LSTM diag", ps.SGLD(n_draws=3, learning_rate=1e-4, training=QUIET)),
    ("GRU Categorical", ps.SGLD(n_draws=2, preconditioned=False, training=QUIET)),
    ("LSTM diag", ps.SGHMC(n_draws=3, learning_rate=1e-5, friction=0.5, training=QUIET)),
]


@pytest.mark.parametrize("name, inference", FITS, ids=[f"{name} by {inference!r}" for name, inference in FITS])
def test_inference(name, inference):
    row = next(row for row in ROWS if row.name == name)
    estimator = row.make()
    data = sequences(row.values())
    _, values, lengths, inputs = fit_transforms(estimator._transforms(), data)
    model = estimator._build(estimator._info(data))
    check_inference(inference, model, make_batch(model, values, lengths, inputs))


POSTERIORS = [
    ps.MLE(training=SHORT),
    ps.MAP(training=SHORT),
    ps.MeanField(n_draws=4, training=SHORT),
    ps.MCDropout(n_draws=4, training=SHORT),
    ps.Ensemble(3, ps.MAP(training=SHORT)),
    ps.Ensemble(2, ps.MeanField(n_draws=2, training=SHORT)),
    ps.SWAG(n_draws=4, training=NOISY),
    ps.Laplace(n_draws=4, training=SHORT),
    ps.SGLD(n_draws=4, learning_rate=1e-4, training=QUIET),
    ps.SGHMC(n_draws=4, learning_rate=1e-5, training=QUIET),
]


def alone(model, draw):
    """The fitted model with one of its draws only."""
    one = copy.copy(model)
    one.model_ = Marginalized(model.model_.model, take_draw(model.model_.params, slice(draw, draw + 1)))
    one.training_, one.training_state_, one.training_fingerprint_ = None, None, None
    return one


@pytest.mark.parametrize("inference", POSTERIORS, ids=[repr(one) for one in POSTERIORS])
@pytest.mark.parametrize("head, kind", [(ps.Normal(), "real"), (ps.Categorical(), "code")], ids=["real", "code"])
def test_what_a_network_says_does_not_depend_on_how_its_draws_were_found(inference, head, kind):
    row = next(row for row in ROWS if row.name == f"LSTM {'diag' if kind == 'real' else 'Categorical'}")
    y, other = row.values(), row.values(seed=1)
    model = ps.LSTM(3, head=head, standardize=False, inference=inference, random_state=0).fit(y)
    draws = model.draws_.params["weights"]
    each = [alone(model, d) for d in range(len(draws))]
    log_probs = [float(one.log_prob(other)) for one in each]
    assert float(model.log_prob(other)) == pytest.approx(np.logaddexp.reduce(log_probs) - np.log(len(draws)), rel=1e-5)
    forecast = model.forecast(horizon=3, n_paths=40)
    value = forecast.mean() if kind == "real" else forecast.probs()
    assert np.isfinite(value).all()
    joint = [float(one.forecast(horizon=3, history=y).log_prob(other[:3], joint=True)) for one in each]
    expected = np.logaddexp.reduce(joint) - np.log(len(draws))
    assert float(forecast.log_prob(other[:3], joint=True)) == pytest.approx(expected, rel=1e-4)
    if len(draws) == 1:
        with pytest.raises(UnsupportedError, match="two parameter draws"):
            forecast.decompose()
    else:
        parts = forecast.decompose(n_paths=200)
        assert (parts["aleatoric"] > 0).all()
        assert (parts["epistemic"] > -1e-6).all()
        np.testing.assert_allclose(parts["total"], parts["aleatoric"] + parts["epistemic"], rtol=1e-6)


@pytest.mark.parametrize(
    "make, works",
    [
        (lambda: ps.LSTM(inference=ps.EM()), "MeanField, MLE, MAP, MCDropout, Ensemble, SWAG, Laplace, SGLD, SGHMC"),
        (lambda: ps.LSTM(inference=ps.Ensemble(inference=ps.EM())), "MeanField, MLE, MAP, MCDropout, Ensemble, SWAG"),
        (lambda: ps.ARMA(inference=ps.MCDropout()), "MLE"),
        (lambda: ps.HMM(inference=ps.Ensemble()), "EM, MLE"),
        (lambda: ps.ARMA(inference=ps.EM()), "MLE"),
        (lambda: ps.HMM(inference=ps.MeanField()), "EM, MLE"),
        (lambda: ps.IID(inference=ps.MeanField()), "MLE"),
    ],
)
def test_impossible_pairs_raise_at_construction_with_what_works(make, works):
    with pytest.raises(IncompatibleError, match=works):
        make()


@pytest.mark.parametrize("wrong", [ps.EM, "EM", 3])
def test_inference_must_be_an_object(wrong):
    model = ps.HMM(inference=wrong)
    with pytest.raises(IncompatibleError, match="inference object"):
        model.fit(np.arange(9.0))
    assert not hasattr(model, "model_")


def test_bad_options_leave_nothing_half_fitted():
    model = ps.HMM(inference=ps.EM(max_iter=-1))
    with pytest.raises(ParameterError):
        model.fit(np.arange(20.0))
    assert not hasattr(model, "model_")
