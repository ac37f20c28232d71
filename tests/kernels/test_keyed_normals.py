"""Noise that belongs to keys."""

from __future__ import annotations

import numpy as np
from scipy import stats

from probseq.kernels.keyed_normals import fill_keyed, next_keys


def noise_of(keys, m):
    normals, uniforms = np.empty((len(keys), m)), np.empty(len(keys))
    fill_keyed(np.asarray(keys, dtype=np.int64), normals, uniforms)
    return normals, uniforms


def after(keys, values, seen=None):
    bits = np.asarray(values, dtype=float).view(np.int64)
    out = np.empty(len(keys), dtype=np.int64)
    next_keys(np.asarray(keys, dtype=np.int64), bits, np.ones(bits.shape, bool) if seen is None else seen, out)
    return out


def test_rows_depend_on_their_key_alone():
    keys = np.array([3, -7, 3, 2**62])
    normals, uniforms = noise_of(keys, 5)
    for i, key in enumerate(keys):
        alone, one = noise_of([key], 5)
        assert np.array_equal(alone[0], normals[i]) and one[0] == uniforms[i]
    assert np.array_equal(noise_of(keys, 3)[0], normals[:, :3])


def test_noise_is_normal_and_independent_between_neighbouring_keys():
    """Keys one apart, as seeds are, and the keys of one path after another."""
    path = [np.int64(5)]
    for _ in range(3999):
        path.append(after(path[-1:], [[0.0]])[0])
    for keys in (np.arange(4000), np.array(path)):
        normals, uniforms = noise_of(keys, 4)
        assert len(np.unique(uniforms)) == 4000
        assert stats.kstest(normals.ravel(), "norm").pvalue > 1e-3
        assert stats.kstest(uniforms, "uniform").pvalue > 1e-3
        # Columns against each other, against those of the row before, and against the numbers that resample.
        every = np.column_stack([normals[1:], normals[:-1], uniforms[1:], uniforms[:-1]])
        for each in (every, every**2):
            between = np.corrcoef(each.T)[np.triu_indices(10, 1)]
            assert np.abs(between).max() < 5.0 / np.sqrt(4000)


def test_keys_tell_values_and_their_order_and_what_is_missing_apart():
    a = after([1], [[0.0, 2.0]])
    found = [a, after([2], [[0.0, 2.0]]), after([1], [[2.0, 0.0]]), after([1], [[0.0, np.nextafter(2.0, 3.0)]])]
    found += [after([1], [[0.0, 2.0]], np.array([[True, False]])), after(a, [[0.0, 2.0]])]
    assert len(np.unique(found)) == len(found)
    hidden = [after([1], [[value, 2.0]], np.array([[False, True]])) for value in (0.0, 9.0)]
    assert hidden[0] == hidden[1]
