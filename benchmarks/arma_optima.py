"""Is our maximum the highest? Estimates of statsmodels and statsforecast, put into our likelihood, on real series.

Run ``python benchmarks/arma_optima.py`` (some minutes; ``--smoke`` runs one specification). For every series and every
order the peers' estimates are put into our exact likelihood, with the same scored values and the same constant, if they
are stationary and invertible. A difference is a peer's log-likelihood minus ours in nats: never above 1e-4, if all is
well; far below it where the peers stopped early. statsforecast is left out where it is not installed.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import statsmodels.api as sm
import torch
from _record import Record, add_options

import probseq as ps
from probseq.distributions.emissions import Observation
from probseq.inference.optimize import MLE
from probseq.models.arma import ARMAModel
from probseq.models.base import Batch

try:
    from statsforecast.arima import Arima
except ImportError:
    Arima = None

LIMIT = 1e-4
Order = tuple[int, int, int]
PLAIN: tuple[Order, ...] = (
    *((1, 0, 0), (2, 0, 0), (3, 0, 0), (0, 0, 1), (0, 0, 2), (1, 0, 1), (2, 0, 1), (1, 0, 2), (2, 0, 2), (3, 0, 1)),
    *((0, 1, 1), (0, 1, 2), (1, 1, 0), (1, 1, 1), (2, 1, 0), (2, 1, 1), (1, 1, 2), (2, 1, 2), (0, 2, 1), (0, 2, 2)),
)
SEASONAL: tuple[tuple[Order, Order], ...] = (
    *(((0, 1, 1), (0, 1, 1)), ((1, 1, 0), (0, 1, 1)), ((1, 1, 1), (0, 1, 1)), ((0, 1, 2), (0, 1, 1))),
    *(((2, 1, 0), (0, 1, 1)), ((2, 1, 1), (0, 1, 1)), ((0, 1, 1), (1, 1, 0)), ((1, 1, 0), (1, 1, 0))),
    *(((1, 1, 1), (1, 1, 0)), ((0, 1, 1), (1, 1, 1)), ((1, 1, 1), (1, 1, 1)), ((0, 1, 1), (0, 1, 2))),
    *(((1, 0, 0), (0, 1, 1)), ((2, 0, 0), (0, 1, 1)), ((1, 0, 1), (0, 1, 1)), ((1, 0, 1), (1, 1, 0))),
    *(((1, 0, 0), (1, 0, 0)), ((1, 0, 1), (1, 0, 1)), ((1, 1, 0), (1, 0, 0)), ((0, 1, 1), (1, 0, 1))),
)


class Result(NamedTuple):
    """One series and order: our maximum, and what the peers' estimates give in our likelihood (NaN: not usable)."""

    ours: float
    peers: dict[str, float]

    @property
    def excess(self) -> float:
        """How far the best peer is above us."""
        found = [value for value in self.peers.values() if np.isfinite(value)]
        return max(found) - self.ours if found else np.nan


def load_series() -> dict[str, tuple[np.ndarray, int]]:
    """Values and the length of their season (1 for none)."""
    datasets = sm.datasets
    co2 = datasets.co2.load_pandas().data["co2"].resample("MS").mean().interpolate()
    macro = datasets.macrodata.load_pandas().data
    plain = {
        "Lake Huron": ps.datasets.lake_huron().values,
        "sunspots": datasets.sunspots.load_pandas().data["SUNACTIVITY"].to_numpy(),
        "Nile": datasets.nile.load_pandas().data["volume"].to_numpy(),
        "earthquakes": ps.datasets.earthquakes().values,
        "log real GDP": 100 * np.log(macro["realgdp"].to_numpy()),
        "inflation": macro["infl"].to_numpy(),
    }
    seasonal = {
        "log air passengers": (np.log(ps.datasets.air_passengers().values), 12),
        "CO2": (co2.to_numpy()[-360:], 12),
        "El Nino": (datasets.elnino.load_pandas().data.iloc[:, 1:].to_numpy().ravel()[-360:], 12),
    }
    found = {name: (values, 1) for name, values in plain.items()} | seasonal
    return {name: (np.asarray(values, dtype=float).ravel(), period) for name, (values, period) in found.items()}


def specifications(period: int) -> Iterator[tuple[Order, tuple[int, int, int, int]]]:
    yield from ((order, (0, 0, 0, 1)) for order in PLAIN)
    if period > 1:
        yield from ((order, (*seasonal, period)) for order, seasonal in SEASONAL)


def named(blocks: dict[str, np.ndarray], mean: float | None, scale: float) -> dict[str, torch.Tensor]:
    values = {name: np.asarray(value, dtype=float) for name, value in blocks.items() if len(value)}
    values |= {} if mean is None else {"mean": np.float64(mean)}
    return {name: torch.as_tensor(value) for name, value in (values | {"scale": np.float64(scale)}).items()}


def usable(blocks: dict[str, np.ndarray]) -> bool:
    """Whether all roots lie outside the unit circle."""
    signs = {"ar": -1.0, "seasonal_ar": -1.0, "ma": 1.0, "seasonal_ma": 1.0}
    return all(
        (np.abs(np.roots(np.append(signs[name] * np.asarray(value)[::-1], 1.0))) > 1.0).all()
        for name, value in blocks.items()
        if len(value)
    )


