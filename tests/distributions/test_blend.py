"""Mixtures of laws of different kinds, against the sum by hand."""

import numpy as np
import pytest
import torch
from scipy import stats

from probseq.distributions.blend import SideBySide, blend, concatenated
from probseq.distributions.compose import Mixture
from probseq.distributions.conditioning import given
from probseq.distributions.gaussian import DiagonalNormal, DiagonalStudentT, FullNormal
from probseq.distributions.laplace import DiagonalLaplace
from probseq.testing.laws import check_distribution

B, K = 3, 2
GENERATOR = torch.Generator().manual_seed(0)


def noise(*shape):
    return torch.randn(*shape, generator=GENERATOR, dtype=torch.float64)


def laws(k=K):
    normal = DiagonalNormal(loc=noise(B, k), scale=noise(B, k).exp())
    heavy = DiagonalStudentT(df=5 + noise(B, k).exp(), loc=noise(B, k), scale=noise(B, k).exp())
    parts = DiagonalLaplace(loc=noise(B, 2, k), scale=noise(B, 2, k).exp())
    return [normal, heavy, Mixture(torch.log_softmax(noise(B, 2), -1), parts)]


def weights(m):
    return torch.log_softmax(noise(B, m), -1)


def test_blend_is_the_sum_of_its_laws():
    each, w = laws(), weights(3)
    law = blend(w, each)
    assert isinstance(law, Mixture) and isinstance(law.components, SideBySide)
    x = noise(B, K)
    for seen in (torch.ones(B, K, dtype=torch.bool), torch.tensor([[True, False]] * B), torch.zeros(B, K).bool()):
        expected = torch.logsumexp(w + torch.stack([one.log_prob_seen(x, seen) for one in each], -1), -1)
        np.testing.assert_allclose(law.log_prob_seen(x, seen), torch.where(seen.any(-1), expected, 0.0), atol=1e-12)
    for name in ("cdf", "cdf_left"):
        expected = sum(w.exp()[:, m, None] * getattr(one, name)(x) for m, one in enumerate(each))
        np.testing.assert_allclose(getattr(law, name)(x), expected, atol=1e-12)
    mean = sum(w.exp()[:, m, None] * one.mean for m, one in enumerate(each))
    square = sum(w.exp()[:, m, None] * (one.variance + one.mean**2) for m, one in enumerate(each))
    np.testing.assert_allclose(law.mean, mean, atol=1e-12)
    np.testing.assert_allclose(law.variance, square - mean**2, atol=1e-10)


def test_blend_keeps_the_laws_of_a_distribution():
    check_distribution(blend(weights(3), laws()), n_samples=2000)
    check_distribution(blend(weights(3), laws(1)), n_samples=2000)


def test_batches_of_a_blend_move():
    each, w = laws(), weights(3)
    law = blend(w, each)
    x = noise(B, K)
    whole = law.log_prob(x)
    np.testing.assert_allclose(law[1].log_prob(x[1]), whole[1])
    np.testing.assert_allclose(law.reshape(1, B, 1).log_prob(x.reshape(1, B, 1, K)).reshape(B), whole)
    np.testing.assert_allclose(law.reshape(1, B).movedim(0, 1).log_prob(x.reshape(B, 1, K)).reshape(B), whole)
    np.testing.assert_allclose(law.expand((4, B)).log_prob(x), whole.expand(4, B))
    inner = blend(weights(2), [law, each[0]])
    np.testing.assert_allclose(inner[1].cdf(x[1]), inner.cdf(x)[1])
    np.testing.assert_allclose(law.marginal([1]).cdf(x[:, 1:]), law.cdf(x)[:, 1:])


def test_normals_of_all_families_become_one_mixture():
    w = weights(3)
    a = DiagonalNormal(loc=noise(B, 1), scale=noise(B, 1).exp())
    b = FullNormal(loc=noise(B, 1), scale_tril=noise(B, 1, 1).exp())
    c = Mixture(torch.log_softmax(noise(B, 2), -1), DiagonalNormal(loc=noise(B, 2, 1), scale=noise(B, 2, 1).exp()))
    law = concatenated(w, [a, b, c])
    assert isinstance(law, Mixture) and isinstance(law.components, DiagonalNormal) and law.log_weights.shape == (B, 4)
    x = noise(B, 1)
    one = stats.norm.logpdf(x[0, 0], a.loc[0, 0], a.scale[0, 0])
    two = stats.norm.logpdf(x[0, 0], b.loc[0, 0], b.scale_tril[0, 0, 0])
    expected = np.logaddexp.reduce([w[0, 0] + one, w[0, 1] + two, w[0, 2] + c.log_prob(x)[0]])
    assert float(law.log_prob(x)[0]) == pytest.approx(float(expected), rel=1e-12)
    assert concatenated(weights(2), [a, laws(1)[1]]) is None
    assert blend(weights(1) * 0, [a]) is a


def test_what_is_open_given_what_is_known():
    each = [laws()[0], FullNormal(loc=noise(B, K), scale_tril=torch.eye(K).double() + 0.5 * noise(B, K, K).tril(-1))]
    w, x = weights(2), noise(B, K)
    seen = torch.tensor([[True, False]] * B)
    law = given(Mixture(w, SideBySide(each)), x, seen)
    joint = torch.logsumexp(w + torch.stack([one.log_prob(x) for one in each], -1), -1)
    known = torch.logsumexp(w + torch.stack([one.log_prob_seen(x, seen) for one in each], -1), -1)
    np.testing.assert_allclose(law.log_prob_seen(x, ~seen), joint - known, rtol=1e-10)
