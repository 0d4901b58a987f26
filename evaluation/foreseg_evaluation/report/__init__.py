# SPDX-License-Identifier: Apache-2.0
"""The report of a run: its figures with intervals, and one page that needs no other file."""

from .official import OfficialTable, official_table, record_from_official
from .page import write_report
from .summary import (
    Comparison,
    GroupSummary,
    Summary,
    bounds_in_words,
    compare_results,
    episode_score,
    number_in_words,
    record_from_summary,
    summarise,
)

__all__ = [
    "Comparison",
    "GroupSummary",
    "OfficialTable",
    "Summary",
    "bounds_in_words",
    "compare_results",
    "episode_score",
    "number_in_words",
    "official_table",
    "record_from_official",
    "record_from_summary",
    "summarise",
    "write_report",
]
