# SPDX-License-Identifier: Apache-2.0
"""Diagnostics: from a DataTree of draws to a DataTree that says what they mean."""

from . import feature, layers
from .flow import posterior_flow
from .order_flow import order_flow

__all__ = ["feature", "layers", "order_flow", "posterior_flow"]
