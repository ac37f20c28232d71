"""Every exported family with every emission passes the model checks."""

import pytest
import torch

from probseq.distributions.emissions import Normal, Observation, Poisson
from probseq.models.arma import ARMAModel
from probseq.models.base import SequenceModel, Steps
from probseq.models.baseline import IIDModel, SeasonalWalkModel
from probseq.models.hmm import HiddenMarkovModel
from probseq.models.recurrent import RecurrentModel
from probseq.models.wrappers import DifferencedModel
from probseq.testing import ROWS, check_model, model_checks


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_registered_model(row):
    case = row.case()
    for _, check in model_checks(row.skip):
        check(case)


@pytest.mark.parametrize(
    "model, options",
    [
        (ARMAModel(Observation(1), (2, 0, 1), (1, 0, 0, 3), n_covariates=1), {}),
        (DifferencedModel(SeasonalWalkModel(Observation(1)), 2), {"missing": "forbidden", "start": 3}),
        (DifferencedModel(DifferencedModel(IIDModel(Normal(), Observation(1)))), {"missing": "forbidden", "start": 2}),
        (HiddenMarkovModel(3, Normal(), Observation(1), transitions=torch.ones(3, 3).triu().bool().numpy()), {}),
        (
            RecurrentModel(Normal("full"), Observation(2), hidden_size=3, n_covariates=1, dtype=torch.float64),
            {"missing": "pattern"},
        ),
        (
            RecurrentModel(Poisson(), Poisson().observation(1), "gru", 3, 2, lags=(1, 3), dtype=torch.float64),
            {"missing": "pattern"},
        ),
    ],
    ids=[
        "seasonal ARMA with covariates",
        "seasonally differenced walk",
        "twice differenced",
        "left to right HMM",
        "LSTM",
        "stacked GRU",
    ],
)
def test_further_models(model, options):
    check_model(model, **options)


class _Broken(IIDModel):
    """An independent model with one thing wrong."""

    def __init__(self, fault):
        super().__init__(Normal(), Observation(1))
        self.fault = fault

    def _log_prob_steps(self, params, batch, state) -> Steps:
        steps = super()._log_prob_steps(params, batch, state)
        if self.fault == "constant":
            return steps._replace(values=torch.where(batch.seen.any(-1), steps.values + 1e-6, 0.0))
        if self.fault == "padding":
            return steps._replace(values=steps.values + batch.x.mean() - batch.x.mean().detach() * 0)
        if self.fault == "order":
            return steps._replace(values=steps.values + torch.arange(batch.n).unsqueeze(-1) * batch.seen.any(-1))
        return steps

    def update(self, params, state, x, seen, u=None):
        if self.fault == "missing" and not bool(seen.all()):
            return state._replace(steps=state.steps + 1000)
        return super().update(params, state, x, seen, u)

    def predict_next(self, params, state, u=None):
        law = super().predict_next(params, state, u)
        if self.fault == "missing":
            shift = (state.steps >= 1000).to(law.loc.dtype).unsqueeze(-1)
            return type(law)(loc=law.loc + shift, scale=law.scale)
        if self.fault == "sample":
            return _Wide(loc=law.loc, scale=law.scale)
        return law

    def _forecast_marginals(self, params, state, u, horizon):
        law = super()._forecast_marginals(params, state, u, horizon)
        return type(law)(loc=law.loc + 0.5, scale=law.scale) if self.fault == "forecast" else law

    def _forecast_joint(self, params, state, u, horizon):
        law = super()._forecast_joint(params, state, u, horizon)
        if self.fault != "joint":
            return law
        # The marginals stay what they are, but all steps err with the first.
        root = law.scale_tril.clone()
        root[..., 1:, :] *= 0.8
        root[..., 1:, 0] += 0.6 * law.stddev[..., 1:]
        return type(law)(loc=law.loc, scale_tril=root)


class _Wide(type(Normal().distribution({"mean": torch.zeros(1), "scale": torch.ones(1)}))):
    def sample(self, sample_shape=(), generator=None):
        x = super().sample(sample_shape, generator)
        return self.loc + 1.2 * (x - self.loc)


@pytest.mark.parametrize("fault", ["constant", "padding", "order", "missing", "sample", "forecast", "joint"])
def test_checks_find_what_is_wrong(fault):
    with pytest.raises(AssertionError):
        check_model(_Broken(fault))


def test_checks_pass_the_same_model_without_fault():
    check_model(_Broken("none"))


class _Loop(SequenceModel):
    """Only the abstract methods of a model: the slow defaults are its whole implementation."""

    def __init__(self):
        self.inner = IIDModel(Normal(), Observation(2))
        self.observation = self.inner.observation

    def parameters(self):
        return self.inner.parameters()

    def initial_state(self, params, n):
        return self.inner.initial_state(params, n)

    def predict_next(self, params, state, u=None):
        return self.inner.predict_next(params, state, u)

    def update(self, params, state, x, seen, u=None):
        return self.inner.update(params, state, x, seen, u)


def test_defaults_suffice():
    check_model(_Loop())
