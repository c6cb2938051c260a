# SPDX-License-Identifier: Apache-2.0
"""Distance between the two ends of paths, as sets of points without a pairing."""

import warnings
from typing import NamedTuple

import jax
import numpy as np
from jax import Array
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from .. import _checks
from .._checks import ArrayLike
from .._numbers import on_device

_MOST = 2000  # points of an exact assignment, which takes seconds; the time is cubic
_MOST_OF_SINKHORN = 10_000  # its iterations hold several matrices of n x n entries
_BLOCK = 1 << 24  # entries of the matrix of squared distances that are computed at a time
_ITERATIONS, _FALL = 5000, 0.95  # of Sinkhorn: largest number, factor of the regularisation in each
_RELATIVE = 0.01  # regularisation over the mean squared distance of all pairs, by default


class Transport(NamedTuple):
    """Result of `wasserstein`.

    Attributes
    ----------
    w2 : float
        Distance :math:`W_2`, in units of the points.
    displacement : float
        Mean squared distance D of the given pairs, at least the square of ``w2``.
    efficiency : float
        :math:`W_2^2/D`: 1 if no other pairing is shorter, 0 if the points change places. It is nan
        if no point moves.
    points : int
        Number of points used.
    key : JAX key, int or None
        Key of the choice of points; None if all were used.
    regularisation : float or None
        Of the method "sinkhorn", in squared units of the points.
    converged : bool or None
        Whether the iterations of the method "sinkhorn" converged.
    """

    w2: float
    displacement: float
    efficiency: float
    points: int
    key: Array | int | None = None
    regularisation: float | None = None
    converged: bool | None = None


def wasserstein(
    x: ArrayLike,
    z: ArrayLike,
    *,
    max_points: int | None = None,
    key: Array | int | None = None,
    method: str = "assignment",
    regularisation: float | None = None,
) -> Transport:
    r"""Return the Wasserstein distance W2 between points x and z, and how short their pairing is.

    .. math:: W_2^2 = \min_\pi \frac1n \sum_i |x_i - z_{\pi(i)}|^2 \le D
        = \frac1n \sum_i |x_i - z_i|^2,

    where :math:`\pi` are the permutations. For a sample of a continuous law, W2 is above the
    distance of the laws, and in many dimensions the efficiency of a sample is often 1 whatever the
    law. It runs on the host in 64 bits.

    Parameters
    ----------
    x : (n, d)
        Points at the start of their paths.
    z : (n, d)
        The same points at the end.
    max_points : int, optional
        Largest number of points to use. Of more, this many are drawn without replacement, the same
        at both ends.
    key : JAX key, or int, optional
        For this choice of points.
    method : str
        "assignment" is exact, for at most 2,000 points. "sinkhorn", for at most 10,000 points,
        solves the problem with an entropy term by ott-jax (extra ``ot``), and returns the lower
        bound on W2 that follows from its dual variables. The bound tends to W2 as the
        regularisation falls.
    regularisation : float, optional
        Factor of the entropy, for "sinkhorn", in squared units of the points. By default 0.01
        times the mean squared distance of all pairs.

    Returns
    -------
    Transport

    Raises
    ------
    ValueError
        For arrays of different shapes, or more points than the method can take.
    ImportError
        If ott-jax is missing.

    References
    ----------
    arXiv 2009.08372.
    """
    _checks.on_host("wasserstein", x, z)
    _checks.choice("method", method, ("assignment", "sinkhorn"))
    x, z = _points("x", x), _points("z", z)
    if x.shape != z.shape or not x.size:
        raise ValueError(
            f"x has shape {x.shape} and z {z.shape}; give the same points (n, d) at both ends"
        )
    if regularisation is not None:
        regularisation = _checks.number("regularisation", regularisation, above=0.0)
        if method == "assignment":
            raise ValueError("regularisation is of method 'sinkhorn'; choose that, or leave it out")

    used, x, z = _chosen(x, z, max_points, key)
    if method == "assignment" and len(x) > _MOST:
        raise ValueError(
            f"optimal assignment needs n<={_MOST}, got {len(x)}; pass max_points, at most {_MOST}, "
            "and a key, or method='sinkhorn'"
        )
    if len(x) > _MOST_OF_SINKHORN:
        raise ValueError(
            f"method 'sinkhorn' needs n<={_MOST_OF_SINKHORN}, got {len(x)}; pass max_points and a "
            "key"
        )

    # coordinates of order 1: squares of others could overflow or underflow
    both = np.concatenate([x, z])
    with np.errstate(over="ignore"):
        unit = np.ptp(both, axis=0).max()
        if not np.isfinite(unit**2):
            raise ValueError("x and z have distances whose squares overflow; rescale both")
    unit = float(unit) or 1.0
    x, z = ((v - both.min(0)) / unit for v in (x, z))
    displacement = ((x - z) ** 2).sum(1).mean()

    converged = None
    if method == "assignment":
        squares = cdist(x, z, "sqeuclidean")
        w2_squared = squares[linear_sum_assignment(squares)].mean()
    else:
        if regularisation is None:
            regularisation = _RELATIVE * unit**2 * _mean_square(x, z)
        w2_squared, converged = _dual_bound(x, z, regularisation / unit / unit)
    w2_squared = min(w2_squared, displacement)  # rounding
    return Transport(
        w2=float(unit * np.sqrt(w2_squared)),
        displacement=float(unit**2 * displacement),
        efficiency=float(w2_squared / displacement) if displacement else np.nan,
        points=len(x),
        key=used,
        regularisation=regularisation,
        converged=converged,
    )


