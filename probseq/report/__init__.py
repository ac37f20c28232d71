"""The main job and its page: read a series, compare models on it, write what was found."""

from probseq.report.page import render, write_report
from probseq.report.source import Source, read_source
from probseq.report.study import Study, forecast_series, run_study

__all__ = ["Source", "Study", "forecast_series", "read_source", "render", "run_study", "write_report"]
