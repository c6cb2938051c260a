# SPDX-License-Identifier: Apache-2.0
"""Labelled trees for ArviZ, and files of results."""

from .chains import export, join_chains
from .labels import flow_to_datatree, label, to_datatree
from .runs import SaveError, open_run, save
from .runs import claim as claim
from .trajectory import trajectory
from .weights import load_weights
from .weights import tensors as tensors

__all__ = [
    "SaveError",
    "export",
    "flow_to_datatree",
    "join_chains",
    "label",
    "load_weights",
    "open_run",
    "save",
    "to_datatree",
    "trajectory",
]
