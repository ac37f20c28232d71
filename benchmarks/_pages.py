"""Tables and the picture of the documentation's pages about benchmarks, from the records that ``_record`` wrote."""

from __future__ import annotations

import json
import re
from typing import Any

import pandas as pd
from _record import RESULTS, load_results, summary
from IPython.display import Markdown

# The order and the words of the picture and of the overview; what has no peer is not among them.
SPEED = {
    "hmm": "HMM",
    "hmm_2_threads": "HMM, two threads",
    "hmm_short": "HMM, short series",
    "hmm_emissions": "HMM, other emissions",
    "hmm_peers": "HMM",
    "arma": "ARMA",
    "auto_arma": "ARMA",
    "conditional_arma": "AR-GARCH",
    "recurrent": "Recurrent",
    "recurrent_peers": "Recurrent",
    "recurrent_forecast": "Recurrent",
    "latent": "Latent states",
}
NAMES = {
    "pyro-ppl": "Pyro",
    "blitz-bayesian-pytorch": "BLiTZ",
    "gluonts": "GluonTS",
}
FIGURES = {"HMM": 0, "ARMA": 1, "AR-GARCH": 1, "Recurrent": 2, "Latent states": 2}

# A number with what may follow it: a unit, an error, the end of a range.
_FIGURE = re.compile(r"[-+]?\d[\d.,]*(e[-+]?\d+)?%?( (s|ms|µs|to .*|of .*|\(.*\)))?$")


