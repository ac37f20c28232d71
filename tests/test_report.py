import copy
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import probseq as ps
from probseq.errors import DataError, EmptyDataError, ParameterError, ShapeError
from probseq.evaluation.uncertainty import MeanEstimate
from probseq.plotting import PALETTE
from probseq.report import Source, read_source, run_study, write_page
from probseq.report.defaults import choose_horizon, choose_models, describe
from probseq.report.figures import _thinned, limits
from probseq.report.findings import findings, state_table, summary
from probseq.report.page import render
from probseq.report.vector import night, svg

MONTHS = pd.date_range("2015-01-01", periods=72, freq="MS")


@pytest.fixture(scope="module")
def study():
    return run_study(read_source("air_passengers"), horizon=12, models=["arma", "rw", "snaive", "hmm"], seed=1)


@pytest.fixture(scope="module")
def written(study, tmp_path_factory):
    return write_page(study, tmp_path_factory.mktemp("report") / "r.html", "probseq compare --horizon 12")


@pytest.fixture(scope="module")
def page(written):
    return written.read_text(encoding="utf-8")


class Tags(HTMLParser):
    """Checks that elements close in the order in which they opened."""

    EMPTY = {"meta", "br", "link", "img", "path", "use", "rect"}

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.attributes = [], [], []

    def handle_starttag(self, tag, attrs):
        self.attributes += attrs
        self.ids += [value for key, value in attrs if key == "id"]
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in self.EMPTY:
            return
        while self.open[-1] in {"p", "li", "dd"} and self.open[-1] != tag:
            self.open.pop()
        assert self.open.pop() == tag


def test_page_is_whole_and_needs_no_network(page):
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert len(tags.ids) == len(set(tags.ids))
    outside = [v for k, v in tags.attributes if k in ("src", "href", "xlink:href") and not v.startswith("#")]
    assert outside == []
    assert "@import" not in page and "<script" not in page
    inside = [v[1:] for k, v in tags.attributes if k in ("href", "xlink:href")]
    assert set(inside) <= set(tags.ids)
    assert set(re.findall(r"url\(#([^)]+)\)", page)) <= set(tags.ids)


def test_page_shows_every_model_and_how_to_repeat_it(page, study):
    titles = ("Findings", "The data", "Ranking", "Forecasts", "Hidden states", "Who wins when", "Calibration")
    for word in (*titles, "Residuals", "The models", "The same again", "Words"):
        assert f"<h2>{word}</h2>" in page
    pictures = re.findall(r'<svg role="img" aria-label="([^"]+)"', page)
    assert len(pictures) == page.count("<svg") == 2 + 2 + 4 + 2 + 2 + 1 + 4 + 4
    assert all(len(label) > 20 for label in pictures)
    assert "probseq compare --horizon 12" in page
    assert f"probseq {ps.__version__}" in page and study.fingerprint in page
    for name in study.models:
        assert page.count(f"<th scope=row>{name}</th>") == 4


def test_headings_are_in_order_and_tables_have_headers(page):
    levels = [int(level) for level in re.findall(r"<h(\d)", page)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:]))
    assert '<html lang="en">' in page
    for table in re.findall(r"<table.*?</table>", page, re.DOTALL):
        assert table.count("<th ") == table.count("<th scope=col>") + table.count("<th scope=row>") > 1
    assert page.count("<div class=scroll role=region tabindex=0 aria-label=") == page.count("<table")


def luminance(color):
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_texts_have_contrast(page, mode):
    """WCAG 2.2, 1.4.3: at least 4.5 to 1 for text, on the page and on cards."""
    light, dark = re.findall(r":root\{(--ink[^}]+)\}", page)
    wanted = light if mode == "light" else dark
    colors = dict(re.findall(r"--(\w+):(#[0-9a-f]{3,6})", wanted))
    colors = {k: v if len(v) == 7 else "#" + "".join(2 * c for c in v[1:]) for k, v in colors.items()}
    for text in ("ink", "soft", "mark"):
        for ground in ("page", "card"):
            high, low = sorted((luminance(colors[text]), luminance(colors[ground])), reverse=True)
            assert (high + 0.05) / (low + 0.05) >= 4.5, (text, ground)


def test_lines_of_pictures_stand_out_at_night(page):
    """WCAG 2.2, 1.4.11: at least 3 to 1 for parts of pictures."""
    card = luminance(re.findall(r"--card:(#[0-9a-f]{6})", page)[1])
    for color in PALETTE:
        assert (luminance("#" + night(color[1:].lower())) + 0.05) / (card + 0.05) >= 3.0


