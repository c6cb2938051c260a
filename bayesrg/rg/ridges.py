# SPDX-License-Identifier: Apache-2.0
"""Ridges that stand for modes, learnabilities, and where to cut."""

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from .. import _checks, _fixedpoint
from .._checks import ArrayLike
from ..spectrum import Spectrum

CUTOFF_RULES = ("running",)


def _levels(values, degeneracy, n, ridge, tail):
    """Check and convert what every function of a spectrum takes; the tail joins the ridge."""
    _checks.warn_32_bits("a ridge")
    values = _checks.eigenvalues(values)
    if degeneracy is None:
        degeneracy = jnp.ones_like(values)
    degeneracy = _checks.positive("degeneracy", degeneracy)
    if degeneracy.shape[-1:] != values.shape[-1:]:
        raise ValueError(
            f"degeneracy has shape {degeneracy.shape} but values {values.shape}; give one a level"
        )
    ridge = _checks.nonnegative("ridge", ridge) + _checks.nonnegative("tail", tail)
    return values, degeneracy.astype(values.dtype), _checks.positive("n", n), ridge


def effective_ridge(
    values: ArrayLike,
    n: ArrayLike,
    ridge: ArrayLike,
    *,
    degeneracy: ArrayLike | None = None,
    tail: ArrayLike = 0.0,
) -> Float[Array, "*batch"]:
    r"""Ridge that n points effectively see: the root s of :math:`s = \sigma^2 + \sum_k \lambda_k s/(s+n\lambda_k)`.

    Parameters
    ----------
    values : (..., k) eigenvalues under the data measure, falling, variances
    n : (...) number of points, a positive real
    ridge : (...) noise variance, zero allowed
    degeneracy : (..., k) modes a value stands for, 1 by default
    tail : (...) variance outside the spectrum, added to the ridge

    Returns
    -------
    s : (...)
        Between the ridge and the ridge plus the sum of values; zero for a zero ridge and no more
        modes than points. Differentiable in values, n and ridge.

    Notes
    -----
    About 15 digits in 64-bit floats, 6 in 32-bit.

    References
    ----------
    arXiv 2405.06008, section 4 of its theory; Silverman (1984); Sollich (1999); Canatar,
    Bordelon and Pehlevan (2021), equation 4.
    """  # noqa: E501
    return _fixedpoint.effective_ridge(*_levels(values, degeneracy, n, ridge, tail)).value


def dressed_ridge(
    values: ArrayLike,
    n: ArrayLike,
    ridge: ArrayLike,
    cutoff: int,
    *,
    degeneracy: ArrayLike | None = None,
    tail: ArrayLike = 0.0,
) -> Float[Array, "*batch"]:
    """Effective ridge of the modes above a cutoff alone: what eliminating them makes of the ridge.

    Parameters
    ----------
    cutoff : int
        Modes kept; with a degeneracy it may cut a level, whose other modes count as eliminated.

    Returns
    -------
    s : (...)
        At most ridge plus the eliminated variance; the other arguments are those of
        `effective_ridge`.

    References
    ----------
    arXiv 2405.06008; the dressed flow sums all orders in the learnability of what is eliminated.
    """
    values, degeneracy, n, ridge = _levels(values, degeneracy, n, ridge, tail)
    if _checks.known(degeneracy):
        cutoff = _checks.cutoff(cutoff, int(round(float(np.asarray(degeneracy).sum(-1).max()))))
    kept = jnp.clip(cutoff - (jnp.cumsum(degeneracy, -1) - degeneracy), 0.0, degeneracy)
    high = degeneracy - kept
    values = jnp.where(high > 0, values, 0.0)
    return _fixedpoint.effective_ridge(values, high, n, ridge).value


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
    cutoff = _checks.cutoff(cutoff, len(spectrum))
    X = _checks.inputs("X", X)
    spectrum.warn_if_shared(X)
    high = spectrum.features(X)[:, cutoff:] ** 2 @ spectrum.values[cutoff:]
    return _checks.nonnegative("ridge", ridge, ndim=(0, 1)) + high + spectrum.residual(X)


