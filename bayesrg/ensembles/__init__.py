# SPDX-License-Identifier: Apache-2.0
"""Random-matrix ensembles: laws of levels and spacings, as NumPyro distributions and densities.

A level is an eigenvalue of a symmetric matrix, or of W^T W. The
distributions are over ascending levels.
"""

from .densities import marchenko_pastur, semicircle, two_level_density
from .gas import CoulombGas, LaguerreGas
from .null import marchenko_pastur_null
from .scale import scale_posterior
from .spacings import Brody, WignerSurmise, spacing_ratios
from .spectra import IndependentSpectra
from .statistics import gas_statistics
from .unfolding import unfold

__all__ = [
    "Brody",
    "CoulombGas",
    "IndependentSpectra",
    "LaguerreGas",
    "WignerSurmise",
    "gas_statistics",
    "marchenko_pastur",
    "marchenko_pastur_null",
    "scale_posterior",
    "semicircle",
    "spacing_ratios",
    "two_level_density",
    "unfold",
]
