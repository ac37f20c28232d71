"""Likelihoods in parts are the likelihoods of all at once."""

from __future__ import annotations

import pytest
import torch

from probseq.distributions.emissions import Categorical
from probseq.models import parts
from probseq.models.base import map_state
from probseq.models.recurrent import RecurrentModel
from probseq.testing.cases import ModelCase


@pytest.mark.parametrize("draws", [(), (3,)])
def test_a_large_vocabulary_is_scored_in_parts(monkeypatch, draws):
    model = RecurrentModel(Categorical(), Categorical().observation(1, 5), hidden_size=4, dtype=torch.float64)
    case = ModelCase(model, missing="pattern")
    params = case.random_params(draws)
    with torch.no_grad():
        whole = model.log_prob_steps(params, case.batch)
        monkeypatch.setattr(parts, "_LARGEST_LAW", 40)
        assert parts.n_parts(model, params, case.batch, 5) == case.batch.n == 4
        cut = model.log_prob_steps(params, case.batch)
    torch.testing.assert_close(cut.values, whole.values, rtol=1e-12, atol=1e-12)
    assert torch.equal(cut.scored, whole.scored)
    map_state(lambda a, b: torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12), cut.final, whole.final)
    assert parts.n_parts(model, params, case.batch, 5) == 1  # gradients need everything
