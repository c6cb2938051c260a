# SPDX-License-Identifier: Apache-2.0
"""Gradient descent on a loss of outputs, preconditioned in the space of the points."""

from collections.abc import Callable
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, random
from jaxtyping import Float

from .. import _checks
from .._checks import ArrayLike
from .._trajectory import DIVERGED, GO, REACHED, Algorithm, Info, State
from .._warnings import warn
from .counts import fraction
from .gradient import add
from .preconditioner import Preconditioner, Weighting, weighting


def preconditioned(
    apply: Callable,
    X: ArrayLike,
    y: ArrayLike,
    S: Weighting,
    *,
    step_size: ArrayLike,
    slope: Callable | None = None,
    batch: int | None = None,
    tol: ArrayLike | None = None,
) -> Algorithm:
    r"""Return an algorithm for `run`: :math:`w \leftarrow w - \eta J(w)^T S\,(f_w(X) - y)`.

    Parameters
    ----------
    apply : callable
        Function f, with Jacobian J, from parameters w, any pytree of arrays, and inputs (n, d) to
        outputs of the shape of y.
    X : (n, d)
    y : (n,) or (n, c)
    S : Preconditioner, (n, n) symmetric, or None
        For example `preconditioner` of the analytic tangent kernel at X.
    step_size : ()
        Step :math:`\eta` for half the sum of squares; below `stability_limit`.
    slope : callable, optional
        Derivative of another loss with respect to the outputs, as a function of outputs and y. It
        replaces the residual :math:`r = f_w(X) - y` everywhere.
    batch : int, optional
        Number b of points B whose outputs a step differentiates, drawn again at every step; by
        default all n. The residual r is still computed at all points: the gradient
        :math:`(n/b)\,J_B^T(Sr)_B` is unbiased, but it would not be if S acted on the residual of
        the batch alone.
    tol : (), optional
        Stop where the norm of the residual is this fraction of the first one.

    Returns
    -------
    Algorithm
        It observes as loss half the squared norm of the residual, without S. The run counts as
        diverged if that norm is more than ten times the first one.

    Warns
    -----
    UserWarning
        At the start of a run, if a part of the residual is in modes whose rate S sets to zero: this
        part is never learnt. Also if the modes that S changes hold less than :math:`1 - \epsilon^2`
        of the squared residual, with the tolerance :math:`\epsilon`: the run then takes as long as
        the other modes need.

    Notes
    -----
    For small targets and wide networks `linear_dynamics` predicts the number of steps with an error
    of one or two. For targets of order one the kernel changes: plain descent takes up to 50 % more
    or fewer steps than predicted, and preconditioned descent up to five times as many. If S is made
    from the analytic kernel and the network has the tangent kernel :math:`K_0` at its start, take a
    step size below ``stability_limit(K_0, S)``.

    References
    ----------
    arXiv 2307.14531; arXiv 2410.13271.
    """
    X, y, S = _problem(X, y, S)
    if batch is not None:
        _checks.whole("batch", batch, most=len(X))
    _checks.function("apply", apply)
    if slope is not None:
        _checks.function("slope", slope, "a function of outputs and y")
    return _algorithm(apply, X, y, S, step_size, slope or _residual, tol, batch)


def sgd(
    apply: Callable,
    X: ArrayLike,
    y: ArrayLike,
    *,
    step_size: ArrayLike,
    batch: int,
    tol: ArrayLike | None = None,
) -> Algorithm:
    r"""Descend on batches by :math:`w \leftarrow w - \eta\,(n/b)\,J_B^T (f_w(X_B) - y_B)`.

    A batch holds b different points, and the loss is half the **sum** of squares over all n. In
    terms of half the **mean** square the learning rate is :math:`\alpha = n\eta`: give
    ``step_size=learning_rate / n``. Batches with replacement, and a learning rate of the mean
    loss, are those of `minibatch` and `sgld`.

    Parameters
    ----------
    apply : callable
        From parameters, any pytree of arrays, and inputs (n, d) to outputs of the shape of y.
    X : (n, d)
    y : (n,) or (n, c)
    step_size : ()
        Step :math:`\eta` for half the sum of squares.
    batch : int
        Number b of points of a step, drawn again each time.
    tol : (), optional
        Stop where the norm of the residual is this fraction of the first one. A step then computes
        outputs at all points.

    Returns
    -------
    Algorithm
        It observes half the sum of squares: without ``tol`` an estimate from the batch, which
        diverges where it is not finite.
    """
    X, y, _ = _problem(X, y, None)
    _checks.function("apply", apply)
    batch = _checks.whole("batch", batch, most=len(X))
    return _algorithm(apply, X, y, None, step_size, _residual, tol, batch, local=tol is None)


