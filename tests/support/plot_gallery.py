"""Every public plot function at least once, on small fixed data.

Run as a script it renews the reference pictures: ``python tests/support/plot_gallery.py [name ...]``; look at them
before they are committed.
"""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import probseq.plotting as pp

MONTHS = np.arange("2021-01", "2025-01", dtype="datetime64[M]").astype("datetime64[ns]")
N = len(MONTHS)
MOVES = np.array([[0.9, 0.08, 0.02], [0.15, 0.8, 0.05], [0.0, 0.3, 0.7]])
POEM = "白日依山盡黃河入海流"


def _rng() -> np.random.Generator:
    return np.random.default_rng(0)


def _walk(n: int = N) -> np.ndarray:
    return _rng().normal(size=n).cumsum() + 3 * np.sin(np.arange(n) / 4)


def _regimes(n: int = N, k: int = 3) -> tuple[np.ndarray, np.ndarray]:
    weights = np.stack([1.2 + np.sin(np.arange(n) / 5 + 2 * s) for s in range(k)], 1) ** 3
    weights /= weights.sum(1, keepdims=True)
    return weights.argmax(1), weights


def _fan(**more: Any) -> dict[str, Any]:
    median = _walk()[-12:]
    spread = np.sqrt(np.arange(1, 13))
    return {
        "times": MONTHS[-12:],
        "median": median,
        "bands": {
            0.5: (median - 0.7 * spread, median + 0.7 * spread),
            0.9: (median - 1.6 * spread, median + 1.6 * spread),
        },
        "history": (MONTHS[:-12], _walk()[:-12]),
        "ylabel": "level, m",
    } | more


def fan(ax: Any = None) -> Any:
    truth = _walk()[-12:] + _rng().normal(size=12)
    truth[4] = np.nan
    return pp.plot_fan(**_fan(truth=truth, paths=_walk()[-12:] + _rng().normal(size=(3, 12)).cumsum(1)), ax=ax)


def fan_one_step(ax: Any = None) -> Any:
    return pp.plot_fan([8], [1.0], {0.5: ([0.5], [1.5]), 0.9: ([-1.0], [3.0])}, history=(range(8), _walk(8)),
                       truth=[1.4], xlabel="step", ylabel="count", ax=ax)  # fmt: skip


def pit(ax: Any = None) -> Any:
    return pp.plot_pit(_rng().uniform(size=80), title="PIT of the random walk", ax=ax)


def weights(ax: Any = None) -> Any:
    names = ["hidden Markov model", "ARMA(2, 1)", "随机游走", "LSTM"]
    return pp.plot_weights(names, [0.52, -0.2, np.nan, 0.1], [0.1, 0.05, np.nan, 0.2], xlabel="nats per value", ax=ax)


def cumulative_difference(ax: Any = None) -> Any:
    scores = {
        name: _rng().normal(size=N) * (0.2 + 0.1 * i) - 0.05 * i for i, name in enumerate(["hmm", "lstm", "arma"])
    }
    return pp.plot_cumulative_difference(MONTHS, scores, reference="walk", ax=ax)


def latent_paths(ax: Any = None) -> Any:
    means = np.stack([_walk(), np.cos(np.arange(N) / 6) * 4], 1)
    return pp.plot_latent_paths(MONTHS, means, (means - 1, means + 1), names=["level", "season"], ax=ax)


def quantiles(ax: Any = None) -> Any:
    found = _fan()
    levels = {q: found["median"] + z * np.sqrt(np.arange(1, 13)) for q, z in ((0.1, -1.3), (0.5, 0.0), (0.9, 1.3))}
    return pp.plot_quantiles(found["times"], levels, history=found["history"], truth=found["median"] + 0.4,
                             ylabel="level, m", ax=ax)  # fmt: skip


def ridge(ax: Any = None) -> Any:
    x = np.linspace(-5, 9, 120)
    laws = [np.exp(-0.5 * ((x - m) / s) ** 2) / s for m, s in ((0, 0.7), (1, 1.0), (1.5, 1.6), (2, 2.0))]
    return pp.plot_ridge(["1", "2", "3", "4"], [x] * 4, laws, truth=[0.4, 1.9, np.nan, 5], xlabel="level, m",
                         ylabel="steps ahead", ax=ax)  # fmt: skip


