# SPDX-License-Identifier: Apache-2.0
"""Eigenvalues and mode functions of kernels under a data measure."""

from .base import Spectrum
from .fourier import FourierSpectrum, fourier
from .functionals import Functionals, FunctionalSpectrum, functionals
from .gaussian_rbf import GaussianRBFSpectrum, gaussian_rbf
from .nystrom import NystromSpectrum, nystrom
from .sphere import SphereSpectrum, sphere

__all__ = [
    "FourierSpectrum",
    "FunctionalSpectrum",
    "Functionals",
    "GaussianRBFSpectrum",
    "NystromSpectrum",
    "Spectrum",
    "SphereSpectrum",
    "fourier",
    "functionals",
    "gaussian_rbf",
    "nystrom",
    "sphere",
]
