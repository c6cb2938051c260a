# SPDX-License-Identifier: Apache-2.0
"""Gaussian-process regression with fixed hyper-parameters, in closed form."""

from collections.abc import Callable
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, random
from jax.scipy.linalg import solve_triangular
from jaxtyping import Float

from .. import _checks
from .._callables import as_pytree
from .._checks import ArrayLike
from .._linalg import LARGER, LEFT_OUT, check_factor, cholesky, log_det, solve, square_root
from .._warnings import warn
from ..kernels import Kernel
from ..kernels.products import by_rows, product


class Posterior(eqx.Module):
    """Posterior of a function given its kernel and noisy observations, from `condition`.

    Attributes
    ----------
    kernel : Kernel, prior covariance K
    X : (n, d), training inputs
    y : (n,) or (n, c)
        Training targets.
    ridge : () or (n,)
        Noise variance.
    factor : (n, n), lower Cholesky factor of K(X, X) + ridge I
    weight : (n,) or (n, c)
        (K(X, X) + ridge I)^-1 times the targets minus the prior mean.
    jitter : ()
        Number added to the ridge so that the matrix could be factorised; zero unless the matrix
        was singular.
    prior_mean : callable, takes inputs (m, d); returns the prior mean
    """

    kernel: Kernel
    X: Float[Array, "point feature"]
    y: Float[Array, "point *output"]
    ridge: Float[Array, "*point"]
    factor: Float[Array, "point point_bis"]
    weight: Float[Array, "point *output"]
    jitter: Float[Array, ""]
    prior_mean: Callable

    def _new(self, Z):
        Z = _checks.inputs("Z", Z, wide=True)
        return _checks.columns("Z", Z, self.X.shape[1], "the training inputs")

    def mean(self, Z: ArrayLike) -> Float[Array, "point_new *output"]:
        """Return the posterior mean of the function at Z (m, d), (m,) or (m, c)."""
        Z = self._new(Z)
        mean = product(self.kernel, Z, self.X, self.weight)
        return mean + _shaped(self.prior_mean(Z), mean)

    def cov(self, Z: ArrayLike) -> Float[Array, "point_new point_new_bis"]:
        """Return the posterior covariance of the function at Z (m, d), (m, m), for each target."""
        Z = self._new(Z)
        return _covariance(self.factor, self.kernel(self.X, Z), self.kernel(Z))

    def predict(self, Z: ArrayLike, noise: bool = False):
        """Return posterior mean and variance at Z (m, d).

        Parameters
        ----------
        Z : (m, d), new inputs
        noise : bool
            Add the noise variance of a new observation; this needs one ridge for all points.

        Returns
        -------
        mean : (m,) or (m, c)
        variance : (m,)
        """
        noise = _checks.flag("noise", noise)
        Z = self._new(Z)
        if noise and self.ridge.ndim:
            raise ValueError(
                "noise=True needs one ridge for all points, and this posterior has one per "
                "training point; add the noise variance of the new points yourself"
            )
        mean, variance = by_rows(_marginals, self, Z, self.X.shape[0])
        mean = mean + _shaped(self.prior_mean(Z), mean)
        return mean, variance + self.ridge if noise else variance

    def sample(self, key: Array | int, Z: ArrayLike, draws: int) -> Array:
        """Draw the function at all rows of Z (m, d) jointly, (draws, m) or (draws, m, c).

        For a fixed key the draws are continuous in all parameters and have first derivatives.
        """
        key, draws = _checks.random_key(key), _checks.whole("draws", draws)
        return _draws(draws, key, self.mean(Z), self.cov(Z))

    @property
    def log_evidence(self) -> Float[Array, ""]:
        """Log marginal likelihood of the observations, summed over targets."""
        r = self.y - _shaped(self.prior_mean(self.X), self.y)
        return _log_evidence(self.factor, self.weight, r)

    def loo_predict(self):
        """Return mean and variance of each observation given all the others, in closed form.

        Returns
        -------
        mean : (n,) or (n, c)
        variance : (n,), noise is included

        References
        ----------
        Rasmussen and Williams (2006), equations 5.10 to 5.12.
        """
        check_factor(self.factor, margin=LEFT_OUT)
        return _left_out(self.factor, self.weight, self.y)

    def loo(self) -> Float[Array, "point *output"]:
        """Return the log density of each observation given all the others, (n,) or (n, c)."""
        mean, variance = self.loo_predict()
        return _log_density(self.y - mean, variance)


@jax.jit
def _covariance(factor, cross, prior):
    white = solve_triangular(factor, cross, lower=True)
    return prior - white.T @ white


