# SPDX-License-Identifier: Apache-2.0
"""Warnings that point at the line of the user, however deep in the package they begin."""

import warnings
from importlib.util import find_spec
from pathlib import Path

_LIBRARIES = "equinox", "jax", "jaxtyping", "numpyro"
_SKIPPED = (
    str(Path(__file__).parent),
    *(str(Path(find_spec(name).origin).parent) for name in _LIBRARIES),
    "<@beartype(",  # the check of types that tests put around functions
)


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn as `warnings.warn` does, at the first line outside this package and JAX's libraries."""
    warnings.warn(message, category, skip_file_prefixes=_SKIPPED)
