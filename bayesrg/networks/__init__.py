# SPDX-License-Identifier: Apache-2.0
"""Networks: what they are made of, their weights' prior, and their outputs layer by layer."""

from .base import Network
from .convolution import ConvLinear
from .deep_linear import DeepLinear
from .rainbow import Rainbow
from .resample import (
    Alignment,
    Resampled,
    alignment_error,
    procrustes,
    resample,
    weight_covariance,
)
from .train import Trained, train

__all__ = [
    "Alignment",
    "ConvLinear",
    "DeepLinear",
    "Network",
    "Rainbow",
    "Resampled",
    "Trained",
    "alignment_error",
    "procrustes",
    "resample",
    "train",
    "weight_covariance",
]
