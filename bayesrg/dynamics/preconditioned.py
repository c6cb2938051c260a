# SPDX-License-Identifier: Apache-2.0
"""Descent on least squares and other losses of outputs, preconditioned in the points' space."""

import warnings
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, random
from jaxtyping import Float

from .. import _checks
from .._checks import ArrayLike
from .core import DIVERGED, GO, REACHED, Algorithm, Info, State
from .counts import fraction
from .gradient import add
from .losses import Weighting, apply_weighting, batch_gradient, weighting
from .preconditioner import Preconditioner


def preconditioned(
    apply: Callable,
    X: ArrayLike,
    y: ArrayLike,
    S: Weighting,
    *,
    step_size: ArrayLike,
    slope: Callable | None = None,
    batch: int | None = None,
    biased: bool = False,
    tol: ArrayLike | None = None,
) -> Algorithm:
    r"""Descend by :math:`w \leftarrow w - \eta J(w)^T S\,(f_w(X) - y)`.

    Parameters
    ----------
    apply : callable
        From parameters, any pytree of arrays, and inputs (n, d) to outputs of the shape of y.
    X : (n, d)
    y : (n,) or (n, c)
    S : Preconditioner, (n, n) symmetric, or None
        By `preconditioner`, say, from the analytic tangent kernel at X.
    step_size : ()
        Step :math:`\eta` for the summed, halved loss; below `stability_limit`.
    slope : callable, optional
        From outputs and y to the derivative of another loss in the outputs, which takes the place
        of the residual everywhere.
    batch : int, optional
        Points at which a step differentiates, drawn again each time; by default all. Outputs are
        computed at all points in any case, unless ``biased``.
    biased : bool
        With a batch, use only its block of S; see `batch_gradient` for what that does.
    tol : (), optional
        Stop where the residual's norm is this fraction of the first.

    Returns
    -------
    Algorithm
        Its loss is half the squared norm of the residual (S is no part of it), and it diverges
        where that norm exceeds ten times the first. Where ``biased`` the loss is estimated from
        the batch, and a run diverges where it is not finite.

    Raises
    ------
    ValueError
        For shapes that do not fit, or a batch out of range.

    Warns
    -----
    UserWarning
        At the start of a run: if modes that S makes zero hold power of the residual, which is
        never learnt; or if the modes that S moves hold less than :math:`1 - \epsilon^2` of it, so
        that the tolerance waits for modes that are not preconditioned.

    Notes
    -----
    For small targets and wide networks `linear_dynamics` predicts the number of steps to one or
    two. Targets of order one leave that regime: plain descent takes up to half more or fewer, and
    preconditioned descent up to five times as many. An S made from the analytic kernel serves a
    network of kernel :math:`K_0` at steps below ``stability_limit(K_0, S)``.

    References
    ----------
    arXiv 2307.14531; arXiv 2410.13271.
    """
    X = _checks.inputs("X", X)
    n = X.shape[0]
    y = _checks.targets("y", y, n)
    S = weighting(S, symmetric=True)
    size = n if S is None else (S.vectors if isinstance(S, Preconditioner) else S).shape[0]
    if size != n:
        raise ValueError(f"S acts on {size} points and X has {n}; make S on the same points")
    if batch is not None:
        _checks.whole("batch", batch, most=n)
    if _checks.flag("biased", biased) and (batch is None or tol is not None):
        raise ValueError(
            "biased is for batches alone, whose residuals fix no tolerance; give batch, and no tol"
        )
    _checks.function("apply", apply)
    if slope is not None:
        _checks.function("slope", slope, "a function of outputs and y")
    step_size = _checks.positive("step_size", step_size, ndim=0)
    tol = tol if tol is None else fraction("tol", tol)
    slope = _residual if slope is None else slope
    rule = _Preconditioned(apply, X, y, S, step_size, slope, tol, batch, biased)
    return Algorithm(rule.init, rule.step, rule.step_size)


def sgd(
    apply: Callable,
    X: ArrayLike,
    y: ArrayLike,
    *,
    step_size: ArrayLike,
    batch: int,
    tol: ArrayLike | None = None,
) -> Algorithm:
    r"""Descend on batches: :math:`w \leftarrow w - \eta\,(n/b)\,J_B^T (f_w(X_B) - y_B)`.

    Parameters
    ----------
    apply : callable
        From parameters, any pytree of arrays, and inputs (n, d) to outputs of the shape of y.
    X : (n, d)
    y : (n,) or (n, c)
    step_size : ()
        Step :math:`\eta` for the summed, halved loss.
    batch : int
        Points b of a step, drawn again each time.
    tol : (), optional
        Stop where the residual's norm is this fraction of the first. A step then computes outputs
        at all points.

    Returns
    -------
    Algorithm
    """
    local = tol is None  # without S a batch's own residuals are enough, and nothing is biased
    return preconditioned(
        apply, X, y, None, step_size=step_size, batch=batch, biased=local, tol=tol
    )


