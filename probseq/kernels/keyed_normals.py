"""Standard normal numbers that belong to a key: the same for the same key, whatever stands beside it."""

from __future__ import annotations

import numpy as np

from probseq.kernels.compiler import kernel
from probseq.kernels.normals import fill_normals

__all__ = ["fill_keyed", "next_keys"]


@kernel(inline="always")
def _mixed(z):
    """A bijection of 64 bits whose outputs look random: the finaliser of SplitMix64."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@kernel
def fill_keyed(keys, normals, uniforms):
    """Fill each row with independent N(0, 1), and give it one number in [0, 1), from its key.

    Parameters
    ----------
    keys : (r,) int64
    normals : (r, m) float64
    uniforms : (r,) float64

    References
    ----------
    Steele, Lea and Flood (2014), Fast splittable pseudorandom number generators, OOPSLA, for the words that seed a row.
    """
    golden = np.uint64(0x9E3779B97F4A7C15)
    seed = np.empty(4, dtype=np.uint64)
    for row in range(keys.size):
        at = np.uint64(keys[row])
        for word in range(4):
            at += golden
            seed[word] = _mixed(at)
        at += golden
        uniforms[row] = np.float64(np.int64(_mixed(at) >> np.uint64(11))) / 9007199254740992.0
        fill_normals(normals[row], seed)


@kernel
def next_keys(keys, bits, seen, out):
    """Keys that also depend on what was seen: alike only where the keys and the values are.

    Parameters
    ----------
    keys : (r,) int64
    bits : (r, k) int64, the values as bits; those not seen do not count
    seen : (r, k) bool
    out : (r,) int64
    """
    for row in range(keys.size):
        key = _mixed(np.uint64(keys[row]) + np.uint64(0x9E3779B97F4A7C15))
        for i in range(bits.shape[1]):
            value = np.uint64(bits[row, i]) if seen[row, i] else np.uint64(0xD6E8FEB86659FD93)
            key = _mixed((key ^ value) + np.uint64(0x9E3779B97F4A7C15))
        out[row] = np.int64(key)