def ridge_of_counts(ax: Any = None) -> Any:
    from scipy import stats

    x = np.arange(15.0)
    return pp.plot_ridge(["1", "2", "3"], [x] * 3, [stats.poisson.pmf(x, m) for m in (2, 4, 6)], counted=True,
                         truth=[2, 5, 4], xlabel="earthquakes, count", ylabel="steps ahead", ax=ax)  # fmt: skip


def _probs() -> np.ndarray:
    return _rng().dirichlet(np.full(10, 0.4), size=8)


def bars(ax: Any = None) -> Any:
    steps = [str(i + 1) for i in range(8)]
    return pp.plot_bars(steps, list(POEM), _probs(), truth=list(POEM[:8]), xlabel="steps ahead", ax=ax)


def shades(ax: Any = None) -> Any:
    steps = [str(i + 1) for i in range(8)]
    return pp.plot_shades(steps, list(POEM), _probs(), truth=list(POEM[:8]), xlabel="steps ahead", ax=ax)


def attention(ax: Any = None) -> Any:
    weights = _rng().dirichlet(np.full(6, 0.5), size=10)
    return pp.plot_attention(range(10), weights, tokens=list(POEM), title="登鸛雀樓", ax=ax)


def states(ax: Any = None) -> Any:
    path, weights = _regimes()
    values = _walk()
    values[10:14] = np.nan
    return pp.plot_states(MONTHS, values, path, weights, names=["calm", "active", "wild"], ylabel="price, USD", ax=ax)


def states_of_tokens(ax: Any = None) -> Any:
    path, _ = _regimes(20, 2)
    return pp.plot_states(range(20), np.arange(20) * 7 % 10, path, names=["名詞", "動詞"], categories=list(POEM),
                          xlabel="step", ax=ax)  # fmt: skip


def state_probabilities(ax: Any = None) -> Any:
    return pp.plot_state_probabilities(MONTHS, _regimes()[1], ax=ax)


def emissions(ax: Any = None) -> Any:
    values = np.concatenate([_rng().normal(-2, 1, 120), _rng().normal(3, 1.4, 80)])
    x = np.linspace(-6, 8, 200)
    laws = np.stack([np.exp(-0.5 * ((x - m) / s) ** 2) / s / np.sqrt(2 * np.pi) for m, s in ((-2, 1), (3, 1.4))])
    return pp.plot_emissions(values, x, laws, [0.6, 0.4], names=["calm", "active"], xlabel="return, %", ax=ax)


def emissions_of_categories(ax: Any = None) -> Any:
    laws = _rng().dirichlet(np.full(10, 0.7), size=2)
    values = _rng().integers(0, 10, 60)
    return pp.plot_emissions(values, np.arange(10), laws, [0.5, 0.5], discrete=True, names=["名詞", "動詞"],
                             categories=list(POEM), xlabel="character", ax=ax)  # fmt: skip


def transition_matrix(ax: Any = None) -> Any:
    return pp.plot_transition_matrix(MOVES, names=["calm", "active", "wild"], ax=ax)


def transition_graph(ax: Any = None) -> Any:
    return pp.plot_transition_graph(MOVES, [0.6, 0.3, 0.1], names=["平靜", "活躍", "wild"], ax=ax)


def _calibration(unit: str = "m") -> dict[str, Any]:
    levels = np.linspace(0.05, 0.95, 10)
    curves = {name: (levels, levels**p, 4 * levels * p) for name, p in (("hmm", 1.1), ("arma", 0.8), ("lstm", 1.4))}
    heights = _rng().uniform(0.6, 1.4, (3, 10))
    bins = {name: (np.linspace(0.05, 0.95, 10), height) for name, height in zip(curves, heights, strict=True)}
    return {
        "curves": curves,
        "histograms": bins,
        "error": (levels, np.full(10, 0.03)),
        "band": (0.7, 1.3),
        "unit": unit,
    }


