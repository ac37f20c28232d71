"""Whether chains of draws agree, and how many independent draws they are worth.

Arrays are (chain, draw, ...); every result has the trailing shape. Vehtari, Gelman, Simpson, Carpenter and Buerkner
(2021), Rank-normalization, folding, and localization: an improved R-hat for assessing convergence of MCMC.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy import stats
from torch import Tensor

from probseq._types import Record

__all__ = ["ChainDiagnostics", "chain_diagnostics", "ess_bulk", "ess_tail", "r_hat"]

_FEWEST = 4
_RESOLUTION = 1e-15


@dataclass(frozen=True)
class ChainDiagnostics(Record):
    """By parameter, in its shape: rank-normalised split R-hat, bulk and tail effective sample sizes.

    NaN where all draws are equal, as those of a structural zero are, or where there are fewer than four a chain.
    """

    r_hat: dict[str, np.ndarray]
    ess_bulk: dict[str, np.ndarray]
    ess_tail: dict[str, np.ndarray]

    def problems(self, n_draws: int, n_chains: int) -> list[str]:
        """What speaks against these draws, in words that name the parameter; empty where nothing does.

        R-hat should be below 1.05, and some more for short chains, whose R-hat is noisy; fewer than a tenth of the
        draws, and fewer than 100, should not be effective.
        """
        found = []
        limit = 1.05 + 4.0 * n_chains / n_draws
        name, index, worst = _extreme(self.r_hat, np.nanargmax)
        if worst > limit:
            found.append(
                f"the chains disagree: R-hat of {_called(name, index)} is {worst:.2f}, above {limit:.2f}; run longer "
                "(n_warmup=, thin=), or use fewer states"
            )
        name, index, fewest = _extreme(self.ess_bulk, np.nanargmin)
        if fewest < min(100.0, 0.1 * n_draws):
            found.append(
                f"{n_draws} draws of {_called(name, index)} are worth {fewest:.0f} independent ones; raise n_draws= or "
                "thin="
            )
        return found


def chain_diagnostics(params: Mapping[str, Tensor], n_chains: int) -> ChainDiagnostics:
    """Diagnostics of draws (n_chains * n, ...), chain after chain, of every parameter."""
    chains = {name: v.detach().numpy().reshape(n_chains, -1, *v.shape[1:]) for name, v in params.items()}
    return ChainDiagnostics(*({n: measure(v) for n, v in chains.items()} for measure in (r_hat, ess_bulk, ess_tail)))


def r_hat(chains: np.ndarray) -> np.ndarray:
    """The larger of the R-hats of ranks and of folded ranks over half chains: 1 where the chains agree."""
    return _each(chains, lambda x: max(_plain_r_hat(_ranked(_split(x))), _plain_r_hat(_ranked(_split(_folded(x))))))


def ess_bulk(chains: np.ndarray) -> np.ndarray:
    """Independent draws that would estimate the centre of the law as well."""
    return _each(chains, lambda x: _effective(_ranked(_split(x))))


def ess_tail(chains: np.ndarray) -> np.ndarray:
    """Independent draws that would estimate the 5 % and 95 % quantiles as well, the fewer of the two."""

    def fewest(x: np.ndarray) -> float:
        return min(_effective(_split((x <= np.quantile(x, q)).astype(float))) for q in (0.05, 0.95))

    return _each(chains, fewest)


def _each(chains: np.ndarray, measure: Callable[[np.ndarray], float]) -> np.ndarray:
    n_chains, n = chains.shape[:2]
    columns = chains.reshape(n_chains, n, -1)
    out = np.full(columns.shape[-1], np.nan)
    for i in range(out.size):
        x = columns[..., i]
        if n >= _FEWEST and np.isfinite(x).all() and np.ptp(x) > _RESOLUTION:
            out[i] = measure(x)
    return out.reshape(chains.shape[2:])


def _split(x: np.ndarray) -> np.ndarray:
    half = x.shape[1] // 2
    return np.concatenate([x[:, :half], x[:, -half:]])


def _folded(x: np.ndarray) -> np.ndarray:
    return np.abs(x - np.median(x))


def _ranked(x: np.ndarray) -> np.ndarray:
    """Normal scores of the ranks, equation 14."""
    ranks = stats.rankdata(x, method="average").reshape(x.shape)
    return stats.norm.ppf((ranks - 0.375) / (x.size + 0.25))


def _plain_r_hat(x: np.ndarray) -> float:
    """Equation 4."""
    n = x.shape[1]
    between, within = n * x.mean(1).var(ddof=1), x.var(1, ddof=1).mean()
    if within <= 0.0:
        return np.inf
    return float(np.sqrt(((n - 1) / n * within + between / n) / within))


def _effective(x: np.ndarray) -> float:
    """Equations 10 to 13 with Geyer's initial monotone sequence of paired autocorrelations."""
    n_chains, n = x.shape
    if np.ptp(x) <= _RESOLUTION:
        return float(x.size)
    covariance = _autocovariance(x).mean(0)
    within = covariance[0] * n / (n - 1.0)
    total = covariance[0] + (x.mean(1).var(ddof=1) if n_chains > 1 else 0.0)
    correlation = 1.0 - (within - covariance) / total
    correlation[0] = 1.0
    pairs = correlation[: 2 * ((n - 1) // 2)].reshape(-1, 2).sum(1)
    ended = np.flatnonzero(pairs <= 0.0)
    if not len(pairs):  # halves of two draws have no pair of lags
        return float(x.size)
    last = int(ended[0]) if ended.size else len(pairs) - 1
    # Of the last pair only the first number counts, and not where it drew the sum below zero.
    following = correlation[2 * last] if pairs[last] >= 0.0 else max(0.0, correlation[2 * last])
    time = -1.0 + 2.0 * np.minimum.accumulate(pairs[:last]).sum() + float(following)
    return float(x.size / max(time, 1.0 / np.log10(x.size)))


def _autocovariance(x: np.ndarray) -> np.ndarray:
    n = x.shape[1]
    centred = x - x.mean(1, keepdims=True)
    spectrum = np.fft.rfft(centred, 2 * n, axis=1)
    return np.fft.irfft(spectrum * spectrum.conj(), 2 * n, axis=1)[:, :n] / n


def _extreme(
    values: Mapping[str, np.ndarray], argument: Callable[[np.ndarray], np.intp]
) -> tuple[str, tuple[int, ...], float]:
    """The name and index of the largest or smallest value over all parameters that are no NaN."""
    best: tuple[str, tuple[int, ...], float] = ("", (), np.nan)
    for name, array in values.items():
        if not np.isnan(array).all():
            at = tuple(int(i) for i in np.unravel_index(argument(array), array.shape))
            value = float(array[at])
            if np.isnan(best[2]) or argument(np.array([best[2], value])) == 1:
                best = (name, at, value)
    return best


def _called(name: str, index: tuple[int, ...]) -> str:
    return f"{name}{list(index)}" if index else name
