# SPDX-License-Identifier: Apache-2.0
"""Sampling, quadrature and prediction."""

from .fit import fit
from .grid import GridPosterior, grid_posterior
from .predict import predict

__all__ = ["GridPosterior", "fit", "grid_posterior", "predict"]
