# SPDX-License-Identifier: Apache-2.0
"""The best ridge for the error on new data, or for the evidence."""

from functools import partial

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

_HALVINGS = 50


class Optimum(eqx.Module):
    """Best ridges and the grid on which they were looked for; see `optimal_ridge`.

    Attributes
    ----------
    criterion : "test" or "evidence"
    n : (...) number of rows
    ridge : (...) the best
    value : (...) test error there, or log evidence
    at_bound : (...) whether the best ridge is an end of the range, so that none lies inside
    noise_variance : (...)
        Of the model at the best ridge: as given, or profiled; None for the test error.
    grid : (g,) ridges looked at first
    grid_value : (..., g) test error or log evidence there
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
    points: int = 121,
) -> Optimum:
    r"""Find the ridge of least test error or largest evidence by a grid and bisection around its best.

    Parameters
    ----------
    moments : Moments
    n : (...) number of rows, positive reals
    criterion : "test" or "evidence"
    bounds : (low, high), positive, optional
        Range of ridges; 1e-8 and 1e4 times the sum of the eigenvalues by default.
    noise_variance : (), optional
        For the evidence: the model's noise variance, held fixed while the ridge moves the prior
        variance noise_variance / ridge. Without it the prior variance is profiled,
        :math:`\alpha = y^T(K+\lambda)^{-1}y/n`, and the noise variance follows it.
    points : int, ridges in the grid

    Returns
    -------
    Optimum
        Errors can have several minima in the ridge: the grid shows them.

    Raises
    ------
    ValueError
        For moments of several targets, another criterion, a range that is not 0 < low < high, fewer
        than 3 points, or a noise variance where the test error is asked for.

    Notes
    -----
    In a matched model, weights drawn from the prior, both criteria give noise over prior variance
    at every n. They differ if the prior is wrong. The ridge has two derivatives in the moments, n
    and the noise variance; at an end of the range it has those of that end.

    References
    ----------
    arXiv 2402.13999.
    """  # noqa: E501
    _checks.warn_32_bits("theory.optimal_ridge")
    _checks.choice("criterion", criterion, ("test", "evidence"))
    _checks.instance("moments", moments, Moments, _checks.MOMENTS)
    dtype = moments.values.dtype
    n = _checks.positive("n", n).astype(dtype)
    if noise_variance is not None:
        if criterion == "test":
            raise ValueError(
                f"noise_variance = {noise_variance} has no part in the test error; leave it out or "
                "give criterion='evidence'"
            )
        noise_variance = _checks.positive("noise_variance", noise_variance, ndim=0).astype(dtype)
    if moments.power.ndim > 1:
        raise ValueError(
            f"moments hold {moments.power.shape[1]} targets, which have a best ridge each; give "
            "those of one at a time"
        )
    if bounds is None:
        bounds = moments.values.sum() * np.array([1e-8, 1e4], dtype)
    else:
        bounds = _checks.positive("bounds", bounds, ndim=1).astype(dtype)
        if bounds.shape != (2,):
            raise ValueError(f"bounds must be (low, high), got shape {bounds.shape}")
    if _checks.known(bounds) and not 0 < np.asarray(bounds)[0] < np.asarray(bounds)[1]:
        raise ValueError(
            f"bounds must be 0 < low < high, got {bounds[0]} and {bounds[1]}; features that "
            "vanish have no best ridge"
        )
    if _checks.whole("points", points) < 3:
        raise ValueError(f"points must be at least 3 to enclose an optimum, got {points}")
    profiled = noise_variance is None
    s2 = jnp.asarray(1.0, dtype) if profiled else noise_variance
    found = _optimise(moments, n, bounds, points, s2, criterion == "test", profiled)
    noise_variance = found.pop("noise_variance")
    return Optimum(
        criterion=criterion,
        n=n,
        noise_variance=None if criterion == "test" else noise_variance,
        **found,
    )


@partial(jax.jit, static_argnames="points")
def _optimise(moments, n, bounds, points, s2, for_test, profiled):
    """Optimum over the log of the ridge; what is aimed at is data, so one program serves all."""
    logs = jnp.linspace(*jnp.log(bounds), points)
    given = moments, n, s2

    def loss(log_ridge, given=given):
        """What is minimised, for n (...) and ridges that begin with its axes; prior variance."""
        moments, n, s2 = given
        ridge = jnp.exp(log_ridge)
        rows = n.reshape(n.shape + (1,) * (log_ridge.ndim - n.ndim))
        e = equivalent(moments, rows, ridge, ridgeless=False)
        alpha = jnp.where(profiled, e.data_fit / e.n, s2 / ridge)
        # the evidence at prior variance alpha in place of 1
        gain = 0.5 * (e.data_fit - e.data_fit / alpha - e.n * jnp.log(alpha))
        return jnp.where(for_test, e.test, -e.log_evidence - gain), alpha

    slope = jax.grad(lambda u, given: loss(u, given)[0].sum())
    fixed = jax.lax.stop_gradient(given)
    on_grid = loss(jnp.broadcast_to(logs, n.shape + logs.shape))[0]
    best = on_grid.argmin(-1)
    ends = logs[jnp.clip(best - 1, 0)], logs[jnp.clip(best + 1, max=points - 1)]
    ends = jax.lax.stop_gradient(ends)
    found = bisect(lambda u: slope(u, fixed) < 0, *ends, _HALVINGS)
    inside = implicit(slope, sum(found) / 2, given)
    # a loss that is level at an end has no optimum inside
    least = on_grid.min(-1, keepdims=True)
    level = on_grid <= least + 8 * jnp.finfo(logs.dtype).eps * jnp.abs(least)
    first = (inside - logs[0] < 1e-9) | level[..., :2].all(-1)
    last = (logs[-1] - inside < 1e-9) | level[..., -2:].all(-1)
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