def _points(name, value):
    """Return points (n, d) as an array of 64-bit floats."""
    points = _checks.on_64_bits(name, value, _checks.inputs)
    return points[:, None] if points.ndim == 1 else points


def _chosen(x, z, max_points, key):
    """Return the key, None unless points are drawn, and the points to use at both ends."""
    most = len(x) if max_points is None else _checks.whole("max_points", max_points)
    typed = None if key is None else _checks.random_key(key)
    if most >= len(x):
        return None, x, z
    if key is None:
        raise ValueError(f"max_points={most} of {len(x)} points are drawn at random; give a key")
    rng = np.random.default_rng(np.asarray(jax.random.key_data(typed)))
    rows = np.sort(rng.choice(len(x), most, replace=False))
    return key, x[rows], z[rows]


def _mean_square(x, z):
    """Return the mean of the squared distances of all pairs."""
    return float(x.var(0).sum() + z.var(0).sum() + ((x.mean(0) - z.mean(0)) ** 2).sum())


def _dual_bound(x, z, epsilon):
    """Return a lower bound on the squared distance W2, and whether the iterations converged.

    Any f and g with f_i + g_j at most the squared distance of x_i and z_j bound W2^2 by the sum of
    their means. From the f of Sinkhorn's iterations, two minimisations make the best such pair.
    """
    if not x.any() and not z.any():  # all points are one
        return 0.0, True
    f, converged = _sinkhorn(x, z, epsilon)
    if not np.isfinite(f).all():
        raise ValueError(
            "regularisation is out of the range of floats, compared with the squared distances of "
            "the points; choose a regularisation closer to them"
        )
    g = _least(z, x, f)
    f = _least(x, z, g)
    return max(0.0, f.mean() + g.mean()), converged


def _least(x, z, g):
    """Return the minimum over j of the squared distances of x_i and z_j minus g_j."""
    rows = max(1, _BLOCK // len(z))
    blocks = [cdist(x[i : i + rows], z, "sqeuclidean") - g for i in range(0, len(x), rows)]
    return np.concatenate([block.min(1) for block in blocks])


def _sinkhorn(x, z, epsilon):
    """Return the dual variables f (n,) of x after Sinkhorn's iterations, and if they converged."""
    _ott()
    f, converged = _iterated(on_device(x), on_device(z), epsilon, _mean_square(x, z))
    return np.asarray(f, float), bool(converged)


@jax.jit
def _iterated(x, z, epsilon, first):
    """Run Sinkhorn's iterations, while the regularisation falls from ``first`` to ``epsilon``."""
    PointCloud, Epsilon, LinearProblem, Sinkhorn = _ott()
    falling = Epsilon(epsilon, init=first / epsilon, decay=_FALL)
    problem = LinearProblem(PointCloud(x, z, epsilon=falling))
    found = Sinkhorn(max_iterations=_ITERATIONS)(problem)
    return found.f, found.converged


def _ott():
    """Return the classes of ott-jax that are needed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of a package that it imports
            from ott.geometry.epsilon_scheduler import Epsilon
            from ott.geometry.pointcloud import PointCloud
            from ott.problems.linear.linear_problem import LinearProblem
            from ott.solvers.linear.sinkhorn import Sinkhorn
    except ImportError:
        raise ImportError(
            "method 'sinkhorn' needs the package ott-jax; install bayesrg[ot], or use "
            "method='assignment'"
        ) from None
    return PointCloud, Epsilon, LinearProblem, Sinkhorn
