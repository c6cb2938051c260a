# SPDX-License-Identifier: Apache-2.0
"""Posterior of a linear read-out over fixed features, in closed form."""

import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular

from .. import _checks
from .._checks import ArrayLike
from .._linalg import judge, solve
from .._posterior import LinearPosterior


def readout_posterior(
    F: ArrayLike, y: ArrayLike, ridge: ArrayLike, *, scale: ArrayLike = 1.0
) -> LinearPosterior:
    r"""Condition the read-out :math:`w\sim N(0, \alpha I)` of features on noisy observations.

    :math:`w|y \sim N(A^{-1}F^Ty, \sigma^2A^{-1})`, :math:`A = F^TF + (\sigma^2/\alpha)I`: its mean
    is the ridge estimate. It can be mapped over draws of features.

    Parameters
    ----------
    F : (n, p) features, as they multiply w
    y : (n,) or (n, c)
    ridge : ()
        Noise variance :math:`\sigma^2`, above zero.
    scale : ()
        Prior variance :math:`\alpha` of a weight, above zero.

    Returns
    -------
    LinearPosterior

    Raises
    ------
    RuntimeError
        With 64-bit floats off.
    ValueError
        For mismatched shapes, numbers out of range, or a ridge that round-off hides where there
        are more features than points.

    References
    ----------
    arXiv 2402.13999; Rasmussen and Williams (2006), equations 2.7 to 2.11.
    """
    _checks.require_x64("gp.readout_posterior")
    F = _checks.features("F", F).astype(float)
    n, p = F.shape
    y = _checks.targets("y", y, n)
    ridge = _checks.positive("ridge", ridge, ndim=0)
    scale = _checks.positive("scale", scale, ndim=0)
    square = F.T @ F
    factor = jnp.linalg.cholesky(square + ridge / scale * jnp.eye(p))
    if _checks.known(factor) and n < p:
        lost = float(p * jnp.finfo(F.dtype).eps * jnp.trace(square) / (ridge / scale))
        if not np.isfinite(np.asarray(factor)).all() or lost > 1e-4:
            raise ValueError(
                f"ridge / scale = {float(ridge / scale):.3g} is at the round-off of F^T F, which "
                f"has rank {n} for {p} features; give a larger ridge, or use gp.MercerNormal, "
                "whose algebra is that of the points"
            )
    judge(factor)
    mean = solve(factor, F.T @ y)
    quadratic = ((y - F @ mean) ** 2).sum() / ridge + (mean**2).sum() / scale
    log_det = (
        2 * jnp.log(jnp.diagonal(factor)).sum() + p * jnp.log(scale) + (n - p) * jnp.log(ridge)
    )
    targets = 1 if y.ndim == 1 else y.shape[1]
    log_evidence = -0.5 * (quadratic + targets * (log_det + n * np.log(2 * np.pi)))
    root = jnp.sqrt(ridge) * solve_triangular(factor, jnp.eye(p), lower=True).T
    return LinearPosterior(mean, root, log_evidence)
