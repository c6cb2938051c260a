# SPDX-License-Identifier: Apache-2.0
"""Networks, the prior of their weights, their training, and new draws of trained ones."""

from .base import Network
from .convolution import ConvLinear
from .deep_linear import DeepLinear
from .rainbow import Rainbow
from .resample import procrustes, resample, weight_covariance
from .residual import Residual
from .train import train

__all__ = [
    "ConvLinear",
    "DeepLinear",
    "Network",
    "Rainbow",
    "Residual",
    "procrustes",
    "resample",
    "train",
    "weight_covariance",
]
