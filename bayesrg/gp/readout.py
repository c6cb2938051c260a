# SPDX-License-Identifier: Apache-2.0
"""Posterior of the weights of fixed features (a linear read-out), in closed form."""

import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular

from .. import _checks
from .._checks import ArrayLike
from .._linalg import check_factor, log_det, solve
from .._posterior import LinearPosterior


def readout_posterior(
    F: ArrayLike, y: ArrayLike, ridge: ArrayLike, *, scale: ArrayLike = 1.0
) -> LinearPosterior:
    r"""Return the posterior of the weights w of features, given noisy observations.

    With the prior :math:`w\sim N(0, \alpha I)` it is
    :math:`w|y \sim N(A^{-1}F^Ty, \sigma^2A^{-1})`, :math:`A = F^TF + (\sigma^2/\alpha)I`. The mean
    is the ridge estimate. The function can be mapped (`jax.vmap`) over draws of features.

    Parameters
    ----------
    F : (n, p), features; the function at the n points is F w
    y : (n,) or (n, c)
        Targets.
    ridge : (), noise variance :math:`\sigma^2`, above zero
    scale : (), prior variance :math:`\alpha` of a weight, above zero

    Raises
    ------
    RuntimeError
        With 64-bit floats off.
    ValueError
        For mismatched shapes or numbers out of range; with more features than points, for a ridge
        that is as small as the round-off of F^T F.

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
                f"which solves a system of {n} points instead"
            )
    check_factor(factor)

    mean = solve(factor, F.T @ y)

    # The exponent at its maximum, and ln|alpha F F^T + sigma^2 I| by Sylvester's identity.
    quadratic = ((y - F @ mean) ** 2).sum() / ridge + (mean**2).sum() / scale
    size = log_det(factor) + p * jnp.log(scale) + (n - p) * jnp.log(ridge)
    targets = 1 if y.ndim == 1 else y.shape[1]
    log_evidence = -0.5 * (quadratic + targets * (size + n * np.log(2 * np.pi)))

    root = jnp.sqrt(ridge) * solve_triangular(factor, jnp.eye(p), lower=True).T
    return LinearPosterior(mean, root, log_evidence)
