import numpy as np
from scipy import stats

from probseq.kernels.normals import EDGES, HEIGHTS, LAST_EDGE, fill_normals

SEED = np.array([81, 2**40 + 5, 7, 2**61 + 3])


def test_layers_have_one_area() -> None:
    # The width of a layer is its outer edge.
    np.testing.assert_allclose(EDGES[1:256] * (HEIGHTS[:255] - HEIGHTS[1:256]), EDGES[256] * HEIGHTS[255], rtol=1e-11)
    assert (np.diff(EDGES) > 0).all()


def test_the_law_is_the_standard_normal() -> None:
    """In 500 equally likely bins, in its first four moments, and beyond the last edge, which has a way of its own."""
    bins, n, rounds = 500, 2_000_000, 10
    counts, tail, moments = np.zeros(bins), np.zeros(2), np.zeros(4)
    edges = stats.norm.ppf(np.arange(1, bins) / bins)
    out, state = np.empty(n), np.random.default_rng(3)
    for _ in range(rounds):
        fill_normals(out, state.integers(1, 2**62, 4))
        ordered = np.sort(out)
        counts += np.diff(np.concatenate([[0], np.searchsorted(ordered, edges), [n]]))
        tail += np.searchsorted(ordered, -LAST_EDGE), n - np.searchsorted(ordered, LAST_EDGE)
        square = out * out
        moments += out.sum(), square.sum(), (square * out).sum(), (square * square).sum()
    assert stats.chisquare(counts).pvalue > 1e-3
    far = stats.norm.sf(LAST_EDGE)
    np.testing.assert_allclose(tail / (rounds * n), far, rtol=4 / np.sqrt(rounds * n * far))
    spread = np.sqrt(np.array([1, 2, 15, 96]) / (rounds * n))
    np.testing.assert_array_less(np.abs(moments / (rounds * n) - [0, 1, 0, 3]), 4 * spread)


def test_far_tail() -> None:
    """What lies beyond the last edge falls off as the normal density does."""
    out, far = np.empty(2_000_000), []
    state = np.random.default_rng(4)
    for _ in range(20):
        fill_normals(out, state.integers(1, 2**62, 4))
        far.append(np.abs(out[np.abs(out) > LAST_EDGE]))
    beyond = np.concatenate(far)
    law = stats.norm.sf(beyond) / stats.norm.sf(LAST_EDGE)
    assert stats.kstest(law, "uniform").pvalue > 1e-3
    expected = 2 * stats.norm.sf(LAST_EDGE) * 20 * out.size
    assert abs(len(beyond) - expected) < 4 * np.sqrt(expected)


def test_numbers_do_not_depend_on_each_other() -> None:
    out = np.empty(1_000_000)
    fill_normals(out, SEED)
    for lag in (1, 2, 3, 24):
        for one in (out, np.abs(out)):
            assert abs(np.corrcoef(one[lag:], one[:-lag])[0, 1]) < 4e-3


def test_the_seed_determines_them() -> None:
    first, again, other = np.empty(100), np.empty(100), np.empty(100)
    fill_normals(first, SEED)
    fill_normals(again, SEED)
    fill_normals(other, SEED + 1)
    np.testing.assert_array_equal(first, again)
    assert not (first == other).any()