def test_code_of_the_page_runs_to_the_same_table(page, study):
    import html

    code = html.unescape(re.findall(r"<pre tabindex=0>(import.*?)</pre>", page, re.DOTALL)[0])
    scope = {}
    exec(code.replace("\nprint(", "\ntable = ("), scope)
    again = scope["table"].table
    pd.testing.assert_series_equal(again["nats"], study.comparison.table["nats"])


def test_every_colour_has_a_night_version(page):
    used = set(re.findall(r"var\(--c([0-9a-f]{6})\)", page))
    assert used
    for color in used:
        assert page.count(f"--c{color}:#") == 2
    assert not re.search(r"(fill|stroke): ?#", page)


def test_night_turns_paper_dark_and_ink_light():
    brightness = lambda c: sum(int(c[i : i + 2], 16) for i in (0, 2, 4))  # noqa: E731
    assert brightness(night("ffffff")) < 150 < 500 < brightness(night("222222"))
    assert brightness(night("000000")) > 650
    red, green, blue = (int(night("0072b2")[i : i + 2], 16) for i in (0, 2, 4))
    assert blue > green > red


def test_markup_in_names_is_text(tmp_path):
    path = tmp_path / "x.csv"
    values = np.random.default_rng(0).normal(size=40).cumsum()
    pd.DataFrame({"<b>bad</b>": values}).to_csv(path, index=False)
    text = render(run_study(read_source(str(path)), models=["rw", "iid"]))
    assert "<b>bad</b>" not in text and "&lt;b&gt;bad&lt;/b&gt;" in text


def test_report_is_small(written, page):
    assert page.startswith("<!doctype html>")
    assert written.stat().st_size < 700_000


def test_findings_follow_the_numbers(study):
    said = findings(study)
    table = study.comparison.table
    assert said[0].startswith(f"{study.comparison.best} ")
    assert f"{np.exp(-table['difference'].iloc[1]):.2f} times" in said[0]
    ahead, _, level = said[1].lower().partition("its lead over")
    for name in table.index[1:]:
        low, high = study.comparison.difference(name).interval(0.95)
        inside = low <= 0 <= high
        assert f"{name} ({-high:.2f} to {-low:.2f})" in (level if inside else ahead)
        assert (f"{name}" in summary(study)) == inside
    assert any("rest on 12 values" in text for text in said)


def with_differences(study, found):
    """The study with other estimates of the differences to the best, by name."""
    comparison = copy.copy(study.comparison)
    table = comparison.table = comparison.table.copy()
    comparison.difference = lambda name, other=None: (
        found[name] if other is None else study.comparison.difference(name, other)
    )
    for name, estimate in found.items():
        table.loc[name, "difference"], table.loc[name, "se"] = estimate.mean, estimate.standard_error
    return replace(study, comparison=comparison)


def test_findings_say_where_the_confidence_set_and_the_intervals_part(study):
    first, wide, close, last = study.comparison.table.index
    gaps = {wide: -3.0, close: -1.0, last: -3.0}
    other = with_differences(study, {k: MeanEstimate(v, 1.0, 1e9, 100, "hac", True) for k, v in gaps.items()})
    other.comparison.table["confidence_set"] = [True, True, False, False]
    said = next(text for text in findings(other) if "among the best" in text)
    assert f"so it keeps {wide}; nine in ten" in said and said.endswith(f"it leaves {close} out.")
    other.comparison.table["confidence_set"] = [True, False, True, False]
    assert not any("among the best" in text for text in findings(other))
    assert f"its lead over {close} may be chance" in summary(other)


def test_a_lead_beyond_chance_is_called_one(study):
    names = study.comparison.table.index[1:]
    sure = with_differences(study, {name: MeanEstimate(-3.0, 0.1, 1e9, 100, "hac", True) for name in names})
    assert summary(sure).endswith("best, by more than chance explains, as far as 12 values can tell.")
    assert "may be chance" not in " ".join(findings(sure)[:2])
    unknown = with_differences(study, {name: MeanEstimate(-3.0, np.nan, np.nan, 1, "hac", False) for name in names})
    assert "how sure that is cannot be computed" in summary(unknown)
    assert findings(unknown)[1].startswith("No standard error could be computed for")


def test_equal_held_out_values_are_called_so():
    values = np.r_[np.random.default_rng(0).normal(size=60) + 5, np.full(20, 5.0)]
    source = Source(xr.DataArray(values, dims="time", coords={"time": np.arange(80)}, name="y"), "Y", "a test")
    said = findings(run_study(source, horizon=20, models=["iid", "rw"]))
    assert said[-1].startswith("All held-out values are equal")