def dual(
    K: ArrayLike,
    y: ArrayLike,
    S: Weighting = None,
    *,
    step_size: ArrayLike,
    ridge: ArrayLike = 0.0,
    tol: ArrayLike | None = None,
) -> Algorithm:
    r"""Descend in dual coordinates, by :math:`a \leftarrow a - \eta S((K + \rho)a - y)`.

    The limit is that of kernel ridge regression, :math:`(K + \rho)^{-1}y`, for every invertible S.
    Make S with the same ridge, ``preconditioner(K, g, ridge=ridge)``: without it modes of small
    eigenvalues may diverge.

    Parameters
    ----------
    K : (n, n)
        Gram matrix.
    y : (n,) or (n, c)
    S : Preconditioner, (n, n) symmetric, or None
    step_size : ()
    ridge : ()
        Ridge :math:`\rho`, a variance.
    tol : (), optional
        Stop where the norm of :math:`(K + \rho)a - y` is this fraction of the first one.

    Returns
    -------
    Algorithm
        For positions a of the shape of y.

    References
    ----------
    arXiv 2307.14531.
    """
    K = _checks.symmetric("K", K)
    _, y, S = _problem(K, y, S)
    K = K + _checks.nonnegative("ridge", ridge, ndim=0) * jnp.eye(len(K), dtype=K.dtype)

    # preconditioned descent whose parameters are the outputs, along another slope
    return _algorithm(_coordinates, K, y, S, step_size, partial(_dual_residual, K), tol)


def _coordinates(a, X):
    return a


def _dual_residual(K, a, y):
    return K @ a - y


def _residual(outputs, y):
    return outputs - y


def _problem(X, y, S):
    """Check inputs, targets and a preconditioner of the same points."""
    X = _checks.inputs("X", X)
    return X, _checks.targets("y", y, len(X)), weighting(S, len(X))


def _algorithm(apply, X, y, S, step_size, slope, tol, batch=None, local=False):
    step_size = _checks.positive("step_size", step_size, ndim=0)
    tol = tol if tol is None else fraction("tol", tol)
    rule = _Preconditioned(apply, X, y, S, step_size, slope, tol, batch, local)
    return Algorithm(rule.init, rule.step, rule.step_size)


class _Preconditioned(eqx.Module):
    """State and step of `preconditioned`. With ``local`` a step reads the targets of its batch."""

    apply: Callable
    X: Float[Array, "point feature"]
    y: Array
    S: Weighting
    step_size: Float[Array, ""]
    slope: Callable
    tol: Float[Array, ""] | None
    batch: int | None = eqx.field(static=True)
    local: bool = eqx.field(static=True)

    def init(self, x0):
        outputs = _checks.returned("apply", self.apply(x0, self.X))
        if outputs.shape != self.y.shape:
            raise ValueError(
                f"outputs have shape {outputs.shape} for targets of shape {self.y.shape}; make "
                "apply or the position fit"
            )
        r = _checks.returned("slope", self.slope(outputs, self.y))
        if r.shape != self.y.shape:
            raise ValueError(
                f"slope returns shape {r.shape} for outputs of shape {self.y.shape}; make it fit"
            )
        warn_target(self.S, r, self.tol)
        size = jnp.linalg.norm(r)
        return State(x0, jnp.full_like(size, jnp.inf) if self.local else size)

    def step(self, state, key):
        x, n = state.x, len(self.X)
        if self.batch is None:
            outputs, pull = jax.vjp(lambda x: self.apply(x, self.X), x)
            r = self.slope(outputs, self.y)
            size, force = jnp.linalg.norm(r), self._weighted(r)
        else:
            rows, share = random.choice(key, n, (self.batch,), replace=False), n / self.batch
            outputs, pull = jax.vjp(lambda x: self.apply(x, self.X[rows]), x)
            if self.local:
                r = self.slope(outputs, self.y[rows])
                size, force = jnp.linalg.norm(r) * share**0.5, share * r
            else:
                r = self.slope(self.apply(x, self.X), self.y)
                size, force = jnp.linalg.norm(r), share * self._weighted(r)[rows]

        stop = jnp.where(size <= 10.0 * state.memory, GO, DIVERGED)
        if self.tol is not None:
            stop = jnp.where(size <= self.tol * state.memory, REACHED, stop)
        moved = State(add(x, -self.step_size, pull(force)[0]), state.memory)
        return moved, Info({"loss": 0.5 * size**2}, stop)

    def _weighted(self, r):
        return r if self.S is None else self.S @ r


def warn_target(S, r, tol):
    """Warn if S leaves much of a residual r (n,) or (n, c) unlearnt, or as slow as without S."""
    if not isinstance(S, Preconditioner) or not all(map(_checks.known, (r, S.gains, S.vectors))):
        return
    V, r = np.asarray(S.vectors), np.asarray(r)
    power, total = ((V.T @ r) ** 2).reshape(S.gains.size, -1).sum(1), (r**2).sum()
    lost = np.flatnonzero((np.asarray(S.eigenvalues) == 0) & (power > 1e-12 * total))
    if lost.size:
        shown = ", ".join(map(str, lost[:5])) + (", ..." if lost.size > 5 else "")
        warn(
            f"PGD will not learn {100 * power[lost].sum() / total:.3g}% of the target power (modes "
            f"{shown}): the limit is a truncated fit; give them rates above zero"
        )
    if tol is None or not _checks.known(tol):
        return
    moved = np.flatnonzero(np.abs(np.asarray(S.gains) - 1) > 1e-9)
    first = 1 + moved.max(initial=-1)  # all later modes have gain 1, whether or not S lists them
    covered, needed = power[:first].sum() / total if total else 1.0, 1 - float(tol) ** 2
    if 0 < first < len(r) and covered < needed:
        warn(
            f"the {first} modes that S moves hold {100 * covered:.4g}% of the target power, and a "
            f"tolerance of {float(tol):.3g} needs {100 * needed:.4g}%: the others keep the rates "
            "of K; raise the rank of S"
        )
