# SPDX-License-Identifier: Apache-2.0
"""The best ridge for the error on new data, or for the evidence."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float

from .. import _checks
from .._checks import ArrayLike
from .._fixedpoint import bisect, implicit
from .equivalents import equivalent
from .moments import Moments

_POINTS, _HALVINGS = 121, 50


class Optimum(eqx.Module):
    """Best ridges, and the grid on which they were looked for; see `optimal_ridge`.

    Attributes
    ----------
    criterion : "test" or "evidence"
    n : (...) number of rows
    ridge : (...) the best
    value : (...) test error or log evidence at the best ridge
    at_bound : (...) whether the best ridge is an end of the range, so that none is inside
    noise_variance : (...)
        Of the model at the best ridge: as given, or profiled; None for the test error.
    grid : (g,) ridges that were tried first
    grid_value : (..., g) test error or log evidence on the grid
    """

    criterion: str = eqx.field(static=True)
    n: Float[Array, " *n_train"]
    ridge: Float[Array, " *n_train"]
    value: Float[Array, " *n_train"]
    at_bound: Bool[Array, " *n_train"]
    noise_variance: Float[Array, " *n_train"] | None
    grid: Float[Array, " grid"]
    grid_value: Float[Array, "*n_train grid"]


def optimal_ridge(
    moments: Moments,
    n: ArrayLike,
    criterion: str = "test",
    bounds: tuple | None = None,
    *,
    noise_variance: ArrayLike | None = None,
) -> Optimum:
    r"""Find the ridge with the smallest test error or the largest evidence.

    Ridges are tried on a grid; then the interval around the best one is halved again and again.

    Parameters
    ----------
    moments : Moments
        From `moments`, `population_moments` or `spectral_moments`, of one target.
    n : (...) number of rows, positive real
    criterion : "test" or "evidence"
    bounds : (low, high), positive, optional
        Range of ridges; 1e-8 and 1e4 times the sum of the eigenvalues by default.
    noise_variance : (), optional
        For the evidence: fixed noise variance of the model. The prior variance of the weights is
        then noise_variance / ridge. By default the prior variance is the one of largest evidence at
        each ridge, :math:`\alpha = y^T(K+\lambda)^{-1}y/n` with K the Gram matrix of the features,
        and the noise variance is alpha times the ridge.

    Returns
    -------
    Optimum
        The error can have several minima as a function of the ridge: ``grid_value`` shows them.

    Raises
    ------
    ValueError
        For moments of several targets, an unknown criterion, a range that is not 0 < low < high, or
        a noise variance with the test error.

    Notes
    -----
    If the weights of the target are drawn from the prior, both criteria give the ridge noise
    variance / prior variance at every n. They differ if the prior is wrong. The ridge can be
    differentiated twice in the moments, n and the noise variance. If it is an end of the range, its
    derivatives are those of that end.

    References
    ----------
    arXiv 2402.13999.
    """
    _checks.warn_32_bits("theory.optimal_ridge")
    _checks.choice("criterion", criterion, ("test", "evidence"))
    _checks.instance("moments", moments, Moments, _checks.MOMENTS)
    dtype = moments.values.dtype
    n = _checks.positive("n", n).astype(dtype)
    for_test, profiled = criterion == "test", noise_variance is None
    if not profiled and for_test:
        raise ValueError(
            f"noise_variance = {noise_variance} has no part in the test error; leave it out or "
            "give criterion='evidence'"
        )
    noise_variance = 1.0 if profiled else noise_variance
    noise_variance = _checks.positive("noise_variance", noise_variance, ndim=0).astype(dtype)
    if moments.power.ndim > 1:
        raise ValueError(
            f"moments hold {moments.power.shape[1]} targets, which have a best ridge each; give "
            "those of one at a time"
        )
    if bounds is None:
        bounds = moments.values.sum() * np.array([1e-8, 1e4], dtype)
    else:
        bounds = _checks.shaped("bounds", bounds, (2,), "low and high").astype(dtype)
    if _checks.known(bounds) and not 0 < np.asarray(bounds)[0] < np.asarray(bounds)[1]:
        raise ValueError(
            f"bounds must be 0 < low < high, got {bounds[0]} and {bounds[1]}; features that "
            "vanish have no best ridge"
        )
    found = _optimise(moments, n, bounds, noise_variance, for_test, profiled)
    if for_test:
        found["noise_variance"] = None
    return Optimum(criterion=criterion, n=n, **found)


@jax.jit
def _optimise(moments, n, bounds, noise_variance, for_test, profiled):
    """Fields of the `Optimum`. The two flags are arrays, so that one program serves all cases."""
    logs = jnp.linspace(*jnp.log(bounds), _POINTS)
    given = moments, n, noise_variance

    def loss(log_ridge, given=given):
        """What is minimised, for n (...) and ridges whose shape begins with (...); prior variance.

        The evidence at prior variance alpha is that at prior variance 1 plus a closed form.
        """
        moments, n, noise_variance = given
        ridge = jnp.exp(log_ridge)
        rows = n.reshape(n.shape + (1,) * (log_ridge.ndim - n.ndim))
        e = equivalent(moments, rows, ridge, ridgeless=False)
        alpha = jnp.where(profiled, e.data_fit / e.n, noise_variance / ridge)
        gain = 0.5 * (e.data_fit - e.data_fit / alpha - e.n * jnp.log(alpha))
        return jnp.where(for_test, e.test, -e.log_evidence - gain), alpha

    slope = jax.grad(lambda u, given: loss(u, given)[0].sum())
    fixed = jax.lax.stop_gradient(given)
    on_grid = loss(jnp.broadcast_to(logs, n.shape + logs.shape))[0]
    best = on_grid.argmin(-1)
    ends = logs[jnp.clip(best - 1, 0)], logs[jnp.clip(best + 1, max=_POINTS - 1)]
    low, high = bisect(lambda u: slope(u, fixed) < 0, *jax.lax.stop_gradient(ends), _HALVINGS)
    inside = implicit(slope, (low + high) / 2, given)

    # The best is an end of the range if the halving ended there, or if the loss is flat there: then
    # the sign of its slope is a rounding error.
    least = on_grid.min(-1, keepdims=True)
    flat = on_grid <= least + 8 * jnp.finfo(logs.dtype).eps * jnp.abs(least)
    first = (inside - logs[0] < 1e-9) | flat[..., :2].all(-1)
    last = (logs[-1] - inside < 1e-9) | flat[..., -2:].all(-1)
    where = jnp.where(first, logs[0], jnp.where(last, logs[-1], inside))
    value, alpha = loss(where)
    sign = jnp.where(for_test, 1.0, -1.0)
    ridge = jnp.exp(where)
    return {
        "ridge": ridge,
        "value": sign * value,
        "at_bound": first | last,
        "noise_variance": alpha * ridge,
        "grid": jnp.exp(logs),
        "grid_value": sign * on_grid,
    }
