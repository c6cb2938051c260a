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
    r"""Ridge at each input once the modes above a cutoff are eliminated, :math:`\sigma^2 + K_>(x, x)`.

    Parameters
    ----------
    spectrum : Spectrum
    X : (n, d)
    ridge : () or (n,), noise variance
    cutoff : int, modes kept

    Returns
    -------
    (n,)
        Its mean over the data measure is the universal ridge.

    References
    ----------
    arXiv 2405.06008: non-Gaussian features make the ridge depend on the input.
    """  # noqa: E501
    what = "a Spectrum, which spectrum.nystrom makes of a kernel"
    _checks.instance("spectrum", spectrum, Spectrum, what)
    cutoff = _checks.cutoff(cutoff, len(spectrum))
    X = _checks.inputs("X", X)
    spectrum.warn_if_shared(X)
    ridge = _per_row("ridge", _checks.nonnegative("ridge", ridge, ndim=(0, 1)), X.shape[0])
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
    n : () number of training points, a positive real
    ridge : () or (p,), positive, noise variance and what else lies outside the modes
    cutoff : modes kept; with 0 the local effective ridge of the whole problem
    weights : (p,), optional
        Probability of each row; equal by default.

    Returns
    -------
    Root
        ``value`` (p,), largest relative ``residual`` () and ``converged`` ().

    Notes
    -----
    The right-hand side rises with s, so iterating it from the upper bound
    :math:`\sigma^2 + K_>(x, x)` falls to the solution; the rate is about the mean square
    learnability times modes over n. Correlations between points are neglected. For Gaussian
    features it is the dressed ridge.

    References
    ----------
    arXiv 2405.06008; the equation is of the type of Malzahn and Opper (2001).
    """
    features, weights = _population(features, weights)
    values = _checks.eigenvalues(values, falling=False)
    same_modes(features, values)
    cutoff = _checks.cutoff(cutoff, values.shape[0])
    n = _checks.positive("n", n, ndim=0)
    ridge = _per_row("ridge", _checks.positive("ridge", ridge, ndim=(0, 1)), features.shape[0])
    return _dressed_locally(features, values, n, ridge, weights, cutoff)


@partial(jax.jit, static_argnames="cutoff")
def _dressed_locally(features, values, n, ridge, weights, cutoff):
    B = (features * safe_sqrt(values))[:, cutoff:]
    upper = ridge + (B**2).sum(1)
    return _fixedpoint.iterate(_dressed, upper, (B, n, ridge, weights))


def scale_mixture_ridge(
    values: LevelsLike,
    n: ArrayLike,
    ridge: ArrayLike,
    squares: ArrayLike,
    cutoff: int = 0,
    *,
    weights: ArrayLike | None = None,
) -> Root:
    r"""Dressed local ridge where features are Gaussian up to a common factor :math:`\tau` a point.

    :math:`s(\tau) = \sigma^2 + \tau^2\sum_{k>\kappa} \lambda_k/(1 + n\lambda_k q)` with
    :math:`q = E[\tau^2/s(\tau)]`.

    Parameters
    ----------
    values : Spectrum, Levels, or eigenvalues (k,), as in `effective_ridge`
        The factor acts on their tail too.
    n : () number of training points
    ridge : () positive, noise variance
    squares : (m,) values of the squared factor, of mean one
    cutoff : modes kept
    weights : (m,), optional
        Their probabilities; equal by default.

    Returns
    -------
    Root
        ``value`` (m,), one a squared factor.

    Raises
    ------
    ValueError
        If the squared factors do not have mean one.

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


