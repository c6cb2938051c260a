# SPDX-License-Identifier: Apache-2.0
"""Spectra of weights: levels, groups, bulk and outliers, and a report on a trained network."""

from .bulk import bulk, hill, outliers
from .levels import groups, spectra
from .report import report, statements
from .summary import drift, summary

__all__ = [
    "bulk",
    "drift",
    "groups",
    "hill",
    "outliers",
    "report",
    "spectra",
    "statements",
    "summary",
]
