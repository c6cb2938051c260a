# SPDX-License-Identifier: Apache-2.0
"""The pair of functions that every rule of motion is, and the scan that runs it."""

from .._trajectory import (
    DIVERGED,
    GO,
    REACHED,
    Algorithm,
    Info,
    State,
    Trajectory,
    optax_descent,
    run,
)

__all__ = [
    "DIVERGED",
    "GO",
    "REACHED",
    "Algorithm",
    "Info",
    "State",
    "Trajectory",
    "optax_descent",
    "run",
]
