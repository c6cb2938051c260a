# SPDX-License-Identifier: Apache-2.0
"""Diagnostics: add groups to a DataTree of draws that describe what was learnt."""

from . import feature, layers, transport, weights
from .flow import posterior_flow

__all__ = ["feature", "layers", "posterior_flow", "transport", "weights"]
