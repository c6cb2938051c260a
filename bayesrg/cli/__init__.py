# SPDX-License-Identifier: Apache-2.0
"""The command line ``bayesrg``: one file per group of commands."""

from . import models, runs, weights
from .app import app, main

__all__ = ["app", "main", "models", "runs", "weights"]
