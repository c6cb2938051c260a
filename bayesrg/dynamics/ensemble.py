# SPDX-License-Identifier: Apache-2.0
"""Infinitely wide networks in training, averaged over their random initial weights."""

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
    """Result of `ensemble`. If the time is one number, both lack their first axis.

    Attributes
    ----------
    mean : (s, m) or (s, m, c)
        Mean of the outputs at the new inputs.
    cov : (s, m, m)
        Covariance of the outputs at the new inputs, equal for all c outputs.
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
    r"""Predict the outputs of infinitely wide networks at any time of their training.

    Over random initial weights the outputs are Gaussian. With
    :math:`A = k(x, X)K^{-1}[1 - (1 - \eta K S)^t]` their mean is A y and their covariance
    :math:`\Sigma(x, x') + A\Sigma A'^T - A\Sigma(X, x') - \Sigma(x, X)A'^T`.

    Parameters
    ----------
    tangent : Kernel
        Kernel k of the training, such as `bayesrg.kernels.NTK`.
    prior : Kernel
        Covariance :math:`\Sigma` of the outputs at the start, such as `bayesrg.kernels.NNGP`.
    X : (n, d)
    y : (n,) or (n, c)
    X_new : (m, d)
    t : () or (s,)
        Numbers of steps; if ``step_size`` is None, times of gradient flow.
    S, step_size, weight_decay
        Preconditioner, step and weight decay, see `linear_dynamics`.

    Returns
    -------
    Ensemble

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