def test_scores_of_the_far_forecast_are_its_own(study):
    forecast = study.forecasts["rw"]
    assert study.crps("rw") == pytest.approx(float(forecast.crps(study.test).mean()))
    low, high = limits(study)
    assert low < float(study.test.min()) and high > float(study.test.max())


def test_states_are_counted(study):
    table = state_table(study)
    shares = [int(text.split()[0]) for text in table["share of the time"]]
    assert abs(sum(shares) - 100) <= len(shares)


def test_pictures_are_the_same_every_time():
    draw = lambda ax: ax.plot([1, 2, 3])  # noqa: E731
    assert svg(draw, key="k", label="a line") == svg(draw, key="k", label="a line")


def test_counts_are_compared_among_themselves():
    found = run_study(read_source("earthquakes"), models=["hmm", "arma", "iid"])
    text = " ".join(findings(found))
    assert found.profile.counts
    assert "arma is left out of this ranking" in text
    assert "nats per value" in text and "nan" not in text
    render(found)


@pytest.mark.parametrize(
    ("values", "freq", "expected"),
    [
        (ps.datasets.air_passengers().values, "MS", {"positive": True, "wanders": True, "period": 12, "counts": False}),
        (ps.datasets.earthquakes().values, 1, {"positive": False, "counts": True, "period": None}),
        (ps.datasets.lake_huron().values, 1, {"positive": True, "wanders": False, "period": None}),
        (ps.datasets.sp500().values, "W-FRI", {"positive": True, "wanders": True, "period": None}),
        (ps.datasets.co2().values, "W-SAT", {"gaps": True, "wanders": True}),
        (np.r_[-1.0, np.arange(20.0)], None, {"positive": False, "counts": False}),
    ],
)
def test_series_are_described(values, freq, expected):
    found = describe(np.asarray(values, float), freq)
    assert {name: getattr(found, name) for name in expected} == expected


def test_choices_follow_the_profile():
    air = ps.datasets.air_passengers().values.astype(float)
    chosen = choose_models(describe(air, "MS"))
    assert list(chosen) == ["hmm", "arma", "lstm", "rw", "snaive"]
    assert repr(chosen["hmm"].get_params()["transform"]) == "[Log(), Difference()]"
    assert chosen["arma"].seasonal_order == (0, 1, 1, 12)
    assert chosen["lstm"].lags == (1, 12)
    plain = choose_models(describe(air, "MS", period=1))
    assert "snaive" not in plain and plain["arma"].order == (1, 1, 1)
    counts = choose_models(describe(ps.datasets.earthquakes().values.astype(float)))
    assert counts["hmm"].emission == ps.Poisson() and "iid" in counts
    level = choose_models(describe(ps.datasets.sunspots().values))
    assert level["hmm"].get_params()["transform"] is None and level["arma"].order == (1, 0, 1)
    holes = np.where(np.arange(144) == 70, np.nan, air)
    assert repr(choose_models(describe(holes))["hmm"].get_params()["transform"]) == "[Log()]"


def test_bad_choices_are_named():
    air = ps.datasets.air_passengers().values.astype(float)
    with pytest.raises(ParameterError, match="'foo'"):
        choose_models(describe(air), ["foo"])
    with pytest.raises(ParameterError, match="without a season"):
        choose_models(describe(air), ["snaive"])
    with pytest.raises(ParameterError, match="--period 100"):
        describe(air, "MS", period=100)
    with pytest.raises(ShapeError, match="at least 8"):
        describe(air[:5])
    with pytest.raises(ShapeError, match="constant"):
        describe(np.ones(30))


def test_horizon_is_two_years_of_months_or_a_sixth():
    assert choose_horizon(144, "MS") == 24
    assert choose_horizon(60, "MS") == 10
    assert choose_horizon(98, 1) == 16
    assert choose_horizon(5000, "D") == 100


def table(path, frame, **options):
    frame.to_csv(path, index=False, **options)
    return str(path)


@pytest.mark.parametrize("name", ["date", "ds", "when"])
def test_time_column_is_found(tmp_path, name):
    file = table(tmp_path / "x.csv", pd.DataFrame({"y": np.arange(72.0), name: MONTHS}))
    source = read_source(file)
    assert source.freq == "MS" and source.series.name == "y"
    assert source.series["time"].values[0] == np.datetime64("2015-01-01")


