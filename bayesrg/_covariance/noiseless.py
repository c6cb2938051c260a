# SPDX-License-Identifier: Apache-2.0
"""Observations without noise: they have a density on the range of the kernel matrix only."""

import warnings

RANGE = 1e-8  # how far observations may stand off the range, relative to their length


def check_range(points, rank, outside):
    """Check observations without noise against the rank of the kernel matrix of ``points`` rows.

    ``outside`` says whether they leave the range of the matrix.

    Raises
    ------
    ValueError
        If they do: their density is zero.

    Warns
    -----
    UserWarning
        If the rank is below the number of points: the density is that on the range.
    """
    if rank == points:
        return
    where = f"ridge is 0 and the kernel of the {points} points has rank {rank}"
    if outside:
        raise ValueError(
            f"{where}: targets outside its range have zero density; give a positive ridge, or "
            "targets that a function can meet"
        )
    warnings.warn(
        f"{where}; the targets lie in its range, and the density is that on its range", stacklevel=4
    )
