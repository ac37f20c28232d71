"""Draws the picture of the first page: three families, one series, one scale. Run it after changing a model of it.

It writes _static/landing-light.svg and _static/landing-dark.svg; about a minute.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.dates as mdates
import matplotlib.pyplot as plt
import pandas as pd

import probseq as ps

LEVELS = [0.05, 0.25, 0.5, 0.75, 0.95]
TITLES = {"arma": "ARMA, 3 parameters", "lstm": "Bayesian LSTM, 4940 weights", "hmm": "hidden Markov model, 4 states"}
LOOKS = {
    "light": {"ink": "#1c2733", "quiet": "#5c6975", "arma": "#0072b2", "lstm": "#c25400", "hmm": "#00805e"},
    "dark": {"ink": "#e4e9ee", "quiet": "#9aa7b4", "arma": "#6fbdec", "lstm": "#f0a35e", "hmm": "#5fcfa9"},
}


def fitted(train):
    """Return one model of each family, fitted."""
    models = {
        "arma": ps.ARMA(order=(0, 1, 1), seasonal_order=(0, 1, 1, 12), transform=ps.Log()),
        "lstm": ps.LSTM(hidden_size=32, lags=(1, 12), inference=ps.MeanField(), transform=ps.Log(), random_state=0),
        "hmm": ps.HMM(n_states=4, transform=[ps.Log(), ps.Difference()], random_state=0),
    }
    return {name: model.fit(train) for name, model in models.items()}


def draw_fan(ax, name, quantiles, past, test, look):
    """Draw what a model expects of two years, after the years before, and what came."""
    low, lower, middle, upper, high = (quantiles.sel(quantile=level) for level in LEVELS)
    ahead = test["time"].values
    ax.fill_between(ahead, low, high, color=look[name], alpha=0.22, linewidth=0)
    ax.fill_between(ahead, lower, upper, color=look[name], alpha=0.38, linewidth=0)
    ax.plot(ahead, middle, color=look[name], linewidth=1.6)
    ax.plot(past["time"].values, past, color=look["quiet"], linewidth=1.1)
    ax.plot(ahead, test, "o", color=look["ink"], markersize=2.6)
    ax.text(0.012, 0.93, TITLES[name], transform=ax.transAxes, va="top", color=look[name], weight="bold", fontsize=10)
    ax.set_ylim(130, 830)
    ax.set_xlim(past["time"].values[0], ahead[-1] + (ahead[-1] - ahead[-2]))
    ax.set_yticks([200, 400, 600, 800])
    ax.xaxis.set_major_locator(mdates.YearLocator())
    ax.xaxis.set_major_formatter(mdates.DateFormatter("%Y"))


def draw_score(ax, name, table, look):
    """Draw nats per value, with the standard error of the difference to the best."""
    nats, error = table.loc[name, "nats"], table.loc[name, "se"]
    ax.axvline(table["nats"].max(), color=look["quiet"], linewidth=0.9, linestyle=(0, (3, 3)), zorder=1)
    ax.errorbar(nats, 0, xerr=None if pd.isna(error) else error, fmt="o", color=look[name], markersize=9, linewidth=2.2)
    behind = "best" if pd.isna(error) else f"{table.loc[name, 'difference']:.2f} ± {error:.2f}".replace("-", "−")
    ax.text(
        nats - 0.06,
        0.35,
        behind,
        ha="right" if behind == "best" else "center",
        va="bottom",
        color=look[name],
        weight="bold",
        fontsize=10,
    )
    ax.set_ylim(-1, 1.3)
    ax.set_xlim(-5.3, -3.9)
    ax.set_yticks([])
    ax.set_xticks([-5, -4.5, -4])


def draw(look, forecasts, table, past, test):
    """Return the whole picture in one set of colours."""
    fig, axes = plt.subplots(3, 2, figsize=(8, 5.4), sharex="col", width_ratios=[2.1, 1], layout="constrained")
    fig.patch.set_alpha(0)
    fig.get_layout_engine().set(hspace=0.03, wspace=0.06)
    for (left, right), name in zip(axes, table.index, strict=True):
        draw_fan(left, name, forecasts[name], past, test, look)
        draw_score(right, name, table, look)
    for ax in axes.flat:
        ax.patch.set_alpha(0)
        ax.tick_params(colors=look["quiet"], labelsize=9, length=3)
        for side, spine in ax.spines.items():
            spine.set_visible(side == "bottom" or (side == "left" and ax in axes[:, 0]))
            spine.set_color(look["quiet"])
    axes[0, 0].set_title("Airline passengers (thousands a month): two years forecast", color=look["ink"], fontsize=10.5)
    axes[0, 1].set_title("one scale: nats per value\n(right is better)", color=look["ink"], fontsize=10.5)
    axes[2, 1].set_xlabel("bars: s.e. of the difference to the best", color=look["quiet"], fontsize=9)
    axes[2, 0].set_xlabel("line: median; bands: 50 and 90 %; dots: what came", color=look["quiet"], fontsize=9)
    return fig


def main() -> None:
    """Fit, compare, draw, and store."""
    y = ps.datasets.air_passengers()
    train, test = ps.split(y, horizon=24)
    models = fitted(train)
    table = ps.compare(models, test, history=train).to_dataframe()
    forecasts = {name: model.forecast(24).quantile(LEVELS) for name, model in models.items()}
    past = train.sel(time=slice("1956", None))
    for mode, look in LOOKS.items():
        figure = draw(look, forecasts, table, past, test)
        target = Path(__file__).parent / "_static" / f"landing-{mode}.svg"
        with matplotlib.rc_context({"svg.hashsalt": "probseq"}):
            figure.savefig(target, metadata={"Date": None})
        plt.close(figure)
        print(target, f"{target.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
