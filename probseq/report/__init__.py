"""The main job and its page: read a series, compare models on it, write what was found."""

from probseq.report.entry import write_report
from probseq.report.page import render, write_page
from probseq.report.source import Source, read_source
from probseq.report.study import Study, forecast_series, run_study, study_fitted

__all__ = [
    "Source",
    "Study",
    "forecast_series",
    "read_source",
    "render",
    "run_study",
    "study_fitted",
    "write_page",
    "write_report",
]