@partial(jax.jit, static_argnums=0)
def _draws(draws, key, mean, cov):
    root, _ = square_root(cov)
    white = random.normal(key, (draws,) + mean.shape, mean.dtype)
    return mean + jnp.einsum("ij,sj...->si...", root, white)


@jax.jit
def _log_evidence(factor, weight, r):
    targets = r.size // len(factor)
    size = log_det(factor) + len(factor) * np.log(2 * np.pi)
    return -0.5 * ((r * weight).sum() + targets * size)


@jax.jit
def _left_out(factor, weight, y):
    variance = 1.0 / jnp.diagonal(solve(factor, jnp.eye(len(y), dtype=factor.dtype)))
    return y - (weight.T * variance).T, variance


@jax.jit
def _log_density(r, variance):
    return (-0.5 * (r.T**2 / variance + jnp.log(2 * np.pi * variance))).T


@jax.jit
def _solved(K, ridge, y, mean):
    """Return factor, weight and jitter of a `Posterior`."""
    factor, jitter = cholesky(K + ridge * jnp.eye(len(K), dtype=K.dtype))
    return factor, solve(factor, y - mean), jitter


def _marginals(posterior, Z):
    """Return the posterior mean without the prior mean, and the variance, at some rows Z."""
    K = posterior.kernel(Z, posterior.X)
    white = solve_triangular(posterior.factor, K.T, lower=True)
    variance = jnp.clip(posterior.kernel.diag(Z) - (white**2).sum(0), 0.0)
    return K @ posterior.weight, variance


def _shaped(mean, like):
    """Return a prior mean (), (n,) or (n, c) in a shape that fits targets (n,) or (n, c)."""
    mean = _checks.returned("mean", mean)
    if mean.shape not in ((), like.shape[:1], like.shape):
        raise ValueError(
            f"mean returned shape {mean.shape} for targets of shape {like.shape}; return one "
            "number per row"
        )
    return mean[:, None] if mean.ndim == 1 and like.ndim == 2 else mean


def _zero(X):
    return jnp.zeros(X.shape[0], X.dtype)


def condition(
    kernel: Kernel,
    X: ArrayLike,
    y: ArrayLike,
    ridge: ArrayLike,
    *,
    mean: Callable[[Array], Array] | None = None,
) -> Posterior:
    """Return the posterior of a Gaussian process given noisy observations.

    Parameters
    ----------
    kernel : Kernel, prior covariance
    X : (n, d), inputs
    y : (n,), or (n, c) for c independent targets that share kernel and noise
        Targets.
    ridge : () or (n,)
        Noise variance, added to the diagonal of the Gram matrix.
    mean : callable, optional
        Prior mean: takes inputs (m, d) and returns (m,) or (m, c); zero by default. Arrays that
        the function captured are parameters of the posterior.

    Raises
    ------
    RuntimeError
        With 64-bit floats off.
    ValueError
        For mismatched shapes, non-finite data, a negative ridge, or a Gram matrix that no jitter
        up to 1e5 n eps can factorise.

    Warns
    -----
    UserWarning
        If jitter was needed. It acts as an additional ridge and is stored in
        ``Posterior.jitter``. Also if the matrix is so ill-conditioned that half of the digits or
        more are lost.

    References
    ----------
    Rasmussen and Williams (2006), algorithm 2.1.
    """
    _checks.require_x64("gp.condition")
    _checks.instance("kernel", kernel, Kernel, _checks.KERNEL)
    if mean is not None:
        _checks.function("mean", mean, "a function of inputs")
    X = _checks.inputs("X", X, wide=True)
    n = X.shape[0]
    y = _checks.targets("y", y, n)
    ridge = _checks.nonnegative("ridge", ridge, ndim=(0, 1))
    if ridge.shape not in ((), (n,)):
        raise ValueError(f"ridge has shape {ridge.shape} for {n} points; give () or ({n},)")

    prior_mean = as_pytree(_zero if mean is None else mean)
    factor, weight, jitter = _solved(kernel(X), ridge, y, _shaped(prior_mean(X), y))
    if _checks.known(factor) and float(jitter) > 0 and np.isfinite(np.asarray(factor)).all():
        warn(
            f"K(X, X) + ridge I is singular in float64 (coincident inputs or a smooth kernel); "
            f"{float(jitter):.1e} was added to its diagonal, which acts as a larger ridge"
        )
    else:
        check_factor(factor, f"{LARGER}, or check that the kernel is positive semi-definite")
    return Posterior(kernel, X, y, ridge, factor, weight, jitter, prior_mean)
