# SPDX-License-Identifier: Apache-2.0
"""Posterior of the width of a gas, in closed form."""

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from .. import _checks
from .._checks import ArrayLike
from .statistics import ascending


def scale_posterior(
    levels: ArrayLike,
    loc: ArrayLike | str = "each",
    *,
    beta: ArrayLike = 1.0,
    shape: ArrayLike = 0.0,
    rate: ArrayLike = 0.0,
) -> dist.InverseGamma:
    r"""Return the posterior of the squared width of a `CoulombGas`, given m spectra of it.

    The sum of :math:`(x_i - x_0)^2/\sigma^2` over one spectrum has a chi-squared distribution with
    :math:`\nu = n + \beta n(n-1)/2` degrees of freedom, so an inverse Gamma prior of
    :math:`\sigma^2` stays one.

    Parameters
    ----------
    levels : (m, n) or (n,)
        Ascending levels of m spectra.
    loc : (), "shared" or "each"
        Centre of the gas: known, or fitted by the mean of all levels, or of each spectrum. Every
        fitted centre costs one degree of freedom. With two levels "each" uses their spacings alone.
    beta : ()
        Repulsion.
    shape, rate : (), at least 0
        Of the Gamma prior of :math:`1/\sigma^2`; at 0 the prior is flat in :math:`\log\sigma`.

    Returns
    -------
    numpyro.distributions.InverseGamma
        Of :math:`\sigma^2`.

    Raises
    ------
    ValueError
        For levels that are not ascending, or too few for the centres that are fitted.

    References
    ----------
    arXiv 2407.16427.
    """
    _checks.warn_32_bits("a gas of levels")
    levels = jnp.atleast_2d(ascending("levels", _checks.finite("levels", levels, ndim=(1, 2))))
    m, n = levels.shape
    beta = _checks.nonnegative("beta", beta, ndim=0)
    shape = _checks.nonnegative("shape", shape, ndim=0)
    rate = _checks.nonnegative("rate", rate, ndim=0)

    fitted = {"shared": 1, "each": m}.get(loc, 0) if isinstance(loc, str) else 0
    if isinstance(loc, str):
        _checks.choice("loc", loc, ("shared", "each"))
        loc = None
    else:
        loc = _checks.finite("loc", loc, ndim=0)
    degrees = m * (n + beta * n * (n - 1) / 2) - fitted
    if _checks.known(degrees) and not degrees > 0:
        raise ValueError(
            f"levels of shape {(m, n)} leave no degree of freedom for the width after the centres "
            'are fitted; give a known loc, or loc="shared"'
        )
    each = fitted == m and m > 1
    return dist.InverseGamma(*_parameters(levels, loc, each, degrees, shape, rate))


@jax.jit(static_argnames="each")
def _parameters(levels, loc, each, degrees, shape, rate):
    centre = levels.mean(-1 if each else None, keepdims=True) if loc is None else loc
    return shape + degrees / 2, rate + ((levels - centre) ** 2).sum() / 2