def _residual(outputs, y):
    return outputs - y


class _Preconditioned(eqx.Module):
    apply: Callable
    X: Float[Array, "point feature"]
    y: Array
    S: Weighting
    step_size: Float[Array, ""]
    slope: Callable
    tol: Float[Array, ""] | None
    batch: int | None = eqx.field(static=True)
    biased: bool = eqx.field(static=True)

    def init(self, x0):
        outputs = _checks.returned("apply", self.apply(x0, self.X))
        if outputs.shape != self.y.shape:
            raise ValueError(
                f"apply returns shape {outputs.shape} for targets of shape {self.y.shape}; make "
                "it fit"
            )
        r = _checks.returned("slope", self.slope(outputs, self.y))
        if r.shape != self.y.shape:
            raise ValueError(
                f"slope returns shape {r.shape} for outputs of shape {self.y.shape}; make it fit"
            )
        start = jnp.full_like(jnp.linalg.norm(r), jnp.inf) if self.biased else jnp.linalg.norm(r)
        warn_target(self.S, r, self.tol)
        return State(x0, start)

    def step(self, state, key):
        n, x = self.X.shape[0], state.x
        if self.batch is None:
            outputs, pull = jax.vjp(lambda x: self.apply(x, self.X), x)
            r = self.slope(outputs, self.y)
            (direction,) = pull(apply_weighting(self.S, r))
        else:
            rows = random.choice(key, n, (self.batch,), replace=False)
            r = self._residuals(x, rows)
            direction = batch_gradient(self.apply, x, self.X, r, rows, self.S, biased=self.biased)
        size = jnp.linalg.norm(r)
        if self.biased:
            size = size * (n / self.batch) ** 0.5
        stop = judge(size, state.memory, self.tol)
        moved = State(add(x, -self.step_size, direction), state.memory)
        return moved, Info({"loss": 0.5 * size**2}, stop)

    def _residuals(self, x, rows):
        """Residuals of all points; of the rows alone, and zeros, where those suffice."""
        if not self.biased:
            return self.slope(self.apply(x, self.X), self.y)
        r = self.slope(self.apply(x, self.X[rows]), self.y[rows])
        return jnp.zeros((self.X.shape[0], *r.shape[1:]), r.dtype).at[rows].set(r)


def judge(size, start, tol):
    """Say whether a residual of norm ``size`` ends a run that began at ``start``."""
    stop = jnp.where(size <= 10.0 * start, GO, DIVERGED)
    return stop if tol is None else jnp.where(size <= tol * start, REACHED, stop)


def warn_target(S, r, tol):
    """Warn of power of the residual that is never learnt, or that no mode which S moves holds."""
    if not isinstance(S, Preconditioner) or not all(map(_checks.known, (r, S.gains, S.vectors))):
        return
    power = np.asarray(((S.vectors.T @ r) ** 2).reshape(S.gains.size, -1).sum(1))
    total = float((r**2).sum())
    lost = np.flatnonzero((np.asarray(S.eigenvalues) == 0) & (power > 1e-12 * total))
    if lost.size:
        shown = ", ".join(map(str, lost[:5])) + (", ..." if lost.size > 5 else "")
        warnings.warn(
            f"PGD will not learn {100 * power[lost].sum() / total:.3g}% of the target power (modes "
            f"{shown}): the limit is a truncated fit; give them rates above zero",
            stacklevel=4,
        )
    if tol is None or not _checks.known(tol):
        return
    moved = np.flatnonzero(np.abs(np.asarray(S.gains) - 1) > 1e-9)
    first = 1 + moved.max(initial=-1)  # modes after these have gain one, written out or not
    if 0 < first < len(r) and power[:first].sum() < (1 - float(tol) ** 2) * total:
        warnings.warn(
            f"the {first} modes that S moves hold {100 * power[:first].sum() / total:.4g}% of the "
            f"target power, and a tolerance of {float(tol):.3g} needs "
            f"{100 * (1 - float(tol) ** 2):.4g}%: the others keep the rates of K; raise the rank "
            "of S",
            stacklevel=4,
        )
