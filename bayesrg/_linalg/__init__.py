# SPDX-License-Identifier: Apache-2.0
"""Linear algebra that JAX lacks.

- `digits`: errors and warnings about matrices whose results lose digits
- `factors`: Cholesky factors, and what is computed from them
- `spectral`: eigenvectors and functions of matrices, with derivatives only where they exist
- `safe`: quotients and roots whose derivatives are finite at zero
"""

from .digits import LARGER as LARGER
from .digits import LEFT_OUT as LEFT_OUT
from .digits import check_factor as check_factor
from .digits import warn_condition as warn_condition
from .factors import cholesky as cholesky
from .factors import factor as factor
from .factors import inverse as inverse
from .factors import log_det as log_det
from .factors import quad_logdet as quad_logdet
from .factors import solve as solve
from .safe import ratio as ratio
from .safe import safe_sqrt as safe_sqrt
from .safe import with_value as with_value
from .spectral import FIRST_ONLY as FIRST_ONLY
from .spectral import eigh as eigh
from .spectral import matrix_function as matrix_function
from .spectral import once as once
from .spectral import pairs as pairs
from .spectral import pairs_of_root as pairs_of_root
from .spectral import square_root as square_root
from .spectral import svd as svd
