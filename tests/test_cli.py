import io
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import probseq as ps
from probseq import cli

QUICK = ["--models", "arma,rw", "--horizon", "6"]


@pytest.fixture
def run(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")
    return lambda *arguments: CliRunner().invoke(cli.app, list(arguments))


def test_compare_prints_the_table_and_writes_the_report(run, tmp_path):
    found = run("compare", *QUICK)
    assert found.exit_code == 0, found.output
    assert "nats per value" in found.stdout and "6 values scored" in found.stdout
    assert "arma (ARMA model) predicts the 6 held-out values best" in found.stdout
    assert "Report: probseq-report.html" in found.stdout
    assert "fitting" in found.stderr or "iteration" in found.stderr
    assert (tmp_path / "probseq-report.html").read_text().count("<svg") == 2 + 2 + 2 + 2 + 1 + 2 + 2


def test_compare_reads_a_file(run, tmp_path):
    y = np.exp(np.random.default_rng(0).normal(0.01, 0.1, 60).cumsum())
    frame = pd.DataFrame({"when": pd.date_range("2020-01-05", periods=60, freq="W-SUN"), "price": y, "other": 1.0})
    frame.to_csv(tmp_path / "p.csv", index=False)
    found = run("compare", "p.csv", "--column", "price", "--models", "rw,iid", "--out", "p.html", "--seed", "3")
    assert found.exit_code == 0, found.output
    assert "10 values scored" in found.stdout and "price of p.csv" in found.stderr
    assert "price of p.csv" in (tmp_path / "p.html").read_text()


def test_forecast_prints_and_writes_quantiles_by_time(run, tmp_path):
    found = run("forecast", "air_passengers", "--horizon", "3", "--out", "f.csv")
    assert found.exit_code == 0, found.output
    assert "1961-03-01" in found.stdout and "q0.95" in found.stdout
    written = pd.read_csv(tmp_path / "f.csv", parse_dates=["time"])
    model = ps.ARMA((0, 1, 1), (0, 1, 1, 12), transform=ps.Log()).fit(ps.datasets.air_passengers())
    np.testing.assert_allclose(written["mean"], model.forecast(3).mean().values, rtol=1e-9)
    assert written["time"].tolist() == list(pd.date_range("1961-01-01", periods=3, freq="MS"))


def test_forecast_counts_years(run):
    found = run("forecast", "lake_huron", "--horizon", "2", "--model", "rw")
    assert found.exit_code == 0, found.output
    assert "1973" in found.stdout and "1974" in found.stdout


def test_datasets_are_listed_with_size_and_licence(run):
    found = run("datasets")
    assert found.exit_code == 0, found.output
    for name in ps.datasets.names():
        assert name in found.stdout
    assert "299 x 2" in found.stdout and "2008 sequences" in found.stdout and "NCSA" in found.stdout


def test_version(run):
    assert run("--version").stdout.strip() == f"probseq {ps.__version__}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compare", "nothing.csv"], "Expected a CSV file that exists"),
        (["compare", "sunspot"], "Did you mean 'sunspots'?"),
        (["compare", "--models", "arima"], "hmm,arma,lstm,rw,snaive,iid"),
        (["compare", "--horizon", "0", *QUICK[:2]], "horizon=0"),
        (["compare", "--horizon", "200", *QUICK[:2]], "to hold out"),
        (["compare", "--out", "no/where.html"], "a folder that exists"),
        (["compare", "--column", "pasengers"], "Did you mean 'passengers'?"),
        (["compare", "tang_poems"], "list of sequences"),
        (["forecast", "air_passengers", "--horizon", "0", "--model", "rw"], "horizon=0"),
    ],
)
def test_mistakes_are_one_message_without_a_traceback(run, arguments, message):
    found = run(*arguments)
    assert found.exit_code == 1
    assert isinstance(found.exception, SystemExit)
    assert message in " ".join(found.stderr.split())
    assert "Traceback" not in found.output


def test_help_loads_nothing_heavy():
    code = (
        "import sys; from typer.testing import CliRunner; from probseq.cli import app; "
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0; "
        "print([m for m in ('torch', 'pandas', 'xarray', 'numpy', 'matplotlib', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_narrow_terminal_cuts_no_number(monkeypatch):
    from probseq.cli import _print_frame

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("COLUMNS", "80")
    table = ps.RandomWalk().with_parameters(scale=[1.0]).forecast(2, history=[450.73, 447.13]).to_dataframe()
    shown = table.set_index("time").drop(columns="horizon").map(lambda value: f"{value:.5g}")
    for width, whole in (("80", True), ("40", False)):
        monkeypatch.setenv("COLUMNS", width)
        monkeypatch.setattr("sys.stdout", stream := Terminal())
        _print_frame(shown, "time")
        text = stream.getvalue()
        assert "…" not in text and ("447.13" in text) is whole
