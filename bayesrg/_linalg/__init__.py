# SPDX-License-Identifier: Apache-2.0
"""Linear algebra that JAX lacks.

- `digits`: errors and warnings about matrices whose results lose digits
- `factors`: Cholesky factors, and what is computed from them
- `spectral`: eigenvectors and functions of matrices, with derivatives only where they exist
- `safe`: quotients and roots whose derivatives are finite at zero
"""

from .digits import LARGER, LEFT_OUT, check_factor, warn_condition
from .factors import cholesky, factor, inverse, log_det, quad_logdet, solve
from .safe import ratio, safe_sqrt, with_value
from .spectral import (
    FIRST_ONLY,
    eigh,
    matrix_function,
    once,
    pairs,
    pairs_of_root,
    square_root,
    svd,
)

__all__ = [
    "FIRST_ONLY",
    "LARGER",
    "LEFT_OUT",
    "check_factor",
    "cholesky",
    "eigh",
    "factor",
    "inverse",
    "log_det",
    "matrix_function",
    "once",
    "pairs",
    "pairs_of_root",
    "quad_logdet",
    "ratio",
    "safe_sqrt",
    "solve",
    "square_root",
    "svd",
    "warn_condition",
    "with_value",
]
