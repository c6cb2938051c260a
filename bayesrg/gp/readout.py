# SPDX-License-Identifier: Apache-2.0
"""Posterior of the weights of fixed features (a linear read-out), in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular

from .. import _checks
from .._checks import ArrayLike
from .._linalg import check_factor, log_det, solve
from .._posterior import LinearPosterior


def readout_posterior(
    features: ArrayLike, y: ArrayLike, ridge: ArrayLike, *, scale: ArrayLike = 1.0
) -> LinearPosterior:
    r"""Return the posterior of the weights w of features F, given noisy observations.

    With the prior :math:`w\sim N(0, \alpha I)` it is
    :math:`w|y \sim N(A^{-1}F^Ty, \sigma^2A^{-1})`, :math:`A = F^TF + (\sigma^2/\alpha)I`. The mean
    is the ridge estimate. The function can be mapped (`jax.vmap`) over draws of features.

    Parameters
    ----------
    features : (n, p)
        F; the function at the n points is F w.
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
        that is as small as the rounding error of F^T F.

    References
    ----------
    arXiv 2402.13999; Rasmussen and Williams (2006), equations 2.7 to 2.11.
    """
    _checks.require_x64("gp.readout_posterior")
    features = _checks.features("features", features).astype(float)
    n, p = features.shape
    y = _checks.targets("y", y, n)
    ridge = _checks.positive("ridge", ridge, ndim=0)
    scale = _checks.positive("scale", scale, ndim=0)

    factor, posterior = _solved(features, y, ridge, scale)
    if _checks.known(factor) and n < p:
        size = float((np.asarray(features) ** 2).sum())  # the trace of F^T F
        lost = p * np.finfo(float).eps * size / float(ridge / scale)
        if not np.isfinite(np.asarray(factor)).all() or lost > 1e-4:
            raise ValueError(
                f"ridge / scale = {float(ridge / scale):.3g} is at the rounding error of F^T F, "
                f"which has rank {n} for {p} features F; give a larger ridge, or use "
                f"gp.MercerNormal, which solves a system of {n} points instead"
            )
    check_factor(factor)
    return posterior


@jax.jit
def _solved(F, y, ridge, scale):
    """Return the Cholesky factor of A, and the posterior."""
    n, p = F.shape
    eye = jnp.eye(p, dtype=F.dtype)
    factor = jnp.linalg.cholesky(F.T @ F + ridge / scale * eye)
    mean = solve(factor, F.T @ y)

    # The exponent at its maximum, and ln|alpha F F^T + sigma^2 I| by Sylvester's identity.
    quadratic = ((y - F @ mean) ** 2).sum() / ridge + (mean**2).sum() / scale
    size = log_det(factor) + p * jnp.log(scale) + (n - p) * jnp.log(ridge)
    targets = 1 if y.ndim == 1 else y.shape[1]
    log_evidence = -0.5 * (quadratic + targets * (size + n * np.log(2 * np.pi)))

    root = jnp.sqrt(ridge) * solve_triangular(factor, eye, lower=True).T
    return factor, LinearPosterior(mean, root, log_evidence)
