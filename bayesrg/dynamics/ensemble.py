# SPDX-License-Identifier: Apache-2.0
"""Infinitely wide networks in training, averaged over their random starts."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from .. import _checks
from .._checks import ArrayLike
from ..kernels import Kernel
from .linear import linear_dynamics
from .preconditioner import Preconditioner


class Ensemble(NamedTuple):
    """Law of wide networks' outputs at new inputs over their random starts; see `ensemble`.

    ``mean`` (s, m) or (s, m, c) and ``cov`` (s, m, m), the same for every output; without the
    first axis where the time is one number.
    """

    mean: Float[Array, "*time point_new"] | Float[Array, "*time point_new output"]
    cov: Float[Array, "*time point_new point_new_bis"]


def ensemble(
    tangent: Kernel,
    prior: Kernel,
    X: ArrayLike,
    y: ArrayLike,
    X_new: ArrayLike,
    t: ArrayLike,
    *,
    S: Preconditioner | ArrayLike | None = None,
    step_size: ArrayLike | None = None,
    weight_decay: ArrayLike = 0.0,
) -> Ensemble:
    r"""Predict mean and covariance of infinitely wide networks at any time of their training.

    With :math:`A = k(x, X)K^{-1}[1 - (1 - \eta K S)^t]` the mean is A y, and the covariance
    :math:`\Sigma(x, x') + A\Sigma A'^T - A\Sigma(X, x') - \Sigma(x, X)A'^T`.

    Parameters
    ----------
    tangent : Kernel
        k: `bayesrg.kernels.NTK`.
    prior : Kernel
        Sigma, covariance of the outputs at the start: `bayesrg.kernels.NNGP`.
    X : (n, d)
    y : (n,) or (n, c)
    X_new : (m, d)
    t : () or (s,)
        Steps, or with ``step_size`` None the time of the flow.
    S, step_size, weight_decay : as in `linear_dynamics`

    Returns
    -------
    mean : (s, m) or (s, m, c)
    cov : (s, m, m)
        The same for every output. Both are without the first axis where t is one number.

    Raises
    ------
    ValueError
        As `linear_dynamics`, and for targets that do not fit the inputs.

    References
    ----------
    arXiv 1902.06720, equations 14 to 16; arXiv 2307.14531.
    """
    for name, kernel in (("tangent", tangent), ("prior", prior)):
        _checks.instance(name, kernel, Kernel, _checks.KERNEL)
    X, X_new = _checks.inputs("X", X), _checks.inputs("X_new", X_new)
    _checks.columns("X_new", X_new, X.shape[1], "X")
    y = _checks.targets("y", y, X.shape[0])
    dynamics = linear_dynamics(tangent(X), S, step_size=step_size, weight_decay=weight_decay)
    A = dynamics.smoother(t, tangent(X_new, X))
    cross = A @ prior(X, X_new)
    transposed = jnp.swapaxes(cross, -1, -2)
    cov = prior(X_new) + A @ prior(X) @ jnp.swapaxes(A, -1, -2) - cross - transposed
    return Ensemble(A @ y, cov)
