# SPDX-License-Identifier: Apache-2.0
"""Diagnostics: from a DataTree of draws to a DataTree that says what they mean."""

from .flow import posterior_flow

__all__ = ["posterior_flow"]
