# SPDX-License-Identifier: Apache-2.0
"""Eigenvalues and mode functions of kernels under a data measure."""

from . import maps
from .base import Spectrum
from .fourier import FourierSpectrum, fourier
from .functionals import Functionals, FunctionalSpectrum, functionals
from .gaussian_rbf import GaussianRBFSpectrum, gaussian_rbf
from .groups import groups
from .levels import Levels, levels
from .modify import ModifiedKernel, MovingModifiedKernel, modify, modify_kernel
from .neural import NeuralSpectrum, neural
from .nystrom import NystromSpectrum, decompose, nystrom
from .rotated import RotatedDensity, mode_posterior, rotated_density
from .sphere import SphereSpectrum, sphere

__all__ = [
    "FourierSpectrum",
    "FunctionalSpectrum",
    "Functionals",
    "GaussianRBFSpectrum",
    "Levels",
    "ModifiedKernel",
    "MovingModifiedKernel",
    "NeuralSpectrum",
    "NystromSpectrum",
    "RotatedDensity",
    "Spectrum",
    "SphereSpectrum",
    "decompose",
    "fourier",
    "functionals",
    "gaussian_rbf",
    "groups",
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
