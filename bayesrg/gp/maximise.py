# SPDX-License-Identifier: Apache-2.0
"""Point estimates of hyper-parameters: the maximum of the evidence."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from scipy.optimize import minimize

from .. import _checks
from .._checks import ArrayLike
from .._linalg import quad_logdet
from ..kernels import Kernel
from .regression import Posterior, condition


class Maximum(NamedTuple):
    """Hyper-parameters of greatest evidence, the posterior there, and whether it was reached."""

    theta: Any
    posterior: Posterior
    converged: bool


_RETURNS = "a function that returns a Kernel"


def maximise_evidence(
    make_kernel: Callable[[Any], Kernel],
    theta0: Any,
    X: ArrayLike,
    y: ArrayLike,
    *,
    ridge: ArrayLike | None = None,
    restarts: int = 4,
    key: jax.Array | int = 0,
) -> Maximum:
    """Maximise the log evidence over positive hyper-parameters.

    Parameters
    ----------
    make_kernel : callable
        From hyper-parameters, a pytree like ``theta0``, to a kernel.
    theta0 : pytree of positive numbers or arrays
        Where to start. All are searched in their logarithm.
    X : (n, d)
    y : (n,) or (n, c)
    ridge : () or (n,), optional
        Noise variance, held fixed. By default it is the entry ``"ridge"`` of the mapping
        ``theta0`` and is searched too.
    restarts : int
        Further starts, at ``theta0`` times log-normal factors of unit width.
    key : seed of the restarts

    Returns
    -------
    Maximum
        ``theta``, ``posterior``, ``converged``: the best of all starts.

    Raises
    ------
    ValueError
        If an entry of ``theta0`` is not positive, or there is no ridge.
    """
    _checks.require_x64("gp.maximise_evidence")
    X = _checks.inputs("X", X, wide=True)
    y = _checks.targets("y", y, X.shape[0])
    if ridge is None and not (isinstance(theta0, Mapping) and "ridge" in theta0):
        raise ValueError(
            'there is no ridge: give ridge= to hold it fixed, or an entry "ridge" in theta0 to '
            "search it"
        )
    _checks.function("make_kernel", make_kernel, "a function of theta that gives a kernel")
    restarts = _checks.whole("restarts", restarts, least=0)
    ridge = ridge if ridge is None else _checks.nonnegative("ridge", ridge, ndim=(0, 1))
    if ridge is not None and ridge.shape not in ((), X.shape[:1]):
        raise ValueError(f"ridge has shape {ridge.shape} for {X.shape[0]} points; give () or (n,)")
    if not jax.tree.leaves(theta0):
        raise ValueError("theta0 is empty; give positive numbers, e.g. {'lengthscale': 1.0}")
    theta0 = jax.tree.map(lambda v: _checks.positive("theta0", v), theta0)
    start, unravel = ravel_pytree(jax.tree.map(jnp.log, theta0))
    rows = y.reshape(X.shape[0], -1).T
    eye = jnp.eye(X.shape[0], dtype=X.dtype)

    def model(log_theta):
        theta = jax.tree.map(jnp.exp, unravel(log_theta))
        kernel = _checks.instance("make_kernel", make_kernel(theta), Kernel, _RETURNS)
        return theta, kernel, theta["ridge"] if ridge is None else jnp.asarray(ridge)

    @jax.jit
    @jax.value_and_grad
    def loss(log_theta):
        _, kernel, noise = model(log_theta)
        quad, log_det = quad_logdet(kernel(X) + noise * eye, rows)
        return 0.5 * (quad.sum() + rows.shape[0] * log_det)

    def objective(log_theta):
        value, gradient = loss(log_theta)
        if not np.isfinite(value):
            return 1e300, np.zeros_like(log_theta)
        return float(value), np.asarray(gradient)

    key = _checks.random_key(key)
    jumps = jax.random.normal(key, (restarts, start.size))
    starts = [start, *(start + jumps)]
    results = [minimize(objective, np.asarray(x), jac=True, method="L-BFGS-B") for x in starts]
    best = min(results, key=lambda result: result.fun)
    theta, kernel, noise = model(jnp.asarray(best.x))
    return Maximum(theta, condition(kernel, X, y, noise), bool(best.success and best.fun < 1e300))
