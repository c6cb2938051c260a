# SPDX-License-Identifier: Apache-2.0
"""Renormalisation group, Gaussian processes and deep-network posteriors for NumPyro.

Import as ``import bayesrg as brg``. Importing changes no JAX setting and starts no backend.
"""
# ruff: noqa: E402

__version__ = "0.1.0"

from . import data, gp, inference, io, kernels, models, rg, spectrum
from .data import Data
from .inference import fit, predict
from .io import open_run

__all__ = [
    "Data",
    "data",
    "fit",
    "gp",
    "inference",
    "io",
    "kernels",
    "models",
    "open_run",
    "predict",
    "rg",
    "spectrum",
]