def test_years_and_whole_days_are_times(tmp_path):
    years = read_source(table(tmp_path / "x.csv", pd.DataFrame({"year": range(1900, 1910), "y": np.arange(10) * 1.5})))
    assert years.series["time"].values[-1] == 1909
    days = pd.DataFrame({"date": [20240101 + i for i in range(9)], "y": np.arange(9) * 1.5})
    assert read_source(table(tmp_path / "z.csv", days)).freq == "D"


def test_rows_are_sorted_and_gaps_become_missing_values(tmp_path):
    frame = pd.DataFrame({"date": MONTHS, "y": np.arange(72.0)}).drop(index=[10, 11, 40])
    source = read_source(table(tmp_path / "x.csv", frame.iloc[::-1]))
    assert source.series.size == 72 and int(np.isnan(source.series).sum()) == 3
    assert "sorted" in source.notes[0] and "3 steps" in source.notes[1]
    assert float(source.series.sel(time="2016-02-01")) == 13.0


def test_decimal_commas_and_thousands(tmp_path):
    (tmp_path / "a.csv").write_text("date;y\n2024-01-01;1,5\n2024-01-02;-2,25\n")
    assert read_source(str(tmp_path / "a.csv")).series.values.tolist() == [1.5, -2.25]
    (tmp_path / "b.csv").write_text('date,y\n2024-01-01,"1,500"\n2024-01-02,"2,250.5"\n')
    assert read_source(str(tmp_path / "b.csv")).series.values.tolist() == [1500.0, 2250.5]


def test_missing_ends_are_cut_and_rows_counted(tmp_path):
    file = table(tmp_path / "x.csv", pd.DataFrame({"y": [np.nan, 1, 2, np.nan, 4, np.nan], "z": list("abcdef")}))
    source = read_source(file)
    assert source.series.values.tolist()[:2] == [1.0, 2.0] and source.series.size == 4
    assert "rows are counted" in source.notes[0]


def test_wrong_sources_say_what_is_there(tmp_path):
    frame = pd.DataFrame({"date": MONTHS, "sales": np.arange(72.0), "visits": 1.0, "shop": "a"})
    file = table(tmp_path / "x.csv", frame)
    with pytest.raises(ParameterError, match="one of sales, visits"):
        read_source(file)
    with pytest.raises(ParameterError, match=r"one of date, sales, visits, shop.*Did you mean 'sales'"):
        read_source(file, "sale")
    with pytest.raises(DataError, match="does not hold numbers"):
        read_source(file, "shop")
    with pytest.raises(ParameterError, match="'tim'"):
        read_source(file, "sales", "tim")
    with pytest.raises(DataError, match="time column 'shop'"):
        read_source(file, "sales", "shop")
    with pytest.raises(ParameterError, match="that exists"):
        read_source(str(tmp_path / "none.csv"))
    with pytest.raises(ParameterError, match="Did you mean 'earthquakes'"):
        read_source("earthquake")
    with pytest.raises(DataError, match="list of sequences"):
        read_source("tang_poems")
    with pytest.raises(ParameterError, match="waiting, duration"):
        read_source("old_faithful")
    assert read_source("old_faithful", "waiting").series.dims == ("time",)


@pytest.mark.parametrize(
    ("text", "error"),
    [("", DataError), ("a,b\n", EmptyDataError), ("a,b\nx,y\n", DataError), ("y\n1\ninf\n2\n", DataError),
     ("date,y\n2024-01-01,1\n2024-01-01,2\n2024-01-02,3\n", DataError)],
)  # fmt: skip
def test_files_without_a_series_raise(tmp_path, text, error):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(error):
        read_source(str(tmp_path / "x.csv"))


def test_a_calendar_without_weekends_is_one_of_business_days(tmp_path):
    days = pd.bdate_range("2024-01-01", periods=40).delete([9, 20])
    path = tmp_path / "closes.csv"
    pd.DataFrame({"date": days, "close": np.arange(38.0)}).to_csv(path, index=False)
    source = read_source(str(path))
    assert source.series.sizes["time"] == 40
    assert source.series.isnull().sum() == 2


def test_long_series_are_drawn_with_their_extremes():
    values = np.random.default_rng(0).normal(size=20_000)
    values[[7, 12_345, 15_000]] = 9.0, -9.0, np.nan
    times, thin = _thinned(np.arange(20_000), values)
    assert len(thin) <= 1502 and (np.diff(times) > 0).all()
    assert thin.max() == 9.0 and thin.min() == -9.0
    assert times[0] == 0 and times[-1] == 19_999
