# SPDX-License-Identifier: Apache-2.0
"""Number of descent steps that a mode takes."""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from .. import _checks
from .._checks import ArrayLike


def step_count(
    rates: ArrayLike, step_size: ArrayLike, tol: ArrayLike = 1e-2
) -> Float[Array, " *mode"]:
    r"""Count the steps of descent until a given fraction of a mode is left.

    .. math:: T = \max\left(1, \left\lceil \frac{\ln\epsilon}{\ln|1 - \eta g|}\right\rceil\right)

    Parameters
    ----------
    rates : (...)
        Rates g of the modes: eigenvalues of the Gram matrix, or of it times the preconditioner.
    step_size : ()
        Step :math:`\eta` for half the sum of squares.
    tol : ()
        Fraction :math:`\epsilon` of the mode, between 0 and 1.

    Returns
    -------
    (...)
        Whole numbers: 1 for :math:`\eta g = 1`, and inf for :math:`|1 - \eta g| \ge 1`, where the
        mode does not shrink.

    References
    ----------
    arXiv 2307.14531, section 4.
    """
    rates = _checks.nonnegative("rates", rates)
    step_size = _checks.positive("step_size", step_size, ndim=0)
    return _steps(rates, step_size, fraction("tol", tol))


@jax.jit
def _steps(rates, step_size, tol):
    x = step_size * rates
    left = jnp.abs(1.0 - x)

    # log1p keeps the digits of small x; inner wheres keep nan out of derivatives
    small = jnp.clip(x, jnp.finfo(x.dtype).tiny, 0.5)
    log = jnp.where(x < 0.5, jnp.log1p(-small), jnp.log(jnp.where(left > 0, left, 0.5)))
    ratio = jnp.log(tol) / jnp.where(log < 0, log, -1.0)

    # a ratio that is a whole number must not be rounded up by its rounding error
    steps = jnp.maximum(jnp.ceil(ratio * (1.0 - 1e-12)), 1.0)
    steps = jnp.where(left == 0, 1.0, steps)
    return jnp.where((x > 0) & (x < 2), steps, jnp.inf)


def fraction(name: str, value: ArrayLike) -> Float[Array, ""]:
    """Return one number as a JAX array; raise unless it is strictly between 0 and 1."""
    value = _checks.finite(name, value, ndim=0)
    if _checks.known(value) and not 0 < value < 1:
        raise ValueError(f"{name} must lie between 0 and 1, got {value}; it is a fraction")
    return value