def record(name: str) -> dict[str, Any] | None:
    """What the benchmark found, or None if it has not been recorded."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def peer_name(peer: str, version: str | None) -> str:
    """``hmmlearn 0.3.3``, ``statsforecast 2.1.1, CSS-ML``."""
    name, _, rest = peer.partition(", ")
    return " ".join(filter(None, (NAMES.get(name, name), version))) + (f", {rest}" if rest else "")


def overview() -> list[dict[str, Any]]:
    """Rows of ``summary`` that have another library as the peer, in the order of ``SPEED``."""
    order = list(SPEED)
    rows = [
        row for row in summary(load_results()) if row["benchmark"] in SPEED and not row["peer"].startswith("probseq")
    ]
    return sorted(rows, key=lambda row: order.index(row["benchmark"]))


def overview_table() -> pd.io.formats.style.Styler:
    """Geometric means."""
    rows = [
        {
            "task": f"{SPEED[row['benchmark']]}: {row['task']}",
            "beside": peer_name(row["peer"], row["version"]),
            "times as fast": digits(row["mean"]),
            "least case": digits(row["least"]),
            "greatest case": digits(row["most"]),
            "cases": row["cases"],
        }
        for row in overview()
    ]
    return shown(pd.DataFrame(rows))


def picture() -> Any:
    """Geometric means with all cases, a row a task and peer."""
    import matplotlib.pyplot as plt
    from matplotlib.ticker import FuncFormatter

    from probseq.plotting.style import GREY, INK, PALETTE, dress

    rows, records = overview(), {found["name"]: found for found in load_results()}
    fig, ax = plt.subplots(figsize=(8, 0.9 + 0.27 * len(rows)), layout="constrained")
    for y, row in enumerate(rows):
        cases = [
            case
            for case in records[row["benchmark"]]["speed"]
            if (case["task"], case["peer"]) == (row["task"], row["peer"])
        ]
        color = PALETTE[FIGURES[SPEED[row["benchmark"]].split(",")[0]]]
        ax.plot([row["least"], row["most"]], [y, y], color=color, lw=1.2, alpha=0.6)
        ax.plot([case["ratio"] for case in cases], [y] * len(cases), "|", color=color, ms=7, alpha=0.7)
        ax.plot(row["mean"], y, "o", color=color, ms=7, mec="white", mew=0.8)
    dress(ax)
    ax.set_xscale("log")
    left = min(0.4, 0.7 * min(row["least"] for row in rows))
    ax.set_xlim(left, 2.0 * max(row["most"] for row in rows))
    ax.axvspan(left, 1.0, color="#EBEBEB", zorder=0)
    ax.axvline(1.0, color=INK, lw=1)
    for words, x, side in (("slower", -4, "right"), ("faster", 4, "left")):
        style = {"ha": side, "va": "bottom", "color": GREY, "fontsize": "small"}
        ax.annotate(words, (1.0, 1.0), (x, 3), ("data", "axes fraction"), "offset points", **style)
    for y, row in enumerate(rows):
        style = {"va": "center", "color": INK, "fontsize": "small"}
        ax.annotate(digits(row["mean"]), (row["most"], y), (8, 0), textcoords="offset points", **style)
    labels = [f"{SPEED[row['benchmark']]}: {row['task']}   {peer_name(row['peer'], row['version'])}" for row in rows]
    ax.set_yticks(range(len(rows)), labels)
    ax.set_ylim(len(rows) + 0.1, -0.7)
    ax.grid(axis="y", visible=False)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    ax.set_xlabel("seconds of the peer over ours")
    return ax


def speed_table(name: str) -> Any:
    """Every case of a benchmark: median times and the ratio with its quartiles."""
    found = record(name)
    if found is None:
        return unrecorded(name)
    rows = []
    for row in found["speed"]:
        ours, theirs = (pd.Series(row[side]).median() for side in ("ours", "theirs"))
        rows.append(
            {
                "task": row["task"],
                "case": row["case"],
                "beside": peer_name(row["peer"], row["version"]),
                "ours": duration(ours),
                "theirs": duration(theirs),
                "times as fast": digits(row["ratio"]),
                "quartiles": "{} to {}".format(*map(digits, row["spread"])),
                "rounds": row["rounds"],
            }
        )
    return shown(pd.DataFrame(rows))


def values(name: str, table: str | None = None, form: dict[str, str] | None = None) -> Any:
    """A table of a benchmark (the first, if it is not named), its columns formatted as ``form`` says."""
    found = record(name)
    tables = found["values"] if found else {}
    if not tables or (table is not None and table not in tables):
        return unrecorded(name)
    return shown(pd.DataFrame(tables[table or next(iter(tables))]), form)


def marks(*names: str) -> Any:
    """What was aimed at, and whether it was reached."""
    rows = [
        {
            "figure": f"{SPEED.get(name, name.split('_')[0].upper())}: {row['what']}",
            "found": f"{row['value']:.3g}",
            "aimed at": f"{'at least' if row['at_least'] else 'at most'} {row['wanted']:g}",
            "reached": "yes" if row["met"] else "no",
        }
        for name in names
        for row in (record(name) or {"marks": []})["marks"]
    ]
    return shown(pd.DataFrame(rows))


def slower() -> Any:
    """Every case in which the peer took less time."""
    order = list(SPEED)
    found = sorted((one for one in load_results() if one["name"] in SPEED), key=lambda one: order.index(one["name"]))
    rows = [
        {
            "task": f"{SPEED[one['name']]}: {row['task']}",
            "case": row["case"],
            "beside": peer_name(row["peer"], row["version"]),
            "times as fast": digits(row["ratio"]),
            "quartiles": "{} to {}".format(*map(digits, row["spread"])),
        }
        for one in found
        for row in one["speed"]
        if row["ratio"] < 1 and not row["peer"].startswith("probseq")
    ]
    return shown(pd.DataFrame(rows)) if rows else Markdown("None of the cases above.")


def ratios_by_case(name: str) -> Any:
    """Quantiles over cases, where there are too many for a row each."""
    found = record(name)
    if found is None:
        return unrecorded(name)
    ratios = pd.Series([row["ratio"] for row in found["speed"]])
    peer = found["speed"][0]
    cells: dict[str, Any] = {"beside": peer_name(peer["peer"], peer["version"]), "series": len(ratios)}
    cells |= {"least": digits(ratios.min()), "lower quartile": digits(ratios.quantile(0.25))}
    cells |= {"median": digits(ratios.median()), "upper quartile": digits(ratios.quantile(0.75))}
    return shown(pd.DataFrame([cells | {"greatest": digits(ratios.max())}]))


def optima() -> Any:
    """The best peer's log-likelihood less our maximum: an order a row, a series a column."""
    found = record("arma_optima")
    if found is None:
        return unrecorded("arma_optima")
    frame = pd.DataFrame(found["values"]["difference"])
    frame["best"] = frame[_peers(frame)].max(axis=1)
    table = frame.pivot(index="order", columns="series", values="best")
    table = table.loc[frame["order"].unique(), frame["series"].unique()].reset_index()
    table.columns.name = None
    return shown(table, {name: "{:.1e}" for name in frame["series"].unique()})


