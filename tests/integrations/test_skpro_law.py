"""Forecasts in the way of skpro, against closed forms."""

import numpy as np
import pandas as pd
import pytest
import scoringrules as sr
from numpy.testing import assert_allclose
from scipy import integrate, stats

import probseq as ps

pytest.importorskip("skpro", reason="skpro is not installed")
pytest.importorskip("sktime", reason="sktime is not installed")

RNG = np.random.default_rng(0)
DAYS = pd.date_range("2001-01-01", periods=60, freq="D")
TABLE = pd.DataFrame(RNG.standard_normal((60, 2)).cumsum(0), DAYS, ["u", "v"])


@pytest.fixture(scope="module")
def walk():
    """Random walks, two days before the end until two days after it; and their normal laws."""
    forecaster = ps.to_sktime(ps.RandomWalk()).fit(TABLE)
    scale = np.asarray(forecaster.estimator_.params_["scale"]).ravel()
    loc = TABLE.to_numpy()[[57, 58, 59, 59]]
    law = stats.norm(loc, scale * np.sqrt([[1], [1], [1], [2]]))
    return forecaster.predict_proba(fh=[-1, 0, 1, 2]), law


def test_every_question_has_its_closed_form(walk):
    law, normal = walk
    x = normal.mean() + 0.3
    assert law.shape == (4, 2) and law.columns.tolist() == ["u", "v"]
    assert_allclose(law.mean(), normal.mean(), rtol=1e-10)
    assert_allclose(law.var(), normal.var(), rtol=1e-10)
    assert_allclose(law.cdf(x), normal.cdf(x), rtol=1e-10)
    assert_allclose(law.ppf(0.3), normal.ppf(0.3), rtol=1e-10)
    assert_allclose(law.log_pdf(x), normal.logpdf(x), rtol=1e-10)
    assert_allclose(law.pdf(x), normal.pdf(x), rtol=1e-10)
    assert_allclose(law.quantile([0.1, 0.9])[("v", 0.9)], normal.ppf(0.9)[:, 1], rtol=1e-10)
    assert_allclose(law.energy()["energy"], (2 * normal.std() / np.sqrt(np.pi)).sum(1), rtol=1e-9)
    crps = law.energy(x) - 0.5 * law.energy()
    assert_allclose(crps["energy"], sr.crps_normal(x, normal.mean(), normal.std()).sum(1), rtol=1e-9)


def test_parts_are_laws(walk):
    law, normal = walk
    part = law.loc[law.index[[3, 0]], ["v"]]
    assert part.shape == (2, 1) and part.index.equals(law.index[[3, 0]])
    assert_allclose(part.mean(), normal.mean()[[3, 0], 1:], rtol=1e-10)
    again = law.iloc[[1, 3]].iloc[[1], [1]]
    assert_allclose(again.var(), normal.var()[3:, 1:], rtol=1e-10)
    one = law.iat[2, 1]
    assert one.ndim == 0
    assert one.cdf(1.0) == pytest.approx(normal.cdf(1.0)[2, 1]) and one.mean() == pytest.approx(normal.mean()[2, 1])
    assert one.energy() == pytest.approx(2 * normal.std()[2, 1] / np.sqrt(np.pi))
    assert one.energy(1.0) == pytest.approx(
        one.energy() / 2 + sr.crps_normal(1.0, *(normal.mean()[2, 1], normal.std()[2, 1]))
    )
    shuffled = pd.DataFrame(normal.mean()[:, ::-1], law.index, ["v", "u"])
    assert_allclose(law.cdf(shuffled), 0.5, rtol=1e-10)


def test_samples_hang_together_over_the_future():
    law = ps.to_sktime(ps.RandomWalk(random_state=0)).fit(TABLE["u"]).predict_proba(fh=[1, 4])
    drawn = law.sample(4000)
    assert drawn.index.nlevels == 2 and len(drawn) == 8000
    paths = drawn["u"].to_numpy().reshape(4000, 2)
    assert np.corrcoef(paths.T)[0, 1] == pytest.approx(0.5, abs=0.04)
    assert_allclose(paths.var(0), law.var()["u"], rtol=0.1)
    assert law.sample().shape == (2, 1) and law.iloc[[1]].sample(3).shape == (3, 1)
    assert np.isscalar(law.iat[0, 0].sample()) and law.iat[0, 0].sample(5).shape == (5, 1)
    past = ps.to_sktime(ps.RandomWalk(random_state=0)).fit(TABLE["u"]).predict_proba(fh=[-1, 0])
    assert past.sample(7).shape == (14, 1)


def test_mixtures_have_densities_and_energies():
    y = TABLE["u"]
    forecaster = ps.to_sktime(ps.HMM(2, random_state=0)).fit(y)
    law, own = forecaster.predict_proba(fh=[1, 2]), forecaster.estimator_.forecast(2)
    x = np.array([[0.3], [-1.0]])
    assert_allclose(law.log_pdf(x).to_numpy()[:, 0], own.log_prob(x[:, 0]), rtol=1e-10)
    assert_allclose((law.energy(x) - law.energy() / 2)["energy"], own.crps(x[:, 0]), rtol=1e-9)
    cdf = lambda v: float(law.cdf(v).iloc[1, 0])  # noqa: E731
    spread = integrate.quad(lambda v: 2 * cdf(v) * (1 - cdf(v)), -40, 40, limit=200)[0]
    assert law.energy()["energy"].iloc[1] == pytest.approx(spread, rel=1e-6)


def test_counts_have_probabilities():
    counts = pd.Series(np.random.default_rng(1).poisson(3.0, 50).astype(float), DAYS[:50], name="n")
    law = ps.to_sktime(ps.IID(ps.Poisson())).fit(counts).predict_proba(fh=[1, 2])
    poisson = stats.poisson(counts.mean())
    assert law.get_tag("distr:measuretype") == "discrete"
    assert_allclose(law.log_pmf(4.0), poisson.logpmf(4), rtol=1e-10)
    assert_allclose(law.ppf(0.5), poisson.ppf(0.5))
    pairs = poisson.pmf(np.arange(60))
    spread = (pairs[:, None] * pairs * np.abs(np.subtract.outer(np.arange(60), np.arange(60)))).sum()
    assert_allclose(law.energy()["energy"], spread, rtol=1e-6)


def test_what_is_not_predicted_is_nan():
    law = ps.to_sktime(ps.RandomWalk()).fit(TABLE).predict_proba(fh=[-59, -58])
    assert np.isnan(law.mean().iloc[0]).all() and np.isnan(law.cdf(0.0).iloc[0]).all()
    assert np.isfinite(law.mean().iloc[1]).all() and np.isnan(law.ppf(0.5).iloc[0]).all()
