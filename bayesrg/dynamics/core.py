# SPDX-License-Identifier: Apache-2.0
"""Algorithms that move a position step by step, and the function that runs them."""

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
