# SPDX-License-Identifier: Apache-2.0
"""Posterior of a linear read-out over fixed features, in closed form."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array, random
from jax.scipy.linalg import solve_triangular
from jaxtyping import Float

from .. import _checks
from .._checks import ArrayLike
from .._linalg import judge, solve


class ReadoutPosterior(eqx.Module):
    r"""Law of the weights w of :math:`y = Fw + \epsilon`; see `readout_posterior`.

    Attributes
    ----------
    mean : (p,) or (p, c)
    factor : (p, p)
        Lower Cholesky factor of :math:`F^TF + (\sigma^2/\alpha) I`: the covariance of w is
        ``ridge`` times the inverse of what it is the root of.
    ridge : (), noise variance
    log_evidence : (), summed over targets
    """

    mean: Float[Array, "mode *output"]
    factor: Float[Array, "mode mode_bis"]
    ridge: Float[Array, ""]
    log_evidence: Float[Array, ""]

    @property
    def cov(self) -> Float[Array, "mode mode_bis"]:
        """Posterior covariance of w, (p, p), the same for all targets."""
        return self.ridge * solve(self.factor, jnp.eye(self.factor.shape[0]))

    def predict(self, F_new: ArrayLike, noise: bool = False):
        """Return posterior mean (m,) or (m, c) and variance (m,) of ``F_new @ w``.

        ``F_new`` is (m, p); with ``noise`` the variance is that of an observation.
        """
        _checks.flag("noise", noise)
        F_new = _checks.finite("F_new", F_new, ndim=2)
        if F_new.shape[1] != self.mean.shape[0]:
            raise ValueError(
                f"F_new has {F_new.shape[1]} columns and the posterior {self.mean.shape[0]} "
                "weights; give the same features"
            )
        white = solve_triangular(self.factor, F_new.T, lower=True)
        variance = self.ridge * (white**2).sum(0)
        return F_new @ self.mean, variance + self.ridge if noise else variance

    def sample(self, key: Array | int, draws: int = 1) -> Array:
        """Draw weights with ``key``: (draws, p) or (draws, p, c)."""
        key, draws = _checks.random_key(key), _checks.whole("draws", draws)
        white = random.normal(key, (self.mean.shape[0], draws) + self.mean.shape[1:])
        flat = white.reshape(white.shape[0], -1)
        spread = solve_triangular(self.factor.T, flat, lower=False).reshape(white.shape)
        return self.mean + jnp.sqrt(self.ridge) * jnp.moveaxis(spread, 1, 0)


def readout_posterior(
    F: ArrayLike, y: ArrayLike, ridge: ArrayLike, *, scale: ArrayLike = 1.0
) -> ReadoutPosterior:
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
    ReadoutPosterior

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
    return ReadoutPosterior(mean, factor, ridge, log_evidence)
