# SPDX-License-Identifier: Apache-2.0
"""Ridges that depend on the input, and the low modes' regression under them."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.linalg import cho_solve, solve_triangular
from jaxtyping import Float

from .. import _checks, _fixedpoint
from .._checks import ArrayLike
from .._fixedpoint import Root
from .._linalg import factor, safe_sqrt
from .._posterior import LinearPosterior
from ..spectrum import Spectrum
from ..spectrum.levels import LevelsLike
from .ridges import problem


def local_ridge(
    spectrum: Spectrum, X: ArrayLike, ridge: ArrayLike, cutoff: int
) -> Float[Array, " point"]:
    r"""Return ridge plus prior variance of the eliminated modes, :math:`\sigma^2 + K_>(x, x)`.

    Parameters
    ----------
    spectrum : Spectrum
    X : (n, d)
    ridge : () or (n,), noise variance
    cutoff : int, modes kept

    Returns
    -------
    (n,)
        One value per input. The mean over the data measure is the universal ridge.

    References
    ----------
    arXiv 2405.06008: non-Gaussian features make the ridge depend on the input.
    """
    what = "a Spectrum, which spectrum.nystrom makes of a kernel"
    _checks.instance("spectrum", spectrum, Spectrum, what)
    cutoff = _checks.cutoff(cutoff, len(spectrum))
    X = _checks.inputs("X", X)
    spectrum.warn_if_shared(X)
    ridge = _per_row(_checks.nonnegative("ridge", ridge), X.shape[0])
    return _eliminated(spectrum.features(X), spectrum.values, ridge, spectrum.residual(X), cutoff)


@partial(jax.jit, static_argnames="cutoff")
def _eliminated(features, values, ridge, residual, cutoff):
    return ridge + features[:, cutoff:] ** 2 @ values[cutoff:] + residual


def dressed_local_ridge(
    features: ArrayLike,
    values: ArrayLike,
    n: ArrayLike,
    ridge: ArrayLike,
    cutoff: int = 0,
    *,
    weights: ArrayLike | None = None,
) -> Root:
    r"""Ridge at each input, to all orders in the learnability of the eliminated modes.

    The largest solution of :math:`s(x) = \sigma^2(x) + \sum_{k,l>\kappa} \phi_k(x)\phi_l(x)
    [(\Lambda^{-1} + nM)^{-1}]_{kl}` with :math:`M_{kl} = \int p\,\phi_k\phi_l/s`.

    Parameters
    ----------
    features : (p, k) mode functions on a grid or a sample of the inputs
    values : (k,) their prior variances
    n : number of training points, a positive real
    ridge : () or (p,), positive, noise variance and what else lies outside the modes
    cutoff : int
        Modes kept. 0 gives the effective ridge of the whole problem at each input.
    weights : (p,) probability of each row, equal by default

    Returns
    -------
    Root
        ``value`` (p,), the largest relative ``residual`` () and ``converged`` ().

    Notes
    -----
    The right-hand side rises with s. So the iteration starts at the upper bound
    :math:`\sigma^2 + K_>(x, x)` and falls to the solution; its error falls per step by about the
    mean square learnability times modes over n. Correlations between points are neglected. If
    features are Gaussian, the result is the dressed ridge.

    References
    ----------
    arXiv 2405.06008; the equation is of the type of Malzahn and Opper (2001).
    """
    features, values, weights = population(features, values, weights)
    cutoff = _checks.cutoff(cutoff, values.shape[0])
    n = _checks.positive("n", n, ndim=0)
    ridge = _per_row(_checks.positive("ridge", ridge), features.shape[0])
    return _dressed_locally(features, values, n, ridge, weights, cutoff)


@partial(jax.jit, static_argnames="cutoff")
def _dressed_locally(features, values, n, ridge, weights, cutoff):
    B = (features * safe_sqrt(values))[:, cutoff:]
    upper = ridge + (B**2).sum(1)
    return _fixedpoint.iterate(_dressed, upper, (B, n, ridge, weights))


def _dressed(s, args):
    """Right-hand side of the equation of `dressed_local_ridge`; columns B are modes times roots."""
    B, n, ridge, weights = args
    # the quadratic form of the inverse of a matrix L L^T is the square of L^-1 times the columns
    L = jnp.linalg.cholesky(_precision(B, n * weights / s))
    return ridge + (solve_triangular(L, B.T, lower=True) ** 2).sum(0)


def scale_mixture_ridge(
    values: LevelsLike,
    n: ArrayLike,
    ridge: ArrayLike,
    cutoff: ArrayLike,
    squares: ArrayLike,
    *,
    weights: ArrayLike | None = None,
) -> Root:
    r"""Dressed ridge at each input, for Gaussian features times a random factor per point.

    It is :math:`s(\tau) = \sigma^2 + \tau^2\sum_{k>\kappa} \lambda_k/(1 + n\lambda_k q)` where the
    factor is :math:`\tau`, with :math:`q = E[\tau^2/s(\tau)]`.

    Parameters
    ----------
    values : Spectrum, Levels, or falling eigenvalues (k,), variances under the data measure
        The factor multiplies their tail, too.
    n : number of training points, a positive real
    ridge : positive, noise variance
    cutoff : int, modes kept
    squares : (m,) values of :math:`\tau^2`, of mean one
    weights : (m,) probabilities of ``squares``, equal by default

    Returns
    -------
    Root
        ``value`` (m,), one per entry of ``squares``.

    Raises
    ------
    ValueError
        If the mean of ``squares`` is not one.

    References
    ----------
    arXiv 2405.06008, on features that are not Gaussian.
    """
    whole, n, ridge = problem(values, n, ridge)
    if whole.values.ndim != 1 or whole.tail.ndim or n.ndim or ridge.ndim:
        raise ValueError("scale_mixture_ridge takes one spectrum, n and ridge; call it for each")
    ridge = _checks.positive("ridge", ridge)
    cutoff = whole.checked_cutoff(cutoff)
    squares = _checks.nonnegative("squares", squares, ndim=1)
    weights = probabilities(weights, squares.shape[0])
    if _checks.known(weights) and _checks.known(squares):
        mean = float(np.asarray(weights) @ np.asarray(squares))
        if abs(mean - 1) > 1e-6:
            raise ValueError(
                f"squares must have mean 1, got {mean:.6g}; divide them by it and multiply "
                "values by it"
            )
    return _of_mixture(whole, n, ridge, squares, weights, cutoff)


@jax.jit
def _of_mixture(levels, n, ridge, squares, weights, cutoff):
    high = levels.split(cutoff)[1]
    upper = ridge + squares * (high.variance.sum() + high.tail)
    return _fixedpoint.iterate(_mixed, upper, (high, n, ridge, squares, weights))


def _mixed(s, args):
    """Right-hand side of the equation of `scale_mixture_ridge`."""
    high, n, ridge, squares, weights = args
    q = (weights * squares / s).sum()
    return ridge + squares * ((high.variance / (1.0 + n * high.values * q)).sum() + high.tail)


def reweighted_modes(
    features: ArrayLike,
    values: ArrayLike,
    n: ArrayLike,
    ridge: ArrayLike,
    y: ArrayLike,
    *,
    weights: ArrayLike | None = None,
) -> LinearPosterior:
    r"""Posterior of the low modes' coefficients under a ridge that depends on the input.

    This is regression with the data measure weighted by 1/s. The mean is
    :math:`(\Lambda^{-1} + nM)^{-1} n b` with :math:`M_{kl} = \int p\,\phi_k\phi_l/s` and
    :math:`b_k = \int p\,\phi_k y/s`.

    Parameters
    ----------
    features : (p, k) low mode functions on a grid or a sample of the inputs
    values : (k,) their prior variances
    n : number of training points, a positive real
    ridge : () or (p,), positive, the ridge s at each row, such as that of `local_ridge`
    y : (p,) noiseless target
    weights : (p,) probability of each row, equal by default

    Returns
    -------
    LinearPosterior
        Of the coefficients of the mode functions. It has no evidence, since ``y`` has no noise.
        If the rows are the n training points, with equal weights, the mean is that of a coarse
        model on these points.

    References
    ----------
    arXiv 2405.06008: the ridge re-weights the mean squared loss.
    """
    features, values, weights = population(features, values, weights)
    y = _checks.shaped("y", y, features.shape[:1], "one target per row")
    ridge = _per_row(_checks.positive("ridge", ridge), features.shape[0])
    n = _checks.positive("n", n, ndim=0)
    amplitude, precision, pulled = _reweighted(features, values, n, ridge, y, weights)
    return _posterior(amplitude, factor(precision), pulled)


@jax.jit
def _reweighted(features, values, n, ridge, y, weights):
    """Root of the prior variance, and of white modes the precision and what y pulls them by."""
    pull, amplitude = n * weights / ridge, safe_sqrt(values)
    B = features * amplitude
    return amplitude, _precision(B, pull), B.T @ (pull * y)


@jax.jit
def _posterior(amplitude, L, pulled):
    # white modes have covariance (L L^T)^-1, with root L^-T; coefficients are amplitude times modes
    root = amplitude[:, None] * solve_triangular(L, jnp.eye(len(L), dtype=L.dtype), lower=True).T
    return LinearPosterior(amplitude * cho_solve((L, True), pulled), root)


def data_weights(ridge: ArrayLike, *, weights: ArrayLike | None = None) -> Float[Array, " point"]:
    r"""Factor :math:`\bar\sigma^2/\sigma^2(x)` by which a local ridge re-weights the data measure.

    Parameters
    ----------
    ridge : (p,) at each row, positive
    weights : (p,) probability of each row, equal by default

    Returns
    -------
    (p,)
        Of mean one under the data measure.

    References
    ----------
    arXiv 2405.06008.
    """
    ridge = _checks.positive("ridge", ridge, ndim=1)
    return _to_mean_one(ridge, probabilities(weights, ridge.shape[0]))


@jax.jit
def _to_mean_one(ridge, weights):
    return 1.0 / (ridge * (weights / ridge).sum())


def _precision(B, pull):
    """Posterior precision of white modes, given the ``pull`` (p,) of each row of columns B."""
    return jnp.eye(B.shape[1], dtype=B.dtype) + B.T @ (B * pull[:, None])


def population(features, values, weights):
    """Check mode functions (p, k), their prior variances, and the probabilities of the rows."""
    _checks.require_x64("a ridge that depends on the input")
    features = _checks.features("features", features)
    values = _checks.eigenvalues(values, falling=False)
    same_modes(features, values)
    return features, values, probabilities(weights, features.shape[0])


def _per_row(ridge, rows):
    """Require one ridge, or one per row."""
    return ridge if not ridge.ndim else _checks.shaped("ridge", ridge, (rows,), "one per row")


def same_modes(features, values, name="features"):
    """Require one value for each column of ``features``."""
    if values.shape != features.shape[1:]:
        raise ValueError(
            f"values has shape {values.shape} but {name} has {features.shape[1]} entries per row; "
            "give one value per mode"
        )


def probabilities(weights, rows):
    """Return the probabilities of a population's rows; equal ones if ``weights`` is None."""
    if weights is None:
        return _checks.on_device(np.full(rows, 1.0 / rows))
    weights = _checks.nonnegative("weights", weights)
    weights = _checks.shaped("weights", weights, (rows,), "one per row")
    total = float(np.asarray(weights).sum()) if _checks.known(weights) else 1.0
    if abs(total - 1) > 1e-6:
        raise ValueError(f"weights must be probabilities, got a sum of {total:.6g}; divide by it")
    return weights
