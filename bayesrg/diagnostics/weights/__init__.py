# SPDX-License-Identifier: Apache-2.0
"""Spectra of weights: levels and groups, bulk and outliers, noise of training, and a report."""

from .bulk import bulk, hill, outliers
from .levels import groups, spectra
from .noise import (
    effective_temperature,
    noise_by_variation,
    noise_by_width,
    spectral_temperature,
)
from .report import report, statements
from .scaling import linear_scaling_report, scaling_data, scaling_slope
from .summary import drift, summary

__all__ = [
    "bulk",
    "drift",
    "effective_temperature",
    "groups",
    "hill",
    "linear_scaling_report",
    "noise_by_variation",
    "noise_by_width",
    "outliers",
    "report",
    "scaling_data",
    "scaling_slope",
    "spectra",
    "spectral_temperature",
    "statements",
    "summary",
]
