# SPDX-License-Identifier: Apache-2.0
"""Sample the posterior of a model, check the sampler, estimate the evidence, and predict."""

from .action import action_factor
from .coarse_graining import coarse_grain
from .convergence import SamplingWarning
from .estimate import estimate
from .fit import fit
from .grid import grid_posterior
from .observed import output_law
from .path import path_evidence
from .predict import predict
from .progress import Progress
from .samplers import Sampler
from .sbc import sbc
from .start import normal_start
from .strength import strength_evidence, strength_for_action
from .weights import sample_weights

__all__ = [
    "Progress",
    "Sampler",
    "SamplingWarning",
    "action_factor",
    "coarse_grain",
    "estimate",
    "fit",
    "grid_posterior",
    "normal_start",
    "output_law",
    "path_evidence",
    "predict",
    "sample_weights",
    "sbc",
    "strength_evidence",
    "strength_for_action",
]
