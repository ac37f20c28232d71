"""Independent standard normal numbers in double precision, one after another."""

from __future__ import annotations

import math

import numpy as np

from probseq.kernels.compiler import kernel

__all__ = ["fill_normals"]

N_LAYERS = 256
LAST_EDGE = 3.6541528853610088  # where 256 layers of equal area leave exactly the tail


def _layers() -> tuple[np.ndarray, np.ndarray]:
    """Edges x_0 = 0 < ... < x_256 of layers of equal area below exp(-x^2/2), and the heights there.

    Layer i < 255 lies between the heights at x_i and x_(i+1); the last one is a rectangle as wide as x_256 that has
    the area of what lies below the height at x_255, the tail included.
    """
    height = math.exp(-0.5 * LAST_EDGE * LAST_EDGE)
    area = LAST_EDGE * height + math.sqrt(0.5 * math.pi) * math.erfc(LAST_EDGE / math.sqrt(2.0))
    edges = np.zeros(N_LAYERS + 1)
    edges[N_LAYERS], edges[N_LAYERS - 1] = area / height, LAST_EDGE
    for i in range(N_LAYERS - 2, 0, -1):
        height += area / edges[i + 1]
        edges[i] = math.sqrt(-2.0 * math.log(height))
    return edges, np.exp(-0.5 * edges * edges)


EDGES, HEIGHTS = _layers()
STEPS = EDGES[1:] / 2.0**53
INSIDE = (EDGES[:-1] / EDGES[1:] * 2.0**53).astype(np.int64)


@kernel(inline="always")
def _rotated(x, k):
    return (x << np.uint64(k)) | (x >> np.uint64(64 - k))


@kernel(inline="always")
def _next(s0, s1, s2, s3):
    """64 random bits and the state after them: xoshiro256++."""
    bits = _rotated(s0 + s3, 23) + s0
    shifted = s1 << np.uint64(17)
    s2 ^= s0
    s3 ^= s1
    s1 ^= s2
    s0 ^= s3
    s2 ^= shifted
    return bits, s0, s1, s2, _rotated(s3, 45)


@kernel(inline="always")
def _share(bits):
    """A number in (0, 1) from the upper 53 bits."""
    return (np.float64(np.int64(bits >> np.uint64(11))) + 0.5) / 9007199254740992.0


@kernel
def fill_normals(out, seed):
    """Fill a vector with independent N(0, 1).

    The ziggurat of Marsaglia and Tsang (2000, Journal of Statistical Software 5(8)) over xoshiro256++ (Blackman and
    Vigna 2021, ACM Transactions on Mathematical Software 47(4)). Layer, sign and place come from different bits of one
    number (Doornik 2005).

    Parameters
    ----------
    out : (n,) float64
    seed : (4,) int64 or uint64, not all zero
    """
    s0, s1, s2, s3 = np.uint64(seed[0]), np.uint64(seed[1]), np.uint64(seed[2]), np.uint64(seed[3])
    for i in range(out.size):
        while True:
            bits, s0, s1, s2, s3 = _next(s0, s1, s2, s3)
            layer = np.int64(bits & np.uint64(255))
            place = np.int64(bits >> np.uint64(11))
            x = place * STEPS[layer]
            if place >= INSIDE[layer]:
                upright, s0, s1, s2, s3 = _next(s0, s1, s2, s3)
                u = _share(upright)
                if layer == N_LAYERS - 1:
                    # Exponential proposals beyond the last edge (Marsaglia 1964): this layer has its share, so the
                    # next attempt is in the tail again.
                    excess = -math.log(u) / LAST_EDGE
                    upright, s0, s1, s2, s3 = _next(s0, s1, s2, s3)
                    while -2.0 * math.log(_share(upright)) < excess * excess:
                        upright, s0, s1, s2, s3 = _next(s0, s1, s2, s3)
                        excess = -math.log(_share(upright)) / LAST_EDGE
                        upright, s0, s1, s2, s3 = _next(s0, s1, s2, s3)
                    x = LAST_EDGE + excess
                elif HEIGHTS[layer + 1] + u * (HEIGHTS[layer] - HEIGHTS[layer + 1]) >= math.exp(-0.5 * x * x):
                    continue
            out[i] = -x if bits & np.uint64(256) else x
            break