def split(values: np.ndarray, order: Order, seasonal: tuple[int, ...]) -> dict[str, np.ndarray]:
    sizes = {"ar": order[0], "ma": order[2], "seasonal_ar": seasonal[0], "seasonal_ma": seasonal[2]}
    stops = np.cumsum(list(sizes.values()))
    return dict(zip(sizes, np.split(np.asarray(values, dtype=float)[: stops[-1]], stops[:-1])))


def statsmodels_fit(y: np.ndarray, order: Order, seasonal: tuple[int, ...], constant: bool):
    result = sm.tsa.ARIMA(
        y, order=order, seasonal_order=seasonal if seasonal[3] > 1 else (0, 0, 0, 0), trend="c" if constant else "n"
    ).fit()
    values = result.params
    mean = float(values[0]) if constant else None
    return split(values[int(constant) : -1], order, seasonal), mean, float(values[-1]) ** 0.5


def statsforecast_fit(y: np.ndarray, order: Order, seasonal: tuple[int, ...], constant: bool):
    # Constants are means without differences, as ours; it has no further default.
    fitted = Arima(
        y,
        order=order,
        seasonal={"order": seasonal[:3], "period": seasonal[3]},
        include_mean=constant,
        method="CSS-ML",
    )
    coefficients = fitted["coef"]
    mean = float(coefficients["intercept"]) if constant else None
    values = [value for name, value in coefficients.items() if name != "intercept"]
    # Its maximum over the scale, given the other estimates, is found below, as ours.
    return split(values, order, seasonal), mean, float(fitted["sigma2"]) ** 0.5


def best_scale(model: ARMAModel, params: dict[str, torch.Tensor], batch: Batch) -> dict[str, torch.Tensor]:
    """The same estimates with the scale that is best for them, so that a divisor of n - k is no handicap."""
    e, f, scored, _ = model._innovations(
        {name: value.unsqueeze(0) for name, value in params.items()},
        batch,
        model.initial_state({name: value.unsqueeze(0) for name, value in params.items()}, 1),
    )
    variance = (e**2 / f)[0][scored].mean()
    return params | {"scale": variance.sqrt()}


def compare(y: np.ndarray, order: Order, seasonal: tuple[int, int, int, int]) -> Result:
    constant = order[1] + seasonal[1] == 0
    model = ARMAModel(Observation(1), order, seasonal, constant)
    seen = torch.ones(1, len(y), 1, dtype=torch.bool)
    batch = Batch(torch.from_numpy(y.copy())[None, :, None], seen, torch.tensor([len(y)]))
    ours = MLE(covariance=False).fit(model, batch, torch.Generator().manual_seed(0)).log_prob
    peers = {"statsmodels": statsmodels_fit} | ({} if Arima is None else {"statsforecast": statsforecast_fit})
    found = {}
    for name, fit in peers.items():
        found[name] = np.nan
        try:
            blocks, mean, scale = fit(y, order, seasonal, constant)
        except (ValueError, np.linalg.LinAlgError, IndexError) as error:
            print(f"    {name} failed: {error}")
            continue
        if usable(blocks):
            params = best_scale(model, named(blocks, mean, scale), batch)
            found[name] = float(model.log_prob(params, batch))
    return Result(float(ours), found)


def shown(order: Order, seasonal: tuple[int, ...]) -> str:
    tail = "" if not any(seasonal[:3]) else "({},{},{})".format(*seasonal[:3])
    return "({},{},{})".format(*order) + tail


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="one specification, to see that it runs")
    add_options(parser)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    record = Record(
        "arma_optima",
        "Is our maximum the highest?",
        "Log-likelihood in nats of estimates of statsmodels (ARIMA) and statsforecast (Arima, CSS-ML) in our exact "
        "likelihood, with the variance that is best for them, less our maximum from one fit with its default starts.",
        options,
        ["statsmodels", "statsforecast"],
    )
    results: dict[str, dict[str, Result]] = {}
    for name, (y, period) in list(load_series().items())[: 1 if options.smoke else None]:
        results[name] = {}
        for order, seasonal in list(specifications(period))[: 1 if options.smoke else None]:
            one = results[name][shown(order, seasonal)] = compare(y, order, seasonal)
            values = " ".join(f"{peer} {value - one.ours:11.2e}" for peer, value in one.peers.items())
            flag = " <-- above ours" if one.excess > LIMIT else ""
            print(f"{name:20s} {shown(order, seasonal):18s} ours {one.ours:12.4f}  {values}{flag}", flush=True)
            gaps = {peer: value - one.ours if np.isfinite(value) else None for peer, value in one.peers.items()}
            record.value("difference", series=name, order=shown(order, seasonal), ours=one.ours, **gaps)
    worst = max(result.excess for each in results.values() for result in each.values() if np.isfinite(result.excess))
    print(f"highest excess of a peer: {worst:.2e} (at most {LIMIT:g}: {worst <= LIMIT})")
    record.mark("highest excess of a peer's maximum over ours, nats", worst, LIMIT, at_least=False)
    record.finish()


if __name__ == "__main__":
    main()