def reweighted_modes(
    features: ArrayLike,
    values: ArrayLike,
    n: ArrayLike,
    noise: ArrayLike,
    y: ArrayLike,
    *,
    weights: ArrayLike | None = None,
) -> LinearPosterior:
    r"""Posterior of the low modes' coefficients under a ridge that depends on the input.

    :math:`\bar f = (\Lambda^{-1} + nM)^{-1} n b` with :math:`M_{kl} = \int p\,\phi_k\phi_l/s` and
    :math:`b_k = \int p\,\phi_k y/s`: regression with the data measure weighted by 1/s.

    Parameters
    ----------
    features : (p, k) low mode functions on a grid or a sample of the inputs
    values : (k,) their prior variances
    n : () number of training points
    noise : () or (p,), the ridge at each row
    y : (p,) noiseless target
    weights : (p,), optional
        Probability of each row; equal by default. On the n training points themselves equal
        weights give the conjugate posterior mean of a coarse model.

    Returns
    -------
    LinearPosterior
        Of the coefficients of the mode functions; it has no evidence, since ``y`` has no noise.

    References
    ----------
    arXiv 2405.06008: the ridge re-weights the mean squared loss.
    """
    features, weights = _population(features, weights)
    values = _checks.nonnegative("values", values, ndim=1)
    same_modes(features, values)
    y = _checks.finite("y", _checks.targets("y", y, features.shape[0]), ndim=1)
    noise = _per_row("noise", _checks.positive("noise", noise, ndim=(0, 1)), features.shape[0])
    n = _checks.positive("n", n, ndim=0)
    amplitude, precision, pulled = _reweighted(features, values, n, noise, y, weights)
    return _posterior(amplitude, factor(precision), pulled)


@jax.jit
def _reweighted(features, values, n, noise, y, weights):
    """Root of the prior variance, and of white modes the precision and what y pulls them by."""
    pull, amplitude = n * weights / noise, safe_sqrt(values)
    B = features * amplitude
    return amplitude, _precision(B, pull), B.T @ (pull * y)


@jax.jit
def _posterior(amplitude, L, pulled):
    root = amplitude[:, None] * solve_triangular(L, jnp.eye(len(L), dtype=L.dtype), lower=True).T
    return LinearPosterior(amplitude * cho_solve((L, True), pulled), root)


def data_weights(noise: ArrayLike, weights: ArrayLike | None = None) -> Float[Array, " point"]:
    r"""Factor :math:`\bar\sigma^2/\sigma^2(x)` by which a local ridge re-weights the data measure.

    Parameters
    ----------
    noise : (p,) ridge at each row
    weights : (p,), optional
        Probability of each row; equal by default.

    Returns
    -------
    (p,)
        Of mean one under the data measure.

    References
    ----------
    arXiv 2405.06008.
    """
    noise = _checks.positive("noise", noise, ndim=1)
    return _to_mean_one(noise, probabilities(weights, noise.shape[0]))


@jax.jit
def _to_mean_one(noise, weights):
    return 1.0 / (noise * (weights / noise).sum())


def _dressed(s, args):
    B, n, ridge, weights = args
    L = jnp.linalg.cholesky(_precision(B, n * weights / s))
    return ridge + (solve_triangular(L, B.T, lower=True) ** 2).sum(0)


def _mixed(s, args):
    high, n, ridge, squares, weights = args
    q = (weights * squares / s).sum()
    return ridge + squares * ((high.variance / (1.0 + n * high.values * q)).sum() + high.tail)


def _precision(B, pull):
    """Posterior precision of white modes, columns ``B``, that points pull at."""
    return jnp.eye(B.shape[1], dtype=B.dtype) + B.T @ (B * pull[:, None])


def _population(features, weights):
    _checks.require_x64("a local ridge")
    features = _checks.features("features", features)
    return features, probabilities(weights, features.shape[0])


def _per_row(name, value, rows):
    if value.ndim and value.shape != (rows,):
        raise ValueError(f"{name} has shape {value.shape} for {rows} rows; give () or one per row")
    return value


def same_modes(features, values, name="features"):
    """Require one value for each column."""
    if values.shape != features.shape[1:]:
        raise ValueError(
            f"values has shape {values.shape} but {name} has {features.shape[1]} entries per row; "
            "give one value per mode"
        )


def probabilities(weights, rows):
    """Check the probabilities of a population's rows; equal ones by default."""
    if weights is None:
        return _checks.on_device(np.full(rows, 1.0 / rows))
    weights = _checks.nonnegative("weights", weights, ndim=1)
    if weights.shape != (rows,):
        raise ValueError(f"weights has shape {weights.shape} for {rows} rows; give one per row")
    total = float(np.asarray(weights).sum()) if _checks.known(weights) else 1.0
    if abs(total - 1) > 1e-6:
        raise ValueError(f"weights must be probabilities, got a sum of {total:.6g}; divide by it")
    return weights
