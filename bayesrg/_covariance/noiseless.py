# SPDX-License-Identifier: Apache-2.0
"""Check of observations without noise, which need a kernel matrix whose range contains them."""

from .._warnings import warn

RANGE = 1e-8  # largest distance of observations from the range, relative to their length


def check_range(points, rank, outside):
    """Raise or warn if a kernel matrix of ``points`` rows has a smaller ``rank``.

    ``outside`` is whether the observations lie outside the range of the matrix.

    Raises
    ------
    ValueError
        If observations lie outside the range: their density is zero.

    Warns
    -----
    UserWarning
        If they lie in the range and the rank is below the number of points: the density is then
        a density on the range.
    """
    if rank == points:
        return
    where = f"ridge is 0 and the kernel of the {points} points has rank {rank}"
    if outside:
        raise ValueError(
            f"{where}: targets outside its range have zero density; give a positive ridge, or "
            "targets in the range of the kernel matrix"
        )
    warn(f"{where}; the targets lie in its range, and the density is that on its range")
