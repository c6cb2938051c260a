# SPDX-License-Identifier: Apache-2.0
"""Preconditioned descent that keeps a ridge exactly: in dual coordinates."""

import equinox as eqx
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from .. import _checks
from .._checks import ArrayLike
from .core import Algorithm, Info, State
from .counts import fraction
from .losses import Weighting, apply_weighting, weighting
from .preconditioned import judge, warn_target


def dual(
    K: ArrayLike,
    y: ArrayLike,
    S: Weighting = None,
    *,
    step_size: ArrayLike,
    ridge: ArrayLike = 0.0,
    tol: ArrayLike | None = None,
) -> Algorithm:
    r"""Descend in dual coordinates, :math:`a \leftarrow a - \eta S((K + \rho)a - y)`.

    The limit is that of kernel ridge regression, :math:`(K + \rho)^{-1}y`, at every S, which must
    be made with the ridge: ``preconditioner(K, g, ridge=ridge)``. One that was made without lets
    small modes diverge.

    Parameters
    ----------
    K : (n, n)
    y : (n,) or (n, c)
    S : as in `preconditioned`
    step_size : ()
    ridge : ()
        Ridge :math:`\rho`, a variance.
    tol : (), optional
        Stop where the norm of :math:`(K + \rho)a - y` is this fraction of the first.

    Returns
    -------
    Algorithm
        For positions a (n,) or (n, c).

    References
    ----------
    arXiv 2307.14531.
    """
    K = _checks.symmetric("K", K)
    ridge = _checks.nonnegative("ridge", ridge, ndim=0)
    K = K + ridge * jnp.eye(K.shape[0], dtype=K.dtype)
    y = _checks.targets("y", y, K.shape[0])
    S = weighting(S, symmetric=True)
    tol = tol if tol is None else fraction("tol", tol)
    rule = _Dual(K, y, S, _checks.positive("step_size", step_size, ndim=0), tol)
    return Algorithm(rule.init, rule.step, rule.step_size)


class _Dual(eqx.Module):
    K: Float[Array, "point point_bis"]
    y: Array
    S: Weighting
    step_size: Float[Array, ""]
    tol: Float[Array, ""] | None

    def init(self, x0):
        r = self.K @ x0 - self.y
        warn_target(self.S, r, self.tol)
        return State(x0, jnp.linalg.norm(r))

    def step(self, state, key):
        r = self.K @ state.x - self.y
        size = jnp.linalg.norm(r)
        stop = judge(size, state.memory, self.tol)
        moved = State(state.x - self.step_size * apply_weighting(self.S, r), state.memory)
        return moved, Info({"loss": 0.5 * size**2}, stop)
