"""Ensembles: members are fits of their own."""

import math
import warnings

import numpy as np
import pytest
import torch

import probseq as ps
from probseq.distributions.emissions import Normal
from probseq.errors import ApproximationWarning, EmptyDataError, IncompatibleError, ParameterError
from probseq.inference.ensemble import Ensemble
from probseq.inference.map import MAP
from probseq.inference.optimize import MLE
from probseq.inference.options import TrainingOptions
from probseq.inference.variational import MeanField
from probseq.models.base import Batch
from probseq.models.baseline import IIDModel
from probseq.models.recurrent import RecurrentModel

SHORT = TrainingOptions(max_epochs=3)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def series(n=1, t=20):
    x = torch.randn(n, t, 1, generator=seeded(1)).cumsum(1)
    return Batch(x, torch.ones_like(x, dtype=torch.bool), torch.full((n,), t))


def small_net():
    emission = Normal()
    return RecurrentModel(emission, emission.observation(1), "gru", 3)


class Failing(MLE):
    """Fails on the fits whose numbers are given."""

    def __init__(self, on=(1,), error=ParameterError, training=None):
        super().__init__(training=training)
        self.on, self.error = on, error
        self.count = 0

    def fit(self, *args, **options):
        self.count += 1
        if self.count - 1 in self.on:
            raise self.error(got="a bad start", expected="a good one") if self.error is ParameterError else self.error()
        return super().fit(*args, **options)


def test_members_are_fits_from_starts_of_their_own():
    model, batch = small_net(), series()
    draws = Ensemble(3, MLE(training=SHORT)).fit(model, batch, seeded())
    seeds = torch.randint(2**62, (3,), generator=seeded()).tolist()
    alone = [MLE(training=SHORT).fit(model, batch, seeded(seed)) for seed in seeds]
    torch.testing.assert_close(draws.params["weights"], torch.cat([one.params["weights"] for one in alone]))
    assert draws.objectives == tuple(one.objective for one in alone)
    np.testing.assert_allclose(draws.optima, sorted(draws.objectives, reverse=True))
    assert draws.member.tolist() == [0, 1, 2]
    assert draws.log_weights is None
    assert draws.n_iter == 9
    total = model.log_prob(draws.params, batch).double().sum(-1)
    assert draws.log_prob == pytest.approx(float(torch.logsumexp(total, 0)) - math.log(3))
    assert float((draws.params["weights"][0] - draws.params["weights"][1]).abs().max()) > 0.05


def test_members_may_be_posteriors():
    model, batch = small_net(), series()
    draws = Ensemble(2, MeanField(n_draws=4, training=SHORT)).fit(model, batch, seeded())
    assert draws.params["weights"].shape == (8, model.n_parameters)
    assert draws.member.tolist() == [0] * 4 + [1] * 4
    nested = Ensemble(2, Ensemble(2, MAP(training=SHORT))).fit(model, batch, seeded())
    assert nested.params["weights"].shape == (4, model.n_parameters)


def test_members_may_be_tempered_and_the_summary_says_so():
    x = series().x[0].numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ApproximationWarning)
        inner = MeanField(2, kl_weight=0.5, training=SHORT)
        tempered = ps.LSTM(2, inference=Ensemble(2, inner), random_state=0).fit(x)
    assert tempered.draws_.kl_weight == 0.5
    assert tempered.summary().attrs["posterior"] == "tempered: kl_weight=0.5"
    plain = ps.LSTM(2, inference=Ensemble(2, MLE(training=SHORT)), random_state=0).fit(x)
    assert plain.summary().attrs["posterior"] == "ensemble"


def test_a_member_that_fails_is_left_out_and_named():
    model, batch = small_net(), series()
    draws = Ensemble(3, Failing((1,), training=SHORT)).fit(model, batch, seeded())
    assert draws.member.tolist() == [0, 2]
    assert math.isnan(draws.objectives[1])
    assert "bad start" in draws.failures[1]
    assert len(draws.messages) == 1
    assert "Member 1 failed" in draws.messages[0]
    whole = Ensemble(3, MLE(training=SHORT)).fit(model, batch, seeded())
    torch.testing.assert_close(draws.params["weights"], whole.params["weights"][[0, 2]])


def test_where_all_fail_the_first_error_is_raised():
    with pytest.raises(ParameterError, match="bad start") as error:
        Ensemble(2, Failing((0, 1), training=SHORT)).fit(small_net(), series(), seeded())
    assert "All 2 members" in error.value.__notes__[0]
    batch = series()
    with pytest.raises(EmptyDataError):
        Ensemble(2).fit(small_net(), batch._replace(seen=torch.zeros_like(batch.seen)), seeded())


def test_an_interrupt_keeps_the_members_that_are_done():
    model, batch = small_net(), series()
    draws = Ensemble(3, Failing((2,), KeyboardInterrupt, training=SHORT)).fit(model, batch, seeded())
    assert draws.status == "interrupted"
    assert draws.member.tolist() == [0, 1]
    with pytest.raises(KeyboardInterrupt):
        Ensemble(2, Failing((0,), KeyboardInterrupt, training=SHORT)).fit(model, batch, seeded())


def test_progress_counts_on_over_members():
    told = []
    inner = MLE(training=TrainingOptions(max_epochs=50))
    Ensemble(2, inner).fit(small_net(), series(), seeded(), progress=lambda i, value: told.append(i))
    assert told == [25, 50, 75, 100]


def test_members_keep_checkpoints_apart(tmp_path):
    inner = MLE(training=TrainingOptions(max_epochs=2, checkpoint=tmp_path))
    Ensemble(2, inner).fit(small_net(), series(), seeded())
    assert sorted(folder.name for folder in tmp_path.iterdir()) == ["member-0", "member-1"]
    assert inner.training.checkpoint == tmp_path


def test_nested_names_reach_the_members():
    inference = Ensemble().set_params(inference__training__max_epochs=4)
    assert inference == Ensemble(inference=MLE(training=TrainingOptions(max_epochs=4)))


def test_what_cannot_be_fitted_is_named():
    emission = Normal()
    with pytest.raises(IncompatibleError, match="recurrent networks"):
        Ensemble().fit(IIDModel(emission, emission.observation(1)), series(), seeded())
    with pytest.raises(IncompatibleError, match="recurrent networks"):
        ps.LSTM(inference=ps.Ensemble(inference=ps.Gibbs()))
    with pytest.raises(ParameterError, match="n_members=0"):
        Ensemble(0).fit(small_net(), series(), seeded())