def optima_summary() -> Any:
    """How many estimates of each peer are below our maximum, and the highest above it."""
    found = record("arma_optima")
    if found is None:
        return None
    frame, rows = pd.DataFrame(found["values"]["difference"]), []
    for peer in _peers(frame):
        gaps = frame[peer].dropna()
        rows.append(
            {
                "estimates of": peer_name(peer, found["versions"].get(peer)),
                "stationary and invertible": f"{len(gaps)} of {len(frame)}",
                "over 0.01 nats below ours": f"{(gaps < -0.01).mean():.0%}",
                "over 1 nat below ours": f"{(gaps < -1).mean():.0%}",
                "highest above ours, nats": f"{gaps.max():.1e}",
            }
        )
    return shown(pd.DataFrame(rows))


def _peers(frame: pd.DataFrame) -> list[str]:
    return [name for name in ("statsmodels", "statsforecast") if name in frame]


def coverage() -> Any:
    """Shares with standard errors, a band a column."""
    found = record("arma_coverage")
    if found is None:
        return unrecorded("arma_coverage")
    frame = pd.DataFrame(next(iter(found["values"].values())))
    frame["cell"] = [f"{cover:.3f} ({error:.3f})" for cover, error in zip(frame["cover"], frame["error"])]
    table = frame.pivot(index=["series", "n"], columns="band", values="cell")[frame["band"].unique()]
    table = table.loc[list(dict.fromkeys(zip(frame["series"], frame["n"])))].reset_index()
    table.columns.name = None
    return shown(table)


def about(name: str) -> Markdown | None:
    """What was measured, when, where and with what; nothing of what was not."""
    found = record(name)
    if found is None:
        return None
    place, load = found["machine"], found["load"]
    libraries = ", ".join(f"{NAMES.get(library, library)} {number}" for library, number in found["versions"].items())
    vectors = f" with {place['vectors']}" if place["vectors"] else ""
    loads = f"; load average {load['before'][0]:g} before, {load['after'][0]:g} after" if load["before"] else ""
    return Markdown(
        f"{found['measured']}\n\n"
        f"`{found['command']}`, {found['date']}, {duration(found['seconds'])}. {place['processor']}{vectors}, "
        f"{place['cores']} cores, {place['memory']} GiB, {place['system']}, Python {place['python']}; "
        f"threads: {found['threads']}{loads}. {libraries}."
    )


def unrecorded(name: str) -> Markdown:
    """No figure is better than one that was not measured."""
    return Markdown(f"*Not recorded in this version (`{name}`).*")


def shown(frame: pd.DataFrame, form: dict[str, str] | None = None) -> pd.io.formats.style.Styler:
    """A table without row numbers, figures to the right; what is lacking stays empty."""
    figures = [name for name in frame if _FIGURE.match(next((str(cell) for cell in frame[name] if pd.notna(cell)), ""))]
    to_the_right = [{"selector": "", "props": "text-align: right;"}]
    apart = [
        {"selector": "th, td", "props": "padding: 0.15em 0.4em;"},
        {"selector": "td", "props": "white-space: nowrap;"},
    ]
    table = frame.style.hide(axis="index").format(form or {}, na_rep="", precision=3).set_table_styles(apart)
    return table.set_table_styles(dict.fromkeys(figures, to_the_right), overwrite=False)


def digits(value: float) -> str:
    """Two digits or three, or all before the point."""
    return f"{value:,.0f}" if abs(value) >= 10 else f"{value:.1f}" if abs(value) >= 1 else f"{value:.2f}"


def duration(seconds: float) -> str:
    """With the unit that suits it."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size or unit == "µs":
            return f"{seconds / size:.3g} {unit}"
    raise AssertionError(seconds)
