# SPDX-License-Identifier: Apache-2.0
"""Algebras for one covariance matrix ``C``: dense, low rank plus diagonal, eigenpairs, blocks.

`Covariance` holds the parts of a covariance matrix and chooses an algebra by their shapes.

All algebras have these methods, with batch axes in front:

- ``quad_logdet(r)``: r^T C^-1 r for rows ``r`` (..., m, n), and ln|C|
- ``solve(B)`` = C^-1 B and ``multiply(B)`` = C B for columns ``B`` (..., n, m)
- ``inverse_diag()`` = diag(C^-1), (..., n)
- ``curved(s)``: the algebra of ``I + diag(s) C diag(s)``
- ``colour(z)`` and ``root(z)``: two square roots of ``C`` times white noise. ``colour`` is the
  cheapest and takes ``white_size()`` numbers; ``root`` takes n numbers. Both are continuous in C.

Outside a JAX transformation every Cholesky factor is checked: one that failed raises an error, and
one that lost half of its digits gives a warning (`_linalg.check_factor`).

`Blocks` is the algebra of several outputs that an order parameter correlates.
"""

from .dense import Dense
from .eigen import Eigen
from .kronecker import Blocks, Kronecker, log_density
from .low_rank import LowRank
from .parts import Covariance

__all__ = [
    "Blocks",
    "Covariance",
    "Dense",
    "Eigen",
    "Kronecker",
    "LowRank",
    "log_density",
]
