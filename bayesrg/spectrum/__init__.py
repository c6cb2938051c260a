# SPDX-License-Identifier: Apache-2.0
"""Eigenvalues and mode functions of kernels under a data measure."""

from .base import Spectrum
from .fourier import FourierSpectrum, fourier
from .nystrom import NystromSpectrum, nystrom

__all__ = ["FourierSpectrum", "NystromSpectrum", "Spectrum", "fourier", "nystrom"]
