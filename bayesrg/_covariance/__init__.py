# SPDX-License-Identifier: Apache-2.0
"""Three algebras for one covariance matrix ``C``: dense, low rank plus diagonal, eigenpairs.

`Covariance` holds what a covariance is made of, and picks one by shape.

Each offers the same verbs, with batches in front: ``quad_logdet(r)`` for rows ``r`` (..., m, n),
``solve(B)``, ``multiply(B)`` and ``quad(B)`` = diag(B^T C^-1 B) for columns ``B`` (..., n, m),
``inverse_diag()`` = diag(C^-1) (..., n), ``curved(s)``, the algebra of ``I + diag(s) C diag(s)``,
and two square roots of ``C`` applied to white noise: ``colour(z)``, the cheapest, which takes
``white_size()`` numbers, and ``root(z)``, which takes n of them. Both are continuous in ``C``.

Outside a JAX transformation factors are judged: one that failed raises an error, and one that lost
half of its digits gives a warning; see `_linalg.judge`.

Several outputs that an order parameter correlates have an algebra of their own, `Blocks`.
"""

from .dense import Dense
from .eigen import Eigen
from .kronecker import Blocks, Kronecker, log_density
from .low_rank import LowRank
from .parts import Covariance, Prior

__all__ = [
    "Blocks",
    "Covariance",
    "Dense",
    "Eigen",
    "Kronecker",
    "LowRank",
    "Prior",
    "log_density",
]
