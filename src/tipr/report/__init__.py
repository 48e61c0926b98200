"""What people look at: the one-file HTML report, the saved result page and the PNG contact sheet."""

from tipr.report.contact_sheet import SheetRow, contact_sheet
from tipr.report.content import (
    BandRow,
    Curve,
    Extreme,
    Fact,
    Picture,
    ReportData,
    ScoreRow,
    ShownQuery,
)
from tipr.report.html import write_report
from tipr.report.results_page import write_results_page

__all__ = [
    "BandRow",
    "Curve",
    "Extreme",
    "Fact",
    "Picture",
    "ReportData",
    "ScoreRow",
    "SheetRow",
    "ShownQuery",
    "contact_sheet",
    "write_report",
    "write_results_page",
]