def learnability(
    values: ArrayLike,
    n: ArrayLike,
    ridge: ArrayLike,
    *,
    degeneracy: ArrayLike | None = None,
    tail: ArrayLike = 0.0,
) -> Float[Array, "*batch mode"]:
    r"""How much of each mode n points determine, :math:`n\lambda_k/(n\lambda_k + s)`, s effective.

    Arguments are those of `effective_ridge`.

    Returns
    -------
    (..., k)
        From 0 to 1: one minus posterior over prior variance of the mode. Zero for a zero value.

    References
    ----------
    arXiv 2405.06008, equation 37; Simon et al. (2023) (eigenlearning).
    """
    values, degeneracy, n, ridge = _levels(values, degeneracy, n, ridge, tail)
    s = _fixedpoint.effective_ridge(values, degeneracy, n, ridge).value
    return _learnt(values, n, s[..., None])


def _learnt(values, n, ridge):
    signal = jnp.asarray(n)[..., None] * values
    total = signal + ridge
    return jnp.where(total > 0, signal / jnp.where(total > 0, total, 1.0), 0.0)


def running_learnability(
    values: ArrayLike,
    n: ArrayLike,
    ridge: ArrayLike,
    *,
    degeneracy: ArrayLike | None = None,
    tail: ArrayLike = 0.0,
) -> Float[Array, "*batch mode"]:
    r"""Learnability of each mode at the scale where the flow reaches it.

    It is :math:`n\lambda_k/(n\lambda_k + \sigma_k^2)` with the universal ridge
    :math:`\sigma_k^2 = \sigma^2 + \sum_{j>k}\lambda_j`; inside a level, that of its first mode.
    Arguments are those of `effective_ridge`.

    Returns
    -------
    (..., k)

    References
    ----------
    arXiv 2405.06008, equation 37.
    """
    return _running(*_levels(values, degeneracy, n, ridge, tail))


def _running(values, degeneracy, n, ridge, last=False):
    """Running learnability of the first mode of each level, or of its last."""
    variance = degeneracy * values
    above = jnp.cumsum(variance[..., ::-1], -1)[..., ::-1] - (variance if last else values)
    return _learnt(values, n, ridge[..., None] + above)


def cutoff(
    values: ArrayLike,
    n: ArrayLike,
    ridge: ArrayLike,
    rule: str = "running",
    threshold: float = 0.5,
    *,
    scan: str = "ir",
    degeneracy: ArrayLike | None = None,
    tail: ArrayLike = 0.0,
) -> int:
    """Count the modes that a data set of n points can learn: where the flow stops.

    Parameters
    ----------
    values : (k,) eigenvalues under the data measure, falling
    n : number of points
    ridge : noise variance
    rule : "running", the learnability at the running ridge against the threshold
    threshold : strictly between 0 and 1; a mode exactly at it is kept
    scan : "ir"
        From the largest mode on, up to the first below the threshold; "uv" from the smallest on,
        down to the first above it. They agree where learnability falls with the index.
    degeneracy : (k,) modes a value stands for, 1 by default
    tail : variance outside the spectrum

    Returns
    -------
    int
        Modes kept, whole levels.

    References
    ----------
    arXiv 2405.06008, equation 37.
    """
    _checks.choice("rule", rule, CUTOFF_RULES)
    _checks.choice("scan", scan, ("ir", "uv"))
    threshold = _checks.threshold(threshold)
    levels = _levels(values, degeneracy, n, ridge, tail)
    learnt = _running(*levels, last=scan == "uv")
    if learnt.ndim != 1:
        raise ValueError(f"values must have shape (k,), got {jnp.shape(values)}; cut one at a time")
    above = np.asarray(learnt) >= threshold
    if scan == "ir":
        kept = int(np.argmin(above)) if not above.all() else above.size
    else:
        kept = int(above.nonzero()[0].max(initial=-1)) + 1
    return int(round(float(levels[1][:kept].sum())))