def calibration_curves(ax: Any = None) -> Any:
    return pp.plot_calibration_curves(**_calibration(), ax=ax)


def residuals(ax: Any = None) -> Any:
    return pp.plot_residuals(MONTHS, _rng().normal(size=N), title="residuals of the level", ax=ax)


def diagnostics(ax: Any = None) -> Any:
    f = np.linspace(0, 0.5, 60)
    return pp.plot_diagnostics(
        MONTHS, _rng().normal(size=N), n_fitted=2, ar_roots=[1.3 + 0.6j, 1.3 - 0.6j], ma_roots=[-1.9],
        response=0.8 ** np.arange(20) * np.cos(np.arange(20)), spectrum=(f, 1 / (1.1 - np.cos(6 * f))), ax=ax,
    )  # fmt: skip


def gradient_norms(ax: Any = None) -> Any:
    lag = np.arange(25)
    norms = np.stack([0.8**lag, 0.95**lag]) * np.exp(0.1 * _rng().normal(size=(2, 25)))
    labels = ["layer 0: vanishing, halved in 3.1 steps", "layer 1: healthy, halved in 13.5 steps"]
    return pp.plot_gradient_norms(norms, (norms / 2, norms * 2), growth=[0.8, 0.95], labels=labels, ax=ax)


def spectra(ax: Any = None) -> Any:
    matrices = _rng().normal(size=(6, 3, 8, 8)) / 3.5
    return pp.plot_spectra(np.linalg.eigvals(matrices), np.linalg.svd(matrices, compute_uv=False),
                           names=["reset", "keep", "new"], ax=ax)  # fmt: skip


def compression(ax: Any = None) -> Any:
    return pp.plot_compression(
        [1, 2, 4, 8, 16, 24], [0.9, 0.4, 0.12, 0.03, 0.001, 0.0], [0.1, 0.2, 0.35, 0.6, 0.9, 1], ax=ax
    )


def piano_roll(ax: Any = None) -> Any:
    roll = _rng().uniform(size=(32, 24)) ** 6
    return pp.plot_piano_roll(roll, roll > 0.5, pitches=np.arange(24) + 55, xlabel="quarter notes", ax=ax)


PICTURES: dict[str, Callable[..., Any]] = {
    one.__name__: one
    for one in (
        fan, fan_one_step, quantiles, ridge, ridge_of_counts, bars, shades, pit, calibration_curves, weights,
        cumulative_difference, states, states_of_tokens, state_probabilities, emissions, emissions_of_categories,
        transition_matrix, transition_graph, latent_paths, residuals, diagnostics, attention, gradient_norms, spectra,
        compression, piano_roll,
    )
}  # fmt: skip
REFERENCES = Path(__file__).parents[1] / "pictures"


def axes_of(drawn: Any) -> list[Any]:
    return list(np.ravel(np.asarray(drawn, dtype=object)))


def render(name: str) -> tuple[Any, Image.Image, list[list[float]]]:
    """A figure under matplotlib's own settings, what it looks like at 100 dpi, and where its axes lie there."""
    with mpl.rc_context():
        mpl.rcdefaults()
        figure = axes_of(PICTURES[name]())[0].figure
        stream = io.BytesIO()
        figure.savefig(stream, format="png", dpi=100)
    image = Image.open(stream).convert("RGB")
    extents = [ax.get_window_extent() for ax in figure.axes]
    return figure, image, [[box.x0, image.height - box.y1, box.x1, image.height - box.y0] for box in extents]


def main(names: list[str]) -> None:
    """Write reference pictures of few colours, with the places of their axes."""
    REFERENCES.mkdir(exist_ok=True)
    for name in names or list(PICTURES):
        _, image, places = render(name)
        notes = PngInfo()
        notes.add_text("axes", json.dumps([[round(side, 1) for side in place] for place in places]))
        few = image.quantize(128, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        few.save(REFERENCES / f"{name}.png", optimize=True, pnginfo=notes)
        plt.close("all")


if __name__ == "__main__":
    mpl.use("Agg")
    main(sys.argv[1:])
