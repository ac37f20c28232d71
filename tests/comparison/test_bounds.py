"""Lower bounds beside exact likelihoods: the table says which is which."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

import probseq as ps
from probseq.comparison import evidence
from probseq.report.findings import _bounds

pytestmark = pytest.mark.filterwarnings("ignore:Of .* particles")
NET = ps.AmortizedVI(training=ps.TrainingOptions(max_epochs=2))


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch):
    """In a narrow one sentences are broken and columns left out, whatever they say."""
    monkeypatch.setenv("COLUMNS", "250")


@pytest.fixture(scope="module")
def models():
    y = np.sin(np.arange(60) / 4.0) + np.random.default_rng(0).normal(0.0, 0.2, 60)
    net = ps.DeepMarkov(2, 4, n_particles=25, inference=NET, random_state=0).fit(y)
    return y, {"deep": net, "iid": ps.IID().fit(y), "arma": ps.ARMA((2, 0)).fit(y)}


def test_a_bound_is_named_beside_exact_scores(models):
    y, fitted = models
    found = ps.compare(fitted, y)
    assert found.table["likelihood"].to_dict() == {"deep": "FIVO (25 particles)", "iid": "exact", "arma": "exact"}
    error = fitted["deep"].log_prob(y).attrs["monte_carlo_error"] / 60
    assert found.table.loc["deep", "monte_carlo"] == pytest.approx(error)
    assert found.table["monte_carlo"].isna().to_dict() == {"deep": False, "iid": True, "arma": True}
    assert found.best == "arma"
    assert "a lower bound on average; ranked among exact ones by that bound" in found.table.loc["deep", "note"]
    assert "bound" not in found.table.loc["arma", "note"]
    for text in (repr(found), found._repr_html_()):
        assert "FIVO (25 particles)" in text and "± Monte Carlo" in text and "may be higher" in text
    said = _bounds(SimpleNamespace(comparison=found))
    assert said.startswith("The score of deep (FIVO (25 particles), ± 0.0") and "lower bound" in said


def test_a_bound_that_leads_says_so(models):
    y, fitted = models
    wide = ps.IID().with_parameters(mean=[0.0], scale=[50.0])
    found = ps.compare({"deep": fitted["deep"], "wide": wide}, y)
    assert found.best == "deep" and "leads exact ones by that bound" in found.table.loc["deep", "note"]
    alone = ps.compare({"deep": fitted["deep"], "again": fitted["deep"]}, y)
    assert "among exact ones" not in str(alone) and "lower bound on average" in str(alone)


def test_exact_scores_need_no_words(models):
    y, fitted = models
    found = ps.compare({name: fitted[name] for name in ("iid", "arma")}, y)
    assert set(found.table["likelihood"]) == {"exact"} and found.table["monte_carlo"].isna().all()
    assert "likelihood" not in found.display_table() and "Monte Carlo" not in repr(found)
    assert _bounds(SimpleNamespace(comparison=found)) == ""


def test_an_average_with_an_estimate_is_one(models):
    y, fitted = models
    both = ps.Average({"deep": fitted["deep"], "iid": fitted["iid"]}).fit(y)
    assert both.log_prob(y).attrs["method"] == "FIVO (25 particles)" and not both.log_prob(y).attrs["exact"]
    told = ps.compare({"both": both}, y).table.iloc[0]
    assert told["likelihood"] == "FIVO (25 particles)" and "log score is an estimate" in told["note"]


def test_estimates_that_are_no_bounds_are_not_called_bounds():
    y = np.round(np.random.default_rng(0).normal(0.0, 3.0, 12))
    net = ps.DeepMarkov(2, 4, n_particles=25, transform=ps.Discretize(), inference=NET, random_state=0).fit(y)
    found = ps.compare({"net": net, "iid": ps.IID(transform=ps.Discretize()).fit(y)}, y)
    assert found.table.loc["net", "likelihood"] == "particle filter (25 particles)"
    assert "bound" not in str(found) and _bounds(SimpleNamespace(comparison=found)) == ""


def test_imputed_inputs_are_an_estimate_where_something_is_missing(models):
    y, _ = models
    net = ps.LSTM(3, missing="particles", n_particles=20, inference=ps.MLE(training=NET.training), random_state=0)
    net.fit(y)
    gaps = np.where(np.arange(60) % 7 == 3, np.nan, y)
    assert ps.compare([net], y).table["likelihood"].tolist() == ["exact"]
    told = ps.compare([net], gaps).table.iloc[0]
    assert told["likelihood"] == "missing inputs by 20 particles" and told["monte_carlo"] > 0


def test_scores_of_many_sequences_do_not_depend_on_how_many_are_scored_at_once(models, monkeypatch):
    rng = np.random.default_rng(1)
    data = [rng.normal(size=t) for t in (9, 5, 7, 3)]
    _, fitted = models
    whole = ps.compare({"deep": fitted["deep"], "iid": fitted["iid"]}, data).table
    monkeypatch.setattr(evidence, "_ESTIMATED_AT_ONCE", 18)
    parts = ps.compare({"deep": fitted["deep"], "iid": fitted["iid"]}, data).table
    for column in ("nats", "crps", "pinball", "cover50", "cover90", "pit_p"):
        assert np.allclose(parts[column].astype(float), whole[column].astype(float), atol=1e-6), column
