# SPDX-License-Identifier: Apache-2.0
"""Eigenvalues and mode functions of kernels under a measure of the inputs."""

from . import maps
from .base import Spectrum
from .fourier import fourier
from .functionals import Functionals, functionals
from .gaussian_rbf import gaussian_rbf
from .levels import Levels, levels
from .modify import modify, modify_kernel
from .neural import neural
from .nystrom import nystrom
from .rotated import mode_posterior, rotated_density
from .sphere import sphere

__all__ = [
    "Functionals",
    "Levels",
    "Spectrum",
    "fourier",
    "functionals",
    "gaussian_rbf",
    "levels",
    "maps",
    "mode_posterior",
    "modify",
    "modify_kernel",
    "neural",
    "nystrom",
    "rotated_density",
    "sphere",
]
